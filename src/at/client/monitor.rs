//! The task behind a subscription: one connection that listens, for as long as somebody wants to hear.
//!
//! ```text
//!   login ─▶ monitor <regex> ─▶ noop:0 ─▶ data:ok = live        notification ─▶ once per id ─▶ bounded channel
//!     ▲                                    │
//!     │     no byte for 15 s ─▶ noop:0 ─▶ no byte for 15 s more, or closed
//!     └── Lost, pauses growing ◀───────────┘        from the second time on: monitor:<last heard - 1 ms>
//! ```
//! Keys that were revoked, denied or have expired: `Lost` with those words, and one login in two minutes.
//! A consumer that is slow makes the task wait, and so the server; nothing piles up here.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_std::{
    channel::{Receiver, Sender},
    future::timeout,
    task::sleep,
};
use futures_lite::future::or;
use log::{error, info, warn};

use crate::{
    at::{fault::Code, keyfile::AtKeys, notification::Notification, reply::Reply, verb::Verb},
    net::backoff::Backoff,
};

use super::{
    AtError, Timing,
    error::Broken,
    jitter,
    link::{Door, Link},
};

/// Events that may wait for a slow consumer.
pub(super) const QUEUE: usize = 64;
/// Ids that are remembered so that nothing is delivered twice.
const REMEMBERED: usize = 4096;
/// Notifications that may come between `monitor` and its proof.
const MAX_BACKLOG: usize = 1024;
/// How often `monitor` is tried when the server took it and its proof for one command.
const ATTEMPTS: u32 = 3;
/// In keys that carry shared keys around; servers announce those too.
const SHARED_KEY: &str = ":shared_key@";

/// Incoming notifications, statistics left out. Ends its connection when dropped.
pub struct Subscription {
    pub(super) events: Receiver<Event>,
    pub(super) pulse: Pulse,
    /// Its end is the task's.
    pub(super) _alive: Sender<()>,
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

impl Subscription {
    /// The next event. `None` when the client is gone.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await.ok()
    }

    /// How long ago the server was last heard. Over 45 s: lost, or nobody takes the events away.
    pub fn last_heard(&self) -> Duration {
        self.pulse.last_heard()
    }

    /// The same for somebody else to look at, such as a watchdog.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }
}

/// When a monitor last heard its server.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(super) fn new() -> Self {
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
    pub door: Door,
    pub keys: Arc<AtKeys>,
    pub timing: Timing,
    pub regex: String,
    /// Also what the server itself tells its owner: enrolment requests.
    pub own: bool,
    pub events: Sender<Event>,
    pub pulse: Pulse,
    pub seen: Seen,
    /// The server's clock in what it last told, in milliseconds since 1970.
    pub last: Option<u64>,
}

/// The consumer is gone.
struct Gone;

/// Why listening ended.
enum End {
    Lost(String),
    Gone,
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Broken> for End {
    fn from(why: Broken) -> Self {
        Self::Lost(why.to_string())
    }
}

impl Monitor {
    /// Tells `live` how the first attempt went; then runs until one of the `stops` ends.
    pub(super) async fn run(self, live: Sender<Result<(), AtError>>, stops: [Receiver<()>; 2]) {
        let [first, second] = &stops;
        let stopped = async {
            let _ = or(first.recv(), second.recv()).await;
        };
        or(stopped, self.listen(live)).await;
    }

    async fn listen(mut self, live: Sender<Result<(), AtError>>) {
        let mut link = match self.start().await {
            Ok((link, backlog)) => {
                let _ = live.try_send(Ok(()));
                if self.deliver_all(backlog).await.is_err() {
                    return;
                }
                link
            }
            Err(why) => {
                let _ = live.try_send(Err(why));
                return;
            }
        };
        let mut backoff = Backoff::new(self.timing.retry.0, self.timing.retry.1);
        loop {
            let began = Instant::now();
            let End::Lost(why) = self.watch(&mut link).await else {
                return;
            };
            drop(link);
            info!("atsign={} connection=monitor lost: {why}", self.keys.atsign);
            if self.events.send(Event::Lost(why)).await.is_err() {
                return;
            }
            // A server that lets everybody in and throws everybody out again is no reason to hurry.
            if began.elapsed() > self.timing.retry.1 {
                backoff.reset();
            }
            let Ok(again) = self.come_back(&mut backoff).await else {
                return;
            };
            link = again;
        }
    }

    async fn come_back(&mut self, backoff: &mut Backoff) -> Result<Link, Gone> {
        loop {
            let pause = backoff.pause(jitter());
            sleep(pause.max(self.door.barred.left())).await;
            match self.start().await {
                Ok((link, backlog)) => {
                    info!("atsign={} connection=monitor back", self.keys.atsign);
                    self.events.send(Event::Back).await.map_err(|_| Gone)?;
                    self.deliver_all(backlog).await?;
                    return Ok(link);
                }
                Err(why) => match why.final_word() {
                    Some(words) => self.barred(words).await?,
                    None => info!(
                        "atsign={} connection=monitor failed: {why}",
                        self.keys.atsign
                    ),
                },
            }
        }
    }

