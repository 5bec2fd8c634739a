//! What the listener asks other atServers for on behalf of a session.

use crate::at::{AtSign, fault::Fault, verb::Detail};

/// What must be asked of the caller's own server: the two values behind these unauthenticated look-ups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Whose server to ask.
    pub caller: AtSign,
    /// `_<session>@caller`: the signature.
    pub signature_at: String,
    /// `signing_publickey@caller`.
    pub key_at: String,
    /// What must be signed.
    pub(super) nonce: String,
}

/// A question for another atSign's server, on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// Whose server to ask.
    pub of: AtSign,
    /// What to ask there.
    pub question: RemoteQuery,
    pub(super) detail: Detail,
}

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteQuery {
    /// After `pol`: `lookup:all:<entity>@of`.
    Shared {
        /// `key.ns@of`
        key: String,
    },
    /// Without: the same, for a public value.
    Public {
        /// `key.ns@of`
        key: String,
    },
    /// After `pol`: `scan <regex>`.
    Scan {
        /// The expression, if any.
        regex: Option<String>,
    },
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// The text behind `data:`.
    Data(String),
    /// The other server refused.
    Fault(Fault),
    /// The atDirectory does not know it.
    Unknown,
    /// It could not be reached.
    Unreachable,
}
