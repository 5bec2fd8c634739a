//! The private authority of a self-hosted atServer: one CA for the data folder, one certificate per start.
//!
//! ```text
//!   DIR/ca.key  0600   P-256, written first ┐ made once, kept for 20 years:
//!   DIR/ca.pem  0644   the certificate      ┘ this is the file that clients name with --ca
//!   DIR/ca-next.key    between `rotate` and `finish`: the next authority's key; ca.pem then holds both certificates
//!   (memory)           server certificate, made anew at each start and every year; its key never touches the disk
//! ```
//!
//! The server's certificate lives 825 days: the longest that every platform accepts from a private
//! authority (Apple's refuse more). Nobody has to renew it: each start makes a new one, and so does the first
//! connection after a year.
//! The authority carries no name constraints: older TLS libraries on small devices refuse what they
//! cannot read, and the names a server goes by change.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};

use crate::{
    net::tls::{Acceptor, Shown, TlsError},
    secret::Secret,
};

/// File of the authority's private key, in the data folder.
pub const KEY_FILE: &str = "ca.key";
/// File of the next authority's private key, while clients are given its certificate.
pub const NEXT_KEY_FILE: &str = "ca-next.key";
/// File of the authority's certificate, in the data folder. While it is being replaced: of both.
pub const CA_FILE: &str = "ca.pem";

const END_OF_PEM: &str = "-----END CERTIFICATE-----";
const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_DAYS: u32 = 20 * 365;
const SERVER_DAYS: u32 = 825;
/// A certificate that is this old is renewed by whoever connects next.
const RENEWED_AFTER: Duration = Duration::from_secs(365 * 24 * 3600);
/// After a failed renewal, the next attempt waits this long.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Certificates begin this long before they are made, for clients whose clock is slow.
const SLOW_CLOCKS: Duration = DAY;
/// 2024-01-01 in seconds since 1970. A clock before it was never set.
const CLOCK_FLOOR: Duration = Duration::from_secs(1_704_067_200);
/// Largest file read, in bytes; real ones have under 1 000.
const MAX_FILE: u64 = 64 * 1024;

/// Why there is no authority or no certificate.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AuthorityError {
    #[error("cannot read {}: {why}", file.display())]
    Unreadable { file: PathBuf, why: io::Error },
    #[error("cannot write {}: {why}", file.display())]
    Unwritable { file: PathBuf, why: io::Error },
    #[error("{} is no private key of an authority made here", .0.display())]
    BadKey(PathBuf),
    #[error("{} is no certificate of an authority made here", .0.display())]
    BadCertificate(PathBuf),
    #[error("{} is there, but its private key {} is not", cert.display(), key.display())]
    KeyLost { cert: PathBuf, key: PathBuf },
    #[error("{} and {} do not belong together", cert.display(), key.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("a certificate cannot be made for {0:?}")]
    Name(String),
    #[error("no new authority has been made")]
    NothingNew,
    #[error("this machine's clock was never set, so no certificate can be made")]
    Clock,
    #[error("a certificate cannot be made: {0}")]
    Making(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl AuthorityError {
    /// What to try next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreadable { file, .. } | Self::Unwritable { file, .. } => format!(
                "run as the owner of {}, or choose another folder with --data",
                file.parent().unwrap_or(file).display()
            ),
            Self::BadKey(file) | Self::BadCertificate(file) => format!(
                "restore {} from a backup, or remove {KEY_FILE} and {CA_FILE}: a new authority is then made, \
                 and every client needs the new {CA_FILE}",
                file.display()
            ),
            Self::KeyLost { cert, .. } | Self::Mismatch { cert, .. } => format!(
                "restore both from the same backup, or remove both (in {}): a new authority is then made, \
                 and every client needs the new {CA_FILE}",
                cert.parent().unwrap_or(cert).display()
            ),
            Self::Name(_) => "a host name such as home.example, or an IP address".into(),
            Self::NothingNew => "noports atserver rotate-ca makes one".into(),
            Self::Clock => "set the date and start again".into(),
            Self::Making(_) | Self::Tls(_) => return None,
        })
    }
}

