//! The server as clients meet it: real sockets, real TLS, a store on disk.

use std::{fs, net::IpAddr, path::Path};

use async_std::task::block_on;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::testing::Folder;
use crate::{
    at::{crypto::cram_digest, directory::Root},
    net::{
        dial::dial,
        tls::{Connector, TlsStream},
    },
    server::authority::{self, Authority},
    text::endpoint::Endpoint,
};

const SOON: Duration = Duration::from_secs(20);

/// A folder with an authority; servers can be started on it again and again.
struct World {
    folder: Folder,
    authority: Authority,
    options: ServerOptions,
}

impl World {
    fn new() -> Self {
        let folder = Folder::new();
        let authority = authority::open_or_make(&folder.0).unwrap();
        let options = ServerOptions {
            data: folder.0.clone(),
            listen: IpAddr::from([127, 0, 0, 1]),
            host: "localhost".into(),
            directory_port: 0,
            first_port: 0,
            domain: None,
            timings: Timings {
                retry: Duration::from_millis(50),
                ..Timings::default()
            },
        };
        Self {
            folder,
            authority,
            options,
        }
    }

    async fn start(&self) -> RunningServer {
        self.start_among(None).await.unwrap()
    }

    async fn start_among(&self, network: Option<Network>) -> Result<RunningServer, ServerError> {
        let leaf = self.authority.leaf(&["*.np.test".to_owned()]).unwrap();
        let acceptor = leaf.acceptor().unwrap();
        start(self.options.clone(), acceptor, network).await
    }

    fn connector(&self) -> Connector {
        Connector::new(&[self.authority.ca_file()]).unwrap()
    }

    async fn wire(&self, port: u16) -> Wire {
        Wire::open(&self.connector(), "localhost", port).await
    }

    /// Adds an atSign and gives it a login key.
    async fn activate(&self, running: &RunningServer, who: &str) -> Member {
        let who: AtSign = who.parse().unwrap();
        let secret = running.add(&who).await.unwrap();
        assert_eq!(secret.reveal().len(), 128);
        let port = running.port(&who).await;
        let mut wire = self.wire(port).await;
        let challenge = wire.ask(&format!("from:{who}")).await;
        let challenge = challenge_of(&challenge);
        let digest = cram_digest(secret.reveal(), challenge);
        assert_eq!(
            wire.ask(&format!("cram:{digest}")).await,
            format!("data:success\n{who}@")
        );
        let keys = KeyPair::generate().unwrap();
        let public = &keys.public().text;
        wire.ask(&format!("update:privatekey:at_pkam_publickey {public}"))
            .await;
        let reply = wire
            .ask(&format!("update:public:publickey{who} {public}"))
            .await;
        // The signing keys took the first two commits.
        assert_eq!(reply, format!("data:2\n{who}@"));
        Member { who, port, keys }
    }
}

impl RunningServer {
    async fn port(&self, who: &AtSign) -> u16 {
        let all = self.list().await.unwrap();
        all.iter()
            .find(|hosted| hosted.atsign == who.as_str())
            .unwrap()
            .port
    }
}

/// Somebody with keys.
struct Member {
    who: AtSign,
    port: u16,
    keys: KeyPair,
}

impl Member {
    async fn login(&self, world: &World) -> Wire {
        let mut wire = world.wire(self.port).await;
        let challenge = wire.ask(&format!("from:{}", self.who)).await;
        let signature = self.keys.sign(challenge_of(&challenge).as_bytes()).unwrap();
        let reply = wire.ask(&format!("pkam:{signature}")).await;
        assert_eq!(reply, format!("data:success\n{}@", self.who));
        wire
    }

    async fn monitor(&self, world: &World, command: &str) -> Wire {
        let mut wire = self.login(world).await;
        wire.send(command).await;
        // A monitor gives no answer; what follows it does. What there is to hear may come with that.
        wire.send("noop:0").await;
        while !wire.kept.contains("data:ok\n") {
            let more = wire.read().await.expect("an answer");
            wire.kept += &more;
        }
        wire.kept = wire.kept.replacen("data:ok\n", "", 1);
        wire
    }
}

