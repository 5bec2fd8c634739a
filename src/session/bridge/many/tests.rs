//! Both ends of a session with many connections, and old and strange peers played by the test.
#![allow(clippy::unwrap_used)]

use async_std::{
    net::TcpListener,
    task::{JoinHandle, spawn},
};

use super::*;
use crate::pipe::keys::TransportKeys;
use crate::testing::{SOON, every_kind_of_keys, key_streams, listen, soon};
use crate::{
    at::crypto,
    net::{dial::dial, line::read_line},
    np::{far_end::FarEnd, pairs::Dialer, proof::SocketKey},
    pipe::{
        cipher::{Side, StreamKey},
        join::splice,
    },
    secret::Secret,
    session::bridge::{LocalEnd, Plan, Stage, run},
};

const SHORT: Duration = Duration::from_millis(200);

/// Answers each connection with what it said, once it has said everything.
async fn echo() -> Endpoint {
    let (listener, at) = listen().await;
    spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            spawn(async move {
                let mut said = Vec::new();
                let _ = tcp.read_to_end(&mut said).await;
                let _ = tcp.write_all(&said).await;
            });
        }
    });
    at
}

fn plan(local: LocalEnd, at: &Endpoint, keys: Option<TransportKeys>) -> Plan {
    Plan {
        far: FarEnd {
            rendezvous: at.clone(),
            admission: Some(Secret::new("may I come in".into())),
            socket_key: None,
            keys,
            side: match local {
                LocalEnd::Dial(_) => Side::Device,
                _ => Side::Client,
            },
        },
        local,
        timeout: SOON,
        many: Some(Many::default()),
        greeting: Greeting::Any,
        nearness: None,
        source: None,
    }
}

/// What lies beyond, without keys.
fn far(
    rendezvous: Endpoint,
    admission: Option<Secret<String>>,
    side: Side,
    patience: Duration,
) -> Arc<Dialler> {
    let far = FarEnd {
        rendezvous,
        admission,
        socket_key: None,
        keys: None,
        side,
    };
    Arc::new(Dialler {
        patience,
        ..Dialler::new(far)
    })
}

/// The next socket at the rendezvous, and the bytes behind its admission line.
async fn admitted(listener: &TcpListener) -> (TcpStream, Vec<u8>) {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let (line, early) = read_line(&mut tcp, 4096, SOON).await.unwrap();
    assert_eq!(line, b"may I come in");
    (tcp, early)
}

/// Joins sockets in order of arrival until it is dropped.
fn rendezvous(clients: TcpListener, devices: TcpListener) -> JoinHandle<()> {
    spawn(async move {
        loop {
            let (a, b) = (admitted(&clients).await, admitted(&devices).await);
            spawn(splice(a.0, a.1, b.0, b.1));
        }
    })
}

async fn exchange(door: &Endpoint, text: Vec<u8>) {
    let mut tcp = dial(door, SOON).await.unwrap();
    tcp.write_all(&text).await.unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    tcp.read_to_end(&mut heard).await.unwrap();
    assert!(heard == text);
}

#[test]
fn many_connections_find_their_own_other_end_with_every_kind_of_keys() {
    for keys in every_kind_of_keys() {
        soon(async {
            let ((clients, a), (devices, b)) = (listen().await, listen().await);
            let meeting = rendezvous(clients, devices);
            let device = plan(LocalEnd::Dial(echo().await), &b, keys.clone());
            let device = spawn(run(device, || ()));
            let (listener, door) = listen().await;
            let mut client = plan(LocalEnd::Listen(Visitors::of(listener).unwrap()), &a, keys);
            client.timeout = SHORT;
            let client = spawn(run(client, || ()));
            let all: Vec<_> =
                (0..30u8)
                    .map(|seed| {
                        let door = door.clone();
                        spawn(async move {
                            exchange(&door, vec![seed; 1 + 3000 * usize::from(seed)]).await
                        })
                    })
                    .collect();
            let mut sum = 0;
            for (seed, one) in all.into_iter().enumerate() {
                one.await;
                sum += 1 + 3000 * seed as u64;
            }
            // Nobody comes any more: the client ends the session, and the device ends with it.
            let want = Carried { up: sum, down: sum };
            assert_eq!(client.await.unwrap(), want);
            assert_eq!(device.await.unwrap(), want);
            meeting.cancel().await;
        });
    }
}

