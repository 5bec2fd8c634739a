//! Writing: `update`, `update:meta`, `update:json`, `delete`; and telling the atSign a value is shared with.

use miniserde::json::{self, Object, Value};

use crate::{
    at::{
        AtKey, AtSign,
        fault::Code,
        key::Scope,
        metadata::{Metadata, flag_of_json},
        verb::Operation,
    },
    server::{
        delivery,
        enrolment::Need,
        refusal::{Refusal, refuse},
        store::{
            Tx,
            log::Change,
            notes::Note,
            records::{Logged, Meta, Record},
        },
    },
};

use super::{
    auth::{PKAM_KEY, SECRET, SECRET_DELETED},
    look::{live_meta, missing, stored_name},
    outcome::{CommandAnswer, Handled},
    state::Session,
};

impl Session {
    pub(super) fn update(
        &mut self,
        tx: &mut Tx<'_>,
        key: AtKey,
        mut given: Metadata,
        value: String,
    ) -> Handled {
        given.is_binary.get_or_insert(false);
        given.is_encrypted.get_or_insert(false);
        self.put(tx, key, &given, Some(value))
    }

    pub(super) fn update_meta(&mut self, tx: &mut Tx<'_>, key: AtKey, given: &Metadata) -> Handled {
        self.put(tx, key, given, None)
    }

    /// Writes a value and its metadata, or the metadata alone.
    fn put(
        &mut self,
        tx: &mut Tx<'_>,
        key: AtKey,
        given: &Metadata,
        value: Option<String>,
    ) -> Handled {
        self.owner()?;
        if given.ttr.is_some_and(|ttr| ttr < -1) {
            let text = "Invalid syntax. ttr must be -1, 0 or a number of seconds";
            return Err(refuse(Code::InvalidSyntax, text));
        }
        let key = self.own_key(key)?;
        let name = stored_name(&key);
        self.owner_of(&name, "update", Need::Write)?;
        if key.scope == Scope::PrivateKey {
            return self.put_login_key(tx, &name, value);
        }
        let old = live_meta(tx, &self.home, &name, self.now)?;
        if old
            .as_ref()
            .is_some_and(|old| old.items.immutable == Some(true))
        {
            let text = format!("{name} is immutable and cannot be updated");
            return Err(refuse(Code::Unauthorized, text));
        }
        let change = match value {
            Some(_) => Change::Update,
            None => Change::Metadata,
        };
        let value = match value {
            Some(value) => value,
            // Only the metadata changes; there must be something it belongs to.
            None => match self.home.live(tx, &name, self.now)? {
                Some(record) => record.value,
                None => return Err(missing(&name)),
            },
        };
        let record = Record {
            value,
            meta: Meta::merged(old.as_ref(), given, self.now),
        };
        let id = self.home.put(tx, &name, &record, change, Logged::ByKey)?;
        if let Scope::Shared(with) = &key.scope {
            self.tell(tx, with, &name, Operation::Update, Some(&record))?;
        }
        Ok(CommandAnswer::Data(id.to_string()))
    }

    /// A key that this atSign may write to, with its owner.
    fn own_key(&self, key: AtKey) -> Result<AtKey, Refusal> {
        let kind = match (&key.scope, key.cached) {
            (_, true) => Some("cachedSharedKey"),
            (Scope::Private, _) => Some("privateKey"),
            _ => None,
        };
        if let Some(kind) = kind {
            let text = format!("You may not update keys of type KeyType.{kind}");
            return Err(refuse(Code::InvalidKey, text));
        }
        let key = key.owned_by(&self.home.who);
        if let Some(owner) = key.owner.as_ref().filter(|owner| **owner != self.home.who) {
            let text = format!(
                "Invalid update command - sharedBy atsign {owner} should be same as current atsign {}",
                self.home.who
            );
            return Err(refuse(Code::InvalidKey, text));
        }
        // An owner was added to what the parser measured.
        let (length, most) = (key.to_string().len(), crate::at::key::MAX_KEY);
        if length > most {
            let text = format!("key length {length} is greater than max allowed {most} chars");
            return Err(refuse(Code::InvalidKey, text));
        }
        Ok(key)
    }

    /// The one private key that a client writes: what `pkam` is checked against.
    fn put_login_key(&mut self, tx: &mut Tx<'_>, name: &str, value: Option<String>) -> Handled {
        let Some(value) = value.filter(|_| name == PKAM_KEY) else {
            let text = "You may not update keys of type KeyType.reservedKey";
            return Err(refuse(Code::InvalidKey, text));
        };
        if self.grant().is_some_and(|grant| !grant.manages()) {
            let text = format!("{name} can be written by a managing connection only");
            return Err(refuse(Code::Unauthorized, text));
        }
        self.home.put_plain(tx, name, &value, None, self.now)?;
        Ok(CommandAnswer::Data("-1".into()))
    }

