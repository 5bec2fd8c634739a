//! What the log says of messages and sockets that come to nothing: anybody may send as many as they like.
//!
//! ```text
//!   the first few of a kind ─▶ a line each ─▶ more of them within the minute are counted ─▶ one line at its end
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

/// How long what is of one kind is counted together.
const MINUTE: Duration = Duration::from_secs(60);
/// Messages of one sender in that time that have a line each: enough to see what is wrong with a well-meant one.
const IN_FULL: u64 = 4;
/// Most kinds that are counted apart; the rest are counted together.
const MAX_KINDS: usize = 1024;

static COUNTS: Mutex<Counts> = Mutex::new(Counts(BTreeMap::new()));

/// By kind; `None`: all those for which there was no room.
struct Counts(BTreeMap<Option<String>, u64>);

/// A line for a message of this sender, unless there were too many; `about` says what it was and what was wrong.
pub fn note(from: &AtSign, about: impl Display) {
    of_kind(&format!("ignored from={from}"), IN_FULL, about);
}

/// The same for one that was read and is refused.
pub fn refused(from: &AtSign, about: impl Display) {
    of_kind(&format!("refused from={from}"), IN_FULL, about);
}

/// A line that begins with its kind, unless there were `in_full` of that kind within the minute; then only their number.
pub fn of_kind(kind: &str, in_full: u64, about: impl Display) {
    let (counted, count) = counts().count(kind);
    if count == 1 {
        task::spawn(async move {
            task::sleep(MINUTE).await;
            sum_up(&counted, in_full);
        });
    }
    if count <= in_full {
        info!("{kind} {about}");
    }
}

/// The minute is over.
fn sum_up(kind: &Option<String>, in_full: u64) {
    let more = counts().end(kind).saturating_sub(in_full);
    if more > 0 {
        let kind = kind.as_deref().unwrap_or("ignored from=others");
        info!("{kind} more={more} within={}s", MINUTE.as_secs());
    }
}

fn counts() -> MutexGuard<'static, Counts> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    /// One more; under which kind it is counted, and how many there are now.
    fn count(&mut self, kind: &str) -> (Option<String>, u64) {
        let kind = Some(kind.to_owned());
        let has_room = self.0.contains_key(&kind) || self.0.len() < MAX_KINDS;
        let kind = kind.filter(|_| has_room);
        let count = self.0.entry(kind.clone()).or_default();
        *count += 1;
        (kind, *count)
    }

    /// Forgets them; how many there were.
    fn end(&mut self, kind: &Option<String>) -> u64 {
        self.0.remove(kind).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_sender_is_a_few_lines_and_a_count() {
        let mut counts = Counts(BTreeMap::new());
        let lines = (0..1000).filter(|_| counts.count("eve").1 <= IN_FULL);
        assert_eq!(lines.count(), 4);
        assert_eq!(counts.count("bob"), (Some("bob".into()), 1));
        assert_eq!(counts.end(&Some("eve".into())), 1000);
        assert_eq!(counts.end(&Some("bob".into())), 1);
        assert_eq!(counts.count("eve"), (Some("eve".into()), 1), "a new minute");
    }

    #[test]
    fn a_flood_of_many_senders_is_bounded_too() {
        let mut counts = Counts(BTreeMap::new());
        for n in 0..10 * MAX_KINDS {
            let (kind, count) = counts.count(&format!("eve{n}"));
            assert_eq!(kind.is_some(), n < MAX_KINDS, "{n}");
            assert!(kind.is_none() || count == 1);
        }
        assert_eq!(counts.0.len(), MAX_KINDS + 1);
        assert_eq!(counts.end(&None), 9 * MAX_KINDS as u64);
    }
}
