//! How many may come in, and how fast they may guess.
//!
//! A connection that has not said anything yet makes room for a new one when its address, or the server, is full:
//! whoever opens thousands and is silent keeps nobody out.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Shutdown},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_std::net::TcpStream;
use rustix::process::{Resource, getrlimit};

use crate::{
    at::AtSign,
    budget::{Budget, Claim, Hold, Limits},
    net::recent::Recent,
    server::count::Count,
};

use super::board::lock;

/// Most connections of this process.
pub(super) const MAX_CONNECTIONS: usize = 8192;
/// Most connections of one address that have not logged in (a whole site may share one address).
pub(super) const MAX_STRANGERS: usize = 512;
/// Attempts that are looked at, a few tens of microseconds each, and who waits for that.
const CHECKS: Limits = Limits::new("login_checks", 64).with_line(MAX_CONNECTIONS, MAX_CONNECTIONS);
/// Of one address at a time: less than the threads that look at the store.
const CHECKS_OF_ONE: u64 = 4;
/// Failed logins before the refusals of an address are kept back.
const FREE_FAILURES: u32 = 5;
/// The longest that a refusal is kept back. Clients give a login up after 10 s.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Failures are forgotten after this long without one.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Most address and atSign pairs remembered.
const MAX_REMEMBERED: usize = 20_000;

/// Descriptors that the store, listeners and other things need.
const SPARE_DESCRIPTORS: u64 = 256;
/// Most that were sent away and have not ended yet.
const LEAVING: usize = 64;
/// Between two log lines about being full, and about an enrolment that is not in force.
const QUIET: Duration = Duration::from_secs(60);
/// Most address and atSign pairs of which the log is kept quiet.
const MAX_TOLD: usize = 1024;

/// Counts connections.
pub(super) struct ConnectionGate {
    counts: Mutex<ConnectionCounts>,
    most: usize,
    /// Connections that were not let in, and that had to go for others.
    pub refused: Count,
    pub evicted: Count,
}

#[derive(Default)]
struct ConnectionCounts {
    all: usize,
    next: u64,
    strangers: HashMap<IpAddr, Strangers>,
    warned: Option<Instant>,
}

#[derive(Default)]
struct Strangers {
    count: usize,
    /// Those that have not said anything, oldest first.
    silent: BTreeMap<u64, TcpStream>,
}

/// One connection's place. Given back when dropped.
pub(super) struct Pass {
    gate: Arc<ConnectionGate>,
    number: u64,
    /// Set until login.
    stranger: Option<IpAddr>,
}

impl Default for ConnectionGate {
    /// As many as there may be descriptors.
    fn default() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = usize::try_from(limit.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX);
        Self {
            counts: Mutex::default(),
            most: most.clamp(64, MAX_CONNECTIONS),
            refused: Count::default(),
            evicted: Count::default(),
        }
    }
}

impl ConnectionGate {
    /// Lets a connection in, if there is room or somebody silent to make it.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr, socket: &TcpStream) -> Option<Pass> {
        let mut counts = lock(&self.counts);
        let counts = &mut *counts;
        let here = counts.strangers.entry(from).or_default();
        let mut room = here.count < MAX_STRANGERS;
        if !room {
            room = here.count < MAX_STRANGERS + LEAVING && here.evict();
            self.tell(&mut counts.warned, room, from);
        }
        if room && counts.all >= self.most {
            let addresses = counts.strangers.values_mut();
            let most = addresses.max_by_key(|strangers| strangers.silent.len());
            room = counts.all < self.most + LEAVING && most.is_some_and(Strangers::evict);
            self.tell(&mut counts.warned, room, from);
        }
        if !room {
            counts.forget(from);
            return None;
        }
        counts.next += 1;
        let number = counts.next;
        let here = counts.strangers.entry(from).or_default();
        here.count += 1;
        here.silent.insert(number, socket.clone());
        counts.all += 1;
        Some(Pass {
            gate: self.clone(),
            number,
            stranger: Some(from),
        })
    }

    /// How many connections there are, and how many of them have not logged in.
    pub(super) fn occupancy(&self) -> (usize, usize) {
        let counts = lock(&self.counts);
        let strangers = counts.strangers.values().map(|here| here.count).sum();
        (counts.all, strangers)
    }

    fn tell(&self, warned: &mut Option<Instant>, evicted: bool, from: IpAddr) {
        let count = if evicted {
            &self.evicted
        } else {
            &self.refused
        };
        count.add(1);
        let now = Instant::now();
        if warned.is_none_or(|last| now.duration_since(last) >= QUIET) {
            *warned = Some(now);
            log::warn!("from={from} full evicted={evicted}");
        }
    }
}

impl ConnectionCounts {
    fn forget(&mut self, from: IpAddr) {
        if self
            .strangers
            .get(&from)
            .is_some_and(|here| here.count == 0)
        {
            self.strangers.remove(&from);
        }
    }
}

impl Strangers {
    /// Ends the oldest that has not said anything; `false`: there is none. Its place counts until it
    /// has really ended: for that moment there is one too many.
    fn evict(&mut self) -> bool {
        let oldest = self.silent.pop_first();
        oldest.is_some_and(|(_, socket)| {
            // A peer that is gone already is as good.
            let _ = socket.shutdown(Shutdown::Both);
            true
        })
    }
}

