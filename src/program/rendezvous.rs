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
//! What others may use up (`budgets`); an exhausted budget is one line in the log a minute that names who has most:
//!
//! | budget | total | of one | reserve | who gives way | flag |
//! | --- | --- | --- | --- | --- | --- |
//! | requests being read | 1024 | 128 of an atSign | – | the newest | – |
//! | answers on their way | 64, 1024 wait | 1 to an atSign, 64 wait | – | the newest of whoever has most | – |
//! | refusals in 10 s | 256 | 3 to an atSign | – | the newest | – |
//! | sessions | 4096 | 1/4 of a client, 256 of client and device | – | the newest | `--max-sessions` |
//! | sessions nobody came to | 1/4 of the sessions | 1/64 of them of a client | – | the biggest client's oldest | `--max-sessions` |
//! | sockets without a name | 1/8 of the descriptors, 4096 | 1/4 from a /24 or /48, 64 at a port | – | strangers, of them who had 1 s, the biggest, the oldest | – |
//! | descriptors | what is left but 1/16 | 1/8 of a client, 1/12 of client and device | 1/8 for new sessions | the biggest client's oldest further connection | – |
//!
//! The process may have as many descriptors as its hard limit says (`ulimit -Hn`, `LimitNOFILE=`).
//!
//! Who calls whom: `args` (the command line) ▶ here (requests, sessions) ▶ `meeting` (joins the two ports of one) ▶
//! `entrance` (who is let in at a port).
//! `address` finds out what to tell both ends to dial.
//!
//! `--host` is one address that both ends can dial. Without it both ends are told the address from which this machine reaches
//! the atDirectory: right on a machine with a public address of its own, wrong behind address translation, and the log says
//! so. A request longer than 64 KiB is passed over.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::{net::TcpListener, task};
use futures_lite::{FutureExt, future};
use log::info;

#[cfg(feature = "held")]
use crate::classic::habits::RendezvousHabits;
use crate::{
    at::{
        AtSign, Notification,
        client::{Client, Network, PROOF},
        keyfile::AtKeys,
        verb::Operation,
    },
    budget::Claim,
    cli::Failure,
    np::{
        Message, RENDEZVOUS_NAMESPACE,
        admit::Admission,
        ids::Nonce,
        ports::{self, Logins, Ports, PortsForm, RendezvousRequest},
    },
    pipe::join::HALF_CLOSED,
    session::{ignored, online},
    sys::process::is_out_of_descriptors,
    text::json::Object,
};

pub use args::{main, verify};
use budgets::{
    ANSWERS_TO_ONE, Budgets, Grant, MAX_SESSIONS, NoRoom, REFUSALS_TO_ONE, REFUSED_FOR,
    REQUESTS_OF_ONE, SessionHolds,
};
use entrance::{EntryRule, JoinState, SessionPort, Signer};
use meeting::PortPair;
use reservations::{KnownSession, Reservations};

mod address;
mod budgets;
pub(crate) use args::Args;

mod args;
mod crowd;
mod entrance;
mod meeting;
mod reservations;

/// How long a request waits for others to leave, and how often it is looked. Its client waits for twenty seconds.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);
const LOOK_FOR_ROOM: Duration = Duration::from_millis(20);
const TOO_MANY: &str = "too many sessions at once";

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
    /// How long a pair may stand with one direction closed and the other silent.
    pub half_closed: Duration,
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
            half_closed: HALF_CLOSED,
            #[cfg(feature = "held")]
            habits: RendezvousHabits::default(),
        }
    }
}

/// Serves until the connection has ended for good. `ready` is called once, with a JSON line, when requests are heard.
///
/// # Errors
/// When trying again cannot help.
pub async fn serve(
    network: Network,
    keys: Arc<AtKeys>,
    options: RendezvousOptions,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    let watch = format!(r"\.{RENDEZVOUS_NAMESPACE}@");
    let (at, inbox) = online::log_in(&network, &keys, &watch, options.proof).await?;
    info!(
        "ready as={} host={} bind={}",
        at.atsign(),
        options.host,
        options.bind
    );
    let owner = at.atsign().as_str();
    ready(&Object::event("ready").text("as", owner).end());
    let rendezvous = Rendezvous {
        at,
        budgets: Budgets::new(options.max_sessions),
        options: Arc::new(options),
        sessions: Arc::default(),
    };
    rendezvous.budgets.tell_sessions();
    online::listen(inbox, |note| rendezvous.hear(note)).await
}

