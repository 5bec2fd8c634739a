//! Many connections over one session.
//!
//! ```text
//!   client                         rendezvous                        device
//!   control socket ═══════════════════ A ══ B ═══════════════════ control socket    stays for the session
//!
//!   a local program connects
//!   new socket, admission line ──────▶ A
//!   connect:<fresh keys> ────────── control ─────────────────────▶ new socket, admission line ──▶ B
//!   join                                                           dial the service, join
//! ```
//!
//! Old rendezvous join sockets in order of arrival, so both ends do one after the other. A device that
//! cannot reach its service still meets the client's socket, and closes its own: otherwise every later
//! connection would be joined with its neighbour. Ours is told each socket's number in the admission line:
//! the control sockets are 0, and the sockets that the *n*th line of the control channel is about are *n*.
//! So both ends count the same, the lines are what they always were, and no connection waits until another
//! one has been dialled.
//!
//! A socket that cannot be brought to the rendezvous is tried again for a while, and then costs its own
//! connection only:
//!
//! ```text
//!                      client's socket                           device's socket
//!   with numbers       told of already: the device's half waits  the client's half waits at the rendezvous
//!                      at the rendezvous until its time is over  until its time is over
//!   in order           nobody has been told of it                ends the session: the client's half stands in
//!                                                                the row, and would be the next one's neighbour
//! ```
//!
//! What cannot be helped in order: a socket that is lost between us and the rendezvous after it was connected
//! (its admission line never arrives), and one that a device of others drops without a word. The rendezvous
//! then counts differently from the ends, and the keys of all later connections do not fit.
//!
//! The session ends when either control socket does, or after a time without connections. If the other end
//! closes it before that time, something has died there: that is an error.
//!
//! Source: noports:packages/dart/noports_core/lib/src/srv/srv_impl.dart.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::Shutdown,
    sync::Arc,
    time::{Duration, Instant},
};

use async_io::Timer;
use async_std::{
    channel::{Receiver, Sender, bounded, unbounded},
    future::timeout,
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};

use super::{BridgeError, DIAL, Far, Greeting, carry, is_here};
use crate::{
    at::client::jitter,
    net::{
        backoff::Backoff,
        dial::{Endpoint, dial, tune},
    },
    np::{
        control::{ControlLine, ControlLines, Keying},
        pairs::COUNTERPART_TIME,
        request::Keys,
    },
    pipe::{
        cipher::{Cipher, SessionKeys},
        join::{Carried, reset},
    },
    session::online,
    sys::process::descriptors_left,
};

/// How a client talks on the control channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Many {
    /// Say that we are alive this often; devices that do not know the word end the session.
    pub heartbeat: Option<Duration>,
    /// Leave this long between two lines, for devices that read them one at a time.
    pub pace: Duration,
    /// Leave out the lines' ends, for devices that take one for a part of a key when two lines come at once.
    pub unended: bool,
    /// How long the device lets a session stand without a connection, if not as long as it was asked to.
    pub stands: Option<Duration>,
}

/// Local programs that want to the other side, in order of arrival.
#[derive(Debug)]
pub struct Visitors {
    listener: TcpListener,
    /// The listener was put where others reach it, on purpose.
    open_to_others: bool,
    put_back: VecDeque<TcpStream>,
    /// It has been said that nobody can be let in; not again before somebody is.
    complained: bool,
}

impl Visitors {
    /// Whoever connects to this listener; only from this machine if that is where it listens.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn of(listener: TcpListener) -> io::Result<Self> {
        let open_to_others = !is_here(listener.local_addr()?.ip());
        Ok(Self {
            listener,
            open_to_others,
            put_back: VecDeque::new(),
            complained: false,
        })
    }

    /// The next one. Dropping the future loses nobody.
    pub async fn next(&mut self) -> TcpStream {
        if let Some(visitor) = self.put_back.pop_front() {
            return visitor;
        }
        loop {
            match self.listener.accept().await {
                // The connections that stand, and those on their way, need what is left.
                Ok((tcp, _)) if descriptors_left() == 0 => {
                    reset(&tcp);
                    self.complain("too few descriptors are left");
                }
                Ok((tcp, from)) if self.open_to_others || is_here(from.ip()) => {
                    let _ = tune(&tcp);
                    return tcp;
                }
                Ok((_, from)) => log::info!("refused={from} reason=not-from-this-machine"),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.complain(&error.to_string());
                    task::sleep(BREATH).await;
                }
            }
        }
    }

    /// Once, and not for each of a thousand.
    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("refused=connection reason={why:?}");
        }
    }

    /// This one is to come again, behind those put back before: nothing of it has been read yet.
    pub fn put_back(&mut self, visitor: TcpStream) {
        self.put_back.push_back(visitor);
    }
}

