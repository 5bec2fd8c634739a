//! atsdk: activation, login, values, scan, notifications both ways, error codes.

use async_std::task::block_on;
use noports::at::{
    Verb,
    client::{Client, Event, Outgoing, Subscription},
    crypto::{decrypt, iv_from_base64},
    metadata::Metadata,
    verb::Dialect,
};

use super::{Agent, world};
use crate::world::{ALICE, DEVICE, World};

fn verb(line: &str) -> Verb {
    Verb::parse(line, Dialect::Classic).unwrap()
}

async fn client(world: &World, who: &str) -> Client {
    Client::login(&world.network, world.keys(who))
        .await
        .unwrap()
}

fn note(to: &str, entity: &str, text: &str) -> Outgoing {
    Outgoing {
        to: to.parse().unwrap(),
        entity: entity.to_owned(),
        text: text.to_owned(),
        ttl: None,
        ttln: 60_000,
        metadata: Metadata::default(),
    }
}

/// The next notification and its plain text.
async fn hear(at: &Client, inbox: &mut Subscription) -> (String, String) {
    loop {
        match inbox.next().await.unwrap() {
            Event::Note(note) if note.key.contains(":shared_key@") => {}
            Event::Note(note) => {
                return (note.key.clone(), at.decrypt(&note).await.unwrap().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_atsign_that_atsdk_activates_is_the_same_for_us_and_the_other_way_round() {
    block_on(async {
        let world = world().await;
        let secret = world.add("@carol").await;
        let mut agent = Agent::start(&world);
        let wrong = "0".repeat(128);
        let (class, text) = agent.fail(&["activate", "@carol", &wrong]);
        assert_eq!(class, "AtUnauthenticatedException", "{text}");
        agent.ask(&["activate", "@carol", secret.reveal()]);
        let (class, text) = agent.fail(&["activate", "@carol", secret.reveal()]);
        assert_eq!(class, "AtKeyNotFoundException", "{text}");

        // Its key file lets us in, ours lets it in; what is written to each can be read by it.
        let carol = client(&world, "@carol").await;
        let key = carol.run(&verb("plookup:publickey@carol")).await.unwrap();
        assert_eq!(key, carol.keys().encryption.public().text);
        agent.ask(&["login", ALICE]);
        agent.ask(&[
            "put",
            "shared",
            "hello",
            "wf",
            ALICE,
            "@carol",
            "good morning",
        ]);
        let alice = ALICE.parse().unwrap();
        let read = carol.get_shared(&alice, "hello.wf").await.unwrap();
        assert_eq!(read.as_deref(), Some("good morning"));
        let mut other = Agent::login(&world, "@carol");
        let read = other.ask(&["get", "shared", "hello", "wf", ALICE, "@carol"]);
        assert_eq!(read[0], "good morning");
    });
}

#[test]
fn public_own_and_shared_values_are_put_got_and_deleted() {
    const TEXT: &str = "grüße: a=b, 日本 🛠  two spaces";
    block_on(async {
        let world = world().await;
        let mut alice = Agent::login(&world, ALICE);
        let mut device = Agent::login(&world, DEVICE);
        let (ours, theirs) = (client(&world, ALICE).await, client(&world, DEVICE).await);

        for (kind, name, entity) in [
            ("public", "card", "card.wf"),
            ("self", "diary", "diary.wf"),
            ("shared", "letter", "letter.wf"),
        ] {
            let (whole, of) = ([kind, name, "wf", ALICE, DEVICE], |word| {
                [&[word][..], &[kind, name, "wf", ALICE, DEVICE]].concat()
            });
            let put = [&["put"][..], &whole, &[TEXT]].concat();
            let commit: i64 = alice.ask(&put)[0].parse().unwrap();
            let again: i64 = alice.ask(&put)[0].parse().unwrap();
            assert!(again > commit, "{entity}: {commit} {again}");
            let encrypted = if kind == "public" { "False" } else { "True" };
            assert_eq!(alice.ask(&of("get")), [TEXT, encrypted], "{entity}");
            if kind != "self" {
                assert_eq!(device.ask(&of("get"))[0], TEXT, "{entity}");
            }

            // And we read it.
            let read = match kind {
                "public" => theirs.run(&verb("plookup:card.wf@alice")).await.unwrap(),
                "self" => own(&ours, entity).await,
                _ => {
                    let from = ALICE.parse().unwrap();
                    theirs.get_shared(&from, entity).await.unwrap().unwrap()
                }
            };
            assert_eq!(read, TEXT, "{entity}");

            alice.ask(&of("delete"));
            let (class, _) = alice.fail(&of("get"));
            assert_eq!(class, "AtKeyNotFoundException", "{entity}");
        }
        let from = ALICE.parse().unwrap();
        assert_eq!(theirs.get_shared(&from, "letter.wf").await.unwrap(), None);

        // What we share, it reads.
        let (to, metadata) = (ALICE.parse().unwrap(), Metadata::default());
        theirs
            .put_shared(&to, "answer.wf", TEXT, metadata)
            .await
            .unwrap();
        let read = alice.ask(&["get", "shared", "answer", "wf", DEVICE, ALICE]);
        assert_eq!(read[0], TEXT);
        let read = device.ask(&["get", "shared", "answer", "wf", DEVICE, ALICE]);
        assert_eq!(read[0], TEXT);
    });
}

/// A value for oneself, decrypted.
async fn own(at: &Client, entity: &str) -> String {
    let key = format!("{entity}{}", at.atsign());
    let value = at.run(&verb(&format!("llookup:{key}"))).await.unwrap();
    let about = at.run(&verb(&format!("llookup:meta:{key}"))).await.unwrap();
    let iv = about
        .split_once(r#""ivNonce":""#)
        .unwrap()
        .1
        .split('"')
        .next()
        .unwrap();
    decrypt(&at.keys().self_key, &iv_from_base64(iv).unwrap(), &value).unwrap()
}

#[test]
fn a_scan_with_metadata_is_understood() {
    block_on(async {
        let world = world().await;
        let mut alice = Agent::login(&world, ALICE);
        for (kind, name) in [("public", "card"), ("self", "diary"), ("shared", "letter")] {
            alice.ask(&["put", kind, name, "wf", ALICE, DEVICE, "text"]);
        }
        alice.ask(&["run", "update:public:__hidden.wf@alice text"]);
        let mut found = alice.ask(&["scan", r"wf@alice$"]);
        found.sort();
        assert_eq!(
            found,
            [
                "PublicKey public:__hidden.wf@alice",
                "PublicKey public:card.wf@alice",
                "SelfKey diary.wf@alice",
                "SharedKey @device:letter.wf@alice",
            ]
        );
        assert_eq!(alice.ask(&["scan", "nothing.like.this"]).len(), 0);
    });
}

#[test]
fn notifications_go_both_ways_and_a_sign_of_life_costs_none() {
    block_on(async {
        let world = world().await;
        let mut agent = Agent::login(&world, ALICE);
        let device = client(&world, DEVICE).await;
        let mut inbox = device.subscribe(r"\.wf@", false).await.unwrap();

        let id = agent.ask(&["notify", DEVICE, "first", "wf", "from Python, 日本"]);
        assert_eq!(id[0].len(), 36, "{id:?}");
        assert_eq!(
            hear(&device, &mut inbox).await,
            (
                "@device:first.wf@alice".into(),
                "from Python, 日本".to_owned()
            )
        );

        // What came before it listened is replayed.
        let send = async |entity: &str| device.notify(&note(ALICE, entity, entity)).await.unwrap();
        send("early.wf").await;
        agent.ask(&["monitor", r"\.wf", "0"]);
        let want = |entity: &str| {
            let key = format!("@alice:{entity}@device");
            ["value", DEVICE, &key, entity].map(str::to_owned)
        };
        assert_eq!(agent.ask(&["hear"]), want("early.wf"));
        send("live.wf").await;
        assert_eq!(agent.ask(&["hear"]), want("live.wf"));

        // A prompt behind the answer to `noop:0` would spoil the line after it.
        agent.ask(&["beat"]);
        assert_eq!(agent.ask(&["hear"])[0], "MONITOR_HEARTBEAT_ACK");
        send("after.wf").await;
        assert_eq!(agent.ask(&["hear"]), want("after.wf"));

        let to = ALICE.parse().unwrap();
        let stored = device.put_shared(&to, "kept.wf", "kept.wf", Metadata::default());
        stored.await.unwrap();
        assert_eq!(agent.ask(&["hear"]), want("kept.wf"));
        device
            .run(&verb("delete:@alice:kept.wf@device"))
            .await
            .unwrap();
        assert_eq!(
            agent.ask(&["hear"]),
            ["delete", DEVICE, "@alice:kept.wf@device"]
        );
    });
}

#[test]
fn errors_have_the_codes_that_atsdk_knows() {
    block_on(async {
        let world = world().await;
        let mut agent = Agent::login(&world, ALICE);
        for (command, class) in [
            ("llookup:none.wf@alice", "AtKeyNotFoundException"),
            ("lookup:none.wf@device", "AtKeyNotFoundException"),
            ("plookup:none.wf@device", "AtKeyNotFoundException"),
            ("plookup:publickey@nobody", "AtSecondaryNotFoundException"),
            ("nonsense", "AtInvalidSyntaxException"),
            ("update:x.wf@alice", "AtInvalidSyntaxException"),
            ("update:ttl:-5:x.wf@alice v", "AtInvalidSyntaxException"),
            ("update:x.wf@device v", "AtInvalidAtKeyException"),
            ("delete:public:publickey@alice", "AtUnauthorizedException"),
            (
                "notify:update:@alice:x.wf@device:v",
                "AtUnauthorizedException",
            ),
            ("cram:00", "AtKeyNotFoundException"),
            ("noop:6000", "AtIllegalArgumentException"),
            (
                r#"enroll:request:{"appName":"a","deviceName":"d","namespaces":{"x":"rw"},"otp":"WRONG1","apkamPublicKey":"k"}"#,
                "AtInternalServerException",
            ),
        ] {
            let (got, text) = agent.fail(&["run", command]);
            assert_eq!(got, class, "{command}: {text}");
        }
        // A login that fails ends the one before.
        agent.ask(&["login", ALICE]);
        // Who is shut out by the other one, and by us; the latter ends the connection.
        for (by, whom, command, class) in [
            (
                DEVICE,
                ALICE,
                "plookup:card.wf@device",
                "AtHandShakeException",
            ),
            (ALICE, "@eve", "from:@eve", "AtBlockedConnectionException"),
        ] {
            let at = client(&world, by).await;
            let block = format!("config:block:add:{whom}");
            at.run(&verb(&block)).await.unwrap();
            let (got, text) = agent.fail(&["run", command]);
            assert_eq!(got, class, "{command}: {text}");
        }
        let keys = world.dir.path("keys");
        std::fs::copy(
            keys.join("@alice_key.atKeys"),
            keys.join("@nobody_key.atKeys"),
        )
        .unwrap();
        let (class, text) = agent.fail(&["login", "@nobody"]);
        assert_eq!(class, "AtSecondaryNotFoundException", "{text}");
        // Somebody else's keys.
        std::fs::copy(
            keys.join("@alice_key.atKeys"),
            keys.join("@device_key.atKeys"),
        )
        .unwrap();
        let (class, text) = agent.fail(&["login", DEVICE]);
        assert_eq!(class, "AtUnauthenticatedException", "{text}");
    });
}