fn challenge_of(reply: &str) -> &str {
    reply
        .trim_start_matches("data:")
        .split('\n')
        .next()
        .unwrap()
}

/// One connection, read as simple clients do.
struct Wire {
    stream: TlsStream,
    kept: String,
}

impl Wire {
    async fn open(connector: &Connector, name: &str, port: u16) -> Self {
        let at = Endpoint {
            host: "127.0.0.1".into(),
            port,
        };
        let tcp = dial(&at, SOON).await.unwrap();
        let stream = connector.connect(name, tcp, SOON).await.unwrap();
        let mut wire = Self {
            stream,
            kept: String::new(),
        };
        assert_eq!(wire.read().await.as_deref(), Some("@"), "the greeting");
        wire
    }

    async fn send(&mut self, line: &str) {
        self.stream
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
        self.stream.flush().await.unwrap();
    }

    /// What one read gives; `None` at the end.
    async fn read(&mut self) -> Option<String> {
        let mut buffer = vec![0; 64 * 1024];
        let read = timeout(SOON, self.stream.read(&mut buffer))
            .await
            .expect("silence");
        let read = read.unwrap_or(0);
        (read > 0).then(|| String::from_utf8(buffer[..read].to_vec()).unwrap())
    }

    /// A command and its reply, which must come in one piece, prompt included.
    async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.read().await.expect("no reply")
    }

    /// The next notification with this word in it; signs of life and others are passed over.
    async fn hear(&mut self, word: &str) -> String {
        loop {
            while let Some((line, rest)) = self.kept.split_once('\n') {
                let line = line.to_owned();
                self.kept = rest.to_owned();
                assert!(line.starts_with("notification: {"), "{line}");
                if line.contains(word) {
                    return line;
                }
            }
            let more = self.read().await.expect("the monitor ended");
            self.kept += &more;
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_restart_on_the_same_ports() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let bob = world.activate(&running, "@bob").await;
        let mut line = alice.login(&world).await;
        assert_eq!(line.ask("update:x.ns@alice kept").await, "data:3\n@alice@");
        assert_eq!(line.ask("delete:x.ns@alice").await, "data:4\n@alice@");
        assert_eq!(line.ask("update:y.ns@alice kept").await, "data:5\n@alice@");
        let mut other = bob.login(&world).await;
        other.ask("config:block:add:@alice").await;
        assert_eq!(
            line.ask("notify:id:later:@bob:z.ns@alice:v").await,
            "data:later\n@alice@"
        );
        running.stop().await;
        assert_eq!(line.read().await, None);

        let running = world.start().await;
        let all = running.list().await.unwrap();
        let want = |member: &Member| Hosted {
            atsign: member.who.to_string(),
            host: "localhost".into(),
            port: member.port,
            activated: true,
        };
        assert_eq!(all, [want(&alice), want(&bob)]);
        let mut line = alice.login(&world).await;
        assert_eq!(line.ask("llookup:y.ns@alice").await, "data:kept\n@alice@");
        assert_eq!(line.ask("update:w.ns@alice v").await, "data:6\n@alice@");
        // What waited goes on waiting, and arrives once it may.
        let mut monitor = bob.monitor(&world, "monitor z.ns").await;
        let mut other = bob.login(&world).await;
        other.ask("config:block:remove:@alice").await;
        monitor.hear("later").await;
        running.stop().await;
    });
}

#[test]
fn notifications_go_from_one_to_the_other_while_requests_keep_working() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let bob = world.activate(&running, "@bob").await;
        let mut early = alice.login(&world).await;
        early.ask("notify:id:n0:@bob:a.ns@alice:v").await;
        let mut plain = bob.monitor(&world, "monitor ns").await;
        let mut replayed = bob.login(&world).await;
        replayed.send("monitor:0 a.ns").await;
        for n in 1..=20 {
            let reply = early
                .ask(&format!("notify:id:n{n}:@bob:a.ns@alice:{n}"))
                .await;
            assert_eq!(reply, format!("data:n{n}\n@alice@"));
        }
        for n in 1..=20 {
            let line = plain.hear("a.ns").await;
            assert!(
                line.contains(&format!("\"id\":\"n{n}\"")) || line.contains("n0"),
                "{line}"
            );
            if line.contains("n0") {
                plain.hear("n1\"").await;
            }
        }
        for n in 0..=20 {
            let line = replayed.hear("a.ns").await;
            assert!(line.contains(&format!("\"id\":\"n{n}\"")), "{n}: {line}");
        }
        running.stop().await;
    });
}