/// A device's end, and the test as rendezvous and client in one.
struct Device {
    rendezvous: TcpListener,
    service: TcpListener,
    control: TcpStream,
    cipher: Option<Cipher>,
    task: JoinHandle<Result<Carried, BridgeError>>,
}

impl Device {
    async fn start(keys: Option<SessionKeys>, idle: Duration) -> Self {
        Self::start_as(keys, idle, Many::default()).await
    }

    async fn start_as(keys: Option<SessionKeys>, idle: Duration, many: Many) -> Self {
        let ((rendezvous, at), (service, service_at)) = (listen().await, listen().await);
        let far = FarEnd {
            rendezvous: at,
            admission: Some(Secret::new("may I come in".into())),
            socket_key: None,
            keys: None,
            side: Side::Device,
        };
        let far = Arc::new(Dialler {
            patience: SHORT,
            ..Dialler::new(far)
        });
        let theirs = keys.clone();
        let task =
            spawn(async move { device(far, theirs.as_ref(), service_at, many, idle, || ()).await });
        let (control, early) = admitted(&rendezvous).await;
        assert!(early.is_empty());
        Self {
            rendezvous,
            service,
            control,
            cipher: keys.map(|keys| keys.ciphers(Side::Client).outbound),
            task,
        }
    }

    async fn say(&mut self, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        if let Some(cipher) = &mut self.cipher {
            cipher.apply(&mut bytes);
        }
        self.control.write_all(&bytes).await.unwrap();
    }

    /// One connection with these keys, from the far end to the service.
    async fn carries(&self, keys: Option<SessionKeys>) {
        let (mut far, _) = admitted(&self.rendezvous).await;
        let (mut near, _) = self.service.accept().await.unwrap();
        let mut bytes = b"hello".to_vec();
        let ciphers = keys.map(|keys| keys.ciphers(Side::Client));
        if let Some(mut cipher) = ciphers.map(|ciphers| ciphers.outbound) {
            cipher.apply(&mut bytes);
        }
        far.write_all(&bytes).await.unwrap();
        near.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"hello");
    }
}

fn announcement(twin: bool) -> (String, SessionKeys) {
    let keys = SessionKeys::random(twin).unwrap();
    let line = ControlLine::Connect(keys.clone()).print();
    (line.reveal().clone(), keys)
}

#[test]
fn a_device_whose_client_never_says_a_word_ends_and_one_that_heard_one_stays() {
    soon(async {
        let many = Many {
            first_word: Some(SHORT),
            ..Many::default()
        };
        let silent = Device::start_as(None, SOON, many).await;
        let end = silent.task.await.unwrap_err();
        assert!(matches!(end, BridgeError::NoWord(SHORT)), "{end}");

        let mut device = Device::start_as(None, SOON, many).await;
        device.say("heartbeat:1\n").await;
        // Time is the subject: it stays longer than it would have in silence.
        async_std::task::sleep(3 * SHORT).await;
        device.say(ControlLine::ConnectPlain.print().reveal()).await;
        device.carries(None).await;
        drop(device.control);
        device.task.await.unwrap();
    });
}

#[test]
fn a_client_from_before_5_6_sends_no_line_ends() {
    soon(async {
        let mut device = Device::start(key_streams()[1].clone(), SOON).await;
        let (one, first) = announcement(false);
        let (two, second) = announcement(false);
        device
            .say(&format!("{}{}", one.trim_end(), two.trim_end()))
            .await;
        device.carries(Some(first)).await;
        device.carries(Some(second)).await;
        let (three, third) = announcement(false);
        device.say(three.trim_end()).await;
        device.carries(Some(third)).await;
        drop(device.control);
        device.task.await.unwrap();
    });
}

#[test]
fn a_twin_session_takes_single_keys_heartbeats_and_words_of_the_future() {
    soon(async {
        let mut device = Device::start(key_streams()[2].clone(), SOON).await;
        device.say("heartbeat:1\nsomething:else\n\n").await;
        for twin in [true, false] {
            let (line, keys) = announcement(twin);
            let (head, tail) = line.split_at(50);
            device.say(head).await;
            device.say(tail).await;
            device.carries(Some(keys)).await;
        }
        drop(device.control);
        device.task.await.unwrap();
    });
}

