//! What happens when a part is killed. Each part is a process, ended with `kill -9`.

use std::{
    io::{Read, Write},
    net::Ipv4Addr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};

use async_std::task::block_on;
use noports::{
    at::{AtKey, Metadata, Verb, client::Client, verb::Detail},
    np::{
        pairs::Dialer,
        ports::{self, Logins},
    },
    pipe::join::reset,
};

use crate::world::{
    ALICE, NAME, NOPORTS as PROGRAM, Process, RENDEZVOUS, World, children_of, descriptors,
    ports::{Asker, joined, said},
    stdout,
    support::{at_a_pace, wait_until},
};

/// A session whose two ends are held by the test: what is written comes back.
struct Echo(Process);

impl Echo {
    fn open(world: &World, sshd: &noports::sys::sshd::Sshd) -> Self {
        let mut ssh = world.program("ssh");
        ssh.args(world.ssh_options(sshd)).args(["device", "cat"]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(Process(ssh.spawn().unwrap()))
    }

    fn says(&mut self, text: &str) {
        let mut back = vec![0; text.len()];
        self.0
            .0
            .stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        self.0
            .0
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut back)
            .unwrap();
        assert_eq!(back, text.as_bytes());
    }
}

#[test]
fn a_session_outlives_its_daemon_and_the_next_daemon_serves_the_next_one() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        world.rendezvous().await;
        let mut daemon = world.daemon_process(sshd.port);
        let mut session = Echo::open(&world, &sshd);
        session.says("before");
        assert_eq!(children_of(daemon.id()).len(), 1);
        daemon.kill();
        session.says("after the daemon was killed");
        let _next = world.daemon_process(sshd.port);
        let mut second = Echo::open(&world, &sshd);
        second.says("through the next daemon");
        session.says("still here");
    });
}

#[test]
fn sessions_outlive_the_atserver_and_everybody_comes_back_to_it() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        let mut server = world.serve_from_a_process().await;
        let (_rendezvous, _daemon) = (world.rendezvous_process(), world.daemon_process(sshd.port));
        let mut session = Echo::open(&world, &sshd);
        session.says("before");
        for round in 0..3 {
            server.kill();
            session.says("the atServer is gone, the session is not");
            server = world.serve();
            // Daemon and rendezvous come back without help; the client's own patience covers the gap.
            let mut next = Echo::open(&world, &sshd);
            next.says(&format!("round {round}"));
        }
    });
}

#[test]
fn what_the_atserver_acknowledged_is_there_after_kill_9() {
    block_on(async {
        let mut world = World::start().await;
        let mut server = world.serve_from_a_process().await;
        for round in 0..3 {
            let alice = Client::login(&world.network, world.keys(ALICE))
                .await
                .unwrap();
            let writer = async_std::task::spawn(write_until_it_breaks(alice, round));
            // Let some writes through, then kill in the middle of the next ones.
            let acknowledged = async_std::task::spawn_blocking({
                let counter = Arc::clone(&COUNTER);
                move || {
                    let start = counter.load(std::sync::atomic::Ordering::SeqCst);
                    while counter.load(std::sync::atomic::Ordering::SeqCst) < start + 20 {
                        std::thread::yield_now();
                    }
                }
            });
            acknowledged.await;
            server.kill();
            let kept = writer.await;
            server = world.serve();
            let alice = Client::login(&world.network, world.keys(ALICE))
                .await
                .unwrap();
            assert!(kept.len() >= 20, "round {round}");
            for (key, value) in kept {
                let verb = Verb::Llookup {
                    key,
                    detail: Detail::Value,
                };
                assert_eq!(alice.run(&verb).await.unwrap(), value, "round {round}");
            }
        }
    });
}

static COUNTER: std::sync::LazyLock<Arc<std::sync::atomic::AtomicUsize>> =
    std::sync::LazyLock::new(Arc::default);

