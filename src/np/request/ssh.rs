//! "Open a session to your sshd": `ssh_request`.
//!
//! ```text
//!   4.0 (rc.2 too)   {"direct":true,"sessionId":…,"host":…,"port":…}
//!   5.0              … and ,"authenticateToRvd","clientNonce","rvdNonce","encryptRvdTraffic",
//!                        "clientEphemeralPK","clientEphemeralPKType": all of them, null where there is nothing to say
//! ```
//!
//! With `"direct":false` it is the other way round: [`crate::np::reverse`].

use miniserde::{Deserialize, Serialize, json};

use super::{EPHEMERAL_TYPE, Meeting, Newer, RequestError, Shared};
use crate::{
    at::{
        AtSign,
        crypto::{KeyPair, PublicKey},
    },
    np::{
        Message, NAMESPACE,
        envelope::{self, Envelope, EnvelopeError},
        ids::DeviceName,
    },
};

/// What a client asks of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshRequest {
    /// Where to meet.
    pub meeting: Meeting,
    /// How it is written. The old form has no room for admission and encryption.
    pub form: RequestForm,
}

/// How a request is written; its answer is written in the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestForm {
    /// Four members: 4.0, and its release candidate 2, which wants another answer and does not say so.
    V4,
    /// Ten members and what newer ones there are.
    V5,
}

#[derive(Serialize)]
struct OldWire {
    direct: bool,
    #[serde(rename = "sessionId")]
    session: String,
    host: String,
    port: u16,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    direct: bool,
    #[serde(rename = "sessionId")]
    session: String,
    host: String,
    port: u16,
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

/// `ssh_request.<device>.sshnp`
pub fn ssh_request_entity(device: &DeviceName) -> String {
    format!("ssh_request.{device}.{NAMESPACE}")
}

impl SshRequest {
    /// The signed message to the daemon.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn message(
        &self,
        to: &AtSign,
        device: &DeviceName,
        key: &KeyPair,
    ) -> Result<Message, EnvelopeError> {
        Ok(Message {
            to: to.clone(),
            entity: ssh_request_entity(device),
            text: envelope::seal(&self.payload(), key)?,
        })
    }

    pub(in crate::np) fn payload(&self) -> String {
        let meeting = &self.meeting;
        let (session, host) = (meeting.session.to_string(), meeting.host.clone());
        let port = meeting.port;
        if self.form == RequestForm::V4 {
            return json::to_string(&OldWire {
                direct: true,
                session,
                host,
                port,
            });
        }
        let [client_nonce, rendezvous_nonce] = meeting.nonces();
        let ephemeral = meeting.ephemeral();
        meeting.with_newer(json::to_string(&Wire {
            direct: true,
            session,
            host,
            port,
            authenticate: Some(meeting.admission.is_some()),
            client_nonce,
            rendezvous_nonce,
            encrypt: Some(ephemeral.is_some()),
            ephemeral_type: ephemeral.as_ref().map(|_| EPHEMERAL_TYPE.to_owned()),
            ephemeral,
        }))
    }

    /// Reads a request at the daemon. `signer` is the public key of the notification's sender.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn parse(text: &str, signer: &PublicKey) -> Result<Self, RequestError> {
        let envelope = Envelope::parse(text)?;
        let payload = envelope.verify(signer)?;
        let wire: Wire = json::from_str(payload).map_err(|_| RequestError::Member("form"))?;
        if !wire.direct {
            return Err(RequestError::Reverse);
        }
        let form = match wire.authenticate.is_none() && wire.encrypt.is_none() {
            true => RequestForm::V4,
            false => RequestForm::V5,
        };
        let shared = Shared {
            session: wire.session,
            host: wire.host,
            port: wire.port,
            authenticate: wire.authenticate,
            client_nonce: wire.client_nonce,
            rendezvous_nonce: wire.rendezvous_nonce,
            encrypt: wire.encrypt,
            ephemeral: wire.ephemeral,
            ephemeral_type: wire.ephemeral_type,
            newer: Newer::read(payload)?,
        };
        Ok(Self {
            meeting: shared.check()?,
            form,
        })
    }
}
