//! How many may come in, and how fast they may guess.
//!
//! ```text
//!   accept ─▶ Handshaking ─▶ Stranger ─┬─▶ Visitor   proven by `pol`: still a stranger, its address keeps the place
//!                                      └─▶ Owner     logged in: of those that strangers never have
//! ```
//! To an atServer everybody but its owner is a stranger. Whoever comes when a share is used up takes the place of the
//! oldest there, of the biggest network first, whatever it has said: who opens thousands keeps nobody out.

use std::{
    collections::HashMap,
    fmt::{self, Display, Formatter},
    hash::Hash,
    net::IpAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};

use crate::{
    at::AtSign,
    budget::{Budget, Claim, Hold, Limits, MustLeave, Rank, Usage},
    net::{
        network::{network_of, range_of},
        recent::Recent,
    },
};

use super::board::lock;

/// Connections to the atServers of this process, as far as there are descriptors. Who has just come is let to log in.
pub(in crate::server) const CONNECTIONS: Limits = Limits::new("connections", 8192)
    .with_reserve(8192 / RESERVED)
    .with_chance(Duration::from_secs(3));
/// Connections to the atDirectory: nobody logs in there, and an answer is a matter of milliseconds.
pub(in crate::server) const ENQUIRIES: Limits =
    Limits::new("directory_connections", 1024).with_chance(Duration::from_secs(1));
/// The part of the connections that strangers never get.
pub(in crate::server) const RESERVED: u64 = 4;
/// No part is less than this, however few descriptors there are.
const LEAST: u64 = 8;

/// Attempts that are looked at, a few tens of microseconds each, and who waits for that.
pub(in crate::server) const CHECKS: Limits = Limits::new("login_checks", 64)
    .with_line(CONNECTIONS.total as usize, CONNECTIONS.total as usize);
/// Of one address at a time: less than the threads that look at the store.
pub(in crate::server) const CHECKS_OF_ONE: u64 = 4;
/// Look-ups of those that have not logged in, each of which may read a value of many megabytes. They take fractions of a
/// millisecond; whoever comes then, waits.
pub(in crate::server) const LOOKS: Limits =
    Limits::new("lookups", 4).with_line(CONNECTIONS.total as usize, CONNECTIONS.total as usize);
/// Of one network at a time.
pub(in crate::server) const LOOKS_OF_ONE: u64 = 1;
/// Failed logins before the refusals of an address are kept back.
const FREE_FAILURES: u32 = 5;
/// The longest that a refusal is kept back. Clients give a login up after 10 s.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Failures are forgotten after this long without one.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Most address and atSign pairs remembered.
const MAX_REMEMBERED: usize = 20_000;

/// Descriptors that the store, listeners, other servers and other things need.
const SPARE_DESCRIPTORS: u64 = 512;
/// Between two log lines about the same trouble.
pub(super) const QUIET: Duration = Duration::from_secs(60);
/// Most address and atSign pairs of which the log is kept quiet.
const MAX_TOLD: usize = 1024;

/// Whose share of the connections one takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ConnectionParty {
    Network(IpAddr),
    /// Many networks side by side.
    Range(IpAddr),
    /// Those of a network, and all, that have not shaken hands.
    HandshakesOf(IpAddr),
    Handshakes,
    /// An atSign's server: the strangers there.
    House(AtSign),
    /// Another atSign that comes as itself.
    Visitor(AtSign),
    /// An atSign that is logged in at its own server; and all of these.
    Owner(AtSign),
    Owners,
}

impl Display for ConnectionParty {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(at) => write!(f, "{at}"),
            Self::Range(at) => write!(f, "{at}/range"),
            Self::HandshakesOf(at) => write!(f, "{at}/handshakes"),
            Self::Handshakes => write!(f, "handshakes"),
            Self::House(who) => write!(f, "strangers/{who}"),
            Self::Visitor(who) => write!(f, "visitor/{who}"),
            Self::Owner(who) => write!(f, "{who}"),
            Self::Owners => write!(f, "owners"),
        }
    }
}

