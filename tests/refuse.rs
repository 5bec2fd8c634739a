//! Every refusal, with its exact text and exit code; and what strangers get from a rendezvous and an atServer.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use async_std::{
    io::{ReadExt, WriteExt},
    net::TcpStream,
    task::block_on,
};
use noports::{
    at::{
        AtKey, AtSign, Verb,
        client::{Client, Event, Outgoing, Subscription},
        keyfile::AtKeys,
        metadata::Metadata,
        pins::Fingerprint,
    },
    np::{
        Message,
        admit::Admission,
        ids::{Nonce, SessionId},
        ping::{self, Heartbeat},
        ports::{self, Logins, Ports, PortsRequest},
        request::{self, Encryption, Meeting, Nonces, RequestForm, SshRequest, TunnelRequest},
    },
    session::ignored::SESSIONS,
};

use regex_lite::Regex;

use crate::world::{
    ALICE, DEVICE, NAME, RENDEZVOUS, World, answer_at_the_end, children_of, failure, known_pair,
    ports::Asker, signal, stdout, until,
};

/// A device that is not there, or does not want to be there for us.
const NO_DEVICE: &str = "dev1@device did not answer within 1 s
  hint: check that its daemon runs, with this --device name, and lists your atSign as a manager; which there are: noports devices --to @device";

/// The last two lines of stderr: what, and what to try.
fn verdict(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.trim_end().lines().collect();
    whatever_its_origin(&lines[lines.len().saturating_sub(2)..].join("\n"))
}

/// The world's programs get most values by variables; that these are named is a matter for other tests.
fn whatever_its_origin(said: &str) -> String {
    let origin = Regex::new(r" \(\S+ comes from NOPORTS_[A-Z]+\)").unwrap();
    origin.replace_all(said, "").into_owned()
}

/// A client ends with this code, and with these words as its last two lines.
async fn refused(client: Command, code: i32, want: &str) {
    let (got, said) = failure(client).await;
    let want = format!("noports client: {want}");
    assert_eq!((got, verdict(&said)), (code, want), "{said}");
}

#[test]
fn absent_parts_are_named_with_remedy_and_code() {
    block_on(async {
        let mut world = World::start().await;

        let impatient = ["--stdio", "-q", "--timeout", "1"];
        refused(world.client(&impatient), 7, NO_DEVICE).await;

        world.daemon(1).await;
        let no_rendezvous = "the rendezvous @rendezvous did not answer within 1 s
  hint: check that it runs and serves your atSign; or choose another with --via; one older than NoPorts 5.0 needs --no-admit-client --no-admit-device";
        refused(world.client(&impatient), 9, no_rendezvous).await;

        world.rendezvous().await;
        let (code, said) = failure(world.client(&["--stdio", "-q"])).await;
        assert_eq!(code, 12, "{said}");
        assert!(
            verdict(&said).starts_with("noports client: the device cannot reach the service: "),
            "{said}"
        );
        assert!(
            verdict(&said).ends_with(
                "\n  hint: check that sshd runs there, and listens where the daemon's --sshd-host and --sshd-port say"
            ),
            "{said}"
        );

        let words = ["client", "--as", ALICE, "--to", "@nobody", "--stdio", "-q"];
        let want =
            "there is no atSign @nobody\n  hint: check the spelling, and the atDirectory (--root)";
        refused(world.noports(&words), 5, want).await;
    });
}

#[test]
fn an_unknown_caller_meets_silence_and_a_line_in_the_log() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let daemon = world.process(&[
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            "@somebody",
            "--device",
            NAME,
        ]);
        refused(
            world.client(&["--stdio", "-q", "--timeout", "1"]),
            7,
            NO_DEVICE,
        )
        .await;
        until("the log says so", || {
            world
                .log("daemon")
                .contains("ignored from=@alice word=ping reason=not_a_manager")
        })
        .await;
        assert!(children_of(daemon.id()).is_empty());
    });
}

#[test]
fn a_forbidden_port_is_refused_with_the_reason() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        world
            .daemon_with(22, |policy| {
                policy.permit = "localhost:3389".parse().unwrap()
            })
            .await;
        let want = "the device permits no connections to localhost:22
  hint: start the daemon on dev1 with --permit-open localhost:3389,localhost:22";
        refused(world.client(&["--stdio", "-q"]), 8, want).await;
    });
}

