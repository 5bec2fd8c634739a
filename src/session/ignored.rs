//! What the log says of what others do: anybody may do as much of it as they like.
//!
//! ```text
//!   the first few of a kind ─▶ a line each ─▶ more of them within the minute are counted ─▶ one line at its end
//! ```
//! A kind names the one who does it, so it is one party that has few lines a minute, and the count says who it was. A session
//! has all its lines or none.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::task;
use log::info;

use crate::at::AtSign;

/// How long what is of one kind is counted together.
const MINUTE: Duration = Duration::from_secs(60);
/// Messages of one sender in that time that have a line each: enough to see what is wrong with a well-meant one.
pub const FEW: u64 = 4;
/// Sessions of one client in that time that have their lines: more than people open, and most scripts.
pub const SESSIONS: u64 = 60;
/// What has lines in that time, of all kinds together; then only the first of each kind has.
const OF_ALL: u64 = 1000;
/// Most kinds that are counted apart; the rest are counted together.
const MAX_KINDS: usize = 1024;
/// Senders that are ignored or refused and are counted apart: who has a server has any number of names.
const MAX_IGNORED: usize = 16;
/// How their kinds begin.
const IGNORED: [&str; 2] = ["ignored from=", "refused from="];

static COUNTS: Mutex<Counts> = Mutex::new(Counts::new());

struct Counts {
    /// `None`: all those for which there was no room.
    kinds: BTreeMap<Option<String>, LineCount>,
    /// Since when, and how many had a line.
    all: Option<(Instant, u64)>,
}

/// How many of one kind there were, and how many of them had a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LineCount {
    came: u64,
    told: u64,
}

/// A line for a message of this sender, unless there were too many; `about` says what it was and what was wrong.
pub fn note(from: &AtSign, about: impl Display) {
    of_kind(&format!("{}{from}", IGNORED[0]), FEW, about);
}

/// The same for one that was read and is refused.
pub fn refused(from: &AtSign, about: impl Display) {
    of_kind(&format!("{}{from}", IGNORED[1]), FEW, about);
}

/// Whether the log says when a session of this client begins, and when and how it ends.
pub fn tells_session(client: &AtSign) -> bool {
    has_line(&format!("sessions from={client}"), SESSIONS)
}

/// A line that begins with its kind, unless there were `in_full` of that kind within the minute; then only their number.
pub fn of_kind(kind: &str, in_full: u64, about: impl Display) {
    if has_line(kind, in_full) {
        info!("{kind} {about}");
    }
}

/// Whether one more of this kind has a line, which the caller writes; else it is counted.
pub fn has_line(kind: &str, in_full: u64) -> bool {
    let (counted, count, has_line) = counts().count(kind, in_full, Instant::now());
    if count.came == 1 {
        task::spawn(async move {
            task::sleep(MINUTE).await;
            sum_up(&counted);
        });
    }
    has_line
}

/// The minute is over.
fn sum_up(kind: &Option<String>) {
    let LineCount { came, told } = counts().end(kind);
    let more = came - told;
    if more > 0 {
        let kind = kind.as_deref().unwrap_or("ignored from=others");
        info!("{kind} more={more} within={}s", MINUTE.as_secs());
    }
}

fn counts() -> MutexGuard<'static, Counts> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    const fn new() -> Self {
        Self {
            kinds: BTreeMap::new(),
            all: None,
        }
    }

    /// One more; under which kind it is counted, how many there are now, and whether this one has a line.
    fn count(
        &mut self,
        kind: &str,
        in_full: u64,
        now: Instant,
    ) -> (Option<String>, LineCount, bool) {
        let minute = self
            .all
            .filter(|(since, _)| now.duration_since(*since) < MINUTE);
        let (since, of_all) = minute.unwrap_or((now, 0));
        let has_room =
            self.kinds.len() < MAX_KINDS && (!is_ignored(kind) || self.ignored() < MAX_IGNORED);
        let kind = Some(kind.to_owned());
        let has_room = has_room || self.kinds.contains_key(&kind);
        let kind = kind.filter(|_| has_room);
        let count = self.kinds.entry(kind.clone()).or_default();
        count.came += 1;
        let is_told = count.told < in_full && (count.came == 1 || of_all < OF_ALL);
        count.told += u64::from(is_told);
        self.all = Some((since, of_all + u64::from(is_told)));
        (kind, *count, is_told)
    }

    fn ignored(&self) -> usize {
        let kinds = self.kinds.keys().flatten();
        kinds.filter(|kind| is_ignored(kind)).count()
    }

    /// Forgets them; how many there were.
    fn end(&mut self, kind: &Option<String>) -> LineCount {
        self.kinds.remove(kind).unwrap_or_default()
    }
}

