//! ○ The secrets of a session that no key of an atSign can open afterwards: X25519 and ML-KEM-768, both fresh.
//!
//! ```text
//!   client                                                          device
//!   Agreement::new ──▶ ClientShares  in the signed request ──▶  ClientShares::answer
//!   Agreement::agree ◀── DeviceShares  in the signed answer ◀──┘       │
//!        └──────────▶ Agreed ◀── the same 64 bytes at both ends ───────┘
//! ```
//! | share | bytes | base64 |
//! | --- | --- | --- |
//! | X25519, either's | 32 | 44 |
//! | ML-KEM-768, the client's key | 1,184 | 1,580 |
//! | ML-KEM-768, the device's ciphertext | 1,088 | 1,452 |
//!
//! ```text
//!   agreed  = ML-KEM secret (32) ‖ X25519 secret (32)
//!   hash    = SHA-256 of all that was agreed on: [`Transcript`]
//!   secret  = HKDF-SHA-256(salt = hash, input = agreed), expanded with
//!             `noports session to device`, `noports session to client`           32 bytes each
//! ```
//! The session is secret as long as one of the two methods holds. What is signed (with RSA-2048) are both shares; so who
//! records a session today and learns the atSigns' keys later reads nothing, while somebody who can make signatures *now*
//! could stand between the two ends.
//!
//! An X25519 share whose result is all zeros, and an ML-KEM key with numbers out of their range, are refused. A wrong
//! ciphertext gives another secret, and then the first record opens nowhere.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ml_kem::{
    DecapsulationKey768, EncapsulationKey768,
    kem::{Decapsulate, KeyExport},
};
use ring::{
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    digest,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

use crate::{
    pipe::record::{RecordKeys, Suite},
    secret::Secret,
};

/// Bytes of an X25519 share.
const X25519_SHARE: usize = 32;
/// Bytes of an ML-KEM-768 public key.
pub const ML_KEM_KEY: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext.
pub const ML_KEM_CIPHERTEXT: usize = 1088;
const TO_DEVICE: &[u8] = b"noports session to device";
const TO_CLIENT: &[u8] = b"noports session to client";

/// Why two ends do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgreementError {
    /// Not base64, of another length, or no share at all.
    #[error("the shares for the session's keys cannot be used")]
    Share,
    /// The system.
    #[error("the system gives no random bytes")]
    Random,
}

/// One end's X25519 share and its part of ML-KEM: the client's public key, or the device's ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares<const ML_KEM: usize> {
    x25519: [u8; X25519_SHARE],
    ml_kem: Box<[u8; ML_KEM]>,
}

/// What a client sends.
pub type ClientShares = Shares<ML_KEM_KEY>;
/// What a device answers.
pub type DeviceShares = Shares<ML_KEM_CIPHERTEXT>;

impl<const ML_KEM: usize> Shares<ML_KEM> {
    /// From their base64 texts.
    ///
    /// # Errors
    /// [`AgreementError::Share`]
    pub fn from_base64(x25519: &str, ml_kem: &str) -> Result<Self, AgreementError> {
        let x25519 = STANDARD
            .decode(x25519)
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        let ml_kem = STANDARD
            .decode(ml_kem)
            .ok()
            .and_then(|bytes| Box::try_from(bytes).ok());
        match (x25519, ml_kem) {
            (Some(x25519), Some(ml_kem)) => Ok(Self { x25519, ml_kem }),
            _ => Err(AgreementError::Share),
        }
    }

    /// X25519 and ML-KEM as base64 texts.
    pub fn to_base64(&self) -> [String; 2] {
        [STANDARD.encode(self.x25519), STANDARD.encode(*self.ml_kem)]
    }
}

/// Both secrets, ML-KEM's first.
#[derive(Debug)]
pub struct Agreed(Secret<[u8; 64]>);

/// What the client keeps until the device has answered.
pub struct Agreement {
    x25519: EphemeralPrivateKey,
    ml_kem: DecapsulationKey768,
    shares: ClientShares,
}

impl Agreement {
    /// Fresh.
    ///
    /// # Errors
    /// [`AgreementError::Random`]
    pub fn new() -> Result<Self, AgreementError> {
        let (x25519, share) = ephemeral()?;
        let seed = Zeroizing::new(random::<64>()?);
        let ml_kem = DecapsulationKey768::from_seed((*seed).into());
        let shares = Shares {
            x25519: share,
            ml_kem: Box::new(ml_kem.encapsulation_key().to_bytes().into()),
        };
        Ok(Self {
            x25519,
            ml_kem,
            shares,
        })
    }

    /// For the request.
    pub fn shares(&self) -> &ClientShares {
        &self.shares
    }

