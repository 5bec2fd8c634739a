//! Names that travel in messages and keys: sessions, devices, nonces.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// One client↔daemon connection: a UUID, lower case with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

impl SessionId {
    /// A new random one.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// Why a text is no name of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// Not a UUID in its hyphenated form.
    #[error("the session id is not a UUID")]
    Session,
    /// Not 1 to 36 of `a-z 0-9 _ -`.
    #[error(
        "{0:?} is not a device name: it needs 1 to 36 of a-z, 0-9, _ and -, the first one not a -"
    )]
    Device(String),
    /// Empty, too long, or with characters that do not survive the wire.
    #[error("the nonce cannot be used")]
    Nonce,
}

impl FromStr for SessionId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let id = Uuid::try_parse(text).map_err(|_| BadId::Session)?;
        // The parser knows more forms (braces, no hyphens); the id is part of a key, so only one may do.
        let canonical = id.as_hyphenated().to_string();
        if canonical.eq_ignore_ascii_case(text) {
            Ok(Self(id))
        } else {
            Err(BadId::Session)
        }
    }
}

/// Longest device name, in bytes.
pub const MAX_DEVICE_NAME: usize = 36;

/// The name of one daemon among those of its atSign: 1 to 36 of `a-z 0-9 _ -`.
///
/// Typed names are lower-cased and white space becomes `_`, as upstream does.
/// Source: noports:packages/dart/noports_core/lib/src/common/validation_utils.dart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceName(String);

impl DeviceName {
    /// The name used when nobody gives one.
    pub const DEFAULT: &str = "default";

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = BadId;

    fn from_str(typed: &str) -> Result<Self, BadId> {
        let name: String = typed
            .trim()
            .to_lowercase()
            .chars()
            .map(|c| if c.is_whitespace() { '_' } else { c })
            .collect();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        let ok = (1..=MAX_DEVICE_NAME).contains(&name.len())
            && name.chars().all(fits)
            && !name.starts_with('-');
        if ok {
            Ok(Self(name))
        } else {
            Err(BadId::Device(typed.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest nonce, in bytes.
pub const MAX_NONCE: usize = 128;

/// How the nonce of a rendezvous ends that joins sockets by their numbers. No other program writes such
/// nonces, and all take them as they are.
const NUMBERED: &str = "-pairs";
/// The same of those that take proofs of them: programs that only know numbers see those.
const PROVED: &str = "-proofs-pairs";

/// A text that makes one admission unlike every other. Opaque; upstream uses local time stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A new random one: 122 bits, as text that needs no escaping anywhere.
    pub fn random() -> Self {
        Self(Uuid::new_v4().as_simple().to_string())
    }

    /// A new random one of a rendezvous that takes numbers ([`super::pairs`]).
    pub fn random_numbered() -> Self {
        Self(Self::random().0 + NUMBERED)
    }

    /// A new random one of a rendezvous that also takes proofs of the numbers ([`super::proof`]).
    pub fn random_proved() -> Self {
        Self(Self::random().0 + PROVED)
    }

    /// Whether its rendezvous takes proofs of numbers.
    pub fn takes_proofs(&self) -> bool {
        self.0.ends_with(PROVED)
    }

    /// Whether its rendezvous takes numbers.
    pub fn takes_numbers(&self) -> bool {
        self.0.ends_with(NUMBERED)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nonce {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let fits = |b: u8| b.is_ascii_graphic() && !b",\"\\".contains(&b);
        let ok = (1..=MAX_NONCE).contains(&text.len()) && text.bytes().all(fits);
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadId::Nonce)
        }
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_made_canonical_or_refused() {
        for (typed, want) in [
            ("dev1", Some("dev1")),
            ("My Device", Some("my_device")),
            ("a", Some("a")),
            ("with-hyphen_2", Some("with-hyphen_2")),
            (" trimmed ", Some("trimmed")),
            ("", None),
            ("-x", None),
            ("a.b", None),
            ("a@b", None),
            ("é", None),
            (
                "abcdefghijklmnopqrstuvwxyz0123456789",
                Some("abcdefghijklmnopqrstuvwxyz0123456789"),
            ),
            ("abcdefghijklmnopqrstuvwxyz01234567890", None),
        ] {
            let got = typed.parse::<DeviceName>().ok();
            assert_eq!(got.as_ref().map(DeviceName::as_str), want, "{typed:?}");
        }
    }

    #[test]
    fn a_session_id_has_one_form() {
        let id = "6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11";
        assert_eq!(id.parse::<SessionId>().unwrap().to_string(), id);
        assert_eq!(
            id.to_uppercase().parse::<SessionId>().unwrap().to_string(),
            id
        );
        for bad in [
            "",
            "6f1c1c1e6d0a4a539d0a0d4f7a2b9c11",
            "{6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11}",
            "../x",
        ] {
            assert_eq!(bad.parse::<SessionId>(), Err(BadId::Session), "{bad:?}");
        }
    }

    #[test]
    fn a_nonce_survives_csv_and_json_unescaped() {
        for good in [
            "2024-10-24T10:15:31.654321",
            "null",
            Nonce::random().as_str(),
            Nonce::random_numbered().as_str(),
        ] {
            let nonce = good.parse::<Nonce>().unwrap();
            assert_eq!(nonce.as_str(), good);
            assert_eq!(nonce.takes_numbers(), good.ends_with("-pairs"), "{good}");
        }
        for bad in [
            "",
            "a,b",
            "a b",
            "a\"b",
            "a\\b",
            "a\nb",
            "é",
            &"x".repeat(MAX_NONCE + 1),
        ] {
            assert_eq!(bad.parse::<Nonce>(), Err(BadId::Nonce), "{bad:?}");
        }
    }
}
