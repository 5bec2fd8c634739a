//! One direction of an encrypted stream: AES-256-CTR, counter = IV, big-endian over all 128 bits, no padding, no MAC.
//!
//! ```text
//!               client                     device
//!   outbound    encrypt with C2D ────────▶ decrypt with C2D    inbound
//!   inbound     decrypt with D2C ◀──────── encrypt with D2C    outbound
//! ```
//!
//! Older peers have one key for both directions, each starting at the same counter: what the two send
//! is then masked by the same key stream. That is their protocol; with twin keys it does not happen.
//!
//! Source: noports:packages/dart/noports_core/lib/src/srv/srv_impl.dart (which key where).

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use noports_ciphers::Keystream;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The key stream of one direction. Where the bytes are cut does not matter.
pub struct Cipher(Keystream);

impl Cipher {
    /// From the first counter block.
    pub fn new(key: &Secret<[u8; 32]>, iv: &[u8; 16]) -> Self {
        Self(Keystream::new(key.reveal(), iv))
    }

    /// Encrypts or decrypts in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply(bytes);
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

/// The key streams of both directions.
#[derive(Debug)]
pub struct Ciphers {
    /// From the local stream to the remote one.
    pub outbound: Cipher,
    /// From the remote stream to the local one.
    pub inbound: Cipher,
}

/// Which end of a session we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one who asked.
    Client,
    /// The one who was asked.
    Device,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Device => "device",
        })
    }
}

/// Key and first counter block of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamKey {
    /// AES-256.
    pub key: Secret<[u8; 32]>,
    /// First counter block.
    pub iv: [u8; 16],
}

/// The keys of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKeys {
    /// Client to device; without twin keys, both directions.
    pub to_device: StreamKey,
    /// Device to client.
    pub to_client: Option<StreamKey>,
}

/// Keys that are not 32 + 16 bytes in base64; never says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session key is 32 bytes and its IV 16 bytes, both in base64")]
pub struct BadKeys;

impl StreamKey {
    /// From two base64 texts.
    ///
    /// # Errors
    /// [`BadKeys`]
    pub fn from_base64(key: &str, iv: &str) -> Result<Self, BadKeys> {
        Ok(Self {
            key: Secret::new(*decode(key)?),
            iv: *decode(iv)?,
        })
    }

    /// The key and its first counter block as base64 texts.
    pub fn to_base64(&self) -> [Secret<String>; 2] {
        let text = |bytes: &[u8]| Secret::new(STANDARD.encode(bytes));
        [text(self.key.reveal()), text(&self.iv)]
    }

    fn cipher(&self) -> Cipher {
        Cipher::new(&self.key, &self.iv)
    }
}

impl SessionKeys {
    /// One key per direction?
    pub fn are_twin(&self) -> bool {
        self.to_client.is_some()
    }

    /// Two key streams, each at its beginning.
    pub fn ciphers(&self, side: Side) -> Ciphers {
        let to_device = self.to_device.cipher();
        let to_client = self.to_client.as_ref().unwrap_or(&self.to_device).cipher();
        let (outbound, inbound) = match side {
            Side::Client => (to_device, to_client),
            Side::Device => (to_client, to_device),
        };
        Ciphers { outbound, inbound }
    }
}

