//! What clients of each generation say to a daemon, played by hand; and daemons held to a generation.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use async_std::task::block_on;
use miniserde::json;
use noports::{
    at::{
        AtSign,
        client::{Client, Event, Outgoing, Subscription},
        crypto::KeyPair,
    },
    classic::generation::Profile,
    np::{
        Message,
        control::ControlLine,
        envelope::{self, Envelope},
        ids::{DeviceName, Nonce, SessionId},
        ping::{self, Heartbeat},
        ports::Ports,
        request::{self, ClientKeys, RequestForm},
        reverse::{ReverseRequest, private_key_message},
        session::{Generation, Granted, Offer, Ready, Terms},
        sshkey::PublicKeyLine,
    },
    pipe::{
        cipher::{SessionKeys, Side},
        keys::TransportKeys,
    },
    program::daemon::DaemonOptions,
    secret::Secret,
};

use crate::world::{
    ALICE, DEVICE, NAME, Process, RENDEZVOUS, World, answer_at_the_end, children_of, known_pair,
    output, sessions::session_keys, until,
};

/// alice, without a client program.
pub struct Hand {
    at: Client,
    inbox: Subscription,
}

impl Hand {
    pub async fn of_alice(world: &World) -> Self {
        let at = Client::login(&world.network, world.keys(ALICE))
            .await
            .unwrap();
        let inbox = at.subscribe(r"\.ss(hnp|hrvd)@", false).await.unwrap();
        Self { at, inbox }
    }

    pub async fn send(&self, message: Message) {
        let note = Outgoing {
            to: message.to,
            entity: message.entity,
            text: message.text,
            ttl: None,
            ttln: 60_000,
            metadata: Default::default(),
        };
        self.at.notify(&note).await.unwrap();
    }

    /// The next message under this key.
    pub async fn hear(&mut self, entity: &str) -> String {
        loop {
            let next = async_std::future::timeout(Duration::from_secs(40), self.inbox.next()).await;
            if let Event::Note(note) = next.expect("an answer in time").unwrap()
                && note.entity() == entity
            {
                return self.at.decrypt(&note).await.unwrap().unwrap();
            }
        }
    }

    /// Ports for a session on these terms, and what the daemon says of itself, where that matters.
    pub(super) async fn granted(&mut self, terms: Terms) -> (SessionId, Granted) {
        let [me, to, via] = [ALICE, DEVICE, RENDEZVOUS].map(|name| name.parse().unwrap());
        let id = SessionId::random();
        let offer = Offer::new(&me, &to, &device(), &via, id, Nonce::random(), terms);
        let heartbeat = match terms.need_heartbeat() {
            false => None,
            true => {
                self.send(offer.ping()).await;
                let text = self.hear(&ping::heartbeat_entity(&device())).await;
                Some(Heartbeat::parse(&text).unwrap())
            }
        };
        self.send(offer.ask_ports()).await;
        let ports = Ports::parse(&self.hear(&format!("{id}.sshrvd")).await).unwrap();
        (id, offer.granted(ports, heartbeat.as_ref()).unwrap())
    }

    /// A whole ssh session up to where only bytes are wanted; and its answer.
    pub(super) async fn session(&mut self, terms: Terms) -> (Ready, String) {
        let (id, granted) = self.granted(terms).await;
        let (me, ephemeral) = (known_pair("@client_example"), known_pair("session"));
        let mut keys = terms
            .encrypt
            .then(|| ClientKeys::Rsa(Box::new(ephemeral.clone())));
        let asked = granted.request(keys.as_ref(), &me).unwrap();
        self.send(asked.clone()).await;
        let answer = self.hear(&request::answer_entity(id, &device())).await;
        let signer = known_pair("@device_example").public().clone();
        let ready = granted.accepted((&asked.text, &answer), &signer, &mut keys, &me);
        (
            ready.unwrap_or_else(|why| panic!("{why}: {answer}")),
            answer,
        )
    }

