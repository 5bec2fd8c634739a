//! Outages, with the real executables on a network of their own: one namespace per host, a line between them that obeys.
//!
//! | command: `cargo test --locked --features held --test outages --` … | |
//! | --- | --- |
//! | (nothing) | every row but the long ones once, a short walk, then the quickest attacks: the part for CI, about 2 minutes |
//! | `--whole` | every row five times, each waited for beyond its limit, to see how late it is; then ten minutes of walk |
//! | `NAME …` | the rows whose names contain one of these |
//! | `--tries N` | each of them N times, with seeds that follow each other |
//! | `--seed N` | the first seed (default: 1): moments and lengths of faults, lost packets |
//! | `--at-once N` | so many rows at the same time (default: 6; seconds are pessimistic on a small machine) |
//! | `--walk SECONDS` | a random walk of that length, and nothing else; with `--seed` |
//! | `--attack NAME …` | these attacks, one after the other; `--list` names them, `--attacks` is all of them |
//! | `--table FILE` | what came of rows and attacks goes into the tables of that file, too: `outages.md`, `attacks.md` |
//! | `--label WORD` | whose figures they are in these tables, such as `before` (default: `now`) |
//! | `--seconds N` | each attack lasts so long |
//! | `--executable PATH` | all programs are this one, such as an older one |
//! | `--measure` | what the delay line itself does: round trips, rates |
//! | `--lab` | a network to try things by hand: orders on stdin |
//! | `--list` | the rows |
//!
//! | file | what |
//! | --- | --- |
//! | [`line`], [`packet`] | the delay line |
//! | [`check`], [`measure`] | whether it does what it is told, and how exactly; a network to try things by hand |
//! | [`net`] | hosts: namespaces, addresses, names |
//! | [`site`], [`setup`], [`memory`], [`session`], [`tunnel`] | the programs on it, sessions, a tunnel that stands |
//! | [`rows`], [`report`] | the matrix of faults, its limits, what is known to be late |
//! | [`listed`] | rows of `attacks.md` that are a fault and no load |
//! | [`figures`] | tables in files, written by the bench itself |
//! | [`attacks`] | strangers and neighbours as scripts, and a good user meanwhile |
//! | [`walk`] | ten devices, four clients, a stranger, and chance |
//!
//! Attacks are judged by [`attacks`]' criteria; figures of an older executable and of today's stand in `attacks.md`, those of
//! outages in `outages.md`. On a machine that does other things, too, the figures are worth something where the bench goes
//! before them (`nice -n -15`; where each session has a share of its own, `/proc/self/autogroup` as well).
//!
//! It takes root. Where namespaces or TUN are missing it fails, and says what is missing.

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../world/mod.rs"]
#[allow(dead_code)]
mod world;

mod attacks;
mod check;
mod figures;
mod inside;
mod line;
mod listed;
mod measure;
mod memory;
mod net;
mod packet;
mod random;
mod report;
mod rows;
mod session;
mod setup;
mod site;
mod tunnel;
mod walk;

