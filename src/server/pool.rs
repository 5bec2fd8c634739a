//! Connections to other servers that are kept for the next time. No I/O: times are arguments.
//!
//! ```text
//!   take ─▶ used ─▶ keep ─▶ (idle) ─▶ take …          too long idle, too old, too many: dropped, which closes it
//! ```

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::at::AtSign;

/// How long one is kept without being used: servers end what is silent for ten minutes, some earlier.
const IDLE: Duration = Duration::from_secs(5 * 60);
/// How long one is used at all. Each new meeting learns of new public keys; that must not be put off for ever.
const AGE: Duration = Duration::from_secs(10 * 60);
/// Most that are kept, and most from one atSign to the same other.
const MAX_IDLE: usize = 100;
const MAX_IDLE_PAIR: usize = 2;

/// Idle connections, the one used last at the end.
pub(super) struct Pool<T>(Mutex<Vec<IdleConnection<T>>>);

struct IdleConnection<T> {
    from: AtSign,
    to: AtSign,
    link: T,
    born: Instant,
    since: Instant,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> IdleConnection<T> {
    fn is_good(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < IDLE
            && now.saturating_duration_since(self.born) < AGE
    }

    fn is_between(&self, from: &AtSign, to: &AtSign) -> bool {
        self.from == *from && self.to == *to
    }
}

impl<T> Pool<T> {
    fn all(&self) -> MutexGuard<'_, Vec<IdleConnection<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one used last between these two, and when it began.
    pub(super) fn take(&self, from: &AtSign, to: &AtSign, now: Instant) -> Option<(T, Instant)> {
        let mut all = self.all();
        let fits = |idle: &IdleConnection<T>| idle.is_between(from, to) && idle.is_good(now);
        let at = all.iter().rposition(fits)?;
        let idle = all.remove(at);
        Some((idle.link, idle.born))
    }

    /// Puts one back. Those that are too many or too old are dropped, the least used first.
    pub(super) fn keep(&self, from: &AtSign, to: &AtSign, link: T, born: Instant, now: Instant) {
        let new = IdleConnection {
            from: from.clone(),
            to: to.clone(),
            link,
            born,
            since: now,
        };
        let mut all = self.all();
        all.retain(|idle| idle.is_good(now));
        if !new.is_good(now) {
            return;
        }
        let between = |idle: &&IdleConnection<T>| idle.is_between(from, to);
        if all.iter().filter(between).count() >= MAX_IDLE_PAIR {
            let oldest = all.iter().position(|idle| between(&idle));
            oldest.map(|at| all.remove(at));
        }
        if all.len() >= MAX_IDLE {
            all.remove(0);
        }
        all.push(new);
    }

    /// Drops the one that was not used for longest, of this atSign's if it has any; `false`: there is none.
    pub(super) fn evict(&self, from: &AtSign) -> bool {
        let mut all = self.all();
        let own = all.iter().position(|idle| idle.from == *from);
        let some = !all.is_empty();
        if some {
            all.remove(own.unwrap_or_default());
        }
        some
    }

    /// Drops what is too old.
    pub(super) fn tidy(&self, now: Instant) {
        self.all().retain(|idle| idle.is_good(now));
    }

    /// Drops what speaks for this atSign, which has gone.
    pub(super) fn part(&self, from: &AtSign) {
        self.all().retain(|idle| idle.from != *from);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn who(name: &str) -> AtSign {
        name.parse().unwrap()
    }

    #[test]
    fn a_connection_is_for_the_same_two_only_and_for_a_limited_time() {
        let (pool, start) = (Pool::default(), Instant::now());
        let (alice, bob, carol) = (who("@alice"), who("@bob"), who("@carol"));
        let after = |seconds| start + Duration::from_secs(seconds);
        pool.keep(&alice, &bob, "ab", start, start);
        assert!(pool.take(&alice, &carol, start).is_none());
        assert!(pool.take(&bob, &alice, start).is_none());
        assert!(pool.take(&alice, &bob, after(300)).is_none(), "idle");
        let (link, born) = pool.take(&alice, &bob, after(299)).unwrap();
        assert_eq!((link, born), ("ab", start));
        assert!(pool.take(&alice, &bob, start).is_none(), "it is in use");
        pool.keep(&alice, &bob, link, born, after(299));
        assert!(pool.take(&alice, &bob, after(598)).is_some());
        pool.keep(&alice, &bob, link, born, after(600));
        assert!(pool.take(&alice, &bob, after(600)).is_none(), "too old");
    }

    #[test]
    fn there_are_never_too_many_and_the_least_used_go_first() {
        let (pool, now) = (Pool::default(), Instant::now());
        let alice = who("@alice");
        for n in 0..3 {
            pool.keep(&alice, &who("@bob"), n, now, now);
        }
        let left: Vec<i32> = (0..3)
            .filter_map(|_| Some(pool.take(&alice, &who("@bob"), now)?.0))
            .collect();
        assert_eq!(left, [2, 1]);
        for n in 0..=MAX_IDLE as i32 {
            pool.keep(&alice, &who(&format!("@b{n}")), n, now, now);
        }
        assert!(pool.take(&alice, &who("@b0"), now).is_none());
        assert!(pool.evict(&who("@other")));
        assert!(pool.take(&alice, &who("@b1"), now).is_none());
        assert!(pool.take(&alice, &who("@b2"), now).is_some());
        pool.tidy(now + IDLE);
        assert!(!pool.evict(&alice), "all were too old");
        pool.keep(&alice, &who("@bob"), 1, now, now);
        pool.keep(&who("@carol"), &alice, 2, now, now);
        assert!(
            pool.evict(&who("@carol")),
            "its own goes before an older one"
        );
        assert!(pool.take(&alice, &who("@bob"), now).is_some());
        pool.keep(&alice, &who("@bob"), 1, now, now);
        pool.part(&alice);
        assert!(!pool.evict(&alice));
    }
}
