//! Two directions at once, until both have ended or one breaks.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_io::Timer;

/// Bytes moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From `a` to `b`; from the local stream to the remote one.
    pub up: u64,
    /// The other way.
    pub down: u64,
}

/// One direction: bytes from a source to a sink, and the source's end passed on to the sink.
pub(super) trait Pump {
    /// Ready once the sink has been told the end, or when something broke.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>>;
    /// Bytes the sink has accepted.
    fn given(&self) -> u64;
}

/// Which end of a direction failed.
#[derive(Debug)]
pub(super) enum PumpError {
    Read(io::Error),
    Write(io::Error),
}

/// Why two joined streams ended badly.
#[derive(Debug)]
pub(super) struct JoinFailure {
    pub(super) error: io::Error,
    /// Bytes may be missing at either end: neither must take this for a regular end.
    pub(super) abrupt: bool,
}

/// Chunks moved before other tasks get their turn.
pub(super) const TURNS: usize = 32;

/// What a pump answers after its turns.
pub(super) fn give_way<T>(cx: &mut Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// A sink was told the end.
pub(super) fn closed(outcome: io::Result<()>) -> Result<(), PumpError> {
    match outcome {
        // It has gone by itself; what it had to say is the other direction's matter.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        outcome => outcome.map_err(PumpError::Write),
    }
}

/// Runs both directions.
///
/// A source that fails ends everything at once. A sink that fails ends its own direction, because the
/// same peer may have said something before it went (a server that refuses an upload and closes):
/// that still gets [`LAST_WORDS`] to arrive.
pub(super) async fn drive<U: Pump, D: Pump>(
    up: &mut U,
    down: &mut D,
) -> Result<Carried, JoinFailure> {
    let mut course = Course::default();
    poll_fn(|cx| course.poll(up, down, cx)).await?;
    Ok(Carried {
        up: up.given(),
        down: down.given(),
    })
}

#[derive(Default)]
struct Course {
    over: [bool; 2],
    /// The first sink that failed, and how long the other direction may go on.
    broken: Option<(io::Error, Timer)>,
}

impl Course {
    fn poll(
        &mut self,
        up: &mut dyn Pump,
        down: &mut dyn Pump,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), JoinFailure>> {
        let pumps: [&mut dyn Pump; 2] = [&mut *up, &mut *down];
        for (at, pump) in pumps.into_iter().enumerate() {
            if self.over[at] {
                continue;
            }
            match pump.poll(cx) {
                Poll::Pending => continue,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(PumpError::Write(error))) => {
                    self.broken
                        .get_or_insert_with(|| (error, Timer::after(LAST_WORDS)));
                }
                Poll::Ready(Err(PumpError::Read(error))) => {
                    let abrupt = true;
                    return Poll::Ready(Err(JoinFailure { error, abrupt }));
                }
            }
            self.over[at] = true;
        }
        if self.over == [true, true] {
            return Poll::Ready(match self.broken.take() {
                None => Ok(()),
                Some((error, _)) => Err(JoinFailure {
                    error,
                    abrupt: false,
                }),
            });
        }
        self.poll_last_words(cx).map(Err)
    }

    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<JoinFailure> {
        let Some((error, mut timer)) = self.broken.take() else {
            return Poll::Pending;
        };
        if Pin::new(&mut timer).poll(cx).is_pending() {
            self.broken = Some((error, timer));
            return Poll::Pending;
        }
        Poll::Ready(JoinFailure {
            error,
            abrupt: true,
        })
    }
}

/// What a peer said before it went has this long to reach the other one.
const LAST_WORDS: Duration = Duration::from_secs(5);
