//! Many connections of one session as streams on one connection to the rendezvous, where both ends seal records.
//!
//! ```text
//!   client                            rendezvous                           device
//!   a local program connects ─┐                                        ┌─ the service is dialled
//!   another one ──────────────┼═ records ═══ A ══ B ═══ records ═══════┼─ and again
//!        each its own stream ─┘                                        └─
//! ```
//! Both ends have the session's keys already, so the first words of a connection travel with its OPEN. What cannot be opened
//! is told with a reason. The session ends when the client ends it, when there has been no connection for so long, or with
//! the connection to the rendezvous; without an END from the other side that is an error.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use async_io::Timer;
use async_std::{channel::Receiver, future::timeout, net::TcpStream, task};
use futures_lite::{FutureExt, future};

use super::{
    carry::{FLUSH, let_go},
    dialler::{DIAL, Dialler},
    error::BridgeError,
    joins::{ConnectionEnd, Joins},
    many::{CONTROL, Many, Questions, cut},
    news::BridgeNews,
    visitors::Visitors,
};
use crate::{
    net::{
        dial::dial_service,
        stall::{Tell, Watched, watch},
    },
    pipe::{
        cipher::Side,
        frame::Reason,
        join::{Carried, End, JoinFailure, reset},
        record::RecordKeys,
        streams::{Event, Inlet, Streams, StreamsError, why_reset},
    },
    sys::{out, stdio},
    text::endpoint::Endpoint,
};

/// The connection that carries all streams.
struct Carrier {
    streams: Arc<Streams>,
    inlet: Inlet,
    _watched: Watched,
}

/// What happens next in a session.
enum Happened {
    Heard(Result<Event, StreamsError>),
    Visitor(TcpStream),
    Idle,
    /// Somebody on this machine ends the session.
    Told,
    /// A sign of life is due.
    Ask,
    /// Nothing has been heard for too long.
    Silence,
}

impl Carrier {
    async fn new(
        dialler: &Dialler,
        keys: &RecordKeys,
        may_open: bool,
    ) -> Result<Self, BridgeError> {
        let socket = dialler.connect_as(CONTROL, 0).await?;
        let (sealer, opener) = keys.ends(dialler.far.side);
        Ok(Self {
            _watched: watch(&socket, Tell::Aloud),
            streams: Streams::new(socket, sealer, may_open),
            inlet: Inlet::new(opener),
        })
    }

    /// Serves all streams until something happens. May be dropped and called again.
    async fn next(&mut self) -> Result<Event, StreamsError> {
        let streams = &self.streams;
        self.inlet.next(streams).or(streams.write()).await
    }

    /// Serves all streams until the connection is over, and goes on waiting.
    async fn serve<T>(&mut self) -> T {
        while let Ok(Event::Opened(_) | Event::Met) = self.next().await {}
        future::pending().await
    }

    /// Says that it is over, and waits until the other end has said so, too. A session that broke off is not ended: so the
    /// other end hears that it was cut.
    async fn end<T>(mut self, outcome: &Result<T, BridgeError>) {
        if matches!(outcome, Err(BridgeError::Broken(_))) {
            return;
        }
        let streams = self.streams.clone();
        let heard = async {
            while let Ok(Event::Opened(_) | Event::Met) = self.inlet.next(&streams).await {}
        };
        let _ = timeout(FLUSH, future::zip(streams.finish(), heard)).await;
    }
}

/// The client's end.
///
/// # Errors
/// See [`BridgeError`]. A visitor that came too late is put back.
pub(super) async fn client(
    dialler: Arc<Dialler>,
    keys: &RecordKeys,
    visitors: &mut Visitors,
    many: Many,
    idle: Duration,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let mut carrier = Carrier::new(&dialler, keys, true).await?;
    ready();
    let mut joins = Joins::new(idle);
    let mut silence = Silence::of(many.questions);
    let outcome = loop {
        let visitor = async { Happened::Visitor(visitors.next().await) };
        let due = silence.next(joins.live > 0);
        match next(&mut carrier, &dialler, &mut joins, due.or(visitor)).await {
            Happened::Heard(Ok(Event::Met)) => dialler.live.met(),
            Happened::Heard(Ok(Event::Opened(_))) => {}
            Happened::Heard(Ok(Event::Ended)) if joins.stood_idle(many.stands) => break Ok(()),
            Happened::Heard(Ok(Event::Ended)) => break Err(BridgeError::Gone),
            Happened::Heard(Err(error)) => break Err(broken(error)),
            Happened::Idle => break Ok(()),
            Happened::Told => {
                joins.let_go(FLUSH).or(carrier.serve()).await;
                break Ok(());
            }
            Happened::Ask => silence.ask(&carrier.streams),
            Happened::Silence => {
                if let Some(error) = silence.tell(&carrier.streams) {
                    break Err(error);
                }
            }
            Happened::Visitor(visitor) if silence.moves_on(&carrier.streams) => {
                visitors.put_back(visitor);
                task::spawn(linger(carrier, joins, silence));
                return Err(BridgeError::Silent(silence.lasts()));
            }
            Happened::Visitor(visitor) => match open(&carrier.streams, &joins, &visitor) {
                Some(id) => {
                    visitors.complained = false;
                    let (dialler, streams) = (dialler.clone(), carrier.streams.clone());
                    joins.start(|stop| carry(stop, dialler, streams, id, visitor));
                }
                None => {
                    reset(&visitor);
                    visitors.complain(&format!("at most {} connections at once", joins.most));
                }
            },
        }
    };
    carrier.end(&outcome).await;
    let (carried, _) = joins.end().await;
    outcome.map(|()| carried)
}

