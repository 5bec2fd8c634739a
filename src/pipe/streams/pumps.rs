//! The two directions of one stream, between its local program and [`Streams`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures_lite::{AsyncRead, AsyncWrite};

use super::{BATCH, Streams, state::FULL};
use crate::pipe::{
    copy::{give_buffer, take_buffer},
    drive::{Pump, PumpError, TURNS, closed, give_way},
    frame::{Frame, MAX_DATA},
};

enum Phase {
    Read,
    Send(Vec<u8>, usize),
    End,
    Ended,
}

pub(super) struct Outgoing<'a, R> {
    streams: &'a Streams,
    id: u32,
    local: R,
    phase: Phase,
    given: u64,
}

fn session_over() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session is over")
}

impl<'a, R> Outgoing<'a, R> {
    pub(super) fn new(streams: &'a Streams, id: u32, local: R) -> Self {
        Self {
            streams,
            id,
            local,
            phase: Phase::Read,
            given: 0,
        }
    }
}

impl<R: AsyncRead + Unpin> Outgoing<'_, R> {
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
        match Pin::new(&mut self.local).poll_read(cx, &mut bytes[..most]) {
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
            sealer.seal_one(
                &Frame::Data(self.id, piece).header(),
                piece,
                now,
                &mut state.out,
            );
        }
        state.settle(now);
        state.push(&self.streams.socket);
        self.given += got as u64;
        give_buffer(std::mem::take(bytes));
        Poll::Ready(Ok(Phase::Read))
    }
}

impl<R: AsyncRead + Unpin> Pump for Outgoing<'_, R> {
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

pub(super) struct Incoming<'a, W> {
    streams: &'a Streams,
    id: u32,
    local: W,
    given: u64,
    ended: bool,
}

impl<'a, W> Incoming<'a, W> {
    pub(super) fn new(streams: &'a Streams, id: u32, local: W) -> Self {
        Self {
            streams,
            id,
            local,
            given: 0,
            ended: false,
        }
    }
}

impl<W: AsyncWrite + Unpin> Pump for Incoming<'_, W> {
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
                let error = io::Error::new(io::ErrorKind::ConnectionReset, reason);
                return Poll::Ready(Err(PumpError::Read(error)));
            }
            let (took, outcome) = stream.poll_give(&mut self.local, cx);
            let heard_end = stream.heard_end;
            stream.wants_bytes = Some(cx.waker().clone());
            if took > 0 {
                let now = Instant::now();
                state.took(self.id, took, now);
                state.settle(now);
                state.push(&self.streams.socket);
            }
            self.given = state
                .streams
                .get(&self.id)
                .map_or(self.given, |stream| stream.given);
            match outcome {
                Poll::Ready(Ok(())) if heard_end => Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => Poll::Pending,
                other => other,
            }
        };
        ready!(outcome).map_err(PumpError::Write)?;
        let end = ready!(Pin::new(&mut self.local).poll_close(cx));
        self.ended = true;
        Poll::Ready(closed(end))
    }

    fn given(&self) -> u64 {
        self.given
    }
}