fn decode<const N: usize>(text: &str) -> Result<Zeroizing<[u8; N]>, BadKeys> {
    let decoded = Zeroizing::new(STANDARD.decode(text).map_err(|_| BadKeys)?);
    let bytes = decoded.as_slice().try_into().map_err(|_| BadKeys)?;
    Ok(Zeroizing::new(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use miniserde::json::{self, Value};
    use proptest::prelude::*;

    use super::*;

    const VECTORS: &str = include_str!("../../tests/vectors/noports.json");
    const VECTORS_2026: &str = include_str!("../../tests/vectors/noports-2026.json");

    /// The text at `path`, member by member.
    fn text(vectors: &str, path: &[&str]) -> String {
        let mut at: Value = json::from_str(vectors).unwrap();
        for member in path {
            let Value::Object(mut object) = at else {
                panic!("{path:?}: no object above {member}");
            };
            at = object.remove(*member).unwrap();
        }
        match at {
            Value::String(text) => text,
            other => panic!("{path:?}: {other:?}"),
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    }

    fn cipher(key: &str, iv: &str) -> Cipher {
        StreamKey::from_base64(key, iv).unwrap().cipher()
    }

    #[test]
    fn data_plane_vector_encrypts_chunk_by_chunk() {
        let of = |member: &str| text(VECTORS, &["dataPlane", member]);
        let start = || cipher(&of("aesKeyBase64"), &of("ivBase64"));
        let mut stream = start();
        for chunk in ["chunk1", "chunk2"] {
            let mut bytes = hex(&of(&format!("{chunk}PlainHex")));
            stream.apply(&mut bytes);
            assert_eq!(bytes, hex(&of(&format!("{chunk}CipherHex"))), "{chunk}");
        }
        let mut keystream = vec![0; 64];
        start().apply(&mut keystream);
        assert_eq!(keystream, hex(&of("keystreamFirst64Hex")));
    }

    #[test]
    fn the_counter_carries_over_all_128_bits_and_wraps() {
        let of = |member| text(VECTORS, &["dataPlaneCounterWrap", member]);
        for (iv, keystream) in [
            ("ivBase64", "keystream48Hex"),
            ("iv64carryBase64", "keystream64carryHex"),
        ] {
            let mut bytes = vec![0; 48];
            cipher(&of("aesKeyBase64"), &of(iv)).apply(&mut bytes);
            assert_eq!(bytes, hex(&of(keystream)), "{iv}");
        }
    }

    #[test]
    fn twin_keys_go_where_the_2026_vector_says() {
        let of = |way, member| text(VECTORS_2026, &["twinKeys", "dataSocket", way, member]);
        let pair = |way| (of(way, "key"), of(way, "iv"));
        let (c2d, d2c) = (pair("c2d"), pair("d2c"));
        let keys = SessionKeys {
            to_device: StreamKey::from_base64(&c2d.0, &c2d.1).unwrap(),
            to_client: Some(StreamKey::from_base64(&d2c.0, &d2c.1).unwrap()),
        };
        for (side, sends, hears) in [(Side::Client, "c2d", "d2c"), (Side::Device, "d2c", "c2d")] {
            let mut ciphers = keys.ciphers(side);
            let mut sent = of(sends, "plain").into_bytes();
            ciphers.outbound.apply(&mut sent);
            assert_eq!(sent, hex(&of(sends, "cipherHex")), "{side:?}");
            let mut heard = hex(&of(hears, "cipherHex"));
            ciphers.inbound.apply(&mut heard);
            assert_eq!(heard, of(hears, "plain").into_bytes(), "{side:?}");
        }
    }

    #[test]
    fn a_single_key_serves_both_ways_from_the_same_counter() {
        let of = |member| text(VECTORS, &["dataPlane", member]);
        let keys = SessionKeys {
            to_device: StreamKey::from_base64(&of("aesKeyBase64"), &of("ivBase64")).unwrap(),
            to_client: None,
        };
        for side in [Side::Client, Side::Device] {
            let ciphers = keys.ciphers(side);
            for mut cipher in [ciphers.outbound, ciphers.inbound] {
                let mut bytes = hex(&of("chunk1PlainHex"));
                cipher.apply(&mut bytes);
                assert_eq!(bytes, hex(&of("chunk1CipherHex")), "{side:?}");
            }
        }
    }

    #[test]
    fn keys_of_another_size_are_refused_and_never_shown() {
        let (key, iv) = (STANDARD.encode([7; 32]), STANDARD.encode([9; 16]));
        let keys = StreamKey::from_base64(&key, &iv).unwrap();
        assert!(!format!("{keys:?}").contains("7, 7"));
        for (key, iv) in [
            ("", &*iv),
            (&*key, ""),
            (&*iv, &*key),
            ("not base64!", &*iv),
            (&key[..40], &*iv),
        ] {
            assert_eq!(
                StreamKey::from_base64(key, iv).err(),
                Some(BadKeys),
                "{key}"
            );
        }
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_stream(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            cuts in prop::collection::vec(0usize..100, 0..20),
        ) {
            let start = || Cipher::new(&Secret::new([3; 32]), &[0xfe; 16]);
            let mut whole = bytes.clone();
            start().apply(&mut whole);
            let mut pieces = bytes;
            let (mut stream, mut rest) = (start(), pieces.as_mut_slice());
            for cut in cuts {
                let (piece, behind) = rest.split_at_mut(cut.min(rest.len()));
                stream.apply(piece);
                rest = behind;
            }
            stream.apply(rest);
            prop_assert_eq!(pieces, whole);
        }
    }
}
