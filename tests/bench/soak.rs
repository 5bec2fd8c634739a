//! Long runs with figures: many sessions, a gibibyte, killed atServers. Name one of
//! `sessions`, `old`, `tunnel`, `bytes`, `kills` to run just that (`cargo bench --features held --bench soak -- sessions`).

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#[cfg(not(feature = "held"))]
compile_error!(
    "`old` holds programs to an older generation: cargo bench --features held --bench soak"
);

#[path = "../world/mod.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod world;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use async_std::task;
use noports::sys::{sockets::listening_ports, sshd::Sshd};
use world::{Process, World, children_of, descriptors, output, until};

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    task::block_on(async {
        if runs("sessions") {
            sessions().await;
        }
        if runs("old") {
            old().await;
        }
        if runs("tunnel") {
            tunnel().await;
        }
        if runs("bytes") {
            bytes().await;
        }
        if runs("kills") {
            kills().await;
        }
    });
}

fn ssh(world: &World, sshd: &Sshd, command: &str) -> Command {
    let mut ssh = world.program("ssh");
    ssh.args(world.ssh_options(sshd)).args(["device", command]);
    ssh
}

/// 100 sessions one after another, then 20 at once; what is left behind is counted.
async fn sessions() {
    let world = World::start().await;
    let sshd = world.sshd().await;
    let (rendezvous, daemon) = (world.rendezvous_process(), world.daemon_process(sshd.port));
    let one = || output(ssh(&world, &sshd, "echo fine"));
    assert!(one().await.status.success());
    until("the first bridge has ended", || {
        children_of(daemon.id()).is_empty()
    })
    .await;
    let before = (descriptors(rendezvous.id()), descriptors(daemon.id()));

    let began = Instant::now();
    let mut lost = 0;
    for _ in 0..100 {
        lost += usize::from(one().await.stdout != b"fine\n");
    }
    println!(
        "100 sessions one after another: {lost} lost, {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let began = Instant::now();
    let all: Vec<_> = (0..20).map(|_| task::spawn(one())).collect();
    let mut lost = 0;
    for session in all {
        lost += usize::from(session.await.stdout != b"fine\n");
    }
    println!(
        "20 sessions at once: {lost} lost, {:.1} s",
        began.elapsed().as_secs_f64()
    );

    until("bridges have ended", || children_of(daemon.id()).is_empty()).await;
    until("sessions have ended", || {
        descriptors(rendezvous.id()) <= before.0
    })
    .await;
    println!(
        "left behind: rendezvous {} descriptors (before: {}), daemon {} (before: {}), {} bridges, ports {:?}",
        descriptors(rendezvous.id()),
        before.0,
        descriptors(daemon.id()),
        before.1,
        children_of(daemon.id()).len(),
        listening_ports(rendezvous.id()).unwrap_or_default()
    );
}

/// 100 sessions of 4.0, of which 20 are killed, beside a person who edits `authorized_keys`.
async fn old() {
    let began = Instant::now();
    let run = world::sessions::old_sessions(100, 20).await;
    println!(
        "100 sessions of 4.0, {} killed, {} edits by hand: {} lost, authorized_keys byte-identical: {}, left behind: \
         {:?}, {:.1} s",
        run.killed,
        run.edits,
        run.lost,
        run.is_untouched,
        run.leftovers,
        began.elapsed().as_secs_f64()
    );
}

/// 200 connections at the same time through one session, 50 times; each says what no other says, and hears it again.
async fn tunnel() {
    let world = World::start().await;
    let echo = world::answer_at_the_end().await;
    let rendezvous = world.rendezvous_process();
    let permit = format!("localhost:{echo}");
    let who = ["daemon", "--as", world::DEVICE, "--manager", world::ALICE];
    let what = ["--device", world::NAME, "--permit-open", &permit];
    let daemon = world.process(&[&who[..], &what].concat());
    let forward = format!("0:localhost:{echo}");
    let mut command = world.noports(&["tunnel", "--as", world::ALICE, "--to", world::DEVICE]);
    command.args(["--device", world::NAME, "--json", "--forward", &forward]);
    let mut tunnel = Process(command.stdout(Stdio::piped()).spawn().expect("it starts"));
    let mut line = String::new();
    let stdout = tunnel.0.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let digits = line.split(r#""port":"#).nth(1).unwrap_or_default();
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    let port: u16 = digits.parse().expect("the port");
    let bridge = children_of(daemon.id())[0];
    let (mut wrong, began) = (0, Instant::now());
    for round in 0..50u64 {
        let all: Vec<_> = (0..200)
            .map(|n| std::thread::spawn(move || says_and_hears(port, round * 1000 + n)))
            .collect();
        let outcomes = all.into_iter().map(|one| one.join().unwrap_or(false));
        wrong += outcomes.filter(|right| !right).count();
    }
    println!(
        "200 connections at once, 50 times: {wrong} wrong, {:.1} s; peak resident memory, kB: \
         rendezvous {}, bridge {}, tunnel {}",
        began.elapsed().as_secs_f64(),
        peak_memory(rendezvous.id()),
        peak_memory(bridge),
        peak_memory(tunnel.id()),
    );
}

/// Some kilobytes of a pattern of its own, there and back.
fn says_and_hears(port: u16, seed: u64) -> bool {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = 1 + (state >> 7) % 40_000;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    let said: Vec<u8> = std::iter::repeat_with(next).take(length as usize).collect();
    let talk = || -> std::io::Result<bool> {
        let mut tcp = TcpStream::connect(("127.0.0.1", port))?;
        tcp.write_all(&said)?;
        tcp.shutdown(Shutdown::Write)?;
        let mut heard = Vec::new();
        tcp.read_to_end(&mut heard)?;
        Ok(heard == said)
    };
    talk().unwrap_or(false)
}

/// 1 GiB through ssh, hashed at both ends, and the most memory each part had resident.
async fn bytes() {
    let world = World::start().await;
    let sshd = world.sshd().await;
    let (rendezvous, daemon) = (world.rendezvous_process(), world.daemon_process(sshd.port));
    let mut command = ssh(&world, &sshd, "sha256sum");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Process(command.spawn().expect("ssh can be started"));
    let stdin = child.0.stdin.take().expect("it is piped");
    let began = Instant::now();
    let writer = task::spawn_blocking(move || write_a_gibibyte(stdin));
    until("the bridge is there", || {
        !children_of(daemon.id()).is_empty()
    })
    .await;
    let (bridge, client) = (children_of(daemon.id())[0], children_of(child.id())[0]);
    let sampler = task::spawn(async move {
        let mut peaks = (0, 0);
        while descriptors(bridge) > 0 {
            peaks = (
                peaks.0.max(peak_memory(bridge)),
                peaks.1.max(peak_memory(client)),
            );
            // Samples; what ends this is the bridge's end.
            task::sleep(Duration::from_millis(50)).await;
        }
        peaks
    });
    let ours = writer.await;
    let mut theirs = String::new();
    child
        .0
        .stdout
        .as_mut()
        .expect("it is piped")
        .read_to_string(&mut theirs)
        .expect("a hash");
    let took = began.elapsed().as_secs_f64();
    println!(
        "1 GiB through ssh: {:.0} MiB/s, same SHA-256: {}",
        1024.0 / took,
        theirs.starts_with(&ours)
    );
    let (bridge, client) = sampler.await;
    println!(
        "peak resident memory, kB: rendezvous {}, daemon {}, bridge {bridge}, client {client}",
        peak_memory(rendezvous.id()),
        peak_memory(daemon.id()),
    );
}

/// Returns the SHA-256 of what it wrote.
fn write_a_gibibyte(mut to: impl Write) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut block = vec![0u8; 1 << 20];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..1024 {
        for eight in block.chunks_exact_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            eight.copy_from_slice(&state.to_le_bytes());
        }
        hash.update(&block);
        to.write_all(&block).expect("the session takes it");
    }
    hash.finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// `VmHWM`, kB.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or_default()
}

