//! NoPorts: what the programs say to each other. Bytes and time come in as arguments; nothing here
//! does I/O. Ids, nonces and keys are drawn from the system's randomness where they are made.
//!
//! | message | key | from → to | file |
//! | --- | --- | --- | --- |
//! | are you there? | `ping.<device>.sshnp` | client → daemon | [`ping`] |
//! | I am, and can do this | `heartbeat.<device>.sshnp` | daemon → client | [`ping`] |
//! | two ports, please | `<device>.request_ports.sshrvd` | client → rendezvous | [`ports`] |
//! | here they are / no | `<session>.sshrvd`, `nack.<session>.sshrvd` | rendezvous → client | [`ports`] |
//! | open a session | `ssh_request.<device>.sshnp`, `npt_request.<device>.sshnp` | client → daemon | [`request`] |
//! | keys for it / no | `<session>.<device>.sshnp` | daemon → client | [`request`] |
//! | shares for its keys | – | in both | [`agreement`] |
//! | let this ssh key in | `sshpublickey.<device>.sshnp` | client → daemon | [`sshkey`] |
//! | log in to me, with this key | `privatekey.<device>.sshnp`, `sshd.<device>.sshnp` | client → daemon | [`reverse`] |
//! | may this client…? | `request.<id>.auth_checks.__rpcs.sshnp` | daemon → policy | [`policy`] |
//! | heard / yes or no | `ack.<id>.…`, `success.<id>.…` | policy → daemon | [`policy`] |
//! | first line on a rendezvous socket | – | both → rendezvous | [`admit`] |
//! | which sockets belong together | – | at the rendezvous | [`pairs`] |
//! | which socket of a session this is, proved | – | both → rendezvous | [`proof`] |
//! | keys of the next connection | – | client → daemon, through the rendezvous | [`control`] |
//!
//! Every message that asks for something is an [`envelope`]: JSON signed by the sender's atSign.
//! [`session`] puts the client's steps in order; [`ids`] and [`permit`] are what they are made of.

pub mod admit;
pub mod agreement;
pub mod control;
pub mod envelope;
pub mod far_end;
pub mod ids;
pub mod pairs;
pub mod permit;
pub mod ping;
pub mod policy;
pub mod ports;
pub mod proof;
pub mod request;
pub mod reverse;
pub mod session;
pub mod sshkey;

use crate::at::{AtSign, crypto::KeyPair};

use envelope::EnvelopeError;

/// Namespace of everything between client and daemon.
pub const NAMESPACE: &str = "sshnp";
/// Namespace of everything between client and rendezvous.
pub const RENDEZVOUS_NAMESPACE: &str = "sshrvd";

/// Life of a request or an answer as a value, in milliseconds.
pub const VALUE_TTL: u64 = 10_000;
/// Life of the notification that carries it, in milliseconds. After this it is worthless.
pub const NOTE_TTL: u64 = 60_000;

/// Longest line with a notification that daemon, rendezvous and policy read, in bytes: the longest message of a peer
/// ([`envelope::MAX_ENVELOPE`], [`policy::rpc::MAX_RPC`]) in base64, with its names and keys.
pub const MAX_NOTE_LINE: usize = 64 * 1024;
/// The same for a client, to which devices send heartbeats ([`ping::MAX_HEARTBEAT`]).
pub const MAX_CLIENT_LINE: usize = 128 * 1024;

/// One notification to send, not yet encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who is told.
    pub to: AtSign,
    /// Key without atSigns: `ping.dev1.sshnp`.
    pub entity: String,
    /// The text, to be encrypted for `to`.
    pub text: String,
}

impl Message {
    fn new(to: &AtSign, entity: String, text: impl Into<String>) -> Self {
        Self {
            to: to.clone(),
            entity,
            text: text.into(),
        }
    }

    /// One with a payload that is signed.
    fn sealed(
        to: &AtSign,
        entity: String,
        payload: &str,
        signer: &KeyPair,
    ) -> Result<Self, EnvelopeError> {
        Ok(Self::new(to, entity, envelope::seal(payload, signer)?))
    }
}
