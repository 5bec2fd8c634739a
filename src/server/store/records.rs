//! What an atSign stores under a key: a value and its metadata.

use crate::at::metadata::Metadata;

use super::{
    copies::life_end,
    error::StoreError,
    log::{Change, NOT_LOGGED},
    register::Home,
    rows,
    tx::{Rows, Tx},
};

pub use super::meta::Meta;

/// A value with its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Record {
    pub value: String,
    pub meta: Meta,
}

/// Whether a write shows in the commit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    /// If its key is of the kind that is logged.
    ByKey,
    /// Not: enrolment data.
    Never,
}

impl Home {
    /// The record under this key, expired or not.
    ///
    /// # Errors
    /// When the store fails.
    pub fn record(&self, rows: &dyn Rows, key: &str) -> Result<Option<Record>, StoreError> {
        rows.get(&self.key(rows::RECORD, &[key.as_bytes()]))?
            .map(|row| parse(&row))
            .transpose()
    }

    /// The value under this key, if it can be seen now.
    ///
    /// # Errors
    /// When the store fails.
    pub fn live(&self, rows: &dyn Rows, key: &str, now: u64) -> Result<Option<Record>, StoreError> {
        Ok(self
            .record(rows, key)?
            .filter(|record| record.meta.is_live(now)))
    }

    /// Writes a record and returns its commit id, or -1.
    ///
    /// # Errors
    /// When the store fails.
    pub fn put(
        &self,
        tx: &mut Tx<'_>,
        key: &str,
        record: &Record,
        change: Change,
        logged: Logged,
    ) -> Result<i64, StoreError> {
        self.forget(tx, key)?;
        self.copy_in(tx, key, record)?;
        if let Some(at) = life_end(key, &record.meta) {
            let row = self.key(rows::EXPIRY, &[&at.to_be_bytes(), key.as_bytes()]);
            tx.put(row, Vec::new())?;
        }
        let row = rows::pack(&[record.meta.to_row().as_bytes(), record.value.as_bytes()]);
        tx.put(self.key(rows::RECORD, &[key.as_bytes()]), row)?;
        match logged {
            Logged::ByKey => self.log(tx, key, change, record.meta.updated_at),
            Logged::Never => Ok(NOT_LOGGED),
        }
    }

    /// A plain value of the server's own: no metadata to speak of, not logged.
    ///
    /// # Errors
    /// When the store fails.
    pub fn put_plain(
        &self,
        tx: &mut Tx<'_>,
        key: &str,
        value: &str,
        life: Option<u64>,
        now: u64,
    ) -> Result<(), StoreError> {
        let given = Metadata {
            ttl: life,
            ..Metadata::default()
        };
        let record = Record {
            value: value.to_owned(),
            meta: Meta::merged(None, &given, now),
        };
        self.put(tx, key, &record, Change::Update, Logged::Never)?;
        Ok(())
    }

    /// Removes a record; `false`: there was none. Does not log.
    ///
    /// # Errors
    /// When the store fails.
    pub fn erase(&self, tx: &mut Tx<'_>, key: &str) -> Result<bool, StoreError> {
        let there = self.forget(tx, key)?;
        tx.remove(&self.key(rows::RECORD, &[key.as_bytes()]))?;
        Ok(there)
    }

    /// Removes what points to a record, before the record itself goes or changes.
    fn forget(&self, tx: &mut Tx<'_>, key: &str) -> Result<bool, StoreError> {
        let old = self.record(tx, key)?;
        if let Some(old) = &old {
            self.copy_out(tx, key, old)?;
        }
        if let Some(at) = old.as_ref().and_then(|old| life_end(key, &old.meta)) {
            tx.remove(&self.key(rows::EXPIRY, &[&at.to_be_bytes(), key.as_bytes()]))?;
        }
        Ok(old.is_some())
    }

