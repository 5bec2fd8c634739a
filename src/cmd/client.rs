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
use log::{LevelFilter, debug, info};

use super::{
    bridge::{self, BridgeError, Local, Plan},
    common::{self, Failure, Progress, exit},
    launch::{self, Order},
    service,
};
use crate::{
    at::{
        AtSign,
        client::{AtError, Client, Event, Network, Subscription},
        crypto::{KeyPair, PublicKey},
        fault::Code,
        keyfile::AtKeys,
    },
    net::dial::Endpoint,
    np::{
        Message, NAMESPACE,
        ids::{DeviceName, Nonce, SessionId},
        ping::Heartbeat,
        ports::Ports,
        request::AnswerError,
        session::{Awaited, Offer, Ready, SessionError},
    },
    pipe::cipher::Side,
    secret::Secret,
    sys::{
        self,
        ssh::{self, HostKeyAlias, Login, UserName},
    },
};

/// Longest wait for the answers to one question, in seconds, unless --timeout says otherwise.
const PATIENCE: u64 = 20;
/// An unanswered question is asked once more after this part of the wait: some daemons lose a notification
/// that arrives while they do something else.
const ASK_AGAIN: f64 = 0.3;
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
    to: AtSign,
    device: DeviceName,
    via: AtSign,
    user: Option<UserName>,
    identity: Option<PathBuf>,
    how: How,
    patience: Duration,
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
        let via = self
            .via
            .clone()
            .or_else(|| std::env::var("NOPORTS_VIA").ok());
        let via = via.ok_or_else(|| {
            Failure::misuse("no rendezvous given").hint("--via @rendezvous, such as --via @rv_eu")
        })?;
        let how = match (self.stdio, self.print) {
            (true, true) => return Err(Failure::misuse("--stdio and --print exclude each other")),
            (true, false) => How::Stdio,
            (false, true) => How::Print,
            (false, false) => How::Shell,
        };
        Ok(Wish {
            to: self.to.parse()?,
            device: self
                .device
                .as_deref()
                .unwrap_or(DeviceName::DEFAULT)
                .parse()
                .map_err(misuse)?,
            via: via.parse()?,
            user: self
                .user
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(misuse)?,
            identity: self.identity.clone().map(PathBuf::from),
            how,
            patience: Duration::from_secs(self.timeout.clamp(1, 3600)),
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
    let keys = Arc::new(common::own_keys(args.as_.as_deref(), args.keys.as_deref())?);
    if wish.how == How::Shell {
        find_ssh()?;
    }
    // A ProxyCommand's stderr is the screen of somebody waiting for a shell: silence unless asked.
    let mut progress = Progress::new(args.quiet || (wish.how == How::Stdio && args.verbose == 0));

    let (opened, user) = open(&network, keys, &wish, &mut progress).await?;
    match wish.how {
        How::Stdio => stdio(opened).await,
        How::Print => print(opened, &wish, user, &mut progress).await,
        How::Shell => shell(opened, &wish, user, &mut progress).await,
    }
}

/// Steps 1 to 3: everything up to a session that only wants bytes. Also finds out the user name.
async fn open(
    network: &Network,
    keys: Arc<AtKeys>,
    wish: &Wish,
    progress: &mut Progress,
) -> Result<(Ready, Option<UserName>), Failure> {
    // Takes a tenth of a second and longer: it runs while the first questions travel.
    let ephemeral = task::spawn_blocking(KeyPair::generate);
    let offer = Offer::new(
        &keys.atsign,
        &wish.to,
        &wish.device,
        &wish.via,
        SessionId::random(),
        Nonce::random(),
    );
    info!(
        "session={} to={} device={} via={}",
        offer.id(),
        wish.to,
        wish.device,
        wish.via
    );

    progress.begin(format!("logging in as {}", keys.atsign));
    let (at, inbox) = Client::login_and_subscribe(network, keys, &offer.watch()).await?;
    progress.done(format!("logged in as {}", at.atsign()));

    let mut talk = Talk {
        at: &at,
        inbox,
        offer: &offer,
        patience: wish.patience,
    };
    progress.begin(format!("asking {} and {}", wish.to, wish.via));
    let questions = [
        (offer.ping(), Awaited::Heartbeat),
        (offer.ask_ports(), Awaited::Ports),
    ];
    for (message, _) in &questions {
        service::send(&at, message)
            .await
            .map_err(|error| about(error, &message.to))?;
    }
    // While they think: who signs the device's answers, and what is our name there?
    let (user, device_key) = (
        user_name(&at, wish).await?,
        device_key(&at, &wish.to).await?,
    );
    let answers = talk
        .wait(&questions)
        .await
        .map_err(|missing| missing.explain(wish))?;
    let [heartbeat, ports] = answers.as_slice() else {
        return Err(Failure::plain("two questions did not get two answers"));
    };
    let heartbeat = Heartbeat::parse(heartbeat).map_err(|why| untrusted(&why))?;
    let ports =
        Ports::parse(ports).map_err(|why| Failure::new(exit::RENDEZVOUS, why.to_string()))?;
    progress.done(format!(
        "{} {} is there; meeting at {}",
        wish.to, wish.device, ports.host
    ));

    let granted = offer.clone().granted(ports, &heartbeat).map_err(too_old)?;
    let ephemeral = ephemeral.await?;
    let twin = granted.twin_keys();
    progress.begin("asking for the session");
    let request = granted
        .request(ephemeral.public(), &at.keys().encryption)
        .map_err(too_old)?;
    service::send(&at, &request).await?;
    let answers = talk
        .wait(&[(request, Awaited::Answer)])
        .await
        .map_err(|missing| missing.explain(wish))?;
    let answer = answers.first().map(String::as_str).unwrap_or_default();
    let ready = granted
        .accepted(answer, &device_key, &ephemeral, &at.keys().encryption)
        .map_err(|why| refused(&why, wish))?;
    progress.done(if twin {
        "session open, one key per direction"
    } else {
        "session open; this daemon knows no twin keys, both directions share one"
    });
    Ok((ready, user))
}

/// Our half of a conversation by notifications.
struct Talk<'a> {
    at: &'a Client,
    inbox: Subscription,
    offer: &'a Offer,
    patience: Duration,
}