fn open(streams: &Streams, joins: &Joins, visitor: &TcpStream) -> Option<u32> {
    if joins.are_too_many() {
        return None;
    }
    streams.open(Some(visitor.clone()))
}

/// What stands may come back to life. It ends with the session.
async fn linger(mut carrier: Carrier, mut joins: Joins, mut silence: Silence) {
    let ended = async { while let Ok(Event::Opened(_) | Event::Met) = carrier.next().await {} };
    let give_up = silence.is_over();
    joins.stood_too_long().or(give_up).or(ended).await;
    carrier.end(&Ok(())).await;
    joins.end().await;
}

/// stdin and stdout as the only connection of the client's end.
///
/// # Errors
/// See [`BridgeError`].
pub(super) async fn on_stdio(
    dialler: Dialler,
    keys: &RecordKeys,
    many: Many,
) -> Result<Carried, BridgeError> {
    let (input, output) = stdio::stdio().map_err(BridgeError::Accept)?;
    let mut carrier = Carrier::new(&dialler, keys, true).await?;
    let streams = carrier.streams.clone();
    let id = streams.open(None).ok_or(BridgeError::Gone)?;
    let live = &dialler.live;
    let _standing = live.stands();
    let work = async {
        let carried = streams.carry_ends(id, input, output, &live.meter).await;
        carried.map_err(|failure| {
            told_of(&dialler, &failure);
            BridgeError::Broken(failure.error)
        })
    };
    let mut silence = Silence::of(many.questions);
    let lost = async {
        loop {
            let heard = async { Happened::Heard(carrier.next().await) };
            match heard.or(silence.next(true)).await {
                Happened::Heard(Ok(Event::Ended)) => break Err(BridgeError::Gone),
                Happened::Heard(Err(error)) => break Err(broken(error)),
                Happened::Ask => silence.ask(&streams),
                Happened::Silence => {
                    if let Some(error) = silence.tell(&streams) {
                        break Err(error);
                    }
                }
                _ => {}
            }
        }
    };
    let outcome = work.or(lost).await;
    carrier.end(&outcome).await;
    outcome
}

/// The device's end.
///
/// # Errors
/// See [`BridgeError`].
pub(super) async fn device(
    dialler: Arc<Dialler>,
    keys: &RecordKeys,
    service: Endpoint,
    many: Many,
    idle: Duration,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let mut carrier = Carrier::new(&dialler, keys, false).await?;
    ready();
    let mut joins = Joins::new(idle);
    let mut first_word = many.first_word.map(|time| Instant::now() + time);
    let outcome = loop {
        let no_word = async {
            match first_word {
                Some(until) => Timer::at(until).await,
                None => future::pending().await,
            };
            Happened::Silence
        };
        match next(&mut carrier, &dialler, &mut joins, no_word).await {
            Happened::Heard(Ok(Event::Met)) => {
                first_word = None;
                dialler.live.met();
                out::note(BridgeNews::Spoken);
            }
            Happened::Heard(Ok(Event::Opened(id))) if joins.are_too_many() => {
                log::warn!("refused connection={id} reason=too_many");
                carrier.streams.refuse(id, Reason::TooMany);
            }
            Happened::Heard(Ok(Event::Opened(id))) => {
                let (dialler, streams) = (dialler.clone(), carrier.streams.clone());
                let service = service.clone();
                joins.start(|stop| serve(stop, dialler, streams, id, service));
            }
            Happened::Idle => break Ok(()),
            Happened::Heard(Ok(Event::Ended)) => {
                // What the client has said to the end is still delivered.
                joins.let_go(FLUSH).await;
                break Ok(());
            }
            Happened::Heard(Err(error)) => break Err(broken(error)),
            Happened::Told => {
                joins.let_go(FLUSH).or(carrier.serve()).await;
                break Ok(());
            }
            Happened::Silence => {
                break Err(BridgeError::NoWord(many.first_word.unwrap_or_default()));
            }
            Happened::Ask | Happened::Visitor(_) => {}
        }
    };
    carrier.end(&outcome).await;
    let (carried, _) = joins.end().await;
    outcome.map(|()| carried)
}

async fn next(
    carrier: &mut Carrier,
    dialler: &Dialler,
    joins: &mut Joins,
    other: impl Future<Output = Happened>,
) -> Happened {
    let idle = async {
        joins.stood_too_long().await;
        Happened::Idle
    };
    let told = async {
        dialler.live.lets_go().await;
        Happened::Told
    };
    let heard = async { Happened::Heard(carrier.next().await) };
    heard.or(told).or(idle).or(other).await
}