    /// The server answered, and will not have these keys. It is asked again, because they may be given back.
    async fn barred(&self, words: &str) -> Result<(), Gone> {
        self.pulse.beat();
        let again = self.timing.barred;
        error!(
            "atsign={} {words}; asking again in {again:?}",
            self.keys.atsign
        );
        let event = Event::Lost(words.to_owned());
        self.events.send(event).await.map_err(|_| Gone)
    }

    /// A monitor that is proved to be one, and what came meanwhile.
    async fn start(&self) -> Result<(Link, Vec<String>), AtError> {
        let mut settle = self.timing.settle;
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

    async fn attempt(&self, settle: Duration) -> Result<(Link, Vec<String>), AtError> {
        let mut link = self.door.log_in().await?;
        let within = self.timing.reply;
        let line = super::link::command(&monitor(&self.regex, self.own, self.last))?;
        link.becomes_monitor();
        let proved = async {
            link.send(&line, within).await?;
            sleep(settle).await;
            link.send("noop:0", within).await?;
            prove(&mut link).await
        };
        match timeout(within + settle, proved).await {
            Ok(Ok(Ok(backlog))) => {
                self.pulse.beat();
                Ok((link, backlog))
            }
            Ok(Ok(Err(why))) => Err(why),
            Ok(Err(broken)) => Err(broken.into_error(&self.keys.atsign)),
            Err(_) => Err(AtError::Silent(within)),
        }
    }

    /// Delivers until the connection is dead.
    async fn watch(&mut self, link: &mut Link) -> End {
        let mut asked = false;
        let mut unfinished: Option<Instant> = None;
        loop {
            if let Err(end) = self.deliver_from(link).await {
                return end;
            }
            unfinished = link
                .is_partial()
                .then(|| unfinished.unwrap_or_else(Instant::now));
            if unfinished.is_some_and(|since| since.elapsed() > self.timing.line) {
                return End::Lost("it stopped in the middle of a line".to_owned());
            }
            match timeout(self.timing.silence, link.fill()).await {
                Ok(Ok(true)) => {
                    self.pulse.beat();
                    asked = false;
                }
                Ok(Ok(false)) => return End::Lost("it was closed".to_owned()),
                Ok(Err(broken)) => return broken.into(),
                Err(_) if asked => return End::Lost("the server is silent".to_owned()),
                Err(_) => {
                    asked = true;
                    if let Err(broken) = link.send("noop:0", self.timing.silence).await {
                        return broken.into();
                    }
                }
            }
        }
    }

    async fn deliver_from(&mut self, link: &mut Link) -> Result<(), End> {
        while let Some(reply) = link.pop()? {
            match reply {
                Reply::Notification(json) => self.deliver(&json).await?,
                Reply::Error(fault) => return Err(End::Lost(fault.to_string())),
                _ => {} // the answer to noop
            }
        }
        Ok(())
    }

    async fn deliver_all(&mut self, backlog: Vec<String>) -> Result<(), Gone> {
        for json in backlog {
            self.deliver(&json).await?;
        }
        Ok(())
    }

    async fn deliver(&mut self, json: &str) -> Result<(), Gone> {
        let note = match Notification::parse(json) {
            Ok(note) => note,
            Err(why) => {
                warn!(
                    "atsign={} bytes={} dropped {why}",
                    self.keys.atsign,
                    json.len()
                );
                return Ok(());
            }
        };
        self.last = self.last.max(Some(note.epoch_millis));
        if note.is_stats() || note.key.contains(SHARED_KEY) || !self.seen.is_new(&note) {
            return Ok(());
        }
        let event = Event::Note(Box::new(note));
        self.events.send(event).await.map_err(|_| Gone)
    }
}

/// Waits for the answer to `noop:0`; keeps the notifications that come before it.
async fn prove(link: &mut Link) -> Result<Result<Vec<String>, AtError>, Broken> {
    let mut backlog = Vec::new();
    loop {
        while let Some(reply) = link.pop()? {
            match reply {
                Reply::Notification(_) if backlog.len() >= MAX_BACKLOG => {
                    return Err(Broken::Lost("too much came at once".to_owned()));
                }
                Reply::Notification(json) => backlog.push(json),
                Reply::Data(_) => return Ok(Ok(backlog)),
                Reply::Error(fault) => return Ok(Err(AtError::Refused(fault))),
                _ => {}
            }
        }
        if !link.fill().await? {
            return Err(Broken::Lost("it was closed".to_owned()));
        }
    }
}

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

/// The newest ids, as keyed hashes: a sender chooses ids and their length.
pub(super) struct Seen {
    hasher: RandomState,
    set: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            set: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether this sender's id comes for the first time; from now on it does not.
    fn is_new(&mut self, note: &Notification) -> bool {
        let hash = self.hasher.hash_one((&note.from, &note.id));
        if !self.set.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}
