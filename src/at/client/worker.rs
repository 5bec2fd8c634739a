//! The task that owns the command connection.
//!
//! ```text
//!   callers ──QueuedCommand──▶ [bounded queue] ──▶ worker ──line──▶ atServer
//!           ◀───────────── answer, once ──────────────────◀─reply──
//!
//!   quiet for a while, or the alarm ─▶ noop:0          lost while quiet ─▶ reconnect in the background, pauses growing
//!   lost or silent under a command that may run twice ─▶ reconnect, once more, if there is time
//!   the alarm under such a command ─▶ it has no longer than a proof would have
//!   keys revoked, denied, expired ─▶ that error to everybody, without asking; the server is asked again later
//! ```

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use async_std::{
    channel::{Receiver, Sender, bounded},
    future::timeout,
    task::{sleep, spawn},
};
use futures_lite::future::or;
use log::{debug, info};

use crate::{
    at::{
        atsign::AtSign, crypto::jitter, error::AtError, fault::Code, keyfile::AtKeys, reply::Reply,
        verb::Verb,
    },
    net::backoff::Backoff,
};

use super::{
    alarm::{Bell, ProofDemand},
    link::{self, Link, LinkError, LoginContext},
    timing::Timing,
};

/// How many commands may wait for their turn before callers have to.
const QUEUE: usize = 32;
/// More than a call's own deadline, so that the worker's better reason arrives first.
const GRACE: Duration = Duration::from_secs(1);
/// For the farewell at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// One command and who waits for its answer.
struct QueuedCommand {
    line: String,
    /// Whether it may be sent again when the connection dies under it.
    repeatable: bool,
    /// After this nobody waits any more.
    until: Instant,
    answer: Sender<Result<String, AtError>>,
}

/// The command connection, as its callers see it. Its task ends with this.
pub(super) struct Commands {
    pub logins: LoginContext,
    queue: Sender<QueuedCommand>,
}

impl Commands {
    pub(super) fn start(logins: LoginContext, link: Link) -> Self {
        let (queue, jobs) = bounded(QUEUE);
        spawn(Worker::new(logins.clone(), jobs, link).run());
        Self { logins, queue }
    }

    pub(super) fn atsign(&self) -> &AtSign {
        &self.keys().atsign
    }

    pub(super) fn keys(&self) -> &Arc<AtKeys> {
        &self.logins.keys
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.logins.timing
    }

    /// Sends one command, waits for its answer.
    pub(super) async fn run(&self, verb: &Verb) -> Result<String, AtError> {
        if is_private(verb) {
            return Err(AtError::Protocol(
                "this command needs a connection of its own".to_owned(),
            ));
        }
        let call = self.timing().call;
        let (answer, answered) = bounded(1);
        let command = QueuedCommand {
            line: link::command(verb)?,
            repeatable: is_repeatable(verb),
            until: Instant::now() + call,
            answer,
        };
        let done = async {
            let queued = self.queue.send(command).await;
            queued.map_err(|_| AtError::Closed)?;
            answered.recv().await.map_err(|_| AtError::Closed)?
        };
        let outcome = timeout(call + GRACE, done).await;
        outcome.unwrap_or(Err(AtError::Silent(call)))
    }
}

/// Whether running a command twice ends the same as running it once.
fn is_repeatable(verb: &Verb) -> bool {
    match verb {
        Verb::Notify(notify) => notify.id.is_some(), // whoever has heard an id drops it the next time
        Verb::Scan { .. }
        | Verb::Lookup { .. }
        | Verb::Plookup { .. }
        | Verb::Llookup { .. }
        | Verb::Update { .. }
        | Verb::UpdateMeta { .. }
        | Verb::UpdateJson { .. }
        | Verb::Delete { .. }
        | Verb::NotifyStatus { .. }
        | Verb::NotifyFetch { .. }
        | Verb::NotifyRemove { .. }
        | Verb::NotifyList { .. }
        | Verb::Noop { .. }
        | Verb::Info { .. }
        | Verb::Stats { .. }
        | Verb::Sync { .. }
        | Verb::Config(_)
        | Verb::OtpPut { .. } => true,
        Verb::Keys(keys) => keys.operation != "delete",
        _ => false,
    }
}

/// Commands that change what the connection is, and so cannot be sent on one that others use too.
fn is_private(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::From { .. }
            | Verb::Cram { .. }
            | Verb::Pkam { .. }
            | Verb::Pol
            | Verb::Monitor { .. }
            | Verb::Stream { .. }
    )
}

type CommandResult = Result<Reply, LinkError>;

struct Worker {
    logins: LoginContext,
    jobs: Receiver<QueuedCommand>,
    link: Option<Link>,
    bell: Bell,
    backoff: Backoff,
    /// When connecting last failed.
    failed: Option<Instant>,
}

/// What the worker does next.
enum WorkerEvent {
    Serve(QueuedCommand),
    Probe(ProofDemand),
    Reconnect,
    Drop(LinkError),
    End,
}

impl Worker {
    fn new(logins: LoginContext, jobs: Receiver<QueuedCommand>, link: Link) -> Self {
        let (first, longest) = logins.timing.retry;
        let bell = logins.alarm.bell();
        bell.stands(link.ends.map(|ends| ends.local));
        Self {
            logins,
            jobs,
            link: Some(link),
            bell,
            backoff: Backoff::new(first, longest),
            failed: None,
        }
    }

