//! What is known of each stream, and what has to be said.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use async_std::net::TcpStream;
use futures_lite::AsyncWrite;

use super::BATCH;
use crate::pipe::{
    copy::give_sealed,
    credit::{Credit, Growth, Window},
    frame::{Frame, Reason},
    record::Sealer,
};

/// A stream that has sent no more than so much in [`LATELY`] goes ahead.
const LITTLE: usize = 4 * 1024;
const LATELY: Duration = Duration::from_millis(100);
/// What is sealed and not yet written when somebody with little to say has to wait, too.
pub(super) const FULL: usize = 2 * BATCH;
/// Between two looks of a stream at what was carried past it.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Streams that wait for room, each once.
#[derive(Default)]
pub(super) struct Line(VecDeque<(u32, Waker)>);

impl Line {
    /// Behind the others, unless it stands there already.
    pub(super) fn join(&mut self, id: u32, waker: &Waker) {
        match self.0.iter_mut().find(|(other, _)| *other == id) {
            Some((_, known)) => known.clone_from(waker),
            None => self.0.push_back((id, waker.clone())),
        }
    }

    fn leave(&mut self, id: u32) {
        self.0.retain(|(other, _)| *other != id);
    }

    fn wake(&mut self, most: usize) {
        let most = most.min(self.0.len());
        self.0.drain(..most).for_each(|(_, waker)| waker.wake());
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

pub(super) struct State {
    pub(super) sealer: Option<Sealer>,
    /// Sealed; written up to `at`.
    pub(super) out: Vec<u8>,
    pub(super) at: usize,
    /// [`super::Streams::write`] is at it; nobody else writes.
    pub(super) writing: bool,
    pub(super) writer: Option<Waker>,
    pub(super) urgent: Line,
    pub(super) bulk: Line,
    pub(super) streams: HashMap<u32, Stream>,
    pub(super) latest: u32,
    pub(super) growth: Growth,
    pub(super) owed: Owed,
    pub(super) ping: Option<(u32, Instant)>,
    pub(super) heard: Instant,
    pub(super) is_over: bool,
}

#[derive(Default)]
pub(super) struct Owed {
    pub(super) pong: Option<u32>,
    pub(super) ping: Option<u32>,
    /// Streams that owe credit.
    pub(super) credits: Vec<u32>,
    pub(super) resets: Vec<(u32, Reason)>,
}

pub(super) struct Stream {
    /// Where what comes is given without waiting, if it is a socket.
    pub(super) local: Option<TcpStream>,
    pub(super) credit: Credit,
    pub(super) wants_credit: Option<Waker>,
    pub(super) window: Window,
    pub(super) owed: u32,
    pub(super) held: Vec<u8>,
    pub(super) at: usize,
    pub(super) wants_bytes: Option<Waker>,
    pub(super) heard_end: bool,
    pub(super) reset: Option<Reason>,
    /// Bytes the local program has taken.
    pub(super) given: u64,
    pub(super) looked: Instant,
    /// Sent since.
    pub(super) sent: (usize, Instant),
}

impl Stream {
    pub(super) fn new(local: Option<TcpStream>, now: Instant) -> Self {
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

    pub(super) fn wake(&mut self) {
        for waker in [self.wants_credit.take(), self.wants_bytes.take()] {
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether this goes ahead of others.
    pub(super) fn is_urgent(&self, bytes: usize, now: Instant) -> bool {
        let (sent, since) = self.sent;
        bytes
            + if now.duration_since(since) < LATELY {
                sent
            } else {
                0
            }
            <= LITTLE
    }

    pub(super) fn has_sent(&mut self, bytes: usize, now: Instant) {
        let (sent, since) = self.sent;
        self.sent = if now.duration_since(since) < LATELY {
            (sent + bytes, since)
        } else {
            (bytes, now)
        };
        self.credit.spend(bytes);
    }

    /// Gives what is held to the local program. `Ready` when nothing is held any more; returns what it took.
    pub(super) fn poll_give<W: AsyncWrite + Unpin>(
        &mut self,
        local: &mut W,
        cx: &mut Context<'_>,
    ) -> (usize, Poll<io::Result<()>>) {
        let mut took = 0;
        while self.at < self.held.len() {
            match Pin::new(&mut *local).poll_write(cx, &self.held[self.at..]) {
                Poll::Ready(Ok(0)) => {
                    return (took, Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(wrote)) => {
                    self.at += wrote;
                    took += wrote;
                }
                Poll::Ready(Err(error)) => return (took, Poll::Ready(Err(error))),
                Poll::Pending => return (took, Poll::Pending),
            }
        }
        (self.held, self.at) = (Vec::new(), 0);
        let flushed = if took > 0 {
            Pin::new(local).poll_flush(cx)
        } else {
            Poll::Ready(Ok(()))
        };
        (took, flushed)
    }
}

impl Stream {
    /// Keeps this for the local program; what that has taken goes, also where it is never done with all.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        if self.at > self.held.len() / 2 {
            self.held.drain(..self.at);
            self.at = 0;
        }
        self.held.extend_from_slice(bytes);
    }

    /// What the local program takes without being waited for, if nothing is held for it already; returns the rest.
    pub(super) fn give_at_once<'a>(&mut self, bytes: &'a [u8], took: &mut usize) -> &'a [u8] {
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

impl State {
    pub(super) fn new(sealer: Sealer, now: Instant) -> Self {
        Self {
            sealer: Some(sealer),
            out: Vec::new(),
            at: 0,
            writing: false,
            writer: None,
            urgent: Line::default(),
            bulk: Line::default(),
            streams: HashMap::new(),
            latest: 0,
            growth: Growth::default(),
            owed: Owed::default(),
            ping: None,
            heard: now,
            is_over: false,
        }
    }

    pub(super) fn backlog(&self) -> usize {
        self.out.len() - self.at
    }

    /// What the local program took makes credit.
    pub(super) fn took(&mut self, id: u32, bytes: usize, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.given += bytes as u64;
        if let Some(credit) = stream.window.eat(bytes, now, &mut self.growth) {
            if stream.owed == 0 {
                self.owed.credits.push(id);
            }
            stream.owed += credit;
            if self.growth.is_stale(now) {
                self.ask(now);
            }
        }
    }

    /// Asks for a sign of life, unless one is due.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.ping.is_none() {
            self.ping = Some((self.latest, now));
            self.owed.ping = Some(self.latest);
        }
    }

    /// Seals what is owed, where there is room for it.
    pub(super) fn settle(&mut self, now: Instant) {
        let Some(sealer) = &mut self.sealer else {
            return;
        };
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
        self.owed
            .pong
            .take()
            .into_iter()
            .for_each(|n| say(Frame::Pong(n)));
        self.owed
            .ping
            .take()
            .into_iter()
            .for_each(|n| say(Frame::Ping(n)));
        if !frames.is_empty() {
            sealer.seal(&frames, now, &mut self.out);
        }
    }

    /// What stood in line, now that there is room.
    pub(super) fn wake_next(&mut self) {
        if self.backlog() < FULL {
            self.urgent.wake(usize::MAX);
        }
        if self.backlog() == 0 {
            self.bulk.wake(1);
        }
    }

    /// Writes what is sealed. `Ready` when all of it is written.
    pub(super) fn poll_write(
        &mut self,
        mut socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.at < self.out.len() {
            let wrote = ready!(Pin::new(&mut socket).poll_write(cx, &self.out[self.at..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += wrote;
        }
        if self.out.capacity() > LITTLE {
            give_sealed(std::mem::take(&mut self.out));
        }
        self.out.clear();
        self.at = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes at once what can be; the rest is the writer's.
    pub(super) fn push(&mut self, socket: &TcpStream) {
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

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            stream.window.give_back(&mut self.growth);
            if stream.owed > 0 {
                self.owed.credits.retain(|other| *other != id);
            }
        }
        self.urgent.leave(id);
        self.bulk.leave(id);
        self.wake_next();
    }

    /// The session is over, and so are these streams. One whose other end has said all before may still deliver it.
    pub(super) fn end_those(&mut self, are: impl Fn(&Stream) -> bool) {
        self.is_over = true;
        for stream in self.streams.values_mut() {
            if are(stream) {
                stream.reset.get_or_insert(Reason::SessionEnds);
            }
            stream.wake();
        }
        self.urgent.wake(usize::MAX);
        self.bulk.wake(usize::MAX);
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}
