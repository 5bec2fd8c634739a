//! What others may use up at a rendezvous. The table is on its front page, beside [`super`].

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    at::AtSign,
    budget::{Budget, Claim, Hold, Limits, MustLeave, Rank},
    net::network::range_of,
    sys::{process::descriptor_limit, supervisor},
};

/// Requests that are being read at a time: a key may have to be looked up first, and anybody may ask.
pub(super) const REQUESTS: Limits = Limits::new("requests", 1024);
pub(super) const REQUESTS_OF_ONE: u64 = 128;
/// Answers on their way at a time, each a notification on the only connection for commands; more wait. One of an atSign:
/// so everybody's waits behind one of each other at most, here and at that connection.
pub(super) const ANSWERS: Limits = Limits::new("answers", 64).with_line(1024, 64);
pub(super) const ANSWERS_TO_ONE: u64 = 1;
/// Refusals that were sent not long ago ([`REFUSED_FOR`]).
pub(super) const REFUSALS: Limits = Limits::new("refusals", 256);
pub(super) const REFUSALS_TO_ONE: u64 = 3;
/// How long a refusal counts.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Sessions at a time, unless --max-sessions says otherwise.
pub(super) const MAX_SESSIONS: usize = 4096;
/// Sessions of one client atSign: a whole company may share it.
pub(super) const SESSIONS_OF_ONE: Part = Part(4, 64);
/// Sessions of one client atSign with one device atSign.
pub(super) const SESSIONS_OF_PAIR: u64 = 256;
/// Sessions to which nobody has come yet.
pub(super) const GRANTS: Part = Part(4, 64);
/// The same of one client atSign.
pub(super) const GRANTS_OF_ONE: Part = Part(64, 16);
/// Descriptors for everything else: pipes, the atServer, names that are resolved.
pub(super) const SPARE: Part = Part(16, 64);
/// Sockets at all ports that have not said who they are; more than [`MOST_NEWCOMERS`] are never looked after.
pub(super) const NEWCOMERS: Part = Part(8, 64);
pub(super) const MOST_NEWCOMERS: u64 = 4096;
/// The same from one site.
pub(super) const NEWCOMERS_OF_ONE: Part = Part(4, 64);
/// The same at one port.
pub(super) const NEWCOMERS_AT_PORT: u64 = 64;
/// A socket has had its chance: one round trip, and a packet sent again.
pub(super) const A_CHANCE: Duration = Duration::from_secs(1);
/// Of the descriptors that sessions have: what further connections of old ones never take.
pub(super) const DESCRIPTORS_KEPT: Part = Part(8, 0);
/// The most one client atSign has.
pub(super) const DESCRIPTORS_OF_ONE: Part = Part(8, 512);
/// The most one client atSign has with one device atSign.
pub(super) const DESCRIPTORS_OF_PAIR: Part = Part(12, 512);
/// Two listeners, and a first socket of each end.
pub(super) const OF_A_SESSION: u64 = 4;

/// One part of so many, but at least this much where there is as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part(pub(super) u64, pub(super) u64);

impl Part {
    pub(super) fn of(self, total: u64) -> u64 {
        (total / self.0).max(self.1).min(total)
    }
}

/// Whose a session or a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum User {
    Client(AtSign),
    /// The device's is not named where nobody logs in.
    Pair(AtSign, Option<AtSign>),
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => client.fmt(f),
            Self::Pair(client, Some(daemon)) => write!(f, "{client}/{daemon}"),
            Self::Pair(client, None) => write!(f, "{client}/unnamed"),
        }
    }
}

/// Where a socket comes from, or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Site(IpAddr),
    Port(u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(address) => address.fmt(f),
            Self::Port(port) => write!(f, "port:{port}"),
        }
    }
}

/// All of them; cheap to clone.
#[derive(Clone)]
pub(super) struct Budgets {
    pub(super) requests: Budget<AtSign>,
    pub(super) answers: Budget<AtSign>,
    pub(super) refusals: Budget<AtSign>,
    pub(super) sessions: Budget<User>,
    pub(super) grants: Budget<AtSign>,
    pub(super) newcomers: Budget<Place>,
    pub(super) descriptors: Budget<User>,
    totals: BudgetTotals,
}

/// Of those that are not constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BudgetTotals {
    sessions: u64,
    grants: u64,
    newcomers: u64,
    descriptors: u64,
}

/// What a session holds as long as it lasts.
pub(super) struct SessionHolds {
    _session: Hold<User>,
    _descriptors: Hold<User>,
}

/// What a session holds until its ends have met; another one's may be needed more.
pub(super) struct Grant {
    _hold: Hold<AtSign>,
    pub(super) must_leave: MustLeave,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// It has its share, or nobody gives way to it.
    Full,
    /// Others have been told to leave, and have not left yet.
    NotYet,
}

