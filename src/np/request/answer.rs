//! The daemon's answer to a request.
//!
//! ```text
//!   2.0 … 4.0-rc.2   connected
//!   4.0              {status, sessionId, ephemeralPrivateKey}
//!   5.0              … and ,"sessionAESKey","sessionIV": null in a session without encryption
//!   later            … and ,"aesKeyC2D","ivC2D","aesKeyD2C","ivD2C" instead, where the client takes twin keys
//!   ours             … and ,"sessionShares" instead, where the client has sent some; else ,"records":true where it could have
//!   no, always       any other text that does not begin with {
//! ```
//!
//! The ephemeral private key is an ssh key that the device lets in for some seconds. It is needed where nothing
//! but ssh encrypts what passes the rendezvous; answers to `npt_request` have no place for it.

use miniserde::{Deserialize, json};

use super::{
    Encryption, Meeting, RequestForm, SshRequest, TunnelRequest, answer_entity,
    shares::{Offered, Parties},
};
use crate::{
    at::{
        AtSign,
        crypto::{CryptoError, KeyPair, PublicKey},
    },
    np::{
        Message,
        agreement::{Agreed, Agreement, ML_KEM_CIPHERTEXT},
        envelope::{Envelope, EnvelopeError},
        ids::{DeviceName, SessionId},
        sshkey,
    },
    pipe::{cipher::SessionKeys, keys::TransportKeys, record::Suite},
    secret::Secret,
};

const CONNECTED: &str = "connected";
/// Longest refusal that is shown, in characters.
const MAX_REFUSAL: usize = 300;

/// The daemon's part of a session's keys.
#[derive(Debug)]
pub enum DeviceKeys {
    /// None: what passes is not encrypted.
    Bare,
    /// It has made them; and whether it would have taken shares.
    Stream(SessionKeys, bool),
    /// Its shares, and what it agrees on with the client.
    Records(Offered<ML_KEM_CIPHERTEXT>, Agreed),
}

impl DeviceKeys {
    /// What a client has asked for, at a device that takes shares or, held to an earlier time, does not.
    ///
    /// # Errors
    /// When its shares cannot be used, or the system gives no random bytes.
    pub fn new(asked: Option<&Encryption>, takes_shares: bool) -> Result<Self, CryptoError> {
        Ok(match asked {
            None => Self::Bare,
            Some(Encryption::Stream { twin_keys, .. }) => {
                Self::Stream(SessionKeys::random(*twin_keys)?, takes_shares)
            }
            Some(Encryption::Records(client)) => {
                let answer = client.shares.answer().map_err(|_| CryptoError::BadKey)?;
                let suite = client.suite.common(Suite::fastest());
                Self::Records(
                    Offered {
                        shares: answer.0,
                        suite,
                    },
                    answer.1,
                )
            }
        })
    }

    /// What the session is protected with, once this request, as it came, is answered.
    pub fn transport(
        self,
        parties: &Parties<'_>,
        request: &str,
        answer: &Accepted,
    ) -> Option<TransportKeys> {
        match self {
            Self::Bare => None,
            Self::Stream(keys, _) => Some(TransportKeys::Stream(keys)),
            Self::Records(offered, agreed) => Some(TransportKeys::Records(parties.keys(
                &agreed,
                offered.suite,
                (request, &answer.payload),
            ))),
        }
    }
}

/// A yes and what was signed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// To be sent.
    pub message: Message,
    payload: String,
}

impl From<Message> for Accepted {
    /// Nothing is signed.
    fn from(message: Message) -> Self {
        let payload = String::new();
        Self { message, payload }
    }
}

