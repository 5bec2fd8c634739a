//! Whole conversations, on a store in memory and a clock that stands where it is put.

use std::sync::{Arc, OnceLock};

use super::*;
use crate::{
    at::{
        crypto::{KeyPair, cram_digest},
        verb::List,
    },
    server::{
        notify::{Delivery, deliver, purge},
        store::{Event, Memory, lists, register},
    },
};

const NOW: u64 = 1_729_771_294_567;

fn keys() -> &'static KeyPair {
    static KEYS: OnceLock<KeyPair> = OnceLock::new();
    KEYS.get_or_init(|| KeyPair::generate().unwrap())
}

/// Some atSigns in one store.
struct World {
    memory: Memory,
    now: u64,
    events: Vec<Event>,
}

/// One connection.
struct Line {
    session: Session,
}

impl World {
    fn new(names: &[&str]) -> Self {
        let mut memory = Memory::new();
        for name in names {
            let who: AtSign = name.parse().unwrap();
            memory
                .write(|tx| {
                    let home = register::add(tx, &who, 6500, NOW)?;
                    let public = keys().public().text.clone();
                    let key = format!("public:signing_publickey{who}");
                    home.put_plain(tx, &key, &public, None, NOW)?;
                    home.put_plain(tx, auth::SECRET, "s3cret", None, NOW)?;
                    home.put_plain(tx, auth::PKAM_KEY, &public, None, NOW)
                })
                .unwrap();
        }
        Self {
            memory,
            now: NOW,
            events: Vec::new(),
        }
    }

    fn home(&self, name: &str) -> Home {
        let who = name.parse().unwrap();
        self.memory
            .read(|tx| register::find(tx, &who).unwrap().unwrap().home)
    }

    fn connect(&self, name: &str) -> Line {
        let facts = Facts {
            started: NOW - 62_000,
            ..Facts::default()
        };
        Line {
            session: Session::new(self.home(name), Arc::new(facts)),
        }
    }

    fn login(&mut self, name: &str) -> Line {
        let mut line = self.connect(name);
        self.pkam(&mut line, name);
        line
    }

    fn pkam(&mut self, line: &mut Line, name: &str) {
        let challenge = self.ask(line, &format!("from:{name}"));
        let challenge = challenge
            .trim_start_matches("data:")
            .split('\n')
            .next()
            .unwrap();
        let signature = keys().sign(challenge.as_bytes()).unwrap();
        let want = format!("data:success\n{name}@");
        assert_eq!(self.ask(line, &format!("pkam:{signature}")), want);
    }

    fn run(&mut self, line: &mut Line, text: &str) -> Outcome {
        let now = self.now;
        let (outcome, events) = self
            .memory
            .write(|tx| match line.session.read(text, now) {
                Step::Done(outcome) => Ok::<_, StoreError>(outcome),
                Step::Run(job) => {
                    // A command must not write when it said it would only look.
                    if !job.writes() {
                        return Ok(line.session.run(job, &mut Tx::reading(tx), now));
                    }
                    Ok(line.session.run(job, tx, now))
                }
            })
            .unwrap();
        self.events.extend(events);
        outcome
    }

    fn ask(&mut self, line: &mut Line, text: &str) -> String {
        String::from_utf8(self.run(line, text).reply).unwrap()
    }

    /// Runs a conversation: command, then the exact reply.
    fn talk(&mut self, line: &mut Line, transcript: &[(&str, &str)]) {
        for (command, reply) in transcript {
            assert_eq!(self.ask(line, command), *reply, "{command}");
        }
    }

    /// Delivers what waits from one to the other.
    fn deliver(&mut self, from: &str, to: &str) -> Delivery {
        let (home, to, now) = (self.home(from), to.parse().unwrap(), self.now);
        let (delivery, events) = self
            .memory
            .write(|tx| deliver(tx, &home, &to, now))
            .unwrap();
        self.events.extend(events);
        delivery
    }

    /// What the monitors of this atSign would have been told since the last time.
    fn told(&mut self, who: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for event in std::mem::take(&mut self.events) {
            if let Event::Note(note) = event
                && note.to.as_str() == who
            {
                lines.push(live_line(&note));
            }
        }
        lines
    }

    fn replay(&self, name: &str, watch: &Watch) -> Vec<String> {
        let (home, mut at, mut all) = (self.home(name), watch.replay, Vec::new());
        while let Some(after) = at {
            let now = self.now;
            let (lines, more) = self
                .memory
                .read(|tx| page(tx, &home, watch, after, now).unwrap());
            all.extend(lines);
            at = more;
        }
        all
    }

