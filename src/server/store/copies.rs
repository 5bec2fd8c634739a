//! ○ Copies of other atSigns' values (`cached:…`): how much each of them may fill, and who gives way.
//!
//! ```text
//!   COPIES        owner                   bytes            one copy more or less: the same transaction
//!   MOST_COPIES   bytes, falling; owner                    the first row is whoever has most
//!   COPY          owner, time, key                         the first row is that owner's oldest
//! ```
//! No other atSign fills more than [`MAX_SHARE`]: its newest takes the place of its own oldest. When all is full, the oldest of
//! whoever has most gives way. Nothing is lost by that: it can be looked up where it comes from. A copy is counted with the
//! rows that it makes, so that many small ones are no less than a few large ones. What an earlier version kept is not
//! counted until it is written anew.

use super::{
    error::StoreError,
    log::Change,
    records::{Logged, Meta, Record},
    register::Home,
    rows,
    tx::{Rows, Tx},
};

/// Most bytes of other atSigns' values that one atSign keeps.
pub const MAX_COPIES: u64 = 64 << 20;
/// Most of them of one.
pub const MAX_SHARE: u64 = MAX_COPIES / 8;
/// Longest life of a copy, in milliseconds: a year from when it came.
const MAX_LIFE: u64 = 366 * 24 * 3600 * 1000;
/// What every copy's key begins with.
pub const PREFIX: &str = "cached:";
/// How often a copy's key is written, and what else its rows have about.
const KEYS: u64 = 4;
const HEADS: u64 = 256;
/// The counter of all.
const ALL: &str = "copies";

/// What a copy takes on the disk, about.
fn weight(key: &str, record: &Record) -> u64 {
    record.value.len() as u64 + KEYS * key.len() as u64 + HEADS
}

/// Whose value the key of a copy stands for.
fn owner(key: &str) -> &[u8] {
    let at = key.rfind('@').unwrap_or_default();
    &key.as_bytes()[at..]
}

/// When a record's life ends: of a copy in any case.
pub(super) fn life_end(key: &str, meta: &Meta) -> Option<u64> {
    if !key.starts_with(PREFIX) {
        return meta.expires_at;
    }
    let last = meta.updated_at.saturating_add(MAX_LIFE);
    Some(meta.expires_at.map_or(last, |at| at.min(last)))
}

impl Home {
    /// Keeps a copy under this key; `false`: it is too large for that.
    ///
    /// # Errors
    /// When the store fails.
    pub fn put_copy(
        &self,
        tx: &mut Tx<'_>,
        key: &str,
        record: &Record,
        change: Change,
    ) -> Result<bool, StoreError> {
        let new = weight(key, record);
        if new > MAX_SHARE {
            return Ok(false);
        }
        loop {
            let old = self.record(tx, key)?.map_or(0, |old| weight(key, &old));
            let with_it = |bytes: u64| bytes.saturating_sub(old) + new;
            let share = with_it(self.copies_of(tx, owner(key))?);
            let victim = if share > MAX_SHARE {
                owner(key).to_vec()
            } else if with_it(self.copied_bytes(tx)?) > MAX_COPIES {
                self.has_most(tx, share)?
                    .unwrap_or_else(|| owner(key).to_vec())
            } else {
                break;
            };
            let Some(oldest) = self.oldest_copy(tx, &victim)? else {
                return Ok(false);
            };
            self.erase(tx, &oldest)?;
            self.unlog(tx, &oldest)?;
        }
        self.put(tx, key, record, change, Logged::ByKey)?;
        Ok(true)
    }

    /// How many bytes of copies there are.
    ///
    /// # Errors
    /// When the store fails.
    pub fn copied_bytes(&self, rows: &dyn Rows) -> Result<u64, StoreError> {
        self.counter(rows, ALL)
    }

    fn copies_of(&self, rows: &dyn Rows, owner: &[u8]) -> Result<u64, StoreError> {
        let row = rows.get(&self.key(rows::COPIES, &[owner]))?;
        row.map_or(Ok(0), |row| rows::number(&row).ok_or(StoreError::Row))
    }

    /// Who has most, and no less than this.
    fn has_most(&self, rows: &dyn Rows, least: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut most = None;
        rows.visit_prefix(&self.key(rows::MOST_COPIES, &[]), &mut |key, _| {
            let key = &key[rows::HEAD..];
            let bytes = u64::MAX - rows::number(key).ok_or(StoreError::Row)?;
            most = (bytes >= least).then(|| key[8..].to_vec());
            Ok(false)
        })?;
        Ok(most)
    }

    fn oldest_copy(&self, rows: &dyn Rows, owner: &[u8]) -> Result<Option<String>, StoreError> {
        let prefix = self.key(rows::COPY, &[owner, &[0]]);
        let mut oldest = None;
        rows.visit_prefix(&prefix, &mut |key, _| {
            let key = key.get(prefix.len() + 8..).ok_or(StoreError::Row)?;
            let key = str::from_utf8(key).map_err(|_| StoreError::Row)?;
            oldest = Some(key.to_owned());
            Ok(false)
        })?;
        Ok(oldest)
    }