    /// Until nobody can send jobs any more.
    async fn run(mut self) {
        loop {
            match self.next().await {
                WorkerEvent::Serve(job) => self.serve(job).await,
                WorkerEvent::Probe(proof) => self.probe(proof).await,
                WorkerEvent::Reconnect => {
                    if let Ok(link) = self.connect().await {
                        self.link = Some(link);
                    }
                }
                WorkerEvent::Drop(why) => {
                    info!(
                        "as={} link=command state=lost reason={:?}",
                        self.logins.keys.atsign,
                        why.to_string()
                    );
                    self.link = None;
                    self.bell.fell();
                }
                WorkerEvent::End => break,
            }
        }
        if let Some(link) = self.link {
            link.close(GOODBYE).await;
        }
    }

    async fn next(&mut self) -> WorkerEvent {
        let job = async {
            match self.jobs.recv().await {
                Ok(job) => WorkerEvent::Serve(job),
                Err(_) => WorkerEvent::End,
            }
        };
        let quiet = async {
            match &mut self.link {
                Some(link) => {
                    let timing = &self.logins.timing;
                    let rung = async { WorkerEvent::Probe(self.bell.rung().await) };
                    let broken = async {
                        match timeout(timing.idle, link.watch()).await {
                            Ok(broken) => WorkerEvent::Drop(broken),
                            Err(_) => WorkerEvent::Probe(ProofDemand::of_quiet(timing.proof)),
                        }
                    };
                    or(broken, rung).await
                }
                None => {
                    let pause = self.backoff.pause(jitter());
                    sleep(pause.max(self.logins.barred.left())).await;
                    WorkerEvent::Reconnect
                }
            }
        };
        or(job, quiet).await
    }

    async fn probe(&mut self, proof: ProofDemand) {
        let Some(mut link) = self.link.take() else {
            return;
        };
        let tell = (!proof.is_alarm).then_some(&self.bell);
        let hopeless = self.logins.hopeless(link.ends, tell, proof.within);
        let hopeless = async { Err(hopeless.await) };
        match or(link.ask_line("noop:0", proof.within), hopeless).await {
            Ok(_) if link.is_usable() => self.link = Some(link),
            Ok(_) => self.bell.fell(),
            Err(why) => {
                self.bell.fell();
                info!(
                    "as={} link=command state=lost reason={:?}",
                    self.logins.keys.atsign,
                    why.to_string()
                );
            }
        }
    }

    /// Sends a command, waits for its answer. Once the alarm rings, one that can be repeated has no longer than a proof.
    async fn ask(&mut self, link: &mut Link, job: &QueuedCommand, repeat: bool) -> CommandResult {
        let left = job.until.saturating_duration_since(Instant::now());
        let reply = self.logins.timing.reply;
        let doubted = async {
            if !repeat {
                return pending().await;
            }
            let ProofDemand { within, .. } = self.bell.rung().await;
            sleep(within).await;
            Err(LinkError::Silent(within))
        };
        or(link.ask_line(&job.line, left.min(reply)), doubted).await
    }

    async fn serve(&mut self, job: QueuedCommand) {
        let mut again = true;
        let outcome = loop {
            if job.answer.is_closed() {
                return; // nobody waits for it, so nobody may be surprised by it later
            }
            let mut link = match self.linked(job.until).await {
                Ok(link) => link,
                Err(why) => break Err(why),
            };
            let reply = self.ask(&mut link, &job, job.repeatable && again).await;
            let keep = match &reply {
                Ok(Reply::Error(fault)) => !fault.closes_connection(),
                other => other.is_ok(),
            };
            if keep && link.is_usable() {
                self.link = Some(link);
            } else {
                self.bell.fell();
            }
            if matches!(reply, Err(LinkError::Silent(_))) {
                self.bell.ring_others(self.logins.timing.proof);
            }
            let may_repeat = match &reply {
                Err(LinkError::Lost(_)) => job.repeatable,
                Err(LinkError::Silent(_)) => job.repeatable && Instant::now() < job.until,
                // Refused before it ran: the login has been forgotten.
                Ok(Reply::Error(fault)) => fault.code == Some(Code::Unauthenticated),
                _ => false,
            };
            if may_repeat && again {
                debug!("as={} link=command state=repeated", self.logins.keys.atsign);
                again = false;
                continue;
            }
            break link::judge(reply, &self.logins.keys.atsign);
        };
        let _ = job.answer.try_send(outcome); // the caller may have given up
    }

    /// The connection, made again if need be and if it can be done in time.
    async fn linked(&mut self, until: Instant) -> Result<Link, AtError> {
        if let Some(mut link) = self.link.take()
            && link.is_usable()
        {
            return Ok(link);
        }
        loop {
            let since = self.failed.map_or(Duration::MAX, |at| at.elapsed());
            sleep(self.logins.timing.retry.0.saturating_sub(since)).await;
            let left = until.saturating_duration_since(Instant::now());
            let why = match timeout(left, self.connect()).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(why)) => why,
                Err(_) => return Err(AtError::Silent(self.logins.timing.call)),
            };
            if !why.may_pass() || Instant::now() + self.logins.timing.retry.0 >= until {
                return Err(why);
            }
        }
    }

    async fn connect(&mut self) -> Result<Link, AtError> {
        let outcome = self.logins.log_in().await;
        match &outcome {
            Ok(link) => {
                self.bell.stands(link.ends.map(|ends| ends.local));
                info!("as={} link=command state=back", self.logins.keys.atsign);
                self.backoff.reset();
                self.failed = None;
            }
            Err(why) => {
                info!(
                    "as={} link=command state=failed reason={:?}",
                    self.logins.keys.atsign,
                    why.to_string()
                );
                self.failed = Some(Instant::now());
            }
        }
        outcome
    }
}
