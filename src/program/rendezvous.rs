//! `noports rendezvous`: two ports per session, admit each end, join them.
//!
//! ```text
//!   request_ports ──▶ two listeners ──▶ host,A,B,nonce
//!
//!   client ══▶ A ─ admission line? ─┐
//!                                   ├─ pair, by number or in order of arrival ─▶ splice, bytes unseen
//!   daemon ══▶ B ─ admission line? ─┘
//!
//!   30 s without a pair, or the last pair ended ⇒ both listeners close, nothing is left
//! ```
//!
//! | asked | by whom | its ports |
//! | --- | --- | --- |
//! | both ends log in | 5.0 and later | open to the two atSigns, any number of connections |
//! | one end logs in | 5.0 and later, on request | the other end's port is open to anybody |
//! | nobody logs in | 3.1 to 4.x; 5.0 and later, on request | open to anybody, one connection each |
//!
//! The last two are served unless `--signed-only` says otherwise: every rendezvous so far serves them, so
//! who puts ours in its place keeps all clients. What they risk is theirs alone: whoever finds such a port in
//! the seconds before the right one comes takes its place in that session, and meets ssh's host key, or a
//! stream without the key. So such a session is logged as what it is, and its port closes behind the first one.
//!
//! Who calls whom: `args` (the command line) ▶ here (requests, sessions) ▶ `meeting` (joins the two ports of one) ▶
//! `entrance` (who is let in at a port).
//! `address` finds out what to tell both ends to dial.
//!
//! `--host` is one address that both ends can dial. Without it both ends are told the address from which this machine reaches
//! the atDirectory: right on a machine with a public address of its own, wrong behind address translation, and the log says
//! so. A request longer than 64 KiB is passed over.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_std::{net::TcpListener, task};
use futures_lite::{FutureExt, future};
use log::{info, warn};

#[cfg(feature = "held")]
use crate::classic::habits::RendezvousHabits;
use crate::{
    at::{
        AtSign, Notification,
        client::{Client, Network, PROOF},
        keyfile::AtKeys,
        verb::Operation,
    },
    cli::Failure,
    np::{
        Message, RENDEZVOUS_NAMESPACE,
        admit::Admission,
        ids::{Nonce, SessionId},
        ports::{self, Logins, Ports, PortsForm, RendezvousRequest},
    },
    session::{ignored, in_work::InWork, online},
    text::json::Object,
};

pub use args::{main, verify};
use entrance::{EntryRule, SessionPort, Signer};
use meeting::PortPair;

mod address;
pub(crate) use args::Args;

mod args;
mod crowd;
mod entrance;
mod meeting;

/// How long the id of a session that is over is remembered. Notifications live a minute.
const REMEMBER_FOR: Duration = Duration::from_secs(90);
/// Sessions of one atSign at a time.
const MAX_PER_CLIENT: usize = 256;

/// Who may use the rendezvous, and how.
#[derive(Clone, Debug)]
pub struct RendezvousOptions {
    /// What both ends are told to dial.
    pub host: String,
    /// Where the ports are opened.
    pub bind: IpAddr,
    /// Who may ask for ports; empty: anybody.
    pub managers: Vec<AtSign>,
    /// Refuse sessions in which an end does not log in.
    pub signed_only: bool,
    /// Log every connection.
    pub snoop: bool,
    /// Sessions at a time.
    pub max_sessions: usize,
    /// Within this a connection to the atServer that has died in silence is replaced.
    pub proof: Duration,
    /// The generation that it is held to.
    #[cfg(feature = "held")]
    pub habits: RendezvousHabits,
}

impl RendezvousOptions {
    /// Everybody may ask, for what every generation asks for.
    pub fn for_everybody(host: &str, bind: IpAddr) -> Self {
        Self {
            host: host.to_owned(),
            bind,
            managers: Vec::new(),
            signed_only: false,
            snoop: false,
            max_sessions: MAX_SESSIONS,
            proof: PROOF,
            #[cfg(feature = "held")]
            habits: RendezvousHabits::default(),
        }
    }
}

/// Requests that are being read and answered at a time, and of one atSign: its key may have to be looked up first, and
/// anybody may ask.
const MAX_IN_WORK: usize = 1024;
const MAX_IN_WORK_OF_ONE: usize = 128;
/// Sessions at a time, unless --max-sessions says otherwise.
const MAX_SESSIONS: usize = 4096;

