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
//! The session ends when either control socket does, or after a time without connections.
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

use super::{BridgeError, DIAL, Far, carry, is_here};
use crate::{
    net::dial::{Endpoint, dial, tune},
    np::{
        control::{Kind, Line, Lines},
        request::Keys,
    },
    pipe::{
        cipher::{Cipher, SessionKeys},
        join::{Carried, reset},
    },
    session::online,
};

/// How a client talks on the control channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Many {
    /// Say that we are alive this often; devices that do not know the word end the session.
    pub heartbeat: Option<Duration>,
    /// Leave this long between two lines, for devices that read them one at a time.
    pub pace: Duration,
}

/// Local programs that want to the other side, in order of arrival.
#[derive(Debug)]
pub struct Visitors {
    listener: TcpListener,
    /// The listener was put where others reach it, on purpose.
    open_to_others: bool,
    put_back: VecDeque<TcpStream>,
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
        })
    }

    /// The next one. Dropping the future loses nobody.
    pub async fn next(&mut self) -> TcpStream {
        if let Some(visitor) = self.put_back.pop_front() {
            return visitor;
        }
        loop {
            match self.listener.accept().await {
                Ok((tcp, from)) if self.open_to_others || is_here(from.ip()) => {
                    let _ = tune(&tcp);
                    return tcp;
                }
                Ok((_, from)) => log::info!("refused={from} reason=not-from-this-machine"),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::warn!("accept=failed reason={:?}", error.to_string());
                    task::sleep(BREATH).await;
                }
            }
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
            Event::Ended(outcome) => break outcome.map_err(BridgeError::Broken),
            Event::Idle => break Ok(()),
            Event::Heard(_) => {}
            Event::Beat => {
                if let Err(error) = control.beat().await {
                    break Err(BridgeError::Broken(error));
                }
            }
            Event::Visitor(visitor) if joins.are_too_many() => reset(&visitor),
            Event::Visitor(visitor) => match control.announce(&far).await {
                Ok(next) => joins.start(|stop| visit(stop, far.clone(), visitor, next)),
                Err(error) => {
                    visitors.put_back(visitor);
                    break Err(error);
                }
            },
            Event::Unmet(visitor, error) => {
                visitors.put_back(visitor);
                break Err(error);
            }
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

/// One connection at the client.
async fn visit(stop: Receiver<()>, far: Arc<Far>, visitor: TcpStream, next: Announced) -> End {
    let meet = async {
        match next.remote {
            Some(remote) => Ok(remote),
            None => far.meet_as(next.number).await,
        }
    };
    let session_ends = async {
        cut(stop.clone()).await;
        Err(BridgeError::Broken(io::ErrorKind::Interrupted.into()))
    };
    match meet.or(session_ends).await {
        Ok(remote) => cut_on(stop, far, visitor, remote, next.keys).await.into(),
        Err(error) => End::Unmet(visitor, error),
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
    let mut lines = Lines::new(match &far.keys {
        None => Kind::Plain,
        Some(keys) if keys.d2c.is_none() => Kind::Single,
        Some(_) => Kind::Twin,
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
    lines: &mut Lines,
    announced: &mut u64,
    far: &Arc<Far>,
    service: &Endpoint,
    joins: &mut Joins,
) -> Result<(), BridgeError> {
    let nonsense =
        |why: String| BridgeError::Broken(io::Error::new(io::ErrorKind::InvalidData, why));
    while let Some(line) = lines.pop().map_err(|error| nonsense(error.to_string()))? {
        let keys = match line {
            Line::Connect(keys) => Some(online::session_keys(&keys)),
            Line::ConnectPlain => None,
            Line::Heartbeat(n) => {
                log::debug!("heartbeat={n}");
                continue;
            }
            Line::Unknown => {
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
    let work = async { Some(carry(local, remote, keys.as_ref(), far.side).await) };
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
    /// A visitor's socket could not be brought to the rendezvous.
    Unmet(TcpStream, BridgeError),
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
        self.say(&Line::Heartbeat(self.beats)).await
    }

    /// Tells the device of one more connection; where their order counts, brings its socket to the rendezvous
    /// before.
    async fn announce(&mut self, far: &Far) -> Result<Announced, BridgeError> {
        self.announced += 1;
        let number = self.announced;
        let remote = match far.takes_numbers() {
            true => None,
            false => Some(far.meet_as(number).await?),
        };
        let (line, keys) = match &far.keys {
            None => (Line::ConnectPlain, None),
            Some(session) => {
                let keys = Keys::random(session.d2c.is_some())
                    .map_err(|error| BridgeError::Broken(io::Error::other(error)))?;
                let ours = online::session_keys(&keys);
                (Line::Connect(keys), Some(ours))
            }
        };
        self.say(&line).await.map_err(BridgeError::Broken)?;
        if !self.many.pace.is_zero() {
            task::sleep(self.many.pace).await;
        }
        Ok(Announced {
            number,
            remote,
            keys,
        })
    }

    async fn say(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = zeroize::Zeroizing::new(line.print().reveal().clone().into_bytes());
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
    /// It never began.
    Unmet(TcpStream, BridgeError),
}

impl From<Carried> for End {
    fn from(carried: Carried) -> Self {
        Self::Carried(carried)
    }
}

/// The connections of a session.
struct Joins {
    live: usize,
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
        Self {
            live: 0,
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
        self.live >= MAX_CONNECTIONS
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
                Some(end) => {
                    if let Some((visitor, error)) = self.account(end) {
                        return Event::Unmet(visitor, error);
                    }
                }
                None => return Event::Idle,
            }
        }
    }

    fn account(&mut self, end: End) -> Option<(TcpStream, BridgeError)> {
        self.live -= 1;
        self.idle_since = Instant::now();
        match end {
            End::Carried(carried) => {
                self.carried.up += carried.up;
                self.carried.down += carried.down;
                None
            }
            End::Unmet(visitor, error) => Some((visitor, error)),
        }
    }

    /// Cuts what is left, and waits until nothing of it is. Also returns the visitors whose connections had
    /// not begun.
    async fn end(mut self) -> (Carried, Vec<TcpStream>) {
        self.gate.close();
        let mut unmet = Vec::new();
        while self.live > 0 {
            match self.reports.recv().await {
                Ok(end) => unmet.extend(self.account(end).map(|(visitor, _)| visitor)),
                Err(_) => break,
            }
        }
        (self.carried, unmet)
    }
}

impl Far {
    /// [`Far::meet_as`] with some more attempts: a device that misses one connection may have lost them all.
    async fn meet_patiently(&self, number: u64) -> Result<TcpStream, BridgeError> {
        for _ in 1..ATTEMPTS {
            match self.meet_as(number).await {
                Ok(remote) => return Ok(remote),
                Err(error) => log::warn!("again={error}"),
            }
            task::sleep(BREATH).await;
        }
        self.meet_as(number).await
    }
}

/// Number of the control sockets.
const CONTROL: u64 = 0;
/// Connections of one session at a time. Each costs two descriptors, and no buffer while nothing moves.
pub const MAX_CONNECTIONS: usize = 1000;
/// One read of the control channel.
const READ: usize = 1024;
/// Attempts to meet an announced connection.
const ATTEMPTS: usize = 3;
/// Between two attempts at what did not work.
const BREATH: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
