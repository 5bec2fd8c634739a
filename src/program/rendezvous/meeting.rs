//! Where the two ends of one session meet: who comes is checked, and joined with its counterpart on the
//! other port.
//!
//! ```text
//!   A ─ admission line? ─▶ waiting ─┐
//!                                   ├─ by number, or the oldest with the oldest ─▶ splice
//!   B ─ admission line? ─▶ waiting ─┘
//! ```
//!
//! Whoever does not say who it is holds nobody up: where all places of a port are taken, one that is silent gives way
//! ([`Crowd`]); and once a pair stands and many are silent, there is little time.
//!
//! A port that is open to anybody asks for nothing. The design of August 2023 let the daemon write the
//! session id on its socket first; if a stream on such a port begins with it, that is left out, with one
//! line end behind it.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_std::{
    channel::{self, Receiver, Sender},
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::{FutureExt, future};
use log::{Level, info, log, warn};

use crate::{
    at::{AtSign, client::Client, crypto::PublicKey},
    classic::strip::Stripped,
    net::{dial::tune, line::read_line},
    np::{
        admit::{Admission, MAX_ADMISSION},
        ids::SessionId,
        pairs::{End, MAX_NUMBERED, Met, Pairs},
    },
    pipe::join::{Part, join_parts, splice},
    session::bridge::MAX_CONNECTIONS,
};

use super::crowd::{Crowd, LoginAddresses, RefusalCounts, Trust};

/// A session whose two ends have not met by then is given up.
const GRACE: Duration = Duration::from_secs(30);
/// A socket that has not said who it is by then is closed.
const ADMISSION_TIME: Duration = Duration::from_secs(5);
/// The same for strangers once a pair stands and more than half of the places are taken. Not where sockets have no
/// numbers: one that is closed for being late would shift all behind it.
const ADMISSION_TIME_CROWDED: Duration = Duration::from_secs(1);
/// Sockets on one port that are saying who they are, or wait for their turn. More make the silent ones give way;
/// where all have said it, they wait in the kernel.
const MAX_UNADMITTED: usize = 64;
/// Turns that may stand behind a slow socket on one port.
const MAX_TURNS: usize = 1024;
/// Joined pairs of one session at a time; more wait. A little more than one bridge carries.
const MAX_PAIRS: usize = MAX_NUMBERED;
const _: () = assert!(MAX_NUMBERED > MAX_CONNECTIONS + 1);
/// After a failed accept: out of descriptors, or a peer that hung up early. Neither is a reason to spin.
const BREATH: Duration = Duration::from_millis(100);

