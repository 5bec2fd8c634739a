//! "Open a session" and its answer.
//!
//! ```text
//!   client ── envelope{sessionId, host, port B, nonces, ephemeral public key, …} ─▶ daemon
//!   client ◀── envelope{status, sessionId, session keys wrapped for that public key} ──
//!         or ◀── one line of plain text: why not
//! ```
//!
//! | what | key | since | file |
//! | --- | --- | --- | --- |
//! | the device's sshd | `ssh_request` | 4.0 | [`ssh`] |
//! | any port near it | `npt_request` | 5.1 | [`tunnel`] |
//! | yes, with what belongs to it; or no | the session's id | 2.0 | [`answer`] |
//! | the session's keys | – | 5.0 | `keys` |
//! | shares, of which both make them | – | ours | [`shares`] |
//! | when it was signed, for which run of the daemon | – | ours | [`stamp`] |
//!
//! Either part of the protection may be left out: the login at the rendezvous, and the encryption of what
//! passes it. Clients before 5.0 know neither.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnp/impl/notification_request_message.dart and
//! noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart.

use miniserde::{Deserialize, Serialize, json};

use super::{
    NAMESPACE,
    admit::Admission,
    envelope::{Envelope, EnvelopeError},
    ids::{BadId, DeviceName, Nonce, SessionId},
    ports::{key_of, with_key},
    proof::SocketKey,
};
use crate::{
    at::crypto::{KeyPair, PublicKey},
    np::{agreement::ML_KEM_KEY, far_end::FarEnd},
    pipe::{cipher::Side, keys::TransportKeys},
    secret::Secret,
    text::{endpoint::Endpoint, host::canonical},
};

pub use answer::{
    Accepted, Answer, AnswerError, Asked, ClientKeys, DeviceKeys, accept, accept_tunnel, connected,
    read_answer, refuse,
};
pub use shares::{Offered, Parties};
#[cfg(feature = "inside")]
pub use ssh::ssh_request_entity;
pub use ssh::{RequestForm, SshRequest};
pub use stamp::Stamp;
pub use tunnel::TunnelRequest;

pub mod answer;
mod keys;
pub mod shares;
pub mod ssh;
pub mod stamp;
pub mod tunnel;

#[cfg(test)]
mod bad_input;
#[cfg(test)]
pub(super) mod tests;

/// What every request says: where to meet, and what protects the session there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// The session.
    pub session: SessionId,
    /// The rendezvous.
    pub host: String,
    /// The daemon's port there.
    pub port: u16,
    /// `None`: the daemon sends no admission line.
    pub admission: Option<Nonces>,
    /// `None`: the daemon sends and takes everything as it is.
    pub encryption: Option<Encryption>,
    /// Proves the numbers of the daemon's sockets ([`super::proof`]); only sent where all three know it.
    pub socket_key: Option<SocketKey>,
    /// When it was signed; `None`: its client does not say.
    pub stamp: Option<Stamp>,
}

/// The two halves of what makes an admission line unlike every other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonces {
    /// The client's.
    pub client: Nonce,
    /// The rendezvous'.
    pub rendezvous: Nonce,
}

impl Nonces {
    /// What an end of this session signs to be let in.
    pub fn admission(&self, session: SessionId) -> Admission {
        Admission {
            session,
            client_nonce: self.client.clone(),
            rendezvous_nonce: self.rendezvous.clone(),
        }
    }
}

/// What the client brings for the session's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// For key streams, which the daemon makes.
    Stream {
        /// Fresh public key that the keys are wrapped for.
        ephemeral: PublicKey,
        /// Whether the client can take one key per direction.
        twin_keys: bool,
    },
    /// For records, whose keys both make.
    Records(Offered<ML_KEM_KEY>),
}

/// Why a request is refused. Printed as it is to the client, if the client is allowed to hear anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The envelope.
    #[error("Signature not verified: {0}")]
    Envelope(#[from] EnvelopeError),
    /// A member is missing or makes no sense; holds its wire name.
    #[error("the request's {0} cannot be used")]
    Member(&'static str),
    /// The session id.
    #[error(transparent)]
    Id(#[from] BadId),
    /// Asks for something this daemon does not do.
    #[error("this daemon does not do {0}")]
    Unsupported(&'static str),
    /// Wants the device to log in to the client: [`super::reverse`].
    #[error("this daemon does not do reverse ssh")]
    Reverse,
}

/// `<session>.<device>.sshnp`: where the answer comes.
pub fn answer_entity(session: SessionId, device: &DeviceName) -> String {
    format!("{session}.{device}.{NAMESPACE}")
}

/// The session id a request claims, for telling the sender where its refusal belongs. Checked by nobody.
pub fn claimed_session(text: &str) -> Option<SessionId> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(rename = "sessionId")]
        session: String,
    }
    let envelope = Envelope::parse(text).ok()?;
    json::from_str::<Wire>(envelope.unverified())
        .ok()?
        .session
        .parse()
        .ok()
}

/// The only kind of ephemeral key there is.
const EPHEMERAL_TYPE: &str = "rsa2048";

