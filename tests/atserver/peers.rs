//! Two atServers as processes of their own, each with its own authority: they introduce themselves with `from` and
//! `pol`, look things up and deliver.
//!
//! ```text
//!   @alice's process ── from:@alice ──▶ @bob's process
//!                    ◀── lookup of the signature, signing_publickey ──
//! ```

use std::time::{Duration, Instant};

use async_std::task::block_on;

use super::{Wire, address, text};
use crate::world::{Process, World, silent::Silent};

const ALICE: &str = "@alice";
const BOB: &str = "@bob";

/// Two worlds that know of each other.
async fn two() -> (World, World, [Process; 2]) {
    let mut here = World::empty("localhost", |_| {}).await;
    here.activate(ALICE, "@client_example_pkam", "@client_example")
        .await;
    let mut there = World::empty("localhost", |_| {}).await;
    there
        .activate(BOB, "@device_example_pkam", "@device_example")
        .await;
    here.stop().await;
    there.stop().await;
    let serve = |this: &World, other: &World| {
        let (root, ca) = (other.network.root.to_string(), other.dir.text("at/ca.pem"));
        this.serve_with(&["--root", &root, "--ca", &ca])
    };
    let servers = [serve(&here, &there), serve(&there, &here)];
    (here, there, servers)
}

#[test]
fn two_servers_deliver_look_up_and_keep_copies() {
    block_on(async {
        let (here, there, _servers) = two().await;
        let mut alice = Wire::login(&here, ALICE).await;
        let mut bob = Wire::login(&there, BOB).await;
        let mut monitor = Wire::login(&there, BOB).await;
        monitor.monitor("monitor ns").await;

        for n in 1..=5 {
            let command =
                format!("notify:id:n{n}:ttln:60000:ivNonce:IV==:@bob:Note{n}.ns@alice:C:{n} =");
            assert_eq!(alice.data(&command).await, format!("n{n}"));
        }
        for n in 1..=5 {
            let note = monitor.hear().await;
            assert_eq!(text(&note, "id"), format!("n{n}"));
            assert_eq!(text(&note, "from"), ALICE);
            assert_eq!(text(&note, "key"), format!("@bob:Note{n}.ns@alice"));
            assert_eq!(text(&note, "value"), format!("C:{n} ="));
        }
        alice.until("notify:status:n5", "data:delivered").await;

        alice
            .data("update:ttr:-1:ccd:true:@bob:shared.ns@alice one")
            .await;
        alice.data("update:@bob:plain.ns@alice not kept").await;
        alice.data("update:public:card.ns@alice for all").await;
        bob.until("llookup:cached:@bob:shared.ns@alice", "data:one")
            .await;
        bob.table(&[
            ("lookup:shared.ns@alice", "data:one"),
            ("lookup:plain.ns@alice", "data:not kept"),
            ("plookup:card.ns@alice", "data:for all"),
            (
                "scan:@alice",
                r#"data:["plain.ns@alice","shared.ns@alice"]"#,
            ),
            ("lookup:none.ns@alice", "error:AT0015-key not found : "),
            ("plookup:none.ns@alice", "error:AT0015-key not found : "),
            (
                "plookup:publickey@nobody",
                "error:AT0007-Secondary server not found : ",
            ),
            ("llookup:cached:public:publickey@alice", "data:"),
        ])
        .await;
        alice
            .data("update:ttr:-1:ccd:true:@bob:shared.ns@alice two")
            .await;
        bob.until("lookup:shared.ns@alice", "data:two").await;
        alice.data("delete:@bob:shared.ns@alice").await;
        let gone =
            "error:AT0015-key not found : cached:@bob:shared.ns@alice does not exist in keystore";
        bob.until("llookup:cached:@bob:shared.ns@alice", gone).await;
    });
}

