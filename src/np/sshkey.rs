//! ssh's own keys, where they travel in messages: a public key to be let in, a private key to log in with.
//!
//! ```text
//!   client ── sshpublickey: one line ─▶ daemon       becomes a line of authorized_keys, so it must be one line
//!   client ◀── sshpublickey: SHA256:… added ── daemon    ours: what became of it; signed by nobody
//!   client ── privatekey: PEM ────────▶ daemon       only for reverse ssh
//!   client ◀── ephemeralPrivateKey: PEM ── daemon    inside an answer
//! ```
//!
//! Neither is ever interpreted here; but what does not have the form of a key goes no further.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart (the prefixes).

use std::fmt;

use ring::digest::{SHA256, digest};

use super::{Message, NAMESPACE, ids::DeviceName};
use crate::{
    at::{AtSign, crypto},
    secret::Secret,
    text::terminal::cut,
};

/// Longest public key line, in bytes. An RSA key of 16384 bits has 2.8 KB.
pub const MAX_PUBLIC_KEY: usize = 6 * 1024;
/// Longest private key, in bytes. An RSA key of 16384 bits has 12.6 KB.
pub const MAX_PRIVATE_KEY: usize = 16 * 1024;
/// Longest reason that is told, in characters.
const LONGEST_REASON: usize = 300;
/// Longest line of a private key. OpenSSH writes 70.
const MAX_PEM_LINE: usize = 128;

/// What a public key's first word may be, or begin with where the table says so.
const KINDS: &[(&str, bool)] = &[
    ("ssh-ed25519", false),
    ("ssh-rsa", false),
    ("rsa-sha2-", true),
    ("ecdsa-sha2-nistp", true),
    ("sk-ssh-ed25519@openssh.com", false),
    ("sk-ecdsa-sha2-nistp256@openssh.com", false),
];

/// Not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSshKey {
    /// Longer than keys are.
    #[error("the ssh key is too long")]
    TooLong,
    /// Line ends and other control characters: it would become more than one line.
    #[error("the ssh key is not one line of text")]
    NotOneLine,
    /// Another first word than those of keys.
    #[error("the ssh key's type is not known")]
    Kind,
    /// What should be the key is none of that type.
    #[error("the ssh key's body is damaged")]
    Body,
    /// Not a private key in PEM form without a pass phrase.
    #[error("the private ssh key is not a plain PEM text")]
    Pem,
}

/// One OpenSSH public key: `ssh-ed25519 AAAA… alice@laptop`. Without options: those are not for the sender
/// to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeyLine(String);

impl PublicKeyLine {
    /// Checks a line. White space at its ends is dropped.
    ///
    /// # Errors
    /// See [`BadSshKey`].
    pub fn parse(text: &str) -> Result<Self, BadSshKey> {
        let line = text.trim();
        if line.len() > MAX_PUBLIC_KEY {
            return Err(BadSshKey::TooLong);
        }
        // Unicode's own line ends too: not all readers agree on what ends a line.
        if line.contains(|c: char| c.is_control() || "\u{2028}\u{2029}".contains(c)) {
            return Err(BadSshKey::NotOneLine);
        }
        let mut words = line.split(' ');
        let (kind, body) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let is_known = KINDS.iter().any(|&(known, longer)| {
            if longer {
                kind.strip_prefix(known).is_some_and(is_plain_tail)
            } else {
                kind == known
            }
        });
        if !is_known {
            return Err(BadSshKey::Kind);
        }
        let bytes = crypto::from_base64(body).map_err(|_| BadSshKey::Body)?;
        names_its_kind(&bytes, kind)
            .then(|| Self(line.to_owned()))
            .ok_or(BadSshKey::Body)
    }

    /// The line, without its LF.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The message that asks a daemon to let it in.
    pub fn message(&self, to: &AtSign, device: &DeviceName) -> Message {
        Message::new(to, entity(device), self.0.clone())
    }

    /// What others can know it by: two clients of one atSign may send keys at the same time.
    fn name(&self) -> String {
        let body = self.0.split(' ').nth(1).unwrap_or_default();
        format!(
            "SHA256:{}",
            crypto::to_base64(digest(&SHA256, body.as_bytes()).as_ref())
        )
    }

    /// The message that tells a client what became of it.
    pub fn told(&self, fate: &KeyFate, to: &AtSign, device: &DeviceName) -> Message {
        let fate = match fate {
            KeyFate::Added => "added",
            KeyFate::Known => "known",
            KeyFate::Lost(why) => &format!("lost {}", cut(why, LONGEST_REASON)),
        };
        Message::new(to, entity(device), format!("{} {fate}", self.name()))
    }

