//! `noports daemon`: waits on a device for sessions. Listens on nothing.
//!
//! ```text
//!   monitor ──notification──▶ is the sender on the list? ──no──▶ a line in the log, silence
//!                                   │ yes
//!                     ping ◀────────┤────────▶ ssh_request, npt_request: judge ──no──▶ the reason,
//!                  heartbeat                     │ yes                                 to the client
//!                                                ▼
//!                             a bridge process: local service ⇄ rendezvous
//!                                                │ it is up
//!                                                ▼
//!                                 answer with the session's keys
//! ```
//!
//! Each session has a process of its own, so a daemon that restarts, is upgraded or crashes leaves
//! running sessions alone.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use argh::FromArgs;
use async_std::task;
use log::{LevelFilter, error, info, warn};

use super::{
    bridge::Many,
    common::{self, Failure},
    launch::{self, Lasting, Local, Order},
    service,
};
use crate::{
    at::{
        AtKey, AtSign, Notification, Verb,
        client::{AtError, Client, Network},
        keyfile::AtKeys,
        metadata::Metadata,
        verb::Operation,
    },
    net::dial::Endpoint,
    np::{
        Message, NAMESPACE,
        admit::Admission,
        ids::{DeviceName, SessionId},
        permit::Permit,
        ping::{self, Heartbeat},
        request::{self, Keys, SshRequest, TunnelRequest},
    },
    sys,
};

/// How often the device record is published again.
const RECORD_EVERY: Duration = Duration::from_secs(3600);
/// Life of the device record, in milliseconds (30 days).
const RECORD_TTL: u64 = 30 * 24 * 3600 * 1000;
/// Answers that are kept, so that a repeated request gets the same one and acts only once.
const REMEMBERED: usize = 1024;
/// How long a repeated request gets its answer again. Notifications live a minute.
const REMEMBER_FOR: Duration = Duration::from_secs(180);
/// Sessions that may be starting at the same time; more wait for no one and are dropped.
const MAX_STARTING: usize = 64;
/// How much longer than its client the device keeps a tunnel without connections: the client knows who is
/// about to come, so it is the one to end it.
const AFTER_THE_CLIENT: Duration = Duration::from_secs(10);
/// Most managers of one daemon.
const MAX_MANAGERS: usize = 1000;

/// Waits on a device for sessions; opens no port.
#[derive(FromArgs)]
struct Args {
    /// the device's atSign (default: the only one with keys here)
    #[argh(option, long = "as")]
    as_: Option<String>,
    /// who may open sessions; repeat it, or separate with commas
    #[argh(option)]
    manager: Vec<String>,
    /// name of this device (default: "default")
    #[argh(option)]
    device: Option<String>,
    /// what they may open: HOST:PORT,… where either may be *
    #[argh(option)]
    permit_open: Option<String>,
    /// port of the local sshd (default: 22)
    #[argh(option, default = "22")]
    sshd_port: u16,
    /// publish neither user name nor device record
    #[argh(switch)]
    hide: bool,
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
    /// say on stdout, as JSON lines, when it is ready
    #[argh(switch)]
    json: bool,
    /// log errors only
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// log more
    #[argh(switch, short = 'v')]
    verbose: u8,
}

/// Who may open what, through which daemon.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name of this device.
    pub device: DeviceName,
    /// Who may open sessions.
    pub managers: Vec<AtSign>,
    /// What they may open.
    pub permit: Permit,
    /// Port of the local sshd.
    pub sshd_port: u16,
    /// Publish nothing.
    pub hide: bool,
    /// The executable that a session's bridge is started from.
    pub program: PathBuf,
}

/// The program.
pub fn main(name: &str, words: &[&str]) -> ExitCode {
    let args: Args = match common::parse(name, words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    // A daemon's log is its voice: one line per session by default.
    sys::log::start(LevelFilter::Info, args.verbose, args.quiet);
    sys::process::protect_memory();
    let json = args.json;
    common::finish(name, json, common::run(1, service::until_told(story(args))))
}

impl Args {
    fn policy(&self) -> Result<Policy, Failure> {
        let misuse = |error: &dyn std::fmt::Display| Failure::misuse(error.to_string());
        let managers = self
            .manager
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::parse::<AtSign>)
            .collect::<Result<Vec<_>, _>>()?;
        if managers.is_empty() || managers.len() > MAX_MANAGERS {
            return Err(
                Failure::misuse("a daemon needs somebody who may use it").hint("--manager @you")
            );
        }
        let permit = self
            .permit_open
            .clone()
            .unwrap_or_else(|| format!("localhost:{},localhost:3389", self.sshd_port));
        Ok(Policy {
            device: self
                .device
                .as_deref()
                .unwrap_or(DeviceName::DEFAULT)
                .parse()
                .map_err(|e| misuse(&e))?,
            managers,
            permit: permit
                .parse()
                .map_err(|e| misuse(&e).hint("--permit-open localhost:22,nas:*"))?,
            sshd_port: self.sshd_port,
            hide: self.hide,
            program: sys::process::own_executable()
                .map_err(|e| Failure::plain(format!("cannot find this program's own file: {e}")))?,
        })
    }
}

