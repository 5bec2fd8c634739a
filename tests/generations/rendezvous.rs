//! What clients and daemons of each generation say to a rendezvous, played by hand.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use async_std::task::block_on;
use noports::{
    classic::generation::Profile,
    np::{
        ids::{Nonce, SessionId},
        ports::{Logins, Ports, PortsRequest, refusal_entity},
    },
};

use crate::world::{
    NAME, RENDEZVOUS, World,
    ports::{Asker, joined, said},
    silent::Silent,
    until,
};

#[test]
fn the_old_request_gets_two_ports_for_one_connection_each() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        let (_, answer) = alice.ask_bare().await;
        let fields: Vec<&str> = answer.split(',').collect();
        assert_eq!((fields.len(), fields[3]), (4, "null"), "{answer}");
        let ports = Ports::parse(&answer).unwrap();
        // The server speaks first, and says something before anybody is there to hear it.
        let mut daemon = said(ports.client, "SSH-2.0-server\r\n");
        let mut client = said(ports.daemon, "");
        let mut banner = [0; 16];
        client.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"SSH-2.0-server\r\n");
        client.write_all(b"all of it").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        daemon.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "all of it");
        for port in [ports.client, ports.daemon] {
            let second = TcpStream::connect(("127.0.0.1", port));
            assert!(second.is_err(), "one connection each");
        }
        daemon.write_all(b"after that").unwrap();
        drop(daemon);
        heard.clear();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "after that");
    });
}

#[test]
fn a_daemon_may_write_the_session_id_first_and_the_other_end_does_not_see_it() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        for end in ["", "\n", "\r\n"] {
            for swapped in [false, true] {
                let (session, answer) = alice.ask_bare().await;
                let mut ports = Ports::parse(&answer).unwrap();
                if swapped {
                    std::mem::swap(&mut ports.client, &mut ports.daemon);
                }
                let daemon = said(ports.daemon, &format!("{session}{end}"));
                let client = said(ports.client, "");
                joined(&format!("{end:?} {swapped}"), &daemon, &client);
                let (session, answer) = alice.ask_bare().await;
                let ports = Ports::parse(&answer).unwrap();
                let mut client = said(ports.client, "SSH-2.0-client\r\n");
                let mut daemon = said(ports.daemon, &format!("{session}{end}SSH-2.0-server\r\n"));
                for (side, other) in [(&mut client, "server"), (&mut daemon, "client")] {
                    let mut banner = [0; 16];
                    side.read_exact(&mut banner).unwrap();
                    assert_eq!(
                        banner,
                        *format!("SSH-2.0-{other}\r\n").as_bytes(),
                        "{end:?}"
                    );
                }
            }
        }
    });
}

/// What only looks like an id, at either end, at once or a byte at a time: all of it arrives but one id and one line end.
#[test]
fn whatever_else_stands_first_at_an_open_port_arrives_as_it_is() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        for case in 0..10 {
            for (single, swapped) in [(false, false), (true, false), (true, true)] {
                let (session, answer) = alice.ask_bare().await;
                let mut ports = Ports::parse(&answer).unwrap();
                if swapped {
                    std::mem::swap(&mut ports.client, &mut ports.daemon);
                }
                let (id, long) = (session.to_string(), "x".repeat(100_000));
                let half = &id[..id.len() / 2];
                let (sent, want) = [
                    (format!("{id}{id}\n"), format!("{id}\n")),
                    (format!("{id}\n\n{long}"), format!("\n{long}")),
                    (format!("{id}\r{id}"), format!("\r{id}")),
                    (format!("{id}\r"), "\r".to_owned()),
                    (half.to_owned(), half.to_owned()),
                    (format!("{half}\0{half}"), format!("{half}\0{half}")),
                    (format!("{half}{id}"), format!("{half}{id}")),
                    (format!("\n{id}\n"), format!("\n{id}\n")),
                    (SessionId::random().to_string() + &long, String::new()),
                    (String::new(), String::new()),
                ][case]
                    .clone();
                let want = if case == 8 { sent.clone() } else { want };
                let (from, mut to) = (said(ports.daemon, ""), said(ports.client, "all the while"));
                let heard = std::thread::spawn(move || {
                    let mut heard = String::new();
                    to.read_to_string(&mut heard).map(|_| heard).unwrap()
                });
                from.set_nodelay(true).unwrap();
                // The beginning alone, for a byte at a time takes long.
                let (slow, rest) =
                    sent.as_bytes()
                        .split_at(if single { sent.len().min(90) } else { 0 });
                for byte in slow.chunks(1).chain([rest]) {
                    (&from).write_all(byte).unwrap();
                }
                from.shutdown(Shutdown::Write).unwrap();
                let mut other = [0; 13];
                (&from).read_exact(&mut other).unwrap();
                assert_eq!(&other, b"all the while");
                let heard = heard.join().unwrap();
                assert!(heard == want, "{case} {single} {swapped}: {heard:.80}");
            }
        }
    });
}

