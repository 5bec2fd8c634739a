//! ○ Whose the received notifications are, and who gives way when the box is full.
//!
//! ```text
//!   SHARE    sender                 count, bytes          one row of INBOX more or less: the same transaction
//!   LARGEST  size, falling; sender                        the first row is whoever has most
//!   SENDER   sender, time           row of the note       the first row is that sender's oldest
//! ```
//! No sender has more than [`MAX_SHARE`] and [`MAX_SHARE_BYTES`]: what is new takes the place of its own oldest. In a full
//! box the oldest of whoever has most gives way, to somebody who even then has no more. So nobody pushes out one who has
//! less, and however many send much, there is room for one who sends little. The owner's own notifications
//! give way to nobody, and have half of the box.
//!
//! A store of an earlier version has no such rows. Then "inbox shared" is not "inbox", and they are made from the inbox.

use crate::at::AtSign;

use super::{
    super::{
        error::StoreError,
        register::Home,
        rows,
        tx::{Rows, Tx},
    },
    MAX_INBOX, MAX_INBOX_BYTES, Note, signed,
};

/// Most unexpired notifications of one sender kept for one atSign: an eighth of the box.
pub(super) const MAX_SHARE: u64 = MAX_INBOX / 8;
/// Most bytes of them: room for one of the longest.
pub(super) const MAX_SHARE_BYTES: u64 = MAX_INBOX_BYTES / 8;
/// What the owner's own may take.
const MAX_OWN: u64 = MAX_INBOX / 2;
/// See [`MAX_OWN`].
const MAX_OWN_BYTES: u64 = MAX_INBOX_BYTES / 2;
/// So many bytes weigh as much as one notification.
const BYTES_OF_ONE: u64 = MAX_INBOX_BYTES / MAX_INBOX;
/// How many are in SENDER. When it is not the inbox's number, the rows are of no use.
const SHARED: &str = "inbox shared";

/// What one sender has in a box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SenderShare {
    pub count: u64,
    pub bytes: u64,
}

impl SenderShare {
    pub(super) fn with(self, note: &Note) -> Self {
        Self {
            count: self.count + 1,
            bytes: self.bytes + note.size(),
        }
    }

    fn without(self, note: &Note) -> Self {
        Self {
            count: self.count.saturating_sub(1),
            bytes: self.bytes.saturating_sub(note.size()),
        }
    }

    pub(super) fn fits(self, is_owner: bool) -> bool {
        let (most, most_bytes) = if is_owner {
            (MAX_OWN, MAX_OWN_BYTES)
        } else {
            (MAX_SHARE, MAX_SHARE_BYTES)
        };
        self.count <= most && self.bytes <= most_bytes
    }

    /// How much of the box it is, by whatever there is more of.
    fn weight(self) -> u64 {
        self.bytes.max(self.count.saturating_mul(BYTES_OF_ONE))
    }

    fn row(self) -> Vec<u8> {
        [self.count.to_be_bytes(), self.bytes.to_be_bytes()].concat()
    }

    fn of(row: &[u8]) -> Option<Self> {
        Some(Self {
            count: rows::number(row)?,
            bytes: rows::number(row.get(8..)?)?,
        })
    }
}

impl Home {
    /// What this sender has here.
    ///
    /// # Errors
    /// When the store fails.
    pub fn share_of(&self, rows: &dyn Rows, sender: &AtSign) -> Result<SenderShare, StoreError> {
        match rows.get(&self.key(rows::SHARE, &[sender.as_str().as_bytes()]))? {
            Some(row) => SenderShare::of(&row).ok_or(StoreError::Row),
            None => Ok(SenderShare::default()),
        }
    }

    /// Whose oldest gives way to one more of `sender`, who would then have `share`.
    pub(super) fn gives_way(
        &self,
        rows: &dyn Rows,
        sender: &AtSign,
        share: SenderShare,
    ) -> Result<Option<AtSign>, StoreError> {
        let largest = self.largest(rows)?;
        if *sender == self.who {
            return Ok(largest.map(|(who, _)| who));
        }
        let larger = largest.filter(|(_, weight)| *weight >= share.weight());
        Ok(Some(larger.map_or_else(|| sender.clone(), |(who, _)| who)))
    }

