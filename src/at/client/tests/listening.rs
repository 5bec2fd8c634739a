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
        assert!(heard.last_heard() < SOON);
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
