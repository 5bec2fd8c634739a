//! One connection to an atServer, without the connection: a line, a transaction and the time go in; a reply,
//! and what else is to be done, come out.
//!
//! ```text
//!   line ──read()──▶ Done(outcome)                       needs no store (empty line, noop, info)
//!              └───▶ Run(job) ──run(job, tx, now)──▶ Decision ──committed, accept()──▶ Outcome { reply, delay, close, next }
//!                                                                                          │
//!                                   Watch, Prove, Fetch: the listener does it, then comes back with what it learned
//! ```
//!
//! [`Session::run`] changes nothing but its transaction, so that the store may run a command again; it works on a
//! copy of the session. The copy, and what the command left for others to see, come true with [`Session::accept`].
//!
//! A reply is whole: line and prompt, to be sent in one write. Some clients read exactly one TLS record for it.
//!
//! Source: at_server:packages/at_secondary_server/lib/src/verb/handler and
//! at_server:packages/at_secondary_server/lib/src/exception/global_exception_handler.dart.

mod admin;
mod answer;
mod auth;
mod batch;
mod enroll;
mod enrolled;
mod look;
mod notify;
mod pattern;
mod stats;
mod visits;
mod write;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::at::{
    AtSign, Verb,
    fault::{Code, Shape},
    verb::{Config, Dialect, SyntaxError},
};

use super::{
    enrolment::{Grant, Need, own_data},
    passcode::{Guesses, Throttle},
    store::{StoreError, Tx, lists, register::Home},
};
use answer::CommandAnswer;

pub(super) use answer::{Refusal, refuse};
pub use auth::Proof;
pub(super) use auth::{PKAM_KEY, SECRET};
pub(super) use batch::parse_all;
pub use look::{Errand, Fetched, RemoteQuery, public_value};
pub use notify::{MonitorView, page, stats_line};
pub(super) use notify::{is_too_long, too_long};
#[cfg(feature = "inside")]
pub use notify::{live_line, stored_line};
pub use visits::{Attendance, Outbound};

/// What we say we are. Clients of 2024 expect a version of at least 3.0.43.
pub const SERVER_VERSION: &str = "3.0.52";
/// The greeting of every connection.
pub const GREETING: &[u8] = b"@";
/// Longest command before login, in bytes: an enrolment request with all the keys it may carry.
pub const MAX_LINE_STRANGER: usize = 32 * 1024;
/// Longest command after login, in bytes.
pub const MAX_LINE: usize = crate::at::reply::MAX_LINE;

/// What connections without an enrolment are called in keys.
const NO_ENROLLMENT: &str = "primary";

/// Who is on the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Who {
    /// Not known yet.
    #[default]
    Stranger,
    /// The atSign itself. A grant when it came with an enrolment; none means everything is allowed.
    Owner(Option<Grant>),
    /// Another atSign, proven by `pol`.
    Peer(AtSign),
}

/// One connection's state.
#[derive(Clone, Debug)]
pub struct Session {
    home: Home,
    /// `_<uuid>`: part of every challenge.
    id: String,
    who: Who,
    /// Logged in by `cram`, which lets the first enrolment approve itself.
    by_cram: bool,
    /// The client announced a version that wants errors as JSON.
    json_errors: bool,
    /// The longest line that its monitor is to be sent, as the client told.
    longest_line: Option<usize>,
    challenge: Option<auth::Challenge>,
    /// In monitor mode replies carry no prompt: it would stick to the next notification.
    watching: bool,
    /// When this connection asked for enrolments, milliseconds since 1970.
    requests: Vec<u64>,
    /// Where it comes from, if that is known.
    from: Option<IpAddr>,
    /// What this command is to the limit of guesses.
    guess: Guess,
    /// What this command leaves in the facts, once it is committed.
    traces: Vec<Trace>,
    facts: Arc<Facts>,
}

/// What a command is to the limit of wrong passcodes of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Guess {
    /// It guesses none.
    #[default]
    None,
    /// It was counted as a wrong one before it ran, so that many at the same time are no way around the limit.
    Counted,
    /// Its address has had all it may have.
    TooMany,
}

