//! A whole NoPorts world on loopback: atDirectory, atServers, rendezvous and daemon in this process, on free
//! ports, with keys from the known answers (minting takes long). Clients are the real executable; any part
//! can also be a process of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use async_std::{channel, task};
use miniserde::json;
use noports::{
    at::{
        AtSign,
        client::{Network, PROOF},
        crypto::{KeyPair, aes_key_from_base64},
        directory::Root,
        keyfile::AtKeys,
    },
    cli::{Phrases, Progress},
    net::tls::Connector,
    program::{activate::activate, daemon, rendezvous},
    secret::Secret,
    server::{
        authority,
        listen::{self, RunningServer, ServerOptions},
    },
    sys::sshd::{self, Sshd},
    text::endpoint::Endpoint,
};

pub mod ports;
pub mod sessions;
pub mod silent;
pub mod support;

#[allow(unused_imports)] // Benches need less.
pub use support::{Folder, signal, until};

/// The executable under test.
pub const NOPORTS: &str = env!("CARGO_BIN_EXE_noports");

pub const ALICE: &str = "@alice";
pub const DEVICE: &str = "@device";
pub const RENDEZVOUS: &str = "@rendezvous";
/// The device's name.
pub const NAME: &str = "dev1";

/// A process that ends with its owner.
pub struct Process(pub Child);

impl Process {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// `kill -9`, and wait for the end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The world. Everything in it ends when it is dropped.
pub struct World {
    pub dir: Folder,
    pub network: Network,
    port: u16,
    server: Option<RunningServer>,
    tasks: Vec<task::JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        task::block_on(self.end_services());
        if let Some(server) = self.server.take() {
            task::block_on(server.stop());
        }
    }
}

impl World {
    /// Directory and atServers, with `@alice`, `@device` and `@rendezvous` activated.
    pub async fn start() -> Self {
        Self::start_with("localhost", |_| {}).await
    }

    /// The same under this name, and with other options.
    pub async fn start_with(host: &str, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let world = Self::empty(host, change).await;
        for (who, pkam, encryption) in [
            (ALICE, "@client_example_pkam", "@client_example"),
            (DEVICE, "@device_example_pkam", "@device_example"),
            (RENDEZVOUS, "session", "@client_example"),
        ] {
            world.activate(who, pkam, encryption).await;
        }
        world
    }

    /// A directory that knows nobody yet.
    pub async fn empty(host: &str, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let dir = Folder::new();
        fs::create_dir(dir.path("keys")).unwrap();
        let authority = authority::open_or_make(&dir.path("at")).unwrap();
        let leaf = authority.leaf(&[host.to_owned()]).unwrap();
        let mut options = ServerOptions {
            data: dir.path("at"),
            listen: IpAddr::from(Ipv4Addr::LOCALHOST),
            host: host.to_owned(),
            directory_port: 0,
            first_port: 0,
            domain: None,
            timings: Default::default(),
        };
        change(&mut options);
        let server = listen::start(options, leaf.acceptor().unwrap(), None)
            .await
            .unwrap();
        let port = server.directory().port();
        let network = Network {
            root: Root::Directory(Endpoint {
                host: host.to_owned(),
                port,
            }),
            tls: Connector::new(&[authority.ca_file()]).unwrap(),
        };
        Self {
            dir,
            network,
            port,
            server: Some(server),
            tasks: Vec::new(),
        }
    }

    /// A new atSign and its one-time secret.
    pub async fn add(&self, who: &str) -> Secret<String> {
        let server = self.server.as_ref().unwrap();
        server.add(&who.parse().unwrap()).await.unwrap()
    }

