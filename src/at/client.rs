//! Speaks to atServers. One task owns each connection; callers send it work and wait with a deadline.
//!
//! ```text
//!   Client ──verb──▶ [worker task] ⇄ own atServer        one command at a time, reconnects, repeats a lost look-up once
//!   Subscription ◀── [monitor task] ⇄ own atServer       noop every 15 s; silent for 20 s ⇒ reconnect with jittered back-off
//! ```

use std::{sync::Arc, time::Duration};

use crate::net::tls::Connector;

use super::{
    atsign::AtSign, crypto::PublicKey, directory::Root, fault::Fault, keyfile::AtKeys,
    metadata::Metadata, notification::Notification, verb::Verb,
};

/// How to reach the atProtocol.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Network {
    pub root: Root,
    pub tls: Connector,
}

/// What can go wrong, by whose fault it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum AtError {
    #[error("cannot reach the atDirectory at {root}: {why}")]
    Directory { root: String, why: String },
    #[error("the atDirectory at {root} does not know {who}")]
    Unknown { root: String, who: AtSign },
    #[error("cannot reach {who}'s atServer at {at}: {why}")]
    Unreachable {
        who: AtSign,
        at: String,
        why: String,
    },
    #[error("{who}'s atServer refused the login: {fault}")]
    Login { who: AtSign, fault: Fault },
    #[error("the atServer refused: {0}")]
    Refused(Fault),
    #[error("the atServer did not answer within {0:?}")]
    Silent(Duration),
    #[error("{0}")]
    Protocol(String),
    #[error(transparent)]
    Crypto(#[from] super::crypto::CryptoError),
    #[error(transparent)]
    Auth(#[from] super::auth::AuthError),
}

impl AtError {
    /// What to try next.
    pub fn hint(&self) -> Option<String> {
        todo!()
    }
}

/// One notification to send; the text is encrypted for `to`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Outgoing {
    pub to: AtSign,
    /// Entity with namespace: `ping.dev1.sshnp`.
    pub entity: String,
    pub text: String,
    /// `ttl` of the value and `ttln` of the notification, ms.
    pub ttl: Option<u64>,
    pub ttln: u64,
    /// Further items (`ttr`, `ccd`).
    pub metadata: Metadata,
}

/// A logged-in atSign. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Client {/* Arc<Inner> */}

impl Client {
    /// Finds the atServer, connects, logs in with PKAM.
    ///
    /// # Errors
    /// Names who could not be reached or who refused.
    pub async fn login(_network: &Network, _keys: Arc<AtKeys>) -> Result<Self, AtError> {
        todo!()
    }
    /// Our atSign.
    pub fn atsign(&self) -> &AtSign {
        todo!()
    }
    /// Our keys.
    pub fn keys(&self) -> &Arc<AtKeys> {
        todo!()
    }
    /// Sends one command, waits for its answer: the text behind `data:`.
    ///
    /// # Errors
    /// `Refused` with the server's fault; `Silent` after the deadline.
    pub async fn run(&self, _verb: &Verb) -> Result<String, AtError> {
        todo!()
    }
    /// Somebody's public encryption key. `Ok(None)`: the atSign exists but has none.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn public_key(&self, _of: &AtSign) -> Result<Option<PublicKey>, AtError> {
        todo!()
    }
    /// Encrypts and stores a value for another atSign: `@with:entity@me`.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn put_shared(
        &self,
        _with: &AtSign,
        _entity: &str,
        _text: &str,
        _metadata: Metadata,
    ) -> Result<(), AtError> {
        todo!()
    }
    /// Looks up and decrypts what another atSign stored for us: `@me:entity@from`. `None`: there is nothing.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn get_shared(
        &self,
        _from: &AtSign,
        _entity: &str,
    ) -> Result<Option<String>, AtError> {
        todo!()
    }
    /// Encrypts and sends; returns the id once our own server has it.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn notify(&self, _note: &Outgoing) -> Result<String, AtError> {
        todo!()
    }
    /// Makes sure a shared key with this atSign exists, so that the next notify costs one round trip.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn prepare(&self, _with: &AtSign) -> Result<(), AtError> {
        todo!()
    }
    /// Decrypts a notification's value. Call only for senders that passed the allow list.
    /// Plain values are returned as they are; `None` for delete and touch.
    ///
    /// # Errors
    /// One answer for all failures.
    pub async fn open(&self, _note: &Notification) -> Result<Option<String>, AtError> {
        todo!()
    }
    /// Starts a monitor with this regex; returns once it is live. It lives until dropped, through any number of
    /// reconnections; a notification id is delivered once.
    ///
    /// # Errors
    /// When the first connection fails.
    pub async fn subscribe(&self, _regex: &str) -> Result<Subscription, AtError> {
        todo!()
    }
}

/// Incoming notifications, statistics left out.
pub struct Subscription {/* Receiver<Event> */}

/// What a subscription tells.
#[derive(Debug)]
pub enum Event {
    /// A notification.
    Note(Box<Notification>),
    /// The connection was lost; it is being made again.
    Lost(String),
    /// It is back.
    Back,
}

impl Subscription {
    /// The next event. `None` when the client is gone.
    pub async fn next(&mut self) -> Option<Event> {
        todo!()
    }
}
