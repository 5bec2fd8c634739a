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
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use argh::FromArgs;
use async_std::{
    channel::{self, Receiver, Sender},
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::{FutureExt, future};
use log::{LevelFilter, debug, info, warn};

use super::{
    common::{self, Failure},
    service,
};
use crate::{
    at::{
        AtSign, Notification,
        client::{Client, Network},
        crypto::PublicKey,
        keyfile::AtKeys,
        verb::Operation,
    },
    net::line::read_line,
    np::{
        Message, RENDEZVOUS_NAMESPACE,
        admit::{Admission, MAX_ADMISSION},
        ids::{Nonce, SessionId},
        ports::{self, Ports, PortsRequest},
    },
    pipe::join::splice,
    sys,
};

/// A session whose two ends have not met by then is given up.
const GRACE: Duration = Duration::from_secs(30);
/// A socket that has not said who it is by then is closed.
const ADMISSION_TIME: Duration = Duration::from_secs(5);
/// A socket that has not said who it is by then is overtaken by those behind it. Both ends rely on the order
/// in which they came, and a line that is sent at once can still be slow.
const PLACE_KEPT: Duration = Duration::from_secs(1);
/// Sockets on one port that may be saying who they are at the same time.
const MAX_UNADMITTED: usize = 64;
/// Admitted sockets on one port that may wait for their counterpart; more wait in the kernel.
const MAX_WAITING: usize = 64;
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
    sessions: Arc<Mutex<HashMap<SessionId, Live>>>,
}

