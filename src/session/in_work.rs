//! Messages of others that a service works on at the same time: so many in all, so many of one sender. More are
//! dropped, and the log says so once a minute of each sender.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use log::warn;

use crate::{
    at::AtSign,
    net::{
        places::{Limits, Place, Places},
        recent::Recent,
    },
};

/// Between two log lines about one sender.
const QUIET: Duration = Duration::from_secs(60);
/// Most senders of which the log is kept quiet.
const MAX_TOLD: usize = 1024;

/// The messages in work; cheap to clone.
#[derive(Clone)]
pub struct InWork {
    places: Places<AtSign>,
    of_one: usize,
    told: Arc<Mutex<Recent<AtSign>>>,
}

/// A message's place; given back when dropped.
pub type Working = Place<AtSign>;

impl InWork {
    /// At most so many, and so many of one sender.
    pub fn new(all: usize, of_one: usize) -> Self {
        let limits = Limits {
            places: all,
            waiting: 0,
            waiting_of_one: 0,
        };
        Self {
            places: Places::new(limits),
            of_one,
            told: Arc::new(Mutex::new(Recent::new(QUIET, MAX_TOLD))),
        }
    }

    /// A place for one more of this sender, if there is one.
    pub fn begin(&self, from: &AtSign) -> Option<Working> {
        let place = self.places.take(vec![(from.clone(), self.of_one)]);
        if place.is_none() {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_new(from, Instant::now()) {
                warn!(
                    "ignored from={from} reason=too_many_in_work, and more of it within a minute"
                );
            }
        }
        place
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_leaves_room_for_others() {
        let work = InWork::new(3, 2);
        let (eve, alice): (AtSign, AtSign) = ("@eve".parse().unwrap(), "@alice".parse().unwrap());
        let held = [work.begin(&eve).unwrap(), work.begin(&eve).unwrap()];
        assert!(work.begin(&eve).is_none());
        assert!(work.begin(&alice).is_some());
        drop(held);
        assert!(work.begin(&eve).is_some());
    }
}
