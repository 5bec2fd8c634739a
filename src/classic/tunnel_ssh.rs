//! The ssh that carries another ssh, as older generations want it; and its identity, which lives as long as one session.
//!
//! ```text
//!   user's ssh ─▶ localhost:LP ─▶ tunnel ssh ═▶ where the device is met ═▶ sshd ─▶ localhost:22     -L, from the client
//!   user's ssh ─▶ localhost:LP ─▶ sshd ◀═ where the client is met ◀═ tunnel ssh ─▶ localhost:22     -R, from the device
//! ```
//!
//! The tunnel goes to the background once it stands (its exit code is 0 then) and ends by itself when nobody has used
//! it for some seconds.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnp/util/ssh_session_handler/openssh_ssh_session_handler.dart
//! and noports:packages/sshnoports/lib/sshnpd/sshnpd_impl.dart (tag v3.4.2), for the words and their order.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_std::task;

use crate::{
    secret::Secret,
    sys::{
        paths,
        ssh::{HostKeyAlias, NO_SHARED_CONNECTION, UserName, loopback},
    },
    text::endpoint::Endpoint,
};

/// How long a tunnel waits for its first, and then for its next, user.
pub const LASTS: Duration = Duration::from_secs(15);

/// Which end opens the way, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction<'a> {
    /// A port here leads to sshd there.
    Local {
        /// Here, on the loopback address.
        listen: u16,
        /// The device's sshd.
        sshd: u16,
    },
    /// A port there leads to sshd here.
    Reverse {
        /// There, on the loopback address.
        listen: u16,
        /// Our own sshd.
        sshd: &'a Endpoint,
    },
}

/// The words of a tunnel's ssh.
#[derive(Clone, Debug)]
pub struct Tunnel<'a> {
    /// Who logs in.
    pub user: &'a UserName,
    /// Where the other end is met.
    pub host: &'a str,
    /// Its port there.
    pub port: u16,
    /// The key to log in with, and no other.
    pub identity: &'a Path,
    /// What is forwarded.
    pub direction: Direction<'a>,
    /// Under which name the other end's host key is known; without one, under host and port.
    pub alias: Option<&'a HostKeyAlias>,
    /// Do not read stdin (4.0.x and later).
    pub no_input: bool,
    /// Further options, word by word.
    pub options: &'a [String],
    /// How long it waits for a user.
    pub lasts: Duration,
}

impl Tunnel<'_> {
    /// The words behind `ssh`.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut push = |word: &dyn AsRef<OsStr>| words.push(word.as_ref().to_owned());
        let alias = self.alias.map(HostKeyAlias::to_string);
        let to = alias.as_deref().unwrap_or(self.host);
        let whom = self.user.at(to, true);
        whom.iter().for_each(|word| push(word));
        push(&"-p");
        push(&self.port.to_string());
        push(&"-i");
        push(&self.identity);
        let (flag, forward) = match self.direction {
            Direction::Local { listen, sshd } => ("-L", format!("{listen}:localhost:{sshd}")),
            Direction::Reverse { listen, sshd } => ("-R", format!("{listen}:{sshd}")),
        };
        push(&flag);
        push(&forward);
        for word in SETTINGS {
            push(word);
        }
        for (name, value) in self.ours() {
            push(&"-o");
            push(&format!("{name}={value}"));
        }
        if self.no_input {
            push(&"-n");
        }
        push(&"-f");
        self.options.iter().for_each(|word| push(word));
        push(&"sleep");
        push(&self.lasts.as_secs().to_string());
        words
    }

    /// Where the device's name leads (see [`crate::sys::ssh`]). A rendezvous far away is reached as the person reaches others.
    fn ours(&self) -> Vec<(&'static str, String)> {
        let Some(alias) = self.alias else {
            return Vec::new();
        };
        let mut ours = vec![("HostKeyAlias", alias.to_string())];
        let mut own = vec![NO_SHARED_CONNECTION];
        match self.host {
            "localhost" => own.extend(loopback(false)),
            far => own.extend([("HostName", far), ("CanonicalizeHostname", "no")]),
        }
        ours.extend(own.iter().map(|(name, value)| (*name, (*value).to_owned())));
        ours
    }
}