#[test]
fn each_port_asks_who_it_is_by_itself() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        let (client, daemon) = (true, true);
        let granted = alice
            .ask(Logins {
                client,
                daemon: false,
            })
            .await;
        let _stranger = said(granted.ports.client, "SSH-2.0-x\r\n");
        joined(
            "client logs in",
            &granted.client(None),
            &said(granted.ports.daemon, ""),
        );

        let granted = alice
            .ask(Logins {
                client: false,
                daemon,
            })
            .await;
        let _stranger = said(granted.ports.daemon, "SSH-2.0-x\r\n");
        let first = (granted.daemon(None), said(granted.ports.client, ""));
        joined("daemon logs in", &first.0, &first.1);
        joined(
            "again",
            &granted.daemon(None),
            &said(granted.ports.client, ""),
        );

        let granted = alice.ask(Logins::NONE).await;
        let (client, daemon) = (granted.ports.client, granted.ports.daemon);
        joined("nobody logs in", &said(client, ""), &said(daemon, ""));
    });
}

#[test]
fn a_rendezvous_may_insist_that_both_ends_log_in() {
    block_on(async {
        let world = World::start().await;
        let words = ["rendezvous", "--as", RENDEZVOUS, "--signed-only"];
        let _rendezvous = world.process(&words);
        let mut alice = Asker::start(&world).await;
        for (client, daemon) in [(true, false), (false, true), (false, false)] {
            let request = alice.request(Logins { client, daemon });
            let (to, device) = (RENDEZVOUS.parse().unwrap(), NAME.parse().unwrap());
            alice.send(request.message(&to, &device)).await;
            let (entity, text) = alice.heard().await;
            assert_eq!(entity, refusal_entity(request.session));
            assert_eq!(text, "both ends must log in here");
        }
        let session = noports::np::ids::SessionId::random();
        let (to, device) = (RENDEZVOUS.parse().unwrap(), NAME.parse().unwrap());
        let bare = noports::np::ports::bare_request(&to, &device, session);
        alice.send(bare).await;
        until("the old request is refused", || {
            world
                .log("rendezvous")
                .contains(&format!("refused from=@alice session={session}"))
        })
        .await;
        // Nobody said where it is: it has found out.
        let granted = alice.ask(Logins::BOTH).await;
        assert_eq!(granted.ports.host, "127.0.0.1");
        joined("both", &granted.client(None), &granted.daemon(None));
    });
}

#[test]
fn a_rendezvous_held_to_an_old_generation_knows_no_logins_or_no_numbers() {
    block_on(async {
        for (generation, fields) in [("v3", 3), ("v4", 3), ("v5", 4)] {
            let mut world = World::start().await;
            world
                .rendezvous_with(|policy| {
                    policy.habits = Profile::named(generation).unwrap().rendezvous.unwrap()
                })
                .await;
            let mut alice = Asker::start(&world).await;
            if fields == 3 {
                // Not understood: the next word is the answer to the next question.
                let unknown = alice.request(Logins::BOTH);
                let (to, device) = (RENDEZVOUS.parse().unwrap(), NAME.parse().unwrap());
                alice.send(unknown.message(&to, &device)).await;
            } else {
                let granted = alice.ask(Logins::BOTH).await;
                assert!(!granted.ports.nonce.as_ref().unwrap().takes_numbers());
                // Numbers that were not asked for are nothing to it: first comes first.
                joined("v5", &granted.client(Some(7)), &granted.daemon(Some(8)));
            }
            let (_, answer) = alice.ask_bare().await;
            assert_eq!(answer.split(',').count(), fields, "{generation}: {answer}");
            let ports = Ports::parse(&answer).unwrap();
            joined(generation, &said(ports.client, ""), &said(ports.daemon, ""));
        }
    });
}

/// Somebody names other ends whose atServers are silent, each in its own way; everybody else goes on as before.
#[test]
fn sessions_with_silent_atservers_hold_up_nobody_else() {
    block_on(async {
        let mut world = World::start().await;
        world.activate("@eve", "session", "@client_example").await;
        let silent = Silent::start(&world, [].into()).await;
        let own = world.dir.text("at/ca.pem");
        let _server = world.serve_beside(&silent.root, &own).await;
        let _rendezvous = world.rendezvous_process();
        let mut alice = Asker::start(&world).await;
        let mut eve = Asker::start_as(&world, "@eve").await;
        let (to, device) = (RENDEZVOUS.parse().unwrap(), NAME.parse().unwrap());
        for round in 0..3 {
            for kind in ["tar", "mute", "drip", "off"] {
                let request = PortsRequest {
                    session: SessionId::random(),
                    client: "@eve".parse().unwrap(),
                    daemon: format!("@{kind}{round}").parse().unwrap(),
                    nonce: Nonce::random(),
                    logins: Logins::BOTH,
                    socket_key: None,
                };
                eve.send(request.message(&to, &device)).await;
            }
            // Her sessions have begun.
            for _ in 0..4 {
                eve.heard().await;
            }
            // The first time alice's own keys are looked up, too.
            let asked = Instant::now();
            let granted = alice.ask(Logins::BOTH).await;
            joined("alice", &granted.client(None), &granted.daemon(None));
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(8), "round {round}: {took:?}");
        }
    });
}
