//! Which socket of a session this is, proved: without it whoever sees an admission line on the wire could say it again
//! with another number, and take the place of a socket that has yet to come.
//!
//! ```text
//!   client ── request for ports: "socketKey" ─▶ rendezvous      its nonce ends with -proofs-pairs: it takes proofs
//!   client ── request for a session: "socketKey" ─▶ daemon      only where the rendezvous does, and the daemon is ours
//!   either ══ admission line, "pair":N,"try":T,"proof":… ══▶ rendezvous
//! ```
//!
//! `proof` is base64 of HMAC-SHA256 under the session's key over four lines: `noports socket`, the rendezvous' nonce,
//! `client` or `daemon`, and `N T` in decimal digits. `T` grows with every try, so that only its owner can take back a
//! number that waits. Both requests are encrypted for their readers. Others pass all of these members over; who does not
//! know them numbers without proof, and its lines stay replayable.

use miniserde::{Deserialize, json};
use ring::hmac;

use super::{ids::Nonce, pairs::Dialer};
use crate::{
    at::crypto::{self, CryptoError},
    secret::Secret,
};

/// What both ends and the rendezvous know of a session, and nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketKey(Secret<[u8; 32]>);

/// Somebody else's number, or somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the socket's number is not proved")]
pub struct BadProof;

impl SocketKey {
    /// A fresh random one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, CryptoError> {
        Ok(Self(Secret::new(crypto::random()?)))
    }

    /// From its text; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = zeroize::Zeroizing::new(crypto::from_base64(text).ok()?);
        Some(Self(Secret::new(bytes.as_slice().try_into().ok()?)))
    }

    /// Base64.
    pub fn text(&self) -> Secret<String> {
        Secret::new(crypto::to_base64(self.0.reveal()))
    }

    /// The proof of one socket.
    pub fn prove(&self, nonce: &Nonce, end: Dialer, number: u64, attempt: u64) -> String {
        let tag = hmac::sign(&self.key(), said(nonce, end, number, attempt).as_bytes());
        crypto::to_base64(tag.as_ref())
    }

    /// Which try this admission line proves to be; `None` where it proves nothing.
    ///
    /// # Errors
    /// [`BadProof`]
    pub fn check(&self, line: &str, nonce: &Nonce, end: Dialer) -> Result<Option<u64>, BadProof> {
        let Wire {
            pair,
            attempt,
            proof,
        } = json::from_str(line).map_err(|_| BadProof)?;
        let (number, attempt, proof) = match (whole(pair), whole(attempt), proof) {
            (_, None, None) => return Ok(None),
            (Some(number), Some(attempt), Some(json::Value::String(proof))) => {
                (number, attempt, proof)
            }
            _ => return Err(BadProof),
        };
        let tag = crypto::from_base64(&proof).map_err(|_| BadProof)?;
        let said = said(nonce, end, number, attempt);
        hmac::verify(&self.key(), said.as_bytes(), &tag).map_err(|_| BadProof)?;
        Ok(Some(attempt))
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.reveal())
    }
}

#[derive(Deserialize)]
struct Wire {
    pair: Option<json::Value>,
    #[serde(rename = "try")]
    attempt: Option<json::Value>,
    proof: Option<json::Value>,
}

fn whole(value: Option<json::Value>) -> Option<u64> {
    match value? {
        json::Value::Number(json::Number::U64(number)) => Some(number),
        _ => None,
    }
}

fn said(nonce: &Nonce, end: Dialer, number: u64, attempt: u64) -> String {
    format!("noports socket\n{nonce}\n{end}\n{number} {attempt}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const VECTORS: &str = include_str!("../../tests/vectors/socket-proofs.json");

    #[derive(Deserialize)]
    struct Vectors {
        #[serde(rename = "socketKey")]
        key: String,
        #[serde(rename = "rvdNonce")]
        nonce: String,
        proofs: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        end: String,
        pair: u64,
        #[serde(rename = "try")]
        attempt: u64,
        proof: String,
    }

    #[test]
    fn proofs_are_those_of_another_program() {
        let known: Vectors = json::from_str(VECTORS).unwrap();
        let (key, nonce) = (
            SocketKey::parse(&known.key).unwrap(),
            known.nonce.parse().unwrap(),
        );
        for one in known.proofs {
            let (end, other) = match one.end.as_str() {
                "client" => (Dialer::Client, Dialer::Daemon),
                _ => (Dialer::Daemon, Dialer::Client),
            };
            assert_eq!(key.prove(&nonce, end, one.pair, one.attempt), one.proof);
            let line = |pair, attempt| {
                format!(
                    r#"{{"payload":{{}},"pair":{pair},"try":{attempt},"proof":"{}"}}"#,
                    one.proof
                )
            };
            let right = line(one.pair, one.attempt);
            assert_eq!(key.check(&right, &nonce, end), Ok(Some(one.attempt)));
            for (line, nonce, end) in [
                (right.clone(), &nonce, other),
                (right.clone(), &Nonce::random(), end),
                (line(one.pair ^ 1, one.attempt), &nonce, end),
                (line(one.pair, one.attempt + 1), &nonce, end),
                (right.replace(r#""pair""#, r#""other""#), &nonce, end),
                (right.replace(r#""try""#, r#""other""#), &nonce, end),
                (right.replace(r#""proof":""#, r#""proof":"AA"#), &nonce, end),
                (right.replace("\"proof\"", "\"other\""), &nonce, end),
            ] {
                assert_eq!(key.check(&line, nonce, end), Err(BadProof), "{line}");
            }
        }
        assert_eq!(key.check(r#"{"pair":7}"#, &nonce, Dialer::Client), Ok(None));
    }

    #[test]
    fn a_key_is_32_bytes_and_never_shown() {
        let key = SocketKey::random().unwrap();
        assert_eq!(SocketKey::parse(key.text().reveal()), Some(key.clone()));
        assert!(!format!("{key:?}").contains(|c: char| c.is_ascii_digit()));
        for bad in ["", "AAAA", "?", &crypto::to_base64(&[7; 33])] {
            assert_eq!(SocketKey::parse(bad), None, "{bad}");
        }
    }
}
