//! The commit log: one id for each change that other devices of the same atSign should see.
//!
//! Ids start at 0, only grow, and are never used twice. Only the newest entry of each key is kept.

use super::{
    error::StoreError,
    register::Home,
    rows,
    tx::{CommitEvent, Rows, Tx},
};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `*`: value and metadata were written.
    Update,
    /// `#`: only metadata was written.
    Metadata,
    /// `-`: it was deleted.
    Delete,
}

impl Change {
    /// The wire's sign for it.
    pub fn sign(self) -> char {
        match self {
            Self::Update => '*',
            Self::Metadata => '#',
            Self::Delete => '-',
        }
    }
    fn from_sign(sign: u8) -> Option<Self> {
        [Self::Update, Self::Metadata, Self::Delete]
            .into_iter()
            .find(|change| change.sign() == char::from(sign))
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Commit {
    pub id: u64,
    pub change: Change,
    /// Milliseconds since 1970.
    pub at: u64,
    pub key: String,
}

/// The answer for changes that are not logged.
pub const NOT_LOGGED: i64 = -1;
const COUNTER: &str = "commit";

/// Whether changes of this key are logged: what is only the server's own is not.
pub fn is_logged(key: &str) -> bool {
    let hidden = key.starts_with("public:_") && !key.starts_with("public:__");
    let own = ["private:", "privatekey:", "local:"];
    let enrolment = [".__manage@", ".__pkams.__public_keys@"];
    !hidden
        && !own.iter().any(|prefix| key.starts_with(prefix))
        && !enrolment.iter().any(|part| key.contains(part))
}

impl Home {
    /// Logs a change and returns its id, or [`NOT_LOGGED`].
    ///
    /// # Errors
    /// When the store fails.
    pub fn log(
        &self,
        tx: &mut Tx<'_>,
        key: &str,
        change: Change,
        now: u64,
    ) -> Result<i64, StoreError> {
        if !is_logged(key) {
            return Ok(NOT_LOGGED);
        }
        let id = self.count(tx, COUNTER, 1)?;
        let latest = self.key(rows::LATEST, &[key.as_bytes()]);
        if let Some(old) = tx.get(&latest)? {
            tx.remove(&self.key(rows::COMMIT, &[&old]))?;
        }
        let mut entry = vec![change.sign() as u8];
        entry.extend_from_slice(&now.to_be_bytes());
        entry.extend_from_slice(key.as_bytes());
        tx.put(self.key(rows::COMMIT, &[&id.to_be_bytes()]), entry)?;
        tx.put(latest, id.to_be_bytes().to_vec())?;
        let id = i64::try_from(id).map_err(|_| StoreError::Row)?;
        tx.emit(CommitEvent::Commit(self.who.clone(), id));
        Ok(id)
    }

    /// Forgets what was logged of a key.
    pub(in crate::server) fn unlog(&self, tx: &mut Tx<'_>, key: &str) -> Result<(), StoreError> {
        let latest = self.key(rows::LATEST, &[key.as_bytes()]);
        if let Some(id) = tx.get(&latest)? {
            tx.remove(&self.key(rows::COMMIT, &[&id]))?;
            tx.remove(&latest)?;
        }
        Ok(())
    }

    /// The newest id; `None` before the first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn last_commit(&self, rows: &dyn Rows) -> Result<Option<u64>, StoreError> {
        Ok(self.counter(rows, COUNTER)?.checked_sub(1))
    }

    /// Shows the entries with an id above `after` (-1: all), ascending, for as long as `each` says `true`.
    ///
    /// # Errors
    /// When the store fails; and those of `each`, which end it.
    pub fn commits(
        &self,
        rows: &dyn Rows,
        after: i64,
        each: &mut dyn FnMut(Commit) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let from = u64::try_from(after.saturating_add(1)).unwrap_or(0);
        let from = self.key(rows::COMMIT, &[&from.to_be_bytes()]);
        let until = rows::behind(&self.key(rows::COMMIT, &[]));
        rows.visit(&from, &until, &mut |key, value| {
            each(parse(&key[rows::HEAD..], value).ok_or(StoreError::Row)?)
        })
    }
}

fn parse(id: &[u8], value: &[u8]) -> Option<Commit> {
    let (sign, rest) = value.split_first()?;
    let (at, key) = rest.split_at_checked(8)?;
    Some(Commit {
        id: rows::number(id)?,
        change: Change::from_sign(*sign)?,
        at: rows::number(at)?,
        key: str::from_utf8(key).ok()?.to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::MemoryStore, *};

    #[test]
    fn one_entry_per_key_survives_and_ids_only_grow() {
        let mut memory = MemoryStore::new();
        let home = Home {
            number: 1,
            who: "@alice".parse().unwrap(),
        };
        let mut log = |key: &str, change| memory.write(|tx| home.log(tx, key, change, 9)).unwrap();
        assert_eq!(log("a@alice", Change::Update).0, 0);
        assert_eq!(log("b@alice", Change::Update).0, 1);
        assert_eq!(log("a@alice", Change::Delete).0, 2);
        let (id, events) = log("private:x@alice", Change::Update);
        assert_eq!((id, events.len()), (NOT_LOGGED, 0));
        memory.read(|tx| {
            let mut seen = Vec::new();
            home.commits(tx, -1, &mut |c| {
                seen.push((c.id, c.change.sign(), c.key));
                Ok(true)
            })
            .unwrap();
            let want = [
                (1, '*', "b@alice".to_owned()),
                (2, '-', "a@alice".to_owned()),
            ];
            assert_eq!(seen, want);
            assert_eq!(home.last_commit(tx).unwrap(), Some(2));
        });
    }

    #[test]
    fn only_what_clients_own_is_logged() {
        for (key, logged) in [
            ("public:publickey@a", true),
            ("public:__x.ns@a", true),
            ("public:_x@a", false),
            ("@b:x@a", true),
            ("privatekey:at_secret", false),
            ("private:blocklist@a", false),
            ("local:x@a", false),
            ("1.new.enrollments.__manage@a", false),
            ("public:app.dev.pkam.__pkams.__public_keys@a", false),
            ("cached:@a:x@b", true),
        ] {
            assert_eq!(is_logged(key), logged, "{key}");
        }
    }
}
