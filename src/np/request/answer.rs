//! The daemon's answer to a request.
//!
//! ```text
//!   2.0 … 4.0-rc.2   connected
//!   4.0              {status, sessionId, ephemeralPrivateKey}
//!   5.0              … and ,"sessionAESKey","sessionIV": null in a session without encryption
//!   later            … and ,"aesKeyC2D","ivC2D","aesKeyD2C","ivD2C" instead, where the client takes twin keys
//!   no, always       any other text that does not begin with {
//! ```
//!
//! The ephemeral private key is an ssh key that the device lets in for some seconds. It is needed where nothing
//! but ssh encrypts what passes the rendezvous; answers to `npt_request` have no place for it.

use miniserde::{Deserialize, json};

use super::{Meeting, RequestForm, SshRequest, TunnelRequest, answer_entity};
use crate::{
    at::{
        AtSign,
        crypto::{CryptoError, KeyPair, PublicKey},
    },
    np::{
        Message,
        envelope::{Envelope, EnvelopeError},
        ids::{DeviceName, SessionId},
        sshkey,
    },
    pipe::cipher::SessionKeys,
    secret::Secret,
};

const CONNECTED: &str = "connected";
/// Longest refusal that is shown, in characters.
const MAX_REFUSAL: usize = 300;

/// The daemon's yes to an ssh session, in the form of the request. `keys` are for a session with encryption and
/// for no other; `ephemeral_key` is a PEM text.
///
/// # Errors
/// When keys cannot be wrapped, or are missing or too many, or when the answer cannot be signed.
pub fn accept(
    request: &SshRequest,
    keys: Option<&SessionKeys>,
    ephemeral_key: Option<&Secret<String>>,
    to: &AtSign,
    device: &DeviceName,
    signer: &KeyPair,
) -> Result<Message, EnvelopeError> {
    let mut text = head(request.meeting.session);
    let pem = ephemeral_key.map(|key| json::to_string(key.reveal()));
    text += &format!(
        r#","ephemeralPrivateKey":{}"#,
        pem.as_deref().unwrap_or("null")
    );
    if request.form == RequestForm::V5 {
        text += &key_members(&request.meeting, keys).map_err(|_| EnvelopeError::Signing)?;
    }
    seal(&request.meeting, text, to, device, signer)
}

/// The daemon's yes to a tunnel.
///
/// # Errors
/// As [`accept`].
pub fn accept_tunnel(
    request: &TunnelRequest,
    keys: Option<&SessionKeys>,
    to: &AtSign,
    device: &DeviceName,
    signer: &KeyPair,
) -> Result<Message, EnvelopeError> {
    let meeting = &request.meeting;
    let keys = key_members(meeting, keys).map_err(|_| EnvelopeError::Signing)?;
    seal(meeting, head(meeting.session) + &keys, to, device, signer)
}

/// The yes of before 4.0: one word, signed by nobody.
pub fn connected(session: SessionId, to: &AtSign, device: &DeviceName) -> Message {
    Message::new(to, answer_entity(session, device), CONNECTED)
}

/// The daemon's no: plain text, which no generation takes for an envelope or for a yes.
pub fn refuse(session: SessionId, why: &str, to: &AtSign, device: &DeviceName) -> Message {
    let mut text = why.trim_start_matches('{').replace(['\r', '\n'], " ");
    if text.trim() == CONNECTED {
        text = format!("not {CONNECTED}");
    }
    Message::new(to, answer_entity(session, device), text)
}

fn head(session: SessionId) -> String {
    format!(r#"{{"status":"{CONNECTED}","sessionId":"{session}""#)
}

fn key_members(meeting: &Meeting, keys: Option<&SessionKeys>) -> Result<String, CryptoError> {
    match (keys, &meeting.encryption) {
        (Some(keys), Some(encryption)) => keys.wrap(&encryption.ephemeral),
        (None, None) => Ok(r#","sessionAESKey":null,"sessionIV":null"#.to_owned()),
        _ => Err(CryptoError::BadKey),
    }
}

fn seal(
    meeting: &Meeting,
    open: String,
    to: &AtSign,
    device: &DeviceName,
    signer: &KeyPair,
) -> Result<Message, EnvelopeError> {
    let entity = answer_entity(meeting.session, device);
    Message::sealed(to, entity, &(open + "}"), signer)
}

/// Why the daemon's answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The daemon said no, in its own words.
    #[error("the device refused: {0}")]
    Refused(String),
    /// A yes that anybody could have written, where a signed one was due.
    #[error("the device's answer is not signed")]
    Unsigned,
    /// Not signed by the device's atSign, or not an envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// For another session.
    #[error("the device answered for another session")]
    OtherSession,
    /// A status that is not `connected`.
    #[error("the device answered with status {0:?}")]
    Status(String),
    /// Members are missing or cannot be unwrapped.
    #[error("the device's session keys cannot be used")]
    Keys,
    /// The temporary ssh key is none.
    #[error("the device's temporary ssh key cannot be used")]
    EphemeralKey,
}

/// What was in a yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One word, signed by nobody: from daemons before 4.0.
    Bare,
    /// Signed, and for this session.
    Signed {
        /// The session's; absent in a session without encryption.
        keys: Option<SessionKeys>,
        /// A private ssh key in PEM form that the device lets in for some seconds.
        ephemeral_key: Option<Secret<String>>,
    },
}

#[derive(Deserialize)]
struct Wire {
    status: Option<String>,
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "ephemeralPrivateKey")]
    ephemeral_key: Option<String>,
}

/// Reads the daemon's answer at the client. Without `ephemeral` there can be no keys, and none are looked for.
///
/// # Errors
/// See [`AnswerError`]. Upstream compares neither session nor status; both count here.
pub fn read_answer(
    text: &str,
    session: SessionId,
    signer: &PublicKey,
    ephemeral: Option<&KeyPair>,
) -> Result<Answer, AnswerError> {
    if text.trim() == CONNECTED {
        return Ok(Answer::Bare);
    }
    if !text.starts_with('{') {
        let shown = text.chars().filter(|c| !c.is_control());
        return Err(AnswerError::Refused(shown.take(MAX_REFUSAL).collect()));
    }
    let envelope = Envelope::parse(text)?;
    let payload = envelope.verify(signer)?;
    let wire: Wire = json::from_str(payload).map_err(|_| AnswerError::Keys)?;
    if wire.session != session.to_string() {
        return Err(AnswerError::OtherSession);
    }
    let status = wire.status.unwrap_or_default();
    if status != CONNECTED {
        return Err(AnswerError::Status(status.chars().take(32).collect()));
    }
    let keys = match ephemeral {
        Some(ephemeral) => {
            SessionKeys::unwrap(payload, ephemeral).map_err(|_| AnswerError::Keys)?
        }
        None => None,
    };
    let pem = wire.ephemeral_key.filter(|text| !text.is_empty());
    let ephemeral_key = pem.as_deref().map(sshkey::private_key).transpose();
    Ok(Answer::Signed {
        keys,
        ephemeral_key: ephemeral_key.map_err(|_| AnswerError::EphemeralKey)?,
    })
}
