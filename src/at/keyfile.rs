//! The `.atKeys` file: all keys of one atSign on one device. Text in, text out; `cli::keystore` does the I/O.
//!
//! ```text
//!   {"aesPkamPublicKey":…, "aesPkamPrivateKey":…,         AES under the self key, zero IV
//!    "aesEncryptPublicKey":…, "aesEncryptPrivateKey":…,   the same
//!    "selfEncryptionKey":…, "@alice":…,                   the self key, twice, in clear
//!    "apkamSymmetricKey":…, "enrollmentId":…}             only after an enrolment
//! ```
//! Nothing in the file proves that it is whole, so every key is read as a key before it is believed.
//!
//! Source: at_libraries:packages/at_auth/lib/src/auth_constants.dart,
//! at_libraries:packages/at_onboarding_cli/lib/src/onboard/at_onboarding_service_impl.dart.

use std::collections::BTreeMap;

use miniserde::json::{self, Object, Value};

use crate::secret::Secret;

use super::{
    atsign::AtSign,
    crypto::{self, AesKey, KeyPair, PublicKey, ZERO_IV},
};

const PKAM_PUBLIC: &str = "aesPkamPublicKey";
const PKAM_PRIVATE: &str = "aesPkamPrivateKey";
const ENCRYPT_PUBLIC: &str = "aesEncryptPublicKey";
const ENCRYPT_PRIVATE: &str = "aesEncryptPrivateKey";
const SELF_KEY: &str = "selfEncryptionKey";
const APKAM_KEY: &str = "apkamSymmetricKey";
const ENROLLMENT_ID: &str = "enrollmentId";
/// Stands in files that are encrypted as a whole under a pass phrase, and in no other.
const PASS_PHRASE_MARK: &str = "iv";

/// What a key file holds, decrypted.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AtKeys {
    pub atsign: AtSign,
    /// Logs in: PKAM, or APKAM when there is an enrolment id.
    pub pkam: KeyPair,
    /// Signs envelopes; others encrypt to its public half.
    pub encryption: KeyPair,
    pub self_key: AesKey,
    pub apkam_symmetric: Option<AesKey>,
    pub enrollment_id: Option<String>,
}

/// Why a key file cannot be used; each names what to do in [`KeyFileError::hint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum KeyFileError {
    #[error("not a key file: {0}")]
    Form(String),
    #[error("the key file lacks {0}")]
    Missing(&'static str),
    #[error("the key file's {0} cannot be decrypted")]
    Damaged(&'static str),
    #[error("these are the keys of {0}")]
    Others(AtSign),
    #[error("the key file is protected by a pass phrase")]
    PassPhrase,
    #[error("the pass phrase does not open the key file")]
    WrongPhrase,
    #[error("the key file's pass phrase is used in a way that this program does not know: {0:?}")]
    Hashing(String),
}

impl KeyFileError {
    /// What to try next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Form(_) => {
                "it must be a complete copy of the .atKeys file that activation or enrolment wrote"
            }
            Self::Missing(PKAM_PRIVATE) => {
                "keys in a secure element cannot be used here; enrol this device to get a key file of its own"
            }
            Self::Missing(_) => {
                "the file is of another kind or was edited; copy it again or enrol this device"
            }
            Self::Damaged(_) => {
                "the file was damaged or put together from two; copy it again or enrol this device"
            }
            Self::Others(_) => "each atSign has a key file of its own",
            Self::PassPhrase => {
                "the phrase comes from --passphrase-file FILE, from NOPORTS_PASSPHRASE, or from the terminal"
            }
            Self::WrongPhrase => {
                "check the spelling, with blanks and capitals; if it is right, the file is damaged"
            }
            Self::Hashing(_) => {
                "remove the pass phrase with the program that set it, or enrol this device to get keys of its own"
            }
        }
    }
}

impl AtKeys {
    /// Reads the JSON text of a key file. The atSign comes from the caller: not all files name one.
    ///
    /// # Errors
    /// When it names others only; when a member is missing or does not decode to base64 DER.
    pub fn parse(atsign: &AtSign, text: &str) -> Result<Self, KeyFileError> {
        let members = TextMembers::parse(text)?;
        if let Some(other) = members.other_owner(atsign) {
            return Err(KeyFileError::Others(other));
        }
        let self_key = aes_key(members.need(SELF_KEY)?, SELF_KEY)?;
        let pair = |private, public| members.pair(&self_key, private, public);
        Ok(Self {
            atsign: atsign.clone(),
            pkam: pair(PKAM_PRIVATE, PKAM_PUBLIC)?,
            encryption: pair(ENCRYPT_PRIVATE, ENCRYPT_PUBLIC)?,
            apkam_symmetric: match members.get(APKAM_KEY) {
                Some(text) => Some(aes_key(text, APKAM_KEY)?),
                None => None,
            },
            enrollment_id: members.get(ENROLLMENT_ID).map(str::to_owned),
            self_key,
        })
    }

