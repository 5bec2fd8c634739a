//! Values: written, read, cached, expired, fetched from elsewhere.

use super::*;

#[test]
fn shared_values_are_cached_renewed_and_deleted_with_their_original() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut alice = world.login("@alice");
    let mut bob = world.login("@bob");
    world.ask(&mut alice, "update:ttr:-1:ccd:True:@bob:a.ns@alice one");
    world.ask(&mut alice, "update:ttr:-1:@bob:b.ns@alice stays");
    world.ask(&mut alice, "update:@bob:c.ns@alice not cached");
    world.deliver("@alice", "@bob");
    assert_eq!(world.told("@bob").len(), 3);
    world.talk(
        &mut bob,
        &[
            ("llookup:cached:@bob:a.ns@alice", "data:one\n@bob@"),
            (
                "scan cached:@bob",
                "data:[\"cached:@bob:a.ns@alice\",\"cached:@bob:b.ns@alice\"]\n@bob@",
            ),
        ],
    );
    world.ask(&mut alice, "update:ttr:-1:@bob:a.ns@alice two");
    world.ask(&mut alice, "delete:@bob:b.ns@alice");
    world.deliver("@alice", "@bob");
    world.talk(
        &mut bob,
        &[
            ("llookup:cached:@bob:a.ns@alice", "data:two\n@bob@"),
            ("llookup:cached:@bob:b.ns@alice", "data:stays\n@bob@"),
        ],
    );
    world.ask(&mut alice, "delete:@bob:a.ns@alice");
    world.deliver("@alice", "@bob");
    let gone = world.ask(&mut bob, "llookup:cached:@bob:a.ns@alice");
    assert!(gone.starts_with("error:AT0015-key not found : "), "{gone}");
    world.talk(
        &mut bob,
        &[("delete:cached:@bob:b.ns@alice", "data:4\n@bob@")],
    );
}

#[test]
fn a_new_public_key_puts_the_old_shared_key_aside() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut alice = world.login("@alice");
    let mut bob = world.login("@bob");
    world.ask(&mut bob, "update:public:publickey@bob K1");
    world.ask(&mut alice, "update:shared_key.bob@alice RSA");
    let send = |world: &mut World, alice: &mut Line| {
        world.ask(alice, "notify:@bob:x.ns@alice:v");
        world.deliver("@alice", "@bob");
    };
    send(&mut world, &mut alice);
    world.talk(
        &mut alice,
        &[
            ("llookup:cached:public:publickey@bob", "data:K1\n@alice@"),
            ("llookup:shared_key.bob@alice", "data:RSA\n@alice@"),
        ],
    );
    world.ask(&mut bob, "update:public:publickey@bob K2");
    send(&mut world, &mut alice);
    let until = world.now;
    let gone = world.ask(&mut alice, "llookup:shared_key.bob@alice");
    assert!(gone.starts_with("error:AT0015-key not found"), "{gone}");
    world.talk(
        &mut alice,
        &[
            ("llookup:cached:public:publickey@bob", "data:K2\n@alice@"),
            (
                &format!("llookup:shared_key.bob.until.{until}@alice"),
                "data:RSA\n@alice@",
            ),
        ],
    );
}

#[test]
fn updates_are_checked() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.login("@alice");
    for (command, start) in [
        (
            "update:x.ns@bob v",
            "error:AT0016-Invalid key : Invalid update command - sharedBy",
        ),
        (
            "update:ttr:-2:x.ns@alice v",
            "error:AT0003-Invalid syntax : ",
        ),
        (
            "update:ttl:-1:x.ns@alice v",
            "error:AT0003-Invalid syntax : ",
        ),
        (
            "delete:public:publickey@alice",
            "error:AT0009-UnAuthorized client in request : Cannot delete protected key: 'public:publickey@alice'",
        ),
        ("delete:public:signing_publickey@alice", "error:AT0009-"),
        ("delete:privatekey:at_pkam_publickey", "error:AT0003-"),
        ("delete:nothing.ns@alice", "data:"),
        ("update:public:@bob:x.ns@alice v", "error:"),
        ("lookup:x.ns@nobody", ""),
    ] {
        let reply = world.ask(&mut line, command);
        assert!(reply.starts_with(start), "{command} → {reply}");
        assert!(
            reply.is_empty() || reply.ends_with("\n@alice@"),
            "{command} → {reply}"
        );
        assert_eq!(
            reply.matches('\n').count(),
            usize::from(!reply.is_empty()),
            "{reply}"
        );
    }
    let long = "k".repeat(300);
    let reply = world.ask(&mut line, &format!("update:{long}.ns@alice v"));
    assert!(reply.starts_with("error:AT0016-"), "{reply}");
}

