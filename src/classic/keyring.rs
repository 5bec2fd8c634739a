//! Which ssh keys this machine's sshd lets in because of us.
//!
//! ```text
//!   session ──▶ a fresh pair ── private half ──▶ client, in the answer
//!                    └── public half ──▶ authorized_keys, for 15 s after the answer: time to log in
//!   sshpublickey ──▶ authorized_keys, for good
//! ```
//! A temporary key opens no shell: it may only forward a port to the local sshd. Its line also goes when the daemon
//! ends, and what a crash leaves behind goes at the next start.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart (the 15 s).

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use async_std::task;
use log::{error, info};

use crate::{
    at::AtSign,
    budget::{Budget, Claim, Hold, Limits},
    classic::temporary,
    net::{dial, ssh_server::SshServer},
    np::{ids::SessionId, sshkey::PublicKeyLine},
    secret::Secret,
    sys::{authorized_keys::AuthorizedKeys, ssh_key::SshKey},
    text::endpoint::Endpoint,
};

/// How long a temporary key is let in after the answer that it came with.
const LIFE: Duration = Duration::from_secs(15);
/// Temporary keys at a time, and those of one client.
pub(crate) const KEYS: Limits = Limits::new("temporary_keys", 64);
pub(crate) const KEYS_OF_ONE: u64 = 48;
/// Longest options of a key, in bytes.
const MAX_OPTIONS: usize = 2048;

/// When a session brings a temporary ssh key along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TemporaryKeyRule {
    /// Where nothing but ssh encrypts.
    #[default]
    Needed,
    /// With every ssh session: clients before 5.3 insist on one.
    Always,
    /// Never.
    Never,
}

impl FromStr for TemporaryKeyRule {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "needed" => Ok(Self::Needed),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("needed, always or never".to_owned()),
        }
    }
}

/// What stands before a key and says what it may be used for; may be nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyOptions(String);

/// Options that would spoil the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOptions {
    /// A line end, or another control character.
    Control,
    /// Quotes that do not close, or too long.
    Form,
}

impl BadOptions {
    /// The error's text, for the options of this kind of key.
    pub fn of(self, what: &str) -> String {
        match self {
            Self::Control => format!(
                "Detected newline characters in the ssh {what} permissions: they would make another line of \
                 authorized_keys"
            ),
            Self::Form => format!("the ssh {what} options have an open quote, or are too long"),
        }
    }
}

impl KeyOptions {
    /// Checks a list of options. Commas and blanks at its ends are dropped.
    ///
    /// # Errors
    /// See [`BadOptions`].
    pub fn parse(text: &str) -> Result<Self, BadOptions> {
        if text.contains(char::is_control) {
            return Err(BadOptions::Control);
        }
        let (mut quoted, mut escaped) = (false, false);
        for c in text.chars() {
            quoted ^= c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
        }
        if quoted || text.len() > MAX_OPTIONS {
            return Err(BadOptions::Form);
        }
        Ok(Self(text.trim_matches([',', ' ']).to_owned()))
    }

    fn before(&self, key: &str) -> String {
        match self.0.as_str() {
            "" => key.to_owned(),
            options => format!("{options} {key}"),
        }
    }
}

/// The keys of the machine's user, as far as they are ours; cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    /// `None` where the user has no home folder.
    file: Option<AuthorizedKeys>,
    sshd: Endpoint,
    options: KeyOptions,
    /// What sshd is, once it has said so.
    server: OnceLock<SshServer>,
    /// Those whose temporary keys are let in.
    sessions: Mutex<HashSet<SessionId>>,
    places: Budget<AtSign>,
}

/// Takes all temporary keys out again when it is dropped.
pub struct KeyringGuard(Keyring);

impl Drop for KeyringGuard {
    fn drop(&mut self) {
        self.0.sessions().clear();
        if let Some(file) = &self.0.0.file
            && let Err(error) = file.close()
        {
            error!("temporary_keys=left reason={:?}", error.to_string());
        }
    }
}

/// A key that is let in as long as this lives.
pub struct TemporaryKey {
    /// The private half, in PEM form.
    pub private: Secret<String>,
    keyring: Keyring,
    session: SessionId,
    _place: Hold<AtSign>,
}

impl TemporaryKey {
    /// The answer is on its way: some seconds, then it is over.
    pub fn answered(self) {
        task::spawn(async move {
            task::sleep(LIFE).await;
            drop(self);
        });
    }
}

impl Drop for TemporaryKey {
    fn drop(&mut self) {
        let (keyring, session) = (self.keyring.clone(), self.session);
        drop(task::spawn_blocking(move || {
            // Whoever takes it off the list takes it out of the file.
            if keyring.sessions().remove(&session) {
                keyring.remove(session);
            }
        }));
    }
}

