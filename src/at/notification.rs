//! What a monitor delivers: `notification: {"id":…,"from":…,…}`.
//!
//! ```text
//!   sender ─notify─▶ atServer ─notify─▶ atServer ─┬─ pushed at once ──▶ live
//!                                                 └─ asked for later ─▶ replayed   (monitor:<epoch>, notify:list)
//! ```
//! The two forms differ in their `metadata`: only the live one has `sharedKeyEnc`, only the
//! replayed one has dates. Servers print them in `server::notification`.
//!
//! Source: at_server:packages/at_secondary_server/lib/src/verb/handler/monitor_verb_handler.dart

use miniserde::{Deserialize, de, json, make_place};

use super::{atsign::AtSign, verb::Operation};

/// One notification as received, still encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The sender's id; `-1` for server statistics.
    pub id: String,
    /// Who sent it. The receiving atServer vouches for it.
    pub from: AtSign,
    /// Who it is for.
    pub to: AtSign,
    /// The whole key or text: `@to:entity@from`.
    pub key: String,
    /// Cipher text in base64, or plain; `None` for delete and touch.
    pub value: Option<String>,
    /// Set or removed.
    pub operation: Operation,
    /// When the receiving server stored it, in milliseconds since 1970.
    pub epoch_millis: u64,
    /// `MessageType.text` rather than `MessageType.key`.
    pub is_text: bool,
    /// Whether `value` is encrypted.
    pub is_encrypted: bool,
    /// Base64 of the 16-byte IV; absent means all zero.
    pub iv_nonce: Option<String>,
    /// RSA of the shared key, when the sender sent it along.
    pub shared_key_enc: Option<String>,
    /// `availableAt`, `expiresAt` as text (replayed ones only).
    pub expires_at: Option<String>,
}

/// Why a notification cannot be used. It is logged and dropped; the monitor goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNotification {
    /// Not JSON, or a member is missing or of the wrong type.
    #[error("a notification that cannot be read")]
    Json,
    /// `from` or `to` is no atSign.
    #[error("a notification from or to no atSign")]
    Names,
}

impl Notification {
    /// Reads the JSON behind `notification:`.
    ///
    /// Needed are `from`, `to` and `key`; anything else may be missing. A number in place of a text,
    /// or the other way round, does no harm. The text `null` counts as absent in metadata.
    ///
    /// # Errors
    /// See [`BadNotification`]. Unknown members are ignored.
    pub fn parse(json: &str) -> Result<Self, BadNotification> {
        let raw: Raw = json::from_str(json).map_err(|_| BadNotification::Json)?;
        let name = |member: Option<Loose>| {
            let text = member.ok_or(BadNotification::Json)?.into_text();
            text.parse().map_err(|_| BadNotification::Names)
        };
        let says = |member: &Option<Loose>, word: &str| {
            let text = member.as_ref().map(Loose::text).unwrap_or_default();
            // Also as `MessageType.text`, `OperationType.delete`.
            text.rsplit('.').next() == Some(word)
        };
        let is_text = says(&raw.message_type, "text");
        let metadata = raw.metadata.unwrap_or_default();
        let present = |member: Option<Loose>| {
            let text = member.map(Loose::into_text)?;
            (!text.is_empty() && text != "null").then_some(text)
        };
        Ok(Self {
            from: name(raw.from)?,
            to: name(raw.to)?,
            id: raw.id.map(Loose::into_text).unwrap_or_default(),
            key: raw.key.ok_or(BadNotification::Json)?.into_text(),
            value: raw.value.map(Loose::into_text),
            operation: if says(&raw.operation, "delete") {
                Operation::Delete
            } else {
                Operation::Update
            },
            epoch_millis: raw
                .epoch_millis
                .map_or(0, |n| n.text().parse().unwrap_or(0)),
            is_text,
            // Absent means encrypted for keys: that is how old senders mark theirs.
            is_encrypted: match raw.is_encrypted {
                None => !is_text,
                Some(flag) => !flag.text().eq_ignore_ascii_case("false"),
            },
            iv_nonce: present(metadata.iv_nonce),
            shared_key_enc: present(metadata.shared_key_enc),
            expires_at: present(metadata.expires_at),
        })
    }

