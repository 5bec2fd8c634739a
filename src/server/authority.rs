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
//!
//! Here: what is made when. `certificate`: what stands in it. `renewing`: the server's, always young enough.
//! `files`: reading and writing the folder. `error`: their names, and what can go wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::{
    net::tls::{Acceptor, ServerCertificate},
    secret::Secret,
};

use certificate::{all_names, authority_params, date, own_certificate, serial};
use files::{read, replace, write_new};

pub use error::{AuthorityError, CA_FILE, KEY_FILE, NEXT_KEY_FILE};

mod certificate;
mod error;
mod files;
mod renewing;

const SERVER_DAYS: u32 = 825;

/// Certificate chain (server, authority) and private key of a server, in PEM.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Leaf {
    pub chain: String,
    pub key: Secret<String>,
}

impl Leaf {
    fn shown(&self) -> Result<ServerCertificate, AuthorityError> {
        Ok(ServerCertificate::from_pem(&self.chain, self.key.reveal())?)
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

    /// The text of that file.
    #[cfg(test)]
    fn ca_pem(&self) -> &str {
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

/// Makes the next authority beside the one there is: from now on `ca.pem` holds both certificates, for clients, and
/// the old one goes on signing. Returns that file's text. Doing it twice changes nothing.
///
/// # Errors
/// As [`open_or_make`].
pub fn rotate(folder: &Path) -> Result<String, AuthorityError> {
    let now = open_or_make(folder)?;
    let key_file = folder.join(NEXT_KEY_FILE);
    if read(&key_file)?.is_none() {
        write_new_key(&key_file)?;
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

fn open_or_make_key(key_file: &Path, ca_file: &Path) -> Result<KeyPair, AuthorityError> {
    if read(key_file)?.is_none() {
        if ca_file.exists() {
            return Err(AuthorityError::KeyLost {
                cert: ca_file.to_owned(),
                key: key_file.to_owned(),
            });
        }
        write_new_key(key_file)?;
    }
    // Read back even if just written: of two first starts at once, one key wins.
    read_key(key_file)
}

fn write_new_key(key_file: &Path) -> Result<(), AuthorityError> {
    let made = Secret::new(KeyPair::generate()?.serialize_pem());
    write_new(key_file, made.reveal().as_bytes(), 0o600)
}

fn read_key(key_file: &Path) -> Result<KeyPair, AuthorityError> {
    let bad = || AuthorityError::BadKey(key_file.to_owned());
    let pem = Secret::new(read(key_file)?.ok_or_else(bad)?);
    KeyPair::from_pem_and_sign_algo(pem.reveal(), &rcgen::PKCS_ECDSA_P256_SHA256).map_err(|_| bad())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