    /// Something under this word, whatever it is.
    async fn say(&self, word: &str, text: &str) {
        self.send(Message {
            to: DEVICE.parse().unwrap(),
            entity: format!("{word}.{NAME}.sshnp"),
            text: text.to_owned(),
        })
        .await;
    }
}

pub(super) fn device() -> DeviceName {
    NAME.parse().unwrap()
}

/// The keys that a client of this generation has.
fn stream_keys(ready: &Ready) -> Option<&SessionKeys> {
    match &ready.far.keys {
        None => None,
        Some(TransportKeys::Stream(keys)) => Some(keys),
        other => panic!("{other:?}"),
    }
}

/// Says something through a session to a service that answers with what it has heard.
fn exchange(ready: &Ready, what: &str) {
    let mut tcp = meet(ready);
    let keys = stream_keys(ready);
    let ciphers = keys.map(|keys| keys.ciphers(Side::Client));
    let (mut outbound, mut inbound) = ciphers
        .map(|ciphers| (ciphers.outbound, ciphers.inbound))
        .unzip();
    let mut said = what.as_bytes().to_vec();
    if let Some(cipher) = &mut outbound {
        cipher.apply(&mut said);
    }
    tcp.write_all(&said).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    tcp.read_to_end(&mut heard).unwrap();
    if let Some(cipher) = &mut inbound {
        cipher.apply(&mut heard);
    }
    assert_eq!(String::from_utf8_lossy(&heard), what);
}

pub(super) fn meet(ready: &Ready) -> TcpStream {
    let at = &ready.far.rendezvous;
    let mut tcp = TcpStream::connect((at.host.as_str(), at.port)).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    if let Some(line) = &ready.far.admission {
        writeln!(tcp, "{}", line.reveal()).unwrap();
    }
    tcp
}

/// A world with a rendezvous and a daemon for a service that answers at the end.
async fn world(change: impl FnOnce(&mut DaemonOptions)) -> World {
    let mut world = World::start().await;
    world.rendezvous().await;
    world.daemon_with(answer_at_the_end().await, change).await;
    world
}

/// A daemon in a process of its own, whose home is the world's folder.
fn process(world: &World, port: u16, words: &[&str], generation: &str) -> Process {
    let port = port.to_string();
    let base = [
        "daemon",
        "--as",
        DEVICE,
        "--manager",
        ALICE,
        "--device",
        NAME,
    ];
    let mut command =
        world.noports(&[&base[..], &["--sshd-port", &port, "--json"], words].concat());
    command
        .env("HOME", &world.dir.0)
        .env_remove("XDG_RUNTIME_DIR")
        .env("NOPORTS_GENERATION", generation);
    world.ready("daemon", command)
}

fn names(answer: &str) -> Vec<String> {
    let envelope = Envelope::parse(answer).unwrap();
    let words: Vec<&str> = envelope.unverified().split('"').collect();
    let names = words.windows(2).filter(|pair| pair[1].starts_with(':'));
    names.map(|pair| pair[0].to_owned()).collect()
}

#[test]
fn every_part_of_the_protection_may_be_left_out() {
    block_on(async {
        let world = world(|_| {}).await;
        let mut alice = Hand::of_alice(&world).await;
        for bits in 0..8 {
            let terms = Terms {
                admit_client: bits & 1 == 0,
                admit_device: bits & 2 == 0,
                encrypt: bits & 4 == 0,
                authenticate: false,
                generation: Generation::V5,
            };
            let (ready, answer) = alice.session(terms).await;
            exchange(&ready, &format!("{terms:?}"));
            assert_eq!(ready.ephemeral_key.is_some(), !terms.encrypt, "{terms:?}");
            let keys: &[&str] = match terms.encrypt {
                true => &["aesKeyC2D", "ivC2D", "aesKeyD2C", "ivD2C", "records"],
                false => &["sessionAESKey", "sessionIV"],
            };
            let want = [&["status", "sessionId", "ephemeralPrivateKey"], keys].concat();
            assert_eq!(names(&answer), want, "{terms:?}");
        }
    });
}

