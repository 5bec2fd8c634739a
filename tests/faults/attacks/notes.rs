//! Strangers who write: notes, records, lines.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use async_std::task;

use super::wire::{Attacker, Went, Wire};
use crate::site::NOBODY;

/// Longest life that may be asked for, in milliseconds: a year.
const YEAR: u64 = 366 * 24 * 3600 * 1000;
/// Lines on their way before the answers are waited for.
const BATCH: usize = 200;
/// What daemon and rendezvous listen for.
const BOTH: [(&str, &str); 2] = [("@device", "x.dev0.sshnp"), ("@rendezvous", "x.sshrvd")];

fn note(to: &str, key: &str, life: u64, value: &str) -> String {
    format!("notify:update:ttln:{life}:{to}:{key}{NOBODY}:{value}\n")
}

/// Says how far it has come; the last one counts.
fn told(what: &str, so: impl std::fmt::Display) {
    println!("{what} {so}");
}

/// One note that is longer, once its characters are escaped, than what others read.
pub async fn huge_note(own: Attacker) -> Went {
    for value in ["\"".repeat(6_000_000), "\"".repeat(3_000_000)] {
        for (to, key) in BOTH {
            let mut wire = own.login(NOBODY).await?;
            let line = note(to, key, YEAR, &value);
            let sent = wire.send(line.as_bytes()).await;
            let reply = match sent {
                Ok(()) => wire.lines(1).await,
                Err(why) => Err(why),
            };
            let reply = reply.unwrap_or_else(|why| why.to_string());
            told("answer", &reply[..reply.len().min(60)]);
        }
    }
    rest().await
}

/// 1,200 small ones to each, then the end.
pub async fn backlog(own: Attacker) -> Went {
    let mut wire = own.login(NOBODY).await?;
    let mut taken = 0;
    for (to, key) in BOTH {
        for _ in 0..6 {
            let line = note(to, key, YEAR, "v");
            taken += wire.pipeline(&vec![line; BATCH]).await?;
        }
    }
    told("taken", taken);
    Ok(())
}

