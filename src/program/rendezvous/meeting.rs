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
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_std::{
    channel::{self, Receiver, Sender},
    task,
};
use futures_lite::{FutureExt, future};
use log::{Level, log};

use crate::{
    net::stall::{Tell, watch_any},
    np::{
        ids::SessionId,
        pairs::{Dialer, MAX_NUMBERED, Pairing, Pairs},
    },
    pipe::join::{Carried, Leg, Socket, raw, splice_until},
    session::{bridge::MAX_CONNECTIONS, ignored},
};

use super::{
    budgets::{Grant, Seat},
    entrance::{Admitted, SessionPort},
    held::JoinState,
};

/// A session whose two ends have not met by then is given up.
const GRACE: Duration = Duration::from_secs(30);
/// Joined pairs of one session at a time; more wait. A little more than one bridge carries.
const MAX_PAIRS: usize = MAX_NUMBERED;
const _: () = assert!(MAX_NUMBERED > MAX_CONNECTIONS + 1);

/// How often those that wait are looked at: one may have to leave.
const LOOK: Duration = Duration::from_secs(1);

/// A session's two ports.
pub(super) struct PortPair {
    /// What both know of the session that they are opened for.
    pub held: Arc<JoinState>,
    /// Held until both ends have met.
    pub grant: Grant,
    /// Port A.
    pub client: SessionPort,
    /// Port B.
    pub daemon: SessionPort,
    /// One connection on each port, and no other.
    pub single: bool,
    /// Say of each connection who it was and how much it carried.
    pub snoop: bool,
    /// How long a pair may stand with one direction closed and the other silent.
    pub half_closed: Duration,
}

impl PortPair {
    /// Joins whoever is let in, until the session is over. Returns how many pairs there were.
    pub(super) async fn hold(self) -> usize {
        let (send_a, clients) = channel::bounded(1);
        let (send_b, daemons) = channel::bounded(1);
        let (held, single) = (self.held, self.single);
        let gates = async {
            let client = self
                .client
                .serve(Dialer::Client, held.clone(), single, send_a);
            let daemon = self
                .daemon
                .serve(Dialer::Daemon, held.clone(), single, send_b);
            future::zip(client, daemon).await;
            0
        };
        // Not bounded, which would be allocated whole: there are no more than pairs.
        let (done, ended) = channel::unbounded();
        let level = if self.snoop {
            Level::Info
        } else {
            Level::Debug
        };
        let mut table = Joiner {
            level,
            half_closed: self.half_closed,
            waiting: Pairs::default(),
            done,
            live: 0,
            pairs: 0,
            grant: Some(self.grant),
            held: held.clone(),
        };
        let give_up = Instant::now() + GRACE;
        let joins = table.join_all(give_up, clients, daemons, ended);
        gates.or(joins).await
    }
}

/// Who waits, and how many are joined.
struct Joiner {
    level: Level,
    half_closed: Duration,
    waiting: Pairs<Box<Admitted>>,
    done: Sender<()>,
    live: usize,
    pairs: usize,
    grant: Option<Grant>,
    held: Arc<JoinState>,
}

enum JoinEvent {
    Came(Dialer, Box<Admitted>),
    PairEnded,
    /// Somebody has waited too long.
    Late,
    TimeIsUp,
}

