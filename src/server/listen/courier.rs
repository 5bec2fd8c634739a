//! Carries waiting notifications, for each sender a few recipients at a time, and sweeps up what has expired.
//!
//! ```text
//!   queued ─▶ a place? ─▶ attempt ─┬─▶ nothing waits any more
//!              └─▶ in line         └─▶ asleep ─▶ a place? …
//! ```

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_io::Timer;
use async_std::{channel, task};
use futures_lite::future::race;

use crate::{
    at::AtSign,
    budget::{Claim, Hold, Limits},
    server::{
        clock::now,
        delivery::{self, Delivery},
        store::{
            StoreError,
            notes::Note,
            register::{self, Home},
        },
    },
};

use super::hub::Hub;

/// Deliveries at a time. Those of one sender wait for each other when there are many, and for nobody else's.
pub(in crate::server) const DELIVERIES: Limits = Limits::new("deliveries", 64);
pub(in crate::server) const DELIVERIES_OF_ONE: u64 = 8;
/// A recipient that nobody knows holds its sender's place for this part of the time between two attempts, and waits for
/// this many times as long: thousands of made-up names are no burden for the disk.
const UNKNOWN_HOLDS: u32 = 10;
const UNKNOWN_WAITS: u32 = 6;

/// Who sends, and to whom.
type Pair = (AtSign, AtSign);

