//! What came of an attack: the criteria that all share, and a line for it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use noports::session::ignored::SESSIONS;

use super::{
    super::figures::{Table, load},
    Attack, Besides, Times,
};

/// In `attacks.md`.
pub const TABLE: Table = Table {
    header: "| no | script | | failed | p99 (before) s | deaf s | memory MiB | descriptors | disk MiB | log | load | besides |",
    keys: 3,
};

/// Log lines a minute that an attack may cause, besides those of sessions that everybody may have.
const LINES: f64 = 10.0;
/// Lines of one session: it begins, has to leave, ends.
const LINES_OF_SESSION: u64 = 3;
/// The good user.
const GOOD: &str = "@client0";
/// Askers whose sessions count for that: names are cheap.
const ASKERS: usize = 16;
/// When a daemon asks a policy again that has not answered.
const ASKED_AGAIN: Duration = Duration::from_secs(4);
/// Descriptors that mean nothing.
const FEW: usize = 6;
/// How attackers are called, and where they sit.
const ATTACKERS: [&str; 11] = [
    "@stranger",
    "10.77.0.3",
    "2001:db8::3",
    "10.78.",
    "2001:db8:bad:",
    "@client1",
    "@tar",
    "@big",
    "@a",
    "@kin",
    "@shy",
];

/// One session of the good user.
#[derive(Debug)]
pub struct Tried {
    pub began: Instant,
    pub took: Duration,
    pub ended: Result<(), String>,
}

/// What the victim holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// KiB
    pub memory: u64,
    pub descriptors: usize,
    pub children: usize,
}

impl Held {
    /// Whether it is as before, but for what means nothing: KiB, and some descriptors.
    pub fn is_back(&self, was: &Self, few: u64) -> bool {
        let memory = (was.memory + was.memory / 10).max(was.memory + few);
        let descriptors = (was.descriptors + was.descriptors / 10).max(was.descriptors + FEW);
        self.memory <= memory && self.descriptors <= descriptors
    }

    pub fn most(&self, other: &Self) -> Self {
        Self {
            memory: self.memory.max(other.memory),
            descriptors: self.descriptors.max(other.descriptors),
            children: self.children.max(other.children),
        }
    }
}

/// What the victim's log says meanwhile.
#[derive(Debug, Default)]
pub struct Log {
    pub bytes: usize,
    pub lines: usize,
    /// How many atSigns it names as those who ask.
    pub askers: usize,
    /// The last line that names who it was.
    pub names: Option<String>,
}

impl Log {
    pub fn read(text: &str) -> Self {
        let names_one = |line: &&str| ATTACKERS.iter().any(|name| line.contains(name));
        Self {
            bytes: text.len(),
            lines: text.lines().count(),
            askers: askers(text),
            names: text.lines().rfind(names_one).map(str::to_owned),
        }
    }
}

fn askers(log: &str) -> usize {
    let name = |word| str::strip_prefix(word, "client=").or(str::strip_prefix(word, "from="));
    let names: BTreeSet<_> = log.split_whitespace().filter_map(name).collect();
    let others = names
        .iter()
        .filter(|name| name.starts_with('@') && **name != GOOD);
    others.count()
}

/// What came of an attack.
pub struct Outcome {
    pub attack: &'static Attack,
    pub seed: u64,
    pub times: Times,
    pub before: Vec<Tried>,
    pub during: Vec<Tried>,
    pub after: Vec<Tried>,
    /// New connections in a tunnel that stands.
    pub through: Vec<Tried>,
    /// How late a word on a connection that stood was at most.
    pub standing: Result<Duration, String>,
    pub held_before: Held,
    pub held_worst: Held,
    pub held_after: Held,
    /// Bytes on the atServer's disk.
    pub disk_before: u64,
    pub disk_worst: u64,
    /// The same, every half minute of the attack.
    pub disk_curve: Vec<u64>,
    pub log: Log,
    pub took: Duration,
    /// How long a daemon or policy took to be ready again.
    pub restart: Option<Duration>,
    /// At the end.
    pub is_alive: bool,
    /// Processes that the kernel ended for want of memory.
    pub killed: u64,
    /// ssh keys that nobody took back.
    pub keys_left: usize,
    /// The attacker's last word.
    pub told: String,
}

