//! How a notification gets from one atSign to another. No I/O: transactions only.
//!
//! ```text
//!   notify ─▶ queue ─▶ [outbox] ─▶ deliver ─┬─▶ receive ─▶ [inbox], cache, monitors     same process: one transaction
//!                                           └─▶ peer.rs ─▶ the other's server ─▶ receive
//! ```
//!
//! Who calls whom, when both are hosted here: `session::notify` → [`queue`] → the commit's `Queued` event → board → courier →
//! [`deliver`] → `receive` → the commit's `Note` event → board → mailbox → `session::view` → the monitor's connection.
//!
//! The sender has its answer before delivery starts. What goes from one atSign to another keeps its order. A
//! notification of a known id and sender is not delivered twice.
//!
//! Source: at_server:packages/at_secondary_server/lib/src/notification.

use std::sync::Arc;

use crate::at::{AtKey, AtSign, fault::Code, key::Scope, verb::Operation};

use super::{
    enrolment,
    notification::is_too_long,
    refusal::{Refusal, refuse},
    store::{
        CommitEvent, StoreError, Tx,
        copies::PREFIX,
        lists,
        log::Change,
        notes::{DeliveryStatus, Note, NoteKind},
        records::{Logged, Record},
        register::{self, Home},
    },
};

/// Attempts before we give up, if it has not expired before.
pub const MAX_ATTEMPTS: u32 = 30;
/// Most notifications delivered in one transaction, and about how many bytes.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 4 << 20;
/// Longest public key that is kept, in bytes: ten times those of clients.
pub(super) const MAX_PUBLIC_KEY: usize = 4096;
/// Rows removed in one transaction by the purge.
const PURGED_AT_ONCE: usize = 500;
/// Longest life of what somebody else sent, in milliseconds: a day. The owner's own live as long as they ask for.
const MAX_LIFE_OF_OTHERS: u64 = 24 * 3600 * 1000;
/// Most that `strategy:latest` looks at.
const LATEST_WINDOW: usize = 1000;

/// Takes a notification from its sender: to oneself it arrives at once, to others it waits in line. Returns its id.
///
/// # Errors
/// When it could never be shown, too many wait, or the store fails.
pub(super) fn queue(
    tx: &mut Tx<'_>,
    home: &Home,
    mut note: Note,
    now: u64,
) -> Result<String, Refusal> {
    let id = note.id.clone();
    let full = || {
        refuse(
            Code::InternalException,
            "too many notifications are waiting",
        )
    };
    if is_too_long(&note) {
        return Err(Refusal::too_long_to_show());
    }
    if note.to == home.who {
        (note.kind, note.status) = (NoteKind::Received, DeliveryStatus::Delivered);
        let note = home.take_in(tx, note, now)?.ok_or_else(full)?;
        tx.emit(CommitEvent::Note(Arc::new(note)));
        return Ok(id);
    }
    if note.strategy == "latest" {
        supersede(tx, home, &note)?;
    }
    let (from, to) = (note.from.clone(), note.to.clone());
    home.put_out(tx, note, now)?.ok_or_else(full)?;
    tx.emit(CommitEvent::Queued { from, to });
    Ok(id)
}

/// Of one notifier only the newest `depth` stay in line, the new one counted.
fn supersede(tx: &mut Tx<'_>, home: &Home, new: &Note) -> Result<(), StoreError> {
    let line = home.outbox(tx, &new.to, LATEST_WINDOW, u64::MAX)?;
    let mut same: Vec<Note> = line
        .into_iter()
        .filter(|note| note.strategy == "latest" && note.notifier == new.notifier)
        .collect();
    let keep = usize::try_from(new.depth.max(1) - 1).unwrap_or(usize::MAX);
    let surplus = same.len().saturating_sub(keep);
    for note in same.iter_mut().take(surplus) {
        home.out_of_line(tx, note)?;
    }
    Ok(())
}

/// What became of an attempt to deliver.
#[derive(Debug)]
pub enum Delivery {
    /// Nothing waits.
    Empty,
    /// Some arrived; there may be more.
    Some,
    /// The recipient lives elsewhere: these go over the network, in this order.
    Foreign(Vec<Note>),
    /// The recipient does not take any now.
    Refused,
}