    /// The JSON text, members in the order upstream writes them.
    pub fn print(&self) -> Secret<String> {
        let sealed = |text: &str| crypto::encrypt(&self.self_key, &ZERO_IV, text);
        let self_key = crypto::aes_key_to_base64(&self.self_key);
        let apkam_key = self.apkam_symmetric.as_ref().map(crypto::aes_key_to_base64);
        let pkam_private = sealed(self.pkam.private_text().reveal());
        let private = sealed(self.encryption.private_text().reveal());
        let (pkam_public, public) = (
            sealed(&self.pkam.public().text),
            sealed(&self.encryption.public().text),
        );
        let mut members: Vec<(&str, &str)> = vec![
            (PKAM_PUBLIC, &pkam_public),
            (PKAM_PRIVATE, &pkam_private),
            (ENCRYPT_PUBLIC, &public),
            (ENCRYPT_PRIVATE, &private),
            (SELF_KEY, self_key.reveal()),
            (self.atsign.as_str(), self_key.reveal()),
        ];
        members.extend(
            apkam_key
                .as_ref()
                .map(|key| (APKAM_KEY, key.reveal().as_str())),
        );
        members.extend(self.enrollment_id.as_deref().map(|id| (ENROLLMENT_ID, id)));
        print_object(&members)
    }

    /// `@alice_key.atKeys`
    pub fn file_name(atsign: &AtSign) -> String {
        format!("{atsign}_key.atKeys")
    }
}

/// By hand, so that the members keep their order and no copy of a key is left behind: the buffer never grows.
fn print_object(members: &[(&str, &str)]) -> Secret<String> {
    const QUOTES_AND_COMMA: usize = 6;
    let quoted: Vec<(String, Secret<String>)> = members
        .iter()
        .map(|(name, value)| (json::to_string(*name), Secret::new(json::to_string(*value))))
        .collect();
    let length = |(name, value): &(String, Secret<String>)| {
        name.len() + value.reveal().len() + QUOTES_AND_COMMA
    };
    let mut text = String::with_capacity(2 + quoted.iter().map(length).sum::<usize>());
    for (name, value) in &quoted {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(name);
        text.push(':');
        text.push_str(value.reveal());
    }
    text.push('}');
    Secret::new(text)
}

/// The text members of the file; others carry nothing we know.
struct TextMembers(BTreeMap<String, Secret<String>>);

impl TextMembers {
    fn parse(text: &str) -> Result<Self, KeyFileError> {
        let object: Object = json::from_str(text).map_err(|_| form(text))?;
        if object.contains_key(PASS_PHRASE_MARK) {
            return Err(KeyFileError::PassPhrase);
        }
        let text = |(name, value)| match value {
            Value::String(text) => Some((name, Secret::new(text))),
            _ => None,
        };
        Ok(Self(object.into_iter().filter_map(text).collect()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|text| text.reveal().as_str())
    }

    /// Whose keys they are, if they are not this atSign's.
    fn other_owner(&self, who: &AtSign) -> Option<AtSign> {
        let names = self.0.keys().filter(|name| name.starts_with('@'));
        let mut owners: Vec<AtSign> = names.filter_map(|name| name.parse().ok()).collect();
        owners
            .pop()
            .filter(|last| last != who && !owners.contains(who))
    }

    fn need(&self, name: &'static str) -> Result<&str, KeyFileError> {
        self.get(name).ok_or(KeyFileError::Missing(name))
    }

    /// A key pair whose two halves must belong together.
    fn pair(
        &self,
        self_key: &AesKey,
        private: &'static str,
        public: &'static str,
    ) -> Result<KeyPair, KeyFileError> {
        let open = |name: &'static str| {
            crypto::decrypt(self_key, &ZERO_IV, self.need(name)?)
                .map(Secret::new)
                .map_err(|_| KeyFileError::Damaged(name))
        };
        let pair =
            KeyPair::parse(open(private)?.reveal()).map_err(|_| KeyFileError::Damaged(private))?;
        let half =
            PublicKey::parse(open(public)?.reveal()).map_err(|_| KeyFileError::Damaged(public))?;
        if !half.is_same_key(pair.public()) {
            return Err(KeyFileError::Damaged(public));
        }
        Ok(pair)
    }
}

fn aes_key(text: &str, name: &'static str) -> Result<AesKey, KeyFileError> {
    crypto::aes_key_from_base64(text).map_err(|_| KeyFileError::Damaged(name))
}