use std::{
    panic::catch_unwind,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use attacks::{ATTACKS, Attack, Times, besiege};
use figures::Table;
use random::Random;
use report::{Tried, Verdict};
use rows::{Miss, ROWS, Row};
use setup::Setup;
use site::Site;

/// How to run this; for whoever reads a failure.
pub const COMMAND: &str = "cargo test --locked --features held --test outages --";
/// Rows at the same time, unless --at-once says otherwise. They mostly wait.
const AT_ONCE: usize = 6;
/// Attacks at the same time: they work.
const ATTACKS_AT_ONCE: usize = 4;

/// Tries with --whole, and how long each is waited for.
const WHOLE_TRIES: u64 = 5;
const WHOLE_PATIENCE: Duration = Duration::from_secs(180);
/// Walks that nobody gave a length.
const SHORT_WALK: Duration = Duration::from_secs(30);
const LONG_WALK: Duration = Duration::from_secs(600);

/// Attacks: in full, and beside others in CI.
const WHOLE_SIEGE: Times = Times {
    // As many sessions as while most attacks last: the longest of few is no measure of the longest of many.
    before: Duration::from_secs(20),
    during: None,
    after: Duration::from_secs(6),
    settled: Duration::from_secs(60),
    slack: Duration::from_secs(2),
    few: 3 * 1024,
};
const SHORT_SIEGE: Times = Times {
    before: Duration::from_secs(4),
    during: None,
    after: Duration::from_secs(2),
    settled: Duration::from_secs(15),
    // Four attackers at the same time leave two cores little.
    slack: Duration::from_secs(10),
    // Not settled yet.
    few: 16 * 1024,
};

/// What was asked for.
struct Asked {
    names: Vec<String>,
    seed: u64,
    tries: Option<u64>,
    at_once: usize,
    is_whole: bool,
    walk: Option<Duration>,
    seconds: Option<Duration>,
    executable: String,
    table: Option<PathBuf>,
    label: String,
    only: Option<Only>,
}

/// Something else than the matrix.
#[derive(Clone, Copy)]
enum Only {
    Walk,
    /// True: all of them.
    Attacks(bool),
    Measure,
    Lab,
    List,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == inside::INSIDE) {
        inside::main(&words[1..]);
        return ExitCode::SUCCESS;
    }
    let asked = Asked::read(&words);
    let is_good = match asked.only {
        Some(Only::List) => {
            let rows = ROWS.iter().map(|row| (row.name, row.fault));
            let attacks = ATTACKS.iter().map(|attack| (attack.name, attack.what));
            let all = rows.chain(attacks);
            all.for_each(|(name, what)| println!("{name}: {what}"));
            true
        }
        Some(Only::Measure) => went(measure::measure(asked.seed)),
        Some(Only::Lab) => went(measure::lab(&asked.names, asked.seed)),
        Some(Only::Walk) => walk(&asked),
        Some(Only::Attacks(all)) => {
            let wanted = |name: &str| all || asked.names.iter().any(|one| one == name);
            let (good, bad) = besieged(&asked, |attack| wanted(attack.name), WHOLE_SIEGE, true);
            println!("\n{good} hold, {bad} fall");
            bad == 0 && good > 0
        }
        None => everything(&asked),
    };
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn went(well: Result<(), String>) -> bool {
    if let Err(why) = &well {
        println!("{why}");
    }
    well.is_ok()
}

impl Asked {
    fn read(words: &[String]) -> Self {
        let mut asked = Self {
            names: Vec::new(),
            seed: 1,
            tries: None,
            at_once: AT_ONCE,
            is_whole: false,
            walk: None,
            seconds: None,
            executable: world::NOPORTS.to_owned(),
            table: None,
            label: "now".to_owned(),
            only: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut next = || {
                let next = words.next();
                next.unwrap_or_else(|| panic!("{word} takes a word more"))
            };
            let mut number = || {
                let number = next().parse::<u64>();
                number.unwrap_or_else(|_| panic!("{word} takes a number"))
            };
            match word.as_str() {
                "--executable" => asked.executable = next().to_owned(),
                "--table" => asked.table = Some(next().into()),
                "--label" => asked.label = next().to_owned(),
                "--seed" => asked.seed = number(),
                "--tries" => asked.tries = Some(number()),
                "--at-once" => asked.at_once = number() as usize,
                "--whole" => asked.is_whole = true,
                "--walk" => {
                    asked.walk = Some(Duration::from_secs(number()));
                    asked.only = Some(Only::Walk);
                }
                "--seconds" => asked.seconds = Some(Duration::from_secs(number())),
                "--attack" => asked.only = Some(Only::Attacks(false)),
                "--attacks" => asked.only = Some(Only::Attacks(true)),
                "--measure" => asked.only = Some(Only::Measure),
                "--lab" => asked.only = Some(Only::Lab),
                "--list" => asked.only = Some(Only::List),
                // The usual harness has more; they mean nothing here.
                word if word.starts_with('-') => {}
                name => asked.names.push(name.to_owned()),
            }
        }
        asked
    }

    fn setup(&self, devices: usize, clients: usize) -> Setup {
        Setup {
            program: self.executable.clone(),
            ..Setup::of(devices, clients)
        }
    }

    fn wants(&self, row: &Row) -> bool {
        let is_usual = self.names.is_empty() && (self.is_whole || !row.is_long);
        is_usual || self.names.iter().any(|name| row.name.contains(name))
    }

    /// Writes it down where somebody wants that. What no longer exists stands last.
    fn keep(&self, table: &Table, row: &str, place: impl Fn(&[&str]) -> Option<usize>) {
        let place = |key: &[&str]| place(key).unwrap_or(usize::MAX);
        if let Some(Err(why)) = self
            .table
            .as_ref()
            .map(|file| table.write(file, row, place))
        {
            println!("the table: {why}");
        }
    }

    /// Of rows about the same thing, today's stands last.
    fn place(place: Option<usize>, label: &str) -> Option<usize> {
        place.map(|place| 2 * place + usize::from(label == "now"))
    }

    fn tries(&self) -> u64 {
        let usual = if self.is_whole { WHOLE_TRIES } else { 1 };
        self.tries.unwrap_or(usual)
    }

    fn patience(&self, row: &Row) -> Duration {
        if self.is_whole {
            WHOLE_PATIENCE
        } else {
            row.limit
        }
    }
}

/// The matrix, and a walk where no row was named.
fn everything(asked: &Asked) -> bool {
    // Where the line does not do what it is told, nothing else says anything.
    let has_some = ROWS.iter().any(|row| asked.wants(row));
    if has_some && !went(check::check(asked.seed)) {
        println!("\n0 passed, 1 failed");
        return false;
    }
    let (mut good, mut bad) = (0, 0);
    let walks = asked.names.is_empty();
    thread::scope(|scope| {
        // Beside the matrix, where seconds are not the subject.
        let walking = (walks && !asked.is_whole).then(|| scope.spawn(|| walk(asked)));
        (good, bad) = matrix(asked);
        let is_walked = match walking {
            Some(walking) => walking.join().unwrap_or(false),
            None => !walks || walk(asked),
        };
        good += usize::from(walks && is_walked);
        bad += usize::from(!is_walked);
    });
    if asked.names.is_empty() && !asked.is_whole {
        let (held, fell) = besieged(asked, |attack| attack.quick.is_some(), SHORT_SIEGE, false);
        (good, bad) = (good + held, bad + fell);
    }
    println!("\n{good} passed, {bad} failed");
    bad == 0
}

fn walk(asked: &Asked) -> bool {
    let usual = if asked.is_whole {
        LONG_WALK
    } else {
        SHORT_WALK
    };
    let length = asked.walk.unwrap_or(usual);
    let walked = walk::walk(
        asked.setup(walk::DEVICES, walk::CLIENTS),
        length,
        asked.seed,
    );
    if walked.is_err() {
        let (seconds, seed) = (length.as_secs(), asked.seed);
        println!("again: {COMMAND} --walk {seconds} --seed {seed}");
    }
    went(walked)
}

/// How many rows are as they should be, and how many are not.
fn matrix(asked: &Asked) -> (usize, usize) {
    let rows: Vec<_> = ROWS.iter().filter(|row| asked.wants(row)).collect();
    let (next, good) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let out = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..asked.at_once.min(rows.len()) {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Relaxed)) {
                    let tried = tried(row, asked);
                    let is_good = matches!(tried.verdict(), Verdict::InTime | Verdict::KnownLate);
                    good.fetch_add(usize::from(is_good), Relaxed);
                    let _one_at_a_time = out.lock();
                    println!("{}", tried.line());
                    asked.keep(&report::TABLE, &tried.row(&asked.label), |key| {
                        let place = ROWS.iter().position(|row| key[0] == row.name);
                        Asked::place(place, key[1])
                    });
                }
            });
        }
    });
    let good = good.into_inner();
    (good, rows.len() - good)
}

