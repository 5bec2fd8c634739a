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

use aes::cipher::{KeyIvInit, StreamCipher};
use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
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

type Ctr = ctr::Ctr128BE<aes::Aes256>;

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
    Ctr::new(key.reveal().into(), iv.into()).apply_keystream(&mut bytes);
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
    Ctr::new(key.reveal().into(), iv.into()).apply_keystream(&mut bytes);
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

    /// The same with SHA-512.
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
pub struct KeyPair(Arc<Pair>);

struct Pair {
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
        Ok(Self(Arc::new(Pair {
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
        self.sign_as(&signature::RSA_PKCS1_SHA256, message)
    }

    /// The same with SHA-512.
    ///
    /// # Errors
    /// As [`KeyPair::sign`].
    pub fn sign_sha512(&self, message: &[u8]) -> Result<String, CryptoError> {
        self.sign_as(&signature::RSA_PKCS1_SHA512, message)
    }

    fn sign_as(
        &self,
        how: &'static dyn signature::RsaEncoding,
        message: &[u8],
    ) -> Result<String, CryptoError> {
        let signer = &self.0.signer;
        let mut bytes = vec![0; signer.public().modulus_len()];
        signer
            .sign(how, &SystemRandom::new(), message, &mut bytes)
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
mod tests {
    use super::*;
    use crate::at::vectors::{Vectors, at_protocol, noports};

    fn pair(vectors: &Vectors, name: &str) -> KeyPair {
        let key = KeyPair::parse(&vectors.text(&format!("keys.{name}.private_pkcs8_base64")));
        let key = key.unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(
            key.public().text,
            vectors.text(&format!("keys.{name}.public_spki_base64")),
            "{name}"
        );
        key
    }

    #[test]
    fn aes_agrees_with_the_known_answers() {
        let vectors = at_protocol();
        let section = vectors.at("aes_256_ctr_pkcs7");
        let mut cases: Vec<(String, Vectors)> = section
            .list("cases")
            .into_iter()
            .map(|case| (section.text("key_base64"), case))
            .collect();
        let foreign = section.at("at_c_test_key");
        cases.push((foreign.text("key_base64"), foreign));
        assert_eq!(cases.len(), 11);
        for (key, case) in cases {
            let key = aes_key_from_base64(&key).unwrap();
            let iv = iv_from_base64(&case.text("iv_base64")).unwrap();
            let plain = case.text("plaintext_utf8");
            let cipher = case.text("ciphertext_base64");
            assert_eq!(encrypt(&key, &iv, &plain), cipher, "{plain:?}");
            assert_eq!(decrypt(&key, &iv, &cipher), Ok(plain));
        }
    }

    #[test]
    fn what_is_no_cipher_text_is_refused() {
        let key = Secret::new([1; 32]);
        let sealed = |plain: &[u8]| {
            let mut bytes = plain.to_vec();
            Ctr::new(key.reveal().into(), &ZERO_IV.into()).apply_keystream(&mut bytes);
            to_base64(&bytes)
        };
        for (why, text) in [
            ("empty", String::new()),
            ("not base64", "?".to_owned()),
            ("short", sealed(&[1])),
            ("padding 0", sealed(&[0; 16])),
            ("padding 17", sealed(&[17; 32])),
            ("uneven padding", sealed(b"0123456789abc\x01\x03\x03")),
            (
                "not text",
                sealed(b"\xff\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f"),
            ),
        ] {
            let got = decrypt(&key, &ZERO_IV, &text);
            assert_eq!(got, Err(CryptoError::Decrypt), "{why}");
        }
    }

    #[test]
    fn rsa_opens_the_known_wrapped_keys() {
        let vectors = at_protocol();
        let cases = vectors.list("rsa_pkcs1v15_encryption.cases");
        assert_eq!(cases.len(), 3);
        for case in cases {
            let key = KeyPair::parse(&vectors.text(&case.text("private_key"))).unwrap();
            let plain = key.unwrap(&case.text("ciphertext_base64")).unwrap();
            assert_eq!(*plain.reveal(), case.text("plaintext_utf8"));
        }
    }

    #[test]
    fn rsa_opens_the_known_session_keys() {
        let vectors = noports();
        let wrap = vectors.at("sessionKeyWrap");
        let key = KeyPair::parse(&vectors.text("keys.session.privateKeyPkcs8Base64")).unwrap();
        for (sealed, plain) in [("sessionAESKey", "aesKeyBase64"), ("sessionIV", "ivBase64")] {
            let opened = key.unwrap(&wrap.text(sealed)).unwrap();
            assert_eq!(*opened.reveal(), wrap.text(plain), "{sealed}");
        }
        let expected: [u8; 32] = std::array::from_fn(|i| i as u8);
        let aes = aes_key_from_base64(&wrap.text("aesKeyBase64")).unwrap();
        assert_eq!(aes.reveal(), &expected);
    }

    #[test]
    fn signatures_agree_with_the_known_answers() {
        let vectors = at_protocol();
        let pkam = vectors.at("pkam");
        let key = pair(&vectors, "alice_pkam");
        let challenge = pkam.text("challenge");
        let (short, long) = (
            pkam.text("signature_sha256_base64"),
            pkam.text("signature_sha512_base64"),
        );
        assert_eq!(key.sign(challenge.as_bytes()).unwrap(), short);
        assert_eq!(key.sign_sha512(challenge.as_bytes()).unwrap(), long);
        let public = key.public();
        assert_eq!(public.verify(challenge.as_bytes(), &short), Ok(()));
        assert_eq!(public.verify_sha512(challenge.as_bytes(), &long), Ok(()));
        for (message, signature) in [(&b"other"[..], &short), (challenge.as_bytes(), &long)] {
            let got = public.verify(message, signature);
            assert_eq!(got, Err(CryptoError::Signature));
        }

        let data = vectors.at("public_data_signature");
        let signed = pair(&vectors, "alice_encryption").sign(data.text("value").as_bytes());
        assert_eq!(signed.unwrap(), data.text("signature_base64"));
    }

    #[test]
    fn checksum_is_the_md5_of_the_text() {
        let vectors = at_protocol();
        let bob = pair(&vectors, "bob_encryption");
        assert_eq!(bob.public().checksum(), vectors.text("pub_key_cs.md5_hex"));
    }

    #[test]
    fn cram_digest_is_over_secret_then_challenge() {
        let vectors = at_protocol();
        let cram = vectors.at("cram");
        assert_eq!(
            cram_digest(&cram.text("secret"), &cram.text("challenge")),
            cram.text("digest_hex")
        );
    }

    #[test]
    fn a_made_key_pair_reads_back_and_fits_together() {
        let made = KeyPair::generate().unwrap();
        let read = KeyPair::parse(made.private_text().reveal()).unwrap();
        assert_eq!(read.public(), made.public());
        let public = PublicKey::parse(&made.public().text).unwrap();
        assert!(public.is_same_key(read.public()));
        let wrapped = public.wrap("hello").unwrap();
        assert_eq!(read.unwrap(&wrapped).unwrap().reveal(), "hello");
        let signature = read.sign(b"m").unwrap();
        assert_eq!(public.verify(b"m", &signature), Ok(()));
        assert_eq!(made.unwrap("AAAA").unwrap_err(), CryptoError::Decrypt);
    }

    #[test]
    fn public_keys_of_another_size_are_refused() {
        for bits in [1024, 2047, 3072] {
            let key = RsaPrivateKey::new(&mut OsRng, bits).unwrap();
            let der = key.to_public_key().to_public_key_der().unwrap();
            let got = PublicKey::parse(&to_base64(der.as_bytes()));
            assert_eq!(got, Err(CryptoError::BadKey), "{bits} bits");
            let der = key.to_pkcs8_der().unwrap();
            let got = KeyPair::parse(&to_base64(der.as_bytes()));
            assert_eq!(got.unwrap_err(), CryptoError::BadKey, "{bits} bits");
        }
        assert_eq!(PublicKey::parse("AAAA"), Err(CryptoError::BadKey));
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let key = pair(&at_protocol(), "alice_pkam");
        assert_eq!(format!("{key:?}"), "KeyPair(***)");
    }
}
