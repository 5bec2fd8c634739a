//! Who has come and not said yet who it is, who of them gives way where all places are taken, and what is told of
//! those that were sent away. No I/O.
//!
//! Whoever has many addresses fills all places again and again. So who comes from where somebody has logged in
//! gives way last: the ends of a session come back with more sockets. Among the others those go first that have had a
//! second to say it, then those of a network that has many here, then the oldest.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use async_std::channel::{self, Receiver, Sender};

use crate::net::network::neighbourhood_of;

/// A socket has had its chance: one round trip, and a packet sent again.
const A_CHANCE: Duration = Duration::from_secs(1);
/// Most addresses remembered of one session's ends.
const MAX_KNOWN: usize = 32;

/// Who is silent, the oldest first. What is dropped here is told to go.
#[derive(Default)]
pub(super) struct Crowd(VecDeque<Newcomer>);

struct Newcomer {
    from: SocketAddr,
    since: Instant,
    _stays: Sender<()>,
}

impl Crowd {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One more. The receiver closes when it has to give way.
    pub(super) fn enter(&mut self, from: SocketAddr, since: Instant) -> Receiver<()> {
        let (_stays, told) = channel::bounded(1);
        self.0.push_back(Newcomer {
            from,
            since,
            _stays,
        });
        told
    }

    /// It has said it, or has gone.
    pub(super) fn leave(&mut self, from: SocketAddr) {
        self.0.retain(|one| one.from != from);
    }

    /// One gives way; returns who.
    pub(super) fn make_room(&mut self, known: &LoginAddresses, now: Instant) -> Option<SocketAddr> {
        let networks: Vec<IpAddr> = self
            .0
            .iter()
            .map(|one| neighbourhood_of(one.from.ip()))
            .collect();
        let count = |network| networks.iter().filter(|one| *one == network).count();
        let rank = |at: &usize| {
            let one = &self.0[*at];
            let had_no_chance = now.duration_since(one.since) < A_CHANCE;
            let trust = known.trust(one.from.ip());
            (trust, had_no_chance, Reverse(count(&networks[*at])))
        };
        // Of those that are equal this takes the first.
        let next = (0..self.0.len()).min_by_key(rank)?;
        self.0.remove(next).map(|one| one.from)
    }
}

/// Where the ends of a session have logged in from.
#[derive(Default)]
pub(super) struct LoginAddresses(VecDeque<IpAddr>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    Stranger,
    Neighbour,
    Known,
}

impl LoginAddresses {
    /// Somebody has logged in from there.
    pub(super) fn add(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        if !self.0.contains(&address) {
            self.0.truncate(MAX_KNOWN - 1);
            self.0.push_front(address);
        }
    }

    pub(super) fn trust(&self, address: IpAddr) -> Trust {
        let network = neighbourhood_of(address);
        if self.0.contains(&address.to_canonical()) {
            Trust::Known
        } else if self.0.iter().any(|one| neighbourhood_of(*one) == network) {
            Trust::Neighbour
        } else {
            Trust::Stranger
        }
    }
}

/// What is told of sockets that were not let in: strangers make as many as they like. Each reason is told at
/// once, and then once in a while with how many there were.
#[derive(Default)]
pub(super) struct RefusalCounts(Vec<RefusalCount>);

struct RefusalCount {
    why: String,
    told: Instant,
    untold: usize,
}

/// Between two lines in the log about the same reason.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Reasons that are told apart.
const MAX_REASONS: usize = 8;

impl RefusalCounts {
    /// One more; `Some`, how many untold ones there were before it, when it is to be told.
    pub(super) fn count(&mut self, why: &str, now: Instant) -> Option<usize> {
        let full = self.0.len() >= MAX_REASONS;
        let known = self.0.iter().position(|one| one.why == why);
        let Some(at) = known.or(full.then_some(MAX_REASONS - 1)) else {
            self.0.push(RefusalCount {
                why: why.to_owned(),
                told: now,
                untold: 0,
            });
            return Some(0);
        };
        let one = &mut self.0[at];
        if now.duration_since(one.told) < TELL_EVERY {
            one.untold += 1;
            return None;
        }
        one.told = now;
        Some(std::mem::take(&mut one.untold))
    }