/// The descriptor of a further socket of a session.
pub(super) struct Seat {
    _hold: Hold<User>,
    must_leave: MustLeave,
}

impl Seat {
    /// Ends when somebody else needs it more.
    pub(super) async fn must_leave(&self) {
        self.must_leave.told().await;
    }

    pub(super) fn is_lost(&self) -> bool {
        self.must_leave.is_told()
    }
}

impl Budgets {
    /// For so many sessions, as far as the system has descriptors.
    pub(super) fn new(sessions: usize) -> Self {
        Self::of(sessions, descriptor_limit())
    }

    fn of(sessions: usize, limit: u64) -> Self {
        let sessions = u64::try_from(sessions).unwrap_or(u64::MAX);
        let newcomers = NEWCOMERS.of(limit).min(MOST_NEWCOMERS);
        let totals = BudgetTotals {
            sessions,
            grants: GRANTS.of(sessions),
            newcomers,
            descriptors: limit.saturating_sub(SPARE.of(limit) + newcomers),
        };
        let descriptors = Limits::new("descriptors", totals.descriptors)
            .with_reserve(DESCRIPTORS_KEPT.of(totals.descriptors));
        let newcomers = Limits::new("newcomers", newcomers).with_chance(A_CHANCE);
        Self {
            requests: Budget::new(REQUESTS),
            answers: Budget::new(ANSWERS),
            refusals: Budget::new(REFUSALS),
            sessions: Budget::new(Limits::new("sessions", sessions)),
            grants: Budget::new(Limits::new("grants", totals.grants)),
            newcomers: Budget::new(newcomers),
            descriptors: Budget::new(descriptors),
            totals,
        }
    }

    /// For whoever would restart the rendezvous: sessions whose ends have met.
    pub(super) fn tell_sessions(&self) {
        let (sessions, grants) = (self.sessions.clone(), self.grants.clone());
        supervisor::tell_sessions(move || {
            let all = sessions.usage().used;
            all.saturating_sub(grants.usage().used)
        });
    }

    /// Room for one more session. An unused grant gives way to it, and further connections of others do.
    pub(super) fn session(
        &self,
        client: &AtSign,
        daemon: Option<&AtSign>,
        now: Instant,
    ) -> Result<(SessionHolds, Grant), NoRoom> {
        let pair = User::Pair(client.clone(), daemon.cloned());
        let of_one = SESSIONS_OF_ONE.of(self.totals.sessions);
        let session = Claim::of(User::Client(client.clone()), of_one);
        let session = session.and(pair.clone(), SESSIONS_OF_PAIR);
        let session = self.sessions.take(session, now).ok_or(NoRoom::Full)?;
        let of_one = GRANTS_OF_ONE.of(self.totals.sessions);
        let grant = Claim::of(client.clone(), of_one.min(self.totals.grants));
        let grant = self.grants.take_evicting(grant, now);
        let (grant, must_leave) = grant.ok_or(NoRoom::NotYet)?;
        let claim = self.of_descriptors(client, pair).amount(OF_A_SESSION);
        let claim = claim.rank(Rank::Known).firm();
        let descriptors = self.descriptors.take_evicting(claim, now);
        let (descriptors, _) = descriptors.ok_or(NoRoom::NotYet)?;
        let holds = SessionHolds {
            _session: session,
            _descriptors: descriptors,
        };
        let grant = Grant {
            _hold: grant,
            must_leave,
        };
        Ok((holds, grant))
    }

    fn of_descriptors(&self, client: &AtSign, pair: User) -> Claim<User> {
        let total = self.totals.descriptors;
        Claim::of(User::Client(client.clone()), DESCRIPTORS_OF_ONE.of(total))
            .and(pair, DESCRIPTORS_OF_PAIR.of(total))
    }

    /// Room for one more socket of a session that has its first ones.
    pub(super) fn seat(
        &self,
        client: &AtSign,
        daemon: Option<&AtSign>,
        control: bool,
        now: Instant,
    ) -> Result<Seat, NoRoom> {
        let pair = User::Pair(client.clone(), daemon.cloned());
        let has_share = {
            let total = self.totals.descriptors;
            let used = |user: &User| self.descriptors.used_by(user);
            used(&User::Client(client.clone())) >= DESCRIPTORS_OF_ONE.of(total)
                || used(&pair) >= DESCRIPTORS_OF_PAIR.of(total)
        };
        let claim = self.of_descriptors(client, pair);
        let claim = if control {
            claim.rank(Rank::Known).firm()
        } else {
            claim.rank(Rank::Neighbour).modest()
        };
        let taken = self.descriptors.take_evicting(claim, now);
        let seat = taken.map(|(hold, must_leave)| Seat {
            _hold: hold,
            must_leave,
        });
        seat.ok_or(if has_share {
            NoRoom::Full
        } else {
            NoRoom::NotYet
        })
    }

