//! Where the two ends of one session meet: who was let in at one port is joined with its counterpart at the other.
//!
//! ```text
//!   A ─ admission line? ─▶ waiting ─┐
//!                                   ├─ by number, or the oldest with the oldest ─▶ splice
//!   B ─ admission line? ─▶ waiting ─┘
//! ```
//!
//! A port that is open to anybody asks for nothing. The design of August 2023 let the daemon write the
//! session id on its socket first; if a stream on such a port begins with it, that is left out, with one
//! line end behind it.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_std::{
    channel::{self, Receiver, Sender},
    task,
};
use futures_lite::{FutureExt, future};
use log::{Level, info, log};

use crate::{
    classic::strip::Stripped,
    np::{
        ids::SessionId,
        pairs::{Dialer, MAX_NUMBERED, Pairing, Pairs},
    },
    pipe::join::{Leg, join_legs, splice},
    session::bridge::MAX_CONNECTIONS,
};

use super::entrance::{Admitted, JoinState, SessionPort};

/// A session whose two ends have not met by then is given up.
const GRACE: Duration = Duration::from_secs(30);
/// Joined pairs of one session at a time; more wait. A little more than one bridge carries.
const MAX_PAIRS: usize = MAX_NUMBERED;
const _: () = assert!(MAX_NUMBERED > MAX_CONNECTIONS + 1);

/// A session's two ports.
pub(super) struct PortPair {
    /// The session that they are opened for.
    pub session: SessionId,
    /// Port A.
    pub client: SessionPort,
    /// Port B.
    pub daemon: SessionPort,
    /// One connection on each port, and no other.
    pub single: bool,
    /// Say of each connection who it was and how much it carried.
    pub snoop: bool,
}

impl PortPair {
    /// Joins whoever is let in, until the session is over. Returns how many pairs there were.
    pub(super) async fn hold(self) -> usize {
        let (session, single) = (self.session, self.single);
        let (send_a, clients) = channel::bounded(1);
        let (send_b, daemons) = channel::bounded(1);
        let held = JoinState::of(session);
        let gates = async {
            let client = self.client.serve(held.clone(), single, send_a);
            let daemon = self.daemon.serve(held.clone(), single, send_b);
            future::zip(client, daemon).await;
            0
        };
        let (done, ended) = channel::bounded(MAX_PAIRS);
        let level = if self.snoop {
            Level::Info
        } else {
            Level::Debug
        };
        let mut table = Joiner {
            session,
            level,
            waiting: Pairs::default(),
            done,
            live: 0,
            pairs: 0,
            held: held.clone(),
        };
        let give_up = Instant::now() + GRACE;
        let pairs = gates
            .or(table.join_all(give_up, clients, daemons, ended))
            .await;
        let untold = held.refusals().untold();
        if untold > 0 {
            info!("session={session} not_admitted_others={untold}");
        }
        pairs
    }
}

/// Who waits, and how many are joined.
struct Joiner {
    session: SessionId,
    level: Level,
    waiting: Pairs<Admitted>,
    done: Sender<()>,
    live: usize,
    pairs: usize,
    held: Arc<JoinState>,
}

enum JoinEvent {
    Came(Dialer, Admitted),
    PairEnded,
    /// Somebody has waited too long.
    Late,
    TimeIsUp,
}

impl Joiner {
    async fn join_all(
        &mut self,
        give_up: Instant,
        clients: Receiver<Admitted>,
        daemons: Receiver<Admitted>,
        ended: Receiver<()>,
    ) -> usize {
        loop {
            let end = async {
                ended
                    .recv()
                    .await
                    .map_or(JoinEvent::TimeIsUp, |()| JoinEvent::PairEnded)
            };
            let client = self.arrival(&clients, Dialer::Client);
            let daemon = self.arrival(&daemons, Dialer::Daemon);
            match end.or(client).or(daemon).or(self.patience(give_up)).await {
                JoinEvent::Came(from, socket) => self.seat(from, socket),
                JoinEvent::PairEnded => self.live -= 1,
                JoinEvent::Late => self.dismiss(),
                JoinEvent::TimeIsUp => return self.pairs,
            }
            if self.pairs > 0 && self.live == 0 {
                return self.pairs;
            }
        }
    }

    /// The next socket, unless too many wait already, or are joined: then it waits in the kernel.
    async fn arrival(&self, from: &Receiver<Admitted>, end: Dialer) -> JoinEvent {
        if self.waiting.is_full(end) || self.live >= MAX_PAIRS {
            return future::pending().await;
        }
        let socket = from.recv().await;
        socket.map_or(JoinEvent::TimeIsUp, |socket| JoinEvent::Came(end, socket))
    }

    /// Before the first pair there is a deadline; afterwards the last pair's end is the end.
    fn patience(&self, give_up: Instant) -> impl Future<Output = JoinEvent> + use<> {
        let end = (self.pairs == 0).then_some((give_up, false));
        let late = self.waiting.next_due().map(|due| (due, true));
        let next = end.into_iter().chain(late).min();
        async move {
            match next {
                Some((at, late)) => {
                    async_io::Timer::at(at).await;
                    if late {
                        JoinEvent::Late
                    } else {
                        JoinEvent::TimeIsUp
                    }
                }
                None => future::pending().await,
            }
        }
    }

    fn seat(&mut self, from: Dialer, socket: Admitted) {
        let number = socket.number;
        match self.waiting.arrive(from, number, socket, Instant::now()) {
            Pairing::Pair { client, daemon } => {
                (self.live, self.pairs) = (self.live + 1, self.pairs + 1);
                self.held.stands.store(true, Relaxed);
                let (session, level) = (self.session, self.level);
                task::spawn(carry(session, level, client, daemon, self.done.clone()));
            }
            Pairing::Waits => {}
            Pairing::Replaces(old) => info!(
                "session={} from={} given_up=tried_again",
                self.session, old.from
            ),
        }
    }

    fn dismiss(&mut self) {
        for (end, number, socket) in self.waiting.give_up(Instant::now()) {
            info!(
                "session={} port_of={end:?} number={number} from={} given_up=no_counterpart",
                self.session, socket.from
            );
        }
    }
}

async fn carry(session: SessionId, level: Level, a: Admitted, b: Admitted, done: Sender<()>) {
    let began = Instant::now();
    let ends = format!("client={} daemon={}", a.from, b.from);
    let outcome = if a.anybody || b.anybody {
        let id = session.to_string();
        let part = |one: Admitted| {
            // Who has said something already does not begin with the id any more.
            let text = if one.anybody && one.early.is_empty() {
                id.as_str()
            } else {
                ""
            };
            Leg {
                rest: Stripped::new(one.socket.clone(), text),
                socket: one.socket,
                early: one.early,
            }
        };
        join_legs(part(a), part(b)).await
    } else {
        splice(a.socket, a.early, b.socket, b.early).await
    };
    let lasted = began.elapsed();
    match outcome {
        Ok(carried) => log!(
            level,
            "session={session} {ends} up={} down={} lasted={lasted:.1?}",
            carried.up,
            carried.down
        ),
        Err(error) => log!(
            level,
            "session={session} {ends} cut reason={:?} lasted={lasted:.1?}",
            error.to_string()
        ),
    }
    let _ = done.send(()).await;
}
