//! Shares for a session's keys ([`crate::np::agreement`]), in request and answer under the same name.
//!
//! ```text
//!   request  … ,"sessionShares":{"x25519":"<base64>","mlKem768":"<base64>","suite":"aes256gcm"}
//!   answer   … ,"sessionShares":{"x25519":"<base64>","mlKem768":"<base64>","suite":"aes256gcm"}
//! ```
//! The client names the suite that is faster for it; the device takes AES where both name it, else `chacha20poly1305`. Only
//! daemons that say `"records":true` are sent shares, and whoever sends some sends no ephemeral RSA key.

use miniserde::{Deserialize, Serialize, json};
use ring::digest;

use crate::{
    at::{AtSign, crypto::PublicKey},
    np::{
        agreement::{Agreed, AgreementError, Shares, Transcript},
        envelope::Envelope,
        ids::DeviceName,
    },
    pipe::record::{RecordKeys, Suite},
};

/// Shares, and how what passes is to be sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered<const ML_KEM: usize> {
    /// The shares.
    pub shares: Shares<ML_KEM>,
    /// The faster way to seal for who offers it; in an answer, the way that is taken.
    pub suite: Suite,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    x25519: String,
    #[serde(rename = "mlKem768")]
    ml_kem: String,
    suite: String,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "sessionShares")]
    shares: Option<Wire>,
}

const AES: &str = "aes256gcm";
const CHACHA: &str = "chacha20poly1305";

impl<const ML_KEM: usize> Offered<ML_KEM> {
    /// As an object with one member.
    pub(super) fn print(&self) -> String {
        let [x25519, ml_kem] = self.shares.to_base64();
        let suite = match self.suite {
            Suite::Aes256Gcm => AES,
            Suite::ChaCha20Poly1305 => CHACHA,
        };
        let wire = Wire {
            x25519,
            ml_kem,
            suite: suite.to_owned(),
        };
        format!(r#"{{"sessionShares":{}}}"#, json::to_string(&wire))
    }

    /// Of a payload; `None` where there are none.
    ///
    /// # Errors
    /// [`AgreementError::Share`]; a suite that is not known, likewise.
    pub(super) fn of(payload: &str) -> Result<Option<Self>, AgreementError> {
        let payload: Payload = json::from_str(payload).map_err(|_| AgreementError::Share)?;
        let Some(wire) = payload.shares else {
            return Ok(None);
        };
        let suite = match wire.suite.as_str() {
            AES => Suite::Aes256Gcm,
            CHACHA => Suite::ChaCha20Poly1305,
            _ => return Err(AgreementError::Share),
        };
        let shares = Shares::from_base64(&wire.x25519, &wire.ml_kem)?;
        Ok(Some(Self { shares, suite }))
    }
}

/// AES where it is the faster one for both.
pub(super) fn common(one: Suite, other: Suite) -> Suite {
    if one == other {
        one
    } else {
        Suite::ChaCha20Poly1305
    }
}

/// Who speaks with whom, with which keys.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// Who asks, and with which key it signs.
    pub client: (&'a AtSign, &'a PublicKey),
    /// Who is asked, likewise.
    pub device: (&'a AtSign, &'a PublicKey),
    /// The device's name.
    pub name: &'a DeviceName,
}

impl Parties<'_> {
    /// The session's keys, from what was agreed on and from both payloads as they were signed.
    pub(super) fn keys(
        &self,
        agreed: &Agreed,
        suite: Suite,
        request: &[u8; 32],
        answer: &str,
    ) -> RecordKeys {
        let key = |key: &PublicKey| sha256(key.text.as_bytes());
        let transcript = Transcript {
            client: (self.client.0.as_str(), &key(self.client.1)),
            device: (self.device.0.as_str(), &key(self.device.1)),
            name: self.name.as_str(),
            request,
            answer: &sha256(answer.as_bytes()),
        };
        agreed.keys(suite, &transcript)
    }
}

/// SHA-256 of the payload of a signed text, which others have verified.
pub fn payload_hash(signed: &str) -> Option<[u8; 32]> {
    let envelope = Envelope::parse(signed).ok()?;
    Some(sha256(envelope.unverified().as_bytes()))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}
