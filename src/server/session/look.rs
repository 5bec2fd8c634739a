//! Reading: `scan`, `llookup`, `lookup`, `plookup`.
//!
//! ```text
//!   llookup            own store, any of the owner's keys
//!   lookup   owner     @me:key@other from other's store: here when other lives here, else over the network
//!            peer      @peer:key@me                     stranger: public:key@me
//!   plookup  owner     public:key@other, as lookup
//! ```

use crate::{
    at::{AtKey, AtSign, fault::Code, key::Scope, verb::Detail},
    server::{
        delivery::MAX_PUBLIC_KEY,
        enrolment::Need,
        refusal::{Refusal, refuse},
        store::{
            Rows, StoreError, Tx, lists,
            log::Change,
            records::{Meta, Record},
            register::{self, Home},
        },
    },
    text::json::{Object, array},
};

use super::{
    errand::{Errand, Fetched, RemoteQuery},
    outcome::{CommandAnswer, FollowUp, Handled, UncommittedOutcome},
    pattern,
    state::{Session, Trace, Who},
};

/// Most bytes of keys in one `scan` answer: below what clients read.
const MAX_SCAN: usize = 8 << 20;

/// What is stored, with the name it is shown under.
struct NamedRecord {
    name: String,
    record: Record,
}

impl Session {
    pub(super) fn scan(
        &self,
        tx: &Tx<'_>,
        hidden: bool,
        of: Option<&AtSign>,
        regex: Option<&str>,
    ) -> Handled {
        let filter = pattern::compile(regex)?;
        let (home, prefix, strip) = match (&self.who, of) {
            (Who::Owner(_), Some(other)) if *other != self.home.who => {
                let Some(home) = self.neighbour(tx, other)? else {
                    return Ok(self.errand(
                        other,
                        RemoteQuery::Scan {
                            regex: regex.map(str::to_owned),
                        },
                        Detail::Value,
                    ));
                };
                (home, format!("{}:", self.home.who), true)
            }
            (Who::Stranger | Who::Peer(_), Some(_)) => {
                let text = "Scan to another atSign cannot be performed without auth";
                return Err(refuse(Code::Unauthenticated, text));
            }
            (Who::Owner(_), _) => (self.home.clone(), String::new(), false),
            (Who::Stranger, None) => (self.home.clone(), "public:".to_owned(), true),
            (Who::Peer(caller), None) => (self.home.clone(), format!("{caller}:"), true),
        };
        let (mut keys, mut bytes) = (Vec::new(), 0);
        home.records(tx, &prefix, &mut |key, meta| {
            let shown = if strip { &key[prefix.len()..] } else { key };
            let visible = is_visible(key, hidden && !strip)
                && meta.is_live(self.now)
                && self.grant().is_none_or(|grant| grant.shows(key));
            if visible && pattern::found(filter.as_ref(), shown) {
                bytes += shown.len() + 3;
                keys.push(shown.to_owned());
            }
            bytes < MAX_SCAN
        })?;
        Ok(CommandAnswer::Data(array(keys.iter().map(String::as_str))))
    }

    pub(super) fn llookup(&self, tx: &Tx<'_>, key: &AtKey, detail: Detail) -> Handled {
        self.owner()?;
        let name = stored_name(key);
        if matches!(key.scope, Scope::Private | Scope::PrivateKey) {
            return Err(refuse(Code::InvalidSyntax, "Invalid syntax. llookup"));
        }
        if key.scope != Scope::Public {
            self.owner_of(&name, "llookup", Need::Read)?;
        }
        match self.home.record(tx, &name)? {
            None => Err(missing(&name)),
            Some(record) => Ok(self.show(NamedRecord { name, record }, detail, &self.home.who)),
        }
    }

