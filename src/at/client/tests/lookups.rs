//! A service's look-ups of others' keys: whose atServer is silent holds up nobody else.

use async_std::task::sleep;

use super::*;

/// For a key whose atServer is silent.
const PATIENCE: Duration = Duration::from_millis(300);

/// A stand that knows everybody's public key, but for those that are called `@tar…`: there it is silent, and those
/// called `@off…`, which it says it cannot reach.
async fn service(idle: Duration, patience: Duration) -> (Stand, Client) {
    let public = keys("legacy_file").encryption.public().text.clone();
    let stand = Stand::new(move |_, line| {
        let of = line.strip_prefix("plookup:")?;
        Some(match of {
            _ if of.contains("@tar") => Act::Silence,
            _ if of.contains("@drip") => Act::Drip("data:no end of it".to_owned()),
            _ if of.contains("@off") => error("AT0021-Unable to connect : Unable to connect"),
            _ if of.contains("@shutblocked") => {
                error("AT0013-Connection Exception : Unable to connect")
            }
            _ if of.contains("@shut") => error("AT0008-Handshake failure : Unable to connect"),
            _ => data(&public),
        })
    })
    .await;
    let timing = Timing {
        lookup: patience,
        idle,
        ..Timing::default()
    };
    let client = stand.client(timing).await;
    client.serve_others();
    (stand, client)
}

async fn key(client: &Client, asker: &str, of: &str) -> Result<bool, AtError> {
    let found = client.public_key_for(&atsign(asker), &atsign(of)).await;
    found.map(|key| key.is_some())
}

fn is_silence(outcome: &Result<bool, AtError>) -> bool {
    matches!(outcome, Err(AtError::NoKeyNow(..)))
}

#[test]
fn a_silent_atserver_holds_up_neither_commands_nor_other_keys() {
    run(async {
        // Longer than this test takes: nothing here waits for the end of a silence.
        let (stand, client) = service(SOON, 100 * SOON).await;
        for of in ["@tar", "@drip"] {
            let eve = client.clone();
            spawn(async move { key(&eve, "@eve", of).await });
            stand.until(|_, line| line.contains(of)).await;
        }
        assert!(key(&client, "@alice", "@bob").await.unwrap());
        let answer = client.run(&llookup("x.sshnp")).await;
        assert!(matches!(answer, Err(AtError::Refused(_))), "{answer:?}");
    });
}

#[test]
fn silence_is_remembered_and_an_answer_is_not() {
    run(async {
        let (stand, client) = service(SOON, PATIENCE).await;
        for of in ["@tar", "@drip", "@off"] {
            assert!(is_silence(&key(&client, "@eve", of).await), "{of}");
            stand.until(|_, line| line.contains(of)).await;
            assert!(is_silence(&key(&client, "@alice", of).await), "{of}");
        }
        assert!(key(&client, "@eve", "@bob").await.unwrap());
        // The next line is this one: nobody asked again.
        let (_, line) = stand.until(|_, line| line.starts_with("plookup:")).await;
        assert_eq!(line, "plookup:publickey@bob");
    });
}

#[test]
fn one_asker_has_two_questions_at_a_time_and_those_who_met_silence_two_together() {
    run(async {
        let (stand, client) = service(SOON, PATIENCE).await;
        let mut asked: Vec<_> = (0..5)
            .map(|n| {
                let client = client.clone();
                spawn(async move { key(&client, "@eve", &format!("@tar{n}")).await })
            })
            .collect();
        for _ in 0..2 {
            stand.until(|_, line| line.contains("@tar")).await;
        }
        // A second pair by somebody else, and still nothing of eve's others.
        assert!(key(&client, "@alice", "@bob").await.unwrap());
        let (_, line) = stand.until(|_, line| line.starts_with("plookup:")).await;
        assert_eq!(line, "plookup:publickey@bob");
        for one in asked.drain(..) {
            assert!(is_silence(&one.await));
        }
        // eve and mallory are known now for what they ask: two places are left for others, at any time.
        assert!(is_silence(&key(&client, "@mallory", "@tar9").await));
        let busy: Vec<_> = ["@eve", "@mallory", "@eve", "@mallory"]
            .iter()
            .enumerate()
            .map(|(n, asker)| {
                let (client, asker) = (client.clone(), *asker);
                spawn(async move { key(&client, asker, &format!("@tar1{n}")).await })
            })
            .collect();
        for _ in 0..2 {
            stand.until(|_, line| line.contains("@tar1")).await;
        }
        let both = zip(
            key(&client, "@alice", "@carol"),
            key(&client, "@bob", "@dora"),
        )
        .await;
        assert!(both.0.unwrap() && both.1.unwrap());
        for one in busy {
            assert!(is_silence(&one.await));
        }
    });
}