    /// Activates with keys that are there: the same way as after a first attempt that was cut off.
    pub async fn activate(&self, who: &str, pkam: &str, encryption: &str) {
        let secret = self.add(who).await;
        let who: AtSign = who.parse().unwrap();
        let keys = AtKeys {
            atsign: who.clone(),
            pkam: known_pair(pkam),
            encryption: known_pair(encryption),
            self_key: aes_key_from_base64("/EN/srbfkXC7Auh3BhdCaLfsI74H/0q7aJHOH9OLUV8=").unwrap(),
            apkam_symmetric: Some(
                aes_key_from_base64("KoRqxJ19V22Knt10t5Z+hENam5l6dB/nQ2neLtXCxZo=").unwrap(),
            ),
            enrollment_id: None,
        };
        let file = self.key_file(&who);
        let mut draft = file.clone().into_os_string();
        draft.push(".new");
        fs::write(draft, keys.print().reveal()).unwrap();
        let quiet = &mut Progress::new(true);
        activate(
            &self.network,
            &who,
            &file,
            &Phrases::default(),
            || Ok(secret),
            quiet,
        )
        .await
        .unwrap();
    }

    /// From now on the same atServers are a process of their own, which looks for other atSigns in this directory.
    pub async fn serve_beside(&mut self, root: &str, ca: &str) -> Process {
        self.stop().await;
        let own = self.dir.text("at/ca.pem");
        self.serve_with(&["--root", root, "--ca", ca, "--ca", &own])
    }

    /// Connections of this process to somebody's atServer.
    pub async fn connections_to(&self, who: &str) -> usize {
        let hosted = self.server.as_ref().unwrap().list().await.unwrap();
        let port = hosted.iter().find(|at| at.atsign == who);
        let there = format!(":{:04X}", port.unwrap().port);
        let is_one = |line: &&str| {
            let fields: Vec<_> = line.split_whitespace().take(4).collect();
            // 01: established.
            fields.len() == 4 && fields[2].ends_with(&there) && fields[3] == "01"
        };
        let of = |file| fs::read_to_string(file).unwrap_or_default();
        let all = of("/proc/net/tcp") + &of("/proc/net/tcp6");
        all.lines().filter(is_one).count()
    }

    /// The services of this process end.
    pub async fn end_services(&mut self) {
        for task in self.tasks.drain(..) {
            task.cancel().await;
        }
    }

    /// From now on the same atServers are a process of their own, on the same ports.
    pub async fn serve_from_a_process(&mut self) -> Process {
        self.stop().await;
        self.serve()
    }

    /// The atServers of this process end; their ports are kept for those of another.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Starts the atServers' process (again).
    pub fn serve(&self) -> Process {
        self.serve_with(&[])
    }

    /// The same with more options.
    pub fn serve_with(&self, more: &[&str]) -> Process {
        self.serve_as(NOPORTS, more)
    }

    /// The same by another executable.
    pub fn serve_as(&self, program: &str, more: &[&str]) -> Process {
        let (port, data) = (self.port.to_string(), self.dir.text("at"));
        let words = [
            "atserver", "serve", "--data", &data, "--port", &port, "--json",
        ];
        let mut command = self.program(program);
        command.args(words).args(more);
        self.ready("atserver", command)
    }

    /// Starts a service and waits until it says on stdout that it is ready.
    pub fn process(&self, words: &[&str]) -> Process {
        self.process_with(words, &[])
    }

    /// The same with these variables in its environment.
    pub fn process_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Process {
        let mut command = self.noports(&[words, &["--json"]].concat());
        command.envs(variables.iter().copied());
        self.ready(words[0], command)
    }