/// The client's end. `ready` is called when the control socket stands.
///
/// # Errors
/// See [`BridgeError`]. A visitor that could not be served because the session ended is put back.
pub(super) async fn client(
    far: Arc<Far>,
    visitors: &mut Visitors,
    many: Many,
    idle: Duration,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let mut control = Announcer {
        socket: far.meet_as(CONTROL).await?,
        cipher: far.ciphers().outbound,
        many,
        announced: CONTROL,
        beats: 0,
        last_beat: Instant::now(),
    };
    ready();
    let mut joins = Joins::new(idle);
    let outcome = loop {
        let peer = async { Event::Ended(control.ended().await) };
        let visitor = async { Event::Visitor(visitors.next().await) };
        let beat = async { control.beat_is_due().await };
        match peer.or(joins.idle_end()).or(beat).or(visitor).await {
            // The device's time without connections may be over a little before ours.
            Event::Ended(Ok(())) if joins.stood_idle(many.stands) => break Ok(()),
            Event::Ended(end) => break Err(gone(end)),
            Event::Idle => break Ok(()),
            Event::Heard(_) => {}
            Event::Beat => {
                if let Err(error) = control.beat().await {
                    break Err(BridgeError::Broken(error));
                }
            }
            Event::Visitor(visitor) if joins.are_too_many() => {
                reset(&visitor);
                visitors.complain(&format!(
                    "{} connections at a time are the most",
                    joins.most
                ));
            }
            Event::Visitor(visitor) => match control.announce(&far).await {
                Ok(Some(next)) => {
                    visitors.complained = false;
                    joins.start(|stop| visit(stop, far.clone(), visitor, next));
                }
                Ok(None) => reset(&visitor),
                Err(error) => {
                    visitors.put_back(visitor);
                    break Err(error);
                }
            },
        }
    };
    let (carried, unmet) = joins.end().await;
    for visitor in unmet {
        visitors.put_back(visitor);
    }
    outcome.map(|()| carried)
}

/// A connection the device has been told of.
struct Announced {
    number: u64,
    /// It stands already, because the order counts.
    remote: Option<TcpStream>,
    keys: Option<SessionKeys>,
}

/// One connection at the client. One that cannot be met costs only itself.
async fn visit(stop: Receiver<()>, far: Arc<Far>, visitor: TcpStream, next: Announced) -> End {
    let meet = async {
        Some(match next.remote {
            Some(remote) => Ok(remote),
            None => far.meet_patiently(next.number).await,
        })
    };
    let session_ends = async {
        cut(stop.clone()).await;
        None
    };
    match meet.or(session_ends).await {
        Some(Ok(remote)) => cut_on(stop, far, visitor, remote, next.keys).await.into(),
        Some(Err(error)) => {
            log::warn!("connection={} given_up={error}", next.number);
            reset(&visitor);
            Carried::default().into()
        }
        None => End::Unmet(visitor),
    }
}

/// Why there is no session any more, when its control socket has ended in this way.
fn gone(end: io::Result<()>) -> BridgeError {
    match end {
        Ok(()) => BridgeError::Gone,
        Err(error) => BridgeError::Broken(error),
    }
}

/// The device's end: every announced connection goes to this service.
///
/// # Errors
/// See [`BridgeError`].
pub(super) async fn device(
    far: Arc<Far>,
    service: Endpoint,
    idle: Duration,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let mut control = far.meet_as(CONTROL).await?;
    ready();
    let mut cipher = far.ciphers().inbound;
    let mut announced = CONTROL;
    let mut lines = ControlLines::new(match &far.keys {
        None => Keying::Plain,
        Some(keys) if keys.d2c.is_none() => Keying::Single,
        Some(_) => Keying::Twin,
    });
    let mut joins = Joins::new(idle);
    let mut chunk = [0; READ];
    let outcome = loop {
        let heard = async { Event::Heard(control.read(&mut chunk).await) };
        let got = match heard.or(joins.idle_end()).await {
            Event::Heard(Ok(0)) | Event::Idle => break Ok(()),
            Event::Heard(Ok(got)) => &mut chunk[..got],
            Event::Heard(Err(error)) => break Err(BridgeError::Broken(error)),
            _ => continue,
        };
        if let Some(cipher) = &mut cipher {
            cipher.apply(got);
        }
        lines.push(got);
        got.fill(0);
        if let Err(error) = obey(&mut lines, &mut announced, &far, &service, &mut joins).await {
            break Err(error);
        }
    };
    let (carried, _) = joins.end().await;
    outcome.map(|()| carried)
}

