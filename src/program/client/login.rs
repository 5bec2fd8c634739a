//! Our bridge, and the person's ssh or what stands in for it: steps 4 and 5.

use std::{
    ffi::OsString,
    io,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_std::{
    channel::{self, Sender},
    future::timeout,
    net::TcpListener,
    task::{self, JoinHandle},
};
use futures_lite::future;
use rustix::process::{Pid, Signal, kill_process};

use super::args::Settings;
use crate::{
    cli::{self, Failure, Progress, exit},
    np::{far_end::FarEnd, ids::SessionId},
    session::{
        ask::{broken, broken_off},
        bridge::{self, BridgeError, Greeting, LocalEnd, Plan, Totals},
        control::About,
        launch::{self, BridgeExit, LocalAddress, Order, Said},
    },
    sys::{
        log::without_place,
        paths,
        sockets::{leads_here, loopback},
        ssh::{self, Destination, HostKeyAlias, SshLogin, UserName},
    },
    text::json::Object,
};

/// Longest wait for ssh to use the loopback port, and for the session's first connection.
const FIRST_USE: Duration = Duration::from_secs(100);
/// How long ssh may take to give the terminal back when it is told to end.
const GOODBYE: Duration = Duration::from_secs(1);
/// A connection that fails within this time has most likely not come further than the login.
const LOGIN: Duration = Duration::from_secs(120);
/// How long a bridge may take to end when its ssh has; one that has not by then is used by another, in the background.
const BRIDGE_STORY: Duration = Duration::from_millis(500);

/// What to do where this machine has neither 127.0.0.1 nor `::1`.
const NO_LOOPBACK: &str = "this machine has no loopback address: ip link set lo up; or let ssh use no port, with \
                           noports client … --stdio as its ProxyCommand";

/// Where the person's ssh connects to.
pub(super) enum LocalEntry {
    /// Through a bridge of ours, for this session.
    Bridge(Box<FarEnd>, SessionId),
    /// Through a loopback port that another ssh holds open.
    Port(u16),
}

/// stdin and stdout are the session.
pub(super) async fn stdio(far: FarEnd) -> Result<ExitCode, Failure> {
    let plan = Plan {
        local: LocalEnd::Stdio,
        far,
        timeout: FIRST_USE,
        many: None,
        greeting: Greeting::Ssh,
        nearness: None,
        source: None,
    };
    bridge::run(plan, || {}).await.map_err(|why| broken(&why))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn find_ssh() -> Result<PathBuf, Failure> {
    ssh::find().ok_or_else(|| {
        Failure::plain("ssh is not installed on this machine")
            .hint("install openssh-client, or use --stdio")
    })
}

/// A port to listen on. Somebody else may take it before ssh does; ssh says so then.
pub(super) async fn free_port(wanted: u16) -> Result<u16, Failure> {
    let wanted = SocketAddr::new(loopback(), wanted);
    if !leads_here(wanted.ip()) {
        return Err(no_port(wanted)(io::ErrorKind::AddrNotAvailable.into()));
    }
    let listener = TcpListener::bind(wanted).await;
    let at = listener.and_then(|listener| listener.local_addr());
    Ok(at.map_err(no_port(wanted))?.port())
}

fn no_port(wanted: SocketAddr) -> impl FnOnce(io::Error) -> Failure {
    move |error| {
        let failure = Failure::plain(format!("cannot listen on {wanted}: {error}"))
            .classic("Unable to find a spare local port");
        match (error.kind(), wanted.port()) {
            (io::ErrorKind::AddrNotAvailable, _) => failure.hint(NO_LOOPBACK),
            (_, 0) => failure,
            _ => failure.hint("give another --local-port, or leave it out: any free port will do"),
        }
    }
}

/// ssh, on a loopback port that leads to the device.
///
/// Our bridge is a process of its own: ssh may go to the background (`-f`, ControlPersist), and the session lasts as long as
/// an ssh uses it.
pub(super) async fn shell(
    reach: LocalEntry,
    settings: &Settings,
    user: Option<&UserName>,
    progress: &mut Progress,
) -> Result<ExitCode, Failure> {
    let (port, bridge) = match reach {
        LocalEntry::Port(port) => (port, None),
        LocalEntry::Bridge(far, session) => {
            progress.classic("Creating connection to socket rendezvous");
            let bridge = ShellBridge::start(&far, session, settings).await?;
            (bridge.port, Some(bridge))
        }
    };
    let name = user.map_or(String::new(), |user| format!("{}@", user.as_str()));
    progress.done(format!("ssh {name}{} through port {port}", alias(settings)));
    progress.classic("Starting user session");

    let program = find_ssh()?;
    let destination = if ssh::is_dropbear(&program) {
        Destination::Localhost
    } else {
        Destination::Device
    };
    let child = async_process::Command::new(program)
        .args(ssh_words(settings, user, port, destination))
        .env_remove("NOPORTS_PASSPHRASE")
        .spawn()
        .map_err(|error| Failure::plain(format!("ssh cannot be started: {error}")))?;
    let (mut child, begun) = (PersonsSsh(child), Instant::now());
    let status = (child.0)
        .status()
        .await
        .map_err(|error| Failure::plain(format!("cannot wait for ssh: {error}")))?;
    let ended = match bridge {
        Some(bridge) => bridge.after_ssh().await,
        None => None,
    };
    // ssh says 255 when the connection failed; if our bridge knows why, that is the better story.
    if status.code() == Some(255)
        && let Some(exit) = ended
    {
        match (exit.why, exit.totals) {
            (Some(report), _) => return Err(broken_off(&report.why)),
            // Not even a banner.
            (None, Some(Totals { down: 0, .. })) => {
                return Err(broken(&BridgeError::Unbegun));
            }
            // ssh has said what, and not what can be done about it here.
            (None, _) if begun.elapsed() < LOGIN => progress.note(
                "if ssh was denied: --user NAME is another user of the device, --identity FILE another key, and --send-key \
                 FILE.pub lets a key in where the daemon has --accept-keys",
            ),
            (None, _) => {}
        }
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(exit::FAILED)))
}

/// The bridge that an ssh of the person's uses.
struct ShellBridge {
    port: u16,
    is_used: Arc<AtomicBool>,
    /// Makes the bridge end.
    stop: Sender<()>,
    end: JoinHandle<BridgeExit>,
}

impl ShellBridge {
    async fn start(far: &FarEnd, session: SessionId, settings: &Settings) -> Result<Self, Failure> {
        let order = Order {
            local: LocalAddress::Port(settings.local_port, FIRST_USE),
            far,
            many: None,
            about: Some(about(session, settings)),
            nearness: None,
            sandbox: true,
        };
        let started = launch::start(&launch::program()?, &order).await;
        let bridge = started.map_err(|why| why.told())?;
        let is_used = Arc::new(AtomicBool::new(false));
        let used = is_used.clone();
        let heard = move |said: Said<'_>| match said {
            Said::Spoken => used.store(true, Relaxed),
            Said::Log(line) => cli::print_err(&without_place(line)),
            Said::Target(_) => {}
        };
        let (stop, stopped) = channel::bounded(1);
        let told = async move {
            if stopped.recv().await.is_err() {
                future::pending::<()>().await;
            }
        };
        Ok(Self {
            port: bridge
                .port
                .ok_or_else(|| Failure::plain("the bridge does not say where it listens"))?,
            is_used,
            stop,
            end: task::spawn(bridge.ended(heard, told)),
        })
    }

    /// How it ended with ssh; `None` where an ssh in the background uses it, and it stays. One that nobody uses, because ssh
    /// went another way or never came, is ended.
    async fn after_ssh(mut self) -> Option<BridgeExit> {
        if let Ok(exit) = timeout(BRIDGE_STORY, &mut self.end).await {
            return Some(exit);
        }
        if !self.is_used.load(Relaxed) {
            let _ = self.stop.send(()).await;
            self.end.await;
        }
        None
    }
}