#[test]
fn a_value_with_a_line_end_in_it_gives_the_other_server_no_command() {
    block_on(async {
        let (here, there, _servers) = two().await;
        let mut alice = Wire::login(&here, ALICE).await;
        let mut monitor = Wire::login(&there, BOB).await;
        monitor.monitor("monitor ns").await;
        for end in [r"\n", r"\r\n", r"\n\n", r"\r"] {
            let forged = format!("one{end}notify:id:forged:@bob:y.ns@alice:v");
            alice
                .data(&format!(
                    r#"update:json:{{"atKey":"x.ns","sharedWith":"@bob","value":"{forged}"}}"#
                ))
                .await;
        }
        alice.data("notify:id:behind:@bob:z.ns@alice:v").await;
        assert_eq!(text(&monitor.hear().await, "id"), "behind");
        alice.until("notify:status:behind", "data:delivered").await;
    });
}

#[test]
fn a_stranger_cannot_pass_for_another_servers_atsign() {
    block_on(async {
        let (here, there, _servers) = two().await;
        let mut alice = Wire::login(&here, ALICE).await;
        alice.data("update:@bob:secret.ns@alice for bob").await;
        let mut wire = Wire::open(&here, ALICE).await;
        let proof = wire.ask("from:@bob").await;
        assert!(proof.starts_with("data:proof:_"), "{proof}");
        let failed = "error:AT0401-Exception: Pol Authentication Failed";
        assert_eq!(wire.ask("pol").await, failed);
        wire.table(&[
            ("lookup:secret.ns@alice", "error:AT0015-Exception: "),
            (
                "notify:@alice:x.ns@bob:v",
                "error:AT0401-Exception: Notify command cannot be executed without authentication",
            ),
        ])
        .await;
        // A server that cannot be asked proves nothing, either.
        assert_eq!(address(&there, BOB).await.host, "localhost");
        let proof = wire.ask("from:@nobody").await;
        assert!(proof.starts_with("data:proof:_"), "{proof}");
        assert_eq!(wire.ask("pol").await, failed);
    });
}

#[test]
fn what_waits_for_a_server_that_is_down_arrives_when_it_is_back() {
    block_on(async {
        let (here, there, [_first, mut second]) = two().await;
        second.kill();
        let mut alice = Wire::login(&here, ALICE).await;
        alice.data("notify:id:late:@bob:x.ns@alice:v").await;
        alice.until("notify:status:late", "data:errored").await;
        let (root, ca) = (here.network.root.to_string(), here.dir.text("at/ca.pem"));
        let _second = there.serve_with(&["--root", &root, "--ca", &ca]);
        let mut bob = Wire::login(&there, BOB).await;
        bob.monitor("monitor:0").await;
        assert_eq!(text(&bob.hear().await, "id"), "late");
        alice.until("notify:status:late", "data:delivered").await;
    });
}

