//! The `.atKeys` file: all keys of one atSign on one device.

use super::{
    atsign::AtSign,
    crypto::{AesKey, KeyPair},
};

/// What a key file holds, decrypted.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AtKeys {
    pub atsign: AtSign,
    /// Logs in: PKAM, or APKAM when there is an enrolment id.
    pub pkam: KeyPair,
    /// Signs envelopes; others encrypt to its public half.
    pub encryption: KeyPair,
    pub self_key: AesKey,
    pub apkam_symmetric: Option<AesKey>,
    pub enrollment_id: Option<String>,
}

/// Why a key file cannot be used; each names what to do in [`KeyFileError::hint`].
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum KeyFileError {
    #[error("not a key file: {0}")]
    Form(String),
    #[error("the key file lacks {0}")]
    Missing(&'static str),
    #[error("the key file's {0} cannot be decrypted")]
    Damaged(&'static str),
    #[error("the key file is protected by a pass phrase")]
    PassPhrase,
}

impl AtKeys {
    /// Reads the JSON text of a key file. The atSign comes from the caller: files do not name it reliably.
    ///
    /// # Errors
    /// When a member is missing or does not decode to base64 DER.
    pub fn parse(_atsign: &AtSign, _json: &str) -> Result<Self, KeyFileError> {
        todo!()
    }
    /// The JSON text, members in the order upstream writes them.
    pub fn print(&self) -> crate::secret::Secret<String> {
        todo!()
    }
    /// `@alice_key.atKeys`
    pub fn file_name(atsign: &AtSign) -> String {
        format!("{atsign}_key.atKeys")
    }
}