/// Delivers what waits from one atSign of this process to another, with everything that follows from it.
///
/// # Errors
/// When the store fails.
pub fn deliver(
    tx: &mut Tx<'_>,
    from: &Home,
    to: &AtSign,
    now: u64,
) -> Result<Delivery, StoreError> {
    let mut waiting = Vec::new();
    let line = from.outbox(tx, to, BATCH, BATCH_BYTES)?;
    if line.is_empty() {
        return Ok(Delivery::Empty);
    }
    for mut note in line {
        if note.is_expired(now) {
            from.out_of_line(tx, &mut note)?;
        } else {
            waiting.push(note);
        }
    }
    let Some(receiver) = register::find(tx, to)? else {
        return Ok(if waiting.is_empty() {
            Delivery::Some
        } else {
            Delivery::Foreign(waiting)
        });
    };
    if turned_back(tx, from, &receiver.home, &mut waiting)? {
        return Ok(Delivery::Some);
    }
    let mut taken = lists::admits(tx, &receiver.home, &from.who)?;
    for note in &mut waiting {
        // One that is not taken stops those behind it: their order is kept.
        let receipt = if taken {
            hand_over(tx, &receiver.home, note, now)?
        } else {
            Receipt::Full
        };
        taken = receipt != Receipt::Full;
        match receipt {
            Receipt::Full => fail(tx, from, note)?,
            Receipt::TooLong => give_up(tx, from, note)?,
            _ => arrived(tx, from, note)?,
        }
    }
    if !taken {
        return Ok(Delivery::Refused);
    }
    if !waiting.is_empty() {
        exchange_public_keys(tx, from, &receiver.home, now)?;
    }
    Ok(Delivery::Some)
}

/// Hands one note over. What is not proper is not delivered, and not tried again.
fn hand_over(tx: &mut Tx<'_>, to: &Home, note: &Note, now: u64) -> Result<Receipt, StoreError> {
    let copy = Note {
        kind: NoteKind::Received,
        status: DeliveryStatus::Delivered,
        place: 0,
        ..note.clone()
    };
    receive(tx, to, copy, now)
}

/// It has been delivered.
///
/// # Errors
/// When the store fails.
pub fn arrived(tx: &mut Tx<'_>, from: &Home, note: &mut Note) -> Result<(), StoreError> {
    note.status = DeliveryStatus::Delivered;
    from.out_of_line(tx, note)
}

/// It will never be delivered.
///
/// # Errors
/// When the store fails.
pub fn give_up(tx: &mut Tx<'_>, from: &Home, note: &mut Note) -> Result<(), StoreError> {
    note.status = DeliveryStatus::Errored;
    from.out_of_line(tx, note)
}

/// Gives up what waited already when the recipient shut its sender out; `false`: there was none.
fn turned_back(
    tx: &mut Tx<'_>,
    from: &Home,
    to: &Home,
    waiting: &mut [Note],
) -> Result<bool, StoreError> {
    let before = lists::blocked_at(tx, to, &from.who)?;
    let mut any = false;
    for note in waiting.iter_mut().filter(|note| note.epoch_millis < before) {
        give_up(tx, from, note)?;
        any = true;
    }
    Ok(any)
}

/// One attempt more was in vain; after the last the note leaves the line.
///
/// # Errors
/// When the store fails.
pub fn fail(tx: &mut Tx<'_>, from: &Home, note: &mut Note) -> Result<(), StoreError> {
    note.status = DeliveryStatus::Errored;
    note.retries += 1;
    if note.retries >= MAX_ATTEMPTS {
        from.out_of_line(tx, note)
    } else {
        from.save_note(tx, note)
    }
}

/// How an incoming notification was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Stored; monitors will see it.
    New,
    /// It was here already.
    Known,
    /// No more fit.
    Full,
    /// No monitor could be shown it.
    TooLong,
    /// Not for us, or about a key that is not the sender's.
    Improper,
}

/// Stores an incoming notification, keeps a copy of its value when the sender allows that, and tells the monitors.
///
/// # Errors
/// When the store fails.
pub fn receive(
    tx: &mut Tx<'_>,
    home: &Home,
    mut note: Note,
    now: u64,
) -> Result<Receipt, StoreError> {
    let Some(key) = proper_key(home, &note) else {
        return Ok(Receipt::Improper);
    };
    if is_too_long(&note) {
        return Ok(Receipt::TooLong);
    }
    note.ttln = note.ttln.min(MAX_LIFE_OF_OTHERS);
    if let Some(old) = home.note_from(tx, &note.id, &note.from)?
        && old.kind == NoteKind::Received
        && !old.is_expired(now)
    {
        return Ok(Receipt::Known);
    }
    let Some(note) = home.take_in(tx, note, now)? else {
        return Ok(Receipt::Full);
    };
    if let Some(key) = key {
        cache(tx, home, &key, &note, now)?;
    }
    tx.emit(CommitEvent::Note(Arc::new(note)));
    Ok(Receipt::New)
}