#[test]
fn a_record_of_many_kilobytes_comes_whole() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let mut line = alice.login(&world).await;
        let value = "v".repeat(300_000);
        assert_eq!(
            line.ask(&format!("update:big.ns@alice {value}")).await,
            "data:3\n@alice@"
        );
        line.send("llookup:big.ns@alice").await;
        let mut got = String::new();
        while !got.ends_with("\n@alice@") {
            got += &line.read().await.unwrap();
        }
        assert_eq!(got, format!("data:{value}\n@alice@"));
        running.stop().await;
    });
}

#[test]
fn strangers_are_answered_and_limited() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let who = "@alice".parse().unwrap();
        running.add(&who).await.unwrap();
        assert!(matches!(
            running.add(&who).await,
            Err(ServerError::Exists(_))
        ));
        assert!(!running.list().await.unwrap()[0].activated);
        let port = running.port(&who).await;
        let mut line = world.wire(port).await;
        let nothing = "error:AT0003-Exception: invalid command\n@";
        assert_eq!(line.ask("\r").await, nothing);
        assert_eq!(line.ask("").await, nothing);
        // Several commands in one piece, one command in several.
        line.stream.write_all(b"noop:0\r\nno").await.unwrap();
        assert_eq!(line.read().await.unwrap(), "data:ok\n@");
        line.stream.write_all(b"op:0\n").await.unwrap();
        assert_eq!(line.read().await.unwrap(), "data:ok\n@");
        line.send(&"x".repeat(40_000)).await;
        let refused = line.read().await.unwrap();
        assert!(refused.starts_with("error:AT0005-"), "{refused}");
        assert_eq!(line.read().await, None);
        let mut line = world.wire(port).await;
        line.send("@exit").await;
        assert_eq!(line.read().await, None);
        running.stop().await;
    });
}

#[test]
fn the_directory_knows_who_lives_here() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let who = "@alice".parse().unwrap();
        running.add(&who).await.unwrap();
        let mut line = world.wire(running.directory().port()).await;
        let port = running.port(&who).await;
        assert_eq!(line.ask("alice\r").await, format!("localhost:{port}\r\n@"));
        assert_eq!(line.ask("nobody").await, "null\r\n@");
        running.remove(&who).await.unwrap();
        assert!(matches!(
            running.remove(&who).await,
            Err(ServerError::Unknown(_))
        ));
        let mut line = world.wire(running.directory().port()).await;
        assert_eq!(line.ask("alice").await, "null\r\n@");
        running.stop().await;
    });
}

#[test]
fn with_a_domain_all_share_one_port() {
    block_on(async {
        let mut world = World::new();
        world.options.domain = Some("np.test".into());
        let running = world.start().await;
        for who in ["@alice", "@bob"] {
            running.add(&who.parse().unwrap()).await.unwrap();
        }
        let odd = running.add(&"@al_ice".parse().unwrap()).await;
        assert!(matches!(odd, Err(ServerError::NotAHostName(_))));
        let all = running.list().await.unwrap();
        assert_eq!(
            (all[1].host.as_str(), all[0].port),
            ("bob.np.test", all[1].port)
        );
        let tls = world.connector();
        for name in ["alice", "bob"] {
            let mut line = Wire::open(&tls, &format!("{name}.np.test"), all[0].port).await;
            let reply = line.ask(&format!("from:{name}")).await;
            assert!(reply.starts_with("data:_"), "{name}: {reply}");
        }
        let port = all[0].port;
        running.stop().await;
        let running = world.start().await;
        assert_eq!(running.list().await.unwrap()[0].port, port, "remembered");
        running.stop().await;
    });
}

