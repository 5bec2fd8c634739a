//! Signals as futures.

use std::{future::pending, io};

use async_signal::{Signal, Signals};
use futures_lite::StreamExt;

/// How we were asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody pressed Ctrl-C.
    Interrupt,
    /// The usual request of a service manager.
    Terminate,
    /// The terminal has gone.
    HangUp,
}

impl Stop {
    /// The exit code of whoever ends because of it, as shells count.
    pub fn code(self) -> u8 {
        match self {
            Self::HangUp => 128 + 1,
            Self::Interrupt => 128 + 2,
            Self::Terminate => 128 + 15,
        }
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
        })
    }
}

/// Waits until somebody asks us to stop. From the first poll on, these signals no longer end the process
/// by themselves.
///
/// # Errors
/// If no handler can be installed.
pub async fn stop() -> io::Result<Stop> {
    StopSignals::new()?.stop().await
}

/// Whether we were asked to stop, heard from the moment this is made.
#[derive(Debug)]
pub struct StopSignals(Signals);

impl StopSignals {
    /// From now on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// If no handler can be installed.
    pub fn new() -> io::Result<Self> {
        Signals::new([Signal::Int, Signal::Term, Signal::Hup]).map(Self)
    }

    /// Waits until somebody asks; at once if somebody has.
    ///
    /// # Errors
    /// If the signals cannot be read.
    pub async fn stop(&mut self) -> io::Result<Stop> {
        loop {
            match self.0.next().await {
                Some(Ok(Signal::Int)) => return Ok(Stop::Interrupt),
                Some(Ok(Signal::Term)) => return Ok(Stop::Terminate),
                Some(Ok(Signal::Hup)) => return Ok(Stop::HangUp),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => pending().await,
            }
        }
    }
}

/// As [`stop`], for a program to which a hang-up means something else: see [`HangUps`].
///
/// # Errors
/// If no handler can be installed.
pub async fn stop_but_for_hang_ups() -> io::Result<Stop> {
    let signals = Signals::new([Signal::Int, Signal::Term])?;
    StopSignals(signals).stop().await
}

/// Hang-ups, one after the other; services take them for "read your configuration again".
#[derive(Debug)]
pub struct HangUps(Signals);

impl HangUps {
    /// From now on a hang-up no longer ends the process.
    ///
    /// # Errors
    /// If no handler can be installed.
    pub fn new() -> io::Result<Self> {
        Signals::new([Signal::Hup]).map(Self)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        match self.0.next().await {
            Some(Ok(_)) => {}
            _ => pending().await,
        }
    }
}

/// As long as this lives, losing the terminal or the parent does not end the process.
#[derive(Debug)]
pub struct IgnoreHangUp {
    _kept: Signals,
}

impl IgnoreHangUp {
    /// Begins to ignore.
    ///
    /// # Errors
    /// If no handler can be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            _kept: Signals::new([Signal::Hup])?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;
    use futures_lite::future::{or, yield_now};
    use rustix::process::{Signal as Raw, getpid, kill_process};

    use super::*;

    /// One test for all: signals belong to the whole process.
    #[test]
    fn asked_to_stop_and_hang_ups_ignored() {
        block_on(async {
            let mut kept = IgnoreHangUp::new().unwrap();
            kill_process(getpid(), Raw::HUP).unwrap();
            // Until it has arrived, for it may reach another thread of ours later.
            kept._kept.next().await.unwrap().unwrap();
            drop(kept);
            for (raw, want) in [(Raw::TERM, Stop::Terminate), (Raw::HUP, Stop::HangUp)] {
                let mut installed = false;
                let asked = or(stop(), async {
                    loop {
                        // The first poll of `stop` has installed the handlers.
                        if !std::mem::replace(&mut installed, true) {
                            kill_process(getpid(), raw).unwrap();
                        }
                        yield_now().await;
                    }
                });
                assert_eq!(asked.await.unwrap(), want);
            }
        });
    }
}