/// Writes until the connection breaks; returns what was acknowledged.
async fn write_until_it_breaks(alice: Client, round: usize) -> Vec<(AtKey, String)> {
    let mut kept = Vec::new();
    for i in 0..100_000 {
        let key = AtKey::own(&format!("r{round}_{i}.tests"), alice.atsign());
        let value = format!("value {i}");
        let metadata = Metadata {
            is_encrypted: Some(false),
            ..Metadata::default()
        };
        let verb = Verb::Update {
            key: key.clone(),
            metadata,
            value: value.clone(),
        };
        let once =
            async_std::future::timeout(std::time::Duration::from_secs(2), alice.run(&verb)).await;
        match once {
            Ok(Ok(_)) => kept.push((key, value)),
            _ => break,
        }
        COUNTER.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
    kept
}

#[test]
fn a_rendezvous_that_comes_back_serves_the_next_session() {
    block_on(async {
        let world = World::start().await;
        let port = crate::world::answer_at_the_end().await;
        let _daemon = world.daemon_process(port);
        let mut rendezvous = world.rendezvous_process();
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        rendezvous.kill();
        let _next = world.rendezvous_process();
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
    });
}

#[test]
fn a_socket_dies_before_its_login_and_nobody_is_joined_with_a_neighbour() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        // The same end dies first, with every kind of daemon: one that numbers its sockets, and an old one.
        for daemon_numbers in [true, false] {
            let granted = alice.ask(Logins::BOTH).await;
            assert!(granted.ports.nonce.as_ref().unwrap().takes_numbers());
            let number = |n| daemon_numbers.then_some(n);
            let control = (granted.client(Some(0)), granted.daemon(number(0)));
            joined("control", &control.0, &control.1);

            let dead = std::net::TcpStream::connect(("127.0.0.1", granted.ports.client)).unwrap();
            reset(&dead);
            let first = granted.daemon(number(1));
            let second = (granted.client(Some(2)), granted.daemon(number(2)));
            joined("second", &second.0, &second.1);
            let third = (granted.client(Some(3)), granted.daemon(number(3)));
            joined("third", &third.0, &third.1);
            // Who tries again finds the one that waits for it.
            joined("first", &granted.client(Some(1)), &first);
        }

        // The daemon's dies.
        let granted = alice.ask(Logins::BOTH).await;
        let control = (granted.client(Some(0)), granted.daemon(Some(0)));
        let dead = std::net::TcpStream::connect(("127.0.0.1", granted.ports.daemon)).unwrap();
        reset(&dead);
        let _first = granted.client(Some(1));
        let second = (granted.daemon(Some(2)), granted.client(Some(2)));
        joined("second", &second.0, &second.1);
        joined("control", &control.0, &control.1);
    });
}

#[test]
fn strangers_who_say_nothing_do_not_lock_anybody_out() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        let granted = alice.ask(Logins::BOTH).await;
        let silent = || std::net::TcpStream::connect(("127.0.0.1", granted.ports.client)).unwrap();
        // More than may be saying who they are at a time.
        let _strangers: Vec<_> = (0..80).map(|_| silent()).collect();
        let control = (granted.client(Some(0)), granted.daemon(Some(0)));
        joined("control", &control.0, &control.1);
        let first = (granted.client(Some(1)), granted.daemon(Some(1)));
        joined("first", &first.0, &first.1);
    });
}

/// One lost packet on a long line is as late as that, twice over a mobile network.
#[test]
fn a_line_that_comes_late_is_let_in_once_a_pair_stands() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        for numbers in [true, false] {
            let number = |n| numbers.then_some(n);
            let granted = alice.ask(Logins::BOTH).await;
            let control = (granted.client(number(0)), granted.daemon(number(0)));
            joined("control", &control.0, &control.1);
            for (round, late) in [(1, 1300), (2, 4000)] {
                let mut client = said(granted.ports.client, "");
                let daemon = granted.daemon(number(round));
                at_a_pace(Duration::from_millis(late));
                let line = granted.client_line(number(round));
                std::io::Write::write_all(&mut client, line.as_bytes()).unwrap();
                joined(&format!("{numbers} {late}"), &client, &daemon);
            }
        }
    });
}

/// A socket from one of the many addresses of 127.0.0.0/8.
fn from_address(number: u16, port: u16) -> Option<socket2::Socket> {
    let [high, low] = number.to_be_bytes();
    let from = std::net::SocketAddr::from(([127, 0, 1 + high, low], 0));
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    // Whoever floods does not wait.
    let within = Duration::from_secs(1);
    socket.connect_timeout(&to.into(), within).ok()?;
    Some(socket)
}

