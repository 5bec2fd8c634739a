//! Whom an atServer lets in: the lists of an atSign, through the executable, and what strangers meet.

use std::{fs, io::Write, process::Stdio, time::Duration};

use async_std::{
    future::timeout,
    task::{self, block_on},
};
use noports::{
    at::{
        AtKey, Metadata, Verb,
        client::{AtError, Client, Event},
        fault::Code,
        keyfile::AtKeys,
        pins::Fingerprint,
        verb::Dialect,
    },
    classic::generation::Profile,
    session::ask::Requirement,
};

use crate::world::{
    ALICE, DEVICE, NAME, RENDEZVOUS, World, answer_at_the_end, failure, known_pair, output, stdout,
    until,
};

const CAROL: &str = "@carol";

/// New keys of somebody: published, and in the file. Returns the fingerprint.
async fn renew(world: &World, who: &str, pair: &str) -> String {
    let mut keys = AtKeys::clone(&world.keys(who));
    let verb = Verb::Update {
        key: AtKey::public("publickey", &keys.atsign),
        metadata: Metadata::default(),
        value: known_pair(pair).public().text.clone(),
    };
    let client = Client::login(&world.network, world.keys(who)).await;
    client.unwrap().run(&verb).await.unwrap();
    keys.encryption = known_pair(pair);
    let file = world.key_file(&keys.atsign);
    fs::write(file, keys.print().reveal()).unwrap();
    fingerprint(world, who)
}

fn fingerprint(world: &World, who: &str) -> String {
    Fingerprint::of(world.keys(who).encryption.public()).to_string()
}

async fn trust(world: &World, words: &[&str]) -> String {
    stdout(world.noports(&[&["trust"], words, &["-q"]].concat())).await
}

/// Daemon and rendezvous went on with the shared key of before: silence, until both were restarted.
#[test]
fn a_manager_with_new_keys_hears_why_and_is_served_once_trusted_without_any_restart() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let _daemon = world.daemon_process(answer_at_the_end().await);
        session(&world).await;
        renew(&world, ALICE, "session").await;
        let (code, said) = failure(world.client(&["--stdio", "-q"])).await;
        assert_eq!(code, 8, "{said}");
        let why = "the device knows another key of yours: the key of @alice is another one than";
        assert!(said.contains(why), "{said}");
        trust(&world, &[ALICE]).await;
        session(&world).await;
    });
}

/// What the device keeps for alice under this name of a daemon.
async fn user_name(world: &World) -> Result<Option<String>, AtError> {
    let alice = Client::login(&world.network, world.keys(ALICE)).await;
    let (device, entity) = (DEVICE.parse().unwrap(), format!("username.{NAME}.sshnp"));
    alice.unwrap().get_shared(&device, &entity).await
}

/// Until alice can read it.
async fn user_name_is_published(world: &World) {
    let published = async {
        while !matches!(user_name(world).await, Ok(Some(_))) {
            task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(30);
    timeout(patience, published).await.expect("a record");
}

/// The client stopped at what it could not read, so nobody told it of any fingerprint; and after `noports trust` nothing was
/// published until the daemon was started again.
#[test]
fn a_user_name_for_old_keys_stops_no_client_and_is_published_anew_as_soon_as_the_new_key_is_believed()
 {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let _daemon = world.daemon_process(answer_at_the_end().await);
        session(&world).await;
        user_name_is_published(&world).await;
        let new = renew(&world, ALICE, "session").await;
        let unreadable = user_name(&world).await;
        assert!(matches!(unreadable, Err(AtError::Crypto(_))));
        let (code, said) = failure(world.client(&["--", "true"])).await;
        assert_eq!(code, 8, "{said}");
        let name = format!("the user name that @device keeps for @alice (username.{NAME}.sshnp)");
        let way = format!("noports trust {ALICE} --fingerprint {new}");
        assert!(said.contains(&name) && said.contains(&way), "{said}");
        until("it is not published for the new key", || {
            world.log("daemon").contains("not_published for=@alice")
        })
        .await;
        trust(&world, &[ALICE]).await;
        user_name_is_published(&world).await;
        session(&world).await;
    });
}