#[test]
fn what_would_lose_count_or_protection_ends_the_session() {
    let (encrypted, plain) = (key_streams()[1].clone(), None);
    let endless = "x".repeat(5000);
    for (keys, said, why) in [
        (
            &encrypted,
            "connect:no:encrypt\n",
            "another kind of connection",
        ),
        (
            &plain,
            &*announcement(false).0,
            "another kind of connection",
        ),
        (&encrypted, "connect:a:b\n", "without usable keys"),
        (&encrypted, &endless, "more than 4096 bytes"),
    ] {
        soon(async {
            let mut device = Device::start(keys.clone(), SOON).await;
            device.say(said).await;
            let error = device.task.await.unwrap_err();
            assert_eq!(error.step(), Stage::Session, "{said:?}");
            assert!(error.to_string().contains(why), "{said:?}: {error}");
        });
    }
}

/// An admission line for a rendezvous with this nonce.
fn line_for(nonce: &str) -> String {
    format!(
        r#"{{"payload":{{"sessionId":"s","clientNonce":"c","rvdNonce":"{nonce}"}},"signature":"x","hashingAlgo":"sha256","signingAlgo":"rsa2048"}}"#
    )
}

#[test]
fn both_ends_number_their_sockets_where_the_rendezvous_takes_numbers() {
    for (nonce, numbers) in [("0f-pairs", true), ("2024-10-24T10:15:31.654321", false)] {
        soon(async {
            let ((clients, a), (devices, b)) = (listen().await, listen().await);
            let (listener, door) = listen().await;
            let with = |local, at: &Endpoint| {
                let mut plan = plan(local, at, None);
                plan.far.admission = Some(Secret::new(line_for(nonce)));
                plan
            };
            let device = spawn(run(with(LocalEnd::Dial(echo().await), &b), || ()));
            let client = spawn(run(
                with(LocalEnd::Listen(Visitors::of(listener).unwrap()), &a),
                || (),
            ));
            let mut kept = Vec::new();
            for number in 0..4 {
                let visitor = match number {
                    0 => None,
                    _ => Some(dial(&door, SOON).await.unwrap()),
                };
                let mut ends = Vec::new();
                for (listener, end) in [(&clients, "client"), (&devices, "device")] {
                    let (mut tcp, _) = listener.accept().await.unwrap();
                    let (line, early) = read_line(&mut tcp, 4096, SOON).await.unwrap();
                    let line = String::from_utf8(line).unwrap();
                    let want = match numbers {
                        true => line_for(nonce)
                            .replace(r#""rsa2048"}"#, &format!(r#""rsa2048","pair":{number}}}"#)),
                        false => line_for(nonce),
                    };
                    assert_eq!(line, want, "{end} {number}");
                    ends.push((tcp, early));
                }
                let (b, a) = (ends.pop().unwrap(), ends.pop().unwrap());
                kept.push((visitor, spawn(splice(a.0, a.1, b.0, b.1))));
            }
            drop(kept);
            drop((client, device));
        });
    }
}

#[test]
fn a_missing_service_still_meets_the_clients_socket() {
    soon(async {
        let mut device = Device::start(None, SOON).await;
        drop(device.service);
        for _ in 0..3 {
            let line = b"connect:no:encrypt\n";
            device.control.write_all(line).await.unwrap();
            let (mut far, early) = admitted(&device.rendezvous).await;
            assert!(early.is_empty());
            assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0, "a regular end");
        }
        drop(device.control);
        device.task.await.unwrap();
    });
}

#[test]
fn a_device_that_cannot_meet_an_announced_connection_ends_the_session() {
    soon(async {
        let mut device = Device::start(None, SOON).await;
        drop(device.rendezvous);
        device
            .control
            .write_all(b"connect:no:encrypt\n")
            .await
            .unwrap();
        let error = device.task.await.unwrap_err();
        assert_eq!(error.step(), Stage::Rendezvous);
    });
}

