//! What whoever runs an atServer does with it: backup and restore, certificates, health, stopping and starting.

use std::{fs, process::Command, time::Duration};

use async_std::{
    io::{ReadExt, WriteExt},
    net::TcpStream,
    task,
    task::block_on,
};
use miniserde::json;
use noports::{
    at::{
        Metadata,
        client::{Client, Event, Outgoing},
    },
    net::tls::Connector,
    server::authority,
};

use crate::{
    atserver::{Wire, object, text},
    world::{ALICE, DEVICE, Process, World, failure, stdout},
};

/// SIGTERM, and wait for the end.
async fn stop(mut server: Process) {
    let id = server.id().to_string();
    let told = Command::new("kill").args(["-TERM", &id]).status();
    assert!(told.unwrap().success());
    let ended = task::spawn_blocking(move || server.0.wait().unwrap()).await;
    assert!(ended.success(), "{ended:?}");
}

async fn asked(world: &World, words: &[&str]) -> json::Object {
    let said = stdout(world.noports(&[&["atserver"], words, &["--json"]].concat())).await;
    object(said.trim())
}

#[test]
fn a_backup_taken_under_load_is_served_from_another_folder() {
    block_on(async {
        let mut world = World::start().await;
        let server = world.serve_from_a_process().await;
        let (data, file) = (world.dir.text("at"), world.dir.text("backup"));
        let mut owner = Wire::login(&world, ALICE).await;
        owner.data("update:before.tests@alice there").await;
        owner.data("update:n.tests@alice 0").await;
        let writing = async {
            for n in 1.. {
                owner.data(&format!("update:n.tests@alice {n}")).await;
                if fs::exists(&file).unwrap() {
                    return n;
                }
            }
            unreachable!("it ends with the backup")
        };
        let words = ["backup", &file, "--data", &data];
        let backup = asked(&world, &words);
        let (made, last) = futures_lite::future::zip(backup, writing).await;
        assert_eq!(text(&made, "event"), "backup");
        let again = ["atserver", "backup", &file, "--data", &data];
        let (code, told) = failure(world.noports(&again)).await;
        assert!(code == 1 && told.contains("already exists"), "{told}");

        let restore = ["atserver", "restore", &file, "--data", &data, "--force"];
        let (code, told) = failure(world.noports(&restore)).await;
        assert!(
            code == 1 && told.contains("stop the server first"),
            "{told}"
        );
        stop(server).await;
        let (code, told) = failure(world.noports(&restore[..5])).await;
        assert!(code == 1 && told.contains("not empty"), "{told}");

        let other = world.dir.text("other");
        asked(&world, &["restore", &file, "--data", &other]).await;
        fs::rename(world.dir.path("at"), world.dir.path("gone")).unwrap();
        fs::rename(&other, world.dir.path("at")).unwrap();
        // The same authority, ports and keys: clients do not notice.
        let _server = world.serve();
        let mut owner = Wire::login(&world, ALICE).await;
        assert_eq!(owner.data("llookup:before.tests@alice").await, "there");
        let kept: u32 = owner.data("llookup:n.tests@alice").await.parse().unwrap();
        assert!(kept <= last, "{kept} of {last}");
    });
}

#[test]
fn a_damaged_backup_is_refused_and_changes_nothing() {
    block_on(async {
        let mut world = World::start().await;
        world.stop().await;
        let (data, file) = (world.dir.text("at"), world.dir.text("backup"));
        asked(&world, &["backup", &file, "--data", &data]).await;
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.windows(10).position(|w| w == b"publickey@").unwrap();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let store = fs::read(world.dir.path("at/atserver.redb")).unwrap();
        let words = ["atserver", "restore", &file, "--data", &data, "--force"];
        let (code, told) = failure(world.noports(&words)).await;
        assert!(
            code == 1 && told.contains("not a complete backup"),
            "{told}"
        );
        assert!(fs::read(world.dir.path("at/atserver.redb")).unwrap() == store);
        let _server = world.serve();
        Wire::login(&world, ALICE).await;
    });
}

