//! The files of an authority, and why there is none or no certificate.

use std::{io, path::PathBuf};

use crate::net::tls::TlsError;

/// File of the authority's private key, in the data folder.
pub const KEY_FILE: &str = "ca.key";
/// File of the next authority's private key, while clients are given its certificate.
pub const NEXT_KEY_FILE: &str = "ca-next.key";
/// File of the authority's certificate, in the data folder. While it is being replaced: of both.
pub const CA_FILE: &str = "ca.pem";

/// Why there is no authority or no certificate.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AuthorityError {
    #[error("cannot read {}: {why}", file.display())]
    Unreadable { file: PathBuf, why: io::Error },
    #[error("cannot write {}: {why}", file.display())]
    Unwritable { file: PathBuf, why: io::Error },
    #[error("{} is not a private key made by noports atserver", .0.display())]
    BadKey(PathBuf),
    #[error("{} is not an authority made by noports atserver", .0.display())]
    BadCertificate(PathBuf),
    #[error("{} exists, but its private key {} does not", cert.display(), key.display())]
    KeyLost { cert: PathBuf, key: PathBuf },
    #[error("{} and {} do not belong together", cert.display(), key.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("a certificate cannot be made for {0:?}")]
    Name(String),
    #[error("there is no new authority yet")]
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
            Self::Unwritable { why, .. } if why.kind() == io::ErrorKind::StorageFull => {
                "make room on the disk".into()
            }
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