/// What is to be delivered. One task owns it; each attempt has a task of its own, and nothing else has.
struct Rounds {
    hub: Arc<Hub>,
    alive: channel::Sender<()>,
    states: HashMap<Pair, RoundState>,
    /// By sender: recipients for whom there was no place.
    in_line: HashMap<AtSign, VecDeque<AtSign>>,
    asleep: BTreeSet<(Instant, Pair)>,
    ended: channel::Sender<(Pair, RoundEnd)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoundState {
    /// It waits for a place, or for its next attempt.
    Waits,
    AtWork,
    /// And more was queued meanwhile.
    AtWorkAgain,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoundEnd {
    /// Nothing waits any more.
    Delivered,
    /// The recipient could not be reached, or did not take all.
    Failed,
    /// There is no such recipient.
    Unknown,
}

pub(super) fn start(hub: &Arc<Hub>, queue: channel::Receiver<Pair>, alive: channel::Sender<()>) {
    let (ended, ends) = channel::unbounded();
    let rounds = Rounds {
        hub: hub.clone(),
        alive: alive.clone(),
        states: HashMap::new(),
        in_line: HashMap::new(),
        asleep: BTreeSet::new(),
        ended,
    };
    task::spawn(carry(rounds, queue, ends));
    let sweeper = hub.clone();
    task::spawn(async move {
        sweep(&sweeper).await;
        drop(sweeper);
        drop(alive);
    });
}

/// What woke the carrier.
enum News {
    Queued(Pair),
    Ended(Pair, RoundEnd),
    Time,
}

async fn carry(
    mut rounds: Rounds,
    queue: channel::Receiver<Pair>,
    ends: channel::Receiver<(Pair, RoundEnd)>,
) {
    let hub = rounds.hub.clone();
    // What was waiting when the server last stopped.
    let left = hub.store.read(|tx| {
        let mut left = Vec::new();
        for entry in register::all(tx)? {
            for to in entry.home.recipients(tx)? {
                left.push((entry.home.who.clone(), to));
            }
        }
        Ok::<_, StoreError>(left)
    });
    for pair in left.await.unwrap_or_default() {
        rounds.queued(pair);
    }
    loop {
        let queued = async { queue.recv().await.ok().map(News::Queued) };
        let ended = async {
            let (pair, end) = ends.recv().await.ok()?;
            Some(News::Ended(pair, end))
        };
        let next = rounds.asleep.first().map(|(at, _)| *at);
        let time = async {
            match next {
                Some(at) => drop(Timer::at(at).await),
                None => future::pending().await,
            }
            Some(News::Time)
        };
        match hub.stoppable(race(race(queued, ended), time)).await {
            Some(News::Queued(pair)) => rounds.queued(pair),
            Some(News::Ended(pair, end)) => rounds.ended(pair, end),
            Some(News::Time) => rounds.wake(Instant::now()),
            None => return,
        }
    }
}

impl Rounds {
    fn queued(&mut self, pair: Pair) {
        match self.states.get_mut(&pair) {
            Some(RoundState::Waits) => {}
            Some(state) => *state = RoundState::AtWorkAgain,
            None => self.begin(pair),
        }
    }

    /// Starts an attempt for this pair, or puts it in line.
    fn begin(&mut self, pair: Pair) {
        let Some(from) = self
            .hub
            .board
            .house(&pair.0)
            .map(|house| house.home.clone())
        else {
            self.states.remove(&pair);
            return;
        };
        let Some(place) = self.place(&pair.0) else {
            self.states.insert(pair.clone(), RoundState::Waits);
            self.in_line.entry(pair.0).or_default().push_back(pair.1);
            return;
        };
        self.states.insert(pair.clone(), RoundState::AtWork);
        let (hub, ended, alive) = (self.hub.clone(), self.ended.clone(), self.alive.clone());
        task::spawn(async move {
            let end = hub.stoppable(async { Some(attempt(&hub, &from, &pair.1).await) });
            if let Some(end) = end.await {
                if end == RoundEnd::Unknown {
                    hub.pause(hub.options.timings.retry / UNKNOWN_HOLDS).await;
                }
                drop(place);
                let _ = ended.try_send((pair, end));
            }
            drop((hub, alive));
        });
    }

    /// Nobody is refused: whoever finds none stands in line.
    fn place(&self, sender: &AtSign) -> Option<Hold<AtSign>> {
        let places = &self.hub.deliveries;
        let full =
            places.usage().used >= DELIVERIES.total || places.used_by(sender) >= DELIVERIES_OF_ONE;
        let claim = Claim::of(sender.clone(), DELIVERIES_OF_ONE);
        (!full)
            .then(|| places.take(claim, Instant::now()))
            .flatten()
    }

    fn ended(&mut self, pair: Pair, end: RoundEnd) {
        let retry = self.hub.options.timings.retry;
        let rest = match end {
            RoundEnd::Delivered => None,
            RoundEnd::Failed => Some(retry),
            RoundEnd::Unknown => Some(retry * UNKNOWN_WAITS),
        };
        let state = self.states.remove(&pair);
        match rest {
            Some(rest) => {
                self.states.insert(pair.clone(), RoundState::Waits);
                self.asleep.insert((Instant::now() + rest, pair));
            }
            None if state == Some(RoundState::AtWorkAgain) => self.begin(pair),
            None => {}
        }
        self.call();
    }

    /// Begins what stands in line, as far as there are places now: one of each sender at a time.
    fn call(&mut self) {
        let senders: Vec<AtSign> = self.in_line.keys().cloned().collect();
        for sender in senders {
            while self.hub.deliveries.used_by(&sender) < DELIVERIES_OF_ONE
                && self.hub.deliveries.usage().used < DELIVERIES.total
            {
                let Some(to) = self.in_line.get_mut(&sender).and_then(VecDeque::pop_front) else {
                    self.in_line.remove(&sender);
                    break;
                };
                self.begin((sender.clone(), to));
            }
        }
    }

    fn wake(&mut self, now: Instant) {
        while self.asleep.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, pair)) = self.asleep.pop_first() {
                self.begin(pair);
            }
        }
    }
}

/// Delivers until nothing waits, or something does not arrive.
async fn attempt(hub: &Arc<Hub>, from: &Home, to: &AtSign) -> RoundEnd {
    loop {
        let (home, name, now) = (from.clone(), to.clone(), now());
        let delivery = hub
            .store
            .write(move |tx| delivery::deliver(tx, &home, &name, now));
        match delivery.await {
            Ok(Delivery::Empty) => return RoundEnd::Delivered,
            Ok(Delivery::Some) => {}
            Ok(Delivery::Refused) => return RoundEnd::Failed,
            Ok(Delivery::Foreign(notes)) => {
                if let Some(end) = abroad(hub, from, to, notes).await {
                    return end;
                }
            }
            Err(why) => {
                log::warn!("from={} to={to} delivery={why}", from.who);
                return RoundEnd::Failed;
            }
        }
    }
}

