//! Two bridges and a rendezvous that pairs them, over real loopback sockets.
#![allow(clippy::unwrap_used)]

use crate::pipe::cipher::Side;
use crate::pipe::join::reset;
use crate::pipe::join::splice;
use crate::secret::Secret;
use async_std::task::{JoinHandle, spawn};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::zip};

use super::{error::NoReport, visitors::is_here, *};
use crate::net::{dial::dial, line::read_line};
use crate::testing::{SOON, every_kind_of_keys, key_streams, listen, soon};

/// Answers each connection with what it said, back to front, once it has said everything.
async fn reverser() -> Endpoint {
    let (listener, at) = listen().await;
    spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            spawn(async move {
                let mut said = Vec::new();
                tcp.read_to_end(&mut said).await.unwrap();
                said.reverse();
                tcp.write_all(&said).await.unwrap();
            });
        }
    });
    at
}

/// Takes one connection on each of two ports, reads their admission lines, and joins them.
struct Rendezvous {
    client: Endpoint,
    device: Endpoint,
    /// The two admission lines, client's first; then what passed.
    task: JoinHandle<(Vec<u8>, Vec<u8>, Carried)>,
}

async fn rendezvous() -> Rendezvous {
    let ((clients, client), (devices, device)) = (listen().await, listen().await);
    let task = spawn(async move {
        let (a, b) = zip(clients.accept(), devices.accept()).await;
        let (mut a, mut b) = (a.unwrap().0, b.unwrap().0);
        let (line_a, early_a) = read_line(&mut a, 4096, SOON).await.unwrap();
        let (line_b, early_b) = read_line(&mut b, 4096, SOON).await.unwrap();
        (
            line_a,
            line_b,
            splice(a, early_a, b, early_b).await.unwrap(),
        )
    });
    Rendezvous {
        client,
        device,
        task,
    }
}

fn plan(local: LocalEnd, rendezvous: &Endpoint, side: Side, keys: Option<TransportKeys>) -> Plan {
    Plan {
        local,
        far: FarEnd {
            rendezvous: rendezvous.clone(),
            admission: Some(Secret::new(format!("{side:?} may come in"))),
            socket_key: None,
            keys,
            side,
        },
        timeout: SOON,
        many: None,
        greeting: Greeting::Any,
        nearness: None,
        source: None,
    }
}

#[test]
fn a_session_from_a_local_program_to_the_devices_service() {
    for keys in every_kind_of_keys() {
        let is_sealed = matches!(keys, Some(TransportKeys::Records(_)));
        soon(async {
            let (meeting, service) = (rendezvous().await, reverser().await);
            let (listener, door) = listen().await;
            let device = plan(
                LocalEnd::Dial(service),
                &meeting.device,
                Side::Device,
                keys.clone(),
            );
            let client = plan(
                LocalEnd::Listen(Visitors::of(listener).unwrap()),
                &meeting.client,
                Side::Client,
                keys,
            );
            let (device, client) = (spawn(run(device, || ())), spawn(run(client, || ())));

            let said: Vec<u8> = (0..700_000u32).map(|n| (n / 7) as u8).collect();
            let mut tcp = dial(&door, SOON).await.unwrap();
            tcp.write_all(&said).await.unwrap();
            tcp.shutdown(std::net::Shutdown::Write).unwrap();
            let mut heard = Vec::new();
            tcp.read_to_end(&mut heard).await.unwrap();
            heard.reverse();
            assert!(heard == said);

            let whole = said.len() as u64;
            let carried = Carried {
                up: whole,
                down: whole,
            };
            assert_eq!(client.await.unwrap(), carried);
            assert_eq!(device.await.unwrap(), carried);
            let (line_a, line_b, passed) = meeting.task.await;
            assert_eq!(line_a, b"Client may come in");
            assert_eq!(line_b, b"Device may come in");
            let added = [passed.up - whole, passed.down - whole];
            assert_eq!(added.map(|bytes| bytes > 0), [is_sealed; 2]);
        });
    }
}

#[test]
fn the_stream_begins_encrypted_right_behind_the_admission_line() {
    soon(async {
        let (meeting, at) = listen().await;
        let (service, service_at) = listen().await;
        let keys = key_streams()[2].clone();
        let stream = keys.clone().map(TransportKeys::Stream);
        let bridge = plan(LocalEnd::Dial(service_at), &at, Side::Device, stream);
        let bridge = spawn(run(bridge, || ()));
        let (mut near, _) = service.accept().await.unwrap();
        let (mut far, _) = meeting.accept().await.unwrap();
        near.write_all(b"SSH-2.0-device").await.unwrap();
        drop(near);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        let (line, rest) = all.split_at_mut(b"Device may come in\n".len());
        assert_eq!(line, b"Device may come in\n");
        assert_ne!(rest, b"SSH-2.0-device");
        keys.unwrap().ciphers(Side::Client).inbound.apply(rest);
        assert_eq!(rest, b"SSH-2.0-device");
        drop(far);
        bridge.await.unwrap();
    });
}

#[test]
fn only_the_first_visitor_gets_in() {
    soon(async {
        let (_meeting, at) = listen().await;
        let (listener, door) = listen().await;
        let client = spawn(run(
            plan(
                LocalEnd::Listen(Visitors::of(listener).unwrap()),
                &at,
                Side::Client,
                None,
            ),
            || (),
        ));
        let mut first = dial(&door, SOON).await.unwrap();
        // What the first one sends arrives, so it has been let in and the door is shut.
        first.write_all(b"x").await.unwrap();
        let (mut tcp, _) = _meeting.accept().await.unwrap();
        tcp.read_exact(&mut [0; 20]).await.unwrap();
        let second = dial(&door, SOON).await.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::ConnectionRefused);
        drop((first, tcp));
        client.await.unwrap();
    });
}