impl Outcome {
    pub fn of(attack: &'static Attack, seed: u64, times: Times) -> Self {
        Self {
            attack,
            seed,
            times,
            before: Vec::new(),
            during: Vec::new(),
            after: Vec::new(),
            through: Vec::new(),
            standing: Ok(Duration::ZERO),
            held_before: Held::default(),
            held_worst: Held::default(),
            held_after: Held::default(),
            disk_before: 0,
            disk_worst: 0,
            disk_curve: Vec::new(),
            log: Log::default(),
            took: Duration::ZERO,
            restart: None,
            is_alive: true,
            killed: 0,
            keys_left: 0,
            told: String::new(),
        }
    }

    /// Lines that are not the good user's, a minute.
    fn lines_a_minute(&self) -> f64 {
        // What a session of his says at most, in daemon, rendezvous or atServer.
        let own = 4 * self.during.len();
        let minutes = self.took.as_secs_f64() / 60.0;
        self.log.lines.saturating_sub(own) as f64 / minutes.max(0.01)
    }

    /// Worst time from somebody's first try until a session worked that was begun after that.
    fn deaf(&self) -> Duration {
        let all: Vec<_> = self.during.iter().chain(&self.after).collect();
        let works = |one: &&&Tried| one.ended.is_ok();
        let from = |one: &&Tried| {
            let later = all
                .iter()
                .filter(|next| next.began >= one.began)
                .filter(works);
            let first = later.map(|next| next.began + next.took).min();
            let end = all.iter().map(|next| next.began + next.took).max();
            first.or(end).map(|end| end - one.began).unwrap_or_default()
        };
        all.iter().map(from).max().unwrap_or_default()
    }