#[test]
fn immutable_records_stay_until_they_expire() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.login("@alice");
    let lock = "update:ttl:30000:immutable:true:s.session_mutexes.sshrvd@alice lock";
    let first = world.ask(&mut line, lock);
    assert!(first.starts_with("data:"), "{first}");
    for command in [lock, "delete:s.session_mutexes.sshrvd@alice"] {
        let refused = world.ask(&mut line, command);
        assert!(
            refused.starts_with("error:AT0009-") && refused.contains("immutable"),
            "{refused}"
        );
    }
    world.now += 30_000;
    assert!(world.ask(&mut line, lock).starts_with("data:"));
}

#[test]
fn expired_and_unborn_values_are_not_seen_and_the_purge_logs_them() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.login("@alice");
    world.talk(
        &mut line,
        &[
            ("update:ttl:1000:a.ns@alice v", "data:0\n@alice@"),
            ("update:ttb:1000:b.ns@alice v", "data:1\n@alice@"),
            ("llookup:b.ns@alice", "data:null\n@alice@"),
            ("scan ns", "data:[\"a.ns@alice\"]\n@alice@"),
        ],
    );
    world.now += 1000;
    world.talk(
        &mut line,
        &[
            ("llookup:a.ns@alice", "data:null\n@alice@"),
            ("scan ns", "data:[\"b.ns@alice\"]\n@alice@"),
        ],
    );
    let (home, now) = (world.home("@alice"), world.now);
    let (more, _) = world.memory.write(|tx| purge(tx, &home, now)).unwrap();
    assert!(!more);
    world.talk(&mut line, &[
        ("stats:3", "data: [{\"id\":\"3\",\"name\":\"lastCommitID\",\"value\":\"2\"}]\n@alice@"),
        (
            "sync:from:1:limit:10",
            "data:[{\"atKey\":\"a.ns@alice\",\"value\":null,\"metadata\":null,\"commitId\":2,\"operation\":\"-\"}]\n@alice@",
        ),
    ]);
    let gone = world.ask(&mut line, "llookup:a.ns@alice");
    assert!(gone.starts_with("error:AT0015-"), "{gone}");
}

#[test]
fn a_batch_runs_what_it_can() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.login("@alice");
    world.talk(&mut line, &[(
        r#"batch:[{"id":1,"command":"update:x.ns@alice v"},{"id":2,"command":"scan"},{"id":3,"command":"delete:x.ns@alice"}]"#,
        concat!(
            r#"data:[{"id":1,"response":{"data":"0"}},"#,
            r#"{"id":2,"response":{"error_code":"AT0003","error_message":"invalid command"}},"#,
            r#"{"id":3,"response":{"data":"1"}}]"#, "\n@alice@"
        ),
    )]);
    world.talk(&mut line, &[
        (
            r#"update:json:{"atKey":"j.ns","value":"v","sharedBy":"@alice","metadata":{"isPublic":true,"isBinary":false,"isEncrypted":false,"ttl":5000}}"#,
            "data:2\n@alice@",
        ),
        ("llookup:public:j.ns@alice", "data:v\n@alice@"),
        ("update:meta:public:j.ns@alice:ttl:0", "data:3\n@alice@"),
    ]);
    let meta = world.ask(&mut line, "llookup:meta:public:j.ns@alice");
    assert!(
        meta.contains(r#""version":1,"ttl":0,"#) && !meta.contains("expiresAt"),
        "{meta}"
    );
}