/// Serves until the connection has ended for good. `ready` is called once, with a JSON line, when requests are heard.
///
/// # Errors
/// When trying again cannot help.
pub async fn serve(
    network: Network,
    keys: Arc<AtKeys>,
    policy: RendezvousOptions,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    let watch = format!(r"\.{RENDEZVOUS_NAMESPACE}@");
    let (at, inbox) = online::log_in(&network, &keys, &watch, policy.proof).await?;
    info!(
        "ready as={} host={} bind={}",
        at.atsign(),
        policy.host,
        policy.bind
    );
    let owner = at.atsign().as_str();
    ready(&Object::event("ready").text("as", owner).end());
    let rendezvous = Rendezvous {
        at,
        policy: Arc::new(policy),
        sessions: Arc::default(),
        in_work: InWork::new(MAX_IN_WORK, MAX_IN_WORK_OF_ONE),
    };
    online::listen(inbox, |note| rendezvous.hear(note)).await
}

/// The rendezvous; cheap to clone.
#[derive(Clone)]
struct Rendezvous {
    at: Client,
    policy: Arc<RendezvousOptions>,
    sessions: Arc<Mutex<HashMap<SessionId, Reservation>>>,
    in_work: InWork,
}

/// A session that has its ports, is about to, or had them.
struct Reservation {
    client: AtSign,
    answer: Option<Message>,
    /// Over since then. It is remembered a while, so that a request that comes twice opens no ports for nobody.
    ended: Option<Instant>,
}

impl Reservation {
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
enum ReserveOutcome {
    Free,
    Repeated(Option<Message>),
    Refused(&'static str),
}

impl Rendezvous {
    fn hear(&self, note: Notification) {
        if note.operation != Operation::Update || note.is_text || note.is_stats() {
            return;
        }
        let Some(form) = PortsForm::of(note.entity()) else {
            return;
        };
        #[cfg(feature = "held")]
        if !self.policy.habits.reads(form) {
            return;
        }
        let allowed = self.policy.managers.is_empty() || self.policy.managers.contains(&note.from);
        if !allowed {
            return ignored::note(&note.from, "reason=not_a_manager");
        }
        let Some(working) = self.in_work.begin(&note.from) else {
            return;
        };
        let rendezvous = self.clone();
        task::spawn(async move {
            if let Some(request) = rendezvous.admit(&note, form).await {
                drop(working);
                rendezvous.serve(&request).await;
            }
        });
    }

    /// One request for ports: read it, and refuse it or give it a place.
    async fn admit(&self, note: &Notification, form: PortsForm) -> Option<IncomingRequest> {
        let from = &note.from;
        let refused = |reason: &str| info!("refused from={from} reason={reason:?}");
        let text = match self.at.decrypt(note).await {
            Ok(text) => text?,
            Err(error) => {
                // So far nobody has proven anything.
                ignored::note(from, format_args!("reason={:?}", error.to_string()));
                return None;
            }
        };
        let asked = RendezvousRequest::parse(form, from, &text);
        let asked = asked.map_err(|why| refused(&why.to_string())).ok()?;
        let request = IncomingRequest {
            client: from.clone(),
            asked,
        };
        if self.policy.signed_only && request.asked.logins() != Logins::BOTH {
            self.refuse(&request, "both ends must log in here").await;
            return None;
        }
        match self.reserve(&request) {
            ReserveOutcome::Free => return Some(request),
            ReserveOutcome::Repeated(answer) => {
                if let Some(answer) = answer {
                    online::send_or_log(&self.at, &answer).await;
                }
            }
            ReserveOutcome::Refused(why) => self.refuse(&request, why).await,
        }
        None
    }

    /// Is the meeting place of a session until it is over.
    async fn serve(&self, request: &IncomingRequest) {
        let session = request.asked.session();
        match self.hold_session(request).await {
            Ok(pairs) => info!("session={session} ended pairs={pairs}"),
            Err(why) => {
                warn!("session={session} reason={:?}", why.to_string());
                self.refuse(request, "no ports can be opened").await;
            }
        }
        if let Some(known) = self.sessions().get_mut(&session) {
            known.ended = Some(Instant::now());
        }
    }

