//! Many streams on one connection between the two ends of a session.
//!
//! ```text
//!   local program ─▶ Outgoing ─┐ frames, sealed       ┌─▶ Inlet ─ opened ─▶ held ─▶ Incoming ─▶ local program
//!   local program ─▶ Outgoing ─┼─▶ Outlet ══ TCP ══▶ ─┤                         (or at once, where it takes it)
//!        CREDIT, PONG, RESET ──┘                      └─▶ CREDIT, PONG, RESET are owed: never waited for
//! ```
//! * Reading never waits for writing. What has to be said in answer is owed: one number per stream, one pong, and of resets
//!   at most [`MAX_OWED`], after which the other end is no peer.
//! * What comes is taken as far as there is credit ([`credit`](super::credit)), and held for its stream alone; a local program
//!   that takes nothing stops only its own stream.
//! * A stream that has sent little lately goes ahead of those that send much. Those take turns, and never put more than
//!   [`BATCH`] in front of the next.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use async_std::net::TcpStream;
use futures_lite::{AsyncRead, AsyncWrite};
use std::future::poll_fn;

use super::{
    copy::{CHUNK, give_buffer, take_buffer},
    credit::{Credit, Growth, Window},
    drive::{Carried, HALF_CLOSED, JoinFailure, Meter, Pump, PumpError, TURNS, closed, drive, give_way},
    frame::{BadFrame, Frame, LAST_STREAM, MAX_DATA, Reason, take},
    half::HalfClose,
    record::{Opener, RecordError, Sealer},
};

/// Streams of one session at a time.
pub const MAX_STREAMS: usize = 1000;
/// Resets that may be owed.
pub const MAX_OWED: usize = 1024;
/// Most bytes that one stream sends in one turn.
pub const BATCH: usize = CHUNK;
/// A stream that has sent no more than so much in [`LATELY`] goes ahead.
const LITTLE: usize = 4 * 1024;
const LATELY: Duration = Duration::from_millis(100);
/// What is sealed and not yet written when somebody with little to say has to wait, too.
const FULL: usize = 2 * BATCH;
/// Between two looks of a stream at what was carried past it.
const LOOK: Duration = Duration::from_millis(100);

/// Why a session of streams is over.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    /// The connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came was not what the other end sent.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The other end keeps no rules.
    #[error(transparent)]
    Frame(#[from] BadFrame),
}

/// What the other end wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new stream.
    Opened(u32),
    /// No more.
    Ended,
}

/// All streams of one session.
pub struct Streams {
    socket: TcpStream,
    state: Mutex<State>,
    may_open: bool,
}

struct State {
    sealer: Option<Sealer>,
    /// Sealed; written up to `at`.
    out: Vec<u8>,
    at: usize,
    /// [`Streams::write`] is at it; nobody else writes.
    writing: bool,
    writer: Option<Waker>,
    urgent: Vec<Waker>,
    bulk: VecDeque<(u32, Waker)>,
    streams: HashMap<u32, Stream>,
    latest: u32,
    growth: Growth,
    owed: Owed,
    ping: Option<(u32, Instant)>,
    heard: Instant,
    is_over: bool,
}

#[derive(Default)]
struct Owed {
    pong: Option<u32>,
    ping: Option<u32>,
    /// Streams that owe credit.
    credits: Vec<u32>,
    resets: Vec<(u32, Reason)>,
}

struct Stream {
    local: Option<TcpStream>,
    credit: Credit,
    wants_credit: Option<Waker>,
    window: Window,
    owed: u32,
    held: Vec<u8>,
    at: usize,
    wants_bytes: Option<Waker>,
    heard_end: bool,
    reset: Option<Reason>,
    /// Bytes the local program has taken.
    given: u64,
    looked: Instant,
    /// Sent since.
    sent: (usize, Instant),
}

impl Stream {
    fn new(local: Option<TcpStream>, now: Instant) -> Self {
        Self {
            local,
            credit: Credit::default(),
            wants_credit: None,
            window: Window::new(now),
            owed: 0,
            held: Vec::new(),
            at: 0,
            wants_bytes: None,
            heard_end: false,
            reset: None,
            given: 0,
            looked: now,
            sent: (0, now),
        }
    }