    fn monitor(&mut self, line: &mut Line, command: &str) -> Box<Watch> {
        let outcome = self.run(line, command);
        assert_eq!(outcome.reply, b"");
        match outcome.next {
            Next::Watch(watch) => watch,
            other => panic!("{other:?}"),
        }
    }
}

fn challenge_of(reply: &str) -> &str {
    reply
        .trim_start_matches("data:")
        .split('\n')
        .next()
        .unwrap()
}

#[test]
fn a_new_atsign_is_activated_as_the_python_client_does_it() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.connect("@alice");
    let reply = world.ask(&mut line, "from:@alice");
    assert!(
        reply.starts_with("data:_") && reply.ends_with("\n@"),
        "{reply}"
    );
    let challenge = challenge_of(&reply);
    assert!(
        challenge.contains("@alice:") && challenge.len() < 255,
        "{challenge}"
    );
    let digest = cram_digest("s3cret", challenge);
    let public = &keys().public().text;
    world.talk(
        &mut line,
        &[
            (&format!("cram:{digest}"), "data:success\n@alice@"),
            (
                &format!("update:privatekey:at_pkam_publickey {public}"),
                "data:-1\n@alice@",
            ),
        ],
    );
    world.pkam(&mut line, "@alice");
    world.talk(
        &mut line,
        &[
            (
                &format!("update:public:publickey@alice {public}"),
                "data:0\n@alice@",
            ),
            ("delete:privatekey:at_secret", "data:-1\n@alice@"),
            (
                "llookup:public:publickey@alice",
                &format!("data:{public}\n@alice@"),
            ),
        ],
    );
    let mut again = world.connect("@alice");
    world.ask(&mut again, "from:@alice");
    let reply = world.ask(&mut again, &format!("cram:{digest}"));
    assert!(reply.starts_with("error:AT0015-Exception: "), "{reply}");
}

