//! Keys and ciphers of the atProtocol. No I/O; randomness comes from the system.
//!
//! | what | how |
//! | --- | --- |
//! | values | AES-256-CTR over PKCS#7-padded text, 16-byte IV as initial big-endian counter |
//! | shared keys, session keys | RSA-2048 PKCS#1 v1.5 over the base64 *text* of the key |
//! | logins, envelopes | RSA-2048 PKCS#1 v1.5 with SHA-256 (SHA-512 accepted) |
//! | first login | hex SHA-512 over secret and challenge |
//!
//! `ring` signs and verifies. The `rsa` crate makes keys, encrypts, and decrypts blinded
//! (RUSTSEC-2023-0071: decrypt only for senders that are allowed, cache, and give one answer to all failures).

use crate::secret::Secret;

/// AES-256 key: 32 bytes; base64 of 44 characters on the wire.
pub type AesKey = Secret<[u8; 32]>;
/// 16 bytes.
pub type Iv = [u8; 16];
/// The IV of values that came without one.
pub const ZERO_IV: Iv = [0; 16];

/// Why a key, signature or cipher text was refused. On purpose says little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// Not base64, not DER, not 2048 bits, wrong length.
    #[error("not a usable key")]
    BadKey,
    /// Could not be decrypted.
    #[error("cannot be decrypted")]
    Decrypt,
    /// The signature does not fit.
    #[error("the signature is not valid")]
    Signature,
    /// The system gave no randomness.
    #[error("the system gave no random bytes")]
    Random,
}

/// Fills with random bytes from the system.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    todo!()
}
/// Standard base64 with padding.
pub fn to_base64(_bytes: &[u8]) -> String {
    todo!()
}
/// Standard base64 with padding.
pub fn from_base64(_text: &str) -> Result<Vec<u8>, CryptoError> {
    todo!()
}

/// A fresh AES key.
pub fn new_aes_key() -> Result<AesKey, CryptoError> {
    todo!()
}
/// The base64 text of an AES key: what RSA wraps and `RV_AES…` carry.
pub fn aes_key_to_base64(_key: &AesKey) -> Secret<String> {
    todo!()
}
/// The other way round.
pub fn aes_key_from_base64(_text: &str) -> Result<AesKey, CryptoError> {
    todo!()
}
/// Base64 of a 16-byte IV.
pub fn iv_from_base64(_text: &str) -> Result<Iv, CryptoError> {
    todo!()
}

/// Encrypts a text; returns base64.
pub fn encrypt(_key: &AesKey, _iv: &Iv, _text: &str) -> String {
    todo!()
}
/// Decrypts base64 to text; checks all of the padding.
pub fn decrypt(_key: &AesKey, _iv: &Iv, _base64: &str) -> Result<String, CryptoError> {
    todo!()
}

/// An RSA public key; prints as base64 of SubjectPublicKeyInfo DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// As it came, so that checksums over the text hold.
    pub text: String,
    // and what the helper needs: parsed forms
}

impl PublicKey {
    /// From base64 of SubjectPublicKeyInfo DER. Must be 2048 bits.
    pub fn parse(_text: &str) -> Result<Self, CryptoError> {
        todo!()
    }
    /// PKCS#1 v1.5 encryption of a short text; returns base64.
    pub fn wrap(&self, _text: &str) -> Result<String, CryptoError> {
        todo!()
    }
    /// Verifies a base64 signature over a message with SHA-256.
    pub fn verify(&self, _message: &[u8], _signature: &str) -> Result<(), CryptoError> {
        todo!()
    }
    /// The same with SHA-512.
    pub fn verify_sha512(&self, _message: &[u8], _signature: &str) -> Result<(), CryptoError> {
        todo!()
    }
    /// Lower-case hex MD5 of the text: `pubKeyCS`.
    pub fn checksum(&self) -> String {
        todo!()
    }
}

/// An RSA-2048 key pair.
#[derive(Clone)]
pub struct KeyPair {/* ring::RsaKeyPair in an Arc, rsa::RsaPrivateKey, the PKCS#8 text as Secret<String> */}

impl KeyPair {
    /// Makes one; takes 0.1 s on a server, up to a minute on a Pi Zero. Call it off the executor.
    pub fn generate() -> Result<Self, CryptoError> {
        todo!()
    }
    /// From base64 of PKCS#8 DER.
    pub fn parse(_text: &str) -> Result<Self, CryptoError> {
        todo!()
    }
    /// Base64 of PKCS#8 DER.
    pub fn private_text(&self) -> &Secret<String> {
        todo!()
    }
    /// The public half.
    pub fn public(&self) -> &PublicKey {
        todo!()
    }
    /// Base64 of the PKCS#1 v1.5 signature with SHA-256.
    pub fn sign(&self, _message: &[u8]) -> Result<String, CryptoError> {
        todo!()
    }
    /// The same with SHA-512.
    pub fn sign_sha512(&self, _message: &[u8]) -> Result<String, CryptoError> {
        todo!()
    }
    /// Decrypts what [`PublicKey::wrap`] made, blinded. One error for all failures.
    pub fn unwrap(&self, _base64: &str) -> Result<Secret<String>, CryptoError> {
        todo!()
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPair(***)")
    }
}

/// Lower-case hex SHA-512 of `secret ‖ challenge`: the answer of `cram`.
pub fn cram_digest(_secret: &str, _challenge: &str) -> String {
    todo!()
}