#[test]
fn strangers_from_thousands_of_addresses_do_not_lock_anybody_out() {
    block_on(async {
        let world = World::start().await;
        let _rendezvous = world.rendezvous_process();
        let mut alice = Asker::start(&world).await;
        for numbers in [true, false] {
            let number = |n| numbers.then_some(n);
            let granted = alice.ask(Logins::BOTH).await;
            let control = (granted.client(number(0)), granted.daemon(number(0)));
            joined("control", &control.0, &control.1);
            let (port, came, over) = (
                granted.ports.client,
                AtomicU16::new(0),
                AtomicBool::new(false),
            );
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut held = std::collections::VecDeque::new();
                    while !over.load(Relaxed) {
                        let turn = came.fetch_add(1, Relaxed);
                        held.extend(from_address(turn % 2500, port));
                        held.drain(..held.len().saturating_sub(1000));
                        at_a_pace(Duration::from_micros(1250));
                    }
                });
                wait_until("all places are taken twice over", || {
                    came.load(Relaxed) > 200
                });
                let mut ends = Vec::new();
                let began = std::time::Instant::now();
                for round in 1..=6 {
                    let next = (granted.client(number(round)), granted.daemon(number(round)));
                    joined(&format!("{round}"), &next.0, &next.1);
                    ends.push(next);
                }
                let took = began.elapsed();
                over.store(true, Relaxed);
                // Where the order counts, one waits for who came before, a second at a time.
                let most = Duration::from_secs(if numbers { 2 } else { 8 });
                assert!(took < most, "{numbers}: {took:?}");
                joined("control", &control.0, &control.1);
            });
        }
        // At most two for each reason, and not one for each socket.
        let told = world
            .log("rendezvous")
            .matches("not_admitted port_of=")
            .count();
        assert!((1..=8).contains(&told), "{told} lines");
    });
}

#[test]
fn three_hundred_silent_sockets_cost_nothing_once_a_pair_stands() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        for numbers in [true, false] {
            let number = |n| numbers.then_some(n);
            let granted = alice.ask(Logins::BOTH).await;
            let control = (granted.client(number(0)), granted.daemon(number(0)));
            joined("control", &control.0, &control.1);
            let mut strangers = Vec::new();
            for round in 1..=3 {
                for port in [granted.ports.client, granted.ports.daemon] {
                    strangers.extend(
                        (0..150)
                            .map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()),
                    );
                }
                let began = std::time::Instant::now();
                let next = (granted.client(number(round)), granted.daemon(number(round)));
                joined(&format!("{round}"), &next.0, &next.1);
                // One round of them is waited for, where the order counts; 64 at a time took 5 s each.
                let most = if numbers { 2 } else { 8 };
                assert!(began.elapsed().as_secs() < most, "{:?}", began.elapsed());
                joined("control", &control.0, &control.1);
            }
        }
    });
}

#[test]
fn sockets_that_come_in_the_worst_order_find_each_other() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        let granted = alice.ask(Logins::BOTH).await;
        let clients: Vec<_> = (0..200).map(|n| granted.client(Some(n))).collect();
        // The last first: until the middle no one finds its own.
        for number in (0..200).rev() {
            let client = &clients[number as usize];
            let daemon = granted.daemon(Some(number));
            joined(&number.to_string(), client, &daemon);
        }
    });
}

/// 399 sockets with a line that was seen on the wire, each with another number.
#[test]
fn a_recorded_login_said_again_with_other_numbers_disturbs_nobody() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Asker::start(&world).await;
        let granted = alice.ask_to_prove().await;
        assert!(granted.ports.nonce.as_ref().unwrap().takes_proofs());
        let control = (granted.client(Some(0)), granted.daemon(Some(0)));
        joined("control", &control.0, &control.1);
        let ports = [
            (Dialer::Client, granted.ports.client),
            (Dialer::Daemon, granted.ports.daemon),
        ];
        let mut strangers = Vec::new();
        for number in 1..400 {
            // Not at both ports, where strangers would meet each other.
            let (end, port) = ports[usize::from(number >= 200)];
            strangers.push(said(port, &granted.replayed(end, number)));
            // The proof of the control socket, too, as it was and under this number.
            let seen = granted.line(end, Some(0), 0);
            strangers.push(said(port, &seen));
            let other = format!("\"pair\":{number},");
            strangers.push(said(port, &seen.replace("\"pair\":0,", &other)));
        }
        for number in (1..=10).chain(200..=210) {
            let next = (granted.client(Some(number)), granted.daemon(Some(number)));
            joined(&number.to_string(), &next.0, &next.1);
        }
        joined("control", &control.0, &control.1);
        // The owner's next try takes its place back, and an earlier one does not.
        let first = said(
            granted.ports.client,
            &granted.line(Dialer::Client, Some(500), 1),
        );
        let second = said(
            granted.ports.client,
            &granted.line(Dialer::Client, Some(500), 2),
        );
        wait_until("the first is given up", || is_closed(&first));
        let again = said(
            granted.ports.client,
            &granted.line(Dialer::Client, Some(500), 1),
        );
        wait_until("an old one is given up", || is_closed(&again));
        joined("second", &second, &granted.daemon(Some(500)));
    });
}

