//! Whom an atServer lets in: the lists of an atSign, through the executable, and what strangers meet.

use std::{io::Write, process::Stdio, time::Duration};

use async_std::{
    future::timeout,
    task::{self, block_on},
};
use noports::at::{
    Verb,
    client::{Client, Event},
    verb::Dialect,
};

use crate::world::{
    ALICE, DEVICE, NAME, RENDEZVOUS, World, answer_at_the_end, failure, output, stdout,
};

const CAROL: &str = "@carol";

async fn access(world: &World, words: &[&str]) -> String {
    stdout(world.noports(&[&["access"], words, &["-q"]].concat())).await
}

fn verb(line: &str) -> Verb {
    Verb::parse(line, Dialect::Classic).unwrap()
}

/// A session of alice's, whose bytes come back.
async fn session(world: &World) {
    let mut command = world.client(&["--stdio", "-q"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    let run = task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"there and back")
            .unwrap();
        child.wait_with_output().unwrap()
    });
    let output = run.await;
    assert_eq!(
        output.stdout,
        b"there and back",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn lists_are_shown_and_changed() {
    block_on(async {
        let world = World::start().await;
        const NOBODY: &str = "allowed  everybody\nblocked  nobody\n";
        assert_eq!(access(&world, &["show", DEVICE]).await, NOBODY);
        for (words, want) in [
            (
                &["allow", DEVICE, "alice", "@bob"][..],
                "allowed  @alice @bob\nblocked  nobody\n",
            ),
            // Twice is once; oneself needs no leave.
            (
                &["allow", DEVICE, "@bob", DEVICE],
                "allowed  @alice @bob\nblocked  nobody\n",
            ),
            (
                &["block", DEVICE, "@eve", DEVICE],
                "allowed  @alice @bob\nblocked  @eve\n",
            ),
            (
                &["disallow", DEVICE, "@bob", "@zoe"],
                "allowed  @alice\nblocked  @eve\n",
            ),
            (
                &["unblock", DEVICE, "@eve"],
                "allowed  @alice\nblocked  nobody\n",
            ),
            (
                &["unblock", DEVICE, "@eve"],
                "allowed  @alice\nblocked  nobody\n",
            ),
        ] {
            assert_eq!(access(&world, words).await, want, "{words:?}");
        }
        let line = access(&world, &["block", DEVICE, "@eve", "--json"]).await;
        assert_eq!(
            line,
            "{\"event\":\"access\",\"atsign\":\"@device\",\"allow\":[\"@alice\"],\"block\":[\"@eve\"]}\n"
        );
        let last = ["disallow", DEVICE, "@alice"];
        assert!(
            access(&world, &last)
                .await
                .starts_with("allowed  everybody\n")
        );

        // Whoever allows the first one is told what that means.
        let said = output(world.noports(&["access", "allow", DEVICE, ALICE]))
            .await
            .stderr;
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("from now on nobody else is let in"), "{said}");
    });
}

#[test]
fn a_stranger_is_kept_out_before_the_daemon_hears_of_it() {
    block_on(async {
        let mut world = World::start().await;
        world.activate(CAROL, "session", "@client_example").await;
        let service = answer_at_the_end().await;
        world.rendezvous().await;
        world.daemon(service).await;
        let stranger = Client::login(&world.network, world.keys(CAROL))
            .await
            .unwrap();
        let at = Client::login(&world.network, world.keys(DEVICE))
            .await
            .unwrap();
        let mut heard = at.subscribe("tests@").await.unwrap();
        let note = |entity: &str| {
            verb(&format!(
                "notify:update:ttln:60000:{DEVICE}:{entity}.tests{CAROL}:hello"
            ))
        };

        stranger.run(&note("before")).await.unwrap();
        let Some(Event::Note(first)) = heard.next().await else {
            panic!("the monitor ended");
        };
        assert_eq!(first.from.as_str(), CAROL);
        // The rendezvous looks up the key with which the device signs.
        access(&world, &["allow", DEVICE, ALICE, RENDEZVOUS]).await;

        // Its own atServer takes the notification, and finds the other one closed.
        let id = stranger.run(&note("after")).await.unwrap();
        let ask = verb(&format!("notify:status:{id}"));
        let refused = async {
            while stranger.run(&ask).await.unwrap() != "errored" {
                task::yield_now().await; // asking takes its time
            }
        };
        timeout(Duration::from_secs(30), refused)
            .await
            .expect("errored");
        let kept = at.run(&verb("notify:list")).await.unwrap();
        assert!(
            kept.contains("before.tests") && !kept.contains("after.tests"),
            "{kept}"
        );

        // Its client says so in a line, and what may be behind it.
        let words = [
            "client", "--as", CAROL, "--to", DEVICE, "--device", NAME, "--stdio", "-q",
        ];
        let (code, said) = failure(world.noports(&words)).await;
        assert_eq!(code, 8, "{said}");
        assert_eq!(
            said,
            "noports client: @device's atServer does not let you in\n  hint: its owner may have blocked your atSign, or allowed others only\n"
        );
        session(&world).await;

        access(&world, &["allow", DEVICE, CAROL]).await;
        stranger.run(&note("again")).await.unwrap();
        loop {
            match heard.next().await {
                Some(Event::Note(note)) if note.key.contains("again.tests") => break,
                Some(_) => {}
                None => panic!("the monitor ended"),
            }
        }
    });
}
