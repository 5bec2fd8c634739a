//! CPU time and memory of processes and all their descendants.

use std::fs;

use crate::world::children_of;

/// Ticks a second in `/proc/PID/stat`: `USER_HZ`, which is 100 on every machine that Linux runs on today.
const TICKS: f64 = 100.0;

/// A process with its children and theirs.
fn family(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut next = 0;
    while next < all.len() {
        all.extend(children_of(all[next]));
        next += 1;
    }
    all
}

/// CPU seconds that a process and its descendants have used; of those that have ended, as far as they were waited for.
pub fn cpu(root: u32) -> f64 {
    family(root).into_iter().map(own_cpu).sum()
}

fn own_cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // utime, stime, cutime and cstime are the 14th to the 17th field; the second one is a name in brackets.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let fields = behind.split_whitespace().skip(11).take(4);
    fields
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS
}

/// KiB that a process and its descendants share with nobody.
pub fn private(root: u32) -> f64 {
    family(root).into_iter().map(own_private).sum()
}

fn own_private(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let of = |line: &str| {
        let number = line.strip_prefix("Private_")?.split_whitespace().nth(1)?;
        number.parse::<f64>().ok()
    };
    text.lines().filter_map(of).sum()
}
