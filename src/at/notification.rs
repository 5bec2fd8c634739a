//! What a monitor delivers: `notification: {"id":…,"from":…,…}`.

use super::{atsign::AtSign, verb::Operation};

/// One notification as received, still encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The sender's id; `-1` for server statistics.
    pub id: String,
    /// Who sent it. The receiving atServer vouches for it.
    pub from: AtSign,
    /// Who it is for.
    pub to: AtSign,
    /// The whole key or text: `@to:entity@from`.
    pub key: String,
    /// Cipher text in base64, or plain; `None` for delete and touch.
    pub value: Option<String>,
    /// Set or removed.
    pub operation: Operation,
    /// When the receiving server stored it, in milliseconds since 1970.
    pub epoch_millis: u64,
    /// `MessageType.text` rather than `MessageType.key`.
    pub is_text: bool,
    /// Whether `value` is encrypted.
    pub is_encrypted: bool,
    /// Base64 of the 16-byte IV; absent means all zero.
    pub iv_nonce: Option<String>,
    /// RSA of the shared key, when the sender sent it along.
    pub shared_key_enc: Option<String>,
    /// `availableAt`, `expiresAt` as text (replayed ones only).
    pub expires_at: Option<String>,
}

/// Why a notification cannot be used. It is logged and dropped; the monitor goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNotification {
    /// Not JSON, or a member is missing or of the wrong type.
    #[error("a notification that cannot be read")]
    Json,
    /// `from` or `to` is no atSign.
    #[error("a notification from or to no atSign")]
    Names,
}

impl Notification {
    /// Reads the JSON behind `notification:`.
    ///
    /// # Errors
    /// See [`BadNotification`]. Unknown members are ignored.
    pub fn parse(_json: &str) -> Result<Self, BadNotification> {
        todo!()
    }

    /// The entity without atSigns: `req.dev1.sshnp`.
    pub fn entity(&self) -> &str {
        todo!()
    }

    /// Server statistics: proof of life, nothing else.
    pub fn is_stats(&self) -> bool {
        self.id == "-1"
    }
}
