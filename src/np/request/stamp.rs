//! When a request was signed, and for which run of its daemon: so that it is acted on at most once.
//!
//! ```text
//!   heartbeat  … ,"run":"<nonce>"}                       drawn anew whenever the daemon starts
//!   request    … ,"daemonRun":"<nonce>","signedAt":<milliseconds since 1970>}
//! ```
//! Only daemons that name their run are sent both members. They are a part of what is signed, so nobody between the two
//! can make an old request new.

use std::time::Duration;

use miniserde::{Deserialize, Serialize};

use super::RequestError;
use crate::np::ids::Nonce;

/// How old a request may be, and how far ahead of our clock: its notification lives a minute, and clocks differ.
pub const MAX_AGE: Duration = Duration::from_secs(180);

/// The two members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run of the daemon that it was signed for.
    pub run: Nonce,
    /// The signer's clock then, since 1970.
    pub at: Duration,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "daemonRun")]
    run: Option<String>,
    #[serde(rename = "signedAt")]
    at: Option<u64>,
}

impl Stamp {
    /// The members as an object.
    pub(super) fn print(&self) -> String {
        miniserde::json::to_string(&Wire {
            run: Some(self.run.to_string()),
            at: Some(u64::try_from(self.at.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// Of a payload; `None`: it comes from a client that has none. Half of it is a mistake.
    pub(super) fn of(payload: &str) -> Result<Option<Self>, RequestError> {
        let wire: Wire = miniserde::json::from_str(payload)
            .map_err(|_| RequestError::Member("daemonRun or signedAt"))?;
        match (wire.run, wire.at) {
            (None, None) => Ok(None),
            (Some(run), Some(at)) => Ok(Some(Self {
                run: run.parse()?,
                at: Duration::from_millis(at),
            })),
            _ => Err(RequestError::Member("daemonRun or signedAt")),
        }
    }

    /// How far its clock and ours are apart.
    pub fn age(&self, now: Duration) -> Duration {
        now.abs_diff(self.at)
    }
}