#[test]
fn what_cannot_be_opened_is_named() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        running.add(&"@alice".parse().unwrap()).await.unwrap();
        let port = running.port(&"@alice".parse().unwrap()).await;
        let Err(second) = world.start_among(None).await else {
            panic!("two servers on one folder");
        };
        assert!(
            second.to_string().contains("in use by another process"),
            "{second}"
        );
        assert!(second.hint().is_some());
        running.stop().await;
        let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let Err(taken) = world.start_among(None).await else {
            panic!("the port is taken");
        };
        assert!(taken.to_string().contains("@alice"), "{taken}");
        assert!(taken.hint().unwrap().contains(&port.to_string()));
    });
}

#[test]
fn a_client_that_never_logs_in_is_let_go() {
    block_on(async {
        let mut world = World::new();
        world.options.timings.login = Duration::from_millis(100);
        world.options.timings.handshake = Duration::from_millis(100);
        let running = world.start().await;
        let who = "@alice".parse().unwrap();
        running.add(&who).await.unwrap();
        let port = running.port(&who).await;
        let mut line = world.wire(port).await;
        assert_eq!(line.read().await, None);
        // Not even a handshake.
        let at = Endpoint {
            host: "127.0.0.1".into(),
            port,
        };
        let mut tcp = dial(&at, SOON).await.unwrap();
        assert_eq!(
            timeout(SOON, tcp.read(&mut [0; 9]))
                .await
                .unwrap()
                .unwrap_or(0),
            0
        );
        running.stop().await;
    });
}

/// From one address behind which many are: 512 connections that had said a byte locked all of them out, for ever.
#[test]
fn the_directory_answers_whoever_comes_though_its_places_are_held() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        running.add(&"@alice".parse().unwrap()).await.unwrap();
        let port = running.directory().port();
        let places = gate::Shares::of_connections(gate::ENQUIRIES.total).network;
        let mut held = Vec::new();
        for _ in 0..places {
            let mut line = world.wire(port).await;
            line.stream.write_all(b"a").await.unwrap();
            line.stream.flush().await.unwrap();
            held.push(line);
        }
        let mut asker = world.wire(port).await;
        let answer = asker.ask("alice").await;
        assert!(answer.starts_with("localhost:"), "{answer}");
        assert_eq!(held[0].read().await, None, "the oldest made room");
        assert!(
            running
                .metrics()
                .contains("\nnoports_atserver_connections 0\n")
        );
        running.stop().await;
    });
}

#[test]
fn a_line_to_the_directory_that_never_ends_is_no_sign_of_life() {
    block_on(async {
        let mut world = World::new();
        world.options.timings.directory_idle = Duration::from_millis(300);
        let running = world.start().await;
        let mut line = world.wire(running.directory().port()).await;
        let ended = timeout(SOON, async {
            while line.stream.write_all(b"a").await.is_ok()
                && line.stream.flush().await.is_ok()
                && futures_lite::future::poll_once(line.stream.read(&mut [0; 1]))
                    .await
                    .is_none()
            {
                task::sleep(Duration::from_millis(20)).await;
            }
        });
        ended.await.expect("it goes on for ever");
        running.stop().await;
    });
}

#[test]
fn only_who_has_asked_for_an_enrolment_may_take_longer_to_log_in() {
    block_on(async {
        let mut world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        running.stop().await;
        world.options.timings.login = Duration::from_millis(500);
        let running = world.start().await;
        let mut owner = alice.login(&world).await;
        let code = owner.ask("otp:get").await;
        let code = challenge_of(&code).to_owned();
        let request = |code: &str| {
            format!(
                "enroll:request:{{\"appName\":\"app\",\"deviceName\":\"dev\",\"namespaces\":{{\"ns\":\"rw\"}},\
                 \"otp\":\"{code}\",\"apkamPublicKey\":\"K\",\"encryptedAPKAMSymmetricKey\":\"S\"}}"
            )
        };
        let (mut right, mut wrong) = (world.wire(alice.port).await, world.wire(alice.port).await);
        let pending = right.ask(&request(&code)).await;
        assert!(pending.contains("pending"), "{pending}");
        let refused = wrong.ask(&request("AAAAAA")).await;
        assert!(refused.starts_with("error:"), "{refused}");
        assert_eq!(wrong.read().await, None);
        assert_eq!(right.ask("noop:0").await, "data:ok\n@");
        running.stop().await;
    });
}