/// A session's two ports.
pub(super) struct PortPair {
    /// Whose.
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

/// One port of one session.
pub(super) struct SessionPort {
    /// Where sockets come.
    pub listener: TcpListener,
    /// Who is let in.
    pub entry: EntryRule,
}

/// Who is let in at a port.
pub(super) enum EntryRule {
    /// Whoever says this, signed by that one.
    Signed(Arc<Admission>, Signer),
    /// Whoever finds it.
    Anybody,
}

/// Whose signature opens a port; asked for when the first socket comes.
pub(super) struct Signer {
    /// Asks for the key.
    pub at: Client,
    /// Its owner.
    pub who: AtSign,
    /// Who asked for the session.
    pub asker: AtSign,
}

impl Signer {
    async fn key(&self) -> Option<PublicKey> {
        match self.at.public_key_for(&self.asker, &self.who).await {
            Ok(key) => key,
            Err(error) => {
                warn!("public_key_of={} reason={:?}", self.who, error.to_string());
                None
            }
        }
    }
}

/// A socket that was let in.
struct Admitted {
    socket: TcpStream,
    /// JoinEvent it sent behind its first line.
    early: Vec<u8>,
    number: Option<u64>,
    from: SocketAddr,
    /// It has not said who it is.
    anybody: bool,
}

/// A socket's turn, in the order of arrival: what comes of it, or nothing.
type QueueTurn = Receiver<(Admitted, UnadmittedPlace)>;

/// One of a port's [`MAX_UNADMITTED`] places.
struct UnadmittedPlace(Receiver<()>);

impl Drop for UnadmittedPlace {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

impl SessionPort {
    /// Lets sockets in for as long as somebody takes them.
    async fn serve(self, held: Arc<JoinState>, single: bool, admitted: Sender<Admitted>) {
        let session = held.session;
        if matches!(self.entry, EntryRule::Anybody) {
            held.in_order.store(true, Relaxed);
        }
        let (queue, turns) = channel::bounded(MAX_TURNS);
        let reception = async {
            match self.entry {
                EntryRule::Anybody => let_in(session, self.listener, single, &admitted).await,
                EntryRule::Signed(admission, signer) => {
                    let door = SignedPort {
                        admission,
                        who: signer.who.clone(),
                        key: signer.key().await,
                        held,
                        crowd: Mutex::default(),
                    };
                    receive(Arc::new(door), self.listener, queue, &admitted).await;
                }
            }
        };
        reception.or(in_order(turns, &admitted)).await;
    }
}

async fn accept(session: SessionId, listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut failed = false;
    loop {
        match listener.accept().await {
            Ok((socket, from)) => {
                let _ = tune(&socket);
                return (socket, from);
            }
            Err(error) => {
                // Once per socket, not ten times a second.
                if !std::mem::replace(&mut failed, true) {
                    let reason = error.to_string();
                    warn!("session={session} accept=failed reason={reason:?}");
                }
                task::sleep(BREATH).await;
            }
        }
    }
}

/// JoinEvent both ports know of their session.
struct JoinState {
    session: SessionId,
    /// A pair stands.
    stands: AtomicBool,
    /// A socket without a number was let in: the order of arrival counts.
    in_order: AtomicBool,
    known: Mutex<LoginAddresses>,
    refusals: Mutex<RefusalCounts>,
}

impl JoinState {
    fn of(session: SessionId) -> Arc<Self> {
        Arc::new(Self {
            session,
            stands: AtomicBool::new(false),
            in_order: AtomicBool::new(false),
            known: Mutex::default(),
            refusals: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, LoginAddresses> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusals(&self) -> MutexGuard<'_, RefusalCounts> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn let_in(&self, one: &Admitted) {
        self.known().add(one.from.ip());
        if one.number.is_none() {
            self.in_order.store(true, Relaxed);
        }
    }

    fn refused(&self, port_of: &AtSign, from: SocketAddr, why: &str) {
        if let Some(others) = self.refusals().count(why, Instant::now()) {
            let session = self.session;
            info!(
                "session={session} port_of={port_of} from={from} not_admitted={why:?} others={others}"
            );
        }
    }
}

/// Nobody is asked. A single one is let in, and the port is closed behind it.
async fn let_in(
    session: SessionId,
    listener: TcpListener,
    single: bool,
    admitted: &Sender<Admitted>,
) {
    loop {
        let (socket, from) = accept(session, &listener).await;
        let anybody = Admitted {
            socket,
            early: Vec::new(),
            number: None,
            from,
            anybody: true,
        };
        if admitted.send(anybody).await.is_err() {
            return;
        }
        if single {
            drop(listener);
            return future::pending().await;
        }
    }
}

/// A port where one has to say who one is.
struct SignedPort {
    admission: Arc<Admission>,
    who: AtSign,
    key: Option<PublicKey>,
    held: Arc<JoinState>,
    /// Who has not said it yet.
    crowd: Mutex<Crowd>,
}

async fn receive(
    door: Arc<SignedPort>,
    listener: TcpListener,
    queue: Sender<QueueTurn>,
    admitted: &Sender<Admitted>,
) {
    let session = door.held.session;
    let (places, free) = channel::bounded(MAX_UNADMITTED);
    loop {
        let (socket, from) = accept(session, &listener).await;
        if places.is_full() {
            door.make_room();
        }
        let _ = places.send(()).await;
        let permit = UnadmittedPlace(free.clone());
        let time = door.time_for(from, places.len());
        let (pass, turn) = channel::bounded(1);
        let given_way = door.enter(from);
        let (door, admitted) = (door.clone(), admitted.clone());
        task::spawn(async move {
            let outcome = door.admit(socket, from, time).or(given_way).await;
            door.crowd().leave(from);
            match outcome {
                // Numbers make an order of their own.
                Ok(numbered) if numbered.number.is_some() => {
                    drop(pass);
                    let _ = admitted.send(numbered).await;
                    drop(permit);
                }
                Ok(other) => drop(pass.try_send((other, permit))),
                Err(why) => door.held.refused(&door.who, from, &why),
            }
        });
        if queue.send(turn).await.is_err() {
            return;
        }
    }
}

/// Passes sockets without numbers on in the order of arrival. A slow one is waited for, until its time to say
/// who it is has passed, or it has given way: letting the next one go first would join all later ones with
/// their neighbours. One that has gone had no place in the order, unless it was an end's own whose line was late;
/// that nobody can tell, which is what numbers are for.
async fn in_order(turns: Receiver<QueueTurn>, admitted: &Sender<Admitted>) {
    while let Ok(turn) = turns.recv().await {
        if let Ok((socket, _permit)) = turn.recv().await {
            let _ = admitted.send(socket).await;
        }
    }
    future::pending().await
}

impl SignedPort {
    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more that has to say who it is. The future ends when it has to give way.
    fn enter(&self, from: SocketAddr) -> impl Future<Output = Result<Admitted, String>> + use<> {
        let told = self.crowd().enter(from, Instant::now());
        async move {
            let _ = told.recv().await;
            Err("gave way to others".to_owned())
        }
    }

    /// A silent one gives way. Not where most have been let in and wait for their turn: there a slow one is waited
    /// for, or all behind it would get their neighbour's.
    fn make_room(&self) {
        let mut crowd = self.crowd();
        if crowd.len() > MAX_UNADMITTED / 2 {
            crowd.make_room(&self.held.known(), Instant::now());
        }
    }

    /// How long this one may take to say who it is, where so many places are taken.
    fn time_for(&self, from: SocketAddr, taken: usize) -> Duration {
        let numbered = self.held.stands.load(Relaxed) && !self.held.in_order.load(Relaxed);
        let stranger = || self.held.known().trust(from.ip()) != Trust::Known;
        if numbered && taken > MAX_UNADMITTED / 2 && stranger() {
            ADMISSION_TIME_CROWDED
        } else {
            ADMISSION_TIME
        }
    }

    async fn admit(
        &self,
        mut socket: TcpStream,
        from: SocketAddr,
        time: Duration,
    ) -> Result<Admitted, String> {
        let key = self.key.as_ref().ok_or("the signer has no public key")?;
        let (line, early) = read_line(&mut socket, MAX_ADMISSION, time)
            .await
            .map_err(|why| why.to_string())?;
        let number = self.admission.check(&line, key);
        let admitted = Admitted {
            socket,
            early,
            number: number.map_err(|why| why.to_string())?,
            from,
            anybody: false,
        };
        self.held.let_in(&admitted);
        Ok(admitted)
    }
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
    Came(End, Admitted),
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
            let client = self.arrival(&clients, End::Client);
            let daemon = self.arrival(&daemons, End::Daemon);
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
    async fn arrival(&self, from: &Receiver<Admitted>, end: End) -> JoinEvent {
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

    fn seat(&mut self, from: End, socket: Admitted) {
        let number = socket.number;
        match self.waiting.arrive(from, number, socket, Instant::now()) {
            Met::Pair { client, daemon } => {
                (self.live, self.pairs) = (self.live + 1, self.pairs + 1);
                self.held.stands.store(true, Relaxed);
                let (session, level) = (self.session, self.level);
                task::spawn(carry(session, level, client, daemon, self.done.clone()));
            }
            Met::Waits => {}
            Met::Replaces(old) => info!(
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
            Part {
                rest: Stripped::new(one.socket.clone(), text),
                socket: one.socket,
                early: one.early,
            }
        };
        join_parts(part(a), part(b)).await
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
