//! The first line on every rendezvous socket: who is it, and for which session?
//!
//! ```text
//!   {"payload":{"sessionId","clientNonce","rvdNonce"},"signature",…}\n  then the session's bytes
//! ```
//!
//! Both ends of a session send the same payload, each signed by its own atSign; the port tells which.
//! Nothing is answered. The line travels in clear and holds no secret.
//!
//! To a rendezvous that takes numbers, a session with many sockets also says which of them this is:
//! `"pair":N` beside the payload. It is not signed. Between three of this program it is proved
//! ([`super::proof`]): `"try":T,"proof":"…"` stand behind it. Any other end's line can be said again by whoever saw it,
//! without a number or with one: no byte can be read that way, but sockets of that session are joined with the wrong
//! ones until it ends. What [`super::pairs`] does with numbers.
//!
//! Source: noports:packages/dart/noports_core/lib/src/srvd/signature_verifying_socket_authenticator.dart.

use miniserde::{Deserialize, Serialize, json};

use super::{
    envelope::{self, Envelope, EnvelopeError},
    ids::{Nonce, SessionId},
    pairs::Dialer,
    proof::SocketKey,
};
use crate::at::crypto::{KeyPair, PublicKey};

/// Longest admission line, in bytes. A real one has about 620.
pub const MAX_ADMISSION: usize = 4096;

/// What each end signs. The signature covers the JSON text, so the order of the members is part of
/// the wire format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The session.
    pub session: SessionId,
    /// The client's half.
    pub client_nonce: Nonce,
    /// The rendezvous' half.
    pub rendezvous_nonce: Nonce,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "clientNonce")]
    client: String,
    #[serde(rename = "rvdNonce")]
    rendezvous: String,
}

/// Why a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// Not text, or not a signed envelope.
    #[error("no admission line: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Not the three members.
    #[error("the admission line is incomplete")]
    Form,
    /// Another session, or an old line played again.
    #[error("the admission line is for another session")]
    OtherSession,
}

impl Admission {
    /// The line, without its line end.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn line(&self, key: &KeyPair) -> Result<String, EnvelopeError> {
        envelope::seal(&self.payload(), key)
    }

    /// Checks a line that came in, without its line end: it is for this session and nonce, and signed
    /// by the owner of this key. Returns the socket's number, if it says one and was asked to.
    ///
    /// # Errors
    /// See [`AdmissionError`]; the peer is told none of them.
    pub fn check(&self, line: &[u8], signer: &PublicKey) -> Result<Option<u64>, AdmissionError> {
        let text = std::str::from_utf8(line).map_err(|_| EnvelopeError::Form)?;
        let envelope = Envelope::parse(text)?;
        let wire: Wire = json::from_str(envelope.unverified()).map_err(|_| AdmissionError::Form)?;
        let same = wire.session == self.session.to_string()
            && wire.client == self.client_nonce.as_str()
            && wire.rendezvous == self.rendezvous_nonce.as_str();
        if !same {
            return Err(AdmissionError::OtherSession);
        }
        // These members and no others: a request for this session holds them, too, signed by the same key.
        if envelope.unverified() != self.payload() {
            return Err(AdmissionError::Form);
        }
        envelope.verify(signer)?;
        let asked = self.rendezvous_nonce.takes_numbers();
        Ok(if asked { number(text) } else { None })
    }

    fn payload(&self) -> String {
        json::to_string(&Wire {
            session: self.session.to_string(),
            client: self.client_nonce.to_string(),
            rendezvous: self.rendezvous_nonce.to_string(),
        })
    }
}

/// Whether the rendezvous that this line is for takes numbers.
pub fn takes_numbers(line: &str) -> bool {
    nonce(line).is_some_and(|nonce| nonce.takes_numbers())
}

/// Its rendezvous' half of what makes it unlike every other.
fn nonce(line: &str) -> Option<Nonce> {
    let envelope = Envelope::parse(line).ok()?;
    let wire: Wire = json::from_str(envelope.unverified()).ok()?;
    wire.rendezvous.parse().ok()
}

