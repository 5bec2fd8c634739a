//! The atServer among people who mean no good, and on machines that fail: whoever deserves an error gets a clear one,
//! there is a line in the log, nothing acknowledged is lost, and the others do not notice.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use async_std::{future::timeout, net::TcpStream, task::block_on};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use noports::{
    net::dial::dial,
    server::{
        authority,
        listen::{self, ServerError, ServerOptions},
        session::{MAX_LINE, MAX_LINE_STRANGER},
        store::StoreError,
    },
    sys::process::raise_descriptor_limit,
};

use crate::{
    atserver::{Wire, address},
    world::{ALICE, DEVICE, Folder, World, failure, support::Disk},
};

const SOON: Duration = Duration::from_secs(30);

/// Somebody who is served all along, and can tell.
struct Neighbour(Wire);

impl Neighbour {
    async fn of(world: &World) -> Self {
        let mut wire = Wire::login(world, DEVICE).await;
        wire.data("update:kept.tests@device precious").await;
        Self(wire)
    }

    /// The open connection, the value written before, and a new connection: all as they should be.
    async fn is_unharmed(&mut self, world: &World) {
        assert_eq!(self.0.data("noop:0").await, "ok");
        let mut other = Wire::login(world, DEVICE).await;
        assert_eq!(other.data("llookup:kept.tests@device").await, "precious");
    }
}

/// What comes until the end; an end by reset is one, too.
async fn until_the_end(wire: &mut Wire) -> String {
    let mut all = String::new();
    while let Some(more) = wire.read().await {
        all += &more;
    }
    all
}

#[test]
fn commands_in_the_wrong_order_or_of_the_wrong_type_are_told_what_is_wrong() {
    block_on(async {
        let world = World::start().await;
        let mut neighbour = Neighbour::of(&world).await;
        let mut stranger = Wire::open(&world, ALICE).await;
        stranger
            .table(&[
                ("cram:00", "error:AT0015-"),
                ("pkam:AAAA", "error:AT0401-"),
                ("pkam:enrollmentId:nobody:AAAA", "error:AT0028"),
                ("llookup:x.tests@alice", "error:AT0401-"),
                ("update:x.tests@alice v", "error:AT0401-"),
                ("notify:@device:x.tests@alice:v", "error:AT0401-"),
                ("monitor", "error:AT0401-"),
                ("otp:get", "error:AT0401-"),
                ("enroll:request:[]", "error:AT0003-"),
                ("enroll:request:{\"appName\":7}", "error:AT0003-"),
                ("from:", "error:AT0003-"),
                ("from:@@", "error:AT0003-"),
                ("", "error:AT0003-"),
                ("\u{1}\u{2}\u{3}", "error:AT0003-"),
                ("noop:0", "data:ok"),
            ])
            .await;
        let mut owner = Wire::login(&world, ALICE).await;
        owner
            .table(&[
                ("update:ttl:soon:x.tests@alice v", "error:AT0003-"),
                ("update:ttl:-1:x.tests@alice v", "error:AT0003-"),
                (
                    "update:ttl:99999999999999999999999:x.tests@alice v",
                    "error:AT0003-",
                ),
                ("update:x.tests@device v", "error:AT0016-"),
                ("update:json:[1,2]", "error:AT0003-"),
                ("notify:ttln:x:@device:k.tests@alice:v", "error:AT0003-"),
                ("enroll:approve:{}", "error:AT0011-"),
                ("enroll:fetch:{\"enrollmentId\":[]}", "error:AT0003-"),
                ("sync:from:x", "error:AT0003-"),
                ("scan [", "error:AT0003-"),
                ("batch:{\"id\":1}", "error:AT0003-"),
                ("llookup:x.tests@alice", "error:AT0015-"),
                ("noop:0", "data:ok"),
            ])
            .await;
        let out_of_turn = Wire::open(&world, ALICE).await.ask_any("pol").await;
        assert!(out_of_turn.starts_with("error:AT0011-"), "{out_of_turn}");
        neighbour.is_unharmed(&world).await;
    });
}

