//! The first line on a rendezvous socket. Only the very session's own line, by the right signer, is let in.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use miniserde::json::{self, Value};
use noports::{
    at::crypto::KeyPair,
    np::{admit::Admission, envelope::Envelope},
};

mod vectors;

fn ours() -> &'static (Admission, KeyPair) {
    static OURS: OnceLock<(Admission, KeyPair)> = OnceLock::new();
    OURS.get_or_init(|| (vectors::admission(), vectors::pair("@client_example")))
}

fuzz_target!(|line: &[u8]| {
    let (admission, key) = ours();
    if admission.check(line, key.public()).is_ok() {
        let text = std::str::from_utf8(line).expect("checked");
        let envelope = Envelope::parse(text).expect("checked");
        let Ok(Value::Object(payload)) = json::from_str(envelope.unverified()) else {
            panic!("no object");
        };
        let said =
            |name| matches!(payload.get(name), Some(Value::String(text)) if !text.is_empty());
        assert!(said("sessionId") && said("clientNonce") && said("rvdNonce"));
    }
});
