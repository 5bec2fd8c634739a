//! ○ What stands in the way of a session, and the flags that do without it.

use crate::{
    at::AtSign,
    np::{envelope::EnvelopeError, ids::DeviceName},
};

/// What stands in the way of a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// An old daemon.
    #[error("the daemon {device}{at} (version {version}) cannot {what}")]
    Lacks {
        /// Name of the device.
        device: DeviceName,
        /// Its atSign.
        at: AtSign,
        /// What it says it is.
        version: String,
        /// The missing ability.
        what: &'static str,
        /// The flag that does without it.
        without: Option<&'static str>,
    },
    /// An old rendezvous.
    #[error("the rendezvous {via} does not check who uses its ports")]
    OldRendezvous {
        /// Its atSign.
        via: AtSign,
        /// The flags that do without.
        without: &'static str,
    },
    /// Asked for in the words of a generation that has none for it.
    #[error("{0} cannot be asked for in the words of that generation")]
    Unspeakable(&'static str),
    /// Encryption needs a fresh key of ours.
    #[error("there is no key for the session's keys")]
    NoEphemeral,
    /// We could not sign.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// Flags that leave a protection out: ours, and how the classic programs call it.
pub const NO_ENCRYPT: &str = "--no-encrypt (classic: --no-et)";

/// See [`NO_ENCRYPT`].
pub const NO_ADMIT_DEVICE: &str = "--no-admit-device (classic: --no-ad)";

/// See [`NO_ENCRYPT`].
pub const NO_ADMIT: &str = "--no-admit-client and --no-admit-device (classic: --no-ac and --no-ad)";

/// See [`NO_ENCRYPT`].
pub(super) const NO_REQUIRE: &str = "leave out --require authenticated";

impl SessionError {
    /// The flag that would allow the session all the same, with less protection.
    pub fn without(&self) -> Option<&'static str> {
        match self {
            Self::Lacks { without, .. } => *without,
            Self::OldRendezvous { without, .. } => Some(without),
            _ => None,
        }
    }
}
