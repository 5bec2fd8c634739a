//! What a monitor knows of the lines that it reads: which ids it has delivered, how long it waits for the rest of one,
//! and which it passed over.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use crate::at::notification::Notification;

use super::link::Link;

/// Ids that are remembered so that nothing is delivered twice.
const REMEMBERED: usize = 4096;
/// How often the connection may end in the middle of one line that is passed over.
const MAX_TORN: u32 = 3;
/// A line that is passed over may take [`Timing::line`](super::Timing::line) for each so many bytes: it may well be long.
const STRETCH: u64 = 1 << 20;
/// Lines that were passed over are told of once in so long: a stranger may send many.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Since when the rest of a line is waited for.
#[derive(Default)]
pub(super) struct PartialLine {
    since: Option<Instant>,
    stretch: Option<u64>,
}

impl PartialLine {
    /// How long by now. `heard`: a whole line came since the last look.
    pub(super) fn waited(&mut self, link: &Link, heard: bool) -> Duration {
        let stretch = link.skipping().map(|bytes| bytes / STRETCH);
        if heard || stretch != self.stretch || !link.is_partial() {
            self.since = link.is_partial().then(Instant::now);
        }
        self.stretch = stretch;
        let since = link
            .is_partial()
            .then(|| *self.since.get_or_insert_with(Instant::now));
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Connections that ended in the middle of a line that was passed over, with nothing heard in between.
#[derive(Default)]
pub(super) struct TornLines {
    at: Option<u64>,
    times: u32,
}

impl TornLines {
    pub(super) fn is_too_often(&mut self, at: Option<u64>) -> bool {
        if self.at != at {
            *self = Self { at, times: 0 };
        }
        self.times += 1;
        self.times >= MAX_TORN
    }
}

/// Counts lines that were passed over.
#[derive(Default)]
pub(super) struct PassedOver {
    lines: u64,
    told: Option<Instant>,
}

impl PassedOver {
    /// One more. How many since the last time they were told of, when they are to be told of now.
    pub(super) fn count(&mut self) -> Option<u64> {
        self.lines += 1;
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.lines))
    }
}

/// The newest ids, as keyed hashes: a sender chooses ids and their length.
#[derive(Default)]
pub(super) struct DeliveredIds {
    hasher: RandomState,
    set: HashSet<u64>,
    order: VecDeque<u64>,
}

impl DeliveredIds {
    /// Whether this sender's id comes for the first time; from now on it does not.
    pub(super) fn is_new(&mut self, note: &Notification) -> bool {
        let hash = self.hasher.hash_one((&note.from, &note.id));
        if !self.set.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}