impl Pass {
    /// It has said something: it is not sent away for others any more.
    pub(super) fn spoke(&self) {
        if let Some(from) = self.stranger {
            let mut counts = lock(&self.gate.counts);
            if let Some(here) = counts.strangers.get_mut(&from) {
                here.silent.remove(&self.number);
            }
        }
    }

    /// It has proven who it is: its address gets the place back.
    pub(super) fn known(&mut self) {
        if let Some(from) = self.stranger.take() {
            let mut counts = lock(&self.gate.counts);
            if let Some(here) = counts.strangers.get_mut(&from) {
                here.silent.remove(&self.number);
                here.count -= 1;
            }
            counts.forget(from);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.known();
        lock(&self.gate.counts).all -= 1;
    }
}

/// Remembers failed logins per address and atSign.
pub(super) struct Failures {
    guesses: Mutex<HashMap<(IpAddr, AtSign), (u32, Instant)>>,
    /// Of whose enrolment that is not in force the log has told.
    told: Mutex<Recent<(IpAddr, AtSign)>>,
    /// Signatures and digests that are being looked at.
    checks: Budget<IpAddr>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            guesses: Mutex::default(),
            told: Mutex::new(Recent::new(QUIET, MAX_TOLD)),
            checks: Budget::new(CHECKS),
        }
    }
}

impl Failures {
    /// A place to look at an attempt, when its turn comes: in fractions of a millisecond, whatever came of the others
    /// before it. There is always one in the end: no address has more connections than may wait.
    pub(super) async fn place(&self, from: IpAddr) -> Option<Hold<IpAddr>> {
        self.checks.wait(Claim::of(from, CHECKS_OF_ONE)).await
    }

    /// How long the refusal of the next wrong attempt is kept back.
    pub(super) fn wait(&self, from: IpAddr, who: &AtSign, now: Instant) -> Duration {
        let known = lock(&self.guesses);
        match known.get(&(from, who.clone())) {
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

    /// Whether the log has not told of this one for a while.
    pub(super) fn is_news(&self, from: IpAddr, who: &AtSign, now: Instant) -> bool {
        lock(&self.told).is_new(&(from, who.clone()), now)
    }

    /// An attempt came out well or badly.
    pub(super) fn note(&self, from: IpAddr, who: &AtSign, good: bool, now: Instant) {
        let mut known = lock(&self.guesses);
        let key = (from, who.clone());
        if good {
            known.remove(&key);
            return;
        }
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, (_, last)| now.duration_since(*last) < MEMORY);
        }
        if known.len() < MAX_REMEMBERED {
            let (count, last) = known.entry(key).or_insert((0, now));
            if now.duration_since(*last) >= MEMORY {
                *count = 0;
            }
            *count += 1;
            *last = now;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_places_back_by_login_and_by_leaving() {
        let (gate, (socket, _peer)) = (Arc::new(ConnectionGate::default()), socket());
        let (here, there) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut passes: Vec<Pass> = (0..MAX_STRANGERS)
            .map(|_| gate.enter(here, &socket).unwrap())
            .collect();
        passes.iter().for_each(Pass::spoke);
        assert!(gate.enter(here, &socket).is_none());
        assert!(gate.enter(there, &socket).is_some());
        passes[0].known();
        assert!(gate.enter(here, &socket).is_some());
        assert_eq!(gate.occupancy(), (MAX_STRANGERS, MAX_STRANGERS - 1));
        drop(passes);
        assert!(lock(&gate.counts).strangers.is_empty());
        assert_eq!(gate.occupancy(), (0, 0));
    }

    /// A connected pair.
    fn socket() -> (TcpStream, std::net::TcpStream) {
        let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(door.local_addr().unwrap()).unwrap();
        (door.accept().unwrap().0.into(), peer)
    }

    #[test]
    fn the_silent_make_room_for_the_next_and_those_that_spoke_do_not() {
        use std::io::Read;
        let gate = Arc::new(ConnectionGate::default());
        let here = [10, 0, 0, 1].into();
        let pairs: Vec<_> = (0..3).map(|_| socket()).collect();
        let (quiet, spoken) = (gate.enter(here, &pairs[0].0), gate.enter(here, &pairs[1].0));
        spoken.as_ref().unwrap().spoke();
        let (rest, _peer) = socket();
        let others: Vec<_> = (2..MAX_STRANGERS)
            .map(|_| {
                let pass = gate.enter(here, &rest).unwrap();
                pass.spoke();
                pass
            })
            .collect();
        assert!(gate.enter(here, &pairs[2].0).is_some());
        let mut silent = &pairs[0].1;
        assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0, "it was ended");
        // Its own end comes later, and changes nothing any more.
        drop(quiet);
        assert_eq!(gate.occupancy(), (MAX_STRANGERS - 1, MAX_STRANGERS - 1));
        assert_eq!(gate.evicted.get(), 1);
        drop((spoken, others));
        assert_eq!(gate.occupancy(), (0, 0));
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
}