    fn wake(&mut self) {
        for waker in [self.wants_credit.take(), self.wants_bytes.take()] {
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether this goes ahead of others.
    fn is_urgent(&self, bytes: usize, now: Instant) -> bool {
        let (sent, since) = self.sent;
        bytes + if now.duration_since(since) < LATELY { sent } else { 0 } <= LITTLE
    }

    fn has_sent(&mut self, bytes: usize, now: Instant) {
        let (sent, since) = self.sent;
        self.sent = if now.duration_since(since) < LATELY { (sent + bytes, since) } else { (bytes, now) };
        self.credit.spend(bytes);
    }

    /// Gives what is held to the local program. `Ready` when nothing is held any more; returns what it took.
    fn poll_give(&mut self, cx: &mut Context<'_>) -> (usize, Poll<io::Result<()>>) {
        let mut took = 0;
        let Some(mut local) = self.local.as_ref() else {
            return (0, Poll::Pending);
        };
        while self.at < self.held.len() {
            match Pin::new(&mut local).poll_write(cx, &self.held[self.at..]) {
                Poll::Ready(Ok(0)) => return (took, Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(wrote)) => {
                    self.at += wrote;
                    took += wrote;
                }
                Poll::Ready(Err(error)) => return (took, Poll::Ready(Err(error))),
                Poll::Pending => return (took, Poll::Pending),
            }
        }
        (self.held, self.at) = (Vec::new(), 0);
        (took, Poll::Ready(Ok(())))
    }
}

impl State {
    fn backlog(&self) -> usize {
        self.out.len() - self.at
    }

    /// What the local program took makes credit.
    fn took(&mut self, id: u32, bytes: usize, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.given += bytes as u64;
        if let Some(credit) = stream.window.eat(bytes, now, &mut self.growth) {
            if stream.owed == 0 {
                self.owed.credits.push(id);
            }
            stream.owed += credit;
        }
    }

    /// Seals what is owed, where there is room for it.
    fn settle(&mut self, now: Instant) {
        let Some(sealer) = &mut self.sealer else { return };
        if self.out.len() - self.at >= FULL {
            return;
        }
        let mut frames = Vec::new();
        let mut say = |frame: Frame<'_>| frames.extend_from_slice(&frame.header());
        for id in self.owed.credits.drain(..) {
            if let Some(stream) = self.streams.get_mut(&id) {
                say(Frame::Credit(id, std::mem::take(&mut stream.owed)));
            }
        }
        for (id, reason) in self.owed.resets.drain(..) {
            say(Frame::Reset(id, reason));
        }
        self.owed.pong.take().into_iter().for_each(|n| say(Frame::Pong(n)));
        self.owed.ping.take().into_iter().for_each(|n| say(Frame::Ping(n)));
        if !frames.is_empty() {
            sealer.seal(&frames, now, &mut self.out);
        }
    }

    /// What stood in line, now that there is room.
    fn wake_next(&mut self) {
        if self.backlog() < FULL {
            self.urgent.drain(..).for_each(Waker::wake);
        }
        if self.backlog() == 0 && let Some((_, waker)) = self.bulk.pop_front() {
            waker.wake();
        }
    }

    /// Writes what is sealed. `Ready` when all of it is written.
    fn poll_write(&mut self, mut socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.out.len() {
            let wrote = ready!(Pin::new(&mut socket).poll_write(cx, &self.out[self.at..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += wrote;
        }
        self.out.clear();
        if self.out.capacity() > LITTLE {
            self.out = Vec::new();
        }
        self.at = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes at once what can be; the rest is the writer's.
    fn push(&mut self, socket: &TcpStream) {
        if self.writing || self.backlog() == 0 {
            return;
        }
        let nobody = &mut Context::from_waker(Waker::noop());
        if matches!(self.poll_write(socket, nobody), Poll::Ready(Ok(()))) {
            self.wake_next();
        } else {
            self.writing = true;
            self.writer.take().into_iter().for_each(Waker::wake);
        }
    }

    fn remove(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            stream.window.give_back(&mut self.growth);
        }
        self.bulk.retain(|(other, _)| *other != id);
        self.wake_next();
    }

    fn end_all(&mut self, reason: Reason) {
        self.is_over = true;
        for stream in self.streams.values_mut() {
            stream.reset.get_or_insert(reason);
            stream.wake();
        }
        self.urgent.drain(..).for_each(Waker::wake);
        self.bulk.drain(..).for_each(|(_, waker)| waker.wake());
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

impl Streams {
    /// On a connection that nobody else writes to. Only the client opens streams.
    pub fn new(socket: TcpStream, sealer: Sealer, may_open: bool) -> Arc<Self> {
        let now = Instant::now();
        let streams = Self {
            socket,
            may_open,
            state: Mutex::new(State {
                sealer: Some(sealer),
                out: Vec::new(),
                at: 0,
                writing: false,
                writer: None,
                urgent: Vec::new(),
                bulk: VecDeque::new(),
                streams: HashMap::new(),
                latest: 0,
                growth: Growth::default(),
                owed: Owed::default(),
                ping: None,
                heard: now,
                is_over: false,
            }),
        };
        streams.say(|state, now| {
            if let Some(sealer) = &mut state.sealer {
                sealer.hello(now, &mut state.out);
            }
        });
        Arc::new(streams)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say<T>(&self, what: impl FnOnce(&mut State, Instant) -> T) -> T {
        let (mut state, now) = (self.state(), Instant::now());
        let said = what(&mut state, now);
        state.settle(now);
        state.push(&self.socket);
        said
    }

    /// Opens a stream for a local program. `None` when there may be no more.
    pub fn open(&self, local: TcpStream) -> Option<u32> {
        self.say(|state, now| {
            let id = state.latest + 1;
            if id > LAST_STREAM || state.streams.len() >= MAX_STREAMS || state.is_over {
                return None;
            }
            state.latest = id;
            state.streams.insert(id, Stream::new(Some(local), now));
            let sealer = state.sealer.as_mut()?;
            sealer.seal_one(&Frame::Open(id).header(), &[], now, &mut state.out);
            Some(id)
        })
    }

    /// Streams that are not over.
    pub fn count(&self) -> usize {
        self.state().streams.len()
    }

    /// When the other end was heard last.
    pub fn heard(&self) -> Instant {
        self.state().heard
    }

    /// Asks the other end for a sign of life, unless it owes one.
    pub fn ping(&self) {
        self.say(|state, now| {
            if state.ping.is_none() {
                let number = state.latest;
                state.ping = Some((number, now));
                state.owed.ping = Some(number);
            }
        });
    }

    /// Ends a stream that was never carried.
    pub fn refuse(&self, id: u32, reason: Reason) {
        self.say(|state, _| {
            state.owed.resets.push((id, reason));
            state.remove(id);
        });
    }

    /// Carries one stream until both directions have ended.
    ///
    /// # Errors
    /// As every join of two streams. Both its ends are over by then.
    pub async fn carry(
        self: &Arc<Self>,
        id: u32,
        local: TcpStream,
        meter: Option<&Meter>,
    ) -> Result<Carried, JoinFailure> {
        if let Some(stream) = self.state().streams.get_mut(&id) {
            stream.local = Some(local.clone());
        }
        let gone = Gone { streams: self, id, reason: Some(Reason::Gone) };
        let mut up = Outgoing { streams: self, id, local: &local, phase: Phase::Read, given: 0 };
        let mut down = Incoming { streams: self, id, local: HalfClose(&local), given: 0, ended: false };
        let outcome = drive(HALF_CLOSED, &mut up, &mut down, meter).await;
        gone.because(outcome.is_err().then_some(Reason::Gone));
        outcome
    }

    /// Writes what could not be written at once, as long as the session lasts.
    ///
    /// # Errors
    /// The connection's.
    pub async fn write(&self) -> Result<(), StreamsError> {
        poll_fn(|cx| {
            let mut state = self.state();
            loop {
                state.settle(Instant::now());
                if state.backlog() == 0 {
                    state.writing = false;
                    state.wake_next();
                    state.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                let written = state.poll_write(&self.socket, cx);
                state.wake_next();
                match written {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => {
                        state.writing = true;
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }

    /// Says that nothing more comes; all streams are over.
    pub fn end(&self) {
        self.say(|state, now| {
            state.settle(now);
            if let Some(sealer) = state.sealer.take() {
                sealer.end(now, &mut state.out);
            }
            state.end_all(Reason::SessionEnds);
        });
    }

    /// Whether all that was said has been written.
    pub fn is_written(&self) -> bool {
        self.state().backlog() == 0
    }

    fn obey(&self, state: &mut State, frame: Frame<'_>, now: Instant) -> Result<Option<Event>, BadFrame> {
        state.heard = now;
        let (latest, may_open) = (state.latest, self.may_open);
        let known = |id: u32| if id <= latest { Ok(None) } else { Err(BadFrame) };
        match frame {
            Frame::Open(id) if may_open || id <= latest => return Err(BadFrame),
            Frame::Open(id) => {
                state.latest = id;
                if state.streams.len() >= MAX_STREAMS {
                    state.owed.resets.push((id, Reason::TooMany));
                    if state.owed.resets.len() > MAX_OWED {
                        return Err(BadFrame);
                    }
                    return Ok(None);
                }
                state.streams.insert(id, Stream::new(None, now));
                return Ok(Some(Event::Opened(id)));
            }
            Frame::Data(id, bytes) => {
                let Some(stream) = state.streams.get_mut(&id) else { return known(id) };
                if stream.heard_end {
                    return Err(BadFrame);
                }
                stream.window.come(bytes.len())?;
                if stream.reset.is_none() {
                    let mut took = 0;
                    let rest = stream.give_at_once(bytes, &mut took);
                    stream.held.extend_from_slice(rest);
                    let looks = now.duration_since(stream.looked) > LOOK;
                    if !rest.is_empty() || looks {
                        stream.looked = now;
                        stream.wants_bytes.take().into_iter().for_each(Waker::wake);
                    }
                    if took > 0 {
                        state.took(id, took, now);
                    }
                }
            }
            Frame::Credit(id, more) => {
                let Some(stream) = state.streams.get_mut(&id) else { return known(id) };
                stream.credit.add(more)?;
                stream.wants_credit.take().into_iter().for_each(Waker::wake);
            }
            Frame::End(id) => {
                let Some(stream) = state.streams.get_mut(&id) else { return known(id) };
                if std::mem::replace(&mut stream.heard_end, true) {
                    return Err(BadFrame);
                }
                stream.wants_bytes.take().into_iter().for_each(Waker::wake);
            }
            Frame::Reset(id, reason) => {
                let Some(stream) = state.streams.get_mut(&id) else { return known(id) };
                stream.reset = Some(reason);
                stream.wake();
            }
            Frame::Ping(number) => state.owed.pong = Some(number),
            Frame::Pong(number) => {
                if let Some((_, asked)) = state.ping.take_if(|(asked, _)| *asked == number) {
                    state.growth.measured(now.duration_since(asked));
                }
            }
        }
        Ok(None)
    }
}

impl Stream {
    /// What the local program takes without being waited for, if nothing is held for it already; returns the rest.
    fn give_at_once<'a>(&mut self, bytes: &'a [u8], took: &mut usize) -> &'a [u8] {
        let Some(mut local) = self.local.as_ref().filter(|_| self.held.is_empty()) else {
            return bytes;
        };
        let nobody = &mut Context::from_waker(Waker::noop());
        while *took < bytes.len() {
            match Pin::new(&mut local).poll_write(nobody, &bytes[*took..]) {
                Poll::Ready(Ok(wrote @ 1..)) => *took += wrote,
                // What is wrong is found by who waits for this program.
                _ => break,
            }
        }
        &bytes[*took..]
    }
}

/// A stream is over whatever becomes of who carries it.
struct Gone<'a> {
    streams: &'a Streams,
    id: u32,
    reason: Option<Reason>,
}

impl Gone<'_> {
    fn because(mut self, reason: Option<Reason>) {
        self.reason = reason;
    }
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let (id, reason) = (self.id, self.reason);
        self.streams.say(|state, _| {
            let is_told = state.streams.get(&id).is_none_or(|stream| stream.reset.is_some());
            if let Some(reason) = reason.filter(|_| !is_told) {
                state.owed.resets.push((id, reason));
            }
            state.remove(id);
        });
    }
}

enum Phase {
    Read,
    Send(Vec<u8>, usize),
    End,
    Ended,
}

struct Outgoing<'a> {
    streams: &'a Streams,
    id: u32,
    local: &'a TcpStream,
    phase: Phase,
    given: u64,
}

fn session_over() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session is over")
}

impl Outgoing<'_> {
    /// Reads as much as may be sent.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Phase, PumpError>> {
        let most = {
            let mut state = self.streams.state();
            let Some(stream) = state.streams.get_mut(&self.id) else {
                return Poll::Ready(Err(PumpError::Write(session_over())));
            };
            // A reset is told by the other direction.
            stream.wants_credit = Some(cx.waker().clone());
            if stream.credit.left() == 0 || stream.reset.is_some() {
                return Poll::Pending;
            }
            stream.credit.left().min(BATCH)
        };
        let mut bytes = take_buffer();
        let mut local = self.local;
        match Pin::new(&mut local).poll_read(cx, &mut bytes[..most]) {
            Poll::Ready(Ok(0)) => {
                give_buffer(bytes);
                Poll::Ready(Ok(Phase::End))
            }
            Poll::Ready(Ok(got)) => Poll::Ready(Ok(Phase::Send(bytes, got))),
            Poll::Ready(Err(error)) => {
                give_buffer(bytes);
                Poll::Ready(Err(PumpError::Read(error)))
            }
            Poll::Pending => {
                give_buffer(bytes);
                Poll::Pending
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Phase, PumpError>> {
        let (bytes, got) = match &mut self.phase {
            Phase::Send(bytes, got) => (bytes, *got),
            _ => unreachable!(),
        };
        let (mut state, now) = (self.streams.state(), Instant::now());
        let state = &mut *state;
        let Some(stream) = state.streams.get_mut(&self.id).filter(|_| !state.is_over) else {
            return Poll::Ready(Err(PumpError::Write(session_over())));
        };
        if stream.reset.is_some() {
            stream.wants_credit = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let backlog = state.out.len() - state.at;
        if stream.is_urgent(got, now) {
            if backlog >= FULL {
                state.urgent.push(cx.waker().clone());
                return Poll::Pending;
            }
        } else if backlog > 0 {
            match state.bulk.iter_mut().find(|(id, _)| *id == self.id) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => state.bulk.push_back((self.id, cx.waker().clone())),
            }
            return Poll::Pending;
        }
        stream.has_sent(got, now);
        let Some(sealer) = &mut state.sealer else {
            return Poll::Ready(Err(PumpError::Write(session_over())));
        };
        for piece in bytes[..got].chunks(MAX_DATA) {
            sealer.seal_one(&Frame::Data(self.id, piece).header(), piece, now, &mut state.out);
        }
        state.settle(now);
        state.push(&self.streams.socket);
        self.given += got as u64;
        give_buffer(std::mem::take(bytes));
        Poll::Ready(Ok(Phase::Read))
    }
}

impl Pump for Outgoing<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        for _ in 0..TURNS {
            match &mut self.phase {
                Phase::Read => self.phase = ready!(self.poll_read(cx))?,
                Phase::Send(..) => self.phase = ready!(self.poll_send(cx))?,
                Phase::End => {
                    let id = self.id;
                    self.streams.say(|state, now| {
                        if let Some(sealer) = &mut state.sealer {
                            sealer.seal_one(&Frame::End(id).header(), &[], now, &mut state.out);
                        }
                    });
                    self.phase = Phase::Ended;
                }
                Phase::Ended => return Poll::Ready(Ok(())),
            }
        }
        give_way(cx)
    }

    fn given(&self) -> u64 {
        self.given
    }
}

struct Incoming<'a> {
    streams: &'a Streams,
    id: u32,
    local: HalfClose<&'a TcpStream>,
    given: u64,
    ended: bool,
}

impl Pump for Incoming<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let outcome = {
            let mut state = self.streams.state();
            let Some(stream) = state.streams.get_mut(&self.id) else {
                return Poll::Ready(Err(PumpError::Read(session_over())));
            };
            if let Some(reason) = stream.reset {
                let error = io::Error::new(io::ErrorKind::ConnectionReset, format!("{reason:?}"));
                return Poll::Ready(Err(PumpError::Read(error)));
            }
            let (took, outcome) = stream.poll_give(cx);
            let heard_end = stream.heard_end;
            stream.wants_bytes = Some(cx.waker().clone());
            if took > 0 {
                let now = Instant::now();
                state.took(self.id, took, now);
                state.settle(now);
                state.push(&self.streams.socket);
            }
            self.given = state.streams.get(&self.id).map_or(self.given, |stream| stream.given);
            match outcome {
                Poll::Ready(Ok(())) if heard_end => Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => Poll::Pending,
                other => other,
            }
        };
        ready!(outcome).map_err(PumpError::Write)?;
        let closed = ready!(Pin::new(&mut self.local).poll_close(cx));
        self.ended = true;
        Poll::Ready(closed(closed))
    }

    fn given(&self) -> u64 {
        self.given
    }
}

/// Takes what the other end sends.
pub struct Inlet {
    opener: Opener,
    /// The beginning of a record, when that is all there is of it.
    bytes: Vec<u8>,
    held: usize,
    events: VecDeque<Event>,
}

impl Inlet {
    /// From the first record.
    pub fn new(opener: Opener) -> Self {
        Self { opener, bytes: Vec::new(), held: 0, events: VecDeque::new() }
    }

    /// Serves all streams until there is something to do for somebody else. May be dropped and called again.
    ///
    /// # Errors
    /// See [`StreamsError`]: the session is over.
    pub async fn next(&mut self, streams: &Streams) -> Result<Event, StreamsError> {
        let outcome = poll_fn(|cx| self.poll_next(streams, cx)).await;
        if !matches!(outcome, Ok(Event::Opened(_))) {
            streams.state().end_all(Reason::SessionEnds);
        }
        outcome
    }

    fn poll_next(&mut self, streams: &Streams, cx: &mut Context<'_>) -> Poll<Result<Event, StreamsError>> {
        for _ in 0..TURNS {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Ok(event));
            }
            if self.opener.has_ended() {
                return Poll::Ready(Ok(Event::Ended));
            }
            if self.bytes.is_empty() {
                self.bytes = take_buffer();
            }
            let mut socket = &streams.socket;
            let got = match Pin::new(&mut socket).poll_read(cx, &mut self.bytes[self.held..]) {
                Poll::Ready(got) => got?,
                Poll::Pending => {
                    if self.held == 0 {
                        give_buffer(std::mem::take(&mut self.bytes));
                    }
                    return Poll::Pending;
                }
            };
            if got == 0 {
                return Poll::Ready(Err(RecordError::Cut.into()));
            }
            let end = self.held + got;
            let opened = self.opener.open(&mut self.bytes[..end])?;
            streams.take_in(&self.bytes[..opened.content], &mut self.events)?;
            self.held = opened.rest.len();
            self.bytes.copy_within(opened.rest, 0);
        }
        give_way(cx)
    }
}

impl Streams {
    fn take_in(&self, mut content: &[u8], events: &mut VecDeque<Event>) -> Result<(), BadFrame> {
        let (mut state, now) = (self.state(), Instant::now());
        while !content.is_empty() {
            let frame = take(&mut content)?;
            events.extend(self.obey(&mut state, frame, now)?);
        }
        state.settle(now);
        state.push(&self.socket);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
