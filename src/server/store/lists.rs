//! Whom an atSign lets in: the block list, and the allow list that counts once it is not empty.

use miniserde::{Deserialize, Serialize, json};

use crate::at::{AtSign, verb::AccessList};

use super::{
    error::StoreError,
    register::Home,
    tx::{Rows, Tx},
};

/// Most names in one list.
pub const MAX_LIST: usize = 10_000;

#[derive(Default, Serialize, Deserialize)]
struct Blocked {
    #[serde(rename = "blockList")]
    names: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Allowed {
    #[serde(rename = "allowList")]
    names: Vec<String>,
}

fn row(home: &Home, list: AccessList) -> String {
    match list {
        AccessList::Block => format!("private:blocklist{}", home.who),
        AccessList::Allow => format!("private:allowlist{}", home.who),
    }
}

/// The names in a list, in the order they were added.
///
/// # Errors
/// When the store fails.
pub fn show(rows: &dyn Rows, home: &Home, list: AccessList) -> Result<Vec<AtSign>, StoreError> {
    let Some(found) = home.record(rows, &row(home, list))? else {
        return Ok(Vec::new());
    };
    let names = match list {
        AccessList::Block => json::from_str::<Blocked>(&found.value).map(|list| list.names),
        AccessList::Allow => json::from_str::<Allowed>(&found.value).map(|list| list.names),
    };
    let parsed = |name: &String| name.parse().map_err(|_| StoreError::Row);
    let names = names.map_err(|_| StoreError::Row)?;
    names.iter().map(parsed).collect()
}

/// Writes a list.
///
/// # Errors
/// When the store fails.
pub fn save(
    tx: &mut Tx<'_>,
    home: &Home,
    list: AccessList,
    names: &[AtSign],
    now: u64,
) -> Result<(), StoreError> {
    let names = names.iter().map(AtSign::to_string).collect();
    let text = match list {
        AccessList::Block => json::to_string(&Blocked { names }),
        AccessList::Allow => json::to_string(&Allowed { names }),
    };
    home.put_plain(tx, &row(home, list), &text, None, now)
}

/// Remembers that these were put on the block list: what they sent before does not arrive any more, whatever follows.
///
/// # Errors
/// When the store fails.
pub fn note_block(
    tx: &mut Tx<'_>,
    home: &Home,
    names: &[AtSign],
    now: u64,
) -> Result<(), StoreError> {
    for who in names.iter().filter(|who| **who != home.who) {
        home.set_counter(tx, &blocked_row(who), now)?;
    }
    Ok(())
}

/// When `who` was put on the block list last; 0: never.
///
/// # Errors
/// When the store fails.
pub fn blocked_at(rows: &dyn Rows, home: &Home, who: &AtSign) -> Result<u64, StoreError> {
    home.counter(rows, &blocked_row(who))
}

fn blocked_row(who: &AtSign) -> String {
    format!("blocked {who}")
}

/// Whether `who` may connect and send to `home`. The owner always may.
///
/// # Errors
/// When the store fails.
pub fn admits(rows: &dyn Rows, home: &Home, who: &AtSign) -> Result<bool, StoreError> {
    if *who == home.who {
        return Ok(true);
    }
    if show(rows, home, AccessList::Block)?.contains(who) {
        return Ok(false);
    }
    let allowed = show(rows, home, AccessList::Allow)?;
    Ok(allowed.is_empty() || allowed.contains(who))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::MemoryStore, *};

    #[test]
    fn the_block_list_wins_and_an_empty_allow_list_lets_everybody_in() {
        let mut memory = MemoryStore::new();
        let name = |name: &str| name.parse::<AtSign>().unwrap();
        let home = Home {
            number: 1,
            who: name("@me"),
        };
        let mut set = |list, names: &[AtSign]| {
            memory.write(|tx| save(tx, &home, list, names, 1)).unwrap();
            let who = ["@me", "@good", "@bad", "@other"];
            who.map(|who| memory.read(|tx| admits(tx, &home, &name(who)).unwrap()))
        };
        assert_eq!(set(AccessList::Block, &[]), [true, true, true, true]);
        assert_eq!(
            set(AccessList::Block, &[name("@bad")]),
            [true, true, false, true]
        );
        let only = [name("@good"), name("@bad")];
        assert_eq!(set(AccessList::Allow, &only), [true, true, false, false]);
        assert_eq!(set(AccessList::Allow, &[]), [true, true, false, true]);
    }
}