    /// The entity without atSigns: `req.dev1.sshnp`.
    pub fn entity(&self) -> &str {
        let unowned = self.key.strip_suffix(self.from.as_str());
        let key = unowned.unwrap_or(&self.key);
        let entity = key.strip_prefix(self.to.as_str());
        entity.and_then(|e| e.strip_prefix(':')).unwrap_or(key)
    }

    /// Server statistics: proof of life, nothing else.
    pub fn is_stats(&self) -> bool {
        self.id == "-1"
    }
}

#[derive(Deserialize)]
struct Raw {
    id: Option<Loose>,
    from: Option<Loose>,
    to: Option<Loose>,
    key: Option<Loose>,
    value: Option<Loose>,
    operation: Option<Loose>,
    #[serde(rename = "epochMillis")]
    epoch_millis: Option<Loose>,
    #[serde(rename = "messageType")]
    message_type: Option<Loose>,
    #[serde(rename = "isEncrypted")]
    is_encrypted: Option<Loose>,
    metadata: Option<RawMetadata>,
}

#[derive(Deserialize, Default)]
struct RawMetadata {
    #[serde(rename = "ivNonce")]
    iv_nonce: Option<Loose>,
    #[serde(rename = "sharedKeyEnc")]
    shared_key_enc: Option<Loose>,
    #[serde(rename = "expiresAt")]
    expires_at: Option<Loose>,
}

/// A member as text, whether it came as text, number or truth value.
struct Loose(String);

impl Loose {
    fn text(&self) -> &str {
        &self.0
    }

    fn into_text(self) -> String {
        self.0
    }
}

make_place!(Place);

impl de::Visitor for Place<Loose> {
    fn string(&mut self, text: &str) -> miniserde::Result<()> {
        self.out = Some(Loose(text.to_owned()));
        Ok(())
    }

    fn boolean(&mut self, b: bool) -> miniserde::Result<()> {
        self.out = Some(Loose(b.to_string()));
        Ok(())
    }

    fn negative(&mut self, n: i64) -> miniserde::Result<()> {
        self.out = Some(Loose(n.to_string()));
        Ok(())
    }

    fn nonnegative(&mut self, n: u64) -> miniserde::Result<()> {
        self.out = Some(Loose(n.to_string()));
        Ok(())
    }
}