/// Everything the client has said so far, one line after the other. `announced` counts its connections.
async fn obey(
    lines: &mut ControlLines,
    announced: &mut u64,
    far: &Arc<Far>,
    service: &Endpoint,
    joins: &mut Joins,
) -> Result<(), BridgeError> {
    let nonsense =
        |why: String| BridgeError::Broken(io::Error::new(io::ErrorKind::InvalidData, why));
    while let Some(line) = lines.pop().map_err(|error| nonsense(error.to_string()))? {
        let keys = match line {
            ControlLine::Connect(keys) => Some(online::session_keys(&keys)),
            ControlLine::ConnectPlain => None,
            ControlLine::Heartbeat(n) => {
                log::debug!("heartbeat={n}");
                continue;
            }
            ControlLine::Unknown => {
                log::debug!("control=unknown_word");
                continue;
            }
        };
        *announced += 1;
        let number = *announced;
        if far.takes_numbers() {
            if joins.are_too_many() {
                log::warn!("refused connection number={number} reason=too_many");
                continue;
            }
            let (far, service) = (far.clone(), service.clone());
            joins.start(|stop| meet_and_serve(stop, far, service, number, keys));
            continue;
        }
        let remote = far.meet_patiently(number).await?;
        if joins.are_too_many() {
            log::warn!("refused connection reason=too_many");
            joins.start(|stop| async move {
                part(remote).or(cut(stop)).await;
                Carried::default().into()
            });
            continue;
        }
        let (far, service) = (far.clone(), service.clone());
        joins.start(|stop| serve(stop, far, service, remote, keys));
    }
    Ok(())
}

/// One connection at the device that does not have to keep its turn. One that cannot be met costs only itself.
async fn meet_and_serve(
    stop: Receiver<()>,
    far: Arc<Far>,
    service: Endpoint,
    number: u64,
    keys: Option<SessionKeys>,
) -> End {
    let meet = async { Some(far.meet_patiently(number).await) };
    let session_ends = async {
        cut(stop.clone()).await;
        None
    };
    match meet.or(session_ends).await {
        Some(Ok(remote)) => serve(stop, far, service, remote, keys).await,
        Some(Err(error)) => {
            log::warn!("connection={number} given_up={error}");
            Carried::default().into()
        }
        None => Carried::default().into(),
    }
}

/// One connection at the device that has met the client's.
async fn serve(
    stop: Receiver<()>,
    far: Arc<Far>,
    service: Endpoint,
    remote: TcpStream,
    keys: Option<SessionKeys>,
) -> End {
    match dial(&service, DIAL).await {
        Ok(local) => cut_on(stop, far, local, remote, keys).await.into(),
        Err(error) => {
            log::info!("service={service} reason={:?}", error.to_string());
            part(remote).or(cut(stop)).await;
            Carried::default().into()
        }
    }
}

/// Closes a socket that has nothing to carry, but not before the rendezvous has seen who it is.
async fn part(mut remote: TcpStream) {
    let _ = remote.shutdown(Shutdown::Write);
    let end = async {
        let mut rest = [0; READ];
        while matches!(remote.read(&mut rest).await, Ok(got) if got > 0) {}
    };
    let _ = timeout(DIAL, end).await;
}

async fn cut(stop: Receiver<()>) {
    let _ = stop.recv().await;
}

/// Carries one connection, unless the session ends before it does.
async fn cut_on(
    stop: Receiver<()>,
    far: Arc<Far>,
    local: TcpStream,
    remote: TcpStream,
    keys: Option<SessionKeys>,
) -> Carried {
    let (near_end, far_end) = (local.clone(), remote.clone());
    let work = async { Some(carry(local, remote, keys.as_ref(), far.side, Greeting::Any).await) };
    let session_ends = async {
        cut(stop).await;
        None
    };
    match work.or(session_ends).await {
        Some(Ok(carried)) => carried,
        Some(Err(error)) => {
            log::debug!("connection={error}");
            Carried::default()
        }
        None => {
            reset(&near_end);
            reset(&far_end);
            Carried::default()
        }
    }
}