/// Certificate chain (server, authority) and private key of a server, in PEM.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Leaf {
    pub chain: String,
    pub key: Secret<String>,
}

impl Leaf {
    fn shown(&self) -> Result<Shown, AuthorityError> {
        Ok(Shown::from_pem(&self.chain, self.key.reveal())?)
    }

    /// Ready to accept connections.
    ///
    /// # Errors
    /// When the TLS library refuses the pair.
    pub fn acceptor(&self) -> Result<Acceptor, AuthorityError> {
        Ok(Acceptor::from_pem(&self.chain, self.key.reveal())?)
    }
}

/// The authority of one data folder.
pub struct Authority {
    ca_file: PathBuf,
    /// Of all authorities that clients are to trust.
    ca_pem: String,
    /// Of the one that signs.
    own_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Opens the authority in this folder; makes folder and authority when they are not there.
///
/// # Errors
/// When a file cannot be read or written, or the two do not belong together.
pub fn open_or_make(folder: &Path) -> Result<Authority, AuthorityError> {
    let (key_file, ca_file) = (folder.join(KEY_FILE), folder.join(CA_FILE));
    fs::create_dir_all(folder).map_err(|why| AuthorityError::Unwritable {
        file: folder.to_owned(),
        why,
    })?;
    let key = open_or_make_key(&key_file, &ca_file)?;
    let params = authority_params(&key)?;
    if read(&ca_file)?.is_none() {
        let made = params.self_signed(&key)?.pem();
        write_new(&ca_file, made.as_bytes(), 0o644)?;
    }
    let ca_pem = read(&ca_file)?.ok_or_else(|| AuthorityError::BadCertificate(ca_file.clone()))?;
    let own_pem = own_certificate(&ca_pem, &key, &key_file, &ca_file)?;
    Ok(Authority {
        ca_file,
        ca_pem,
        own_pem,
        issuer: Issuer::new(params, key),
    })
}

impl Authority {
    /// The certificate that clients need: `ca.pem` in the data folder.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The same as text.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A fresh certificate for these names (host names, IP addresses, `*.domain`) and for this
    /// machine itself: `localhost`, `127.0.0.1`, `::1`.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate, or the clock was never set.
    pub fn leaf(&self, names: &[String]) -> Result<Leaf, AuthorityError> {
        self.leaf_at(names, SystemTime::now())
    }

    /// Ready to accept connections for these names, with a certificate that is renewed in time.
    ///
    /// # Errors
    /// As [`Self::leaf`].
    pub fn acceptor(self, names: &[String]) -> Result<Acceptor, AuthorityError> {
        let renewing = Renewing::new(self, names, SystemTime::now())?;
        Ok(Acceptor::showing(move || renewing.at(SystemTime::now())))
    }

    fn leaf_at(&self, names: &[String], now: SystemTime) -> Result<Leaf, AuthorityError> {
        let mut params = CertificateParams::new(Vec::new())?;
        for name in all_names(names) {
            let one = CertificateParams::new(vec![name.to_owned()])
                .map_err(|_| AuthorityError::Name(name.to_owned()))?;
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(AuthorityError::Name(name.to_owned()));
            }
            params.subject_alt_names.extend(one.subject_alt_names);
        }
        let key = KeyPair::generate()?;
        date(&mut params, SERVER_DAYS, now)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "noports atserver");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Between atServers the certificate is shown by the calling side too.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(&key));
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf {
            chain: cert.pem() + &self.own_pem,
            key: Secret::new(key.serialize_pem()),
        })
    }
}

/// A certificate that is made anew when it is old. Making one takes less than a handshake.
struct Renewing {
    authority: Authority,
    names: Vec<String>,
    now: Mutex<Made>,
}

struct Made {
    shown: Shown,
    at: SystemTime,
    /// When the last attempt to make another failed.
    failed: Option<SystemTime>,
}

impl Renewing {
    fn new(
        authority: Authority,
        names: &[String],
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let made = Made {
            shown: authority.leaf_at(names, now)?.shown()?,
            at: now,
            failed: None,
        };
        Ok(Self {
            authority,
            names: names.to_vec(),
            now: Mutex::new(made),
        })
    }