#[test]
fn unusable_keys_are_named() {
    block_on(async {
        let world = World::start().await;
        let file = world.key_file(&ALICE.parse().unwrap());
        let whole = fs::read_to_string(&file).unwrap();
        let spoilt = whole.replace("\"aesPkamPrivateKey\":\"", "\"aesPkamPrivateKey\":\"AAAA");
        let protected =
            r#"{"content":"AA==","iv":"AAAAAAAAAAAAAAAAAAAAAA==","hashingAlgoType":"argon2id"}"#;
        // Exactly two lines, with the file's name in them.
        let refused = async |code: i32, what: &str, hint: &str| {
            let (got, said) = failure(world.client(&["--stdio", "-q"])).await;
            let said = whatever_its_origin(&said.replace(&file.display().to_string(), "FILE"));
            let want = format!("noports client: {what}\n  hint: {hint}\n");
            assert_eq!((got, said), (code, want));
        };
        for (text, what, hint) in [
            (
                &whole[..whole.len() / 2],
                "FILE: not a key file: it is cut off before its end",
                "it must be a complete copy of the .atKeys file that activation or enrolment wrote",
            ),
            (
                "not json at all",
                "FILE: not a key file: it is not JSON",
                "it must be a complete copy of the .atKeys file that activation or enrolment wrote",
            ),
            (
                "{}",
                "FILE: the key file lacks selfEncryptionKey",
                "the file is of another kind or was edited; copy it again or enrol this device",
            ),
            (
                &spoilt,
                "FILE: the key file's aesPkamPrivateKey cannot be decrypted",
                "the file was damaged or put together from two; copy it again or enrol this device",
            ),
            (
                protected,
                "FILE: the key file is protected by a pass phrase",
                "the phrase comes from --passphrase-file FILE, from NOPORTS_PASSPHRASE, or from the terminal",
            ),
        ] {
            fs::write(&file, text).unwrap();
            refused(3, what, hint).await;
        }
        fs::remove_file(&file).unwrap();
        let hint = format!(
            "noports enroll {ALICE}; for the first keys of an atSign: noports activate {ALICE}"
        );
        refused(3, "there is no key file FILE", &hint).await;

        fs::write(&file, &whole).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads everything.
        if fs::read(&file).is_err() {
            let what = "cannot read the key file FILE: Permission denied (os error 13)";
            let hint = "does the file belong to the user that runs this program?";
            refused(3, what, hint).await;
        }
    });
}

#[test]
fn keys_the_atserver_does_not_know_are_refused() {
    block_on(async {
        let world = World::start().await;
        let mut keys = (*world.keys(ALICE)).clone();
        keys.pkam = known_pair("@device_example");
        let file = world.key_file(&ALICE.parse().unwrap());
        fs::write(&file, keys.print().reveal()).unwrap();
        let want =
            "@alice's atServer refused the login: AT0401: Exception: pkam authentication failed
  hint: check that these keys belong to this atSign, and are its latest";
        refused(world.client(&["--stdio", "-q"]), 6, want).await;
    });
}

#[test]
fn certificates_that_are_not_trusted_end_it() {
    block_on(async {
        let world = World::start().await;
        let other = format!("localhost:{}", elsewhere(&world).await);
        for (change, code, want) in [
            (
                ("NOPORTS_CA", String::new()),
                11,
                "cannot speak to the atDirectory at ROOT: localhost's certificate is signed by an authority that is not trusted here\n  hint: if you run that server, trust the authority that signed for it with --ca FILE",
            ),
            (
                ("NOPORTS_CA", world.dir.text("nowhere.pem")),
                2,
                "cannot read the authority file DIR/nowhere.pem: No such file or directory (os error 2)",
            ),
            (
                ("NOPORTS_ROOT", other.clone()),
                11,
                "cannot speak to the atDirectory at ROOT: the certificate is not for localhost\n  hint: check the host: it must be spelt as in the certificate",
            ),
            (
                ("NOPORTS_ROOT", "localhost:1".to_owned()),
                4,
                "cannot reach the atDirectory at ROOT: 127.0.0.1:1: Connection refused (os error 111)\n  hint: check the network, and that it allows outbound TCP to that port; if you host your own: --root",
            ),
        ] {
            let mut client = world.client(&["--stdio", "-q"]);
            client.env(change.0, &change.1);
            if change.1 == other {
                client.env("NOPORTS_CA", world.dir.path("other.pem"));
            }
            let root = if change.0 == "NOPORTS_ROOT" {
                change.1.clone()
            } else {
                world.root()
            };
            let want = want
                .replace("DIR", &world.dir.0.display().to_string())
                .replace("ROOT", &root);
            refused(client, code, &want).await;
        }
    });
}

