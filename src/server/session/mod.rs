//! One connection to an atServer, without the connection: a line, a transaction and the time go in; a reply,
//! and what else is to be done, come out.
//!
//! ```text
//!   line ──read()──▶ Done(outcome)                  needs no store (empty line, noop, info)
//!              └───▶ Run(command) ──run(command, tx, now)──▶ UncommittedOutcome ──committed, accept()──▶ CommandOutcome
//!                                                                                                            │
//!                                   Watch, Prove, Fetch: the listener does it, then comes back with what it learned
//! ```
//!
//! Here: what happens to a line. `state`: what a connection is. `outcome`: what comes of a line. `errand`: what other
//! servers are asked. The rest are the commands, a file for each family of them.
//!
//! [`Session::run`] changes nothing but its transaction, so that the store may run a command again; it works on a
//! copy of the session. The copy, and what the command left for others to see, come true with [`Session::accept`].
//!
//! A reply is whole: line and prompt, to be sent in one write. Some clients read exactly one TLS record for it.
//!
//! Source: at_server:packages/at_secondary_server/lib/src/verb/handler and
//! at_server:packages/at_secondary_server/lib/src/exception/global_exception_handler.dart.

mod admin;
mod auth;
mod batch;
mod enroll;
mod enroll_params;
mod enrolled;
mod errand;
mod look;
mod notify;
mod otp;
mod outcome;
mod pattern;
mod state;
mod stats;
mod view;
mod visits;
mod write;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use crate::at::{
    Verb,
    fault::{Code, Shape},
    verb::{Dialect, SyntaxError},
};

use super::{
    refusal::{Refusal, refuse},
    store::{StoreError, Tx, lists},
};
use auth::PkamSignature;
use outcome::{CommandAnswer, Handled, success};
use state::{Guess, Trace, Who};
use visits::ConnectionKind;

pub(super) use auth::{PKAM_KEY, SECRET};
pub(super) use batch::parse_all;
pub use errand::{Errand, Fetched, Proof, RemoteQuery};
pub use look::public_value;
pub use outcome::{CommandOutcome, FollowUp, LineAction, Login, StoreCommand, UncommittedOutcome};
pub use state::{Facts, Session, SessionStanding};
pub use view::{MonitorView, page};
pub(super) use visits::OUTGOING;
#[cfg(test)]
pub(super) use visits::{DELIVERIES_TO_HOST, OF_HOME, OF_SENDER, TO_HOST};
pub use visits::{Outbound, OutgoingParty};
#[cfg(feature = "inside")]
pub use {
    super::notification::{live_line, stored_line},
    state::{MAX_LINE, MAX_LINE_STRANGER},
    visits::Attendance,
};

/// The greeting of every connection.
pub const GREETING: &[u8] = b"@";

impl Session {
    /// Takes one line, without its line end. `now` in milliseconds since 1970.
    pub fn read(&mut self, line: &str, now: u64) -> LineAction {
        self.now = now;
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
                let answer = self.info(brief, None);
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
        let mut session = Self {
            now,
            ..self.clone()
        };
        let handled = session.handle(job.0.as_ref().clone(), tx);
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

    fn handle(&mut self, verb: Verb, tx: &mut Tx<'_>) -> Handled {
        // Other servers keep their connections: who is blocked since is shut out here.
        if let Who::Peer(caller) = &self.who
            && !lists::admits(tx, &self.home, caller)?
        {
            return Err(refuse(Code::Blocked, "Unable to connect"));
        }
        if matches!(self.who, Who::Owner(_)) && makes_more(&verb) {
            self.home.within_quota(tx)?;
        }
        match verb {
            Verb::From { who, config } => self.from(tx, who, config.as_deref()),
            Verb::Cram { digest } => self.cram(tx, &digest),
            Verb::Pkam {
                signing,
                hashing,
                enrollment,
                signature,
            } => {
                let claim = PkamSignature {
                    signing: signing.unwrap_or_default(),
                    hashing: hashing.unwrap_or_default(),
                    enrollment,
                    signature,
                };
                self.pkam(tx, &claim)
            }
            Verb::Pol => self.pol(tx),
            Verb::Scan {
                show_hidden,
                of,
                regex,
                ..
            } => self.scan(tx, show_hidden, of.as_ref(), regex.as_deref()),
            Verb::Lookup {
                key,
                detail,
                bypass_cache,
            } => self.lookup(tx, &key, detail, bypass_cache),
            Verb::Plookup {
                key,
                detail,
                bypass_cache,
            } => self.plookup(tx, &key, detail, bypass_cache),
            Verb::Llookup { key, detail } => self.llookup(tx, &key, detail),
            Verb::Update {
                key,
                metadata,
                value,
            } => self.update(tx, key, metadata, value),
            Verb::UpdateMeta { key, metadata } => self.update_meta(tx, key, &metadata),
            Verb::UpdateJson { json } => self.update_json(tx, &json),
            Verb::Delete { key, .. } => self.delete(tx, key, false),
            Verb::ForceDelete { key } => self.delete(tx, key, true),
            verb => self.handle_more(verb, tx),
        }
    }

    fn handle_more(&mut self, verb: Verb, tx: &mut Tx<'_>) -> Handled {
        match verb {
            Verb::Notify(notify) => self.notify(tx, *notify),
            Verb::NotifyStatus { id } => self.notify_status(tx, &id),
            Verb::NotifyFetch { id } => self.notify_fetch(tx, &id),
            Verb::NotifyRemove { id } => self.notify_remove(tx, &id),
            Verb::NotifyList { from, to, regex } => {
                self.notify_list(tx, from.as_deref(), to.as_deref(), regex.as_deref())
            }
            Verb::NotifyAll { to, notify } => self.notify_all(tx, to, *notify),
            Verb::Monitor {
                self_notifications,
                since,
                regex,
                ..
            } => self.monitor(tx, self_notifications, since, regex.as_deref()),
            Verb::Info { .. } => self.info_of_enrollment(tx),
            Verb::Stats { ids, regex } => self.stats(tx, &ids, regex.as_deref()),
            Verb::Sync { from, limit, regex } => self.sync(tx, from, limit, regex.as_deref()),
            Verb::Config(config) => self.config(tx, config),
            Verb::Batch { json } => self.batch(tx, &json),
            Verb::Enroll {
                operation,
                force,
                params,
            } => self.enroll(tx, operation, force, params.as_deref()),
            Verb::OtpGet { ttl } => self.otp_get(tx, ttl),
            Verb::OtpPut { otp, ttl } => self.otp_put(tx, &otp, ttl),
            Verb::Keys(keys) => self.keys(tx, &keys),
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
            Who::Owner(_) => (ConnectionKind::Own, Some(&self.home.who)),
            Who::Peer(caller) => (ConnectionKind::Peer, Some(caller)),
            Who::Stranger => (ConnectionKind::Anon, self.claims()),
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
            Ok(CommandAnswer::Data(mut text)) => {
                // In place: it may be a value of many megabytes.
                let (head, end) = ("data:", format!("\n{}", self.prompt()));
                text.reserve_exact(head.len() + end.len());
                text.insert_str(0, head);
                text + &end
            }
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
}

/// Whether a command of the owner's fills the disk.
fn makes_more(verb: &Verb) -> bool {
    match verb {
        Verb::Update { .. }
        | Verb::UpdateMeta { .. }
        | Verb::UpdateJson { .. }
        | Verb::Notify(_)
        | Verb::NotifyAll { .. } => true,
        Verb::Keys(keys) => keys.operation == "put",
        _ => false,
    }
}