#[test]
fn lines_that_are_too_long_are_refused_and_not_kept() {
    block_on(async {
        let world = World::start().await;
        let mut neighbour = Neighbour::of(&world).await;
        let mut stranger = Wire::open(&world, ALICE).await;
        stranger.send_raw(&vec![b'x'; MAX_LINE_STRANGER + 1]).await;
        let told = until_the_end(&mut stranger).await;
        assert!(told.starts_with("error:AT0005-"), "{told}");
        let mut owner = Wire::login(&world, ALICE).await;
        let large = "v".repeat(2_000_000);
        owner
            .data(&format!("update:large.tests@alice {large}"))
            .await;
        assert_eq!(owner.data("llookup:large.tests@alice").await, large);
        owner.send_raw(&vec![b'x'; MAX_LINE + 1]).await;
        let told = until_the_end(&mut owner).await;
        assert!(told.starts_with("error:AT0005-"), "{told}");
        neighbour.is_unharmed(&world).await;
    });
}

#[test]
fn binary_noise_is_answered_line_by_line_and_does_no_harm() {
    block_on(async {
        let world = World::start().await;
        let mut neighbour = Neighbour::of(&world).await;
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        for round in 0..20 {
            let mut wire = Wire::login(&world, ALICE).await;
            let bytes: Vec<u8> = (0..4000).map(|_| noise()).filter(|b| *b != b'\n').collect();
            wire.send_raw(&[&bytes[..], b"\n"].concat()).await;
            let reply = wire.read().await.expect("an answer");
            assert!(reply.starts_with("error:AT0003-"), "{round}: {reply}");
            assert_eq!(wire.data("noop:0").await, "ok", "{round}");
        }
        neighbour.is_unharmed(&world).await;
    });
}

#[test]
fn whoever_dribbles_or_speaks_no_tls_is_hung_up_on_in_time() {
    block_on(async {
        let world = World::start_with("localhost", |options| {
            options.timings.handshake = Duration::from_millis(500);
            options.timings.login = Duration::from_millis(1500);
        })
        .await;
        let mut neighbour = Neighbour::of(&world).await;
        let at = address(&world, ALICE).await;
        // No TLS at all, and a handshake that never ends.
        for first in [
            &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
            &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01],
            &[0xff; 300],
        ] {
            let mut tcp = dial(&at, SOON).await.unwrap();
            tcp.write_all(first).await.unwrap();
            let mut rest = Vec::new();
            let ended = timeout(SOON, tcp.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "{first:?} is still listened to");
        }
        // A login that is sent byte by byte: what counts is the time since the connection began.
        let mut slow = Wire::open(&world, ALICE).await;
        let dribble = async {
            for _ in 0..10 {
                slow.send_raw(b"f").await;
                // Time is the subject: no pause is as long as a login may take, all together are two thirds of it.
                if let Ok(heard) = timeout(Duration::from_millis(100), slow.read()).await {
                    return heard.unwrap_or_default();
                }
            }
            until_the_end(&mut slow).await
        };
        assert_eq!(timeout(SOON, dribble).await.unwrap(), "");
        neighbour.is_unharmed(&world).await;
    });
}

/// Many times more than one address may have before it has logged in.
const CROWD: usize = 2500;

#[test]
fn a_crowd_that_never_speaks_keeps_nobody_out() {
    raise_descriptor_limit();
    block_on(async {
        let world = World::start().await;
        let mut neighbour = Neighbour::of(&world).await;
        let at = address(&world, ALICE).await;
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(dial(&at, SOON).await.unwrap());
        }
        neighbour.is_unharmed(&world).await;
        let mut owner = Wire::login(&world, ALICE).await;
        assert_eq!(owner.data("noop:0").await, "ok");
        // Room was made by ending the oldest of them.
        let end = timeout(SOON, crowd[0].read(&mut [0; 8])).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    });
}

