//! One session as others see it while it runs, and what they tell it.
//!
//! ```text
//!   carry ──▶ bytes, connections, why a target failed ──▶ state
//!   leave ──▶ both ends of each connection are read no further; what has been read is delivered, then the end
//!             at once: both ends are reset
//! ```

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_std::channel::{Receiver, Sender, bounded};

use super::{
    LocalEnd, Plan,
    news::{BridgeNews, TargetFailure, Totals},
};
use crate::{
    pipe::{
        cipher::Side,
        join::{Carried, Meter},
    },
    session::control::{About, SessionState},
    sys::out,
    text::terminal::cut,
};

/// Between two lines about a target that fails: a page may dial it a hundred times.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Longest reason that is kept, in characters.
const LONGEST_REASON: usize = 300;

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
    failures: Mutex<Failures>,
    lets_go: Gate,
    at_once: Gate,
}

#[derive(Debug, Default)]
struct Failures {
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
pub(super) struct Standing<'a>(&'a Live);

impl Drop for Standing<'_> {
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
    pub(super) fn stands(&self) -> Standing<'_> {
        self.connections.fetch_add(1, Relaxed);
        Standing(self)
    }

    /// The device's service refused, was not found, did not answer or broke off: tells who started us, and not each of a
    /// hundred times.
    pub(super) fn target_failed(&self, error: &io::Error) {
        let why = cut(&error.to_string(), LONGEST_REASON);
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
        out::note(BridgeNews::Target(TargetFailure {
            service: self.target.clone(),
            times: count - before,
            why,
        }));
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
            lets_go: Gate::new(),
            at_once: Gate::new(),
        }
    }
}