/// A TLS server whose authority (in `other.pem`) is trusted, and whose certificate has another name.
async fn elsewhere(world: &World) -> u16 {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(
        world.dir.path("other.pem"),
        ca.self_signed(&ca_key).unwrap().pem(),
    )
    .unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let leaf = CertificateParams::new(["other.example".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let acceptor =
        noports::net::tls::Acceptor::from_pem(&leaf.pem(), &key.serialize_pem()).unwrap();
    let listener = async_std::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    async_std::task::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = acceptor.accept(socket, Duration::from_secs(5)).await;
        }
    });
    port
}

/// Alice, without the client program: sends what she likes.
struct Hand {
    at: Client,
    inbox: Subscription,
    /// With her new keys.
    renewed: Option<Client>,
}

impl Hand {
    async fn of_alice(world: &World) -> Self {
        Self::of(world, ALICE).await
    }

    async fn of(world: &World, who: &str) -> Self {
        let at = Client::login(&world.network, world.keys(who))
            .await
            .unwrap();
        let inbox = at.subscribe(r"\.ss(hnp|hrvd)@", false).await.unwrap();
        let renewed = None;
        Self { at, inbox, renewed }
    }

    async fn send(&self, message: &Message) {
        let note = Outgoing {
            to: message.to.clone(),
            entity: message.entity.clone(),
            text: message.text.clone(),
            ttl: None,
            ttln: 60_000,
            metadata: Metadata::default(),
        };
        self.at.notify(&note).await.unwrap();
    }

    /// The next message under this key.
    async fn hear(&mut self, entity: &str) -> String {
        loop {
            let next = async_std::future::timeout(Duration::from_secs(30), self.inbox.next()).await;
            if let Event::Note(note) = next.expect("an answer within 30 s").unwrap()
                && note.entity() == entity
            {
                let text = match (self.at.decrypt(&note).await, &self.renewed) {
                    (Err(_), Some(renewed)) => renewed.decrypt(&note).await,
                    (text, _) => text,
                };
                return text.unwrap().unwrap();
            }
        }
    }

    /// Whether another message under this key comes so soon.
    async fn hears_within(&mut self, entity: &str, time: Duration) -> bool {
        loop {
            match async_std::future::timeout(time, self.inbox.next()).await {
                Ok(Some(Event::Note(note))) if note.entity() == entity => return true,
                Ok(Some(_)) => {}
                _ => return false,
            }
        }
    }

    /// Asks the rendezvous for ports between these two.
    async fn ask_ports(&self, [client, daemon]: [&str; 2], session: SessionId, nonce: &Nonce) {
        let request = PortsRequest {
            logins: Logins::BOTH,
            session,
            client: client.parse().unwrap(),
            daemon: daemon.parse().unwrap(),
            nonce: nonce.clone(),
            socket_key: None,
        };
        self.send(&request.message(&RENDEZVOUS.parse().unwrap(), &NAME.parse().unwrap()))
            .await;
    }

    async fn ports(&mut self, session: SessionId, nonce: &Nonce) -> Ports {
        self.ask_ports([ALICE, DEVICE], session, nonce).await;
        Ports::parse(&self.hear(&ports::answer_entity(session)).await).unwrap()
    }

    fn request(&self, session: SessionId, nonce: &Nonce, ports: &Ports) -> SshRequest {
        SshRequest {
            meeting: Meeting {
                session,
                host: ports.host.clone(),
                port: ports.daemon,
                admission: Some(Nonces {
                    client: nonce.clone(),
                    rendezvous: ports.nonce.clone().unwrap(),
                }),
                encryption: Some(Encryption::Stream {
                    ephemeral: known_pair("session").public().clone(),
                    twin_keys: true,
                }),
                socket_key: None,
                stamp: None,
            },
            form: RequestForm::V5,
        }
    }
}

#[test]
fn requests_with_a_bad_signature_or_anothers_are_refused() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        world.daemon(answer_at_the_end().await).await;
        let mut alice = Hand::of_alice(&world).await;
        let (device, name): (AtSign, _) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
        let nonce = Nonce::random();
        for (signer, spoil) in [("@device_example", false), ("@client_example", true)] {
            let session = SessionId::random();
            let ports = alice.ports(session, &nonce).await;
            let mut message = alice
                .request(session, &nonce, &ports)
                .message(&device, &name, &known_pair(signer))
                .unwrap();
            if spoil {
                message.text = message
                    .text
                    .replace(r#""direct":true"#, r#""direct":true,"x":1"#);
            }
            alice.send(&message).await;
            let answer = alice.hear(&request::answer_entity(session, &name)).await;
            assert_eq!(
                answer, "Signature not verified: the signature is not valid",
                "{signer} {spoil}"
            );
        }
    });
}

