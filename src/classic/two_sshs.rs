//! One ssh carries another: sessions that nothing but ssh encrypts, and all sessions of 5.0 to 5.2.
//!
//! ```text
//!   person's ssh ─▶ localhost:LP ─▶ tunnel ssh ─▶ our bridge, or straight ─▶ rendezvous ═▶ device's sshd
//!                                    │ logs in with a key that the device sent for this session (4.0.0-rc.2: the
//!                                    │ person's own), goes to the background, ends when nobody has used it for a while
//! ```
//!
//! The device's key lies in a file of ours only until the tunnel stands.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_process::{ChildStderr, Command, Stdio};
use async_std::{future::timeout, task};
use futures_lite::AsyncReadExt;
use log::debug;

use crate::{
    classic::tunnel_ssh::{self, Direction, IdentityFile, Tunnel},
    cli::{Failure, exit},
    np::ids::SessionId,
    secret::Secret,
    sys::ssh::{HostKeyAlias, UserName},
    text::endpoint::Endpoint,
};

/// How long the tunnel waits for the next user, in seconds.
pub const IDLE: Duration = tunnel_ssh::LASTS;
/// Bounds of what somebody may ask for instead.
pub const LEAST_IDLE: Duration = Duration::from_secs(1);
/// See [`LEAST_IDLE`].
pub const MOST_IDLE: Duration = Duration::from_secs(24 * 3600);
/// Longest wait for the tunnel to stand.
const STANDS: Duration = Duration::from_secs(15);
/// How long a bridge may wait for the tunnel's ssh.
pub const BRIDGE: Duration = Duration::from_secs(30);
/// Most bytes of what ssh says that are kept.
const MAX_SAID: usize = 4096;

/// What is special about the ssh that carries the other.
pub struct CarrierOptions {
    /// Who logs in; else who logs in anyway.
    pub user: Option<UserName>,
    /// The device's sshd, as it sees it.
    pub sshd: u16,
    /// Further options.
    pub options: Vec<String>,
    /// How long it waits for the next user.
    pub idle: Duration,
}

/// What the tunnel logs in with.
pub enum LoginKey {
    /// A private key for this session, PEM.
    Temporary(Secret<String>),
    /// A file of the person's own.
    Own(PathBuf),
}

/// The ssh that carries the other.
pub struct Carrier<'a> {
    /// The program.
    pub ssh: PathBuf,
    /// Who logs in, unless [`CarrierOptions`] says otherwise.
    pub user: &'a UserName,
    /// Where the device's sshd is met.
    pub to: &'a Endpoint,
    /// Under which name its host key is known.
    pub alias: &'a HostKeyAlias,
    /// The loopback port that is to lead there.
    pub listen: u16,
    /// What else is special about it.
    pub inside: &'a CarrierOptions,
}

impl Carrier<'_> {
    /// Logs in with this key; returns when the port leads to the device's sshd.
    ///
    /// Dropped before that, this removes the key's file.
    ///
    /// # Errors
    /// When there is no such key, or ssh does not get through.
    pub async fn connect(&self, session: SessionId, key: LoginKey) -> Result<(), Failure> {
        let no_input = matches!(key, LoginKey::Temporary(_));
        let (_file, identity) = identity(session, key)?;
        let tunnel = Tunnel {
            user: self.inside.user.as_ref().unwrap_or(self.user),
            host: &self.to.host,
            port: self.to.port,
            identity: &identity,
            direction: Direction::Local {
                listen: self.listen,
                sshd: self.inside.sshd,
            },
            alias: Some(self.alias),
            no_input,
            options: &self.inside.options,
            lasts: self.inside.idle,
        };
        self.stand(&tunnel).await
    }

    /// Starts ssh and waits until it has gone to the background.
    async fn stand(&self, tunnel: &Tunnel<'_>) -> Result<(), Failure> {
        let failed = |why: String| Failure::new(exit::SERVICE, format!("the tunnel's ssh {why}"));
        let mut child = Command::new(&self.ssh)
            .args(tunnel.arguments())
            .env_remove("NOPORTS_PASSPHRASE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("cannot be started: {error}")))?;
        let said = Arc::new(Mutex::new(String::new()));
        // Not to its end: what has gone to the background may keep it open.
        let stderr = child.stderr.take();
        let listening = stderr.map(|stderr| task::spawn(listen(stderr, Arc::clone(&said))));
        let ended = timeout(STANDS, child.status()).await;
        let status = ended
            .map_err(|_| failed(format!("did not stand within {STANDS:?}")))?
            .map_err(|error: io::Error| failed(format!("was lost: {error}")))?;
        if status.success() {
            return Ok(());
        }
        if let Some(listening) = listening {
            let _ = timeout(Duration::from_millis(500), listening).await;
        }
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        debug!("tunnel_ssh={said:?}");
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        Err(
            failed(format!("failed: {}", last.unwrap_or("it said nothing")))
                .hint("is the key let in there, and does sshd allow forwarding? -v tells more"),
        )
    }
}

