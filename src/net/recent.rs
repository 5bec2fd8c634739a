//! What was seen lately, and no more of it than there is room for. No clock here: times are arguments.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Things seen within some time.
#[derive(Debug)]
pub struct Recent<K> {
    seen: HashMap<K, Instant>,
    life: Duration,
    most: usize,
}

impl<K: Clone + Eq + Hash> Recent<K> {
    /// Nothing seen. Each is remembered for `life`; of more than `most`, the oldest is forgotten.
    pub fn new(life: Duration, most: usize) -> Self {
        Self {
            seen: HashMap::new(),
            life,
            most,
        }
    }

    /// Whether this was seen lately.
    pub fn has(&self, what: &K, now: Instant) -> bool {
        self.seen
            .get(what)
            .is_some_and(|&at| now.saturating_duration_since(at) < self.life)
    }

    /// Whether anything was.
    pub fn any(&self, now: Instant) -> bool {
        self.seen.keys().any(|what| self.has(what, now))
    }

    /// Remembers it from now on.
    pub fn add(&mut self, what: &K, now: Instant) {
        if self.seen.len() >= self.most && !self.seen.contains_key(what) {
            let life = self.life;
            self.seen
                .retain(|_, &mut at| now.saturating_duration_since(at) < life);
        }
        if self.seen.len() >= self.most && !self.seen.contains_key(what) {
            let oldest = self.seen.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(what, _)| what.clone()) {
                self.seen.remove(&oldest);
            }
        }
        self.seen.insert(what.clone(), now);
    }

    /// Remembers it, unless it was seen lately; `true`: it was not.
    pub fn is_new(&mut self, what: &K, now: Instant) -> bool {
        let new = !self.has(what, now);
        if new {
            self.add(what, now);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_forgotten_and_there_is_never_too_much() {
        let (minute, start) = (Duration::from_secs(60), Instant::now());
        let mut recent = Recent::new(minute, 3);
        assert!(recent.is_new(&1, start) && !recent.is_new(&1, start));
        assert!(recent.is_new(&1, start + minute), "a minute later");
        for number in 2..10 {
            recent.add(&number, start + Duration::from_millis(number));
        }
        assert_eq!(recent.seen.len(), 3);
        assert!(recent.has(&9, start + minute) && !recent.has(&2, start));
        assert!(recent.any(start + minute) && !recent.any(start + 2 * minute));
    }
}
