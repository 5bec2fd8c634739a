//! Outages, with the real executables on a network of their own: one namespace per host, a line between them that obeys.
//!
//! | command: `cargo test --locked --features held --test outages --` … | |
//! | --- | --- |
//! | (nothing) | every row once, and a short walk: the part for CI, under 3 minutes |
//! | `NAME …` | the rows whose names contain one of these |
//! | `--tries N` | each of them N times, with seeds that follow each other |
//! | `--seed N` | the first seed (default: 1): moments and lengths of faults, lost packets |
//! | `--at-once N` | so many rows at the same time (default: 4; seconds are pessimistic on a small machine) |
//! | `--walk SECONDS` | a random walk of that length, and nothing else; with `--seed` |
//! | `--measure` | what the delay line itself does: round trips, rates |
//! | `--lab` | a network to try things by hand: orders on stdin |
//! | `--list` | the rows |
//!
//! | file | what |
//! | --- | --- |
//! | [`line`], [`packet`] | the delay line |
//! | [`net`] | hosts: namespaces, addresses, names |
//! | [`site`], [`tunnel`] | the programs on it, sessions, a tunnel that stands |
//! | [`rows`], [`report`] | the matrix of faults, its limits, what is known to be late |
//! | [`walk`] | ten devices, four clients, a stranger, and chance |
//!
//! It takes root. Where namespaces or TUN are missing it fails, and says what is missing.

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../world/mod.rs"]
#[allow(dead_code)]
mod world;

mod inside;
mod line;
mod net;
mod packet;
mod random;
mod report;
mod rows;
mod site;
mod tunnel;

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use random::Random;
use report::{Tried, Verdict};
use rows::{ROWS, Row};
use site::Site;

/// How to run this; for whoever reads a failure.
pub const COMMAND: &str = "cargo test --locked --features held --test outages --";
/// Rows at the same time, unless --at-once says otherwise. They mostly wait.
const AT_ONCE: usize = 4;

/// What was asked for.
struct Asked {
    names: Vec<String>,
    seed: u64,
    tries: u64,
    at_once: usize,
    only: Option<&'static str>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == inside::INSIDE) {
        inside::main(&words[1..]);
        return ExitCode::SUCCESS;
    }
    let asked = Asked::read(&words);
    match asked.only {
        Some("--list") => {
            for row in ROWS {
                println!("{}: {}", row.name, row.fault);
            }
            ExitCode::SUCCESS
        }
        _ => matrix(&asked),
    }
}

impl Asked {
    fn read(words: &[String]) -> Self {
        let mut asked = Self {
            names: Vec::new(),
            seed: 1,
            tries: 1,
            at_once: AT_ONCE,
            only: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
            match word.as_str() {
                "--seed" => asked.seed = number(),
                "--tries" => asked.tries = number(),
                "--at-once" => asked.at_once = number() as usize,
                "--list" => asked.only = Some("--list"),
                // The usual harness has more; they mean nothing here.
                word if word.starts_with('-') => {}
                name => asked.names.push(name.to_owned()),
            }
        }
        asked
    }

    fn wants(&self, row: &Row) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| row.name.contains(name))
    }
}

fn matrix(asked: &Asked) -> ExitCode {
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
                }
            });
        }
    });
    let good = good.into_inner();
    println!("\n{good} passed, {} failed", rows.len() - good);
    if good == rows.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn tried<'a>(row: &'a Row, asked: &Asked) -> Tried<'a> {
    let one = |seed| {
        let mut site = Site::start(row.devices, 1, seed)?;
        // It works before anything is done to it.
        site.session().wait()?;
        (row.run)(&mut site, &mut Random::new(seed), row.limit)
    };
    let seeds = asked.seed..asked.seed + asked.tries;
    Tried {
        row,
        seed: asked.seed,
        tries: seeds.map(one).collect(),
    }
}