#[test]
fn a_replayed_request_gets_the_same_answer_and_opens_nothing() {
    block_on(async {
        let mut world = World::start().await;
        let port = answer_at_the_end().await;
        world.rendezvous().await;
        let daemon = world.daemon_process(port);
        let mut alice = Hand::of_alice(&world).await;
        let (session, nonce) = (SessionId::random(), Nonce::random());
        let ports = alice.ports(session, &nonce).await;
        let request = alice.request(session, &nonce, &ports);
        let (device, name) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
        let message = request
            .message(&device, &name, &known_pair("@client_example"))
            .unwrap();
        let answers = request::answer_entity(session, &name);
        alice.send(&message).await;
        let first = alice.hear(&answers).await;
        alice.send(&message).await;
        assert!(first.starts_with('{') && alice.hear(&answers).await == first);
        assert_eq!(children_of(daemon.id()).len(), 1, "one bridge");
    });
}

/// A recorded request that comes again when the daemon was started anew. Clients of others sign no time; of ours one is
/// known to be old even where nothing can be kept.
#[test]
fn a_request_that_is_replayed_after_a_restart_opens_nothing() {
    block_on(async {
        let mut world = World::start().await;
        let port = answer_at_the_end().await;
        world.rendezvous().await;
        for (stamped, memory, want) in [
            (
                false,
                "memory",
                "this request was acted on already; ask again",
            ),
            (
                true,
                "memory",
                "this request was acted on already; ask again",
            ),
            (
                true,
                "keys/none/x",
                "this device has been started anew since this request was signed; ask again",
            ),
        ] {
            // A file where the folder should be: as on a disk that can only be read.
            std::fs::write(world.dir.path("keys/none"), "").unwrap();
            let memory = world.dir.text(memory);
            let start = || {
                let port = port.to_string();
                let words = [
                    "daemon",
                    "--as",
                    DEVICE,
                    "--manager",
                    ALICE,
                    "--device",
                    NAME,
                ];
                let words = [
                    &words[..],
                    &["--client-source", "off", "--sshd-port", &port],
                ]
                .concat();
                world.process_with(&words, &[("NOPORTS_MEMORY", &memory)])
            };
            let mut daemon = start();
            let mut alice = Hand::of_alice(&world).await;
            let (session, nonce) = (SessionId::random(), Nonce::random());
            let ports = alice.ports(session, &nonce).await;
            let mut request = alice.request(session, &nonce, &ports);
            let (device, name) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
            if stamped {
                alice.send(&ping::ask(&device, &name)).await;
                let about = alice.hear(&ping::heartbeat_entity(&name)).await;
                request.meeting.stamp = Some(request::Stamp {
                    run: Heartbeat::parse(&about).unwrap().run.unwrap(),
                    at: UNIX_EPOCH.elapsed().unwrap(),
                });
            }
            let message = request
                .message(&device, &name, &known_pair("@client_example"))
                .unwrap();
            let answers = request::answer_entity(session, &name);
            alice.send(&message).await;
            let first = alice.hear(&answers).await;
            assert!(first.starts_with('{'), "{first}");
            daemon.kill();
            let daemon = start();
            alice.send(&message).await;
            assert_eq!(alice.hear(&answers).await, want, "{stamped} {memory}");
            assert_eq!(children_of(daemon.id()).len(), 0, "a bridge");
        }
    });
}

/// A rendezvous that lets everybody in and says nothing, as a manager may run one.
async fn silent_rendezvous() -> u16 {
    let listener = async_std::net::TcpListener::bind(("127.0.0.1", 0));
    let listener = listener.await.unwrap();
    let port = listener.local_addr().unwrap().port();
    async_std::task::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    port
}

/// A tunnel that may stand for a day, in words without a time.
fn tunnel_by(rendezvous: u16, target: u16) -> (SessionId, TunnelRequest) {
    let session = SessionId::random();
    let meeting = Meeting {
        session,
        host: "127.0.0.1".to_owned(),
        port: rendezvous,
        admission: None,
        encryption: None,
        socket_key: None,
        stamp: None,
    };
    let request = TunnelRequest {
        meeting,
        target_host: "localhost".to_owned(),
        target_port: target,
        timeout: Duration::from_secs(86_400),
    };
    (session, request)
}

