//! Connections that have died without a word: what notices it, and what follows.

use std::time::{Instant, SystemTime};

use super::{alarm::Clock, *};
use crate::testing::{Authority, deaf};

/// So long that nothing here waits for it.
const NEVER: Duration = Duration::from_secs(1000);
/// For an answer that does not come.
const SHORT: Duration = Duration::from_millis(200);

/// Nothing is proved by itself; a connection that is lost is replaced at once.
fn unasked() -> Timing {
    Timing {
        idle: NEVER,
        silence: NEVER,
        proof: NEVER,
        doubt: NEVER,
        retry: (Duration::from_millis(10), Duration::from_millis(50)),
        ..Timing::default()
    }
}

/// The first two connections say nothing once they stand: a monitor's first `noop:0` is answered.
async fn falls_silent() -> Stand {
    let proved = Mutex::new(false);
    Stand::new(move |number, line| match (number, line) {
        (2, "noop:0") if !std::mem::replace(&mut *proved.lock().unwrap(), true) => None,
        (1 | 2, "noop:0") => Some(Act::Silence),
        (1, line) if line.starts_with("llookup") => Some(Act::Silence),
        (_, line) if line.starts_with("llookup") => Some(data("value")),
        _ => None,
    })
    .await
}

async fn subscribed(stand: &Stand, client: &Client) -> Subscription {
    let mut heard = client.subscribe("x", false).await.unwrap();
    stand
        .until(|number, line| (number, line) == (2, "noop:0"))
        .await;
    // Whoever delivers what came after the proof is on watch.
    stand.push(2, &note("first", 1)).await;
    assert!(matches!(heard.next().await, Some(Event::Note(_))));
    heard
}

/// Waits until each of them has been asked for a proof.
async fn asked(stand: &Stand, connections: [usize; 2]) {
    let mut left = connections.to_vec();
    while !left.is_empty() {
        let (number, _) = stand.until(|_, line| line == "noop:0").await;
        left.retain(|one| *one != number);
    }
}

/// Waits until each of them is logged in.
async fn logged_in(stand: &Stand, connections: [usize; 2]) {
    let mut left = connections.to_vec();
    while !left.is_empty() {
        let (number, _) = stand.until(|_, line| line.starts_with("pkam")).await;
        left.retain(|one| *one != number);
    }
}

fn alarm(client: &Client) -> &Arc<alarm::Alarm> {
    &client.0.connections.logins.alarm
}

fn now() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

#[test]
fn a_local_address_that_is_gone_proves_both_connections_at_once() {
    run(async {
        let stand = falls_silent().await;
        let client = stand.client(unasked()).await;
        let _heard = subscribed(&stand, &client).await;
        let (alarm, mut clock) = (alarm(&client), Clock::new(now()));
        let ours = stand.address.ip();
        assert_eq!(alarm.look(&mut clock, now(), |at| at.ip() == ours), None);
        let why = alarm.look(&mut clock, now(), |_| false).unwrap();
        assert_eq!(why, "127.0.0.1 is no longer our address");
        let again = alarm.look(&mut clock, now(), |_| false);
        assert_eq!(again, None, "it is told once for each connection");
        alarm.ring(SHORT);
        logged_in(&stand, [3, 4]).await;
        assert_eq!(client.run(&llookup("x")).await.unwrap(), "value");
    });
}

#[test]
fn after_a_sleep_both_connections_are_proved_and_those_that_live_stay() {
    run(async {
        let stand = Stand::new(|_, line| line.starts_with("llookup").then(|| data("value"))).await;
        let client = stand.client(unasked()).await;
        let _heard = subscribed(&stand, &client).await;
        let (alarm, (run, wall)) = (alarm(&client), now());
        let woke = (run, wall + Duration::from_secs(600));
        let why = alarm.look(&mut Clock::new((run, wall)), woke, |_| true);
        assert_eq!(why.unwrap(), "asleep for 595 s");
        alarm.ring(SOON);
        asked(&stand, [1, 2]).await;
        assert_eq!(client.run(&llookup("x")).await.unwrap(), "value");
        assert_eq!(stand.line().await.0, 1, "the same connection");
    });
}

#[test]
fn a_monitor_that_a_nat_forgot_takes_the_command_connection_along() {
    run(async {
        let stand = falls_silent().await;
        let timing = Timing {
            silence: SHORT,
            proof: 2 * SHORT,
            doubt: SHORT / 2,
            ..unasked()
        };
        let client = stand.client(timing).await;
        let _heard = subscribed(&stand, &client).await;
        logged_in(&stand, [3, 4]).await;
        assert_eq!(client.run(&llookup("x")).await.unwrap(), "value");
    });
}

#[test]
fn a_command_connection_that_is_silent_takes_the_monitor_along() {
    run(async {
        let stand = falls_silent().await;
        let timing = Timing {
            idle: SHORT,
            proof: 2 * SHORT,
            doubt: SHORT / 2,
            ..unasked()
        };
        let client = stand.client(timing).await;
        let mut heard = subscribed(&stand, &client).await;
        logged_in(&stand, [3, 4]).await;
        let lost = timeout(SOON, heard.next()).await.unwrap();
        assert!(matches!(lost, Some(Event::Lost(_))), "{lost:?}");
    });
}

