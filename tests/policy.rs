//! Who may do what, decided by a policy: a process of its own with an atSign of its own.

use std::{fs, process::Command, time::Duration};

use async_std::task::{self, block_on};
use noports::{
    at::{
        AtKey, AtSign, Verb,
        client::{Client, Event, Subscription, Timing},
        crypto,
        metadata::{Item, Metadata},
    },
    np::{
        MAX_NOTE_LINE, Message,
        ping::{self, Heartbeat},
        policy::{
            AuthAnswer, AuthCheck,
            rpc::{self, RequestId},
        },
    },
    session::online,
};

use crate::world::{
    ALICE, DEVICE, NAME, NOPORTS, Process, World, answer_at_the_end, failure, known_pair, output,
    signal, stdout, until,
};

const POLICY: &str = "@policy";
const GROUP: &str = "office";

/// A world with one more atSign, and a rendezvous.
async fn world() -> World {
    let mut world = World::start().await;
    world.activate(POLICY, "session", "@device_example").await;
    world.rendezvous().await;
    world
}

/// Writes the rules' file: this user may open these on the device.
fn rules(world: &World, user: &str, patterns: &str) -> String {
    let text = format!(
        "userGroups:\n  ops:\n    userAtSigns: ['{user}']\n    permissions:\n      daemonAtSigns: ['{DEVICE}']\n      deviceNames:\n        {NAME}: {patterns}\n"
    );
    fs::write(world.dir.path("policy.yaml"), text).unwrap();
    world.dir.text("policy.yaml")
}

fn serve(world: &World, words: &[&str]) -> Process {
    let base = ["policy", "serve", "--as", POLICY, "-v"];
    world.process(&[&base[..], words].concat())
}

/// A daemon that asks the policy about everybody.
fn daemon(world: &World, port: u16, words: &[&str]) -> Process {
    let port = port.to_string();
    let base = [
        "daemon", "--as", DEVICE, "--policy", POLICY, "--device", NAME,
    ];
    let more = [
        "--device-group",
        GROUP,
        "--client-source",
        "off",
        "--sshd-port",
        &port,
    ];
    world.process(&[&base[..], &more, words].concat())
}

/// Why the device says no.
async fn refusal(world: &World) -> (i32, String) {
    let (code, said) = failure(world.client(&["--stdio", "-q"])).await;
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("noports client: "));
    (code, line.unwrap_or(&said).to_owned())
}

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[test]
fn a_client_that_the_rules_name_gets_a_session_and_the_policy_is_asked_once() {
    block_on(async {
        let world = world().await;
        let port = answer_at_the_end().await;
        let file = rules(&world, ALICE, &format!("['localhost:{port}']"));
        let _policy = serve(&world, &["--rules", &file]);
        let _daemon = daemon(&world, port, &[]);
        // Ping and request, of two sessions: one question.
        for _ in 0..2 {
            assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        }
        let log = world.log("policy");
        let want = format!(
            "client=@alice daemon=@device device={NAME} group=\"{GROUP}\" authorized=true permit=localhost:{port} rule=device_name groups=\"ops\""
        );
        assert_eq!(
            (count(&log, "decision"), count(&log, &want)),
            (1, 1),
            "{log}"
        );
    });
}

#[test]
fn who_is_let_in_by_a_policy_is_told_how_to_ask_for_devices_and_is_ssh_s_own_user() {
    block_on(async {
        let world = world().await;
        let port = answer_at_the_end().await;
        let file = rules(&world, ALICE, &format!("['localhost:{port}']"));
        let _policy = serve(&world, &["--rules", &file]);
        let _daemon = daemon(&world, port, &[]);
        let devices = |words: &[&str]| {
            world.noports(&[&["devices", "--as", ALICE, "--timeout", "3"], words].concat())
        };
        for words in [&[][..], &["--to", DEVICE]] {
            let none = output(devices(words)).await;
            let said = String::from_utf8(none.stderr).unwrap();
            assert!(
                said.contains(
                    "or asks a policy about @alice, is asked by its name: noports devices --to"
                ),
                "{said}"
            );
        }
        let named = stdout(devices(&["-q", "--to", DEVICE, "--device", NAME])).await;
        assert!(
            named.contains(DEVICE) && !named.contains("silent"),
            "{named}"
        );
        let printed = stdout(world.client(&["--print", "-q"])).await;
        assert!(
            printed.starts_with("ssh ") && !printed.contains(" -l "),
            "{printed}"
        );
    });
}