/// What a command leaves in the facts that all connections share.
#[derive(Clone, Debug)]
enum Trace {
    /// Somebody came, at this time.
    Came(u64),
    /// The owner logged in with a key, at this time.
    LoggedIn(u64),
    /// Another atSign proved who it is.
    Proved(AtSign),
    /// A key was looked up.
    LookedUp(String),
    /// A passcode was wrong, at this time.
    WrongPasscode(u64),
}

/// What a command comes to. It counts only when what it wrote is committed: then [`Session::accept`] it.
#[derive(Debug)]
pub struct UncommittedOutcome {
    session: Session,
    outcome: CommandOutcome,
}

/// What all connections of one atSign share. No command changes it before it is committed.
#[derive(Debug, Default)]
pub struct Facts {
    /// When the server started, milliseconds since 1970.
    pub started: u64,
    /// How many connections there are.
    pub connections: AtomicUsize,
    /// Slows down whoever guesses passcodes.
    pub throttle: Mutex<Throttle>,
    /// Shuts out addresses that guess passcodes.
    pub guesses: Mutex<Guesses>,
    /// Connections to other servers, of all atSigns of this process.
    pub outbound: Arc<Outbound>,
    /// Who is here, and who came.
    pub seen: Attendance,
}

impl Facts {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// This session's connection begins.
    pub fn enter(&self, session: &str, now: u64) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.seen.enter(session, now);
    }

    /// It ends.
    pub fn leave(&self, session: &str) {
        self.seen.present().remove(session);
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What to do with a line.
#[derive(Debug)]
pub enum LineAction {
    /// Nothing but this.
    Done(CommandOutcome),
    /// Call [`Session::run`] in a transaction.
    Run(StoreCommand),
}

/// A command that needs the store.
#[derive(Debug)]
pub struct StoreCommand(Box<Verb>);

impl StoreCommand {
    /// Whether the transaction must be able to write.
    pub fn writes(&self) -> bool {
        match &*self.0 {
            Verb::Update { .. }
            | Verb::UpdateMeta { .. }
            | Verb::UpdateJson { .. }
            | Verb::Delete { .. }
            | Verb::ForceDelete { .. }
            | Verb::Notify(_)
            | Verb::NotifyRemove { .. }
            | Verb::NotifyAll { .. }
            | Verb::Batch { .. }
            | Verb::Enroll { .. }
            | Verb::OtpGet { .. }
            | Verb::OtpPut { .. } => true,
            Verb::Config(config) => matches!(config, Config::Add(..) | Config::Remove(..)),
            Verb::Keys(keys) => keys.operation != "get",
            _ => false,
        }
    }

    /// Starts a monitor: what comes in must be caught from before the transaction on.
    pub fn watches(&self) -> bool {
        matches!(*self.0, Verb::Monitor { .. })
    }

    /// A login attempt for whom [`Session::claims`]: made to wait after too many failures.
    pub fn proves(&self) -> bool {
        matches!(*self.0, Verb::Cram { .. } | Verb::Pkam { .. })
    }
}

/// What came of a line.
#[derive(Debug, Default)]
pub struct CommandOutcome {
    /// To be sent in one write; may be empty.
    pub reply: Vec<u8>,
    /// Wait this long before sending.
    pub delay: Duration,
    /// Close afterwards.
    pub close: bool,
    /// Close after this long (a revoked enrolment's own connection).
    pub close_in: Option<Duration>,
    /// What came of a login attempt.
    pub login: Option<Login>,
    /// What the listener has to do.
    pub next: FollowUp,
}

/// What came of a login attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// It is the owner.
    Good,
    /// A guess, as far as anybody can tell.
    Wrong,
    /// The right key of an enrolment that is pending, denied, revoked or expired: no guess.
    Barred,
}

/// Work for the listener.
#[derive(Debug, Default)]
pub enum FollowUp {
    /// Nothing.
    #[default]
    Nothing,
    /// Replay, then pass on what comes in.
    Watch(Box<MonitorView>),
    /// Ask another atServer for two values, then call [`Session::proven`].
    Prove(Box<auth::Proof>),
    /// Ask another atServer for a value, then call [`Session::fetched`].
    Fetch(Box<Errand>),
}

type Handled = Result<CommandAnswer, Refusal>;

fn success() -> Handled {
    Ok(CommandAnswer::Data("success".into()))
}