fn is_ignored(kind: &str) -> bool {
    IGNORED.iter().any(|start| kind.starts_with(start))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn told(counts: &mut Counts, kind: &str, in_full: u64, times: u64) -> usize {
        let now = Instant::now();
        let lines = (0..times).filter(|_| counts.count(kind, in_full, now).2);
        lines.count()
    }

    #[test]
    fn a_flood_of_one_sender_is_a_few_lines_and_a_count() {
        let mut counts = Counts::new();
        assert_eq!(told(&mut counts, "eve", FEW, 1000), 4);
        assert_eq!(told(&mut counts, "bob", FEW, 1), 1);
        let of = |came, told| LineCount { came, told };
        assert_eq!(counts.end(&Some("eve".into())), of(1000, 4));
        assert_eq!(counts.end(&Some("bob".into())), of(1, 1));
        assert_eq!(told(&mut counts, "eve", FEW, 1), 1, "a new minute");
    }

    #[test]
    fn a_flood_of_many_senders_is_bounded_too() {
        let mut counts = Counts::new();
        for n in 0..10 * MAX_KINDS {
            let (kind, count, _) = counts.count(&format!("eve{n}"), FEW, Instant::now());
            assert_eq!(kind.is_some(), n < MAX_KINDS, "{n}");
            assert!(kind.is_none() || count.came == 1);
        }
        assert_eq!(counts.kinds.len(), MAX_KINDS + 1);
        assert_eq!(counts.end(&None).came, 9 * MAX_KINDS as u64);
    }

    /// A policy was asked by 2,115 names of one server within a minute, and each was a line.
    #[test]
    fn any_number_of_names_is_a_few_lines_and_leaves_clients_theirs() {
        let mut counts = Counts::new();
        let mut lines = 0;
        for n in 0..2_000 {
            lines += told(&mut counts, &format!("ignored from=@kin{n}"), FEW, 1);
            lines += told(&mut counts, &format!("refused from=@kin{n}"), FEW, 1);
        }
        assert!(lines <= MAX_IGNORED + FEW as usize, "{lines}");
        let more = told(&mut counts, "ignored from=@kin0", FEW, 10);
        assert_eq!(more, FEW as usize - 1, "who is counted apart stays so");
        assert_eq!(told(&mut counts, "sessions from=@bob", SESSIONS, 3), 3);
        let of_others = counts.end(&None);
        assert_eq!(of_others.came, 4_000 - MAX_IGNORED as u64);
    }

    #[test]
    fn many_senders_with_a_share_each_have_no_more_than_a_total_and_the_count_stays_true() {
        let mut counts = Counts::new();
        let began = Instant::now();
        let mut lines = 0;
        for n in 0..100_u64 {
            for _ in 0..100 {
                let (_, _, is_told) = counts.count(&format!("eve{n}"), SESSIONS, began);
                lines += u64::from(is_told);
            }
        }
        assert!((OF_ALL..OF_ALL + 100).contains(&lines), "{lines}");
        let mut all = LineCount::default();
        for n in 0..100 {
            let LineCount { came, told } = counts.end(&Some(format!("eve{n}")));
            assert!(told > 0, "eve{n} is nowhere");
            all.came += came;
            all.told += told;
        }
        let of = |came, told| LineCount { came, told };
        assert_eq!(all, of(10_000, lines));
        let (_, _, later) = counts.count("bob", SESSIONS, began + MINUTE);
        let (_, _, too) = counts.count("bob", SESSIONS, began + MINUTE);
        assert!(later && too, "a new minute");
    }
}