    /// Room for somebody who has not said yet who it is.
    pub(super) fn newcomer(
        &self,
        from: SocketAddr,
        port: u16,
        rank: Rank,
        now: Instant,
    ) -> Option<(Hold<Place>, MustLeave)> {
        let of_one = NEWCOMERS_OF_ONE.of(self.totals.newcomers);
        let claim = Claim::of(Place::Site(range_of(from.ip())), of_one);
        let claim = claim.and(Place::Port(port), NEWCOMERS_AT_PORT);
        self.newcomers.take_evicting(claim.rank(rank), now)
    }

    /// How many at this port have not said who they are.
    pub(super) fn newcomers_at(&self, port: u16) -> u64 {
        self.newcomers.used_by(&Place::Port(port))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(name: &str) -> AtSign {
        name.parse().unwrap()
    }

    #[test]
    fn the_table_on_the_front_page_says_what_the_constants_say() {
        let page = include_str!("../rendezvous.rs");
        let part = |part: Part| format!("1/{}", part.0);
        let rows = [
            format!(
                "requests being read | {} | {REQUESTS_OF_ONE} of an atSign |",
                REQUESTS.total
            ),
            format!(
                "answers on their way | {}, {} wait | {ANSWERS_TO_ONE} to an atSign, {} wait |",
                ANSWERS.total, ANSWERS.waiting, ANSWERS.waiting_of_one
            ),
            format!(
                "refusals in {} s | {} | {REFUSALS_TO_ONE} to an atSign |",
                REFUSED_FOR.as_secs(),
                REFUSALS.total
            ),
            format!(
                "sessions | {MAX_SESSIONS} | {} of a client, {SESSIONS_OF_PAIR} of client and device |",
                part(SESSIONS_OF_ONE)
            ),
            format!(
                "sessions nobody came to | {} of the sessions | {} of them of a client |",
                part(GRANTS),
                part(GRANTS_OF_ONE)
            ),
            format!(
                "sockets without a name | {} of the descriptors, {MOST_NEWCOMERS} | {} from a /24 or /48, \
                 {NEWCOMERS_AT_PORT} at a port | – | strangers, of them who had {} s,",
                part(NEWCOMERS),
                part(NEWCOMERS_OF_ONE),
                A_CHANCE.as_secs()
            ),
            format!(
                "descriptors | what is left but {} | {} of a client, {} of client and device | {} for new sessions |",
                part(SPARE),
                part(DESCRIPTORS_OF_ONE),
                part(DESCRIPTORS_OF_PAIR),
                part(DESCRIPTORS_KEPT)
            ),
        ];
        for row in rows {
            assert!(page.contains(&format!("//! | {row}")), "{row}");
        }
        let totals = Budgets::of(MAX_SESSIONS, 20_000).totals;
        let want = BudgetTotals {
            sessions: 4096,
            grants: 1024,
            newcomers: 2500,
            descriptors: 20_000 - 2500 - 1250,
        };
        assert_eq!(totals, want);
    }

    /// Who came how many milliseconds ago, in the order of arrival, how well known; and who gives way, in order.
    #[test]
    fn strangers_give_way_before_who_has_logged_in_and_the_young_last() {
        let end = Instant::now() + Duration::from_secs(10);
        use Rank::{Known, Neighbour, Stranger};
        for (came, want) in [
            (
                &[
                    ("192.0.2.1", 1500, Stranger),
                    ("198.51.100.1", 1200, Stranger),
                ][..],
                &[0, 1][..],
            ),
            // Young ones stay, whoever has many.
            (
                &[
                    ("192.0.2.1", 900, Stranger),
                    ("192.0.2.2", 800, Stranger),
                    ("198.51.100.1", 1200, Stranger),
                ],
                &[2, 0, 1],
            ),
            // All of one network count, and of IPv6 all that a company has.
            (
                &[
                    ("2001:db8:1::1", 900, Stranger),
                    ("2001:db8:2:1::1", 800, Stranger),
                    ("2001:db8:2:2::1", 700, Stranger),
                ],
                &[1, 0, 2],
            ),
            // Who has logged in goes last, then its neighbours.
            (
                &[
                    ("192.0.2.1", 4000, Known),
                    ("192.0.2.2", 3000, Neighbour),
                    ("198.51.100.1", 0, Stranger),
                ],
                &[2, 1, 0],
            ),
        ] {
            let limits = Limits::new("newcomers", came.len() as u64).with_chance(A_CHANCE);
            let budgets = Budgets {
                newcomers: Budget::new(limits),
                ..Budgets::of(1, 20_000)
            };
            let enter = |(number, (address, ago, rank)): (usize, &(&str, u64, Rank))| {
                let from = SocketAddr::new(address.parse().unwrap(), 1000 + number as u16);
                budgets.newcomer(from, 7, *rank, end - Duration::from_millis(*ago))
            };
            let places: Vec<_> = came
                .iter()
                .enumerate()
                .map(enter)
                .map(Option::unwrap)
                .collect();
            let mut gone = Vec::new();
            for other in 0..want.len() {
                // From elsewhere, and nobody makes room for the next one.
                let from = SocketAddr::from(([203, 0, other as u8, 1], 1));
                let room = budgets.newcomer(from, 8, Known, end);
                assert!(room.is_some());
                std::mem::forget(room);
                let left = |at: &usize| places[*at].1.is_told() && !gone.contains(at);
                let next = (0..places.len()).find(left);
                gone.extend(next);
            }
            assert_eq!(gone, want, "{came:?}");
        }
    }

    #[test]
    fn a_network_for_every_socket_sends_nobody_else_away() {
        let (budgets, now) = (Budgets::of(1, 20_000), Instant::now());
        let end = budgets.newcomer("[2001:db8:5::1]:1".parse().unwrap(), 7, Rank::Stranger, now);
        let (_place, must_leave) = end.unwrap();
        let mut strangers = Vec::new();
        for network in 0..65_000u16 {
            let from = format!("[2001:db8:6:{network:x}::1]:1").parse().unwrap();
            let place = budgets.newcomer(from, 7, Rank::Stranger, now);
            strangers.push(place.unwrap());
            strangers.retain(|(_, told)| !told.is_told());
        }
        assert!(!must_leave.is_told());
        assert_eq!(budgets.newcomers_at(7), NEWCOMERS_AT_PORT);
    }

    #[test]
    fn a_new_session_takes_the_biggest_users_oldest_connection_and_old_ones_take_none_of_the_rest()
    {
        let (budgets, now) = (Budgets::of(MAX_SESSIONS, 20_000), Instant::now());
        let dev = at("@dev");
        let eves: Vec<AtSign> = (0..8).map(|n| at(&format!("@eve{n}"))).collect();
        let mut held = Vec::new();
        let mut seats = Vec::new();
        for eve in &eves {
            for device in 0..2 {
                let device = at(&format!("@dev{device}"));
                held.push(budgets.session(eve, Some(&device), now).unwrap());
                while let Ok(seat) = budgets.seat(eve, Some(&device), false, now) {
                    seats.push(seat);
                    if seats.iter().any(Seat::is_lost) {
                        break;
                    }
                }
            }
        }
        seats.retain(|seat| !seat.is_lost());
        let kept = DESCRIPTORS_KEPT.of(budgets.totals.descriptors);
        let used = budgets.descriptors.usage().used;
        assert!(used <= budgets.totals.descriptors - kept + 64, "{used}");
        // As many as there is room for, and then some more.
        for number in 0..600 {
            let alice = at(&format!("@alice{number}"));
            held.push(budgets.session(&alice, Some(&dev), now).unwrap());
        }
        assert!(seats.iter().any(Seat::is_lost));
        let alice = at("@alice");
        held.push(budgets.session(&alice, Some(&dev), now).unwrap());
        assert!(budgets.seat(&alice, Some(&dev), false, now).is_ok());
    }

    #[test]
    fn a_company_with_one_atsign_has_more_sessions_than_one_device_and_unused_grants_give_way() {
        let (budgets, now) = (Budgets::of(MAX_SESSIONS, 200_000), Instant::now());
        let acme = at("@acme");
        let mut held = Vec::new();
        let devices: Vec<AtSign> = (0..3).map(|n| at(&format!("@dev{n}"))).collect();
        for device in &devices {
            let mut of_pair = 0;
            while let Ok((holds, grant)) = budgets.session(&acme, Some(device), now) {
                drop(grant); // Its ends have met.
                held.push(holds);
                of_pair += 1;
            }
            assert_eq!(of_pair, SESSIONS_OF_PAIR, "{device}");
        }
        let of_one = GRANTS_OF_ONE.of(MAX_SESSIONS as u64) as usize;
        let mut unused = Vec::new();
        for _ in 0..200 {
            unused.push(budgets.session(&at("@eve"), None, now).unwrap());
            unused.retain(|(_, grant)| !grant.must_leave.is_told());
            assert!(unused.len() <= of_one);
        }
        let before = budgets.sessions.usage().used;
        assert_eq!(before as usize, held.len() + of_one);
    }
}