impl Session {
    /// A new connection to this atSign's server.
    pub fn new(home: Home, facts: Arc<Facts>) -> Self {
        Self {
            home,
            id: format!("_{}", uuid::Uuid::new_v4()),
            who: Who::Stranger,
            by_cram: false,
            json_errors: false,
            longest_line: None,
            challenge: None,
            watching: false,
            requests: Vec::new(),
            from: None,
            guess: Guess::None,
            traces: Vec::new(),
            facts,
        }
    }

    /// The same from this address.
    #[must_use]
    pub fn coming_from(self, address: IpAddr) -> Self {
        Self {
            from: Some(address),
            ..self
        }
    }

    /// `_<uuid>`
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether somebody has proven who they are.
    pub fn is_known(&self) -> bool {
        self.who != Who::Stranger
    }

    /// The enrolment this connection lives by.
    pub fn enrollment(&self) -> Option<&str> {
        self.grant().map(|grant| grant.id.as_str())
    }

    /// Who the last `from` said it is.
    pub fn claims(&self) -> Option<&AtSign> {
        self.challenge.as_ref().map(|challenge| &challenge.who)
    }

    /// Longest line to accept now, in bytes.
    pub fn max_line(&self) -> usize {
        if self.is_known() {
            MAX_LINE
        } else {
            MAX_LINE_STRANGER
        }
    }

    fn grant(&self) -> Option<&Grant> {
        match &self.who {
            Who::Owner(grant) => grant.as_ref(),
            _ => None,
        }
    }

    /// Takes one line, without its line end. `now` in milliseconds since 1970.
    pub fn read(&mut self, line: &str, now: u64) -> LineAction {
        if let Some(here) = self.facts.seen.present().get_mut(&self.id) {
            here.last = now;
        }
        let line = line.trim();
        if line == "@exit" {
            return LineAction::Done(CommandOutcome {
                close: true,
                ..CommandOutcome::default()
            });
        }
        if self.grant().is_some_and(|grant| grant.is_expired(now)) {
            return LineAction::Done(CommandOutcome {
                close: true,
                ..CommandOutcome::default()
            });
        }
        match Verb::parse(line, Dialect::Lenient) {
            Ok(Verb::Noop { millis }) => LineAction::Done(self.noop(millis)),
            // Only an enrolment has something stored that belongs to the answer.
            Ok(Verb::Info { brief }) if brief || self.grant().is_none() => {
                let answer = self.info(brief, None, now);
                LineAction::Done(self.outcome(answer))
            }
            Ok(verb) => {
                self.guess = self.guess(&verb, now);
                LineAction::Run(StoreCommand(Box::new(verb)))
            }
            Err(why) => {
                let code = match why {
                    SyntaxError::Key(_) => Code::InvalidKey,
                    _ => Code::InvalidSyntax,
                };
                let refusal = refuse(code, why.to_string());
                LineAction::Done(self.outcome(Err(refusal)))
            }
        }
    }

    /// Runs a command. What it wrote before it failed is undone.
    pub fn run(&self, job: &StoreCommand, tx: &mut Tx<'_>, now: u64) -> UncommittedOutcome {
        let mut session = self.clone();
        let handled = session.handle(job.0.as_ref().clone(), tx, now);
        if handled.is_err() {
            tx.discard();
        }
        let login = job.proves().then_some(match &handled {
            Ok(_) => Login::Good,
            Err(refusal) if refusal.proven => Login::Barred,
            Err(_) => Login::Wrong,
        });
        let outcome = CommandOutcome {
            login,
            ..session.say(handled)
        };
        UncommittedOutcome { session, outcome }
    }

    /// A command was committed: goes on as it decided, and lets others see what it left for them.
    pub fn accept(&mut self, decision: UncommittedOutcome) -> CommandOutcome {
        *self = decision.session;
        self.publish(decision.outcome)
    }

    fn publish(&mut self, mut outcome: CommandOutcome) -> CommandOutcome {
        self.show_presence();
        let (mut guessed, seen) = (false, &self.facts.seen);
        for trace in std::mem::take(&mut self.traces) {
            match trace {
                Trace::Came(now) => seen.visits().last = Some(now),
                Trace::LoggedIn(now) => seen.visits().last_pkam = Some(now),
                Trace::Proved(who) => seen.visits().came(&who),
                Trace::LookedUp(key) => seen.visits().looked_up(&key),
                Trace::WrongPasscode(now) => {
                    guessed = true;
                    outcome.delay = self.pause(now);
                }
            }
        }
        if std::mem::take(&mut self.guess) == Guess::Counted
            && !guessed
            && let (Some(from), Ok(mut guesses)) = (self.from, self.facts.guesses.lock())
        {
            guesses.take_back(from);
        }
        outcome
    }

