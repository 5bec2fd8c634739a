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

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use noports_ciphers::Keystream;
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
    signature,
};
use rsa::{
    Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey,
    pkcs1::EncodeRsaPublicKey,
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey},
    rand_core::OsRng,
    traits::PublicKeyParts,
};
use zeroize::{Zeroize, Zeroizing};

use crate::secret::Secret;

/// AES-256 key: 32 bytes; base64 of 44 characters on the wire.
pub type AesKey = Secret<[u8; 32]>;
/// 16 bytes.
pub type Iv = [u8; 16];
/// The IV of values that came without one.
pub const ZERO_IV: Iv = [0; 16];

/// The only RSA size of the protocol.
const RSA_BITS: usize = 2048;
/// Block of AES, unit of the padding.
const BLOCK: usize = 16;

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
///
/// # Errors
/// `Random`.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CryptoError::Random)?;
    Ok(bytes)
}

/// At random in 0.0..1.0, for back-off; no secret.
pub fn jitter() -> f64 {
    random::<4>().map_or(0.5, |bytes| {
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    })
}

/// Standard base64 with padding.
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Standard base64 with padding.
///
/// # Errors
/// `BadKey` for anything else, white space included.
pub fn from_base64(text: &str) -> Result<Vec<u8>, CryptoError> {
    STANDARD.decode(text).map_err(|_| CryptoError::BadKey)
}

/// A fresh AES key.
///
/// # Errors
/// `Random`.
pub fn new_aes_key() -> Result<AesKey, CryptoError> {
    random().map(Secret::new)
}

/// The base64 text of an AES key: what RSA wraps and `RV_AES…` carry.
pub fn aes_key_to_base64(key: &AesKey) -> Secret<String> {
    Secret::new(to_base64(key.reveal()))
}

/// The other way round.
///
/// # Errors
/// `BadKey` unless it is base64 of 32 bytes.
pub fn aes_key_from_base64(text: &str) -> Result<AesKey, CryptoError> {
    let bytes = Zeroizing::new(from_base64(text)?);
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| CryptoError::BadKey)?;
    Ok(Secret::new(key))
}

/// Base64 of a 16-byte IV.
///
/// # Errors
/// `BadKey` unless it is base64 of 16 bytes.
pub fn iv_from_base64(text: &str) -> Result<Iv, CryptoError> {
    Iv::try_from(from_base64(text)?).map_err(|_| CryptoError::BadKey)
}

/// Encrypts a text; returns base64.
pub fn encrypt(key: &AesKey, iv: &Iv, text: &str) -> String {
    let padding = BLOCK - text.len() % BLOCK;
    let mut bytes = Vec::with_capacity(text.len() + padding);
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(text.len() + padding, padding as u8); // 1..=16
    Keystream::new(key.reveal(), iv).apply(&mut bytes);
    to_base64(&bytes)
}

/// Decrypts base64 to text; checks all of the padding.
///
/// # Errors
/// `Decrypt`, whatever the reason.
pub fn decrypt(key: &AesKey, iv: &Iv, base64: &str) -> Result<String, CryptoError> {
    let mut bytes = from_base64(base64).map_err(|_| CryptoError::Decrypt)?;
    if bytes.is_empty() || bytes.len() % BLOCK != 0 {
        return Err(CryptoError::Decrypt);
    }
    Keystream::new(key.reveal(), iv).apply(&mut bytes);
    let padding = usize::from(bytes[bytes.len() - 1]);
    let padded = (1..=BLOCK).contains(&padding)
        && bytes[bytes.len() - padding..]
            .iter()
            .all(|&byte| usize::from(byte) == padding);
    if !padded {
        bytes.zeroize();
        return Err(CryptoError::Decrypt);
    }
    bytes.truncate(bytes.len() - padding);
    String::from_utf8(bytes).map_err(|not_text| {
        not_text.into_bytes().zeroize();
        CryptoError::Decrypt
    })
}

/// Lower-case hex SHA-512 of `secret ‖ challenge`: the answer of `cram`.
pub fn cram_digest(secret: &str, challenge: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA512);
    hash.update(secret.as_bytes());
    hash.update(challenge.as_bytes());
    to_hex(hash.finish().as_ref())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An RSA public key; prints as base64 of SubjectPublicKeyInfo DER. Two are equal when their texts are.
#[derive(Clone)]
pub struct PublicKey {
    /// As it came, so that checksums over the text hold.
    pub text: String,
    parsed: RsaPublicKey,
    /// RSAPublicKey DER without the SubjectPublicKeyInfo around it: what ring takes.
    inner: Vec<u8>,
}

impl PublicKey {
    /// From base64 of SubjectPublicKeyInfo DER. Must be 2048 bits.
    ///
    /// # Errors
    /// `BadKey`.
    pub fn parse(text: &str) -> Result<Self, CryptoError> {
        let der = from_base64(text)?;
        let parsed = RsaPublicKey::from_public_key_der(&der).map_err(|_| CryptoError::BadKey)?;
        Self::new(text.to_owned(), parsed)
    }

    fn new(text: String, parsed: RsaPublicKey) -> Result<Self, CryptoError> {
        if parsed.n().bits() != RSA_BITS {
            return Err(CryptoError::BadKey);
        }
        let inner = parsed.to_pkcs1_der().map_err(|_| CryptoError::BadKey)?;
        Ok(Self {
            text,
            parsed,
            inner: inner.into_vec(),
        })
    }

