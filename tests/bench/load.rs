//! A thousand atSigns in one atServer process: memory, notifications end to end, durable updates; and, in the same run,
//! a bare TLS echo and a bare `fsync`, which nothing of this kind can beat.
//!
//! `cargo bench --bench load -- 1000 [executable]` takes the number of atSigns; their monitors are all open while the rest is
//! measured. What the server's threads have worked is a figure that other programs on the machine change little.

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
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_std::task;
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt};
use ground::{Ground, name, resident};
use line::{Line, member};
use noports::{server::authority, sys::process::raise_descriptor_limit};
use world::{NOPORTS, Process, World, support::becomes};

/// Connections that work at the same time.
const BUSY: usize = 50;
/// A second, in what the kernel counts work in for programs.
const TICKS: f64 = 100.0;
/// How long each figure is measured.
const LENGTH: Duration = Duration::from_secs(10);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count = words.iter().find_map(|word| word.parse().ok());
    let program = words.iter().find(|word| word.contains('/'));
    let program = program.map_or(NOPORTS, String::as_str);
    raise_descriptor_limit();
    task::block_on(run(count.unwrap_or(1000), program));
}

async fn run(count: usize, program: &str) {
    let mut world = World::empty("localhost", |_| {}).await;
    let ground = Arc::new(Ground::of(&mut world, count).await);
    let began = Instant::now();
    let server = world.serve_as(program, &[]);
    row("ready after", began.elapsed().as_secs_f64() * 1e3, "ms");
    row("atSigns", count as f64, "");
    row(
        "resident, nobody connected",
        resident(&server) / 1024.0,
        "MB",
    );
    let arrivals = Arc::new(Mutex::new(HashMap::new()));
    let began = Instant::now();
    let monitors = open_monitors(&ground, &arrivals).await;
    row("monitors", monitors.len() as f64, "");
    row(
        "logins per second",
        count as f64 / began.elapsed().as_secs_f64(),
        "",
    );
    row(
        "resident, all monitors idle",
        resident(&server) / 1024.0,
        "MB",
    );
    let worked = processor(&server);
    let sent = notifications(&ground, &arrivals).await;
    let worked = processor(&server) - worked;
    row("server's processor time, each", worked * 1e6 / sent, "µs");
    row(
        "resident after notifications",
        resident(&server) / 1024.0,
        "MB",
    );
    for busy in [1, BUSY] {
        let worked = processor(&server);
        let rate = updates(&ground, busy).await;
        let worked = (processor(&server) - worked) / (rate * LENGTH.as_secs_f64());
        row(
            &format!("durable updates per second, {busy} writers"),
            rate,
            "",
        );
        row("server's processor time, each", worked * 1e6, "µs");
    }
    row("bare fsync per second", fsyncs(&world), "");
    for busy in [1, BUSY] {
        let rate = echo(&world, busy).await;
        row(
            &format!("bare TLS echoes per second, {busy} connections"),
            rate,
            "",
        );
    }
    row("resident at the end", resident(&server) / 1024.0, "MB");
}

fn row(what: &str, figure: f64, unit: &str) {
    println!("{what:<48}{figure:>12.1} {unit}");
}

type Arrivals = Arc<Mutex<HashMap<String, Instant>>>;

/// One for each atSign; each notes when it was shown what.
async fn open_monitors(ground: &Arc<Ground>, arrivals: &Arrivals) -> Vec<task::JoinHandle<()>> {
    let mut open = Vec::new();
    for number in 0..ground.ports.len() {
        let mut line = ground.login(number).await;
        line.send("monitor").await.unwrap();
        assert_eq!(line.ask("noop:0").await.as_deref(), Some("data:ok"));
        let arrivals = arrivals.clone();
        open.push(task::spawn(async move {
            while let Some(note) = line.next().await {
                if let Some(id) = member(&note, "id").filter(|id| *id != "-1") {
                    let mut arrivals = arrivals.lock().unwrap();
                    arrivals.insert(id.to_owned(), Instant::now());
                }
            }
        }));
    }
    open
}