    fn handle(&mut self, verb: Verb, tx: &mut Tx<'_>, now: u64) -> Handled {
        // Other servers keep their connections: who is blocked since is shut out here.
        if let Who::Peer(caller) = &self.who
            && !lists::admits(tx, &self.home, caller)?
        {
            return Err(refuse(Code::Blocked, "Unable to connect"));
        }
        match verb {
            Verb::From { who, config } => self.from(tx, who, config.as_deref(), now),
            Verb::Cram { digest } => self.cram(tx, &digest, now),
            Verb::Pkam {
                signing,
                hashing,
                enrollment,
                signature,
            } => {
                let claim = auth::PkamSignature {
                    signing: signing.unwrap_or_default(),
                    hashing: hashing.unwrap_or_default(),
                    enrollment,
                    signature,
                };
                self.pkam(tx, &claim, now)
            }
            Verb::Pol => self.pol(tx, now),
            Verb::Scan {
                show_hidden,
                of,
                regex,
                ..
            } => self.scan(tx, show_hidden, of.as_ref(), regex.as_deref(), now),
            Verb::Lookup {
                key,
                detail,
                bypass_cache,
            } => self.lookup(tx, &key, detail, bypass_cache, now),
            Verb::Plookup {
                key,
                detail,
                bypass_cache,
            } => self.plookup(tx, &key, detail, bypass_cache, now),
            Verb::Llookup { key, detail } => self.llookup(tx, &key, detail, now),
            Verb::Update {
                key,
                metadata,
                value,
            } => self.update(tx, key, metadata, value, now),
            Verb::UpdateMeta { key, metadata } => self.update_meta(tx, key, &metadata, now),
            Verb::UpdateJson { json } => self.update_json(tx, &json, now),
            Verb::Delete { key, .. } => self.delete(tx, key, false, now),
            Verb::ForceDelete { key } => self.delete(tx, key, true, now),
            verb => self.handle_more(verb, tx, now),
        }
    }

    fn handle_more(&mut self, verb: Verb, tx: &mut Tx<'_>, now: u64) -> Handled {
        match verb {
            Verb::Notify(notify) => self.notify(tx, *notify, now),
            Verb::NotifyStatus { id } => self.notify_status(tx, &id, now),
            Verb::NotifyFetch { id } => self.notify_fetch(tx, &id, now),
            Verb::NotifyRemove { id } => self.notify_remove(tx, &id),
            Verb::NotifyList { from, to, regex } => {
                self.notify_list(tx, from.as_deref(), to.as_deref(), regex.as_deref(), now)
            }
            Verb::NotifyAll { to, notify } => self.notify_all(tx, to, *notify, now),
            Verb::Monitor {
                self_notifications,
                since,
                regex,
                ..
            } => self.monitor(tx, self_notifications, since, regex.as_deref()),
            Verb::Info { .. } => self.info_of_enrollment(tx, now),
            Verb::Stats { ids, regex } => self.stats(tx, &ids, regex.as_deref(), now),
            Verb::Sync { from, limit, regex } => self.sync(tx, from, limit, regex.as_deref(), now),
            Verb::Config(config) => self.config(tx, config, now),
            Verb::Batch { json } => self.batch(tx, &json, now),
            Verb::Enroll {
                operation,
                force,
                params,
            } => self.enroll(tx, operation, force, params.as_deref(), now),
            Verb::OtpGet { ttl } => self.otp_get(tx, ttl, now),
            Verb::OtpPut { otp, ttl } => self.otp_put(tx, &otp, ttl, now),
            Verb::Keys(keys) => self.keys(tx, &keys, now),
            // Another server says whom it wants to speak to, before `from`.
            Verb::To { who } if who == self.home.who => success(),
            // The rest is parsed so that it is refused in good form.
            _ => Err(refuse(Code::InvalidSyntax, "invalid command")),
        }
    }

