//! Notifications at rest: what came in (until it expires, for replay) and what waits to go out.
//!
//! ```text
//!   sender's NOTE + OUTBOX row ──delivery──▶ receiver's NOTE + INBOX row      one transaction
//! ```

use miniserde::{Deserialize, Serialize, json};

use crate::at::{AtSign, verb::Operation};

use super::{Rows, StoreError, Tx, records::Meta, register::Home, rows};

/// Most unexpired notifications kept for one atSign.
pub const MAX_INBOX: u64 = 50_000;
/// Most bytes of unexpired received notifications kept for one atSign.
pub const MAX_INBOX_BYTES: u64 = 128 << 20;
/// Most notifications of one atSign waiting to go out, and most bytes.
pub const MAX_OUTBOX: u64 = 20_000;
/// See [`MAX_OUTBOX`].
pub const MAX_OUTBOX_BYTES: u64 = 128 << 20;

/// Most dead notifications that make room for one that would not fit.
const MAKE_ROOM: usize = 200;

/// Why an atSign has this notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Kind {
    Sent,
    Received,
    /// Made by the server for its own owner: enrolment requests.
    Own,
}

/// How far a sent notification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Status {
    Queued,
    Delivered,
    /// An attempt failed; there may be more.
    Errored,
}

/// One notification.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Note {
    pub id: String,
    pub from: AtSign,
    pub to: AtSign,
    /// The whole key or text: `@to:entity@from`.
    pub key: String,
    pub value: Option<String>,
    pub operation: Operation,
    pub is_text: bool,
    pub is_encrypted: bool,
    pub kind: Kind,
    pub status: Status,
    pub priority: String,
    pub strategy: String,
    pub depth: u32,
    pub notifier: String,
    /// Life in milliseconds.
    pub ttln: u64,
    /// When this server stored it; strictly increasing per receiver.
    pub epoch_millis: u64,
    pub expires_at: u64,
    pub retries: u32,
    /// The row in the outbox, while it waits.
    pub place: u64,
    pub meta: Meta,
}

impl Note {
    /// Whether its life is over.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at <= now
    }

    fn size(&self) -> u64 {
        let value = self.value.as_ref().map_or(0, String::len);
        (self.key.len() + value + 512) as u64
    }

    /// Where it is kept: two senders cannot overwrite each other's.
    fn row(&self, home: &Home) -> Vec<u8> {
        let from = self.from.as_str().as_bytes();
        home.key(rows::NOTE, &[self.id.as_bytes(), &[0], from])
    }

    fn pack(&self) -> Vec<u8> {
        let head = Head {
            id: self.id.clone(),
            from: self.from.to_string(),
            to: self.to.to_string(),
            key: self.key.clone(),
            update: self.operation == Operation::Update,
            text: self.is_text,
            encrypted: self.is_encrypted,
            valued: self.value.is_some(),
            kind: self.kind,
            status: self.status,
            priority: self.priority.clone(),
            strategy: self.strategy.clone(),
            depth: self.depth,
            notifier: self.notifier.clone(),
            ttln: self.ttln,
            epoch: self.epoch_millis,
            expires: self.expires_at,
            retries: self.retries,
            place: self.place,
        };
        rows::pack(&[
            json::to_string(&head).as_bytes(),
            self.meta.to_row().as_bytes(),
            self.value.as_deref().unwrap_or_default().as_bytes(),
        ])
    }

    fn unpack(row: &[u8]) -> Option<Self> {
        let [_, meta, value] = rows::unpack(row)?;
        let head = Head::of(row)?;
        Some(Self {
            id: head.id,
            from: head.from.parse().ok()?,
            to: head.to.parse().ok()?,
            key: head.key,
            value: match head.valued {
                true => Some(str::from_utf8(value).ok()?.to_owned()),
                false => None,
            },
            operation: match head.update {
                true => Operation::Update,
                false => Operation::Delete,
            },
            is_text: head.text,
            is_encrypted: head.encrypted,
            kind: head.kind,
            status: head.status,
            priority: head.priority,
            strategy: head.strategy,
            depth: head.depth,
            notifier: head.notifier,
            ttln: head.ttln,
            epoch_millis: head.epoch,
            expires_at: head.expires,
            retries: head.retries,
            place: head.place,
            meta: Meta::from_row(meta).ok()?,
        })
    }
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The stored form of everything but metadata and value.
#[derive(Serialize, Deserialize)]
struct Head {
    id: String,
    from: String,
    to: String,
    key: String,
    update: bool,
    text: bool,
    encrypted: bool,
    valued: bool,
    kind: Kind,
    status: Status,
    priority: String,
    strategy: String,
    depth: u32,
    notifier: String,
    ttln: u64,
    epoch: u64,
    expires: u64,
    retries: u32,
    place: u64,
}

