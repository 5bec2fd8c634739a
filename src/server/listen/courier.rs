//! Carries waiting notifications, one task per sender and recipient, and sweeps up what has expired.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_std::{channel, task};

use crate::{
    at::AtSign,
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

use super::{board::lock, hub::Hub};

/// Pairs at work; `true`: more was queued meanwhile.
type Rounds = Arc<Mutex<HashMap<(AtSign, AtSign), bool>>>;

pub(super) fn start(
    hub: &Arc<Hub>,
    queue: channel::Receiver<(AtSign, AtSign)>,
    alive: channel::Sender<()>,
) {
    let (carrier, token) = (hub.clone(), alive.clone());
    task::spawn(async move {
        carry(&carrier, &queue, &token).await;
        drop(carrier);
        drop(token);
    });
    let sweeper = hub.clone();
    task::spawn(async move {
        sweep(&sweeper).await;
        drop(sweeper);
        drop(alive);
    });
}

async fn carry(
    hub: &Arc<Hub>,
    queue: &channel::Receiver<(AtSign, AtSign)>,
    alive: &channel::Sender<()>,
) {
    let rounds = Rounds::default();
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
        begin(hub, &rounds, pair, alive);
    }
    while let Some(pair) = hub.stoppable(async { queue.recv().await.ok() }).await {
        begin(hub, &rounds, pair, alive);
    }
}

/// Starts a round for this pair, or tells the one under way to look again.
fn begin(hub: &Arc<Hub>, rounds: &Rounds, pair: (AtSign, AtSign), alive: &channel::Sender<()>) {
    if let Some(again) = lock(rounds).get_mut(&pair) {
        *again = true;
        return;
    }
    let Some(from) = hub.board.house(&pair.0).map(|house| house.home.clone()) else {
        return;
    };
    lock(rounds).insert(pair.clone(), false);
    let (hub, rounds, alive) = (hub.clone(), rounds.clone(), alive.clone());
    task::spawn(async move {
        while round(&hub, &from, &pair.1).await {
            let mut all = lock(&rounds);
            match all.get_mut(&pair) {
                Some(again) if *again => *again = false,
                _ => {
                    all.remove(&pair);
                    break;
                }
            }
        }
        drop(hub);
        drop(alive);
    });
}

/// Delivers until nothing waits; `false`: the server stops.
async fn round(hub: &Arc<Hub>, from: &Home, to: &AtSign) -> bool {
    loop {
        let (home, name, now) = (from.clone(), to.clone(), now());
        let delivery = hub
            .store
            .write(move |tx| delivery::deliver(tx, &home, &name, now));
        let good = match delivery.await {
            Ok(Delivery::Empty) => return true,
            Ok(Delivery::Some) => true,
            Ok(Delivery::Refused) => false,
            Ok(Delivery::Foreign(notes)) => abroad(hub, from, to, notes).await,
            Err(why) => {
                log::warn!("from={} to={to} delivery={why}", from.who);
                false
            }
        };
        if !good && !hub.pause(hub.options.timings.retry).await {
            return false;
        }
    }
}

/// Sends notes over the network and writes down what became of them; `false`: some did not arrive.
async fn abroad(hub: &Arc<Hub>, from: &Home, to: &AtSign, notes: Vec<Note>) -> bool {
    let sent = match &hub.peers {
        Some(peers) => peers.deliver(from, to, &notes).await,
        None => Vec::new(),
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
    written.await.is_ok() && whole
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
