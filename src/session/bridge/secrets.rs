//! What a bridge of its own process is told apart from its words: one line of JSON on stdin.
//!
//! `{"auth":"…","socketKey":"…","aesC2D":"…","ivC2D":"…","aesD2C":"…","ivD2C":"…","side":"device",
//! "about":{"session":"…","device":"…","as":"…","client":"…","folder":"…"}}`; instead of the keys of a key stream
//! `"records":{"suite":"aes256gcm","toDevice":"…","toClient":"…"}`; a member that is absent or
//! `null` is not given.

use base64::{Engine, engine::general_purpose::STANDARD};
use miniserde::{Deserialize, Serialize, json};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    np::{far_end::FarEnd, proof::SocketKey},
    pipe::{
        cipher::{BadKeys, SessionKeys, Side, StreamKey},
        keys::TransportKeys,
        record::{RecordKeys, Suite},
    },
    secret::Secret,
    session::control::About,
};

/// The secrets of one session, as they come: from that line, or from the classic program's environment.
#[derive(Serialize, Deserialize, Default)]
pub struct Secrets {
    /// The admission line.
    pub auth: Option<String>,
    /// Proves the numbers of sockets, base64.
    #[serde(rename = "socketKey")]
    pub socket_key: Option<String>,
    /// Key from client to device, base64.
    #[serde(rename = "aesC2D")]
    pub key_to_device: Option<String>,
    /// Its first counter block, base64.
    #[serde(rename = "ivC2D")]
    pub iv_to_device: Option<String>,
    /// Key from device to client; without it the other one serves both ways.
    #[serde(rename = "aesD2C")]
    pub key_to_client: Option<String>,
    /// Its first counter block.
    #[serde(rename = "ivD2C")]
    pub iv_to_client: Option<String>,
    /// Instead of all these: the secrets of both directions' records, base64, and how they are sealed.
    pub records: Option<RecordSecrets>,
    /// `client` or `device`.
    pub side: Option<String>,
    /// Whose session it is: no secret, and nothing for a list of processes either.
    pub about: Option<About>,
}

/// Secrets of [`crate::pipe::record`].
#[derive(Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RecordSecrets {
    pub suite: String,
    #[serde(rename = "toDevice")]
    pub to_device: String,
    #[serde(rename = "toClient")]
    pub to_client: String,
}

/// Secrets that make no session; never with one of them in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecrets {
    /// Not the JSON object.
    #[error("the first line on stdin is not the JSON object with the secrets")]
    Form,
    /// Half a stream's.
    #[error("a session key came without its IV, or an IV without its key")]
    Half,
    /// Only the second stream's.
    #[error("the key from client to device is missing")]
    OneWay,
    /// Keys of both kinds.
    #[error("keys of a key stream and secrets of records exclude each other")]
    TwoKinds,
    /// Those of records.
    #[error(
        "a secret of records is 32 bytes in base64, and sealed with aes256gcm or chacha20poly1305"
    )]
    Records,
    /// A key's text.
    #[error(transparent)]
    Keys(#[from] BadKeys),
    /// The admission line is empty, or several.
    #[error("the admission line is not one line")]
    Admission,
    /// Of another length, or no base64.
    #[error("the socket key is not 32 bytes in base64")]
    SocketKey,
    /// Some other word.
    #[error("side must be client or device")]
    Side,
}

impl Secrets {
    /// The line for a bridge that is to reach this far end.
    pub fn line(far: &FarEnd, about: Option<&About>) -> Secret<String> {
        let text = |stream: &StreamKey| stream.to_base64().map(|text| text.reveal().clone());
        let (stream, records) = match &far.keys {
            None => (None, None),
            Some(TransportKeys::Stream(keys)) => (Some(keys), None),
            Some(TransportKeys::Records(keys)) => (None, Some(RecordSecrets::of(keys))),
        };
        let to_device = stream.map(|keys| text(&keys.to_device));
        let to_client = stream.and_then(|keys| keys.to_client.as_ref());
        let (key_to_device, iv_to_device) = to_device.map(<(String, String)>::from).unzip();
        let (key_to_client, iv_to_client) =
            to_client.map(text).map(<(String, String)>::from).unzip();
        let side = match far.side {
            Side::Client => "client",
            Side::Device => "device",
        };
        let secrets = Self {
            auth: far.admission.as_ref().map(|line| line.reveal().clone()),
            socket_key: far
                .socket_key
                .as_ref()
                .map(|key| key.text().reveal().clone()),
            key_to_device,
            iv_to_device,
            key_to_client,
            iv_to_client,
            records,
            side: Some(side.to_owned()),
            about: about.cloned(),
        };
        Secret::new(json::to_string(&secrets) + "\n")
    }