#[test]
fn an_address_that_guessed_too_often_is_not_even_heard() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let request = |otp: &str| {
            format!(
                r#"enroll:request:{{"appName":"a","deviceName":"d","namespaces":{{"x":"r"}},"otp":"{otp}","apkamPublicKey":"k"}}"#
            )
        };
        // Nobody waits for the answers: each is on a connection of its own.
        let mut guessers = Vec::new();
        for _ in 0..20 {
            let mut guesser = Wire::open(&world, ALICE).await;
            guesser.send(&request("000000")).await;
            guessers.push(guesser);
        }
        let limit = "error:AT0011-Exception: Enrollment requests have exceeded the limit";
        let otp = owner.data("otp:get").await;
        // An answer that is made to wait is one to a guess that was still heard.
        let shut_out = async {
            loop {
                let mut late = Wire::open(&world, ALICE).await;
                late.send(&request("111111")).await;
                let told = timeout(Duration::from_millis(500), late.read()).await;
                if let Ok(Some(told)) = told {
                    return told;
                }
            }
        };
        let told = timeout(SOON, shut_out).await.expect("shut out");
        assert!(told.starts_with(limit), "{told}");
        let told = Wire::open(&world, ALICE).await.ask(&request(&otp)).await;
        assert!(told.starts_with(limit), "even with the right one: {told}");
        // Whoever is logged in is somebody else.
        let told = owner.data(&request("")).await;
        assert!(told.contains("pending"), "{told}");
    });
}

#[test]
fn guessing_passcodes_gets_slower_and_slower_for_the_guesser_alone() {
    block_on(async {
        let world = World::start().await;
        let mut neighbour = Neighbour::of(&world).await;
        let mut owner = Wire::login(&world, ALICE).await;
        let request = |otp: &str, device: &str| {
            format!(
                r#"enroll:request:{{"appName":"a","deviceName":"{device}","namespaces":{{"x":"r"}},"otp":"{otp}","apkamPublicKey":"k"}}"#
            )
        };
        let mut waits = Vec::new();
        for _ in 0..2 {
            let mut guesser = Wire::open(&world, ALICE).await;
            let began = Instant::now();
            let wrong = request("000000", "d");
            let guess = guesser.ask_any(&wrong);
            let (told, _) = futures_lite::future::zip(guess, neighbour.is_unharmed(&world)).await;
            assert!(told.starts_with("error:AT0011-"), "{told}");
            assert!(told.contains("invalid otp"), "{told}");
            waits.push(began.elapsed().as_secs());
        }
        assert!(waits[0] >= 1 && waits[1] >= 2, "{waits:?}");
        // A right one is taken at once all the same.
        let otp = owner.data("otp:get").await;
        let began = Instant::now();
        let told = Wire::open(&world, ALICE)
            .await
            .data(&request(&otp, "e"))
            .await;
        assert!(told.contains("pending") && began.elapsed() < SOON, "{told}");
    });
}

#[test]
fn a_full_disk_is_told_keeps_what_was_acknowledged_and_is_forgiven() {
    block_on(async {
        let name = "hostile::a_full_disk_is_told_keeps_what_was_acknowledged_and_is_forgiven";
        let Some(disk) = Disk::of(name, 48) else {
            return;
        };
        let data = disk.0.join("at");
        let mut world = World::start_with("localhost", |options| options.data = data).await;
        let mut neighbour = Neighbour::of(&world).await;
        let mut monitor = Wire::login(&world, DEVICE).await;
        monitor.monitor("monitor").await;
        let mut owner = Wire::login(&world, ALICE).await;
        owner.data("update:before.tests@alice safe").await;
        disk.fill(3 << 20);
        for command in [
            "update:during.tests@alice lost",
            "notify:@device:x.tests@alice:v",
            "otp:get",
        ] {
            let mut writer = Wire::login(&world, ALICE).await;
            writer.send(command).await;
            let told = until_the_end(&mut writer).await;
            assert!(told.starts_with("error:AT0002-"), "{command}: {told}");
            assert!(told.contains("the disk is full"), "{command}: {told}");
        }
        // Whoever only reads does not notice.
        assert_eq!(owner.data("llookup:before.tests@alice").await, "safe");
        neighbour.is_unharmed(&world).await;
        disk.make_room();
        owner.data("update:after.tests@alice kept").await;
        let id = owner.data("notify:id:7-7:@device:late.tests@alice:v").await;
        assert_eq!(crate::atserver::text(&monitor.hear().await, "id"), id);
        let missing = owner.ask("llookup:during.tests@alice").await;
        assert!(missing.starts_with("error:AT0015-"), "{missing}");
        world.stop().await;
    });
}