    /// PKCS#1 v1.5 encryption of a short text (at most 245 bytes); returns base64.
    ///
    /// # Errors
    /// `BadKey` when the text is too long.
    pub fn wrap(&self, text: &str) -> Result<String, CryptoError> {
        self.parsed
            .encrypt(&mut OsRng, Pkcs1v15Encrypt, text.as_bytes())
            .map(|bytes| to_base64(&bytes))
            .map_err(|_| CryptoError::BadKey)
    }

    /// Verifies a base64 signature over a message with SHA-256.
    ///
    /// # Errors
    /// `Signature`, also when it is not base64.
    pub fn verify(&self, message: &[u8], signature: &str) -> Result<(), CryptoError> {
        self.verify_as(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
    }

    /// As [`PublicKey::verify`], with SHA-512.
    ///
    /// # Errors
    /// As [`PublicKey::verify`].
    pub fn verify_sha512(&self, message: &[u8], signature: &str) -> Result<(), CryptoError> {
        self.verify_as(&signature::RSA_PKCS1_2048_8192_SHA512, message, signature)
    }

    fn verify_as(
        &self,
        how: &'static signature::RsaParameters,
        message: &[u8],
        base64: &str,
    ) -> Result<(), CryptoError> {
        let bytes = from_base64(base64).map_err(|_| CryptoError::Signature)?;
        signature::UnparsedPublicKey::new(how, &self.inner)
            .verify(message, &bytes)
            .map_err(|_| CryptoError::Signature)
    }

    /// Lower-case hex MD5 of the text: `pubKeyCS`.
    pub fn checksum(&self) -> String {
        to_hex(&Md5::digest(self.text.as_bytes()))
    }

    /// Base64 of the SHA-256 of the key itself, however it was written.
    pub fn fingerprint(&self) -> String {
        to_base64(ring::digest::digest(&ring::digest::SHA256, &self.inner).as_ref())
    }

    /// Whether both are the same number, even if one was written in an unusual way.
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.parsed == other.parsed
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.text).finish()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An RSA-2048 key pair. Cheap to clone.
#[derive(Clone)]
pub struct KeyPair(Arc<KeyPairParts>);

struct KeyPairParts {
    signer: signature::RsaKeyPair,
    opener: RsaPrivateKey,
    text: Secret<String>,
    public: PublicKey,
}

impl KeyPair {
    /// Makes one; takes 0.1 s on a server, up to a minute on a Pi Zero. Call it off the executor.
    ///
    /// # Errors
    /// `Random`.
    pub fn generate() -> Result<Self, CryptoError> {
        let key = RsaPrivateKey::new(&mut OsRng, RSA_BITS).map_err(|_| CryptoError::Random)?;
        let der = key.to_pkcs8_der().map_err(|_| CryptoError::BadKey)?;
        Self::new(to_base64(der.as_bytes()), der.as_bytes(), key)
    }

    /// From base64 of PKCS#8 DER.
    ///
    /// # Errors
    /// `BadKey`.
    pub fn parse(text: &str) -> Result<Self, CryptoError> {
        let der = Zeroizing::new(from_base64(text)?);
        let key = RsaPrivateKey::from_pkcs8_der(&der).map_err(|_| CryptoError::BadKey)?;
        Self::new(text.to_owned(), &der, key)
    }

    fn new(text: String, der: &[u8], opener: RsaPrivateKey) -> Result<Self, CryptoError> {
        let text = Secret::new(text);
        let public = opener.to_public_key();
        let spki = public
            .to_public_key_der()
            .map_err(|_| CryptoError::BadKey)?;
        let public = PublicKey::new(to_base64(spki.as_bytes()), public)?;
        let signer = signature::RsaKeyPair::from_pkcs8(der).map_err(|_| CryptoError::BadKey)?;
        Ok(Self(Arc::new(KeyPairParts {
            signer,
            opener,
            text,
            public,
        })))
    }

    /// Base64 of PKCS#8 DER.
    pub fn private_text(&self) -> &Secret<String> {
        &self.0.text
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.0.public
    }

    /// Base64 of the PKCS#1 v1.5 signature with SHA-256.
    ///
    /// # Errors
    /// `Random` when the system gives no random bytes for blinding.
    pub fn sign(&self, message: &[u8]) -> Result<String, CryptoError> {
        let signer = &self.0.signer;
        let mut bytes = vec![0; signer.public().modulus_len()];
        signer
            .sign(
                &signature::RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message,
                &mut bytes,
            )
            .map_err(|_| CryptoError::Random)?;
        Ok(to_base64(&bytes))
    }

    /// Decrypts what [`PublicKey::wrap`] made, blinded. One error for all failures.
    ///
    /// # Errors
    /// `Decrypt`.
    pub fn unwrap(&self, base64: &str) -> Result<Secret<String>, CryptoError> {
        let bytes = from_base64(base64).map_err(|_| CryptoError::Decrypt)?;
        let plain = self
            .0
            .opener
            .decrypt_blinded(&mut OsRng, Pkcs1v15Encrypt, &bytes)
            .map_err(|_| CryptoError::Decrypt)?;
        String::from_utf8(plain)
            .map(Secret::new)
            .map_err(|not_text| {
                not_text.into_bytes().zeroize();
                CryptoError::Decrypt
            })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(***)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
