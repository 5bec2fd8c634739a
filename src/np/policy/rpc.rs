//! The messages between daemon and policy, as text.
//!
//! ```text
//!   key     <kind>.<id>.auth_checks.__rpcs.sshnp        kind: request; ack, success, nack, error
//!   ask     {"reqId":<id>,"payload":{…}}
//!   answer  {"reqId":<id>,"respType":<kind>,"payload":{…},"message":null|"…"}
//! ```
//! The id stands in key and text and has to be the same in both. A no of the rules is a `success` that says
//! no; `nack` and `error` say that there will be no answer.
//!
//! Source: at_client_sdk:packages/at_client/lib/src/rpc/at_rpc.dart and at_rpc_types.dart.

use std::fmt;

use miniserde::{Deserialize, Serialize, json};

use super::{AuthAnswer, AuthCheck};
use crate::{
    at::{
        AtSign,
        crypto::{KeyPair, PublicKey},
    },
    np::{
        Message,
        envelope::{self, Envelope},
        ids::BadId,
    },
};

/// What stands behind the id in every key.
const DOMAIN: &str = "auth_checks.__rpcs.sshnp";
/// Ids stay below 2^53, so that every JSON reader takes them for whole numbers.
const ID_BITS: u32 = 53;
/// Longest question or answer, in bytes: encrypted and in a notification it fits in
/// [`MAX_NOTE_LINE`](crate::np::MAX_NOTE_LINE).
pub const MAX_RPC: usize = 44 * 1024;
/// Life of a question and its answers, in milliseconds.
pub const RPC_TTL: u64 = 30_000;

/// Ties an answer to its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// From eight random bytes: clocks, which others use, collide when two ask at the same time.
    pub fn from_random(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes) >> (64 - ID_BITS))
    }

    fn parse(text: &str) -> Option<Self> {
        let id: u64 = text.parse().ok()?;
        // `+7` and `007` are numbers, too, but not the ones we print.
        (id.to_string() == text).then_some(Self(id))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseType {
    /// The question was heard.
    Ack,
    /// It was answered, with yes or no.
    Success,
    /// It will not be answered.
    Nack,
    /// Something went wrong over there.
    Error,
}

const KINDS: [(ResponseType, &str); 4] = [
    (ResponseType::Ack, "ack"),
    (ResponseType::Success, "success"),
    (ResponseType::Nack, "nack"),
    (ResponseType::Error, "error"),
];

impl ResponseType {
    fn word(self) -> &'static str {
        KINDS
            .iter()
            .find(|row| row.0 == self)
            .map_or("error", |row| row.1)
    }
}

/// One answer, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcResponse {
    /// Heard; more follows.
    Ack,
    /// Yes or no.
    Answer(AuthAnswer),
    /// No answer, and perhaps why.
    Refused(Option<String>),
}

/// Why a message is none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRpc {
    /// Not the form we know.
    #[error("the message cannot be read")]
    Form,
    /// Key and text disagree.
    #[error("the message is for another question")]
    OtherId,
    /// Asked for another's devices.
    #[error("asked in the name of {0}")]
    NotTheSender(AtSign),
    /// One of its names.
    #[error(transparent)]
    Id(#[from] BadId),
}

#[derive(Serialize, Deserialize)]
struct WireQuestion {
    #[serde(rename = "daemonAtsign")]
    daemon: String,
    #[serde(rename = "daemonDeviceName")]
    device: String,
    #[serde(rename = "daemonDeviceGroupName")]
    group: String,
    #[serde(rename = "clientAtsign")]
    client: String,
}

#[derive(Serialize, Deserialize)]
struct WireRequest {
    #[serde(rename = "reqId")]
    id: u64,
    payload: WireQuestion,
}

#[derive(Serialize)]
struct WireAnswer<'a> {
    authorized: bool,
    message: Option<&'a str>,
    #[serde(rename = "permitOpen")]
    permit_open: &'a [String],
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct WireResponse<'a, P> {
    #[serde(rename = "reqId")]
    id: u64,
    #[serde(rename = "respType")]
    kind: &'static str,
    payload: P,
    message: Option<&'a str>,
}

