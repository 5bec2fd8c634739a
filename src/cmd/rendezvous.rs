//! `noports rendezvous`: two ports per session, admit each end, join them.
//!
//! ```text
//!   request_ports ──▶ two listeners ──▶ host,A,B,nonce
//!
//!   client ══▶ A ─ admission line? ─┐
//!                                   ├─ pair, in order of arrival ─▶ splice, bytes unseen
//!   daemon ══▶ B ─ admission line? ─┘
//!
//!   30 s without a pair, or the last pair ended ⇒ both listeners close, nothing is left
//! ```

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use argh::FromArgs;
use async_std::{net::TcpListener, task};
use futures_lite::{FutureExt, future};
use log::{LevelFilter, info, warn};

use super::{
    common::{self, Failure},
    service,
};
use crate::{
    at::{
        AtSign, Notification,
        client::{Client, Network},
        keyfile::AtKeys,
        verb::Operation,
    },
    np::{
        Message, RENDEZVOUS_NAMESPACE,
        admit::Admission,
        ids::{Nonce, SessionId},
        ports::{self, Ports, PortsRequest},
    },
    sys,
};

use meeting::{Gate, Signer, pair_up};

mod meeting;

/// How long the id of a session that is over is remembered. Notifications live a minute.
const REMEMBER_FOR: Duration = Duration::from_secs(90);
/// Sessions of one atSign at a time.
const MAX_PER_CLIENT: usize = 256;

/// The meeting point: joins two outbound sockets.
#[derive(FromArgs)]
struct Args {
    /// the rendezvous' atSign (default: the only one with keys here)
    #[argh(option, long = "as")]
    as_: Option<String>,
    /// name or address that both ends dial
    #[argh(option)]
    host: String,
    /// local address to listen on (default: loopback if --host is, else all)
    #[argh(option)]
    bind: Option<IpAddr>,
    /// who may ask for ports: an atSign (repeat it), or "open" (default)
    #[argh(option)]
    manager: Vec<String>,
    /// sessions at a time (default: 4096)
    #[argh(option, default = "4096")]
    max_sessions: usize,
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
    passphrase_file: Option<std::path::PathBuf>,
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

/// Who may use the rendezvous, and how.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What both ends are told to dial.
    pub host: String,
    /// Where the ports are opened.
    pub bind: IpAddr,
    /// Who may ask for ports; empty: anybody.
    pub managers: Vec<AtSign>,
    /// Sessions at a time.
    pub max_sessions: usize,
}

/// The program.
pub fn main(name: &str, words: &[&str]) -> ExitCode {
    let args: Args = match common::parse(name, words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    sys::log::start(LevelFilter::Info, args.verbose, args.quiet);
    sys::process::protect_memory();
    let json = args.json;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    common::finish(
        name,
        json,
        common::run(threads, service::until_told(story(args))),
    )
}

impl Args {
    fn policy(&self) -> Result<Policy, Failure> {
        if !ports::host_is_plain(&self.host) {
            return Err(Failure::misuse(format!(
                "{:?} is no host name or address",
                self.host
            )));
        }
        let words = self
            .manager
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::trim);
        let managers = words
            .filter(|word| !word.is_empty() && *word != "open")
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(Policy {
            host: self.host.clone(),
            bind: self.bind.unwrap_or_else(|| default_bind(&self.host)),
            managers,
            max_sessions: self.max_sessions,
        })
    }
}