/// What happens next in a session.
enum Event {
    /// The other end closed its control socket, or broke it.
    Ended(io::Result<()>),
    Heard(io::Result<usize>),
    Visitor(TcpStream),
    Beat,
    Idle,
}

/// The client's control socket.
struct Announcer {
    socket: TcpStream,
    cipher: Option<Cipher>,
    many: Many,
    /// Number of the latest connection.
    announced: u64,
    beats: u64,
    last_beat: Instant,
}

impl Announcer {
    /// Devices say nothing here; what they say all the same is nothing to us.
    async fn ended(&self) -> io::Result<()> {
        let mut socket = &self.socket;
        let mut ignored = [0; READ];
        while socket.read(&mut ignored).await? > 0 {}
        Ok(())
    }

    async fn beat_is_due(&self) -> Event {
        match self.many.heartbeat {
            Some(every) => Timer::at(self.last_beat + every).await,
            None => future::pending().await,
        };
        Event::Beat
    }

    async fn beat(&mut self) -> io::Result<()> {
        (self.beats, self.last_beat) = (self.beats + 1, Instant::now());
        self.say(&ControlLine::Heartbeat(self.beats)).await
    }

    /// Brings a socket to the rendezvous whose place in the order counts; `None` where that cannot be done.
    async fn meet_in_turn(&self, far: &Far, number: u64) -> Result<Option<TcpStream>, BridgeError> {
        let met = async { Ok(far.meet_patiently(number).await) };
        let session_ends = async { Err(gone(self.ended().await)) };
        Ok(match met.or(session_ends).await? {
            Ok(remote) => Some(remote),
            Err(error) => {
                log::warn!("connection={number} given_up={error}");
                None
            }
        })
    }

    /// Tells the device of one more connection; where their order counts, brings its socket to the rendezvous
    /// before. `None`: that could not be done, and nobody has been told.
    async fn announce(&mut self, far: &Far) -> Result<Option<Announced>, BridgeError> {
        let number = self.announced + 1;
        let remote = if far.takes_numbers() {
            None
        } else {
            match self.meet_in_turn(far, number).await? {
                None => return Ok(None),
                met => met,
            }
        };
        self.announced = number;
        let (line, keys) = match &far.keys {
            None => (ControlLine::ConnectPlain, None),
            Some(session) => {
                let keys = Keys::random(session.d2c.is_some())
                    .map_err(|error| BridgeError::Broken(io::Error::other(error)))?;
                let ours = online::session_keys(&keys);
                (ControlLine::Connect(keys), Some(ours))
            }
        };
        self.say(&line).await.map_err(BridgeError::Broken)?;
        if !self.many.pace.is_zero() {
            task::sleep(self.many.pace).await;
        }
        Ok(Some(Announced {
            number,
            remote,
            keys,
        }))
    }