/// Members about a session's protection, which both kinds of request have under the same names.
#[derive(Serialize, Deserialize)]
struct Protection {
    #[serde(rename = "authenticateToRvd")]
    authenticate: Option<bool>,
    #[serde(rename = "clientNonce")]
    client_nonce: Option<String>,
    #[serde(rename = "rvdNonce")]
    rendezvous_nonce: Option<String>,
    #[serde(rename = "encryptRvdTraffic")]
    encrypt: Option<bool>,
    #[serde(rename = "clientEphemeralPK")]
    ephemeral: Option<String>,
    #[serde(rename = "clientEphemeralPKType")]
    ephemeral_type: Option<String>,
}

/// Members of later generations.
#[derive(Deserialize)]
struct Newer {
    #[serde(rename = "twinKeys")]
    twin_keys: Option<bool>,
    /// Only sent by who wants another login at the rendezvous than ours.
    #[serde(rename = "relayAuthMode")]
    login: Option<String>,
}

/// Members of a payload, as the wire has them.
fn read<T: Deserialize>(payload: &str) -> Result<T, RequestError> {
    json::from_str(payload).map_err(|_| RequestError::Member("form"))
}

/// Several objects as one, with the members of all in this order.
fn joined(objects: &[&dyn Serialize]) -> String {
    let members = objects.iter().map(|object| {
        let text = json::to_string(*object);
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        inner.unwrap_or_default().to_owned()
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

impl Protection {
    /// Where to meet, under this protection; `payload` may hold members of later generations.
    fn meeting(
        self,
        payload: &str,
        session: &str,
        host: String,
        port: u16,
    ) -> Result<Meeting, RequestError> {
        let newer: Newer = json::from_str(payload)
            .map_err(|_| RequestError::Member("relayAuthMode or twinKeys"))?;
        let session = session.parse()?;
        let spelt = canonical(&host).filter(|_| port != 0);
        let host = spelt.ok_or(RequestError::Member("host and port"))?;
        let nonce = |text: Option<String>| text.unwrap_or_default().parse::<Nonce>();
        // Whoever wants no login may send anything as nonces: some clients do.
        let admission = match self.authenticate {
            Some(true) if newer.login.is_some_and(|mode| mode != "payload") => {
                return Err(RequestError::Unsupported("that login to the rendezvous"));
            }
            Some(true) => Some(Nonces {
                client: nonce(self.client_nonce)?,
                rendezvous: nonce(self.rendezvous_nonce)?,
            }),
            _ => None,
        };
        let offered = Offered::of(payload).map_err(|_| RequestError::Member("sessionShares"))?;
        let encryption = match (self.encrypt, self.ephemeral_type.as_deref()) {
            (Some(true), _) if offered.is_some() => offered.map(Encryption::Records),
            (Some(true), Some(EPHEMERAL_TYPE)) => Some(Encryption::Stream {
                ephemeral: PublicKey::parse(&self.ephemeral.unwrap_or_default())
                    .map_err(|_| RequestError::Member("clientEphemeralPK"))?,
                twin_keys: newer.twin_keys == Some(true),
            }),
            (Some(true), _) => return Err(RequestError::Member("clientEphemeralPKType")),
            _ => None,
        };
        Ok(Meeting {
            session,
            host,
            port,
            socket_key: key_of(payload).filter(|_| takes_proofs(admission.as_ref())),
            admission,
            encryption,
            stamp: Stamp::of(payload)?,
        })
    }
}

impl Meeting {
    /// Where the daemon dials.
    pub fn rendezvous(&self) -> Endpoint {
        Endpoint {
            host: self.host.clone(),
            port: self.port,
        }
    }

    /// The client's end, as the daemon reaches it; who logs in signs with this key.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn far_end(
        &self,
        keys: Option<&TransportKeys>,
        signer: &KeyPair,
    ) -> Result<FarEnd, EnvelopeError> {
        let admission = self.admission.as_ref();
        let line = admission.map(|nonces| nonces.admission(self.session).line(signer));
        Ok(FarEnd {
            rendezvous: self.rendezvous(),
            admission: line.transpose()?.map(Secret::new),
            socket_key: self.socket_key.clone(),
            keys: keys.cloned(),
            side: Side::Device,
        })
    }

    fn nonces(&self) -> [Option<String>; 2] {
        let text =
            |pick: fn(&Nonces) -> &Nonce| self.admission.as_ref().map(|n| pick(n).to_string());
        [text(|n| &n.client), text(|n| &n.rendezvous)]
    }

    fn ephemeral(&self) -> Option<String> {
        match &self.encryption {
            Some(Encryption::Stream { ephemeral, .. }) => Some(ephemeral.text.clone()),
            _ => None,
        }
    }

    /// The payload of a request, with the members at its end that only newer daemons are sent.
    fn with_newer(&self, payload: String) -> String {
        let mut payload = payload;
        let mut append = |object: &str| {
            payload.pop();
            payload.push(',');
            payload.push_str(object.trim_start_matches('{'));
        };
        match &self.encryption {
            Some(Encryption::Stream {
                twin_keys: true, ..
            }) => append(r#"{"twinKeys":true}"#),
            Some(Encryption::Records(offered)) => append(&offered.print()),
            _ => {}
        }
        if let Some(stamp) = &self.stamp {
            append(&stamp.print());
        }
        with_key(payload, self.socket_key.as_ref())
    }
}

/// Whether there is somebody who checks proofs.
pub(super) fn takes_proofs(admission: Option<&Nonces>) -> bool {
    admission.is_some_and(|nonces| nonces.rendezvous.takes_proofs())
}
