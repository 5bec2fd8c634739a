//! One port of a session: who comes is checked, and passed on to be joined.
//!
//! Whoever does not say who it is holds nobody up: where all places of a port are taken, one that is silent gives way
//! ([`Crowd`]); and once a pair stands and many are silent, there is little time.

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
use log::{info, warn};

use crate::{
    at::{AtSign, client::Client, crypto::PublicKey},
    net::{dial::tune, line::read_line},
    np::{
        admit::{Admission, MAX_ADMISSION},
        ids::SessionId,
    },
};

use super::crowd::{Crowd, LoginAddresses, RefusalCounts, Trust};

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
/// After a failed accept: out of descriptors, or a peer that hung up early. Neither is a reason to spin.
const BREATH: Duration = Duration::from_millis(100);

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
pub(super) struct Admitted {
    pub socket: TcpStream,
    /// JoinEvent it sent behind its first line.
    pub early: Vec<u8>,
    pub number: Option<u64>,
    pub from: SocketAddr,
    /// It has not said who it is.
    pub anybody: bool,
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
    pub(super) async fn serve(
        self,
        held: Arc<JoinState>,
        single: bool,
        admitted: Sender<Admitted>,
    ) {
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
pub(super) struct JoinState {
    session: SessionId,
    /// A pair stands.
    pub stands: AtomicBool,
    /// A socket without a number was let in: the order of arrival counts.
    in_order: AtomicBool,
    known: Mutex<LoginAddresses>,
    refusals: Mutex<RefusalCounts>,
}

impl JoinState {
    pub(super) fn of(session: SessionId) -> Arc<Self> {
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

    pub(super) fn refusals(&self) -> MutexGuard<'_, RefusalCounts> {
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