/// The rendezvous; cheap to clone.
#[derive(Clone)]
struct Rendezvous {
    at: Client,
    options: Arc<RendezvousOptions>,
    sessions: Arc<Mutex<Reservations>>,
    budgets: Budgets,
}

/// What a request meets.
enum ReserveOutcome {
    Reserved(Box<(SessionHolds, Grant)>),
    Repeated(Option<Message>),
    /// Others are leaving for it.
    NotYet,
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
        if !self.options.habits.reads(form) {
            return;
        }
        let allowed =
            self.options.managers.is_empty() || self.options.managers.contains(&note.from);
        if !allowed {
            return ignored::note(&note.from, "reason=not_a_manager");
        }
        let claim = Claim::of(note.from.clone(), REQUESTS_OF_ONE);
        let Some(working) = self.budgets.requests.take(claim, Instant::now()) else {
            return;
        };
        let rendezvous = self.clone();
        task::spawn(async move {
            if let Some((request, place)) = rendezvous.admit(&note, form).await {
                drop(working);
                // In a task of its own: what was needed to read the request is not kept as long as the session.
                task::spawn(async move { rendezvous.serve(request, *place).await });
            }
        });
    }

    /// One request for ports: read it, and refuse it or give it a place.
    async fn admit(
        &self,
        note: &Notification,
        form: PortsForm,
    ) -> Option<(IncomingRequest, Box<(SessionHolds, Grant)>)> {
        let from = &note.from;
        let refused = |reason: &str| ignored::refused(from, format_args!("reason={reason:?}"));
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
        if self.options.signed_only && request.asked.logins() != Logins::BOTH {
            self.refuse(&request, "both ends must log in here").await;
            return None;
        }
        match self.reserve_patiently(&request).await {
            ReserveOutcome::Reserved(place) => return Some((request, place)),
            ReserveOutcome::Repeated(answer) => {
                if let Some(answer) = answer {
                    self.answer(&answer).await;
                }
            }
            ReserveOutcome::NotYet => self.refuse(&request, TOO_MANY).await,
            ReserveOutcome::Refused(why) => self.refuse(&request, why).await,
        }
        None
    }

    /// Is the meeting place of a session until it is over.
    async fn serve(&self, request: IncomingRequest, place: (SessionHolds, Grant)) {
        let session = request.asked.session();
        let (holds, grant) = place;
        if let Err(why) = self.hold_session(&request, grant).await {
            let kind = format!("ports=none reason={:?}", why.to_string());
            ignored::of_kind(&kind, 1, format_args!("session={session}"));
            self.refuse(&request, "no ports can be opened").await;
        }
        self.sessions().end(session, Instant::now());
        drop(holds);
        self.budgets.tell_sessions();
    }

    /// Waits while others leave for it.
    async fn reserve_patiently(&self, request: &IncomingRequest) -> ReserveOutcome {
        let until = Instant::now() + WAIT_FOR_ROOM;
        loop {
            match self.reserve(request) {
                ReserveOutcome::NotYet if Instant::now() < until => {
                    task::sleep(LOOK_FOR_ROOM).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn reserve(&self, request: &IncomingRequest) -> ReserveOutcome {
        let (session, now) = (request.asked.session(), Instant::now());
        let (mut sessions, most) = (self.sessions(), 2 * self.options.max_sessions);
        match sessions.known(session, &request.client, most, now) {
            KnownSession::New => {}
            KnownSession::Repeated(answer) => return ReserveOutcome::Repeated(answer),
            KnownSession::Taken => return ReserveOutcome::Refused("the session id is taken"),
        }
        let place = self.budgets.session(&request.client, request.daemon(), now);
        let place = match place {
            Ok(place) => place,
            Err(NoRoom::Full) => return ReserveOutcome::Refused(TOO_MANY),
            Err(NoRoom::NotYet) => return ReserveOutcome::NotYet,
        };
        sessions.reserve(session, &request.client);
        ReserveOutcome::Reserved(Box::new(place))
    }

    /// Sends an answer when its turn comes: no atSign has more than one on its way.
    async fn answer(&self, answer: &Message) {
        let claim = Claim::of(answer.to.clone(), ANSWERS_TO_ONE);
        if let Some(_turn) = self.budgets.answers.wait(claim).await {
            Box::pin(online::send_or_log(&self.at, answer)).await;
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Reservations> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why not. Whoever sends the old request knows no refusals, and may stumble over one.
    async fn refuse(&self, request: &IncomingRequest, why: &str) {
        let (session, from) = (request.asked.session(), &request.client);
        ignored::refused(from, format_args!("session={session} reason={why:?}"));
        if !matches!(request.asked, RendezvousRequest::Full(_)) {
            return;
        }
        let claim = Claim::of(from.clone(), REFUSALS_TO_ONE);
        let Some(refusal) = self.budgets.refusals.take(claim, Instant::now()) else {
            return;
        };
        let message = request.answer(ports::refusal_entity(session), why.to_owned());
        self.answer(&message).await;
        task::spawn(async move {
            task::sleep(REFUSED_FOR).await;
            drop(refusal);
        });
    }

    /// Opens both ports, tells the client, joins whoever is admitted.
    async fn hold_session(&self, request: &IncomingRequest, grant: Grant) -> io::Result<()> {
        let any = SocketAddr::new(self.options.bind, 0);
        let (a, b) = (listen_patiently(any).await?, listen_patiently(any).await?);
        let session = request.asked.session();
        let granted = Ports {
            host: self.options.host.clone(),
            client: a.local_addr()?.port(),
            daemon: b.local_addr()?.port(),
            nonce: match &request.asked {
                RendezvousRequest::Full(full) => Some(self.nonce(full.socket_key.is_some())),
                RendezvousRequest::Bare(_) => None,
            },
        };
        let answer = request.answer(ports::answer_entity(session), self.text(&granted));
        self.sessions().answered(session, &answer, Instant::now());
        let begins = request.in_words(&granted);
        let (client, daemon) = self.entries(request, granted.nonce);
        let ends = (request.client.clone(), request.daemon().cloned());
        let held = JoinState::of(session, ends, begins, self.budgets.clone());
        let meeting = PortPair {
            held: held.clone(),
            grant,
            single: matches!((&client, &daemon), (EntryRule::Anybody, EntryRule::Anybody)),
            client: SessionPort {
                listener: a,
                entry: client,
            },
            daemon: SessionPort {
                listener: b,
                entry: daemon,
            },
            snoop: self.options.snoop,
            half_closed: self.options.half_closed,
        };
        let tell = async move {
            Box::pin(self.answer(&answer)).await;
            drop(answer);
            future::pending().await
        };
        held.ended(tell.or(meeting.hold()).await);
        Ok(())
    }

    /// Its end says what this rendezvous can do with the sockets of a client that has sent a key, or none.
    fn nonce(&self, has_key: bool) -> Nonce {
        #[cfg(feature = "held")]
        if self.options.habits != RendezvousHabits::default() {
            return self.options.habits.nonce();
        }
        if has_key {
            Nonce::random_proved()
        } else {
            Nonce::random_numbered()
        }
    }

    fn text(&self, granted: &Ports) -> String {
        #[cfg(feature = "held")]
        return self.options.habits.print(granted);
        #[cfg(not(feature = "held"))]
        granted.print()
    }

    /// Who is let in at either port.
    fn entries(&self, request: &IncomingRequest, nonce: Option<Nonce>) -> (EntryRule, EntryRule) {
        let (RendezvousRequest::Full(full), Some(rendezvous_nonce)) = (&request.asked, nonce)
        else {
            return (EntryRule::Anybody, EntryRule::Anybody);
        };
        let socket_key = full.socket_key.clone();
        let socket_key = socket_key.filter(|_| rendezvous_nonce.takes_proofs());
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
                    socket_key.clone(),
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

/// A port of its own. Whoever gave way for it may still be closing sockets.
async fn listen_patiently(at: SocketAddr) -> io::Result<TcpListener> {
    let until = Instant::now() + WAIT_FOR_ROOM;
    loop {
        match TcpListener::bind(at).await {
            Err(error) if is_out_of_descriptors(&error) && Instant::now() < until => {
                task::sleep(LOOK_FOR_ROOM).await;
            }
            bound => return bound,
        }
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

    /// The other end, where somebody logs in.
    fn daemon(&self) -> Option<&AtSign> {
        match &self.asked {
            RendezvousRequest::Full(request) => Some(&request.daemon),
            RendezvousRequest::Bare(_) => None,
        }
    }

    /// For the log.
    fn in_words(&self, granted: &Ports) -> String {
        let logins = self.asked.logins();
        let daemon = self.daemon().map_or("unnamed", AtSign::as_str);
        let open = match (logins.client, logins.daemon) {
            (true, true) => "",
            (true, false) => " open_to_anybody=daemon",
            (false, true) => " open_to_anybody=client",
            (false, false) => " open_to_anybody=both",
        };
        format!(
            "client={} daemon={daemon} ports={},{}{open}",
            self.client, granted.client, granted.daemon
        )
    }
}
