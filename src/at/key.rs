//! The name under which a value is stored: `@bob:req.dev1.sshnp@alice`.

use std::{fmt, str::FromStr};

use super::atsign::AtSign;

/// Who may read a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `public:` — everyone.
    Public,
    /// `@bob:` — the owner and this atSign.
    Shared(AtSign),
    /// No prefix — the owner.
    Own,
    /// `private:` — the server itself.
    Private,
    /// `privatekey:` — the server itself; has no owner part.
    PrivateKey,
}

/// A key, taken apart. `Display` prints the wire form again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AtKey {
    /// Starts with `cached:`: our copy of somebody else's value.
    pub cached: bool,
    /// Who may read it.
    pub scope: Scope,
    /// The name, namespace included: `req.dev1.sshnp`.
    pub entity: String,
    /// The owner; absent only in reserved keys and where a command left it to the server.
    pub owner: Option<AtSign>,
}

/// Longest key: 248 bytes, or 255 when it starts with `cached:`.
pub const MAX_KEY: usize = 248;
/// Longest key that starts with `cached:`.
pub const MAX_CACHED_KEY: usize = 255;

impl AtKey {
    /// `public:<entity>@owner`
    pub fn public(entity: &str, owner: &AtSign) -> Self {
        Self::new(Scope::Public, entity, owner)
    }
    /// `@with:<entity>@owner`
    pub fn shared(with: &AtSign, entity: &str, owner: &AtSign) -> Self {
        Self::new(Scope::Shared(with.clone()), entity, owner)
    }
    /// `<entity>@owner`
    pub fn own(entity: &str, owner: &AtSign) -> Self {
        Self::new(Scope::Own, entity, owner)
    }
    fn new(scope: Scope, entity: &str, owner: &AtSign) -> Self {
        Self {
            cached: false,
            scope,
            entity: entity.to_lowercase(),
            owner: Some(owner.clone()),
        }
    }
    /// Our cached copy of this key.
    pub fn cached(self) -> Self {
        Self {
            cached: true,
            ..self
        }
    }
    /// Text after the last dot of the entity, if there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.entity.rsplit_once('.').map(|(_, ns)| ns)
    }
}

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// The form is wrong.
    #[error("{0:?} is not a key")]
    Form(String),
    /// Too long.
    #[error("key length {0} is greater than max allowed {1} chars")]
    TooLong(usize, usize),
}

impl FromStr for AtKey {
    type Err = BadKey;
    fn from_str(_text: &str) -> Result<Self, BadKey> {
        todo!()
    }
}

impl fmt::Display for AtKey {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
