//! Keys and atSigns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use noports::at::{AtKey, AtSign, Notification};

fuzz_target!(|text: &str| {
    if let Ok(who) = text.parse::<AtSign>() {
        assert_eq!(who.as_str().parse(), Ok(who.clone()), "{who}");
    }
    for read in [text.parse::<AtKey>(), AtKey::parse_as_written(text)] {
        let Ok(key) = read else { continue };
        let printed = key.to_string();
        assert!(!printed.contains(char::is_whitespace), "{printed:?}");
        assert_eq!(AtKey::parse_as_written(&printed), Ok(key.clone()));
        let _ = (key.is_reserved(), key.is_protected());
    }
    let _ = Notification::parse(text);
});