    /// How many have not been told of.
    pub(super) fn untold(&self) -> usize {
        self.0.iter().map(|one| one.untold).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(address: &str, port: u16) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), port)
    }

    /// Who came how many milliseconds ago, in the order of arrival; who has logged in; and who gives way, in order.
    #[test]
    fn strangers_give_way_before_who_has_logged_in_and_the_young_last() {
        let now = Instant::now();
        for (came, known, want) in [
            (
                &[("192.0.2.1", 1500), ("198.51.100.1", 1200)][..],
                "",
                &[0, 1][..],
            ),
            // Young ones stay, whoever has many.
            (
                &[
                    ("192.0.2.1", 900),
                    ("192.0.2.2", 800),
                    ("198.51.100.1", 1200),
                ],
                "",
                &[2, 0, 1],
            ),
            // All of one network count.
            (
                &[
                    ("198.51.100.1", 900),
                    ("192.0.2.1", 800),
                    ("192.0.2.2", 700),
                ],
                "",
                &[1, 0, 2],
            ),
            (
                &[
                    ("2001:db8:1::1", 900),
                    ("2001:db8::1", 800),
                    ("2001:db8::2", 700),
                ],
                "",
                &[1, 0, 2],
            ),
            // Who has logged in goes last, then its neighbours.
            (
                &[
                    ("192.0.2.1", 4000),
                    ("192.0.2.2", 3000),
                    ("198.51.100.1", 0),
                ],
                "192.0.2.1",
                &[2, 1, 0],
            ),
            (
                &[("::ffff:192.0.2.1", 4000), ("198.51.100.1", 0)],
                "192.0.2.1",
                &[1, 0],
            ),
            (
                &[("192.0.2.1", 2000), ("192.0.2.1", 500)],
                "192.0.2.1",
                &[0, 1],
            ),
        ] {
            let (mut crowd, mut who) = (Crowd::default(), LoginAddresses::default());
            known.parse().into_iter().for_each(|ip| who.add(ip));
            for (number, (address, ago)) in came.iter().enumerate() {
                let since = now - Duration::from_millis(*ago);
                crowd.enter(at(address, number as u16), since);
            }
            let gone = std::iter::from_fn(|| crowd.make_room(&who, now));
            let gone: Vec<_> = gone.map(|one| usize::from(one.port())).collect();
            assert_eq!(gone, want, "{came:?}");
        }
    }

    #[test]
    fn whoever_gives_way_is_told_and_addresses_are_forgotten_at_last() {
        let (mut crowd, mut known) = (Crowd::default(), LoginAddresses::default());
        let told = crowd.enter(at("192.0.2.1", 1), Instant::now());
        crowd.leave(at("192.0.2.1", 2));
        assert!(!told.is_closed() && crowd.len() == 1);
        crowd.make_room(&known, Instant::now());
        assert!(told.is_closed() && crowd.len() == 0);
        for last in 0..=MAX_KNOWN {
            known.add(IpAddr::from([192, 0, last as u8, 1]));
        }
        assert_eq!(known.trust([192, 0, 0, 1].into()), Trust::Stranger);
        assert_eq!(known.trust([192, 0, 1, 2].into()), Trust::Neighbour);
        assert_eq!(known.0.len(), MAX_KNOWN);
    }

    #[test]
    fn a_flood_is_one_line_a_minute() {
        let (mut refusals, now) = (RefusalCounts::default(), Instant::now());
        assert_eq!(refusals.count("silent", now), Some(0));
        assert!((0..1000).all(|_| refusals.count("silent", now).is_none()));
        assert_eq!(refusals.count("forged", now), Some(0));
        assert_eq!(refusals.untold(), 1000);
        assert_eq!(refusals.count("silent", now + TELL_EVERY), Some(1000));
        assert_eq!(refusals.untold(), 0);
        for number in 0..100 {
            refusals.count(&number.to_string(), now);
        }
        assert_eq!(refusals.0.len(), MAX_REASONS);
    }
}
