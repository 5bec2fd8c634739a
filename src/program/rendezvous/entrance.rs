//! One port of a session: who comes is checked, and passed on to be joined.
//!
//! Whoever does not say who it is holds nobody up: where all places of a port are taken, one that is silent gives way
//! (`Budgets::newcomer`); and once a pair stands and many are silent, there is little time. Who has said it needs a
//! place no longer, but a descriptor of its session's (`Budgets::seat`).

use std::{
    mem,
    net::SocketAddr,
    sync::{
        self, Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_std::{
    channel::Sender,
    net::{TcpListener, TcpStream},
    sync::{Mutex, MutexGuardArc},
    task,
};
use futures_lite::{FutureExt, future};
use log::{info, warn};

use crate::{
    at::{AtSign, client::Client, crypto::PublicKey},
    budget::{Hold, MustLeave, Rank},
    net::{dial::tune, line::read_line},
    np::{
        admit::{Admission, AdmissionError, MAX_ADMISSION},
        envelope::EnvelopeError,
        ids::SessionId,
        pairs::Dialer,
        proof::{BadProof, SocketKey},
    },
    session::ignored,
};

use super::{
    budgets::{Budgets, NEWCOMERS_AT_PORT, NoRoom, Place, Seat},
    crowd::LoginAddresses,
};

/// A socket that has not said who it is by then is closed.
const ADMISSION_TIME: Duration = Duration::from_secs(5);
/// The same for strangers once a pair stands and more than half of the places are taken. Not where sockets have no
/// numbers: one that is closed for being late would shift all behind it.
const ADMISSION_TIME_CROWDED: Duration = Duration::from_secs(1);
/// Turns that may stand behind a slow socket on one port; more wait in the kernel.
const MAX_TURNS: usize = 1024;
/// After a failed accept: out of descriptors, or a peer that hung up early. Neither is a reason to spin.
const BREATH: Duration = Duration::from_millis(100);
/// Before it is looked again whether somebody has left.
const A_MOMENT: Duration = Duration::from_millis(10);

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
    Signed(Arc<Admission>, Signer, Option<SocketKey>),
    /// Whoever finds it.
    Anybody,
}

/// Whose signature opens a port; asked for when the port opens, and once more when a signature does not fit.
pub(super) struct Signer {
    /// Asks for the key.
    pub at: Client,
    /// Its owner.
    pub who: AtSign,
    /// Who asked for the session.
    pub asker: AtSign,
}

impl Signer {
    async fn key(&self, afresh: bool) -> Option<PublicKey> {
        let (at, asker, who) = (&self.at, &self.asker, &self.who);
        let found = if afresh {
            at.public_key_afresh(asker, who).await
        } else {
            at.public_key_for(asker, who).await
        };
        found.unwrap_or_else(|error| {
            let kind = format!("keys_not_found for={asker}");
            if ignored::has_line(&kind, ignored::FEW) {
                warn!(
                    "public_key_of={who} for={asker} reason={:?}",
                    error.to_string()
                );
            }
            None
        })
    }
}

/// A socket that was let in.
pub(super) struct Admitted {
    pub socket: TcpStream,
    /// JoinEvent it sent behind its first line.
    pub early: Vec<u8>,
    pub number: Option<u64>,
    /// Which try of that number it is, if that is proved.
    pub attempt: Option<u64>,
    pub from: SocketAddr,
    /// It has not said who it is.
    pub anybody: bool,
    /// What it holds; nothing where it is the first of its end.
    pub seat: Option<Seat>,
}

impl SessionPort {
    /// Lets sockets in for as long as somebody takes them.
    pub(super) async fn serve(
        self,
        end: Dialer,
        held: Arc<JoinState>,
        single: bool,
        admitted: Sender<Box<Admitted>>,
    ) {
        match self.entry {
            EntryRule::Anybody => {
                held.in_order.store(true, Relaxed);
                let_in(end, held, self.listener, single, &admitted).await;
            }
            EntryRule::Signed(admission, signer, socket_key) => {
                let port = self.listener.local_addr().map_or(0, |at| at.port());
                let door = SignedPort {
                    end,
                    port,
                    admission,
                    // The client made the key. Of a device this is known when its first socket has come.
                    numbers: AtomicBool::new(false),
                    proves: AtomicBool::new(end == Dialer::Client && socket_key.is_some()),
                    socket_key,
                    key: sync::Mutex::new(Box::pin(signer.key(false)).await),
                    asked_again: Mutex::new(false),
                    signer,
                    held,
                };
                receive(Arc::new(door), self.listener, &admitted).await;
            }
        }
    }
}

/// What both ports know of their session.
pub(super) struct JoinState {
    pub(super) session: SessionId,
    /// Who asked for it.
    pub client: AtSign,
    daemon: Option<AtSign>,
    pub(super) budgets: Budgets,
    /// What the log says of it once somebody comes; taken then.
    begins: sync::Mutex<Option<String>>,
    /// It has said so, and says how it ends.
    is_told: AtomicBool,
    /// The first socket of this end has come.
    first_came: [AtomicBool; 2],
    /// A pair stands.
    pub stands: AtomicBool,
    /// A socket without a number was let in: the order of arrival counts.
    in_order: AtomicBool,
    known: sync::Mutex<LoginAddresses>,
}

impl JoinState {
    pub(super) fn of(
        session: SessionId,
        (client, daemon): (AtSign, Option<AtSign>),
        begins: String,
        budgets: Budgets,
    ) -> Arc<Self> {
        Arc::new(Self {
            session,
            client,
            daemon,
            budgets,
            begins: sync::Mutex::new(Some(begins)),
            is_told: AtomicBool::new(false),
            first_came: Default::default(),
            stands: AtomicBool::new(false),
            in_order: AtomicBool::new(false),
            known: sync::Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, LoginAddresses> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            match listener.accept().await {
                Ok((socket, from)) => {
                    let _ = tune(&socket);
                    return (socket, from);
                }
                Err(error) => {
                    let (session, reason) = (self.session, error.to_string());
                    let biggest = self.budgets.descriptors.biggest();
                    let (biggest, has) =
                        biggest.map_or((String::new(), 0), |(who, has)| (who.to_string(), has));
                    let about = format!("session={session} biggest={biggest} has={has}");
                    ignored::of_kind(&format!("accept=failed reason={reason:?}"), 1, about);
                    task::sleep(BREATH).await;
                }
            }
        }
    }

    /// What this one holds from now on. The first of either end has its descriptor from the session. It waits while others
    /// leave for it: an end's socket is not dropped for that.
    async fn seat(&self, end: Dialer, number: Option<u64>) -> Result<Option<Seat>, String> {
        self.began();
        let first = &self.first_came[usize::from(end == Dialer::Daemon)];
        if !first.swap(true, Relaxed) {
            return Ok(None);
        }
        let (control, until) = (number == Some(0), Instant::now() + ADMISSION_TIME);
        loop {
            let (client, daemon, now) = (&self.client, self.daemon.as_ref(), Instant::now());
            match self.budgets.seat(client, daemon, control, now) {
                Ok(seat) => return Ok(Some(seat)),
                Err(NoRoom::NotYet) if now < until => task::sleep(A_MOMENT).await,
                Err(_) => return Err("no descriptors are left for it".to_owned()),
            }
        }
    }

    fn begins(&self) -> Option<String> {
        let mut begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        begins.take()
    }

    /// Somebody has come.
    fn began(&self) {
        if let Some(begins) = self.begins()
            && ignored::tells_session(&self.client)
        {
            self.is_told.store(true, Relaxed);
            info!("session={} {begins}", self.session);
        }
    }

    /// It is over. Ports that nobody comes to cost whoever asks for them nothing, so there is a count of them.
    pub(super) fn ended(&self, pairs: usize) {
        let session = self.session;
        if let Some(ports) = self.begins() {
            let kind = format!("unused from={}", self.client);
            ignored::of_kind(
                &kind,
                ignored::FEW,
                format_args!("session={session} {ports}"),
            );
        } else if self.is_told.load(Relaxed) {
            info!("session={session} ended pairs={pairs}");
        }
    }

    pub(super) fn refused(&self, port_of: &str, from: SocketAddr, why: &str) {
        let session = self.session;
        let kind = format!("not_admitted port_of={port_of} reason={why:?}");
        ignored::of_kind(&kind, 1, format_args!("session={session} from={from}"));
    }
}

/// Nobody is asked. A single one is let in, and the port is closed behind it.
async fn let_in(
    end: Dialer,
    held: Arc<JoinState>,
    listener: TcpListener,
    single: bool,
    admitted: &Sender<Box<Admitted>>,
) {
    loop {
        let (socket, from) = held.accept(&listener).await;
        let seat = match held.seat(end, None).await {
            Ok(seat) => seat,
            Err(why) => {
                held.refused("anybody", from, &why);
                continue;
            }
        };
        let anybody = Box::new(Admitted {
            socket,
            early: Vec::new(),
            number: None,
            attempt: None,
            from,
            anybody: true,
            seat,
        });
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
    end: Dialer,
    /// Its number.
    port: u16,
    admission: Arc<Admission>,
    socket_key: Option<SocketKey>,
    /// This end numbers its sockets, so none waits here for those before it.
    numbers: AtomicBool,
    /// This end proves its numbers, so nobody is let in here without a proof.
    proves: AtomicBool,
    signer: Signer,
    key: sync::Mutex<Option<PublicKey>>,
    /// A signature did not fit, and it has been asked for since the port opened.
    asked_again: Mutex<bool>,
    held: Arc<JoinState>,
}

/// Lets those in that say who they are. Sockets without numbers are passed on in the order of arrival. A slow one is waited
/// for, until its time to say who it is has passed, or it has given way: letting the next one go first would join all later
/// ones with their neighbours. One that has gone had no place in the order, unless it was an end's own whose line was late;
/// that nobody can tell, which is what numbers are for.
async fn receive(door: Arc<SignedPort>, listener: TcpListener, admitted: &Sender<Box<Admitted>>) {
    let mut last = Arc::default();
    loop {
        let (socket, from) = door.held.accept(&listener).await;
        let (place, must_leave) = door.place(from).await;
        let time = door.time_for(from);
        let turn = Turn::behind(&mut last).await;
        let (here, admitted) = (door.clone(), admitted.clone());
        task::spawn(async move {
            let gives_way = async {
                must_leave.told().await;
                Err("gave way to others".to_owned())
            };
            let outcome = here.admit(socket, from, time).or(gives_way).await;
            drop(place);
            match outcome {
                Ok(socket) => {
                    // Numbers make an order of their own, and an end that says one says them all.
                    if socket.number.is_some() {
                        here.numbers.store(true, Relaxed);
                    } else {
                        turn.comes().await;
                    }
                    let _ = admitted.send(socket).await;
                }
                Err(why) => here.held.refused(here.signer.who.as_str(), from, &why),
            }
            turn.end(here.numbers.load(Relaxed)).await;
        });
        while Arc::strong_count(&door) > MAX_TURNS {
            task::sleep(BREATH).await;
        }
    }
}

/// A socket's place in the order of arrival.
struct Turn {
    /// Locked until this one, and so all before it, had its turn.
    _own: MutexGuardArc<()>,
    before: Arc<Mutex<()>>,
}

impl Turn {
    /// Behind the last one; from now on this is the last one.
    async fn behind(last: &mut Arc<Mutex<()>>) -> Self {
        let own = Arc::new(Mutex::new(()));
        Self {
            _own: own.lock_arc().await,
            before: mem::replace(last, own),
        }
    }

    /// All before it have had theirs.
    async fn comes(&self) {
        drop(self.before.lock().await);
    }

    /// Whoever is behind may go. Where sockets have numbers nobody needs to know who was before.
    async fn end(self, has_numbers: bool) {
        if !has_numbers {
            self.comes().await;
        }
    }
}

impl SignedPort {
    /// A place for one more that has to say who it is. Where nobody can give way yet, it waits: it may be an end's.
    async fn place(&self, from: SocketAddr) -> (Hold<Place>, MustLeave) {
        loop {
            let (rank, now) = (self.rank(from), Instant::now());
            match self.held.budgets.newcomer(from, self.port, rank, now) {
                Some(place) => return place,
                None => task::sleep(A_MOMENT).await,
            }
        }
    }

    fn rank(&self, from: SocketAddr) -> Rank {
        self.held.known().rank(from.ip())
    }

    /// How long this one may take to say who it is.
    fn time_for(&self, from: SocketAddr) -> Duration {
        let numbered = self.held.stands.load(Relaxed) && !self.held.in_order.load(Relaxed);
        let crowded = || self.held.budgets.newcomers_at(self.port) > NEWCOMERS_AT_PORT / 2;
        if numbered && crowded() && self.rank(from) != Rank::Known {
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
    ) -> Result<Box<Admitted>, String> {
        let (line, early) = read_line(&mut socket, MAX_ADMISSION, time)
            .await
            .map_err(|why| why.to_string())?;
        let number = self.number(&line).await?;
        let attempt = self.attempt(&line).map_err(|why| why.to_string())?;
        self.held.known().add(from.ip());
        if number.is_none() {
            self.held.in_order.store(true, Relaxed);
        }
        Ok(Box::new(Admitted {
            socket,
            early,
            number,
            attempt,
            from,
            anybody: false,
            seat: self.held.seat(self.end, number).await?,
        }))
    }

    /// The number that this line says, if its end has signed it.
    async fn number(&self, line: &[u8]) -> Result<Option<u64>, String> {
        match self.check(line) {
            Err(AdmissionError::Envelope(EnvelopeError::Signature)) => {}
            other => return other.map_err(|why| why.to_string()),
        }
        // The end may have new keys since we looked. One question will do, whoever sends bad lines.
        let mut asked_again = self.asked_again.lock().await;
        if !*asked_again && let Some(key) = self.signer.key(true).await {
            *self.key() = Some(key);
        }
        *asked_again = true;
        self.check(line).map_err(|why| why.to_string())
    }

    fn check(&self, line: &[u8]) -> Result<Option<u64>, AdmissionError> {
        let key = self.key().clone();
        let key = key.ok_or(EnvelopeError::Signature)?;
        self.admission.check(line, &key)
    }

    fn key(&self) -> MutexGuard<'_, Option<PublicKey>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which try of its number this line proves to be. Once this end has proved one, all others are somebody else's: its
    /// lines are in clear, and can be said again.
    fn attempt(&self, line: &[u8]) -> Result<Option<u64>, BadProof> {
        let Some(key) = &self.socket_key else {
            return Ok(None);
        };
        let line = std::str::from_utf8(line).map_err(|_| BadProof)?;
        let attempt = key.check(line, &self.admission.rendezvous_nonce, self.end)?;
        if attempt.is_some() {
            self.proves.store(true, Relaxed);
        } else if self.proves.load(Relaxed) {
            return Err(BadProof);
        }
        Ok(attempt)
    }
}

#[cfg(test)]
mod tests {
    use async_std::future::timeout;

    use super::*;
    use crate::testing::soon;

    /// Each kept its task, and one of the port's turns, until the slowest before it had said who it is.
    #[test]
    fn who_has_a_number_waits_for_nobody_and_who_has_none_for_all_before_it() {
        soon(async {
            let mut last = Arc::default();
            let silent = Turn::behind(&mut last).await;
            for _ in 0..MAX_TURNS {
                Turn::behind(&mut last).await.end(true).await;
            }
            let mut last = silent.before.clone();
            let silent = Turn::behind(&mut last).await;
            let next = Turn::behind(&mut last).await;
            assert!(timeout(A_MOMENT, next.comes()).await.is_err());
            drop(silent);
            next.end(false).await;
        });
    }
}
