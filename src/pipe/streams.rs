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
    future::poll_fn,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Instant,
};

use async_std::net::TcpStream;
use futures_lite::{AsyncRead, AsyncWrite};

use super::{
    copy::CHUNK,
    drive::{Carried, HALF_CLOSED, JoinFailure, Meter, drive},
    frame::{BadFrame, Frame, LAST_STREAM, Reason},
    half::HalfClose,
    record::{RecordError, Sealer},
};
use pumps::{Incoming, Outgoing};
use state::{State, Stream};

pub use inlet::Inlet;

mod inlet;
mod pumps;
mod state;

/// Streams of one session at a time.
pub const MAX_STREAMS: usize = 1000;
/// Resets that may be owed.
pub const MAX_OWED: usize = 1024;
/// Most bytes that one stream sends in one turn.
pub const BATCH: usize = CHUNK;
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
    /// It is there, and has the same keys: the first thing that happens.
    Met,
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

impl Streams {
    /// On a connection that nobody else writes to. Only the client opens streams.
    pub fn new(socket: TcpStream, sealer: Sealer, may_open: bool) -> Arc<Self> {
        let now = Instant::now();
        let streams = Self {
            socket,
            may_open,
            state: Mutex::new(State::new(sealer, now)),
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

    /// Opens a stream, for a local program at this socket or for something else. `None` when there may be no more.
    pub fn open(&self, local: Option<TcpStream>) -> Option<u32> {
        self.say(|state, now| {
            let id = state.latest + 1;
            if id > LAST_STREAM || state.streams.len() >= MAX_STREAMS || state.is_over {
                return None;
            }
            state.latest = id;
            state.streams.insert(id, Stream::new(local, now));
            let sealer = state.sealer.as_mut()?;
            sealer.seal_one(&Frame::Open(id).header(), &[], now, &mut state.out);
            Some(id)
        })
    }

    /// When the other end was heard last.
    pub fn heard(&self) -> Instant {
        self.state().heard
    }

    /// Asks the other end for a sign of life, unless it owes one.
    pub fn ping(&self) {
        self.say(State::ask);
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
    /// As every join of two streams; [`why_reset`] tells one that the other end has reset. Both its ends are over by then.
    pub async fn carry(
        &self,
        id: u32,
        local: &TcpStream,
        meter: &Meter,
    ) -> Result<Carried, JoinFailure> {
        if let Some(stream) = self.state().streams.get_mut(&id) {
            stream.local.get_or_insert_with(|| local.clone());
        }
        self.carry_ends(id, local, HalfClose(local), meter).await
    }

    /// The same for any two ends.
    ///
    /// # Errors
    /// As [`Self::carry`].
    pub async fn carry_ends<R, W>(
        &self,
        id: u32,
        input: R,
        output: W,
        meter: &Meter,
    ) -> Result<Carried, JoinFailure>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let mut gone = Gone {
            streams: self,
            id,
            reason: Some(Reason::SessionEnds),
        };
        let mut up = Outgoing::new(self, id, input);
        let mut down = Incoming::new(self, id, output);
        let outcome = drive(HALF_CLOSED, &mut up, &mut down, Some(meter)).await;
        gone.reason = outcome.is_err().then_some(Reason::Gone);
        outcome
    }

    /// Writes what could not be written at once, as long as the session lasts.
    ///
    /// # Errors
    /// The connection's.
    pub async fn write<T>(&self) -> Result<T, StreamsError> {
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
            state.end_those(|_| true);
        });
    }

    /// [`Self::end`], and all is written.
    ///
    /// # Errors
    /// The connection's.
    pub async fn finish(&self) -> io::Result<()> {
        self.end();
        poll_fn(|cx| self.state().poll_write(&self.socket, cx)).await
    }
}

/// Why the other end has reset a stream, if that is why it failed.
pub fn why_reset(failure: &JoinFailure) -> Option<Reason> {
    failure.error.get_ref()?.downcast_ref().copied()
}

/// A stream is over whatever becomes of who carries it.
struct Gone<'a> {
    streams: &'a Streams,
    id: u32,
    /// What the other end is told.
    reason: Option<Reason>,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let (id, reason) = (self.id, self.reason);
        self.streams.say(|state, _| {
            let is_told = state
                .streams
                .get(&id)
                .is_none_or(|stream| stream.reset.is_some());
            if let Some(reason) = reason.filter(|_| !is_told) {
                state.owed.resets.push((id, reason));
            }
            state.remove(id);
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
