//! [`Verb`] to text, in the one order that every atServer takes.

use std::fmt::{self, Display, Formatter};

use super::command::{
    AccessList, Config, Detail, EnrollOperation, HashingAlgo, KeysCommand, MAX_COMMAND, Notify,
    Operation, SigningAlgo, Subject, Unsendable, Verb,
};
use crate::at::{
    atsign::AtSign,
    key::{AtKey, Scope},
};

impl Display for Verb {
    /// Prints the command line, without line end, in the classic grammar.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::From { who, config } => {
                write!(f, "from:{who}")?;
                item(f, "clientConfig", config)
            }
            Self::To { who } => write!(f, "to:{who}"),
            Self::Cram { digest } => write!(f, "cram:{digest}"),
            Self::Pkam {
                signing,
                hashing,
                enrollment,
                signature,
            } => {
                f.write_str("pkam")?;
                item(f, "signingAlgo", signing)?;
                item(f, "hashingAlgo", hashing)?;
                item(f, "enrollmentId", enrollment)?;
                write!(f, ":{signature}")
            }
            Self::Pol => f.write_str("pol"),
            Self::Lookup {
                key,
                detail,
                bypass_cache,
            } => lookup(f, "lookup", key, *detail, *bypass_cache),
            Self::Plookup {
                key,
                detail,
                bypass_cache,
            } => lookup(f, "plookup", key, *detail, *bypass_cache),
            Self::Llookup { key, detail } => write!(f, "llookup{detail}:{key}"),
            Self::Update {
                key,
                metadata,
                value,
            } => write!(f, "update{metadata}:{key} {value}"),
            Self::UpdateMeta { key, metadata } => write!(f, "update:meta:{key}{metadata}"),
            Self::UpdateJson { json } => write!(f, "update:json:{json}"),
            Self::Delete { key, priority } => {
                f.write_str("delete")?;
                item(f, "priority", priority)?;
                write!(f, ":{key}")
            }
            Self::ForceDelete { key } => write!(f, "delete:force:{key}"),
            Self::Notify(notify) => notify.fmt(f),
            Self::NotifyAll { to, notify } => notify_all(f, to, notify),
            Self::NotifyStatus { id } => write!(f, "notify:status:{id}"),
            Self::NotifyFetch { id } => write!(f, "notify:fetch:{id}"),
            Self::NotifyRemove { id } => write!(f, "notify:remove:{id}"),
            Self::NotifyList { from, to, regex } => {
                f.write_str("notify:list")?;
                behind(f, ':', from)?;
                behind(f, ':', to)?;
                behind(f, ':', regex)
            }
            Self::Scan {
                show_hidden,
                of,
                page,
                regex,
            } => {
                f.write_str("scan")?;
                word(f, "showhidden:true", *show_hidden)?;
                behind(f, ':', of)?;
                item(f, "page", page)?;
                behind(f, ' ', regex)
            }
            Self::Monitor {
                strict,
                self_notifications,
                multiplexed,
                since,
                regex,
            } => {
                f.write_str("monitor")?;
                word(f, "strict", *strict)?;
                word(f, "selfNotifications", *self_notifications)?;
                word(f, "multiplexed", *multiplexed)?;
                behind(f, ':', since)?;
                behind(f, ' ', regex)
            }
            Self::Noop { millis } => write!(f, "noop:{millis}"),
            Self::Info { brief } => {
                f.write_str("info")?;
                word(f, "brief", *brief)
            }
            Self::Stats { ids, regex } => {
                f.write_str("stats")?;
                behind(f, ':', &(!ids.is_empty()).then(|| ids.join(",")))?;
                behind(f, ':', regex)
            }
            Self::Sync { from, limit, regex } => {
                match limit {
                    Some(limit) => write!(f, "sync:from:{from}:limit:{limit}")?,
                    None => write!(f, "sync:{from}")?,
                }
                behind(f, ':', regex)
            }
            Self::Config(config) => config.fmt(f),
            Self::Batch { json } => write!(f, "batch:{json}"),
            Self::Enroll {
                operation,
                force,
                params,
            } => {
                write!(f, "enroll:{operation}")?;
                word(f, "force", *force)?;
                behind(f, ':', params)
            }
            Self::OtpGet { ttl } => {
                f.write_str("otp:get")?;
                item(f, "ttl", ttl)
            }
            Self::OtpPut { otp, ttl } => {
                write!(f, "otp:put:{otp}")?;
                item(f, "ttl", ttl)
            }
            Self::Keys(keys) => keys.fmt(f),
            Self::Stream { rest } => write!(f, "stream:{rest}"),
        }
    }
}

impl Verb {
    /// The command as one line, without its line end.
    ///
    /// # Errors
    /// A line end inside would start a second command; a long line would end the connection.
    pub fn line(&self) -> Result<String, Unsendable> {
        let line = self.to_string();
        if line.len() > MAX_COMMAND {
            return Err(Unsendable::TooLong(line.len()));
        }
        if line.contains(['\n', '\r']) {
            return Err(Unsendable::LineEnd);
        }
        Ok(line)
    }
}

