//! Bytes on the wire: one reply is one TLS record, however the command came; and nothing is lost when a
//! monitor starts under load or the process dies.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_std::{
    io::{ReadExt, WriteExt},
    net::{Shutdown, TcpListener, TcpStream},
    task::{self, block_on},
};
use noports::net::dial::dial;

use super::{SOON, Wire, address, text};
use crate::world::{ALICE, DEVICE, World};

/// A reply that is longer comes in several records.
const PIECE: usize = 16 * 1024;

/// Lengths of the TLS records that came from the server.
type Records = Arc<Mutex<Vec<usize>>>;

/// A way to the atServer that looks at the server's records without being able to read them.
async fn tapped(world: &World, who: &str) -> (Wire, Records) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let way = listener.local_addr().unwrap();
    let server = address(world, who).await;
    let records = Records::default();
    let seen = records.clone();
    task::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = dial(&server, SOON).await.unwrap();
        let (mut from, mut to) = (client.clone(), server.clone());
        task::spawn(async move {
            let _ = async_std::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown(Shutdown::Write);
        });
        tap(server, client, &seen).await;
    });
    let tcp = TcpStream::connect(way).await.unwrap();
    (Wire::over(world, tcp).await, records)
}

async fn tap(mut server: TcpStream, mut client: TcpStream, seen: &Records) {
    let mut head = [0; 5];
    while server.read_exact(&mut head).await.is_ok() {
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        let mut body = vec![0; length];
        server.read_exact(&mut body).await.unwrap();
        // Before it goes on, so that whoever has read it can count it.
        seen.lock().unwrap().push(length);
        let whole = [&head[..], &body].concat();
        client.write_all(&whole).await.unwrap();
    }
    let _ = client.shutdown(Shutdown::Write);
}

#[test]
fn every_reply_is_one_record_with_its_prompt() {
    block_on(async {
        let world = World::start().await;
        let (mut wire, records) = tapped(&world, ALICE).await;
        let count = || records.lock().unwrap().len();
        // No session tickets behind the handshake: some clients take them for a reply.
        let mut so_far = count();
        for command in ["\r", "", "noop:0", "from:alice", "info", "scan", "nonsense"] {
            wire.ask(command).await;
            assert_eq!(count(), so_far + 1, "{command:?}");
            so_far += 1;
        }
        assert_eq!(wire.pkam(&world.keys(ALICE)).await, "data:success");
        assert_eq!(count(), so_far + 2);
        so_far += 2;
        let value = "v".repeat(PIECE - 100);
        let update = format!("update:large.ns@alice {value}");
        for command in [
            "noop:0",
            &update,
            "llookup:large.ns@alice",
            "llookup:all:public:publickey@alice",
            "llookup:none.ns@alice",
            "scan",
            "notify:@device:x.ns@alice:v",
            "stats:3",
            "config:block:show",
        ] {
            wire.ask(command).await;
            assert_eq!(count(), so_far + 1, "{command:.60}");
            so_far += 1;
        }
        let longest = *records.lock().unwrap().iter().max().unwrap();
        assert!(longest > PIECE - 100, "the large value was seen: {longest}");
        // Clients with fixed buffers read these.
        for command in [
            "noop:0",
            "notify:@device:x.ns@alice:v",
            "delete:large.ns@alice",
        ] {
            assert!(wire.ask_any(command).await.len() <= 64, "{command}");
        }
    });
}

#[test]
fn a_reply_above_the_size_of_a_record_is_whole() {
    block_on(async {
        let world = World::start().await;
        let (mut wire, records) = tapped(&world, ALICE).await;
        assert_eq!(wire.pkam(&world.keys(ALICE)).await, "data:success");
        for length in [PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, 1_000_000] {
            let value: String = (0..length)
                .map(|n| char::from(b'a' + (n % 26) as u8))
                .collect();
            wire.data(&format!("update:large.ns@alice {value}")).await;
            let before = records.lock().unwrap().len();
            assert_eq!(wire.data("llookup:large.ns@alice").await, value, "{length}");
            let taken = records.lock().unwrap().len() - before;
            let reply = length + "data:\n@alice@".len();
            assert_eq!(taken, reply.div_ceil(PIECE), "{length}");
        }
    });
}

