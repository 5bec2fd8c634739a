//! What must survive a crash: one file, one writer thread, many readers.
//!
//! ```text
//!   write(command) ─▶ queue ─▶ writer thread: run each command on its own overlay
//!   write(command) ─▶          ├─ Err: its overlay is thrown away, the others do not notice
//!                              ├─ Ok:  its overlay goes into the batch
//!                              └─ one durable commit for the batch ─▶ events out ─▶ answers out
//!   read(command)  ─▶ a snapshot of the last commit
//! ```
//!
//! A command is a closure that may run again ([`attempt`]): it reads rows, decides, and leaves its changes in a [`Tx`],
//! with a list of [`CommitEvent`]s that come true with the commit. What carries it out is a [`attempt::Backend`]:
//!
//! ```text
//!                        rows             what is not at hand        commit
//!   disk     (redb)      all at hand      never                      into the batch; its writer is alone, so no conflict
//!   Memory   (tests)     all at hand      never                      into the map
//!   far      (tests)     none at first    asked for in one request   one request, refused if what was read has changed
//! ```
//!
//! `far` stands for a store behind a network, such as an SQL server that several atServers share: all commands of
//! the session's tests run on it, too. What the rows mean is told in [`rows`]; [`records`], [`log`] and [`notes`]
//! give them types.

pub mod attempt;
pub mod backup;
pub mod disk;
#[cfg(test)]
pub mod far;
pub mod lists;
pub mod log;
pub mod meta;
pub mod notes;
pub mod records;
pub mod register;
pub mod rows;

use std::{collections::BTreeMap, io, ops::Bound, path::PathBuf, sync::Arc};

use crate::at::AtSign;

use attempt::{Access, Chance};
pub use disk::Store;
use notes::Note;

/// Why the store cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the folder.
    #[error("the data folder {0} is in use by another process")]
    InUse(PathBuf),
    /// The file is there but cannot be read as a store.
    #[error("the store {0} is damaged: {1}")]
    Damaged(PathBuf, String),
    /// Written by a version of this program that came later.
    #[error("the store {0} was written by a newer version of this program")]
    Newer(PathBuf),
    /// The folder or the file cannot be made or opened.
    #[error("cannot use {0}: {1}")]
    Folder(PathBuf, Arc<io::Error>),
    /// The disk failed.
    #[error("the store failed: {0}")]
    Disk(String),
    /// Too little room on the disk to write safely; nothing was changed.
    #[error("the disk is full")]
    Full,
    /// A restore would replace what is there.
    #[error("the data folder {0} is not empty")]
    NotEmpty(PathBuf),
    /// A backup never replaces a file.
    #[error("{0} is there already")]
    Exists(PathBuf),
    /// No backup, or one that was changed since.
    #[error("{0} is no whole backup: {1}")]
    BadBackup(PathBuf, String),
    /// A row that this program did not write.
    #[error("a row of the store cannot be read")]
    Row,
    /// A reading transaction was asked to write: a mistake in this program.
    #[error("a reading transaction cannot write")]
    ReadOnly,
    /// The closure panicked; nothing of it was kept.
    #[error("a transaction was given up")]
    GivenUp,
    /// Others changed the same rows, again and again.
    #[error("too many others change the same")]
    Contended,
    /// There is nothing to make a new id of.
    #[error("the system gave no random bytes")]
    Random,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What to try next.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::InUse(_) => "is another `atserver serve` running on this folder?",
            Self::Damaged(..) => "restore it from a backup; nothing has been changed",
            Self::Newer(_) => "install the newer version, or start with another --data folder",
            Self::Folder(..) => "does the folder exist, and may this user write there?",
            Self::Disk(_) => "is the disk failing?",
            Self::Full => {
                "make room; the server goes on by itself, and what it acknowledged is safe"
            }
            Self::NotEmpty(_) => {
                "choose another --data folder, or say --force: the store there is kept beside the new one"
            }
            Self::Exists(_) => "choose another name",
            Self::BadBackup(..) => "take another backup; nothing has been changed",
            _ => return None,
        })
    }
}