#[test]
fn a_small_disk_is_not_full_while_it_is_empty_and_health_knows_when_it_is() {
    block_on(async {
        let name =
            "hostile::a_small_disk_is_not_full_while_it_is_empty_and_health_knows_when_it_is";
        let Some(disk) = Disk::of(name, 6) else {
            return;
        };
        let server = start_in(disk.0.join("at")).await.unwrap();
        for (n, free) in [4 << 20, 3 << 20, 2 << 20, 1 << 20].into_iter().enumerate() {
            disk.fill(free);
            server.health().await.unwrap();
            server
                .add(&format!("@one{n}").parse().unwrap())
                .await
                .unwrap();
            disk.make_room();
        }
        for left in [600 << 10, 100 << 10, 0] {
            disk.fill(left);
            let told = server.health().await.unwrap_err();
            assert_eq!(told.to_string(), "the disk is full", "{left}");
            assert!(server.add(&"@more".parse().unwrap()).await.is_err());
            disk.make_room();
            server.health().await.unwrap();
        }
        server.add(&"@more".parse().unwrap()).await.unwrap();
        server.stop().await;
    });
}

/// What a server says that is to start with this folder.
async fn start_in(data: PathBuf) -> Result<listen::RunningServer, ServerError> {
    let elsewhere = Folder::new();
    let authority = authority::open_or_make(&elsewhere.path("ca")).unwrap();
    let options = ServerOptions {
        data,
        listen: [127, 0, 0, 1].into(),
        host: "localhost".into(),
        directory_port: 0,
        first_port: 0,
        domain: None,
        timings: Default::default(),
    };
    listen::start(
        options,
        authority.leaf(&[]).unwrap().acceptor().unwrap(),
        None,
    )
    .await
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_advice() {
    block_on(async {
        let name = "hostile::a_folder_that_cannot_be_written_is_named_with_advice";
        let Some(disk) = Disk::of(name, 8) else {
            return;
        };
        disk.make_read_only();
        let data = disk.0.join("at");
        let refused = start_in(data.clone()).await.err().expect("a refusal");
        assert!(
            matches!(&refused, ServerError::Store(StoreError::Folder(path, _)) if *path == data),
            "{refused}"
        );
        assert!(refused.hint().is_some());
        let world = World::empty("localhost", |_| {}).await;
        let words = ["atserver", "serve", "--port", "0", "--data"];
        let data = data.display().to_string();
        let (code, told) = failure(world.noports(&[&words[..], &[&data]].concat())).await;
        assert_eq!(code, 1, "{told}");
        assert!(told.contains(&data) && told.contains("Read-only"), "{told}");
    });
}

#[test]
fn a_damaged_store_is_named_with_advice_and_left_as_it_is() {
    block_on(async {
        let mut world = World::start().await;
        world.stop().await;
        let file = world.dir.path("at/atserver.redb");
        let whole = fs::read(&file).unwrap();
        for (what, damaged) in [
            ("empty", Vec::new()),
            ("cut", whole[..whole.len() / 2].to_vec()),
            ("noise", vec![0xa5; whole.len()]),
        ] {
            fs::write(&file, &damaged).unwrap();
            let data = world.dir.text("at");
            let words = ["atserver", "serve", "--port", "0", "--data", &data];
            let (code, told) = failure(world.noports(&words)).await;
            assert_eq!(code, 1, "{what}: {told}");
            assert!(told.contains("is damaged"), "{what}: {told}");
            assert!(told.contains("backup"), "{what}: {told}");
            assert!(
                fs::read(&file).unwrap() == damaged,
                "{what}: it was changed"
            );
        }
        // What is put back is served.
        fs::write(&file, &whole).unwrap();
        let _server = world.serve();
        Wire::login(&world, ALICE).await;
    });
}

#[test]
fn a_connection_cut_in_the_middle_of_a_command_changes_nothing() {
    block_on(async {
        let world = World::start().await;
        let mut neighbour = Neighbour::of(&world).await;
        let at = address(&world, ALICE).await;
        let tcp: TcpStream = dial(&at, SOON).await.unwrap();
        let mut wire = Wire::over(&world, tcp.clone()).await;
        wire.pkam(&world.keys(ALICE)).await;
        wire.send_raw(b"update:half.tests@alice half a val").await;
        tcp.shutdown(std::net::Shutdown::Both).unwrap();
        let mut owner = Wire::login(&world, ALICE).await;
        let missing = owner.ask("llookup:half.tests@alice").await;
        assert!(missing.starts_with("error:AT0015-"), "{missing}");
        neighbour.is_unharmed(&world).await;
    });
}
