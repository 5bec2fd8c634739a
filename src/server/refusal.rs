//! Why a command is refused, as the wire tells it.

use crate::at::fault::{Code, Fault};

use super::store::StoreError;

/// Why a handler refuses.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) fault: Fault,
    /// Enrolment states have a form of their own.
    pub(super) state: bool,
    pub(super) close: bool,
    /// Refused, but proven: the signature is that of an enrolment which waits, or whose time is over.
    pub(super) proven: bool,
}

pub(super) fn refuse(code: Code, text: impl Into<String>) -> Refusal {
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
    pub(super) fn state(code: Code, text: impl Into<String>) -> Self {
        Self {
            state: true,
            ..refuse(code, text)
        }
    }

    /// An enrolment of this id is not there.
    pub(super) fn unknown_enrolment(id: &str) -> Self {
        Self::state(
            Code::EnrollmentExpired,
            format!("enrollment_id: {id} is expired or invalid"),
        )
    }

    /// To whoever sends a notification that no monitor could be shown. The sender's server tries no more, and goes on
    /// with the next.
    pub(super) fn too_long_to_show() -> Self {
        let text = "the notification is longer than a monitor can be shown";
        Self {
            close: false,
            ..refuse(Code::BufferLimit, text)
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
