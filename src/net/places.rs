//! A number of places for work, and how many of them one party may have. No I/O.
//!
//! ```text
//!   wait([(alice, 2), (suspects, 2)]) ─▶ free within all shares? ─▶ a place, given back when dropped
//!                                          └─ no ─▶ in line, oldest first; whoever fits goes before who does not
//! ```
//! The line has an end: whoever comes when it is full, or has enough in it, is sent away at once.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_std::channel::{Sender, bounded};

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Places.
    pub places: usize,
    /// Most that wait for one.
    pub waiting: usize,
    /// Most of them for the same party, the first of the shares.
    pub waiting_of_one: usize,
}

/// A party, and the most places it may have at a time.
pub type Quota<K> = (K, usize);

/// The places; cheap to clone.
#[derive(Debug)]
pub struct Places<K: Clone + Eq + Hash> {
    state: Arc<Mutex<Occupancy<K>>>,
    limits: Limits,
}

impl<K: Clone + Eq + Hash> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            limits: self.limits,
        }
    }
}

#[derive(Debug)]
struct Occupancy<K: Clone + Eq + Hash> {
    taken: usize,
    by: HashMap<K, usize>,
    line: VecDeque<Waiter<K>>,
}

#[derive(Debug)]
struct Waiter<K: Clone + Eq + Hash> {
    quotas: Vec<Quota<K>>,
    call: Sender<Place<K>>,
}

/// One of the places.
#[derive(Debug)]
pub struct Place<K: Clone + Eq + Hash> {
    of: Places<K>,
    quotas: Vec<Quota<K>>,
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// All free.
    pub fn new(limits: Limits) -> Self {
        let state = Occupancy {
            taken: 0,
            by: HashMap::new(),
            line: VecDeque::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            limits,
        }
    }

    fn state(&self) -> MutexGuard<'_, Occupancy<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one now.
    pub fn take(&self, quotas: Vec<Quota<K>>) -> Option<Place<K>> {
        let enters = self.state().enter(&quotas, self.limits.places);
        enters.then(|| self.place(quotas))
    }

    fn place(&self, quotas: Vec<Quota<K>>) -> Place<K> {
        Place {
            of: self.clone(),
            quotas,
        }
    }

    /// A place when its turn comes. `None`: too many wait already.
    pub async fn wait(&self, quotas: Vec<Quota<K>>) -> Option<Place<K>> {
        let (call, called) = bounded(1);
        {
            let mut state = self.state();
            if state.enter(&quotas, self.limits.places) {
                return Some(self.place(quotas));
            }
            // Those that gave up stand in nobody's way.
            state.line.retain(|one| !one.call.is_closed());
            let first = quotas.first().map(|(party, _)| party.clone());
            let same = state.line.iter();
            let same =
                same.filter(|one| one.quotas.first().map(|(party, _)| party) == first.as_ref());
            let of_one = same.count();
            if state.line.len() >= self.limits.waiting || of_one >= self.limits.waiting_of_one {
                return None;
            }
            state.line.push_back(Waiter { quotas, call });
        }
        called.recv().await.ok()
    }

    /// Gives what is free to those that wait.
    fn call(&self) {
        loop {
            // The lock is let go before anybody is called: a place that nobody takes comes back here.
            let next = self.state().next(self.limits.places);
            let Some(next) = next else {
                return;
            };
            // One that gave up meanwhile: the place is free again, and the next one's.
            drop(next.call.try_send(self.place(next.quotas)));
        }
    }
}

impl<K: Clone + Eq + Hash> Occupancy<K> {
    fn fits(&self, quotas: &[Quota<K>], places: usize) -> bool {
        let has = |party| self.by.get(party).copied().unwrap_or_default();
        self.taken < places && quotas.iter().all(|(party, most)| has(party) < *most)
    }

