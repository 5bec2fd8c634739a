//! A rendezvous that flips, cuts, inserts, repeats, swaps and joins, a hundred thousand times: what is detected, what is
//! delivered, and who is told.
//!
//! `cargo bench --bench tamper -- 100000 [seed]`

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#![allow(clippy::unwrap_used)]

#[path = "../tamper.rs"]
mod tamper;

use std::time::Instant;

use async_std::task;

/// Sessions at the same time.
const AT_ONCE: usize = 32;

fn main() {
    let words = std::env::args().skip(1);
    let mut figures = words.filter_map(|word| word.parse::<u64>().ok());
    let (trials, seed) = (
        figures.next().unwrap_or(100_000),
        figures.next().unwrap_or(1),
    );
    let began = Instant::now();
    task::block_on(tamper::honest(20));
    let tally = task::block_on(tamper::run(trials, AT_ONCE, seed));
    println!("{tally}\n{:.0} s", began.elapsed().as_secs_f64());
    let sum = tally.sum();
    let is_well = sum.detected == sum.trials && sum.delivered + sum.ended + sum.hung == 0;
    std::process::exit(i32::from(!is_well));
}
