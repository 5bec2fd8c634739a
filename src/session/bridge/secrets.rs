//! What a bridge of its own process is told apart from its words: one line of JSON on stdin.
//!
//! `{"auth":"…","socketKey":"…","aesC2D":"…","ivC2D":"…","aesD2C":"…","ivD2C":"…","side":"device",
//! "about":{"session":"…","device":"…","as":"…","client":"…","folder":"…"}}`; a member that is absent or
//! `null` is not given.

use miniserde::{Deserialize, Serialize, json};
use zeroize::Zeroize;

use crate::{
    np::{far_end::FarEnd, proof::SocketKey},
    pipe::cipher::{BadKeys, SessionKeys, Side, StreamKey},
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
    /// `client` or `device`.
    pub side: Option<String>,
    /// Whose session it is: no secret, and nothing for a list of processes either.
    pub about: Option<About>,
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
        let to_device = far.keys.as_ref().map(|keys| text(&keys.to_device));
        let to_client = far.keys.as_ref().and_then(|keys| keys.to_client.as_ref());
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
    pub fn keys(&self) -> Result<Option<SessionKeys>, BadSecrets> {
        let to_device = stream(&self.key_to_device, &self.iv_to_device)?;
        let to_client = stream(&self.key_to_client, &self.iv_to_client)?;
        match (to_device, to_client) {
            (Some(to_device), to_client) => Ok(Some(SessionKeys {
                to_device,
                to_client,
            })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(BadSecrets::OneWay),
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
    }
}
