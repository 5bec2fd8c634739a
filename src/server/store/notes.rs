//! Notifications at rest: what came in (until it expires, for replay) and what waits to go out.
//!
//! ```text
//!   sender's NOTE + OUTBOX row ──delivery──▶ receiver's NOTE + INBOX row      one transaction
//! ```
//!
//! Here: the boxes and lines of one atSign. `note`: one notification and its row. `tally`: how many there are.
//! `shares`: whose the received ones are.

use crate::at::AtSign;

use super::{
    error::StoreError,
    register::Home,
    rows,
    tx::{Rows, Tx},
};

pub use note::{DeliveryStatus, Note, NoteKind};
pub use tally::Tally;

use note::Head;

pub(super) mod note;
mod shares;
mod tally;

/// Most unexpired notifications kept for one atSign; of one sender an eighth ([`shares::MAX_SHARE`]).
pub const MAX_INBOX: u64 = 50_000;
/// Most bytes of unexpired received notifications kept for one atSign.
pub const MAX_INBOX_BYTES: u64 = 128 << 20;
/// Most notifications of one atSign waiting to go out, and most bytes.
pub const MAX_OUTBOX: u64 = 20_000;
/// See [`MAX_OUTBOX`].
pub const MAX_OUTBOX_BYTES: u64 = 128 << 20;

/// Most notifications of one atSign that have left the line and are kept to tell what became of them, and most bytes.
/// Whoever asks does so within seconds; one that sends hundreds a second would keep a gigabyte otherwise, for they live for
/// a quarter of an hour, or as long as their sender likes.
pub const MAX_SPENT: u64 = 5_000;
/// See [`MAX_SPENT`].
pub const MAX_SPENT_BYTES: u64 = 16 << 20;
/// Longest value that is kept of one of them, in bytes: those of programs are shorter.
pub const MAX_SPENT_VALUE: usize = 16 << 10;

/// The counters of [`MAX_SPENT`] and [`MAX_SPENT_BYTES`].
const SPENT: &str = "spent";
const SPENT_BYTES: &str = "spent bytes";