#[test]
fn where_sockets_have_numbers_one_that_cannot_be_met_costs_only_itself() {
    soon(async {
        let ((rendezvous, at), (_service, service_at)) = (listen().await, listen().await);
        drop(rendezvous);
        let admission = Some(Secret::new(line_for("0f-pairs")));
        let far = far(at, admission, Side::Device, SHORT);
        let mut lines = ControlLines::new(Keying::Plain);
        lines.push(b"connect:no:encrypt\nconnect:no:encrypt\n");
        let (mut joins, mut announced) = (Joins::new(SOON), CONTROL);
        obey(&mut lines, &mut announced, &far, &service_at, &mut joins)
            .await
            .unwrap();
        assert_eq!((announced, joins.live), (2, 2));
        for left in [1, 0] {
            let end = joins.reports.recv().await.unwrap();
            assert!(joins.account(end).is_none());
            assert_eq!(joins.live, left);
        }
    });
}

#[test]
fn a_session_ends_after_its_time_without_connections_and_not_before() {
    soon(async {
        let mut device = Device::start(None, SHORT).await;
        device.say("connect:no:encrypt\n").await;
        let (far, _) = admitted(&device.rendezvous).await;
        let (near, _) = device.service.accept().await.unwrap();
        // Time is the subject: this is when it would have ended.
        assert!(timeout(3 * SHORT, &mut device.task).await.is_err());
        // Still there: another connection is served.
        device.say("connect:no:encrypt\n").await;
        device.carries(None).await;
        drop((far, near));
        device.task.await.unwrap();
        assert_eq!(device.control.read(&mut [0; 1]).await.unwrap_or(0), 0);
    });
}

#[test]
fn the_end_of_the_control_channel_cuts_what_is_open() {
    for keys in key_streams() {
        soon(async {
            let mut device = Device::start(keys.clone(), SOON).await;
            match keys.is_some() {
                true => device.say(&announcement(false).0).await,
                false => device.say("connect:no:encrypt\n").await,
            }
            let (mut far, _) = admitted(&device.rendezvous).await;
            let (mut near, _) = device.service.accept().await.unwrap();
            drop(device.control);
            device.task.await.unwrap();
            for end in [&mut far, &mut near] {
                let cut = end.read(&mut [0; 1]).await.unwrap_err();
                assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
            }
        });
    }
}

/// What a client says first on the control channel, for a while.
#[test]
fn signs_of_life_are_sent_only_when_asked_for() {
    for heartbeat in [None, Some(Duration::from_millis(20))] {
        soon(async {
            let ((clients, at), (listener, _door)) = (listen().await, listen().await);
            let mut client = plan(LocalEnd::Listen(Visitors::of(listener).unwrap()), &at, None);
            client.timeout = SHORT;
            client.many = Some(Many {
                heartbeat,
                ..Many::default()
            });
            let client = spawn(run(client, || ()));
            let (mut control, early) = admitted(&clients).await;
            // The first may have come with the login's line.
            let mut said = early;
            control.read_to_end(&mut said).await.unwrap();
            let said = String::from_utf8(said).unwrap();
            match heartbeat {
                None => assert_eq!(said, ""),
                Some(_) => assert!(said.starts_with("heartbeat:1\nheartbeat:2\n"), "{said}"),
            }
            client.await.unwrap();
        });
    }
}

#[test]
fn a_visitor_who_comes_as_the_session_ends_is_the_next_ones_first() {
    for admission in [None, Some(Secret::new(line_for("0f-pairs")))] {
        the_visitor_is_kept(admission);
    }
}

fn the_visitor_is_kept(admission: Option<Secret<String>>) {
    soon(async {
        let ((clients, at), (listener, door)) = (listen().await, listen().await);
        let mut visitors = Visitors::of(listener).unwrap();
        let far = far(at, admission, Side::Client, SOON);
        let session = client(far, None, &mut visitors, Many::default(), SOON, || ());
        let visit = async {
            // The control socket stands; from now on nobody is let in.
            let control = clients.accept().await.unwrap();
            drop(clients);
            let mut visitor = dial(&door, SOON).await.unwrap();
            visitor.write_all(b"hello").await.unwrap();
            drop(control);
            visitor
        };
        let (outcome, _visitor) = future::zip(session, visit).await;
        assert_eq!(outcome.unwrap_err().step(), Stage::Session);
        let mut same = visitors.next().await;
        let mut said = [0; 5];
        same.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
    });
}

/// A client's session with one connection that stands, and the test as rendezvous.
struct Standing {
    clients: Option<TcpListener>,
    at: Endpoint,
    door: Endpoint,
    control: TcpStream,
    near: TcpStream,
    remote: TcpStream,
    task: JoinHandle<Result<Carried, BridgeError>>,
}

