//! How many may come in, and how fast they may guess.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::at::AtSign;

use super::board::lock;

/// Most connections of this process.
pub(super) const MAX_CONNECTIONS: usize = 8192;
/// Most connections of one address that have not logged in (a whole site may share one address).
pub(super) const MAX_STRANGERS: usize = 512;
/// Failed logins before an address has to wait.
const FREE_FAILURES: u32 = 5;
/// The longest wait after a failed login.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Failures are forgotten after this long without one.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Most address and atSign pairs remembered.
const MAX_REMEMBERED: usize = 20_000;

/// Counts connections.
#[derive(Default)]
pub(super) struct Gate(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    strangers: HashMap<IpAddr, usize>,
}

/// One connection's place. Given back when dropped.
pub(super) struct Pass {
    gate: Arc<Gate>,
    /// Set until login.
    stranger: Option<IpAddr>,
}

impl Gate {
    /// Lets a connection in, if there is room.
    pub fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Pass> {
        let mut counts = lock(&self.0);
        if counts.all >= MAX_CONNECTIONS {
            return None;
        }
        let strangers = counts.strangers.entry(from).or_default();
        if *strangers >= MAX_STRANGERS {
            return None;
        }
        *strangers += 1;
        counts.all += 1;
        Some(Pass {
            gate: self.clone(),
            stranger: Some(from),
        })
    }
}

impl Pass {
    /// It has proven who it is: its address gets the place back.
    pub fn known(&mut self) {
        if let Some(from) = self.stranger.take() {
            let mut counts = lock(&self.gate.0);
            if let Some(strangers) = counts.strangers.get_mut(&from) {
                *strangers -= 1;
                if *strangers == 0 {
                    counts.strangers.remove(&from);
                }
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.known();
        lock(&self.gate.0).all -= 1;
    }
}

/// Remembers failed logins per address and atSign.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<(IpAddr, AtSign), (u32, Instant)>>);

impl Failures {
    /// How long the next attempt has to wait.
    pub fn wait(&self, from: IpAddr, who: &AtSign, now: Instant) -> Duration {
        let known = lock(&self.0);
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

    /// An attempt came out well or badly.
    pub fn note(&self, from: IpAddr, who: &AtSign, good: bool, now: Instant) {
        let mut known = lock(&self.0);
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
        let gate = Arc::new(Gate::default());
        let (here, there) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut passes: Vec<Pass> = (0..MAX_STRANGERS)
            .map(|_| gate.enter(here).unwrap())
            .collect();
        assert!(gate.enter(here).is_none());
        assert!(gate.enter(there).is_some());
        passes[0].known();
        assert!(gate.enter(here).is_some());
        drop(passes);
        assert!(lock(&gate.0).strangers.is_empty());
        assert_eq!(lock(&gate.0).all, 0);
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
        assert_eq!(waits, [0, 0, 0, 0, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(
            failures.wait(from, &"@bob".parse().unwrap(), now),
            Duration::ZERO
        );
        assert_eq!(failures.wait(from, &who, now + MEMORY), Duration::ZERO);
        failures.note(from, &who, true, now);
        assert_eq!(failures.wait(from, &who, now), Duration::ZERO);
    }
}