#[test]
fn the_c_daemon_starts() {
    let mut world = World::new(&["@device", "@client"]);
    let mut client = world.login("@client");
    world.ask(&mut client, "update:public:publickey@client KEY");
    let mut mon = world.connect("@device");
    world.talk(
        &mut mon,
        &[("\r", "error:AT0003-Exception: invalid command\n@")],
    );
    let reply = world.ask(&mut mon, "from:device\r");
    let signature = keys().sign(challenge_of(&reply).as_bytes()).unwrap();
    world.talk(
        &mut mon,
        &[(&format!("pkam:{signature}\r"), "data:success\n@device@")],
    );
    let watch = world.monitor(&mut mon, "monitor dev1.sshnp@\r");
    assert_eq!(watch.replay, None);
    // On a monitor connection replies carry no prompt.
    world.talk(&mut mon, &[("noop:0\r", "data:ok\n")]);

    let mut work = world.login("@device");
    let missing = world.ask(&mut work, "llookup:shared_key.client@device\r");
    assert!(
        missing.starts_with("error:AT0015-key not found : "),
        "{missing}"
    );
    world.talk(&mut work, &[
        ("noop:0\r", "data:ok\n@device@"),
        ("plookup:publickey@client\r", "data:KEY\n@device@"),
        ("update:shared_key.client@device RSA\r", "data:0\n@device@"),
        ("update:@client:shared_key@device RSA\r", "data:1\n@device@"),
        (
            "update:ttr:-1:ccd:true:isEncrypted:true:ivNonce:AAAA:@client:username.dev1.sshnp@device CT\r",
            "data:2\n@device@",
        ),
        (
            "update:ttl:2592000000:ttr:-1:ccd:true:isEncrypted:true:ivNonce:AAAA:@client:device_info.dev1.sshnp@device CT\r",
            "data:3\n@device@",
        ),
    ]);
    assert!(matches!(
        world.deliver("@device", "@client"),
        Delivery::Some
    ));
    // What may be cached is there, for the client's list of devices.
    world.talk(&mut client, &[
        (
            "scan .*dev1",
            "data:[\"cached:@client:device_info.dev1.sshnp@device\",\"cached:@client:username.dev1.sshnp@device\"]\n@client@",
        ),
        ("lookup:shared_key@device", "data:RSA\n@client@"),
        ("lookup:bypassCache:true:username.dev1.sshnp@device", "data:CT\n@client@"),
    ]);
    let all = world.ask(&mut client, "lookup:all:username.dev1.sshnp@device");
    let start = r#"data:{"key":"@client:username.dev1.sshnp@device","data":"CT","metaData":{"createdBy":"@device""#;
    assert!(all.starts_with(start), "{all}");
    assert!(all.contains(r#""ttr":-1,"ccd":true"#), "{all}");
}

#[test]
fn nobody_does_anything_without_login() {
    let mut world = World::new(&["@alice"]);
    let mut owner = world.login("@alice");
    world.ask(&mut owner, "update:public:x.ns@alice hello");
    world.ask(&mut owner, "update:public:__y.ns@alice hidden");
    let mut line = world.connect("@alice");
    let refused = "error:AT0401-Exception: Command cannot be executed without auth\n@";
    world.talk(&mut line, &[
        ("llookup:x.ns@alice", refused),
        ("update:x.ns@alice v", refused),
        ("delete:x.ns@alice", refused),
        ("plookup:x.ns@alice", refused),
        ("monitor", refused),
        ("notify:status:1", refused),
        ("notify:list", refused),
        ("config:block:show", refused),
        ("stats:3", refused),
        ("sync:from:-1:limit:5", refused),
        ("otp:get", refused),
        ("enroll:list", refused),
        ("batch:[]", refused),
        (
            "notify:@bob:x.ns@alice:v",
            "error:AT0401-Exception: Notify command cannot be executed without authentication\n@",
        ),
        (
            "scan:@bob",
            "error:AT0401-Exception: Scan to another atSign cannot be performed without auth\n@",
        ),
        ("scan", "data:[\"signing_publickey@alice\",\"x.ns@alice\"]\n@"),
        ("lookup:x.ns@alice", "data:hello\n@"),
        ("lookup:__y.ns@alice", "data:hidden\n@"),
        ("noop:0", "data:ok\n@"),
        ("info:brief", "data:{\"version\":\"3.0.52\",\"uptimeAsMillis\":62000}\n@"),
        ("info", "data:{\"version\":\"3.0.52\",\"uptimeAsWords\":\"1 minutes 2 seconds\"}\n@"),
        ("nonsense", "error:AT0003-Exception: invalid command\n@"),
        ("", "error:AT0003-Exception: invalid command\n@"),
    ]);
    assert!(world.run(&mut line, "@exit").close);
}

#[test]
fn errors_are_json_for_clients_that_ask_for_it() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.connect("@alice");
    world.ask(&mut line, r#"from:alice:clientConfig:{"version":"3.0.60"}"#);
    world.talk(&mut line, &[(
        "pkam:AAAA",
        "error:{\"errorCode\":\"AT0401\",\"errorDescription\":\"Exception: pkam authentication failed\"}\n@",
    )]);
}

#[test]
fn a_challenge_is_good_for_a_minute_and_for_its_owner_only() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut line = world.connect("@alice");
    let failed = "error:AT0401-Exception: pkam authentication failed\n@";
    let reply = world.ask(&mut line, "from:@alice");
    let signature = keys().sign(challenge_of(&reply).as_bytes()).unwrap();
    world.now += 59_999;
    world.talk(
        &mut line,
        &[
            (&format!("pkam:{signature}"), "data:success\n@alice@"),
            (
                &format!("pkam:signingAlgo:rsa2048:hashingAlgo:sha256:{signature}"),
                "data:success\n@alice@",
            ),
            (&format!("pkam:hashingAlgo:sha512:{signature}"), failed),
            // A failed login logs out.
            (
                "llookup:x@alice",
                "error:AT0401-Exception: Command cannot be executed without auth\n@",
            ),
        ],
    );
    world.now += 1;
    world.talk(&mut line, &[(&format!("pkam:{signature}"), failed)]);
    let reply = world.ask(&mut line, "from:@bob");
    assert!(reply.starts_with("data:proof:_"), "{reply}");
    let signature = keys()
        .sign(&challenge_of(&reply).as_bytes()["proof:".len()..])
        .unwrap();
    world.talk(&mut line, &[(&format!("pkam:{signature}"), failed)]);
}

#[test]
fn a_peer_proves_itself_by_a_signature_on_its_own_server() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut owner = world.login("@bob");
    world.ask(&mut owner, "update:@alice:x.ns@bob for alice");
    world.ask(&mut owner, "update:public:p.ns@bob for all");
    let mut line = world.connect("@bob");
    let reply = world.ask(&mut line, "from:@alice");
    let proof = challenge_of(&reply).strip_prefix("proof:").unwrap();
    let (session, nonce) = proof.split_once("@alice:").unwrap();
    world.talk(
        &mut line,
        &[(
            "pol",
            "error:AT0401-Exception: Pol Authentication Failed\n@",
        )],
    );
    let signature = keys().sign(nonce.as_bytes()).unwrap();
    let (alice, key) = (world.home("@alice"), format!("public:{session}@alice"));
    world
        .memory
        .write(|tx| alice.put_plain(tx, &key, &signature, Some(60_000), NOW))
        .unwrap();
    world.talk(&mut line, &[
        ("pol", "@alice@"),
        ("lookup:x.ns@bob", "data:for alice\n@alice@"),
        ("scan", "data:[\"x.ns@bob\"]\n@alice@"),
        // After an error a peer sees the stranger's prompt.
        (
            "lookup:p.ns@bob",
            "error:AT0015-Exception: @alice:p.ns@bob does not exist in keystore\n@",
        ),
        ("notify:id:1:update:isEncrypted:true:@bob:y.ns@alice:v", "data:success\n@alice@"),
        ("notify:id:1:update:isEncrypted:true:@bob:y.ns@alice:v", "data:success\n@alice@"),
        (
            "notify:id:2:@bob:y.ns@carol:v",
            "error:AT0009-Exception: @carol is not authorized to send notification as @alice\n@",
        ),
    ]);
    let told = world.told("@bob");
    assert_eq!(told.len(), 1, "the second is a repetition: {told:?}");
    assert!(told[0].contains(r#""from":"@alice","to":"@bob","key":"@bob:y.ns@alice","value":"v""#));
    let refused = world.ask(&mut line, "notify:id:3:@carol:y.ns@alice:v");
    assert!(refused.starts_with("error:AT0009-"), "{refused}");
    world.talk(
        &mut line,
        &[(
            "update:x.ns@bob v",
            "error:AT0401-Exception: Command cannot be executed without auth\n@",
        )],
    );
    let mut blocked = world.connect("@bob");
    assert!(world.run(&mut blocked, "pol").close);
}

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
        if let Event::Note(note) = event {
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
            Event::Note(note) => Some(watch.wants_live(&note)),
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
        .read(|tx| assert_eq!(lists::show(tx, &lists, List::Allow).unwrap().len(), 2));
    // The owner always may.
    assert!(
        world
            .ask(&mut world.connect("@bob"), "from:bob")
            .starts_with("data:_")
    );
}

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
fn a_device_enrols_is_approved_and_revoked() {
    let mut world = World::new(&["@alice"]);
    let mut cram = world.connect("@alice");
    let reply = world.ask(&mut cram, "from:@alice");
    let digest = cram_digest("s3cret", challenge_of(&reply));
    world.ask(&mut cram, &format!("cram:{digest}"));
    let public = &keys().public().text;
    let request = |otp: &str, device: &str| {
        format!(
            r#"enroll:request:{{"appName":"np","deviceName":"{device}","namespaces":{{"sshnp":"rw"}},"otp":{otp},"apkamPublicKey":"{public}","encryptedAPKAMSymmetricKey":"SYM","encryptedDefaultEncryptionPrivateKey":"PRIV","encryptedDefaultSelfEncryptionKey":"SELF"}}"#
        )
    };
    let id_of = |reply: &str| reply.split('"').nth(3).unwrap().to_owned();
    let reply = world.ask(&mut cram, &request("null", "first"));
    assert!(
        reply.ends_with("\"status\":\"approved\"}\n@alice@"),
        "{reply}"
    );
    let first = id_of(&reply);
    world.talk(
        &mut cram,
        &[
            (
                &format!("keys:get:keyName:{first}.default_enc_private_key.__manage@alice"),
                "data:{\"value\":\"PRIV\"}\n@alice@",
            ),
            ("delete:privatekey:at_secret", "data:-1\n@alice@"),
        ],
    );
    let code = world.ask(&mut cram, "otp:get");
    let code = code
        .trim_start_matches("data:")
        .split('\n')
        .next()
        .unwrap()
        .to_lowercase();

    let mut new = world.connect("@alice");
    let outcome = world.run(&mut new, &request("\"WRONG1\"", "second"));
    let reply = String::from_utf8(outcome.reply).unwrap();
    assert!(
        reply.starts_with("error:AT0011-Exception: invalid otp"),
        "{reply}"
    );
    assert_eq!(outcome.delay, Duration::from_secs(1));
    let reply = world.ask(&mut new, &request(&format!("\"{code}\""), "second"));
    assert!(reply.ends_with("\"status\":\"pending\"}\n@"), "{reply}");
    let second = id_of(&reply);
    let told = world.told("@alice");
    assert!(told[0].contains(&format!(
        "\"key\":\"{second}.new.enrollments.__manage@alice\""
    )));
    assert!(told[0].contains(r#""isEncrypted":false"#));
    let reply = world.ask(&mut new, &request(&format!("\"{code}\""), "third"));
    assert!(reply.contains("invalid otp"), "used up: {reply}");

    let login = |world: &mut World, id: &str| {
        let mut line = world.connect("@alice");
        let reply = world.ask(&mut line, "from:@alice");
        let signature = keys().sign(challenge_of(&reply).as_bytes()).unwrap();
        let reply = world.ask(&mut line, &format!("pkam:enrollmentId:{id}:{signature}"));
        (line, reply)
    };
    let (_, reply) = login(&mut world, &second);
    assert_eq!(
        reply,
        format!("error:AT0026:enrollment_id: {second} is pending\n@")
    );
    let (_, reply) = login(&mut world, "nobody");
    assert_eq!(
        reply,
        "error:AT0028:enrollment_id: nobody is expired or invalid\n@"
    );
    let approve = format!(
        r#"enroll:approve:{{"enrollmentId":"{second}","encryptedDefaultEncryptionPrivateKey":"P2","encryptedDefaultSelfEncryptionKey":"S2"}}"#
    );
    let approved =
        format!("data:{{\"status\":\"approved\",\"enrollmentId\":\"{second}\"}}\n@alice@");
    world.talk(&mut cram, &[(&approve, &approved)]);
    let again = world.ask(&mut cram, &approve);
    assert!(
        again.contains("Only pending enrollments can be approved"),
        "{again}"
    );

    let (mut device, reply) = login(&mut world, &second);
    assert_eq!(reply, "data:success\n@alice@");
    world.talk(&mut device, &[
        (
            &format!("keys:get:keyName:{second}.default_self_enc_key.__manage@alice"),
            "data:{\"value\":\"S2\"}\n@alice@",
        ),
        (
            &format!(r#"enroll:fetch:{{"enrollmentId":"{second}"}}"#),
            "data:{\"appName\":\"np\",\"deviceName\":\"second\",\"namespace\":{\"sshnp\":\"rw\"},\"encryptedAPKAMSymmetricKey\":\"SYM\",\"status\":\"approved\"}\n@alice@",
        ),
    ]);
    for (command, start) in [
        ("update:x.dev1.sshnp@alice v", "data:"),
        ("update:x.other@alice v", "error:AT0009-"),
        ("update:@bob:shared_key@alice v", "data:"),
        ("llookup:x.other@alice", "error:AT0009-"),
        ("otp:get", "error:AT0009-"),
        ("config:block:add:@bob", "error:AT0009-"),
        (
            &format!("keys:get:keyName:{first}.default_self_enc_key.__manage@alice"),
            "error:AT0015-",
        ),
        ("update:privatekey:at_pkam_publickey v", "error:AT0009-"),
        (
            &format!(r#"enroll:revoke:{{"enrollmentId":"{first}"}}"#),
            "error:AT0009-",
        ),
    ] {
        let reply = world.ask(&mut device, command);
        assert!(reply.starts_with(start), "{command} → {reply}");
    }
    let list = world.ask(
        &mut cram,
        r#"enroll:list:{"enrollmentStatusFilter":["approved"]}"#,
    );
    assert!(list.contains(&first) && list.contains(&second), "{list}");
    let own = world.ask(
        &mut cram,
        &format!(r#"enroll:revoke:{{"enrollmentId":"{first}"}}"#),
    );
    assert!(own.starts_with("error:AT0031-"), "{own}");
    world.events.clear();
    world.ask(
        &mut cram,
        &format!(r#"enroll:revoke:{{"enrollmentId":"{second}"}}"#),
    );
    let withdrawn = world
        .events
        .iter()
        .any(|event| matches!(event, Event::Withdrawn { enrollment, .. } if *enrollment == second));
    assert!(withdrawn);
    let (_, reply) = login(&mut world, &second);
    assert_eq!(
        reply,
        format!("error:AT0027:enrollment_id: {second} is revoked\n@")
    );
}

#[test]
fn what_lives_elsewhere_is_fetched_and_kept_as_its_owner_allows() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.login("@alice");
    let fetch =
        |world: &mut World, line: &mut Line, command: &str| match world.run(line, command).next {
            Next::Fetch(errand) => *errand,
            other => panic!("{command}: {other:?}"),
        };
    let finish = |world: &mut World, line: &mut Line, errand: &Errand, found: Fetched| {
        let now = world.now;
        let done = world
            .memory
            .write(|tx| Ok::<_, StoreError>(line.session.fetched(errand, found, tx, now)));
        String::from_utf8(done.unwrap().0.reply).unwrap()
    };
    let errand = fetch(&mut world, &mut line, "lookup:x.ns@far");
    assert_eq!(
        errand.question,
        look::Question::Shared {
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
        look::Question::Public {
            key: "publickey@far".into()
        }
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