    /// What is not as it should be.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let failed = failed(&self.during) + failed(&self.after);
        let first = self
            .during
            .iter()
            .chain(&self.after)
            .find_map(|one| one.ended.as_ref().err());
        if let Some(why) = first {
            faults.push(format!("{failed} sessions failed, the first: {why}"));
        }
        let (before, during) = (longest(&self.before), percentile(&self.during, 99));
        // What the one that was killed had been asked is asked again then.
        let again = match self.attack.besides {
            Besides::PolicyRestart => ASKED_AGAIN,
            _ => Duration::ZERO,
        };
        let limit = (before * 2).max(before + self.times.slack) + again;
        if during > limit {
            faults.push(format!(
                "p99 {} s, before {} s",
                tenths(during),
                tenths(before)
            ));
        }
        if let Err(why) = &self.standing {
            faults.push(format!("what stood was lost: {why}"));
        }
        let (was, is) = (self.held_before, self.held_after);
        if !is.is_back(&was, self.times.few) {
            faults.push(format!(
                "memory {} → {} KiB, descriptors {} → {}",
                was.memory, is.memory, was.descriptors, is.descriptors
            ));
        }
        let of_sessions = self.log.askers.min(ASKERS) as u64 * SESSIONS * LINES_OF_SESSION;
        if self.lines_a_minute() > LINES + of_sessions as f64 {
            let like = self.log.names.as_deref().unwrap_or_default();
            let lines = self.lines_a_minute();
            faults.push(format!(
                "{lines:.0} log lines a minute, such as: {like:.200}"
            ));
        }
        if !self.is_alive {
            faults.push("the victim's process has ended".to_owned());
        }
        if self.keys_left > 0 {
            faults.push(format!("{} ssh keys are left", self.keys_left));
        }
        faults.extend((self.attack.own)(self).err());
        faults
    }

    /// In [`TABLE`].
    pub fn row(&self, label: &str) -> String {
        let (was, worst, is) = (self.held_before, self.held_worst, self.held_after);
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        let disk = self.disk_worst.saturating_sub(self.disk_before) / 1024;
        format!(
            "| {} | {} | {label} | {}/{} | {} ({}) | {} | {} → {} → {} | {} → {} → {} | {} | {} kB, {:.0} | {} | {} |",
            self.attack.number,
            self.attack.name,
            failed(&self.during) + failed(&self.after),
            self.during.len() + self.after.len(),
            tenths(percentile(&self.during, 99)),
            tenths(longest(&self.before)),
            tenths(self.deaf()),
            mib(was.memory),
            mib(worst.memory),
            mib(is.memory),
            was.descriptors,
            worst.descriptors,
            is.descriptors,
            mib(disk),
            self.log.bytes / 1024,
            self.lines_a_minute(),
            load(),
            self.besides().join("; "),
        )
    }

    /// What only some attacks have.
    fn besides(&self) -> Vec<String> {
        let mut besides = Vec::new();
        if !self.through.is_empty() {
            let (lost, all) = (failed(&self.through), self.through.len());
            let longest = tenths(longest(&self.through));
            besides.push(format!(
                "new connections in a tunnel {lost}/{all} failed, max {longest} s"
            ));
        }
        if self.disk_curve.len() > 2 {
            let more = |at: &u64| (at.saturating_sub(self.disk_before) >> 20).to_string();
            let curve: Vec<_> = self.disk_curve.iter().map(more).collect();
            besides.push(format!("disk each 30 s, MiB: {}", curve.join(", ")));
        }
        if let Some(took) = self.restart {
            besides.push(format!("ready again after {} s", tenths(took)));
        }
        // A few are the good user's own.
        if self.held_worst.children > 8 {
            besides.push(format!("{} bridges", self.held_worst.children));
        }
        if self.killed > 0 {
            besides.push(format!("the kernel ended {} processes", self.killed));
        }
        if self.standing.is_err() {
            besides.push("what stood was LOST".to_owned());
        }
        besides
    }

    /// The line; behind it what is wrong, and how to see it again.
    pub fn line(&self) -> String {
        let (was, worst, is) = (self.held_before, self.held_worst, self.held_after);
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        let faults = self.faults();
        let verdict = if faults.is_empty() { "holds" } else { "FALLS" };
        let mut line = format!(
            "{:<4} {:<16} {verdict}  sessions {}/{} failed, after {}/{}; p50/p99/max {}/{}/{} s (before {}/{}); deaf {} s; \
             stood: {}; memory {} → {} → {} MiB; descriptors {} → {} → {}; children {}; disk +{} KiB; log {} B, {:.0} lines/min, who: {}",
            self.attack.number,
            self.attack.name,
            failed(&self.during),
            self.during.len(),
            failed(&self.after),
            self.after.len(),
            tenths(percentile(&self.during, 50)),
            tenths(percentile(&self.during, 99)),
            tenths(longest(&self.during)),
            tenths(percentile(&self.before, 50)),
            tenths(longest(&self.before)),
            tenths(self.deaf()),
            self.standing.as_ref().map_or_else(
                |_| "LOST".to_owned(),
                |late| format!("{} s late", tenths(*late))
            ),
            mib(was.memory),
            mib(worst.memory),
            mib(is.memory),
            was.descriptors,
            worst.descriptors,
            is.descriptors,
            worst.children,
            self.disk_worst.saturating_sub(self.disk_before) / 1024,
            self.log.bytes,
            self.lines_a_minute(),
            if self.log.names.is_some() {
                "named"
            } else {
                "-"
            },
        );
        for more in self.besides() {
            line += &format!("; {more}");
        }
        line += &format!("; attacker: {}", self.told);
        for fault in &faults {
            line += &format!("\n{:22}{fault}", "");
        }
        if !faults.is_empty() {
            let (command, name, seed) = (crate::COMMAND, self.attack.name, self.seed);
            line += &format!("\n{:22}again: {command} --attack {name} --seed {seed}", "");
        }
        line
    }
}

pub fn failed(all: &[Tried]) -> usize {
    all.iter().filter(|one| one.ended.is_err()).count()
}

/// Of all, those that failed included: that is how long somebody waited.
fn percentile(all: &[Tried], percent: usize) -> Duration {
    let mut took: Vec<_> = all.iter().map(|one| one.took).collect();
    took.sort();
    let place = (took.len() * percent).div_ceil(100).saturating_sub(1);
    took.get(place).copied().unwrap_or_default()
}

pub fn longest(all: &[Tried]) -> Duration {
    percentile(all, 100)
}

pub fn tenths(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
