//! Notifications from one atSign to another.

use super::*;

#[test]
fn a_notification_arrives_once_in_order_with_the_receivers_time() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut alice = world.login("@alice");
    let mut bob = world.login("@bob");
    world.talk(&mut alice, &[
        (
            "notify:id:n1:update:messageType:key:priority:low:strategy:all:latestN:1:notifier:SYSTEM:ttln:60000:isEncrypted:true:sharedKeyEnc:SKE=:pubKeyCS:abc:ivNonce:IV==:@bob:Req.dev1.sshnp@alice:C:T =",
            "data:n1\n@alice@",
        ),
        ("notify:id:n2:update:ivNonce:IV==:@bob:b.ns@alice:2", "data:n2\n@alice@"),
        ("notify:status:n1", "data:queued\n@alice@"),
    ]);
    assert_eq!(world.told("@bob"), [""; 0]);
    world.now += 5;
    world.deliver("@alice", "@bob");
    let told = world.told("@bob");
    assert_eq!(
        told[0],
        concat!(
            r#"notification: {"id":"n1","from":"@alice","to":"@bob","key":"@bob:Req.dev1.sshnp@alice","#,
            r#""value":"C:T =","operation":"update","epochMillis":1729771294572,"#,
            r#""messageType":"MessageType.key","isEncrypted":true,"metadata":{"encKeyName":null,"#,
            r#""encAlgo":null,"ivNonce":"IV==","skeEncKeyName":null,"skeEncAlgo":null,"sharedKeyEnc":"SKE="}}"#,
            "\n"
        )
    );
    assert!(told[1].contains(r#""id":"n2""#) && told[1].contains(r#""isEncrypted":true"#));
    world.talk(
        &mut alice,
        &[
            ("notify:status:n1", "data:delivered\n@alice@"),
            ("notify:status:none", "data:null\n@alice@"),
        ],
    );
    // Nothing is cached without ttr.
    world.talk(&mut bob, &[("scan cached:@bob", "data:[]\n@bob@")]);
    let listed = world.ask(&mut bob, "notify:list");
    assert!(listed.starts_with(r#"data:[{"id":"n1","#), "{listed}");
    assert!(
        listed.contains(r#""availableAt":"null","expiresAt":"null"}"#),
        "{listed}"
    );
    let fetched = world.ask(&mut bob, "notify:fetch:n1");
    for part in [
        r#""type":"NotificationType.received""#,
        r#""notificationStatus":"NotificationStatus.delivered""#,
        r#""notificationDateTime":"2024-10-24 12:01:34.572Z""#,
    ] {
        assert!(fetched.contains(part), "{part} in {fetched}");
    }
    world.talk(
        &mut bob,
        &[
            ("notify:remove:n1", "data:success\n@bob@"),
            ("notify:remove:n1", "data:success\n@bob@"),
            (
                "notify:fetch:n1",
                "data:{\"id\":\"n1\",\"notificationStatus\":\"NotificationStatus.expired\"}\n@bob@",
            ),
        ],
    );
    world.now += 60_001;
    world.talk(&mut alice, &[("notify:status:n1", "data:expired\n@alice@")]);
}

#[test]
fn a_monitor_replays_what_came_after_a_time_and_then_only_what_is_new() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut alice = world.login("@alice");
    for n in 1..=5 {
        world.now += 1;
        world.ask(
            &mut alice,
            &format!("notify:id:n{n}:ttln:1000:@bob:k{n}.ns@alice:v"),
        );
        world.deliver("@alice", "@bob");
    }
    let mut bob = world.login("@bob");
    let since = NOW + 2;
    let watch = world.monitor(&mut bob, &format!("monitor:{since} k[345]"));
    let lines = world.replay("@bob", &watch);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains(r#""id":"n3""#) && lines[2].contains(r#""id":"n5""#));
    assert!(lines[0].contains(r#""ivNonce":null,"#) && !lines[0].contains("sharedKeyEnc"));
    let events: Vec<_> = world.events.clone();
    for event in &events {
        if let CommitEvent::Note(note) = event {
            assert!(!watch.wants_live(note), "{} was replayed", note.id);
        }
    }
    world.told("@bob");
    world.ask(&mut alice, "notify:id:new:@bob:k3.ns@alice:v");
    world.deliver("@alice", "@bob");
    let fresh: Vec<_> = world
        .events
        .drain(..)
        .filter_map(|event| match event {
            CommitEvent::Note(note) => Some(watch.wants_live(&note)),
            _ => None,
        })
        .collect();
    assert_eq!(fresh, [true]);
    world.now += 2000;
    let all = world.monitor(&mut bob, "monitor:0");
    let lines = world.replay("@bob", &all);
    assert_eq!(lines.len(), 1, "expired ones are gone: {lines:?}");
    let by_sender = world.monitor(&mut bob, "monitor:selfNotifications:0 ^alice$");
    assert_eq!(world.replay("@bob", &by_sender).len(), 1);
}

#[test]
fn blocked_senders_are_kept_waiting_and_an_allow_list_shuts_out_the_rest() {
    let mut world = World::new(&["@alice", "@bob", "@carol"]);
    let mut alice = world.login("@alice");
    let mut bob = world.login("@bob");
    world.talk(
        &mut bob,
        &[
            ("config:block:show", "data:null\n@bob@"),
            ("config:block:add:@alice @bob", "data:success\n@bob@"),
            ("config:block:show", "data:[\"@alice\"]\n@bob@"),
        ],
    );
    world.ask(&mut alice, "notify:id:n1:@bob:x.ns@alice:v");
    assert!(matches!(world.deliver("@alice", "@bob"), Delivery::Refused));
    world.talk(&mut alice, &[("notify:status:n1", "data:errored\n@alice@")]);
    let mut line = world.connect("@bob");
    let outcome = world.run(&mut line, "from:@alice");
    assert_eq!(
        outcome.reply,
        b"error:AT0013-Exception: Unable to connect\n@"
    );
    assert!(outcome.close);
    world.talk(
        &mut bob,
        &[
            ("config:block:remove:@alice", "data:success\n@bob@"),
            ("config:allow:add:@carol", "data:success\n@bob@"),
        ],
    );
    assert!(matches!(world.deliver("@alice", "@bob"), Delivery::Refused));
    world.talk(
        &mut bob,
        &[("config:allow:add:@alice", "data:success\n@bob@")],
    );
    assert!(matches!(world.deliver("@alice", "@bob"), Delivery::Some));
    world.talk(
        &mut alice,
        &[("notify:status:n1", "data:delivered\n@alice@")],
    );
    let lists = world.home("@bob");
    world
        .memory
        .read(|tx| assert_eq!(lists::show(tx, &lists, AccessList::Allow).unwrap().len(), 2));
    // The owner always may.
    assert!(
        world
            .ask(&mut world.connect("@bob"), "from:bob")
            .starts_with("data:_")
    );
}

#[test]
fn of_one_notifier_only_the_newest_stay_in_line() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut line = world.login("@alice");
    for n in 1..=4 {
        let text =
            format!("notify:id:n{n}:strategy:latest:latestN:2:notifier:me:@bob:x.ns@alice:{n}");
        world.ask(&mut line, &text);
    }
    world.deliver("@alice", "@bob");
    let told = world.told("@bob");
    assert_eq!(told.len(), 2);
    assert!(told[0].contains("n3") && told[1].contains("n4"), "{told:?}");
    let refused = world.ask(&mut line, "notify:strategy:latest:@bob:x.ns@alice:v");
    assert!(refused.starts_with("error:AT0003-"), "{refused}");
}

#[test]
fn one_gets_ones_own_notifications_at_once() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.login("@alice");
    world.talk(
        &mut line,
        &[
            ("notify:id:me:@alice:x.ns@alice:v", "data:me\n@alice@"),
            ("notify:status:me", "data:delivered\n@alice@"),
            ("notify:id:me:@alice:x.ns@alice:v2", "data:me\n@alice@"),
            (
                "notify:update:messageType:text:isEncrypted:false:@alice:hello there",
                "",
            ),
        ][..3],
    );
    assert_eq!(
        world.told("@alice").len(),
        2,
        "the owner may use an id again"
    );
    world.ask(
        &mut line,
        "notify:update:messageType:text:isEncrypted:false:@alice:hello there",
    );
    let told = world.told("@alice");
    assert!(
        told[0].contains(r#""key":"@alice:hello there","value":null"#),
        "{told:?}"
    );
    assert!(
        told[0].contains(r#""messageType":"MessageType.text","isEncrypted":false"#),
        "{told:?}"
    );
}

#[test]
fn what_no_monitor_could_be_shown_is_refused_for_good_also_to_the_owner() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut alice = world.login("@alice");
    for (to, value) in [
        ("@bob", "\"".repeat(6_000_000)),
        ("@alice", "\"".repeat(6_000_000)),
        ("@bob", "\u{1}".repeat(1_800_000)),
    ] {
        let said = world.ask(&mut alice, &format!("notify:{to}:x.ns@alice:{value}"));
        assert!(said.starts_with("error:AT0005"), "{said}");
    }
    // Letters stay as long as they are.
    let letters = "v".repeat(9_000_000);
    let said = world.ask(
        &mut alice,
        &format!("notify:id:n1:@bob:x.ns@alice:{letters}"),
    );
    assert_eq!(said, "data:n1\n@alice@");
    assert!(matches!(world.deliver("@alice", "@bob"), Delivery::Some));
    // Metadata is shown, too.
    let name = "\"".repeat(6_000_000);
    let said = world.ask(
        &mut alice,
        &format!("notify:encKeyName:{name}:@bob:x.ns@alice:v"),
    );
    assert!(said.starts_with("error:AT0005"), "{said}");
}

#[test]
fn what_others_send_is_kept_for_a_day_and_what_the_owner_sends_as_long_as_it_asks_for() {
    let mut world = World::new(&["@alice", "@bob"]);
    let year = 366_u64 * 24 * 3600 * 1000;
    let mut alice = world.login("@alice");
    let mut bob = world.login("@bob");
    world.ask(
        &mut alice,
        &format!("notify:id:n1:ttln:{year}:@bob:x.ns@alice:v"),
    );
    world.ask(
        &mut bob,
        &format!("notify:id:own:ttln:{year}:@bob:x.ns@bob:v"),
    );
    while matches!(world.deliver("@alice", "@bob"), Delivery::Some) {}
    let listed = |world: &mut World, bob: &mut _| world.ask(bob, "notify:list");
    let all = listed(&mut world, &mut bob);
    assert!(all.contains("\"n1\"") && all.contains("\"own\""), "{all}");
    world.now += 25 * 3600 * 1000;
    let all = listed(&mut world, &mut bob);
    assert!(!all.contains("\"n1\"") && all.contains("\"own\""), "{all}");
}

#[test]
fn what_waited_when_its_sender_was_shut_out_never_arrives() {
    let mut world = World::new(&["@alice", "@bob"]);
    let (mut alice, mut bob) = (world.login("@alice"), world.login("@bob"));
    world.ask(&mut alice, "notify:id:n1:@bob:x.ns@alice:v");
    world.now += 1;
    world.ask(&mut bob, "config:block:add:@alice");
    world.ask(&mut alice, "notify:id:n2:@bob:x.ns@alice:v");
    world.ask(&mut bob, "config:block:remove:@alice");
    while matches!(world.deliver("@alice", "@bob"), Delivery::Some) {}
    let all = world.ask(&mut bob, "notify:list");
    assert!(!all.contains("\"n1\"") && all.contains("\"n2\""), "{all}");
}

#[test]
fn a_monitor_that_reads_short_lines_only_is_sent_no_long_ones() {
    const LIMIT: usize = 64 * 1024;
    let mut world = World::new(&["@alice", "@bob"]);
    let mut alice = world.login("@alice");
    for (id, length) in [
        ("a", 10),
        ("long", LIMIT),
        ("quotes", LIMIT),
        ("b", LIMIT / 2),
    ] {
        world.now += 1;
        let letter = if id == "quotes" { "\"" } else { "v" };
        let length = if id == "quotes" { length / 2 } else { length };
        let value = letter.repeat(length);
        world.ask(
            &mut alice,
            &format!("notify:id:{id}:@bob:k.ns@alice:{value}"),
        );
        world.deliver("@alice", "@bob");
    }
    let ids = |lines: &[String]| {
        let id = |line: &String| line.split('"').nth(3).map(str::to_owned);
        lines.iter().filter_map(id).collect::<Vec<_>>()
    };
    let mut bob = world.login("@bob");
    let all = world.monitor(&mut bob, "monitor:0");
    assert_eq!(
        ids(&world.replay("@bob", &all)),
        ["a", "long", "quotes", "b"]
    );
    let told = crate::at::auth::ask_with_limit(&"@bob".parse().unwrap(), LIMIT).to_string();
    let mut bob = world.connect("@bob");
    world.pkam_after(&mut bob, "@bob", &told);
    let short = world.monitor(&mut bob, "monitor:0");
    let lines = world.replay("@bob", &short);
    assert_eq!(ids(&lines), ["a", "b"]);
    // And those that come in later.
    let live = world.monitor(&mut bob, "monitor");
    let shown: Vec<String> = world
        .events
        .drain(..)
        .filter_map(|event| match event {
            CommitEvent::Note(note) => live.live(&note),
            _ => None,
        })
        .collect();
    assert_eq!(ids(&shown), ["a", "b"]);
}