/// It started without a word, and both answered each request.
#[test]
fn a_second_daemon_of_the_same_name_is_told_of_and_one_with_another_name_or_after_a_restart_is_not()
{
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = answer_at_the_end().await.to_string();
        let daemon = |log: &str, name: &str| {
            let words = ["daemon", "--as", DEVICE, "--manager", ALICE];
            let more = [
                "--device",
                name,
                "--client-source",
                "off",
                "--sshd-port",
                &port,
                "--json",
            ];
            world.ready(log, world.noports(&[&words[..], &more].concat()))
        };
        let told = |log: &str| {
            world
                .log(log)
                .contains("another daemon of this atSign and name")
        };
        let _other = daemon("other", "dev2");
        let first = daemon("first", NAME);
        let second = daemon("second", NAME);
        until("both hear of each other", || {
            told("first") && told("second")
        })
        .await;
        drop((first, second));
        let _alone = daemon("alone", NAME);
        session(&world).await;
        assert!(!told("other") && !told("alone"), "{}", world.log("alone"));
    });
}

/// A name that nobody has ended in `publish=failed reason=AT0007`, and the managers behind it got nothing.
#[test]
fn mistakes_in_a_daemons_names_are_told_at_its_start_and_are_no_others_loss() {
    block_on(async {
        let world = World::start().await;
        let managers = format!("@mee,{ALICE}");
        let words = ["daemon", "--as", DEVICE, "--manager", &managers, "--json"];
        let more = ["--policy", "@polcy", "--device", "Dev 1"];
        let _daemon = world.ready("daemon", world.noports(&[&words[..], &more].concat()));
        let log = || world.log("daemon");
        for want in [
            "manager=@mee reason=\"there is no atSign @mee\" hint=",
            "policy=@polcy reason=\"there is no atSign @polcy\" hint=",
            "device=dev_1 typed=\"Dev 1\" hint=",
        ] {
            until(want, || log().contains(want)).await;
        }
        let alice = Client::login(&world.network, world.keys(ALICE)).await;
        let alice = alice.unwrap();
        let device = DEVICE.parse().unwrap();
        let published = async {
            let name = || alice.get_shared(&device, "username.dev_1.sshnp");
            while !matches!(name().await, Ok(Some(_))) {
                task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), published)
            .await
            .expect("a name");
        assert!(!log().contains("AT0007"), "{}", log());
    });
}

/// It was ready with a name that leads nowhere.
#[test]
fn a_rendezvous_says_at_its_start_that_its_name_is_not_known_here() {
    block_on(async {
        let world = World::start().await;
        let words = ["rendezvous", "--as", RENDEZVOUS, "--host", "nosuch.invalid"];
        let _rendezvous = world.process(&[&words[..], &["--bind", "127.0.0.1"]].concat());
        until("it is told", || {
            let log = world.log("rendezvous");
            log.contains("host=nosuch.invalid reason=\"cannot resolve nosuch.invalid")
                && log.contains("hint=")
        })
        .await;
    });
}

/// The rendezvous knew the old key for ten minutes, and refused the device's login.
#[test]
fn a_device_with_new_keys_logs_in_where_the_old_ones_are_known() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = answer_at_the_end().await;
        let daemon = world.daemon_process(port);
        session(&world).await;
        drop(daemon);
        renew(&world, DEVICE, "session").await;
        let _daemon = world.daemon_process(port);
        trust(&world, &[DEVICE]).await;
        session(&world).await;
        assert_eq!(world.log("daemon").matches("refused=yes").count(), 0);
    });
}

