//! The task behind a subscription: one connection that listens, for as long as somebody wants to hear.
//!
//! ```text
//!   login ─▶ monitor <regex> ─▶ noop:0 ─▶ data:ok, or a notification = live     notification ─▶ once per id ─▶ bounded channel
//!     ▲                                    │
//!     │     no byte for 7.6 s, or the alarm ─▶ noop:0 ─▶ no byte for 4 s more, or closed, or the name leads elsewhere
//!     └── Lost, pauses growing ◀───────────┘        from the second time on: monitor:<last heard - 1 ms>
//! ```
//! Keys that were revoked, denied or have expired: `Lost` with those words, and one login in two minutes.
//! A consumer that is slow makes the task wait, and so the server; nothing piles up here, however much was missed.
//!
//! Whoever may write to us decides how long a line is. The server is told the limit and may leave longer ones out
//! (`at::auth`); then the next one's time tells that they are behind us. One above the limit that comes is passed over without being kept, its time
//! counts as heard, and so the server is not asked for it again. Its time stands behind its value: when the connection
//! ends before that came, it will come once more. After `MAX_TORN` such ends at the same place what was missed is
//! given up, and only what is new is asked for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_std::{
    channel::{Receiver, Sender, bounded},
    future::timeout,
    task::{sleep, spawn},
};
use futures_lite::future::or;
use log::{error, info, warn};

use crate::{
    at::{
        crypto::jitter,
        error::{AtError, RESTART},
        fault::Code,
        notification::Notification,
        reply::{MAX_LINE, Reply, Skipped},
        verb::Verb,
    },
    net::backoff::Backoff,
    text::duration::in_words,
};

use super::{
    alarm::{Bell, ProofDemand},
    lines::{DeliveredIds, PartialLine, PassedOver, TornLines},
    link::{self, Ends, Link, LinkError, LoginContext},
};

/// Events that may wait for a slow consumer.
pub(super) const QUEUE: usize = 64;
/// How often `monitor` is tried when the server took it and its proof for one command.
const ATTEMPTS: u32 = 3;
/// In keys that carry shared keys around; servers announce those too.
const SHARED_KEY: &str = ":shared_key@";

/// Incoming notifications, statistics left out. Ends its connection when dropped.
pub struct Subscription {
    events: Receiver<Event>,
    pulse: Pulse,
    /// Its end is the task's.
    _alive: Sender<()>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

/// What a subscription tells.
#[derive(Debug)]
pub enum Event {
    /// A notification.
    Note(Box<Notification>),
    /// The connection was lost; it is being made again.
    Lost(String),
    /// It is back.
    Back,
}

/// As a log says it.
impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Note(note) => write!(f, "note from={} entity={}", note.from, note.entity()),
            Self::Lost(why) => write!(f, "lost reason={why:?}"),
            Self::Back => f.write_str("back"),
        }
    }
}

impl Subscription {
    /// The next event. `None` when the client is gone.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await.ok()
    }

    /// When the server was last heard, for a watchdog. Over 45 s ago: lost, or nobody takes the events away.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }
}

