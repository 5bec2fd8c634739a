//! Who is here now and who came most often: kept in memory, counted since the start, for `stats`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    at::AtSign,
    text::{calendar::date, json::Object},
};

/// Most atSigns, and most keys, that are counted. Those that came least often are forgotten first.
const MAX_COUNTED: usize = 1000;
/// How many are shown.
const TOP: usize = 5;

/// Who is here, and who came.
#[derive(Debug, Default)]
pub struct Attendance {
    visits: Mutex<Visits>,
    /// The connections by session.
    present: Mutex<BTreeMap<String, Presence>>,
}

impl Attendance {
    pub(super) fn visits(&self) -> MutexGuard<'_, Visits> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn present(&self) -> MutexGuard<'_, BTreeMap<String, Presence>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins.
    pub(super) fn enter(&self, session: &str, now: u64) {
        let new = Presence {
            kind: ConnectionKind::Anon,
            from: None,
            created: now,
            last: now,
        };
        self.present().insert(session.to_owned(), new);
    }
}

/// What came since the start.
#[derive(Debug, Default)]
pub(super) struct Visits {
    at_signs: TopList,
    keys: TopList,
    /// Milliseconds since 1970: of anything at all, and of a login with a key.
    pub last: Option<u64>,
    pub last_pkam: Option<u64>,
}

#[derive(Debug, Default)]
struct TopList(HashMap<String, u64>);

impl TopList {
    fn add(&mut self, name: &str) {
        if let Some(count) = self.0.get_mut(name) {
            *count += 1;
            return;
        }
        if self.0.len() >= MAX_COUNTED {
            self.forget_rare();
        }
        self.0.insert(name.to_owned(), 1);
    }

    /// Makes room: the rarer half goes.
    fn forget_rare(&mut self) {
        let mut counts: Vec<u64> = self.0.values().copied().collect();
        counts.sort_unstable();
        let middle = counts[counts.len() / 2];
        let mut surplus = self.0.len() / 2;
        self.0.retain(|_, count| {
            let rare = *count <= middle && surplus > 0;
            surplus -= usize::from(rare);
            !rare
        });
    }

    /// `{"name":count}`, highest first; equal ones by name.
    fn top(&self, shown: impl Fn(&str) -> bool) -> String {
        let mut all: Vec<_> = self.0.iter().filter(|(name, _)| shown(name)).collect();
        all.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
        let add = |object: Object, (name, count): (&String, &u64)| object.raw(name, count);
        all.into_iter().take(TOP).fold(Object::new(), add).end()
    }
}

impl Visits {
    /// Another atSign proved who it is.
    pub(super) fn came(&mut self, who: &AtSign) {
        self.at_signs.add(who.as_str());
    }

    /// A key was looked up by this name; hidden ones are not counted.
    pub(super) fn looked_up(&mut self, key: &str) {
        if !key.starts_with('_') {
            self.keys.add(key);
        }
    }

    pub(super) fn top_at_signs(&self) -> String {
        self.at_signs.top(|_| true)
    }

    pub(super) fn top_keys(&self, shown: impl Fn(&str) -> bool) -> String {
        self.keys.top(shown)
    }
}

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionKind {
    Own,
    Peer,
    Anon,
}

/// A connection that is there, as its last command left it.
#[derive(Debug)]
pub(super) struct Presence {
    pub kind: ConnectionKind,
    pub from: Option<AtSign>,
    /// Milliseconds since 1970.
    pub created: u64,
    pub last: u64,
}

impl Presence {
    pub(super) fn to_json(&self) -> String {
        let time = |at| date(at).replace(' ', "T");
        Object::new()
            .maybe("from", self.from.as_ref().map(AtSign::as_str))
            .text("created", &time(self.created))
            .text("lastAccessed", &time(self.last))
            .end()
    }
}

/// How many connections this process has to other servers, by the atSign they speak for.
#[derive(Debug, Default)]
pub struct Outbound(Mutex<HashMap<AtSign, usize>>);

impl Outbound {
    fn counts(&self) -> MutexGuard<'_, HashMap<AtSign, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many speak for this one.
    pub fn of(&self, who: &AtSign) -> usize {
        self.counts().get(who).copied().unwrap_or(0)
    }

    /// One more, unless there are `most` of all together.
    pub fn enter(&self, who: &AtSign, most: usize) -> bool {
        let mut counts = self.counts();
        let room = counts.values().sum::<usize>() < most;
        if room {
            *counts.entry(who.clone()).or_default() += 1;
        }
        room
    }

    /// One less.
    pub fn leave(&self, who: &AtSign) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(who) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(who);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_are_shown_and_a_flood_of_others_does_not_push_them_out() {
        let mut visits = Visits::default();
        for (name, times) in [("a.ns@x", 3), ("b.ns@x", 7), ("_hidden@x", 9)] {
            (0..times).for_each(|_| visits.looked_up(name));
        }
        (0..10 * MAX_COUNTED).for_each(|n| visits.looked_up(&format!("flood{n}@x")));
        assert!(visits.keys.0.len() <= MAX_COUNTED);
        let top = visits.top_keys(|key| !key.starts_with("flood"));
        assert_eq!(top, r#"{"b.ns@x":7,"a.ns@x":3}"#);
        assert_eq!(visits.top_at_signs(), "{}");
    }

    #[test]
    fn connections_to_others_are_counted_and_limited_together() {
        let (outbound, alice, bob) = (Outbound::default(), "@alice", "@bob");
        let (alice, bob): (AtSign, AtSign) = (alice.parse().unwrap(), bob.parse().unwrap());
        assert!(outbound.enter(&alice, 2) && outbound.enter(&bob, 2));
        assert!(!outbound.enter(&alice, 2));
        assert_eq!((outbound.of(&alice), outbound.of(&bob)), (1, 1));
        outbound.leave(&bob);
        assert!(outbound.enter(&alice, 2));
        assert_eq!((outbound.of(&alice), outbound.of(&bob)), (2, 0));
    }
}
