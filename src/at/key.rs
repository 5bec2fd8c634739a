//! The name under which a value is stored: `@bob:req.dev1.sshnp@alice`.
//!
//! ```text
//!   cached:  @bob:         req.dev1.sshnp   @alice
//!            public:           '── entity   '── owner
//!            private:
//!            privatekey:                    (no owner)
//!   '─ copy  '─ scope          └─ its namespace is the part behind the last dot
//! ```

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

/// Entities of `privatekey:` keys that atServers use.
const PRIVATE_KEYS: [&str; 7] = [
    "at_pkam_publickey",
    "at_pkam_privatekey",
    "privatekey",
    "self_encryption_key",
    "at_secret",
    "at_secret_deleted",
    "signing_keypair_generated",
];

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

    /// `privatekey:<entity>`, the server's own.
    pub fn private_key(entity: &str) -> Self {
        Self {
            cached: false,
            scope: Scope::PrivateKey,
            entity: entity.to_lowercase(),
            owner: None,
        }
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

    /// This key with an owner, where a command left it out. Keys of the server itself stay without.
    pub fn owned_by(self, owner: &AtSign) -> Self {
        let owner = match self.scope {
            Scope::PrivateKey => None,
            _ => self.owner.or_else(|| Some(owner.clone())),
        };
        Self { owner, ..self }
    }

    /// Whom the key is shared with.
    pub fn with(&self) -> Option<&AtSign> {
        match &self.scope {
            Scope::Shared(with) => Some(with),
            _ => None,
        }
    }

    /// Everyone may read it (`public:`, hidden or not).
    pub fn is_public(&self) -> bool {
        self.scope == Scope::Public
    }

    /// One of the two copies of a shared AES key: `@bob:shared_key@alice` or `shared_key.bob@alice`.
    pub fn is_shared_key(&self) -> bool {
        match self.scope {
            Scope::Shared(_) => self.entity == "shared_key",
            Scope::Own => self.entity.starts_with("shared_key."),
            _ => false,
        }
    }

    /// The owner cannot delete these: they are what others know the atSign by.
    pub fn is_protected(&self) -> bool {
        if self.cached {
            return false;
        }
        match &self.scope {
            Scope::Public => matches!(self.entity.as_str(), "publickey" | "signing_publickey"),
            Scope::Shared(with) => {
                self.entity == "signing_privatekey" && Some(with) == self.owner.as_ref()
            }
            Scope::PrivateKey => self.entity == "at_pkam_publickey",
            _ => false,
        }
    }

    /// Keys with a meaning in the protocol itself. No namespace is needed for them, but the server's
    /// own (`private:`, `privatekey:`) among them stay closed to everybody.
    ///
    /// Source: at_server:packages/at_persistence_secondary_server, at_libraries:packages/at_commons
    /// (`at_key_regex_utils.dart`)
    pub fn is_reserved(&self) -> bool {
        let entity = self.entity.as_str();
        match &self.scope {
            _ if self.is_shared_key() => true,
            Scope::Public => matches!(entity, "publickey" | "signing_publickey"),
            Scope::Shared(_) => self.is_protected(),
            Scope::Own => {
                entity == "configkey" || (entity.starts_with('_') && self.owner.is_none())
            }
            Scope::Private => entity == "blocklist",
            Scope::PrivateKey => {
                PRIVATE_KEYS.contains(&entity) || entity.ends_with("compactionstats")
            }
        }
    }

    /// As [`FromStr`], but the entity keeps its case, as notifications do.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub fn parse_as_written(text: &str) -> Result<Self, BadKey> {
        let max = if text.starts_with("cached:") {
            MAX_CACHED_KEY
        } else {
            MAX_KEY
        };
        if text.len() > max {
            return Err(BadKey::TooLong(text.len(), max));
        }
        parse(text).ok_or_else(|| BadKey::Form(text.to_owned()))
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

    /// Reads a whole key. Stored keys are lower case, so the entity is made so.
    fn from_str(text: &str) -> Result<Self, BadKey> {
        // Twice, because a few symbols have lower-case forms that keys cannot have (the ohm sign).
        Self::parse_as_written(text)?;
        Self::parse_as_written(&text.to_lowercase())
    }
}

