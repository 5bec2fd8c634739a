//! What bytes, messages and connections cost on the way through a rendezvous, and through other people's programs in the same
//! run: `cargo bench --bench relay [-- [ROUNDS] [ROW …]]`; rows by the beginning of their names.
//!
//! | row | what |
//! | --- | --- |
//! | raw | straight to the service, on loopback |
//! | rendezvous, logins / open | the rendezvous alone, its two ends played here: both log in, or one port is open to anybody |
//! | tunnel, … | the whole path: client, rendezvous, daemon; named after what the client says of it |
//! | socat, haproxy | one hop, nothing encrypted |
//! | rathole, bore | two hops, nothing encrypted; rathole + Noise: the same, encrypted |
//! | ssh -L | one hop to a real sshd, encrypted |
//!
//! Each figure is the median of some short runs, which take turns. CPU time is that of the path's processes alone, and counts
//! where it is said whose. The machine's load stands above the table: beside other work only ratios mean something.
//!
//! | variable | what |
//! | --- | --- |
//! | `BENCH_PROGRAM` | the executable that is measured; default: the one that is built with the bench |
//! | `BENCH_OLDER` | an older one, whose daemon makes the classic path where the newer one's does not |
//! | `BENCH_PEERS` | where `rathole` and `bore` are; default: `target/peers/bin` |
//!
//! `peers.sh` installs what is missing of the peers. Without one of them its row says so.

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#![allow(clippy::unwrap_used)]

mod load;
mod ours;
mod path;
mod peers;
mod process;
mod table;
#[path = "../../world/mod.rs"]
#[allow(dead_code)]
mod world;

use std::{env, fs, process::Command};

use async_std::task;
use load::Service;
use noports::sys::process::raise_descriptor_limit;
use path::Measured;
use world::World;

/// Short runs of each figure, unless the command line says otherwise.
const ROUNDS: usize = 5;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let rounds = words.iter().find_map(|word| word.parse().ok());
    raise_descriptor_limit();
    install_peers();
    let rows: Vec<String> = words
        .into_iter()
        .filter(|word| word.starts_with(char::is_alphabetic))
        .collect();
    task::block_on(run(rounds.unwrap_or(ROUNDS), &rows));
}

/// Says on stderr what could not be had.
fn install_peers() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/relay/peers.sh");
    let status = Command::new(script).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("some peers are missing");
    }
}

async fn run(rounds: usize, rows: &[String]) {
    let world = World::start().await;
    let service = Service::start();
    let ours = ours::Ours::start(&world, service.port);
    let mut measured: Vec<Measured> = Vec::new();
    measured.extend(
        ours.paths(&world, &service)
            .await
            .into_iter()
            .map(Measured::of),
    );
    for (name, peer) in peers::all(&world, service.port).await {
        match peer {
            Ok(path) => measured.push(Measured::of(path)),
            Err(why) => println!("{name}: not measured: {why}"),
        }
    }
    let wanted = |name: &str| rows.is_empty() || rows.iter().any(|row| name.starts_with(row));
    measured.retain(|one| wanted(&one.path.name));
    println!("load before: {}", load_average());
    for round in 1..=rounds {
        for one in &mut measured {
            one.round();
        }
        eprintln!("round {round} of {rounds}, load {}", load_average());
    }
    for one in &mut measured {
        one.hold_idle_streams();
    }
    println!("load after: {}", load_average());
    table::print(&measured);
    ours.idle_sessions(&world, service.port);
}

/// The last minute's, and how many processors there are.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = text.split_whitespace().next().unwrap_or("?").to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{minute} on {processors} processors")
}
