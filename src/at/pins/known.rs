//! ○ What is remembered of an atSign: its key, and notes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use super::Fingerprint;
use crate::at::AtSign;

/// Of all keys those of clients that a policy let in: of these there may be any number.
pub(super) const MOST_GUESTS: usize = 1000;
/// Most notes about one atSign: two for each of 1,024 devices.
pub(super) const MOST_NOTES: usize = 2 * 1024;
/// All notes together, in bytes: ten fleets of that size.
pub(super) const MAX_NOTES: usize = 1024 * 1024;
/// A note about a client that a policy let in; behind it stands since when it is known, in seconds.
pub(super) const GUEST: &str = "guest=";

/// What is remembered of an atSign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Its key.
    pub key: Fingerprint,
    /// What else; words without blanks.
    pub notes: BTreeSet<String>,
}

impl KnownKey {
    /// A key about which nothing else is known.
    pub(super) fn of(key: Fingerprint) -> Self {
        let notes = BTreeSet::new();
        Self { key, notes }
    }

    pub(super) fn guest_since(&self) -> Option<u64> {
        let mut since = self
            .notes
            .iter()
            .filter_map(|note| note.strip_prefix(GUEST));
        since.next().map(|since| since.parse().unwrap_or(0))
    }

    /// With the blanks before them.
    pub(super) fn bytes_of_notes(&self) -> usize {
        self.notes.iter().map(|note| note.len() + 1).sum()
    }

    /// A guest no more: it does not give way to others.
    pub(super) fn stay(&mut self) {
        self.notes.retain(|note| !note.starts_with(GUEST));
    }
}

impl FromStr for KnownKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        Ok(Self {
            key: words.next().unwrap_or_default().parse()?,
            notes: words.map(str::to_owned).collect(),
        })
    }
}

impl fmt::Display for KnownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)?;
        self.notes.iter().try_for_each(|note| write!(f, " {note}"))
    }
}

/// By atSign.
pub(super) type KnownKeys = BTreeMap<AtSign, KnownKey>;

/// As many as there is room for; whether that was all. Of whom no key is known, nothing is noted.
pub(super) fn add_notes(all: &mut KnownKeys, who: &AtSign, new: Vec<String>) -> bool {
    let mut bytes: usize = all.values().map(KnownKey::bytes_of_notes).sum();
    let Some(known) = all.get_mut(who) else {
        return true;
    };
    let mut are_kept = true;
    for note in new.into_iter().filter(|note| !note.starts_with(GUEST)) {
        if known.notes.contains(&note) {
            continue;
        }
        if known.notes.len() >= MOST_NOTES || bytes + note.len() >= MAX_NOTES {
            are_kept = false;
            continue;
        }
        bytes += note.len() + 1;
        known.notes.insert(note);
    }
    are_kept
}

/// Takes out the guests that were remembered first.
pub(super) fn make_room_for_guest(all: &mut KnownKeys) {
    let since = |(who, known): (&AtSign, &KnownKey)| Some((known.guest_since()?, who.clone()));
    let mut guests: Vec<_> = all.iter().filter_map(since).collect();
    guests.sort();
    let too_many = (guests.len() + 1).saturating_sub(MOST_GUESTS);
    for (_, who) in guests.into_iter().take(too_many) {
        all.remove(&who);
    }
}