impl Standing {
    /// At an address of 127.0.0.0/8 that nobody else uses, so that its port stays ours while nobody listens.
    async fn start(admission: Option<&str>, patience: Duration) -> Self {
        let [a, b] = [0, 8].map(|by| (std::process::id() >> by) as u8);
        let clients = TcpListener::bind(format!("127.77.{b}.{a}:0")).await;
        let clients = clients.unwrap();
        let at: Endpoint = clients.local_addr().unwrap().to_string().parse().unwrap();
        let (listener, door) = listen().await;
        let admission = admission.map(|line| Secret::new(line.to_owned()));
        let far = far(at.clone(), admission, Side::Client, patience);
        let task = spawn(async move {
            let mut visitors = Visitors::of(listener).unwrap();
            client(far, None, &mut visitors, Many::default(), SOON, || ()).await
        });
        let (mut control, _) = clients.accept().await.unwrap();
        let near = dial(&door, SOON).await.unwrap();
        let (remote, _) = clients.accept().await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"connect:no:encrypt\n") {
            let mut byte = [0];
            control.read_exact(&mut byte).await.unwrap();
            said.extend(byte);
        }
        let clients = Some(clients);
        Self {
            clients,
            at,
            door,
            control,
            near,
            remote,
            task,
        }
    }

    async fn stands(&mut self) {
        self.remote.write_all(b"still here").await.unwrap();
        let mut heard = [0; 10];
        self.near.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"still here");
    }
}

#[test]
fn a_connection_that_cannot_be_met_is_reset_and_nothing_else_is() {
    for admission in [None, Some(line_for("0f-pairs"))] {
        soon(async {
            let mut session = Standing::start(admission.as_deref(), SHORT).await;
            session.clients = None;
            for _ in 0..3 {
                let mut visitor = dial(&session.door, SOON).await.unwrap();
                let reset = visitor.read(&mut [0; 1]).await.unwrap_err();
                assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
                session.stands().await;
            }
            // The device heard of those whose number waits for them, and in order of none.
            drop((session.near, session.remote));
            let mut heard = vec![0; 200];
            let got = match &admission {
                None => 0,
                Some(_) => session.control.read(&mut heard).await.unwrap(),
            };
            let want = if admission.is_some() { 3 } else { 0 };
            let lines = heard[..got].split(|&byte| byte == b'\n').count();
            assert_eq!(lines.saturating_sub(1), want);
            drop(session.control);
            let end = session.task.await.unwrap_err();
            assert!(matches!(end, BridgeError::Gone | BridgeError::Broken(_)));
        });
    }
}

#[test]
fn a_connection_waits_until_the_rendezvous_can_be_reached_again() {
    for admission in [None, Some(line_for("0f-pairs"))] {
        soon(async {
            let mut session = Standing::start(admission.as_deref(), SOON).await;
            session.clients = None;
            let mut visitor = dial(&session.door, SOON).await.unwrap();
            visitor.write_all(b"hello").await.unwrap();
            if admission.is_some() {
                // Told of already, so it has been tried.
                let line = b"connect:no:encrypt\n";
                let mut said = line.to_owned();
                session.control.read_exact(&mut said).await.unwrap();
                assert_eq!(&said, line);
            }
            session.stands().await;
            let clients = TcpListener::bind((session.at.host.as_str(), session.at.port)).await;
            let (mut remote, _) = clients.unwrap().accept().await.unwrap();
            if let Some(line) = &admission {
                let (said, early) = read_line(&mut remote, 4096, SOON).await.unwrap();
                let want = line.replace(r#""rsa2048"}"#, r#""rsa2048","pair":2}"#);
                assert_eq!(String::from_utf8(said).unwrap(), want);
                assert!(early.len() <= 5);
                let mut heard = early;
                heard.resize(5, 0);
                if heard == [0; 5] {
                    remote.read_exact(&mut heard).await.unwrap();
                }
                assert_eq!(heard, b"hello");
            } else {
                let mut heard = [0; 5];
                remote.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"hello");
            }
            session.stands().await;
        });
    }
}

