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

use super::{Answer, Question};
use crate::{
    at::AtSign,
    np::{Message, ids::BadId},
};

/// What stands behind the id in every key.
const DOMAIN: &str = "auth_checks.__rpcs.sshnp";
/// Ids stay below 2^53, so that every JSON reader takes them for whole numbers.
const ID_BITS: u32 = 53;
/// Longest question or answer, in bytes.
pub const MAX_RPC: usize = 256 * 1024;
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
pub enum Kind {
    /// The question was heard.
    Ack,
    /// It was answered, with yes or no.
    Success,
    /// It will not be answered.
    Nack,
    /// Something went wrong over there.
    Error,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Ack, "ack"),
    (Kind::Success, "success"),
    (Kind::Nack, "nack"),
    (Kind::Error, "error"),
];

impl Kind {
    fn word(self) -> &'static str {
        KINDS
            .iter()
            .find(|row| row.0 == self)
            .map_or("error", |row| row.1)
    }
}

/// One answer, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Heard; more follows.
    Ack,
    /// Yes or no.
    Answer(Answer),
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
struct Nothing {}

#[derive(Serialize)]
struct WireReply<'a, P> {
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

/// The question, for a policy.
pub fn ask(to: &AtSign, id: RequestId, question: &Question) -> Message {
    let wire = WireRequest {
        id: id.0,
        payload: WireQuestion {
            daemon: question.daemon.to_string(),
            device: question.device.to_string(),
            group: question.group.to_string(),
            client: question.client.to_string(),
        },
    };
    Message {
        to: to.clone(),
        entity: entity("request", id),
        text: json::to_string(&wire),
    }
}

/// The id, if a key is that of a question.
pub fn asked(entity: &str) -> Option<RequestId> {
    let (kind, id) = take_apart(entity)?;
    (kind == "request").then_some(id)
}

/// Kind and id, if a key is that of an answer.
pub fn answered(entity: &str) -> Option<(Kind, RequestId)> {
    let (word, id) = take_apart(entity)?;
    let (kind, _) = KINDS.iter().find(|row| row.1 == word)?;
    Some((*kind, id))
}

impl Question {
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
    message(to, Kind::Ack, id, Nothing {}, None)
}

/// Yes or no.
pub fn answer(to: &AtSign, id: RequestId, answer: &Answer) -> Message {
    message(to, Kind::Success, id, wire_answer(answer), None)
}

/// "There will be no answer", and why.
pub fn nack(to: &AtSign, id: RequestId, why: &str) -> Message {
    message(to, Kind::Nack, id, Nothing {}, Some(why))
}

fn wire_answer(answer: &Answer) -> WireAnswer<'_> {
    WireAnswer {
        authorized: answer.authorized,
        message: answer.message.as_deref(),
        permit_open: &answer.permit_open,
    }
}

fn message<P: Serialize>(
    to: &AtSign,
    kind: Kind,
    id: RequestId,
    payload: P,
    why: Option<&str>,
) -> Message {
    let wire = WireReply {
        id: id.0,
        kind: kind.word(),
        payload,
        message: why,
    };
    Message {
        to: to.clone(),
        entity: entity(kind.word(), id),
        text: json::to_string(&wire),
    }
}

#[derive(Deserialize)]
struct ReadReply {
    #[serde(rename = "reqId")]
    id: u64,
    #[serde(rename = "respType")]
    kind: String,
    payload: Option<json::Value>,
    message: Option<json::Value>,
}

impl Reply {
    /// Reads an answer that came under this kind and id.
    ///
    /// # Errors
    /// When it cannot be read, or is for another question. A yes without a list of what may be opened, as
    /// early programs send it, cannot be read: it does not say what it allows.
    pub fn parse(kind: Kind, id: RequestId, text: &str) -> Result<Self, BadRpc> {
        let read: ReadReply = read(text)?;
        if read.id != id.0 {
            return Err(BadRpc::OtherId);
        }
        if read.kind != kind.word() {
            return Err(BadRpc::Form);
        }
        match kind {
            Kind::Ack => Ok(Self::Ack),
            Kind::Nack | Kind::Error => Ok(Self::Refused(words(read.message.as_ref()))),
            Kind::Success => read
                .payload
                .as_ref()
                .and_then(read_answer)
                .map(Self::Answer)
                .ok_or(BadRpc::Form),
        }
    }
}

