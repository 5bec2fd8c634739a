//! ○ Why a key is not believed, and the way back.

use super::Fingerprint;
use crate::at::AtSign;

/// Why a key is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// It is another one than before.
    #[error("the key of {who} is another one than before: {now} instead of {known}")]
    Changed {
        /// Whose.
        who: AtSign,
        /// The one that is believed.
        known: Fingerprint,
        /// The one that its atServer tells now.
        now: Fingerprint,
        /// The believed one stands on the command line.
        is_named: bool,
    },
    /// There are remembered keys, and nobody can tell which.
    #[error("the keys that are remembered cannot be read: {0}")]
    Unreadable(String),
}

impl PinError {
    /// The way back.
    pub fn hint(&self) -> String {
        match self {
            Self::Changed {
                who,
                now,
                is_named: true,
                ..
            } => format!("if {who} has new keys, name {who}#{now} instead"),
            Self::Changed { who, now, .. } => format!(
                "if {who} has new keys and says that this is one of them: noports trust {who} --fingerprint {now}"
            ),
            Self::Unreadable(_) => {
                "mend that file, or remove it: then the first key that is seen counts".to_owned()
            }
        }
    }
}
