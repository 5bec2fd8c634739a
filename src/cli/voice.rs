//! How a program talks: as itself, or as the classic program whose name it was called by.
//!
//! ```text
//!   noports client            sshnp
//!   noports client: what      (empty line)
//!     hint: what to try       Error : what
//!   exit 3 … 12               exit 1
//! ```
//! Scripts that start the classic programs read these lines and this exit code.

use std::{fmt::Display, future::Future, io, process::ExitCode, time::SystemTime};

use futures_lite::future;

use super::{Failure, exit, print_err};
use crate::{sys::signal, text::calendar};

/// A classic program's manner of speaking.
#[derive(Clone, Debug)]
pub struct Voice {
    /// Stands before a failure's text.
    pub label: &'static str,
    /// Its options, for a misuse.
    pub usage: String,
    /// Whether a signal ends it with exit code 1.
    pub ends_with_1: bool,
}

impl Voice {
    /// A client's story. The classic clients end with 1 when they are told to end, and not by the signal itself: the story
    /// is dropped then, which takes away what it has left on this machine for a moment.
    pub(super) async fn until_told<F>(&self, story: F) -> Result<ExitCode, Failure>
    where
        F: Future<Output = Result<ExitCode, Failure>>,
    {
        if !self.ends_with_1 {
            return story.await;
        }
        let deaf = |error: io::Error| Failure::plain(format!("cannot listen for signals: {error}"));
        let mut asked = signal::StopSignals::new().map_err(deaf)?;
        let told = async {
            asked.stop().await.map_err(deaf)?;
            Ok(ExitCode::from(exit::FAILED))
        };
        future::or(told, story).await
    }

    /// Version, options, what is wrong, and what to type instead; all on stderr.
    fn misuse(&self, failure: &Failure) -> ExitCode {
        let what = &failure.message;
        print_err(&format!("{}\n{}\n\n{what}", version(), self.usage));
        if let Some(hint) = &failure.hint {
            print_err(&format!("  hint: {hint}"));
        }
        ExitCode::from(exit::FAILED)
    }

    /// Ends the program with a failure; a script finds the classic words, a person our own below them.
    pub fn fail(&self, failure: &Failure) -> ExitCode {
        if failure.code == exit::MISUSE {
            return self.misuse(failure);
        }
        match &failure.classic {
            Some(words) => {
                print_err(&format!("{}{words}", self.label));
                if !failure.alone {
                    print_err(&format!("  {}", failure.message));
                }
            }
            None => print_err(&format!("{}{}", self.label, failure.message)),
        }
        if let Some(hint) = &failure.hint {
            print_err(&format!("  hint: {hint}"));
        }
        ExitCode::from(exit::FAILED)
    }
}

/// `Version : 1.2.3 (core: rust-1.2.3)`
pub fn version() -> String {
    format!("Version : {0} (core: rust-{0})", env!("CARGO_PKG_VERSION"))
}

/// One line of progress in the classic form, `2026-11-21 10:00:00.123000Z : text`. The originals write local
/// time; ours says that it is not.
pub(super) fn step(text: impl Display) {
    print_err(&stamped(SystemTime::now(), text));
}

fn stamped(now: SystemTime, text: impl Display) -> String {
    format!("{} : {text}", calendar::with_micros(now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::cli::voice::*;

    #[test]
    fn a_line_of_progress_begins_with_the_moment() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_729_764_931_654_321);
        assert_eq!(
            stamped(moment, "Starting user session"),
            "2024-10-24 10:15:31.654321Z : Starting user session"
        );
    }
}