    /// Reads that line.
    ///
    /// # Errors
    /// [`BadSecrets::Form`]
    pub fn parse(line: &[u8]) -> Result<Self, BadSecrets> {
        let text = str::from_utf8(line).map_err(|_| BadSecrets::Form)?;
        json::from_str(text).map_err(|_| BadSecrets::Form)
    }

    /// The session's keys, if it has any.
    ///
    /// # Errors
    /// See [`BadSecrets`].
    pub fn keys(&self) -> Result<Option<TransportKeys>, BadSecrets> {
        let to_device = stream(&self.key_to_device, &self.iv_to_device)?;
        let to_client = stream(&self.key_to_client, &self.iv_to_client)?;
        let records = self.records.as_ref().map(RecordSecrets::keys).transpose()?;
        match (to_device, to_client, records) {
            (None, None, records) => Ok(records.map(TransportKeys::Records)),
            (_, _, Some(_)) => Err(BadSecrets::TwoKinds),
            (Some(to_device), to_client, None) => Ok(Some(TransportKeys::Stream(SessionKeys {
                to_device,
                to_client,
            }))),
            (None, Some(_), None) => Err(BadSecrets::OneWay),
        }
    }

    /// The admission line, if there is one.
    ///
    /// # Errors
    /// [`BadSecrets::Admission`]
    pub fn admission(&self) -> Result<Option<Secret<String>>, BadSecrets> {
        match &self.auth {
            Some(line) if line.is_empty() || line.contains(['\n', '\r']) => {
                Err(BadSecrets::Admission)
            }
            line => Ok(line.clone().map(Secret::new)),
        }
    }

    /// What proves the numbers of sockets, if there is something.
    ///
    /// # Errors
    /// [`BadSecrets::SocketKey`]
    pub fn socket_key(&self) -> Result<Option<SocketKey>, BadSecrets> {
        let key = self.socket_key.as_deref();
        let parse = |text| SocketKey::parse(text).ok_or(BadSecrets::SocketKey);
        key.map(parse).transpose()
    }

    /// Which end it is, if the secrets say so.
    ///
    /// # Errors
    /// [`BadSecrets::Side`]
    pub fn side(&self) -> Result<Option<Side>, BadSecrets> {
        match self.side.as_deref() {
            None => Ok(None),
            Some("client") => Ok(Some(Side::Client)),
            Some("device") => Ok(Some(Side::Device)),
            Some(_) => Err(BadSecrets::Side),
        }
    }
}

impl RecordSecrets {
    fn of(keys: &RecordKeys) -> Self {
        let text = |secret: &Secret<[u8; 32]>| STANDARD.encode(secret.reveal());
        Self {
            suite: keys.suite.name().to_owned(),
            to_device: text(&keys.to_device),
            to_client: text(&keys.to_client),
        }
    }

    fn keys(&self) -> Result<RecordKeys, BadSecrets> {
        let secret = |text: &str| {
            let bytes = STANDARD.decode(text).ok().map(Zeroizing::new);
            let bytes = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
            bytes.map(Secret::new).ok_or(BadSecrets::Records)
        };
        Ok(RecordKeys {
            suite: Suite::named(&self.suite).ok_or(BadSecrets::Records)?,
            to_device: secret(&self.to_device)?,
            to_client: secret(&self.to_client)?,
        })
    }
}

fn stream(key: &Option<String>, iv: &Option<String>) -> Result<Option<StreamKey>, BadSecrets> {
    match (key, iv) {
        (Some(key), Some(iv)) => Ok(Some(StreamKey::from_base64(key, iv)?)),
        (None, None) => Ok(None),
        _ => Err(BadSecrets::Half),
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.auth.zeroize();
        self.socket_key.zeroize();
        self.key_to_device.zeroize();
        self.iv_to_device.zeroize();
        self.key_to_client.zeroize();
        self.iv_to_client.zeroize();
        if let Some(records) = &mut self.records {
            records.to_device.zeroize();
            records.to_client.zeroize();
        }
    }
}