/// Most dead notifications that make room for one that would not fit.
const MAKE_ROOM: usize = 200;

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl Home {
    /// A time for the next received notification: `now`, but always later than the one before.
    fn next_epoch(&self, tx: &mut Tx<'_>, now: u64) -> Result<u64, StoreError> {
        let epoch = now.max(self.counter(tx, "epoch")? + 1);
        self.set_counter(tx, "epoch", epoch)?;
        Ok(epoch)
    }

    /// The time of the newest received notification; 0 before the first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn last_epoch(&self, rows: &dyn Rows) -> Result<u64, StoreError> {
        self.counter(rows, "epoch")
    }

    /// Stores an incoming notification (received, or own), setting its time and expiry. One of the same id and sender
    /// is overwritten; older ones give way, as `shares` tells. `None`: the inbox is full all the same.
    ///
    /// # Errors
    /// When the store fails.
    pub fn take_in(
        &self,
        tx: &mut Tx<'_>,
        mut note: Note,
        now: u64,
    ) -> Result<Option<Note>, StoreError> {
        self.ready_shares(tx)?;
        if let Some(old) = self.note_from(tx, &note.id, &note.from)? {
            self.drop_note(tx, &old)?;
        }
        if !self.make_room(tx, &note, now)? {
            return Ok(None);
        }
        self.count(tx, "inbox", 1)?;
        self.count(tx, "inbox bytes", signed(note.size()))?;
        note.epoch_millis = self.next_epoch(tx, now)?;
        note.expires_at = now.saturating_add(note.ttln);
        self.share_in(tx, &note)?;
        let row = self.note_row(&note.id, &note.from);
        let inbox = self.key(rows::INBOX, &[&note.epoch_millis.to_be_bytes()]);
        tx.put(inbox, row)?;
        self.save_note(tx, &note)?;
        Ok(Some(note))
    }

    /// Makes room for one more in the inbox: the dead go first, then whoever gives way. `false`: nobody does.
    /// What goes for a long one came once, each with a command of its own, so this is no more work than that was.
    fn make_room(&self, tx: &mut Tx<'_>, note: &Note, now: u64) -> Result<bool, StoreError> {
        let is_owner = note.from == self.who;
        loop {
            let share = self.share_of(tx, &note.from)?.with(note);
            let whole = self.fits(tx, "inbox", (MAX_INBOX, MAX_INBOX_BYTES), note)?;
            if whole && share.fits(is_owner) {
                return Ok(true);
            }
            if self.drop_dead(tx, now)? {
                continue;
            }
            let victim = match (share.fits(is_owner), is_owner) {
                (true, _) => self.gives_way(tx, &note.from, share)?,
                (false, true) => None,
                (false, false) => Some(note.from.clone()),
            };
            let oldest = match victim {
                Some(victim) => self.oldest_of(tx, &victim)?,
                None => None,
            };
            let Some(oldest) = oldest else {
                return Ok(false);
            };
            self.drop_note(tx, &oldest)?;
        }
    }

    /// Whether one more fits in the outbox. When it would not, the dead go first: the purge may not have come by yet.
    fn has_room(&self, tx: &mut Tx<'_>, note: &Note, now: u64) -> Result<bool, StoreError> {
        loop {
            if self.fits(tx, "outbox", (MAX_OUTBOX, MAX_OUTBOX_BYTES), note)? {
                return Ok(true);
            }
            if !self.drop_dead(tx, now)? {
                return Ok(false);
            }
        }
    }

    fn fits(
        &self,
        rows: &dyn Rows,
        name: &str,
        (most, most_bytes): (u64, u64),
        note: &Note,
    ) -> Result<bool, StoreError> {
        let bytes = self.counter(rows, &format!("{name} bytes"))?;
        Ok(self.counter(rows, name)? < most && bytes + note.size() <= most_bytes)
    }

    /// Drops some whose life is over; `false`: there were none.
    fn drop_dead(&self, tx: &mut Tx<'_>, now: u64) -> Result<bool, StoreError> {
        let dead = self.dead_notes(tx, now, MAKE_ROOM)?;
        for note in &dead {
            self.drop_note(tx, note)?;
        }
        Ok(!dead.is_empty())
    }

    /// Stores an outgoing notification and puts it in line. `None`: too many are waiting.
    ///
    /// # Errors
    /// When the store fails.
    pub fn put_out(
        &self,
        tx: &mut Tx<'_>,
        mut note: Note,
        now: u64,
    ) -> Result<Option<Note>, StoreError> {
        if let Some(old) = self.note_from(tx, &note.id, &note.from)? {
            self.drop_note(tx, &old)?;
        }
        if !self.has_room(tx, &note, now)? {
            return Ok(None);
        }
        self.count(tx, "outbox", 1)?;
        self.count(tx, "outbox bytes", signed(note.size()))?;
        note.place = self.count(tx, "place", 1)? + 1;
        note.epoch_millis = now;
        note.expires_at = now.saturating_add(note.ttln);
        let row = self.note_row(&note.id, &note.from);
        tx.put(self.outbox_row(&note), row)?;
        self.save_note(tx, &note)?;
        Ok(Some(note))
    }

    /// Takes a notification out of the line, whatever became of it, and keeps the note.
    ///
    /// # Errors
    /// When the store fails.
    pub fn out_of_line(&self, tx: &mut Tx<'_>, note: &mut Note) -> Result<(), StoreError> {
        self.leave_line(tx, note)?;
        note.place = 0;
        // From now on it is there to tell its status only. Values are what fills a disk.
        note.value = note
            .value
            .take()
            .filter(|value| value.len() <= MAX_SPENT_VALUE);
        self.save_note(tx, note)?;
        self.keep_spent(tx, note)
    }

    /// The line, or the ones that have left it, have one less.
    fn leave_line(&self, tx: &mut Tx<'_>, note: &Note) -> Result<(), StoreError> {
        if note.place == 0 {
            return self.forget_spent(tx, &self.spent_row(note));
        }
        tx.remove(&self.outbox_row(note))?;
        self.count(tx, "outbox", -1)?;
        self.count(tx, "outbox bytes", -signed(note.size()))?;
        Ok(())
    }

    /// One more has left the line; the oldest of those give way.
    fn keep_spent(&self, tx: &mut Tx<'_>, note: &Note) -> Result<(), StoreError> {
        let row = self.spent_row(note);
        self.forget_spent(tx, &row)?;
        tx.put(row, note.size().to_be_bytes().to_vec())?;
        self.count(tx, SPENT, 1)?;
        self.count(tx, SPENT_BYTES, signed(note.size()))?;
        while self.counter(tx, SPENT)? > MAX_SPENT
            || self.counter(tx, SPENT_BYTES)? > MAX_SPENT_BYTES
        {
            let Some((oldest, _)) = shares::first(tx, &self.key(rows::SPENT, &[]))? else {
                break;
            };
            match self.note_at(tx, &oldest[rows::HEAD + 8..])? {
                Some(note) => self.drop_note(tx, &note)?,
                // An earlier version was at work, and did not know this row.
                None => self.forget_spent(tx, &oldest)?,
            }
        }
        Ok(())
    }

    fn forget_spent(&self, tx: &mut Tx<'_>, row: &[u8]) -> Result<(), StoreError> {
        let Some(size) = tx.get(row)? else {
            return Ok(());
        };
        let size = rows::number(&size).ok_or(StoreError::Row)?;
        tx.remove(row)?;
        self.count(tx, SPENT, -1)?;
        self.count(tx, SPENT_BYTES, -signed(size)).map(drop)
    }

    fn spent_row(&self, note: &Note) -> Vec<u8> {
        let row = self.note_row(&note.id, &note.from);
        self.key(rows::SPENT, &[&note.epoch_millis.to_be_bytes(), &row])
    }

    fn outbox_row(&self, note: &Note) -> Vec<u8> {
        let to = note.to.as_str().as_bytes();
        self.key(rows::OUTBOX, &[to, &[0], &note.place.to_be_bytes()])
    }

    /// Writes a note that is stored already, or its first time.
    ///
    /// # Errors
    /// When the store fails.
    pub fn save_note(&self, tx: &mut Tx<'_>, note: &Note) -> Result<(), StoreError> {
        let row = self.note_row(&note.id, &note.from);
        let expiry = note.expires_at.to_be_bytes();
        tx.put(self.key(rows::NOTE_EXPIRY, &[&expiry, &row]), Vec::new())?;
        tx.put(row, note.pack())
    }

    /// Removes a note and all that points to it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn drop_note(&self, tx: &mut Tx<'_>, note: &Note) -> Result<(), StoreError> {
        if note.kind != NoteKind::Sent {
            self.ready_shares(tx)?;
        }
        let row = self.note_row(&note.id, &note.from);
        let expiry = note.expires_at.to_be_bytes();
        tx.remove(&self.key(rows::NOTE_EXPIRY, &[&expiry, &row]))?;
        tx.remove(&row)?;
        if note.kind == NoteKind::Sent {
            return self.leave_line(tx, note);
        }
        self.share_out(tx, note)?;
        tx.remove(&self.key(rows::INBOX, &[&note.epoch_millis.to_be_bytes()]))?;
        self.count(tx, "inbox", -1)?;
        self.count(tx, "inbox bytes", -signed(note.size()))?;
        Ok(())
    }

    /// The note of this id from this sender.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_from(
        &self,
        rows: &dyn Rows,
        id: &str,
        from: &AtSign,
    ) -> Result<Option<Note>, StoreError> {
        self.note_at(rows, &self.note_row(id, from))
    }

    /// Where a note is kept: two senders cannot overwrite each other's.
    fn note_row(&self, id: &str, from: &AtSign) -> Vec<u8> {
        self.key(rows::NOTE, &[id.as_bytes(), &[0], from.as_str().as_bytes()])
    }

    pub(super) fn note_at(&self, rows: &dyn Rows, row: &[u8]) -> Result<Option<Note>, StoreError> {
        rows.get(row)?
            .map(|packed| Note::unpack(&packed).ok_or(StoreError::Row))
            .transpose()
    }

    /// Counts all notes, expired ones too until they are purged.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tally(&self, rows: &dyn Rows) -> Result<Tally, StoreError> {
        let prefix = self.key(rows::NOTE, &[]);
        let mut tally = Tally::default();
        rows.visit_prefix(&prefix, &mut |_, packed| {
            tally.add(&Head::of(packed).ok_or(StoreError::Row)?);
            Ok(true)
        })?;
        Ok(tally)
    }

    /// All notes of this id; different senders may have chosen the same.
    ///
    /// # Errors
    /// When the store fails.
    pub fn notes(&self, rows: &dyn Rows, id: &str) -> Result<Vec<Note>, StoreError> {
        let prefix = self.key(rows::NOTE, &[id.as_bytes(), &[0]]);
        let mut found = Vec::new();
        rows.visit_prefix(&prefix, &mut |_, packed| {
            found.push(Note::unpack(packed).ok_or(StoreError::Row)?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// Incoming notes with `after` < time ≤ `until`, ascending, at most about `bytes` of them. Also says from where to
    /// go on; `None`: that was all.
    ///
    /// # Errors
    /// When the store fails.
    pub fn inbox(
        &self,
        rows: &dyn Rows,
        after: u64,
        until: u64,
        bytes: u64,
    ) -> Result<(Vec<Note>, Option<u64>), StoreError> {
        let from = self.key(rows::INBOX, &[&after.saturating_add(1).to_be_bytes()]);
        let end = self.key(rows::INBOX, &[&until.saturating_add(1).to_be_bytes()]);
        let (mut found, mut taken, mut stopped) = (Vec::new(), 0, None);
        rows.visit(&from, &end, &mut |key, row| {
            if let Some(note) = self.note_at(rows, row)? {
                taken += note.size();
                found.push(note);
            }
            let at = rows::number(&key[rows::HEAD..]).unwrap_or(until);
            stopped = (taken >= bytes).then_some(at);
            Ok(stopped.is_none())
        })?;
        Ok((found, stopped))
    }

    /// The first notes in line for one recipient, at most `limit` of them and about `bytes`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn outbox(
        &self,
        rows: &dyn Rows,
        to: &AtSign,
        limit: usize,
        bytes: u64,
    ) -> Result<Vec<Note>, StoreError> {
        let prefix = self.key(rows::OUTBOX, &[to.as_str().as_bytes(), &[0]]);
        let (mut found, mut taken) = (Vec::new(), 0);
        rows.visit_prefix(&prefix, &mut |_, row| {
            if let Some(note) = self.note_at(rows, row)? {
                taken += note.size();
                found.push(note);
            }
            Ok(found.len() < limit && taken < bytes)
        })?;
        Ok(found)
    }

    /// Everybody for whom something waits.
    ///
    /// # Errors
    /// When the store fails.
    pub fn recipients(&self, rows: &dyn Rows) -> Result<Vec<AtSign>, StoreError> {
        let prefix = self.key(rows::OUTBOX, &[]);
        let end = rows::behind(&prefix);
        let mut found: Vec<AtSign> = Vec::new();
        let mut from = prefix;
        loop {
            let mut next = None;
            rows.visit(&from, &end, &mut |key, _| {
                next = key[rows::HEAD..]
                    .split(|byte| *byte == 0)
                    .next()
                    .map(<[u8]>::to_vec);
                Ok(false)
            })?;
            let Some(name) = next else { return Ok(found) };
            let who = str::from_utf8(&name)
                .ok()
                .and_then(|name| name.parse().ok());
            found.push(who.ok_or(StoreError::Row)?);
            from = self.key(rows::OUTBOX, &[&name, &[1]]);
        }
    }

    /// Notes whose life ended by `now`, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn dead_notes(
        &self,
        rows: &dyn Rows,
        now: u64,
        limit: usize,
    ) -> Result<Vec<Note>, StoreError> {
        let from = self.key(rows::NOTE_EXPIRY, &[]);
        let until = self.key(rows::NOTE_EXPIRY, &[&now.saturating_add(1).to_be_bytes()]);
        let mut keys = Vec::new();
        rows.visit(&from, &until, &mut |key, _| {
            keys.push(key[rows::HEAD + 8..].to_vec());
            Ok(keys.len() < limit)
        })?;
        let found = keys.iter().map(|row| self.note_at(rows, row));
        Ok(found
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests;
