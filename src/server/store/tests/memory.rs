//! A store without a disk, for tests.

use crate::server::store::{
    attempt::Backend,
    error::StoreError,
    tx::{Access, Chance, Changes, CommitEvent, Map, Rows, Tx},
};

/// A store without a disk, for tests of everything above.
#[derive(Default)]
pub struct MemoryStore {
    pub(in crate::server::store) rows: Map,
}

impl Backend for MemoryStore {
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
        self.commit(changes)?;
        Ok((value, events))
    }

    /// Runs a transaction that cannot write.
    pub fn read<T>(&self, run: impl FnOnce(&mut Tx<'_>) -> T) -> T {
        run(&mut Tx::new(&self.rows, Access::Read, &Chance::default()))
    }
}
