//! The AES key that one atSign shares with another, one per direction, and values encrypted with it.
//!
//! ```text
//!   shared_key.bob@alice   on alice's server   RSA(alice's public key) of base64(K)
//!   @bob:shared_key@alice  on alice's server   RSA(bob's public key)   of base64(K)
//! ```
//! No I/O here: names, wrapping and unwrapping; [`super::client`] does the look-ups in order.

use super::{
    atsign::AtSign,
    crypto::{self, AesKey, CryptoError, Iv, KeyPair, PublicKey, ZERO_IV},
    key::AtKey,
    metadata::{Item, Metadata},
    verb::Verb,
};

/// Life of `@bob:shared_key@alice` in caches, seconds (45 days).
pub const SHARED_KEY_TTR: i64 = 3_888_000;

/// `shared_key.bob@alice`
pub fn own_copy(me: &AtSign, with: &AtSign) -> AtKey {
    AtKey::own(&format!("shared_key.{}", with.bare()), me)
}

/// `@bob:shared_key@alice`
pub fn their_copy(me: &AtSign, with: &AtSign) -> AtKey {
    AtKey::shared(with, "shared_key", me)
}

/// Everything needed to encrypt to one atSign.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SharedKey {
    pub key: AesKey,
    /// The other's copy, for `sharedKeyEnc`.
    pub wrapped: String,
    /// Their public key, whose checksum is `pubKeyCS`.
    pub holder: PublicKey,
}

/// Encrypts a text for the holder of a shared key, and fills in `isEncrypted`, `sharedKeyEnc`, `pubKeyCS`, `ivNonce`.
///
/// # Errors
/// When the system gives no random bytes.
pub fn seal(
    key: &SharedKey,
    text: &str,
    metadata: Metadata,
) -> Result<(String, Metadata), CryptoError> {
    Ok(seal_with(key, &crypto::random()?, text, metadata))
}

fn seal_with(key: &SharedKey, iv: &Iv, text: &str, metadata: Metadata) -> (String, Metadata) {
    let sealed = crypto::encrypt(&key.key, iv, text);
    let metadata = Metadata {
        is_encrypted: Some(true),
        shared_key_enc: Some(Item::Set(key.wrapped.clone())),
        pub_key_cs: Some(Item::Set(key.holder.checksum())),
        iv_nonce: Some(Item::Set(crypto::to_base64(iv))),
        ..metadata
    };
    (sealed, metadata)
}

/// Decrypts a value; absent or `null` IV means zero IV.
///
/// # Errors
/// One answer for all failures.
pub fn decrypt(key: &AesKey, value: &str, iv_nonce: Option<&str>) -> Result<String, CryptoError> {
    let iv = match iv_nonce {
        None | Some("null") => ZERO_IV,
        Some(text) => crypto::iv_from_base64(text).map_err(|_| CryptoError::Decrypt)?,
    };
    crypto::decrypt(key, &iv, value)
}

/// A shared key as it is stored: encrypted for one holder.
///
/// # Errors
/// When the public key cannot encrypt it.
pub fn wrap(key: &AesKey, holder: &PublicKey) -> Result<String, CryptoError> {
    holder.wrap(crypto::aes_key_to_base64(key).reveal())
}

/// The other way round. About 2 ms on a server, some 100 ms on a small device: call it off the executor.
///
/// # Errors
/// One answer for all failures.
pub fn unwrap(holder: &KeyPair, wrapped: &str) -> Result<AesKey, CryptoError> {
    let text = holder.unwrap(wrapped)?;
    crypto::aes_key_from_base64(text.reveal()).map_err(|_| CryptoError::Decrypt)
}

/// `update:shared_key.bob@alice <wrapped for us>`
pub fn store_own_copy(me: &AtSign, with: &AtSign, wrapped: String) -> Verb {
    Verb::Update {
        key: own_copy(me, with),
        metadata: Metadata::default(),
        value: wrapped,
    }
}