/// Loopback stays loopback; everything else is reachable from outside.
fn default_bind(host: &str) -> IpAddr {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => address,
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ if host == "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
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
    let watch = format!(r"\.{RENDEZVOUS_NAMESPACE}@");
    let (at, inbox) = service::log_in(&network, &keys, &watch).await?;
    info!(
        "ready as={} host={} bind={}",
        at.atsign(),
        policy.host,
        policy.bind
    );
    ready(&format!(r#"{{"event":"ready","as":"{}"}}"#, at.atsign()));
    let rendezvous = Rendezvous {
        at,
        policy: Arc::new(policy),
        sessions: Arc::default(),
    };
    service::listen(inbox, |note| rendezvous.hear(note)).await
}

/// The rendezvous; cheap to clone.
#[derive(Clone)]
struct Rendezvous {
    at: Client,
    policy: Arc<Policy>,
    sessions: Arc<Mutex<HashMap<SessionId, Session>>>,
}

/// A session that has its ports, is about to, or had them.
struct Session {
    client: AtSign,
    answer: Option<Message>,
    /// Over since then. It is remembered a while, so that a request that comes twice opens no ports for nobody.
    ended: Option<Instant>,
}

impl Session {
    fn of(client: &AtSign) -> Self {
        Self {
            client: client.clone(),
            answer: None,
            ended: None,
        }
    }

    fn is_live(&self) -> bool {
        self.ended.is_none()
    }
}

/// What a request meets.
enum Place {
    Free,
    Repeated(Option<Message>),
    Refused(&'static str),
}

impl Rendezvous {
    fn hear(&self, note: Notification) {
        let wanted = note.operation == Operation::Update
            && !note.is_text
            && !note.is_stats()
            && PortsRequest::is_asked_by(note.entity());
        if !wanted {
            return;
        }
        let allowed = self.policy.managers.is_empty() || self.policy.managers.contains(&note.from);
        if !allowed {
            return info!("ignored from={} reason=not_a_manager", note.from);
        }
        let rendezvous = self.clone();
        task::spawn(async move { rendezvous.serve(note).await });
    }

    /// One request for ports: answer it, then be the meeting place until it is over.
    async fn serve(&self, note: Notification) {
        let from = &note.from;
        let text = match self.at.open(&note).await {
            Ok(Some(text)) => text,
            other => return info!("refused from={from} reason={:?}", other.err()),
        };
        let request = match PortsRequest::parse(from, &text) {
            Ok(request) => request,
            Err(why) => return info!("refused from={from} reason={:?}", why.to_string()),
        };
        let session = request.session;
        match self.place(&request) {
            Place::Free => {}
            Place::Repeated(None) => return,
            Place::Repeated(Some(answer)) => return service::send_or_log(&self.at, &answer).await,
            Place::Refused(why) => return self.refuse(&request, why).await,
        }
        match self.meet(&request).await {
            Ok(pairs) => info!("session={session} ended pairs={pairs}"),
            Err(why) => {
                warn!("session={session} error={why:?}");
                self.refuse(&request, "no ports can be opened").await;
            }
        }
        if let Some(known) = self.sessions().get_mut(&session) {
            known.ended = Some(Instant::now());
        }
    }

    fn place(&self, request: &PortsRequest) -> Place {
        let mut sessions = self.sessions();
        let remember = if sessions.len() < 2 * self.policy.max_sessions {
            REMEMBER_FOR
        } else {
            Duration::ZERO
        };
        sessions.retain(|_, session| session.ended.is_none_or(|when| when.elapsed() < remember));
        if let Some(known) = sessions.get(&request.session) {
            return match known {
                other if other.client != request.client => {
                    Place::Refused("the session id is taken")
                }
                over if !over.is_live() => Place::Repeated(None),
                live => Place::Repeated(live.answer.clone()),
            };
        }
        let live = || sessions.values().filter(|session| session.is_live());
        let of_this_client = live()
            .filter(|session| session.client == request.client)
            .count();
        if live().count() >= self.policy.max_sessions || of_this_client >= MAX_PER_CLIENT {
            return Place::Refused("too many sessions at a time");
        }
        sessions.insert(request.session, Session::of(&request.client));
        Place::Free
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn refuse(&self, request: &PortsRequest, why: &str) {
        info!(
            "refused session={} from={} reason={why:?}",
            request.session, request.client
        );
        let entity = ports::refusal_entity(request.session);
        let message = Message {
            to: request.client.clone(),
            entity,
            text: why.to_owned(),
        };
        service::send_or_log(&self.at, &message).await;
    }

    /// Opens both ports, tells the client, joins whoever is admitted. Returns how many pairs there were.
    async fn meet(&self, request: &PortsRequest) -> io::Result<usize> {
        let any = SocketAddr::new(self.policy.bind, 0);
        let (a, b) = (TcpListener::bind(any).await?, TcpListener::bind(any).await?);
        let nonce = Nonce::random();
        let granted = Ports {
            host: self.policy.host.clone(),
            client: a.local_addr()?.port(),
            daemon: b.local_addr()?.port(),
            nonce: Some(nonce.clone()),
        };
        let entity = ports::answer_entity(request.session);
        let answer = Message {
            to: request.client.clone(),
            entity,
            text: granted.print(),
        };
        if let Some(known) = self.sessions().get_mut(&request.session) {
            known.answer = Some(answer.clone());
        }
        info!(
            "session={} client={} daemon={} ports={},{}",
            request.session, request.client, request.daemon, granted.client, granted.daemon
        );
        let admission = Admission {
            session: request.session,
            client_nonce: request.nonce.clone(),
            rendezvous_nonce: nonce,
        };
        let admission = Arc::new(admission);
        let gate = |listener, who: &AtSign| Gate {
            listener,
            admission: admission.clone(),
            key: Signer {
                at: self.at.clone(),
                who: who.clone(),
            },
        };
        let (gate_a, gate_b) = (gate(a, &request.client), gate(b, &request.daemon));
        let tell = async {
            service::send_or_log(&self.at, &answer).await;
            future::pending().await
        };
        Ok(tell.or(pair_up(gate_a, gate_b)).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_stays_loopback() {
        for (host, want) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("localhost", "127.0.0.1"),
            ("192.0.2.7", "0.0.0.0"),
            ("2001:db8::1", "::"),
            ("rv.example.org", "0.0.0.0"),
        ] {
            assert_eq!(default_bind(host).to_string(), want, "{host}");
        }
    }
}