/// Lets connections in, as far as there is room.
pub(super) struct ConnectionGate {
    places: Budget<ConnectionParty>,
    shares: Shares,
}

/// One connection's place. Given back when dropped.
pub(super) struct Pass {
    hold: Hold<ConnectionParty>,
    from: IpAddr,
    shares: Shares,
    standing: Standing,
}

/// What a connection is to the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not shaken hands.
    Handshaking,
    /// It has, at the atDirectory.
    Enquirer,
    /// Nobody known, at this atSign's server.
    Stranger(AtSign),
    /// Another atSign at this one's server.
    Visitor(AtSign, AtSign),
    /// This atSign at its own.
    Owner(AtSign),
}

impl ConnectionGate {
    /// The gates of the atServers and of the atDirectory: as many connections as there may be descriptors.
    pub(super) fn both() -> (Self, Self) {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let room = limit.saturating_sub(SPARE_DESCRIPTORS);
        let directory = ENQUIRIES.total.min(room / 8);
        let houses = CONNECTIONS.total.min(room - directory);
        (
            Self::new(CONNECTIONS, houses),
            Self::new(ENQUIRIES, directory),
        )
    }

    fn new(limits: Limits, total: u64) -> Self {
        let total = total.max(8 * LEAST);
        let reserve = total * limits.reserve / limits.total;
        Self {
            places: Budget::new(Limits {
                total,
                reserve,
                ..limits
            }),
            shares: Shares::of_connections(total),
        }
    }

    /// Lets a connection in; the oldest of the biggest network makes room, if need be.
    pub(super) fn enter(&self, from: IpAddr, now: Instant) -> Option<(Pass, MustLeave)> {
        let standing = Standing::Handshaking;
        let claim = self.shares.claim(from, &standing);
        let (hold, must_leave) = self.places.take_evicting(claim, now)?;
        let pass = Pass {
            hold,
            from,
            shares: self.shares,
            standing,
        };
        Some((pass, must_leave))
    }

    /// How many connections there are, and how many of them have not logged in.
    pub(super) fn occupancy(&self) -> (u64, u64) {
        let all = self.usage().used;
        let owners = self.places.used_by(&ConnectionParty::Owners);
        (all, all.saturating_sub(owners))
    }

    pub(super) fn usage(&self) -> Usage {
        self.places.usage()
    }
}

/// The most that each party may have of something.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Shares {
    /// A network of strangers (a whole site may share one address), and a range of them.
    pub network: u64,
    pub range: u64,
    /// All strangers of one atSign.
    pub house: u64,
    /// One atSign that visits others here.
    pub visitor: u64,
    /// One atSign that is logged in, and all that are.
    pub owner: u64,
    pub owners: u64,
    /// Those of a network, and all, that have not shaken hands.
    pub handshakes_of_network: u64,
    pub handshakes: u64,
}

impl Shares {
    /// Parts of so many connections. Two servers need one or two for each pair of visitor and visited; and there is
    /// always room to begin a login.
    pub(in crate::server) const fn of_connections(total: u64) -> Self {
        Self {
            network: part(total, 16),
            range: part(total, 4),
            house: part(total, 4),
            visitor: part(total, 128),
            owner: part(total, 4),
            owners: total - part(total, 8),
            handshakes_of_network: part(total, 32),
            handshakes: part(total, 4),
        }
    }

    /// What such a one takes, for a start one of it.
    pub(super) fn claim(&self, from: IpAddr, standing: &Standing) -> Claim<ConnectionParty> {
        use ConnectionParty as Party;
        if let Standing::Owner(who) = standing {
            return Claim::of(Party::Owner(who.clone()), self.owner)
                .and(Party::Owners, self.owners)
                .rank(Rank::Known);
        }
        let network = network_of(from);
        let claim = Claim::of(Party::Network(network), self.network)
            .and(Party::Range(range_of(from)), self.range);
        let at =
            |claim: Claim<_>, house: &AtSign| claim.and(Party::House(house.clone()), self.house);
        match standing {
            Standing::Handshaking => claim
                .and(Party::HandshakesOf(network), self.handshakes_of_network)
                .and(Party::Handshakes, self.handshakes),
            Standing::Stranger(house) => at(claim, house),
            Standing::Visitor(house, who) => {
                at(claim, house).and(Party::Visitor(who.clone()), self.visitor)
            }
            Standing::Enquirer | Standing::Owner(_) => claim,
        }
    }
}