#[test]
fn a_client_that_no_rule_names_is_told_so_until_the_rules_change() {
    block_on(async {
        let world = world().await;
        let port = answer_at_the_end().await;
        let file = rules(&world, "@bob", "['*:*']");
        let policy = serve(&world, &["--rules", &file]);
        let mut first = daemon(&world, port, &[]);
        assert_eq!(
            refusal(&world).await,
            (8, "the device's policy permits @alice nothing".into())
        );
        // It learns that the device is there, not what others may open.
        let mut alice = Hand::of(&world, ALICE).await;
        alice
            .send(&ping::ask(&at(DEVICE), &NAME.parse().unwrap()))
            .await;
        let (_, text) = alice.hear("heartbeat.dev1.sshnp").await;
        let heartbeat = Heartbeat::parse(&text).unwrap();
        assert_eq!(
            (heartbeat.group.as_str(), heartbeat.services.len()),
            (GROUP, 0)
        );

        // Rules that cannot be read change nothing.
        fs::write(&file, "userGroups: 7\n").unwrap();
        until("the log names the line", || {
            let want = "policy.yaml, line 1: userGroups: a text where names are expected";
            let log = world.log("policy");
            log.contains("rules=kept by=clock") && log.contains(want)
        })
        .await;
        rules(&world, ALICE, "['*:*']");
        signal(policy.id(), "HUP");
        until("a signal is heard", || {
            world.log("policy").contains("by=signal groups=1")
        })
        .await;
        first.kill(); // and with it the answer it remembers
        let _second = daemon(&world, port, &[]);
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        assert_eq!(count(&world.log("policy"), "rules=new"), 1);
    });
}

#[test]
fn what_may_be_opened_is_what_both_the_daemon_and_the_policy_permit() {
    block_on(async {
        let world = world().await;
        let port = answer_at_the_end().await;
        let file = rules(&world, ALICE, "['localhost:1']");
        let _policy = serve(&world, &["--rules", &file]);
        let mut all = daemon(&world, port, &[]);
        let want = format!("the device's policy permits you no connections to localhost:{port}");
        assert_eq!(refusal(&world).await, (8, want));
        let tunnel = [
            "tunnel", "--as", ALICE, "--to", DEVICE, "--device", NAME, "-q", "--print",
        ];
        let forward = ["--forward", "0:nas:80"];
        let (code, said) = failure(world.noports(&[&tunnel[..], &forward].concat())).await;
        let want = "the device's policy permits you no connections to nas:80\n  hint: the device asks a policy";
        assert!(code == 8 && said.contains(want), "{code} {said}");
        all.kill();
        let _some = daemon(&world, port, &["--permit-open", "localhost:1"]);
        let want = format!("the device permits no connections to localhost:{port}");
        assert_eq!(refusal(&world).await, (8, want));
    });
}

#[test]
fn without_its_policy_a_daemon_serves_its_managers_and_denies_the_rest() {
    block_on(async {
        let world = world().await;
        let port = answer_at_the_end().await;
        let mut ours = daemon(&world, port, &["--manager", ALICE]);
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        assert_eq!(count(&world.log("daemon"), "no_answer_within"), 0);
        ours.kill();
        let _theirs = daemon(&world, port, &[]);
        let (code, said) = failure(world.client(&["--stdio", "-q"])).await;
        let want = "the policy @policy did not answer the device within 10 s\n  hint: does it run?";
        assert!(code == 8 && said.contains(want), "{code} {said}");
        // Its silence was remembered for seconds, though it was there again.
        let file = rules(&world, ALICE, "['*:*']");
        let _policy = serve(&world, &["--rules", &file]);
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
    });
}

