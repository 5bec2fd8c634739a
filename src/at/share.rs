//! The AES key that one atSign shares with another, one per direction, and values encrypted with it.
//!
//! ```text
//!   shared_key.bob@alice   on alice's server   RSA(alice's public key) of base64(K)
//!   @bob:shared_key@alice  on alice's server   RSA(bob's public key)   of base64(K)
//! ```
//! No I/O here: names, wrapping and unwrapping; [`super::client`] does the look-ups in order.

use super::{
    atsign::AtSign,
    crypto::{AesKey, CryptoError},
    key::AtKey,
    metadata::Metadata,
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
    /// Their public key's checksum, for `pubKeyCS`.
    pub checksum: String,
}

/// Encrypts a text for the holder of a shared key, and fills in `isEncrypted`, `sharedKeyEnc`, `pubKeyCS`, `ivNonce`.
///
/// # Errors
/// When the system gives no random bytes.
pub fn seal(
    _key: &SharedKey,
    _text: &str,
    _metadata: Metadata,
) -> Result<(String, Metadata), CryptoError> {
    todo!()
}
/// Decrypts a value; absent or `null` IV means zero IV.
///
/// # Errors
/// One answer for all failures.
pub fn open(_key: &AesKey, _value: &str, _iv_nonce: Option<&str>) -> Result<String, CryptoError> {
    todo!()
}