/// How many of these attacks come to nothing, and how many do not.
fn besieged(
    asked: &Asked,
    wants: impl Fn(&Attack) -> bool,
    times: Times,
    is_alone: bool,
) -> (usize, usize) {
    let attacks: Vec<_> = ATTACKS.iter().filter(|attack| wants(attack)).collect();
    let (next, good) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let out = Mutex::new(());
    let one = |attack: &'static Attack| {
        let quick = attack.quick.filter(|_| !is_alone);
        let during = quick.map(Duration::from_secs).or(asked.seconds);
        let times = Times { during, ..times };
        let besieged = || besiege(attack, &asked.executable, asked.seed, times, is_alone);
        let ended = catch_unwind(besieged);
        ended.unwrap_or_else(|_| Err("it panicked, see above".to_owned()))
    };
    thread::scope(|scope| {
        for _ in 0..asked.at_once.min(ATTACKS_AT_ONCE).min(attacks.len()) {
            scope.spawn(|| {
                while let Some(attack) = attacks.get(next.fetch_add(1, Relaxed)) {
                    let came = one(attack);
                    let _one_at_a_time = out.lock();
                    match came {
                        Ok(outcome) => {
                            good.fetch_add(usize::from(outcome.faults().is_empty()), Relaxed);
                            println!("{}", outcome.line());
                            asked.keep(&attacks::TABLE, &outcome.row(&asked.label), |key| {
                                let place = ATTACKS.iter().position(|one| key[1] == one.name);
                                Asked::place(place, key[2])
                            });
                        }
                        Err(why) => println!("{}: {why}", attack.name),
                    }
                }
            });
        }
    });
    let good = good.into_inner();
    (good, attacks.len() - good)
}

fn tried<'a>(row: &'a Row, asked: &Asked) -> Tried<'a> {
    let patience = asked.patience(row);
    let one = |seed| {
        let mut setup = asked.setup(1, 1);
        (row.setup)(&mut setup);
        let mut site = Site::made(setup, seed)?;
        // It works before anything is done to it.
        site.session().wait()?;
        (row.run)(&mut site, &mut Random::new(seed), patience)
    };
    // One that panics costs no other its line.
    let one = |seed| {
        let ended = catch_unwind(|| one(seed));
        ended.unwrap_or_else(|_| Err(Miss::Wrong("it panicked, see above".to_owned())))
    };
    let seeds = asked.seed..asked.seed + asked.tries();
    Tried {
        row,
        seed: asked.seed,
        patience,
        tries: seeds.map(one).collect(),
    }
}