    /// Reads that message; `None` when it is about another key, or makes no sense.
    pub fn fate(&self, text: &str) -> Option<KeyFate> {
        let fate = text.strip_prefix(&self.name())?.strip_prefix(' ')?;
        match fate.split_once(' ').unwrap_or((fate, "")) {
            ("added", _) => Some(KeyFate::Added),
            ("known", _) => Some(KeyFate::Known),
            ("lost", why) => Some(KeyFate::Lost(cut(why, LONGEST_REASON))),
            _ => None,
        }
    }
}

/// What a device has made of a public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFate {
    /// It is let in from now on.
    Added,
    /// It was let in before.
    Known,
    /// It is not let in, and why.
    Lost(String),
}

/// `sshpublickey.<device>.sshnp`, in both directions.
pub fn entity(device: &DeviceName) -> String {
    format!("sshpublickey.{device}.{NAMESPACE}")
}

impl fmt::Display for PublicKeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain_tail(tail: &str) -> bool {
    !tail.is_empty() && tail.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// A key's body begins with the name of its type, length first. `rsa-sha2-…` names the signature, the key
/// itself is `ssh-rsa`.
fn names_its_kind(body: &[u8], kind: &str) -> bool {
    let kind = if kind.starts_with("rsa-sha2-") {
        "ssh-rsa"
    } else {
        kind
    };
    let Some((length, rest)) = body.split_at_checked(4) else {
        return false;
    };
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    length == kind.len() && rest.len() > length && rest.starts_with(kind.as_bytes())
}

/// Checks a private key and gives it line ends as ssh wants them.
///
/// # Errors
/// [`BadSshKey::TooLong`] or [`BadSshKey::Pem`].
pub fn private_key(text: &str) -> Result<Secret<String>, BadSshKey> {
    if text.len() > MAX_PRIVATE_KEY {
        return Err(BadSshKey::TooLong);
    }
    let mut lines = text.trim().lines();
    let label = lines
        .next()
        .and_then(|line| line.strip_prefix("-----BEGIN "))
        .and_then(|line| line.strip_suffix("-----"))
        .filter(|label| is_label(label))
        .ok_or(BadSshKey::Pem)?;
    let mut pem = zeroize::Zeroizing::new(String::with_capacity(text.len() + 1));
    *pem += &format!("-----BEGIN {label}-----\n");
    let mut filled = false;
    for line in lines.by_ref() {
        if line == format!("-----END {label}-----") {
            *pem += line;
            *pem += "\n";
            let is_last = lines.next().is_none();
            let whole = (filled && is_last).then(|| Secret::new(std::mem::take(&mut *pem)));
            return whole.ok_or(BadSshKey::Pem);
        }
        let is_base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
        if line.is_empty() || line.len() > MAX_PEM_LINE || !line.bytes().all(is_base64) {
            return Err(BadSshKey::Pem);
        }
        filled = true;
        *pem += line;
        *pem += "\n";
    }
    Err(BadSshKey::Pem)
}

/// `OPENSSH PRIVATE KEY`, `RSA PRIVATE KEY`, `PRIVATE KEY`; what is under a pass phrase is of no use.
fn is_label(label: &str) -> bool {
    let kind = match label.strip_suffix("PRIVATE KEY") {
        Some("") => return true,
        Some(kind) => kind,
        None => return false,
    };
    ["OPENSSH ", "RSA ", "EC "].contains(&kind)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn a_public_key_is_one_line_of_a_known_type_whose_body_says_the_same() {
        let with = |tail: &str| format!("{ED25519}{tail}");
        for (line, want) in [
            (ED25519.to_owned(), Ok(())),
            (with(" alice@laptop"), Ok(())),
            (with(" a comment of some words"), Ok(())),
            (with("\n"), Ok(())),
            ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB".to_owned(), Ok(())),
            ("rsa-sha2-512 AAAAB3NzaC1yc2EAAAADAQAB".to_owned(), Ok(())),
            (with(" x\nssh-ed25519 AAAA"), Err(BadSshKey::NotOneLine)),
            (with(" x\rcommand"), Err(BadSshKey::NotOneLine)),
            (with(" x\0"), Err(BadSshKey::NotOneLine)),
            (with(" x\u{2028}y"), Err(BadSshKey::NotOneLine)),
            (with(" x\u{85}y"), Err(BadSshKey::NotOneLine)),
            (format!("command=\"id\" {ED25519}"), Err(BadSshKey::Kind)),
            (format!("  {ED25519}"), Ok(())),
            ("ssh-dss AAAAB3NzaC1kc3M=".to_owned(), Err(BadSshKey::Kind)),
            ("ecdsa-sha2-nistp AAAA".to_owned(), Err(BadSshKey::Kind)),
            ("ssh-ed25519x AAAA".to_owned(), Err(BadSshKey::Kind)),
            (String::new(), Err(BadSshKey::Kind)),
            ("ssh-ed25519".to_owned(), Err(BadSshKey::Body)),
            ("ssh-ed25519 AAAA".to_owned(), Err(BadSshKey::Body)),
            (ED25519.replace("C3Nz", "C3N?"), Err(BadSshKey::Body)),
            (
                ED25519.replace("ssh-ed25519 ", "ssh-rsa "),
                Err(BadSshKey::Body),
            ),
            (with(&" x".repeat(MAX_PUBLIC_KEY)), Err(BadSshKey::TooLong)),
        ] {
            assert_eq!(PublicKeyLine::parse(&line).map(drop), want, "{line:?}");
        }
        let ours = PublicKeyLine::parse(&with(" a\n")).unwrap();
        assert_eq!(ours.as_str(), with(" a"));
        let message = ours.message(&"@d".parse().unwrap(), &"dev1".parse().unwrap());
        assert_eq!(message.entity, "sshpublickey.dev1.sshnp");
    }

    #[test]
    fn what_became_of_a_key_is_told_of_that_key_only() {
        let key = PublicKeyLine::parse(&format!("{ED25519} a")).unwrap();
        let other = PublicKeyLine::parse("ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB").unwrap();
        let (to, device) = ("@me".parse().unwrap(), "pi".parse().unwrap());
        let full = KeyFate::Lost("No space left on device (os error 28)".to_owned());
        for fate in [KeyFate::Added, KeyFate::Known, full] {
            let message = key.told(&fate, &to, &device);
            assert_eq!(message.entity, "sshpublickey.pi.sshnp");
            assert_eq!(key.fate(&message.text), Some(fate));
            assert_eq!(other.fate(&message.text), None);
        }
        for text in ["", "added", ED25519, &format!("{} gone", key.name())] {
            assert_eq!(key.fate(text), None, "{text}");
        }
        let long = KeyFate::Lost("x\u{1b}[31m".repeat(1000));
        let Some(KeyFate::Lost(why)) = key.fate(&key.told(&long, &to, &device).text) else {
            panic!("it is about this key");
        };
        assert_eq!(why.chars().count(), LONGEST_REASON);
    }

    #[test]
    fn a_private_key_is_a_pem_text_and_nothing_else() {
        let begin = "-----BEGIN OPENSSH PRIVATE KEY-----";
        let end = "-----END OPENSSH PRIVATE KEY-----";
        let whole = format!("{begin}\nAAAA\nBBB=\n{end}\n");
        for (text, fine) in [
            (whole.clone(), true),
            (whole.trim().to_owned(), true),
            (whole.replace('\n', "\r\n"), true),
            (whole.replace("OPENSSH", "RSA"), true),
            (whole.replace("OPENSSH ", ""), true),
            (whole.replace("OPENSSH", "ENCRYPTED"), false),
            (whole.replace("PRIVATE", "PUBLIC"), false),
            (whole.replace("AAAA", "AA AA"), false),
            (whole.replace("AAAA", "Proc-Type: 4,ENCRYPTED"), false),
            (whole.replace("AAAA", ""), false),
            (whole.replace("AAAA", &"A".repeat(MAX_PEM_LINE + 1)), false),
            (format!("{begin}\n{end}\n"), false),
            (format!("{whole}{whole}"), false),
            (whole.replace(end, ""), false),
            (whole.replace(begin, ""), false),
            ("connected".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(private_key(&text).is_ok(), fine, "{text:?}");
        }
        let windows = whole.replace('\n', "\r\n");
        assert_eq!(private_key(&windows).unwrap().reveal(), &whole);
        let long = whole.replace("AAAA", &"AAAA\n".repeat(MAX_PRIVATE_KEY / 5));
        assert_eq!(private_key(&long).map(drop), Err(BadSshKey::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_believed_is_one_line(text in ".{0,80}", tail in ".{0,80}") {
            for line in [text.clone(), format!("{ED25519} {tail}")] {
                if let Ok(key) = PublicKeyLine::parse(&line) {
                    proptest::prop_assert_eq!(key.as_str().lines().count(), 1);
                }
            }
            let _ = private_key(&text);
        }
    }
}
