//! A NoPorts world on a [network](super::net): each program is the real executable, at a host of its own.
//!
//! ```text
//!   atserver.test    directory and atServers of everybody, data on a small disk
//!   rendezvous.test  @rendezvous
//!   device0.test …   @device, device names dev0 …; an echo service on port 22
//!   client0.test …   @client0 …, who may use every device
//!   stranger.test    @stranger, who may use none
//! ```

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use async_std::task::block_on;

use super::{
    inside::INSIDE,
    memory::MemoryLimit,
    net::{Net, full_name, own_program, wait_for_ready},
    rows::{Measured, Miss},
    session::Session,
    setup::Setup,
};
use crate::world::{
    DEVICE, Process, RENDEZVOUS, World,
    support::{Disk, at_a_pace},
};

pub const ATSERVER: &str = "atserver";
pub const RENDEZVOUS_HOST: &str = "rendezvous";
pub const STRANGER: &str = "stranger";
/// Where a directory is whose atServers mean no good, if atServers are federated.
pub const PEER: &str = "peer";
/// Where a policy decides, if there is one.
pub const POLICY_HOST: &str = "policy";
/// Who decides there.
pub const POLICY: &str = "@policy";
/// The port of that directory.
pub const PEER_PORT: &str = "6400";

/// Where a device's service listens. It is the one that a daemon lets everybody open whom it serves.
pub const SERVICE: u16 = 22;
/// Between two sessions that somebody tries to open.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How often to look whether a process has ended.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// What a client of ours waits for each answer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// After that a wait that should have ended has not.
pub const ENDLESS: Duration = Duration::from_secs(100);

/// The world. Everything in it ends when it is dropped.
pub struct Site {
    setup: Setup,
    peer: Option<Process>,
    pub policy: Option<Process>,
    pub atserver: Option<Process>,
    pub rendezvous: Option<Process>,
    pub daemons: Vec<Option<Process>>,
    /// At the devices, one each.
    pub services: Vec<Process>,
    pub clients: usize,
    pub net: Net,
    pub world: World,
    /// Last: it goes when nobody is in it any more.
    memory: Option<MemoryLimit>,
}

pub fn device(number: usize) -> String {
    format!("device{number}")
}

pub fn client(number: usize) -> String {
    format!("client{number}")
}

fn device_name(number: usize) -> String {
    format!("dev{number}")
}

impl Site {
    /// All of it, made of this, up and running.
    ///
    /// # Errors
    /// In a sentence, when this machine cannot do it.
    pub fn made(setup: Setup, seed: u64) -> Result<Self, String> {
        let mut site = Self::without_daemons(setup, seed)?;
        for number in 0..site.daemons.len() {
            site.daemons[number] = Some(site.daemon(number));
        }
        Ok(site)
    }

    /// The same, but no daemon runs.
    fn without_daemons(setup: Setup, seed: u64) -> Result<Self, String> {
        let (devices, clients) = (setup.devices, setup.clients);
        let mut hosts: Vec<_> = [ATSERVER, RENDEZVOUS_HOST, STRANGER]
            .map(str::to_owned)
            .into();
        hosts.extend(setup.is_federated.then(|| PEER.to_owned()));
        hosts.extend(setup.has_policy.then(|| POLICY_HOST.to_owned()));
        hosts.extend((0..devices).map(device));
        hosts.extend((0..clients).map(client));
        let net = Net::of(&hosts, seed)?;
        let mut site = Self {
            peer: None,
            policy: None,
            atserver: None,
            rendezvous: None,
            daemons: (0..devices).map(|_| None).collect(),
            services: Vec::new(),
            clients,
            net,
            world: block_on(founded(&setup)),
            memory: setup
                .memory
                .map(|(_, most)| MemoryLimit::of(most))
                .transpose()?,
            setup,
        };
        site.mount_disk();
        site.peer = site.setup.is_federated.then(|| site.start_peer());
        site.atserver = Some(site.start_atserver());
        site.rendezvous = Some(site.start_rendezvous());
        if site.setup.has_records {
            site.record_rules();
        }
        site.policy = site.setup.has_policy.then(|| site.start_policy(&[]));
        site.services = (0..devices).map(|number| site.service(number)).collect();
        Ok(site)
    }

