//! Every client with every daemon through every rendezvous, up to sshd's banner, and with a temporary key up to
//! another one inside an ssh connection that it opens.
//!
//! Daemons and rendezvous are the real programs, held to a generation. Clients are played by hand: what each asks for,
//! waits for, and insists on is a row of [`CLIENTS`].

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_std::{
    future::timeout,
    io::ReadExt,
    net::{TcpListener, TcpStream},
    task::{self, block_on},
};
use noports::{
    at::client::{Client, Event, Outgoing, Subscription},
    classic::generation::GENERATION,
    np::far_end::FarEnd,
    np::{
        Message,
        ids::{Nonce, SessionId},
        ports::Ports,
        request::{AnswerError, ClientKeys},
        session::{Awaited, Generation, Granted, Offer, Ready, SessionError, Terms},
    },
    pipe::cipher::Side,
    secret::Secret,
    session::bridge::{self, LocalEnd, Plan, Visitors},
    sys::sshd::{self, Sshd},
    text::endpoint::Endpoint,
};

use crate::world::{ALICE, DEVICE, Process, RENDEZVOUS, World, known_pair};

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// sshd's banner comes through it; where the client insists on a temporary key, through that, too.
    Works,
    /// The rendezvous does not answer.
    NoPorts,
    /// The daemon does not answer the ping.
    NoPing,
    /// The client finds out that the daemon cannot do this.
    Lacks(&'static str),
    /// The daemon does not answer the request.
    Ignored,
    /// It answers in words the client does not know.
    Unusable,
    /// It answers without the key that the client insists on.
    NoKey,
}

use Cell::{Ignored, Lacks, NoKey, NoPing, NoPorts, Unusable, Works};

/// How a client wants to reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The device logs in to it.
    Reverse,
    Ssh,
    /// The same, and a yes is the bare word.
    SshBare,
    /// The same, and a yes brings a temporary key.
    SshWithKey,
    Tunnel,
}