    pub(super) fn lookup(
        &mut self,
        tx: &Tx<'_>,
        key: &AtKey,
        detail: Detail,
        bypass_cache: bool,
    ) -> Handled {
        let owner = key.owner.as_ref().unwrap_or(&self.home.who);
        let bare = format!("{}{owner}", key.entity.to_lowercase());
        if *owner == self.home.who {
            self.traces.push(Trace::LookedUp(bare.clone()));
        }
        match &self.who {
            Who::Stranger => self.show_own(tx, &format!("public:{bare}"), detail),
            Who::Peer(caller) => self.show_own(tx, &format!("{caller}:{bare}"), detail),
            Who::Owner(_) => {
                let name = format!("{}:{bare}", self.home.who);
                self.owner_of(&name, "lookup", Need::Read)?;
                if *owner == self.home.who {
                    return self.show_own(tx, &name, detail);
                }
                self.show_others(tx, owner, name, detail, bypass_cache)
            }
        }
    }

    pub(super) fn plookup(
        &self,
        tx: &Tx<'_>,
        key: &AtKey,
        detail: Detail,
        bypass_cache: bool,
    ) -> Handled {
        self.owner()?;
        let owner = key.owner.as_ref().unwrap_or(&self.home.who);
        let name = format!("public:{}{owner}", key.entity.to_lowercase());
        if *owner == self.home.who {
            return self.show_own(tx, &name, detail);
        }
        self.show_others(tx, owner, name, detail, bypass_cache)
    }

    /// Something of our own store, for whoever asks.
    fn show_own(&self, tx: &Tx<'_>, name: &str, detail: Detail) -> Handled {
        match self.home.record(tx, name)? {
            None => Err(missing(name)),
            Some(record) => {
                let (name, home) = (name.to_owned(), &self.home);
                let Some(record) = self.resolved(tx, home, &name, record, detail)? else {
                    return Ok(CommandAnswer::Data("null".into()));
                };
                Ok(self.show(NamedRecord { name, record }, detail, &home.who))
            }
        }
    }

    /// Follows references, for whoever may see `name`. `None`: one leads nowhere.
    fn resolved(
        &self,
        tx: &Tx<'_>,
        home: &Home,
        name: &str,
        record: Record,
        detail: Detail,
    ) -> Result<Option<Record>, StoreError> {
        if detail != Detail::Value || !record.meta.is_live(self.now) {
            return Ok(Some(record));
        }
        // An enrolment sees no more by a detour.
        let may = |key: &str| {
            self.grant()
                .is_none_or(|grant| grant.covers(key, Need::Read))
        };
        follow(tx, home, name, record, self.now, may)
    }

    /// Something another atSign stores for us or for everyone.
    fn show_others(
        &self,
        tx: &Tx<'_>,
        owner: &AtSign,
        name: String,
        detail: Detail,
        bypass_cache: bool,
    ) -> Handled {
        if let Some(other) = self.neighbour(tx, owner)? {
            return match other.record(tx, &name)? {
                // The chain of texts that a look-up over the network would give.
                None => Err(refuse(
                    Code::KeyNotFound,
                    format!("Exception: {name} does not exist in keystore"),
                )),
                Some(record) => match self.resolved(tx, &other, &name, record, detail)? {
                    Some(record) => Ok(self.show(NamedRecord { name, record }, detail, owner)),
                    None => Ok(CommandAnswer::Data("null".into())),
                },
            };
        }
        let cached = format!("cached:{name}");
        if let Some(record) = self.home.live(tx, &cached, self.now)? {
            let fresh = record.meta.items.ttr == Some(-1)
                || record.meta.refresh_at.is_some_and(|at| self.now < at);
            if fresh && !bypass_cache {
                let found = NamedRecord {
                    name: cached,
                    record,
                };
                return Ok(self.show(found, detail, &self.home.who));
            }
        }
        let question = match name.strip_prefix("public:") {
            Some(key) => RemoteQuery::Public { key: key.into() },
            None => RemoteQuery::Shared {
                key: name[self.home.who.as_str().len() + 1..].into(),
            },
        };
        Ok(self.errand(owner, question, detail))
    }