/// The line of this try of this socket of the session, proved. Without its line end, as the line it is made from.
pub fn proved(line: &str, key: &SocketKey, end: Dialer, number: u64, attempt: u64) -> String {
    let numbered = numbered(line, number);
    match (numbered.strip_suffix('}'), nonce(line)) {
        (Some(open), Some(nonce)) => {
            let proof = key.prove(&nonce, end, number, attempt);
            format!(r#"{open},"try":{attempt},"proof":"{proof}"}}"#)
        }
        _ => numbered,
    }
}

/// The line of this socket of the session. Without its line end, as the line it is made from.
pub fn numbered(line: &str, number: u64) -> String {
    match line.trim_end().strip_suffix('}') {
        Some(open) => format!("{open},\"pair\":{number}}}"),
        None => line.to_owned(),
    }
}

/// A hint that cannot be read is none.
fn number(line: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Hint {
        pair: Option<json::Value>,
    }
    match json::from_str::<Hint>(line).ok()?.pair? {
        json::Value::Number(json::Number::U64(number)) => Some(number),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::np::request::tests::vectors;

    fn admission() -> Admission {
        Admission {
            session: "6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11".parse().unwrap(),
            client_nonce: "2024-10-24T10:15:30.123456".parse().unwrap(),
            rendezvous_nonce: "2024-10-24T10:15:31.654321".parse().unwrap(),
        }
    }

    #[test]
    fn both_ends_lines_are_pinned() {
        let v = vectors();
        assert_eq!(
            admission().payload(),
            v.text(&["relayAuth", "signingInput"])
        );
        for (side, who) in [
            ("sideA_client", "@client_example"),
            ("sideB_device", "@device_example"),
        ] {
            let want = v.text(&["relayAuth", side]);
            let key = v.key(who);
            assert_eq!(
                admission().line(&key).unwrap(),
                want.trim_end_matches('\n'),
                "{side}"
            );
            admission()
                .check(want.trim_end_matches('\n').as_bytes(), key.public())
                .unwrap();
        }
    }

    #[test]
    fn a_number_stands_beside_what_is_signed() {
        let key = vectors().key("@client_example");
        let line = admission().line(&key).unwrap();
        assert!(!takes_numbers(&line), "upstream's nonce");
        let unasked = admission().check(numbered(&line, 1).as_bytes(), key.public());
        assert_eq!(unasked, Ok(None));
        let admission = Admission {
            rendezvous_nonce: Nonce::random_numbered(),
            ..admission()
        };
        let line = admission.line(&key).unwrap();
        assert!(takes_numbers(&line));
        let check = |line: &str| admission.check(line.as_bytes(), key.public());
        assert_eq!(check(&line), Ok(None));
        for number in [0, 7, u64::MAX] {
            let line = numbered(&line, number);
            assert!(line.ends_with(&format!(r#","pair":{number}}}"#)), "{line}");
            assert!(line.len() < MAX_ADMISSION / 2);
            assert_eq!(check(&line), Ok(Some(number)));
        }
        for odd in ["-1", "1.5", "\"7\"", "null", "[]"] {
            let line = line.replace(r#","signature""#, &format!(r#","pair":{odd},"signature""#));
            assert_eq!(check(&line), Ok(None), "{odd}");
        }
        assert!(!takes_numbers("SSH-2.0-x") && !takes_numbers("{}"));
    }

    #[test]
    fn a_line_opens_one_port_of_one_session() {
        let v = vectors();
        let (client, device) = (v.key("@client_example"), v.key("@device_example"));
        let line = admission().line(&client).unwrap();
        let bad_signature = Err(AdmissionError::Envelope(EnvelopeError::Signature));
        assert_eq!(
            admission().check(line.as_bytes(), device.public()),
            bad_signature,
            "the other end's port"
        );

        let next = Admission {
            rendezvous_nonce: Nonce::random(),
            ..admission()
        };
        assert_eq!(
            next.check(line.as_bytes(), client.public()),
            Err(AdmissionError::OtherSession),
            "wrong nonce"
        );
        let next = Admission {
            session: SessionId::random(),
            ..admission()
        };
        assert_eq!(
            next.check(line.as_bytes(), client.public()),
            Err(AdmissionError::OtherSession),
            "another session"
        );
        for noise in [
            &b""[..],
            b"SSH-2.0-x",
            b"{}",
            b"\xff\xfe",
            br#"{"payload":{}}"#,
        ] {
            assert!(
                admission().check(noise, client.public()).is_err(),
                "{noise:?}"
            );
        }
    }
}
