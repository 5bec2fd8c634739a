//! `noports client`: an ssh session to a device that has no open port.
//!
//! ```text
//!   1 log in            own atServer: one connection for commands, one for what comes back
//!   2 ask at once       daemon: who are you, what can you do?   rendezvous: two ports, please
//!   3 request           signed, with a fresh public key; the daemon starts its bridge and answers
//!   4 our bridge        dial the rendezvous, say who we are, join
//!   5 ssh               on our loopback port; or stdin and stdout are the session (--stdio)
//! ```
//!
//! Sequential round trips, and why none of them can go, are listed in `tests/bench/first_byte.rs`.

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use argh::FromArgs;
use async_std::{future::timeout, net::TcpListener, task};
use log::LevelFilter;

use super::{
    bridge::{self, Local, Plan},
    common::{self, Failure, Progress, exit},
    launch::{self, Order},
    open::{PATIENCE, Want, Whom, broken, open},
    service,
};
use crate::{
    net::dial::Endpoint,
    np::session::Ready,
    pipe::cipher::Side,
    secret::Secret,
    sys::{
        self,
        ssh::{self, HostKeyAlias, Login, UserName},
    },
};

/// Longest wait for ssh to use the loopback port, and for the session's first connection.
const FIRST_USE: Duration = Duration::from_secs(100);

/// How long ssh's bad news waits for the pipe's.
const PIPE_STORY: Duration = Duration::from_millis(500);

/// Opens an ssh session to a device that has no open port.
#[derive(FromArgs)]
struct Args {
    /// the device's atSign
    #[argh(option)]
    to: String,
    /// which device of that atSign (default: "default")
    #[argh(option)]
    device: Option<String>,
    /// the rendezvous' atSign (or NOPORTS_VIA)
    #[argh(option)]
    via: Option<String>,
    /// your atSign (default: the only one with keys here)
    #[argh(option, long = "as")]
    as_: Option<String>,
    /// user name on the device (default: the one its daemon tells)
    #[argh(option)]
    user: Option<String>,
    /// private key file for ssh
    #[argh(option)]
    identity: Option<String>,
    /// be the session: stdin and stdout, for ssh's ProxyCommand; opens no port
    #[argh(switch)]
    stdio: bool,
    /// print the ssh command, leave the port open in the background, and return
    #[argh(switch)]
    print: bool,
    /// seconds to wait for each answer (default: 20)
    #[argh(option, default = "PATIENCE")]
    timeout: u64,
    /// loopback port for ssh (default: any free one)
    #[argh(option, default = "0")]
    local_port: u16,
    /// atDirectory, HOST:PORT (or NOPORTS_ROOT)
    #[argh(option)]
    root: Option<String>,
    /// trust one more certificate authority, a PEM file (or NOPORTS_CA)
    #[argh(option)]
    ca: Vec<String>,
    /// key file or folder (or NOPORTS_KEYS; default: ~/.atsign/keys)
    #[argh(option)]
    keys: Option<String>,
    /// file with the pass phrase of a protected key file (or NOPORTS_PASSPHRASE)
    #[argh(option)]
    passphrase_file: Option<PathBuf>,
    /// say on stdout, as one JSON line, what was opened or why not
    #[argh(switch)]
    json: bool,
    /// no progress on stderr
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// log on stderr; twice for more
    #[argh(switch, short = 'v')]
    verbose: u8,
    /// arguments for ssh, behind --
    #[argh(positional, greedy)]
    ssh: Vec<String>,
}

/// What the arguments mean, complete.
struct Wish {
    whom: Whom,
    user: Option<UserName>,
    identity: Option<PathBuf>,
    how: How,
    local_port: u16,
    ssh: Vec<String>,
    json: bool,
}

/// What the person gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Shell,
    Stdio,
    Print,
}