#[test]
fn only_the_policys_answer_to_this_question_counts() {
    block_on(async {
        let world = world().await;
        world
            .activate("@mallory", "session", "@client_example")
            .await;
        let _daemon = daemon(&world, 22, &[]);
        let mut policy = Hand::of(&world, POLICY).await;
        let mallory = Hand::of(&world, "@mallory").await;
        let client = task::spawn(failure(world.client(&["--stdio", "-q"])));

        let device = at(DEVICE);
        let (id, text) = policy.asked().await;
        let question = AuthCheck::parse(&device, id, &text).unwrap();
        assert_eq!(
            (question.client.as_str(), question.group.as_str()),
            (ALICE, GROUP)
        );
        let answer = |authorized: bool, message: &str| AuthAnswer {
            authorized,
            message: Some(message.to_owned()),
            permit_open: vec!["*:*".to_owned()],
        };
        let yes = answer(true, "yes");
        mallory.send(&rpc::answer(&device, id, &yes)).await;
        let other = RequestId::from_random([7; 8]);
        policy.send(&rpc::answer(&device, other, &yes)).await;
        let mut inside = rpc::answer(&device, id, &yes);
        inside.text = rpc::answer(&device, other, &yes).text;
        policy.send(&inside).await;
        for want in [
            format!("ignored from=@mallory rpc={id} reason=not_asked"),
            format!("ignored from=@policy rpc={other} reason=not_asked"),
            format!("ignored from=@policy rpc={id} reason=\"the message is for another question\""),
        ] {
            until(&want, || world.log("daemon").contains(&want)).await;
        }
        policy.send(&rpc::ack(&device, id)).await;
        policy
            .send(&rpc::answer(&device, id, &answer(false, "not today")))
            .await;
        let (code, said) = client.await;
        assert_eq!(code, 8, "{said}");
        assert!(
            said.contains("the device refused, in its own words: \"not today\""),
            "{said}"
        );
    });
}

