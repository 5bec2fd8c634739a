//! An atServer that is killed again and again under load: what it acknowledged is counted afterwards.
//!
//! ```text
//!   writers ── updates, notifies, enrolments ──▶ atServer ──▶ monitor, which resumes from the last time it saw
//!                                                  ▲
//!                                     kill -9, at a random moment; start again; compare
//! ```
//! `cargo bench --bench crash -- 1000` kills a thousand times (100 without a number). Ends with 1 unless all counts
//! are 0.

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#![allow(clippy::unwrap_used)]

#[path = "line.rs"]
mod line;
#[path = "../world/mod.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod world;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_std::task;
use line::{Line, member};
use noports::at::directory;
use world::{ALICE, DEVICE, World, support::becomes};

/// Connections that write.
const WRITERS: usize = 3;
/// Keys of each of them; small, so that each is written many times.
const KEYS: usize = 8;

/// What the server has said.
#[derive(Default)]
struct Told {
    /// Per key: the last value acknowledged, and the last one sent.
    values: HashMap<String, (u64, u64)>,
    /// Ids of notifications acknowledged.
    notes: Vec<String>,
    /// Ids of enrolments acknowledged and not yet looked at.
    enrolments: Vec<String>,
    commits: HashSet<u64>,
    acknowledged: u64,
}

/// What went wrong.
#[derive(Debug, Default)]
struct Wrong {
    updates_lost: usize,
    enrolments_lost: usize,
    notifications_lost: usize,
    notifications_twice: usize,
    commit_ids_reused: usize,
}

struct Ground {
    world: World,
    alice: u16,
    device: u16,
}

fn main() {
    let rounds: usize = std::env::args()
        .skip(1)
        .find_map(|word| word.parse().ok())
        .unwrap_or(100);
    let wrong = task::block_on(run(rounds));
    let Wrong {
        updates_lost,
        enrolments_lost,
        notifications_lost,
        notifications_twice,
        commit_ids_reused,
    } = wrong;
    println!("acknowledged updates lost      {updates_lost:>8}");
    println!("acknowledged enrolments lost   {enrolments_lost:>8}");
    println!("notifications lost             {notifications_lost:>8}");
    println!("notifications delivered twice  {notifications_twice:>8}");
    println!("commit ids used twice          {commit_ids_reused:>8}");
    let all = updates_lost
        + enrolments_lost
        + notifications_lost
        + notifications_twice
        + commit_ids_reused;
    std::process::exit(i32::from(all > 0));
}

async fn run(rounds: usize) -> Wrong {
    let mut world = World::start().await;
    let port = async |world: &World, who: &str| {
        let (root, tls) = (&world.network.root, &world.network.tls);
        let found = directory::find(root, tls, &who.parse().unwrap()).await;
        found.unwrap().unwrap().port
    };
    let (alice, device) = (port(&world, ALICE).await, port(&world, DEVICE).await);
    world.stop().await;
    let ground = Arc::new(Ground {
        world,
        alice,
        device,
    });
    let told = Arc::new(Mutex::new(Told::default()));
    let heard = Arc::new(Mutex::new((Vec::<String>::new(), 0u64)));
    let (mut wrong, began) = (Wrong::default(), Instant::now());
    for round in 0..rounds {
        let mut server = ground.world.serve();
        let monitor = task::spawn(listen(ground.clone(), heard.clone()));
        compare(&ground, &told, &mut wrong).await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| task::spawn(write(ground.clone(), told.clone(), n, round)))
            .collect();
        // Time is the subject: killed at another moment each time.
        task::sleep(Duration::from_millis(20 + u64::from(random()))).await;
        server.kill();
        for writer in writers {
            wrong.commit_ids_reused += writer.await;
        }
        monitor.await;
        if (round + 1) % 50 == 0 {
            let acknowledged = told.lock().unwrap().acknowledged;
            println!(
                "{:>5} kills, {acknowledged} acknowledged, {wrong:?}",
                round + 1
            );
        }
    }
    let _server = ground.world.serve();
    compare(&ground, &told, &mut wrong).await;
    settle(&ground, &told, &heard, &mut wrong).await;
    let told = told.lock().unwrap();
    println!("kills                          {rounds:>8}");
    println!(
        "seconds                        {:>8}",
        began.elapsed().as_secs()
    );
    println!("acknowledged writes            {:>8}", told.acknowledged);
    println!("  of them notifications        {:>8}", told.notes.len());
    wrong
}

fn random() -> u8 {
    uuid::Uuid::new_v4().as_bytes()[0]
}

