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
//! The session ends when either control socket does, or after a time without connections; at the device also when the
//! client has never said a word, which clients of ours do at once. If the other end
//! closes it before that time, something has died there: that is an error.
//!
//! Source: noports:packages/dart/noports_core/lib/src/srv/srv_impl.dart.

use std::{
    io,
    net::Shutdown,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_io::Timer;
use async_std::{channel::Receiver, future::timeout, net::TcpStream, task};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};

pub(super) use single::on_stdio;

use super::{
    began::Greeting,
    carry::{ConnectionEnds, FLUSH, carry},
    dialler::{DIAL, Dialler},
    error::BridgeError,
    joins::{ConnectionEnd, Joins},
    live::Live,
    news::BridgeNews,
    visitors::Visitors,
};
use crate::{
    net::{
        dial::dial_service,
        stall::{Tell, Watched, watch},
    },
    np::control::{ControlLine, ControlLines, DeviceLines, Keying},
    pipe::{
        cipher::{Cipher, Ciphers, SessionKeys, Side},
        join::{Carried, reset},
    },
    sys::out,
    text::endpoint::Endpoint,
};

mod single;

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
    /// How long the device's end waits for the client's first word, if not as long as the session may stand idle.
    pub first_word: Option<Duration>,
    /// The device answers, and is asked while there are connections.
    pub questions: Option<Questions>,
}

/// How a client finds out that a rendezvous takes everything and carries nothing: TCP does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Questions {
    /// Between two of them.
    pub every: Duration,
    /// So long without an answer is told.
    pub tell: Duration,
    /// So long without one ends the session. As long as a stall that it is to survive.
    pub give_up: Duration,
    /// Whoever comes after it was told is the next session's; those who are here stay.
    pub moves_on: bool,
}

impl Questions {
    /// A device behind a line that stalls is as silent as one behind a rendezvous that carries nothing, so that the session
    /// waits as long as it does for any stall.
    pub const USUAL: Self = Self {
        every: Duration::from_secs(20),
        tell: Duration::from_secs(35),
        give_up: Duration::from_secs(300),
        moves_on: false,
    };
}

// Whoever talks to nobody is told within a minute, also when the last answer came just before.
const _: () = assert!(Questions::USUAL.every.as_secs() + Questions::USUAL.tell.as_secs() < 60);