#[test]
fn daemons_hear_about_their_own_devices_only() {
    block_on(async {
        let world = world().await;
        let file = rules(&world, ALICE, "['*:*']");
        let both = format!("{DEVICE},{ALICE}");
        let mut policy = serve(&world, &["--rules", &file, "--daemon", &both]);
        let mut alice = Hand::of(&world, ALICE).await;
        let question = AuthCheck {
            client: at(ALICE),
            daemon: at(DEVICE),
            device: NAME.parse().unwrap(),
            group: GROUP.parse().unwrap(),
        };
        let id = RequestId::from_random([1; 8]);
        alice
            .send(&rpc::ask(&at(POLICY), id, &question, None))
            .await;
        let (_, text) = alice
            .hear(&format!("nack.{id}.auth_checks.__rpcs.sshnp"))
            .await;
        assert!(
            text.ends_with(r#""payload":{},"message":"asked in the name of @device"}"#),
            "{text}"
        );
        policy.kill();

        // Others than those that are named cost a line in the log, and of theirs nothing is read.
        for (n, more) in [(2, &["--daemon", DEVICE][..]), (3, &[])] {
            let _policy = serve(&world, &[&["--rules", &file], more].concat());
            let id = RequestId::from_random([n; 8]);
            alice
                .send(&rpc::ask(&at(POLICY), id, &question, None))
                .await;
            let want = format!("ignored from=@alice rpc={id} reason=not_a_daemon_of_ours");
            until(&want, || world.log("policy").contains(&want)).await;
        }
    });
}

/// It answered whatever key an atServer told for a daemon: whoever runs that could read who may do what.
#[test]
fn a_daemon_with_another_key_than_the_one_that_is_known_gets_no_answer() {
    block_on(async {
        let world = world().await;
        let file = rules(&world, ALICE, "['*:*']");
        let mut alice = Hand::of(&world, ALICE).await;
        let question = AuthCheck {
            client: at(DEVICE),
            daemon: at(ALICE),
            device: NAME.parse().unwrap(),
            group: GROUP.parse().unwrap(),
        };
        let key = known_pair("@client_example");
        let [first, unsigned] = [1, 9].map(|n| RequestId::from_random([n; 8]));
        let known = {
            let _policy = serve(&world, &["--rules", &file, "--daemon", ALICE]);
            // Nobody has signed this one, so it is answered and no key is remembered for it.
            alice
                .send(&rpc::ask(&at(POLICY), unsigned, &question, None))
                .await;
            alice
                .hear(&format!("success.{unsigned}.auth_checks.__rpcs.sshnp"))
                .await;
            let log = world.log("policy");
            assert!(!log.contains("key_of=@alice"), "{log}");
            alice
                .send(&rpc::ask(&at(POLICY), first, &question, Some(&key)))
                .await;
            alice
                .hear(&format!("success.{first}.auth_checks.__rpcs.sshnp"))
                .await;
            let log = world.log("policy");
            let line = log.lines().find(|line| line.contains("key_of=@alice"));
            let line = line.unwrap_or_else(|| panic!("{log}"));
            assert!(line.contains("remembered=yes"), "{line}");
            let known = line.split("fingerprint=").nth(1).unwrap();
            known.split(' ').next().unwrap().to_owned()
        };
        for (n, key, is_answered) in [(2, "A".repeat(43), false), (3, known, true)] {
            let who = format!("{ALICE}#{key}");
            let _policy = serve(&world, &["--rules", &file, "--daemon", &who]);
            let id = RequestId::from_random([n; 8]);
            alice
                .send(&rpc::ask(&at(POLICY), id, &question, None))
                .await;
            if is_answered {
                alice
                    .hear(&format!("success.{id}.auth_checks.__rpcs.sshnp"))
                    .await;
            } else {
                let want =
                    format!("rpc={id} reason=\"the key of @alice is another one than before");
                until(&want, || world.log("policy").contains(&want)).await;
            }
        }
    });
}

#[test]
fn rules_may_be_records_that_change_while_it_serves() {
    block_on(async {
        let world = world().await;
        let port = answer_at_the_end().await;
        let mut admin = Hand::of(&world, POLICY).await;
        let group = |user: &str| {
            format!(
                r#"{{"id":"1","name":"ops","description":"","daemonAtSigns":["{DEVICE}"],"devices":[],"deviceGroups":[{{"name":"{GROUP}","permitOpens":["*:{port}"]}}],"userAtSigns":["{user}"]}}"#
            )
        };
        admin.store("1.groups.policy.sshnp", &group("@bob")).await;
        admin.store("2.groups.policy.sshnp", r#"{"id":"2"}"#).await;
        let _policy = serve(&world, &["--records", "--publish-log"]);
        let log = world.log("policy");
        assert!(
            log.contains("record=2.groups.policy.sshnp not_used reason="),
            "{log}"
        );
        assert!(log.contains("ready as=@policy groups=1"), "{log}");

        admin.store("1.groups.policy.sshnp", &group(ALICE)).await;
        admin
            .send(&Message {
                to: at(POLICY),
                entity: "1.groups.policy.sshnp".into(),
                text: group(ALICE),
            })
            .await;
        until("the news is heard", || {
            world.log("policy").contains("rules=new by=news groups=1")
        })
        .await;
        let _daemon = daemon(&world, port, &[]);
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        let (_, text) = admin.hear(".logs.policy.sshnp").await;
        assert!(text.contains(r#""clientAtsign":"@alice""#), "{text}");
        assert!(text.contains(r#""authorized":true"#), "{text}");
    });
}

#[test]
fn the_newer_services_records_are_rules_too() {
    block_on(async {
        let world = world().await;
        let port = answer_at_the_end().await;
        let admin = Hand::of(&world, POLICY).await;
        let service = format!(
            r#"{{"id":"1","daemonId":"1","deviceName":"{NAME}","deviceGroupName":"{GROUP}"}}"#
        );
        let acl =
            format!(r#"{{"id":"1","serviceId":"1","clientGroupId":"1","permitOpen":"*:{port}"}}"#);
        for (kind, text) in [
            ("client", r#"{"id":"1","name":"Alice","atSign":"@alice"}"#),
            ("client_group", r#"{"id":"1","name":"ops"}"#),
            (
                "client_group_members",
                r#"{"id":"1","clientId":"1","clientGroupId":"1"}"#,
            ),
            ("daemon", r#"{"id":"1","atSign":"@device"}"#),
            ("service", &service),
            ("service_acl", &acl),
        ] {
            let entity = format!("1.{kind}.policy.sshnp");
            admin.store(&entity, text).await;
        }
        admin.store("2.client.policy.sshnp", "{}").await;
        let _policy = serve(&world, &["--records"]);
        let log = world.log("policy");
        assert!(
            log.contains("record=2.client.policy.sshnp not_used reason="),
            "{log}"
        );
        let _daemon = daemon(&world, port, &[]);
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        let log = world.log("policy");
        let want = format!("authorized=true permit=*:{port} rule=service groups=\"ops\"");
        assert!(log.contains(&want), "{log}");
    });
}

#[test]
fn of_two_processes_with_one_atsign_one_answers() {
    block_on(async {
        let world = world().await;
        let port = answer_at_the_end().await;
        let file = rules(&world, ALICE, "['*:*']");
        let _both = [(); 2].map(|()| serve(&world, &["--rules", &file, "--shared"]));
        let _daemon = daemon(&world, port, &[]);
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        until("the other one leaves it", || {
            world.log("policy").contains("to=another_process")
        })
        .await;
        assert_eq!(count(&world.log("policy"), "decision rpc="), 1);
    });
}

#[test]
fn check_explains_a_decision() {
    block_on(async {
        let dir = crate::world::Folder::new();
        let file = dir.text("policy.yaml");
        let text = "userGroups:\n  ops:\n    userAtSigns: ['@alice']\n    permissions:\n      daemonAtSigns: ['@device']\n      deviceNames:\n        pi: ['localhost:22', '*:80']\n      deviceGroupNames:\n        office:\n";
        fs::write(&file, text).unwrap();
        let check = async |words: &[&str]| {
            let mut command = Command::new(NOPORTS);
            command
                .args(["policy", "check"])
                .args(words)
                .args(["--rules", &file]);
            let done = output(command).await;
            let all = [done.stdout, done.stderr].concat();
            (done.status.code().unwrap(), String::from_utf8(all).unwrap())
        };
        for (words, code, want) in [
            (
                &["@alice", "@device", "pi"][..],
                0,
                "yes: @alice may open localhost:22, *:80 on pi of @device\n  because of the entry for the device pi\n  groups: ops\n  the daemon is told: @alice has permission for device pi at daemon @device\n",
            ),
            (
                &["alice", "device", "other", "--group", "office"],
                0,
                "yes, but @alice may open nothing on other of @device\n  because of the entry for the device group office, which is empty\n  groups: ops\n  the daemon is told: @alice has permission for device group office at daemon @device\n",
            ),
            (
                &["@alice", "@device", "pi", "--open", "nas:80"],
                0,
                "yes: @alice may open nas:80 on pi of @device\n  because of the entry for the device pi: localhost:22, *:80\n  groups: ops\n  the daemon is told: @alice has permission for device pi at daemon @device\n",
            ),
            (
                &["@alice", "@device", "pi", "--open", "nas:22"],
                8,
                "no: @alice may not open nas:22 on pi of @device\n  because the entry for the device pi allows only localhost:22, *:80, not nas:22\n  groups: ops\n  the daemon is told: @alice has permission for device pi at daemon @device\n",
            ),
            (
                &["@bob", "@device", "pi"],
                8,
                "no: @bob may open nothing on pi of @device\n  because no group names @bob among its userAtSigns\n  the daemon is told: No permissions for @bob\n",
            ),
            (
                &["@bob", "@device", "pi", "--open", "nas:80"],
                8,
                "no: @bob may not open nas:80 on pi of @device\n  because no group names @bob among its userAtSigns\n  the daemon is told: No permissions for @bob\n",
            ),
            (
                &["@alice", "@device", "pi", "--json"],
                0,
                "{\"event\":\"decision\",\"client\":\"@alice\",\"daemon\":\"@device\",\"device\":\"pi\",\"deviceGroup\":\"__none__\",\"authorized\":true,\"message\":\"@alice has permission for device pi at daemon @device\",\"permitOpen\":[\"localhost:22\",\"*:80\"],\"rule\":\"device_name\",\"groups\":[\"ops\"],\"why\":\"the entry for the device pi\"}\n",
            ),
            (
                &["@bob", "@device", "pi", "--json"],
                8,
                "{\"event\":\"decision\",\"client\":\"@bob\",\"daemon\":\"@device\",\"device\":\"pi\",\"deviceGroup\":\"__none__\",\"authorized\":false,\"message\":\"No permissions for @bob\",\"permitOpen\":[],\"rule\":null,\"groups\":[],\"why\":\"no group names @bob among its userAtSigns\"}\n",
            ),
        ] {
            assert_eq!(check(words).await, (code, want.to_owned()), "{words:?}");
        }

        fs::write(&file, text.replace("localhost:22", "localhost")).unwrap();
        let (code, said) = check(&["@alice", "@device", "pi"]).await;
        let want = format!(
            "noports policy: {file}, line 7: userGroups.ops.permissions.deviceNames.pi: \"localhost\" is not host:port, where either may be *\n"
        );
        assert_eq!((code, said.lines().next()), (2, want.lines().next()));
        fs::remove_file(&file).unwrap();
        let (code, said) = check(&["@alice", "@device", "pi"]).await;
        assert_eq!(code, 2);
        assert!(
            said.starts_with(&format!("noports policy: cannot read {file}: ")),
            "{said}"
        );
    });
}

fn at(text: &str) -> AtSign {
    text.parse().unwrap()
}

/// Anybody may ask a policy. Somebody does, and then his atServer is silent: the answer to him needs his key.
#[test]
fn a_questioner_whose_atserver_is_silent_holds_up_no_other_question() {
    block_on(async {
        let mut world = world().await;
        let mut there = World::empty("localhost", |_| {}).await;
        let eves = ["@eve", "@mallory"];
        for eve in eves {
            there
                .activate(eve, "@client_example_pkam", "@client_example")
                .await;
        }
        let (root, ca) = (there.root(), there.dir.text("at/ca.pem"));
        let own = (world.root(), world.dir.text("at/ca.pem"));
        let _here = world.serve_beside(&root, &ca).await;
        let server = there.serve_beside(&own.0, &own.1).await;

        let port = answer_at_the_end().await;
        let file = rules(&world, ALICE, &format!("['localhost:{port}']"));
        let policy = serve(&world, &["--rules", &file]);
        let _daemon = daemon(&world, port, &[]);
        signal(policy.id(), "STOP");
        for eve in eves {
            let at = Client::login(&there.network, there.keys(eve))
                .await
                .unwrap();
            let id = RequestId::from_random(crypto::random().unwrap());
            let question = AuthCheck {
                client: ALICE.parse().unwrap(),
                daemon: eve.parse().unwrap(),
                device: NAME.parse().unwrap(),
                group: GROUP.parse().unwrap(),
            };
            let message = rpc::ask(&POLICY.parse().unwrap(), id, &question, None);
            let key = noports::at::client::Outgoing {
                to: message.to,
                entity: message.entity,
                text: message.text,
                ttl: None,
                ttln: 60_000,
                metadata: Metadata::default(),
            };
            let id = at.notify(&key).await.unwrap();
            let status = Verb::NotifyStatus { id };
            while !at.run(&status).await.unwrap().contains("delivered") {
                task::sleep(Duration::from_millis(10)).await;
            }
        }
        signal(server.id(), "STOP");
        signal(policy.id(), "CONT");
        // Theirs stand before it in the policy's line.
        let asked = std::time::Instant::now();
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        let took = asked.elapsed();
        assert!(
            took < Duration::from_secs(8),
            "{took:?}: {}",
            world.log("policy")
        );
    });
}

/// An atSign without a program: sends and hears what it likes.
struct Hand {
    at: Client,
    inbox: Subscription,
}

impl Hand {
    async fn of(world: &World, who: &str) -> Self {
        let (at, inbox) = Client::login_and_subscribe(
            &world.network,
            world.keys(who),
            r"\.sshnp@",
            MAX_NOTE_LINE,
            Timing::default(),
        )
        .await
        .unwrap();
        Self { at, inbox }
    }

    async fn send(&self, message: &Message) {
        online::send(&self.at, message).await.unwrap();
    }

    /// The next message whose key ends like this, and its key.
    async fn hear(&mut self, ending: &str) -> (String, String) {
        loop {
            let next = async_std::future::timeout(Duration::from_secs(30), self.inbox.next()).await;
            if let Event::Note(note) = next.expect("a message within 30 s").unwrap()
                && note.entity().ends_with(ending)
            {
                let text = self.at.decrypt(&note).await.unwrap().unwrap();
                return (note.entity().to_owned(), text);
            }
        }
    }

    /// The next question to a policy.
    async fn asked(&mut self) -> (RequestId, String) {
        let (entity, text) = self.hear(".auth_checks.__rpcs.sshnp").await;
        (rpc::asked(&entity).expect("a question"), text)
    }

    /// Stores a value of its own, encrypted as the administrator's program does.
    async fn store(&self, entity: &str, text: &str) {
        let iv = crypto::random().unwrap();
        let update = Verb::Update {
            key: AtKey::own(entity, self.at.atsign()),
            metadata: Metadata {
                is_encrypted: Some(true),
                iv_nonce: Some(Item::Set(crypto::to_base64(&iv))),
                ..Metadata::default()
            },
            value: crypto::encrypt(&self.at.keys().self_key, &iv, text),
        };
        self.at.run(&update).await.unwrap();
    }
}