#[test]
fn the_authority_is_replaced_while_clients_move_over() {
    block_on(async {
        let mut world = World::start().await;
        world.stop().await;
        let (data, ca) = (world.dir.text("at"), world.dir.path("at/ca.pem"));
        let trust = |name: &str| {
            let file = world.dir.path(name);
            fs::copy(&ca, &file).unwrap();
            Connector::new(&[file]).unwrap()
        };
        let old = trust("old.pem");
        asked(&world, &["rotate-ca", "--data", &data]).await;
        let both = trust("both.pem");
        let exported = asked(&world, &["export-ca", "--data", &data]).await;
        assert_eq!(
            text(&exported, "ca").matches("BEGIN CERTIFICATE").count(),
            2
        );
        let mut network = world.network.clone();
        let mut logs_in = async |tls: &Connector| {
            network.tls = tls.clone();
            Client::login(&network, world.keys(ALICE)).await.is_ok()
        };
        let server = world.serve();
        assert!(logs_in(&old).await && logs_in(&both).await);
        stop(server).await;
        asked(&world, &["rotate-ca", "--finish", "--data", &data]).await;
        let new = trust("new.pem");
        let _server = world.serve();
        assert!(logs_in(&both).await && logs_in(&new).await);
        assert!(
            !logs_in(&old).await,
            "the old authority signs nothing any more"
        );
    });
}

#[test]
fn a_certificate_from_elsewhere_is_shown() {
    block_on(async {
        let mut world = World::start().await;
        world.stop().await;
        let elsewhere = authority::open_or_make(&world.dir.path("elsewhere")).unwrap();
        let leaf = elsewhere.leaf(&["localhost".into()]).unwrap();
        let (cert, key) = (world.dir.text("cert.pem"), world.dir.text("key.pem"));
        fs::write(&cert, &leaf.chain).unwrap();
        fs::write(&key, leaf.key.reveal()).unwrap();
        let data = world.dir.text("at");
        let words = ["atserver", "serve", "--data", &data, "--tls-cert", &cert];
        let (code, told) = failure(world.noports(&words)).await;
        assert!(code == 2 && told.contains("--tls-key"), "{told}");
        let other_key = world.dir.text("at/ca.key");
        let wrong = [&words[..], &["--tls-key", &other_key]].concat();
        let (code, told) = failure(world.noports(&wrong)).await;
        assert!(code == 1 && told.contains("our own certificate"), "{told}");
        let _server = world.serve_with(&["--tls-cert", &cert, "--tls-key", &key]);
        let mut network = world.network.clone();
        assert!(Client::login(&network, world.keys(ALICE)).await.is_err());
        network.tls = Connector::new(&[elsewhere.ca_file()]).unwrap();
        Client::login(&network, world.keys(ALICE)).await.unwrap();
    });
}

#[test]
fn nothing_is_made_or_lost_by_a_slip() {
    block_on(async {
        let mut world = World::start().await;
        world.stop().await;
        let (data, typo) = (world.dir.text("at"), world.dir.text("ta"));
        let yes = "--yes";
        for (words, code, want) in [
            (&["list", "--data", &typo][..], 1, "no data of an atServer"),
            (
                &["remove", ALICE, yes, "--data", &typo],
                1,
                "no data of an atServer",
            ),
            (&["status", "--data", &typo], 4, "no server is running"),
            (
                &["remove", ALICE, "--data", &data],
                2,
                "needs a confirmation",
            ),
            (
                &["remove", "@bob", yes, "--data", &data],
                1,
                "@bob is not hosted here",
            ),
        ] {
            let (exit, told) = failure(world.noports(&[&["atserver"], words].concat())).await;
            assert_eq!(exit, code, "{words:?}: {told}");
            assert!(
                told.contains(want) && told.contains("\n  hint: "),
                "{words:?}: {told}"
            );
        }
        assert!(!world.dir.path("ta").exists());
        let words = ["remove", ALICE, yes, "--data", &data];
        assert_eq!(text(&asked(&world, &words).await, "event"), "removed");
        let left = stdout(world.noports(&["atserver", "list", "--data", &data])).await;
        assert!(left.contains(DEVICE) && !left.contains(ALICE), "{left}");
    });
}