    fn reserve(&self, request: &IncomingRequest) -> ReserveOutcome {
        let mut sessions = self.sessions();
        let remember = if sessions.len() < 2 * self.policy.max_sessions {
            REMEMBER_FOR
        } else {
            Duration::ZERO
        };
        sessions.retain(|_, session| session.ended.is_none_or(|when| when.elapsed() < remember));
        if let Some(known) = sessions.get(&request.asked.session()) {
            return match known {
                other if other.client != request.client => {
                    ReserveOutcome::Refused("the session id is taken")
                }
                over if !over.is_live() => ReserveOutcome::Repeated(None),
                live => ReserveOutcome::Repeated(live.answer.clone()),
            };
        }
        let live = || sessions.values().filter(|session| session.is_live());
        let of_this_client = live()
            .filter(|session| session.client == request.client)
            .count();
        if live().count() >= self.policy.max_sessions || of_this_client >= MAX_PER_CLIENT {
            return ReserveOutcome::Refused("too many sessions at once");
        }
        sessions.insert(request.asked.session(), Reservation::of(&request.client));
        ReserveOutcome::Free
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Reservation>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why not. Whoever sends the old request knows no refusals, and may stumble over one.
    async fn refuse(&self, request: &IncomingRequest, why: &str) {
        let session = request.asked.session();
        info!(
            "refused session={session} from={} reason={why:?}",
            request.client
        );
        if matches!(request.asked, RendezvousRequest::Full(_)) {
            let message = request.answer(ports::refusal_entity(session), why.to_owned());
            online::send_or_log(&self.at, &message).await;
        }
    }

    /// Opens both ports, tells the client, joins whoever is admitted. Returns how many pairs there were.
    async fn hold_session(&self, request: &IncomingRequest) -> io::Result<usize> {
        let any = SocketAddr::new(self.policy.bind, 0);
        let (a, b) = (TcpListener::bind(any).await?, TcpListener::bind(any).await?);
        let session = request.asked.session();
        let granted = Ports {
            host: self.policy.host.clone(),
            client: a.local_addr()?.port(),
            daemon: b.local_addr()?.port(),
            nonce: matches!(request.asked, RendezvousRequest::Full(_)).then(|| self.nonce()),
        };
        let answer = request.answer(ports::answer_entity(session), self.text(&granted));
        if let Some(known) = self.sessions().get_mut(&session) {
            known.answer = Some(answer.clone());
        }
        request.log(&granted);
        let (client, daemon) = self.entries(request, granted.nonce);
        let meeting = PortPair {
            session,
            single: matches!((&client, &daemon), (EntryRule::Anybody, EntryRule::Anybody)),
            client: SessionPort {
                listener: a,
                entry: client,
            },
            daemon: SessionPort {
                listener: b,
                entry: daemon,
            },
            snoop: self.policy.snoop,
        };
        let tell = async {
            online::send_or_log(&self.at, &answer).await;
            future::pending().await
        };
        Ok(tell.or(meeting.hold()).await)
    }

    fn nonce(&self) -> Nonce {
        #[cfg(feature = "held")]
        return self.policy.habits.nonce();
        #[cfg(not(feature = "held"))]
        Nonce::random_numbered()
    }

    fn text(&self, granted: &Ports) -> String {
        #[cfg(feature = "held")]
        return self.policy.habits.print(granted);
        #[cfg(not(feature = "held"))]
        granted.print()
    }

    /// Who is let in at either port.
    fn entries(&self, request: &IncomingRequest, nonce: Option<Nonce>) -> (EntryRule, EntryRule) {
        let (RendezvousRequest::Full(full), Some(rendezvous_nonce)) = (&request.asked, nonce)
        else {
            return (EntryRule::Anybody, EntryRule::Anybody);
        };
        let admission = Arc::new(Admission {
            session: full.session,
            client_nonce: full.nonce.clone(),
            rendezvous_nonce,
        });
        let entry = |logs_in: bool, who: &AtSign| {
            if logs_in {
                EntryRule::Signed(
                    admission.clone(),
                    Signer {
                        at: self.at.clone(),
                        who: who.clone(),
                        asker: request.client.clone(),
                    },
                )
            } else {
                EntryRule::Anybody
            }
        };
        (
            entry(full.logins.client, &full.client),
            entry(full.logins.daemon, &full.daemon),
        )
    }
}

/// A request for ports, and who sent it.
struct IncomingRequest {
    client: AtSign,
    asked: RendezvousRequest,
}

impl IncomingRequest {
    fn answer(&self, entity: String, text: String) -> Message {
        Message {
            to: self.client.clone(),
            entity,
            text,
        }
    }

    fn log(&self, granted: &Ports) {
        let (session, logins) = (self.asked.session(), self.asked.logins());
        let daemon = match &self.asked {
            RendezvousRequest::Full(request) => request.daemon.as_str(),
            RendezvousRequest::Bare(_) => "unnamed",
        };
        let open = match (logins.client, logins.daemon) {
            (true, true) => "",
            (true, false) => " open_to_anybody=daemon",
            (false, true) => " open_to_anybody=client",
            (false, false) => " open_to_anybody=both",
        };
        info!(
            "session={session} client={} daemon={daemon} ports={},{}{open}",
            self.client, granted.client, granted.daemon
        );
    }
}
