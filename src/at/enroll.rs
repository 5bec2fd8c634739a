//! First keys of an atSign (activation) and keys for one more device (enrolment): requests and answers, no I/O.

use super::{atsign::AtSign, crypto::CryptoError, keyfile::AtKeys, verb::Verb};

/// Makes all keys of a new atSign. Slow (two RSA pairs): call it off the executor.
///
/// # Errors
/// When the system gives no random bytes.
pub fn mint(_atsign: &AtSign) -> Result<AtKeys, CryptoError> {
    todo!()
}

/// `enroll:request:{"appName":"firstApp",…}` on a CRAM connection.
///
/// # Errors
/// When the system gives no random bytes.
pub fn first_request(_keys: &AtKeys) -> Result<Verb, CryptoError> {
    todo!()
}

/// `{"enrollmentId":"…","status":"approved"}` → (id, status)
pub fn parse_answer(_json: &str) -> Option<(String, String)> {
    todo!()
}
