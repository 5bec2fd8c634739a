//! What an idle connection costs an atServer, what an attack costs it, and what of that memory comes back.
//!
//! `cargo bench --bench idle -- 5000 [executable]`: so many owners that are logged in and silent; then [`READERS`]
//! strangers that ask for [`LARGE`] bytes each and take none.

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#![allow(clippy::unwrap_used)]

#[path = "ground.rs"]
mod ground;
#[path = "line.rs"]
#[allow(dead_code)]
mod line;
#[path = "../world/mod.rs"]
#[allow(dead_code)]
mod world;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use async_std::{net::TcpStream, task};
use futures_lite::AsyncWriteExt;
use ground::{Ground, resident};
use line::SOON;
use noports::{net::tls::TlsStream, sys::process::raise_descriptor_limit};
use socket2::{Domain, Socket, Type};
use world::{NOPORTS, Process, World, descriptors, support::until};

/// Connections of one atSign: fewer than its atServer allows.
const OF_ONE: usize = 50;
/// Slow readers, each from a network of its own.
const READERS: usize = 300;
/// What they ask for.
const LARGE: usize = 9_000_000;
/// Descriptors that it may have got for other things meanwhile.
const KEPT: usize = 8;
/// How long after the load the memory is looked at.
const LATER: Duration = Duration::from_secs(60);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count = words.iter().find_map(|word| word.parse().ok());
    let program = words.iter().find(|word| word.contains('/'));
    raise_descriptor_limit();
    let program = program.map_or(NOPORTS, String::as_str);
    task::block_on(run(count.unwrap_or(5000), program));
}

async fn run(count: usize, program: &str) {
    let mut world = World::empty("localhost", |_| {}).await;
    let ground = Ground::of(&mut world, count.div_ceil(OF_ONE)).await;
    let server = world.serve_as(program, &[]);
    let few = descriptors(server.id()) + KEPT;
    idle(&ground, &server, count).await;
    gone("no connections", &server, few).await;
    store_large(&ground).await;
    slow(&ground, &server).await;
    gone("no readers", &server, few).await;
}

/// A record that everybody may see.
async fn store_large(ground: &Ground) {
    let mut owner = ground.login(0).await;
    let command = format!("update:public:large.x@load0 {}", "v".repeat(LARGE));
    let reply = owner.ask(&command).await.unwrap();
    assert!(reply.starts_with("data:"), "{reply}");
}

async fn idle(ground: &Ground, server: &Process, count: usize) {
    let empty = row("no connections", server);
    let (mut lines, mut half) = (Vec::new(), empty);
    for number in 0..count {
        lines.push(ground.login(number / OF_ONE).await);
        if lines.len() == count / 2 {
            half = row(&format!("{} connections", lines.len()), server);
        }
    }
    let full = row(&format!("{count} connections"), server);
    println!(
        "KiB each, second half: {:.1}",
        (full - half) / (count as f64 / 2.0)
    );
    println!(
        "KiB each, all:         {:.1}",
        (full - empty) / count as f64
    );
}

async fn slow(ground: &Ground, server: &Process) {
    row("before the readers", server);
    let mut readers = Vec::new();
    for number in 0..READERS {
        readers.push(reader(ground, number).await);
    }
    let mut most = 0.0f64;
    for _ in 0..50 {
        most = most.max(resident(server));
        task::sleep(Duration::from_millis(100)).await;
    }
    println!("{most:>9.0} KiB  most in 5 s with {READERS} readers");
}

/// A stranger that asks and reads nothing.
async fn reader(ground: &Ground, number: usize) -> TlsStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Another /24 each, so that no share of a network is in the way.
    let [high, low] = u16::try_from(number + 1).unwrap().to_be_bytes();
    let from = SocketAddr::from((Ipv4Addr::new(127, high, low, 1), 0));
    socket.bind(&from.into()).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, ground.ports[0]));
    socket.connect(&to.into()).unwrap();
    let tcp = TcpStream::from(std::net::TcpStream::from(socket));
    let mut stream = ground.tls.connect("localhost", tcp, SOON).await.unwrap();
    let _ = stream.write_all(b"lookup:large.x@load0\n").await;
    let _ = stream.flush().await;
    stream
}

/// What is left when the server has noticed that all have gone, and later.
async fn gone(what: &str, server: &Process, few: usize) {
    until("all connections end", || descriptors(server.id()) <= few).await;
    row(what, server);
    task::sleep(LATER).await;
    row(&format!("{what}, {} s later", LATER.as_secs()), server);
}

fn row(what: &str, server: &Process) -> f64 {
    let (kib, open) = (resident(server), descriptors(server.id()));
    println!("{kib:>9.0} KiB {open:>7} descriptors  {what}");
    kib
}