#[test]
fn servers_that_have_met_stay_connected_and_notice_when_the_other_was_restarted() {
    block_on(async {
        let (here, there, [_first, mut second]) = two().await;
        let mut alice = Wire::login(&here, ALICE).await;
        let mut bob = Wire::login(&there, BOB).await;
        bob.data("update:@alice:x.ns@bob for alice").await;
        let tell = async |alice: &mut Wire, id: &str| {
            alice
                .data(&format!("notify:id:{id}:@bob:n.ns@alice:v"))
                .await;
            alice
                .until(&format!("notify:status:{id}"), "data:delivered")
                .await;
            let note = alice.data(&format!("notify:fetch:{id}")).await;
            text(&super::object(&note), "retryCount")
        };
        for id in ["a", "b", "c"] {
            assert_eq!(tell(&mut alice, id).await, "1", "{id}");
            alice.table(&[("lookup:x.ns@bob", "data:for alice")]).await;
        }
        let outbound = r#"data: [{"id":"2","name":"activeOutboundConnections","value":"1"}]"#;
        assert_eq!(alice.ask("stats:2").await, outbound);
        let seen = bob.data("stats:16").await;
        assert!(seen.contains(r#""other":1,"#), "{seen}");
        let visits = bob.data("stats:5").await;
        assert!(visits.contains(r#"{\"@alice\":1}"#), "{visits}");
        // Gone and back: what was kept is of no use, and nobody notices.
        second.kill();
        let (root, ca) = (here.network.root.to_string(), here.dir.text("at/ca.pem"));
        let _second = there.serve_with(&["--root", &root, "--ca", &ca]);
        assert_eq!(tell(&mut alice, "d").await, "1");
        alice
            .table(&[("lookup:bypassCache:true:x.ns@bob", "data:for alice")])
            .await;
        assert_eq!(alice.ask("stats:2").await, outbound);
        // Whoever is blocked from now on is so on connections that are there, too.
        let mut bob = Wire::login(&there, BOB).await;
        bob.data("config:block:add:@alice").await;
        alice.data("notify:id:e:@bob:n.ns@alice:v").await;
        alice.until("notify:status:e", "data:errored").await;
        let list = bob.data("notify:list:n.ns").await;
        assert!(list.contains(r#""id":"d""#), "{list}");
        assert!(!list.contains(r#""id":"e""#), "{list}");
    });
}

/// Strangers make us ask silent servers for proofs, more of them than there are connections for our own atSigns.
#[test]
fn proofs_for_strangers_take_nothing_from_owners() {
    block_on(async {
        let mut here = World::empty("localhost", |_| {}).await;
        here.activate(ALICE, "@client_example_pkam", "@client_example")
            .await;
        let there = World::empty("localhost", |_| {}).await;
        there
            .activate(BOB, "@device_example_pkam", "@device_example")
            .await;
        let bob = address(&there, BOB).await.to_string();
        let silent = Silent::start(&here, [("bob".to_owned(), bob)].into()).await;
        let _server = here
            .serve_beside(&silent.root, &there.dir.text("at/ca.pem"))
            .await;
        let mut alice = Wire::login(&here, ALICE).await;
        let mut strangers = Vec::new();
        for n in 0..300 {
            let mut wire = Wire::open(&here, ALICE).await;
            let kind = ["tar", "mute", "drip", "off"][n % 4];
            wire.ask(&format!("from:@{kind}{}", n / 8)).await;
            wire.send("pol").await;
            strangers.push(wire);
        }
        // Waits for nobody: neither for a connection nor for a server that is well.
        let asked = Instant::now();
        let key = alice.data("plookup:bypassCache:true:publickey@bob").await;
        assert!(
            key.len() > 300 && asked.elapsed() < Duration::from_secs(5),
            "{key}"
        );
        assert!(!alice.data("stats:2").await.contains(r#""value":"300""#));
        // Each stranger is told no, in the end.
        for mut wire in strangers {
            let told = wire.read().await.unwrap();
            assert!(told.starts_with("error:AT0401-"), "{told}");
        }
        // The silent ones are not asked again, and the log says so shortly.
        let mut again = Wire::open(&here, ALICE).await;
        again.ask("from:@tar0").await;
        let asked = Instant::now();
        assert!(again.ask("pol").await.starts_with("error:AT0401-"));
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        let lines = here.log("atserver").matches(" proof=").count();
        assert!((1..=41).contains(&lines), "{lines} lines");
    });
}

/// Names are cheap: each of a stranger's has a server that answers too much, and each was a line.
#[test]
fn questions_that_others_answer_badly_have_a_line_a_minute() {
    block_on(async {
        let mut here = World::empty("localhost", |_| {}).await;
        here.activate(ALICE, "@client_example_pkam", "@client_example")
            .await;
        let silent = Silent::start(&here, [].into()).await;
        let ca = here.dir.text("at/ca.pem");
        let _server = here.serve_beside(&silent.root, &ca).await;
        let mut alice = Wire::login(&here, ALICE).await;
        for n in 0..5 {
            let reply = alice.ask(&format!("plookup:publickey@big{n}")).await;
            assert!(reply.starts_with("error:"), "{reply}");
        }
        assert_eq!(here.log("atserver").matches("peer=@big").count(), 1);
    });
}