    fn enter(&mut self, quotas: &[Quota<K>], places: usize) -> bool {
        let fits = self.fits(quotas, places);
        if fits {
            self.taken += 1;
            for (party, _) in quotas {
                *self.by.entry(party.clone()).or_default() += 1;
            }
        }
        fits
    }

    fn leave(&mut self, quotas: &[Quota<K>]) {
        self.taken = self.taken.saturating_sub(1);
        for (party, _) in quotas {
            match self.by.get_mut(party) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.by.remove(party)),
            }
        }
    }

    /// The oldest that fits, with its place taken.
    fn next(&mut self, places: usize) -> Option<Waiter<K>> {
        let fits = |one: &Waiter<K>| !one.call.is_closed() && self.fits(&one.quotas, places);
        let at = self.line.iter().position(fits)?;
        let next = self.line.remove(at)?;
        self.enter(&next.quotas, places);
        Some(next)
    }
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        self.of.state().leave(&self.quotas);
        self.of.call();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;
    use futures_lite::future::poll_once;

    use super::*;

    const LIMITS: Limits = Limits {
        places: 3,
        waiting: 3,
        waiting_of_one: 2,
    };

    #[test]
    fn nobody_has_more_than_a_share_and_places_come_back() {
        let places = Places::new(LIMITS);
        let alice = || vec![("alice", 2)];
        let two = [places.take(alice()).unwrap(), places.take(alice()).unwrap()];
        assert!(places.take(alice()).is_none());
        let third = places.take(vec![("bob", 2)]).unwrap();
        assert!(places.take(vec![("carol", 2)]).is_none(), "there are three");
        drop(two);
        assert!(
            places.take(vec![("alice", 2), ("bob", 1)]).is_none(),
            "all quotas count"
        );
        drop(third);
        assert!(places.take(vec![("alice", 2), ("bob", 1)]).is_some());
        assert!(places.state().by.is_empty() && places.state().taken == 0);
    }

    /// Takes a place at the moment it is called.
    struct Eager(Places<&'static str>);

    impl std::task::Wake for Eager {
        fn wake(self: Arc<Self>) {
            drop(self.0.take(vec![("eve", 1)]));
        }
    }

    /// The lock was held while somebody was called: who had given up in that moment stopped everybody for ever.
    #[test]
    fn nobody_is_called_under_the_lock() {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let places = Places::new(LIMITS);
            let held = places.take(vec![("alice", 1)]);
            let mut waits = Box::pin(places.wait(vec![("alice", 1)]));
            let waker = Arc::new(Eager(places.clone())).into();
            let mut context = std::task::Context::from_waker(&waker);
            assert!(waits.as_mut().poll(&mut context).is_pending());
            drop(held);
            let _ = done.send(waits.as_mut().poll(&mut context).is_ready());
        });
        let soon = std::time::Duration::from_secs(10);
        assert_eq!(ended.recv_timeout(soon), Ok(true));
    }

    #[test]
    fn whoever_fits_goes_first_and_who_gave_up_is_passed_over() {
        block_on(async {
            let places = Places::new(LIMITS);
            let alice = || vec![("alice", 2)];
            let mut held = vec![places.take(alice()).unwrap(), places.take(alice()).unwrap()];
            let mut again = Box::pin(places.wait(alice()));
            assert!(poll_once(again.as_mut()).await.is_none());
            let mut gone = Box::pin(places.wait(alice()));
            assert!(poll_once(gone.as_mut()).await.is_none());
            assert!(places.wait(alice()).await.is_none(), "two wait already");
            let bob = places.wait(vec![("bob", 1)]).await.unwrap();
            drop(gone);
            held.pop();
            let third = again.await.unwrap();
            // Its place goes to the next in line, not to one that is not there any more.
            let mut next = Box::pin(places.wait(alice()));
            assert!(poll_once(next.as_mut()).await.is_none());
            drop((bob, third));
            assert!(next.await.is_some());
            drop(held);
            assert_eq!(places.state().taken, 0);
        });
    }
}