/// (name, what it asks for, how, whether it asks first what the daemon can; with each of [`DAEMONS`]; whether it
/// gets ports from a rendezvous of before 5.0)
type Row = (&'static str, Terms, Way, [Cell; 9], bool);

/// (generation, further words)
const DAEMONS: [(&str, &[&str]); 9] = [
    ("v3", &[]),
    ("v4.0-rc.2", &[]),
    ("v4.0", &[]),
    ("v5.0", &[]),
    ("v5.3", &[]),
    ("c", &[]),
    ("python", &[]),
    ("", &[]),
    ("", &["--temporary-keys", "always"]),
];

/// (atSign, generation)
const MEETING_POINTS: [(&str, &str); 3] = [("@rv4", "v4"), ("@rv5", "v5"), (RENDEZVOUS, "")];

const fn terms(generation: Generation, ac: bool, ad: bool, et: bool) -> Terms {
    Terms {
        admit_client: ac,
        admit_device: ad,
        encrypt: et,
        authenticate: false,
        generation,
    }
}

const V3: Terms = terms(Generation::V3, false, false, false);
const V4RC2: Terms = terms(Generation::V4Rc2, false, false, false);
const V4: Terms = terms(Generation::V4, false, false, false);
const V5: Terms = terms(Generation::V5, true, true, true);
const V5_NO_AD_NO_ET: Terms = terms(Generation::V5, true, false, false);
const V5_NONE: Terms = terms(Generation::V5, false, false, false);
const V5_NO_ET: Terms = terms(Generation::V5, true, true, false);

const LOGIN: Cell = Lacks("log in to a rendezvous");
const PORTS: Cell = Lacks("open other ports than ssh");

#[rustfmt::skip]
const CLIENTS: &[Row] = &[
    //                                                         v3       4.0-rc.2  4.0       5.0       5.3       C        Python    ours      ours, keys always
    ("sshnp 3.4", V3, Way::Reverse,                           [Works,   Works,    Works,    Works,    Works,    Ignored, Ignored,  Works,    Works], true),
    ("sshnp 4.0-rc.2", V4RC2, Way::SshBare,                   [Ignored, Works,    Unusable, Unusable, Unusable, Ignored, Unusable, Unusable, Unusable], true),
    ("sshnp 4.0", V4, Way::SshWithKey,                        [Ignored, Unusable, Works,    Works,    Works,    Ignored, Works,    Works,    Works], true),
    ("sshnp 5.0", V5, Way::SshWithKey,                        [LOGIN,   LOGIN,    LOGIN,    Works,    Works,    NoKey,   NoPing,   NoKey,    Works], false),
    ("sshnp 5.0 --no-ad --no-et", V5_NO_AD_NO_ET, Way::SshWithKey,
                                                              [Ignored, Unusable, Works,    Works,    Works,    Ignored, Works,    Works,    Works], false),
    ("sshnp 5.3", V5, Way::Ssh,                               [LOGIN,   LOGIN,    LOGIN,    Works,    Works,    Works,   NoPing,   Works,    Works], false),
    ("sshnp 5.3 --no-ac --no-ad --no-et", V5_NONE, Way::SshWithKey,
                                                              [Ignored, Unusable, Works,    Works,    Works,    Ignored, Works,    Works,    Works], true),
    ("npt 5.6", V5, Way::Tunnel,                              [LOGIN,   LOGIN,    LOGIN,    PORTS,    Works,    Works,   NoPing,   Works,    Works], false),
    ("npt 5.6 --no-et", V5_NO_ET, Way::Tunnel,                [LOGIN,   LOGIN,    LOGIN,    PORTS,    Ignored,  Ignored, NoPing,   Works,    Works], false),
];

/// Silence is believed after this long; whatever is to come gets [`LONG`].
const SHORT: Duration = Duration::from_millis(2500);
const LONG: Duration = Duration::from_secs(60);
/// Sessions at a time.
const AT_ONCE: usize = 8;

#[test]
fn every_client_with_every_daemon_through_every_rendezvous() {
    block_on(async {
        let world = World::start().await;
        for (who, _) in &MEETING_POINTS[..2] {
            world.activate(who, "session", "@client_example").await;
        }
        let stage = Arc::new(Stage::set(&world).await);
        let _programs = programs(&world, &stage);
        let mut cells = VecDeque::new();
        for row in CLIENTS {
            for device in 0..DAEMONS.len() {
                for (via, generation) in MEETING_POINTS {
                    let want = match row.4 || generation != "v4" {
                        true => row.3[device],
                        false => NoPorts,
                    };
                    cells.push_back((row, device, via, want));
                }
            }
        }
        let count = cells.len();
        let (cells, wrong) = (
            Arc::new(Mutex::new(cells)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let players: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (stage, cells, wrong) = (stage.clone(), cells.clone(), wrong.clone());
                task::spawn(async move {
                    loop {
                        let next = cells.lock().unwrap().pop_front();
                        let Some((row, device, via, want)) = next else {
                            return;
                        };
                        let got = stage.play(row, device, via, want).await;
                        if got != Ok(want) {
                            let (daemon, words) = DAEMONS[device];
                            let what = format!("{} × {daemon:?} {words:?} × {via}", row.0);
                            let text = format!("{what}: {got:?} instead of {want:?}");
                            wrong.lock().unwrap().push(text);
                        }
                    }
                })
            })
            .collect();
        for player in players {
            player.await;
        }
        let wrong = wrong.lock().unwrap();
        assert!(
            wrong.is_empty(),
            "{} of {count}:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    });
}

fn programs(world: &World, stage: &Stage) -> Vec<Process> {
    let mut all = Vec::new();
    for (who, generation) in MEETING_POINTS {
        let words = ["rendezvous", "--as", who, "--host", "127.0.0.1"];
        all.push(world.process_with(&words, &[(GENERATION, generation)]));
    }
    let (home, path) = (world.dir.text("home"), stage.path.clone());
    let port = stage.sshd.port.to_string();
    for (index, (generation, more)) in DAEMONS.iter().enumerate() {
        let (device, sshd) = (device(index), format!("localhost:{port}"));
        let who = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            &device,
        ];
        let what = [
            "--sshd-port",
            &port,
            "--permit-open",
            &sshd,
            "--reverse-ssh",
        ];
        let variables = [(GENERATION, *generation), ("HOME", &home), ("PATH", &path)];
        all.push(world.process_with(&[&who[..], &what, more].concat(), &variables));
    }
    all
}

fn device(index: usize) -> String {
    format!("dev{index}")
}

/// alice, and the machine that is both ends of everything.
struct Stage {
    at: Client,
    sshd: Sshd,
    /// Where an ssh is found that leaves the user's own files alone.
    path: String,
    dir: std::path::PathBuf,
    /// One for each daemon.
    turns: [async_std::sync::Mutex<()>; DAEMONS.len()],
}

impl Stage {
    async fn set(world: &World) -> Self {
        let folder = world.dir.path("home/.ssh");
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&folder).unwrap();
        let bin = world.dir.path("bin");
        fs::create_dir(&bin).unwrap();
        let quiet = "-F none -o UserKnownHostsFile=/dev/null";
        let script = format!("#!/bin/sh\nexec /usr/bin/ssh {quiet} \"$@\"\n");
        fs::write(bin.join("ssh"), script).unwrap();
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        let usual = std::env::var("PATH").unwrap();
        Self {
            at: Client::login(&world.network, world.keys(ALICE))
                .await
                .unwrap(),
            sshd: sshd::start(&folder).await.unwrap(),
            path: format!("{}:{usual}", bin.display()),
            dir: world.dir.0.clone(),
            turns: Default::default(),
        }
    }

    /// One session.
    async fn play(&self, row: &Row, index: usize, via: &str, want: Cell) -> Result<Cell, String> {
        let (_, terms, way, _, _) = *row;
        let (me, to, via) = (ALICE.parse(), DEVICE.parse(), via.parse());
        let name = device(index).parse().unwrap();
        let (session, nonce) = (SessionId::random(), Nonce::random());
        let (me, to, via) = (me.unwrap(), to.unwrap(), via.unwrap());
        let offer = Offer::new(&me, &to, &name, &via, session, nonce, terms);
        let inbox = self.at.subscribe(&offer.watch(), false).await;
        let inbox = inbox.map_err(|why| why.to_string())?;
        let mut ear = Ear {
            offer: offer.clone(),
            inbox,
            heard: HashMap::new(),
        };
        self.send(offer.ask_ports()).await;
        if terms.need_heartbeat() {
            self.send(offer.ping()).await;
        }
        let patience = |silence| if want == silence { SHORT } else { LONG };
        let ports = ear.wait(&self.at, Awaited::Ports, patience(NoPorts));
        let Some(ports) = ports.await else {
            return Ok(NoPorts);
        };
        let ports = read_ports(terms.generation, &ports);
        let heartbeat = match terms.need_heartbeat() {
            false => None,
            true => {
                let text = ear.wait(&self.at, Awaited::Heartbeat, patience(NoPing));
                let Some(text) = text.await else {
                    return Ok(NoPing);
                };
                Some(noports::np::ping::Heartbeat::parse(&text).unwrap())
            }
        };
        let granted = match offer.granted(ports, heartbeat.as_ref()) {
            Err(SessionError::Lacks { what, .. }) => return Ok(Lacks(what)),
            other => other.map_err(|why| why.to_string())?,
        };
        if way == Way::Reverse {
            // The device keeps one key per sender: two sessions at a time would take each other's.
            let _turn = self.turns[index].lock().await;
            return self.reverse(granted, ear, patience(Ignored)).await;
        }
        let (keys, ephemeral) = (self.at.keys().clone(), known_pair("session"));
        let mut fresh = terms
            .encrypt
            .then(|| ClientKeys::Rsa(Box::new(ephemeral.clone())));
        let request = match way {
            Way::Tunnel => granted.tunnel_request(
                ("localhost", self.sshd.port),
                Duration::from_secs(1),
                fresh.as_ref(),
                &keys.encryption,
            ),
            _ => granted.request(fresh.as_ref(), &keys.encryption),
        };
        let request = match request {
            Err(SessionError::Lacks { what, .. }) => return Ok(Lacks(what)),
            other => other.map_err(|why| why.to_string())?,
        };
        let asked = request.text.clone();
        self.send(request).await;
        let answer = ear.wait(&self.at, Awaited::Answer, patience(Ignored));
        let Some(answer) = answer.await else {
            return Ok(Ignored);
        };
        if way == Way::SshBare && answer != "connected" {
            return Ok(Unusable);
        }
        let device_key = self.at.public_key(&to).await.unwrap().unwrap();
        let ready = granted.accepted((&asked, &answer), &device_key, &mut fresh, &keys.encryption);
        let mut ready = match ready {
            Err(AnswerError::Unsigned) => return Ok(Unusable),
            other => other.map_err(|why| why.to_string())?,
        };
        let key = ready.ephemeral_key.take();
        match (way, key) {
            (Way::SshWithKey, None) => Ok(NoKey),
            (Way::SshWithKey, Some(key)) => {
                let door = bridge_for(ready).await;
                self.log_in(door, session, &key).await.map(|()| Works)
            }
            (Way::Tunnel, _) => banner(tunnel_for(ready).await).await,
            _ => banner(bridge_for(ready).await).await,
        }
    }

    async fn send(&self, message: Message) {
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

    /// Our sshd is brought to the rendezvous, and the device logs in to it.
    async fn reverse(
        &self,
        granted: Granted,
        mut ear: Ear,
        patience: Duration,
    ) -> Result<Cell, String> {
        let plan = Plan {
            local: LocalEnd::Dial(here(self.sshd.port)),
            far: FarEnd {
                rendezvous: granted.ports().at_client(),
                admission: None,
                socket_key: None,
                keys: None,
                side: Side::Device,
            },
            timeout: LONG,
            many: None,
            greeting: noports::session::bridge::Greeting::Any,
            nearness: None,
            source: None,
        };
        task::spawn(bridge::run(plan, || ()));
        let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let forward = free.local_addr().unwrap().port();
        drop(free);
        let user = noports::sys::user::name().unwrap();
        let key = Secret::new(fs::read_to_string(&self.sshd.identity).unwrap());
        for message in granted.reverse_requests(forward, &user, &key) {
            self.send(message).await;
        }
        match ear.wait(&self.at, Awaited::Answer, patience).await {
            None => Ok(Ignored),
            Some(word) if word == "connected" => banner(here(forward)).await,
            Some(other) => Err(other),
        }
    }

    /// The temporary key lets us in, as far as another sshd's banner: it may open nothing else.
    async fn log_in(
        &self,
        door: Endpoint,
        session: SessionId,
        key: &Secret<String>,
    ) -> Result<(), String> {
        use std::io::{Read, Write};
        let file = self.dir.join(session.to_string());
        let mut options = fs::File::options();
        let mut draft = options.write(true).create_new(true).mode(0o600).open(&file);
        write!(draft.as_mut().unwrap(), "{}", key.reveal()).unwrap();
        let user = noports::sys::user::name().unwrap();
        let mut ssh = std::process::Command::new(self.dir.join("bin/ssh"));
        ssh.args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(&file);
        ssh.arg("-p").arg(door.port.to_string());
        ssh.arg("-W").arg(format!("localhost:{}", self.sshd.port));
        ssh.arg(format!("{user}@127.0.0.1"));
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
        ssh.stderr(Stdio::piped());
        let heard = task::spawn_blocking(move || {
            let mut ssh = Process(ssh.spawn().unwrap());
            let mut banner = [0; 8];
            let outcome = ssh.0.stdout.take().unwrap().read_exact(&mut banner);
            if let Err(error) = outcome {
                let mut why = String::new();
                let _ = ssh.0.stderr.take().unwrap().read_to_string(&mut why);
                return Err(format!("{error}: {why}"));
            }
            Ok(banner)
        });
        let heard = timeout(LONG, heard).await.map_err(|why| why.to_string())?;
        match &heard? {
            b"SSH-2.0-" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

/// Before 5.0 the client has the second port, whatever stands behind it.
fn read_ports(generation: Generation, answer: &str) -> Ports {
    let fields: Vec<&str> = answer.split(',').collect();
    match generation {
        Generation::V5 => Ports::parse(answer).unwrap(),
        _ => Ports {
            host: fields[0].to_owned(),
            client: fields[2].parse().unwrap(),
            daemon: fields[1].parse().unwrap(),
            nonce: None,
        },
    }
}

/// What one session's peers say, in whatever order.
struct Ear {
    offer: Offer,
    inbox: Subscription,
    heard: HashMap<&'static str, String>,
}

fn name(awaited: Awaited) -> &'static str {
    match awaited {
        Awaited::Heartbeat => "heartbeat",
        Awaited::Ports => "ports",
        Awaited::NoPorts => "no ports",
        Awaited::Answer => "answer",
        Awaited::KeyFate => "key fate",
    }
}

impl Ear {
    async fn wait(&mut self, at: &Client, what: Awaited, within: Duration) -> Option<String> {
        let listen = async {
            loop {
                if let Some(text) = self.heard.remove(name(what)) {
                    return text;
                }
                if let Some(Event::Note(note)) = self.inbox.next().await
                    && let Some(found) = self.offer.recognise(&note.from, note.entity())
                {
                    let text = at.decrypt(&note).await.unwrap().unwrap();
                    self.heard.insert(name(found), text);
                }
            }
        };
        timeout(within, listen).await.ok()
    }
}

fn here(port: u16) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".into(),
        port,
    }
}

/// A port of ours that leads to the other end, once.
async fn bridge_for(ready: Ready) -> Endpoint {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let plan = Plan {
        local: LocalEnd::Listen(Visitors::of(listener).unwrap()),
        far: ready.far,
        timeout: LONG,
        many: None,
        greeting: noports::session::bridge::Greeting::Any,
        nearness: None,
        source: None,
    };
    task::spawn(bridge::run(plan, || ()));
    here(port)
}

/// A port of ours that leads to the other end as often as one likes.
async fn tunnel_for(ready: Ready) -> Endpoint {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    task::spawn(async move {
        let mut visitors = Visitors::of(listener).unwrap();
        let idle = Duration::from_secs(10);
        bridge::run_for(
            &mut visitors,
            ready.far,
            Default::default(),
            idle,
            Default::default(),
            || (),
        )
        .await
    });
    here(port)
}

/// Reads a server's first bytes.
async fn banner(door: Endpoint) -> Result<Cell, String> {
    let read = async {
        let mut tcp = TcpStream::connect((door.host.as_str(), door.port)).await?;
        let mut banner = [0; 8];
        tcp.read_exact(&mut banner).await?;
        Ok::<_, std::io::Error>(banner)
    };
    let heard = timeout(LONG, read).await.map_err(|why| why.to_string())?;
    match &heard.map_err(|why| why.to_string())? {
        b"SSH-2.0-" => Ok(Works),
        other => Err(format!("{other:?}")),
    }
}