/// Writes until the server is gone; returns how many commit ids came twice or went back.
async fn write(ground: Arc<Ground>, told: Arc<Mutex<Told>>, number: usize, round: usize) -> usize {
    let mut reused = 0;
    let (tls, keys) = (&ground.world.network.tls, ground.world.keys(ALICE));
    let Some(mut line) = Line::login(tls, ground.alice, ALICE, &keys.pkam).await else {
        return reused;
    };
    let mut own_newest = None;
    for n in 0.. {
        match n % 8 {
            // Few enough that all of them fit into the recipient's inbox: nothing expires here.
            3 | 6 if n < 64 => {
                let id = uuid::Uuid::new_v4();
                let command = format!("notify:id:{id}:ttln:3600000:{DEVICE}:n.crash{ALICE}:{n}");
                let Some(reply) = line.ask(&command).await else {
                    break;
                };
                assert_eq!(reply, format!("data:{id}"), "{command}");
                let mut told = told.lock().unwrap();
                told.notes.push(id.to_string());
                told.acknowledged += 1;
            }
            // A connection may ask five times in an hour.
            7 if n < 32 => {
                let command = format!(
                    r#"enroll:request:{{"appName":"crash","deviceName":"d{number}r{round}n{n}","namespaces":{{"crash":"rw"}},"apkamPublicKey":"k"}}"#
                );
                let Some(reply) = line.ask(&command).await else {
                    break;
                };
                let id = member(&reply, "enrollmentId").unwrap_or_else(|| panic!("{reply}"));
                let mut told = told.lock().unwrap();
                told.enrolments.push(id.to_owned());
                told.acknowledged += 1;
            }
            _ => {
                let key = format!("k{}w{number}.crash{ALICE}", n % KEYS);
                let value = {
                    let mut told = told.lock().unwrap();
                    let (_, sent) = told.values.entry(key.clone()).or_default();
                    *sent += 1;
                    *sent
                };
                let Some(reply) = line.ask(&format!("update:{key} {value}")).await else {
                    break;
                };
                let id = reply
                    .strip_prefix("data:")
                    .and_then(|id| id.parse::<u64>().ok());
                let id = id.unwrap_or_else(|| panic!("{reply}"));
                let mut told = told.lock().unwrap();
                told.values.entry(key).and_modify(|(kept, _)| *kept = value);
                reused += usize::from(!told.commits.insert(id) || own_newest >= Some(id));
                own_newest = Some(id);
                told.acknowledged += 1;
            }
        }
    }
    reused
}

/// Whether all that was acknowledged is there, on the server that has just started.
async fn compare(ground: &Ground, told: &Mutex<Told>, wrong: &mut Wrong) {
    let (tls, keys) = (&ground.world.network.tls, ground.world.keys(ALICE));
    let line = Line::login(tls, ground.alice, ALICE, &keys.pkam).await;
    let mut line = line.expect("the server is back");
    let (values, enrolments) = {
        let mut told = told.lock().unwrap();
        (told.values.clone(), std::mem::take(&mut told.enrolments))
    };
    for (key, (kept, sent)) in values {
        let reply = line.ask(&format!("llookup:{key}")).await.expect("a reply");
        let found = reply
            .strip_prefix("data:")
            .and_then(|value| value.parse().ok());
        // What was not acknowledged may have been written or not.
        if found.unwrap_or(0) < kept || found.unwrap_or(0) > sent {
            wrong.updates_lost += 1;
            println!("{key}: {reply}, acknowledged {kept}, sent {sent}");
        }
    }
    for id in enrolments {
        let about = format!(r#"{{"enrollmentId":"{id}"}}"#);
        let reply = line
            .ask(&format!("enroll:fetch:{about}"))
            .await
            .expect("a reply");
        wrong.enrolments_lost += usize::from(!reply.contains("crash"));
        for end in ["deny", "delete"] {
            line.ask(&format!("enroll:{end}:{about}"))
                .await
                .expect("a reply");
        }
    }
    // The next id is above all that were ever told.
    let reply = line
        .ask(&format!("update:probe.crash{ALICE} 1"))
        .await
        .expect("a reply");
    let id: u64 = reply.strip_prefix("data:").unwrap().parse().unwrap();
    let mut told = told.lock().unwrap();
    let newest = told.commits.iter().copied().max().unwrap_or(0);
    wrong.commit_ids_reused += usize::from(id <= newest && !told.commits.is_empty());
    // Older ones cannot come again without being found by this.
    told.commits.clear();
    told.commits.insert(id);
}

/// A monitor that goes on where it was, until the server is gone.
async fn listen(ground: Arc<Ground>, heard: Arc<Mutex<(Vec<String>, u64)>>) {
    let (tls, keys) = (&ground.world.network.tls, ground.world.keys(DEVICE));
    let Some(mut line) = Line::login(tls, ground.device, DEVICE, &keys.pkam).await else {
        return;
    };
    let last = heard.lock().unwrap().1;
    if line.send(&format!("monitor:{last} crash")).await.is_none() {
        return;
    }
    while let Some(note) = line.next().await {
        if !note.starts_with("notification:") || member(&note, "id") == Some("-1") {
            continue;
        }
        let (id, at) = (member(&note, "id"), member(&note, "epochMillis"));
        let (id, at) = (id.unwrap().to_owned(), at.unwrap().parse::<u64>().unwrap());
        let mut heard = heard.lock().unwrap();
        heard.1 = heard.1.max(at);
        heard.0.push(id);
    }
}

/// Waits for what is still on its way, then counts.
async fn settle(
    ground: &Arc<Ground>,
    told: &Mutex<Told>,
    heard: &Arc<Mutex<(Vec<String>, u64)>>,
    wrong: &mut Wrong,
) {
    let monitor = task::spawn(listen(ground.clone(), heard.clone()));
    let sent: HashSet<String> = told.lock().unwrap().notes.iter().cloned().collect();
    let missing = || {
        let heard: HashSet<String> = heard.lock().unwrap().0.iter().cloned().collect();
        sent.difference(&heard).count()
    };
    becomes(|| missing() == 0).await;
    wrong.notifications_lost = missing();
    let mut times: HashMap<String, usize> = HashMap::new();
    for id in &heard.lock().unwrap().0 {
        *times.entry(id.clone()).or_default() += 1;
    }
    wrong.notifications_twice = times.values().filter(|times| **times > 1).count();
    monitor.cancel().await;
}