#[test]
fn the_same_key_is_asked_for_once_and_its_connection_ends_when_idle() {
    run(async {
        let (stand, client) = service(Duration::from_millis(50), SOON).await;
        let both = zip(
            key(&client, "@alice", "@bob"),
            key(&client, "@carol", "@bob"),
        )
        .await;
        assert!(both.0.unwrap() && both.1.unwrap());
        let (number, _) = stand.until(|_, line| line == "plookup:publickey@bob").await;
        assert_ne!(number, 1, "not the command connection");
        // It may end before or after the next question.
        let ended = std::cell::Cell::new(false);
        let watch = |other: usize, line: &str| {
            ended.set(ended.get() || other == number && line == ENDED);
            line.starts_with("plookup:")
        };
        assert!(key(&client, "@alice", "@carol").await.unwrap());
        let (_, line) = stand.until(watch).await;
        assert_eq!(line, "plookup:publickey@carol", "bob's was asked for once");
        if !ended.get() {
            let end = |other: usize, line: &str| other == number && line == ENDED;
            stand.until(end).await;
        }
        // And the next one finds its way all the same.
        assert!(key(&client, "@alice", "@dora").await.unwrap());
    });
}

#[test]
fn our_own_silent_atserver_is_nobody_elses_silence() {
    run(async {
        let silent = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (public, quiet) = (
            keys("legacy_file").encryption.public().text.clone(),
            silent.clone(),
        );
        let stand = Stand::new(move |_, line| {
            let quiet = quiet.load(std::sync::atomic::Ordering::SeqCst);
            match line.split(':').next() {
                Some("plookup" | "noop") if quiet => Some(Act::Silence),
                Some("plookup") => Some(data(&public)),
                _ => None,
            }
        })
        .await;
        let timing = Timing {
            lookup: PATIENCE,
            reply: PATIENCE,
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        client.serve_others();
        assert!(key(&client, "@alice", "@bob").await.is_err());
        silent.store(false, std::sync::atomic::Ordering::SeqCst);
        while !matches!(key(&client, "@alice", "@bob").await, Ok(true)) {
            sleep(PATIENCE).await;
        }
    });
}

#[test]
fn a_good_answer_does_not_forgive_and_a_silent_server_of_ones_own_is_no_mark() {
    run(async {
        let (stand, client) = service(SOON, PATIENCE).await;
        assert!(is_silence(&key(&client, "@tar", "@tar").await));
        let suspects = |who: &str| {
            let lookups = client.0.router.apart.get().unwrap();
            lookups.is_suspect(&atsign(who))
        };
        assert!(!suspects("@tar"), "its own");
        assert!(is_silence(&key(&client, "@eve", "@tar2").await));
        assert!(suspects("@eve"));
        assert!(key(&client, "@eve", "@eve").await.unwrap());
        assert!(key(&client, "@eve", "@bob").await.unwrap());
        assert!(suspects("@eve"), "whatever else it asks for");
        assert!(!suspects("@bob"));
        drop(stand);
    });
}

#[test]
fn an_atserver_that_does_not_let_us_in_is_not_called_silent() {
    run(async {
        let (_stand, client) = service(SOON, PATIENCE).await;
        for of in ["@shut", "@shutblocked"] {
            for _ in 0..2 {
                let outcome = key(&client, "@eve", of).await;
                let why = outcome.unwrap_err();
                assert!(matches!(why, AtError::ShutOut(_)), "{why}");
                assert_eq!(
                    why.to_string(),
                    format!("{of}'s atServer does not let us in")
                );
            }
        }
        let lookups = client.0.router.apart.get().unwrap();
        assert!(!lookups.is_suspect(&atsign("@eve")));
    });
}

#[test]
fn many_names_of_one_silent_server_share_two_places() {
    run(async {
        let (stand, client) = service(SOON, PATIENCE).await;
        // Each asks for its own key, so that nobody is known for asking.
        assert!(is_silence(&key(&client, "@tar", "@tar").await));
        let asked: Vec<_> = (0..5)
            .map(|n| {
                let (client, name) = (client.clone(), format!("@tar1{n}"));
                spawn(async move { key(&client, &name, &name).await })
            })
            .collect();
        for _ in 0..2 {
            stand.until(|_, line| line.contains("@tar1")).await;
        }
        // Two that come for the first time.
        let both = zip(
            key(&client, "@carol", "@carol"),
            key(&client, "@dora", "@dora"),
        )
        .await;
        assert!(both.0.unwrap() && both.1.unwrap());
        for _ in 0..2 {
            let (_, line) = stand.until(|_, line| line.starts_with("plookup:")).await;
            assert!(!line.contains("@tar"), "{line}");
        }
        for one in asked {
            assert!(is_silence(&one.await));
        }
    });
}