/// When a monitor last heard its server.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// How long ago that was.
    pub fn last_heard(&self) -> Duration {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

pub(super) struct Monitor {
    logins: LoginContext,
    regex: String,
    /// Also what the server itself tells its owner: enrolment requests.
    own: bool,
    /// Lines above so many bytes are passed over.
    limit: usize,
    events: Sender<Event>,
    pulse: Pulse,
    bell: Bell,
    delivered: DeliveredIds,
    /// The server's clock in what it last told, in milliseconds since 1970.
    last: Option<u64>,
    torn: TornLines,
    passed_over: PassedOver,
}

/// The consumer is gone.
struct Gone;

/// What a monitor does next.
enum Wakeup {
    /// Bytes came; false: the end.
    Filled(Result<bool, LinkError>),
    /// Ask `noop:0`.
    Prove(ProofDemand),
    Hopeless(LinkError),
}

/// Why listening ended.
enum ListenError {
    Lost(String),
    /// To another address, where somebody answers.
    Moved(String),
    Gone,
}

impl From<Gone> for ListenError {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<LinkError> for ListenError {
    fn from(why: LinkError) -> Self {
        match why {
            LinkError::Moved => Self::Moved(why.to_string()),
            why => Self::Lost(why.to_string()),
        }
    }
}

impl Monitor {
    /// Starts a monitor's task, which runs until the subscription is dropped or `stop` ends; the second half tells how
    /// its first attempt went.
    pub(super) fn start(
        logins: LoginContext,
        stop: Receiver<()>,
        regex: &str,
        own: bool,
        limit: usize,
    ) -> (Subscription, Receiver<Result<(), AtError>>) {
        let (events, heard) = bounded(QUEUE);
        let (live, went) = bounded(1);
        let (alive, dropped) = bounded::<()>(1);
        let pulse = Pulse::new();
        let monitor = Self {
            bell: logins.alarm.bell(),
            logins,
            regex: regex.to_owned(),
            own,
            limit,
            events,
            pulse: pulse.clone(),
            delivered: DeliveredIds::default(),
            last: None,
            torn: TornLines::default(),
            passed_over: PassedOver::default(),
        };
        spawn(async move {
            let stopped = async {
                let _ = or(dropped.recv(), stop.recv()).await;
            };
            or(stopped, monitor.listen(live)).await;
        });
        let subscription = Subscription {
            events: heard,
            pulse,
            _alive: alive,
        };
        (subscription, went)
    }

    async fn listen(mut self, live: Sender<Result<(), AtError>>) {
        let mut link = match self.prove_new().await {
            Ok((link, first)) => {
                let _ = live.try_send(Ok(()));
                if self.hear(first).await.is_err() {
                    return;
                }
                link
            }
            Err(why) => {
                let _ = live.try_send(Err(why));
                return;
            }
        };
        let mut backoff = Backoff::new(self.logins.timing.retry.0, self.logins.timing.retry.1);
        loop {
            let began = Instant::now();
            let (why, has_moved) = match self.watch(&mut link).await {
                ListenError::Lost(why) => (why, false),
                ListenError::Moved(why) => (why, true),
                ListenError::Gone => return,
            };
            self.left(&link);
            drop(link);
            self.bell.fell();
            info!(
                "as={} link=monitor state=lost reason={:?}",
                self.logins.keys.atsign,
                why.to_string()
            );
            if self.events.send(Event::Lost(why)).await.is_err() {
                return;
            }
            // A server that lets everybody in and throws everybody out again is no reason to hurry.
            if began.elapsed() > self.logins.timing.retry.1 {
                backoff.reset();
            }
            if !has_moved {
                self.wait(&mut backoff).await;
            }
            let Ok(again) = self.come_back(&mut backoff).await else {
                return;
            };
            link = again;
        }
    }

    async fn wait(&self, backoff: &mut Backoff) {
        let pause = backoff.pause(jitter());
        sleep(pause.max(self.logins.barred.left())).await;
    }

    async fn come_back(&mut self, backoff: &mut Backoff) -> Result<Link, Gone> {
        loop {
            match self.prove_new().await {
                Ok((link, first)) => {
                    info!("as={} link=monitor state=back", self.logins.keys.atsign);
                    self.events.send(Event::Back).await.map_err(|_| Gone)?;
                    self.hear(first).await?;
                    return Ok(link);
                }
                Err(why) => match why.final_word() {
                    Some(words) => self.barred(words).await?,
                    None => info!(
                        "as={} link=monitor state=failed reason={:?}",
                        self.logins.keys.atsign,
                        why.to_string()
                    ),
                },
            }
            self.wait(backoff).await;
        }
    }

    /// The server answered, and will not have these keys. It is asked again, because they may be given back.
    async fn barred(&self, words: &str) -> Result<(), Gone> {
        self.pulse.beat();
        let again = self.logins.timing.barred;
        error!(
            "as={} reason={words:?} again_in={} hint={RESTART:?}",
            self.logins.keys.atsign,
            in_words(again)
        );
        let event = Event::Lost(words.to_owned());
        self.events.send(event).await.map_err(|_| Gone)
    }

    /// A monitor that is proved to be one, and the line that proved it.
    async fn prove_new(&mut self) -> Result<(Link, Reply), AtError> {
        let mut settle = self.logins.timing.settle;
        for _ in 1..ATTEMPTS {
            match self.attempt(settle).await {
                // Either the regex, or both lines were read as one command. Only a new connection can tell.
                Err(AtError::Refused(fault)) if fault.code == Some(Code::InvalidSyntax) => {
                    settle *= 8;
                }
                outcome => return outcome,
            }
        }
        self.attempt(settle).await
    }

    async fn attempt(&mut self, settle: Duration) -> Result<(Link, Reply), AtError> {
        // The longest that any line may be need not be told.
        let limit = Some(self.limit).filter(|limit| *limit < MAX_LINE);
        let mut link = self.logins.log_in_reading(limit).await?;
        let within = self.logins.timing.reply;
        let line = link::command(&monitor(&self.regex, self.own, self.last))?;
        link.becomes_monitor(self.limit);
        let asked = async {
            link.send(&line, within).await?;
            sleep(settle).await;
            link.send("noop:0", within).await
        };
        let proved = match asked.await {
            Ok(()) => self.prove(&mut link).await,
            Err(broken) => Err(broken),
        };
        match proved {
            Ok(Reply::Error(fault)) => Err(AtError::Refused(fault)),
            Ok(first) => Ok((link, first)),
            Err(broken) => {
                self.left(&link);
                Err(broken.into_error(&self.logins.keys.atsign))
            }
        }
    }

    /// Waits for the first line that only a monitor says, or the answer to `noop:0`. What else was missed comes behind
    /// it, and is heard as it comes. Time in which a long line comes in does not count.
    async fn prove(&mut self, link: &mut Link) -> Result<Reply, LinkError> {
        let within = self.logins.timing.reply;
        let (mut since, mut rest) = (Instant::now(), PartialLine::default());
        loop {
            let mut heard = false;
            while let Some(reply) = link.pop()? {
                heard = true;
                match reply {
                    // These come whatever the regex, so also when `noop` was taken for a part of it.
                    Reply::Notification(json) if self.is_stats(&json) => {}
                    first => return Ok(first),
                }
            }
            if rest.waited(link, heard) > self.logins.timing.line {
                return Err(LinkError::Lost(HALF_A_LINE.to_owned()));
            }
            if link.is_partial() {
                since = Instant::now();
            }
            let left = within.saturating_sub(since.elapsed());
            match timeout(left, link.fill()).await {
                Ok(Ok(true)) => self.pulse.beat(),
                Ok(Ok(false)) => return Err(LinkError::Lost("it was closed".to_owned())),
                Ok(Err(broken)) => return Err(broken),
                Err(_) => return Err(LinkError::Silent(within)),
            }
        }
    }

    fn is_stats(&self, json: &str) -> bool {
        // Anybody may choose that id, but not who it is from.
        Notification::parse(json)
            .is_ok_and(|note| note.is_stats() && note.from == self.logins.keys.atsign)
    }

    /// Delivers until the connection is dead.
    async fn watch(&mut self, link: &mut Link) -> ListenError {
        self.bell.stands(link.ends.map(|ends| ends.local));
        let mut proof: Option<ProofDemand> = None;
        let mut rest = PartialLine::default();
        loop {
            let heard = match self.deliver_from(link).await {
                Ok(heard) => heard,
                Err(end) => return end,
            };
            if rest.waited(link, heard) > self.logins.timing.line {
                return ListenError::Lost(HALF_A_LINE.to_owned());
            }
            let ends = link.ends;
            let filled = async { Wakeup::Filled(link.fill().await) };
            match or(filled, self.wakeup(ends, proof)).await {
                Wakeup::Filled(Ok(true)) => {
                    self.pulse.beat();
                    proof = None;
                }
                Wakeup::Filled(Ok(false)) => {
                    return ListenError::Lost("it was closed".to_owned());
                }
                Wakeup::Filled(Err(broken)) | Wakeup::Hopeless(broken) => return broken.into(),
                Wakeup::Prove(asked) => {
                    proof = Some(asked);
                    if let Err(broken) = link.send("noop:0", asked.within).await {
                        return broken.into();
                    }
                }
            }
        }
    }

    /// What is to be done when nothing comes.
    async fn wakeup(&self, ends: Option<Ends>, proof: Option<ProofDemand>) -> Wakeup {
        let Some(proof) = proof else {
            let rung = async { Wakeup::Prove(self.bell.rung().await) };
            let quiet = async {
                sleep(self.logins.timing.silence).await;
                Wakeup::Prove(ProofDemand::of_quiet(self.logins.timing.proof))
            };
            return or(rung, quiet).await;
        };
        let tell = (!proof.is_alarm).then_some(&self.bell);
        let hopeless = self.logins.hopeless(ends, tell, proof.within);
        // An alarm may leave less time than this proof had.
        let sooner = async {
            let ProofDemand { within, .. } = self.bell.rung().await;
            sleep(within).await;
            LinkError::Silent(within)
        };
        Wakeup::Hopeless(or(hopeless, sooner).await)
    }

    /// Whether there was a line.
    async fn deliver_from(&mut self, link: &mut Link) -> Result<bool, ListenError> {
        let mut heard = false;
        while let Some(reply) = link.pop()? {
            heard = true;
            match reply {
                Reply::Error(fault) => return Err(ListenError::Lost(fault.to_string())),
                reply => self.hear(reply).await?,
            }
        }
        Ok(heard)
    }

    async fn hear(&mut self, reply: Reply) -> Result<(), Gone> {
        match reply {
            Reply::Notification(json) => self.deliver(&json).await?,
            Reply::Skipped(line) => self.passes_over(line, "longer than is read here, or no text"),
            _ => {} // the answer to noop
        }
        Ok(())
    }

    async fn deliver(&mut self, json: &str) -> Result<(), Gone> {
        let note = match Notification::parse(json) {
            Ok(note) => note,
            Err(why) => {
                self.passes_over(Skipped::of(json.as_bytes()), &why.to_string());
                return Ok(());
            }
        };
        self.reached(Some(note.epoch_millis));
        if note.is_stats() || note.key.contains(SHARED_KEY) || !self.delivered.is_new(&note) {
            return Ok(());
        }
        let event = Event::Note(Box::new(note));
        self.events.send(event).await.map_err(|_| Gone)
    }

    /// What was passed over is not asked for again either.
    fn passes_over(&mut self, line: Skipped, why: &str) {
        self.reached(line.epoch_millis);
        if let Some(lines) = self.passed_over.count() {
            warn!(
                "as={} dropped bytes={} lines={lines} reason={why:?}",
                self.logins.keys.atsign, line.bytes
            );
        }
    }

    fn reached(&mut self, millis: Option<u64>) {
        // 0: the server did not say.
        self.last = self.last.max(millis.filter(|millis| *millis > 0));
    }

    /// The connection ended here.
    fn left(&mut self, link: &Link) {
        if link.skipping().is_some() && self.torn.is_too_often(self.last) {
            warn!(
                "as={} missed reason=\"a long line never ends\"",
                self.logins.keys.atsign
            );
            self.last = None;
        }
    }
}

const HALF_A_LINE: &str = "it stopped in the middle of a line";

/// The command. A server changes what stands in front of its first colon: it makes it lower case and takes the
/// blanks out. So a regex for which that matters goes behind a flag, which has a colon of its own.
fn monitor(regex: &str, own: bool, last: Option<u64>) -> Verb {
    let since = last.map(|millis| millis.saturating_sub(1));
    let delicate = regex.contains(':') || regex.chars().any(char::is_uppercase);
    Verb::Monitor {
        strict: false,
        self_notifications: own || delicate && since.is_none(),
        multiplexed: false,
        since,
        regex: (!regex.is_empty()).then(|| regex.to_owned()),
    }
}
