//! Our own paths: the rendezvous alone, and tunnels.

use std::{
    any::Any,
    env, fs,
    io::{BufRead, BufReader},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use noports::np::ports::Logins;

use crate::{
    load::{self, Service},
    path::{Path, to_port},
    process,
    world::{
        ALICE, DEVICE, NAME, NOPORTS, Process, RENDEZVOUS, World,
        ports::{Asker, said},
    },
};

/// The device whose daemon is an older program.
const OLDER: &str = "older";
/// Sessions that stand and are silent.
const IDLE_SESSIONS: usize = 8;

/// The services that all our paths share.
pub struct Ours {
    program: String,
    rendezvous: Process,
    /// With the device's name.
    daemons: Vec<(&'static str, Process)>,
}

impl Ours {
    pub fn start(world: &World, service: u16) -> Self {
        let program = env::var("BENCH_PROGRAM").unwrap_or_else(|_| NOPORTS.to_owned());
        println!("measured: {program}");
        let mut command = world.program(&program);
        command.args([
            "rendezvous",
            "--as",
            RENDEZVOUS,
            "--host",
            "127.0.0.1",
            "--json",
        ]);
        let rendezvous = world.ready("rendezvous", command);
        let mut daemons = vec![(NAME, daemon(world, &program, NAME, service))];
        if let Ok(older) = env::var("BENCH_OLDER") {
            println!("older: {older}");
            daemons.push((OLDER, daemon(world, &older, OLDER, service)));
        }
        Self {
            program,
            rendezvous,
            daemons,
        }
    }

    pub async fn paths(&self, world: &World, service: &Service) -> Vec<Path> {
        let mut asker = Asker::start(world).await;
        let mut all = vec![Path {
            name: "raw".to_owned(),
            connect: to_port(service.port),
            parts: Vec::new(),
            _held: Box::new(()),
        }];
        // Where neither end logs in, a session has one connection.
        let open = Logins {
            client: false,
            daemon: true,
        };
        for (name, logins) in [
            ("rendezvous, logins", Logins::BOTH),
            ("rendezvous, open", open),
        ] {
            all.push(self.alone(name, &mut asker, logins).await);
        }
        for (device, daemon) in &self.daemons {
            for more in [&[][..], &["--no-encrypt"]] {
                // Without encryption it does not matter who made the daemon.
                if more.is_empty() || *device == NAME {
                    all.push(self.tunnel(world, service.port, (device, daemon), more));
                }
            }
        }
        all
    }

    /// Both ends of the rendezvous are played here.
    async fn alone(&self, name: &str, asker: &mut Asker, logins: Logins) -> Path {
        let granted = asker.ask(logins).await;
        let next = AtomicU64::new(0);
        let pair = move || {
            if !logins.client {
                // By nobody's number: the oldest with the oldest.
                return (said(granted.ports.client, ""), granted.daemon(None));
            }
            let number = Some(next.fetch_add(1, Relaxed));
            (granted.client(number), granted.daemon(number))
        };
        let (near, far) = pair();
        Path {
            name: name.to_owned(),
            connect: Box::new(move || {
                let (near, far) = pair();
                thread::spawn(move || load::serve(far));
                Ok(near)
            }),
            parts: vec![("rendezvous", self.rendezvous.id())],
            // The session ends with its last pair.
            _held: Box::new((near, far)),
        }
    }

    fn tunnel(
        &self,
        world: &World,
        service: u16,
        (device, daemon): (&str, &Process),
        more: &[&str],
    ) -> Path {
        let tunnel = Tunnel::open(world, &self.program, device, service, more);
        Path {
            name: format!("tunnel, {}", tunnel.kind),
            connect: to_port(tunnel.port),
            parts: vec![
                ("client", tunnel.process.id()),
                ("rendezvous", self.rendezvous.id()),
                ("device", daemon.id()),
            ],
            _held: Box::new(tunnel) as Box<dyn Any>,
        }
    }

    /// What one session costs that nobody uses.
    pub fn idle_sessions(&self, world: &World, service: u16) {
        for (device, daemon) in &self.daemons {
            let before = [&self.rendezvous, daemon].map(|one| process::private(one.id()));
            let open = |_| Tunnel::open(world, &self.program, device, service, &[]);
            let held: Vec<Tunnel> = (0..IDLE_SESSIONS).map(open).collect();
            let each = |now: f64, before: f64| (now - before) / held.len() as f64;
            let clients: f64 = held
                .iter()
                .map(|one| process::private(one.process.id()))
                .sum();
            println!(
                "an idle session ({}): client {:.0} KiB, rendezvous {:.0} KiB, device {:.0} KiB",
                held[0].kind,
                each(clients, 0.0),
                each(process::private(self.rendezvous.id()), before[0]),
                each(process::private(daemon.id()), before[1]),
            );
        }
    }
}

fn daemon(world: &World, program: &str, device: &str, service: u16) -> Process {
    let permit = format!("localhost:{service}");
    let mut command = world.program(program);
    command.args(["daemon", "--as", DEVICE, "--manager", ALICE]);
    command.args(["--device", device, "--permit-open", &permit, "--json"]);
    world.ready("daemon", command)
}

/// A client's process, and where it listens.
struct Tunnel {
    process: Process,
    port: u16,
    kind: String,
}

impl Tunnel {
    fn open(world: &World, program: &str, device: &str, service: u16, more: &[&str]) -> Self {
        let (forward, log) = (
            format!("0:localhost:{service}"),
            world.dir.path("tunnel.log"),
        );
        let mut command = world.program(program);
        command.args(["tunnel", "--as", ALICE, "--to", DEVICE, "--device", device]);
        command.args(["--forward", &forward, "--idle-timeout", "0", "--json", "-v"]);
        command.args(more).stdout(Stdio::piped());
        command.stderr(fs::File::create(&log).unwrap());
        let mut process = Process(command.spawn().unwrap());
        let mut line = String::new();
        let said = process.0.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut line).unwrap();
        let log = fs::read_to_string(log).unwrap();
        let digits = behind(&line, r#""port":"#).unwrap_or_else(|| panic!("{line:?}\n{log}"));
        Self {
            process,
            port: digits.parse().unwrap(),
            kind: kind(behind(&log, "encryption=").unwrap_or("unknown")),
        }
    }
}

/// The word behind this text.
fn behind<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let rest = text.split(before).nth(1)?;
    rest.split(|c: char| !c.is_ascii_alphanumeric()).next()
}

/// What a client calls it, in the words of the table.
fn kind(encryption: &str) -> String {
    match encryption {
        "records" => "authenticated".to_owned(),
        "twin" => "classic".to_owned(),
        "none" => "plain".to_owned(),
        other => other.to_owned(),
    }
}
