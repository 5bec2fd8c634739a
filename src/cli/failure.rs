//! Why a program ends, and the exit codes that scripts rely on.

use std::fmt::{self, Display};

use super::{hidden::HiddenValues, keystore::KeyStoreError};
use crate::{
    at::{
        atsign::BadAtSign,
        auth::AuthError,
        client::AtError,
        crypto::CryptoError,
        fault::{Code, Fault},
    },
    net::tls::TlsError,
    text::{
        json::Object,
        terminal::{brief, harmless},
    },
};

/// Exit codes; scripts rely on them. Once ssh has run, its own code is passed on.
pub mod exit {
    /// Done.
    pub const FINE: u8 = 0;
    /// Failed in a way that has no code of its own; stdout could not be written.
    pub const FAILED: u8 = 1;
    /// The command line was wrong.
    pub const MISUSE: u8 = 2;
    /// The key file is missing or cannot be used.
    pub const KEYS: u8 = 3;
    /// The atDirectory or an atServer cannot be reached.
    pub const UNREACHABLE: u8 = 4;
    /// No such atSign.
    pub const UNKNOWN: u8 = 5;
    /// The atServer refused the login.
    pub const LOGIN: u8 = 6;
    /// The device did not answer.
    pub const DEVICE_SILENT: u8 = 7;
    /// The device, or the policy it asked, refused.
    pub const DEVICE_REFUSED: u8 = 8;
    /// The rendezvous did not answer, cannot be reached, or no longer holds the session.
    pub const RENDEZVOUS: u8 = 9;
    /// An answer cannot be trusted: wrong signature, wrong session.
    pub const NOT_TRUSTWORTHY: u8 = 10;
    /// A TLS certificate is not trusted here.
    pub const TLS: u8 = 11;
    /// The service on the device (sshd, say) cannot be reached.
    pub const SERVICE: u8 = 12;

    /// Code and meaning, for help texts.
    pub const TABLE: &[(u8, &str)] = &[
        (FINE, "done"),
        (
            FAILED,
            "failed, or what it prints could not be written (a closed stdout is /dev/null, though, and takes everything)",
        ),
        (MISUSE, "the command line was wrong"),
        (KEYS, "the key file is missing or cannot be used"),
        (
            UNREACHABLE,
            "the atDirectory or an atServer cannot be reached",
        ),
        (UNKNOWN, "no such atSign"),
        (LOGIN, "the atServer refused the login"),
        (DEVICE_SILENT, "the device did not answer"),
        (DEVICE_REFUSED, "the device refused"),
        (
            RENDEZVOUS,
            "the rendezvous did not answer or cannot be reached, or the session broke off",
        ),
        (NOT_TRUSTWORTHY, "an answer cannot be trusted"),
        (TLS, "a TLS certificate is not trusted here"),
        (SERVICE, "the service on the device cannot be reached"),
    ];
}