/// Sends notes over the network and writes down what became of them; `None`: all arrived.
async fn abroad(hub: &Arc<Hub>, from: &Home, to: &AtSign, notes: Vec<Note>) -> Option<RoundEnd> {
    let (sent, is_known) = match &hub.peers {
        Some(peers) => peers.deliver(from, to, &notes).await,
        None => (Vec::new(), false),
    };
    let (home, whole) = (from.clone(), sent.len() == notes.len());
    let written = hub.store.write(move |tx| {
        for (place, mut note) in notes.iter().cloned().enumerate() {
            // It may have been removed meanwhile.
            match home.note_from(tx, &note.id, &note.from)? {
                Some(stored) if stored.place == note.place => {}
                _ => continue,
            }
            match sent.get(place) {
                Some(true) => delivery::arrived(tx, &home, &mut note)?,
                Some(false) => delivery::give_up(tx, &home, &mut note)?,
                None => delivery::fail(tx, &home, &mut note)?,
            }
        }
        Ok::<_, StoreError>(())
    });
    let good = written.await.is_ok() && whole;
    let bad = if is_known {
        RoundEnd::Failed
    } else {
        RoundEnd::Unknown
    };
    (!good).then_some(bad)
}

/// A clock that went ahead of the other by more than this was set, or the machine slept.
const LEAP: Duration = Duration::from_secs(3600);

/// Tells when the clock on the wall has leapt ahead, and for how long it is then not believed in what cannot be undone.
struct Distrust {
    ahead: Option<Duration>,
    until: Option<Instant>,
}

impl Distrust {
    fn new() -> Self {
        Self {
            ahead: None,
            until: None,
        }
    }

    /// `wall` since 1970, `steady` since some moment, `at` the same moment of the steady clock.
    fn is_in_doubt(&mut self, wall: Duration, steady: Duration, at: Instant) -> bool {
        let ahead = wall.saturating_sub(steady);
        let leapt = self.ahead.is_some_and(|last| ahead > last + LEAP);
        self.ahead = Some(ahead);
        if leapt {
            self.until = at.checked_add(LEAP);
        }
        self.until.is_some_and(|until| at < until)
    }
}

async fn sweep(hub: &Arc<Hub>) {
    let (began, mut distrust) = (Instant::now(), Distrust::new());
    distrust.is_in_doubt(Duration::from_millis(now()), Duration::ZERO, began);
    // A server that never runs for long purges all the same.
    purge_all(hub).await;
    while hub.pause(hub.options.timings.purge).await {
        if let Some(peers) = &hub.peers {
            peers.tidy();
        }
        // A clock set years ahead by mistake must not cost what only seems to have expired.
        let at = Instant::now();
        if distrust.is_in_doubt(Duration::from_millis(now()), at - began, at) {
            log::warn!("purge=postponed reason=\"the clock leapt ahead\"");
            continue;
        }
        purge_all(hub).await;
    }
}

/// Ends early when the server stops: what is left waits for the next time.
async fn purge_all(hub: &Arc<Hub>) {
    for house in hub.board.everybody() {
        loop {
            let (home, now) = (house.home.clone(), now());
            let purged = hub.store.write(move |tx| delivery::purge(tx, &home, now));
            let more = hub.stoppable(async { Some(purged.await) }).await;
            match more {
                Some(Ok(true)) => {}
                Some(Ok(false)) => break,
                Some(Err(why)) => {
                    log::warn!("atsign={} purge={why}", house.home.who);
                    break;
                }
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_leaps_ahead_is_not_believed_for_an_hour() {
        let (mut distrust, start) = (Distrust::new(), Instant::now());
        let second = Duration::from_secs;
        let mut doubted = |wall: u64, steady: u64| {
            distrust.is_in_doubt(second(wall), second(steady), start + second(steady))
        };
        let year = 365 * 24 * 3600;
        assert!(!doubted(1_000_000_000, 0));
        assert!(!doubted(1_000_000_180, 180), "a clock that goes right");
        assert!(doubted(1_000_000_360 + year, 360), "a year ahead");
        assert!(doubted(1_000_000_540 + year, 540), "still not believed");
        assert!(
            !doubted(1_000_000_720, 720 + 3600),
            "set back, and an hour later"
        );
        assert!(!doubted(900_000_000, 5000), "going back takes nothing away");
    }
}