#[test]
fn a_daemon_that_requires_protection_says_so() {
    block_on(async {
        let world = world(|policy| policy.require_protection = true).await;
        let mut alice = Hand::of_alice(&world).await;
        let (ready, _) = alice.session(Terms::default()).await;
        exchange(&ready, "protected");
        let (no_login, no_encryption) = (
            Terms {
                admit_device: false,
                ..Terms::default()
            },
            Terms {
                encrypt: false,
                ..Terms::default()
            },
        );
        for terms in [no_login, no_encryption, Terms::of(Generation::V4)] {
            let (id, granted) = alice.granted(terms).await;
            let (me, ephemeral) = (known_pair("@client_example"), known_pair("session"));
            let keys = ClientKeys::Rsa(Box::new(ephemeral));
            let asked = granted.request(Some(&keys), &me).unwrap();
            alice.send(asked).await;
            let answer = alice.hear(&request::answer_entity(id, &device())).await;
            let want = "this device does not do sessions without encryption and login";
            assert_eq!(answer, want, "{terms:?}");
        }
    });
}

#[test]
fn a_client_of_4_0_opens_its_tunnel_with_a_key_that_lives_for_seconds() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let sshd = world.sshd().await;
        let keys = world.dir.path("sshd/authorized_keys");
        let before = fs::read_to_string(&keys).unwrap();
        let file = keys.clone();
        world
            .daemon_with(sshd.port, |policy| policy.ssh.file = Some(file))
            .await;
        let mut alice = Hand::of_alice(&world).await;
        let (ready, answer) = alice.session(Terms::of(Generation::V4)).await;
        assert_eq!(
            names(&answer),
            ["status", "sessionId", "ephemeralPrivateKey"]
        );
        let now = fs::read_to_string(&keys).unwrap();
        let added = now.strip_prefix(&before).unwrap();
        let options = format!(
            "command=\"echo ssh session complete;sleep 20\",restrict,port-forwarding,pty,PermitOpen=\"localhost:{}\",\
             expiry-time=\"20",
            sshd.port
        );
        assert!(added.starts_with(&options), "{added}");
        assert!(added.contains("\" ssh-ed25519 "), "{added}");
        assert_eq!(added.lines().count(), 1, "{added}");

        let pem = world.dir.path("ephemeral");
        write_private(&pem, ready.ephemeral_key.as_ref().unwrap());
        let mut ssh = world.program("ssh");
        let user = noports::sys::user::name().unwrap();
        ssh.args([
            "-F",
            "none",
            "-p",
            &ready.far.rendezvous.port.to_string(),
            "-i",
        ])
        .arg(&pem)
        .args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-W", &format!("localhost:{}", sshd.port)])
        .arg(format!("{user}@{}", ready.far.rendezvous.host));
        let output = output(ssh).await;
        assert!(output.stdout.starts_with(b"SSH-2.0-"), "{output:?}");
        until("the key is gone", || {
            fs::read_to_string(&keys).unwrap() == before
        })
        .await;
    });
}

fn write_private(path: &Path, key: &Secret<String>) {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(key.reveal().as_bytes()).unwrap();
}

#[test]
fn release_candidate_2_gets_its_bare_word_where_the_daemon_is_told_so() {
    block_on(async {
        let world = world(|policy| policy.ssh.bare_answers = true).await;
        let mut alice = Hand::of_alice(&world).await;
        let (ready, answer) = alice.session(Terms::of(Generation::V4Rc2)).await;
        assert_eq!(answer, "connected");
        exchange(&ready, "rc.2");
        let (ready, answer) = alice.session(Terms::default()).await;
        assert!(answer.starts_with('{'), "only the old form is answered so");
        exchange(&ready, "5");
        assert!(!world.dir.path("authorized_keys").exists());
    });
}