#[test]
fn more_sessions_than_fit_are_refused_in_words_and_another_manager_still_gets_one() {
    block_on(async {
        let world = World::start().await;
        let (target, dead) = (answer_at_the_end().await, silent_rendezvous().await);
        let managers = format!("{ALICE},{RENDEZVOUS}");
        let sshd_port = target.to_string();
        let words = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            &managers,
            "--device",
            NAME,
        ];
        let more = [
            "--client-source",
            "off",
            "--sshd-port",
            &sshd_port,
            "--max-sessions",
            "4",
        ];
        let daemon = world.process(&[&words[..], &more].concat());
        let (device, name) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
        let mut alice = Hand::of_alice(&world).await;
        let mut other = Hand::of(&world, RENDEZVOUS).await;
        let key = known_pair("@client_example");
        let full = "too many sessions: 3 are yours, 3 at most, and 4 of all together";
        for (n, want) in [(1, "{"), (2, "{"), (3, "{"), (4, full), (5, full)] {
            let (session, request) = tunnel_by(dead, target);
            let message = request.message(&device, &name, &key).unwrap();
            alice.send(&message).await;
            let answer = alice.hear(&request::answer_entity(session, &name)).await;
            assert!(answer.starts_with(want), "{n}: {answer}");
        }
        let (session, request) = tunnel_by(dead, target);
        let message = request.message(&device, &name, &key).unwrap();
        other.send(&message).await;
        let answer = other.hear(&request::answer_entity(session, &name)).await;
        assert!(answer.starts_with('{'), "{answer}");
        let bridges = children_of(daemon.id());
        assert_eq!(bridges.len(), 4);
        // A place comes back with the end of its session.
        signal(bridges[0], "TERM");
        until("its end is known", || children_of(daemon.id()).len() == 3).await;
        let words = "ended=";
        until("it is told", || world.log("daemon").contains(words)).await;
        // The system ends sessions before their daemon.
        let lot = |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert_eq!(lot(bridges[1]).trim(), "200");
    });
}

/// As somebody who runs her atServer could do it.
async fn publish_key_of(at: &Client, who: &str, pair: &str) {
    let verb = Verb::Update {
        key: AtKey::public("publickey", &who.parse().unwrap()),
        metadata: Metadata::default(),
        value: known_pair(pair).public().text.clone(),
    };
    at.run(&verb).await.unwrap();
}

#[test]
fn a_managers_key_that_changed_opens_nothing_until_somebody_at_the_device_trusts_it() {
    block_on(async {
        let world = World::start().await;
        let (target, dead) = (answer_at_the_end().await, silent_rendezvous().await);
        let mut daemon = world.daemon_process(target);
        let (device, name) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
        let mut alice = Hand::of_alice(&world).await;
        let changed = "the key of @alice is another one than before: ";
        for (turn, pair, want) in [
            ("first", "@client_example", "{"),
            ("changed", "session", changed),
            ("changed, after a restart", "session", changed),
            ("trusted", "session", "{"),
            ("the old one", "@client_example", "Signature not verified"),
        ] {
            match turn {
                "changed" => {
                    publish_key_of(&alice.at, ALICE, pair).await;
                    let mut keys = AtKeys::clone(&world.keys(ALICE));
                    keys.encryption = known_pair(pair);
                    let renewed = Client::login(&world.network, Arc::new(keys)).await;
                    alice.renewed = Some(renewed.unwrap());
                }
                "changed, after a restart" => {
                    daemon.kill();
                    daemon = world.daemon_process(target);
                }
                "trusted" => {
                    let said = stdout(world.noports(&["trust", ALICE, "-q"])).await;
                    assert!(said.contains("\nbefore: "), "{said}");
                    let known = stdout(world.noports(&["trust", "list"])).await;
                    let now = said.lines().next().unwrap();
                    assert!(known.lines().any(|line| line == now), "{known}");
                }
                _ => {}
            }
            let (session, request) = tunnel_by(dead, target);
            let message = request.message(&device, &name, &known_pair(pair)).unwrap();
            alice.send(&message).await;
            let answer = alice.hear(&request::answer_entity(session, &name)).await;
            assert!(answer.starts_with(want), "{turn}: {answer}");
            if want == changed {
                assert!(
                    answer.contains("noports trust @alice --fingerprint "),
                    "{answer}"
                );
            }
        }
        assert_eq!(children_of(daemon.id()).len(), 1);
        let log = world.log("daemon");
        let line = log
            .lines()
            .find(|line| line.contains("refused=yes"))
            .unwrap();
        assert!(
            line.contains("fingerprint=") && line.contains(" known="),
            "{line}"
        );
    });
}

