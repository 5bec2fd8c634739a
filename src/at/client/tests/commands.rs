//! One command, one answer: cut, lost, silent, refused.

use super::*;
use crate::testing::Authority;

#[test]
fn answers_are_whole_however_they_are_cut() {
    run(async {
        let stand = Stand::new(|_, line| {
            Some(match line.split(':').next().unwrap() {
                "from" => Act::Drip("data:_0a1b@alice:2c3d\n@".to_owned()),
                "pkam" => Act::Drip("data:success\n@alice@".to_owned()),
                _ => Act::Drip("data:two\nlines é\n@alice@".to_owned()),
            })
        })
        .await;
        let client = stand.client(Timing::default()).await;
        for _ in 0..3 {
            let answer = client.run(&llookup("x.ns")).await.unwrap();
            assert_eq!(answer, "two\nlines é");
        }
        let (_, from) = stand.heard.recv().await.unwrap();
        assert_eq!(from, "from:@alice");
        let (_, pkam) = stand.heard.recv().await.unwrap();
        assert!(pkam.starts_with("pkam:signingAlgo:rsa2048:hashingAlgo:sha256:"));
        assert_eq!(stand.line().await, (1, "llookup:x.ns@alice".to_owned()));
    });
}

#[test]
fn many_callers_get_their_own_answers() {
    run(async {
        let stand = Stand::new(|_, line| {
            line.strip_prefix("llookup:")
                .map(|key| match key.contains("missing") {
                    true => error("AT0015-key not found : missing"),
                    false => data(key),
                })
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let calls: Vec<_> = (0..100)
            .map(|n| {
                let client = client.clone();
                spawn(async move { client.run(&llookup(&format!("k{n}.ns"))).await.unwrap() })
            })
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await, format!("k{n}.ns@alice"));
        }
        match client.run(&llookup("missing.ns")).await {
            Err(AtError::Refused(fault)) => assert!(fault.is_key_not_found()),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_lost_command_is_repeated_once_if_it_may_be() {
    run(async {
        let stand = Stand::new(|number, line| {
            let word = line.split(':').next().unwrap();
            match (number, word) {
                (1 | 3 | 4 | 5, "llookup" | "enroll" | "update") => Some(Act::Hang),
                (_, "llookup") => Some(data("value")),
                _ => None,
            }
        })
        .await;
        let client = stand.client(Timing::default()).await;
        assert_eq!(client.run(&llookup("x.ns")).await.unwrap(), "value");
        assert_eq!(stand.line().await.0, 1);
        assert_eq!(stand.line().await.0, 2);

        // From now on every connection dies under its first command.
        stand.cut(2);
        stand
            .until(|number, line| number == 3 && line.starts_with("pkam"))
            .await;
        let lost = client.run(&llookup("y.ns")).await;
        assert!(matches!(lost, Err(AtError::Lost { .. })), "{lost:?}");
        assert_eq!(stand.line().await, (3, "llookup:y.ns@alice".to_owned()));
        assert_eq!(stand.line().await, (4, "llookup:y.ns@alice".to_owned()));

        let approve = Verb::Enroll {
            operation: crate::at::verb::EnrollOperation::Approve,
            force: false,
            params: Some("{}".to_owned()),
        };
        let lost = client.run(&approve).await;
        assert!(matches!(lost, Err(AtError::Lost { .. })), "{lost:?}");
        assert_eq!(stand.line().await.0, 5);
    });
}

#[test]
fn a_silent_server_costs_its_connection_and_the_deadline() {
    run(async {
        let stand = Stand::new(|number, line| match (number, line) {
            (_, "llookup:slow@alice") => Some(Act::Silence),
            (2, line) if line.starts_with("llookup") => Some(data("second")),
            _ => None,
        })
        .await;
        // No time is left for a second try.
        let reply = Duration::from_millis(200);
        let timing = Timing {
            reply,
            call: reply,
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        let silent = client.run(&llookup("slow")).await;
        assert!(matches!(silent, Err(AtError::Silent(_))), "{silent:?}");
        // The answer of the first command, late: nobody may take it for that of the second.
        let mut late = stand.peers.lock().unwrap()[&1].clone();
        let _ = late.write_all(b"data:late\n@alice@").await;
        assert_eq!(client.run(&llookup("quick")).await.unwrap(), "second");
    });
}

#[test]
fn what_may_run_twice_is_repeated_once_after_silence_too() {
    run(async {
        let stand = Stand::new(|number, line| match (number, line) {
            (1, line) if line.starts_with("llookup") => Some(Act::Silence),
            (_, "llookup:never@alice") => Some(Act::Silence),
            (_, line) if line.starts_with("llookup") => Some(data("value")),
            (_, line) if line.starts_with("enroll") => Some(Act::Silence),
            _ => None,
        })
        .await;
        let timing = Timing {
            reply: Duration::from_millis(200),
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        assert_eq!(client.run(&llookup("x")).await.unwrap(), "value");
        let silent = client.run(&llookup("never")).await;
        assert!(matches!(silent, Err(AtError::Silent(_))), "{silent:?}");
        let list = crate::at::enrolment::list(None);
        let silent = client.run(&list).await;
        assert!(matches!(silent, Err(AtError::Silent(_))), "{silent:?}");
        let mut asked = Vec::new();
        while let Ok((number, line)) = stand.heard.try_recv() {
            if line.starts_with("llookup") || line.starts_with("enroll") {
                asked.push(number);
            }
        }
        assert_eq!(asked, [1, 2, 2, 3, 4], "enroll may not run twice");
    });
}

#[test]
fn a_link_that_failed_stays_dead() {
    run(async {
        let stand = Stand::new(|_, line| line.starts_with("llookup").then_some(Act::Silence)).await;
        let timing = Timing {
            reply: Duration::from_millis(100),
            ..Timing::default()
        };
        let stream = Arc::new(Wire(stand.address)).connect().await.unwrap();
        let mut link = Link::new(stream, atsign("@alice"), &timing);
        link.login(&keys("legacy_file")).await.unwrap();
        let silent = link.ask(&llookup("slow")).await;
        assert!(matches!(silent, Err(AtError::Silent(_))), "{silent:?}");
        stand.push(1, "data:late\n@alice@").await;
        let dead = link.ask(&Verb::Noop { millis: 0 }).await;
        assert!(matches!(dead, Err(AtError::Lost { .. })), "{dead:?}");
    });
}

#[test]
fn what_nobody_asked_for_is_taken_for_no_answer() {
    run(async {
        let stand = Stand::new(|number, line| {
            line.starts_with("llookup")
                .then(|| data(&format!("from {number}")))
        })
        .await;
        let client = stand.client(Timing::default()).await;
        assert_eq!(client.run(&llookup("a.ns")).await.unwrap(), "from 1");
        stand.push(1, "data:unasked\n@alice@").await;
        stand
            .until(|number, line| number == 1 && line == ENDED)
            .await;
        assert_eq!(client.run(&llookup("b.ns")).await.unwrap(), "from 2");
    });
}

#[test]
fn a_forgotten_login_is_made_again() {
    run(async {
        let stand = Stand::new(|number, line| {
            line.starts_with("enroll").then(|| match number {
                1 => error("AT0401-Exception: Command cannot be executed without auth"),
                _ => data("{}"),
            })
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let list = crate::at::enrolment::list(None);
        assert_eq!(client.run(&list).await.unwrap(), "{}");
    });
}

#[test]
fn a_quiet_connection_is_proved_and_replaced() {
    run(async {
        let stand = Stand::new(|_, _| None).await;
        let timing = Timing {
            idle: Duration::from_millis(50),
            retry: (Duration::from_millis(10), Duration::from_millis(50)),
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        stand.until(|_, line| line == "noop:0").await;
        stand.cut(1);
        stand
            .until(|number, line| number == 2 && line.starts_with("pkam"))
            .await;
        drop(client);
        stand
            .until(|number, line| number == 2 && line == ENDED)
            .await;
    });
}

#[test]
fn refused_logins_say_why() {
    run(async {
        for (answer, expected) in [
            (
                "error:AT0401-Exception: pkam authentication failed\n@",
                Code::Unauthenticated,
            ),
            (
                "error:AT0027:enrollment_id: x is revoked\n@",
                Code::EnrollmentRevoked,
            ),
        ] {
            let stand = Stand::new(move |_, line| {
                line.starts_with("pkam")
                    .then(|| Act::Say(answer.to_owned()))
            })
            .await;
            let reach = Arc::new(Wire(stand.address));
            let keys = Arc::new(keys("legacy_file"));
            let refused = Client::login_over(reach, keys, Timing::default()).await;
            match refused {
                Err(AtError::Login { fault, .. }) => assert_eq!(fault.code, Some(expected)),
                other => panic!("{other:?}"),
            }
        }
        let full = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reach = Arc::new(Wire(full.local_addr().unwrap()));
        let closing = spawn(async move {
            let (mut stream, _) = full.accept().await.unwrap();
            let words = b"error:AT0012-Inbound connection limit exceeded\n";
            stream.write_all(words).await.unwrap();
            // Reads what comes, so that closing is no reset.
            let mut line = String::new();
            BufReader::new(&mut stream)
                .read_line(&mut line)
                .await
                .unwrap();
        });
        let refused =
            Client::login_over(reach, Arc::new(keys("legacy_file")), Timing::default()).await;
        closing.await;
        match refused {
            Err(why @ AtError::Login { .. }) => assert!(why.may_pass(), "{why}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn lines_that_are_two_lines_are_not_sent() {
    run(async {
        let stand = Stand::new(|_, _| None).await;
        let client = stand.client(Timing::default()).await;
        let update = Verb::Update {
            key: AtKey::own("x.ns", &atsign("@alice")),
            metadata: Metadata::default(),
            value: "a\ndelete:y.ns@alice".to_owned(),
        };
        for verb in [update, Verb::Pol] {
            let refused = client.run(&verb).await;
            assert!(matches!(refused, Err(AtError::Protocol(_))), "{refused:?}");
        }
        drop(client);
        stand
            .until(|number, line| number == 1 && line == ENDED)
            .await;
    });
}

#[test]
fn the_whole_way_over_directory_and_tls_and_after_the_server_has_moved() {
    run(async {
        let authority = Authority::new();
        let (acceptor, tls) = (authority.acceptor(&["127.0.0.1"]), authority.connector());
        let script = |_: usize, line: &str| line.starts_with("llookup").then(|| data("value"));
        let first = Stand::over(Some(acceptor.clone()), script).await;
        let at = Arc::new(Mutex::new(first.address.to_string()));
        let answer = Arc::clone(&at);
        let directory = Stand::over(Some(acceptor.clone()), move |_, line| {
            Some(Act::Drip(match line {
                "alice" => format!("{}\r\n@", answer.lock().unwrap()),
                _ => "null\r\n@".to_owned(),
            }))
        })
        .await;
        let network = Network {
            root: directory.address.to_string().parse().unwrap(),
            tls,
        };
        let keys = Arc::new(keys("apkam_file"));
        let client = Client::login(&network, Arc::clone(&keys)).await.unwrap();
        assert_eq!(client.run(&llookup("x.ns")).await.unwrap(), "value");
        let mut link = Link::connect(&network, client.atsign()).await.unwrap();
        assert_eq!(link.ask(&Verb::Noop { millis: 0 }).await.unwrap(), "ok");
        let asked = || {
            let lines = std::iter::from_fn(|| directory.heard.try_recv().ok());
            lines.filter(|(_, line)| line == "alice").count()
        };
        assert_eq!(asked(), 1, "the second time it is remembered");

        let second = Stand::over(Some(acceptor), script).await;
        *at.lock().unwrap() = second.address.to_string();
        drop(first);
        drop((client, link));
        let client = loop {
            // The first one's socket closes a moment after its task has been told to.
            let client = Client::login(&network, Arc::clone(&keys)).await.unwrap();
            if !second.heard.is_empty() {
                break client;
            }
        };
        assert_eq!(client.run(&llookup("x.ns")).await.unwrap(), "value");
        assert_eq!(asked(), 1, "the remembered address was dead");

        let nobody = Link::connect(&network, &atsign("@nobody")).await;
        assert!(matches!(nobody, Err(AtError::Unknown { .. })), "{nobody:?}");
    });
}
