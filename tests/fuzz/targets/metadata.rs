//! The metadata of a command, and as it is stored.
#![no_main]

use libfuzzer_sys::fuzz_target;
use miniserde::json::{self, Value};
use noports::{
    at::{Verb, verb::Dialect},
    server::store::records::Meta,
};

const NOW: u64 = 1_729_771_234_567;

/// What is stored reads back as the same, and what is shown is JSON on one line.
fn check(meta: &Meta) {
    assert_eq!(
        Meta::from_row(meta.to_row().as_bytes()).ok().as_ref(),
        Some(meta)
    );
    for shown in [meta.to_json("@alice"), meta.to_text_json("@alice")] {
        assert!(json::from_str::<Value>(&shown).is_ok(), "{shown}");
        assert!(!shown.contains('\n'), "{shown:?}");
    }
}

fuzz_target!(|text: &str| {
    if let Ok(meta) = Meta::from_row(text.as_bytes()) {
        check(&meta);
    }
    let line = format!("update:{text}:@bob:x.ns@alice v");
    if let Ok(Verb::Update { metadata, .. }) = Verb::parse(&line, Dialect::Lenient) {
        for (_, field) in metadata.items() {
            assert!(json::from_str::<Value>(&field.json()).is_ok(), "{field:?}");
        }
        let old = Meta::merged(None, &metadata, NOW);
        check(&old);
        let new = Meta::merged(Some(&old), &metadata, NOW + 1);
        check(&new);
        assert!(new.version == 1 && new.created_at == NOW);
        let _ = (
            new.is_live(NOW),
            new.copied(Some(&old), u64::MAX),
            new.to_command(),
        );
    }
});