    /// A process that is started with `--json`; returns when it says that it is ready. Its stderr is in `<name>.log`.
    pub fn ready(&self, name: &str, mut command: Command) -> Process {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path(&format!("{}.log", name)));
        command.stdout(Stdio::piped()).stderr(log.unwrap());
        let mut process = Process(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(
            line.contains(r#""event":"ready""#),
            "{name}: {line:?}\n{}",
            self.log(name)
        );
        process
    }

    /// What a process wrote to stderr.
    pub fn log(&self, program: &str) -> String {
        fs::read_to_string(self.dir.path(&format!("{program}.log"))).unwrap_or_default()
    }

    /// A rendezvous in a process of its own.
    pub fn rendezvous_process(&self) -> Process {
        self.process(&["rendezvous", "--as", RENDEZVOUS, "--host", "127.0.0.1"])
    }

    /// A daemon in a process of its own, for an sshd on this port.
    pub fn daemon_process(&self, port: u16) -> Process {
        let port = port.to_string();
        self.process(&[
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
            "--client-source",
            "off",
            "--sshd-port",
            &port,
        ])
    }

    pub fn key_file(&self, who: &AtSign) -> PathBuf {
        self.dir.path("keys").join(AtKeys::file_name(who))
    }

    pub fn keys(&self, who: &str) -> Arc<AtKeys> {
        let who: AtSign = who.parse().unwrap();
        let text = fs::read_to_string(self.key_file(&who)).unwrap();
        Arc::new(AtKeys::parse(&who, &text).unwrap())
    }

    /// A rendezvous in this process.
    pub async fn rendezvous(&mut self) {
        self.rendezvous_with(|_| {}).await;
    }

    /// The same with another policy.
    pub async fn rendezvous_with(
        &mut self,
        change: impl FnOnce(&mut rendezvous::RendezvousOptions),
    ) {
        let mut policy =
            rendezvous::RendezvousOptions::for_everybody("127.0.0.1", Ipv4Addr::LOCALHOST.into());
        policy.max_sessions = 100;
        change(&mut policy);
        let (network, keys) = (self.network.clone(), self.keys(RENDEZVOUS));
        let (send, ready) = channel::bounded(1);
        self.tasks.push(task::spawn(async move {
            let told = |_: &str| send.try_send(()).unwrap();
            rendezvous::serve(network, keys, policy, told)
                .await
                .unwrap();
        }));
        ready.recv().await.unwrap();
    }

    /// A daemon in this process, for a service on this port; alice may use it.
    pub async fn daemon(&mut self, port: u16) {
        self.daemon_with(port, |_| {}).await;
    }

    /// The same with another policy.
    pub async fn daemon_with(
        &mut self,
        port: u16,
        change: impl FnOnce(&mut daemon::DaemonOptions),
    ) {
        let mut policy = daemon::DaemonOptions {
            allow_inner: false,
            shared_name: false,
            sandbox: true,
            device: NAME.parse().unwrap(),
            managers: vec![ALICE.parse().unwrap()],
            consult: None,
            permit: format!("localhost:{port}").parse().unwrap(),
            sshd: Endpoint::parse("localhost", Some(port)).unwrap(),
            client_source: daemon::ClientSource::Off,
            hide: false,
            ssh: daemon::Ssh {
                file: Some(self.dir.path("authorized_keys")),
                ..daemon::Ssh::default()
            },
            require_protection: false,
            require: None,
            proof: PROOF,
            #[cfg(feature = "held")]
            habits: Default::default(),
            program: NOPORTS.into(),
            memory: None,
            bridges: Some(self.bridges()),
            pins: Vec::new(),
            recovery: Vec::new(),
            only_managers: None,
            max_sessions: 100,
        };
        change(&mut policy);
        let (network, keys) = (self.network.clone(), self.keys(DEVICE));
        let (send, ready) = channel::bounded(1);
        self.tasks.push(task::spawn(async move {
            let told = |_: &str| send.try_send(()).unwrap();
            daemon::serve(network, keys, policy, told).await.unwrap();
        }));
        ready.recv().await.unwrap();
    }

    /// A real sshd, and a `known_hosts` file that knows it under the device's stable name.
    pub async fn sshd(&self) -> Sshd {
        let dir = self.dir.path("sshd");
        fs::create_dir(&dir).unwrap();
        let sshd = sshd::start(&dir)
            .await
            .expect("an sshd; packaging/test.sh installs it");
        fs::write(
            self.dir.path("known_hosts"),
            format!("{} {}\n", self.alias(), sshd.host_key),
        )
        .unwrap();
        sshd
    }

    /// The name under which ssh knows the device's host key.
    pub fn alias(&self) -> String {
        noports::sys::ssh::HostKeyAlias::new(NAME, DEVICE).to_string()
    }

    /// `noports` in this world's environment.
    pub fn noports(&self, words: &[&str]) -> Command {
        let mut command = self.program(NOPORTS);
        command.args(words);
        command
    }

    /// `noports client` as alice, to the device.
    pub fn client(&self, words: &[&str]) -> Command {
        let base = ["client", "--as", ALICE, "--to", DEVICE, "--device", NAME];
        self.noports(&[&base[..], words].concat())
    }

    /// Where the control sockets of this world's bridges are.
    pub fn bridges(&self) -> PathBuf {
        self.dir.path("run/bridges")
    }

    /// Where its atDirectory is.
    pub fn root(&self) -> String {
        match &self.network.root {
            Root::Directory(at) if at.host.contains(':') => at.to_string(),
            _ => format!("localhost:{}", self.port),
        }
    }

    /// A program that runs in this world's environment, such as ssh.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .env("NOPORTS_ROOT", self.root())
            .env("NOPORTS_CA", self.dir.path("at/ca.pem"))
            .env("NOPORTS_KEYS", self.dir.path("keys"))
            .env("NOPORTS_VIA", RENDEZVOUS)
            .env("NOPORTS_CONFIG", "")
            .env("NOPORTS_MEMORY", self.dir.path("memory"))
            .env("NOPORTS_RUNTIME", self.dir.path("run"))
            // So that descriptors and listeners can be counted, whoever runs the tests.
            .env("NOPORTS_DEBUG", "1")
            .stdin(Stdio::null());
        command
    }