fn entity(kind: &str, id: RequestId) -> String {
    format!("{kind}.{id}.{DOMAIN}")
}

/// Kind and id, if a key is one of these.
fn take_apart(entity: &str) -> Option<(&str, RequestId)> {
    let (kind, id) = entity
        .strip_suffix(DOMAIN)?
        .strip_suffix('.')?
        .split_once('.')?;
    Some((kind, RequestId::parse(id)?))
}

fn wire_request(id: RequestId, question: &AuthCheck) -> WireRequest {
    WireRequest {
        id: id.0,
        payload: WireQuestion {
            daemon: question.daemon.to_string(),
            device: question.device.to_string(),
            group: question.group.to_string(),
            client: question.client.to_string(),
        },
    }
}

/// The question, for a policy; signed, it is an envelope as well, which others read as they read any question.
pub fn ask(to: &AtSign, id: RequestId, question: &AuthCheck, key: Option<&KeyPair>) -> Message {
    let wire = wire_request(id, question);
    let sealed = key.map(|key| envelope::seal(&json::to_string(&wire.payload), key));
    let text = match sealed {
        Some(Ok(sealed)) => format!(r#"{{"reqId":{id},{}"#, sealed.trim_start_matches('{')),
        _ => json::to_string(&wire),
    };
    Message::new(to, entity("request", id), text)
}

/// Whether this key has signed what is asked in a question.
pub fn is_signed(text: &str, key: &PublicKey) -> bool {
    Envelope::parse(text).is_ok_and(|envelope| envelope.verify(key).is_ok())
}

/// The id, if a key is that of a question.
pub fn asked(entity: &str) -> Option<RequestId> {
    let (kind, id) = take_apart(entity)?;
    (kind == "request").then_some(id)
}

/// Kind and id, if a key is that of an answer.
pub fn answered(entity: &str) -> Option<(ResponseType, RequestId)> {
    let (word, id) = take_apart(entity)?;
    let (kind, _) = KINDS.iter().find(|row| row.1 == word)?;
    Some((*kind, id))
}

impl AuthCheck {
    /// Reads a question that `from` sent under this id.
    ///
    /// # Errors
    /// When it cannot be read, and when somebody asks about devices that are not its own: the answer is
    /// nobody else's business.
    pub fn parse(from: &AtSign, id: RequestId, text: &str) -> Result<Self, BadRpc> {
        let wire: WireRequest = read(text)?;
        if wire.id != id.0 {
            return Err(BadRpc::OtherId);
        }
        let atsign = |name: &str| name.parse::<AtSign>().map_err(|_| BadRpc::Form);
        let (asks, client) = (atsign(&wire.payload.daemon)?, atsign(&wire.payload.client)?);
        if asks != *from {
            return Err(BadRpc::NotTheSender(asks));
        }
        Ok(Self {
            client,
            daemon: asks,
            device: wire.payload.device.parse()?,
            group: wire.payload.group.parse().map_err(|_| BadRpc::Form)?,
        })
    }
}

fn read<T: Deserialize>(text: &str) -> Result<T, BadRpc> {
    if text.len() > MAX_RPC {
        return Err(BadRpc::Form);
    }
    json::from_str(text).map_err(|_| BadRpc::Form)
}

/// "Heard."
pub fn ack(to: &AtSign, id: RequestId) -> Message {
    message(to, ResponseType::Ack, id, Empty {}, None)
}

/// Yes or no. One that nobody would read for its length is none.
pub fn answer(to: &AtSign, id: RequestId, answer: &AuthAnswer) -> Message {
    let message = message(to, ResponseType::Success, id, wire_answer(answer), None);
    if message.text.len() > MAX_RPC {
        return nack(to, id, "the rules permit more than one answer can say");
    }
    message
}

/// "There will be no answer", and why.
pub fn nack(to: &AtSign, id: RequestId, why: &str) -> Message {
    message(to, ResponseType::Nack, id, Empty {}, Some(why))
}

fn wire_answer(answer: &AuthAnswer) -> WireAnswer<'_> {
    WireAnswer {
        authorized: answer.authorized,
        message: answer.message.as_deref(),
        permit_open: &answer.permit_open,
    }
}