    async fn say(&mut self, line: &ControlLine) -> io::Result<()> {
        let mut bytes = zeroize::Zeroizing::new(line.print().reveal().clone().into_bytes());
        if self.many.unended {
            bytes.pop();
        }
        if let Some(cipher) = &mut self.cipher {
            cipher.apply(&mut bytes);
        }
        let sent = timeout(DIAL, self.socket.write_all(&bytes)).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// How a connection ended.
enum End {
    Carried(Carried),
    /// The session was over before it began.
    Unmet(TcpStream),
}

impl From<Carried> for End {
    fn from(carried: Carried) -> Self {
        Self::Carried(carried)
    }
}

/// The connections of a session.
struct Joins {
    live: usize,
    /// At a time: as many as there are descriptors for, so that those that stand lose nothing to newcomers.
    most: usize,
    carried: Carried,
    idle: Duration,
    idle_since: Instant,
    report: Sender<End>,
    reports: Receiver<End>,
    /// Its end is every connection's.
    gate: Sender<()>,
    stop: Receiver<()>,
}

impl Joins {
    fn new(idle: Duration) -> Self {
        let (gate, stop) = bounded(1);
        let (report, reports) = unbounded();
        let most = usize::try_from(descriptors_left() / OF_A_CONNECTION);
        Self {
            live: 0,
            most: most.map_or(MAX_CONNECTIONS, |most| most.min(MAX_CONNECTIONS)),
            carried: Carried::default(),
            idle,
            idle_since: Instant::now(),
            report,
            reports,
            gate,
            stop,
        }
    }

    fn are_too_many(&self) -> bool {
        self.live >= self.most
    }

    fn start<F>(&mut self, connection: impl FnOnce(Receiver<()>) -> F)
    where
        F: Future<Output = End> + Send + 'static,
    {
        self.live += 1;
        let (work, report) = (connection(self.stop.clone()), self.report.clone());
        task::spawn(async move {
            let end = work.await;
            let _ = report.send(end).await;
        });
    }

    /// Waits until there has been no connection for too long. Dropping the future loses nothing.
    async fn idle_end(&mut self) -> Event {
        loop {
            let too_long = async {
                match self.live {
                    0 => Timer::at(self.idle_since + self.idle).await,
                    _ => future::pending().await,
                };
                None
            };
            let one_ended = async { self.reports.recv().await.ok() };
            match one_ended.or(too_long).await {
                // The session is not over, so nobody is left unmet.
                Some(end) => drop(self.account(end)),
                None => return Event::Idle,
            }
        }
    }

    /// Whether there has been no connection for about as long as either end lets a session stand.
    fn stood_idle(&self, device: Option<Duration>) -> bool {
        let whole = device.unwrap_or(self.idle).min(self.idle);
        let least = whole.saturating_sub(AHEAD.min(whole / 2));
        self.live == 0 && self.idle_since.elapsed() >= least
    }

    /// Returns the visitor whose connection had not begun when the session ended.
    fn account(&mut self, end: End) -> Option<TcpStream> {
        self.live -= 1;
        self.idle_since = Instant::now();
        match end {
            End::Carried(carried) => {
                self.carried.up += carried.up;
                self.carried.down += carried.down;
                None
            }
            End::Unmet(visitor) => Some(visitor),
        }
    }

    /// Cuts what is left, and waits until nothing of it is. Also returns the visitors whose connections had
    /// not begun.
    async fn end(mut self) -> (Carried, Vec<TcpStream>) {
        self.gate.close();
        let mut unmet = Vec::new();
        while self.live > 0 {
            match self.reports.recv().await {
                Ok(end) => unmet.extend(self.account(end)),
                Err(_) => break,
            }
        }
        (self.carried, unmet)
    }
}

impl Far {
    /// [`Far::meet_as`], again and again while its counterpart waits. Not without descriptors: those who try
    /// hold what they wait for.
    async fn meet_patiently(&self, number: u64) -> Result<TcpStream, BridgeError> {
        let until = Instant::now() + self.patience;
        let mut backoff = Backoff::new(BREATH, LONGEST_BREATH);
        loop {
            let error = match self.meet_as(number).await {
                Ok(remote) => return Ok(remote),
                Err(error) => error,
            };
            let pause = backoff.pause(jitter());
            if Instant::now() + pause > until || descriptors_left() == 0 {
                return Err(error);
            }
            log::info!("connection={number} again_in={pause:.1?} reason={error}");
            task::sleep(pause).await;
        }
    }
}

/// Number of the control sockets.
const CONTROL: u64 = 0;
/// Connections of one session at a time. Each costs descriptors, and no buffer while nothing moves.
pub const MAX_CONNECTIONS: usize = 1000;
/// Descriptors of one connection: a socket for either end. Without encryption there are two more, so that the
/// newest may fail for want of them; those that stand then copy instead of splicing.
const OF_A_CONNECTION: u64 = 2;
/// One read of the control channel.
const READ: usize = 1024;
/// How long one of many sockets is tried again. The last attempt may take [`DIAL`] longer, and its counterpart
/// should still be there.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);
const _: () = assert!(PATIENCE.as_secs() + DIAL.as_secs() <= COUNTERPART_TIME.as_secs());
/// Between two attempts at what did not work.
const BREATH: Duration = Duration::from_millis(200);
/// The same after some of them.
const LONGEST_BREATH: Duration = Duration::from_secs(2);
/// How much sooner than ours the device's last connection may have ended: what was on its way has still to be
/// taken by our local program.
const AHEAD: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
