//! Why a bridge did not stand, or fell; for a person, and for the process that started it.

use std::{fmt, io, str::FromStr, time::Duration};

use crate::{
    pipe::record::RecordError,
    text::{duration::in_words, endpoint::Endpoint},
};

/// How a report begins.
const REPORT: &str = "bridge=failed ";

/// Why a bridge did not stand, or fell.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BridgeError {
    #[error("cannot reach the local service {at}: {source}")]
    Local { at: Endpoint, source: io::Error },
    #[error("nobody connected within {}", in_words(*.0))]
    NobodyCame(Duration),
    #[error("cannot take the local connection: {0}")]
    Accept(io::Error),
    #[error("cannot reach the rendezvous at {at}: {source}")]
    Rendezvous { at: Endpoint, source: io::Error },
    #[error("the session broke off: {0}")]
    Broken(io::Error),
    #[error("the session ended before a byte came from the other end")]
    Unbegun,
    #[error("the session ended before an ssh server at the other end had greeted")]
    NoGreeting,
    #[error("the session was closed by the other end")]
    Gone,
    #[error("the client said nothing within {}", in_words(*.0))]
    NoWord(Duration),
    #[error("nothing has come through the rendezvous for {}", in_words(*.0))]
    Silent(Duration),
}

/// Nothing else than somebody on the way does that.
const CHANGED: &str = "the rendezvous, or somebody on the way to it, changed what passes, and nothing of that was delivered: try again, and with \
     another rendezvous (--via) if it comes again";

/// Whether this is why a session broke off, also where another process tells it.
fn was_changed(why: &str) -> bool {
    use RecordError::{Changed, Length, Order, OtherKeys};
    let all = [Length, OtherKeys, Changed, Order].map(|error| error.to_string());
    all.iter().any(|text| why.contains(text))
}

impl BridgeError {
    /// For what another process has told of its bridge.
    pub fn hint_of(why: &str) -> Option<&'static str> {
        if was_changed(why) {
            Some(CHANGED)
        } else {
            Self::Unbegun.hint()
        }
    }

    /// Whether somebody on the way has changed what passes.
    pub(super) fn is_change(&self) -> bool {
        matches!(self, Self::Broken(error) if was_changed(&error.to_string()))
    }

    /// What to try next.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Local { .. } => "check that the service runs there, on that port",
            Self::NobodyCame(_) => "connect within that time, or allow more with --timeout",
            Self::Rendezvous { .. } => "check that this network allows outbound TCP to that port",
            Self::Unbegun | Self::NoGreeting => {
                "is the service on the device in order? did the rendezvous let both ends in (its log tells), and is it still up? an sshd \
                 (OpenSSH 9.8 and later) shuts an address out for minutes after failed logins; then try again"
            }
            Self::Silent(_) => {
                "is the rendezvous still up, and the device? try again, or another rendezvous with --via"
            }
            Self::Gone => {
                "the device's bridge or the rendezvous has ended: open it again, or let --keep-alive do so"
            }
            Self::Broken(error) if was_changed(&error.to_string()) => CHANGED,
            Self::Broken(_) => {
                "is the service on the device running? is the rendezvous still running, and did it let both ends in (see its log)? then try again"
            }
            Self::Accept(_) | Self::NoWord(_) => return None,
        })
    }

    /// Which step failed, for the machine at the other end of stderr.
    pub fn step(&self) -> Stage {
        match self {
            Self::Local { .. } | Self::NobodyCame(_) | Self::Accept(_) => Stage::Local,
            Self::Rendezvous { .. } => Stage::Rendezvous,
            Self::Broken(_)
            | Self::Unbegun
            | Self::NoGreeting
            | Self::Gone
            | Self::NoWord(_)
            | Self::Silent(_) => Stage::Session,
        }
    }
}

/// What a bridge does one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Our end of the pipe.
    Local,
    /// The meeting point.
    Rendezvous,
    /// Carrying bytes.
    Session,
}

/// How a bridge tells its parent that it failed: one line on stderr,
/// `bridge=failed step=local why=cannot reach …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it was at.
    pub step: Stage,
    /// The error's text.
    pub why: String,
}

impl From<&BridgeError> for Report {
    fn from(error: &BridgeError) -> Self {
        Self {
            step: error.step(),
            why: error.to_string(),
        }
    }
}

impl Report {
    /// Whether the other end has gone without an end, or the way to it.
    pub fn tells_a_cut(&self) -> bool {
        self.why.contains(&RecordError::Cut.to_string())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Stage::Local => "local",
            Stage::Rendezvous => "rendezvous",
            Stage::Session => "session",
        };
        let why = self.why.replace(char::is_control, " ");
        write!(f, "{REPORT}step={step} why={why}")
    }
}

/// Some other line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a bridge's report")]
pub struct NoReport;

impl FromStr for Report {
    type Err = NoReport;

    fn from_str(line: &str) -> Result<Self, NoReport> {
        let rest = line.trim_end().strip_prefix(REPORT).ok_or(NoReport)?;
        let (step, why) = rest.split_once(" why=").ok_or(NoReport)?;
        let step = match step {
            "step=local" => Stage::Local,
            "step=rendezvous" => Stage::Rendezvous,
            "step=session" => Stage::Session,
            _ => return Err(NoReport),
        };
        let why = why.to_owned();
        Ok(Self { step, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was advised to look whether the service runs.
    #[test]
    fn whoever_changed_what_passed_is_named_by_the_hint_in_this_process_and_from_another_one() {
        let broken = |error| BridgeError::Broken(io::Error::new(io::ErrorKind::InvalidData, error));
        for (error, is_change) in [
            (RecordError::Length, true),
            (RecordError::OtherKeys, true),
            (RecordError::Changed, true),
            (RecordError::Order, true),
            (RecordError::Cut, false),
        ] {
            let error = broken(error);
            assert_eq!(error.hint() == Some(CHANGED), is_change, "{error}");
            let told = Report::from(&error);
            assert_eq!(BridgeError::hint_of(&told.why) == Some(CHANGED), is_change);
        }
    }
}