impl Keyring {
    /// Takes out what an earlier daemon left behind. The second part closes the ring.
    pub async fn start(
        file: Option<AuthorizedKeys>,
        sshd: Endpoint,
        options: KeyOptions,
    ) -> (Self, KeyringGuard) {
        let ring = Self(Arc::new(Inner {
            file,
            sshd,
            options,
            server: OnceLock::new(),
            sessions: Mutex::default(),
            places: Budget::new(KEYS),
        }));
        if let Some(file) = ring.0.file.clone() {
            match task::spawn_blocking(move || file.remove_stale()).await {
                Ok(0) => {}
                Ok(count) => info!("temporary_keys=removed count={count} from=an_earlier_run"),
                Err(error) => error!("temporary_keys=left reason={:?}", error.to_string()),
            }
        }
        (ring.clone(), KeyringGuard(ring))
    }

    /// A key for this session of that client; let in from now on.
    ///
    /// # Errors
    /// Too many, or what the system says.
    pub async fn temporary(&self, from: &AtSign, session: SessionId) -> io::Result<TemporaryKey> {
        let claim = Claim::of(from.clone(), KEYS_OF_ONE);
        let place = self.0.places.take(claim, Instant::now());
        let place =
            place.ok_or_else(|| io::Error::other("too many temporary ssh keys at a time"))?;
        let ring = self.clone();
        task::spawn_blocking(move || {
            let pair = SshKey::generate().map_err(io::Error::other)?;
            ring.sessions().insert(session);
            let key = TemporaryKey {
                private: pair.private,
                keyring: ring.clone(),
                session,
                _place: place,
            };
            ring.write(&pair.public, session).map(|()| key)
        })
        .await
    }

    /// Lets a person's key in for good; `false` when it was let in already.
    ///
    /// # Errors
    /// What the system says.
    pub async fn add(&self, key: &PublicKeyLine, options: &KeyOptions) -> io::Result<bool> {
        let (ring, line) = (self.clone(), options.before(key.as_str()));
        task::spawn_blocking(move || ring.file()?.add_key(&line)).await
    }

    /// Whether a client that logs in twice gets in: its second ssh goes to `localhost` of this device, wherever sshd is.
    ///
    /// # Errors
    /// In words for that client.
    pub async fn takes_inner(&self) -> Result<(), String> {
        let sshd = &self.0.sshd;
        let is_here = |ip: IpAddr| dial::is_here(ip) || ip == Ipv6Addr::LOCALHOST;
        if dial::is_localhost(&sshd.host) || sshd.host.parse().is_ok_and(is_here) {
            return Ok(());
        }
        let inner = Endpoint {
            host: "localhost".to_owned(),
            port: sshd.port,
        };
        let looks = inner.clone();
        let found = task::spawn_blocking(move || SshServer::ask(&looks, None)).await;
        match found {
            Some(_) => Ok(()),
            None => Err(format!(
                "this client logs in twice, the second time at {inner} of the device, and its sshd is at {sshd} only: \
                 use a client that encrypts (NoPorts 5.3 or later), or let sshd listen at localhost, too"
            )),
        }
    }

    fn write(&self, public: &str, session: SessionId) -> io::Result<()> {
        // Asked once: sshd takes it ill when somebody comes again and again and does not log in.
        let server = self.0.server.get().copied().or_else(|| {
            let (found, _) = SshServer::ask(&self.0.sshd, None)?;
            Some(*self.0.server.get_or_init(|| found))
        });
        let line = temporary::line(self.0.sshd.port, server, &self.0.options.0, public)?;
        self.file()?.add_session_key(&line, &session.to_string())
    }