#[test]
fn a_manager_that_is_named_with_its_key_is_served_with_no_other() {
    block_on(async {
        let world = World::start().await;
        let (target, dead) = (answer_at_the_end().await, silent_rendezvous().await);
        let (device, name) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
        let mut alice = Hand::of_alice(&world).await;
        let key = known_pair("@client_example");
        let right = Fingerprint::of(key.public()).to_string();
        let other = Fingerprint::of(known_pair("session").public()).to_string();
        for (print, want) in [(other, "the key of @alice is another"), (right, "{")] {
            let manager = format!("{ALICE}#{print}");
            let words = [
                "daemon",
                "--as",
                DEVICE,
                "--manager",
                &manager,
                "--device",
                NAME,
            ];
            let port = target.to_string();
            let _daemon = world.process(
                &[
                    &words[..],
                    &["--client-source", "off", "--sshd-port", &port],
                ]
                .concat(),
            );
            let (session, request) = tunnel_by(dead, target);
            alice
                .send(&request.message(&device, &name, &key).unwrap())
                .await;
            let answer = alice.hear(&request::answer_entity(session, &name)).await;
            assert!(answer.starts_with(want), "{answer}");
        }
    });
}

/// Records and answers to pings went to whatever key the manager's atServer told.
#[test]
fn nothing_is_published_or_told_to_a_key_that_is_not_the_named_one() {
    block_on(async {
        let world = World::start().await;
        let (device, name): (AtSign, _) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
        let mut alice = Hand::of_alice(&world).await;
        let other = Fingerprint::of(known_pair("session").public());
        let manager = format!("{ALICE}#{other}");
        let words = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            &manager,
            "--device",
            NAME,
        ];
        let _daemon = world.process(&words);
        let log = || world.log("daemon");
        until("it is refused", || {
            log().contains("not_published for=@alice")
        })
        .await;
        assert!(log().contains(&format!("managers={manager} ")), "{}", log());
        alice.send(&ping::ask(&device, &name)).await;
        let said = alice.hear(&ping::heartbeat_entity(&name)).await;
        assert_eq!(
            Heartbeat::parse(&said).unwrap().services,
            Vec::<String>::new()
        );
        for entity in ["username", "device_info"] {
            let entity = format!("{entity}.{NAME}.sshnp");
            assert_eq!(alice.at.get_shared(&device, &entity).await.unwrap(), None);
        }
    });
}

#[test]
fn a_devices_key_that_changed_is_refused_by_its_client_with_the_way_back() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        world.daemon(answer_at_the_end().await).await;
        assert_eq!(stdout(world.client(&["--stdio", "-q"])).await, "");
        let device = Client::login(&world.network, world.keys(DEVICE)).await;
        publish_key_of(&device.unwrap(), DEVICE, "session").await;
        let (code, said) = failure(world.client(&["--stdio", "-q"])).await;
        assert_eq!(code, 10, "{said}");
        assert!(
            said.contains("the key of @device is another one than before"),
            "{said}"
        );
        assert!(
            said.contains("noports trust @device --fingerprint "),
            "{said}"
        );
    });
}

#[test]
fn a_flood_of_pings_is_answered_a_few_times_and_others_are_answered_meanwhile() {
    block_on(async {
        let mut world = World::start().await;
        let managers = [ALICE, RENDEZVOUS].map(|who| who.parse().unwrap());
        world
            .daemon_with(1, |options| options.managers = managers.to_vec())
            .await;
        let (device, name) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
        let (ping, heartbeat) = (ping::ask(&device, &name), ping::heartbeat_entity(&name));
        let mut alice = Hand::of_alice(&world).await;
        let mut other = Hand::of(&world, RENDEZVOUS).await;
        let since = Instant::now();
        for _ in 0..60 {
            alice.send(&ping).await;
        }
        other.send(&ping).await;
        other.hear(&heartbeat).await;
        let mut answers = 0;
        while alice.hears_within(&heartbeat, Duration::from_secs(2)).await {
            answers += 1;
        }
        // One each quarter of a second, and the first at once.
        let most = since.elapsed().as_millis() / 250 + 1;
        assert!(
            (1..=most).contains(&answers),
            "{answers} in {most} quarters"
        );
        assert!(answers < 60);
        alice.send(&ping).await;
        alice.hear(&heartbeat).await;
    });
}

