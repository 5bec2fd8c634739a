//! Which atSigns live here, and counters that never go back.

use miniserde::{Deserialize, Serialize, json};

use crate::at::AtSign;

use super::{
    error::StoreError,
    rows,
    tx::{Rows, Tx},
};

/// One atSign's place in the store: everything of it is found through this.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Home {
    /// Never used again, even after the atSign has gone.
    pub number: u32,
    /// Who lives there.
    pub who: AtSign,
}

/// One line of the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The atSign, and where its rows are.
    pub home: Home,
    /// Where its atServer listens.
    pub port: u16,
    /// When it was added, milliseconds since 1970.
    pub created: u64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    number: u32,
    port: u16,
    created: u64,
}

/// Rows removed in one transaction when an atSign goes.
const REMOVED_AT_ONCE: usize = 1000;

fn line_key(who: &AtSign) -> Vec<u8> {
    let mut key = vec![rows::REGISTER];
    key.extend_from_slice(who.as_str().as_bytes());
    key
}

fn entry(who: AtSign, value: &[u8]) -> Result<Registration, StoreError> {
    let text = str::from_utf8(value).map_err(|_| StoreError::Row)?;
    let line: Wire = json::from_str(text).map_err(|_| StoreError::Row)?;
    Ok(Registration {
        home: Home {
            number: line.number,
            who,
        },
        port: line.port,
        created: line.created,
    })
}

/// Where this atSign lives; `None`: not here.
///
/// # Errors
/// When the store fails.
pub fn find(rows: &dyn Rows, who: &AtSign) -> Result<Option<Registration>, StoreError> {
    rows.get(&line_key(who))?
        .map(|value| entry(who.clone(), &value))
        .transpose()
}

/// Everybody, by name.
///
/// # Errors
/// When the store fails.
pub fn all(rows: &dyn Rows) -> Result<Vec<Registration>, StoreError> {
    let mut found = Vec::new();
    rows.visit_prefix(&[rows::REGISTER], &mut |key, value| {
        let who = str::from_utf8(&key[1..])
            .ok()
            .and_then(|who| who.parse().ok());
        found.push(entry(who.ok_or(StoreError::Row)?, value)?);
        Ok(true)
    })?;
    Ok(found)
}

/// Gives an atSign a place. It must not have one.
///
/// # Errors
/// When the store fails.
pub fn add(tx: &mut Tx<'_>, who: &AtSign, port: u16, now: u64) -> Result<Home, StoreError> {
    let everybody = Home {
        number: 0,
        who: who.clone(),
    };
    let given = everybody.count(tx, "homes", 1)?;
    let number = u32::try_from(given + 1).map_err(|_| StoreError::Row)?;
    let line = Wire {
        number,
        port,
        created: now,
    };
    tx.put(line_key(who), json::to_string(&line).into_bytes())?;
    Ok(Home {
        number,
        who: who.clone(),
    })
}

/// Takes an atSign out of the register. Its rows stay until [`clear`] has removed them.
///
/// # Errors
/// When the store fails.
pub fn remove(tx: &mut Tx<'_>, home: &Home) -> Result<(), StoreError> {
    tx.remove(&line_key(&home.who))
}

/// Removes some rows of an atSign; `true` while there may be more.
///
/// # Errors
/// When the store fails.
pub fn clear(tx: &mut Tx<'_>, home: &Home) -> Result<bool, StoreError> {
    let mut doomed = Vec::new();
    for table in rows::OWNED {
        let prefix = rows::key(table, home.number, &[]);
        tx.visit_prefix(&prefix, &mut |key, _| {
            doomed.push(key.to_vec());
            Ok(doomed.len() < REMOVED_AT_ONCE)
        })?;
        if doomed.len() >= REMOVED_AT_ONCE {
            break;
        }
    }
    let more = doomed.len() >= REMOVED_AT_ONCE;
    for key in doomed {
        tx.remove(&key)?;
    }
    Ok(more)
}

impl Home {
    /// A row key of this atSign.
    pub fn key(&self, table: u8, parts: &[&[u8]]) -> Vec<u8> {
        rows::key(table, self.number, parts)
    }

    /// How far a counter is; 0 when it never moved.
    ///
    /// # Errors
    /// When the store fails.
    pub fn counter(&self, rows: &dyn Rows, name: &str) -> Result<u64, StoreError> {
        match rows.get(&self.key(rows::COUNTER, &[name.as_bytes()]))? {
            Some(value) => rows::number(&value).ok_or(StoreError::Row),
            None => Ok(0),
        }
    }

    /// Sets a counter.
    ///
    /// # Errors
    /// When the store fails.
    pub fn set_counter(&self, tx: &mut Tx<'_>, name: &str, to: u64) -> Result<(), StoreError> {
        let key = self.key(rows::COUNTER, &[name.as_bytes()]);
        tx.put(key, to.to_be_bytes().to_vec())
    }

    /// Moves a counter on by `by` (back when negative, never below 0) and returns where it was.
    ///
    /// # Errors
    /// When the store fails.
    pub fn count(&self, tx: &mut Tx<'_>, name: &str, by: i64) -> Result<u64, StoreError> {
        let was = self.counter(tx, name)?;
        self.set_counter(tx, name, was.saturating_add_signed(by))?;
        Ok(was)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::MemoryStore, *};

    #[test]
    fn numbers_are_never_given_twice_and_clearing_takes_only_ones_own_rows() {
        let mut memory = MemoryStore::new();
        let (alice, bob): (AtSign, AtSign) = ("@alice".parse().unwrap(), "@bob".parse().unwrap());
        let (first, _) = memory.write(|tx| add(tx, &alice, 1, 5)).unwrap();
        let (other, _) = memory.write(|tx| add(tx, &bob, 2, 5)).unwrap();
        memory
            .write(|tx| {
                first.set_counter(tx, "x", 7)?;
                other.set_counter(tx, "x", 8)
            })
            .unwrap();
        memory
            .write(|tx| {
                remove(tx, &first)?;
                assert!(!clear(tx, &first)?);
                Ok::<_, StoreError>(())
            })
            .unwrap();
        memory.read(|tx| {
            assert_eq!(find(tx, &alice).unwrap(), None);
            assert_eq!(first.counter(tx, "x").unwrap(), 0);
            assert_eq!(other.counter(tx, "x").unwrap(), 8);
            assert_eq!(all(tx).unwrap().len(), 1);
        });
        let (again, _) = memory.write(|tx| add(tx, &alice, 1, 6)).unwrap();
        assert!(again.number > other.number);
    }
}