/// Each lived for five seconds, without a limit, until there was no descriptor left for anybody.
#[test]
fn askers_of_the_health_port_that_ask_nothing_give_way() {
    use crate::server::health;
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let port = health::open("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = port.local_addr().unwrap();
        let served = running.clone();
        let serving = task::spawn(async move { health::serve(&port, &served).await });
        let mut silent = Vec::new();
        for _ in 0..=health::ASKERS.total {
            silent.push(async_std::net::TcpStream::connect(at).await.unwrap());
        }
        assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap(), 0);
        let mut asker = async_std::net::TcpStream::connect(at).await.unwrap();
        asker
            .write_all(b"GET /health HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        asker.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        serving.cancel().await;
        running.stop().await;
    });
}

/// A line of the log each, and a place in the table of failures.
#[test]
fn wrong_logins_under_names_of_others_are_not_remembered() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let mut wire = world.wire(alice.port).await;
        for n in 0..20 {
            wire.ask(&format!("from:@a{n}")).await;
            let refused = wire.ask("pkam:AAAA").await;
            assert!(refused.starts_with("error:AT0401"), "{refused}");
        }
        assert_eq!(running.hub.failures.remembered(), 0);
        assert!(running.metrics().contains("_logins_failed_total 20\n"));
        running.stop().await;
    });
}

/// Ten megabytes each, for as long as it liked.
#[test]
fn who_reads_a_long_reply_slowly_or_not_at_all_gives_way_and_the_owner_does_not() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let mut owner = alice.login(&world).await;
        let value = "v".repeat(9 << 20);
        owner
            .ask(&format!("update:public:big.ns@alice {value}"))
            .await;
        owner.send("llookup:public:big.ns@alice").await;
        let mut readers = Vec::new();
        for _ in 0..4 {
            let mut reader = world.wire(alice.port).await;
            reader.send("lookup:big.ns@alice").await;
            readers.push(reader);
        }
        // Of one network there is room for one; the owner's waits all the same.
        while running.hub.bytes.usage().evicted < 3 {
            task::sleep(Duration::from_millis(5)).await;
        }
        assert!(running.hub.bytes.usage().used < 24 << 20);
        let mut got = String::new();
        while !got.ends_with("\n@alice@") {
            got += &owner.read().await.unwrap();
        }
        assert_eq!(got, format!("data:{value}\n@alice@"));
        drop((readers, owner));
        running.stop().await;
    });
}

#[test]
fn an_unfinished_line_of_a_stranger_ends_though_a_byte_comes_now_and_then() {
    block_on(async {
        let mut world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        running.stop().await;
        world.options.timings.write = Duration::from_millis(300);
        let running = world.start().await;
        let mut line = world.wire(alice.port).await;
        let mut owner = alice.login(&world).await;
        owner.stream.write_all(b"noop").await.unwrap();
        owner.stream.flush().await.unwrap();
        let ended = timeout(SOON, async {
            while line.stream.write_all(b"a").await.is_ok()
                && line.stream.flush().await.is_ok()
                && futures_lite::future::poll_once(line.stream.read(&mut [0; 1]))
                    .await
                    .is_none()
            {
                task::sleep(Duration::from_millis(20)).await;
            }
        });
        ended.await.expect("it goes on for ever");
        assert_eq!(owner.ask(":0").await, "data:ok\n@alice@");
        running.stop().await;
    });
}