impl Head {
    fn of(row: &[u8]) -> Option<Self> {
        let [head, _, _] = rows::unpack::<3>(row)?;
        json::from_str(str::from_utf8(head).ok()?).ok()
    }
}

/// How many notifications there are of each kind, incoming and outgoing ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tally {
    pub total: u64,
    pub sent: u64,
    pub received: u64,
    pub delivered: u64,
    pub errored: u64,
    pub queued: u64,
    pub updates: u64,
    pub deletes: u64,
    pub keys: u64,
    pub texts: u64,
}

impl Tally {
    fn add(&mut self, head: &Head) {
        self.total += 1;
        match head.kind {
            Kind::Sent => self.sent += 1,
            Kind::Received => self.received += 1,
            Kind::Own => {}
        }
        *match head.status {
            Status::Delivered => &mut self.delivered,
            Status::Errored => &mut self.errored,
            Status::Queued => &mut self.queued,
        } += 1;
        *if head.update {
            &mut self.updates
        } else {
            &mut self.deletes
        } += 1;
        *if head.text {
            &mut self.texts
        } else {
            &mut self.keys
        } += 1;
    }
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

    /// Stores an incoming notification (received, or own), setting its time and expiry. `None`: the inbox is full.
    /// One of the same id and sender is overwritten.
    ///
    /// # Errors
    /// When the store fails.
    pub fn take_in(
        &self,
        tx: &mut Tx<'_>,
        mut note: Note,
        now: u64,
    ) -> Result<Option<Note>, StoreError> {
        if let Some(old) = self.note_from(tx, &note.id, &note.from)? {
            self.drop_note(tx, &old)?;
        }
        let limits = (MAX_INBOX, MAX_INBOX_BYTES);
        if !self.has_room(tx, "inbox", limits, &note, now)? {
            return Ok(None);
        }
        self.count(tx, "inbox", 1)?;
        self.count(tx, "inbox bytes", signed(note.size()))?;
        note.epoch_millis = self.next_epoch(tx, now)?;
        note.expires_at = now.saturating_add(note.ttln);
        let row = note.row(self);
        let inbox = self.key(rows::INBOX, &[&note.epoch_millis.to_be_bytes()]);
        tx.put(inbox, row)?;
        self.save_note(tx, &note)?;
        Ok(Some(note))
    }

    /// Whether one more fits in this box. When it would not, the dead go first: the purge may not have come by yet.
    fn has_room(
        &self,
        tx: &mut Tx<'_>,
        name: &str,
        (most, most_bytes): (u64, u64),
        note: &Note,
        now: u64,
    ) -> Result<bool, StoreError> {
        let bytes = format!("{name} bytes");
        loop {
            let fits = self.counter(tx, name)? < most
                && self.counter(tx, &bytes)? + note.size() <= most_bytes;
            if fits {
                return Ok(true);
            }
            let dead = self.dead_notes(tx, now, MAKE_ROOM)?;
            if dead.is_empty() {
                return Ok(false);
            }
            for note in &dead {
                self.drop_note(tx, note)?;
            }
        }
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
        let limits = (MAX_OUTBOX, MAX_OUTBOX_BYTES);
        if !self.has_room(tx, "outbox", limits, &note, now)? {
            return Ok(None);
        }
        self.count(tx, "outbox", 1)?;
        self.count(tx, "outbox bytes", signed(note.size()))?;
        note.place = self.count(tx, "place", 1)? + 1;
        note.epoch_millis = now;
        note.expires_at = now.saturating_add(note.ttln);
        let row = note.row(self);
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
        self.save_note(tx, note)
    }

    fn leave_line(&self, tx: &mut Tx<'_>, note: &Note) -> Result<(), StoreError> {
        if note.place > 0 {
            tx.remove(&self.outbox_row(note))?;
            self.count(tx, "outbox", -1)?;
            self.count(tx, "outbox bytes", -signed(note.size()))?;
        }
        Ok(())
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
        let row = note.row(self);
        let expiry = note.expires_at.to_be_bytes();
        tx.put(self.key(rows::NOTE_EXPIRY, &[&expiry, &row]), Vec::new())?;
        tx.put(row, note.pack())
    }