    /// The store of another atSign of this process. It may have blocked us.
    pub(super) fn neighbour(&self, tx: &Tx<'_>, other: &AtSign) -> Result<Option<Home>, Refusal> {
        let Some(entry) = register::find(tx, other)? else {
            return Ok(None);
        };
        if !lists::admits(tx, &entry.home, &self.home.who)? {
            return Err(refuse(Code::Handshake, "Unable to connect"));
        }
        Ok(Some(entry.home))
    }

    fn errand(&self, of: &AtSign, question: RemoteQuery, detail: Detail) -> CommandAnswer {
        CommandAnswer::Next(FollowUp::Fetch(Box::new(Errand {
            of: of.clone(),
            question,
            detail,
        })))
    }

    fn show(&self, found: NamedRecord, detail: Detail, creator: &AtSign) -> CommandAnswer {
        let meta = &found.record.meta;
        if !meta.is_live(self.now) {
            return CommandAnswer::Data("null".into());
        }
        CommandAnswer::Data(match detail {
            Detail::Value => found.record.value,
            Detail::Meta => meta.to_json(creator.as_str()),
            Detail::All => Object::new()
                .text("key", &found.name)
                .text("data", &found.record.value)
                .raw("metaData", meta.to_json(creator.as_str()))
                .end(),
        })
    }

    /// Goes on after [`FollowUp::Fetch`], in a writing transaction: what may be cached is.
    pub fn fetched(
        &self,
        errand: &Errand,
        found: &Fetched,
        tx: &mut Tx<'_>,
        now: u64,
    ) -> UncommittedOutcome {
        let session = Self {
            now,
            ..self.clone()
        };
        let handled = session.take_fetched(errand, found, tx);
        if handled.is_err() {
            tx.discard();
        }
        UncommittedOutcome {
            outcome: session.say(handled),
            session,
        }
    }

    fn take_fetched(&self, errand: &Errand, found: &Fetched, tx: &mut Tx<'_>) -> Handled {
        let data = match found {
            Fetched::Data(data) => data,
            Fetched::Fault(fault) => {
                let code = fault.code.unwrap_or(Code::InternalException);
                return Err(refuse(code, fault.text.replace(['\r', '\n'], " ")));
            }
            Fetched::Unknown => {
                let of = errand.of.bare();
                let text = format!("Unable to find secondary address for atSign:{of}");
                return Err(refuse(Code::NoAtServer, text));
            }
            Fetched::Unreachable => {
                return Err(refuse(Code::UnableToConnect, "Unable to connect"));
            }
        };
        let (name, key) = match &errand.question {
            RemoteQuery::Scan { .. } => return Ok(CommandAnswer::Data(data.clone())),
            RemoteQuery::Shared { key } => (format!("{}:{key}", self.home.who), key),
            RemoteQuery::Public { key } => (format!("public:{key}"), key),
        };
        if data == "null" {
            return Ok(CommandAnswer::Data(data.clone()));
        }
        let unreadable = || refuse(Code::InternalException, format!("{key}: unreadable answer"));
        let mut record = super::batch::parse_all(data, self.now).ok_or_else(unreadable)?;
        if let Some(ttr) = record.meta.items.ttr.filter(|ttr| *ttr != 0) {
            record.meta.refresh_at = u64::try_from(ttr)
                .ok()
                .map(|ttr| self.now.saturating_add(ttr.saturating_mul(1000)));
            cache(tx, &self.home, &name, &record)?;
        }
        Ok(self.show(NamedRecord { name, record }, errand.detail, &errand.of))
    }
}

/// How a value begins that stands for another key's.
const REFERENCE: &str = "atsign://";
/// Most references from one to the next.
const MAX_HOPS: usize = 3;