#[test]
fn how_commands_are_cut_makes_no_difference() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        // One at a time, byte by byte, with either line end.
        for end in ["\n", "\r\n"] {
            for byte in format!("update:cut.ns@alice é{end}").bytes() {
                wire.send_raw(&[byte]).await;
            }
            let reply = wire.read().await.unwrap();
            assert!(
                reply.starts_with("data:") && reply.ends_with("\n@alice@"),
                "{reply}"
            );
            assert_eq!(wire.data("llookup:cut.ns@alice").await, "é");
        }
        // Many at once, and the end of the last one later.
        let all = "noop:0\r\nllookup:cut.ns@alice\n\r\nnoop:0\nnoo";
        wire.send_raw(all.as_bytes()).await;
        let mut got = String::new();
        let want = "data:ok\n@alice@data:é\n@alice@error:AT0003-Invalid syntax : invalid command\n@alice@data:ok\n@alice@";
        while got.len() < want.len() {
            got += &wire.read().await.unwrap();
        }
        assert_eq!(got, want);
        wire.send_raw(b"p:0\n").await;
        assert_eq!(wire.read().await.unwrap(), "data:ok\n@alice@");
    });
}

#[test]
fn a_monitor_that_starts_under_load_misses_and_repeats_nothing() {
    const NOTES: usize = 400;
    const MONITORS: usize = 6;
    block_on(async {
        let world = World::start().await;
        let mut alice = Wire::login(&world, ALICE).await;
        let mut lines = Vec::new();
        for _ in 0..MONITORS {
            lines.push(Wire::login(&world, DEVICE).await);
        }
        let (send, receive) = async_std::channel::unbounded();
        let sender = task::spawn(async move {
            for n in 0..NOTES {
                alice
                    .data(&format!("notify:id:n{n}:@device:load.ns@alice:{n}"))
                    .await;
                send.send(n).await.unwrap();
            }
        });
        let mut monitors = Vec::new();
        for mut line in lines {
            // Each begins somewhat later than the one before.
            for _ in 0..NOTES / (MONITORS + 1) {
                receive.recv().await.unwrap();
            }
            monitors.push(task::spawn(async move {
                line.send("monitor:0 load.ns").await;
                for n in 0..NOTES {
                    assert_eq!(text(&line.hear().await, "id"), format!("n{n}"));
                }
            }));
        }
        sender.await;
        for monitor in monitors {
            monitor.await;
        }
    });
}

#[test]
fn what_was_acknowledged_before_a_kill_is_delivered_once_after_it() {
    const ROUNDS: usize = 3;
    const EACH: usize = 8;
    block_on(async {
        let mut world = World::start().await;
        let mut server = world.serve_from_a_process().await;
        for round in 0..ROUNDS {
            let mut alice = Wire::login(&world, ALICE).await;
            for n in 0..EACH {
                let id = format!("r{round}n{n}");
                assert_eq!(
                    alice
                        .data(&format!("notify:id:{id}:@device:kill.ns@alice:{n}"))
                        .await,
                    id
                );
            }
            server.kill();
            server = world.serve();
        }
        let mut alice = Wire::login(&world, ALICE).await;
        let last = "end";
        alice.data("notify:id:end:@device:kill.ns@alice:v").await;
        let mut device = Wire::login(&world, DEVICE).await;
        device.send("monitor:0 kill.ns").await;
        for round in 0..ROUNDS {
            for n in 0..EACH {
                assert_eq!(text(&device.hear().await, "id"), format!("r{round}n{n}"));
            }
        }
        assert_eq!(text(&device.hear().await, "id"), last);
    });
}

#[test]
fn what_waits_for_a_recipient_who_blocks_survives_a_kill_and_arrives_when_it_may() {
    block_on(async {
        let mut world = World::start_with("localhost", |options| {
            options.timings.retry = Duration::from_millis(20);
        })
        .await;
        let mut alice = Wire::login(&world, ALICE).await;
        let mut device = Wire::login(&world, DEVICE).await;
        device.data("config:block:add:@alice").await;
        alice.data("notify:id:n1:@device:x.ns@alice:v").await;
        alice.until("notify:status:n1", "data:errored").await;
        device.data("config:block:remove:@alice").await;
        alice.until("notify:status:n1", "data:delivered").await;

        device.data("config:block:add:@alice").await;
        let mut server = world.serve_from_a_process().await;
        let mut alice = Wire::login(&world, ALICE).await;
        alice.data("notify:id:n2:@device:x.ns@alice:v").await;
        server.kill();
        let _server = world.serve();
        let mut device = Wire::login(&world, DEVICE).await;
        device.data("config:block:remove:@alice").await;
        let mut alice = Wire::login(&world, ALICE).await;
        device.monitor("monitor:0 x.ns").await;
        for id in ["n1", "n2"] {
            assert_eq!(text(&device.hear().await, "id"), id);
        }
        alice.until("notify:status:n2", "data:delivered").await;
    });
}
