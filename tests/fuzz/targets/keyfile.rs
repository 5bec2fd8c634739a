//! Key files. One that reads is written as a file that holds the same keys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use noports::at::keyfile::AtKeys;

fuzz_target!(|text: &str| {
    let who = "@alice".parse().expect("an atSign");
    let Ok(keys) = AtKeys::parse(&who, text) else {
        return;
    };
    let again = AtKeys::parse(&who, keys.print().reveal()).expect("our own file");
    assert_eq!(again.pkam.public().text, keys.pkam.public().text);
    assert_eq!(
        again.encryption.public().text,
        keys.encryption.public().text
    );
    assert_eq!(again.enrollment_id, keys.enrollment_id);
});