#[test]
fn a_command_on_a_dead_connection_does_not_wait_once_the_alarm_has_rung() {
    run(async {
        let stand = falls_silent().await;
        let timing = Timing {
            reply: NEVER,
            call: NEVER,
            ..unasked()
        };
        let client = stand.client(timing).await;
        let asking = client.clone();
        let answer = spawn(async move { asking.run(&llookup("x")).await });
        assert_eq!(stand.line().await.0, 1);
        alarm(&client).ring(SHORT);
        assert_eq!(timeout(SOON, answer).await.unwrap().unwrap(), "value");
    });
}

#[test]
fn on_a_slow_line_connections_do_not_doubt_each_other_for_ever() {
    run(async {
        let stand = Stand::new(|_, line| match line.split(':').next() {
            Some("noop") => Some(Act::Later(SHORT, "data:ok\n@alice@".to_owned())),
            Some("llookup") => Some(Act::Later(5 * SHORT, "data:value\n@alice@".to_owned())),
            _ => None,
        })
        .await;
        let timing = Timing {
            doubt: SHORT / 10,
            ..unasked()
        };
        let client = stand.client(timing).await;
        let _heard = subscribed(&stand, &client).await;
        alarm(&client).ring(NEVER);
        asked(&stand, [1, 2]).await;
        assert_eq!(client.run(&llookup("x")).await.unwrap(), "value");
        while let Ok((number, line)) = stand.heard.try_recv() {
            assert_ne!(line, "noop:0", "on connection {number}");
        }
    });
}

/// Its server's name leads elsewhere.
struct Moved(std::net::SocketAddr);

impl Transport for Moved {
    fn connect(self: Arc<Self>) -> Boxed<Result<Connected, AtError>> {
        Arc::new(Wire(self.0)).connect()
    }

    fn elsewhere(self: Arc<Self>, peer: std::net::SocketAddr) -> Boxed<()> {
        assert_eq!(peer, self.0);
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn the_old_address_of_a_name_that_moved_is_not_waited_for() {
    run(async {
        let stand = falls_silent().await;
        let timing = Timing {
            silence: SHORT,
            doubt: SHORT,
            ..unasked() // a proof may take for ever
        };
        let client = stand.client_over(Moved(stand.address), timing).await;
        let _heard = subscribed(&stand, &client).await;
        logged_in(&stand, [3, 4]).await;
        assert_eq!(client.run(&llookup("x")).await.unwrap(), "value");
    });
}

#[test]
fn a_name_has_moved_when_it_leads_elsewhere_and_somebody_is_there() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let network = Network {
            root: format!("proxy:{here}").parse().unwrap(),
            tls: crate::net::tls::Connector::new::<&str>(&[]).unwrap(),
        };
        let timing = Timing::default();
        let transport = link::NetworkTransport::new(&network, &atsign("@alice"), timing);
        let has_moved = async |from: &str| transport.has_moved(from.parse().unwrap()).await;
        assert!(has_moved("127.0.0.2:6400").await);
        assert!(has_moved("[::1]:6400").await);
        assert!(!has_moved("127.0.0.1:6400").await);
        assert!(!has_moved("[::ffff:127.0.0.1]:6400").await);
        drop(listener);
        assert!(!has_moved("127.0.0.2:6400").await, "nobody is there");
    });
}

#[test]
fn a_look_up_connection_from_before_the_alarm_is_not_used_again() {
    run(async {
        let public = keys("legacy_file").encryption.public().text.clone();
        let stand =
            Stand::new(move |_, line| line.starts_with("plookup").then(|| data(&public))).await;
        let client = stand.client(unasked()).await;
        client.serve_others();
        for (of, connection, rings) in
            [("@bob", 2, false), ("@carol", 2, true), ("@dave", 3, false)]
        {
            assert!(client.public_key(&atsign(of)).await.unwrap().is_some());
            assert_eq!(stand.line().await.0, connection, "{of}");
            if rings {
                alarm(&client).ring(SOON);
            }
        }
    });
}

#[test]
fn an_address_from_memory_that_the_directory_no_longer_names_is_not_waited_for() {
    run(async {
        let authority = Authority::new();
        let (acceptor, tls) = (authority.acceptor(&["127.0.0.1"]), authority.connector());
        let (old, _kept) = deaf();
        let at = Arc::new(Mutex::new(old.to_string()));
        let answer = Arc::clone(&at);
        let directory = Stand::over(Some(acceptor.clone()), move |_, _| {
            Some(Act::Say(format!("{}\r\n@", answer.lock().unwrap())))
        })
        .await;
        let server = Stand::over(Some(acceptor), |_, _| None).await;
        let root = directory.address.to_string().parse().unwrap();
        let network = Network { root, tls };
        let who = atsign("@alice");
        let known = crate::at::directory::locate(&network.root, &network.tls, &who).await;
        assert_eq!(known.unwrap().0.to_string(), old.to_string());
        *at.lock().unwrap() = server.address.to_string();
        let timing = Timing {
            connect: NEVER,
            doubt: SHORT,
            ..Timing::default()
        };
        let mut link = Link::connect_with(&network, &who, timing).await.unwrap();
        assert_eq!(link.ask(&Verb::Noop { millis: 0 }).await.unwrap(), "ok");
    });
}