async fn story(args: Args) -> Result<(), Failure> {
    let policy = args.policy()?;
    let network = common::network(args.root.as_deref(), &args.ca)?;
    let phrases = common::Phrases::new(args.passphrase_file.as_deref())?;
    let (as_, keys) = (args.as_.as_deref(), args.keys.as_deref());
    let keys = Arc::new(common::own_keys_under(as_, keys, &phrases)?);
    serve(network, keys, policy, service::tell(args.json)).await
}

/// Serves until the connection has ended for good. `ready` is called once, with a JSON line, when requests are heard.
///
/// # Errors
/// When trying again cannot help.
pub async fn serve(
    network: Network,
    keys: Arc<AtKeys>,
    policy: Policy,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    let watch = format!(r"\.{}\.{NAMESPACE}@", policy.device);
    let (at, inbox) = service::log_in(&network, &keys, &watch).await?;
    let daemon = Daemon {
        at,
        policy: Arc::new(policy),
        known: Arc::default(),
    };
    ready(&daemon.announce());
    task::spawn(daemon.clone().publish_for_ever());

    service::listen(inbox, |note| daemon.hear(note)).await
}

/// The daemon; cheap to clone.
#[derive(Clone)]
struct Daemon {
    at: Client,
    policy: Arc<Policy>,
    known: Arc<Mutex<Known>>,
}

