//! The keys of a session, made by the daemon: one for both directions, or one for each (*twin keys*) when both
//! ends know them.
//!
//! With a single key both directions run through the same key stream, so whoever sees both (the rendezvous
//! does) can combine them; with ssh inside that gives nothing away.
//!
//! On the wire a key and its first counter block are base64 texts, each encrypted on its own for the client's
//! ephemeral key.

use miniserde::{Deserialize, json};

use crate::{
    at::crypto::{self, CryptoError, KeyPair, PublicKey},
    pipe::cipher::{SessionKeys, StreamKey},
};

impl StreamKey {
    /// A fresh random one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, CryptoError> {
        Ok(Self {
            key: crypto::new_aes_key()?,
            iv: crypto::random()?,
        })
    }
}

impl SessionKeys {
    /// Fresh ones: two streams when the client takes twin keys, else one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random(twin: bool) -> Result<Self, CryptoError> {
        Ok(Self {
            to_device: StreamKey::random()?,
            to_client: twin.then(StreamKey::random).transpose()?,
        })
    }

    /// As members of an answer, each with a comma before it.
    pub(super) fn wrap(&self, ephemeral: &PublicKey) -> Result<String, CryptoError> {
        let mut text = String::new();
        let mut add = |stream: &StreamKey, names: [&str; 2]| -> Result<(), CryptoError> {
            for (name, value) in names.into_iter().zip(stream.to_base64()) {
                let wrapped = ephemeral.wrap(value.reveal())?;
                text += &format!(r#","{name}":"{wrapped}""#);
            }
            Ok(())
        };
        match &self.to_client {
            None => add(&self.to_device, ["sessionAESKey", "sessionIV"])?,
            Some(to_client) => {
                add(&self.to_device, ["aesKeyC2D", "ivC2D"])?;
                add(to_client, ["aesKeyD2C", "ivD2C"])?;
            }
        }
        Ok(text)
    }

    /// From an answer's payload; `None` when it holds no keys at all, which is not the same as half of them.
    pub(super) fn unwrap(payload: &str, ephemeral: &KeyPair) -> Result<Option<Self>, CryptoError> {
        let wire: Wire = json::from_str(payload).map_err(|_| CryptoError::BadKey)?;
        let stream = |key: Option<String>, iv: Option<String>| match (key, iv) {
            (None, None) => Ok(None),
            (Some(key), Some(iv)) => unwrap_stream(&key, &iv, ephemeral).map(Some),
            _ => Err(CryptoError::BadKey),
        };
        let single = stream(wire.key, wire.iv)?;
        let to_device = stream(wire.key_to_device, wire.iv_to_device)?;
        let to_client = stream(wire.key_to_client, wire.iv_to_client)?;
        match (single, to_device, to_client) {
            (None, None, None) => Ok(None),
            (_, Some(to_device), Some(to_client)) => Ok(Some(Self {
                to_device,
                to_client: Some(to_client),
            })),
            (Some(to_device), None, None) => Ok(Some(Self {
                to_device,
                to_client: None,
            })),
            _ => Err(CryptoError::BadKey),
        }
    }
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "sessionAESKey")]
    key: Option<String>,
    #[serde(rename = "sessionIV")]
    iv: Option<String>,
    #[serde(rename = "aesKeyC2D")]
    key_to_device: Option<String>,
    #[serde(rename = "ivC2D")]
    iv_to_device: Option<String>,
    #[serde(rename = "aesKeyD2C")]
    key_to_client: Option<String>,
    #[serde(rename = "ivD2C")]
    iv_to_client: Option<String>,
}

fn unwrap_stream(key: &str, iv: &str, ephemeral: &KeyPair) -> Result<StreamKey, CryptoError> {
    let (key, iv) = (ephemeral.unwrap(key)?, ephemeral.unwrap(iv)?);
    StreamKey::from_base64(key.reveal(), iv.reveal()).map_err(|_| CryptoError::BadKey)
}