#[test]
fn a_plain_tunnel_carries_plain_connections_and_no_others() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = answer_at_the_end().await;
        let daemon = world.daemon_process(port);
        let mut alice = Hand::of_alice(&world).await;
        let terms = Terms {
            encrypt: false,
            ..Terms::default()
        };
        let me = known_pair("@client_example");
        let signer = known_pair("@device_example").public().clone();
        for (line, works) in [
            (ControlLine::ConnectPlain, true),
            (
                ControlLine::Connect(SessionKeys::random(false).unwrap()),
                false,
            ),
        ] {
            let (id, granted) = alice.granted(terms).await;
            let idle = Duration::from_secs(300);
            let asked = granted.tunnel_request(("localhost", port), idle, None, &me);
            let asked = asked.unwrap();
            alice.send(asked.clone()).await;
            let answer = alice.hear(&request::answer_entity(id, &device())).await;
            assert_eq!(
                names(&answer),
                ["status", "sessionId", "sessionAESKey", "sessionIV"]
            );
            let ready = granted
                .accepted((&asked.text, &answer), &signer, &mut None, &me)
                .unwrap();
            let mut control = meet(&ready);
            let mut data = meet(&ready);
            control.write_all(line.print().reveal().as_bytes()).unwrap();
            if works {
                data.write_all(b"in clear").unwrap();
                data.shutdown(Shutdown::Write).unwrap();
                let mut heard = String::new();
                data.read_to_string(&mut heard).unwrap();
                assert_eq!(heard, "in clear");
            } else {
                // The device ends the session.
                let mut nothing = Vec::new();
                let _ = control.read_to_end(&mut nothing);
                assert_eq!(nothing, b"");
            }
            drop((control, data));
            until("the bridge has ended", || {
                children_of(daemon.id()).is_empty()
            })
            .await;
        }
    });
}

/// Both in one, signed, as 4.0 says it.
fn signed_message(
    request: &ReverseRequest,
    key: &Secret<String>,
    to: &AtSign,
    me: &KeyPair,
) -> Message {
    let payload = format!(
        r#"{{"direct":false,"sessionId":"{}","host":"{}","port":{},"username":"{}","remoteForwardPort":{},"privateKey":{}}}"#,
        request.session.unwrap(),
        request.host,
        request.port,
        request.user,
        request.forward,
        json::to_string(key.reveal()),
    );
    Message {
        to: to.clone(),
        entity: request::ssh_request_entity(&device()),
        text: envelope::seal(&payload, me).unwrap(),
    }
}