fn parse(text: &str) -> Option<AtKey> {
    let (cached, rest) = match strip_word(text, "cached:") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (scope, rest) = if let Some(rest) = strip_word(rest, "public:") {
        (Scope::Public, rest)
    } else if let Some(rest) = strip_word(rest, "privatekey:") {
        (Scope::PrivateKey, rest)
    } else if let Some(rest) = strip_word(rest, "private:") {
        (Scope::Private, rest)
    } else if let Some(rest) = rest.strip_prefix('@') {
        let (with, rest) = rest.split_once(':')?;
        (Scope::Shared(name(with)?), rest)
    } else {
        (Scope::Own, rest)
    };
    let (entity, owner) = match rest.rsplit_once('@') {
        Some((entity, owner)) => (entity, Some(name(owner)?)),
        None => (rest, None),
    };
    let sound = !entity.is_empty() && entity.chars().all(is_entity_char);
    // A copy is somebody's, and the server's own keys are never copied.
    let copy_of_nobody = cached && (owner.is_none() || matches!(scope, Scope::Private));
    let owned_private_key = scope == Scope::PrivateKey && (owner.is_some() || cached);
    (sound && !copy_of_nobody && !owned_private_key).then(|| AtKey {
        cached,
        scope,
        entity: entity.to_owned(),
        owner,
    })
}

/// The words in front are taken in any case: stored keys are lower case whatever was typed.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| &text[word.len()..])
}

/// An atSign inside a key has fewer characters to choose from than one that stands alone.
fn name(bare: &str) -> Option<AtSign> {
    let atsign: AtSign = bare.parse().ok()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-') || is_emoji(c);
    (!bare.starts_with('@') && atsign.bare().chars().all(fits)).then_some(atsign)
}

/// Whether keys can have this owner.
pub fn can_own(who: &AtSign) -> bool {
    name(who.bare()).is_some()
}

fn is_entity_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.'*\"-".contains(c) || is_emoji(c)
}

/// What key grammars take for an emoji. White space lies in those blocks too and is left out.
///
/// Source: at_libraries:packages/at_commons/lib/src/utils/at_key_regex_utils.dart
fn is_emoji(c: char) -> bool {
    let block = matches!(c,
        '\u{a9}' | '\u{ae}' | '\u{2000}'..='\u{3300}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f000}'..='\u{1fbff}');
    block && !c.is_whitespace()
}