/// For those who ask which sessions there are.
fn about(session: SessionId, settings: &Settings) -> About {
    let folder = paths::runtime().map(|folder| paths::bridges(&folder));
    About {
        session: Some(session.to_string()),
        device: Some(settings.whom.device.to_string()),
        atsign: Some(settings.whom.to.to_string()),
        client: None,
        folder: folder.and_then(|folder| folder.into_os_string().into_string().ok()),
    }
}

/// The ssh that the person sees. Where we are told to end before it has, it ends with us: it has the terminal.
struct PersonsSsh(async_process::Child);

impl Drop for PersonsSsh {
    fn drop(&mut self) {
        let is_there = |child: &mut async_process::Child| matches!(child.try_status(), Ok(None));
        if !is_there(&mut self.0) {
            return;
        }
        // Not by force: it gives the terminal back first.
        let process = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let told = process.map(|process| kill_process(process, Signal::TERM));
        let end = Instant::now() + GOODBYE;
        while told == Some(Ok(())) && is_there(&mut self.0) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The device's name among the hosts that ssh knows.
pub(super) fn alias(settings: &Settings) -> HostKeyAlias {
    HostKeyAlias::new(settings.whom.device.as_str(), settings.whom.to.as_str())
}

fn ssh_words(
    settings: &Settings,
    user: Option<&UserName>,
    port: u16,
    destination: Destination,
) -> Vec<OsString> {
    let login = SshLogin {
        port,
        alias: &alias(settings),
        destination,
        user,
        identity: settings.identity.as_deref(),
        words: &settings.ssh,
    };
    login.arguments()
}

/// Scripts take the line of a classic program apart, and know one host in it.
fn printed_destination(settings: &Settings) -> Destination {
    let dropbear = || ssh::find().is_some_and(|program| ssh::is_dropbear(&program));
    if settings.classic || dropbear() {
        Destination::Localhost
    } else {
        Destination::Device
    }
}

/// Something in the background keeps a loopback port open; we print how to use it and go.
pub(super) async fn print(
    reach: LocalEntry,
    settings: &Settings,
    user: Option<&UserName>,
    progress: &mut Progress,
) -> Result<ExitCode, Failure> {
    let (port, waits) = match reach {
        LocalEntry::Port(port) => (port, settings.inside.idle),
        LocalEntry::Bridge(far, _) => {
            progress.classic("Creating connection to socket rendezvous");
            let local = LocalAddress::Port(settings.local_port, FIRST_USE);
            (in_background(&far, local).await?, FIRST_USE)
        }
    };
    progress.done(format!(
        "port {port} waits {} s for ssh to connect",
        waits.as_secs()
    ));
    let words = ssh_words(settings, user, port, printed_destination(settings));
    let command = format!("ssh {}", ssh::shell_line(&words));
    if settings.json {
        let opened = Object::event("open").raw("port", port);
        let user = user.map(UserName::as_str);
        let opened = opened.maybe("user", user).text("command", &command);
        cli::print_out(&opened.end());
    } else {
        cli::print_out(&command);
    }
    Ok(ExitCode::SUCCESS)
}

/// A bridge that outlives us; returns where it listens, or 0 where it does not.
pub(super) async fn in_background(far: &FarEnd, local: LocalAddress<'_>) -> Result<u16, Failure> {
    let order = Order {
        local,
        far,
        many: None,
        about: None,
        nearness: None,
        sandbox: true,
    };
    launch::in_background(&order).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// It stayed, with the terminal in raw mode, when only its client was told to end.
    #[test]
    fn the_persons_ssh_ends_with_its_client_and_not_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let (ready, told) = (folder.path().join("ready"), folder.path().join("told"));
        let script = "trap 'echo >\"$2\"; exit' TERM; echo >\"$1\"; while :; do sleep 0.01; done";
        let child = async_process::Command::new("sh")
            .args(["-c", script, "sh"])
            .args([&ready, &told])
            .spawn()
            .unwrap();
        let process = i32::try_from(child.id()).unwrap();
        while !ready.exists() {
            std::thread::yield_now();
        }
        drop(PersonsSsh(child));
        assert!(told.exists());
        assert!(rustix::process::test_kill_process(Pid::from_raw(process).unwrap()).is_err());
    }
}