/// What becomes true with a commit; told in commit order.
#[derive(Clone, Debug)]
pub enum CommitEvent {
    /// A notification reached an atSign: its monitors want it.
    Note(Arc<Note>),
    /// An atSign's commit log grew; holds the newest id.
    Commit(AtSign, i64),
    /// Something waits to be delivered.
    Queued {
        /// Who sends.
        from: AtSign,
        /// Who is to get it.
        to: AtSign,
    },
    /// An enrolment may not be used any longer: its connections end.
    Withdrawn {
        /// Whose.
        of: AtSign,
        /// Its id.
        enrollment: String,
        /// The session that asked for it, which is let to finish.
        by: String,
    },
}

/// Rows that can be read: a snapshot, or a transaction in the making.
pub trait Rows {
    /// One row.
    ///
    /// # Errors
    /// When the disk fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows the rows from `from` up to but without `until`, ascending, for as long as `each` says `true`.
    ///
    /// # Errors
    /// When the disk fails.
    fn visit(
        &self,
        from: &[u8],
        until: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

impl Rows for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(BTreeMap::get(self, key).cloned())
    }
    fn visit(
        &self,
        from: &[u8],
        until: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from < until {
            for (key, value) in
                self.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)))
            {
                if !each(key, value) {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// One transaction: what was there, what it changed, what it wants told.
pub struct Tx<'a> {
    base: &'a dyn Rows,
    changes: Changes,
    events: Vec<CommitEvent>,
    access: Access,
    chance: &'a Chance,
    /// How much of it.
    drawn: u64,
}

/// Rows set (`Some`) and removed (`None`).
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl<'a> Tx<'a> {
    /// One attempt of a command.
    pub fn new(base: &'a dyn Rows, access: Access, chance: &'a Chance) -> Self {
        Self {
            base,
            changes: Changes::new(),
            events: Vec::new(),
            access,
            chance,
            drawn: 0,
        }
    }

    /// Random bytes, the same ones when the command runs again.
    ///
    /// # Errors
    /// When the system has none.
    pub fn draw(&mut self) -> Result<[u8; 32], StoreError> {
        self.drawn += 1;
        self.chance.draw(self.drawn)
    }

    /// A new id, the same one when the command runs again.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new_id(&mut self) -> Result<String, StoreError> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.draw()?[..16]);
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        Ok(id.to_string())
    }

    /// Sets a row.
    ///
    /// # Errors
    /// In a reading transaction.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        if self.access == Access::Read {
            return Err(StoreError::ReadOnly);
        }
        self.changes.insert(key, Some(value));
        Ok(())
    }

    /// Removes a row, if it is there.
    ///
    /// # Errors
    /// In a reading transaction.
    pub fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        if self.access == Access::Read {
            return Err(StoreError::ReadOnly);
        }
        self.changes.insert(key.to_vec(), None);
        Ok(())
    }

    /// To be told once this transaction is durable.
    pub fn emit(&mut self, event: CommitEvent) {
        self.events.push(event);
    }

    /// Forgets every change and event so far.
    pub fn discard(&mut self) {
        self.changes.clear();
        self.events.clear();
    }

    /// What it did.
    pub fn finish(self) -> (Changes, Vec<CommitEvent>) {
        (self.changes, self.events)
    }
}

impl Rows for Tx<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.base.get(key),
        }
    }

    fn visit(
        &self,
        from: &[u8],
        until: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= until {
            return Ok(());
        }
        let ours = (Bound::Included(from), Bound::Excluded(until));
        let mut ours = self.changes.range::<[u8], _>(ours).peekable();
        let mut more = true;
        self.base.visit(from, until, &mut |key, value| {
            // First our rows up to this one; ours hides the base's of the same key.
            while let Some((at, changed)) = ours.next_if(|(at, _)| at.as_slice() <= key) {
                if let Some(new) = changed {
                    more = each(at, new);
                }
                if !more || at.as_slice() == key {
                    return more;
                }
            }
            more = each(key, value);
            more
        })?;
        for (at, changed) in ours {
            if !more {
                break;
            }
            if let Some(new) = changed {
                more = each(at, new);
            }
        }
        Ok(())
    }
}