const SETTINGS: &[&str] = &[
    "-o",
    "LogLevel=VERBOSE",
    "-t",
    "-t",
    "-o",
    "StrictHostKeyChecking=accept-new",
    "-o",
    "IdentitiesOnly=yes",
    "-o",
    "BatchMode=yes",
    "-o",
    "ExitOnForwardFailure=yes",
];

/// Longest private key that is written, in bytes.
const MAX_KEY: usize = 16 * 1024;
/// How the files' names begin; the session follows.
const NAME: &str = "ephemeral_";

/// Where identities of one session lie: in memory where the system offers a place for that.
///
/// # Errors
/// When there is no such place and no home folder either.
pub fn identity_folder() -> io::Result<PathBuf> {
    let nowhere = || io::Error::new(io::ErrorKind::NotFound, "this user has no home folder");
    let folder = paths::runtime().ok_or_else(nowhere)?;
    paths::private_folder(&folder)?;
    Ok(folder)
}

/// A private key in a file, for ssh. Dropping it removes the file; what a crash left behind goes when the next one is
/// written.
#[derive(Debug)]
pub struct IdentityFile {
    path: PathBuf,
    /// Locked as long as we live: that is how others know.
    _file: File,
}

impl IdentityFile {
    /// Writes the key where such files lie ([`identity_folder`]), off the executor.
    ///
    /// # Errors
    /// As [`IdentityFile::write`], and when there is no such place.
    pub async fn of_session(session: String, pem: Secret<String>) -> io::Result<Self> {
        let write = move || Self::write(&identity_folder()?, &session, &pem);
        task::spawn_blocking(write).await
    }