impl Daemon {
    fn announce(&self) -> String {
        let (at, p) = (self.at.atsign(), &self.policy);
        let managers: Vec<_> = p.managers.iter().map(AtSign::as_str).collect();
        info!(
            "ready as={at} device={} managers={} permit={}",
            p.device,
            managers.join(","),
            p.permit
        );
        format!(r#"{{"event":"ready","as":"{at}","device":"{}"}}"#, p.device)
    }

    /// One notification. Never blocks: whatever takes time gets a task of its own.
    fn hear(&self, note: Notification) {
        let Some(word) = self.word(&note) else { return };
        if !self.policy.managers.contains(&note.from) {
            info!(
                "ignored from={} word={word} reason=not_a_manager",
                note.from
            );
            return;
        }
        match word {
            "ping" => drop(task::spawn(self.clone().answer_ping(note))),
            "ssh_request" | "npt_request" => {
                let tunnel = word == "npt_request";
                if self.known().starting >= MAX_STARTING {
                    warn!(
                        "ignored from={} word={word} reason=too_many_starting",
                        note.from
                    );
                    return;
                }
                self.known().starting += 1;
                let daemon = self.clone();
                task::spawn(async move {
                    daemon.serve(note, tunnel).await;
                    daemon.known().starting -= 1;
                });
            }
            _ => info!("ignored from={} word={word} reason=unknown_word", note.from),
        }
    }

    /// The first part of `<word>.<device>.sshnp`, if the notification is for this device.
    fn word<'a>(&self, note: &'a Notification) -> Option<&'a str> {
        if note.operation != Operation::Update || note.is_text || note.is_stats() {
            return None;
        }
        let rest = note
            .entity()
            .strip_suffix(&format!(".{}.{NAMESPACE}", self.policy.device))?;
        (!rest.contains('.')).then_some(rest)
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat::ours(&self.policy.device, self.policy.permit.services())
    }

    async fn answer_ping(self, note: Notification) {
        match self.at.open(&note).await {
            Ok(Some(text)) if text == ping::PING => {
                let answer = ping::answer(&note.from, &self.policy.device, &self.heartbeat());
                service::send_or_log(&self.at, &answer).await;
            }
            other => info!(
                "ignored from={} word=ping reason={:?}",
                note.from,
                other.err()
            ),
        }
    }

    /// One session request, from a manager: judge it, open the session, answer.
    async fn serve(&self, note: Notification, tunnel: bool) {
        let from = note.from.clone();
        let text = match self.at.open(&note).await {
            Ok(Some(text)) => text,
            other => return info!("refused from={from} reason={:?}", other.err()),
        };
        let Some(session) = SshRequest::claimed_session(&text) else {
            return info!("refused from={from} reason=no_session");
        };
        let seen = self.known().seen(session, &from);
        match seen {
            Seen::New => {}
            Seen::InWork => return,
            Seen::Answered(message) => return service::send_or_log(&self.at, &message).await,
            Seen::Foreign => {
                return info!("refused session={session} from={from} reason=anothers_session");
            }
        }
        let answer = match self.open_session(&from, &text, tunnel).await {
            Ok(answer) => answer,
            Err(why) => {
                info!("refused session={session} from={from} reason={why:?}");
                request::refuse(session, &why, &from, &self.policy.device)
            }
        };
        self.known().answered(session, answer.clone());
        service::send_or_log(&self.at, &answer).await;
    }

    /// Everything between a request's text and the yes. `Err` is the reason, in words for the client.
    async fn open_session(
        &self,
        from: &AtSign,
        text: &str,
        tunnel: bool,
    ) -> Result<Message, String> {
        let signer = match self.at.public_key(from).await {
            Ok(Some(key)) => key,
            Ok(None) => return Err(format!("Signature not verified: {from} has no public key")),
            Err(error) => return Err(format!("Signature not verified: {error}")),
        };
        let asked = if tunnel {
            TunnelRequest::parse(text, &signer).map(Asked::Tunnel)
        } else {
            SshRequest::parse(text, &signer).map(Asked::Ssh)
        };
        let asked = asked.map_err(|why| why.to_string())?;
        let target = self.judge(&asked)?;
        let request = asked.common();
        let keys = Keys::random(request.twin_keys).map_err(|why| why.to_string())?;
        let (me, device) = (&self.at.keys().encryption, &self.policy.device);
        let answer = match &asked {
            Asked::Ssh(request) => request::accept(request, &keys, from, device, me),
            Asked::Tunnel(request) => request::accept_tunnel(request, &keys, from, device, me),
        };
        let answer = answer.map_err(|why| why.to_string())?;
        let twin = keys.are_twin();
        info!(
            "session={} from={from} open={target} rendezvous={}:{} twin_keys={twin}",
            request.session, request.host, request.port
        );
        self.start_bridge(request, &keys, target, asked.lasting())
            .await?;
        Ok(answer)
    }

    /// May this be opened? Says what to dial, or why not.
    fn judge(&self, asked: &Asked) -> Result<Endpoint, String> {
        let (target, refusal) = match asked {
            Asked::Ssh(_) => {
                let sshd = Endpoint {
                    host: "localhost".to_owned(),
                    port: self.policy.sshd_port,
                };
                let refusal = format!("Daemon does not permit connections to {sshd}");
                (sshd, refusal)
            }
            Asked::Tunnel(request) => {
                let (host, port) = (&request.target_host, request.target_port);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let target = Endpoint::parse(host, Some(port))
                    .ok()
                    .filter(|target| target.host == host);
                let target = target.ok_or_else(|| format!("{host:?} is no host"))?;
                let list = self.policy.permit.services().join(", ");
                let refusal =
                    format!("Connection to {target} denied based on daemon --permit-open [{list}]");
                (target, refusal)
            }
        };
        if self.policy.permit.allows(&target.host, target.port) {
            Ok(target)
        } else {
            Err(refusal)
        }
    }

    /// Starts the session's own process and waits until both its connections stand.
    async fn start_bridge(
        &self,
        request: &SshRequest,
        keys: &Keys,
        target: Endpoint,
        many: Option<Lasting>,
    ) -> Result<(), String> {
        let admission = Admission {
            session: request.session,
            client_nonce: request.client_nonce.clone(),
            rendezvous_nonce: request.rendezvous_nonce.clone(),
        };
        let line = admission
            .line(&self.at.keys().encryption)
            .map_err(|why| why.to_string())?;
        let order = Order {
            local: Local::Service(&target),
            rendezvous: Endpoint {
                host: request.host.clone(),
                port: request.port,
            },
            admission: &line,
            keys,
            many,
        };
        let bridge = launch::start(&self.policy.program, &order)
            .await
            .map_err(|why| why.refusal())?;
        let session = request.session;
        task::spawn(async move {
            let ended = bridge.ended().await;
            info!("session={session} ended={ended}");
        });
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// User name and device record, now and every hour; what cannot be published is tried again.
    async fn publish_for_ever(self) {
        loop {
            let pause = match self.publish().await {
                Ok(()) => RECORD_EVERY,
                Err(why) => {
                    error!("publish={why:?}");
                    Duration::from_secs(30)
                }
            };
            task::sleep(pause).await;
        }
    }

    async fn publish(&self) -> Result<(), AtError> {
        let device = &self.policy.device;
        let (name, info) = (
            format!("username.{device}.{NAMESPACE}"),
            format!("device_info.{device}.{NAMESPACE}"),
        );
        for manager in &self.policy.managers {
            if self.policy.hide {
                for entity in [&name, &info] {
                    let key = AtKey::shared(manager, entity, self.at.atsign());
                    self.at
                        .run(&Verb::Delete {
                            key,
                            priority: None,
                        })
                        .await?;
                }
                continue;
            }
            let metadata = Metadata {
                ttr: Some(-1),
                ccd: Some(true),
                ..Metadata::default()
            };
            if let Some(user) = sys::user::name() {
                self.at
                    .put_shared(manager, &name, &user, metadata.clone())
                    .await?;
            }
            let metadata = Metadata {
                ttl: Some(RECORD_TTL),
                ..metadata
            };
            self.at
                .put_shared(manager, &info, &self.heartbeat().print(), metadata)
                .await?;
        }
        Ok(())
    }
}