#[test]
fn a_rendezvous_lets_nobody_in_without_the_sessions_line() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Hand::of_alice(&world).await;
        let (session, nonce) = (SessionId::random(), Nonce::random());
        let ports = alice.ports(session, &nonce).await;
        let right = Admission {
            session,
            client_nonce: nonce,
            rendezvous_nonce: ports.nonce.clone().unwrap(),
        };
        let wrong_nonce = Admission {
            rendezvous_nonce: Nonce::random(),
            ..right.clone()
        };
        let (alices, devices) = (known_pair("@client_example"), known_pair("@device_example"));
        for (what, mut first) in [
            (
                "wrong nonce",
                wrong_nonce.line(&alices).unwrap().into_bytes(),
            ),
            (
                "the other end's signature",
                right.line(&devices).unwrap().into_bytes(),
            ),
            ("an oversized line", vec![b'x'; 100_000]),
            ("something else", b"SSH-2.0-OpenSSH_9.6".to_vec()),
        ] {
            first.push(b'\n');
            let mut socket = dial(&ports.host, ports.client).await;
            let _ = socket.write_all(&first).await;
            assert_eq!(closed(&mut socket).await, 0, "{what}: nothing is said");
        }
        // Silence, and a line that never ends one byte at a time, end by the clock.
        let mut silent = dial(&ports.host, ports.client).await;
        assert_eq!(closed(&mut silent).await, 0, "silence");
        // The port still serves whoever comes with the right line.
        let mut socket = dial(&ports.host, ports.client).await;
        let mut peer = dial(&ports.host, ports.daemon).await;
        let line = |key| format!("{}\nbehind", right.line(key).unwrap());
        socket.write_all(line(&alices).as_bytes()).await.unwrap();
        peer.write_all(line(&devices).as_bytes()).await.unwrap();
        let mut got = [0; 6];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(
            &got, b"behind",
            "what came behind the line is the stream's beginning"
        );
    });
}

async fn dial(host: &str, port: u16) -> TcpStream {
    TcpStream::connect((host, port)).await.unwrap()
}