/// However few there are, this much is left of it.
const fn part(total: u64, of: u64) -> u64 {
    let part = total / of;
    if part < LEAST { LEAST } else { part }
}

impl Pass {
    /// What it is now.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// It is something else from now on; `false`: there is no room for that.
    pub(super) fn becomes(&mut self, standing: Standing, now: Instant) -> bool {
        if self.standing == standing {
            return true;
        }
        let fits = self
            .hold
            .change(self.shares.claim(self.from, &standing), now);
        if fits {
            self.standing = standing;
        }
        fits
    }
}

/// Remembers failed logins per network and atSign.
pub(super) struct Failures {
    guesses: Mutex<HashMap<(IpAddr, AtSign), (u32, Instant)>>,
    /// Of whose enrolment that is not in force the log has told.
    told: Mutex<Recent<(IpAddr, AtSign)>>,
    /// Of which networks' guesses it has.
    told_of: Mutex<Recent<IpAddr>>,
    /// Signatures and digests that are being looked at.
    checks: Budget<IpAddr>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            guesses: Mutex::default(),
            told: Mutex::new(Recent::new(QUIET, MAX_TOLD)),
            told_of: Mutex::new(Recent::new(QUIET, MAX_TOLD)),
            checks: Budget::new(CHECKS),
        }
    }
}

impl Failures {
    /// A place to look at an attempt, when its turn comes: in fractions of a millisecond, whatever came of the others
    /// before it. There is always one in the end: no network has more connections than may wait.
    pub(super) async fn place(&self, from: IpAddr) -> Option<Hold<IpAddr>> {
        let claim = Claim::of(network_of(from), CHECKS_OF_ONE);
        self.checks.wait(claim).await
    }

    /// What the checks were used for.
    pub(super) fn checks(&self) -> Usage {
        self.checks.usage()
    }

    /// How long the refusal of the next wrong attempt is kept back.
    pub(super) fn wait(&self, from: IpAddr, who: &AtSign, now: Instant) -> Duration {
        let known = lock(&self.guesses);
        match known.get(&(network_of(from), who.clone())) {
            Some((count, last)) if now.duration_since(*last) < MEMORY => {
                let surplus = count.saturating_sub(FREE_FAILURES - 1);
                match surplus {
                    0 => Duration::ZERO,
                    n => Duration::from_secs(1 << n.min(6)).min(LONGEST_WAIT),
                }
            }
            _ => Duration::ZERO,
        }
    }

    /// How many networks and atSigns are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        lock(&self.guesses).len()
    }

    /// Whether the log has not told of this one's enrolment for a while.
    pub(super) fn is_news(&self, from: IpAddr, who: &AtSign, now: Instant) -> bool {
        lock(&self.told).is_new(&(network_of(from), who.clone()), now)
    }

    /// Whether the log has not told of guesses from there for a while.
    pub(super) fn are_news(&self, from: IpAddr, now: Instant) -> bool {
        lock(&self.told_of).is_new(&range_of(from), now)
    }

    /// An attempt came out well or badly.
    pub(super) fn note(&self, from: IpAddr, who: &AtSign, good: bool, now: Instant) {
        let mut known = lock(&self.guesses);
        let key = (network_of(from), who.clone());
        if good {
            known.remove(&key);
            return;
        }
        if known.len() >= MAX_REMEMBERED && !known.contains_key(&key) {
            forget_oldest(&mut known);
        }
        let (count, last) = known.entry(key).or_insert((0, now));
        if now.duration_since(*last) >= MEMORY {
            *count = 0;
        }
        *count += 1;
        *last = now;
    }
}

