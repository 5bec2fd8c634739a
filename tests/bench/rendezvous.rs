//! What an idle session costs a rendezvous: resident memory and descriptors at 1,000 and at 2,000 sessions, each with one
//! pair, and after they have gone.
//!
//! `cargo bench --bench rendezvous -- 2000 [executable]`

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#![allow(clippy::unwrap_used)]

#[path = "ground.rs"]
#[allow(dead_code)]
mod ground;
#[path = "line.rs"]
#[allow(dead_code)]
mod line;
#[path = "../world/mod.rs"]
#[allow(dead_code)]
mod world;

use std::time::Duration;

use async_std::task;
use ground::resident;
use noports::{np::ports::Logins, sys::process::raise_descriptor_limit};
use world::{NOPORTS, Process, RENDEZVOUS, World, descriptors, ports::Asker, support::until};

/// Sessions of one atSign: fewer than any rendezvous of ours allows.
const OF_ONE: usize = 250;

/// How long after the load the memory is looked at once more.
const LATER: Duration = Duration::from_secs(10);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count = words
        .iter()
        .find_map(|word| word.parse().ok())
        .unwrap_or(2000);
    let program = words.iter().find(|word| word.contains('/'));
    raise_descriptor_limit();
    task::block_on(run(count, program.map_or(NOPORTS, String::as_str)));
}

async fn run(count: usize, program: &str) {
    let world = World::start().await;
    let mut command = world.program(program);
    command.args([
        "rendezvous",
        "--as",
        RENDEZVOUS,
        "--host",
        "127.0.0.1",
        "--json",
    ]);
    let rendezvous = world.ready("rendezvous", command);
    let mut sessions = Vec::new();
    let empty = resident(&rendezvous);
    row(0, &rendezvous);
    let mut half = empty;
    for group in 0..count.div_ceil(OF_ONE) {
        let client = format!("@client{group}");
        world
            .activate(&client, "@client_example_pkam", "@client_example")
            .await;
        let mut asker = Asker::start_as(&world, &client).await;
        for _ in 0..OF_ONE {
            let granted = asker.ask(Logins::BOTH).await;
            let pair = (granted.client(Some(0)), granted.daemon(Some(0)));
            world::ports::joined("control", &pair.0, &pair.1);
            sessions.push(pair);
        }
        if sessions.len() <= count / 2 {
            half = resident(&rendezvous);
        }
        row(sessions.len(), &rendezvous);
    }
    let slope = (resident(&rendezvous) - half) / (sessions.len() as f64 / 2.0);
    println!("KiB each, second half: {slope:.1}");
    let whole = (resident(&rendezvous) - empty) / sessions.len() as f64;
    println!("KiB each, all:         {whole:.1}");
    sessions.clear();
    until("all sessions end", || descriptors(rendezvous.id()) < 64).await;
    row(0, &rendezvous);
    task::sleep(LATER).await;
    row(0, &rendezvous);
}

fn row(sessions: usize, rendezvous: &Process) {
    let (kib, open) = (resident(rendezvous), descriptors(rendezvous.id()));
    println!("{sessions:>6} sessions {kib:>9.0} KiB {open:>7} descriptors");
}