/// Why a question has no answer.
enum Missing {
    Silent(Awaited),
    NoPorts(String),
    Connection,
}

impl Talk<'_> {
    /// Waits for one answer to each question, in their order; asks once more what stays unanswered.
    async fn wait(&mut self, questions: &[(Message, Awaited)]) -> Result<Vec<String>, Missing> {
        let mut answers: Vec<Option<String>> = vec![None; questions.len()];
        let first = self.patience.mul_f64(ASK_AGAIN);
        for (attempt, patience) in [first, self.patience - first].into_iter().enumerate() {
            if attempt > 0 {
                for ((message, _), _) in questions
                    .iter()
                    .zip(&answers)
                    .filter(|(_, answer)| answer.is_none())
                {
                    debug!("session={} again={}", self.offer.id(), message.entity);
                    service::send_or_log(self.at, message).await;
                }
            }
            match timeout(patience, self.collect(questions, &mut answers)).await {
                Ok(Ok(())) => return Ok(answers.into_iter().flatten().collect()),
                Ok(Err(missing)) => return Err(missing),
                Err(_) => {}
            }
        }
        let first = answers.iter().position(Option::is_none).unwrap_or_default();
        Err(Missing::Silent(questions[first].1))
    }

    async fn collect(
        &mut self,
        questions: &[(Message, Awaited)],
        answers: &mut [Option<String>],
    ) -> Result<(), Missing> {
        while answers.iter().any(Option::is_none) {
            let note = match self.inbox.next().await.ok_or(Missing::Connection)? {
                Event::Note(note) => note,
                other => {
                    debug!("monitor={other:?}");
                    continue;
                }
            };
            // Only what an awaited sender sent under an awaited key is ever decrypted.
            let Some(kind) = self.offer.recognise(&note.from, note.entity()) else {
                continue;
            };
            let text = match self.at.open(&note).await {
                Ok(text) => text.unwrap_or_default(),
                Err(error) => {
                    debug!(
                        "from={} entity={} error={error:?}",
                        note.from,
                        note.entity()
                    );
                    continue;
                }
            };
            if kind == Awaited::NoPorts {
                return Err(Missing::NoPorts(text));
            }
            if let Some(i) = questions.iter().position(|(_, awaited)| *awaited == kind) {
                answers[i].get_or_insert(text);
            }
        }
        Ok(())
    }
}