    /// The device has answered.
    ///
    /// # Errors
    /// [`AgreementError::Share`]
    pub fn agree(self, device: &DeviceShares) -> Result<Agreed, AgreementError> {
        let ml_kem = Zeroizing::new(self.ml_kem.decapsulate(&(*device.ml_kem).into()));
        agreed(self.x25519, &device.x25519, ml_kem.as_slice())
    }
}

impl ClientShares {
    /// The device's part: what it answers, and what both agree on by that.
    ///
    /// # Errors
    /// See [`AgreementError`].
    pub fn answer(&self) -> Result<(DeviceShares, Agreed), AgreementError> {
        let key = EncapsulationKey768::new(&(*self.ml_kem).into());
        let key = key.map_err(|_| AgreementError::Share)?;
        let message = Zeroizing::new(random::<32>()?);
        let (ciphertext, ml_kem) = key.encapsulate_deterministic(&(*message).into());
        let ml_kem = Zeroizing::new(ml_kem);
        let (x25519, share) = ephemeral()?;
        let agreed = agreed(x25519, &self.x25519, ml_kem.as_slice())?;
        let shares = Shares {
            x25519: share,
            ml_kem: Box::new(ciphertext.into()),
        };
        Ok((shares, agreed))
    }
}

fn ephemeral() -> Result<(EphemeralPrivateKey, [u8; X25519_SHARE]), AgreementError> {
    let random = |_| AgreementError::Random;
    let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(random)?;
    let public = private.compute_public_key().map_err(random)?;
    let share = public
        .as_ref()
        .try_into()
        .map_err(|_| AgreementError::Share)?;
    Ok((private, share))
}

fn agreed(
    ours: EphemeralPrivateKey,
    theirs: &[u8; X25519_SHARE],
    ml_kem: &[u8],
) -> Result<Agreed, AgreementError> {
    let theirs = UnparsedPublicKey::new(&X25519, theirs);
    let both = agree_ephemeral(ours, &theirs, |x25519| {
        let mut both = Zeroizing::new([0; 64]);
        both[..32].copy_from_slice(ml_kem);
        both[32..].copy_from_slice(x25519);
        Agreed(Secret::new(*both))
    });
    both.map_err(|_| AgreementError::Share)
}

fn random<const N: usize>() -> Result<[u8; N], AgreementError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| AgreementError::Random)?;
    Ok(bytes)
}

/// All that two ends have agreed on; each puts it together from what it knows itself.
#[derive(Clone, Copy, Debug)]
pub struct Transcript<'a> {
    /// Who asks, and the fingerprint of the key that signs for it.
    pub client: (&'a str, &'a str),
    /// Who is asked, likewise.
    pub device: (&'a str, &'a str),
    /// The device's name.
    pub name: &'a str,
    /// SHA-256 of the request's payload, as it is signed.
    pub request: &'a [u8; 32],
    /// SHA-256 of the answer's payload, as it is signed.
    pub answer: &'a [u8; 32],
}

impl Transcript<'_> {
    /// SHA-256 of `noports session 1`, and then of each text with its length (4 bytes, big-endian) before it: client,
    /// its key's fingerprint (`SHA256:…`), device, its key's fingerprint, name, the hashes of request and answer.
    fn hash(&self) -> [u8; 32] {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"noports session 1");
        let texts: [&[u8]; 7] = [
            self.client.0.as_bytes(),
            self.client.1.as_bytes(),
            self.device.0.as_bytes(),
            self.device.1.as_bytes(),
            self.name.as_bytes(),
            self.request,
            self.answer,
        ];
        for text in texts {
            hash.update(&(text.len() as u32).to_be_bytes());
            hash.update(text);
        }
        let mut out = [0; 32];
        out.copy_from_slice(hash.finish().as_ref());
        out
    }
}

impl Agreed {
    /// The session's keys. Who agreed on anything else has others.
    pub fn keys(&self, suite: Suite, transcript: &Transcript<'_>) -> RecordKeys {
        struct Bytes32;
        impl KeyType for Bytes32 {
            fn len(&self) -> usize {
                32
            }
        }
        let prk = Salt::new(HKDF_SHA256, &transcript.hash()).extract(self.0.reveal());
        let expand = |label: &[u8]| {
            let (mut out, label) = (Zeroizing::new([0; 32]), [label]);
            let filled = prk
                .expand(&label, Bytes32)
                .and_then(|okm| okm.fill(&mut *out));
            filled.expect("HKDF gives up to 8,160 bytes");
            Secret::new(*out)
        };
        RecordKeys {
            suite,
            to_device: expand(TO_DEVICE),
            to_client: expand(TO_CLIENT),
        }
    }
}

