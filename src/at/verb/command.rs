//! What commands hold.

use crate::at::{
    atsign::AtSign,
    fault::{Code, Fault},
    key::{AtKey, BadKey},
    metadata::Metadata,
};

/// How strictly a command is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Exactly the grammar of October 2024 (at_commons 5.0.1): what a client may send everywhere.
    Classic,
    /// What our server takes: also newer items, metadata in any order, `config:allow`, `message_type`.
    Lenient,
}

/// What a look-up returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// The value.
    #[default]
    Value,
    /// The metadata as JSON.
    Meta,
    /// `{"key","data","metaData"}`.
    All,
}

/// How a signature was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SigningAlgo {
    /// RSA-2048 PKCS#1 v1.5.
    #[default]
    Rsa2048,
    /// ECDSA over secp256r1.
    EccSecp256r1,
}

impl SigningAlgo {
    /// From the wire's word.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "rsa2048" => Some(Self::Rsa2048),
            "ecc_secp256r1" => Some(Self::EccSecp256r1),
            _ => None,
        }
    }
}

/// The hash under a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashingAlgo {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// `update` or `delete`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// A value was set.
    #[default]
    Update,
    /// A value was removed.
    Delete,
}

/// What a notification is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `messageType:key`; the key's scope is `Shared(to)` or `Public`, its owner the sender or absent.
    Key {
        /// Who is told. For `@bob:public:x@alice` the key is public and this names bob.
        to: Option<AtSign>,
        /// The key; case of the entity is preserved here.
        key: AtKey,
    },
    /// `messageType:text`.
    Text {
        /// Who is told.
        to: AtSign,
        /// The text.
        text: String,
    },
}

/// The `notify` command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Notify {
    pub id: Option<String>,
    /// `None` when the word was absent (means update).
    pub operation: Option<Operation>,
    /// `low`, `medium` or `high`.
    pub priority: Option<String>,
    /// `all` or `latest`.
    pub strategy: Option<String>,
    pub latest_n: Option<u32>,
    pub notifier: Option<String>,
    /// Life of the notification in milliseconds.
    pub ttln: Option<u64>,
    /// Print the `messageType` item (a parsed command remembers whether it was there).
    pub message_type: bool,
    pub metadata: Metadata,
    pub subject: Subject,
    pub value: Option<String>,
}

/// One command line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the variants are the wire's own words
pub enum Verb {
    From {
        who: AtSign,
        /// The JSON behind `clientConfig:`.
        config: Option<String>,
    },
    /// Whose atServer is meant, as the first word between atServers (2026); lenient only.
    To {
        who: AtSign,
    },
    Cram {
        digest: String,
    },
    Pkam {
        signing: Option<SigningAlgo>,
        hashing: Option<HashingAlgo>,
        enrollment: Option<String>,
        signature: String,
    },
    Pol,
    Scan {
        show_hidden: bool,
        /// Another atSign's keys.
        of: Option<AtSign>,
        page: Option<u32>,
        regex: Option<String>,
    },
    Lookup {
        /// As written: `x.ns@bob` has no scope. Prints without one, whatever it is.
        key: AtKey,
        detail: Detail,
        bypass_cache: bool,
    },
    Plookup {
        /// As written: `publickey@bob` has no scope. Prints without one, whatever it is.
        key: AtKey,
        detail: Detail,
        bypass_cache: bool,
    },
    Llookup {
        key: AtKey,
        detail: Detail,
    },
    Update {
        key: AtKey,
        metadata: Metadata,
        value: String,
    },
    UpdateMeta {
        key: AtKey,
        metadata: Metadata,
    },
    /// The JSON as it came.
    UpdateJson {
        json: String,
    },
    Delete {
        key: AtKey,
        priority: Option<String>,
    },
    /// `delete:force:…`: also a value marked `immutable` (2025); lenient only.
    ForceDelete {
        key: AtKey,
    },
    Notify(Box<Notify>),
    NotifyStatus {
        id: String,
    },
    NotifyFetch {
        id: String,
    },
    NotifyRemove {
        id: String,
    },
    NotifyList {
        from: Option<String>,
        to: Option<String>,
        regex: Option<String>,
    },
    NotifyAll {
        to: Vec<AtSign>,
        /// The key has no scope and the subject names nobody: each of `to` gets it.
        notify: Box<Notify>,
    },
    Monitor {
        strict: bool,
        self_notifications: bool,
        multiplexed: bool,
        since: Option<u64>,
        regex: Option<String>,
    },
    Noop {
        millis: u64,
    },
    Info {
        brief: bool,
    },
    Stats {
        /// Without colon and commas; empty means all.
        ids: Vec<String>,
        regex: Option<String>,
    },
    Sync {
        /// Everything after this commit; -1 for all.
        from: i64,
        /// Absent in the old form `sync:<n>`.
        limit: Option<u32>,
        regex: Option<String>,
    },
    Config(Config),
    Batch {
        json: String,
    },
    Enroll {
        operation: EnrollOperation,
        force: bool,
        /// JSON; for `listns` and `infons` the namespace.
        params: Option<String>,
    },
    OtpGet {
        ttl: Option<u64>,
    },
    OtpPut {
        otp: String,
        ttl: Option<u64>,
    },
    Keys(KeysCommand),
    Stream {
        /// File transfer, of no use here: what stands behind the colon.
        rest: String,
    },
}