/// Why a program ends: one line what, one line what to try next, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Lower case, no full stop, in the user's words.
    pub message: String,
    /// What to try next.
    pub hint: Option<String>,
    /// One of [`exit`].
    pub code: u8,
    /// How the classic programs say it; scripts look for that.
    pub classic: Option<String>,
    /// Whether under a classic name nothing else is said.
    pub alone: bool,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code,
            classic: None,
            alone: false,
        }
    }

    /// One without a code of its own.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(exit::FAILED, message)
    }

    /// The command line was wrong.
    pub fn misuse(message: impl Into<String>) -> Self {
        Self::new(exit::MISUSE, message)
    }

    /// With a word on what to try next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What another room's error says, with its hint.
    pub fn told(code: u8, error: &impl Display, hint: Option<impl Into<String>>) -> Self {
        Self {
            hint: hint.map(Into::into),
            ..Self::new(code, error.to_string())
        }
    }

    /// The same for a terminal: what a path, a variable or a peer put into it moves no cursor and turns no line.
    pub fn harmless(&self) -> Self {
        self.clone().map(harmless)
    }

    /// Every text of it, changed.
    fn map(self, change: impl Fn(&str) -> String) -> Self {
        Self {
            message: change(&self.message),
            hint: self.hint.as_deref().map(&change),
            code: self.code,
            classic: self.classic.as_deref().map(&change),
            alone: self.alone,
        }
    }

    /// As it is told: without what may be a secret, and in case of a misuse without words that go on and on.
    pub(super) fn veiled(self, hidden: &HiddenValues) -> Self {
        let is_misuse = self.code == exit::MISUSE;
        self.map(|text| {
            let text = hidden.veil(text);
            if is_misuse { brief(&text) } else { text }
        })
    }

    /// With the words of the classic programs for the same thing.
    pub fn classic(mut self, words: impl Into<String>) -> Self {
        self.classic = Some(words.into());
        self
    }

    /// As [`Self::classic`], and there is no need for our own words below them.
    pub fn classic_alone(self, words: impl Into<String>) -> Self {
        Self {
            alone: true,
            ..self.classic(words)
        }
    }

    /// As one line of JSON, `{"event":"failed","error":…,"hint":…,"code":…}`; see [`outcome`](super::outcome).
    pub fn to_json(&self, code: u8) -> String {
        Object::event("failed")
            .text("error", &self.message)
            .maybe("hint", self.hint.as_deref())
            .raw("code", code)
            .end()
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<AtError> for Failure {
    fn from(error: AtError) -> Self {
        let code = match &error {
            AtError::Directory { .. }
            | AtError::Unreachable { .. }
            | AtError::Lost { .. }
            | AtError::Silent(_)
            | AtError::NoKeyNow(..) => exit::UNREACHABLE,
            AtError::ShutOut(_) => exit::DEVICE_REFUSED,
            AtError::Pin(_) => exit::NOT_TRUSTWORTHY,
            AtError::Tls { source, .. } => code_of_tls(source),
            AtError::Unknown { .. } => exit::UNKNOWN,
            AtError::Login { .. } | AtError::Auth(_) => exit::LOGIN,
            AtError::Refused(fault) => code_of_fault(fault),
            _ => exit::FAILED,
        };
        Self::told(code, &error, error.hint())
    }
}

fn code_of_fault(fault: &Fault) -> u8 {
    match fault.code {
        Some(Code::NoAtServer) => exit::UNKNOWN,
        Some(Code::Unauthenticated | Code::EnrollmentDenied | Code::EnrollmentPending) => {
            exit::LOGIN
        }
        Some(Code::EnrollmentRevoked | Code::EnrollmentExpired) => exit::LOGIN,
        Some(Code::UnableToConnect | Code::Timeout | Code::Socket) => exit::UNREACHABLE,
        _ => exit::FAILED,
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::new(exit::LOGIN, error.to_string())
    }
}

impl From<CryptoError> for Failure {
    fn from(error: CryptoError) -> Self {
        let code = match error {
            CryptoError::Signature => exit::NOT_TRUSTWORTHY,
            CryptoError::BadKey => exit::KEYS,
            _ => exit::FAILED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<KeyStoreError> for Failure {
    fn from(error: KeyStoreError) -> Self {
        Self::new(exit::KEYS, error.to_string()).hint(error.hint())
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::told(code_of_tls(&error), &error, error.hint())
    }
}

fn code_of_tls(error: &TlsError) -> u8 {
    match error {
        TlsError::UnknownAuthority { .. }
        | TlsError::WrongName { .. }
        | TlsError::Expired { .. } => exit::TLS,
        TlsError::Authority(..) | TlsError::Unreadable(..) => exit::MISUSE,
        _ => exit::UNREACHABLE,
    }
}

impl From<BadAtSign> for Failure {
    fn from(error: BadAtSign) -> Self {
        Self::misuse(error.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::cli::failure::*;

    #[test]
    fn every_exit_code_is_in_the_table_once() {
        let codes: Vec<u8> = exit::TABLE.iter().map(|row| row.0).collect();
        assert_eq!(codes, (0..=12).collect::<Vec<u8>>());
    }

    #[test]
    fn what_others_put_into_a_failure_does_not_drive_the_terminal() {
        for (text, want) in [
            ("cannot use a\u{1b}[31mb", "cannot use a\\u{1b}[31mb"),
            ("x\r\u{8}\u{7f}\u{9b}", "x\\r\\u{8}\\u{7f}\\u{9b}"),
            (
                "@a\u{202e}b\u{2028}\u{2066}",
                "@a\\u{202e}b\\u{2028}\\u{2066}",
            ),
            (
                "two\nlines, ü \u{1f469}\u{200d}\u{1f680}",
                "two\nlines, ü \u{1f469}\u{200d}\u{1f680}",
            ),
        ] {
            let told = Failure::plain(text).hint(text).classic(text).harmless();
            assert_eq!(told.message, want);
            assert_eq!(told.hint.as_deref(), Some(want));
            assert_eq!(told.classic.as_deref(), Some(want));
        }
    }

    #[test]
    fn a_failure_is_one_line_of_json() {
        let failure = Failure::new(exit::KEYS, "no \"keys\"").hint("make some");
        assert_eq!(
            failure.to_json(exit::KEYS),
            r#"{"event":"failed","error":"no \"keys\"","hint":"make some","code":3}"#
        );
    }
}