/// An eighth goes at a time, so that a flood costs one look at all of them in a while.
fn forget_oldest<K: Eq + Hash>(known: &mut HashMap<K, (u32, Instant)>) {
    let mut times: Vec<Instant> = known.values().map(|(_, last)| *last).collect();
    let surplus = times.len() / 8;
    let (_, limit, _) = times.select_nth_unstable(surplus);
    let (limit, mut left) = (*limit, surplus);
    known.retain(|_, (_, last)| {
        let goes = *last <= limit && left > 0;
        left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at_sign(name: &str) -> AtSign {
        name.parse().unwrap()
    }

    /// Places of a small machine.
    const TOTAL: u64 = 1024;
    const SHARES: Shares = Shares::of_connections(TOTAL);

    fn houses() -> ConnectionGate {
        ConnectionGate::new(CONNECTIONS, TOTAL)
    }

    /// As many as come from there and say a word to this house, while they find room.
    fn strangers(
        gate: &ConnectionGate,
        from: IpAddr,
        count: u64,
        now: Instant,
    ) -> Vec<(Pass, MustLeave)> {
        let enter = |_| {
            let (mut pass, must_leave) = gate.enter(from, now)?;
            pass.becomes(Standing::Stranger(at_sign("@alice")), now)
                .then_some((pass, must_leave))
        };
        (0..count).map_while(enter).collect()
    }

    /// Those that had to leave do: their sockets are closed.
    fn leave(all: &mut Vec<(Pass, MustLeave)>) -> usize {
        let before = all.len();
        all.retain(|(_, must_leave)| !must_leave.is_told());
        before - all.len()
    }

    #[test]
    fn the_oldest_of_a_network_gives_way_though_it_has_spoken() {
        let (gate, now) = (houses(), Instant::now());
        let (here, later) = ([10, 0, 0, 1].into(), now + CONNECTIONS.chance);
        let most = SHARES.network;
        let mut all = strangers(&gate, here, most, now);
        let mut new = strangers(&gate, here, 1, later);
        assert_eq!(new.len(), 1);
        assert!(all[0].1.is_told() && !all.last().unwrap().1.is_told());
        leave(&mut all);
        assert!(new[0].0.becomes(Standing::Owner(at_sign("@alice")), later));
        let (used, not_logged_in) = gate.occupancy();
        assert_eq!(
            (used, not_logged_in),
            (all.len() as u64 + 1, all.len() as u64)
        );
        drop((all, new));
        assert_eq!(gate.occupancy(), (0, 0));
    }

    #[test]
    fn a_site_is_one_network_however_its_addresses_are_written() {
        let (gate, now) = (houses(), Instant::now());
        let most = SHARES.network;
        for (first, second) in [
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),
        ] {
            let mut all = strangers(&gate, first.parse().unwrap(), most, now);
            let new = strangers(&gate, second.parse().unwrap(), 1, now);
            assert_eq!(new.len(), 1);
            assert!(leave(&mut all) > 0, "{first} {second}");
        }
        let mut all = Vec::new();
        for n in 0..SHARES.range + 1 {
            let from = format!("2001:db8:7:{n:x}::1").parse().unwrap();
            all.extend(strangers(&gate, from, 1, now));
        }
        assert!(leave(&mut all) > 0, "a /48 has a share, too");
    }

    #[test]
    fn strangers_leave_a_quarter_to_owners_and_visitors_stay_strangers() {
        let (gate, now) = (houses(), Instant::now());
        let (mut all, most) = (Vec::new(), SHARES.network);
        // As they come from everywhere, every house's strangers share what they have.
        for n in 0..40u8 {
            let (house, visitor) = (at_sign(&format!("@h{n}")), at_sign(&format!("@v{n}")));
            for _ in 0..most {
                let Some((mut pass, must_leave)) = gate.enter([10, n, 0, 1].into(), now) else {
                    continue;
                };
                let visits = Standing::Visitor(house.clone(), visitor.clone());
                if pass.becomes(Standing::Stranger(house.clone()), now) && pass.becomes(visits, now)
                {
                    all.push((pass, must_leave));
                }
                leave(&mut all);
            }
        }
        let of_one = gate
            .places
            .used_by(&ConnectionParty::Visitor(at_sign("@v39")));
        assert!(of_one <= SHARES.visitor, "{of_one}");
        let strangers = gate.occupancy().1;
        assert!(strangers <= TOTAL - TOTAL / RESERVED, "{strangers}");
        let (mut owner, _stays) = gate.enter([10, 99, 0, 1].into(), now).unwrap();
        assert!(owner.becomes(Standing::Owner(at_sign("@h0")), now));
    }

    #[test]
    fn tenants_with_thousands_of_logins_keep_no_other_owner_out() {
        let (gate, now) = (houses(), Instant::now());
        let mut all = Vec::new();
        for n in 0..5 {
            let who = at_sign(&format!("@t{n}"));
            for _ in 0..SHARES.owner {
                let (mut pass, must_leave) = gate.enter([10, n, 0, 1].into(), now).unwrap();
                assert!(pass.becomes(Standing::Owner(who.clone()), now));
                all.push((pass, must_leave));
                leave(&mut all);
            }
        }
        let (mut owner, stays) = gate.enter([10, 99, 0, 1].into(), now).unwrap();
        assert!(owner.becomes(Standing::Owner(at_sign("@me")), now));
        assert!(!stays.is_told());
        assert!(gate.occupancy().0 <= SHARES.owners + 1);
    }

    #[test]
    fn who_does_not_shake_hands_takes_no_place_of_who_has() {
        let (gate, now) = (houses(), Instant::now());
        let here = [10, 0, 0, 1].into();
        let mut spoken = strangers(&gate, here, 32, now);
        let mut silent: Vec<_> = Vec::new();
        for _ in 0..1000 {
            silent.push(gate.enter(here, now).unwrap());
            leave(&mut silent);
        }
        assert!(silent.len() as u64 <= SHARES.handshakes_of_network);
        assert_eq!(leave(&mut spoken), 0);
    }

    #[test]
    fn the_fifth_failed_login_starts_the_waiting_and_a_good_one_ends_it() {
        let failures = Failures::default();
        let (from, now) = ([10, 0, 0, 1].into(), Instant::now());
        let who: AtSign = "@alice".parse().unwrap();
        let waits: Vec<u64> = (0..11)
            .map(|_| {
                failures.note(from, &who, false, now);
                failures.wait(from, &who, now).as_secs()
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 2, 4, 8, 8, 8, 8, 8]);
        assert_eq!(
            failures.wait(from, &"@bob".parse().unwrap(), now),
            Duration::ZERO
        );
        assert_eq!(failures.wait(from, &who, now + MEMORY), Duration::ZERO);
        failures.note(from, &who, true, now);
        assert_eq!(failures.wait(from, &who, now), Duration::ZERO);
    }

    /// A full table remembered nothing new, and was walked at each failure.
    #[test]
    fn guesses_from_everywhere_do_not_make_a_new_one_forgotten() {
        let (failures, start) = (Failures::default(), Instant::now());
        let who = at_sign("@alice");
        for n in 0..MAX_REMEMBERED as u32 + 1000 {
            let now = start + Duration::from_millis(n.into());
            failures.note(std::net::Ipv4Addr::from_bits(n).into(), &who, false, now);
        }
        let site = |end: &str| format!("2001:db8:1:2::{end}").parse().unwrap();
        let later = start + Duration::from_secs(60);
        for end in ["1", "2", "3", "4", "5"] {
            assert_eq!(failures.wait(site(end), &who, later), Duration::ZERO);
            failures.note(site(end), &who, false, later);
        }
        assert!(failures.wait(site("6"), &who, later) > Duration::ZERO);
        assert!(lock(&failures.guesses).len() <= MAX_REMEMBERED);
    }
}