/// Goes from a value that names another key of this atSign (`atsign://phone.ns@alice`) to that key's value: the one for
/// the same reader as `name`, or else the public one. `None`: it leads nowhere, or too far.
fn follow(
    rows: &dyn Rows,
    home: &Home,
    name: &str,
    mut record: Record,
    now: u64,
    may: impl Fn(&str) -> bool,
) -> Result<Option<Record>, StoreError> {
    let reader = name.split(':').next().unwrap_or_default().to_owned();
    for _ in 0..MAX_HOPS {
        let Some(target) = record.value.strip_prefix(REFERENCE) else {
            return Ok(Some(record));
        };
        let target = target.trim().to_lowercase();
        let (same, public) = (format!("{reader}:{target}"), format!("public:{target}"));
        let mut found = None;
        if may(&same) {
            found = home.live(rows, &same, now)?;
        }
        if found.is_none() {
            found = home.live(rows, &public, now)?;
        }
        let Some(found) = found else { return Ok(None) };
        record = found;
    }
    Ok(Some(record).filter(|record| !record.value.starts_with(REFERENCE)))
}

/// A value that everybody may read: `entity` is what stands between `public:` and the owner. `None`: there is none now.
///
/// # Errors
/// When the store fails.
pub fn public_value(
    rows: &dyn Rows,
    home: &Home,
    entity: &str,
    now: u64,
) -> Result<Option<String>, StoreError> {
    let name = format!("public:{}{}", entity.to_lowercase(), home.who);
    let Some(record) = home.live(rows, &name, now)? else {
        return Ok(None);
    };
    let found = follow(rows, home, &name, record, now, |_| true)?;
    Ok(found.map(|found| found.value))
}

/// Keeps our copy of somebody else's value.
fn cache(tx: &mut Tx<'_>, home: &Home, name: &str, record: &Record) -> Result<(), StoreError> {
    let name = format!("cached:{name}");
    let is_key = name.starts_with("cached:public:publickey@");
    if is_key && record.value.len() > MAX_PUBLIC_KEY {
        return Ok(());
    }
    if home.record(tx, &name)?.as_ref() != Some(record) {
        home.put_copy(tx, &name, record, Change::Update)?;
    }
    Ok(())
}

/// A key as the store spells it.
pub(super) fn stored_name(key: &AtKey) -> String {
    key.to_string().to_lowercase().replace(' ', "")
}

pub(super) fn missing(name: &str) -> Refusal {
    refuse(
        Code::KeyNotFound,
        format!("{name} does not exist in keystore"),
    )
}

/// Whether `scan` shows a key.
fn is_visible(key: &str, hidden_too: bool) -> bool {
    if key.starts_with("private:") || key.starts_with("privatekey:") {
        return false;
    }
    if key.starts_with("public:__") || key.starts_with('_') {
        return hidden_too;
    }
    !key.starts_with("public:_")
}

/// The metadata of a live record, to merge with.
pub(super) fn live_meta(
    rows: &dyn Rows,
    home: &Home,
    name: &str,
    now: u64,
) -> Result<Option<Meta>, StoreError> {
    let found = home.record(rows, name)?;
    Ok(found
        .map(|found| found.meta)
        .filter(|meta| !meta.is_expired(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scan_hides_what_is_the_servers_own() {
        for (key, plain, all) in [
            ("public:x.ns@a", true, true),
            ("public:__x.ns@a", false, true),
            ("public:_x@a", false, false),
            ("_x.ns@a", false, true),
            ("_x", false, true),
            ("private:blocklist@a", false, false),
            ("private:x@a", false, false),
            ("privatekey:at_pkam_publickey", false, false),
            ("privatekey:other", false, false),
            ("public:publickey@a", true, true),
            ("@a:signing_privatekey@a", true, true),
            ("shared_key.b@a", true, true),
            ("privatekey:at_secret", false, false),
            ("@b:x@a", true, true),
            ("cached:public:publickey@b", true, true),
        ] {
            assert_eq!(is_visible(key, false), plain, "{key}");
            assert_eq!(is_visible(key, true), all, "{key} showhidden");
        }
    }
}
