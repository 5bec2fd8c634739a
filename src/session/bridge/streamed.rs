//! Many connections of one session as streams on one connection to the rendezvous.
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
use async_std::{channel::Receiver, future::timeout, net::TcpStream};
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
        frame::Reason,
        join::{Carried, End, reset},
        record::RecordKeys,
        streams::{Event, Inlet, Streams, StreamsError},
    },
    sys::out,
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
    async fn new(dialler: &Dialler, keys: &RecordKeys, may_open: bool) -> Result<Self, BridgeError> {
        let socket = dialler.connect_as(CONTROL, 0).await?;
        let (sealer, opener) = keys.ends(dialler.far.side);
        Ok(Self {
            _watched: watch(&socket, Tell::Aloud),
            streams: Streams::new(socket, sealer, may_open),
            inlet: Inlet::new(opener),
        })
    }

    /// Serves all streams until something happens.
    async fn next(&mut self) -> Happened {
        let streams = &self.streams;
        let writes = async {
            Happened::Heard(match streams.write().await {
                Ok(()) => Ok(Event::Ended),
                Err(error) => Err(error),
            })
        };
        let reads = async { Happened::Heard(self.inlet.next(streams).await) };
        writes.or(reads).await
    }

    /// Says that it is over, and waits until that is on its way.
    async fn end(mut self) {
        self.streams.end();
        let written = async {
            while !self.streams.is_written() {
                let _ = future::poll_once(self.next()).await;
                Timer::after(BREATH).await;
            }
        };
        let _ = timeout(FLUSH, written).await;
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
    let mut silence = SilenceWatch::new(many.questions);
    let outcome = loop {
        let visitor = async { Happened::Visitor(visitors.next().await) };
        let due = silence.next(&carrier.streams, joins.live > 0);
        match next(&mut carrier, &dialler, &mut joins, due.or(visitor)).await {
            Happened::Heard(Ok(Event::Opened(_))) => {}
            Happened::Heard(Ok(Event::Ended)) if joins.stood_idle(many.stands) => break Ok(()),
            Happened::Heard(Ok(Event::Ended)) => break Err(BridgeError::Gone),
            Happened::Heard(Err(error)) => break Err(broken(error)),
            Happened::Idle => break Ok(()),
            Happened::Told => {
                joins.let_go(FLUSH).await;
                break Ok(());
            }
            Happened::Ask => carrier.streams.ping(),
            Happened::Silence => {
                if let Some(error) = silence.tell(&carrier.streams) {
                    break Err(error);
                }
            }
            Happened::Visitor(visitor) => {
                let opened = if joins.are_too_many() {
                    None
                } else {
                    carrier.streams.open(visitor.clone())
                };
                match opened {
                    None => {
                        reset(&visitor);
                        visitors.complain(&format!("at most {} connections at once", joins.most));
                    }
                    Some(id) => {
                        visitors.complained = false;
                        let (dialler, streams) = (dialler.clone(), carrier.streams.clone());
                        joins.start(|stop| carry(stop, dialler, streams, id, visitor));
                    }
                }
            }
        }
    };
    carrier.end().await;
    let (carried, _) = joins.end().await;
    outcome.map(|()| carried)
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
        let happened = next(&mut carrier, &dialler, &mut joins, no_word).await;
        match happened {
            Happened::Heard(Ok(Event::Opened(id))) => {
                if first_word.take().is_some() {
                    dialler.live.met();
                    out::note(BridgeNews::Spoken);
                }
                if joins.are_too_many() {
                    log::warn!("refused connection={id} reason=too_many");
                    carrier.streams.refuse(id, Reason::TooMany);
                    continue;
                }
                let (dialler, streams) = (dialler.clone(), carrier.streams.clone());
                let service = service.clone();
                joins.start(|stop| serve(stop, dialler, streams, id, service));
            }
            Happened::Heard(Ok(Event::Ended)) | Happened::Idle => break Ok(()),
            Happened::Heard(Err(error)) => break Err(broken(error)),
            Happened::Told => {
                joins.let_go(FLUSH).await;
                break Ok(());
            }
            Happened::Silence => break Err(BridgeError::NoWord(many.first_word.unwrap_or_default())),
            Happened::Ask | Happened::Visitor(_) => {}
        }
    };
    carrier.end().await;
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
    carrier.next().or(told).or(idle).or(other).await
}

/// One connection at the client.
async fn carry(
    stop: Receiver<()>,
    dialler: Arc<Dialler>,
    streams: Arc<Streams>,
    id: u32,
    local: TcpStream,
) -> ConnectionEnd {
    let live = &dialler.live;
    let work = async {
        let _standing = live.stands();
        let carried = streams.carry(id, local.clone(), Some(&live.meter));
        Some(carried.or(let_go(live, [&local])).await)
    };
    let session_ends = async {
        cut(stop).await;
        None
    };
    match work.or(session_ends).await {
        Some(Ok(carried)) => carried.into(),
        Some(Err(failure)) => {
            if let Some(reason) = streams.reason(&failure) {
                live.far_failed(reason);
            } else if failure.at == Some(End::Near) && dialler.serves_a_target() {
                live.target_failed(&failure.error);
            }
            reset(&local);
            Carried::default().into()
        }
        None => {
            reset(&local);
            Carried::default().into()
        }
    }
}

/// One connection at the device.
async fn serve(
    stop: Receiver<()>,
    dialler: Arc<Dialler>,
    streams: Arc<Streams>,
    id: u32,
    service: Endpoint,
) -> ConnectionEnd {
    match dial_service(&service, DIAL).await {
        Ok(local) => carry(stop, dialler, streams, id, local).await,
        Err(error) => {
            log::info!("service={service} reason={:?}", error.to_string());
            dialler.live.target_failed(&error);
            streams.refuse(id, reason(&error));
            Carried::default().into()
        }
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
struct SilenceWatch {
    questions: Option<Questions>,
    asked: Instant,
    is_told: bool,
}

impl SilenceWatch {
    fn new(questions: Option<Questions>) -> Self {
        Self {
            questions,
            asked: Instant::now(),
            is_told: false,
        }
    }

    async fn next(&mut self, streams: &Streams, busy: bool) -> Happened {
        let Some(questions) = self.questions.filter(|_| busy) else {
            return future::pending().await;
        };
        let patience = if self.is_told { questions.give_up } else { questions.tell };
        let silent = async {
            Timer::at(streams.heard() + patience).await;
            Happened::Silence
        };
        let ask = async {
            Timer::at(self.asked + questions.every).await;
            Happened::Ask
        };
        let due = silent.or(ask).await;
        self.asked = Instant::now();
        due
    }

    /// Tells it once; the second time, that it is the session's end.
    fn tell(&mut self, streams: &Streams) -> Option<BridgeError> {
        let questions = self.questions?;
        let silence = streams.heard().elapsed();
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
}

/// Between two looks at what is still to be written.
const BREATH: Duration = Duration::from_millis(10);