#[test]
fn another_manager_vouches_from_afar_for_a_new_key_of_a_manager_and_for_nobody_elses() {
    block_on(async {
        let mut world = World::start().await;
        world.activate(CAROL, "session", "@client_example").await;
        world.rendezvous().await;
        let port = answer_at_the_end().await.to_string();
        let managers = format!("{ALICE},{CAROL}");
        let words = ["daemon", "--as", DEVICE, "--manager", &managers];
        let more = [
            "--device",
            NAME,
            "--client-source",
            "off",
            "--sshd-port",
            &port,
        ];
        let _daemon = world.process(&[&words[..], &more].concat());
        session(&world).await;
        let new = renew(&world, ALICE, "session").await;
        let (code, _) = failure(world.client(&["--stdio", "-q"])).await;
        assert_eq!(code, 8);
        let device = format!("{NAME}{DEVICE}");
        let vouch = |voucher, who, key| {
            let words = ["trust", who, "--fingerprint", key, "--at", &device];
            world.noports(&[&words[..], &["--as", voucher, "-q"]].concat())
        };
        for (voucher, who) in [(CAROL, "@eve"), (CAROL, CAROL)] {
            let (code, said) = failure(vouch(voucher, who, &new)).await;
            assert_eq!(code, 8, "{said}");
            let why = format!("only another manager can vouch for a key of {who}");
            assert!(said.contains(&why), "{said}");
        }
        // Her own new key is no reason to believe it.
        assert_eq!(failure(vouch(ALICE, CAROL, &new)).await.0, 8);
        // Nor is the word of somebody who was never there; and saying it is no way to be known.
        for _ in 0..2 {
            let (code, said) = failure(vouch(CAROL, ALICE, &new)).await;
            assert_eq!(code, 8, "{said}");
            assert!(said.contains("has not seen a key of @carol yet"), "{said}");
        }
        let words = ["client", "--as", CAROL, "--to", DEVICE, "--device", NAME];
        stdout(world.noports(&[&words[..], &["--stdio", "-q"]].concat())).await;
        let said = stdout(vouch(CAROL, ALICE, &new)).await;
        let want = format!("{ALICE} {new}\nbelieved from now on\nat: {device}\n");
        assert_eq!(said, want);
        user_name_is_published(&world).await;
        session(&world).await;
        let (code, said) = failure(world.noports(&["trust", ALICE, "--at", &device, "-q"])).await;
        assert_eq!(code, 2, "{said}");
    });
}

/// Nothing said how to make the key that `--recovery` is for.
#[test]
fn keys_in_reserve_are_made_with_the_fingerprint_for_recovery() {
    block_on(async {
        let world = World::start().await;
        let out = world.dir.text("spare.atKeys");
        let reserve = |more: &[&str]| {
            let words = ["keys", "reserve", ALICE, "--json"];
            world.noports(&[&words[..], more].concat())
        };
        let before = fs::read(world.key_file(&ALICE.parse().unwrap())).unwrap();
        let said = stdout(reserve(&["--out", &out])).await;
        let text = fs::read_to_string(&out).unwrap();
        let keys = AtKeys::parse(&ALICE.parse().unwrap(), &text).unwrap();
        let print = Fingerprint::of(keys.encryption.public());
        assert!(
            said.contains(&format!("\"fingerprint\":\"{print}\"")),
            "{said}"
        );
        assert_ne!(print.to_string(), fingerprint(&world, ALICE));
        for more in [&["--out", &out][..], &[]] {
            let (code, said) = failure(reserve(more)).await;
            assert!(code == 2 || code == 3, "{code} {said}");
        }
        assert_eq!(fs::read_to_string(&out).unwrap(), text);
        let after = fs::read(world.key_file(&ALICE.parse().unwrap())).unwrap();
        assert_eq!(after, before, "the keys of now are what they were");
    });
}

#[test]
fn a_managers_key_that_was_given_for_recovery_is_let_in() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = answer_at_the_end().await.to_string();
        let spare = Fingerprint::of(known_pair("session").public()).to_string();
        let words = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
        ];
        let more = [
            "--client-source",
            "off",
            "--sshd-port",
            &port,
            "--recovery",
            &spare,
        ];
        let _daemon = world.process(&[&words[..], &more].concat());
        session(&world).await;
        renew(&world, ALICE, "session").await;
        session(&world).await;
        assert!(world.log("daemon").contains("believed=by_recovery"));
        renew(&world, ALICE, "@client_example").await;
        assert_eq!(failure(world.client(&["--stdio", "-q"])).await.0, 8);
    });
}

