//! What the other end sends: records opened, and each frame obeyed.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures_lite::AsyncRead;

use super::{
    Event, MAX_OWED, MAX_STREAMS, Streams, StreamsError,
    state::{LOOK, State, Stream},
};
use crate::pipe::{
    copy::{give_buffer, take_buffer},
    drive::{TURNS, give_way},
    frame::{BadFrame, Frame, Reason, take},
    record::{Opener, RecordError},
};

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
        Self {
            opener,
            bytes: Vec::new(),
            held: 0,
            events: VecDeque::new(),
        }
    }

    /// Serves all streams until there is something to do for somebody else. May be dropped and called again.
    ///
    /// # Errors
    /// See [`StreamsError`]: the session is over.
    pub async fn next(&mut self, streams: &Streams) -> Result<Event, StreamsError> {
        let outcome = poll_fn(|cx| self.poll_next(streams, cx)).await;
        match &outcome {
            Ok(Event::Opened(_) | Event::Met) => {}
            Ok(Event::Ended) => streams.state().end_those(|stream| !stream.heard_end),
            Err(_) => streams.state().end_those(|_| true),
        }
        outcome
    }

    fn poll_next(
        &mut self,
        streams: &Streams,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event, StreamsError>> {
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
            let is_first = !self.opener.has_begun();
            let opened = self.opener.open(&mut self.bytes[..end])?;
            if is_first && self.opener.has_begun() {
                self.events.push_back(Event::Met);
                // Until the round trip is known, no window grows on a long line.
                streams.ping();
            }
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
            if state.owed.resets.len() > MAX_OWED {
                return Err(BadFrame);
            }
        }
        state.settle(now);
        state.push(&self.socket);
        Ok(())
    }
}

impl Streams {
    fn obey(
        &self,
        state: &mut State,
        frame: Frame<'_>,
        now: Instant,
    ) -> Result<Option<Event>, BadFrame> {
        state.heard = now;
        let (latest, may_open) = (state.latest, self.may_open);
        let known = |id: u32| {
            if id <= latest {
                Ok(None)
            } else {
                Err(BadFrame)
            }
        };
        match frame {
            Frame::Open(id) if may_open || id <= latest => return Err(BadFrame),
            Frame::Open(id) => {
                state.latest = id;
                if state.streams.len() >= MAX_STREAMS {
                    state.owed.resets.push((id, Reason::TooMany));
                    return Ok(None);
                }
                state.streams.insert(id, Stream::new(None, now));
                return Ok(Some(Event::Opened(id)));
            }
            Frame::Data(id, bytes) => {
                let Some(stream) = state.streams.get_mut(&id) else {
                    return known(id);
                };
                if stream.heard_end {
                    return Err(BadFrame);
                }
                stream.window.come(bytes.len())?;
                if stream.reset.is_none() {
                    let mut took = 0;
                    let rest = stream.give_at_once(bytes, &mut took);
                    stream.hold(rest);
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
                let Some(stream) = state.streams.get_mut(&id) else {
                    return known(id);
                };
                stream.credit.add(more)?;
                stream.wants_credit.take().into_iter().for_each(Waker::wake);
            }
            Frame::End(id) => {
                let Some(stream) = state.streams.get_mut(&id) else {
                    return known(id);
                };
                if std::mem::replace(&mut stream.heard_end, true) {
                    return Err(BadFrame);
                }
                stream.wants_bytes.take().into_iter().for_each(Waker::wake);
            }
            Frame::Reset(id, reason) => {
                let Some(stream) = state.streams.get_mut(&id) else {
                    return known(id);
                };
                stream.reset = Some(reason);
                stream.wake();
            }
            Frame::Ping(number) => state.owed.pong = Some(number),
            Frame::Pong(number) => {
                if let Some((_, asked)) = state.ping.take_if(|(asked, _)| *asked == number) {
                    state.growth.measured(now.duration_since(asked), now);
                }
            }
        }
        Ok(None)
    }
}