impl fmt::Debug for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agreement")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::Vectors;

    fn transcript() -> Transcript<'static> {
        Transcript {
            client: ("@me", "SHA256:1"),
            device: ("@dev", "SHA256:2"),
            name: "pi",
            request: &[4; 32],
            answer: &[5; 32],
        }
    }

    #[test]
    fn both_ends_come_to_the_same_secrets_and_every_session_to_others() {
        let keys = || {
            let client = Agreement::new().unwrap();
            let [x, m] = client.shares().to_base64();
            let (answer, device) = ClientShares::from_base64(&x, &m).unwrap().answer().unwrap();
            let [x, m] = answer.to_base64();
            let client = client
                .agree(&DeviceShares::from_base64(&x, &m).unwrap())
                .unwrap();
            let [client, device] =
                [client, device].map(|end| end.keys(Suite::Aes256Gcm, &transcript()));
            assert_eq!(client, device);
            assert_ne!(client.to_device, client.to_client);
            client
        };
        assert_ne!(keys(), keys());
    }

    #[test]
    fn whatever_was_agreed_on_counts() {
        let (_, agreed) = Agreement::new().unwrap().shares().answer().unwrap();
        let same = agreed.keys(Suite::Aes256Gcm, &transcript());
        for other in [
            Transcript {
                client: ("@eve", "SHA256:1"),
                ..transcript()
            },
            Transcript {
                client: ("@me", "SHA256:3"),
                ..transcript()
            },
            Transcript {
                device: ("@eve", "SHA256:2"),
                ..transcript()
            },
            Transcript {
                device: ("@dev", "SHA256:3"),
                ..transcript()
            },
            Transcript {
                name: "p",
                ..transcript()
            },
            Transcript {
                request: &[6; 32],
                ..transcript()
            },
            Transcript {
                answer: &[6; 32],
                ..transcript()
            },
            Transcript {
                client: ("@m", "SHA256:1"),
                name: "epi",
                ..transcript()
            },
        ] {
            assert_ne!(agreed.keys(Suite::Aes256Gcm, &other), same, "{other:?}");
        }
    }

    /// Each of these was computed by somebody else's code.
    #[test]
    fn the_known_shares_give_the_known_keys() {
        let vectors = Vectors::of_data_plane();
        let of = |member: &str| vectors.bytes(&["agreement", member]);
        let fixed = |bytes: Vec<u8>| <[u8; 64]>::try_from(bytes).unwrap();
        let key = DecapsulationKey768::from_seed(fixed(of("mlKemSeedHex")).into());
        assert_eq!(
            key.encapsulation_key().to_bytes().as_slice(),
            of("mlKemKeyHex")
        );
        let ciphertext = <[u8; ML_KEM_CIPHERTEXT]>::try_from(of("mlKemCiphertextHex")).unwrap();
        let secret = key.decapsulate(&ciphertext.into());
        assert_eq!(secret.as_slice(), of("mlKemSecretHex"));

        let of = |member: &str| vectors.bytes(&["keys", member]);
        let text = |member: &str| vectors.text(&["keys", member]);
        let hash = |member: &str| <[u8; 32]>::try_from(of(member)).unwrap();
        let transcript = Transcript {
            client: (text("client"), text("clientKey")),
            device: (text("device"), text("deviceKey")),
            name: text("name"),
            request: &hash("requestHashHex"),
            answer: &hash("answerHashHex"),
        };
        assert_eq!(transcript.hash(), hash("transcriptHex"));
        let agreed = fixed(of("agreedHex"));
        assert_eq!(agreed[..32], *secret.as_slice());
        let keys = Agreed(Secret::new(agreed)).keys(Suite::Aes256Gcm, &transcript);
        assert_eq!(*keys.to_device.reveal(), hash("toDeviceHex"));
        assert_eq!(*keys.to_client.reveal(), hash("toClientHex"));
    }

    #[test]
    fn shares_that_are_none_are_refused() {
        let client = Agreement::new().unwrap();
        let [x, m] = client.shares().to_base64();
        for (x, m) in [
            ("", m.as_str()),
            (&x, ""),
            ("%", &m),
            (&x[4..], &m),
            (&m, &x),
        ] {
            assert_eq!(ClientShares::from_base64(x, m), Err(AgreementError::Share));
        }
        // A result of zeros, and numbers that are no remainders.
        let zero = STANDARD.encode([0; 32]);
        let big = STANDARD.encode([0xff; ML_KEM_KEY]);
        for (x, m) in [(&zero, &m), (&x, &big)] {
            let shares = ClientShares::from_base64(x, m).unwrap();
            assert_eq!(shares.answer().unwrap_err(), AgreementError::Share);
        }
    }
}