/// Only believing a key told its fingerprint; there was no way to forget one; `list` was an atSign.
#[test]
fn keys_of_others_are_shown_listed_and_removed() {
    block_on(async {
        let world = World::start().await;
        let key = fingerprint(&world, ALICE);
        let none = "{\"event\":\"keys\",\"keys\":[]}\n";
        for words in [&["list", "--json"][..], &["--json"]] {
            assert_eq!(trust(&world, words).await, none);
        }
        assert_eq!(trust(&world, &["list"]).await, "");
        let shown = format!("@alice {key}\nremembered: none\n");
        assert_eq!(trust(&world, &["show", ALICE]).await, shown);
        assert_eq!(trust(&world, &["list"]).await, "");
        let believed = format!("@alice {key}\nbelieved from now on\n");
        assert_eq!(trust(&world, &["alice"]).await, believed);
        let shown = format!("@alice {key}\nremembered: the same\n");
        assert_eq!(trust(&world, &["show", "alice"]).await, shown);
        let new = renew(&world, ALICE, "session").await;
        let shown = format!("@alice {new}\nremembered: {key}\n");
        assert_eq!(trust(&world, &["show", ALICE]).await, shown);
        let one = format!("@alice {key}\n");
        assert_eq!(trust(&world, &["list"]).await, one);
        assert_eq!(trust(&world, &[]).await, one);
        let json = trust(&world, &["show", ALICE, "--json"]).await;
        let want = format!(
            "{{\"event\":\"key\",\"atsign\":\"@alice\",\"fingerprint\":\"{new}\",\"remembered\":\"{key}\"}}\n"
        );
        assert_eq!(json, want);
        let said = trust(&world, &["remove", ALICE, "--json"]).await;
        let want =
            format!("{{\"event\":\"forgotten\",\"atsign\":\"@alice\",\"before\":\"{key}\"}}\n");
        assert_eq!(said, want);
        assert_eq!(
            trust(&world, &["remove", ALICE]).await,
            "no key of @alice is remembered\n"
        );
        for words in [
            &["show"][..],
            &["remove"],
            &["list", ALICE],
            &["lsit", ALICE],
            &["list", "--fingerprint", &key],
            &["show", ALICE, "--fingerprint", &key],
            &["remove", ALICE, "--at", "x@y"],
        ] {
            let (code, said) = failure(world.noports(&[&["trust"], words].concat())).await;
            assert_eq!(code, 2, "{words:?}: {said}");
        }
        let daemon = ["daemon", "--as", DEVICE, "--manager", "@alice#abc"];
        let (code, said) = failure(world.noports(&daemon)).await;
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("noports trust show @"), "{said}");
    });
}

/// The variable that led there was not named.
#[test]
fn a_memory_that_is_no_folder_is_named_with_its_variable() {
    block_on(async {
        let world = World::start().await;
        for place in ["/dev/null", "/dev/zero", "/proc/nowhere"] {
            let mut command = world.noports(&["trust", ALICE, "-q"]);
            command.env("NOPORTS_MEMORY", place);
            let (code, said) = failure(command).await;
            let want = format!("the key cannot be remembered: NOPORTS_MEMORY={place}: ");
            assert!(code == 1 && said.contains(&want), "{said}");
        }
    });
}

/// The signature is on the request: what a device or rendezvous says before may be anybody's.
#[test]
fn who_could_do_more_before_is_not_believed_that_it_can_no_longer() {
    block_on(async {
        let mut world = World::start().await;
        let old = |name| Profile::named(name).unwrap();
        let (daemon, rendezvous) = (old("v5.6").daemon, old("v5.6").rendezvous.unwrap());
        world
            .rendezvous_with(|policy| policy.habits = rendezvous)
            .await;
        let port = answer_at_the_end().await;
        world
            .daemon_with(port, |policy| policy.habits = daemon)
            .await;
        session(&world).await;
        let notes = [
            (DEVICE, format!("signed-time={NAME}"), 0),
            (RENDEZVOUS, "proofs".to_owned(), 0),
            (DEVICE, "twin-keys=other".to_owned(), 0),
            (DEVICE, format!("twin-keys={NAME}"), 10),
            (DEVICE, "records=other".to_owned(), 0),
            (DEVICE, format!("records={NAME}"), 10),
        ];
        let file = world.dir.path("memory/known_keys");
        let text = fs::read_to_string(&file).unwrap();
        for (who, note, want) in notes {
            // One note at a time: each of them is warned of in every session.
            let line = format!("{who} {}", fingerprint(&world, who));
            assert!(text.contains(&line), "{text}");
            fs::write(&file, text.replace(&line, &format!("{line} {note}"))).unwrap();
            let output = output(world.client(&["--stdio"])).await;
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(want), "{note}: {said}");
            let is_told = said.contains(&format!("noports trust {who}"));
            assert_eq!(is_told, !note.ends_with("=other"), "{note}: {said}");
        }
        trust(&world, &[DEVICE]).await;
        session(&world).await;
    });
}