/// `None`: improper. `Some(None)`: a text, which has no key.
fn proper_key(home: &Home, note: &Note) -> Option<Option<AtKey>> {
    if note.to != home.who || note.from == home.who {
        return None;
    }
    if note.is_text {
        return Some(None);
    }
    let key = AtKey::parse_as_written(&note.key).ok()?;
    let for_us = match &key.scope {
        Scope::Public => true,
        Scope::Shared(with) => *with == home.who,
        _ => false,
    };
    (for_us && !key.cached && key.owner.as_ref() == Some(&note.from)).then_some(Some(key))
}

fn cache(
    tx: &mut Tx<'_>,
    home: &Home,
    key: &AtKey,
    note: &Note,
    now: u64,
) -> Result<(), StoreError> {
    let name = format!("cached:{}", key.to_string().to_lowercase());
    let old = home.record(tx, &name)?;
    if note.operation == Operation::Delete {
        if old.is_some_and(|old| old.meta.items.ccd == Some(true)) {
            home.erase(tx, &name)?;
            home.log(tx, &name, Change::Delete, now)?;
        }
        return Ok(());
    }
    if note.meta.items.ttr.unwrap_or(0) == 0 {
        return Ok(());
    }
    let (value, change) = match (&note.value, &old) {
        (Some(value), _) => (value.clone(), Change::Update),
        (None, Some(old)) => (old.value.clone(), Change::Metadata),
        (None, None) => return Ok(()),
    };
    let meta = note.meta.copied(old.as_ref().map(|old| &old.meta), now);
    home.put_copy(tx, &name, &Record { value, meta }, change)?;
    Ok(())
}

/// Both sides take note of the other's public key, as two servers do when they connect.
fn exchange_public_keys(
    tx: &mut Tx<'_>,
    one: &Home,
    other: &Home,
    now: u64,
) -> Result<(), StoreError> {
    for (home, of) in [(one, other), (other, one)] {
        let key = format!("public:publickey{}", of.who);
        if let Some(found) = of.live(tx, &key, now)? {
            learn_key(tx, home, &of.who, found, now)?;
        }
    }
    Ok(())
}

/// Keeps a copy of `who`'s public key. If it is not the one we knew, our shared key with them is of no more use:
/// it is put aside, and our clients make a new one.
///
/// # Errors
/// When the store fails.
pub fn learn_key(
    tx: &mut Tx<'_>,
    home: &Home,
    who: &AtSign,
    found: Record,
    now: u64,
) -> Result<(), StoreError> {
    if found.value.len() > MAX_PUBLIC_KEY {
        return Ok(());
    }
    let name = format!("cached:public:publickey{who}");
    let known = home.record(tx, &name)?;
    if known
        .as_ref()
        .is_some_and(|known| known.value == found.value)
    {
        return Ok(());
    }
    let mut copy = found;
    copy.meta.items.ttr = Some(-1);
    copy.meta.items.ttl = None;
    copy.meta = copy
        .meta
        .copied(known.as_ref().map(|known| &known.meta), now);
    home.put_copy(tx, &name, &copy, Change::Update)?;
    let shared = format!("shared_key.{}{}", who.bare(), home.who);
    if known.is_some()
        && let Some(old) = home.record(tx, &shared)?
    {
        let aside = format!("shared_key.{}.until.{now}{}", who.bare(), home.who);
        home.put(tx, &aside, &old, Change::Update, Logged::ByKey)?;
        home.erase(tx, &shared)?;
        home.log(tx, &shared, Change::Delete, now)?;
    }
    Ok(())
}

/// Removes some of what has expired; `true` while there may be more.
///
/// # Errors
/// When the store fails.
pub fn purge(tx: &mut Tx<'_>, home: &Home, now: u64) -> Result<bool, StoreError> {
    let keys = home.expired(tx, now, PURGED_AT_ONCE)?;
    for key in &keys {
        if let Some(id) = enrolment::id_of(home, key) {
            enrolment::end(tx, home, id, now)?;
        }
        home.erase(tx, key)?;
        if key.starts_with(PREFIX) {
            // Whoever has it knows how long it lives. Otherwise others could make the log grow for ever.
            home.unlog(tx, key)?;
        } else {
            home.log(tx, key, Change::Delete, now)?;
        }
    }
    let notes = home.dead_notes(tx, now, PURGED_AT_ONCE)?;
    for note in &notes {
        home.drop_note(tx, note)?;
    }
    Ok(keys.len() == PURGED_AT_ONCE || notes.len() == PURGED_AT_ONCE)
}
