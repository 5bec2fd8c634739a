//! Shares for a session's keys ([`crate::np::agreement`]), in request and answer under the same name.
//!
//! ```text
//!   request  … ,"sessionShares":{"x25519":"<base64>","mlKem768":"<base64>","suite":"aes256gcm"}
//!   answer   … ,"sessionShares":{"x25519":"<base64>","mlKem768":"<base64>","suite":"aes256gcm"}
//! ```
//! The members have 1,687 and 1,559 bytes. The client names the suite that is faster for it; the device takes AES where both name it, else `chacha20poly1305`. Only
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

impl<const ML_KEM: usize> Offered<ML_KEM> {
    /// As an object with one member.
    pub(super) fn print(&self) -> String {
        let [x25519, ml_kem] = self.shares.to_base64();
        let wire = Wire {
            x25519,
            ml_kem,
            suite: self.suite.name().to_owned(),
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
        let suite = Suite::named(&wire.suite).ok_or(AgreementError::Share)?;
        let shares = Shares::from_base64(&wire.x25519, &wire.ml_kem)?;
        Ok(Some(Self { shares, suite }))
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
    /// The session's keys, from what was agreed on, the request's text and the answer's payload, which others have verified.
    pub(super) fn keys(
        &self,
        agreed: &Agreed,
        suite: Suite,
        (request, answer): (&str, &str),
    ) -> RecordKeys {
        let [client, device] = [self.client, self.device].map(|(_, key)| key.fingerprint());
        let transcript = Transcript {
            client: (self.client.0.as_str(), &client),
            device: (self.device.0.as_str(), &device),
            name: self.name.as_str(),
            request: &payload_hash(request),
            answer: &sha256(answer.as_bytes()),
        };
        agreed.keys(suite, &transcript)
    }
}

/// SHA-256 of the payload of a signed text.
fn payload_hash(signed: &str) -> [u8; 32] {
    let envelope = Envelope::parse(signed);
    let payload = envelope.as_ref().map_or("", Envelope::unverified);
    sha256(payload.as_bytes())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}
