//! What a monitor shows. A notification that reads is printed on one line and reads back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use noports::at::{
    Notification,
    notification::{Extra, Form},
};

fuzz_target!(|text: &str| {
    let Ok(note) = Notification::parse(text) else {
        return;
    };
    for form in [Form::Live, Form::Replayed] {
        let line = note.print(form, &Extra::default());
        assert!(!line.contains('\n'), "{line:?}");
        let again = Notification::parse(&line).expect("what we print can be read");
        let said = |note: &Notification| {
            let Notification {
                id,
                from,
                to,
                key,
                value,
                ..
            } = note.clone();
            (
                id,
                from,
                to,
                key,
                value,
                note.operation,
                note.epoch_millis,
                note.is_encrypted,
            )
        };
        assert_eq!(said(&again), said(&note));
    }
});