    /// Options for plain ssh, scp and sftp: our ProxyCommand, host key checks on.
    pub fn ssh_options(&self, sshd: &Sshd) -> Vec<String> {
        let proxy = format!(
            "ProxyCommand={NOPORTS} client --as {ALICE} --to {DEVICE} --device {NAME} --stdio"
        );
        let options = [
            proxy,
            format!("HostKeyAlias={}", self.alias()),
            format!("UserKnownHostsFile={}", self.dir.text("known_hosts")),
            format!("IdentityFile={}", sshd.identity.display()),
            "StrictHostKeyChecking=yes".into(),
            "BatchMode=yes".into(),
        ];
        let mut words = vec!["-F".to_owned(), "none".to_owned()];
        words.extend(
            options
                .into_iter()
                .flat_map(|option| ["-o".to_owned(), option]),
        );
        words
    }
}

/// A key pair of the known answers.
pub fn known_pair(name: &str) -> KeyPair {
    let all: json::Object = json::from_str(include_str!("../vectors/noports-2026.json")).unwrap();
    let member = |object: &json::Object, name: &str| match object.get(name) {
        Some(json::Value::Object(inner)) => inner.clone(),
        _ => panic!("no {name}"),
    };
    let pair = member(&member(&all, "keys"), name);
    let text = pair.iter().find_map(|(name, value)| match value {
        json::Value::String(text) if name.starts_with("privateKey") => Some(text),
        _ => None,
    });
    KeyPair::parse(text.unwrap()).unwrap()
}

/// Runs to the end, off the executor; a test that hangs here fails by the deadline.
pub async fn output(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let work = task::spawn_blocking(move || command.output().unwrap());
    async_std::future::timeout(Duration::from_secs(240), work)
        .await
        .expect("ends within 240 s")
}

/// stdout, after making sure that it went well.
pub async fn stdout(command: Command) -> String {
    let output = output(command).await;
    assert!(
        output.status.success(),
        "{:?}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// (exit code, stderr)
pub async fn failure(command: Command) -> (i32, String) {
    let output = output(command).await;
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A service on loopback that answers with everything it got, once the other side has stopped writing.
pub async fn answer_at_the_end() -> u16 {
    use async_std::io::{ReadExt, WriteExt};
    let listener = async_std::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    task::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            task::spawn(async move {
                let mut all = Vec::new();
                let _ = socket.read_to_end(&mut all).await;
                let _ = socket.write_all(&all).await;
            });
        }
    });
    port
}

/// Open descriptors of a process; none when it has ended.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Its sockets: what sessions are made of. Pipes that it keeps for the next session do not count.
pub fn sockets(pid: u32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let targets = all
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// Its children.
pub fn children_of(pid: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    };
    let names = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok());
    names
        .filter(|&child: &u32| parent(child) == Some(pid))
        .collect()
}
