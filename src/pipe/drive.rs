//! Two directions at once, until both have ended or one breaks.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_io::Timer;

use crate::text::duration::in_words;

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

/// Which of two joined streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first, or the local one.
    Near,
    /// The other one.
    Far,
}

/// Why two joined streams ended badly.
#[derive(Debug)]
pub struct JoinFailure {
    /// What the system says.
    pub error: io::Error,
    /// Whose it was, where it was one of them.
    pub at: Option<End>,
    /// Bytes may be missing at either end: neither must take this for a regular end.
    pub(super) abrupt: bool,
}

/// What passes, while it does: of as many pairs as are joined with it. Bytes count when their sink has accepted them.
#[derive(Debug)]
pub struct Meter {
    since: Instant,
    up: AtomicU64,
    down: AtomicU64,
    /// Milliseconds from `since` to the last byte, and one more; 0 before the first.
    last: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }
}

impl Meter {
    /// So much has passed.
    pub fn carried(&self) -> Carried {
        Carried {
            up: self.up.load(Relaxed),
            down: self.down.load(Relaxed),
        }
    }

    /// How long ago the last byte passed, if one has.
    pub fn quiet_for(&self) -> Option<Duration> {
        let last = self.last.load(Relaxed).checked_sub(1)?;
        Some(
            self.since
                .elapsed()
                .saturating_sub(Duration::from_millis(last)),
        )
    }

    /// One pair has carried so much in all; `told` is what was counted of it before.
    fn count(&self, told: &mut Carried, up: u64, down: u64) {
        let now = Carried { up, down };
        if *told == now {
            return;
        }
        self.up.fetch_add(up - told.up, Relaxed);
        self.down.fetch_add(down - told.down, Relaxed);
        let last = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last.store(last + 1, Relaxed);
        *told = now;
    }
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

/// How long a stream may stand half closed without a byte, unless somebody says otherwise: what was asked has been
/// heard, and no answer comes.
pub const HALF_CLOSED: Duration = Duration::from_secs(600);

/// Runs both directions.
///
/// A source that fails ends everything at once. A sink that fails ends its own direction, because the
/// same peer may have said something before it went (a server that refuses an upload and closes):
/// that still gets [`LAST_WORDS`] to arrive. Where one direction has ended and the other one is silent for
/// `half_closed`, that is the end.
pub(super) async fn drive<U: Pump, D: Pump>(
    half_closed: Duration,
    up: &mut U,
    down: &mut D,
    meter: Option<&Meter>,
) -> Result<Carried, JoinFailure> {
    let mut course = DriveState {
        half_closed,
        ..DriveState::default()
    };
    let mut told = Carried::default();
    poll_fn(|cx| {
        let outcome = course.poll(up, down, cx);
        if let Some(meter) = meter {
            meter.count(&mut told, up.given(), down.given());
        }
        outcome
    })
    .await?;
    Ok(Carried {
        up: up.given(),
        down: down.given(),
    })
}

#[derive(Default)]
struct DriveState {
    over: [bool; 2],
    /// The first sink that failed, and how long the other direction may go on.
    broken: Option<(io::Error, End, Timer)>,
    half_closed: Duration,
    /// One direction has ended: what the other one had carried when it was looked at last, and when that is too long ago.
    silence: Option<(u64, Timer)>,
}

impl DriveState {
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
                    let sink = [End::Far, End::Near][at];
                    self.broken
                        .get_or_insert_with(|| (error, sink, Timer::after(LAST_WORDS)));
                }
                Poll::Ready(Err(PumpError::Read(error))) => {
                    let source = [End::Near, End::Far][at];
                    return Poll::Ready(Err(JoinFailure {
                        error,
                        at: Some(source),
                        abrupt: true,
                    }));
                }
            }
            self.over[at] = true;
        }
        if self.over == [true, true] {
            return Poll::Ready(match self.broken.take() {
                None => Ok(()),
                Some((error, end, _)) => Err(JoinFailure {
                    error,
                    at: Some(end),
                    abrupt: false,
                }),
            });
        }
        if let Poll::Ready(failure) = self.poll_last_words(cx) {
            return Poll::Ready(Err(failure));
        }
        match self.over {
            [true, false] => self.poll_silence(down.given(), cx).map(Err),
            [false, true] => self.poll_silence(up.given(), cx).map(Err),
            _ => Poll::Pending,
        }
    }

    /// Ready when the only direction that is left has carried nothing for too long.
    fn poll_silence(&mut self, given: u64, cx: &mut Context<'_>) -> Poll<JoinFailure> {
        let limit = self.half_closed;
        let fresh = || (given, Timer::after(limit));
        let (before, timer) = self.silence.get_or_insert_with(fresh);
        if *before != given {
            *before = given;
            timer.set_after(limit);
        }
        Pin::new(timer).poll(cx).map(|_| JoinFailure {
            error: io::Error::new(
                io::ErrorKind::TimedOut,
                format!("half closed, and silent for {}", in_words(limit)),
            ),
            at: None,
            abrupt: true,
        })
    }

    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<JoinFailure> {
        let Some((error, end, mut timer)) = self.broken.take() else {
            return Poll::Pending;
        };
        if Pin::new(&mut timer).poll(cx).is_pending() {
            self.broken = Some((error, end, timer));
            return Poll::Pending;
        }
        Poll::Ready(JoinFailure {
            error,
            at: Some(end),
            abrupt: true,
        })
    }
}

/// What a peer said before it went has this long to reach the other one.
const LAST_WORDS: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use async_std::task::block_on;

    use super::*;

    /// Gives so many bytes, one at a time with a pause before each; then it ends, or is silent.
    struct Dribble {
        left: u64,
        given: u64,
        pause: Duration,
        timer: Timer,
        ends: bool,
    }

    fn dribble(left: u64, pause: Duration, ends: bool) -> Dribble {
        Dribble {
            left,
            given: 0,
            pause,
            timer: Timer::after(pause),
            ends,
        }
    }

    impl Pump for Dribble {
        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
            while self.left > 0 {
                std::task::ready!(Pin::new(&mut self.timer).poll(cx));
                (self.left, self.given) = (self.left - 1, self.given + 1);
                self.timer.set_after(self.pause);
            }
            if self.ends {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        }

        fn given(&self) -> u64 {
            self.given
        }
    }

    /// A pair of which one end has closed and the other says nothing would stand for ever, and with it its session.
    #[test]
    fn half_closed_and_silent_ends_and_a_byte_now_and_then_goes_on() {
        const LIMIT: Duration = Duration::from_millis(300);
        let pause = LIMIT / 6;
        for swapped in [false, true] {
            for (left, ends, want) in [
                (0, false, Err(())),
                (12, true, Ok(12)),
                (12, false, Err(())),
            ] {
                let (mut over, mut other) = (dribble(0, pause, true), dribble(left, pause, ends));
                let began = std::time::Instant::now();
                let (outcome, given) = block_on(async {
                    let outcome = if swapped {
                        drive(LIMIT, &mut other, &mut over, None).await
                    } else {
                        drive(LIMIT, &mut over, &mut other, None).await
                    };
                    (outcome, other.given)
                });
                assert_eq!(outcome.as_ref().map(|_| given).map_err(|_| ()), want);
                assert_eq!(given, left, "all that was said has arrived");
                if let Err(failure) = outcome {
                    assert!(began.elapsed() >= LIMIT && failure.abrupt);
                    assert_eq!(failure.error.kind(), io::ErrorKind::TimedOut);
                }
            }
        }
    }
}