/// Bytes until the other side closes.
async fn closed(socket: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    let read =
        async_std::future::timeout(Duration::from_secs(30), socket.read_to_end(&mut all)).await;
    match read.expect("closed within 30 s") {
        Ok(n) => n,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn nobody_gets_ports_in_anothers_name() {
    block_on(async {
        let world = World::start().await;
        let rendezvous = world.rendezvous_process();
        let alice = Hand::of_alice(&world).await;
        let swapped = [DEVICE, ALICE];
        alice
            .ask_ports(swapped, SessionId::random(), &Nonce::random())
            .await;
        let want = r#"refused from=@alice reason="asked in the name of @device""#;
        until("the log says so", || world.log("rendezvous").contains(want)).await;
        assert_eq!(
            noports::sys::sockets::listening_ports(rendezvous.id()).unwrap(),
            Vec::<u16>::new()
        );
    });
}

#[test]
fn a_blocked_atsign_does_not_reach_the_daemon() {
    block_on(async {
        let world = World::start().await;
        let _rendezvous = world.rendezvous_process();
        let _daemon = world.daemon_process(answer_at_the_end().await);
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        let device = Client::login(&world.network, world.keys(DEVICE))
            .await
            .unwrap();
        let block = noports::at::verb::Config::Add(
            noports::at::verb::AccessList::Block,
            vec![ALICE.parse().unwrap()],
        );
        device.run(&noports::at::Verb::Config(block)).await.unwrap();
        let want = "@device's atServer does not let you in\n  hint: its owner can let you in: noports access show @device";
        refused(world.client(&["--stdio", "-q", "--timeout", "1"]), 8, want).await;
        assert!(
            !world.log("daemon").contains("ignored"),
            "the daemon never heard of it"
        );
    });
}

#[test]
fn a_ports_request_that_comes_again_after_its_sessions_end_opens_nothing() {
    block_on(async {
        let world = World::start().await;
        let rendezvous = world.rendezvous_process();
        let listening = || noports::sys::sockets::listening_ports(rendezvous.id()).unwrap();
        let mut alice = Hand::of_alice(&world).await;
        let (session, nonce) = (SessionId::random(), Nonce::random());
        let ports = alice.ports(session, &nonce).await;
        let admission = Admission {
            session,
            client_nonce: nonce.clone(),
            rendezvous_nonce: ports.nonce.clone().unwrap(),
        };
        for (port, key) in [
            (ports.client, "@client_example"),
            (ports.daemon, "@device_example"),
        ] {
            let mut socket = dial(&ports.host, port).await;
            let line = admission.line(&known_pair(key)).unwrap();
            socket
                .write_all(format!("{line}\n").as_bytes())
                .await
                .unwrap();
        }
        until("the session has ended", || listening().is_empty()).await;

        alice.ask_ports([ALICE, DEVICE], session, &nonce).await;
        // Requests of one atSign are heard in their order, so once the next one is answered this one was, too.
        alice.ports(SessionId::random(), &nonce).await;
        assert_eq!(
            listening().len(),
            2,
            "the second session's two ports, and no others"
        );
    });
}

/// A manager whose client is broken, or who means it: the log is not his to fill.
#[test]
fn one_managers_refusals_are_a_few_lines() {
    block_on(async {
        let world = World::start().await;
        let (target, dead) = (answer_at_the_end().await, silent_rendezvous().await);
        let _daemon = world.daemon_process(target);
        let (device, name) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
        let mut alice = Hand::of_alice(&world).await;
        let key = known_pair("@client_example");
        for n in 0..12 {
            // A port that nobody may open.
            let (session, request) = tunnel_by(dead, 1);
            let message = request.message(&device, &name, &key).unwrap();
            alice.send(&message).await;
            let answer = alice.hear(&request::answer_entity(session, &name)).await;
            assert!(!answer.starts_with('{'), "{n}: {answer}");
        }
        let log = world.log("daemon");
        let lines = log.lines().filter(|line| line.contains("refused "));
        assert_eq!(lines.count(), 4, "{log}");
    });
}

/// Whether the log tells as many sessions as it does of one client a minute, and no end of another.
fn assert_few_told(log: &str, [begins, ends]: [&str; 2], began: Instant) {
    let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count() as u64;
    let (begun, ended) = (lines(begins), lines(ends));
    let minutes = began.elapsed().as_secs() / 60 + 1;
    assert!(begun <= SESSIONS * minutes, "{log}");
    assert!(begun == SESSIONS || minutes > 1, "{log}");
    assert!(ended <= begun, "{log}");
}

/// A manager who opens more than anybody looks at. Somebody else's are in the log as ever.
#[test]
fn one_managers_sessions_have_lines_up_to_a_number_and_anothers_have_theirs() {
    block_on(async {
        let world = World::start().await;
        let (target, dead) = (answer_at_the_end().await, silent_rendezvous().await);
        let managers = format!("{ALICE},{RENDEZVOUS}");
        let sshd_port = target.to_string();
        let words = ["daemon", "--as", DEVICE, "--manager", &managers];
        let more = [
            "--device",
            NAME,
            "--client-source",
            "off",
            "--sshd-port",
            &sshd_port,
        ];
        let daemon = world.process(&[&words[..], &more].concat());
        let (device, name) = (DEVICE.parse().unwrap(), NAME.parse().unwrap());
        let key = known_pair("@client_example");
        let (mut alice, mut other) = (
            Hand::of_alice(&world).await,
            Hand::of(&world, RENDEZVOUS).await,
        );
        let mut told = std::collections::BTreeSet::new();
        let began = Instant::now();
        for n in 0..SESSIONS + 5 {
            let (session, request) = tunnel_by(dead, target);
            let message = request.message(&device, &name, &key).unwrap();
            alice.send(&message).await;
            let answer = alice.hear(&request::answer_entity(session, &name)).await;
            assert!(answer.starts_with('{'), "{n}: {answer}");
            // There is not room for all of them. One that has been told may be gone by now.
            let bridges = children_of(daemon.id());
            for bridge in bridges.into_iter().filter(|one| told.insert(*one)) {
                signal(bridge, "TERM");
            }
        }
        let (session, request) = tunnel_by(dead, target);
        let message = request.message(&device, &name, &key).unwrap();
        other.send(&message).await;
        other.hear(&request::answer_entity(session, &name)).await;
        until("all have ended but the last", || {
            children_of(daemon.id()).len() == 1
        })
        .await;
        let log = world.log("daemon");
        assert_few_told(&log, ["from=@alice open=", " ended="], began);
        assert!(log.contains(&format!("session={session} from={RENDEZVOUS} open=")));
    });
}

/// A stranger at a rendezvous that is open to all, who never comes: 2,847 lines a minute of eight of them.
#[test]
fn ports_that_nobody_comes_to_have_a_line_a_minute() {
    block_on(async {
        let world = World::start().await;
        let _rendezvous = world.rendezvous_process();
        let mut asker = Asker::start(&world).await;
        let began = Instant::now();
        for _ in 0..SESSIONS + 5 {
            asker.ask(Logins::BOTH).await;
        }
        until("their time is over", || {
            world.log("rendezvous").contains("unused from=@alice ")
        })
        .await;
        let log = world.log("rendezvous");
        let lines = log.lines().filter(|line| line.contains("client=@alice "));
        let minutes = began.elapsed().as_secs() / 60 + 1;
        let lines = lines.count() as u64;
        assert!((1..=minutes).contains(&lines), "{log}");
        assert!(!log.contains(" ended pairs="), "{log}");
    });
}