    /// What is shown at this time.
    fn at(&self, now: SystemTime) -> Shown {
        let mut made = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back may stand before the certificate's first day.
        let is_recent = |at: SystemTime, most: Duration| match now.duration_since(at) {
            Ok(age) => age < most,
            Err(ahead) => ahead.duration() < SLOW_CLOCKS,
        };
        let waits = made.failed.is_some_and(|at| is_recent(at, PATIENCE));
        if is_recent(made.at, RENEWED_AFTER) || waits {
            return made.shown.clone();
        }
        let leaf = self.authority.leaf_at(&self.names, now);
        match leaf.and_then(|leaf| leaf.shown()) {
            Ok(shown) => {
                log::info!("certificate=renewed");
                (made.shown, made.at, made.failed) = (shown, now, None);
            }
            Err(why) => {
                log::warn!("certificate=kept why={why}");
                made.failed = Some(now);
            }
        }
        made.shown.clone()
    }
}

/// Makes the next authority beside the one there is: from now on `ca.pem` holds both certificates, for clients, and
/// the old one goes on signing. Returns that file's text. Doing it twice changes nothing.
///
/// # Errors
/// As [`open_or_make`].
pub fn rotate(folder: &Path) -> Result<String, AuthorityError> {
    let now = open_or_make(folder)?;
    let key_file = folder.join(NEXT_KEY_FILE);
    if read(&key_file)?.is_none() {
        let made = Secret::new(KeyPair::generate()?.serialize_pem());
        write_new(&key_file, made.reveal().as_bytes(), 0o600)?;
    }
    let key = read_key(&key_file)?;
    if own_certificate(&now.ca_pem, &key, &key_file, &now.ca_file).is_ok() {
        return Ok(now.ca_pem);
    }
    let both = now.own_pem + &authority_params(&key)?.self_signed(&key)?.pem();
    replace(&now.ca_file, &both)?;
    Ok(both)
}

/// From the next start the new authority signs, and `ca.pem` holds its certificate alone. Clients that only know the
/// old one do not connect any more.
///
/// # Errors
/// `NothingNew` without a [`rotate`] before; else as [`open_or_make`].
pub fn finish(folder: &Path) -> Result<String, AuthorityError> {
    let (key_file, next_file) = (folder.join(KEY_FILE), folder.join(NEXT_KEY_FILE));
    if read(&next_file)?.is_none() {
        return Err(AuthorityError::NothingNew);
    }
    // The certificate is there before its key signs; between the two steps both still are.
    rotate(folder)?;
    fs::rename(&next_file, &key_file).map_err(|why| AuthorityError::Unwritable {
        file: key_file,
        why,
    })?;
    let now = open_or_make(folder)?;
    replace(&now.ca_file, &now.own_pem)?;
    Ok(now.own_pem)
}

/// Puts a text in the place of a file, which is the old or the new one at any moment.
fn replace(file: &Path, text: &str) -> Result<(), AuthorityError> {
    let draft = file.with_extension("next");
    let _ = fs::remove_file(&draft);
    write_new(&draft, text.as_bytes(), 0o644)?;
    fs::rename(&draft, file).map_err(|why| AuthorityError::Unwritable {
        file: file.to_owned(),
        why,
    })
}

/// The given names and this machine's own, each once.
fn all_names(given: &[String]) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    let own = ["localhost", "127.0.0.1", "::1"];
    for name in given.iter().map(String::as_str).chain(own) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// The name and uses of the authority. All of it follows from the key, so that a certificate need
/// not be read back to sign with it.
fn authority_params(key: &KeyPair) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::new())?;
    date(&mut params, AUTHORITY_DAYS, SystemTime::now())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, authority_name(key));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial(key));
    Ok(params)
}

fn fingerprint(key: &KeyPair) -> impl AsRef<[u8]> {
    ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info())
}