    /// Who has most, the owner left out, and how much that weighs.
    fn largest(&self, rows: &dyn Rows) -> Result<Option<(AtSign, u64)>, StoreError> {
        let Some((key, _)) = first(rows, &self.key(rows::LARGEST, &[]))? else {
            return Ok(None);
        };
        let key = &key[rows::HEAD..];
        let weight = rows::number(key).ok_or(StoreError::Row)?;
        let who = str::from_utf8(&key[8..])
            .ok()
            .and_then(|who| who.parse().ok());
        Ok(Some((who.ok_or(StoreError::Row)?, u64::MAX - weight)))
    }

    /// The oldest received notification of this sender.
    pub(super) fn oldest_of(
        &self,
        tx: &mut Tx<'_>,
        sender: &AtSign,
    ) -> Result<Option<Note>, StoreError> {
        let place = self.key(rows::SENDER, &[sender.as_str().as_bytes(), &[0]]);
        let Some((_, row)) = first(tx, &place)? else {
            return Ok(None);
        };
        if let Some(note) = self.note_at(tx, &row)? {
            return Ok(Some(note));
        }
        // An earlier version was at work, and left as many as it had found.
        self.count_shares(tx)?;
        match first(tx, &place)? {
            Some((_, row)) => self.note_at(tx, &row),
            None => Ok(None),
        }
    }

    /// One received notification more.
    pub(super) fn share_in(&self, tx: &mut Tx<'_>, note: &Note) -> Result<(), StoreError> {
        tx.put(self.sender_row(note), self.note_row(&note.id, &note.from))?;
        let was = self.share_of(tx, &note.from)?;
        self.set_share(tx, &note.from, was, was.with(note))?;
        self.count(tx, SHARED, 1).map(drop)
    }

    /// One less.
    pub(super) fn share_out(&self, tx: &mut Tx<'_>, note: &Note) -> Result<(), StoreError> {
        let row = self.sender_row(note);
        tx.remove(&row)?;
        let was = self.share_of(tx, &note.from)?;
        self.set_share(tx, &note.from, was, was.without(note))?;
        self.count(tx, SHARED, -1).map(drop)
    }

    fn sender_row(&self, note: &Note) -> Vec<u8> {
        let from = note.from.as_str().as_bytes();
        let time = note.epoch_millis.to_be_bytes();
        self.key(rows::SENDER, &[from, &[0], &time])
    }

    fn set_share(
        &self,
        tx: &mut Tx<'_>,
        sender: &AtSign,
        was: SenderShare,
        is: SenderShare,
    ) -> Result<(), StoreError> {
        let name = sender.as_str().as_bytes();
        let row = self.key(rows::SHARE, &[name]);
        match is.count {
            0 => tx.remove(&row)?,
            _ => tx.put(row, is.row())?,
        }
        if *sender == self.who {
            return Ok(());
        }
        let place = |share: SenderShare| {
            let falling = (u64::MAX - share.weight()).to_be_bytes();
            self.key(rows::LARGEST, &[&falling, name])
        };
        tx.remove(&place(was))?;
        match is.count {
            0 => Ok(()),
            _ => tx.put(place(is), Vec::new()),
        }
    }

    /// Makes the rows anew when they are not there: an earlier version wrote to this box.
    pub(super) fn ready_shares(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if self.counter(tx, SHARED)? == self.counter(tx, "inbox")? {
            return Ok(());
        }
        self.count_shares(tx)
    }

    fn count_shares(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for table in [rows::SENDER, rows::SHARE, rows::LARGEST] {
            for (key, _) in all(tx, &self.key(table, &[]))? {
                tx.remove(&key)?;
            }
        }
        self.set_counter(tx, SHARED, 0)?;
        let mut bytes = 0;
        for (place, row) in all(tx, &self.key(rows::INBOX, &[]))? {
            match self.note_at(tx, &row)? {
                Some(note) => {
                    self.share_in(tx, &note)?;
                    bytes += signed(note.size());
                }
                None => tx.remove(&place)?,
            }
        }
        let count = self.counter(tx, SHARED)?;
        self.set_counter(tx, "inbox", count)?;
        self.set_counter(tx, "inbox bytes", bytes.unsigned_abs())
    }
}

type KeyValue = (Vec<u8>, Vec<u8>);

pub(super) fn first(rows: &dyn Rows, prefix: &[u8]) -> Result<Option<KeyValue>, StoreError> {
    let mut found = None;
    rows.visit_prefix(prefix, &mut |key, value| {
        found = Some((key.to_vec(), value.to_vec()));
        Ok(false)
    })?;
    Ok(found)
}

fn all(rows: &dyn Rows, prefix: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
    let mut found = Vec::new();
    rows.visit_prefix(prefix, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Ok(true)
    })?;
    Ok(found)
}