#[test]
fn reverse_ssh_brings_the_devices_port_to_the_client_in_either_form() {
    block_on(async {
        let world = World::start().await;
        let sshd = world.sshd().await;
        let _daemon = process(&world, answer_at_the_end().await, &["--reverse-ssh"], "");
        let mut alice = Hand::of_alice(&world).await;
        let pem = Secret::new(fs::read_to_string(&sshd.identity).unwrap());
        let to: AtSign = DEVICE.parse().unwrap();
        for signed in [false, true] {
            let (id, forward) = (SessionId::random(), free_port());
            let request = ReverseRequest {
                forward,
                host: "127.0.0.1".into(),
                port: sshd.port,
                user: noports::sys::user::name().unwrap(),
                session: Some(id),
            };
            if signed {
                let me = known_pair("@client_example");
                alice.send(signed_message(&request, &pem, &to, &me)).await;
            } else {
                alice.send(private_key_message(&pem, &to, &device())).await;
                alice.send(request.message(&to, &device())).await;
            }
            let answer = alice.hear(&request::answer_entity(id, &device())).await;
            assert_eq!(
                answer,
                "connected",
                "signed: {signed}\n{}",
                world.log("daemon")
            );
            let mut tcp = TcpStream::connect(("127.0.0.1", forward)).unwrap();
            tcp.write_all(b"through the device").unwrap();
            tcp.shutdown(Shutdown::Write).unwrap();
            let mut heard = String::new();
            tcp.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "through the device");
        }
        let left = session_keys(&world.dir.path("run"));
        assert_eq!(left, [""; 0], "no key stays on disk");
    });
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn reverse_ssh_fails_in_words_that_clients_know() {
    block_on(async {
        let world = World::start().await;
        let sshd = world.sshd().await;
        let _daemon = process(&world, 22, &["--reverse-ssh"], "");
        let mut alice = Hand::of_alice(&world).await;
        let to: AtSign = DEVICE.parse().unwrap();
        let key = || noports::sys::ssh_key::SshKey::generate().unwrap().private;
        let advice = "(use --local-port to specify unused port)";
        // Nobody listens there; a port that was free a moment ago may be another test's by now.
        let closed = 1;
        for (key, user, port, want) in [
            (
                None,
                "gary",
                1,
                "Failed to authenticate: no private key has come".to_owned(),
            ),
            (
                Some(key()),
                "gary",
                closed,
                format!("Failed to open socket to 127.0.0.1:{closed} {advice}"),
            ),
            (
                Some(key()),
                "gary",
                sshd.port,
                format!("Failed to authenticate as gary@127.0.0.1 {advice}"),
            ),
            (
                Some(key()),
                "-oProxyCommand=x",
                1,
                "the request's user name cannot be used".to_owned(),
            ),
        ] {
            let request = ReverseRequest {
                forward: free_port(),
                host: "127.0.0.1".into(),
                port,
                user: user.into(),
                session: Some(SessionId::random()),
            };
            if let Some(key) = &key {
                alice.send(private_key_message(key, &to, &device())).await;
            }
            alice.send(request.message(&to, &device())).await;
            let entity = request::answer_entity(request.session.unwrap(), &device());
            assert_eq!(alice.hear(&entity).await, want);
        }
    });
}

#[test]
fn reverse_ssh_and_public_keys_are_off_unless_the_daemon_is_told_so() {
    block_on(async {
        let world = World::start().await;
        let _daemon = process(&world, 22, &[], "");
        let alice = Hand::of_alice(&world).await;
        alice.say("privatekey", "x").await;
        alice.say("sshd", "1 2 gary h").await;
        alice.say("sshpublickey", "ssh-ed25519 AAAA").await;
        alice.say("song", "la la").await;
        for want in [
            "word=privatekey reason=no_reverse_ssh",
            "word=sshd reason=no_reverse_ssh",
            "word=sshpublickey reason=no_public_keys",
            "word=song reason=unknown_word",
        ] {
            until(want, || world.log("daemon").contains(want)).await;
        }
        assert_eq!(fs::read_dir(world.dir.path(".ssh")).unwrap().count(), 0);
    });
}

#[test]
fn public_keys_become_whole_lines_once() {
    block_on(async {
        let world = World::start().await;
        let words = ["--accept-keys", "--key-options", "no-pty"];
        let _daemon = process(&world, 22, &words, "");
        let file = world.dir.path(".ssh/authorized_keys");
        let alice = Hand::of_alice(&world).await;
        let key = noports::sys::ssh_key::SshKey::generate().unwrap().public;
        let line = PublicKeyLine::parse(&format!("{key} alice")).unwrap();
        alice
            .say("sshpublickey", &format!("{key} x\nssh-ed25519 AAAA"))
            .await;
        alice
            .say("sshpublickey", &format!("command=\"id\" {key}"))
            .await;
        alice.say("sshpublickey", "").await;
        let said = |what: &str| world.log("daemon").matches(what).count();
        let ignored = "word=sshpublickey reason=";
        until("three are refused", || said(ignored) == 3).await;
        for done in [
            "public_key=added from=@alice",
            "public_key=known from=@alice",
        ] {
            alice
                .send(line.message(&DEVICE.parse().unwrap(), &device()))
                .await;
            until(done, || said(done) == 1).await;
        }
        assert_eq!(
            fs::read_to_string(file).unwrap(),
            format!("no-pty {line}\n")
        );
    });
}

