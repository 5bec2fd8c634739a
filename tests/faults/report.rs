//! What came of each fault, one line each.

use std::time::Duration;

use super::{
    figures::{Table, load},
    rows::{KNOWN_LATE, Measured, Miss, Row},
};

/// In `outages.md`.
pub const TABLE: Table = Table {
    header: "| outage | | what | limit s | worst s | one by one s | load |",
    keys: 2,
};

/// Some tries of one row.
pub struct Tried<'a> {
    pub row: &'a Row,
    pub seed: u64,
    /// How long each was waited for.
    pub patience: Duration,
    pub tries: Vec<Measured>,
}

/// What its tries say about a row.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    InTime,
    /// Too late, as [`KNOWN_LATE`] says.
    KnownLate,
    Late,
    /// Something else than time.
    Wrong,
    /// In time every time, but [`KNOWN_LATE`] says otherwise.
    NoLongerLate,
}

impl Tried<'_> {
    pub fn verdict(&self) -> Verdict {
        let is_known = KNOWN_LATE.iter().any(|(name, _)| *name == self.row.name);
        let is_wrong = |one: &Measured| matches!(one, Err(Miss::Wrong(_)));
        let is_in_time = |one: &Measured| one.as_ref().is_ok_and(|took| *took <= self.row.limit);
        if self.tries.iter().any(is_wrong) {
            return Verdict::Wrong;
        }
        match (self.tries.iter().all(is_in_time), is_known) {
            (true, false) => Verdict::InTime,
            (true, true) => Verdict::NoLongerLate,
            (false, true) => Verdict::KnownLate,
            (false, false) => Verdict::Late,
        }
    }

    /// Seconds; of what never came, how long we waited.
    fn worst(&self) -> String {
        let took = self.tries.iter().filter_map(|one| one.as_ref().ok());
        let worst = took.max().map_or(0.0, Duration::as_secs_f64);
        if self.tries.iter().all(Result::is_ok) {
            format!("{worst:.1}")
        } else {
            format!(">{:.1}", self.patience.as_secs_f64().max(worst))
        }
    }

    fn one_by_one(&self) -> String {
        let word = |one: &Measured| match one {
            Ok(took) => format!("{:.1}", took.as_secs_f64()),
            Err(_) => "never".to_owned(),
        };
        let words: Vec<_> = self.tries.iter().map(word).collect();
        words.join(", ")
    }

    /// In [`TABLE`].
    pub fn row(&self, label: &str) -> String {
        let (name, fault, limit) = (self.row.name, self.row.fault, self.row.limit.as_secs());
        let (worst, each) = (self.worst(), self.one_by_one());
        format!(
            "| {name} | {label} | {fault} | {limit} | {worst} | {each} | {} |",
            load()
        )
    }

    /// The line, and what to do to see it again.
    pub fn line(&self) -> String {
        let (row, verdict) = (self.row, self.verdict());
        let word = match verdict {
            Verdict::InTime => "ok",
            Verdict::KnownLate => "known late",
            Verdict::Late => "LATE",
            Verdict::Wrong => "WRONG",
            Verdict::NoLongerLate => "NO LONGER LATE: take it out of KNOWN_LATE",
        };
        let mut line = format!(
            "{:<18} {:>2} tries  worst {:>6} s  limit {:>3} s  {word}  ({})",
            row.name,
            self.tries.len(),
            self.worst(),
            row.limit.as_secs(),
            row.fault
        );
        if self.tries.len() > 1 {
            line += &format!("\n{:21}one by one: {}", "", self.one_by_one());
        }
        for miss in self.tries.iter().filter_map(|one| one.as_ref().err()) {
            let (Miss::Late(why) | Miss::Wrong(why)) = miss;
            line += &format!("\n{:21}{why}", "");
        }
        if !matches!(verdict, Verdict::InTime | Verdict::KnownLate) {
            line += &format!(
                "\n{:21}again: {} {} --seed {} --tries {}",
                "",
                super::COMMAND,
                row.name,
                self.seed,
                self.tries.len()
            );
        }
        line
    }
}
