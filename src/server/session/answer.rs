//! What handlers of commands say: an answer or a refusal. The session turns either into bytes.

use std::time::Duration;

use crate::{
    at::fault::{Code, Fault},
    server::store::StoreError,
};

use super::FollowUp;

/// What a handler answers.
pub(super) enum CommandAnswer {
    /// `data:<text>`
    Data(String),
    /// `data: <text>`: two verbs have a blank there.
    Spaced(String),
    /// The prompt alone.
    Prompt,
    /// Nothing yet, or nothing at all.
    Next(FollowUp),
    /// As `Data`, then close after this long.
    Last(String, Duration),
}

/// Why a handler refuses.
#[derive(Debug)]
pub(in crate::server) struct Refusal {
    pub(super) fault: Fault,
    /// Enrolment states have a form of their own.
    pub(super) state: bool,
    pub(super) close: bool,
    /// Refused, but proven: the signature is that of an enrolment which waits, or whose time is over.
    pub(super) proven: bool,
}

pub(in crate::server) fn refuse(code: Code, text: impl Into<String>) -> Refusal {
    Refusal {
        close: matches!(
            code,
            Code::DataStore | Code::BufferLimit | Code::Blocked | Code::Paused
        ),
        fault: Fault::new(code, text),
        state: false,
        proven: false,
    }
}

impl Refusal {
    /// In the form of enrolment states: `error:AT0026:…`.
    pub(in crate::server) fn state(code: Code, text: impl Into<String>) -> Self {
        Self {
            state: true,
            ..refuse(code, text)
        }
    }
    pub(super) fn closing(self) -> Self {
        Self {
            close: true,
            ..self
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(why: StoreError) -> Self {
        log::error!("store reason={why}");
        let text = match why {
            StoreError::Full => "the disk is full",
            _ => "the store failed",
        };
        refuse(Code::DataStore, text)
    }
}