/// A store without a disk, for tests of everything above.
#[cfg(test)]
#[derive(Default)]
pub struct MemoryStore {
    rows: Map,
}

#[cfg(test)]
impl attempt::Backend for MemoryStore {
    fn rows(&self) -> &dyn Rows {
        &self.rows
    }
    fn commit(&mut self, changes: Changes) -> Result<bool, StoreError> {
        for (key, change) in changes {
            match change {
                Some(new) => self.rows.insert(key, new),
                None => self.rows.remove(&key),
            };
        }
        Ok(true)
    }
}

#[cfg(test)]
impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a transaction; `Err` undoes it.
    ///
    /// # Errors
    /// The closure's.
    pub fn write<T, E: From<StoreError>>(
        &mut self,
        run: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<(T, Vec<CommitEvent>), E> {
        let chance = Chance::default();
        let mut tx = Tx::new(&self.rows, Access::Write, &chance);
        let value = run(&mut tx)?;
        let (changes, events) = tx.finish();
        attempt::Backend::commit(self, changes)?;
        Ok((value, events))
    }

    /// Looks.
    pub fn read<T>(&self, run: impl FnOnce(&mut Tx<'_>) -> T) -> T {
        run(&mut Tx::new(&self.rows, Access::Read, &Chance::default()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(rows: &dyn Rows, from: u8, until: u8) -> Vec<(u8, u8)> {
        let mut seen = Vec::new();
        rows.visit(&[from], &[until], &mut |key, value| {
            seen.push((key[0], value[0]));
            true
        })
        .unwrap();
        seen
    }

    proptest! {
        /// A transaction reads like a map in which its changes were made at once.
        #[test]
        fn an_overlay_reads_like_the_map_it_will_become(
            base in prop::collection::btree_map(0u8..20, any::<u8>(), 0..12),
            changes in prop::collection::vec((0u8..20, prop::option::of(any::<u8>())), 0..12),
            from in 0u8..20, until in 0u8..20, stop in 0usize..8,
        ) {
            let rows: Map = base.into_iter().map(|(k, v)| (vec![k], vec![v])).collect();
            let mut want = rows.clone();
            let chance = Chance::default();
            let mut tx = Tx::new(&rows, Access::Write, &chance);
            for (key, change) in changes {
                match change {
                    Some(v) => {
                        want.insert(vec![key], vec![v]);
                        tx.put(vec![key], vec![v]).unwrap();
                    }
                    None => {
                        want.remove(&vec![key]);
                        tx.remove(&[key]).unwrap();
                    }
                }
            }
            prop_assert_eq!(all(&tx, from, until), all(&want, from, until));
            for key in 0..20 {
                prop_assert_eq!(tx.get(&[key]).unwrap(), Rows::get(&want, &[key]).unwrap());
            }
            let mut few = Vec::new();
            tx.visit(&[0], &[20], &mut |key, _| { few.push(key[0]); few.len() <= stop }).unwrap();
            let expected: Vec<u8> = want.keys().map(|k| k[0]).take(stop + 1).collect();
            prop_assert_eq!(few, expected);
        }
    }

    #[test]
    fn a_failed_transaction_leaves_nothing_and_a_reading_one_cannot_write() {
        let mut memory = MemoryStore::new();
        let failed: Result<((), _), StoreError> = memory.write(|tx| {
            tx.put(vec![1], vec![1])?;
            Err(StoreError::Row)
        });
        assert!(failed.is_err());
        assert!(memory.rows.is_empty());
        let refused = memory.read(|tx| tx.put(vec![1], vec![1]));
        assert!(matches!(refused, Err(StoreError::ReadOnly)));
    }
}