    /// Counts a record that comes, if it is a copy.
    pub(super) fn copy_in(
        &self,
        tx: &mut Tx<'_>,
        key: &str,
        record: &Record,
    ) -> Result<(), StoreError> {
        if !key.starts_with(PREFIX) {
            return Ok(());
        }
        tx.put(self.copy_row(key, record), Vec::new())?;
        self.weigh_copies(tx, key, |bytes| bytes + weight(key, record))
    }

    /// Counts one that goes.
    pub(super) fn copy_out(
        &self,
        tx: &mut Tx<'_>,
        key: &str,
        record: &Record,
    ) -> Result<(), StoreError> {
        let row = self.copy_row(key, record);
        if !key.starts_with(PREFIX) || tx.get(&row)?.is_none() {
            return Ok(());
        }
        tx.remove(&row)?;
        self.weigh_copies(tx, key, |bytes| bytes.saturating_sub(weight(key, record)))
    }

    fn copy_row(&self, key: &str, record: &Record) -> Vec<u8> {
        let time = record.meta.updated_at.to_be_bytes();
        self.key(rows::COPY, &[owner(key), &[0], &time, key.as_bytes()])
    }

    fn weigh_copies(
        &self,
        tx: &mut Tx<'_>,
        key: &str,
        change: impl Fn(u64) -> u64,
    ) -> Result<(), StoreError> {
        let owner = owner(key);
        let was = self.copies_of(tx, owner)?;
        let (is, all) = (change(was), change(self.copied_bytes(tx)?));
        let row = self.key(rows::COPIES, &[owner]);
        let place = |bytes: u64| {
            let falling = (u64::MAX - bytes).to_be_bytes();
            self.key(rows::MOST_COPIES, &[&falling, owner])
        };
        tx.remove(&place(was))?;
        if is == 0 {
            tx.remove(&row)?;
        } else {
            tx.put(row, is.to_be_bytes().to_vec())?;
            tx.put(place(is), Vec::new())?;
        }
        self.set_counter(tx, ALL, all)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::MemoryStore, *};

    fn home() -> Home {
        Home {
            number: 1,
            who: "@dev".parse().unwrap(),
        }
    }

    fn copy(at: u64, size: usize) -> Record {
        Record {
            value: "v".repeat(size),
            meta: Meta {
                updated_at: at,
                ..Meta::default()
            },
        }
    }

    fn put(memory: &mut MemoryStore, key: &str, record: &Record) -> bool {
        let home = home();
        let write = |tx: &mut Tx<'_>| home.put_copy(tx, key, record, Change::Update);
        memory.write(write).unwrap().0
    }

    /// Only the lengths of values were counted: of one byte each, 67 million rows fitted.
    #[test]
    fn small_copies_of_one_push_out_its_own_oldest_and_leave_no_trace() {
        let (mut memory, home) = (MemoryStore::new(), home());
        assert!(put(&mut memory, "cached:@dev:key.x@manager", &copy(1, 9)));
        let name = |n: u64| format!("cached:@dev:{n:0240}.x@evil");
        let fits = MAX_SHARE / weight(&name(0), &copy(0, 1));
        for n in 0..fits + 50 {
            assert!(put(&mut memory, &name(n), &copy(n, 1)));
        }
        memory.read(|tx| {
            assert!(home.copied_bytes(tx).unwrap() <= MAX_SHARE + 1000);
            assert!(home.weight(tx).unwrap() < 2 * MAX_SHARE);
            assert!(home.record(tx, &name(49)).unwrap().is_none());
            assert!(home.record(tx, &name(50)).unwrap().is_some());
            assert!(
                home.record(tx, "cached:@dev:key.x@manager")
                    .unwrap()
                    .is_some()
            );
        });
    }

    #[test]
    fn when_all_is_full_whoever_has_most_gives_way() {
        let (mut memory, home) = (MemoryStore::new(), home());
        assert!(put(
            &mut memory,
            "cached:public:publickey@bob",
            &copy(1, 400)
        ));
        assert!(!put(
            &mut memory,
            "cached:public:publickey@e",
            &copy(1, MAX_SHARE as usize)
        ));
        for n in 0..100u64 {
            let key = format!("cached:public:publickey@e{n}");
            assert!(put(&mut memory, &key, &copy(2 + n, 4 << 20)));
        }
        memory.read(|tx| {
            assert!(home.copied_bytes(tx).unwrap() <= MAX_COPIES);
            let kept = |key: &str| home.record(tx, key).unwrap().is_some();
            assert!(kept("cached:public:publickey@bob") && kept("cached:public:publickey@e99"));
        });
    }

    #[test]
    fn a_copy_that_would_live_for_ever_ends_after_a_year() {
        let (mut memory, home) = (MemoryStore::new(), home());
        let key = "cached:@dev:k.x@bob";
        assert!(put(&mut memory, key, &copy(5, 1)));
        memory.read(|tx| {
            assert_eq!(home.expired(tx, 4 + MAX_LIFE, 9).unwrap(), [""; 0]);
            assert_eq!(home.expired(tx, 5 + MAX_LIFE, 9).unwrap(), [key]);
        });
        memory.write(|tx| home.erase(tx, key)).unwrap();
        memory.read(|tx| {
            assert_eq!(home.expired(tx, u64::MAX, 9).unwrap(), [""; 0]);
            assert_eq!(home.copied_bytes(tx).unwrap(), 0);
        });
    }
}