/// Whether the other end has closed it.
fn is_closed(mut socket: &std::net::TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let read = socket.read(&mut [0]);
    socket.set_nonblocking(false).unwrap();
    match read {
        Ok(got) => got == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Three atSigns hold all descriptors that they can get, in idle pairs; each new session of somebody else has its ports
/// and its pair, and those that stand lose nothing but what is too much.
#[test]
fn atsigns_with_a_thousand_idle_pairs_leave_descriptors_for_new_sessions() {
    const A_SECOND: Duration = Duration::from_secs(1);
    block_on(async {
        let world = World::start().await;
        let few = "ulimit -n 1024; exec \"$@\"";
        let mut command = world.program("sh");
        command.args(["-c", few, "sh", PROGRAM, "rendezvous", "--as", RENDEZVOUS]);
        command.args(["--host", "127.0.0.1", "--json"]);
        let rendezvous = world.ready("rendezvous", command);
        let mut held = Vec::new();
        for eve in ["@eve1", "@eve2", "@eve3"] {
            world
                .activate(eve, "@client_example_pkam", "@client_example")
                .await;
            let mut eve = Asker::start_as(&world, eve).await;
            for _ in 0..2 {
                let granted = eve.ask(Logins::BOTH).await;
                let mut ends = vec![
                    (Dialer::Client, granted.ports.client),
                    (Dialer::Daemon, granted.ports.daemon),
                ];
                for number in 0..300 {
                    // A port that has all it gets lets further ones wait in the kernel, and then those before the kernel.
                    ends.retain(|&(end, port)| {
                        let at = (Ipv4Addr::LOCALHOST, port).into();
                        let Ok(mut socket) = std::net::TcpStream::connect_timeout(&at, A_SECOND)
                        else {
                            return false;
                        };
                        let line = granted.line(end, Some(number), 0);
                        let _ = socket.write_all(line.as_bytes());
                        held.push(socket);
                        true
                    });
                }
            }
        }
        assert!(held.len() > 1024, "{}", held.len());
        let began = std::time::Instant::now();
        let mut alice = Asker::start(&world).await;
        let mut good = Vec::new();
        for number in 0..20 {
            let granted = alice.ask(Logins::BOTH).await;
            let control = (granted.client(Some(0)), granted.daemon(Some(0)));
            joined(&number.to_string(), &control.0, &control.1);
            let next = (granted.client(Some(1)), granted.daemon(Some(1)));
            joined(&number.to_string(), &next.0, &next.1);
            good.push((control, next));
        }
        let open = descriptors(rendezvous.id());
        println!("20 sessions in {:?}, {open} descriptors", began.elapsed());
        assert!(open <= 1024);
        for (control, next) in &good {
            joined("control", &control.0, &control.1);
            joined("next", &next.0, &next.1);
        }
    });
}

/// The same valid request 300 times, and 300 that are refused: few notifications, and another's answer comes at once.
#[test]
fn repeated_requests_are_answered_a_few_times_and_hold_nobody_up() {
    block_on(async {
        let world = World::start().await;
        let mut rendezvous = world.program(PROGRAM);
        rendezvous.args([
            "rendezvous",
            "--as",
            RENDEZVOUS,
            "--host",
            "127.0.0.1",
            "--json",
        ]);
        let _rendezvous = world.ready("rendezvous", rendezvous);
        world
            .activate("@eve", "@client_example_pkam", "@client_example")
            .await;
        let mut eve = Asker::start_as(&world, "@eve").await;
        let request = eve.request(Logins::BOTH);
        let (to, device) = (RENDEZVOUS.parse().unwrap(), NAME.parse().unwrap());
        for _ in 0..300 {
            eve.send(request.message(&to, &device)).await;
        }
        let mut alice = Asker::start(&world).await;
        let began = std::time::Instant::now();
        let granted = alice.ask(Logins::BOTH).await;
        println!("another's answer after {:?}", began.elapsed());
        let control = (granted.client(Some(0)), granted.daemon(Some(0)));
        joined("control", &control.0, &control.1);
        // A new session of her own is answered behind all those to the old one.
        let mut answers = 0;
        let last = eve.request(Logins::BOTH);
        eve.send(last.message(&to, &device)).await;
        while eve.heard().await.0 != ports::answer_entity(last.session) {
            answers += 1;
        }
        println!("{answers} answers");
        assert!((1..=9).contains(&answers), "{answers}");
    });
}