    /// Writes the key for this session into a private folder.
    ///
    /// # Errors
    /// `InvalidData` for what is no private key, else what the system says.
    pub fn write(folder: &Path, session: &str, pem: &Secret<String>) -> io::Result<Self> {
        remove_stale_identities(folder);
        let text = pem.reveal();
        if !text.starts_with("-----BEGIN ") || text.len() > MAX_KEY || text.contains('\0') {
            let why = "the device's ephemeral key is no private key";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if session.contains(['/', '\0']) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let path = folder.join(format!("{NAME}{session}"));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.try_lock()?;
        // From here on dropping it tidies up. ssh wants LF at every line's end, the last one's too.
        let text = Secret::new(text.trim_end().replace("\r\n", "\n") + "\n");
        let written = file.write_all(text.reveal().as_bytes());
        let identity = Self { path, _file: file };
        written.map(|()| identity)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for IdentityFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes the identities in a folder whose sessions have crashed; returns how many.
pub fn remove_stale_identities(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let names = entries.flatten().map(|entry| entry.path());
    let stale = names.filter(|path| {
        let ours = path.file_name().and_then(OsStr::to_str);
        ours.is_some_and(|name| name.starts_with(NAME)) && !is_held(path)
    });
    stale.filter(|path| fs::remove_file(path).is_ok()).count()
}

fn is_held(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).open(path);
    // Between making the file and locking it there is a moment; an empty one may be just that.
    file.is_ok_and(|file| {
        matches!(file.try_lock(), Err(TryLockError::WouldBlock))
            || file
                .metadata()
                .is_ok_and(|about| about.len() == 0 && is_fresh(&about))
    })
}

fn is_fresh(about: &fs::Metadata) -> bool {
    let age = about.modified().ok().and_then(|time| time.elapsed().ok());
    age.is_none_or(|age| age < Duration::from_secs(10))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::sys::ssh::shell_line;
    use crate::testing::Folder;

    #[test]
    fn the_words_of_each_generation() {
        let user: UserName = "gary".parse().unwrap();
        let alias = HostKeyAlias::new("my_device", "@device");
        let sshd = "localhost:2222".parse().unwrap();
        let forwards = ["-L".to_owned(), "8080:localhost:80".to_owned()];
        let rc2 = Tunnel {
            user: &user,
            host: "rv.example",
            port: 40190,
            identity: Path::new("/k/noports"),
            direction: Direction::Local {
                listen: 58358,
                sshd: 22,
            },
            alias: None,
            no_input: false,
            options: &[],
            lasts: LASTS,
        };
        let carried = Tunnel {
            host: "localhost",
            alias: Some(&alias),
            ..rc2.clone()
        };
        let v4 = Tunnel {
            no_input: true,
            options: &forwards,
            alias: Some(&alias),
            ..rc2.clone()
        };
        let v3 = Tunnel {
            port: 40189,
            direction: Direction::Reverse {
                listen: 58358,
                sshd: &sshd,
            },
            ..rc2.clone()
        };
        for (tunnel, want) in [
            (
                rc2,
                "gary@rv.example -p 40190 -i /k/noports -L 58358:localhost:22 -o LogLevel=VERBOSE -t -t \
                 -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes -o BatchMode=yes \
                 -o ExitOnForwardFailure=yes -f sleep 15",
            ),
            (
                carried,
                "gary@my_device.device.noports -p 40190 -i /k/noports -L 58358:localhost:22 -o LogLevel=VERBOSE \
                 -t -t -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes -o BatchMode=yes \
                 -o ExitOnForwardFailure=yes -o HostKeyAlias=my_device.device.noports -o ControlPath=none \
                 -o HostName=ADDRESS -o ProxyCommand=none -o AddressFamily=any -o BindAddress=ADDRESS \
                 -o CanonicalizeHostname=no -o CheckHostIP=no -f sleep 15",
            ),
            (
                v4,
                "gary@my_device.device.noports -p 40190 -i /k/noports -L 58358:localhost:22 -o LogLevel=VERBOSE \
                 -t -t -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes -o BatchMode=yes \
                 -o ExitOnForwardFailure=yes -o HostKeyAlias=my_device.device.noports -o ControlPath=none \
                 -o HostName=rv.example -o CanonicalizeHostname=no -n -f -L 8080:localhost:80 sleep 15",
            ),
            (
                v3,
                "gary@rv.example -p 40189 -i /k/noports -R 58358:localhost:2222 -o LogLevel=VERBOSE -t -t \
                 -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes -o BatchMode=yes \
                 -o ExitOnForwardFailure=yes -f sleep 15",
            ),
        ] {
            let want = want.replace("ADDRESS", loopback(false)[0].1);
            assert_eq!(shell_line(&tunnel.arguments()), want);
        }
    }

    fn pem(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn an_identity_is_private_and_goes_with_its_owner() {
        let folder = Folder::new();
        let one = IdentityFile::write(&folder.0, "s", &pem("-----BEGIN x\r\nk\r\n")).unwrap();
        assert_eq!(one.path(), folder.0.join("ephemeral_s"));
        assert_eq!(fs::read(one.path()).unwrap(), b"-----BEGIN x\nk\n");
        assert_eq!(fs::metadata(one.path()).unwrap().mode() & 0o7777, 0o600);
        assert!(IdentityFile::write(&folder.0, "s", &pem("-----BEGIN y")).is_err());
        assert!(one.path().exists(), "the other's failure is not ours");
        drop(one);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
        for (session, text) in [("s", "ssh-ed25519 AAAA"), ("../s", "-----BEGIN x")] {
            assert!(IdentityFile::write(&folder.0, session, &pem(text)).is_err());
        }
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn what_a_crash_left_behind_goes_and_what_is_used_stays() {
        let folder = Folder::new();
        fs::write(folder.0.join("ephemeral_crashed"), "-----BEGIN x\n").unwrap();
        fs::write(folder.0.join("other"), "x").unwrap();
        let used = IdentityFile::write(&folder.0, "a", &pem("-----BEGIN x")).unwrap();
        let _second = IdentityFile::write(&folder.0, "b", &pem("-----BEGIN x")).unwrap();
        assert!(used.path().exists() && folder.0.join("other").exists());
        assert!(!folder.0.join("ephemeral_crashed").exists());
        assert_eq!(remove_stale_identities(&folder.0), 0);
    }
}