impl Joiner {
    async fn join_all(
        &mut self,
        give_up: Instant,
        clients: Receiver<Box<Admitted>>,
        daemons: Receiver<Box<Admitted>>,
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
    async fn arrival(&self, from: &Receiver<Box<Admitted>>, end: Dialer) -> JoinEvent {
        if self.waiting.is_full(end) || self.live >= MAX_PAIRS {
            return future::pending().await;
        }
        let socket = from.recv().await;
        socket.map_or(JoinEvent::TimeIsUp, |socket| JoinEvent::Came(end, socket))
    }

    /// Before the first pair there is a deadline, and others may need its place more; afterwards the last pair's end is
    /// the end.
    fn patience(&self, give_up: Instant) -> impl Future<Output = JoinEvent> + use<> {
        let end = (self.pairs == 0).then_some((give_up, false));
        let look = Instant::now() + LOOK;
        let late = self.waiting.next_due().map(|due| (due.min(look), true));
        let next = end.into_iter().chain(late).min();
        let unused = self.grant.as_ref().map(|grant| grant.must_leave.clone());
        let in_time = async move {
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
        };
        let needed = async move {
            match unused {
                Some(must_leave) => must_leave.told().await,
                None => future::pending().await,
            }
            JoinEvent::TimeIsUp
        };
        in_time.or(needed)
    }

    fn seat(&mut self, from: Dialer, socket: Box<Admitted>) {
        let (number, attempt) = (socket.number, socket.attempt);
        let now = Instant::now();
        match self
            .waiting
            .arrive_proved(from, number, attempt, socket, now)
        {
            Pairing::Pair { client, daemon } => {
                (self.live, self.pairs) = (self.live + 1, self.pairs + 1);
                self.held.stands.store(true, Relaxed);
                if self.grant.take().is_some() {
                    self.held.budgets.tell_sessions();
                }
                let (session, level) = (self.held.session, self.level);
                let (half_closed, done) = (self.half_closed, self.done.clone());
                task::spawn(async move {
                    carry(session, level, client, daemon, half_closed).await;
                    let _ = done.send(()).await;
                });
            }
            Pairing::Waits => {}
            Pairing::Replaces(old) => ignored::of_kind(
                &format!("ended reason=tried_again client={}", self.held.client),
                ignored::FEW,
                format_args!("session={} from={}", self.held.session, old.from),
            ),
            Pairing::Old(replayed) => self.held.refused(
                &from.to_string(),
                replayed.from,
                "its number was taken already",
            ),
        }
    }

    fn dismiss(&mut self) {
        let lost = |socket: &Admitted| socket.seat.as_ref().is_some_and(Seat::is_lost);
        for (end, number, socket) in self.waiting.give_up(Instant::now(), |socket| lost(socket)) {
            let reason = if lost(&socket) {
                GAVE_WAY
            } else {
                "no_counterpart"
            };
            let about = format_args!(
                "session={} connection={number} from={}",
                self.held.session, socket.from
            );
            // As many as somebody likes to make.
            let kind = format!("ended port_of={end} reason={reason}");
            ignored::of_kind(&kind, 1, about);
        }
    }
}

/// The reason of a socket whose descriptor somebody else needs more.
const GAVE_WAY: &str = "gave_way";

async fn carry(
    session: SessionId,
    level: Level,
    mut a: Box<Admitted>,
    mut b: Box<Admitted>,
    half_closed: Duration,
) {
    let began = Instant::now();
    let (from_a, from_b) = (a.from, b.from);
    let seats = [a.seat.take(), b.seat.take()];
    let outcome = join_both(session, a, b, half_closed, give_way(&seats)).await;
    let ends = format!("client={from_a} daemon={from_b}");
    let lasted = began.elapsed().as_secs_f64();
    match outcome {
        Ok(carried) => log!(
            level,
            "session={session} {ends} up={} down={} lasted={lasted:.1}s",
            carried.up,
            carried.down
        ),
        Err(error) => log!(
            level,
            "session={session} {ends} cut reason={:?} lasted={lasted:.1}s",
            error.to_string()
        ),
    }
    drop(seats);
}

/// Ends when one of these has to leave.
async fn give_way(seats: &[Option<Seat>; 2]) -> io::Error {
    let leaves = async |seat: &Option<Seat>| match seat {
        Some(seat) => seat.must_leave().await,
        None => future::pending().await,
    };
    leaves(&seats[0]).or(leaves(&seats[1])).await;
    io::Error::other(GAVE_WAY)
}

async fn join_both(
    session: SessionId,
    a: Box<Admitted>,
    b: Box<Admitted>,
    half_closed: Duration,
    stop: impl Future<Output = io::Error>,
) -> io::Result<Carried> {
    let (a_socket, b_socket) = (Arc::new(raw(a.socket)?), Arc::new(raw(b.socket)?));
    let watch = |end: &Arc<Socket>| watch_any(end.clone(), Tell::Nobody);
    let _watched = [&a_socket, &b_socket].map(watch);
    let id = |anybody: bool| anybody.then(|| session.to_string());
    let a = Leg {
        socket: &a_socket,
        early: a.early,
        without: id(a.anybody),
    };
    let b = Leg {
        socket: &b_socket,
        early: b.early,
        without: id(b.anybody),
    };
    splice_until(a, b, half_closed, stop).await
}
