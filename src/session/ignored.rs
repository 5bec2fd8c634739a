//! What the log says of messages that come to nothing: anybody may send as many as they like.
//!
//! ```text
//!   the first few of a sender ─▶ a line each ─▶ more of them within the minute are counted ─▶ one line at its end
//! ```

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_std::task;
use log::info;

use crate::at::AtSign;

/// How long the messages of one sender are counted together.
const MINUTE: Duration = Duration::from_secs(60);
/// Messages of one sender in that time that have a line each: enough to see what is wrong with a well-meant one.
const IN_FULL: u64 = 4;
/// Most senders that are counted apart; the rest are counted together.
const MAX_SENDERS: usize = 1024;

static COUNTS: Mutex<SenderCounts> = Mutex::new(SenderCounts(BTreeMap::new()));

/// By sender; `None`: all those for whom there was no room.
struct SenderCounts(BTreeMap<Option<AtSign>, u64>);

/// A line for a message of this sender, unless there were too many; `about` says what it was and what was wrong.
pub fn note(from: &AtSign, about: impl Display) {
    let (sender, count) = counts().count(from);
    if count == 1 {
        let sender = sender.clone();
        task::spawn(async move {
            task::sleep(MINUTE).await;
            sum_up(&sender);
        });
    }
    if count <= IN_FULL {
        info!("ignored from={from} {about}");
    }
}

/// The minute is over.
fn sum_up(sender: &Option<AtSign>) {
    let more = counts().end(sender);
    if more > 0 {
        let from = sender.as_ref().map_or("others", AtSign::as_str);
        info!(
            "ignored from={from} more={more} within={}s",
            MINUTE.as_secs()
        );
    }
}

fn counts() -> MutexGuard<'static, SenderCounts> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SenderCounts {
    /// One more; under whom it is counted, and how many there are now.
    fn count(&mut self, from: &AtSign) -> (Option<AtSign>, u64) {
        let sender = Some(from.clone());
        let has_room = self.0.contains_key(&sender) || self.0.len() < MAX_SENDERS;
        let sender = sender.filter(|_| has_room);
        let count = self.0.entry(sender.clone()).or_default();
        *count += 1;
        (sender, *count)
    }

    /// Forgets them; how many had no line.
    fn end(&mut self, sender: &Option<AtSign>) -> u64 {
        let count = self.0.remove(sender).unwrap_or_default();
        count.saturating_sub(IN_FULL)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_sender_is_a_few_lines_and_a_count() {
        let mut counts = SenderCounts(BTreeMap::new());
        let (eve, bob): (AtSign, AtSign) = ("@eve".parse().unwrap(), "@bob".parse().unwrap());
        let lines = (0..1000).filter(|_| counts.count(&eve).1 <= IN_FULL);
        assert_eq!(lines.count(), 4);
        assert_eq!(counts.count(&bob), (Some(bob.clone()), 1));
        assert_eq!(counts.end(&Some(eve.clone())), 996);
        assert_eq!(counts.end(&Some(bob)), 0);
        assert_eq!(counts.count(&eve), (Some(eve), 1), "a new minute");
    }

    #[test]
    fn a_flood_of_many_senders_is_bounded_too() {
        let mut counts = SenderCounts(BTreeMap::new());
        for n in 0..10 * MAX_SENDERS {
            let from = format!("@eve{n}").parse().unwrap();
            let (sender, count) = counts.count(&from);
            assert_eq!(sender.is_some(), n < MAX_SENDERS, "{n}");
            assert!(sender.is_none() || count == 1);
        }
        assert_eq!(counts.0.len(), MAX_SENDERS + 1);
        assert_eq!(counts.end(&None), 9 * MAX_SENDERS as u64 - IN_FULL);
    }
}