/// A session that has its ports, or is about to.
struct Live {
    client: AtSign,
    answer: Option<Message>,
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
        self.sessions().remove(&session);
    }

    fn place(&self, request: &PortsRequest) -> Place {
        let mut sessions = self.sessions();
        if let Some(live) = sessions.get(&request.session) {
            return if live.client == request.client {
                Place::Repeated(live.answer.clone())
            } else {
                Place::Refused("the session id is taken")
            };
        }
        let of_this_client = sessions
            .values()
            .filter(|live| live.client == request.client)
            .count();
        if sessions.len() >= self.policy.max_sessions || of_this_client >= MAX_PER_CLIENT {
            return Place::Refused("too many sessions at a time");
        }
        sessions.insert(
            request.session,
            Live {
                client: request.client.clone(),
                answer: None,
            },
        );
        Place::Free
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Live>> {
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
        if let Some(live) = self.sessions().get_mut(&request.session) {
            live.answer = Some(answer.clone());
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

/// Whose signature opens a port; asked for when the first socket comes.
struct Signer {
    at: Client,
    who: AtSign,
}

impl Signer {
    async fn key(&self) -> Option<PublicKey> {
        match self.at.public_key(&self.who).await {
            Ok(key) => key,
            Err(error) => {
                warn!("public_key_of={} error={error:?}", self.who);
                None
            }
        }
    }
}

/// One port of one session.
struct Gate {
    listener: TcpListener,
    admission: Arc<Admission>,
    key: Signer,
}

/// A socket that said who it is, and what it sent behind that line.
type Admitted = (TcpStream, Vec<u8>);

/// A socket's turn, in the order of arrival: what comes of it, and until when it is waited for.
type Turn = (Receiver<Admitted>, Instant);

impl Gate {
    /// Lets sockets in, in the order in which they came, for as long as somebody takes them.
    async fn serve(self, admitted: Sender<Admitted>) {
        let (queue, turns) = channel::bounded(MAX_UNADMITTED);
        self.receive(queue).or(in_order(turns, admitted)).await;
    }

    async fn receive(self, queue: Sender<Turn>) {
        let key = self.key.key().await;
        let unadmitted = Arc::new(AtomicUsize::new(0));
        let (session, who) = (self.admission.session, self.key.who);
        loop {
            let (socket, from) = match self.listener.accept().await {
                Ok(both) => both,
                Err(error) => {
                    // Out of descriptors, or a peer that hung up early: neither is a reason to spin.
                    warn!("session={session} accept={error:?}");
                    task::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(key) = key.clone() else { continue };
            if unadmitted.fetch_add(1, Ordering::SeqCst) >= MAX_UNADMITTED {
                unadmitted.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (admission, who, count) = (self.admission.clone(), who.clone(), unadmitted.clone());
            let (pass, passed) = channel::bounded(1);
            task::spawn(async move {
                match admit(socket, &admission, &key).await {
                    Ok(admitted) => drop(pass.try_send(admitted)),
                    Err(why) => {
                        info!("session={session} port_of={who} from={from} not_admitted={why:?}")
                    }
                }
                count.fetch_sub(1, Ordering::SeqCst);
            });
            if queue
                .send((passed, Instant::now() + PLACE_KEPT))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// Passes sockets on in the order of arrival; who is late comes when he comes.
async fn in_order(turns: Receiver<Turn>, admitted: Sender<Admitted>) {
    while let Ok((passed, until)) = turns.recv().await {
        let late = async {
            async_io::Timer::at(until).await;
            None
        };
        match async { Some(passed.recv().await) }.or(late).await {
            Some(Ok(socket)) => drop(admitted.send(socket).await),
            Some(Err(_)) => {}
            None => {
                let admitted = admitted.clone();
                task::spawn(async move {
                    if let Ok(socket) = passed.recv().await {
                        let _ = admitted.send(socket).await;
                    }
                });
            }
        }
    }
}

async fn admit(
    mut socket: TcpStream,
    admission: &Admission,
    key: &PublicKey,
) -> Result<Admitted, String> {
    let _ = socket.set_nodelay(true);
    let (line, early) = read_line(&mut socket, MAX_ADMISSION, ADMISSION_TIME)
        .await
        .map_err(|why| why.to_string())?;
    admission.check(&line, key).map_err(|why| why.to_string())?;
    Ok((socket, early))
}

/// Joins the oldest admitted A with the oldest admitted B, again and again, until the session is over.
async fn pair_up(a: Gate, b: Gate) -> usize {
    let session = a.admission.session;
    let (send_a, from_a) = channel::bounded(1);
    let (send_b, from_b) = channel::bounded(1);
    let gates = async {
        future::zip(a.serve(send_a), b.serve(send_b)).await;
        0
    };
    gates.or(join_pairs(session, from_a, from_b)).await
}

async fn join_pairs(
    session: SessionId,
    from_a: Receiver<Admitted>,
    from_b: Receiver<Admitted>,
) -> usize {
    let (done, ended) = channel::bounded::<()>(MAX_WAITING);
    let (mut waiting_a, mut waiting_b) = (VecDeque::new(), VecDeque::new());
    let (mut live, mut pairs) = (0usize, 0usize);
    let give_up = Instant::now() + GRACE;
    loop {
        // Before the first pair there is a deadline; afterwards the last pair's end is the end.
        let patience = async {
            if pairs == 0 {
                async_io::Timer::at(give_up).await;
            } else {
                future::pending::<()>().await;
            }
            What::TimeIsUp
        };
        let arrival_a = arrival(&from_a, waiting_a.len(), What::A);
        let arrival_b = arrival(&from_b, waiting_b.len(), What::B);
        let end = async {
            ended
                .recv()
                .await
                .map_or(What::TimeIsUp, |()| What::PairEnded)
        };
        match end.or(arrival_a).or(arrival_b).or(patience).await {
            What::A(pass) => waiting_a.push_back(pass),
            What::B(pass) => waiting_b.push_back(pass),
            What::PairEnded => live -= 1,
            What::TimeIsUp => return pairs,
        }
        if !waiting_a.is_empty()
            && !waiting_b.is_empty()
            && let (Some(one), Some(other)) = (waiting_a.pop_front(), waiting_b.pop_front())
        {
            (live, pairs) = (live + 1, pairs + 1);
            task::spawn(carry(session, one, other, done.clone()));
        }
        if pairs > 0 && live == 0 {
            return pairs;
        }
    }
}

/// The next socket, unless too many wait already: dropping one would join all later ones with their
/// neighbours.
async fn arrival(from: &Receiver<Admitted>, waiting: usize, what: fn(Admitted) -> What) -> What {
    if waiting >= MAX_WAITING {
        return future::pending().await;
    }
    from.recv().await.map_or(What::TimeIsUp, what)
}

enum What {
    A(Admitted),
    B(Admitted),
    PairEnded,
    TimeIsUp,
}

async fn carry(session: SessionId, a: Admitted, b: Admitted, done: Sender<()>) {
    match splice(a.0, a.1, b.0, b.1, None).await {
        Ok(carried) => debug!("session={session} up={} down={}", carried.up, carried.down),
        Err(error) => debug!("session={session} cut={error:?}"),
    }
    let _ = done.send(()).await;
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