/// One tenant filled the disk of all.
#[test]
fn a_quota_that_is_used_up_is_told_and_other_tenants_write_on() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let bob = world.activate(&running, "@bob").await;
        running.set_quota(&alice.who, 1 << 20).await.unwrap();
        let mut line = alice.login(&world).await;
        let value = "v".repeat(400 << 10);
        let update = |n: u32| format!("update:big{n}.ns@alice {value}");
        for n in 0..3 {
            let reply = line.ask(&update(n)).await;
            assert!(reply.starts_with("data:"), "{n}: {reply}");
        }
        for command in [update(3), "notify:update:@bob:x.ns@alice:v".to_owned()] {
            let refused = line.ask(&command).await;
            assert!(refused.starts_with("error:AT0022"), "{refused}");
            assert!(
                refused.contains("the quota of 1M for @alice is used up"),
                "{refused}"
            );
        }
        let mut other = bob.login(&world).await;
        assert!(other.ask("update:x.ns@bob v").await.starts_with("data:"));
        // What others send is theirs to be counted.
        assert!(
            other
                .ask("notify:id:n1:@alice:x.ns@bob:v")
                .await
                .starts_with("data:n1")
        );
        let home = running.hub.board.house(&alice.who).unwrap().home.clone();
        let counted = running.hub.store.read(move |tx| {
            Ok::<_, StoreError>((home.counter(tx, "disk bytes")?, home.weight(tx)?))
        });
        let (counted, weighed) = counted.await.unwrap();
        assert!(weighed.abs_diff(counted) < 256, "{counted} of {weighed}");
        for n in 0..3 {
            let reply = line.ask(&format!("delete:big{n}.ns@alice")).await;
            assert!(reply.starts_with("data:"), "{reply}");
        }
        assert!(line.ask(&update(3)).await.starts_with("data:"));
        running.stop().await;
    });
}

/// One task each, all of them in step, every ten seconds: 4,000 writes a second, and everybody's answers behind them.
#[test]
fn thousands_of_made_up_recipients_are_carried_a_few_at_a_time() {
    block_on(async {
        let mut world = World::new();
        world.options.timings.retry = Duration::from_secs(2);
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let bob = world.activate(&running, "@bob").await;
        let mut line = alice.login(&world).await;
        let names: Vec<_> = (0..2000).map(|n| format!("@x{n}")).collect();
        let reply = line
            .ask(&format!(
                "notify:all:update:{}:k.x@alice:v",
                names.join(",")
            ))
            .await;
        assert!(reply.starts_with("data: "), "{reply:.100}");
        let deliveries = &running.hub.deliveries;
        while deliveries.usage().used < courier::DELIVERIES_OF_ONE {
            task::yield_now().await;
        }
        // Another's reach their goal all the same.
        let mut monitor = alice.monitor(&world, "monitor y.ns").await;
        let mut other = bob.login(&world).await;
        let before = running.hub.store.totals().transactions;
        other.ask("notify:id:n1:@alice:y.ns@bob:v").await;
        monitor.hear("n1").await;
        let writes = running.hub.store.totals().transactions - before;
        assert!(writes < 200, "{writes} while one was delivered");
        assert!(deliveries.used_by(&alice.who) <= courier::DELIVERIES_OF_ONE);
        assert!(
            running
                .metrics()
                .contains("noports_atserver_budget_used{budget=\"deliveries\"} ")
        );
        running.stop().await;
    });
}