    /// With `force` also what was marked `immutable`; not what is protected.
    pub(super) fn delete(&mut self, tx: &mut Tx<'_>, key: AtKey, force: bool) -> Handled {
        self.owner()?;
        if key.scope == Scope::PrivateKey {
            return self.delete_secret(tx, &key);
        }
        let key = key.owned_by(&self.home.who);
        let name = stored_name(&key);
        if key.is_protected() {
            let text = format!("Cannot delete protected key: '{name}'");
            return Err(refuse(Code::Unauthorized, text));
        }
        if key.scope == Scope::Private
            || (!key.cached && key.owner.as_ref() != Some(&self.home.who))
        {
            let text = format!("{name} is not a key of {}", self.home.who);
            return Err(refuse(Code::InvalidKey, text));
        }
        self.owner_of(&name, "delete", Need::Write)?;
        let old = live_meta(tx, &self.home, &name, self.now)?;
        let firm = old.is_some_and(|old| old.items.immutable == Some(true));
        if firm && !key.cached && !force {
            let text = format!("{name} is immutable and cannot be deleted without force");
            return Err(refuse(Code::Unauthorized, text));
        }
        self.home.erase(tx, &name)?;
        // Clients depend on this: a key that was not there is deleted all the same.
        let id = self.home.log(tx, &name, Change::Delete, self.now)?;
        if let (Scope::Shared(with), false) = (&key.scope, key.cached) {
            self.tell(tx, with, &name, Operation::Delete, None)?;
        }
        Ok(CommandAnswer::Data(id.to_string()))
    }

    /// The activation secret goes for good, once it was used.
    fn delete_secret(&mut self, tx: &mut Tx<'_>, key: &AtKey) -> Handled {
        if stored_name(key) != SECRET {
            return Err(refuse(Code::InvalidSyntax, "Invalid syntax. delete"));
        }
        if self.grant().is_some_and(|grant| !grant.manages()) {
            let text = "the secret can be deleted by a managing connection only";
            return Err(refuse(Code::Unauthorized, text));
        }
        self.home.erase(tx, SECRET)?;
        self.home
            .put_plain(tx, SECRET_DELETED, "true", None, self.now)?;
        Ok(CommandAnswer::Data("-1".into()))
    }

    /// Whom a value is shared with hears of every change.
    fn tell(
        &self,
        tx: &mut Tx<'_>,
        with: &AtSign,
        name: &str,
        operation: Operation,
        record: Option<&Record>,
    ) -> Result<(), Refusal> {
        if *with == self.home.who {
            return Ok(());
        }
        let mut note = Note::new(tx.new_id()?, &self.home.who, with, name.to_owned());
        note.operation = operation;
        note.notifier = "system".into();
        if let Some(record) = record {
            note.value = Some(record.value.clone());
            note.is_encrypted = record.meta.items.is_encrypted.unwrap_or(false);
            note.meta = record.meta.clone();
        }
        delivery::queue(tx, &self.home, note, self.now).map(|_| ())
    }

    pub(super) fn update_json(&mut self, tx: &mut Tx<'_>, text: &str) -> Handled {
        self.owner()?;
        let unreadable = || refuse(Code::InvalidSyntax, "Invalid syntax. update:json");
        let Ok(Value::Object(object)) = json::from_str::<Value>(text) else {
            return Err(unreadable());
        };
        let word = |name: &str| text_of(&object, name);
        let value = word("value").ok_or_else(unreadable)?;
        let (given, public) = match object.get("metadata") {
            Some(Value::Object(metadata)) => (
                Metadata::of_json(metadata),
                metadata.get("isPublic").and_then(flag_of_json) == Some(true),
            ),
            _ => (Metadata::default(), false),
        };
        let mut key = word("atKey").ok_or_else(unreadable)?;
        // Some clients put the prefix into the key already, others leave it to the server.
        if let Some(with) = word("sharedWith").filter(|_| !key.starts_with('@')) {
            let with: AtSign = with.parse().map_err(|_| unreadable())?;
            key = format!("{with}:{key}");
        } else if public && !key.starts_with("public:") {
            key = format!("public:{key}");
        }
        if !key.rsplit(':').next().unwrap_or_default().contains('@') {
            let owner: AtSign = match word("sharedBy") {
                Some(owner) => owner.parse().map_err(|_| unreadable())?,
                None => self.home.who.clone(),
            };
            key = format!("{key}{owner}");
        }
        let key: AtKey = key.parse().map_err(|_| unreadable())?;
        self.update(tx, key, given, value)
    }
}

fn text_of(object: &Object, name: &str) -> Option<String> {
    match object.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}