impl Deserialize for Loose {
    fn begin(out: &mut Option<Self>) -> &mut dyn de::Visitor {
        Place::new(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use miniserde::json::{Object, Value};

    const LIVE: &str = r#"{"id":"7","from":"@alice","to":"@bob","key":"@bob:req.dev1.sshnp@alice","value":"PZyp==","operation":"update","epochMillis":1729771234567,"messageType":"MessageType.key","isEncrypted":true,"metadata":{"encKeyName":null,"encAlgo":null,"ivNonce":"VP3U==","skeEncKeyName":null,"skeEncAlgo":null,"sharedKeyEnc":"mElQ=="}}"#;

    #[derive(Deserialize)]
    struct Vectors {
        notifications: Object,
    }

    fn vector(name: &str) -> String {
        let all = include_str!("../../tests/vectors/atprotocol.json");
        let vectors: Vectors = json::from_str(all).unwrap();
        json::to_string(&vectors.notifications[name])
    }

    fn text_of(value: &Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(json::to_string(other)),
        }
    }

    #[test]
    fn the_vectors_are_read_member_by_member() {
        for name in ["live", "replayed", "delete", "stats"] {
            let json = vector(name);
            let note = Notification::parse(&json).unwrap();
            let want: Object = json::from_str(&json).unwrap();
            let metadata = match &want["metadata"] {
                Value::Object(metadata) => metadata.clone(),
                _ => Object::new(),
            };
            let meta = |name: &str| metadata.get(name).and_then(text_of);
            let is = |member: &str, text: &str| {
                assert_eq!(
                    text_of(&want[member]).as_deref(),
                    Some(text),
                    "{name} {member}"
                );
            };
            is("id", &note.id);
            is("from", note.from.as_str());
            is("to", note.to.as_str());
            is("key", &note.key);
            is("operation", &note.operation.to_string());
            is("epochMillis", &note.epoch_millis.to_string());
            is("isEncrypted", &note.is_encrypted.to_string());
            assert!(!note.is_text, "{name}");
            assert_eq!(note.value, text_of(&want["value"]), "{name}");
            assert_eq!(note.iv_nonce, meta("ivNonce"), "{name}");
            assert_eq!(note.shared_key_enc, meta("sharedKeyEnc"), "{name}");
            assert_eq!(note.expires_at, meta("expiresAt"), "{name}");
            assert_eq!(note.is_stats(), name == "stats");
        }
    }

    #[test]
    fn little_is_needed_and_types_may_differ() {
        let least = r#"{"from":"@alice","to":"@bob","key":"@bob:x.ns@alice"}"#;
        let note = Notification::parse(least).unwrap();
        assert!(note.is_encrypted && !note.is_text && note.value.is_none());
        assert_eq!((note.id.as_str(), note.epoch_millis), ("", 0));

        let odd = r#"{"extra":[{"a":[1]}],"id":7,"from":"Alice","to":"@bob","key":"@bob:hello","value":42,"operation":"OperationType.delete","epochMillis":"1729771234567","messageType":"text","isEncrypted":"False","metadata":{"ivNonce":"null","sharedKeyEnc":"","expiresAt":"null","new":{}}}"#;
        let note = Notification::parse(odd).unwrap();
        assert_eq!(note.id, "7");
        assert_eq!(note.from.as_str(), "@alice");
        assert_eq!(note.value.as_deref(), Some("42"));
        assert_eq!(note.operation, Operation::Delete);
        assert_eq!(note.epoch_millis, 1_729_771_234_567);
        assert!(note.is_text && !note.is_encrypted);
        assert_eq!(
            (note.iv_nonce, note.shared_key_enc, note.expires_at),
            (None, None, None)
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (json, error) in [
            ("", BadNotification::Json),
            ("[]", BadNotification::Json),
            ("{", BadNotification::Json),
            (r#"{"to":"@bob","key":"k"}"#, BadNotification::Json),
            (r#"{"from":"@alice","to":"@bob"}"#, BadNotification::Json),
            (
                r#"{"from":"@alice","to":"@bob","key":null}"#,
                BadNotification::Json,
            ),
            (
                r#"{"from":"@alice","to":"@bob","key":["k"]}"#,
                BadNotification::Json,
            ),
            (
                r#"{"from":"@alice","to":"@bob","key":"k","value":{}}"#,
                BadNotification::Json,
            ),
            (
                r#"{"from":"@alice","to":"@bob","key":"k"} x"#,
                BadNotification::Json,
            ),
            (
                r#"{"from":"","to":"@bob","key":"k"}"#,
                BadNotification::Names,
            ),
            (
                r#"{"from":"@al ice","to":"@bob","key":"k"}"#,
                BadNotification::Names,
            ),
            (
                r#"{"from":"@alice","to":"@@bob","key":"k"}"#,
                BadNotification::Names,
            ),
        ] {
            assert_eq!(Notification::parse(json), Err(error), "{json}");
        }
    }

    #[test]
    fn the_entity_stands_without_atsigns() {
        for (key, entity) in [
            ("@bob:req.dev1.sshnp@alice", "req.dev1.sshnp"),
            ("@bob:Req.Dev1.sshnp@alice", "Req.Dev1.sshnp"),
            ("public:x.ns@alice", "public:x.ns"),
            ("@bob:hello there", "hello there"),
            ("@bob:x.ns@carol", "x.ns@carol"),
            ("@carol:x.ns@alice", "@carol:x.ns"),
            ("@bobby:x.ns@alice", "@bobby:x.ns"),
            ("@alice", ""),
        ] {
            let note = Notification {
                key: key.into(),
                ..Notification::parse(LIVE).unwrap()
            };
            assert_eq!(note.entity(), entity, "{key}");
        }
    }
}