/// `update:ttr:3888000:isEncrypted:false:pubKeyCS:<of bob's key>:@bob:shared_key@alice <wrapped for bob>`
pub fn store_their_copy(me: &AtSign, with: &AtSign, wrapped: String, holder: &PublicKey) -> Verb {
    Verb::Update {
        key: their_copy(me, with),
        metadata: Metadata {
            ttr: Some(SHARED_KEY_TTR),
            is_encrypted: Some(false),
            pub_key_cs: Some(Item::Set(holder.checksum())),
            ..Metadata::default()
        },
        value: wrapped,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::at::{
        vectors::{at_protocol, atsign},
        verb::{Notify, Operation, Subject},
    };

    fn value_of(command: &str) -> String {
        command.split_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn the_copies_are_stored_in_the_known_words() {
        let known = at_protocol().at("shared_key_end_to_end");
        let (alice, bob) = (atsign("@alice"), atsign("@bob"));
        let own = known.text("update_own_copy");
        let line = store_own_copy(&alice, &bob, value_of(&own));
        assert_eq!(line.to_string(), own);
        let theirs = known.text("update_their_copy");
        let holder = KeyPair::generate().unwrap();
        let line = store_their_copy(&alice, &bob, value_of(&theirs), holder.public());
        // Others do not say for which key it is.
        let ours = format!(":pubKeyCS:{}", holder.public().checksum());
        assert_eq!(line.to_string().replace(&ours, ""), theirs);
    }

    #[test]
    fn both_ends_get_the_same_key_and_the_known_notification() {
        let vectors = at_protocol();
        let known = vectors.at("shared_key_end_to_end");
        let pair = |name: &str| {
            KeyPair::parse(&vectors.text(&format!("keys.{name}.private_pkcs8_base64"))).unwrap()
        };
        let bob = pair("bob_encryption");
        let wrapped = value_of(&known.text("update_their_copy"));
        let own = value_of(&known.text("update_own_copy"));
        let key = unwrap(&pair("alice_encryption"), &own).unwrap();
        assert_eq!(unwrap(&bob, &wrapped).unwrap(), key);

        let shared = SharedKey {
            key: key.clone(),
            wrapped,
            holder: bob.public().clone(),
        };
        let iv_text = known.text("iv_base64");
        let iv = crypto::iv_from_base64(&iv_text).unwrap();
        let text = known.text("plaintext");
        let (value, metadata) = seal_with(&shared, &iv, &text, Metadata::default());
        assert_eq!(decrypt(&key, &value, Some(&iv_text)), Ok(text));
        let line = Verb::Notify(Box::new(Notify {
            id: Some("4f3e2d1c-0b9a-4877-a655-443322110099".into()),
            operation: Some(Operation::Update),
            priority: Some("low".into()),
            strategy: Some("all".into()),
            latest_n: Some(1),
            notifier: Some("SYSTEM".into()),
            ttln: Some(60_000),
            message_type: true,
            metadata,
            subject: Subject::Key {
                to: None,
                key: AtKey::shared(&atsign("@bob"), "req.dev1.sshnp", &atsign("@alice")),
            },
            value: Some(value),
        }));
        assert_eq!(line.to_string(), known.text("notify_command"));
    }

    #[test]
    fn every_seal_has_its_own_iv() {
        let shared = SharedKey {
            key: crypto::new_aes_key().unwrap(),
            wrapped: "w".into(),
            holder: KeyPair::generate().unwrap().public().clone(),
        };
        let seal = || seal(&shared, "text", Metadata::default()).unwrap();
        let ((first, metadata), (second, _)) = (seal(), seal());
        assert_ne!(first, second);
        let Some(Item::Set(iv)) = metadata.iv_nonce else {
            panic!("no IV")
        };
        assert_eq!(decrypt(&shared.key, &first, Some(&iv)).unwrap(), "text");
    }

    #[test]
    fn a_missing_iv_is_all_zero_and_a_bad_one_is_refused() {
        let key = crypto::new_aes_key().unwrap();
        let value = crypto::encrypt(&key, &ZERO_IV, "text");
        for (iv, expected) in [
            (None, Ok("text".to_owned())),
            (Some("null"), Ok("text".to_owned())),
            (Some("AAAA"), Err(CryptoError::Decrypt)),
        ] {
            assert_eq!(decrypt(&key, &value, iv), expected, "{iv:?}");
        }
    }

    #[test]
    fn what_is_no_wrapped_key_is_refused() {
        let pair = KeyPair::generate().unwrap();
        for text in ["", "AAAA", "not a key"] {
            let wrapped = pair.public().wrap(text).unwrap();
            assert_eq!(unwrap(&pair, &wrapped), Err(CryptoError::Decrypt), "{text}");
        }
        assert_eq!(unwrap(&pair, "!"), Err(CryptoError::Decrypt));
    }
}
