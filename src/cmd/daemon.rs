//! `noports daemon`: waits on a device for sessions. Listens on nothing.
//!
//! ```text
//!   monitor ──notification──▶ is the sender on the list? ──no──▶ a line in the log, silence;
//!                                   │ yes                        with a policy: what it says
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
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use argh::FromArgs;
use async_std::task;
use log::{LevelFilter, error, info, warn};

use super::{
    authorise::{Consult, Doorman, Verdict},
    bridge::Many,
    common::{self, Failure},
    launch::{self, Lasting, Local, Order},
    service,
};
use crate::{
    at::{
        AtKey, AtSign, Notification, Verb,
        client::{AtError, Client, Network},
        crypto::PublicKey,
        keyfile::AtKeys,
        metadata::Metadata,
        verb::Operation,
    },
    net::dial::Endpoint,
    np::{
        Message, NAMESPACE,
        envelope::EnvelopeError,
        ids::DeviceName,
        permit::Permit,
        ping::{self, Heartbeat},
        policy::{self, DeviceGroup},
        request::{self, Keys, Meeting, Nonces, RequestError, SshRequest, TunnelRequest},
    },
    sys,
};

use known::{Known, Seen};

mod known;

/// How often the policy is told that the device is there.
const SHOW_EVERY: Duration = Duration::from_secs(300);
/// How often the device record is published again.
const RECORD_EVERY: Duration = Duration::from_secs(3600);
/// Life of the device record, in milliseconds (30 days).
const RECORD_TTL: u64 = 30 * 24 * 3600 * 1000;
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
    /// atSign of a policy that is asked about everybody else
    #[argh(option)]
    policy: Option<String>,
    /// group of this device, for the policy (default: none)
    #[argh(option)]
    device_group: Option<String>,
    /// what they may open: HOST:PORT,… where either may be * (default: ssh and 3389; with a policy: what it says)
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
    /// Whom to ask about everybody else.
    pub consult: Option<Consult>,
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
        let consult = self.consult()?;
        if (managers.is_empty() && consult.is_none()) || managers.len() > MAX_MANAGERS {
            return Err(
                Failure::misuse("a daemon needs somebody who may use it").hint("--manager @you")
            );
        }
        let permit = match (&self.permit_open, &consult) {
            (Some(list), _) => list.clone(),
            (None, Some(_)) => "*:*".to_owned(),
            (None, None) => format!("localhost:{},localhost:3389", self.sshd_port),
        };
        Ok(Policy {
            device: self
                .device
                .as_deref()
                .unwrap_or(DeviceName::DEFAULT)
                .parse()
                .map_err(|e| misuse(&e))?,
            managers,
            consult,
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

impl Args {
    fn consult(&self) -> Result<Option<Consult>, Failure> {
        let group = match &self.device_group {
            Some(name) => name.parse().map_err(|e| Failure::misuse(format!("{e}")))?,
            None => DeviceGroup::default(),
        };
        let word = self.policy.as_deref().map(str::trim);
        let policy = word.filter(|w| !w.is_empty()).map(str::parse::<AtSign>);
        Ok(policy.transpose()?.map(|policy| Consult { policy, group }))
    }
}

/// Whether it would start with these words; for a service, before it is installed.
pub fn verify(name: &str, words: &[&str]) -> ExitCode {
    common::verify(name, words, |args: Args| args.ready().map(drop))
}

impl Args {
    /// Everything that can be wrong before anybody is dialled.
    fn ready(&self) -> Result<(Network, Arc<AtKeys>, Policy), Failure> {
        let policy = self.policy()?;
        let network = common::network(self.root.as_deref(), &self.ca)?;
        let phrases = common::Phrases::new(self.passphrase_file.as_deref())?;
        let (as_, keys) = (self.as_.as_deref(), self.keys.as_deref());
        let keys = Arc::new(common::own_keys_under(as_, keys, &phrases)?);
        Ok((network, keys, policy))
    }
}

async fn story(args: Args) -> Result<(), Failure> {
    let (network, keys, policy) = args.ready()?;
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
    let mut watch = format!(r"\.{}\.{NAMESPACE}@", policy.device);
    if policy.consult.is_some() {
        watch = format!("{watch}|{}", policy::WATCH_RPC);
    }
    let (at, inbox) = service::log_in(&network, &keys, &watch).await?;
    let (device, managers) = (policy.device.clone(), policy.managers.clone());
    let daemon = Daemon {
        doorman: Doorman::new(at.clone(), device, managers, policy.consult.clone()),
        at,
        policy: Arc::new(policy),
        known: Arc::default(),
    };
    ready(&daemon.announce());
    task::spawn(daemon.clone().publish_for_ever());
    task::spawn(daemon.clone().show_for_ever());

    service::listen(inbox, |note| daemon.hear(note)).await
}

/// The daemon; cheap to clone.
#[derive(Clone)]
struct Daemon {
    at: Client,
    doorman: Doorman,
    policy: Arc<Policy>,
    known: Arc<Mutex<Known>>,
}

impl Daemon {
    fn announce(&self) -> String {
        let (at, p) = (self.at.atsign(), &self.policy);
        let managers: Vec<_> = p.managers.iter().map(AtSign::as_str).collect();
        info!(
            "ready as={at} device={} managers={} policy={} permit={}",
            p.device,
            managers.join(","),
            p.consult.as_ref().map_or("none", |c| c.policy.as_str()),
            p.permit
        );
        format!(r#"{{"event":"ready","as":"{at}","device":"{}"}}"#, p.device)
    }

    /// One notification. Never blocks: whatever takes time gets a task of its own.
    fn hear(&self, note: Notification) {
        if self.doorman.takes(&note) || self.word(&note).is_none() {
            return;
        }
        let daemon = self.clone();
        task::spawn(async move {
            let verdict = daemon.doorman.authorise(&note.from).await;
            daemon.act(note, verdict);
        });
    }

    fn act(&self, note: Notification, verdict: Verdict) {
        let Some(word) = self.word(&note) else { return };
        let permit = match verdict {
            Verdict::Allowed(permit) => Ok(permit),
            Verdict::Denied(why) => Err(why),
            Verdict::Ignored(reason) => {
                info!("ignored from={} word={word} reason={reason}", note.from);
                return;
            }
        };
        match word {
            "ping" => drop(task::spawn(self.clone().answer_ping(note, permit.is_ok()))),
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
                    match permit {
                        Ok(permit) => daemon.serve(note, tunnel, &permit).await,
                        Err(why) => daemon.deny(note, &why).await,
                    }
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
        let ours = Heartbeat::ours(&self.policy.device, self.policy.permit.services());
        match &self.policy.consult {
            Some(consult) => Heartbeat {
                group: consult.group.to_string(),
                ..ours
            },
            None => ours,
        }
    }

    /// Whoever is denied learns that the device is there, so that its client goes on to ask, and hears why
    /// not; but not what others may open.
    async fn answer_ping(self, note: Notification, allowed: bool) {
        if !allowed {
            let nothing = Heartbeat {
                services: Vec::new(),
                ..self.heartbeat()
            };
            let answer = ping::answer(&note.from, &self.policy.device, &nothing);
            return service::send_or_log(&self.at, &answer).await;
        }
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

    /// One session request, from somebody whom the policy denies: pass its reason on.
    async fn deny(&self, note: Notification, why: &str) {
        let from = &note.from;
        let text = self.at.open(&note).await.ok().flatten();
        match text.as_deref().and_then(request::claimed_session) {
            Some(session) => {
                info!("refused session={session} from={from} reason={why:?}");
                let answer = request::refuse(session, why, from, &self.policy.device);
                service::send_or_log(&self.at, &answer).await;
            }
            None => info!("refused from={from} reason={why:?}"),
        }
    }

    /// One session request, from somebody who may ask: judge it, open the session, answer.
    async fn serve(&self, note: Notification, tunnel: bool, permit: &Permit) {
        let from = note.from.clone();
        let text = match self.at.open(&note).await {
            Ok(Some(text)) => text,
            other => return info!("refused from={from} reason={:?}", other.err()),
        };
        let Some(session) = request::claimed_session(&text) else {
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
        let answer = match self.open_session(&from, &text, tunnel, permit).await {
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
        permit: &Permit,
    ) -> Result<Message, String> {
        let asked = self.read_request(from, text, tunnel).await?;
        let target = self.judge(&asked, permit)?;
        let meeting = asked.meeting();
        let (Some(nonces), Some(encryption)) = (&meeting.admission, &meeting.encryption) else {
            return Err("this daemon does not do sessions without protection".to_owned());
        };
        let keys = Keys::random(encryption.twin_keys).map_err(|why| why.to_string())?;
        let (me, device) = (&self.at.keys().encryption, &self.policy.device);
        let answer = match &asked {
            Asked::Ssh(request) => request::accept(request, Some(&keys), None, from, device, me),
            Asked::Tunnel(request) => {
                request::accept_tunnel(request, Some(&keys), from, device, me)
            }
        };
        let answer = answer.map_err(|why| why.to_string())?;
        let twin = keys.are_twin();
        info!(
            "session={} from={from} open={target} rendezvous={}:{} twin_keys={twin}",
            meeting.session, meeting.host, meeting.port
        );
        self.start_bridge(meeting, nonces, &keys, target, asked.lasting())
            .await?;
        Ok(answer)
    }

    /// Reads a request, and makes sure that its sender signed it.
    async fn read_request(&self, from: &AtSign, text: &str, tunnel: bool) -> Result<Asked, String> {
        let read = |signer: &PublicKey| {
            if tunnel {
                TunnelRequest::parse(text, signer).map(Asked::Tunnel)
            } else {
                SshRequest::parse(text, signer).map(Asked::Ssh)
            }
        };
        let there = |found: Result<Option<PublicKey>, AtError>| match found {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err(format!("Signature not verified: {from} has no public key")),
            Err(error) => Err(format!("Signature not verified: {error}")),
        };
        let remembered = there(self.at.public_key(from).await)?;
        match read(&remembered) {
            // The sender may have new keys since we looked.
            Err(RequestError::Envelope(EnvelopeError::Signature)) => {
                let signer = there(self.at.public_key_afresh(from).await)?;
                read(&signer).map_err(|why| why.to_string())
            }
            other => other.map_err(|why| why.to_string()),
        }
    }

    /// May this be opened, by the daemon's list and by the client's? Says what to dial, or why not.
    fn judge(&self, asked: &Asked, permit: &Permit) -> Result<Endpoint, String> {
        let target = match asked {
            Asked::Ssh(_) => Endpoint {
                host: "localhost".to_owned(),
                port: self.policy.sshd_port,
            },
            Asked::Tunnel(request) => {
                let (host, port) = (&request.target_host, request.target_port);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let target = Endpoint::parse(host, Some(port))
                    .ok()
                    .filter(|target| target.host == host);
                target.ok_or_else(|| format!("{host:?} is no host"))?
            }
        };
        let lists = [
            (&self.policy.permit, "Daemon does not permit", "daemon"),
            (permit, "Client is not permitted", "POLICY"),
        ];
        for (list, ssh, whose) in lists {
            if !list.allows(&target.host, target.port) {
                let words = list.services().join(", ");
                return Err(match asked {
                    Asked::Ssh(_) => format!("{ssh} connections to {target}"),
                    Asked::Tunnel(_) => format!(
                        "Connection to {target} denied based on {whose} --permit-open [{words}]"
                    ),
                });
            }
        }
        Ok(target)
    }

    /// Starts the session's own process and waits until both its connections stand.
    async fn start_bridge(
        &self,
        meeting: &Meeting,
        nonces: &Nonces,
        keys: &Keys,
        target: Endpoint,
        many: Option<Lasting>,
    ) -> Result<(), String> {
        let line = nonces
            .admission(meeting.session)
            .line(&self.at.keys().encryption)
            .map_err(|why| why.to_string())?;
        let order = Order {
            local: Local::Service(&target),
            rendezvous: Endpoint {
                host: meeting.host.clone(),
                port: meeting.port,
            },
            admission: Some(&line),
            keys: Some(keys),
            many,
        };
        let bridge = launch::start(&self.policy.program, &order)
            .await
            .map_err(|why| why.refusal())?;
        let session = meeting.session;
        task::spawn(async move {
            let ended = bridge.ended().await;
            info!("session={session} ended={ended}");
        });
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sign of life for the policy, now and every few minutes.
    async fn show_for_ever(self) {
        while self.policy.consult.is_some() {
            self.doorman.show(&self.heartbeat()).await;
            task::sleep(SHOW_EVERY).await;
        }
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
    fn meeting(&self) -> &Meeting {
        match self {
            Self::Ssh(request) => &request.meeting,
            Self::Tunnel(request) => &request.meeting,
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