    /// Removes a note and all that points to it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn drop_note(&self, tx: &mut Tx<'_>, note: &Note) -> Result<(), StoreError> {
        let row = note.row(self);
        let expiry = note.expires_at.to_be_bytes();
        tx.remove(&self.key(rows::NOTE_EXPIRY, &[&expiry, &row]))?;
        tx.remove(&row)?;
        if note.kind == Kind::Sent {
            return self.leave_line(tx, note);
        }
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
        let from = from.as_str().as_bytes();
        self.note_at(rows, &self.key(rows::NOTE, &[id.as_bytes(), &[0], from]))
    }

    fn note_at(&self, rows: &dyn Rows, row: &[u8]) -> Result<Option<Note>, StoreError> {
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
        let (mut tally, mut sound) = (Tally::default(), true);
        rows.visit(&prefix, &rows::behind(&prefix), &mut |_, packed| {
            match Head::of(packed) {
                Some(head) => tally.add(&head),
                None => sound = false,
            }
            sound
        })?;
        sound.then_some(tally).ok_or(StoreError::Row)
    }

    /// All notes of this id; different senders may have chosen the same.
    ///
    /// # Errors
    /// When the store fails.
    pub fn notes(&self, rows: &dyn Rows, id: &str) -> Result<Vec<Note>, StoreError> {
        let prefix = self.key(rows::NOTE, &[id.as_bytes(), &[0]]);
        let mut found = Vec::new();
        rows.visit(&prefix, &rows::behind(&prefix), &mut |_, packed| {
            found.push(Note::unpack(packed).ok_or(StoreError::Row));
            true
        })?;
        found.into_iter().collect()
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
        let mut failed = None;
        rows.visit(&from, &end, &mut |key, row| {
            match self.note_at(rows, row) {
                Ok(note) => {
                    let at = rows::number(&key[rows::HEAD..]).unwrap_or(until);
                    if let Some(note) = note {
                        taken += note.size();
                        found.push(note);
                    }
                    stopped = (taken >= bytes).then_some(at);
                }
                Err(why) => failed = Some(why),
            }
            failed.is_none() && stopped.is_none()
        })?;
        match failed {
            Some(why) => Err(why),
            None => Ok((found, stopped)),
        }
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
        let (mut found, mut taken, mut failed) = (Vec::new(), 0, None);
        rows.visit(&prefix, &rows::behind(&prefix), &mut |_, row| {
            match self.note_at(rows, row) {
                Ok(Some(note)) => {
                    taken += note.size();
                    found.push(note);
                }
                Ok(None) => {}
                Err(why) => failed = Some(why),
            }
            failed.is_none() && found.len() < limit && taken < bytes
        })?;
        match failed {
            Some(why) => Err(why),
            None => Ok(found),
        }
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
                false
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
            keys.len() < limit
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
pub(crate) mod tests {
    use super::{super::Memory, *};

    fn home(name: &str, number: u32) -> Home {
        Home {
            number,
            who: name.parse().unwrap(),
        }
    }

    pub(crate) fn note(id: &str, from: &str, to: &str, kind: Kind) -> Note {
        Note {
            id: id.into(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            key: format!("{to}:x.ns{from}"),
            value: Some("v".into()),
            operation: Operation::Update,
            is_text: false,
            is_encrypted: true,
            kind,
            status: Status::Queued,
            priority: "low".into(),
            strategy: "all".into(),
            depth: 1,
            notifier: "SYSTEM".into(),
            ttln: 1000,
            epoch_millis: 0,
            expires_at: 0,
            retries: 0,
            place: 0,
            meta: <Meta as Default>::default(),
        }
    }

    fn ids(notes: &[Note]) -> Vec<&str> {
        notes.iter().map(|note| note.id.as_str()).collect()
    }

    #[test]
    fn received_times_only_grow_even_when_the_clock_goes_back() {
        let (bob, mut memory) = (home("@bob", 2), Memory::new());
        for (id, now, want) in [
            ("a", 100, 100),
            ("b", 100, 101),
            ("c", 50, 102),
            ("d", 200, 200),
        ] {
            let new = note(id, "@alice", "@bob", Kind::Received);
            let stored = memory
                .write(|tx| bob.take_in(tx, new, now))
                .unwrap()
                .0
                .unwrap();
            assert_eq!(stored.epoch_millis, want, "{id}");
        }
        memory.read(|tx| {
            let (page, more) = bob.inbox(tx, 100, 200, u64::MAX).unwrap();
            assert_eq!((ids(&page), more), (vec!["b", "c", "d"], None));
            // A page ends where the bytes do, and the next goes on from there.
            let (page, more) = bob.inbox(tx, 0, 200, 1).unwrap();
            assert_eq!((ids(&page), more), (vec!["a"], Some(100)));
            assert_eq!(ids(&bob.inbox(tx, 0, 101, u64::MAX).unwrap().0), ["a", "b"]);
        });
    }

    #[test]
    fn a_full_box_makes_room_by_what_has_expired_and_by_nothing_else() {
        let (bob, mut memory) = (home("@bob", 2), Memory::new());
        for (kind, name, most) in [
            (Kind::Received, "inbox", MAX_INBOX),
            (Kind::Sent, "outbox", MAX_OUTBOX),
        ] {
            let store = |memory: &mut Memory, id: &str, life: u64, now: u64| {
                let (from, to) = match kind {
                    Kind::Sent => ("@bob", "@alice"),
                    _ => ("@alice", "@bob"),
                };
                let mut new = note(id, from, to, kind);
                new.ttln = life;
                let put = |tx: &mut Tx<'_>| match kind {
                    Kind::Sent => bob.put_out(tx, new, now),
                    _ => bob.take_in(tx, new, now),
                };
                memory.write(put).unwrap().0.is_some()
            };
            let mut fits = |id: &str, life, now| store(&mut memory, id, life, now);
            // Two that die early, one that lives on; then as full as thousands of others would make it.
            assert!(
                fits("a", 100, 0) && fits("b", 100, 0) && fits("c", 9000, 0),
                "{name}"
            );
            memory.write(|tx| bob.set_counter(tx, name, most)).unwrap();
            let mut fits = |id: &str, life, now| store(&mut memory, id, life, now);
            assert!(!fits("early", 9000, 99), "{name}: nothing is dead yet");
            assert!(fits("d", 9000, 100) && fits("e", 9000, 100), "{name}");
            assert!(!fits("f", 9000, 100), "{name}: as full as before");
            memory.read(|tx| {
                for (id, kept) in [("a", false), ("b", false), ("c", true), ("d", true)] {
                    let found = bob.notes(tx, id).unwrap();
                    let found = found.iter().any(|note| note.kind == kind);
                    assert_eq!(found, kept, "{name}: {id}");
                }
            });
        }
    }

    #[test]
    fn two_senders_with_the_same_id_do_not_overwrite_each_other() {
        let (bob, mut memory) = (home("@bob", 2), Memory::new());
        for from in ["@alice", "@mallory"] {
            let new = note("same", from, "@bob", Kind::Received);
            memory.write(|tx| bob.take_in(tx, new, 5)).unwrap();
        }
        memory.read(|tx| assert_eq!(bob.notes(tx, "same").unwrap().len(), 2));
    }

    #[test]
    fn the_line_keeps_its_order_and_dead_notes_leave_no_row() {
        let (alice, mut memory) = (home("@alice", 1), Memory::new());
        for (id, to) in [("z", "@bob"), ("a", "@carol"), ("b", "@bob")] {
            let new = note(id, "@alice", to, Kind::Sent);
            memory
                .write(|tx| alice.put_out(tx, new, 10))
                .unwrap()
                .0
                .unwrap();
        }
        let bob = "@bob".parse().unwrap();
        let line = memory.read(|tx| alice.outbox(tx, &bob, 9, 1 << 20).unwrap());
        assert_eq!(ids(&line), ["z", "b"]);
        let all = memory.read(|tx| alice.recipients(tx).unwrap());
        assert_eq!(all, [bob.clone(), "@carol".parse().unwrap()]);
        memory
            .write(|tx| {
                let mut first = line[0].clone();
                first.status = Status::Delivered;
                alice.out_of_line(tx, &mut first)
            })
            .unwrap();
        assert_eq!(
            memory.read(|tx| alice.outbox(tx, &bob, 9, 1 << 20).unwrap().len()),
            1
        );
        memory
            .write(|tx| {
                assert_eq!(alice.dead_notes(tx, 1009, 9)?, []);
                for dead in alice.dead_notes(tx, 1010, 9)? {
                    alice.drop_note(tx, &dead)?;
                }
                Ok::<_, StoreError>(())
            })
            .unwrap();
        memory.read(|tx| {
            let left = rows::key(rows::NOTE, 1, &[]);
            tx.visit(
                &left,
                &rows::behind(&rows::key(rows::NOTE_EXPIRY, 1, &[])),
                &mut |key, _| panic!("left over: {key:?}"),
            )
            .unwrap();
            for name in ["outbox", "outbox bytes"] {
                assert_eq!(alice.counter(tx, name).unwrap(), 0, "{name}");
            }
        });
    }
}
