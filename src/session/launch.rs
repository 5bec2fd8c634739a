//! Starting a bridge as a process of its own, with its secrets over a pipe.
//!
//! ```text
//!   we ── argv: addresses ── stdin: one JSON line with the secrets ──▶ noports bridge
//!      ◀── stderr: "listening on port N", "rv started successfully", or why not; at the end, why it broke ──
//! ```
//!
//! From then on the bridge needs nobody: it lives in a process group of its own until its session ends.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::{Pin, pin},
    time::Duration,
};

use async_process::{Child, ChildStderr};
use async_std::future::timeout;
use futures_lite::{AsyncBufReadExt, AsyncRead, AsyncReadExt, StreamExt, future, io::BufReader};

use super::{
    bridge::{BridgeNews, LISTENING, Many, Report, STARTED, Secrets, Stage, TargetFailure, Totals},
    control::{self, About, BridgeRequest, SessionState},
};
use crate::{
    cli::{Failure, exit},
    net::{control_socket::ControlError, network::NearnessSet},
    np::far_end::FarEnd,
    sys::process,
    text::endpoint::Endpoint,
};

/// Longest wait for a bridge to say that it is ready: two connections, ten seconds each.
const READY_WITHIN: Duration = Duration::from_secs(22);
/// Most bytes that are read of what a bridge says before it is ready.
const MAX_WORDS: u64 = 16 * 1024;
/// Longest line of what it says after that, in bytes.
const MAX_LINE: usize = 4096;
/// What the daemon's refusal says when no bridge stood; clients of all generations know these words.
pub const NO_BRIDGE: &str = "Failed to start up the daemon side of the srv socket tunnel : ";

/// The same when the device could not reach something on its own side.
pub const NO_SERVICE: &str =
    "Failed to start up the daemon side of the srv socket tunnel : on the device: ";

/// Everything a bridge process is told.
#[derive(Debug)]
pub struct Order<'a> {
    /// Its local end.
    pub local: LocalAddress<'a>,
    /// The other one.
    pub far: &'a FarEnd,
    /// Many connections instead of one.
    pub many: Option<Lasting>,
    /// Whose session it is, for those who ask its control socket.
    pub about: Option<About>,
    /// The rendezvous may be where somebody may be sent whose directory is so near; else anywhere.
    pub nearness: Option<NearnessSet>,
    /// It confines itself.
    pub sandbox: bool,
}

/// A session with many connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lasting {
    /// How long it may stand without one.
    pub idle: Duration,
    /// How the client talks on the control channel.
    pub talk: Many,
}

/// The local end of a bridge process.
#[derive(Debug)]
pub enum LocalAddress<'a> {
    /// The device's: a service to dial, and from which loopback address, if from a certain one.
    Service(&'a Endpoint, Option<Ipv4Addr>),
    /// The client's: a loopback port for an ssh (0: any), and how long that may take to come.
    Port(u16, Duration),
    /// The same at an address that may be reached by others.
    Listen {
        /// That address.
        at: SocketAddr,
        /// Other users of this machine may come, too.
        shared: bool,
    },
}

/// A bridge that runs.
pub struct RunningBridge {
    process: Process,
    words: Pin<Box<dyn AsyncRead + Send>>,
    /// Where it listens, if it does.
    pub port: Option<u16>,
}

enum Process {
    /// We have started it.
    Child(Child),
    /// It was there before us; its control socket.
    Found(PathBuf),
}

impl Process {
    /// Ends it at once.
    async fn end(&mut self) {
        match self {
            Self::Child(child) => drop(child.kill()),
            Self::Found(socket) => {
                let asked = control::tell(socket, BridgeRequest::End { now: true }).await;
                if let Err(why) = asked {
                    log::warn!("bridge={} end=\"{why}\"", socket.display());
                }
            }
        }
    }

