//! Signed JSON. Nothing is believed but what the key's owner has signed, to the byte.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use miniserde::json::{self, Value};
use noports::np::{
    envelope::Envelope,
    request::{SshRequest, claimed_session},
};

mod vectors;

/// The client's public key, and all that it has signed in the known answers.
fn signed() -> &'static (noports::at::crypto::PublicKey, Vec<String>) {
    static SIGNED: OnceLock<(noports::at::crypto::PublicKey, Vec<String>)> = OnceLock::new();
    SIGNED.get_or_init(|| {
        (
            vectors::pair("@client_example").public().clone(),
            vectors::all_texts("signingInput"),
        )
    })
}

fuzz_target!(|text: &str| {
    let (key, known) = signed();
    if let Ok(envelope) = Envelope::parse(text) {
        let payload = envelope.unverified();
        assert!(
            json::from_str::<Value>(payload).is_ok_and(|v| matches!(v, Value::Object(_))),
            "{payload}"
        );
        if let Ok(believed) = envelope.verify(key) {
            assert!(known.iter().any(|known| known == believed), "{believed}");
        }
    }
    let _ = claimed_session(text);
    if let Ok(request) = SshRequest::parse(text, key) {
        assert!(
            noports::text::host::is_host(&request.meeting.host),
            "{}",
            request.meeting.host
        );
    }
});
