//! ○ What a bridge tells who started it, line by line on stderr.
//!
//! ```text
//!   rv first word                                                     a tunnel's client has spoken; ssh has come
//!   bridge=target service=nas:80 times=1 why=nas:80: refused          the device's service could not be had
//!   bridge=failed step=session why=the session broke off: reset       why it ends
//!   bridge=carried up=52 down=1090 seconds=12                         the last line
//! ```
//! Everything else is its log.

use std::{fmt, str::FromStr};

use super::{SPOKEN, error::Report};

const TARGET: &str = "bridge=target service=";
const CARRIED: &str = "bridge=carried up=";

/// One line of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeNews {
    /// The client has said its first word.
    Spoken,
    /// A service could not be had.
    Target(TargetFailure),
    /// Why it ends.
    Failed(Report),
    /// What it has carried.
    Carried(Totals),
}

/// A service that could not be reached, or broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TargetFailure {
    pub service: String,
    /// How often since it was last told.
    pub times: u64,
    pub why: String,
}

/// What a session has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes to the other end.
    pub up: u64,
    /// Bytes from there.
    pub down: u64,
    /// How long it lasted.
    pub seconds: u64,
}

impl fmt::Display for BridgeNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spoken => f.write_str(SPOKEN),
            Self::Failed(report) => report.fmt(f),
            Self::Target(TargetFailure {
                service,
                times,
                why,
            }) => {
                let why = why.replace(char::is_control, " ");
                write!(f, "{TARGET}{service} times={times} why={why}")
            }
            Self::Carried(Totals { up, down, seconds }) => {
                write!(f, "{CARRIED}{up} down={down} seconds={seconds}")
            }
        }
    }
}

/// A line of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no news")]
pub struct NoNews;

impl FromStr for BridgeNews {
    type Err = NoNews;

    fn from_str(line: &str) -> Result<Self, NoNews> {
        let line = line.trim_end();
        if line == SPOKEN {
            return Ok(Self::Spoken);
        }
        if let Some(rest) = line.strip_prefix(TARGET) {
            return target(rest).map(Self::Target).ok_or(NoNews);
        }
        if let Some(rest) = line.strip_prefix(CARRIED) {
            return totals(rest).map(Self::Carried).ok_or(NoNews);
        }
        line.parse().map(Self::Failed).map_err(|_| NoNews)
    }
}

fn target(rest: &str) -> Option<TargetFailure> {
    let (service, rest) = rest.split_once(" times=")?;
    let (times, why) = rest.split_once(" why=")?;
    Some(TargetFailure {
        service: service.to_owned(),
        times: times.parse().ok()?,
        why: why.to_owned(),
    })
}

fn totals(rest: &str) -> Option<Totals> {
    let (up, rest) = rest.split_once(" down=")?;
    let (down, seconds) = rest.split_once(" seconds=")?;
    Some(Totals {
        up: up.parse().ok()?,
        down: down.parse().ok()?,
        seconds: seconds.parse().ok()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::session::bridge::Stage;

    #[test]
    fn news_read_back_as_what_was_told_and_a_log_is_none() {
        for news in [
            BridgeNews::Spoken,
            BridgeNews::Failed(Report {
                step: Stage::Session,
                why: "it broke".to_owned(),
            }),
            BridgeNews::Target(TargetFailure {
                service: "[::1]:80".to_owned(),
                times: 7,
                why: "[::1]:80: Connection refused (os error 111)".to_owned(),
            }),
            BridgeNews::Carried(Totals {
                up: 1,
                down: u64::MAX,
                seconds: 3,
            }),
        ] {
            assert_eq!(news.to_string().parse(), Ok(news));
        }
        for line in [
            "",
            "rv first words",
            "bridge=carried up=1 down=x seconds=3",
            "bridge=carried up=-1 down=1 seconds=3",
            "bridge=target service=a times=1",
            "bridge=else",
        ] {
            assert_eq!(line.parse::<BridgeNews>(), Err(NoNews), "{line}");
        }
    }
}