#[test]
fn nobody_waits_for_ever() {
    soon(async {
        let (_meeting, at) = listen().await;
        let (listener, _) = listen().await;
        let mut plan = plan(
            LocalEnd::Listen(Visitors::of(listener).unwrap()),
            &at,
            Side::Client,
            None,
        );
        plan.timeout = Duration::from_millis(30);
        let mut was_ready = false;
        let error = run(plan, || was_ready = true).await.unwrap_err();
        assert!(was_ready);
        assert_eq!(error.to_string(), "nobody connected within 30ms");
    });
}

/// A port nobody listens on.
async fn closed() -> Endpoint {
    listen().await.1
}

#[test]
fn a_missing_service_is_found_out_before_anybody_is_met() {
    soon(async {
        let ((meeting, at), missing) = (listen().await, closed().await);
        let mut was_ready = false;
        let plan = plan(LocalEnd::Dial(missing.clone()), &at, Side::Device, None);
        let error = run(plan, || was_ready = true).await.unwrap_err();
        assert!(!was_ready);
        assert_eq!(error.step(), Stage::Local);
        let begin = format!("cannot reach the local service {missing}: ");
        assert!(error.to_string().starts_with(&begin), "{error}");
        assert!(error.hint().is_some());
        let met = timeout(Duration::from_millis(50), meeting.accept()).await;
        assert!(met.is_err());
    });
}

#[test]
fn a_missing_rendezvous_ends_the_local_connection_too() {
    soon(async {
        let ((service, service_at), missing) = (listen().await, closed().await);
        let plan_device = plan(LocalEnd::Dial(service_at), &missing, Side::Device, None);
        let error = run(plan_device, || ()).await.unwrap_err();
        assert_eq!(error.step(), Stage::Rendezvous);
        let (mut near, _) = service.accept().await.unwrap();
        assert_eq!(near.read(&mut [0; 1]).await.unwrap_or(0), 0);

        let (listener, door) = listen().await;
        let plan_client = plan(
            LocalEnd::Listen(Visitors::of(listener).unwrap()),
            &missing,
            Side::Client,
            None,
        );
        let mut was_ready = false;
        let error = run(plan_client, || was_ready = true).await.unwrap_err();
        assert_eq!((error.step(), was_ready), (Stage::Rendezvous, false));
        let refused = dial(&door, SOON).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_rendezvous_that_breaks_off_resets_the_local_program() {
    for keys in every_kind_of_keys() {
        soon(async {
            let ((meeting, at), (listener, door)) = (listen().await, listen().await);
            let client = spawn(run(
                plan(
                    LocalEnd::Listen(Visitors::of(listener).unwrap()),
                    &at,
                    Side::Client,
                    keys,
                ),
                || (),
            ));
            let mut visitor = dial(&door, SOON).await.unwrap();
            let (mut far, _) = meeting.accept().await.unwrap();
            far.read_exact(&mut [0; 19]).await.unwrap();
            reset(&far);
            let error = visitor.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(client.await.unwrap_err().step(), Stage::Session);
        });
    }
}

#[test]
fn reports_are_read_back_and_other_lines_are_not() {
    for step in [Stage::Local, Stage::Rendezvous, Stage::Session] {
        let why = "cannot reach x why=y: refused".to_owned();
        let report = Report { step, why };
        assert_eq!(format!("{report}\n").parse(), Ok(report));
    }
    let why = "two\nlines".to_owned();
    let step = Stage::Local;
    let line = Report { step, why }.to_string();
    assert_eq!(line, "bridge=failed step=local why=two lines");
    for line in [
        "",
        "rv started successfully",
        "bridge=failed step=moon why=x",
    ] {
        assert_eq!(line.parse::<Report>(), Err(NoReport), "{line}");
    }
}

#[test]
fn only_this_machine_counts_as_here() {
    for (ip, here) in [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("10.0.0.1", false),
        ("::ffff:10.0.0.1", false),
        ("fe80::1", false),
    ] {
        assert_eq!(is_here(ip.parse().unwrap()), here, "{ip}");
    }
}

/// A rendezvous that named 127.0.0.1, or where a cloud's machines ask for secrets, had the device dial there and write.
#[test]
fn a_device_is_not_sent_to_an_inner_address_unless_its_directory_is_as_near() {
    soon(async {
        let (listener, at) = listen().await;
        let named = Endpoint::parse("localhost", Some(at.port)).unwrap();
        for (rendezvous, nearness, goes) in [
            (&at, "world", false),
            (&named, "world", false),
            (&named, "site", false),
            (&named, "link", false),
            (&named, "world,site", false),
            (&named, "world,host", true),
            (&at, "host", true),
            (&named, "host", true),
        ] {
            let mut plan = plan(
                LocalEnd::Dial(reverser().await),
                rendezvous,
                Side::Device,
                None,
            );
            plan.nearness = Some(nearness.parse().unwrap());
            let (bridge, came) = (spawn(run(plan, || ())), listener.accept());
            if goes {
                drop(came.await.unwrap());
                let _ = bridge.await;
                continue;
            }
            let why = bridge.await.unwrap_err();
            assert_eq!(why.step(), Stage::Rendezvous);
            assert!(why.to_string().contains("--allow-inner"), "{why}");
        }
        let nobody = future::poll_once(listener.accept()).await;
        assert!(nobody.is_none(), "nothing was dialled");
    });
}