/// What a client may ask for.
enum Asked {
    Ssh(SshRequest),
    Tunnel(TunnelRequest),
}

impl Asked {
    fn common(&self) -> &SshRequest {
        match self {
            Self::Ssh(request) => request,
            Self::Tunnel(request) => &request.session,
        }
    }

    fn lasting(&self) -> Option<Lasting> {
        match self {
            Self::Ssh(_) => None,
            Self::Tunnel(request) => Some(Lasting {
                idle: request.timeout + AFTER_THE_CLIENT,
                talk: Many::default(),
            }),
        }
    }
}

/// The sessions of the last minutes.
#[derive(Default)]
struct Known {
    starting: usize,
    sessions: HashMap<SessionId, (AtSign, Option<Message>)>,
    order: VecDeque<(Instant, SessionId)>,
}

/// What is known about a session id.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    New,
    InWork,
    Answered(Message),
    /// Asked for before, by somebody else.
    Foreign,
}

impl Known {
    fn seen(&mut self, session: SessionId, from: &AtSign) -> Seen {
        self.forget(Instant::now());
        match self.sessions.get(&session) {
            Some((owner, _)) if owner != from => Seen::Foreign,
            Some((_, None)) => Seen::InWork,
            Some((_, Some(answer))) => Seen::Answered(answer.clone()),
            None => {
                self.sessions.insert(session, (from.clone(), None));
                self.order.push_back((Instant::now(), session));
                Seen::New
            }
        }
    }

    fn answered(&mut self, session: SessionId, answer: Message) {
        if let Some((_, slot)) = self.sessions.get_mut(&session) {
            *slot = Some(answer);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((when, session)) = self.order.front().copied() {
            if self.order.len() < REMEMBERED && now.duration_since(when) < REMEMBER_FOR {
                break;
            }
            self.order.pop_front();
            self.sessions.remove(&session);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_opened_once_however_often_it_is_asked_for() {
        let (mut known, session) = (Known::default(), SessionId::random());
        let (alice, mallory): (AtSign, AtSign) =
            ("@alice".parse().unwrap(), "@mallory".parse().unwrap());
        assert_eq!(known.seen(session, &alice), Seen::New);
        assert_eq!(known.seen(session, &alice), Seen::InWork);
        let answer = request::refuse(session, "no", &alice, &"d".parse().unwrap());
        known.answered(session, answer.clone());
        assert_eq!(known.seen(session, &alice), Seen::Answered(answer));
        assert_eq!(known.seen(session, &mallory), Seen::Foreign);
        known.forget(Instant::now() + REMEMBER_FOR);
        assert_eq!(known.seen(session, &alice), Seen::New);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut known, alice) = (Known::default(), "@alice".parse().unwrap());
        for _ in 0..3 * REMEMBERED {
            known.seen(SessionId::random(), &alice);
        }
        assert!(
            known.sessions.len() <= REMEMBERED,
            "{}",
            known.sessions.len()
        );
    }
}