fn read_answer(payload: &json::Value) -> Option<Answer> {
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
    Some(Answer {
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
    response: WireReply<'a, WireAnswer<'a>>,
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
    question: &Question,
    answer: &Answer,
) -> Message {
    let daemon = question.daemon.to_string();
    let wire = WireLog {
        daemon: &daemon,
        timestamp: millis,
        payload: WireLogged {
            request: WireRequest {
                id: id.0,
                payload: WireQuestion {
                    daemon: daemon.clone(),
                    device: question.device.to_string(),
                    group: question.group.to_string(),
                    client: question.client.to_string(),
                },
            },
            response: WireReply {
                id: id.0,
                kind: Kind::Success.word(),
                payload: wire_answer(answer),
                message: None,
            },
        },
    };
    Message {
        to: to.clone(),
        entity: format!("{millis}.{}", super::LOGS),
        text: json::to_string(&wire),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::at::AtKey;

    fn known(name: &str) -> String {
        let all: json::Object =
            json::from_str(include_str!("../../../tests/vectors/noports.json")).unwrap();
        let Some(json::Value::Object(rpc)) = all.get("rpc") else {
            panic!("no rpc")
        };
        words(rpc.get(name)).unwrap_or_else(|| panic!("no {name}"))
    }

    fn at(text: &str) -> AtSign {
        text.parse().unwrap()
    }

    const ID: RequestId = RequestId(1_729_764_930_123_456);

    fn question() -> Question {
        Question {
            client: at("@client_example"),
            daemon: at("@device_example"),
            device: "my_device".parse().unwrap(),
            group: Default::default(),
        }
    }

    fn yes() -> Answer {
        Answer {
            authorized: true,
            message: Some("@client_example has permission for device my_device and/or device group __none__ at daemon @device_example".into()),
            permit_open: vec!["localhost:22".into()],
        }
    }

    #[test]
    fn messages_are_the_known_ones() {
        let (daemon, policy) = (at("@device_example"), at("@policy_example"));
        for (message, from, name) in [
            (ask(&policy, ID, &question()), &daemon, "request"),
            (ack(&daemon, ID), &policy, "ack"),
            (answer(&daemon, ID, &yes()), &policy, "success"),
        ] {
            let key = AtKey::shared(&message.to, &message.entity, from);
            assert_eq!(key.to_string(), known(&format!("{name}_key")));
            assert_eq!(message.text, known(&format!("{name}_value")), "{name}");
        }
    }

    #[test]
    fn what_was_sent_is_what_is_read() {
        let (daemon, policy) = (at("@device_example"), at("@policy_example"));
        let asked_for = ask(&policy, ID, &question());
        assert_eq!(asked(&asked_for.entity), Some(ID));
        assert_eq!(
            Question::parse(&daemon, ID, &asked_for.text),
            Ok(question())
        );
        for (message, want) in [
            (ack(&daemon, ID), Reply::Ack),
            (answer(&daemon, ID, &yes()), Reply::Answer(yes())),
            (nack(&daemon, ID, "no"), Reply::Refused(Some("no".into()))),
        ] {
            let (kind, id) = answered(&message.entity).unwrap();
            assert_eq!(id, ID);
            assert_eq!(Reply::parse(kind, id, &message.text), Ok(want));
        }
    }

    #[test]
    fn a_question_in_anothers_name_or_under_another_id_is_refused() {
        let text = ask(&at("@policy_example"), ID, &question()).text;
        assert_eq!(
            Question::parse(&at("@mallory"), ID, &text),
            Err(BadRpc::NotTheSender(at("@device_example")))
        );
        assert_eq!(
            Question::parse(&at("@device_example"), RequestId(7), &text),
            Err(BadRpc::OtherId)
        );
        for (from, to) in [
            ("my_device", "my.device"),
            ("my_device", ""),
            ("@client_example", "no one"),
            ("\"reqId\"", "\"id\""),
            ("__none__", "a\\nb"),
        ] {
            let spoilt = text.replace(from, to);
            assert!(
                Question::parse(&at("@device_example"), ID, &spoilt).is_err(),
                "{spoilt}"
            );
        }
        let long = format!("{text}{}", " ".repeat(MAX_RPC));
        assert_eq!(
            Question::parse(&at("@device_example"), ID, &long),
            Err(BadRpc::Form)
        );
    }

    #[test]
    fn answers_that_do_not_say_what_they_allow_are_no_answers() {
        let reply = |payload: &str| {
            let text = format!(
                r#"{{"reqId":{ID},"respType":"success","payload":{payload},"message":null}}"#
            );
            Reply::parse(Kind::Success, ID, &text)
        };
        for (payload, want) in [
            (r#"{"authorized":true}"#, None),
            (r#"{"authorized":true,"permitOpen":null}"#, None),
            (r#"{"authorized":true,"permitOpen":"*:*"}"#, None),
            (r#"{"authorized":"true","permitOpen":[]}"#, None),
            (r#"{"permitOpen":[]}"#, None),
            ("null", None),
            ("[]", None),
            (r#"{"authorized":false}"#, Some((false, 0))),
            (
                r#"{"authorized":true,"permitOpen":["a:1",7],"new":{}}"#,
                Some((true, 1)),
            ),
        ] {
            let got = match reply(payload) {
                Ok(Reply::Answer(a)) => Some((a.authorized, a.permit_open.len())),
                _ => None,
            };
            assert_eq!(got, want, "{payload}");
        }
        let text = answer(&at("@d"), ID, &yes()).text;
        assert_eq!(
            Reply::parse(Kind::Success, RequestId(1), &text),
            Err(BadRpc::OtherId)
        );
        assert_eq!(Reply::parse(Kind::Ack, ID, &text), Err(BadRpc::Form));
    }

    #[test]
    fn keys_of_other_things_are_not_taken_for_ours() {
        for entity in [
            "request.auth_checks.__rpcs.sshnp",
            "request.x.auth_checks.__rpcs.sshnp",
            "request.007.auth_checks.__rpcs.sshnp",
            "request.7.npp.__rpcs.sshnp",
            "success.7.auth_checks.__rpcs.sshnp",
            "ping.dev1.sshnp",
        ] {
            assert_eq!(asked(entity), None, "{entity}");
        }
        assert_eq!(answered("request.7.auth_checks.__rpcs.sshnp"), None);
        assert_eq!(answered("maybe.7.auth_checks.__rpcs.sshnp"), None);
    }

    #[test]
    fn ids_are_whole_numbers_everywhere() {
        assert_eq!(RequestId::from_random([0xff; 8]).0, (1 << 53) - 1);
        assert_eq!(RequestId::from_random([0; 8]).0, 0);
    }

    #[test]
    fn a_decision_is_logged_in_the_known_form() {
        let message = log(&at("@p"), 17, RequestId(5), &question(), &yes());
        assert_eq!(message.entity, "17.logs.policy.sshnp");
        let want = concat!(
            r#"{"daemon":"@device_example","timestamp":17,"payload":{"request":{"reqId":5,"payload":"#,
            r#"{"daemonAtsign":"@device_example","daemonDeviceName":"my_device","daemonDeviceGroupName":"__none__","clientAtsign":"@client_example"}},"#,
            r#""response":{"reqId":5,"respType":"success","payload":{"authorized":true,"#
        );
        assert!(message.text.starts_with(want), "{}", message.text);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[{}\\[\\]\":,a-zA-Z0-9 ]{0,200}", entity in "[a-z.0-9_]{0,60}") {
            let _ = Question::parse(&at("@d"), ID, &text);
            let _ = (asked(&entity), answered(&entity));
            for (kind, _) in KINDS {
                let _ = Reply::parse(kind, ID, &text);
            }
        }
    }
}
