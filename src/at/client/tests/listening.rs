//! Monitors: proof, loss, return, nothing twice.

use super::*;

async fn next(subscription: &mut Subscription) -> Event {
    timeout(SOON, subscription.next()).await.unwrap().unwrap()
}

async fn next_id(subscription: &mut Subscription) -> String {
    match next(subscription).await {
        Event::Note(note) => note.id,
        other => panic!("{other:?}"),
    }
}

/// Waits for the first note, through reconnections.
async fn next_note(subscription: &mut Subscription) -> String {
    loop {
        if let Event::Note(note) = next(subscription).await {
            return note.id;
        }
    }
}

#[test]
fn a_monitor_delivers_once_and_survives_rubbish() {
    run(async {
        let stand = Stand::new(|number, line| {
            let glued = format!("{}data:ok\n@alice@{}", note("early", 4), note("glued", 5));
            (number == 2 && line.starts_with("noop")).then(|| Act::Say(glued.clone()))
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let mut heard = client.subscribe(r"dev1\.sshnp@", false).await.unwrap();
        assert_eq!(stand.line().await, (2, r"monitor dev1\.sshnp@".to_owned()));
        assert_eq!(next_id(&mut heard).await, "early");
        assert_eq!(next_id(&mut heard).await, "glued");
        let stats = r#"notification: {"id":"-1","from":"@alice","to":"@alice","key":"statsNotification.@alice","value":"42","operation":"update","epochMillis":6,"messageType":"MessageType.key","isEncrypted":false,"metadata":null}"#;
        let shared = note("s", 7).replace("x.dev1.sshnp", "shared_key");
        let again = note("glued", 8);
        let rubbish = format!("{stats}\nnotification: {{}}\nnotification: oops\n{shared}{again}");
        stand.push(2, &rubbish).await;
        stand.push(2, &note("last", 9)).await;
        assert_eq!(next_id(&mut heard).await, "last");
        drop(heard);
        stand
            .until(|number, line| number == 2 && line == ENDED)
            .await;
    });
}

#[test]
fn a_silent_monitor_comes_back_where_it_was() {
    run(async {
        let stand = Stand::new(|number, line| match (number, line.split(':').next()) {
            // Proves itself once, then says nothing more.
            (2, Some("noop")) => Some(Act::Silence),
            (3.., Some("noop")) => Some(Act::Say(format!(
                "{}{}data:ok\n@alice@",
                note("one", 1000),
                note("two", 2000)
            ))),
            _ => None,
        })
        .await;
        let timing = Timing {
            silence: Duration::from_millis(300),
            proof: Duration::from_millis(300),
            retry: (Duration::from_millis(10), Duration::from_millis(50)),
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        let answered = async {
            stand
                .until(|number, line| number == 2 && line == "noop:0")
                .await;
            let first = format!(
                "data:ok\n@alice@{}notification: {{\"half",
                note("one", 1000)
            );
            stand.push(2, &first).await;
        };
        let (subscribed, ()) = zip(client.subscribe("a:B", false), answered).await;
        let mut heard = subscribed.unwrap();
        assert_eq!(next_id(&mut heard).await, "one");
        assert!(matches!(next(&mut heard).await, Event::Lost(_)));
        assert!(matches!(next(&mut heard).await, Event::Back));
        assert_eq!(next_note(&mut heard).await, "two");
        assert!(heard.pulse().last_heard() < SOON);
        let (_, resumed) = stand
            .until(|number, line| number == 3 && line.starts_with("monitor"))
            .await;
        assert_eq!(resumed, "monitor:999 a:B");
        drop(client);
        while timeout(SOON, heard.next()).await.unwrap().is_some() {}
    });
}

#[test]
fn a_monitor_that_never_heard_anything_asks_for_nothing_old() {
    run(async {
        let stand = Stand::new(|_, _| None).await;
        let timing = Timing {
            retry: (Duration::from_millis(10), Duration::from_millis(50)),
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        let mut heard = client.subscribe("a:b", false).await.unwrap();
        let first = stand.line().await;
        assert_eq!(first, (2, "monitor:selfNotifications a:b".to_owned()));
        stand.cut(2);
        assert!(matches!(next(&mut heard).await, Event::Lost(_)));
        assert!(matches!(next(&mut heard).await, Event::Back));
        assert_eq!(stand.line().await, (3, first.1));
    });
}

#[test]
fn a_monitor_read_together_with_its_proof_is_tried_again() {
    run(async {
        let stand = Stand::new(|number, line| {
            (number == 2 && line.starts_with("noop"))
                .then(|| error("AT0003-invalid syntax : Syntax Exception"))
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let _heard = client.subscribe("x", false).await.unwrap();
        assert_eq!(stand.line().await.0, 2);
        assert_eq!(stand.line().await.0, 3);

        let stand = Stand::new(|_, line| {
            let refused = "error:AT0003-invalid syntax : no such regex\n";
            line.starts_with("monitor")
                .then(|| Act::Say(refused.to_owned()))
        })
        .await;
        let timing = Timing {
            settle: Duration::from_millis(1),
            ..Timing::default()
        };
        let refused = stand.client(timing).await.subscribe("(", false).await;
        assert!(matches!(refused, Err(AtError::Refused(_))), "{refused:?}");
    });
}

#[test]
fn a_slow_consumer_loses_nothing() {
    run(async {
        let stand = Stand::new(|_, _| None).await;
        let client = stand.client(Timing::default()).await;
        let mut heard = client.subscribe("x", false).await.unwrap();
        let count = 3 * monitor::QUEUE;
        let all: String = (0..count)
            .map(|n| note(&format!("n{n}"), n as u64))
            .collect();
        stand.push(2, &all).await;
        for n in 0..count {
            assert_eq!(next_id(&mut heard).await, format!("n{n}"));
        }
    });
}

/// A client that comes back fast.
fn hasty() -> Timing {
    Timing {
        retry: (Duration::from_millis(10), Duration::from_millis(50)),
        ..Timing::default()
    }
}

/// A subscription that reads no lines above this.
async fn subscribe_within(client: &Client, limit: usize) -> Subscription {
    let (heard, went) = client.0.connections.listen("x", false, limit);
    went.recv().await.unwrap().unwrap();
    heard
}

/// A monitor's line of exactly so many bytes, its end left out.
fn long(id: &str, millis: u64, size: usize) -> String {
    let plain = note(id, millis);
    let more = "v".repeat(size + 1 - plain.len() + 1);
    plain.replace(r#""value":"v""#, &format!(r#""value":"{more}""#))
}

const LIMIT: usize = 64 * 1024;

#[test]
fn one_overlong_notification_does_not_make_a_listener_deaf() {
    let quotes =
        |millis| note("q", millis).replace(r#""v""#, &format!(r#""{}""#, "\\\"".repeat(LIMIT)));
    let control = note("c", 2000).replace(r#""v""#, &format!(r#""{}""#, "\\u0001".repeat(LIMIT)));
    // A time that the sender wrote is not believed.
    let forged = quotes(2000).replacen("\\\"", r#"\",\"epochMillis\":99000,\""#, 1);
    let two = quotes(1500) + &control;
    for (what, lines, from) in [
        ("quotes", quotes(2000), 2000),
        ("control characters", control, 2000),
        ("a forged time", forged, 2000),
        ("two in a row", two, 2000),
        ("one byte too long", long("l", 2000, LIMIT + 1), 2000),
        (
            "no JSON",
            note("j", 2000).replace(r#""id":"#, r#""id":::"#),
            2000,
        ),
        ("no time", "notification: {}\n".to_owned(), 1000),
    ] {
        run(async {
            let stand = Stand::new(|_, _| None).await;
            let client = stand.client(hasty()).await;
            let mut heard = subscribe_within(&client, LIMIT).await;
            stand.line().await;
            stand.push(2, &(note("a", 1000) + &lines)).await;
            assert_eq!(next_id(&mut heard).await, "a", "{what}");
            // On the same connection.
            stand.push(2, &note("early", 1000)).await;
            assert_eq!(next_id(&mut heard).await, "early", "{what}");
            stand.cut(2);
            assert!(matches!(next(&mut heard).await, Event::Lost(_)), "{what}");
            let again = format!("monitor:{} x", from - 1);
            assert_eq!(
                stand.line().await,
                (3, again),
                "{what}: not asked for again"
            );
            stand.push(3, &note("b", 3000)).await;
            assert_eq!(next_note(&mut heard).await, "b", "{what}");
        });
    }
}

#[test]
fn a_line_as_long_as_the_limit_is_heard_and_bytes_that_are_no_text_are_passed_over() {
    run(async {
        let stand = Stand::new(|_, _| None).await;
        let client = stand.client(hasty()).await;
        let mut heard = subscribe_within(&client, LIMIT).await;
        // What stands behind a prompt has a little less.
        stand.push(2, &note("first", 4)).await;
        assert_eq!(next_id(&mut heard).await, "first");
        stand.push(2, &long("whole", 5, LIMIT)).await;
        assert_eq!(next_id(&mut heard).await, "whole");
        let mut peer = stand.peers.lock().unwrap()[&2].clone();
        let bad = note("bad", 6).into_bytes();
        let bad: Vec<u8> = bad
            .iter()
            .map(|b| if *b == b'v' { 0xff } else { *b })
            .collect();
        peer.write_all(&bad).await.unwrap();
        stand.push(2, &note("next", 7)).await;
        assert_eq!(next_id(&mut heard).await, "next");
    });
}

#[test]
fn an_overlong_notification_cut_by_a_disconnect_does_not_come_for_ever() {
    run(async {
        // Each replay begins with it, and none gets to its end.
        let stand = Stand::new(|number, line| {
            let half = format!("notification: {{\"value\":\"{}", "v".repeat(2 * LIMIT));
            match (number, line) {
                (3.., "monitor:999 x") => Some(Act::Say(half)),
                (3..=5, "noop:0") => Some(Act::Hang),
                _ => None,
            }
        })
        .await;
        let client = stand.client(hasty()).await;
        let mut heard = subscribe_within(&client, LIMIT).await;
        stand.line().await;
        stand.push(2, &note("a", 1000)).await;
        assert_eq!(next_id(&mut heard).await, "a");
        stand.cut(2);
        let asked = stand
            .until(|n, line| n == 6 && line.starts_with("monitor"))
            .await;
        assert_eq!(asked.1, "monitor x", "only what is new");
        stand.push(6, &note("b", 3000)).await;
        assert_eq!(next_note(&mut heard).await, "b");
    });
}

#[test]
fn a_backlog_of_any_size_is_heard_also_when_the_connection_ends_within_it() {
    const MANY: u64 = 6000;
    run(async {
        let notes = |from: u64, to: u64| -> String {
            (from..=to)
                .map(|n| note(&format!("n{n}"), 1000 + n))
                .collect()
        };
        // All of it before the proof; the first time it ends half-way.
        let stand = Stand::new(move |number, line| match (number, line) {
            (3, "noop:0") => Some(Act::Say(notes(0, MANY / 2))),
            (4, "noop:0") => Some(Act::Say(notes(MANY / 2 - 1, MANY) + "data:ok\n@alice@")),
            _ => None,
        })
        .await;
        let client = stand.client(hasty()).await;
        let mut heard = subscribe_within(&client, LIMIT).await;
        stand.line().await;
        stand.push(2, &note("n0", 1000)).await;
        assert_eq!(next_id(&mut heard).await, "n0");
        stand.cut(2);
        for n in 1..=MANY {
            if n == MANY / 2 + 1 {
                stand.cut(3);
            }
            assert_eq!(next_note(&mut heard).await, format!("n{n}"));
        }
        let third = stand.line().await;
        assert_eq!(third, (3, "monitor:999 x".to_owned()));
        let (_, fourth) = stand.line().await;
        assert_eq!(
            fourth,
            format!("monitor:{} x", 1000 + MANY / 2 - 1),
            "progress is kept"
        );
    });
}

#[test]
fn a_slow_consumer_and_a_long_backlog_are_no_reason_to_give_up() {
    run(async {
        let notes: String = (1..=1000).map(|n| note(&format!("n{n}"), n)).collect();
        let stand = Stand::new(move |number, line| match (number, line) {
            (2, "noop:0") => Some(Act::Say(notes.clone() + "data:ok\n@alice@")),
            _ => None,
        })
        .await;
        // Far less than the consumer takes.
        let timing = Timing {
            reply: Duration::from_millis(300),
            line: Duration::from_millis(300),
            ..hasty()
        };
        let client = stand.client(timing).await;
        let mut heard = subscribe_within(&client, LIMIT).await;
        for n in 1..=1000 {
            if n % 200 == 0 {
                async_std::task::sleep(2 * timing.line).await;
            }
            assert_eq!(next_id(&mut heard).await, format!("n{n}"));
        }
    });
}

#[test]
fn a_listener_tells_how_long_the_lines_are_that_it_reads_and_falls_back_where_that_is_unknown() {
    for knows in [true, false] {
        run(async {
            let stand = Stand::new(move |_, line| match line.contains("clientConfig") {
                true if !knows => Some(error("AT0003-Syntax Exception")),
                _ => None,
            })
            .await;
            let client = stand.client(hasty()).await;
            let mut heard = subscribe_within(&client, LIMIT).await;
            let told = r#"from:@alice:clientConfig:{"version":"3.0.37","longestLine":"65536"}"#;
            stand
                .until(|number, line| (number, line) == (2, told))
                .await;
            if !knows {
                stand
                    .until(|number, line| (number, line) == (2, "from:@alice"))
                    .await;
            }
            stand.line().await;
            stand.push(2, &note("a", 1000)).await;
            assert_eq!(next_id(&mut heard).await, "a", "{knows}");
        });
    }
}