    /// The answer to a line above [`Session::max_line`].
    pub fn too_long(&mut self) -> CommandOutcome {
        let text = format!("a command may have {} bytes", self.max_line());
        self.outcome(Err(refuse(Code::BufferLimit, text)))
    }

    /// The answer to whatever it was when the store failed.
    pub fn failed(&mut self, why: StoreError) -> CommandOutcome {
        self.outcome(Err(why.into()))
    }

    /// What others see of this connection.
    fn show_presence(&self) {
        let (kind, from) = match &self.who {
            Who::Owner(_) => (visits::ConnectionKind::Own, Some(&self.home.who)),
            Who::Peer(caller) => (visits::ConnectionKind::Peer, Some(caller)),
            Who::Stranger => (visits::ConnectionKind::Anon, self.claims()),
        };
        if let Some(here) = self.facts.seen.present().get_mut(&self.id)
            && (here.kind != kind || here.from.as_ref() != from)
        {
            (here.kind, here.from) = (kind, from.cloned());
        }
    }

    /// The answer to a line that needed no transaction.
    fn outcome(&mut self, handled: Handled) -> CommandOutcome {
        let outcome = self.say(handled);
        self.publish(outcome)
    }

    /// Turns what a handler said into bytes.
    fn say(&self, handled: Handled) -> CommandOutcome {
        let mut outcome = CommandOutcome::default();
        let text = match handled {
            Ok(CommandAnswer::Data(text)) if text.starts_with("data:") => {
                format!("{text}\n{}", self.prompt())
            }
            Ok(CommandAnswer::Data(text)) => format!("data:{text}\n{}", self.prompt()),
            Ok(CommandAnswer::Spaced(text)) => format!("data: {text}\n{}", self.prompt()),
            Ok(CommandAnswer::Prompt) => self.prompt(),
            Ok(CommandAnswer::Last(text, after)) => {
                outcome.close_in = Some(after);
                format!("data:{text}\n{}", self.prompt())
            }
            Ok(CommandAnswer::Next(next)) => {
                outcome.next = next;
                String::new()
            }
            Err(refusal) => {
                outcome.close = refusal.close;
                self.complain(&refusal)
            }
        };
        outcome.reply = text.into_bytes();
        outcome
    }

    fn complain(&self, refusal: &Refusal) -> String {
        let owner = matches!(self.who, Who::Owner(_));
        let shape = match (refusal.state, self.json_errors) {
            (true, _) => Shape::State,
            (false, true) => Shape::Json { owner },
            (false, false) if owner => Shape::Owner,
            (false, false) => Shape::Stranger,
        };
        // After an error a peer is shown the stranger's prompt.
        let prompt = if owner {
            self.prompt()
        } else {
            self.bare_prompt()
        };
        format!("{}\n{prompt}", refusal.fault.print(shape))
    }

    fn bare_prompt(&self) -> String {
        if self.watching {
            String::new()
        } else {
            "@".into()
        }
    }

    fn prompt(&self) -> String {
        match &self.who {
            _ if self.watching => String::new(),
            Who::Stranger => "@".into(),
            Who::Owner(_) => format!("{}@", self.home.who),
            Who::Peer(caller) => format!("{caller}@"),
        }
    }

    /// Lets only the owner pass.
    pub(super) fn owner(&self) -> Result<Option<&Grant>, Refusal> {
        match &self.who {
            Who::Owner(grant) => Ok(grant.as_ref()),
            _ => Err(refuse(
                Code::Unauthenticated,
                "Command cannot be executed without auth",
            )),
        }
    }

    /// Lets the owner pass if the enrolment, if any, may do this to the key.
    fn owner_of(&self, key: &str, verb: &str, need: Need) -> Result<(), Refusal> {
        let grant = self.owner()?;
        let id = grant.map_or(NO_ENROLLMENT, |grant| grant.id.as_str());
        let covered = grant.is_none_or(|grant| grant.covers(key, need));
        let own = match own_data(key) {
            Some((whose, letter)) if need == Need::Write => whose == id && letter == "a",
            _ => true,
        };
        if covered && own {
            return Ok(());
        }
        let text =
            format!("Connection with enrollment ID {id} is not authorized to {verb} key: {key}");
        Err(refuse(Code::Unauthorized, text))
    }
}
