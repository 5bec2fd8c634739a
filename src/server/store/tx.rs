//! One transaction: the rows it reads, what it changes, and what it wants told.

use std::{cell::OnceCell, collections::BTreeMap, ops::Bound, sync::Arc};

use ring::digest;

use crate::at::{AtSign, crypto};

use super::{error::StoreError, notes::note::Note, rows};

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
        /// Of this atSign.
        of: AtSign,
        /// Its id.
        enrollment: String,
        /// The session that asked for it, which is let to finish.
        by: String,
    },
}

/// Is shown rows, key and value; says whether it wants more.
pub type EachRow<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'a;

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
    /// When the disk fails; and those of `each`, which end it.
    fn visit(&self, from: &[u8], until: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError>;

    /// As [`Rows::visit`], for all rows whose keys start with `prefix`.
    ///
    /// # Errors
    /// As [`Rows::visit`].
    fn visit_prefix(&self, prefix: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        self.visit(prefix, &rows::behind(prefix), each)
    }
}

pub(super) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

impl Rows for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(BTreeMap::get(self, key).cloned())
    }
    fn visit(&self, from: &[u8], until: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        if from < until {
            for (key, value) in
                self.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)))
            {
                if !each(key, value)? {
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
        self.set(key, Some(value))
    }

    /// Removes a row, if it is there.
    ///
    /// # Errors
    /// In a reading transaction.
    pub fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.set(key.to_vec(), None)
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        if self.access == Access::Read {
            return Err(StoreError::ReadOnly);
        }
        self.changes.insert(key, value);
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

    /// The changes and events it comes to.
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

    fn visit(&self, from: &[u8], until: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
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
                    more = each(at, new)?;
                }
                if !more || at.as_slice() == key {
                    return Ok(more);
                }
            }
            more = each(key, value)?;
            Ok(more)
        })?;
        for (at, changed) in ours {
            if !more {
                break;
            }
            if let Some(new) = changed {
                more = each(at, new)?;
            }
        }
        Ok(())
    }
}

/// What one command draws at random: the same at each attempt. Nothing is drawn for those that ask for nothing.
#[derive(Default)]
pub struct Chance(OnceCell<[u8; 32]>);

impl Chance {
    /// The `n`th draw.
    pub(super) fn draw(&self, n: u64) -> Result<[u8; 32], StoreError> {
        let seed = match self.0.get() {
            Some(seed) => seed,
            None => {
                let seed = crypto::random().map_err(|_| StoreError::Random)?;
                self.0.get_or_init(|| seed)
            }
        };
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(seed);
        hash.update(&n.to_be_bytes());
        let mut drawn = [0; 32];
        drawn.copy_from_slice(hash.finish().as_ref());
        Ok(drawn)
    }
}

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It looks.
    Read,
    /// It changes rows.
    Write,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::tests::MemoryStore, *};
    use proptest::prelude::*;

    fn all(rows: &dyn Rows, from: u8, until: u8) -> Vec<(u8, u8)> {
        let mut seen = Vec::new();
        rows.visit(&[from], &[until], &mut |key, value| {
            seen.push((key[0], value[0]));
            Ok(true)
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
            tx.visit(&[0], &[20], &mut |key, _| { few.push(key[0]); Ok(few.len() <= stop) }).unwrap();
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