#[test]
fn a_session_that_the_other_end_closes_has_broken_off_unless_its_time_was_over() {
    soon(async {
        let session = Standing::start(None, SOON).await;
        drop(session.control);
        assert!(matches!(session.task.await, Err(BridgeError::Gone)));
    });
    let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
    for (idle, device, stood, live, regular) in [
        (600, Some(30), 29, 0, true), // as a daemon before 5.6
        (600, Some(30), 3, 0, false),
        (600, Some(30), 29, 1, false),
        (60, None, 29, 0, false),
        (60, None, 50, 0, true),
        (10, Some(30), 9, 0, true),
        (10, None, 1, 0, false),
    ] {
        let mut joins = Joins::new(Duration::from_secs(idle));
        (joins.idle_since, joins.live) = (ago(stood).unwrap(), live);
        let told = joins.stood_idle(device.map(Duration::from_secs));
        assert_eq!(told, regular, "{idle} {device:?} {stood} {live}");
    }
}

/// What a Dart daemon of 5.6 makes of one read of the control channel: the whole is trimmed and split at the
/// word, and what stands between two words is keys, to the byte.
fn as_dart_5_6_reads(text: &[u8]) -> Vec<Result<SessionKeys, String>> {
    let text = String::from_utf8(text.to_vec()).unwrap();
    let parts = text
        .trim()
        .split("connect:")
        .filter(|part| !part.is_empty());
    let read = |part: &str| {
        let words: Vec<&str> = part.split(':').collect();
        let [key, iv] = words[..] else {
            return Err(format!("{} words", words.len()));
        };
        let key = crypto::aes_key_from_base64(key).map_err(|why| why.to_string())?;
        let iv = crypto::iv_from_base64(iv).map_err(|why| why.to_string())?;
        let to_device = StreamKey { key, iv };
        Ok(SessionKeys {
            to_device,
            to_client: None,
        })
    };
    parts.map(read).collect()
}

#[test]
fn announcements_that_a_dart_5_6_daemon_reads_at_once_have_good_keys() {
    for (unended, count, good) in [(true, 2, 2), (true, 3, 3), (true, 20, 20), (false, 2, 1)] {
        soon(async {
            let ((clients, at), (listener, door)) = (listen().await, listen().await);
            let keys = key_streams()[1].clone();
            let mut plan = plan(
                LocalEnd::Listen(Visitors::of(listener).unwrap()),
                &at,
                keys.clone().map(TransportKeys::Stream),
            );
            plan.many = Some(Many {
                unended,
                ..Many::default()
            });
            let session = spawn(run(plan, || ()));
            let (mut control, _) = admitted(&clients).await;
            let mut kept = Vec::new();
            for seed in 0..count {
                let mut visitor = dial(&door, SOON).await.unwrap();
                visitor.write_all(&[seed; 100]).await.unwrap();
                kept.push((visitor, admitted(&clients).await));
            }
            let mut said = vec![0; usize::from(count) * if unended { 77 } else { 78 }];
            control.read_exact(&mut said).await.unwrap();
            keys.clone()
                .unwrap()
                .ciphers(Side::Device)
                .inbound
                .apply(&mut said);
            let read = as_dart_5_6_reads(&said);
            assert_eq!(read.len(), usize::from(count));
            let readable = read.iter().filter(|keys| keys.is_ok()).count();
            assert_eq!(readable, good, "unended: {unended}, {count} at once");
            for (seed, (keys, (_, (remote, early)))) in read.into_iter().zip(&mut kept).enumerate()
            {
                let Ok(keys) = keys else { continue };
                let (mut heard, got) = ([0; 100], early.len());
                heard[..got].copy_from_slice(early);
                remote.read_exact(&mut heard[got..]).await.unwrap();
                keys.ciphers(Side::Device).inbound.apply(&mut heard);
                assert_eq!(heard, [seed as u8; 100]);
            }
            drop((session, kept));
        });
    }
}

