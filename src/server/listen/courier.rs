//! Carries waiting notifications, one task per sender and recipient, and sweeps up what has expired.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_io::Timer;
use async_std::{channel, task};
use futures_lite::future::or;

use crate::{
    at::AtSign,
    server::{
        notify::{self, Delivery},
        store::{
            StoreError,
            notes::Note,
            register::{self, Home},
        },
    },
};

use super::{Hub, board::lock, now};

/// Pairs at work; `true`: more was queued meanwhile.
type Rounds = Arc<Mutex<HashMap<(AtSign, AtSign), bool>>>;

impl Hub {
    /// Runs something until it is done or the server stops.
    pub(super) async fn stoppable<T>(&self, work: impl Future<Output = Option<T>>) -> Option<T> {
        let stop = async {
            let _ = self.stopping.recv().await;
            None
        };
        or(work, stop).await
    }

    /// Waits; `false`: the server stops.
    async fn pause(&self, time: Duration) -> bool {
        let time = async {
            Timer::after(time).await;
            Some(())
        };
        self.stoppable(time).await.is_some()
    }
}

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
        let (home, name) = (from.clone(), to.clone());
        let delivery = hub
            .store
            .write(move |tx| notify::deliver(tx, &home, &name, now()));
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
        None => 0,
    };
    let (home, all) = (from.clone(), notes.len());
    let written = hub.store.write(move |tx| {
        for (place, mut note) in notes.into_iter().enumerate() {
            // It may have been removed meanwhile.
            match home.note_from(tx, &note.id, &note.from)? {
                Some(stored) if stored.place == note.place => {}
                _ => continue,
            }
            match place < sent {
                true => notify::arrived(tx, &home, &mut note)?,
                false => notify::fail(tx, &home, &mut note)?,
            }
        }
        Ok::<_, StoreError>(())
    });
    written.await.is_ok() && sent == all
}

async fn sweep(hub: &Arc<Hub>) {
    while hub.pause(hub.options.timings.purge).await {
        for house in hub.board.everybody() {
            loop {
                let home = house.home.clone();
                match hub
                    .store
                    .write(move |tx| notify::purge(tx, &home, now()))
                    .await
                {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(why) => {
                        log::warn!("atsign={} purge={why}", house.home.who);
                        break;
                    }
                }
            }
        }
    }
}
