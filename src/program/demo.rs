//! `noports demo`: the whole story on this machine, as child processes of the real roles.
//!
//! ```text
//!   atserver serve ── add @alice @device @rendezvous ── activate each
//!        ▲ TLS, own CA
//!        ├── rendezvous --as @rendezvous
//!        ├── daemon --as @device --manager @alice ──▶ sshd on loopback, throw-away keys
//!        └── client --to @device ──▶ ssh ──▶ a command, run by that sshd
//! ```
//!
//! Everything lives in one temporary folder and on loopback; all of it is gone at the end, also after Ctrl-C.

use std::{
    fs, io,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use argh::{ArgsInfo, FromArgs};
use async_process::{Child, Command, Stdio};
use async_std::{
    future::timeout,
    io::prelude::{BufReadExt, WriteExt},
    net::TcpListener,
    task,
};
use futures_lite::{StreamExt, future, io::BufReader};

use crate::{
    cli::{self, Console, Failure, Progress},
    sys::{
        paths, signal, sockets,
        ssh::HostKeyAlias,
        sshd::{self, Sshd, SshdError},
    },
};

/// Longest wait for a child to say that it is ready.
const READY: Duration = Duration::from_secs(30);
/// Longest time for the command over the tunnel.
const SESSION: Duration = Duration::from_secs(60);

const ME: &str = "@alice";
const DEVICE: &str = "@device";
const RENDEZVOUS: &str = "@rendezvous";

/// Show all of it on this machine: an atServer, a rendezvous, a device, a client, ssh.
///
/// Takes a few seconds, listens on loopback only, and cleans up.
#[derive(FromArgs, ArgsInfo)]
#[argh(example = "{command_name}", example = "{command_name} --keep")]
pub(crate) struct Args {
    /// leave everything running afterwards, and print commands to try
    #[argh(switch)]
    keep: bool,
}

/// The program.
pub fn main(mut console: Console, words: &[&str]) -> ExitCode {
    let args: Args = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let result = console.run(2, async {
        let keep = args.keep;
        let ended = async {
            let stop = signal::stop()
                .await
                .map_err(failed("cannot listen for signals"))?;
            let end = format!("ended by {stop}; everything has been cleaned up");
            // Whoever kept the world ends it this way.
            if !keep {
                return Err(Failure::plain(end));
            }
            cli::print_err(&end);
            Ok(())
        };
        future::or(story(args), ended).await
    });
    console.finish(false, result)
}

async fn story(args: Args) -> Result<(), Failure> {
    let began = Instant::now();
    let mut progress = Progress::new(false);
    cli::print_err(
        "Reaching a device that has no open port, by ssh. All parts run on this machine:\n",
    );
    let mut world = World::new()?;
    world.serve_atsigns(&mut progress).await?;
    for who in [ME, DEVICE, RENDEZVOUS] {
        world.activate(who).await?;
        progress.done(format!(
            "{who} activated: keys made, one-time secret used up"
        ));
    }
    let service = world.start_service(&mut progress).await?;
    world
        .start(&["rendezvous", "--as", RENDEZVOUS, "--host", "127.0.0.1"])
        .await?;
    progress.done(format!(
        "rendezvous {RENDEZVOUS} waits; it opens ports per session"
    ));
    let port = service.port().to_string();
    let daemon = world
        .start(&[
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ME,
            "--device",
            "demo",
            "--sshd-port",
            &port,
        ])
        .await?;
    progress.done(format!("daemon {DEVICE} waits, pid {daemon}"));

    let said = world.session(&service).await?;
    progress.done("client: session opened, command run, session closed");
    cli::print_err("\nThe device answered, through the tunnel:\n");
    for line in said.lines() {
        cli::print_err(&format!("    {line}"));
    }
    cli::print_err(&format!("\n{}", what_was_open(daemon, &service)));
    cli::print_err(&format!(
        "All of it took {:.1} s.",
        began.elapsed().as_secs_f64()
    ));
    if let Service::BuiltIn(_) = service {
        cli::print_err(&format!(
            "\nThere is no sshd on this machine, so a small built-in service answered.\nInstall {} for the real thing.",
            sshd::PACKAGE
        ));
    }
    if args.keep {
        cli::print_err(&world.commands(&service)?);
        future::pending::<()>().await;
    }
    Ok(())
}

/// What the device listened on, read from the kernel's tables.
fn what_was_open(daemon: u32, service: &Service) -> String {
    let open = sockets::listening_ports(daemon);
    let own = match open {
        Ok(ports) if ports.is_empty() => {
            "The daemon listens on no port, not even on loopback.".to_owned()
        }
        Ok(ports) => {
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            format!(
                "The daemon listens on {} (it should not).",
                ports.join(", ")
            )
        }
        Err(why) => format!("What the daemon listens on could not be read here: {why}."),
    };
    format!(
        "{own}\nThe device's only listener is its own {} on 127.0.0.1:{}.\n\
         It needed no port forwarding, public address, VPN or firewall rule.",
        service.name(),
        service.port()
    )
}

/// What the daemon reaches on the device.
enum Service {
    Sshd(Sshd),
    BuiltIn(u16),
}

impl Service {
    fn port(&self) -> u16 {
        match self {
            Self::Sshd(sshd) => sshd.port,
            Self::BuiltIn(port) => *port,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Sshd(_) => "sshd",
            Self::BuiltIn(_) => "service",
        }
    }
}

/// The folder and the children. Dropping it ends and removes them.
struct World {
    dir: PathBuf,
    exe: PathBuf,
    root: String,
    children: Vec<(String, Child)>,
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn failed(what: &str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::plain(format!("{what}: {error}"))
}

impl World {
    fn new() -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!(
            "noports-demo-{:.8}",
            uuid::Uuid::new_v4().as_simple().to_string()
        ));
        paths::private_folder(&dir).map_err(failed("no temporary folder"))?;
        let world = Self {
            dir,
            exe: std::env::current_exe().map_err(failed("cannot find this program's own file"))?,
            root: String::new(),
            children: Vec::new(),
        };
        fs::create_dir(world.dir.join("keys")).map_err(failed("no folder for keys"))?;
        Ok(world)
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A child with the demo's directory, authority and keys in its environment.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .args(words)
            .env("NOPORTS_ROOT", &self.root)
            .env("NOPORTS_CA", self.path("atserver/ca.pem"))
            .env("NOPORTS_KEYS", self.path("keys"))
            // Its atSigns are made anew each time, and so are their keys.
            .env(paths::MEMORY, self.path("memory"))
            .env(paths::RUNTIME, self.path("run"))
            .env_remove("NOPORTS_AS")
            // Throw-away keys: so that we may look at what the children have open.
            .env("NOPORTS_DEBUG", "1")
            .env("NOPORTS_CONFIG", "")
            .stdin(Stdio::null());
        command
    }

    async fn serve_atsigns(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        let data = self.path("atserver");
        let ready = self
            .child(&[
                "atserver", "serve", "--data", &data, "--port", "0", "--json",
            ])
            .await?;
        self.root = member(&ready, "directory")?;
        progress.done(format!(
            "atDirectory and atServers at {}, own certificates",
            self.root
        ));
        Ok(())
    }

    /// Hosts an atSign and makes its keys.
    async fn activate(&mut self, who: &str) -> Result<(), Failure> {
        let (data, secret) = (self.path("atserver"), self.path("secret"));
        self.finish(&[
            "atserver",
            "add",
            who,
            "--data",
            &data,
            "--secret-file",
            &secret,
        ])
        .await?;
        self.finish(&["activate", who, "--secret-file", &secret])
            .await?;
        let _ = fs::remove_file(&secret);
        Ok(())
    }

    async fn start_service(&mut self, progress: &mut Progress) -> Result<Service, Failure> {
        let dir = self.dir.join("sshd");
        fs::create_dir(&dir).map_err(failed("no folder for sshd"))?;
        match sshd::start(&dir).await {
            Ok(sshd) => {
                progress.done(format!("sshd on 127.0.0.1:{}, throw-away keys", sshd.port));
                Ok(Service::Sshd(sshd))
            }
            Err(SshdError::NotInstalled(_)) => {
                let port = greet_everybody()
                    .await
                    .map_err(failed("no loopback port"))?;
                progress.done(format!(
                    "no sshd here: a small built-in service on 127.0.0.1:{port}"
                ));
                Ok(Service::BuiltIn(port))
            }
            Err(why) => Err(Failure::plain(why.to_string())),
        }
    }

    /// Starts a service of ours; returns its process id once it says `ready`.
    async fn start(&mut self, words: &[&str]) -> Result<u32, Failure> {
        self.child(&[words, &["--json"]].concat()).await?;
        Ok(self.children.last().map_or(0, |(_, child)| child.id()))
    }

    /// Starts a child and waits for its first line on stdout.
    async fn child(&mut self, words: &[&str]) -> Result<String, Failure> {
        let name = words[0];
        let log = fs::File::create(self.dir.join(format!("{name}.log")))
            .map_err(failed("no log file"))?;
        let mut child = self
            .command(words)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed("cannot start a program"))?;
        let stdout = child.stdout.take();
        self.children.push((name.to_owned(), child));
        let first = async { BufReader::new(stdout?).lines().next().await?.ok() };
        match timeout(READY, first).await {
            Ok(Some(line)) => Ok(line),
            _ => Err(Failure::plain(format!(
                "the {name} did not start:\n{}",
                self.log(name)
            ))),
        }
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Runs a child to its end; returns what it printed.
    async fn finish(&self, words: &[&str]) -> Result<String, Failure> {
        let run = self.command(words).output();
        let output = timeout(SESSION, run)
            .await
            .map_err(|_| Failure::plain(format!("noports {} took too long", words.join(" "))))?
            .map_err(failed("cannot start a program"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let logs = self
            .children
            .iter()
            .map(|(name, _)| format!("\n--- {name}\n{}", self.log(name)));
        Err(Failure::plain(format!(
            "noports {} failed:\n{why}{}",
            words.join(" "),
            logs.collect::<String>()
        )))
    }

    /// The client's part: a command on the device, through the tunnel.
    async fn session(&self, service: &Service) -> Result<String, Failure> {
        match service {
            Service::Sshd(sshd) => {
                let ssh = self.ssh_options(sshd)?;
                let mut words = self.client_words();
                words.extend([
                    "--identity".into(),
                    sshd.identity.display().to_string(),
                    "--".into(),
                ]);
                words.extend(ssh);
                words.push(
                    "echo \"hello from $(hostname), pid $$ of an sshd\"; uname -srm; uptime".into(),
                );
                self.finish(&words.iter().map(String::as_str).collect::<Vec<_>>())
                    .await
            }
            Service::BuiltIn(_) => {
                let mut words = self.client_words();
                words.push("--stdio".into());
                self.finish(&words.iter().map(String::as_str).collect::<Vec<_>>())
                    .await
            }
        }
    }

    fn client_words(&self) -> Vec<String> {
        [
            "client", "--as", ME, "--to", DEVICE, "--device", "demo", "--via", RENDEZVOUS,
        ]
        .map(str::to_owned)
        .into()
    }

    /// Host key checks stay on: the throw-away host key is known under the device's stable name.
    fn ssh_options(&self, sshd: &Sshd) -> Result<Vec<String>, Failure> {
        let known = self.dir.join("known_hosts");
        let alias = HostKeyAlias::new("demo", DEVICE);
        fs::write(&known, format!("{alias} {}\n", sshd.host_key))
            .map_err(failed("no known_hosts file"))?;
        let known = format!("UserKnownHostsFile={}", known.display());
        Ok([
            "-F",
            "none",
            "-o",
            &known,
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "BatchMode=yes",
        ]
        .map(str::to_owned)
        .into())
    }

    /// What to try while the world is kept. Leaves a file for the shell's environment and one for ssh.
    fn commands(&self, service: &Service) -> Result<String, Failure> {
        let dir = self.dir.display();
        let bin = self
            .exe
            .parent()
            .map_or_else(String::new, |dir| dir.display().to_string());
        let environment = format!(
            "export NOPORTS_ROOT={} NOPORTS_CA={dir}/atserver/ca.pem NOPORTS_KEYS={dir}/keys NOPORTS_MEMORY={dir}/memory\n\
             export NOPORTS_RUNTIME={dir}/run\n\
             export NOPORTS_DATA={dir}/atserver NOPORTS_AS={ME} NOPORTS_VIA={RENDEZVOUS} PATH='{bin}':\"$PATH\"\n",
            self.root
        );
        let write = |name: &str, text: &str| {
            fs::write(self.dir.join(name), text).map_err(failed("cannot write a file"))
        };
        write("env", &environment)?;
        let mut text = format!(
            "\nEverything stays until Ctrl-C. Try this in another terminal:\n\n    . {dir}/env\n    noports atserver list\n"
        );
        let client = format!("noports client --to {DEVICE} --device demo");
        match service {
            Service::Sshd(sshd) => {
                let (identity, alias) =
                    (sshd.identity.display(), HostKeyAlias::new("demo", DEVICE));
                let config = format!(
                    "Host demo\n  ProxyCommand {client} --stdio\n  HostKeyAlias {alias}\n  IdentityFile {identity}\n  \
                     UserKnownHostsFile {dir}/known_hosts\n"
                );
                write("ssh_config", &config)?;
                text += &format!("    ssh -F {dir}/ssh_config demo\n");
                text += &format!("    scp -F {dir}/ssh_config FILE demo:\n");
                text += &format!(
                    "    {client} \\\n        --identity {identity} \\\n        -- -o UserKnownHostsFile={dir}/known_hosts\n"
                );
            }
            Service::BuiltIn(_) => text += &format!("    {client} --stdio\n"),
        }
        Ok(text)
    }
}

/// One member of the JSON line that a child prints when it is ready.
fn member(line: &str, name: &str) -> Result<String, Failure> {
    let value = miniserde::json::from_str::<miniserde::json::Object>(line).ok();
    match value.and_then(|mut members| members.remove(name)) {
        Some(miniserde::json::Value::String(text)) => Ok(text),
        _ => Err(Failure::plain(format!(
            "a child said {line:?}, without {name}"
        ))),
    }
}

/// A service for machines without sshd: says hello and hangs up.
async fn greet_everybody() -> io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    task::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket
                .write_all(b"hello from the device: this came through the tunnel\n")
                .await;
        }
    });
    Ok(port)
}
