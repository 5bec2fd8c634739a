//! One account name.

use std::{fmt, str::FromStr};

/// An account name in canonical form: leading `@`, lower case, no dots — `@alice`.
///
/// The only way in is [`FromStr`], so a function that takes an `AtSign` never checks it again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AtSign(String);

impl AtSign {
    /// With the `@`: `@alice`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the `@`: `alice`.
    pub fn bare(&self) -> &str {
        &self.0[1..]
    }
}

impl fmt::Display for AtSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no atSign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAtSign {
    /// Nothing is left after normalising.
    #[error("an atSign needs a name, such as @alice")]
    Empty,
    /// More than one `@`.
    #[error("more than one @ in {0:?}")]
    TwoAts(String),
    /// One of ``! * ' ` ( ) ; : & = + $ , / ? # [ ] { }``.
    #[error("a character that atSigns cannot have in {0:?}")]
    Reserved(String),
    /// White space.
    #[error("white space in {0:?}")]
    WhiteSpace(String),
    /// A control character.
    #[error("a control character in {0:?}")]
    Control(String),
}

impl FromStr for AtSign {
    type Err = BadAtSign;
    fn from_str(_typed: &str) -> Result<Self, BadAtSign> {
        todo!()
    }
}