impl Missing {
    fn explain(self, wish: &Wish) -> Failure {
        let (to, device, via) = (&wish.to, &wish.device, &wish.via);
        let waited = wish.patience.as_secs();
        match self {
            Self::Silent(Awaited::Ports | Awaited::NoPorts) => {
                Failure::new(exit::RENDEZVOUS, format!("the rendezvous {via} did not answer within {waited} s"))
                    .hint("is it running, and does it serve your atSign? another one: --via")
            }
            Self::Silent(_) => {
                Failure::new(exit::DEVICE_SILENT, format!("{device}{to} did not answer within {waited} s")).hint(
                    "is its daemon running under that device name, and is your atSign among its managers?",
                )
            }
            Self::NoPorts(why) => {
                let why: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
                Failure::new(exit::RENDEZVOUS, format!("the rendezvous {via} refused: {why}"))
            }
            Self::Connection => Failure::new(exit::UNREACHABLE, "the connection to your atServer was lost")
                .hint("check the network and try again"),
        }
    }
}

/// An atServer's refusal, told as what it means for this peer.
fn about(error: AtError, who: &AtSign) -> Failure {
    let code = match &error {
        AtError::Refused(fault) => fault.code,
        _ => None,
    };
    match code {
        Some(Code::NoAtServer) => Failure::new(exit::UNKNOWN, format!("there is no atSign {who}"))
            .hint("is it spelled right, and is this the right atDirectory (--root)?"),
        Some(Code::Handshake | Code::Blocked) => Failure::new(
            exit::DEVICE_REFUSED,
            format!("{who}'s atServer does not let you in"),
        )
        .hint("its owner may have blocked your atSign, or allowed others only"),
        _ => error.into(),
    }
}

async fn device_key(at: &Client, of: &AtSign) -> Result<PublicKey, Failure> {
    at.public_key(of)
        .await
        .map_err(|error| about(error, of))?
        .ok_or_else(|| {
            Failure::new(exit::UNKNOWN, format!("{of} has no public key yet"))
                .hint("activate it on the device first")
        })
}

/// The user name: as told, else what the daemon published for us. `--stdio` leaves it to ssh.
async fn user_name(at: &Client, wish: &Wish) -> Result<Option<UserName>, Failure> {
    if wish.user.is_some() || wish.how == How::Stdio {
        return Ok(wish.user.clone());
    }
    let published = at
        .get_shared(&wish.to, &format!("username.{}.{NAMESPACE}", wish.device))
        .await?;
    published
        .map(|name| name.parse())
        .transpose()
        .map_err(|why| {
            Failure::new(
                exit::NOT_TRUSTWORTHY,
                format!("the device published a strange user name: {why}"),
            )
            .hint("--user NAME")
        })
}

fn too_old(error: SessionError) -> Failure {
    Failure::new(exit::DEVICE_REFUSED, error.to_string()).hint("update the older program")
}

fn untrusted(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(exit::NOT_TRUSTWORTHY, error.to_string())
}

fn refused(error: &AnswerError, wish: &Wish) -> Failure {
    let AnswerError::Refused(why) = error else {
        return untrusted(error);
    };
    let message = error.to_string();
    if launch::is_service_failure(why) {
        Failure::new(exit::SERVICE, message)
            .hint("is sshd running there? the daemon's --sshd-port must be its port")
    } else if why.contains("does not permit") {
        Failure::new(exit::DEVICE_REFUSED, message).hint(format!(
            "start the daemon on {} with --permit-open",
            wish.device
        ))
    } else {
        Failure::new(exit::DEVICE_REFUSED, message)
    }
}

fn plan(ready: Ready, local: Local) -> Plan {
    Plan {
        local,
        rendezvous: Endpoint {
            host: ready.host,
            port: ready.port,
        },
        admission: Some(Secret::new(ready.admission)),
        keys: Some(service::session_keys(&ready.keys)),
        side: Side::Client,
        timeout: FIRST_USE,
    }
}

fn broken(error: &BridgeError) -> Failure {
    let hint = error.hint();
    let failure = Failure::new(exit::RENDEZVOUS, error.to_string());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
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
    let no_port = |error: io::Error| Failure::plain(format!("no loopback port: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", wish.local_port))
        .await
        .map_err(no_port)?;
    let port = listener.local_addr().map_err(no_port)?.port();
    let pipe = task::spawn(bridge::run(plan(ready, Local::Listen(listener)), || {}));
    progress.done(format!(
        "ssh {}@localhost through port {port}",
        user.as_str()
    ));

    let mut child = async_process::Command::new(find_ssh()?)
        .args(ssh_words(wish, &user, port))
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
    let alias = HostKeyAlias::new(wish.device.as_str(), wish.to.as_str());
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
        wish.device, wish.to
    ))
    .hint("--user NAME")
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
        admission: &ready.admission,
        keys: &ready.keys,
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