/// From many senders, each to a recipient of its own, as fast as they are acknowledged.
///
/// How many.
async fn notifications(ground: &Arc<Ground>, arrivals: &Arrivals) -> f64 {
    let began = Instant::now();
    let pairs = BUSY.min(ground.ports.len() / 2);
    let senders: Vec<_> = (0..pairs)
        .map(|from| {
            let ground = ground.clone();
            task::spawn(async move {
                let (mut line, mut sent) = (ground.login(from).await, Vec::new());
                let (from, to) = (name(from), name(from + pairs));
                while began.elapsed() < LENGTH {
                    let id = uuid::Uuid::new_v4();
                    let start = Instant::now();
                    let value = "v".repeat(300);
                    let command = format!("notify:id:{id}:ttln:60000:{to}:n.load{from}:{value}");
                    assert_eq!(line.ask(&command).await, Some(format!("data:{id}")));
                    sent.push((id.to_string(), start, Instant::now()));
                }
                sent
            })
        })
        .collect();
    let mut sent = Vec::new();
    for sender in senders {
        sent.extend(sender.await);
    }
    let arrived = becomes(|| arrivals.lock().unwrap().len() >= sent.len()).await;
    let seconds = began.elapsed().as_secs_f64();
    let arrivals = arrivals.lock().unwrap();
    let missing = sent.len() - arrivals.len();
    row("notifications missing", missing as f64, "");
    assert!(arrived);
    row(
        &format!("notifications per second, {pairs} pairs"),
        sent.len() as f64 / seconds,
        "",
    );
    let from_start = |(id, start, _): &(String, Instant, Instant)| arrivals[id] - *start;
    let from_reply =
        |(id, _, told): &(String, Instant, Instant)| arrivals[id].saturating_duration_since(*told);
    percentiles("sent to shown", sent.iter().map(from_start).collect());
    percentiles(
        "acknowledged to shown",
        sent.iter().map(from_reply).collect(),
    );
    sent.len() as f64
}

/// What all threads of a process have worked since it began, in seconds.
fn processor(process: &Process) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    // Behind the name, which may hold anything: user and system are the twelfth and thirteenth.
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = [11, 12].map(|place: usize| fields[place].parse::<f64>().unwrap());
    ticks.iter().sum::<f64>() / TICKS
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort();
    for percent in [50, 99] {
        let at = times[(times.len() - 1) * percent / 100];
        row(&format!("{what}, p{percent}"), at.as_secs_f64() * 1e3, "ms");
    }
}

async fn updates(ground: &Arc<Ground>, writers: usize) -> f64 {
    let began = Instant::now();
    let writing: Vec<_> = (0..writers.min(ground.ports.len()))
        .map(|number| {
            let ground = ground.clone();
            task::spawn(async move {
                let (mut line, mut count) = (ground.login(number).await, 0);
                while began.elapsed() < LENGTH {
                    let command =
                        format!("update:k{}.load{} value {count}", count % 100, name(number));
                    let reply = line.ask(&command).await.unwrap();
                    assert!(reply.starts_with("data:"), "{reply}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut all = 0;
    for writer in writing {
        all += writer.await;
    }
    f64::from(all) / began.elapsed().as_secs_f64()
}

/// A page written over itself again and again, each time flushed to the disk, where the store is.
fn fsyncs(world: &World) -> f64 {
    let file = File::create(world.dir.path("at/probe")).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    let (began, mut count) = (Instant::now(), 0u32);
    while began.elapsed() < LENGTH / 2 {
        file.write_all_at(&count.to_le_bytes().repeat(1024), 0)
            .unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// Lines of the same size, sent back by a task that does nothing else.
async fn echo(world: &World, connections: usize) -> f64 {
    let authority = authority::open_or_make(&world.dir.path("at")).unwrap();
    let acceptor = authority.leaf(&[]).unwrap().acceptor().unwrap();
    let door = async_std::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap();
    let port = door.local_addr().unwrap().port();
    let serving = task::spawn(async move {
        let mut incoming = door.incoming();
        while let Some(Ok(tcp)) = incoming.next().await {
            let acceptor = acceptor.clone();
            task::spawn(async move {
                let Ok((mut tls, _)) = acceptor.accept(tcp, line::SOON).await else {
                    return;
                };
                let mut buffer = [0; 1024];
                while let Ok(read @ 1..) = tls.read(&mut buffer).await {
                    if tls.write_all(&buffer[..read]).await.is_err() || tls.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let began = Instant::now();
    let asking: Vec<_> = (0..connections)
        .map(|_| {
            let tls = world.network.tls.clone();
            task::spawn(async move {
                let (mut line, mut count) = (Line::open(&tls, port).await.unwrap(), 0);
                while began.elapsed() < LENGTH / 2 {
                    line.ask("update:k1.load@load1 value 1").await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut all = 0;
    for asker in asking {
        all += asker.await;
    }
    serving.cancel().await;
    f64::from(all) / began.elapsed().as_secs_f64()
}