    /// The directory of whoever means no good; it tells where it is.
    fn start_peer(&self) -> Process {
        let (own, host) = (own_program().display().to_string(), full_name(PEER));
        let authority = self.world.dir.text("at");
        let words = [INSIDE, "peer", &authority, &host, PEER_PORT];
        let mut command = self.command(PEER, &own, &words);
        let mut process = Process(command.stdout(Stdio::piped()).spawn().unwrap());
        wait_for_ready(&mut process);
        process
    }

    /// The atServer's data moves to a disk of its own.
    fn mount_disk(&self) {
        let size = self.setup.disk;
        let (data, kept) = (self.world.dir.text("at"), self.world.dir.text("at.kept"));
        self.net.sh(
            ATSERVER,
            &format!(
                "cp -a {data} {kept}; mount -t tmpfs -o size={size}m tmpfs {data}; cp -a {kept}/. {data}; rm -r {kept}; \
                 chmod 700 {data}"
            ),
        );
    }

    /// How many processes the kernel has ended for want of memory.
    pub fn memory_killed(&self) -> u64 {
        self.memory.as_ref().map_or(0, MemoryLimit::killed)
    }

    /// Bytes on it.
    pub fn used(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.disk().0);
        found.map_or(0, |found| (found.f_blocks - found.f_bfree) * found.f_frsize)
    }

    /// The atServer's disk, as we see it from outside.
    pub fn disk(&self) -> Disk {
        let path = self.world.dir.path("at");
        let inside = path.strip_prefix("/").unwrap();
        Disk(self.net.root(ATSERVER).join(inside))
    }

    /// A command at this host, in its environment.
    pub fn command(&self, host: &str, program: &str, words: &[&str]) -> Command {
        let entry = self.net.at(host);
        let mut command = self.world.program(&entry[0]);
        let home = self.home(host);
        command.args(&entry[1..]).arg(program).args(words);
        command.env("NOPORTS_ROOT", self.root());
        command.env("HOME", &home).env("XDG_RUNTIME_DIR", home);
        command
    }

    pub fn home(&self, host: &str) -> PathBuf {
        let home = self.world.dir.path(&format!("home-{host}"));
        fs::create_dir_all(&home).unwrap();
        home
    }

    fn directory_port(&self) -> String {
        let root = self.world.root();
        root.rsplit(':').next().unwrap_or_default().to_owned()
    }

    fn root(&self) -> String {
        format!("{}:{}", full_name(ATSERVER), self.directory_port())
    }

    /// Starts a service at this host; returns when it is ready.
    pub fn serve(&self, host: &str, words: &[&str]) -> Process {
        let words = [words, &["--json"]].concat();
        self.world.ready(host, self.role(host, &words))
    }

    /// The program in this role, with what the setup has for that.
    pub fn role(&self, host: &str, words: &[&str]) -> Command {
        let program = &*self.setup.program;
        let more = self.setup.more.iter().filter(|(role, _)| *role == words[0]);
        let more = more.filter(|(_, more)| self.knows(words, more[0]));
        let more: Vec<_> = more.flat_map(|(_, more)| more.iter().copied()).collect();
        let words = [words, &more].concat();
        let limits = self.limits(words[0]);
        if limits.is_empty() {
            return self.command(host, program, &words);
        }
        let script = format!("{limits}exec \"$@\"");
        let words = [&["-c", &script, "sh", program], &words[..]].concat();
        self.command(host, "sh", &words)
    }

    /// What a shell says to begin with, so that this role has no more than the setup allows.
    fn limits(&self, role: &str) -> String {
        let mut script = String::new();
        if let Some((_, most)) = self.setup.descriptors.filter(|(whose, _)| *whose == role) {
            script += &format!("ulimit -n {most}; ");
        }
        let memory = self.setup.memory.filter(|(whose, _)| *whose == role);
        if let (Some(_), Some(limit)) = (memory, &self.memory) {
            script += &format!("echo $$ >{}; ", limit.members().display());
        }
        script
    }

    /// Whether the program's help for this role names an option.
    fn knows(&self, words: &[&str], option: &str) -> bool {
        let role = words.iter().take_while(|word| !word.starts_with('-'));
        let help = Command::new(&self.setup.program)
            .args(role)
            .arg("--help")
            .output();
        let help = help.map(|help| String::from_utf8_lossy(&help.stdout).into_owned());
        help.is_ok_and(|help| help.contains(option))
    }

    /// What vouches for all atServers here.
    fn ca(&self) -> String {
        self.world.dir.text("at/ca.pem")
    }

    pub fn start_atserver(&self) -> Process {
        let (data, port) = (self.world.dir.text("at"), self.directory_port());
        let host = full_name(ATSERVER);
        let what = ["atserver", "serve", "--data", &data, "--port", &port];
        let listen = ["--listen", "::", "--host", &host];
        let (root, ca) = (format!("{}:{PEER_PORT}", full_name(PEER)), self.ca());
        let others = ["--root", &root, "--ca", &ca];
        let others = if self.setup.is_federated {
            &others[..]
        } else {
            &[]
        };
        self.serve(ATSERVER, &[&what[..], &listen, others].concat())
    }

    pub fn start_rendezvous(&self) -> Process {
        let host = full_name(RENDEZVOUS_HOST);
        let words = ["rendezvous", "--as", RENDEZVOUS, "--host", &host];
        self.serve(RENDEZVOUS_HOST, &[&words[..], &["--bind", "::"]].concat())
    }

    /// Who lets the first manager in.
    pub fn start_policy(&self, more: &[&str]) -> Process {
        let words = ["policy", "serve", "--as", POLICY];
        let rules = self.rules();
        let rules = if self.setup.has_records {
            &["--records"][..]
        } else {
            &["--rules", &rules]
        };
        self.serve(POLICY_HOST, &[&words[..], rules, more].concat())
    }

    /// The same as a record.
    fn record_rules(&self) {
        let (own, name, user) = (
            own_program().display().to_string(),
            device_name(0),
            manager(0),
        );
        let text = format!(
            r#"{{"id":"1","name":"ops","description":"","daemonAtSigns":["{DEVICE}"],"devices":[{{"name":"{name}","permitOpens":["*:*"]}}],"deviceGroups":[],"userAtSigns":["{user}"]}}"#
        );
        let words = [INSIDE, "record", POLICY, "1.groups.policy.sshnp", &text];
        let status = self.command(POLICY_HOST, &own, &words).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// The file with its rules, if there is none yet.
    fn rules(&self) -> String {
        let (path, shown) = (
            self.world.dir.path("policy.yaml"),
            self.world.dir.text("policy.yaml"),
        );
        if path.exists() {
            return shown;
        }
        let text = format!(
            "userGroups:\n  ops:\n    userAtSigns: ['{}']\n    permissions:\n      daemonAtSigns: ['{DEVICE}']\n      deviceNames:\n        {}: ['*:*']\n",
            manager(0),
            device_name(0)
        );
        fs::write(path, text).unwrap();
        shown
    }

    pub fn daemon_words(&self, number: usize) -> Vec<String> {
        let first = usize::from(self.setup.has_policy);
        let managers: Vec<_> = (first..self.clients).map(manager).collect();
        let managers = managers.join(",");
        let name = device_name(number);
        let words = ["daemon", "--as", DEVICE, "--manager", &managers];
        let words = [&words[..], &["--device", &name]].concat();
        let asks = self.setup.has_policy.then_some(["--policy", POLICY]);
        let words = words.into_iter().chain(asks.into_iter().flatten());
        words.map(str::to_owned).collect()
    }

    pub fn daemon(&self, number: usize) -> Process {
        let words = self.daemon_words(number);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.serve(&device(number), &words)
    }

    /// The same; nobody waits until it is ready.
    pub fn daemon_alone(&self, number: usize) -> Process {
        let words = self.daemon_words(number);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut command = self.role(&device(number), &words);
        let log = self.log_file(&device(number));
        command.stdout(Stdio::null()).stderr(log);
        Process(command.spawn().unwrap())
    }

    /// Where a program's stderr goes: the world's log of that name.
    pub fn log_file(&self, name: &str) -> fs::File {
        let path = self.world.dir.path(&format!("{name}.log"));
        let mut options = fs::File::options();
        options.create(true).append(true).open(path).unwrap()
    }

    pub fn service(&self, number: usize) -> Process {
        self.echo(&device(number), SERVICE)
    }

    /// Somebody at this host who says every byte again.
    pub fn echo(&self, host: &str, port: u16) -> Process {
        let (own, port) = (own_program().display().to_string(), port.to_string());
        let mut command = self.command(host, &own, &[INSIDE, "echo", &port]);
        let mut process = Process(command.stdout(Stdio::piped()).spawn().unwrap());
        wait_for_ready(&mut process);
        process
    }

    /// One session of this client with this device: begun, not waited for.
    pub fn open(&self, from: &str, who: &str, to: usize, patience: Duration) -> Session {
        Session::of(self.begin(from, who, to, patience))
    }

    fn begin(&self, from: &str, who: &str, to: usize, patience: Duration) -> Process {
        let (name, patience) = (device_name(to), patience.as_secs().to_string());
        let words = ["client", "--as", who, "--to", DEVICE, "--device", &name];
        let words = [&words[..], &["--stdio", "-v", "--timeout", &patience]].concat();
        let mut command = self.role(from, &words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        Process(command.spawn().unwrap())
    }

    /// A session of the first client with the first device.
    pub fn session(&self) -> Session {
        self.open(&client(0), &manager(0), 0, PATIENCE)
    }

    /// Seconds from now until a session works that somebody opened after now. `Err`: none did within the limit; what the
    /// last one said.
    pub fn recovery(&self, limit: Duration) -> Measured {
        self.recovery_of(0, limit)
    }

    /// The same for another device.
    pub fn recovery_of(&self, to: usize, limit: Duration) -> Measured {
        let began = Instant::now();
        let mut open = Vec::new();
        let mut last = "no session ended".to_owned();
        let mut next = began;
        while began.elapsed() <= limit {
            if Instant::now() >= next {
                open.push(self.open(&client(0), &manager(0), to, PATIENCE));
                next += TRY_AGAIN;
            }
            let mut still = Vec::new();
            for mut session in open.drain(..) {
                match session.ended() {
                    None => still.push(session),
                    Some(Ok(())) => return Ok(began.elapsed()),
                    Some(Err(why)) => last = why,
                }
            }
            open = still;
            at_a_pace(LOOK_AGAIN);
        }
        Err(Miss::Late(last))
    }
}

/// The atSign of a client.
pub fn manager(number: usize) -> String {
    format!("@client{number}")
}

/// Nobody's manager.
pub const NOBODY: &str = "@stranger";

/// The atSign of another one.
pub fn stranger(number: usize) -> String {
    match number {
        0 => NOBODY.to_owned(),
        number => format!("{NOBODY}{number}"),
    }
}

/// atServers that know everybody, on a disk; nothing runs.
async fn founded(setup: &Setup) -> World {
    let mut world = World::empty("localhost", |_| {}).await;
    let own = [
        (DEVICE, "@device_example_pkam", "@device_example"),
        (RENDEZVOUS, "session", "@client_example"),
    ];
    for (who, pkam, encryption) in own {
        world.activate(who, pkam, encryption).await;
    }
    let others = setup.others.iter().map(|who| (*who).to_owned());
    for who in (0..setup.strangers).map(stranger).chain(others) {
        world.activate(&who, "session", "@device_example").await;
    }
    if setup.has_policy {
        let (pkam, encryption) = ("session", "@device_example");
        world.activate(POLICY, pkam, encryption).await;
    }
    for number in 0..setup.clients {
        let who = manager(number);
        let (pkam, encryption) = ("@client_example_pkam", "@client_example");
        world.activate(&who, pkam, encryption).await;
    }
    world.stop().await;
    world
}
