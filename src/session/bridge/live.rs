//! One session as others see it while it runs, and what they tell it.
//!
//! ```text
//!   carry ──▶ bytes, connections, why a target failed ──▶ state; the device's end tells the client's, whose person is told
//!   leave ──▶ both ends of each connection are read no further; what has been read is delivered, then the end
//!             at once: both ends are reset
//! ```

use std::{
    io::ErrorKind,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_std::channel::{Receiver, Sender, bounded};
use futures_lite::future;

use super::{
    LocalEnd, Plan,
    news::{BridgeNews, TargetFailure, Totals},
};
use crate::{
    pipe::{
        cipher::Side,
        join::{Carried, End, JoinFailure, Meter},
    },
    session::control::{About, SessionState},
    sys::out,
    text::terminal::cut,
};

/// Between two lines about a target that fails: a page may dial it a hundred times.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Longest reason that is kept, in characters.
const LONGEST_REASON: usize = 300;
/// Failures that wait to be told to the client's end; more are only counted.
const MOST_UNTOLD: usize = 16;

/// One session, watched.
#[derive(Debug)]
pub struct Live {
    about: About,
    side: Side,
    target: String,
    rendezvous: String,
    many: bool,
    since: SystemTime,
    began: Instant,
    pub(super) meter: Meter,
    connections: AtomicU64,
    met: AtomicBool,
    failures: Mutex<TargetFailures>,
    /// Those that the client's end has not been told of.
    untold: (Sender<String>, Receiver<String>),
    /// The other end tells nothing of its target.
    guesses: AtomicBool,
    has_told_peer: AtomicBool,
    /// Whom this end tells, and how.
    tell: fn(&TargetFailure),
    lets_go: Gate,
    at_once: Gate,
}

#[derive(Debug, Default)]
struct TargetFailures {
    count: u64,
    reason: Option<String>,
    /// When one was told, and how many had been counted by then.
    told: Option<(Instant, u64)>,
}

/// Open until it is closed for good.
#[derive(Debug)]
struct Gate(Sender<()>, Receiver<()>);

impl Gate {
    fn new() -> Self {
        let (sender, receiver) = bounded(1);
        Self(sender, receiver)
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    async fn closed(&self) {
        let _ = self.1.recv().await;
    }
}

/// One of a session's connections, as long as it stands.
pub(super) struct LiveConnection<'a>(&'a Live);

impl Drop for LiveConnection<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Live {
    /// Of a session that is about to begin.
    pub fn of(plan: &Plan, about: About) -> Self {
        let target = match &plan.local {
            LocalEnd::Dial(service) => service.to_string(),
            LocalEnd::Listen(visitors) => visitors
                .at()
                .map_or_else(|_| "-".to_owned(), |at| at.to_string()),
            LocalEnd::Stdio => "stdio".to_owned(),
        };
        Self {
            about,
            side: plan.far.side,
            target,
            rendezvous: plan.far.rendezvous.to_string(),
            many: plan.many.is_some(),
            ..Self::default()
        }
    }

    /// Of a tunnel's client, which tells its person itself of a target that fails.
    pub fn of_tunnel(target: String, tell: fn(&TargetFailure)) -> Self {
        Self {
            target,
            many: true,
            tell,
            ..Self::default()
        }
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// How it is.
    pub fn state(&self) -> SessionState {
        let (about, carried) = (&self.about, self.meter.carried());
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let phase = if self.lets_go.is_closed() {
            "closing"
        } else if carried.down > 0 || self.met.load(Relaxed) {
            "paired"
        } else {
            "connecting"
        };
        SessionState {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            session: about.session.clone(),
            device: about.device.clone(),
            atsign: about.atsign.clone(),
            client: about.client.clone(),
            side: self.side.to_string(),
            target: self.target.clone(),
            rendezvous: self.rendezvous.clone(),
            many: self.many,
            since: seconds_of(self.since),
            phase: phase.to_owned(),
            connections: self.connections.load(Relaxed),
            up: carried.up,
            down: carried.down,
            quiet: self.meter.quiet_for().map(|time| time.as_secs()),
            failures: failures.count,
            reason: failures.reason.clone(),
        }
    }

    /// Tells it to end: when what has been read is delivered, or at once.
    pub fn leave(&self, now: bool) {
        self.lets_go.0.close();
        if now {
            self.at_once.0.close();
        }
    }

    /// Whether it was told so.
    pub fn was_told_to_leave(&self) -> bool {
        self.lets_go.is_closed()
    }

    /// Waits until it is told to end.
    pub(super) async fn lets_go(&self) {
        self.lets_go.closed().await;
    }

    /// Waits until it is told to end at once.
    pub(super) async fn at_once(&self) {
        self.at_once.closed().await;
    }

    /// What it has carried in its whole life, for who started it.
    pub fn totals(&self) -> Totals {
        let Carried { up, down } = self.meter.carried();
        Totals {
            up,
            down,
            seconds: self.began.elapsed().as_secs(),
        }
    }

    /// The other end has been heard.
    pub(super) fn met(&self) {
        self.met.store(true, Relaxed);
    }

    /// Somebody has come to our port; who waits for that has told us whose session it is.
    pub(super) fn used(&self) {
        if self.about.session.is_some() {
            out::note(BridgeNews::Spoken);
        }
    }

    /// One more connection, until that is dropped.
    pub(super) fn stands(&self) -> LiveConnection<'_> {
        self.connections.fetch_add(1, Relaxed);
        LiveConnection(self)
    }

    /// The device's service refused, was not found, did not answer or broke off: tells who started us, and not each of a
    /// hundred times; and the client's end.
    pub(super) fn target_failed(&self, why: &str) {
        let why = cut(why, LONGEST_REASON);
        let _ = self.untold.0.try_send(why.clone());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        failures.reason = Some(why.clone());
        let (count, now) = (failures.count, Instant::now());
        let before = match failures.told {
            Some((at, _)) if now.duration_since(at) < TELL_EVERY => return,
            told => told.map_or(0, |(_, before)| before),
        };
        failures.told = Some((now, count));
        drop(failures);
        (self.tell)(&TargetFailure {
            service: self.target.clone(),
            times: count - before,
            why,
        });
    }

    /// The other end, or the way to it, did not do as it should: told once in a session.
    pub(super) fn peer_failed(&self, failure: &JoinFailure) {
        if let Some(what) = self.news_of_peer(failure) {
            log::warn!("peer=\"{what}\" reason={:?}", failure.error.to_string());
        }
    }

    /// What is to be told of it.
    pub(super) fn news_of_peer(&self, failure: &JoinFailure) -> Option<&'static str> {
        if !self.many {
            return None; // it ends with this
        }
        let what = match failure.at {
            Some(End::Near) => return None,
            Some(End::Far) => {
                "closed before it had taken everything: the end of a stream may be lost"
            }
            None if failure.error.kind() == ErrorKind::TimedOut => "never closes",
            None => return None,
        };
        (!self.has_told_peer.swap(true, Relaxed)).then_some(what)
    }

    /// The device will not tell why a target fails.
    pub(super) fn guess(&self) {
        self.guesses.store(true, Relaxed);
    }

    /// Whether what looks like a target that failed is to be told as one.
    pub(super) fn guesses(&self) -> bool {
        self.guesses.load(Relaxed)
    }

    /// Waits for the next failure that the client's end is to be told of.
    pub(super) async fn next_failure(&self) -> String {
        match self.untold.1.recv().await {
            Ok(why) => why,
            Err(_) => future::pending().await,
        }
    }

    /// Why the target failed the last time, where nothing has come from there in the whole session.
    pub fn only_failed(&self) -> Option<String> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = failures.reason.clone();
        reason.filter(|_| self.meter.carried().down == 0)
    }
}

fn seconds_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Default for Live {
    /// Of one that nobody watches.
    fn default() -> Self {
        Self {
            about: About::default(),
            side: Side::Client,
            target: String::new(),
            rendezvous: String::new(),
            many: false,
            since: SystemTime::now(),
            began: Instant::now(),
            meter: Meter::default(),
            connections: AtomicU64::new(0),
            met: AtomicBool::new(false),
            failures: Mutex::default(),
            untold: bounded(MOST_UNTOLD),
            guesses: AtomicBool::new(false),
            has_told_peer: AtomicBool::new(false),
            tell: |failure| out::note(BridgeNews::Target(failure.clone())),
            lets_go: Gate::new(),
            at_once: Gate::new(),
        }
    }
}