#[test]
fn a_monitor_shows_signs_of_life() {
    block_on(async {
        let mut world = World::new();
        world.options.timings.stats = Duration::from_millis(50);
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let mut monitor = alice.login(&world).await;
        monitor.send("monitor nothing").await;
        for _ in 0..2 {
            let line = monitor.hear("statsNotification.@alice").await;
            assert!(
                line.contains(r#""id":"-1","from":"@alice","to":"@alice""#),
                "{line}"
            );
            assert!(
                line.contains(r#""value":"2","operation":"update""#),
                "{line}"
            );
        }
        let mut line = alice.login(&world).await;
        line.ask("update:x.ns@alice v").await;
        monitor.hear(r#""value":"3""#).await;
        running.stop().await;
    });
}

#[test]
fn a_revoked_enrolment_loses_its_connections() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let mut owner = alice.login(&world).await;
        let public = &alice.keys.public().text;
        let request = format!(
            r#"enroll:request:{{"appName":"a","deviceName":"d","namespaces":{{"ns":"rw"}},"apkamPublicKey":"{public}","encryptedAPKAMSymmetricKey":"S"}}"#
        );
        let reply = owner.ask(&request).await;
        let id = reply.split('"').nth(3).unwrap().to_owned();
        let approve = format!(
            r#"enroll:approve:{{"enrollmentId":"{id}","encryptedDefaultEncryptionPrivateKey":"P","encryptedDefaultSelfEncryptionKey":"S"}}"#
        );
        assert!(owner.ask(&approve).await.contains("approved"));
        let mut device = world.wire(alice.port).await;
        let challenge = device.ask("from:@alice").await;
        let signature = alice
            .keys
            .sign(challenge_of(&challenge).as_bytes())
            .unwrap();
        let reply = device
            .ask(&format!("pkam:enrollmentId:{id}:{signature}"))
            .await;
        assert_eq!(reply, "data:success\n@alice@");
        assert_eq!(device.ask("noop:0").await, "data:ok\n@alice@");
        let revoke = format!(r#"enroll:revoke:{{"enrollmentId":"{id}"}}"#);
        assert!(owner.ask(&revoke).await.contains("revoked"));
        assert_eq!(device.read().await, None);
        assert_eq!(owner.ask("noop:0").await, "data:ok\n@alice@");
        running.stop().await;
    });
}

/// Two servers that find each other, and who lives there: @alice and @bob.
async fn neighbours(
    here: &mut World,
    there: &World,
) -> ((RunningServer, Member), (RunningServer, Member)) {
    let network = |world: &World, directory: SocketAddr| {
        Some(Network {
            root: Root::Directory(Endpoint {
                host: "localhost".into(),
                port: directory.port(),
            }),
            tls: world.connector(),
        })
    };
    // Each asks the other's directory, so one has to be started twice: to learn its port, and to use it.
    let first = here.start().await;
    let alice = here.activate(&first, "@alice").await;
    let directory = first.directory();
    here.options.directory_port = directory.port();
    first.stop().await;
    let second = there.start_among(network(here, directory)).await.unwrap();
    let first = here.start_among(network(there, second.directory())).await;
    let bob = there.activate(&second, "@bob").await;
    ((first.unwrap(), alice), (second, bob))
}

/// Ten megabytes, kept for ever, for every name that another server makes up.
#[test]
fn a_public_key_of_another_server_that_is_none_is_not_read_or_kept() {
    block_on(async {
        let (mut here, there) = (World::new(), World::new());
        let ((first, alice), (second, bob)) = neighbours(&mut here, &there).await;
        let mut other = bob.login(&there).await;
        let mut line = alice.login(&here).await;
        for (size, start) in [(100_000, "error:AT0021"), (5000, "data:kkk")] {
            let long = "k".repeat(size);
            other
                .ask(&format!("update:ttr:-1:public:publickey@bob {long}"))
                .await;
            let reply = line.ask("plookup:publickey@bob").await;
            assert!(reply.starts_with(start), "{size}: {reply:.100}");
            let kept = line.ask("llookup:cached:public:publickey@bob").await;
            assert!(kept.starts_with("error:AT0015"), "{size}: {kept:.100}");
        }
        first.stop().await;
        second.stop().await;
    });
}

/// It kept its place for thirty days, and counted for nobody.
#[test]
fn another_atsign_that_has_proved_who_it_is_stays_a_stranger() {
    block_on(async {
        let (mut here, mut there) = (World::new(), World::new());
        there.options.timings.visitor_idle = Duration::from_millis(300);
        let ((first, alice), (second, bob)) = neighbours(&mut here, &there).await;
        let mut monitor = bob.monitor(&there, "monitor ns").await;
        let mut line = alice.login(&here).await;
        line.ask("notify:id:n1:@bob:x.ns@alice:v").await;
        monitor.hear("n1").await;
        // What came with it is kept for the next time, and counted: only the monitor is an owner's.
        while second.hub.gate.occupancy() != (1, 0) {
            assert!(second.hub.gate.occupancy().1 <= 2);
            task::sleep(Duration::from_millis(5)).await;
        }
        first.stop().await;
        second.stop().await;
    });
}

#[test]
fn two_servers_introduce_themselves_and_deliver() {
    block_on(async {
        let (mut here, there) = (World::new(), World::new());
        let ((first, alice), (second, bob)) = neighbours(&mut here, &there).await;

        let mut monitor = bob.monitor(&there, "monitor ns").await;
        let mut line = alice.login(&here).await;
        line.ask("notify:id:n1:ttln:60000:isEncrypted:true:ivNonce:IV==:@bob:Req.ns@alice:C:T")
            .await;
        line.ask("update:ttr:-1:@bob:x.ns@alice for bob").await;
        line.ask("update:public:p.ns@alice for all").await;
        let heard = monitor.hear("Req.ns").await;
        assert!(
            heard.contains(r#""key":"@bob:Req.ns@alice","value":"C:T""#),
            "{heard}"
        );
        assert!(heard.contains(r#""ivNonce":"IV==""#), "{heard}");
        monitor.hear("x.ns").await;

        let mut other = bob.login(&there).await;
        for (command, reply) in [
            ("lookup:bypassCache:true:x.ns@alice", "data:for bob\n@bob@"),
            ("llookup:cached:@bob:x.ns@alice", "data:for bob\n@bob@"),
            ("plookup:p.ns@alice", "data:for all\n@bob@"),
            ("scan:@alice", "data:[\"x.ns@alice\"]\n@bob@"),
        ] {
            assert_eq!(other.ask(command).await, reply, "{command}");
        }
        for (command, start) in [
            ("lookup:none.ns@alice", "error:AT0015-key not found : "),
            (
                "plookup:publickey@nobody",
                "error:AT0007-Secondary server not found : ",
            ),
        ] {
            let reply = other.ask(command).await;
            assert!(reply.starts_with(start), "{command} → {reply}");
        }
        // The servers have met: each remembers the other's public key.
        let key = &bob.keys.public().text;
        let reply = line.ask("llookup:cached:public:publickey@bob").await;
        assert_eq!(reply, format!("data:{key}\n@alice@"));
        while line.ask("notify:status:n1").await != "data:delivered\n@alice@" {
            task::yield_now().await;
        }
        first.stop().await;
        second.stop().await;
    });
}

#[test]
fn a_damaged_store_is_named_and_left_alone() {
    block_on(async {
        let world = World::new();
        let file = world.folder.path("atserver.redb");
        for (damage, bytes) in [("empty", &b""[..]), ("garbage", &[7; 8192][..])] {
            fs::write(&file, bytes).unwrap();
            let Err(why) = world.start_among(None).await else {
                panic!("{damage} was taken for a store");
            };
            assert!(why.to_string().contains("damaged"), "{damage}: {why}");
            assert_eq!(fs::read(&file).unwrap(), bytes, "{damage} is unchanged");
        }
    });
}

#[test]
fn the_files_are_their_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&world.folder.0), 0o700);
        assert_eq!(mode(&world.folder.path("atserver.redb")), 0o600);
        running.stop().await;
    });
}

#[test]
fn a_right_login_does_not_wait_for_the_wrong_ones_of_its_neighbour() {
    block_on(async {
        let world = World::new();
        let running = world.start().await;
        let alice = world.activate(&running, "@alice").await;
        let mut guesses = Vec::new();
        for n in 0..8 {
            let mut wire = world.wire(alice.port).await;
            let challenge = wire.ask("from:@alice").await;
            assert!(challenge.starts_with("data:_"), "{challenge}");
            wire.send("pkam:AAAA").await;
            if n < 5 {
                let refused = wire.read().await.unwrap();
                assert!(refused.starts_with("error:AT0401"), "{refused}");
            }
            guesses.push(wire);
        }
        let mut right = alice.login(&world).await;
        assert_eq!(right.ask("noop:0").await, "data:ok\n@alice@");
        // The last guess is kept waiting for eight seconds.
        let mut last = guesses.pop().unwrap();
        let early = futures_lite::future::poll_once(last.read()).await;
        assert_eq!(early, None, "the right one came first");
        let refused = last.read().await.unwrap();
        assert!(refused.starts_with("error:AT0401"), "{refused}");
        running.stop().await;
    });
}
