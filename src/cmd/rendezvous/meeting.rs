//! Where the two ends of one session meet: who comes is checked, and joined with who comes on the other port.
//!
//! ```text
//!   A ─ admission line? ─▶ waiting ─┐
//!                                   ├─ the oldest with the oldest ─▶ splice
//!   B ─ admission line? ─▶ waiting ─┘
//! ```

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_std::{
    channel::{self, Receiver, Sender},
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::{FutureExt, future};
use log::{debug, info, warn};

use crate::{
    at::{AtSign, client::Client, crypto::PublicKey},
    net::{dial::tune, line::read_line},
    np::{
        admit::{Admission, MAX_ADMISSION},
        ids::SessionId,
    },
    pipe::join::splice,
};

/// A session whose two ends have not met by then is given up.
const GRACE: Duration = Duration::from_secs(30);
/// A socket that has not said who it is by then is closed.
const ADMISSION_TIME: Duration = Duration::from_secs(5);
/// Sockets on one port that may be saying who they are at the same time.
const MAX_UNADMITTED: usize = 64;
/// Admitted sockets on one port that may wait for their counterpart; more wait in the kernel.
const MAX_WAITING: usize = 64;

/// Whose signature opens a port; asked for when the first socket comes.
pub struct Signer {
    /// Asks for the key.
    pub at: Client,
    /// Its owner.
    pub who: AtSign,
}

impl Signer {
    async fn key(&self) -> Option<PublicKey> {
        match self.at.public_key(&self.who).await {
            Ok(key) => key,
            Err(error) => {
                warn!("public_key_of={} error={error:?}", self.who);
                None
            }
        }
    }
}

/// One port of one session.
pub struct Gate {
    /// Where sockets come.
    pub listener: TcpListener,
    /// What they have to say.
    pub admission: Arc<Admission>,
    /// Who has to have signed it.
    pub key: Signer,
}

/// A socket that said who it is, and what it sent behind that line.
type Admitted = (TcpStream, Vec<u8>);

/// A socket's turn, in the order of arrival: what comes of it, or nothing.
type Turn = Receiver<Admitted>;

impl Gate {
    /// Lets sockets in, in the order in which they came, for as long as somebody takes them.
    async fn serve(self, admitted: Sender<Admitted>) {
        let (queue, turns) = channel::bounded(MAX_UNADMITTED);
        self.receive(queue).or(in_order(turns, admitted)).await;
    }

    async fn receive(self, queue: Sender<Turn>) {
        let key = self.key.key().await;
        let unadmitted = Arc::new(AtomicUsize::new(0));
        let (session, who) = (self.admission.session, self.key.who);
        loop {
            let (socket, from) = match self.listener.accept().await {
                Ok(both) => both,
                Err(error) => {
                    // Out of descriptors, or a peer that hung up early: neither is a reason to spin.
                    warn!("session={session} accept={error:?}");
                    task::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(key) = key.clone() else { continue };
            if unadmitted.fetch_add(1, Ordering::SeqCst) >= MAX_UNADMITTED {
                unadmitted.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (admission, who, count) = (self.admission.clone(), who.clone(), unadmitted.clone());
            let (pass, passed) = channel::bounded(1);
            task::spawn(async move {
                match admit(socket, &admission, &key).await {
                    Ok(admitted) => drop(pass.try_send(admitted)),
                    Err(why) => {
                        info!("session={session} port_of={who} from={from} not_admitted={why:?}")
                    }
                }
                count.fetch_sub(1, Ordering::SeqCst);
            });
            if queue.send(passed).await.is_err() {
                return;
            }
        }
    }
}

/// Passes sockets on in the order of arrival. A slow one is waited for, until its time to say who it is has passed:
/// letting the next one go first would join all later ones with their neighbours.
async fn in_order(turns: Receiver<Turn>, admitted: Sender<Admitted>) {
    while let Ok(passed) = turns.recv().await {
        if let Ok(socket) = passed.recv().await {
            let _ = admitted.send(socket).await;
        }
    }
}

async fn admit(
    mut socket: TcpStream,
    admission: &Admission,
    key: &PublicKey,
) -> Result<Admitted, String> {
    let _ = tune(&socket);
    let (line, early) = read_line(&mut socket, MAX_ADMISSION, ADMISSION_TIME)
        .await
        .map_err(|why| why.to_string())?;
    admission.check(&line, key).map_err(|why| why.to_string())?;
    Ok((socket, early))
}

/// Joins the oldest admitted A with the oldest admitted B, again and again, until the session is over.
pub async fn pair_up(a: Gate, b: Gate) -> usize {
    let session = a.admission.session;
    let (send_a, from_a) = channel::bounded(1);
    let (send_b, from_b) = channel::bounded(1);
    let gates = async {
        future::zip(a.serve(send_a), b.serve(send_b)).await;
        0
    };
    gates.or(join_pairs(session, from_a, from_b)).await
}

async fn join_pairs(
    session: SessionId,
    from_a: Receiver<Admitted>,
    from_b: Receiver<Admitted>,
) -> usize {
    let (done, ended) = channel::bounded::<()>(MAX_WAITING);
    let (mut waiting_a, mut waiting_b) = (VecDeque::new(), VecDeque::new());
    let (mut live, mut pairs) = (0usize, 0usize);
    let give_up = Instant::now() + GRACE;
    loop {
        // Before the first pair there is a deadline; afterwards the last pair's end is the end.
        let patience = async {
            if pairs == 0 {
                async_io::Timer::at(give_up).await;
            } else {
                future::pending::<()>().await;
            }
            What::TimeIsUp
        };
        let arrival_a = arrival(&from_a, waiting_a.len(), What::A);
        let arrival_b = arrival(&from_b, waiting_b.len(), What::B);
        let end = async {
            ended
                .recv()
                .await
                .map_or(What::TimeIsUp, |()| What::PairEnded)
        };
        match end.or(arrival_a).or(arrival_b).or(patience).await {
            What::A(pass) => waiting_a.push_back(pass),
            What::B(pass) => waiting_b.push_back(pass),
            What::PairEnded => live -= 1,
            What::TimeIsUp => return pairs,
        }
        if !waiting_a.is_empty()
            && !waiting_b.is_empty()
            && let (Some(one), Some(other)) = (waiting_a.pop_front(), waiting_b.pop_front())
        {
            (live, pairs) = (live + 1, pairs + 1);
            task::spawn(carry(session, one, other, done.clone()));
        }
        if pairs > 0 && live == 0 {
            return pairs;
        }
    }
}

/// The next socket, unless too many wait already: dropping one would join all later ones with their
/// neighbours.
async fn arrival(from: &Receiver<Admitted>, waiting: usize, what: fn(Admitted) -> What) -> What {
    if waiting >= MAX_WAITING {
        return future::pending().await;
    }
    from.recv().await.map_or(What::TimeIsUp, what)
}

enum What {
    A(Admitted),
    B(Admitted),
    PairEnded,
    TimeIsUp,
}

async fn carry(session: SessionId, a: Admitted, b: Admitted, done: Sender<()>) {
    match splice(a.0, a.1, b.0, b.1, None).await {
        Ok(carried) => debug!("session={session} up={} down={}", carried.up, carried.down),
        Err(error) => debug!("session={session} cut={error:?}"),
    }
    let _ = done.send(()).await;
}