/// `kill -9` of the atServer, 20 times: when do daemon and rendezvous serve again?
async fn kills() {
    let mut world = World::start().await;
    let sshd = world.sshd().await;
    let mut server = world.serve_from_a_process().await;
    let (_rendezvous, _daemon) = (world.rendezvous_process(), world.daemon_process(sshd.port));
    let mut command = ssh(&world, &sshd, "cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut lasting = Process(command.spawn().expect("ssh can be started"));
    let mut echo = |text: &str| {
        let mut back = vec![0; text.len()];
        lasting
            .0
            .stdin
            .as_mut()
            .expect("piped")
            .write_all(text.as_bytes())
            .expect("the session lives");
        lasting
            .0
            .stdout
            .as_mut()
            .expect("piped")
            .read_exact(&mut back)
            .expect("the session lives");
        assert_eq!(back, text.as_bytes());
    };
    echo("before");
    let mut worst = Duration::ZERO;
    for round in 0..20 {
        server.kill();
        echo("the atServer is gone");
        server = world.serve();
        let began = Instant::now();
        let done = output(ssh(&world, &sshd, "echo fine")).await;
        assert_eq!(
            done.stdout,
            b"fine\n",
            "round {round}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        worst = worst.max(began.elapsed());
    }
    echo("after all");
    println!(
        "20 kills of the atServer: the lasting session lives; slowest next session {:.1} s",
        worst.as_secs_f64()
    );
}