impl fmt::Display for AtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cached {
            f.write_str("cached:")?;
        }
        match &self.scope {
            Scope::Public => f.write_str("public:")?,
            Scope::Shared(with) => write!(f, "{with}:")?,
            Scope::Own => {}
            Scope::Private => f.write_str("private:")?,
            Scope::PrivateKey => f.write_str("privatekey:")?,
        }
        f.write_str(&self.entity)?;
        match &self.owner {
            Some(owner) => write!(f, "{owner}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn atsign(name: &str) -> AtSign {
        name.parse().unwrap()
    }

    #[test]
    fn every_kind_of_key_prints_as_it_was_read() {
        for text in [
            "public:publickey@alice",
            "public:__x.ns@alice",
            "@bob:req.dev1.sshnp@alice",
            "@alice:signing_privatekey@alice",
            "cfg.sshnp@alice",
            "_x.ns@alice",
            "cached:@alice:x.ns@bob",
            "cached:public:publickey@bob",
            "privatekey:at_pkam_publickey",
            "privatekey:at_secret",
            "shared_key.bob@alice",
            "@bob:shared_key@alice",
            "private:blocklist@alice",
            "configkey",
            "dev-1.sshnp@alice",
            "it's*\"x\".ns@alice🛠",
            "@😀bob:⌚.ns@👩‍💻",
        ] {
            let key: AtKey = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn names_are_brought_into_canonical_form() {
        for (text, want) in [
            ("@Bob:Req.Dev1@Alice", "@bob:req.dev1@alice"),
            ("PUBLIC:X@colin.constable", "public:x@colinconstable"),
            ("Cached:Public:x@bob", "cached:public:x@bob"),
        ] {
            assert_eq!(text.parse::<AtKey>().unwrap().to_string(), want, "{text}");
        }
        let written = AtKey::parse_as_written("@Bob:Req.Dev1@Alice").unwrap();
        assert_eq!(written.to_string(), "@bob:Req.Dev1@alice");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "@alice",
            "@bob:@alice",
            "public:@alice",
            "a b@alice",
            "a:b@alice",
            "a\u{2028}b@alice",
            "local:x@alice",
            "@bob:x@é",
            "@é:x@bob",
            "@@bob:x@alice",
            "x@@alice",
            "x@",
            "é@alice",
            "privatekey:x@alice",
            "cached:privatekey:x",
            "cached:private:x@alice",
            "cached:x",
            "public:public:x@alice",
        ] {
            assert!(
                matches!(text.parse::<AtKey>(), Err(BadKey::Form(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn length_limits_differ_for_copies() {
        for (prefix, max) in [("", MAX_KEY), ("cached:", MAX_CACHED_KEY)] {
            let of = |len: usize| format!("{prefix}{}@bob", "x".repeat(len - prefix.len() - 4));
            assert!(of(max).parse::<AtKey>().is_ok(), "{prefix}{max}");
            let too_long = of(max + 1).parse::<AtKey>();
            assert_eq!(too_long, Err(BadKey::TooLong(max + 1, max)), "{prefix}");
        }
    }

    #[test]
    fn roles_of_keys() {
        // reserved, shared key, protected
        for (text, want) in [
            ("public:publickey@alice", "r.p"),
            ("public:signing_publickey@alice", "r.p"),
            ("@alice:signing_privatekey@alice", "r.p"),
            ("@bob:signing_privatekey@alice", "..."),
            ("cached:public:publickey@bob", "r.."),
            ("@bob:shared_key@alice", "rs."),
            ("cached:@alice:shared_key@bob", "rs."),
            ("shared_key.bob@alice", "rs."),
            ("public:shared_key@alice", "..."),
            ("shared_key@alice", "..."),
            ("privatekey:at_secret", "r.."),
            ("privatekey:at_pkam_publickey", "r.p"),
            ("privatekey:other", "..."),
            ("private:blocklist@alice", "r.."),
            ("private:x@alice", "..."),
            ("public:__x.ns@alice", "..."),
            ("_x.ns@alice", "..."),
            ("_x", "r.."),
            ("x.ns@alice", "..."),
        ] {
            let key: AtKey = text.parse().unwrap();
            let got: String = [
                (key.is_reserved(), 'r'),
                (key.is_shared_key(), 's'),
                (key.is_protected(), 'p'),
            ]
            .iter()
            .map(|(is, letter)| if *is { *letter } else { '.' })
            .collect();
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn an_owner_is_only_added_where_one_belongs() {
        let me = atsign("@alice");
        for (text, want) in [
            ("x.ns", "x.ns@alice"),
            ("x.ns@bob", "x.ns@bob"),
            ("privatekey:at_secret", "privatekey:at_secret"),
        ] {
            let key: AtKey = text.parse().unwrap();
            assert_eq!(key.owned_by(&me).to_string(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn built_keys_survive_the_wire(
            kind in 0..4, cached: bool, entity in "[a-z0-9_.'*\"-]{1,40}", owner in "[a-z0-9_-]{1,20}",
            with in "[a-z0-9_-]{1,20}",
        ) {
            let (owner, with) = (atsign(&owner), atsign(&with));
            let key = match kind {
                0 => AtKey::public(&entity, &owner),
                1 => AtKey::shared(&with, &entity, &owner),
                2 => AtKey::own(&entity, &owner),
                _ => AtKey {
                    scope: Scope::Private,
                    ..AtKey::own(&entity, &owner)
                },
            };
            let key = if cached && kind != 3 { key.cached() } else { key };
            prop_assert_eq!(key.to_string().parse::<AtKey>(), Ok(key));
        }

        #[test]
        fn whatever_is_accepted_prints_to_itself(text in "(cached:)?(public:|@b.B:)?[ -~é😀]{0,12}(@[a-z.]{0,4})?") {
            if let Ok(key) = text.parse::<AtKey>() {
                prop_assert_eq!(key.to_string().parse::<AtKey>(), Ok(key));
            }
        }
    }
}