/// Two authorities have different names: some TLS libraries choose by name.
fn authority_name(key: &KeyPair) -> String {
    let short: String = fingerprint(key).as_ref()[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("noports authority {short}")
}

/// Unique because the key is: a serial number must not come twice from one authority.
fn serial(key: &KeyPair) -> SerialNumber {
    let mut bytes = fingerprint(key).as_ref()[..16].to_vec();
    bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and never shortened
    SerialNumber::from(bytes)
}

/// Valid from a day before `now` until this many days after.
fn date(params: &mut CertificateParams, days: u32, now: SystemTime) -> Result<(), AuthorityError> {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .filter(|now| *now > CLOCK_FLOOR)
        .ok_or(AuthorityError::Clock)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (now - SLOW_CLOCKS);
    params.not_after = epoch + (now + DAY * days);
    Ok(())
}

fn open_or_make_key(key_file: &Path, ca_file: &Path) -> Result<KeyPair, AuthorityError> {
    if read(key_file)?.is_none() {
        if ca_file.exists() {
            return Err(AuthorityError::KeyLost {
                cert: ca_file.to_owned(),
                key: key_file.to_owned(),
            });
        }
        let made = Secret::new(KeyPair::generate()?.serialize_pem());
        write_new(key_file, made.reveal().as_bytes(), 0o600)?;
    }
    // Read back even if just written: of two first starts at once, one key wins.
    read_key(key_file)
}

fn read_key(key_file: &Path) -> Result<KeyPair, AuthorityError> {
    let bad = || AuthorityError::BadKey(key_file.to_owned());
    let pem = Secret::new(read(key_file)?.ok_or_else(bad)?);
    KeyPair::from_pem_and_sign_algo(pem.reveal(), &rcgen::PKCS_ECDSA_P256_SHA256).map_err(|_| bad())
}

/// The certificate that is this key's and names it as we would, in PEM.
fn own_certificate(
    ca_pem: &str,
    key: &KeyPair,
    key_file: &Path,
    ca_file: &Path,
) -> Result<String, AuthorityError> {
    let certs = rustls_pemfile::certs(&mut ca_pem.as_bytes()).unwrap_or_default();
    if certs.is_empty() {
        return Err(AuthorityError::BadCertificate(ca_file.to_owned()));
    }
    let (public, name) = (key.subject_public_key_info(), authority_name(key));
    let pems = ca_pem.split_inclusive(END_OF_PEM);
    for (der, pem) in certs.iter().zip(pems) {
        let holds = |part: &[u8]| der.windows(part.len()).any(|window| window == part);
        if holds(&public) && holds(name.as_bytes()) {
            return Ok(pem.trim_start().to_owned() + "\n");
        }
    }
    Err(AuthorityError::Mismatch {
        cert: ca_file.to_owned(),
        key: key_file.to_owned(),
    })
}

/// A small text file; `None` when there is none.
fn read(file: &Path) -> Result<Option<String>, AuthorityError> {
    let unreadable = |why| AuthorityError::Unreadable {
        file: file.to_owned(),
        why,
    };
    match fs::metadata(file) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(unreadable(why)),
        Ok(meta) if meta.len() > MAX_FILE => {
            return Err(unreadable(io::Error::other("it is too large")));
        }
        Ok(_) => {}
    }
    fs::read_to_string(file).map(Some).map_err(unreadable)
}

/// Writes a file so that it is either whole or absent, and never takes the place of another.
fn write_new(file: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let draft = file.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&draft); // of a process that died and had the same number
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut out| {
            out.set_permissions(fs::Permissions::from_mode(mode))?;
            out.write_all(bytes)?;
            out.sync_all()
        })
        .and_then(|()| publish(&draft, file));
    let _ = fs::remove_file(&draft);
    written.map_err(|why| AuthorityError::Unwritable {
        file: file.to_owned(),
        why,
    })
}