fn message<P: Serialize>(
    to: &AtSign,
    kind: ResponseType,
    id: RequestId,
    payload: P,
    why: Option<&str>,
) -> Message {
    let wire = WireResponse {
        id: id.0,
        kind: kind.word(),
        payload,
        message: why,
    };
    Message::new(to, entity(kind.word(), id), json::to_string(&wire))
}

#[derive(Deserialize)]
struct LooseResponse {
    #[serde(rename = "reqId")]
    id: u64,
    #[serde(rename = "respType")]
    kind: String,
    payload: Option<json::Value>,
    message: Option<json::Value>,
}

impl RpcResponse {
    /// Reads an answer that came under this kind and id.
    ///
    /// # Errors
    /// When it cannot be read, or is for another question. A yes without a list of what may be opened, as
    /// early programs send it, cannot be read: it does not say what it allows.
    pub fn parse(kind: ResponseType, id: RequestId, text: &str) -> Result<Self, BadRpc> {
        let read: LooseResponse = read(text)?;
        if read.id != id.0 {
            return Err(BadRpc::OtherId);
        }
        if read.kind != kind.word() {
            return Err(BadRpc::Form);
        }
        match kind {
            ResponseType::Ack => Ok(Self::Ack),
            ResponseType::Nack | ResponseType::Error => {
                Ok(Self::Refused(words(read.message.as_ref())))
            }
            ResponseType::Success => read
                .payload
                .as_ref()
                .and_then(read_answer)
                .map(Self::Answer)
                .ok_or(BadRpc::Form),
        }
    }
}

fn read_answer(payload: &json::Value) -> Option<AuthAnswer> {
    let json::Value::Object(members) = payload else {
        return None;
    };
    let Some(json::Value::Bool(authorized)) = members.get("authorized") else {
        return None;
    };
    let permit_open = match members.get("permitOpen") {
        Some(json::Value::Array(list)) => list.iter().filter_map(|v| words(Some(v))).collect(),
        // Without a yes the list is nothing to insist on.
        _ if !authorized => Vec::new(),
        _ => return None,
    };
    Some(AuthAnswer {
        authorized: *authorized,
        message: words(members.get("message")),
        permit_open,
    })
}

fn words(value: Option<&json::Value>) -> Option<String> {
    match value {
        Some(json::Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

#[derive(Serialize)]
struct WireLog<'a> {
    daemon: &'a str,
    timestamp: u64,
    payload: WireLogged<'a>,
}

#[derive(Serialize)]
struct WireLogged<'a> {
    request: WireRequest,
    response: WireResponse<'a, WireAnswer<'a>>,
}

/// Key of the record that says which of several processes with the policy's atSign answers a question.
pub fn lock(id: RequestId) -> String {
    format!("{id}.session_mutexes.{DOMAIN}")
}

/// What a policy tells itself about a decision, so that an administrator's program can show it.
/// `millis` is the time since 1970.
pub fn log(
    to: &AtSign,
    millis: u64,
    id: RequestId,
    question: &AuthCheck,
    answer: &AuthAnswer,
) -> Message {
    let daemon = question.daemon.to_string();
    let wire = WireLog {
        daemon: &daemon,
        timestamp: millis,
        payload: WireLogged {
            request: wire_request(id, question),
            response: WireResponse {
                id: id.0,
                kind: ResponseType::Success.word(),
                payload: wire_answer(answer),
                message: None,
            },
        },
    };
    let entity = format!("{millis}.{}", super::LOGS);
    Message::new(to, entity, json::to_string(&wire))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
