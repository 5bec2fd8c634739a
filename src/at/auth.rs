//! Logging in, as steps that take and give lines: `from` → challenge → `cram` or `pkam` → `success`.

use super::{atsign::AtSign, crypto::CryptoError, keyfile::AtKeys, verb::Verb};

/// `from:@alice`
pub fn ask(who: &AtSign) -> Verb {
    Verb::From {
        who: who.clone(),
        config: None,
    }
}

/// The answer to `from` (text behind `data:`) → the `pkam` line, with the enrolment id when the keys have one.
///
/// # Errors
/// When the answer is a `proof:` (this is another atSign's server) or no challenge for this atSign.
pub fn prove(_keys: &AtKeys, _challenge: &str) -> Result<Verb, AuthError> {
    todo!()
}

/// The answer to `from` → the `cram` line.
///
/// # Errors
/// As [`prove`].
pub fn prove_by_secret(_who: &AtSign, _secret: &str, _challenge: &str) -> Result<Verb, AuthError> {
    todo!()
}

/// Why a login cannot go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AuthError {
    #[error("this is not {0}'s atServer")]
    WrongServer(AtSign),
    #[error("the atServer's challenge cannot be read")]
    Challenge,
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}