/// Gives a finished draft its name, unless somebody else's has it by now.
fn publish(draft: &Path, file: &Path) -> io::Result<()> {
    match fs::hard_link(draft, file) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
        Err(_) => fs::rename(draft, file)?, // a file system without hard links
        Ok(()) => {}
    }
    match file.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use async_std::net::{TcpListener, TcpStream};
    use futures_lite::{AsyncReadExt, AsyncWriteExt, future};

    use crate::net::tls::Connector;

    const SOON: Duration = Duration::from_secs(5);

    /// A folder of its own for each test, removed at the end.
    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Self {
            let unique = uuid::Uuid::new_v4();
            Self(std::env::temp_dir().join(format!("noports-authority-{name}-{unique}")))
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_authority_is_replaced_in_two_steps_and_clients_of_both_are_served_between() {
        let folder = Folder::new("rotate");
        let old = open_or_make(&folder.0).unwrap().ca_pem().to_owned();
        assert!(matches!(finish(&folder.0), Err(AuthorityError::NothingNew)));
        let both = rotate(&folder.0).unwrap();
        assert_eq!(rotate(&folder.0).unwrap(), both);
        assert!(both.starts_with(old.trim_end()) && both.matches("BEGIN").count() == 2);
        let between = open_or_make(&folder.0).unwrap();
        let chain = between.leaf(&[]).unwrap().chain;
        assert!(chain.ends_with(&old) && chain.matches("BEGIN").count() == 2);
        let new = finish(&folder.0).unwrap();
        assert!(
            new.matches("BEGIN").count() == 1
                && !both.starts_with(&new)
                && both.contains(new.trim())
        );
        let after = open_or_make(&folder.0).unwrap();
        assert!(after.leaf(&[]).unwrap().chain.ends_with(&new));
        assert!(matches!(finish(&folder.0), Err(AuthorityError::NothingNew)));
    }

    #[test]
    fn the_authority_is_made_once_and_kept() {
        let folder = Folder::new("kept");
        let first = open_or_make(&folder.0).unwrap();
        let again = open_or_make(&folder.0).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(mode(&folder.0.join(KEY_FILE)), 0o600);
        assert_eq!(mode(first.ca_file()), 0o644);
        assert_eq!(
            fs::read_dir(&folder.0).unwrap().count(),
            2,
            "no drafts left"
        );
    }

    #[test]
    fn a_start_that_died_between_the_two_files_is_finished() {
        let folder = Folder::new("died");
        open_or_make(&folder.0).unwrap();
        let key = fs::read(folder.0.join(KEY_FILE)).unwrap();
        fs::remove_file(folder.0.join(CA_FILE)).unwrap();
        open_or_make(&folder.0).unwrap();
        assert_eq!(fs::read(folder.0.join(KEY_FILE)).unwrap(), key);
    }

    #[test]
    fn files_that_do_not_fit_are_refused_by_name() {
        let (one, other) = (Folder::new("one"), Folder::new("other"));
        open_or_make(&one.0).unwrap();
        open_or_make(&other.0).unwrap();
        let refused = || open_or_make(&one.0).err().unwrap();

        fs::copy(other.0.join(KEY_FILE), one.0.join(KEY_FILE)).unwrap();
        assert!(matches!(refused(), AuthorityError::Mismatch { .. }));
        fs::write(one.0.join(KEY_FILE), "no key").unwrap();
        assert!(matches!(refused(), AuthorityError::BadKey(_)));
        fs::remove_file(one.0.join(KEY_FILE)).unwrap();
        assert!(matches!(refused(), AuthorityError::KeyLost { .. }));
        assert!(refused().hint().unwrap().contains("remove both"));

        fs::write(other.0.join(CA_FILE), "no certificate").unwrap();
        let error = open_or_make(&other.0).err().unwrap();
        assert!(matches!(error, AuthorityError::BadCertificate(_)));
        fs::write(other.0.join(CA_FILE), b"\xff\xfe").unwrap();
        let error = open_or_make(&other.0).err().unwrap();
        assert!(matches!(error, AuthorityError::Unreadable { .. }));
    }

    #[test]
    fn names_that_cannot_stand_in_a_certificate_are_refused() {
        let folder = Folder::new("names");
        let authority = open_or_make(&folder.0).unwrap();
        for name in ["", "two words", "h\u{f6}me"] {
            let error = authority.leaf(&[name.to_owned()]).err();
            assert!(matches!(error, Some(AuthorityError::Name(_))), "{name:?}");
        }
    }

    /// One TLS connection to `name`, served with the leaf: what the client reads.
    async fn greet(leaf: &Leaf, trust: &Connector, name: &str) -> Result<Vec<u8>, TlsError> {
        greet_from(&leaf.acceptor().unwrap(), trust, name).await
    }

    async fn greet_from(
        acceptor: &Acceptor,
        trust: &Connector,
        name: &str,
    ) -> Result<Vec<u8>, TlsError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let server = async {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok((mut tls, _)) = acceptor.accept(tcp, SOON).await {
                tls.write_all(b"@").await.unwrap();
                tls.close().await.unwrap();
            }
        };
        let client = async {
            let mut tls = trust.connect(name, tcp, SOON).await?;
            let mut got = vec![0; 1];
            tls.read_exact(&mut got).await.unwrap();
            Ok(got)
        };
        future::zip(server, client).await.1
    }

    #[test]
    fn a_certificate_is_renewed_after_a_year_while_running_and_when_the_clock_was_wrong() {
        let folder = Folder::new("renew");
        let authority = open_or_make(&folder.0).unwrap();
        let start = SystemTime::now();
        let renewing = Renewing::new(authority, &[], start).unwrap();
        let shown = |now| renewing.at(now).certificate().to_vec();
        let (first, year) = (shown(start), RENEWED_AFTER);
        assert_eq!(shown(start + year - DAY), first);
        let second = shown(start + year);
        assert_ne!(second, first);
        assert_eq!(shown(start + year + DAY), second);
        // Long before the end of what was shown so far.
        assert!(year * 2 < DAY * SERVER_DAYS);
        // A little slow is nothing; back by more than its head start it would not be valid yet.
        assert_eq!(shown(start + year - DAY / 2), second);
        let back = shown(start);
        assert_ne!(back, second);
        assert_eq!(shown(start + DAY), back);
        // None can be made by a clock that was never set; what there is goes on.
        let never_set = SystemTime::UNIX_EPOCH + DAY;
        assert_eq!(shown(never_set), back);
        assert_eq!(shown(start + DAY), back);
    }

    #[test]
    fn a_renewed_certificate_is_accepted_by_who_trusts_the_authority() {
        async_std::task::block_on(async {
            let folder = Folder::new("renewed");
            let authority = open_or_make(&folder.0).unwrap();
            let trust = Connector::new(&[authority.ca_file()]).unwrap();
            // Made so long ago that the first connection finds it too old.
            let long_ago = SystemTime::now() - DAY * (SERVER_DAYS + 1);
            let renewing = Renewing::new(authority, &[], long_ago).unwrap();
            let acceptor = Acceptor::showing(move || renewing.at(SystemTime::now()));
            let got = greet_from(&acceptor, &trust, "localhost").await;
            assert_eq!(got.unwrap(), b"@");
        });
    }

    #[test]
    fn our_own_client_accepts_the_names_and_no_other() {
        async_std::task::block_on(async {
            let folder = Folder::new("tls");
            let authority = open_or_make(&folder.0).unwrap();
            let leaf = authority
                .leaf(&["home.example".into(), "*.at.example".into()])
                .unwrap();
            let trust = Connector::new(&[authority.ca_file()]).unwrap();
            for name in [
                "localhost",
                "127.0.0.1",
                "::1",
                "home.example",
                "alice.at.example",
            ] {
                let got = greet(&leaf, &trust, name).await;
                assert_eq!(got.unwrap(), b"@", "{name}");
            }
            for name in ["other.example", "127.0.0.2", "a.b.at.example"] {
                let got = greet(&leaf, &trust, name).await;
                assert!(
                    matches!(got, Err(TlsError::WrongName { .. })),
                    "{name}: {got:?}"
                );
            }
            let stranger = Connector::new::<&Path>(&[]).unwrap();
            let got = greet(&leaf, &stranger, "localhost").await;
            assert!(
                matches!(got, Err(TlsError::UnknownAuthority { .. })),
                "{got:?}"
            );
        });
    }
}
