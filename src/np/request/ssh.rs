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

use super::{EPHEMERAL_TYPE, Meeting, Protection, RequestError, joined, read};
use crate::{
    at::{
        AtSign,
        crypto::{KeyPair, PublicKey},
    },
    np::{
        Message, NAMESPACE,
        envelope::{Envelope, EnvelopeError},
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

/// All that the old form has; the new one goes on with the protection.
#[derive(Serialize, Deserialize)]
struct Wire {
    direct: bool,
    #[serde(rename = "sessionId")]
    session: String,
    host: String,
    port: u16,
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
        Message::sealed(to, ssh_request_entity(device), &self.payload(), key)
    }

    pub(in crate::np) fn payload(&self) -> String {
        let meeting = &self.meeting;
        let wire = Wire {
            direct: true,
            session: meeting.session.to_string(),
            host: meeting.host.clone(),
            port: meeting.port,
        };
        if self.form == RequestForm::V4 {
            return json::to_string(&wire);
        }
        let [client_nonce, rendezvous_nonce] = meeting.nonces();
        let ephemeral = meeting.ephemeral();
        let protection = Protection {
            authenticate: Some(meeting.admission.is_some()),
            client_nonce,
            rendezvous_nonce,
            encrypt: Some(meeting.encryption.is_some()),
            ephemeral_type: ephemeral.as_ref().map(|_| EPHEMERAL_TYPE.to_owned()),
            ephemeral,
        };
        meeting.with_newer(joined(&[&wire, &protection]))
    }

    /// Reads a request at the daemon. `signer` is the public key of the notification's sender.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn parse(text: &str, signer: &PublicKey) -> Result<Self, RequestError> {
        let envelope = Envelope::parse(text)?;
        let payload = envelope.verify(signer)?;
        let (wire, protection): (Wire, Protection) = (read(payload)?, read(payload)?);
        if !wire.direct {
            return Err(RequestError::Reverse);
        }
        let form = if protection.authenticate.is_none() && protection.encrypt.is_none() {
            RequestForm::V4
        } else {
            RequestForm::V5
        };
        Ok(Self {
            meeting: protection.meeting(payload, &wire.session, wire.host, wire.port)?,
            form,
        })
    }
}