/// One connection, whose stream is open.
async fn carry(
    stop: Receiver<()>,
    dialler: Arc<Dialler>,
    streams: Arc<Streams>,
    id: u32,
    local: TcpStream,
) -> ConnectionEnd {
    let live = &dialler.live;
    let _standing = live.stands();
    let work = async {
        let carried = streams.carry(id, &local, &live.meter);
        Some(carried.or(let_go(live, [&local])).await)
    };
    let session_ends = async {
        cut(stop).await;
        None
    };
    let carried = match work.or(session_ends).await {
        Some(Ok(carried)) => return carried.into(),
        Some(Err(failure)) => {
            if !live.was_told_to_leave() {
                told_of(&dialler, &failure);
            }
            Carried::default()
        }
        None => Carried::default(),
    };
    reset(&local);
    carried.into()
}

/// One connection at the device.
async fn serve(
    stop: Receiver<()>,
    dialler: Arc<Dialler>,
    streams: Arc<Streams>,
    id: u32,
    service: Endpoint,
) -> ConnectionEnd {
    match dial_service(&service, dialler.source, DIAL).await {
        Ok(local) => carry(stop, dialler, streams, id, local).await,
        Err(error) => {
            log::info!("service={service} reason={:?}", error.to_string());
            dialler.live.target_failed(&error.to_string());
            streams.refuse(id, reason(&error));
            Carried::default().into()
        }
    }
}

/// A connection that failed for its target: by the other end's word at the client, as it was seen at the device.
fn told_of(dialler: &Dialler, failure: &JoinFailure) {
    let live = &dialler.live;
    match (dialler.far.side, why_reset(failure)) {
        (Side::Client, Some(why)) if why != Reason::SessionEnds => {
            live.target_failed(&why.to_string());
        }
        (Side::Device, None) if failure.at == Some(End::Near) => {
            live.target_failed(&failure.error.to_string());
        }
        _ => {}
    }
}

fn reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::Refused,
        io::ErrorKind::NotFound => Reason::Unresolved,
        io::ErrorKind::TimedOut => Reason::TimedOut,
        _ => Reason::Unreachable,
    }
}

fn broken(error: StreamsError) -> BridgeError {
    BridgeError::Broken(match error {
        StreamsError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    })
}

/// Asks for signs of life while there are connections, and finds out that none come.
#[derive(Clone, Copy)]
struct Silence {
    questions: Option<Questions>,
    asked: Instant,
    /// When the first question was asked that has no answer.
    since: Option<Instant>,
    is_told: bool,
}

impl Silence {
    fn of(questions: Option<Questions>) -> Self {
        Self {
            questions,
            asked: Instant::now(),
            since: None,
            is_told: false,
        }
    }

    /// What is due next; nothing while nobody waits for anything.
    async fn next(&mut self, busy: bool) -> Happened {
        let Some(questions) = self.questions.filter(|_| busy) else {
            return future::pending().await;
        };
        let silent = async {
            match (self.since, self.is_told) {
                (None, _) => future::pending().await,
                (Some(since), false) => Timer::at(since + questions.tell).await,
                (Some(since), true) => Timer::at(since + questions.give_up).await,
            };
            Happened::Silence
        };
        let ask = async {
            Timer::at(self.asked + questions.every).await;
            Happened::Ask
        };
        silent.or(ask).await
    }

    fn ask(&mut self, streams: &Streams) {
        self.hear(streams);
        self.asked = Instant::now();
        self.since.get_or_insert(self.asked);
        streams.ping();
    }

    /// Whatever has come since is an answer.
    fn hear(&mut self, streams: &Streams) {
        if self.since.is_some_and(|since| streams.heard() >= since) {
            self.since = None;
            if std::mem::take(&mut self.is_told) {
                log::warn!("rendezvous=carries_again");
            }
        }
    }

    fn lasts(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Tells it once; the second time, that it is the session's end.
    fn tell(&mut self, streams: &Streams) -> Option<BridgeError> {
        self.hear(streams);
        let (questions, silence) = (self.questions?, self.lasts());
        if silence >= questions.give_up {
            return Some(BridgeError::Silent(silence));
        }
        if silence >= questions.tell && !std::mem::replace(&mut self.is_told, true) {
            log::warn!(
                "rendezvous=carries_nothing hint=\"is it still up, and the device? the session waits for it, up to 5 minutes\""
            );
        }
        None
    }

    /// Whether who comes now is the next session's.
    fn moves_on(&mut self, streams: &Streams) -> bool {
        self.hear(streams);
        self.is_told && self.questions.is_some_and(|questions| questions.moves_on)
    }

    async fn is_over(&mut self) {
        match (self.since, self.questions) {
            (Some(since), Some(questions)) => drop(Timer::at(since + questions.give_up).await),
            _ => future::pending().await,
        }
    }
}