/// Which list `config` speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessList {
    /// These may not connect.
    Block,
    /// Only these may connect, once the list is not empty.
    Allow,
}

/// The `config` command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Config {
    Add(AccessList, Vec<AtSign>),
    Remove(AccessList, Vec<AtSign>),
    Show(AccessList),
    /// `set`, `reset`, `print`: only in test mode of the original.
    Setting {
        operation: String,
        name: String,
    },
}

/// The word behind `enroll:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EnrollOperation {
    Request,
    Approve,
    Deny,
    Revoke,
    Unrevoke,
    List,
    Fetch,
    Delete,
    Update,
    ListNs,
    InfoNs,
}

/// The `keys` command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct KeysCommand {
    /// `get`, `put` or `delete`.
    pub operation: String,
    /// `public`, `private` or `self`.
    pub visibility: Option<String>,
    pub namespace: Option<String>,
    pub app_name: Option<String>,
    pub device_name: Option<String>,
    pub key_type: Option<String>,
    pub encryption_key_name: Option<String>,
    pub key_name: Option<String>,
    pub value: Option<String>,
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Nothing or an unknown word.
    #[error("invalid command")]
    UnknownVerb,
    /// A known verb with wrong parameters; holds the verb, and the form it should have.
    #[error("Invalid syntax. {0}: {1}")]
    Parameters(&'static str, String),
    /// A command in good form about a key that cannot be.
    #[error(transparent)]
    Key(#[from] BadKey),
}

/// Longest command that may be sent, in bytes. Servers take a little more.
pub(super) const MAX_COMMAND: usize = 10_230_000;

/// Why a command cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// Above [`MAX_COMMAND`].
    #[error("a command of {0} bytes; atServers take {MAX_COMMAND}")]
    TooLong(usize),
    /// A value, text or pattern has a line end in it.
    #[error("a command or its value holds a line end")]
    LineEnd,
}

impl SyntaxError {
    /// The code an atServer answers with.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownVerb | Self::Parameters(..) => Code::InvalidSyntax,
            Self::Key(_) => Code::InvalidKey,
        }
    }
}

impl From<SyntaxError> for Fault {
    fn from(error: SyntaxError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl EnrollOperation {
    /// Every operation, its word, and whether the grammar of October 2024 knows it.
    pub(super) const ALL: [(Self, &'static str, bool); 11] = [
        (Self::Request, "request", true),
        (Self::Approve, "approve", true),
        (Self::Deny, "deny", true),
        (Self::Revoke, "revoke", true),
        (Self::Unrevoke, "unrevoke", true),
        (Self::List, "list", true),
        (Self::Fetch, "fetch", true),
        (Self::Delete, "delete", true),
        (Self::Update, "update", false),
        (Self::ListNs, "listns", false),
        (Self::InfoNs, "infons", false),
    ];
}
