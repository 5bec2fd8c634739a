//! What came of each fault, one line each.

use std::time::Duration;

use super::rows::{KNOWN_LATE, Measured, Row};

/// Some tries of one row.
pub struct Tried<'a> {
    pub row: &'a Row,
    pub seed: u64,
    pub tries: Vec<Measured>,
}

/// What its tries say about a row.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    InTime,
    /// Too late, as [`KNOWN_LATE`] says.
    KnownLate,
    Late,
    /// In time every time, but [`KNOWN_LATE`] says otherwise.
    NoLongerLate,
}

impl Tried<'_> {
    pub fn verdict(&self) -> Verdict {
        let is_known = KNOWN_LATE.iter().any(|(name, _)| *name == self.row.name);
        match (self.tries.iter().all(|one| self.is_in_time(one)), is_known) {
            (true, false) => Verdict::InTime,
            (true, true) => Verdict::NoLongerLate,
            (false, true) => Verdict::KnownLate,
            (false, false) => Verdict::Late,
        }
    }

    fn is_in_time(&self, one: &Measured) -> bool {
        one.as_ref().is_ok_and(|took| *took <= self.row.limit)
    }

    fn worst(&self) -> String {
        let took: Vec<_> = self.tries.iter().flatten().collect();
        let seconds = |one: Duration| format!("{:.1}", one.as_secs_f64());
        match took.iter().max() {
            _ if took.len() < self.tries.len() => "never".to_owned(),
            Some(worst) => seconds(**worst),
            None => "-".to_owned(),
        }
    }

    /// The line, and what to do to see it again.
    pub fn line(&self) -> String {
        let (row, verdict) = (self.row, self.verdict());
        let word = match verdict {
            Verdict::InTime => "ok",
            Verdict::KnownLate => "known late",
            Verdict::Late => "LATE",
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
        for why in self.tries.iter().filter_map(|one| one.as_ref().err()) {
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
