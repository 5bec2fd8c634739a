//! The first line on every rendezvous socket: who is it, and for which session?
//!
//! ```text
//!   {"payload":{"sessionId","clientNonce","rvdNonce"},"signature",…}\n  then the session's bytes
//! ```
//!
//! Both ends of a session send the same payload, each signed by its own atSign; the port tells which.
//! Nothing is answered. The line travels in clear and holds no secret.
//!
//! Source: noports:packages/dart/noports_core/lib/src/srvd/signature_verifying_socket_authenticator.dart.

use miniserde::{Deserialize, Serialize, json};

use super::{
    envelope::{self, Envelope, EnvelopeError},
    ids::{Nonce, SessionId},
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
pub enum Refusal {
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
    /// by the owner of this key.
    ///
    /// # Errors
    /// See [`Refusal`]; the peer is told none of them.
    pub fn check(&self, line: &[u8], signer: &PublicKey) -> Result<(), Refusal> {
        let text = std::str::from_utf8(line).map_err(|_| EnvelopeError::Form)?;
        let envelope = Envelope::parse(text)?;
        let wire: Wire = json::from_str(envelope.unverified()).map_err(|_| Refusal::Form)?;
        let same = wire.session == self.session.to_string()
            && wire.client == self.client_nonce.as_str()
            && wire.rendezvous == self.rendezvous_nonce.as_str();
        if !same {
            return Err(Refusal::OtherSession);
        }
        envelope.verify(signer)?;
        Ok(())
    }

    fn payload(&self) -> String {
        json::to_string(&Wire {
            session: self.session.to_string(),
            client: self.client_nonce.to_string(),
            rendezvous: self.rendezvous_nonce.to_string(),
        })
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
    fn a_line_opens_one_port_of_one_session() {
        let v = vectors();
        let (client, device) = (v.key("@client_example"), v.key("@device_example"));
        let line = admission().line(&client).unwrap();
        let bad_signature = Err(Refusal::Envelope(EnvelopeError::Signature));
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
            Err(Refusal::OtherSession),
            "wrong nonce"
        );
        let next = Admission {
            session: SessionId::random(),
            ..admission()
        };
        assert_eq!(
            next.check(line.as_bytes(), client.public()),
            Err(Refusal::OtherSession),
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