/// `:name:value` when there is a value.
fn item(f: &mut Formatter<'_>, name: &str, value: &Option<impl Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, ":{name}:{value}"),
        None => Ok(()),
    }
}

/// The value with a character in front, when there is one.
fn behind(f: &mut Formatter<'_>, mark: char, value: &Option<impl Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, "{mark}{value}"),
        None => Ok(()),
    }
}

fn word(f: &mut Formatter<'_>, word: &str, there: bool) -> fmt::Result {
    if there { write!(f, ":{word}") } else { Ok(()) }
}

/// These verbs say by themselves whose and which value is meant; a scope in the key would be taken
/// for a part of its name.
fn lookup(
    f: &mut Formatter<'_>,
    verb: &str,
    key: &AtKey,
    detail: Detail,
    bypass: bool,
) -> fmt::Result {
    f.write_str(verb)?;
    word(f, "bypassCache:true", bypass)?;
    write!(f, "{detail}:{}", key.entity)?;
    match &key.owner {
        Some(owner) => owner.fmt(f),
        None => Ok(()),
    }
}

/// The wire's words.
macro_rules! words {
    ($($kind:ident: $($variant:ident $word:literal),*;)*) => {$(
        impl Display for $kind {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word),*
                })
            }
        }
    )*};
}

words! {
    Detail: Value "", Meta ":meta", All ":all";
    SigningAlgo: Rsa2048 "rsa2048", EccSecp256r1 "ecc_secp256r1";
    HashingAlgo: Sha256 "sha256", Sha512 "sha512";
    Operation: Update "update", Delete "delete";
    AccessList: Block "block", Allow "allow";
}

impl Display for EnrollOperation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // The table is in the order of the enum; a test holds it there.
        f.write_str(Self::ALL[*self as usize].1)
    }
}

impl Display for Notify {
    /// Prints the whole `notify` command.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("notify")?;
        item(f, "id", &self.id)?;
        behind(f, ':', &self.operation)?;
        item(f, "messageType", &self.message_type())?;
        item(f, "priority", &self.priority)?;
        item(f, "strategy", &self.strategy)?;
        item(f, "latestN", &self.latest_n)?;
        item(f, "notifier", &self.notifier)?;
        item(f, "ttln", &self.ttln)?;
        write!(f, "{}:{}", self.metadata, self.subject)?;
        behind(f, ':', &self.value)
    }
}

impl Notify {
    /// The word to print. A text must say that it is one.
    fn message_type(&self) -> Option<&'static str> {
        match self.subject {
            Subject::Text { .. } => Some("text"),
            Subject::Key { .. } => self.message_type.then_some("key"),
        }
    }
}

impl Display for Subject {
    /// `@bob:x.ns@alice`, `@bob:public:x.ns@alice`, `@bob:hello there`: also the `key` of a notification.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { to, text } => write!(f, "{to}:{text}"),
            Self::Key { to: Some(to), key } if !matches!(key.scope, Scope::Shared(_)) => {
                write!(f, "{to}:{key}")
            }
            Self::Key { key, .. } => key.fmt(f),
        }
    }
}

fn notify_all(f: &mut Formatter<'_>, to: &[AtSign], notify: &Notify) -> fmt::Result {
    f.write_str("notify:all")?;
    behind(f, ':', &notify.operation)?;
    item(f, "messageType", &notify.message_type())?;
    write!(f, "{}:", notify.metadata)?;
    for (at, name) in to.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(f, "{comma}{name}")?;
    }
    match &notify.subject {
        Subject::Key { key, .. } => write!(f, ":{key}")?,
        Subject::Text { text, .. } => write!(f, ":{text}")?,
    }
    behind(f, ':', &notify.value)
}

impl Display for Config {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (list, operation, names) = match self {
            Self::Add(list, names) => (list, "add", names),
            Self::Remove(list, names) => (list, "remove", names),
            Self::Show(list) => return write!(f, "config:{list}:show"),
            Self::Setting { operation, name } => return write!(f, "config:{operation}:{name}"),
        };
        write!(f, "config:{list}:{operation}")?;
        for (at, name) in names.iter().enumerate() {
            write!(f, "{}{name}", if at > 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

impl Display for KeysCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "keys:{}", self.operation)?;
        behind(f, ':', &self.visibility)?;
        item(f, "namespace", &self.namespace)?;
        item(f, "appName", &self.app_name)?;
        item(f, "deviceName", &self.device_name)?;
        item(f, "keyType", &self.key_type)?;
        item(f, "encryptionKeyName", &self.encryption_key_name)?;
        item(f, "keyName", &self.key_name)?;
        behind(
            f,
            if self.key_name.is_some() { ' ' } else { ':' },
            &self.value,
        )
    }
}