/// The daemon's yes to an ssh session, in the form of the request. `ephemeral_key` is a PEM text.
///
/// # Errors
/// When keys cannot be wrapped, or are not what was asked for, or when the answer cannot be signed.
pub fn accept(
    request: &SshRequest,
    keys: &DeviceKeys,
    ephemeral_key: Option<&Secret<String>>,
    to: &AtSign,
    device: &DeviceName,
    signer: &KeyPair,
) -> Result<Accepted, EnvelopeError> {
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
    keys: &DeviceKeys,
    to: &AtSign,
    device: &DeviceName,
    signer: &KeyPair,
) -> Result<Accepted, EnvelopeError> {
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

/// Says once more, and signed, what the ping says.
const TAKES_SHARES: &str = r#","records":true"#;

fn key_members(meeting: &Meeting, keys: &DeviceKeys) -> Result<String, CryptoError> {
    match (keys, &meeting.encryption) {
        (DeviceKeys::Stream(keys, takes), Some(Encryption::Stream { ephemeral, .. })) => {
            let takes = if *takes { TAKES_SHARES } else { "" };
            Ok(keys.wrap(ephemeral)? + takes)
        }
        (DeviceKeys::Records(offered, _), Some(Encryption::Records(_))) => {
            let member = offered.print();
            let member = member
                .strip_prefix('{')
                .and_then(|text| text.strip_suffix('}'));
            Ok(format!(",{}", member.unwrap_or_default()))
        }
        (DeviceKeys::Bare, None) => Ok(r#","sessionAESKey":null,"sessionIV":null"#.to_owned()),
        _ => Err(CryptoError::BadKey),
    }
}

fn seal(
    meeting: &Meeting,
    open: String,
    to: &AtSign,
    device: &DeviceName,
    signer: &KeyPair,
) -> Result<Accepted, EnvelopeError> {
    let (entity, payload) = (answer_entity(meeting.session, device), open + "}");
    let message = Message::sealed(to, entity, &payload, signer)?;
    Ok(Accepted { message, payload })
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
        /// What protects the session; absent in one without encryption.
        keys: Option<TransportKeys>,
        /// A private ssh key in PEM form that the device lets in for some seconds.
        ephemeral_key: Option<Secret<String>>,
        /// Whether the daemon takes shares, whatever its ping, which nobody has signed, says.
        takes_shares: bool,
    },
}

#[derive(Deserialize)]
struct Wire {
    status: Option<String>,
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "ephemeralPrivateKey")]
    ephemeral_key: Option<String>,
    records: Option<bool>,
}

/// What a client has made for one session's keys.
#[derive(Debug)]
pub enum ClientKeys {
    /// What the daemon wraps its keys for.
    Rsa(Box<KeyPair>),
    /// What the daemon's shares complete.
    Shares(Box<Agreement>),
}

/// What the keys are made from, besides the answer.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The client's part. Shares are used up by the first answer that is signed.
    pub keys: &'a mut Option<ClientKeys>,
    /// The request's text, as it was sent.
    pub request: &'a str,
    /// Who asks whom.
    pub client: (&'a AtSign, &'a PublicKey),
    /// The device's atSign.
    pub device: &'a AtSign,
    /// The device's name.
    pub name: &'a DeviceName,
}

impl Asked<'_> {
    /// The answer's keys, of the kind that was asked for.
    fn keys(
        &mut self,
        payload: &str,
        signer: &PublicKey,
    ) -> Result<Option<TransportKeys>, AnswerError> {
        match self.keys.as_mut() {
            None => Ok(None),
            Some(ClientKeys::Rsa(ephemeral)) => {
                let keys =
                    SessionKeys::unwrap(payload, ephemeral).map_err(|_| AnswerError::Keys)?;
                Ok(keys.map(TransportKeys::Stream))
            }
            Some(ClientKeys::Shares(_)) => {
                let offered = Offered::of(payload)
                    .ok()
                    .flatten()
                    .ok_or(AnswerError::Keys)?;
                let Some(ClientKeys::Shares(agreement)) = self.keys.take() else {
                    return Err(AnswerError::Keys);
                };
                let agreed = agreement.agree(&offered.shares);
                let agreed = agreed.map_err(|_| AnswerError::Keys)?;
                let parties = Parties {
                    client: self.client,
                    device: (self.device, signer),
                    name: self.name,
                };
                let keys = parties.keys(&agreed, offered.suite, (self.request, payload));
                Ok(Some(TransportKeys::Records(keys)))
            }
        }
    }
}

/// Reads the daemon's answer at the client. Without `asked` there can be no keys, and none are looked for.
///
/// # Errors
/// See [`AnswerError`]. Upstream compares neither session nor status; both count here.
pub fn read_answer(
    text: &str,
    session: SessionId,
    signer: &PublicKey,
    asked: Option<&mut Asked<'_>>,
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
    let keys = match asked {
        Some(asked) => asked.keys(payload, signer)?,
        None => None,
    };
    let pem = wire.ephemeral_key.filter(|text| !text.is_empty());
    let ephemeral_key = pem.as_deref().map(sshkey::private_key).transpose();
    Ok(Answer::Signed {
        keys,
        ephemeral_key: ephemeral_key.map_err(|_| AnswerError::EphemeralKey)?,
        takes_shares: wire.records == Some(true),
    })
}