    fn file(&self) -> io::Result<&AuthorizedKeys> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "this user has no home folder");
        self.0.file.as_ref().ok_or_else(none)
    }

    fn remove(&self, session: SessionId) {
        let removed = self
            .file()
            .and_then(|file| file.remove_session(&session.to_string()));
        if let Err(error) = removed {
            error!(
                "session={session} temporary_key=left reason={:?}",
                error.to_string()
            );
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.0
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, path::PathBuf};

    use async_std::task::block_on;

    use crate::classic::keyring::*;
    use crate::testing::{Folder, until};

    fn alice() -> AtSign {
        "@alice".parse().unwrap()
    }

    struct Home(Folder);

    impl Home {
        fn file(&self) -> PathBuf {
            self.0.path("authorized_keys")
        }

        fn text(&self) -> String {
            fs::read_to_string(self.file()).unwrap_or_default()
        }

        async fn ring(&self) -> (Keyring, KeyringGuard) {
            Keyring::start(
                Some(AuthorizedKeys::at(&self.file())),
                "localhost:22".parse().unwrap(),
                KeyOptions::default(),
            )
            .await
        }
    }

    /// The outer ssh got in, and the inner one was told "Connection closed" by nobody knows whom.
    #[test]
    fn a_client_that_logs_in_twice_is_told_where_its_second_ssh_cannot() {
        block_on(async {
            let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = server.local_addr().unwrap().port();
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let closed = free.local_addr().unwrap().port();
            drop(free);
            for (sshd, want) in [
                (format!("localhost:{closed}"), true),
                (format!("127.0.0.1:{closed}"), true),
                (format!("[::1]:{closed}"), true),
                (format!("127.0.0.2:{port}"), true),
                (format!("127.0.0.2:{closed}"), false),
                (format!("nas.invalid:{closed}"), false),
            ] {
                let at = sshd.parse().unwrap();
                let (ring, _guard) = Keyring::start(None, at, KeyOptions::default()).await;
                let takes = ring.takes_inner().await;
                let said = takes.as_ref().err().map_or("", String::as_str);
                assert_eq!(takes.is_ok(), want, "{sshd}: {said}");
                let told =
                    format!("at localhost:{closed} of the device, and its sshd is at {sshd} only");
                assert!(want || said.contains(&told), "{said}");
            }
        });
    }

    #[test]
    fn options_that_would_spoil_the_file_are_refused() {
        for (text, want) in [
            ("", Ok("")),
            (
                ",PermitOpen=\"localhost:80\"",
                Ok("PermitOpen=\"localhost:80\""),
            ),
            ("restrict,pty ", Ok("restrict,pty")),
            (r#"command="echo \"x\"""#, Ok(r#"command="echo \"x\"""#)),
            ("no-pty\nssh-rsa AAAA", Err(BadOptions::Control)),
            ("no-pty\r", Err(BadOptions::Control)),
            ("command=\"x", Err(BadOptions::Form)),
            (&*"x".repeat(MAX_OPTIONS + 1), Err(BadOptions::Form)),
        ] {
            let parsed = KeyOptions::parse(text).map(|options| options.0);
            assert_eq!(parsed, want.map(str::to_owned), "{text:?}");
        }
        let said = BadOptions::Control.of("public key");
        assert!(said.starts_with("Detected newline characters in the ssh public key permissions"));
    }

    #[test]
    fn a_temporary_key_goes_with_its_holder_or_with_the_daemon() {
        block_on(async {
            let home = Home(Folder::new());
            fs::write(home.file(), "ssh-ed25519 AAAA mine\n").unwrap();
            let (ring, closing) = home.ring().await;
            let (one, two) = (SessionId::random(), SessionId::random());
            let first = ring.temporary(&alice(), one).await.unwrap();
            let second = ring.temporary(&alice(), two).await.unwrap();
            assert!(home.text().contains(&one.to_string()));
            assert!(first.private.reveal().starts_with("-----BEGIN OPENSSH"));
            drop(first);
            until("it goes", || !home.text().contains(&one.to_string())).await;
            assert!(home.text().contains(&two.to_string()));
            drop(closing);
            assert_eq!(home.text(), "ssh-ed25519 AAAA mine\n");
            assert!(
                ring.temporary(&alice(), SessionId::random()).await.is_err(),
                "closed"
            );
            drop(second);
        });
    }

    #[test]
    fn what_a_crash_left_behind_goes_at_the_next_start() {
        block_on(async {
            let home = Home(Folder::new());
            let key = SshKey::generate().unwrap().public;
            let line = temporary::line(22, None, "", &key).unwrap();
            let left = format!("{line} sshnp_ephemeral_{}", SessionId::random());
            fs::write(home.file(), format!("{key} mine\n{left}\n")).unwrap();
            let _both = home.ring().await;
            assert_eq!(home.text(), format!("{key} mine\n"));
        });
    }

    #[test]
    fn no_more_keys_at_a_time_than_the_limit() {
        block_on(async {
            let home = Home(Folder::new());
            let (ring, _closing) = home.ring().await;
            let of = |n: u64| format!("@m{}", n / KEYS_OF_ONE).parse().unwrap();
            let take = |n| {
                ring.0
                    .places
                    .take(Claim::of(of(n), KEYS_OF_ONE), Instant::now())
            };
            let places: Vec<_> = (0..KEYS.total).filter_map(take).collect();
            assert_eq!(places.len() as u64, KEYS.total);
            let refused = ring.temporary(&alice(), SessionId::random()).await;
            assert!(refused.is_err());
            assert_eq!(home.text(), "");
        });
    }

    #[test]
    fn one_managers_temporary_keys_leave_room_for_anothers() {
        block_on(async {
            let home = Home(Folder::new());
            let (ring, _closing) = home.ring().await;
            let mallory: AtSign = "@mallory".parse().unwrap();
            let mut keys = Vec::new();
            for _ in 0..KEYS_OF_ONE {
                keys.push(ring.temporary(&mallory, SessionId::random()).await.unwrap());
            }
            assert!(ring.temporary(&mallory, SessionId::random()).await.is_err());
            assert!(ring.temporary(&alice(), SessionId::random()).await.is_ok());
            keys.pop();
            assert!(ring.temporary(&mallory, SessionId::random()).await.is_ok());
        });
    }

    #[test]
    fn a_persons_key_stands_once_behind_its_options() {
        block_on(async {
            let home = Home(Folder::new());
            let (ring, _closing) = home.ring().await;
            let text = format!("{} me", SshKey::generate().unwrap().public);
            let key = PublicKeyLine::parse(&text).unwrap();
            let options = KeyOptions::parse("no-pty").unwrap();
            assert!(ring.add(&key, &options).await.unwrap());
            assert!(!ring.add(&key, &options).await.unwrap());
            assert_eq!(home.text(), format!("no-pty {text}\n"));
        });
    }
}
