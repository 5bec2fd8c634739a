//! Two directions at once, until both have ended, one breaks, or nothing has moved for too long.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_io::Timer;

use super::join::Carried;

/// One direction: bytes from a source to a sink, and the source's end passed on to the sink.
pub(super) trait Pump {
    /// Ready once the sink has been told the end, or when something broke.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;
    /// Bytes the sink has accepted.
    fn given(&self) -> u64;
    /// Bytes the source has yielded.
    fn taken(&self) -> u64;
}

/// Which end of a direction failed.
#[derive(Debug)]
pub(super) enum Broken {
    Read(io::Error),
    Write(io::Error),
}

/// Why two joined streams ended badly.
#[derive(Debug)]
pub(super) struct Failure {
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

/// Runs both directions.
///
/// A source that fails ends everything at once. A sink that fails ends its own direction, because the
/// same peer may have said something before it went (a server that refuses an upload and closes):
/// that still gets [`LAST_WORDS`] to arrive.
pub(super) async fn drive<U: Pump, D: Pump>(
    up: &mut U,
    down: &mut D,
    idle: Option<Duration>,
) -> Result<Carried, Failure> {
    let mut course = Course::new(idle);
    poll_fn(|cx| course.poll(up, down, cx)).await?;
    Ok(Carried {
        up: up.given(),
        down: down.given(),
    })
}

struct Course {
    idle: Option<Duration>,
    /// When bytes last moved, and how many had by then.
    moved: (Instant, u64),
    over: [bool; 2],
    /// The first sink that failed, and until when the other direction may go on.
    broken: Option<(io::Error, Instant)>,
    /// Set to fire at the instant, or earlier than needed: re-arming it for every chunk would be a waste.
    alarm: Option<(Timer, Instant)>,
}

impl Course {
    fn new(idle: Option<Duration>) -> Self {
        Self {
            idle,
            moved: (Instant::now(), 0),
            over: [false; 2],
            broken: None,
            alarm: None,
        }
    }

    fn poll(
        &mut self,
        up: &mut dyn Pump,
        down: &mut dyn Pump,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let pumps: [&mut dyn Pump; 2] = [&mut *up, &mut *down];
        for (at, pump) in pumps.into_iter().enumerate() {
            if self.over[at] {
                continue;
            }
            match pump.poll(cx) {
                Poll::Pending => continue,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Broken::Write(error))) => {
                    let until = Instant::now() + LAST_WORDS;
                    self.broken.get_or_insert((error, until));
                }
                Poll::Ready(Err(Broken::Read(error))) => {
                    let abrupt = true;
                    return Poll::Ready(Err(Failure { error, abrupt }));
                }
            }
            self.over[at] = true;
        }
        if self.over == [true, true] {
            return Poll::Ready(match self.broken.take() {
                None => Ok(()),
                Some((error, _)) => Err(Failure {
                    error,
                    abrupt: false,
                }),
            });
        }
        let total = [up.taken(), up.given(), down.taken(), down.given()];
        self.poll_alarm(total.iter().sum(), cx).map(Err)
    }

    fn poll_alarm(&mut self, total: u64, cx: &mut Context<'_>) -> Poll<Failure> {
        if total != self.moved.1 {
            self.moved = (Instant::now(), total);
        }
        loop {
            let silent = self.idle.map(|idle| self.moved.0 + idle);
            let last_words = self.broken.as_ref().map(|broken| broken.1);
            let Some(due) = silent.into_iter().chain(last_words).min() else {
                return Poll::Pending;
            };
            let (timer, at) = match &mut self.alarm {
                Some((timer, at)) if *at <= due => (timer, *at),
                _ => {
                    self.alarm = Some((Timer::at(due), due));
                    continue;
                }
            };
            if Pin::new(timer).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.alarm = None;
            if at == due {
                return Poll::Ready(self.too_late());
            }
        }
    }

    fn too_late(&mut self) -> Failure {
        let error = match self.broken.take() {
            Some((error, _)) => error,
            None => {
                let idle = self.idle.unwrap_or_default();
                let text = format!("no byte either way for {idle:?}");
                io::Error::new(io::ErrorKind::TimedOut, text)
            }
        };
        Failure {
            error,
            abrupt: true,
        }
    }
}

/// What a peer said before it went has this long to reach the other one.
const LAST_WORDS: Duration = Duration::from_secs(5);
