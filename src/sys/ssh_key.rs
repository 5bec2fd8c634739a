//! An ssh key pair for one session, made without any file.
//!
//! ```text
//!   32 random bytes ─▶ Ed25519 ─▶ private: openssh-key-v1, not encrypted, in PEM lines
//!                              └▶ public:  ssh-ed25519 AAAA…
//! ```
//!
//! Source: openssh/openssh-portable:PROTOCOL.key (the private form) and RFC 8709 (the public one).

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};

use crate::secret::Secret;

/// The only type of key that is made.
const TYPE: &str = "ssh-ed25519";
/// Characters per line of PEM, as OpenSSH writes it.
const COLUMNS: usize = 70;
/// What the private part is padded to, in bytes.
const BLOCK: usize = 8;

/// A fresh Ed25519 pair in OpenSSH's forms.
#[derive(Debug)]
pub struct SshKey {
    /// PEM text, LF at the end.
    pub private: Secret<String>,
    /// `ssh-ed25519 AAAA…`, without comment.
    pub public: String,
}

/// The system gives no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no random bytes from the system")]
pub struct NoRandom;

impl SshKey {
    /// A new pair.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandom> {
        let mut seed = [0; 32];
        let mut check = [0; 4];
        let random = SystemRandom::new();
        random.fill(&mut seed).map_err(|_| NoRandom)?;
        random.fill(&mut check).map_err(|_| NoRandom)?;
        Self::of(&Secret::new(seed), check)
    }

    fn of(seed: &Secret<[u8; 32]>, check: [u8; 4]) -> Result<Self, NoRandom> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.reveal()).map_err(|_| NoRandom)?;
        let point = pair.public_key().as_ref();
        let mut public = Vec::new();
        put(&mut public, TYPE.as_bytes());
        put(&mut public, point);

        // Room for all of it at once: growing would leave copies of the seed behind.
        let mut inner = Vec::with_capacity(256);
        inner.extend([check, check].concat());
        put(&mut inner, TYPE.as_bytes());
        put(&mut inner, point);
        inner.extend(64u32.to_be_bytes());
        inner.extend_from_slice(seed.reveal());
        inner.extend_from_slice(point);
        put(&mut inner, b"");
        let padding = (BLOCK - inner.len() % BLOCK) % BLOCK;
        inner.extend((1..).take(padding));
        let inner = Secret::new(inner);

        let mut whole = Vec::with_capacity(512);
        whole.extend(b"openssh-key-v1\0");
        for none in [&b"none"[..], b"none", b""] {
            put(&mut whole, none);
        }
        whole.extend(1u32.to_be_bytes());
        put(&mut whole, &public);
        put(&mut whole, inner.reveal());
        let whole = Secret::new(whole);
        Ok(Self {
            private: pem(whole.reveal()),
            public: format!("{TYPE} {}", STANDARD.encode(public)),
        })
    }
}

/// A length, big-endian, and that many bytes.
fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a key's parts are short");
    to.extend(length.to_be_bytes());
    to.extend_from_slice(bytes);
}

fn pem(bytes: &[u8]) -> Secret<String> {
    let text = Secret::new(STANDARD.encode(bytes));
    let mut lines = String::with_capacity(text.reveal().len() + 128);
    lines += "-----BEGIN OPENSSH PRIVATE KEY-----\n";
    let mut rest = text.reveal().as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(COLUMNS));
        lines += line;
        lines.push('\n');
        rest = behind;
    }
    Secret::new(lines + "-----END OPENSSH PRIVATE KEY-----\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, os::unix::fs::OpenOptionsExt, process::Command};

    use super::*;
    use crate::testing::Folder;

    #[test]
    fn two_keys_are_never_the_same() {
        let (one, other) = (SshKey::generate().unwrap(), SshKey::generate().unwrap());
        assert_ne!(one.public, other.public);
        assert!(!format!("{one:?}").contains("BEGIN"));
    }

    #[test]
    fn ssh_keygen_reads_the_private_key_and_finds_the_public_one() {
        let keygen = crate::sys::sshd::find("ssh-keygen").expect("ssh-keygen, of OpenSSH");
        let key = SshKey::generate().unwrap();
        let folder = Folder::new();
        let file = folder.path("key");
        let mut options = fs::OpenOptions::new();
        let mut open = options.write(true).create_new(true).mode(0o600).open(&file);
        std::io::Write::write_all(open.as_mut().unwrap(), key.private.reveal().as_bytes()).unwrap();
        let output = Command::new(keygen).arg("-y").arg("-f").arg(&file).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            said.trim(),
            key.public,
            "{output:?}",
            output = output.stderr
        );
    }
}