/// The program.
pub fn main(name: &str, words: &[&str]) -> ExitCode {
    let args: Args = match common::parse(name, words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    sys::log::start(LevelFilter::Warn, args.verbose, args.quiet);
    sys::process::protect_memory();
    let json = args.json;
    // Two threads: one for the sockets, one so that making the ephemeral key does not hold them up.
    match common::run(2, story(args)) {
        Ok(code) => code,
        Err(failure) => common::finish(name, json, Err(failure)),
    }
}

impl Args {
    fn wish(&self) -> Result<Wish, Failure> {
        let (device, via) = (self.device.as_deref(), self.via.as_deref());
        let whom = Whom::parse(&self.to, device, via, self.timeout)?;
        let how = match (self.stdio, self.print) {
            (true, true) => return Err(Failure::misuse("--stdio and --print exclude each other")),
            (true, false) => How::Stdio,
            (false, true) => How::Print,
            (false, false) => How::Shell,
        };
        Ok(Wish {
            whom,
            user: self
                .user
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(misuse)?,
            identity: self.identity.clone().map(PathBuf::from),
            how,
            local_port: self.local_port,
            ssh: self.ssh.clone(),
            json: self.json,
        })
    }
}

fn misuse(error: impl std::fmt::Display) -> Failure {
    Failure::misuse(error.to_string())
}

async fn story(args: Args) -> Result<ExitCode, Failure> {
    let wish = args.wish()?;
    let network = common::network(args.root.as_deref(), &args.ca)?;
    let phrases = common::Phrases::new(args.passphrase_file.as_deref())?;
    let (as_, keys) = (args.as_.as_deref(), args.keys.as_deref());
    let keys = Arc::new(common::own_keys_under(as_, keys, &phrases)?);
    if wish.how == How::Shell {
        find_ssh()?;
    }
    // A ProxyCommand's stderr is the screen of somebody waiting for a shell: silence unless asked.
    let mut progress = Progress::new(args.quiet || (wish.how == How::Stdio && args.verbose == 0));

    // The user name: as told, else what the daemon published for us. --stdio leaves it to ssh.
    let user_name = wish.user.is_none() && wish.how != How::Stdio;
    let want = Want::Ssh { user_name };
    let opened = open(&network, keys, &wish.whom, want, &mut progress).await?;
    let user = match &opened.user {
        None => wish.user.clone(),
        Some(published) => Some(published.parse().map_err(|why| {
            let strange = format!("the device published a strange user name: {why}");
            Failure::new(exit::NOT_TRUSTWORTHY, strange).hint("--user NAME")
        })?),
    };
    let opened = opened.ready;
    progress.classic("Creating connection to socket rendezvous");
    match wish.how {
        How::Stdio => stdio(opened).await,
        How::Print => print(opened, &wish, user, &mut progress).await,
        How::Shell => shell(opened, &wish, user, &mut progress).await,
    }
}

fn plan(ready: Ready, local: Local) -> Plan {
    Plan {
        local,
        rendezvous: Endpoint {
            host: ready.host,
            port: ready.port,
        },
        admission: ready.admission.map(Secret::new),
        keys: ready.keys.as_ref().map(service::session_keys),
        side: Side::Client,
        timeout: FIRST_USE,
        many: None,
    }
}

/// stdin and stdout are the session.
async fn stdio(ready: Ready) -> Result<ExitCode, Failure> {
    bridge::run(plan(ready, Local::Stdio), || {})
        .await
        .map_err(|why| broken(&why))?;
    Ok(ExitCode::SUCCESS)
}

fn find_ssh() -> Result<PathBuf, Failure> {
    ssh::find().ok_or_else(|| {
        Failure::plain("there is no ssh on this machine")
            .hint("install openssh-client, or use --stdio")
    })
}

/// Our end of the pipe on a loopback port, and ssh talking to it.
async fn shell(
    ready: Ready,
    wish: &Wish,
    user: Option<UserName>,
    progress: &mut Progress,
) -> Result<ExitCode, Failure> {
    let user = user.ok_or_else(|| no_user(wish))?;
    let no_port = |error: io::Error| {
        Failure::plain(format!("no loopback port: {error}"))
            .classic("Unable to find a spare local port")
    };
    let listener = TcpListener::bind(("127.0.0.1", wish.local_port))
        .await
        .map_err(no_port)?;
    let port = listener.local_addr().map_err(no_port)?.port();
    let pipe = task::spawn(bridge::run(plan(ready, Local::Listen(listener)), || {}));
    progress.done(format!(
        "ssh {}@localhost through port {port}",
        user.as_str()
    ));

    progress.classic("Starting user session");
    let mut child = async_process::Command::new(find_ssh()?)
        .args(ssh_words(wish, &user, port))
        .env_remove("NOPORTS_PASSPHRASE")
        .spawn()
        .map_err(|error| Failure::plain(format!("ssh cannot be started: {error}")))?;
    let status = child
        .status()
        .await
        .map_err(|error| Failure::plain(format!("ssh was lost: {error}")))?;
    // ssh says 255 when the connection failed; if our pipe knows why, that is the better story.
    if status.code() == Some(255)
        && let Ok(Err(why)) = timeout(PIPE_STORY, pipe).await
    {
        return Err(broken(&why));
    }
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(exit::FAILED),
    ))
}

/// What stands behind `ssh`. It takes options behind the host, too, so the person's words need no sorting.
fn ssh_words(wish: &Wish, user: &UserName, port: u16) -> Vec<OsString> {
    let alias = HostKeyAlias::new(wish.whom.device.as_str(), wish.whom.to.as_str());
    let login = Login {
        port,
        alias: &alias,
        user: Some(user),
        identity: wish.identity.as_deref(),
        options: &[],
        command: &wish.ssh,
    };
    login.arguments()
}

fn no_user(wish: &Wish) -> Failure {
    Failure::misuse(format!(
        "{}{} does not publish a user name for you",
        wish.whom.device, wish.whom.to
    ))
    .hint("--user NAME")
    .classic("Remote username record not shared with the client")
}

#[derive(miniserde::Serialize)]
struct Opened<'a> {
    event: &'static str,
    port: u16,
    user: &'a str,
    command: String,
}

/// A bridge in the background keeps a loopback port open; we print how to use it and go.
async fn print(
    ready: Ready,
    wish: &Wish,
    user: Option<UserName>,
    progress: &mut Progress,
) -> Result<ExitCode, Failure> {
    let user = user.ok_or_else(|| no_user(wish))?;
    let program = sys::process::own_executable()
        .map_err(|error| Failure::plain(format!("cannot find this program's own file: {error}")))?;
    let order = Order {
        local: launch::Local::Port(wish.local_port, FIRST_USE),
        rendezvous: Endpoint {
            host: ready.host,
            port: ready.port,
        },
        admission: ready.admission.as_deref(),
        keys: ready.keys.as_ref(),
        many: None,
    };
    let bridge = launch::start(&program, &order).await;
    let bridge = bridge.map_err(|why| Failure::new(exit::RENDEZVOUS, why.to_string()))?;
    let port = bridge
        .port
        .ok_or_else(|| Failure::plain("the bridge does not say where it listens"))?;
    progress.done(format!(
        "port {port} waits {} s for ssh",
        FIRST_USE.as_secs()
    ));
    let command = format!("ssh {}", ssh::shell_line(&ssh_words(wish, &user, port)));
    if wish.json {
        let opened = Opened {
            event: "open",
            port,
            user: user.as_str(),
            command,
        };
        common::print_out(&miniserde::json::to_string(&opened));
    } else {
        common::print_out(&command);
    }
    Ok(ExitCode::SUCCESS)
}