/// The key in a file. Written in this thread, however long that takes: in another one it could come to be when nobody is
/// left to remove it.
fn identity(session: SessionId, key: LoginKey) -> Result<(Option<IdentityFile>, PathBuf), Failure> {
    let pem = match key {
        LoginKey::Own(file) => return Ok((None, file)),
        LoginKey::Temporary(pem) => pem,
    };
    let written = tunnel_ssh::identity_folder()
        .and_then(|folder| IdentityFile::write(&folder, &session.to_string(), &pem));
    let file = written.map_err(|error| {
        Failure::plain(format!("cannot keep the device's temporary key: {error}"))
    })?;
    let path = file.path().to_owned();
    Ok((Some(file), path))
}

async fn listen(mut stderr: ChildStderr, said: Arc<Mutex<String>>) {
    let mut chunk = [0; 512];
    while let Ok(n @ 1..) = stderr.read(&mut chunk).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < MAX_SAID {
            let text = String::from_utf8_lossy(&chunk[..n]);
            said.extend(text.chars().filter(|c| *c == '\n' || !c.is_control()));
        }
    }
}

/// What the person says about host keys, algorithms and the configuration file counts for the tunnel, too.
pub fn for_both(words: &[String]) -> Vec<String> {
    const NAMES: [&str; 9] = [
        "userknownhostsfile",
        "globalknownhostsfile",
        "stricthostkeychecking",
        "hostkeyalgorithms",
        "kexalgorithms",
        "ciphers",
        "macs",
        "pubkeyacceptedalgorithms",
        "connecttimeout",
    ];
    let counts = |flag: &str, value: &str| {
        let name = value.split(['=', ' ']).next().unwrap_or_default();
        flag == "-F" || NAMES.contains(&name.to_ascii_lowercase().as_str())
    };
    sort(words, &["-F", "-o"], counts).1
}

/// (the person's words without forwardings, the forwardings)
pub fn take_forwards(words: &[String]) -> (Vec<String>, Vec<String>) {
    sort(words, &["-L", "-R", "-D"], |_, _| true)
}

/// Parts options with these flags, that `count`, from the other words. They end where a command begins.
fn sort(
    words: &[String],
    flags: &[&str],
    counts: impl Fn(&str, &str) -> bool,
) -> (Vec<String>, Vec<String>) {
    // ssh's options that take a value; all others are single letters.
    const WITH_VALUE: &str = "BbcDEeFIiJLlmOopQRSWw";
    let (mut rest, mut taken) = (Vec::new(), Vec::new());
    let mut words = words.iter().peekable();
    while let Some(word) = words.next_if(|word| word.starts_with('-') && word.len() > 1) {
        let (flag, behind) = word.split_at(2.min(word.len()));
        let has_value = flag.ends_with(|c| WITH_VALUE.contains(c));
        let apart = has_value && behind.is_empty();
        let value = apart.then(|| words.next().cloned()).flatten();
        let text = value.as_deref().unwrap_or(behind);
        let to = if flags.contains(&flag) && counts(flag, text) {
            &mut taken
        } else {
            &mut rest
        };
        to.push(word.clone());
        to.extend(value);
    }
    rest.extend(words.cloned());
    (rest, taken)
}

#[cfg(test)]
mod tests {
    use crate::classic::two_sshs::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn forwardings_are_told_from_the_rest() {
        for (line, rest, forwards) in [
            ("", "", ""),
            ("-v uname -L", "-v uname -L", ""),
            ("-L 1:a:2 -v", "-v", "-L 1:a:2"),
            (
                "-L1:a:2 -i key -D 9 echo -R x",
                "-i key echo -R x",
                "-L1:a:2 -D 9",
            ),
            (
                "-o LocalForward=x -R 3:b:4",
                "-o LocalForward=x",
                "-R 3:b:4",
            ),
            ("-L", "", "-L"),
        ] {
            let (left, taken) = take_forwards(&words(line));
            assert_eq!(
                (left.join(" "), taken.join(" ")),
                (rest.into(), forwards.into()),
                "{line}"
            );
        }
    }

    #[test]
    fn what_counts_for_both_sshs() {
        for (line, both) in [
            ("-F none -v", "-F none"),
            (
                "-o UserKnownHostsFile=/x -oStrictHostKeyChecking=yes -o LocalForward=y cmd -F z",
                "-o UserKnownHostsFile=/x -oStrictHostKeyChecking=yes",
            ),
            ("-L 1:a:2 -i key", ""),
            ("cmd", ""),
        ] {
            assert_eq!(for_both(&words(line)).join(" "), both, "{line}");
        }
    }
}