#[test]
fn options_with_line_ends_are_refused_at_the_start() {
    block_on(async {
        let world = World::start().await;
        for (words, want) in [
            (
                ["--key-options", "no-pty\nssh-ed25519 AAAA"],
                "Detected newline characters in the ssh public key permissions",
            ),
            (
                ["--temporary-key-options", "a\rb"],
                "Detected newline characters in the ssh ephemeral key permissions",
            ),
            (["--temporary-keys", "sometimes"], "needed, always or never"),
        ] {
            let base = [
                "daemon",
                "--as",
                DEVICE,
                "--manager",
                ALICE,
                "--accept-keys",
            ];
            let output = output(world.noports(&[&base[..], &words].concat())).await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(want), "{said}");
        }
    });
}

#[test]
fn a_held_daemon_says_and_does_what_its_generation_did() {
    block_on(async {
        for (generation, feature, terms, key, form) in [
            (
                "v4.0",
                "\"version\":\"4.0.5\"}",
                Terms::of(Generation::V4),
                true,
                RequestForm::V4,
            ),
            (
                "v5.0",
                "\"srE2ee\":true",
                Terms::default(),
                true,
                RequestForm::V5,
            ),
            (
                "v5.3",
                "\"supportsPortChoice\":true",
                Terms::default(),
                true,
                RequestForm::V5,
            ),
            (
                "c",
                "\"corePackageVersion\":\"c0.1.0\"",
                Terms::default(),
                false,
                RequestForm::V5,
            ),
            (
                "v4.0-rc.2",
                "4.0.0-rc.2",
                Terms::of(Generation::V4Rc2),
                false,
                RequestForm::V4,
            ),
        ] {
            let habits = Profile::named(generation).unwrap().daemon;
            let world = world(|policy| policy.habits = habits).await;
            let mut alice = Hand::of_alice(&world).await;
            alice
                .send(ping::ask(&DEVICE.parse().unwrap(), &device()))
                .await;
            let heartbeat = alice.hear(&ping::heartbeat_entity(&device())).await;
            assert!(heartbeat.contains(feature), "{generation}: {heartbeat}");
            let (ready, answer) = alice.session(terms).await;
            exchange(&ready, generation);
            assert_eq!(ready.ephemeral_key.is_some(), key, "{generation}");
            let twin = stream_keys(&ready).is_some_and(SessionKeys::are_twin);
            assert!(!twin, "{generation} knows one key for both directions");
            assert_eq!(
                answer.contains("sessionAESKey"),
                form == RequestForm::V5,
                "{generation}"
            );
        }
    });
}

#[test]
fn held_daemons_take_no_notice_of_what_they_do_not_know() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = answer_at_the_end().await;
        let mut alice = Hand::of_alice(&world).await;
        let me = known_pair("@client_example");
        for (generation, ask, want) in [
            ("c", "plain ssh", "reason=held_to_its_time"),
            ("v5.3", "plain tunnel", "reason=held_to_its_time"),
            (
                "v3",
                "plain ssh",
                "word=ssh_request reason=held_to_its_time",
            ),
            ("python", "ping", "word=ping reason=held_to_its_time"),
        ] {
            let daemon = process(&world, port, &[], generation);
            fs::write(world.dir.path("daemon.log"), "").unwrap();
            match ask {
                "ping" => {
                    alice
                        .send(ping::ask(&DEVICE.parse().unwrap(), &device()))
                        .await
                }
                _ => {
                    let terms = Terms {
                        generation: Generation::V5,
                        ..Terms::of(Generation::V4)
                    };
                    let (_, granted) = alice.granted(terms).await;
                    let asked = match ask {
                        "plain ssh" => granted.request(None, &me).unwrap(),
                        _ => tunnel(port, &granted),
                    };
                    alice.send(asked).await;
                }
            }
            until(want, || world.log("daemon").contains(want)).await;
            assert!(children_of(daemon.id()).is_empty());
        }
    });
}