/// Says which way a text is no JSON object.
fn form(text: &str) -> KeyFileError {
    let text = text.trim();
    KeyFileError::Form(
        match (text.is_empty(), text.starts_with('{'), text.ends_with('}')) {
            (true, _, _) => "it is empty",
            (_, true, false) => "it is cut off before its end",
            (_, true, true) => "its JSON is broken",
            _ => "it is not JSON",
        }
        .to_owned(),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::at::vectors::{at_protocol, atsign};

    fn file(which: &str) -> String {
        at_protocol().at("atkeys_files").at(which).json()
    }

    #[test]
    fn the_known_files_decode_to_the_known_keys() {
        let plain = at_protocol().at("atkeys_files.plain");
        for (which, enrolled) in [("legacy_file", false), ("apkam_file", true)] {
            let keys = AtKeys::parse(&atsign("@alice"), &file(which)).unwrap();
            for (name, got) in [
                ("pkam_public", &keys.pkam.public().text),
                ("pkam_private", keys.pkam.private_text().reveal()),
                ("encrypt_public", &keys.encryption.public().text),
                ("encrypt_private", keys.encryption.private_text().reveal()),
            ] {
                assert_eq!(*got, plain.text(name), "{which} {name}");
            }
            let text = |key: &AesKey| crypto::aes_key_to_base64(key).reveal().clone();
            assert_eq!(text(&keys.self_key), plain.text("self_encryption_key"));
            let apkam = enrolled.then(|| plain.text("apkam_symmetric_key"));
            assert_eq!(keys.apkam_symmetric.as_ref().map(text), apkam, "{which}");
            let id = enrolled.then(|| plain.text("enrollment_id"));
            assert_eq!(keys.enrollment_id, id, "{which}");
        }
    }

    #[test]
    fn a_printed_file_has_the_known_members_and_reads_back() {
        for which in ["legacy_file", "apkam_file"] {
            let keys = AtKeys::parse(&atsign("@alice"), &file(which)).unwrap();
            let printed = keys.print();
            let sorted: Object = json::from_str(printed.reveal()).unwrap();
            assert_eq!(json::to_string(&sorted), file(which), "{which}");
            assert!(printed.reveal().starts_with(r#"{"aesPkamPublicKey":""#));
            let again = AtKeys::parse(&atsign("@alice"), printed.reveal()).unwrap();
            assert_eq!(again.print(), printed, "{which}");
        }
    }

    #[test]
    fn each_kind_of_bad_file_is_named() {
        use KeyFileError::{Damaged, Form, Missing, Others, PassPhrase};
        let good = file("apkam_file");
        let form = |why: &str| Form(why.to_owned());
        let other_key = crypto::to_base64(&[7; 32]);
        let self_key = at_protocol().text("keys.self_encryption_key_base64");
        for (what, text, expected) in [
            ("empty", String::new(), form("it is empty")),
            (
                "a PEM file",
                "-----BEGIN".to_owned(),
                form("it is not JSON"),
            ),
            (
                "half",
                good[..good.len() / 2].to_owned(),
                form("it is cut off before its end"),
            ),
            ("broken", "{]}".to_owned(), form("its JSON is broken")),
            ("nothing in it", "{}".to_owned(), Missing(SELF_KEY)),
            (
                "protected",
                r#"{"content":"AA==","iv":"AA=="}"#.to_owned(),
                PassPhrase,
            ),
            (
                "another self key",
                good.replace(&self_key, &other_key),
                Damaged(PKAM_PRIVATE),
            ),
            (
                "no private key",
                good.replace(PKAM_PRIVATE, "x"),
                Missing(PKAM_PRIVATE),
            ),
            (
                "halves of two pairs",
                good.replace(PKAM_PUBLIC, "x")
                    .replace(ENCRYPT_PUBLIC, PKAM_PUBLIC),
                Damaged(PKAM_PUBLIC),
            ),
            (
                "a short key",
                format!(r#"{{"{SELF_KEY}":"AAAA"}}"#),
                Damaged(SELF_KEY),
            ),
            (
                "somebody else's",
                good.replace("\"@alice\"", "\"@Bob\""),
                Others(atsign("@bob")),
            ),
            (
                "a number",
                format!(r#"{{"{SELF_KEY}":1}}"#),
                Missing(SELF_KEY),
            ),
        ] {
            let got = AtKeys::parse(&atsign("@alice"), &text);
            let got = got.expect_err(what);
            assert_eq!(got, expected, "{what}");
            assert!(!got.hint().is_empty());
        }
    }

    /// Keys of another atSign were tried, and the atServer's refusal was taken for a lost enrolment.
    #[test]
    fn the_owner_that_is_written_inside_counts() {
        let good = file("legacy_file");
        assert!(good.contains("\"@alice\""));
        for (owner, fine) in [
            ("\"@alice\"", true),
            ("\"@Alice\"", true),
            ("\"@al.ice\"", true),
            ("\"alice\"", true),
            ("\"@\"", true),
            ("\"@bob\":\"\",\"@alice\"", true),
            ("\"@alice\":\"\",\"@bob\"", true),
            ("\"@bob\"", false),
            ("\"@alice2\"", false),
            ("\"@bob\":\"\",\"@carl\"", false),
        ] {
            let text = good.replace("\"@alice\"", owner);
            let got = AtKeys::parse(&atsign("@alice"), &text);
            assert_eq!(got.is_ok(), fine, "{owner}: {got:?}");
        }
    }
}
