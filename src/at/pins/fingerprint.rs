//! ○ What people compare: a short text that stands for a key.

use std::{fmt, str::FromStr};

use crate::at::{
    AtSign,
    crypto::{PublicKey, from_base64},
};

/// Length of a digest.
const DIGEST: usize = 32;

/// What stands for a public key: base64 of a SHA-256, 43 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of this key, in whatever way it was written.
    pub fn of(key: &PublicKey) -> Self {
        Self(key.fingerprint().trim_end_matches('=').to_owned())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match from_base64(&format!("{text}=")) {
            Ok(digest) if digest.len() == DIGEST => Ok(Self(text.to_owned())),
            _ => Err(format!(
                "{text:?} is no fingerprint of a key: it has 43 characters, and `noports trust show @you` tells it"
            )),
        }
    }
}

/// `@bob`, or `@bob#fingerprint`.
///
/// # Errors
/// In words for who typed it.
pub fn named(word: &str) -> Result<(AtSign, Option<Fingerprint>), String> {
    let (name, fingerprint) = match word.split_once('#') {
        Some((name, fingerprint)) => (name, Some(fingerprint.parse()?)),
        None => (word, None),
    };
    let name = name.parse::<AtSign>().map_err(|bad| bad.to_string())?;
    Ok((name, fingerprint))
}

/// Keys that a command line names.
pub type NamedKeys = Vec<(AtSign, Fingerprint)>;

/// All of these, and the keys of those that are named with one.
///
/// # Errors
/// As [`named`].
pub fn all_named<'a>(
    words: impl Iterator<Item = &'a str>,
) -> Result<(Vec<AtSign>, NamedKeys), String> {
    let (mut all, mut keys) = (Vec::new(), Vec::new());
    for word in words {
        let (who, key) = named(word)?;
        keys.extend(key.map(|key| (who.clone(), key)));
        all.push(who);
    }
    Ok((all, keys))
}