/// Asked for although the daemon does not offer it.
fn tunnel(port: u16, granted: &Granted) -> Message {
    let text = granted
        .request(None, &known_pair("@client_example"))
        .unwrap()
        .text;
    let text = Envelope::parse(&text).unwrap().unverified().to_owned();
    let session = text.split('"').nth(5).unwrap();
    let request = request::TunnelRequest {
        meeting: request::Meeting {
            session: session.parse().unwrap(),
            host: granted.ports().host.clone(),
            port: granted.ports().daemon,
            admission: None,
            encryption: None,
            socket_key: None,
            stamp: None,
        },
        target_host: "localhost".into(),
        target_port: port,
        timeout: Duration::from_secs(30),
    };
    let message = request.message(
        &DEVICE.parse().unwrap(),
        &device(),
        &known_pair("@client_example"),
    );
    message.unwrap()
}

#[test]
fn nonsense_under_every_word_opens_nothing_and_harms_nobody() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let words = ["--reverse-ssh", "--accept-keys"];
        let daemon = process(&world, answer_at_the_end().await, &words, "");
        let mut alice = Hand::of_alice(&world).await;
        let id = SessionId::random();
        let long = "x".repeat(40_000);
        let claim = format!(
            r#"{{"payload":{{"sessionId":"{id}"}},"signature":"AA==","hashingAlgo":"sha256","signingAlgo":"rsa2048"}}"#
        );
        let deep = "[".repeat(5_000);
        for word in [
            "ping",
            "ssh_request",
            "npt_request",
            "sshd",
            "privatekey",
            "sshpublickey",
        ] {
            for text in [
                "",
                " ",
                "\n",
                "{",
                "null",
                "{}",
                &claim,
                &long,
                &deep,
                "-oProxyCommand=touch /tmp/x",
                "\u{0}\u{1f600}",
            ] {
                alice.say(word, text).await;
            }
        }
        let answer = alice.hear(&request::answer_entity(id, &device())).await;
        assert!(answer.starts_with("Signature not verified: "), "{answer}");
        let (ready, _) = alice.session(Terms::default()).await;
        exchange(&ready, "still there");
        until("nothing else is running", || {
            children_of(daemon.id()).is_empty()
        })
        .await;
        let log = world.log("daemon");
        assert!(
            !log.contains("panicked") && !log.contains("PRIVATE"),
            "{log}"
        );
        assert!(
            log.lines().all(|line| line.len() < 2000),
            "no endless lines"
        );
    });
}

#[test]
fn what_a_daemon_leaves_in_authorized_keys_goes_when_it_is_told_to_end() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let file = world.dir.path(".ssh/authorized_keys");
        let mut daemon = process(&world, answer_at_the_end().await, &[], "");
        let mut alice = Hand::of_alice(&world).await;
        let (ready, _) = alice.session(Terms::of(Generation::V4)).await;
        assert!(
            fs::read_to_string(&file)
                .unwrap()
                .contains("sshnp_ephemeral_")
        );
        let pid = rustix::process::Pid::from_child(&daemon.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(daemon.0.wait().unwrap().success());
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
        exchange(&ready, "the session goes on");
    });
}

#[test]
fn a_daemon_that_has_ended_keeps_no_connection() {
    block_on(async {
        let mut world = World::start().await;
        world.daemon(22).await;
        assert!(world.connections_to(DEVICE).await > 0);
        world.end_services().await;
        for _ in 0..500 {
            if world.connections_to(DEVICE).await == 0 {
                return;
            }
            async_std::task::sleep(Duration::from_millis(10)).await;
        }
        panic!("something still holds the daemon's connections");
    });
}
