//! Notifications as monitors see them: printed as clients know them, and read again by ours.

use miniserde::json::{self, Value};
use proptest::prelude::*;

use super::*;
use crate::{
    at::{Notification, metadata::Item, vectors::at_protocol, verb::Operation},
    server::{
        notification::stats_line,
        store::notes::{Note, NoteKind, tests::note},
    },
};

const LIVE: &str = r#"{"id":"7","from":"@alice","to":"@bob","key":"@bob:req.dev1.sshnp@alice","value":"PZyp==","operation":"update","epochMillis":1729771234567,"messageType":"MessageType.key","isEncrypted":true,"metadata":{"encKeyName":null,"encAlgo":null,"ivNonce":"VP3U==","skeEncKeyName":null,"skeEncAlgo":null,"sharedKeyEnc":"mElQ=="}}"#;
const REPLAYED: &str = r#"{"id":"7","from":"@alice","to":"@bob","key":"@bob:req.dev1.sshnp@alice","value":"PZyp==","operation":"update","epochMillis":1729771234567,"messageType":"MessageType.key","isEncrypted":true,"metadata":{"encKeyName":null,"encAlgo":null,"ivNonce":"VP3U==","skeEncKeyName":null,"skeEncAlgo":null,"availableAt":"null","expiresAt":"2024-10-24 12:01:34.567Z"}}"#;
const STATS: &str = r#"{"id":"-1","from":"@bob","to":"@bob","key":"statsNotification.@bob","value":"42","operation":"update","epochMillis":1729771234999,"messageType":"MessageType.key","isEncrypted":false,"metadata":null}"#;

/// What a server has stored that shows this; it expires at [`NOW`] where a time is shown.
fn stored(json: &str) -> Note {
    let read = Notification::parse(json).unwrap();
    let mut note = Note {
        id: read.id,
        from: read.from,
        to: read.to,
        key: read.key,
        value: read.value,
        operation: read.operation,
        is_text: read.is_text,
        is_encrypted: read.is_encrypted,
        epoch_millis: read.epoch_millis,
        ..note("", "@alice", "@bob", NoteKind::Received)
    };
    note.meta.items.iv_nonce = read.iv_nonce.map(Item::Set);
    note.meta.items.shared_key_enc = read.shared_key_enc.map(Item::Set);
    note.meta.expires_at = read.expires_at.map(|_| NOW);
    note
}

fn line(json: &str) -> String {
    format!("notification: {json}\n")
}

#[test]
fn servers_print_exactly_what_clients_know() {
    assert_eq!(live_line(&stored(LIVE)), line(LIVE));
    assert_eq!(stored_line(&stored(REPLAYED)), line(REPLAYED));
    let bob = "@bob".parse().unwrap();
    let stats = stats_line(&bob, Some(42), 1_729_771_234_999);
    assert_eq!(stats, line(STATS));
    assert!(Notification::parse(STATS).unwrap().is_stats());
}

#[test]
fn servers_print_the_known_notifications() {
    let known = at_protocol().at("notifications");
    for name in ["live", "replayed", "delete"] {
        let json = known.at(name).json();
        let note = stored(&json);
        let printed = if name == "replayed" {
            stored_line(&note)
        } else {
            live_line(&note)
        };
        let printed = printed.strip_prefix("notification: ").unwrap();
        // The order of members is lost in the vectors; it is pinned above.
        let sorted: Value = json::from_str(printed).unwrap();
        assert_eq!(json::to_string(&sorted), json, "{name}");
    }
}

#[test]
fn texts_and_further_metadata_are_printed_in_their_places() {
    let mut note = Note {
        is_text: true,
        is_encrypted: false,
        operation: Operation::Delete,
        value: None,
        key: "@bob:say \"hi\"\n}".into(),
        ..stored(LIVE)
    };
    note.meta.items.iv_nonce = None;
    note.meta.items.enc_key_name = Some(Item::new("k"));
    note.meta.items.enc_algo = Some(Item::new("AES}"));
    note.meta.items.ske_enc_key_name = Some(Item::new("s"));
    note.meta.items.ske_enc_algo = Some(Item::new("RSA"));
    note.meta.available_at = Some(NOW);
    let head = r#"{"id":"7","from":"@alice","to":"@bob","key":"@bob:say \"hi\"\n}","value":null,"operation":"delete","epochMillis":1729771234567,"messageType":"MessageType.text","isEncrypted":false,"metadata":{"encKeyName":"k","encAlgo":"AES}","ivNonce":null,"skeEncKeyName":"s","skeEncAlgo":"RSA","#;
    assert_eq!(
        live_line(&note),
        line(&format!(r#"{head}"sharedKeyEnc":"mElQ=="}}}}"#))
    );
    assert_eq!(
        stored_line(&note),
        line(&format!(
            r#"{head}"availableAt":"2024-10-24 12:01:34.567Z","expiresAt":"null"}}}}"#
        ))
    );
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again_and_stays_on_one_line(
        id in "[a-z0-9]{1,8}", key in "\\PC{0,20}", value in proptest::option::of(".{0,20}"),
        iv in proptest::option::of("[A-Z=+/]{1,9}"), replayed: bool, is_text: bool, is_encrypted: bool,
    ) {
        let read = Notification {
            id, key, value, is_text, is_encrypted,
            iv_nonce: iv,
            shared_key_enc: None,
            ..Notification::parse(REPLAYED).unwrap()
        };
        let mut note = Note {
            id: read.id.clone(),
            key: read.key.clone(),
            value: read.value.clone(),
            is_text,
            is_encrypted,
            ..stored(REPLAYED)
        };
        note.meta.items.iv_nonce = read.iv_nonce.clone().map(Item::Set);
        let printed = if replayed { stored_line(&note) } else { live_line(&note) };
        let json = printed.strip_prefix("notification: ").and_then(|json| json.strip_suffix('\n'));
        let json = json.unwrap();
        prop_assert!(!json.contains(['\n', '\r']));
        let expires_at = read.expires_at.clone().filter(|_| replayed);
        prop_assert_eq!(Notification::parse(json), Ok(Notification { expires_at, ..read }));
    }
}
