//! Key files under a pass phrase, in the form all atProtocol programs share. Text in, text out.
//!
//! ```text
//!   {"content": base64, "iv": base64 of 16 bytes, "hashingAlgoType": "argon2id"}
//!       └ AES-256-CTR over the padded text of the ordinary .atKeys file
//!   key = Argon2id(version 0x13, 2 lanes, 10 000 KiB, 2 passes, 32 bytes); password: the phrase,
//!   salt: the phrase again, its UTF-16 units cut to their low 8 bits
//! ```
//! The phrase being its own salt makes the form weak against guessing many files at once, and nothing in it
//! proves that it is whole: choose a long phrase. Argon2 asks for salts of 8 bytes at least, but programs that
//! write this form never did, so short phrases are taken here too.
//!
//! Source: at_libraries:packages/at_chops/lib/src/algorithm/hashing/argon2id_hashing_algo.dart,
//! at_libraries:packages/at_auth/lib/src/auth/at_keys_crypto.dart.

use cryptoxide::kdf::argon2::{Params, argon2};
use miniserde::{Deserialize, Serialize, json};
use zeroize::Zeroizing;

use crate::secret::Secret;

use super::{
    crypto::{self, AesKey, CryptoError, Iv},
    keyfile::KeyFileError,
};

/// The only way of making the key that is known.
const ARGON2ID: &str = "argon2id";
/// Memory of one derivation, in KiB.
const MEMORY: u32 = 10_000;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Parallel lanes, as a parameter of the result; they are computed one after the other.
const LANES: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Protected {
    content: String,
    iv: String,
    #[serde(rename = "hashingAlgoType")]
    hashing: Option<String>,
}

/// The text of the ordinary key file inside a protected one. Slow on purpose (about 20 ms on a server).
///
/// # Errors
/// `Form` when it is no protected key file, `Hashing` when its key is made in another way, `WrongPhrase` when
/// what comes out is no key file.
pub fn unprotect(protected: &str, phrase: &Secret<String>) -> Result<Secret<String>, KeyFileError> {
    let form = |why: &str| KeyFileError::Form(why.to_owned());
    let file: Protected =
        json::from_str(protected).map_err(|_| form("its protected part cannot be read"))?;
    let hashing = file.hashing.unwrap_or_else(|| ARGON2ID.to_owned());
    if hashing != ARGON2ID {
        return Err(KeyFileError::Hashing(hashing.chars().take(20).collect()));
    }
    let iv = crypto::iv_from_base64(&file.iv).map_err(|_| form("its iv is no 16 bytes"))?;
    let text = crypto::decrypt(&derive(phrase.reveal()), &iv, &file.content)
        .map(Secret::new)
        .map_err(|_| KeyFileError::WrongPhrase)?;
    let inside = text.reveal().trim();
    // One wrong phrase in 256 leaves proper padding.
    if !(inside.starts_with('{') && inside.ends_with('}')) {
        return Err(KeyFileError::WrongPhrase);
    }
    Ok(text)
}

/// The protected form of an ordinary key file's text.
///
/// # Errors
/// When the system gives no random bytes.
pub fn protect(plain: &str, phrase: &Secret<String>) -> Result<String, CryptoError> {
    Ok(protect_with(plain, phrase, &crypto::random()?))
}

fn protect_with(plain: &str, phrase: &Secret<String>, iv: &Iv) -> String {
    json::to_string(&Protected {
        content: crypto::encrypt(&derive(phrase.reveal()), iv, plain),
        iv: crypto::to_base64(iv),
        hashing: Some(ARGON2ID.to_owned()),
    })
}

fn derive(phrase: &str) -> AesKey {
    // The cut is the format's: Dart takes code units for bytes.
    let salt: Zeroizing<Vec<u8>> = Zeroizing::new(phrase.encode_utf16().map(|u| u as u8).collect());
    let params = Params::argon2id()
        .memory_kb(MEMORY)
        .and_then(|params| params.iterations(PASSES))
        .and_then(|params| params.parallelism(LANES))
        .expect("constants within the algorithm's limits");
    Secret::new(argon2::<32>(&params, phrase.as_bytes(), &salt, b"", b""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::at::{
        keyfile::AtKeys,
        vectors::{Vectors, atsign, noports_2026},
    };

    fn known() -> Vectors {
        noports_2026().at("passphraseKeyFile")
    }

    fn phrase(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn the_known_files_open_and_are_written_the_same_way() {
        let plain = known().text("plain");
        for which in ["ascii", "nonAscii", "shortSalt"] {
            let case = known().at(which);
            let phrase = phrase(&case.text("passPhrase"));
            let key = derive(phrase.reveal());
            assert_eq!(
                *crypto::aes_key_to_base64(&key).reveal(),
                case.text("derivedKeyBase64"),
                "{which}"
            );
            let file = case.text("file");
            assert_eq!(
                *unprotect(&file, &phrase).unwrap().reveal(),
                plain,
                "{which}"
            );
            let iv = crypto::iv_from_base64(&case.text("ivBase64")).unwrap();
            assert_eq!(protect_with(&plain, &phrase, &iv), file, "{which}");
        }
        assert!(AtKeys::parse(&atsign("@device_example"), &plain).is_ok());
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let good = known().at("ascii").text("file");
        let right = known().at("ascii").text("passPhrase");
        for (file, with, want) in [
            (good.clone(), "another", KeyFileError::WrongPhrase),
            (good.clone(), "", KeyFileError::WrongPhrase),
            (
                good.replace("argon2id", "md5"),
                &*right,
                KeyFileError::Hashing("md5".into()),
            ),
            (
                r#"{"content":"AA==","iv":"AA=="}"#.into(),
                &*right,
                KeyFileError::Form("its iv is no 16 bytes".into()),
            ),
            (
                r#"{"iv":1}"#.into(),
                &*right,
                KeyFileError::Form("its protected part cannot be read".into()),
            ),
        ] {
            let got = unprotect(&file, &phrase(with)).unwrap_err();
            assert_eq!(got, want, "{with:?}");
            assert!(!got.hint().is_empty());
        }
    }

    #[test]
    fn a_fresh_file_differs_each_time_and_opens() {
        let phrase = phrase("x");
        let (one, two) = (
            protect("{}", &phrase).unwrap(),
            protect("{}", &phrase).unwrap(),
        );
        assert_ne!(one, two);
        assert_eq!(unprotect(&one, &phrase).unwrap().reveal(), "{}");
    }
}
