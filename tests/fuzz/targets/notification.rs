//! What a monitor shows. A notification that reads is printed on one line and reads back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use noports::{
    at::Notification,
    server::{
        session::{live_line, stored_line},
        store::notes::{NoteKind, Note, DeliveryStatus},
    },
};

/// What a server would have stored.
fn stored(read: &Notification) -> Note {
    let note = Note::new(read.id.clone(), &read.from, &read.to, read.key.clone());
    Note {
        value: read.value.clone(),
        operation: read.operation,
        is_text: read.is_text,
        is_encrypted: read.is_encrypted,
        kind: NoteKind::Received,
        status: DeliveryStatus::Delivered,
        epoch_millis: read.epoch_millis,
        ..note
    }
}

fuzz_target!(|text: &str| {
    let Ok(read) = Notification::parse(text) else {
        return;
    };
    let note = stored(&read);
    for line in [live_line(&note), stored_line(&note)] {
        let json = line.strip_prefix("notification: ").and_then(|json| json.strip_suffix('\n'));
        let json = json.expect("a line of its own");
        assert!(!json.contains('\n'), "{line:?}");
        let again = Notification::parse(json).expect("what we print can be read");
        let plain = Notification {
            iv_nonce: None,
            shared_key_enc: None,
            expires_at: None,
            ..read.clone()
        };
        assert_eq!(again, plain);
    }
});