/// Lines as fast as they are answered, on so many connections, until somebody ends this.
async fn pour(own: Attacker, wires: usize, line: impl Fn(usize) -> String + Sync) -> Went {
    let (next, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let one = async || -> Went {
        let mut wire = own.login(NOBODY).await?;
        loop {
            let first = next.fetch_add(BATCH, Relaxed);
            let lines: Vec<_> = (first..first + BATCH).map(&line).collect();
            let more = wire.pipeline(&lines).await?;
            let taken = taken.fetch_add(more, Relaxed) + more;
            told("said and taken", format!("{} {taken}", first + BATCH));
        }
    };
    again(wires, one).await
}

/// Does this so often at the same time; whatever ends begins again.
pub async fn again<F: Future<Output = Went>>(many: usize, one: impl Fn() -> F) -> Went {
    let endless = async || {
        loop {
            if let Err(why) = one().await {
                eprintln!("{why}");
            }
            task::sleep(Duration::from_millis(200)).await;
        }
    };
    let mut all: Vec<_> = (0..many).map(|_| Box::pin(endless())).collect();
    std::future::poll_fn(|context| {
        for one in &mut all {
            let _ = one.as_mut().poll(context);
        }
        std::task::Poll::<Went>::Pending
    })
    .await
}

/// 52,000 notes that live for a year, any key.
pub async fn full_inbox(own: Attacker) -> Went {
    pour(own, 4, |n| {
        let (to, _) = BOTH[n / BATCH % 2];
        note(to, &format!("q{n}.other"), YEAR, "v")
    })
    .await
}

/// Notes that match what the daemon listens for.
pub async fn note_flood(own: Attacker) -> Went {
    pour(own, 4, |n| {
        note("@device", &format!("x{n}.dev0.sshnp"), 60_000, "v")
    })
    .await
}

/// Cached values of one byte, each with a long key of its own.
pub async fn cached_rows(own: Attacker) -> Went {
    pour(own, 4, |n| {
        let long = "x".repeat(220);
        format!("notify:update:ttr:-1:@device:k{n:07}{long}{NOBODY}:v\n")
    })
    .await
}

/// Rules of a policy that are none of its own.
pub async fn planted_rules(own: Attacker) -> Went {
    pour(own, 4, |n| {
        let rule = r#"{"id":"1","name":"evil","userAtSigns":["@stranger"]}"#;
        format!("notify:update:ttr:-1:@policy:{n}.groups.policy.sshnp{NOBODY}:{rule}\n")
    })
    .await
}

/// Devices that are none, as a daemon tells of them.
pub async fn invent(own: Attacker, whom: &str, count: usize) -> Went {
    let who = "@aaa";
    let mut wire = own.login(who).await?;
    let about = r#"{"devicename":"d","version":"5.6.0","corePackageVersion":"6.0.0","supportedFeatures":{}}"#;
    let line = |n| format!("notify:update:ttr:-1:{whom}:device_info.d{n:04}.sshnp{who}:{about}\n");
    let all: Vec<_> = (0..count).map(line).collect();
    for some in all.chunks(BATCH) {
        wire.pipeline(some).await?;
    }
    Ok(())
}

/// 20 of half a megabyte.
pub async fn slow_line(own: Attacker) -> Went {
    let mut wire = own.login(NOBODY).await?;
    for n in 0..20 {
        let value = "v".repeat(500_000);
        let line = note("@device", &format!("x{n}.dev0.sshnp"), YEAR, &value);
        wire.pipeline(&[line]).await?;
        told("taken", n + 1);
    }
    rest().await
}

/// One line, 20,000 recipients that are nobody; again when it is answered.
pub async fn many_recipients(own: Attacker) -> Went {
    let mut wire = own.login(NOBODY).await?;
    for round in 0.. {
        let names: Vec<_> = (0..20_000).map(|n| format!("@x{round}x{n:05}")).collect();
        let line = format!("notify:all:update:{}:k.x{NOBODY}:v", names.join(","));
        let reply = wire.ask(&line).await?;
        told("answer", &reply[..reply.len().min(60)]);
        task::sleep(Duration::from_secs(20)).await;
    }
    Ok(())
}

/// 400 records of two megabytes, and such ones for another.
pub async fn fill_disk(own: Attacker) -> Went {
    let value = "v".repeat(2_000_000);
    let mut wire = own.login(NOBODY).await?;
    let mut kept = 0;
    for n in 0..400 {
        for key in [format!("r{n}.x{NOBODY}"), format!("@device:s{n}.x{NOBODY}")] {
            match wire.ask(&format!("update:{key} {value}")).await {
                Ok(reply) if reply.starts_with("data:") => kept += 1,
                Ok(reply) => told("refused", &reply[..reply.len().min(90)]),
                Err(_) => wire = own.login(NOBODY).await?,
            }
        }
        told("kept", kept);
    }
    rest().await
}

/// Somebody stores nine megabytes for all; 300 without a login want them, and hardly read.
pub async fn slow_readers(own: Attacker) -> Went {
    let value = "v".repeat(9_000_000);
    let mut home = own.login(NOBODY).await?;
    let line = format!("update:public:big.x{NOBODY} {value}");
    told("stored", &home.ask(&line).await?[..5]);
    let at = own.address(NOBODY).await?;
    let mut all: Vec<Wire> = Vec::new();
    loop {
        while all.len() < 300 {
            let mut wire = own.open(&at, None).await?;
            wire.send(format!("lookup:big.x{NOBODY}\n").as_bytes())
                .await?;
            all.push(wire);
        }
        told("readers", all.len());
        let mut left = Vec::new();
        for mut wire in all {
            let mut sip = vec![0; 16 * 1024];
            let sipped = async_std::future::timeout(Duration::from_millis(20), wire.sip(&mut sip));
            if !matches!(sipped.await, Ok(Ok(0) | Err(_))) {
                left.push(wire);
            }
        }
        all = left;
        task::sleep(Duration::from_secs(2)).await;
    }
}

/// Holds what there is until somebody ends this.
pub async fn rest() -> Went {
    std::future::pending().await
}
