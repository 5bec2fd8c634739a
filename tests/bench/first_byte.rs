//! From starting `noports client` to the first byte of sshd's banner, on loopback.
//!
//! Sequential round trips of a client whose atSign has met the device and the rendezvous before:
//!
//! | # | what | why it cannot go |
//! | --- | --- | --- |
//! | 1–2 | TCP and TLS to the atDirectory | nothing is known yet; TLS 1.3 needs one trip after TCP's |
//! | 3 | greeting, then the question → the address | the directory speaks first |
//! | 4–5 | TCP and TLS to the own atServer | as 1–2 (the monitor's connection is made at the same time) |
//! | 6 | greeting and `from:` → challenge | the server speaks first; the challenge is what is signed |
//! | 7 | `pkam:` → success | |
//! | 8 | ping and port request → both answers, as pushes | a request needs its ports |
//! | 9 | signed request → its answer, as a push | it carries what the rendezvous granted |
//! | 10 | TCP to the rendezvous, admission line → the banner behind it | |
//!
//! The peer in the same run is a direct TCP connection to the same sshd.

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#[path = "../world/mod.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod world;

use std::{
    io::Read,
    net::TcpStream,
    process::Stdio,
    time::{Duration, Instant},
};

use world::{Process, World};

const RUNS: usize = 30;

fn main() {
    async_std::task::block_on(async {
        let world = World::start().await;
        let sshd = world.sshd().await;
        let (_rendezvous, _daemon) = (world.rendezvous_process(), world.daemon_process(sshd.port));
        let (mut through, mut direct) = (Vec::new(), Vec::new());
        // The first run makes shared keys; a person makes it once per device.
        println!(
            "first contact     {:>8.1} ms",
            millis(through_noports(&world))
        );
        for _ in 0..RUNS {
            through.push(through_noports(&world));
            direct.push(directly(sshd.port));
        }
        report("through noports", &mut through);
        report("direct TCP", &mut direct);
        println!(
            "ratio of medians  {:>8.1}",
            millis(through[RUNS / 2]) / millis(direct[RUNS / 2])
        );
    });
}

fn through_noports(world: &World) -> Duration {
    let mut command = world.client(&["--stdio"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut first = [0u8; 4];
    let began = Instant::now();
    let mut client = Process(command.spawn().expect("the client can be started"));
    client
        .0
        .stdout
        .as_mut()
        .expect("it is piped")
        .read_exact(&mut first)
        .expect("a banner");
    assert_eq!(&first, b"SSH-");
    began.elapsed()
}

fn directly(port: u16) -> Duration {
    let mut first = [0u8; 4];
    let began = Instant::now();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("sshd listens");
    socket.read_exact(&mut first).expect("a banner");
    began.elapsed()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| millis(times[(times.len() * part / 100).min(times.len() - 1)]);
    println!(
        "{what:<17} median {:>8.1} ms   p95 {:>8.1} ms   of {}",
        at(50),
        at(95),
        times.len()
    );
}