    /// Shows the records whose keys start with `prefix`, ascending, for as long as `each` says `true`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn records(
        &self,
        rows: &dyn Rows,
        prefix: &str,
        each: &mut dyn FnMut(&str, Meta) -> bool,
    ) -> Result<(), StoreError> {
        let from = self.key(rows::RECORD, &[prefix.as_bytes()]);
        rows.visit_prefix(&from, &mut |key, row| {
            let key = str::from_utf8(&key[rows::HEAD..]).map_err(|_| StoreError::Row)?;
            let [meta, _] = rows::unpack(row).ok_or(StoreError::Row)?;
            Ok(each(key, Meta::from_row(meta)?))
        })
    }

    /// How many bytes are kept for this atSign, keys included.
    ///
    /// # Errors
    /// When the store fails.
    pub fn weight(&self, rows: &dyn Rows) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for table in rows::OWNED {
            let from = self.key(table, &[]);
            rows.visit_prefix(&from, &mut |key, value| {
                bytes += (key.len() + value.len()) as u64;
                Ok(true)
            })?;
        }
        Ok(bytes)
    }

    /// Keys whose life ended by `now`, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn expired(
        &self,
        rows: &dyn Rows,
        now: u64,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let from = self.key(rows::EXPIRY, &[]);
        let until = self.key(rows::EXPIRY, &[&now.saturating_add(1).to_be_bytes()]);
        rows.visit(&from, &until, &mut |row, _| {
            if let Ok(key) = str::from_utf8(&row[rows::HEAD + 8..]) {
                keys.push(key.to_owned());
            }
            Ok(keys.len() < limit)
        })?;
        Ok(keys)
    }
}

fn parse(row: &[u8]) -> Result<Record, StoreError> {
    let [meta, value] = rows::unpack(row).ok_or(StoreError::Row)?;
    Ok(Record {
        meta: Meta::from_row(meta)?,
        value: str::from_utf8(value)
            .map_err(|_| StoreError::Row)?
            .to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::MemoryStore, *};
    use crate::at::metadata::Item;

    fn home() -> Home {
        Home {
            number: 1,
            who: "@alice".parse().unwrap(),
        }
    }

    #[test]
    fn records_come_back_as_they_were_and_expire_once() {
        let (home, mut memory) = (home(), MemoryStore::new());
        let mut record = Record {
            value: "wert \u{1f512}".into(),
            meta: Meta {
                expires_at: Some(105),
                items: Metadata {
                    ttl: Some(5),
                    pub_key_hash: Some(Item::new("h")),
                    hashing_algo: Some(Item::new("sha512")),
                    shared_key_status: Some(Item::new("s")),
                    immutable: Some(true),
                    ..Metadata::default()
                },
                ..Meta::default()
            },
        };
        let put = |memory: &mut MemoryStore, record: &Record| {
            let write =
                |tx: &mut Tx<'_>| home.put(tx, "k@alice", record, Change::Update, Logged::ByKey);
            memory.write(write).unwrap().0
        };
        assert_eq!(put(&mut memory, &record), 0);
        memory.read(|tx| {
            assert_eq!(home.record(tx, "k@alice").unwrap().as_ref(), Some(&record));
            assert_eq!(home.expired(tx, 104, 9).unwrap(), [""; 0]);
            assert_eq!(home.expired(tx, 105, 9).unwrap(), ["k@alice"]);
        });
        // A new life forgets the old one.
        record.meta.expires_at = Some(500);
        assert_eq!(put(&mut memory, &record), 1);
        memory.read(|tx| assert_eq!(home.expired(tx, 499, 9).unwrap(), [""; 0]));
        let erased = memory.write(|tx| home.erase(tx, "k@alice")).unwrap().0;
        assert!(erased);
        memory.read(|tx| {
            assert_eq!(home.record(tx, "k@alice").unwrap(), None);
            assert_eq!(home.expired(tx, u64::MAX, 9).unwrap(), [""; 0]);
        });
    }
}
