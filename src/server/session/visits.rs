//! Who is here now and who came most often: kept in memory, counted since the start, for `stats`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Display, Formatter},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{
    at::AtSign,
    budget::{Budget, Claim, Hold, Limits, Rank, Usage},
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

/// Connections of this process to other servers. A part is for what owners ask: deliveries are in no hurry.
pub(in crate::server) const OUTGOING: Limits = Limits::new("outgoing", 200).with_reserve(50);
/// What one atSign here may have of them, and what all may have to the same host: for deliveries, and in all.
pub(in crate::server) const OF_SENDER: u64 = 32;
pub(in crate::server) const OF_HOME: u64 = 64;
pub(in crate::server) const DELIVERIES_TO_HOST: u64 = 32;
pub(in crate::server) const TO_HOST: u64 = 64;

/// Whose share of the connections to other servers one takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OutgoingParty {
    /// An atSign that lives here.
    Home(AtSign),
    /// The host of other servers.
    Host(String),
}

impl Display for OutgoingParty {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(who) => write!(f, "{who}"),
            Self::Host(host) => f.write_str(host),
        }
    }
}

/// The connections this process has to other servers, by the atSign they speak for and by where they go.
#[derive(Debug)]
pub struct Outbound(Budget<OutgoingParty>);

impl Default for Outbound {
    fn default() -> Self {
        Self(Budget::new(OUTGOING))
    }
}

impl Outbound {
    /// How many speak for this one.
    pub fn of(&self, who: &AtSign) -> usize {
        let open = self.0.used_by(&OutgoingParty::Home(who.clone()));
        usize::try_from(open).unwrap_or(usize::MAX)
    }

    /// One more, if there is room; `owner`: because the owner asked for something.
    pub fn enter(&self, me: &AtSign, host: &str, owner: bool) -> Option<Hold<OutgoingParty>> {
        let (rank, of_home, to_host) = if owner {
            (Rank::Known, OF_HOME, TO_HOST)
        } else {
            (Rank::Stranger, OF_SENDER, DELIVERIES_TO_HOST)
        };
        let claim = Claim::of(OutgoingParty::Home(me.clone()), of_home)
            .and(OutgoingParty::Host(host.to_owned()), to_host)
            .rank(rank);
        self.0.take(claim, Instant::now())
    }

    /// What they were used for.
    pub fn usage(&self) -> Usage {
        self.0.usage()
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

    /// A tenant's 400 recipients on a silent server took all there are.
    #[test]
    fn deliveries_of_one_and_to_one_host_leave_room_for_others_and_for_owners() {
        let outbound = Outbound::default();
        let who = |name: &str| name.parse::<AtSign>().unwrap();
        let take = |me: &str, host: &str, owner| {
            let held = std::iter::from_fn(|| outbound.enter(&who(me), host, owner));
            held.take(400).collect::<Vec<_>>()
        };
        let tarpit = take("@evil", "tar.example", false);
        assert_eq!(tarpit.len() as u64, OF_SENDER);
        assert!(
            take("@bob", "tar.example", false).is_empty(),
            "that host has its share"
        );
        let rest: Vec<_> = (0..9)
            .map(|n| take(&format!("@e{n}"), &format!("h{n}"), false))
            .collect();
        assert_eq!(outbound.usage().used, OUTGOING.total - OUTGOING.reserve);
        assert_eq!(outbound.of(&who("@evil")) as u64, OF_SENDER);
        assert!(outbound.enter(&who("@bob"), "b.example", false).is_none());
        assert!(outbound.enter(&who("@bob"), "tar.example", true).is_some());
        drop((tarpit, rest));
        assert_eq!(outbound.usage().used, 0);
    }
}