/// The client's end. `ready` is called when the control socket stands.
///
/// # Errors
/// See [`BridgeError`]. A visitor that could not be served because the session ended is put back.
pub(super) async fn client(
    dialler: Arc<Dialler>,
    keys: Option<&SessionKeys>,
    visitors: &mut Visitors,
    many: Many,
    idle: Duration,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let mut control = Announcer::on(&dialler, keys, many).await?;
    ready();
    if many.questions.is_none() {
        dialler.live.guess();
    }
    let mut joins = Joins::new(idle);
    let outcome = loop {
        let peer = async { ControlEvent::Ended(control.ended().await) };
        let visitor = async { ControlEvent::Visitor(visitors.next().await) };
        let is_busy = joins.live > 0;
        let beat = async { control.beat_is_due(is_busy).await };
        let silent = async { control.is_silent().await };
        let idle = async {
            joins.stood_too_long().await;
            ControlEvent::Idle
        };
        let told = async {
            dialler.live.lets_go().await;
            ControlEvent::Told
        };
        match peer.or(told).or(idle).or(beat).or(silent).or(visitor).await {
            // The device's time without connections may be over a little before ours.
            ControlEvent::Ended(Ok(())) if joins.stood_idle(many.stands) => break Ok(()),
            ControlEvent::Ended(end) => break Err(gone(end)),
            ControlEvent::Idle => break Ok(()),
            ControlEvent::Told => {
                joins.let_go(FLUSH).await;
                break Ok(());
            }
            ControlEvent::Heard(_) | ControlEvent::Failed(_) => {}
            ControlEvent::Silence => {
                if let Some(silent) = control.tell_silence() {
                    break Err(silent);
                }
            }
            ControlEvent::Visitor(visitor) if control.moves_on() => {
                visitors.put_back(visitor);
                let silent = control.silence();
                task::spawn(linger(control, joins));
                return Err(BridgeError::Silent(silent));
            }
            ControlEvent::Beat => {
                if let Err(error) = control.beat().await {
                    break Err(BridgeError::Broken(error));
                }
            }
            ControlEvent::Visitor(visitor) if joins.are_too_many() => {
                reset(&visitor);
                visitors.complain(&format!("at most {} connections at once", joins.most));
            }
            ControlEvent::Visitor(visitor) => match control.announce(&dialler).await {
                Ok(Some(next)) => {
                    visitors.complained = false;
                    joins.start(|stop| visit(stop, dialler.clone(), visitor, next));
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

/// What stands may come back to life. It ends with the session.
async fn linger(control: Announcer, mut joins: Joins) {
    let give_up = async {
        while !control.is_over() {
            control.is_silent().await;
            task::sleep(BREATH).await;
        }
    };
    let ended = async { drop(control.ended().await) };
    joins.stood_too_long().or(give_up).or(ended).await;
    joins.end().await;
}

/// A connection the device has been told of.
struct Announced {
    number: u64,
    /// It stands already, because the order counts.
    remote: Option<TcpStream>,
    keys: Option<SessionKeys>,
}

/// One connection at the client. One that cannot be met costs only itself.
async fn visit(
    stop: Receiver<()>,
    dialler: Arc<Dialler>,
    visitor: TcpStream,
    next: Announced,
) -> ConnectionEnd {
    let meet = async {
        Some(match next.remote {
            Some(remote) => Ok(remote),
            None => dialler.connect_patiently(next.number).await,
        })
    };
    let session_ends = async {
        cut(stop.clone()).await;
        None
    };
    match meet.or(session_ends).await {
        Some(Ok(remote)) => cut_on(stop, dialler, visitor, remote, next.keys)
            .await
            .into(),
        Some(Err(error)) => {
            log::warn!(
                "connection={} ended reason={:?}",
                next.number,
                error.to_string()
            );
            reset(&visitor);
            Carried::default().into()
        }
        None => ConnectionEnd::Unmet(visitor),
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
    dialler: Arc<Dialler>,
    keys: Option<&SessionKeys>,
    service: Endpoint,
    many: Many,
    idle: Duration,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let mut control = dialler.connect_as(CONTROL, 0).await?;
    let _watched = watch(&control, Tell::Aloud);
    ready();
    let (mut cipher, mut outbound) = inbound_outbound(keys, dialler.far.side);
    let mut announced = CONTROL;
    let mut lines = ControlLines::new(match keys {
        None => Keying::Plain,
        Some(keys) if !keys.are_twin() => Keying::Single,
        Some(_) => Keying::Twin,
    });
    let mut joins = Joins::new(idle);
    let mut chunk = [0; READ];
    let mut silence = many.first_word.map(|time| Instant::now() + time);
    let (mut has_spoken, mut has_asked) = (false, false);
    let outcome = loop {
        let silent = async {
            match silence {
                Some(until) => Timer::at(until).await,
                None => future::pending().await,
            };
            ControlEvent::Silence
        };
        let heard = async { ControlEvent::Heard(control.read(&mut chunk).await) };
        let idle = async {
            joins.stood_too_long().await;
            ControlEvent::Idle
        };
        let told = async {
            dialler.live.lets_go().await;
            ControlEvent::Told
        };
        // Who has not asked may be one who knows no answers.
        let failed = async {
            if !has_asked {
                return future::pending().await;
            }
            ControlEvent::Failed(dialler.live.next_failure().await)
        };
        let got = match heard.or(told).or(idle).or(silent).or(failed).await {
            ControlEvent::Failed(why) => {
                let line = ControlLine::failed(&why);
                match answer(&control, &mut outbound, line).await {
                    Ok(()) => continue,
                    Err(error) => break Err(BridgeError::Broken(error)),
                }
            }
            ControlEvent::Silence => {
                break Err(BridgeError::NoWord(many.first_word.unwrap_or_default()));
            }
            ControlEvent::Heard(Ok(0)) | ControlEvent::Idle => break Ok(()),
            ControlEvent::Told => {
                joins.let_go(FLUSH).await;
                break Ok(());
            }
            ControlEvent::Heard(Ok(got)) => &mut chunk[..got],
            ControlEvent::Heard(Err(error)) => break Err(BridgeError::Broken(error)),
            _ => continue,
        };
        if !has_spoken {
            (has_spoken, silence) = (true, None);
            dialler.live.met();
            out::note(BridgeNews::Spoken);
        }
        if let Some(cipher) = &mut cipher {
            cipher.apply(got);
        }
        lines.push(got);
        got.fill(0);
        match obey(&mut lines, &mut announced, &dialler, &service, &mut joins).await {
            Ok(None) => {}
            Ok(Some(asked)) => {
                has_asked = true;
                let line = ControlLine::heard(asked);
                if let Err(error) = answer(&control, &mut outbound, line).await {
                    break Err(BridgeError::Broken(error));
                }
            }
            Err(error) => break Err(error),
        }
    };
    let (carried, _) = joins.end().await;
    outcome.map(|()| carried)
}

/// The device's word on the control channel.
async fn answer(
    control: &TcpStream,
    outbound: &mut Option<Cipher>,
    line: String,
) -> io::Result<()> {
    let mut bytes = line.into_bytes();
    if let Some(cipher) = outbound {
        cipher.apply(&mut bytes);
    }
    write_within(control, &bytes).await
}

/// Everything the client has said so far, one line after the other. `announced` counts its connections. Returns what it
/// asked last.
async fn obey(
    lines: &mut ControlLines,
    announced: &mut u64,
    dialler: &Arc<Dialler>,
    service: &Endpoint,
    joins: &mut Joins,
) -> Result<Option<u64>, BridgeError> {
    let mut asked = None;
    let nonsense =
        |why: String| BridgeError::Broken(io::Error::new(io::ErrorKind::InvalidData, why));
    while let Some(line) = lines.pop().map_err(|error| nonsense(error.to_string()))? {
        let keys = match line {
            ControlLine::Connect(keys) => Some(keys),
            ControlLine::ConnectPlain => None,
            ControlLine::Heartbeat(n) => {
                log::debug!("heartbeat={n}");
                continue;
            }
            ControlLine::Ask(n) => {
                asked = Some(n);
                continue;
            }
            ControlLine::Unknown => {
                log::debug!("control=unknown_word");
                continue;
            }
        };
        *announced += 1;
        let number = *announced;
        if dialler.takes_numbers() {
            if joins.are_too_many() {
                log::warn!("refused connection={number} reason=too_many");
                continue;
            }
            let (dialler, service) = (dialler.clone(), service.clone());
            joins.start(|stop| connect_and_serve(stop, dialler, service, number, keys));
            continue;
        }
        let remote = dialler.connect_patiently(number).await?;
        if joins.are_too_many() {
            log::warn!("refused connection reason=too_many");
            joins.start(|stop| async move {
                part(remote).or(cut(stop)).await;
                Carried::default().into()
            });
            continue;
        }
        let (dialler, service) = (dialler.clone(), service.clone());
        joins.start(|stop| serve(stop, dialler, service, remote, keys));
    }
    Ok(asked)
}

/// One connection at the device that does not have to keep its turn. One that cannot be met costs only itself.
async fn connect_and_serve(
    stop: Receiver<()>,
    dialler: Arc<Dialler>,
    service: Endpoint,
    number: u64,
    keys: Option<SessionKeys>,
) -> ConnectionEnd {
    let meet = async { Some(dialler.connect_patiently(number).await) };
    let session_ends = async {
        cut(stop.clone()).await;
        None
    };
    match meet.or(session_ends).await {
        Some(Ok(remote)) => serve(stop, dialler, service, remote, keys).await,
        Some(Err(error)) => {
            log::warn!("connection={number} ended reason={:?}", error.to_string());
            Carried::default().into()
        }
        None => Carried::default().into(),
    }
}

/// One connection at the device that has met the client's.
async fn serve(
    stop: Receiver<()>,
    dialler: Arc<Dialler>,
    service: Endpoint,
    remote: TcpStream,
    keys: Option<SessionKeys>,
) -> ConnectionEnd {
    match dial_service(&service, dialler.source, DIAL).await {
        Ok(local) => cut_on(stop, dialler, local, remote, keys).await.into(),
        Err(error) => {
            log::info!("service={service} reason={:?}", error.to_string());
            dialler.live.target_failed(&error.to_string());
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

pub(super) async fn cut(stop: Receiver<()>) {
    let _ = stop.recv().await;
}

/// Carries one connection, unless the session ends before it does.
async fn cut_on(
    stop: Receiver<()>,
    dialler: Arc<Dialler>,
    local: TcpStream,
    remote: TcpStream,
    keys: Option<SessionKeys>,
) -> Carried {
    let ends = ConnectionEnds {
        local,
        remote,
        changes: keys.map(|keys| keys.changes(dialler.far.side)),
        greeting: Greeting::Any,
        tell: Tell::Nobody, // the control socket tells
    };
    carry(&dialler, ends, cut(stop))
        .await
        .unwrap_or_else(|error| {
            log::debug!("connection ended reason={:?}", error.to_string());
            Carried::default()
        })
}

/// What happens next in a session.
enum ControlEvent {
    /// The other end closed its control socket, or broke it.
    Ended(io::Result<()>),
    Heard(io::Result<usize>),
    Visitor(TcpStream),
    Beat,
    Idle,
    /// Somebody on this machine ends the session.
    Told,
    /// No word has come.
    Silence,
    /// A target could not be had: the client is to be told.
    Failed(String),
}

/// How long the device has not answered.
#[derive(Default)]
struct Silence {
    /// Since the first question that was not.
    since: Option<Instant>,
    is_told: bool,
}

/// The ciphers of a control channel, if the session has keys.
fn inbound_outbound(keys: Option<&SessionKeys>, side: Side) -> (Option<Cipher>, Option<Cipher>) {
    let ciphers = keys.map(|keys| keys.ciphers(side));
    ciphers
        .map(|Ciphers { inbound, outbound }| (inbound, outbound))
        .unzip()
}

/// The client's control socket.
struct Announcer {
    socket: TcpStream,
    cipher: Option<Cipher>,
    /// Whether each connection has a key per direction; `None`: it has none.
    is_twin: Option<bool>,
    many: Many,
    /// Number of the latest connection.
    announced: u64,
    beats: u64,
    last_beat: Instant,
    silence: Mutex<Silence>,
    said: Mutex<Said>,
    live: Arc<Live>,
    _watched: Watched,
}

/// What the device says there.
struct Said {
    cipher: Option<Cipher>,
    lines: DeviceLines,
}

impl Announcer {
    /// With a control socket of its own.
    async fn on(
        dialler: &Dialler,
        keys: Option<&SessionKeys>,
        many: Many,
    ) -> Result<Self, BridgeError> {
        let socket = dialler.connect_as(CONTROL, 0).await?;
        let (inbound, outbound) = inbound_outbound(keys, dialler.far.side);
        let said = Said {
            cipher: inbound,
            lines: DeviceLines::default(),
        };
        Ok(Self {
            _watched: watch(&socket, Tell::Aloud),
            socket,
            cipher: outbound,
            is_twin: keys.map(SessionKeys::are_twin),
            many,
            announced: CONTROL,
            beats: 0,
            last_beat: Instant::now(),
            silence: Mutex::default(),
            said: Mutex::new(said),
            live: dialler.live.clone(),
        })
    }

    /// Devices say here that they have heard us, and any byte says that; and why a target could not be had.
    async fn ended(&self) -> io::Result<()> {
        let mut socket = &self.socket;
        let mut chunk = [0; READ];
        loop {
            let got = socket.read(&mut chunk).await?;
            if got == 0 {
                return Ok(());
            }
            self.hear(&mut chunk[..got]);
            let before = std::mem::take(&mut *self.silent());
            if before.is_told {
                log::warn!("rendezvous=carries_again");
            }
        }
    }

    fn hear(&self, bytes: &mut [u8]) {
        if self.many.questions.is_none() {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cipher) = &mut said.cipher {
            cipher.apply(bytes);
        }
        for why in said.lines.push(bytes) {
            self.live.target_failed(&why);
        }
    }

    fn silent(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the silence is to be told, or has been too long.
    async fn is_silent(&self) -> ControlEvent {
        let due = self.many.questions.and_then(|questions| {
            let silence = self.silent();
            let patience = if silence.is_told {
                questions.give_up
            } else {
                questions.tell
            };
            Some(silence.since? + patience)
        });
        match due {
            Some(due) => Timer::at(due).await,
            None => future::pending().await,
        };
        ControlEvent::Silence
    }

    /// Tells it once; the second time, that it is the session's end.
    fn tell_silence(&self) -> Option<BridgeError> {
        if self.is_over() {
            return Some(BridgeError::Silent(self.silence()));
        }
        let mut silence = self.silent();
        let due = self.many.questions.map(|questions| questions.tell);
        let is_due = silence
            .since
            .is_some_and(|since| Some(since.elapsed()) >= due);
        if is_due && !std::mem::replace(&mut silence.is_told, true) {
            log::warn!(
                "rendezvous=carries_nothing hint=\"is it still up, and the device? the session waits for it, up to 5 minutes\""
            );
        }
        None
    }

    fn silence(&self) -> Duration {
        let since = self.silent().since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn is_over(&self) -> bool {
        let questions = self.many.questions;
        questions.is_some_and(|questions| self.silence() >= questions.give_up)
    }

    fn moves_on(&self) -> bool {
        let questions = self.many.questions;
        questions.is_some_and(|questions| questions.moves_on) && self.silent().is_told
    }

    /// `busy`: there are connections, which wait for nothing if the way is not open.
    async fn beat_is_due(&self, busy: bool) -> ControlEvent {
        let questions = self.many.questions.filter(|_| busy);
        let every = questions.map(|questions| questions.every);
        match every.or(self.many.heartbeat) {
            // The first one at once: a device does not wait for ever for somebody who has said nothing yet.
            Some(_) if self.beats == 0 => return ControlEvent::Beat,
            Some(every) => Timer::at(self.last_beat + every).await,
            None => future::pending().await,
        };
        ControlEvent::Beat
    }

    async fn beat(&mut self) -> io::Result<()> {
        (self.beats, self.last_beat) = (self.beats + 1, Instant::now());
        if self.many.questions.is_none() {
            return self.say(&ControlLine::Heartbeat(self.beats)).await;
        }
        self.silent().since.get_or_insert_with(Instant::now);
        self.say(&ControlLine::Ask(self.beats)).await
    }

    /// Brings a socket to the rendezvous whose place in the order counts; `None` where that cannot be done.
    async fn connect_in_turn(
        &self,
        dialler: &Dialler,
        number: u64,
    ) -> Result<Option<TcpStream>, BridgeError> {
        let met = async { Ok(dialler.connect_patiently(number).await) };
        let session_ends = async { Err(gone(self.ended().await)) };
        Ok(match met.or(session_ends).await? {
            Ok(remote) => Some(remote),
            Err(error) => {
                log::warn!("connection={number} ended reason={:?}", error.to_string());
                None
            }
        })
    }

    /// Tells the device of one more connection; where their order counts, brings its socket to the rendezvous
    /// before. `None`: that could not be done, and nobody has been told.
    async fn announce(&mut self, dialler: &Dialler) -> Result<Option<Announced>, BridgeError> {
        let number = self.announced + 1;
        let remote = if dialler.takes_numbers() {
            None
        } else {
            match self.connect_in_turn(dialler, number).await? {
                None => return Ok(None),
                met => met,
            }
        };
        self.announced = number;
        let (line, keys) = match self.is_twin {
            None => (ControlLine::ConnectPlain, None),
            Some(is_twin) => {
                let keys = SessionKeys::random(is_twin)
                    .map_err(|error| BridgeError::Broken(io::Error::other(error)))?;
                (ControlLine::Connect(keys.clone()), Some(keys))
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
        write_within(&self.socket, &bytes).await
    }
}

async fn write_within(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let sent = timeout(DIAL, socket.write_all(bytes)).await;
    sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Between two looks at a silence that may be over.
const BREATH: Duration = Duration::from_secs(1);
/// Number of the control sockets.
pub(super) const CONTROL: u64 = 0;
/// One read of the control channel.
const READ: usize = 1024;
#[cfg(test)]
mod tests;