#[test]
fn authentication_can_be_required_at_either_end() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = answer_at_the_end().await;
        let daemon = Profile::named("v5.6").unwrap().daemon;
        world
            .daemon_with(port, |policy| policy.habits = daemon)
            .await;
        let required = ["--stdio", "--require", "authenticated"];
        let output = output(world.client(&required)).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(8), "{said}");
        let why = "cannot authenticate what passes the rendezvous";
        assert!(said.contains(why) && said.contains("--require"), "{said}");
        session(&world).await;
    });
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = answer_at_the_end().await;
        let require = Some(Requirement::Authenticated);
        world
            .daemon_with(port, |policy| policy.require = require)
            .await;
        session(&world).await;
        let mut old = world.client(&["--stdio"]);
        old.env("NOPORTS_GENERATION", "v5.6");
        let output = output(old).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(8), "{said}");
        assert!(said.contains("that both ends authenticate"), "{said}");
    });
}

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
            // Twice is once.
            (
                &["allow", DEVICE, "@bob", "@bob"],
                "allowed  @alice @bob\nblocked  nobody\n",
            ),
            (
                &["block", DEVICE, "@eve", "@eve"],
                "allowed  @alice @bob\nblocked  @eve\nremoved  0\n",
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
            "{\"event\":\"access\",\"atsign\":\"@device\",\"allow\":[\"@alice\"],\"block\":[\"@eve\"],\"removed\":0}\n"
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
        let mut heard = at.subscribe("tests@", false).await.unwrap();
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
            "noports client: @device's atServer does not let you in\n  hint: its owner can let you in: noports access show @device\n"
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

/// A world whose programs are processes, with a stranger in it.
async fn besieged() -> (World, Client, Vec<crate::world::Process>) {
    let mut world = World::start().await;
    world.activate(CAROL, "session", "@client_example").await;
    let service = answer_at_the_end().await;
    let server = world.serve_from_a_process().await;
    let all = vec![
        server,
        world.rendezvous_process(),
        world.daemon_process(service),
    ];
    let stranger = Client::login(&world.network, world.keys(CAROL))
        .await
        .unwrap();
    (world, stranger, all)
}

/// Where daemon and rendezvous listen.
fn victims() -> [(&'static str, String); 2] {
    [
        (DEVICE, format!("x.{NAME}.sshnp")),
        (RENDEZVOUS, "x.sshrvd".to_owned()),
    ]
}

/// What the stranger's own atServer says to a notification that would live for a year.
async fn told(stranger: &Client, to: &str, entity: &str, value: &str) -> Result<String, AtError> {
    let year = 366_u64 * 24 * 3600 * 1000;
    let line = format!("notify:update:ttln:{year}:isEncrypted:false:{to}:{entity}{CAROL}:{value}");
    stranger.run(&verb(&line)).await
}

/// The recipient has it, or will never have it.
async fn settled(stranger: &Client, id: &str) -> String {
    let ask = verb(&format!("notify:status:{id}"));
    loop {
        let status = stranger.run(&ask).await.unwrap();
        if status != "queued" {
            return status;
        }
        task::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn one_overlong_notification_of_a_stranger_makes_neither_daemon_nor_rendezvous_deaf() {
    block_on(async {
        let (world, stranger, mut all) = besieged().await;
        session(&world).await;
        for (to, entity) in victims() {
            // What could not be shown at all is refused where it is sent.
            for value in ["\"".repeat(6_000_000), "\u{1}".repeat(1_800_000)] {
                match told(&stranger, to, &entity, &value).await {
                    Ok(id) => drop(settled(&stranger, &id).await),
                    Err(AtError::Refused(fault)) => {
                        assert_eq!(fault.code, Some(Code::BufferLimit), "{fault}");
                    }
                    Err(why) => panic!("{why}"),
                }
            }
            // What can be is longer than they read.
            for value in ["\"".repeat(3_000_000), "v".repeat(70_000)] {
                let id = told(&stranger, to, &entity, &value).await.unwrap();
                assert_eq!(settled(&stranger, &id).await, "delivered");
            }
        }
        session(&world).await;
        // Also when all of it comes again.
        all[0].kill();
        all[0] = world.serve();
        session(&world).await;
        // It was not even sent to them: a slow line would carry it for minutes.
        for program in ["daemon", "rendezvous"] {
            assert!(!world.log(program).contains("longer than is read here"));
        }
    });
}

#[test]
fn what_a_stranger_sends_during_an_outage_does_not_keep_daemon_and_rendezvous_away() {
    block_on(async {
        let (world, stranger, mut all) = besieged().await;
        session(&world).await;
        for process in &all[1..] {
            crate::world::signal(process.id(), "STOP");
        }
        all[0].kill();
        all[0] = world.serve();
        for (to, entity) in victims() {
            let mut last = String::new();
            for _ in 0..1200 {
                last = told(&stranger, to, &entity, "v").await.unwrap();
            }
            assert_eq!(settled(&stranger, &last).await, "delivered");
        }
        for process in &all[1..] {
            crate::world::signal(process.id(), "CONT");
        }
        session(&world).await;
    });
}

#[test]
fn what_strangers_have_sent_can_be_removed() {
    block_on(async {
        let (world, stranger, _all) = besieged().await;
        let send = async |number: usize| {
            for n in 0..number {
                let id = told(&stranger, DEVICE, &format!("q{n}.other"), "v").await;
                settled(&stranger, &id.unwrap()).await;
            }
        };
        let kept = async || {
            let at = Client::login(&world.network, world.keys(DEVICE))
                .await
                .unwrap();
            at.run(&verb("notify:list")).await.unwrap()
        };
        send(250).await;
        let own = verb(&format!("notify:update:{DEVICE}:mine.other{DEVICE}:v"));
        let at = Client::login(&world.network, world.keys(DEVICE))
            .await
            .unwrap();
        at.run(&own).await.unwrap();
        assert_eq!(
            access(&world, &["clear", DEVICE, "@eve"]).await,
            "removed  0\n"
        );
        assert_eq!(
            access(&world, &["clear", DEVICE, CAROL]).await,
            "removed  250\n"
        );
        // What came with a copy goes with it.
        let copied = verb(&format!("notify:update:ttr:-1:{DEVICE}:c.other{CAROL}:v"));
        settled(&stranger, &stranger.run(&copied).await.unwrap()).await;
        let copies = verb("scan ^cached:@");
        assert!(at.run(&copies).await.unwrap().contains("c.other"));
        assert_eq!(
            access(&world, &["clear", DEVICE, CAROL]).await,
            "removed  2\n"
        );
        assert!(!at.run(&copies).await.unwrap().contains("c.other"));
        send(3).await;
        assert_eq!(access(&world, &["clear", DEVICE]).await, "removed  3\n");
        send(2).await;
        let blocked = access(&world, &["block", DEVICE, CAROL]).await;
        assert!(
            blocked.ends_with("blocked  @carol\nremoved  2\n"),
            "{blocked}"
        );
        let kept = kept().await;
        assert!(
            kept.contains("mine.other") && !kept.contains(CAROL),
            "{kept}"
        );
    });
}

#[test]
fn a_daemon_for_its_managers_only_lets_nobody_else_reach_its_atserver() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        world
            .activate("@mallory", "session", "@client_example")
            .await;
        let port = answer_at_the_end().await.to_string();
        let words = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
        ];
        let only = [
            "--only-managers",
            "--rendezvous",
            RENDEZVOUS,
            "--client-source",
            "off",
            "--sshd-port",
            &port,
        ];
        let _daemon = world.process(&[&words[..], &only].concat());
        let set = "allow_list=set added=2";
        until(set, || world.log("daemon").contains(set)).await;
        assert_eq!(stdout(world.client(&["--stdio", "-q"])).await, "");
        let mallory = Client::login(&world.network, world.keys("@mallory")).await;
        let key = mallory.unwrap().public_key(&DEVICE.parse().unwrap()).await;
        assert!(key.is_err(), "shut out");
    });
}
