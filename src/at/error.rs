//! What can go wrong with an atServer, and what to do about it.

use std::time::Duration;

use crate::{
    at::{
        atsign::AtSign,
        auth::AuthError,
        crypto::CryptoError,
        directory::{DEFAULT_PORT, DEFAULT_ROOT},
        fault::{Code, Fault},
        pins::PinError,
    },
    net::tls::TlsError,
    text::duration::in_words,
};

/// What can go wrong, by whose fault it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum AtError {
    #[error("cannot reach the atDirectory at {root}: {why}")]
    Directory { root: String, why: String },
    #[error("the atDirectory at {root} does not know {who}")]
    Unknown { root: String, who: AtSign },
    #[error("cannot reach {who}'s atServer at {at}: {why}")]
    Unreachable {
        who: AtSign,
        at: String,
        why: String,
    },
    #[error("cannot speak to {what}: {source}")]
    Tls { what: String, source: TlsError },
    #[error("{who}'s atServer refused the login: {fault}")]
    Login { who: AtSign, fault: Fault },
    #[error("the connection to {who}'s atServer was lost: {why}")]
    Lost { who: AtSign, why: String },
    #[error("the atServer refused: {0}")]
    Refused(Fault),
    #[error("the atServer did not answer within {}", in_words(*.0))]
    Silent(Duration),
    #[error("no key of {0} is available now: {1}")]
    NoKeyNow(AtSign, &'static str),
    #[error("{0}'s atServer does not let us in")]
    ShutOut(AtSign),
    #[error("{0} has no public key")]
    NoPublicKey(AtSign),
    #[error("the connection to the atServer has been closed")]
    Closed,
    #[error("{0}")]
    Protocol(String),
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// Most directories of one's own listen elsewhere.
fn is_port_forgotten(root: &str) -> bool {
    root != DEFAULT_ROOT && root.ends_with(&format!(":{DEFAULT_PORT}"))
}

/// For a service that is told a [final word](AtError::final_word): it read its key file at its start.
pub const RESTART: &str =
    "once the key file has new keys, restart this program: it goes on with those of its start";

impl AtError {
    /// What to try next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Directory { root, .. } if is_port_forgotten(root) => {
                return Some(format!(
                    "without a port it is {DEFAULT_PORT}; if it listens on another one: --root {}:6400",
                    root.trim_end_matches(&format!(":{DEFAULT_PORT}"))
                ));
            }
            Self::Directory { .. } => {
                "check the network, and that it allows outbound TCP to that port; if you host your own: --root"
            }
            Self::Unknown { .. } => {
                "check the spelling; for an atSign of another atDirectory: --root"
            }
            Self::Unreachable { .. } => {
                "check that this network allows outbound TCP to that port; a new atServer may need a few minutes"
            }
            Self::Tls { source, .. } => return source.hint().map(str::to_owned),
            Self::Login { fault, .. } => return login_hint(fault).map(str::to_owned),
            Self::Auth(AuthError::WrongServer(_)) => {
                "check the atDirectory (--root): it points to another atServer"
            }
            Self::Refused(fault) if fault.code == Some(Code::Unauthorized) => {
                "these keys may lack the namespace; enrol again with --namespaces"
            }
            Self::Refused(fault) if fault.code == Some(Code::DataStore) => {
                "make room on the disk of the machine that it runs on: it goes on by itself then"
            }
            Self::Lost { .. } | Self::Silent(_) => {
                "try again; if it fails again, check the network"
            }
            Self::Pin(changed) => return Some(changed.hint()),
            Self::NoKeyNow(..) => "try again in a minute",
            Self::ShutOut(_) => "its owner can let you in: noports access",
            Self::NoPublicKey(_) => "that atSign may not be activated yet: noports activate",
            Self::Refused(_)
            | Self::Closed
            | Self::Protocol(_)
            | Self::Crypto(_)
            | Self::Auth(_) => {
                return None;
            }
        };
        Some(text.to_owned())
    }

    /// In plain words, when these keys are not let in any more and only somebody else can change that.
    pub fn final_word(&self) -> Option<&'static str> {
        let Self::Login { fault, .. } = self else {
            return None;
        };
        Some(match fault.code? {
            Code::EnrollmentRevoked => {
                "this device's keys were revoked; `noports enroll unrevoke` on a device with keys restores them"
            }
            Code::EnrollmentDenied => "this device's request for keys was denied; enrol it again",
            Code::EnrollmentExpired => {
                "this device's keys have expired, or were deleted; enrol it again"
            }
            _ => return None,
        })
    }

    /// Whether trying again later can help without anybody doing something.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Directory { .. }
            | Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Silent(_)
            | Self::NoKeyNow(..) => true,
            // A clock that is behind until the network sets it, a portal that answers for everybody until somebody logs in.
            Self::Tls { source, .. } => !matches!(source, TlsError::Authority(..)),
            Self::Login { fault, .. } | Self::Refused(fault) => fault.code.is_some_and(is_passing),
            _ => false,
        }
    }
}

fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::ServerException
            | Code::DataStore
            | Code::Socket
            | Code::OutboundLimit
            | Code::Handshake
            | Code::InboundLimit
            | Code::UnableToConnect
            | Code::Timeout
            | Code::Paused
    )
}

fn login_hint(fault: &Fault) -> Option<&'static str> {
    Some(match fault.code? {
        Code::Unauthenticated => "check that these keys belong to this atSign, and are its latest",
        Code::EnrollmentPending => "approve the enrolment on a device that has keys",
        Code::EnrollmentRevoked => {
            "these keys were revoked; on a device with keys: noports enroll unrevoke"
        }
        Code::EnrollmentDenied | Code::EnrollmentExpired => "enrol this device again",
        Code::KeyNotFound => "the atSign has been activated already, or it has not been prepared",
        Code::Blocked => "the owner of that atServer has blocked this atSign",
        Code::InboundLimit | Code::Paused => "the atServer is busy; try again in a minute",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a certificate says at a start may be a portal's doing, or a clock's.
    #[test]
    fn certificates_may_pass_and_files_do_not() {
        let name = || "localhost".to_owned();
        for (source, passes) in [
            (TlsError::UnknownAuthority { name: name() }, true),
            (TlsError::WrongName { name: name() }, true),
            (TlsError::Expired { name: name() }, true),
            (TlsError::TimedOut { name: name() }, true),
            (TlsError::Authority("ca.pem".into(), "none".into()), false),
        ] {
            let what = "the atDirectory".to_owned();
            let error = AtError::Tls { what, source };
            assert_eq!(error.may_pass(), passes, "{error}");
        }
    }

    #[test]
    fn a_full_disk_has_a_hint() {
        let full = AtError::Refused(Fault::new(Code::DataStore, "the disk is full"));
        assert!(full.hint().is_some_and(|hint| hint.contains("make room")));
    }
}
