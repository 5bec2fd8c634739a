//! Logging in, as steps that take and give lines: `from` → challenge → `cram` or `pkam` → `success`.
//!
//! ```text
//!   ask ─▶ from:@alice            _<uuid>@alice:<uuid> ─▶ prove ─▶ pkam:…:<signature>       success
//!                                 proof:_<uuid>@alice:<uuid> ─▶ prove_to_peer (server to server)
//! ```

use super::{
    atsign::AtSign,
    crypto::{self, CryptoError, KeyPair},
    key::AtKey,
    keyfile::AtKeys,
    verb::{HashingAlgo, SigningAlgo, Verb},
};

/// The text behind `data:` that ends a login well.
pub const SUCCESS: &str = "success";

/// `from:@alice`
pub fn ask(who: &AtSign) -> Verb {
    Verb::From {
        who: who.clone(),
        config: None,
    }
}

/// What the JSON behind `clientConfig:` calls the longest line, in bytes, that a monitor is to send.
pub const LONGEST_LINE: &str = "longestLine";
/// The last version that is answered with errors as text; servers want one beside everything else.
const TEXT_VERSION: &str = "3.0.37";

/// `from:@alice:clientConfig:{…}`: also tells how long a line of a monitor may be. Whoever may write to us decides how
/// long lines are, and a slow line would carry megabytes only for us to throw them away. Servers take from that JSON
/// the names they know; those that know no `clientConfig` at all refuse the command, and are asked with [`ask`].
pub fn ask_with_limit(who: &AtSign, limit: usize) -> Verb {
    Verb::From {
        who: who.clone(),
        config: Some(format!(
            r#"{{"version":"{TEXT_VERSION}","{LONGEST_LINE}":"{limit}"}}"#
        )),
    }
}

/// The answer to `from` (text behind `data:`) → the `pkam` line, with the enrolment id when the keys have one.
///
/// # Errors
/// When the answer is a `proof:` (this is another atSign's server) or no challenge for this atSign.
pub fn prove(keys: &AtKeys, challenge: &str) -> Result<Verb, AuthError> {
    let challenge = check(&keys.atsign, challenge)?;
    Ok(Verb::Pkam {
        signing: Some(SigningAlgo::Rsa2048),
        hashing: Some(HashingAlgo::Sha256),
        enrollment: keys.enrollment_id.clone(),
        signature: keys.pkam.sign(challenge.as_bytes())?,
    })
}

/// The answer to `from` → the `cram` line.
///
/// # Errors
/// As [`prove`].
pub fn prove_by_secret(who: &AtSign, secret: &str, challenge: &str) -> Result<Verb, AuthError> {
    let challenge = check(who, challenge)?;
    Ok(Verb::Cram {
        digest: crypto::cram_digest(secret, challenge),
    })
}

/// An atServer's side of `pol`: the answer to `from` at another atServer → the public key under which the
/// asked server will look for the signature, and the signature.
///
/// # Errors
/// `Challenge` unless it is a `proof:` for this atSign.
pub fn prove_to_peer(
    who: &AtSign,
    signing: &KeyPair,
    answer: &str,
) -> Result<(AtKey, String), AuthError> {
    let proof = answer.strip_prefix(PROOF).ok_or(AuthError::Challenge)?;
    let (session, challenge) = split(who, proof)?;
    let signature = signing.sign(challenge.as_bytes())?;
    Ok((AtKey::public(session, who), signature))
}

/// Stands before the challenge for an atSign that is not at home on this server.
const PROOF: &str = "proof:";

/// A server must not get us to sign just any text.
fn check<'a>(who: &AtSign, answer: &'a str) -> Result<&'a str, AuthError> {
    if answer.starts_with(PROOF) {
        return Err(AuthError::WrongServer(who.clone()));
    }
    split(who, answer).map(|_| answer)
}

/// `_<session>@alice:<challenge>` → (`_<session>`, `<challenge>`)
fn split<'a>(who: &AtSign, text: &'a str) -> Result<(&'a str, &'a str), AuthError> {
    let word = |text: &str| {
        text.len() > 1
            && text.len() <= MAX_WORD
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    text.split_once(&format!("{who}:"))
        .filter(|(session, challenge)| session.starts_with('_') && word(session) && word(challenge))
        .ok_or(AuthError::Challenge)
}

/// Longest session id or challenge: a UUID has 36 characters.
const MAX_WORD: usize = 128;

/// Why a login cannot go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum AuthError {
    #[error("this is not {0}'s atServer")]
    WrongServer(AtSign),
    #[error("the atServer's challenge cannot be read")]
    Challenge,
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::at::vectors::{at_protocol, atsign, keys};

    #[test]
    fn pkam_signs_the_known_challenge() {
        let pkam = at_protocol().at("pkam");
        for (which, command) in [("legacy_file", "dart_legacy"), ("apkam_file", "dart_apkam")] {
            let line = prove(&keys(which), &pkam.text("challenge")).unwrap();
            assert_eq!(
                line.to_string(),
                pkam.at("commands").text(command),
                "{which}"
            );
        }
    }

    #[test]
    fn cram_digests_the_known_challenge() {
        let cram = at_protocol().at("cram");
        let (secret, challenge) = (cram.text("secret"), cram.text("challenge"));
        let line = prove_by_secret(&atsign("@alice"), &secret, &challenge).unwrap();
        assert_eq!(line.to_string(), cram.text("command"));
    }

    #[test]
    fn pol_signs_the_last_field_only() {
        let pol = at_protocol().at("pol");
        let signing = keys("legacy_file").encryption;
        let response = pol.text("from_response");
        let answer = response.strip_prefix("data:").unwrap();
        let answer = answer.strip_suffix("\n@").unwrap();
        let (key, signature) = prove_to_peer(&atsign("@alice"), &signing, answer).unwrap();
        assert_eq!(key.to_string(), pol.text("stored_under"));
        assert_eq!(signature, pol.text("signature_base64"));
    }

    #[test]
    fn only_challenges_for_this_atsign_are_signed() {
        let keys = keys("legacy_file");
        let wrong = || AuthError::WrongServer(atsign("@alice"));
        for (answer, expected) in [
            ("proof:_a1@alice:b2", wrong()),
            ("", AuthError::Challenge),
            ("_a1@bob:b2", AuthError::Challenge),
            ("a1@alice:b2", AuthError::Challenge),
            ("_a1@alice:", AuthError::Challenge),
            ("_a1@alice:{\"sign\":\"me\"}", AuthError::Challenge),
            ("_a1@alice:b2@alice:c3", AuthError::Challenge),
        ] {
            assert_eq!(prove(&keys, answer).unwrap_err(), expected, "{answer}");
        }
        let long = format!("_a1@alice:{}", "b".repeat(MAX_WORD + 1));
        assert_eq!(prove(&keys, &long).unwrap_err(), AuthError::Challenge);
    }
}