async fn get(at: &str, what: &str) -> String {
    let mut socket = TcpStream::connect(at).await.unwrap();
    let request = format!("GET {what} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    // The answer ends where its length says; we close first.
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer).await.unwrap() {
            0 => return all,
            read => all += str::from_utf8(&buffer[..read]).unwrap(),
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    door.local_addr().unwrap().port()
}

#[test]
fn health_and_numbers_are_told_on_loopback() {
    block_on(async {
        let mut world = World::start().await;
        world.stop().await;
        let at = format!("127.0.0.1:{}", free_port());
        let _server = world.serve_with(&["--metrics", &at]);
        let mut owner = Wire::login(&world, ALICE).await;
        owner.data("update:x.tests@alice 1").await;
        let health = get(&at, "/health").await;
        assert!(
            health.starts_with("HTTP/1.1 200 OK") && health.ends_with("\r\n\r\nok\n"),
            "{health}"
        );
        let numbers = get(&at, "/metrics").await;
        for line in [
            "noports_atserver_atsigns 3",
            "noports_atserver_logins_total 1",
            "noports_atserver_store_failures_total 0",
            "# TYPE noports_atserver_store_commits_total counter",
        ] {
            assert!(
                numbers.lines().any(|found| found == line),
                "{line}\n{numbers}"
            );
        }
        assert!(!numbers.contains("alice"), "no names: {numbers}");
        assert!(get(&at, "/other").await.starts_with("HTTP/1.1 404"));
        let data = world.dir.text("at");
        let words = [
            "atserver",
            "serve",
            "--data",
            &data,
            "--metrics",
            "0.0.0.0:0",
        ];
        let (code, told) = failure(world.noports(&words)).await;
        assert!(code == 1 && told.contains("loopback"), "{told}");
    });
}

#[test]
fn restarts_lose_no_notification_and_deliver_none_twice() {
    block_on(async {
        let mut world = World::start().await;
        let mut server = world.serve_from_a_process().await;
        let device = Client::login(&world.network, world.keys(DEVICE))
            .await
            .unwrap();
        let mut heard = device.subscribe("tests", false).await.unwrap();
        let alice = Client::login(&world.network, world.keys(ALICE))
            .await
            .unwrap();
        let device_sign = DEVICE.parse().unwrap();
        let first = alice.put_shared(&device_sign, "first", "v", Metadata::default());
        first.await.unwrap();
        let (mut sent, mut seen) = (Vec::new(), Vec::new());
        for round in 0..4 {
            for n in 0..10 {
                let note = Outgoing {
                    to: DEVICE.parse().unwrap(),
                    entity: format!("r{round}n{n}.tests"),
                    text: "v".into(),
                    ttl: None,
                    ttln: 600_000,
                    metadata: Default::default(),
                };
                // Refused or cut off is not sent; what was acknowledged must arrive.
                if let Ok(id) = alice.notify(&note).await {
                    sent.push(id);
                }
            }
            stop(server).await;
            server = world.serve();
        }
        assert!(sent.len() >= 20, "{}", sent.len());
        let all = async {
            while !sent.iter().all(|id| seen.contains(id)) {
                if let Some(Event::Note(note)) = heard.next().await {
                    seen.push(note.id);
                }
            }
        };
        let arrived = async_std::future::timeout(Duration::from_secs(60), all).await;
        assert!(arrived.is_ok(), "{} of {} arrived", seen.len(), sent.len());
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "some came twice");
    });
}

#[test]
fn a_server_that_never_runs_for_long_purges_at_its_start() {
    block_on(async {
        let mut world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        for n in 0..700 {
            owner
                .data(&format!("notify:id:n{n}:ttln:1:@alice:x.tests@alice:v"))
                .await;
        }
        owner.data("notify:id:kept:@alice:x.tests@alice:v").await;
        owner.data("update:ttl:1:gone.tests@alice v").await;
        world.stop().await;
        // The first regular purge is minutes away.
        let _server = world.serve();
        let mut owner = Wire::login(&world, ALICE).await;
        let purged = async {
            loop {
                let stats = owner.data("stats:11").await;
                if stats.contains(r#"{\"total\":1,"#) {
                    break;
                }
            }
        };
        let purged = async_std::future::timeout(Duration::from_secs(30), purged).await;
        assert!(purged.is_ok(), "{}", owner.data("stats:11").await);
        owner.until("notify:status:kept", "data:delivered").await;
        let gone = "error:AT0015-key not found : gone.tests@alice does not exist in keystore";
        owner.until("llookup:gone.tests@alice", gone).await;
    });
}

/// The atSign was looked for before its secret had come through the pipe: the secret was lost.
#[test]
fn an_atsign_is_added_and_activated_through_a_pipe() {
    block_on(async {
        let mut world = World::start().await;
        let _server = world.serve_from_a_process().await;
        let data = world.dir.text("at");
        for who in ["@piped", "@again"] {
            let line = r#""$0" atserver add "$1" --data "$2" | "$0" activate "$1""#;
            let mut both = world.program("sh");
            both.args(["-c", line, crate::world::NOPORTS, who, &data]);
            let keys = stdout(both).await;
            assert!(fs::metadata(keys.trim()).unwrap().is_file(), "{keys}");
        }
    });
}