#[test]
fn what_lives_elsewhere_is_fetched_and_kept_as_its_owner_allows() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.login("@alice");
    let fetch =
        |world: &mut World, line: &mut Line, command: &str| match world.run(line, command).next {
            FollowUp::Fetch(errand) => *errand,
            other => panic!("{command}: {other:?}"),
        };
    let finish = |world: &mut World, line: &mut Line, errand: &Errand, found: Fetched| {
        let now = world.now;
        let done = world.decide(true, |tx| line.session.fetched(errand, &found, tx, now));
        String::from_utf8(line.session.accept(done).reply).unwrap()
    };
    let errand = fetch(&mut world, &mut line, "lookup:x.ns@far");
    assert_eq!(
        errand.question,
        RemoteQuery::Shared {
            key: "x.ns@far".into()
        }
    );
    let unknown = finish(&mut world, &mut line, &errand, Fetched::Unknown);
    assert_eq!(
        unknown,
        "error:AT0007-Secondary server not found : Unable to find secondary address for atSign:far\n@alice@"
    );
    let fault = Fault::parse("AT0015-Exception: @alice:x.ns@far does not exist in keystore");
    let refused = finish(&mut world, &mut line, &errand, Fetched::Fault(fault));
    assert!(
        refused.starts_with("error:AT0015-key not found : "),
        "{refused}"
    );
    let all = r#"{"key":"@alice:x.ns@far","data":"v","metaData":{"ttr":10,"ivNonce":"IV"}}"#;
    let value = finish(&mut world, &mut line, &errand, Fetched::Data(all.into()));
    assert_eq!(value, "data:v\n@alice@");
    // From the cache now, until it must be refreshed.
    world.talk(&mut line, &[("lookup:x.ns@far", "data:v\n@alice@")]);
    assert!(
        world
            .ask(&mut line, "lookup:all:x.ns@far")
            .contains("cached:@alice:x.ns@far")
    );
    fetch(&mut world, &mut line, "lookup:bypassCache:true:x.ns@far");
    world.now += 10_000;
    fetch(&mut world, &mut line, "lookup:x.ns@far");
    let errand = fetch(&mut world, &mut line, "plookup:publickey@far");
    assert_eq!(
        errand.question,
        RemoteQuery::Public {
            key: "publickey@far".into()
        }
    );
}

#[test]
fn a_clock_that_leaps_and_comes_back_costs_no_value_and_lets_nobody_in() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut line = world.login("@alice");
    let mut late = world.connect("@alice");
    world.ask(&mut line, "update:ttl:86400000:day.ns@alice v");
    world.ask(&mut line, "notify:@bob:x.ns@alice:v");
    let challenge = world.ask(&mut late, "from:@alice");
    let signature = keys().sign(challenge_of(&challenge).as_bytes()).unwrap();
    let (right, year) = (world.now, 365 * 86_400_000);
    world.now += year;
    let refused = world.ask(&mut late, &format!("pkam:{signature}"));
    assert!(refused.starts_with("error:AT0401-"), "{refused}");
    world.talk(&mut line, &[("llookup:day.ns@alice", "data:null\n@alice@")]);
    world.now = right;
    world.talk(&mut line, &[("llookup:day.ns@alice", "data:v\n@alice@")]);
    // Told what came while the clock was ahead, a monitor is told what comes afterwards, too.
    world.now += year;
    world.ask(&mut line, "notify:id:ahead:@bob:x.ns@alice:v");
    world.deliver("@alice", "@bob");
    world.now = right;
    let mut bob = world.login("@bob");
    let watch = world.monitor(&mut bob, "monitor:1");
    world.events.clear();
    world.ask(&mut line, "notify:id:after:@bob:x.ns@alice:v");
    world.deliver("@alice", "@bob");
    let live: Vec<_> = std::mem::take(&mut world.events);
    let seen = live.iter().any(|event| match event {
        CommitEvent::Note(note) => note.id == "after" && watch.wants_live(note),
        _ => false,
    });
    assert!(seen, "{live:?}");
}
