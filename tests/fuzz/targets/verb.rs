//! A command on its way into an atServer. What is printed of it is read again, and printed the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use noports::at::{Verb, verb::Dialect};

fuzz_target!(|line: &str| {
    for dialect in [Dialect::Lenient, Dialect::Classic] {
        let Ok(verb) = Verb::parse(line, dialect) else {
            continue;
        };
        if let Ok(printed) = verb.line() {
            let again = Verb::parse(&printed, dialect).expect(&printed);
            assert_eq!(again.to_string(), printed, "{line:?}");
        }
    }
});