#[test]
fn every_socket_is_proved_where_the_session_has_a_key_for_it() {
    soon(async {
        let (devices, at) = listen().await;
        let nonce = "0f-proofs-pairs".parse().unwrap();
        let key = SocketKey::random().unwrap();
        let mut plan = plan(LocalEnd::Dial(echo().await), &at, None);
        plan.far.admission = Some(Secret::new(line_for("0f-proofs-pairs")));
        plan.far.socket_key = Some(key.clone());
        let far = plan.far.clone();
        let _session = spawn(run(plan, || ()));
        let dialler = Dialler::new(far);
        for attempt in 0..2 {
            let _second = match attempt {
                0 => None,
                _ => Some(dialler.connect_as(CONTROL, attempt).await.unwrap()),
            };
            let (mut tcp, _) = devices.accept().await.unwrap();
            let (line, _) = read_line(&mut tcp, 4096, SOON).await.unwrap();
            let line = String::from_utf8(line).unwrap();
            let end = match dialler.far.side {
                Side::Client => Dialer::Client,
                Side::Device => Dialer::Daemon,
            };
            assert_eq!(key.check(&line, &nonce, end), Ok(Some(attempt)), "{line}");
        }
    });
}

/// A client that asks, and how it ends when nobody answers.
fn asking(moves_on: bool) -> Many {
    Many {
        heartbeat: Some(SOON),
        questions: Some(Questions {
            every: SHORT / 10,
            tell: SHORT / 2,
            give_up: 3 * SHORT,
            moves_on,
        }),
        ..Many::default()
    }
}

#[test]
fn a_rendezvous_that_takes_everything_and_carries_nothing_ends_the_session() {
    soon(async {
        let ((clients, at), (listener, door)) = (listen().await, listen().await);
        let mut client = plan(LocalEnd::Listen(Visitors::of(listener).unwrap()), &at, None);
        client.many = Some(asking(false));
        let client = spawn(run(client, || ()));
        let (_control, _) = admitted(&clients).await;
        let mut visitor = dial(&door, SOON).await.unwrap();
        visitor.write_all(b"hello?").await.unwrap();
        let _unmet = admitted(&clients).await;
        let end = client.await.unwrap_err();
        assert!(matches!(end, BridgeError::Silent(_)), "{end}");
        assert!(!matches!(visitor.read(&mut [0]).await, Ok(got) if got > 0));
    });
}

#[test]
fn a_device_that_answers_keeps_a_quiet_session_with_every_kind_of_keys() {
    for keys in every_kind_of_keys() {
        soon(async {
            let ((clients, a), (devices, b)) = (listen().await, listen().await);
            let meeting = rendezvous(clients, devices);
            let device = plan(LocalEnd::Dial(echo().await), &b, keys.clone());
            let device = spawn(run(device, || ()));
            let (listener, door) = listen().await;
            let mut client = plan(LocalEnd::Listen(Visitors::of(listener).unwrap()), &a, keys);
            client.many = Some(asking(false));
            let mut client = spawn(run(client, || ()));
            let mut quiet = dial(&door, SOON).await.unwrap();
            // Longer than it would wait for an answer.
            assert!(timeout(6 * SHORT, &mut client).await.is_err());
            quiet.write_all(b"still there").await.unwrap();
            quiet.shutdown(Shutdown::Write).unwrap();
            let mut heard = Vec::new();
            quiet.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"still there");
            client.cancel().await;
            let _ = device.await; // an answer may have been on its way
            meeting.cancel().await;
        });
    }
}

#[test]
fn whoever_comes_into_silence_is_the_next_sessions_and_who_is_here_stays() {
    soon(async {
        let ((clients, at), (listener, door)) = (listen().await, listen().await);
        let mut visitors = Visitors::of(listener).unwrap();
        let dialler = far(
            at,
            Some(Secret::new("may I come in".into())),
            Side::Client,
            SOON,
        );
        let mut first = dial(&door, SOON).await.unwrap();
        let (tell, told) = async_std::channel::bounded(1);
        let here = spawn(async move {
            let (control, _) = admitted(&clients).await;
            let (far_end, _) = admitted(&clients).await;
            let _ = tell.send((control, far_end)).await;
            // Nobody answers; others come until one is not taken into this session.
            loop {
                let _late = dial(&door, SOON).await.unwrap();
                let _ = timeout(SHORT / 4, clients.accept()).await;
            }
        });
        let session = client(dialler, None, &mut visitors, asking(true), SOON, || ()).await;
        let end = session.unwrap_err();
        assert!(matches!(end, BridgeError::Silent(_)), "{end}");
        here.cancel().await;
        drop(visitors.next().await);
        first.write_all(b"x").await.unwrap();
        let mut heard = [0];
        let (_control, mut far_end) = told.recv().await.unwrap();
        far_end.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"x");
    });
}