    /// Its exit code, or what stands for it.
    async fn how(&mut self) -> String {
        let Self::Child(child) = self else {
            return "unknown".to_owned();
        };
        match child.status().await {
            Ok(status) => status
                .code()
                .map_or_else(|| "killed".to_owned(), |code| code.to_string()),
            Err(error) => error.to_string(),
        }
    }
}

/// How a bridge ended, for the log.
#[derive(Debug)]
pub struct BridgeExit {
    /// Its exit code, or what stands for it.
    pub how: String,
    /// Why it failed, if it said so.
    pub why: Option<Report>,
    /// What it has carried, if it said so.
    pub totals: Option<Totals>,
}

/// What a bridge says while it runs.
#[derive(Debug)]
pub enum Said<'a> {
    /// The client has said its first word; at its own end: ssh has come.
    Spoken,
    /// Its service could not be had.
    Target(&'a TargetFailure),
    /// A line of its log.
    Log(&'a str),
}

impl RunningBridge {
    /// One that was there before us and is wanted, as its control socket tells.
    ///
    /// # Errors
    /// When it is there, and cannot be asked. `None`: it has ended, or is not wanted.
    pub async fn find(
        socket: &Path,
        is_wanted: impl FnOnce(&SessionState) -> bool,
    ) -> Result<Option<(SessionState, Self)>, ControlError> {
        // First only asked: who follows takes somebody's place there.
        let state = control::state(socket).await?;
        if !state.is_some_and(|state| is_wanted(&state)) {
            return Ok(None);
        }
        let Some((state, answered)) = control::follow(socket).await? else {
            return Ok(None);
        };
        let words = futures_lite::io::Cursor::new(answered.more).chain(answered.socket);
        let bridge = Self {
            process: Process::Found(socket.to_owned()),
            words: Box::pin(words),
            port: None,
        };
        Ok(Some((state, bridge)))
    }

    /// Waits for its end, or ends it when told to `leave`. `heard` is told what it says meanwhile.
    pub async fn ended(
        mut self,
        heard: impl FnMut(Said<'_>),
        leave: impl Future<Output = ()>,
    ) -> BridgeExit {
        let mut words = pin!(last_words(self.words, heard));
        let early = async { Some(words.as_mut().await) };
        let told = async {
            leave.await;
            None
        };
        let (why, totals) = match future::or(early, told).await {
            Some(last) => last,
            None => {
                self.process.end().await;
                words.await
            }
        };
        let how = self.process.how().await;
        BridgeExit { how, why, totals }
    }
}

/// Reads all that is said, for a full pipe holds the bridge up; returns why it ended and what it carried, if it says so.
async fn last_words(
    mut words: impl AsyncRead + Unpin,
    mut heard: impl FnMut(Said<'_>),
) -> (Option<Report>, Option<Totals>) {
    let (mut why, mut totals) = (None, None);
    let (mut line, mut more) = (Vec::new(), [0; 1024]);
    loop {
        let got = words.read(&mut more).await.unwrap_or(0);
        for &byte in more.get(..got).unwrap_or_default() {
            if byte != b'\n' {
                // Of a line that is too long the beginning counts.
                if line.len() < MAX_LINE {
                    line.push(byte);
                }
                continue;
            }
            understand(&line, &mut why, &mut totals, &mut heard);
            line.clear();
        }
        if got == 0 {
            understand(&line, &mut why, &mut totals, &mut heard);
            return (why, totals);
        }
    }
}

fn understand(
    line: &[u8],
    why: &mut Option<Report>,
    totals: &mut Option<Totals>,
    heard: &mut impl FnMut(Said<'_>),
) {
    let text = String::from_utf8_lossy(line);
    match text.parse() {
        Ok(BridgeNews::Spoken) => heard(Said::Spoken),
        Ok(BridgeNews::Target(failure)) => heard(Said::Target(&failure)),
        Ok(BridgeNews::Failed(report)) => *why = Some(report),
        Ok(BridgeNews::Carried(carried)) => *totals = Some(carried),
        // Behind its report stands the same for a person.
        Err(_) if why.is_some() || text.is_empty() => {}
        Err(_) => heard(Said::Log(&text)),
    }
}

/// Why there is no bridge.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The executable cannot be started.
    #[error("the bridge cannot be started: {0}")]
    Start(#[from] io::Error),
    /// It said why it gave up, and at which step.
    #[error("{}", .0.why)]
    Failed(Report),
    /// It ended, or stayed silent.
    #[error("the bridge did not get ready: {0}")]
    Unready(String),
}

/// The executable that bridges are started from: our own.
///
/// # Errors
/// When the system does not say where it is.
pub fn program() -> Result<PathBuf, Failure> {
    let unknown = |why| Failure::plain(format!("cannot find this program's own file: {why}"));
    process::own_executable().map_err(unknown)
}

/// Starts a bridge and waits until it is ready.
///
/// # Errors
/// See [`LaunchError`]; a bridge that is not ready in time is ended.
pub async fn start(program: &Path, order: &Order<'_>) -> Result<RunningBridge, LaunchError> {
    let secrets = Secrets::line(order.far, order.about.as_ref());
    let mut child =
        process::spawn_apart(program, &order.words(), secrets.reveal().as_bytes()).await?;
    let silent = || LaunchError::Unready("it said nothing in time".to_owned());
    let heard = match child.stderr.take() {
        Some(stderr) => timeout(READY_WITHIN, hear(BufReader::new(stderr)))
            .await
            .unwrap_or_else(|_| Err(silent())),
        None => Err(silent()),
    };
    match heard {
        Ok((port, words)) => Ok(RunningBridge {
            process: Process::Child(child),
            words: Box::pin(words),
            port,
        }),
        Err(why) => {
            let _ = child.kill();
            Err(why)
        }
    }
}

/// A client's bridge, which outlives the client; returns where it listens, or 0 where it does not.
///
/// # Errors
/// With the exit code of whatever stood in the way.
pub async fn in_background(order: &Order<'_>) -> Result<u16, Failure> {
    let bridge = start(&program()?, order).await;
    let port = bridge.map_err(|why| why.told())?.port;
    match order.local {
        LocalAddress::Service(..) => Ok(0),
        _ => port.ok_or_else(|| Failure::plain("the bridge does not say where it listens")),
    }
}

impl Order<'_> {
    fn words(&self) -> Vec<String> {
        let Endpoint { host, port } = self.far.rendezvous.clone();
        let mut words = vec!["bridge".to_owned(), "--secrets-on-stdin".to_owned()];
        words.extend((!self.sandbox).then(|| "--no-sandbox".to_owned()));
        // With these the bridge refuses to do without.
        words.extend(self.far.admission.iter().map(|_| "--rv-auth".to_owned()));
        words.extend(self.far.keys.iter().map(|_| "--rv-e2ee".to_owned()));
        words.extend([
            "--host".into(),
            host,
            "--port".into(),
            port.to_string(),
            "--local-port".into(),
        ]);
        match &self.local {
            LocalAddress::Service(at, source) => {
                words.extend([at.port.to_string(), "--local-host".into(), at.host.clone()]);
                let source = source.map(|source| ["--local-source".into(), source.to_string()]);
                words.extend(source.into_iter().flatten());
            }
            LocalAddress::Port(port, wait) => {
                let wait = wait.as_secs().to_string();
                words.extend([
                    port.to_string(),
                    "--bind-local-port".into(),
                    "--ssh".into(),
                    "--timeout".into(),
                    wait,
                ]);
            }
            LocalAddress::Listen { at, shared } => {
                words.extend([at.port().to_string(), "--bind-local-port".into()]);
                words.extend(shared.then(|| "--shared".to_owned()));
                words.extend(["--bind-address".into(), at.ip().to_string()]);
            }
        }
        if let Some(nearness) = self.nearness {
            words.extend(["--nearness".to_owned(), nearness.to_string()]);
        }
        if let Some(many) = &self.many {
            // Rounded up: a session must not end before the other end thinks so.
            let idle = many.idle.as_millis().div_ceil(1000);
            words.extend(["--multi".into(), "--timeout".into(), idle.to_string()]);
            if let Some(every) = many.talk.heartbeat {
                words.extend(["--heartbeat".into(), every.as_secs().to_string()]);
            }
            if !many.talk.pace.is_zero() {
                words.extend(["--pace".into(), many.talk.pace.as_millis().to_string()]);
            }
            words.extend(many.talk.unended.then(|| "--unended".into()));
            words.extend(many.talk.questions.map(|_| "--ask".into()));
            if let Some(time) = many.talk.first_word {
                words.extend(["--first-word".into(), time.as_secs().to_string()]);
            }
        }
        words
    }
}

/// Reads what the bridge says until it is ready; where it listens, and what it says later.
async fn hear(
    mut stderr: BufReader<ChildStderr>,
) -> Result<(Option<u16>, BufReader<ChildStderr>), LaunchError> {
    let mut lines = (&mut stderr).take(MAX_WORDS).lines();
    let (mut port, mut last) = (None, String::from("it ended"));
    while let Some(line) = lines.next().await {
        let line = line?;
        if line == STARTED {
            drop(lines);
            return Ok((port, stderr));
        }
        if let Ok(report) = line.parse::<Report>() {
            return Err(LaunchError::Failed(report));
        }
        match line.strip_prefix(LISTENING) {
            Some(number) => port = number.parse().ok(),
            None => last = line,
        }
    }
    Err(LaunchError::Unready(last))
}

impl LaunchError {
    /// The same told to the person who wanted a client's end.
    pub fn told(&self) -> Failure {
        match self {
            Self::Failed(report) if report.step != Stage::Local => {
                Failure::new(exit::RENDEZVOUS, self.to_string())
                    .hint("check the network, and that the rendezvous is running; then try again")
            }
            _ => Failure::plain(self.to_string()),
        }
    }

    /// The refusal's text for the client.
    pub fn refusal(&self) -> String {
        match self {
            Self::Failed(report) if report.step == Stage::Local => {
                format!("{NO_SERVICE}{}", report.why)
            }
            other => format!("{NO_BRIDGE}{other}"),
        }
    }
}

/// Whether a refusal says that the service on the device is not there.
pub fn is_service_failure(refusal: &str) -> bool {
    refusal.starts_with(NO_SERVICE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::np::proof::SocketKey;
    use crate::session::launch::*;
    use crate::testing::every_kind_of_keys;
    use crate::{
        pipe::cipher::Side,
        program::bridge::read_plan,
        secret::Secret,
        session::bridge::{self, Questions, SPOKEN},
    };

    #[test]
    fn a_bridge_is_told_everything_and_no_secret_stands_among_its_words() {
        let service = Endpoint {
            host: "localhost".into(),
            port: 22,
        };
        let far = FarEnd {
            rendezvous: "rv.example:40190".parse().unwrap(),
            admission: Some(Secret::new("the line".into())),
            socket_key: Some(SocketKey::random().unwrap()),
            keys: every_kind_of_keys()[3].clone(),
            side: Side::Device,
        };
        let order = Order {
            local: LocalAddress::Service(&service, None),
            far: &far,
            many: None,
            about: None,
            nearness: None,
            sandbox: true,
        };
        let words = order.words();
        assert_eq!(
            words.join(" "),
            "bridge --secrets-on-stdin --rv-auth --rv-e2ee --host rv.example --port 40190 --local-port 22 --local-host localhost"
        );
        let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let plan = read_plan(&words, Secrets::line(&far, None).reveal().as_bytes()).unwrap();
        assert!(matches!(&plan.local, bridge::LocalEnd::Dial(at) if *at == service));
        assert_eq!(plan.far, far);
    }

    #[test]
    fn a_bridge_without_protection_is_told_of_none() {
        let near: NearnessSet = "world,site".parse().unwrap();
        let service = "localhost:22".parse().unwrap();
        let far = FarEnd {
            rendezvous: "rv.example:1".parse().unwrap(),
            admission: None,
            socket_key: None,
            keys: None,
            side: Side::Device,
        };
        let order = Order {
            local: LocalAddress::Service(&service, None),
            far: &far,
            many: None,
            about: None,
            nearness: Some(near),
            sandbox: true,
        };
        let words = order.words();
        assert!(
            !words.iter().any(|word| word.starts_with("--rv-")),
            "{words:?}"
        );
        let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let plan = read_plan(&words, Secrets::line(&far, None).reveal().as_bytes()).unwrap();
        assert_eq!(plan.far, far);
        assert_eq!(plan.nearness, Some(near));
    }

    #[test]
    fn a_lasting_session_comes_back_as_the_same_plan() {
        let far = FarEnd {
            rendezvous: "rv.example:1".parse().unwrap(),
            admission: Some(Secret::new("the line".into())),
            socket_key: None,
            keys: every_kind_of_keys()[1].clone(),
            side: Side::Client,
        };
        let talk = Many {
            heartbeat: Some(Duration::from_secs(300)),
            pace: Duration::from_millis(50),
            unended: true,
            stands: None,
            first_word: Some(Duration::from_secs(60)),
            questions: Some(Questions::USUAL),
        };
        let order = Order {
            local: LocalAddress::Listen {
                at: "127.0.0.1:0".parse().unwrap(),
                shared: true,
            },
            far: &far,
            many: Some(Lasting {
                idle: Duration::from_millis(30_001),
                talk,
            }),
            about: None,
            nearness: None,
            sandbox: true,
        };
        let words = order.words();
        let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let plan = read_plan(&words, Secrets::line(&far, None).reveal().as_bytes()).unwrap();
        assert_eq!((plan.many, plan.far), (Some(talk), far));
        assert_eq!(plan.timeout, Duration::from_secs(31));
        assert!(matches!(&plan.local, bridge::LocalEnd::Listen(_)));
    }

    #[test]
    fn the_last_report_is_kept_however_much_was_said() {
        let report = Report {
            step: Stage::Session,
            why: "the session broke off: reset".to_owned(),
        };
        let noise = "something else\n".repeat(10_000);
        for (said, want) in [
            (format!("{report}\nException running srv : x\nhint\n"), true),
            (format!("{noise}{report}\n"), true),
            (format!("{report}"), true),
            (format!("{report}\n{noise}"), true),
            (String::new(), false),
            ("x".repeat(100_000), false),
        ] {
            let (heard, _) = async_std::task::block_on(last_words(said.as_bytes(), |_| ()));
            assert_eq!(heard, want.then(|| report.clone()));
        }
    }

    #[test]
    fn a_first_word_is_told_however_much_else_is_said() {
        for (said, want) in [
            (format!("{SPOKEN}\n"), 1),
            (format!("x\n{SPOKEN}\n{}", "y\n".repeat(10_000)), 1),
            (format!("not {SPOKEN}\n"), 0),
            (String::new(), 0),
        ] {
            let mut told = 0;
            let heard = |said: Said<'_>| told += u32::from(matches!(said, Said::Spoken));
            async_std::task::block_on(last_words(said.as_bytes(), heard));
            assert_eq!(told, want, "{}", &said[..said.len().min(60)]);
        }
    }

    #[test]
    fn a_service_that_is_not_there_can_be_told_from_other_failures() {
        for (step, service) in [
            (Stage::Local, true),
            (Stage::Rendezvous, false),
            (Stage::Session, false),
        ] {
            let error = LaunchError::Failed(Report {
                step,
                why: "cannot reach it".into(),
            });
            assert_eq!(is_service_failure(&error.refusal()), service, "{step:?}");
        }
    }
}
