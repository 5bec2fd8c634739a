//! The client's side of one session, step by step. Each step consumes the one before, so no message
//! can be used twice or out of turn.
//!
//! ```text
//!   Offer ──ping, ask_ports──▶            here: two questions at once, to daemon and rendezvous
//!     │ granted(ports, heartbeat)         or a SessionError: `refused`
//!     ▼
//!   Granted ──request──▶                  `granted`: signed, with an ephemeral public key
//!     │ accepted(answer)
//!     ▼
//!   Ready { far end: rendezvous, admission line, session keys; temporary ssh key }
//! ```
//!
//! What the session must have, and in which generation's words it is asked for, are its [`Terms`] (`terms`). Unless
//! somebody says otherwise nothing is left out, and a peer that cannot take part in that is refused by name.
//!
//! The daemon's side is one step ([`super::request::SshRequest::parse`], then
//! [`super::request::accept`]), the rendezvous' too ([`super::ports`], [`super::admit`]).

use super::{
    Message,
    ids::{DeviceName, Nonce, SessionId},
    ping::{self, Heartbeat},
    ports::{self, Logins, Ports, PortsRequest},
    proof::SocketKey,
    request::{self, Nonces},
};
use crate::at::AtSign;

pub use granted::{Granted, Ready};
pub use refused::{NO_ADMIT, NO_ADMIT_DEVICE, NO_ENCRYPT, SessionError};
pub use terms::{Generation, Terms};

mod granted;
mod refused;
mod terms;

/// A session that has been thought of.
#[derive(Clone, Debug)]
pub struct Offer {
    me: AtSign,
    to: AtSign,
    device: DeviceName,
    via: AtSign,
    id: SessionId,
    nonce: Nonce,
    terms: Terms,
    socket_key: Option<SocketKey>,
}

/// One of the messages we wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The daemon's features.
    Heartbeat,
    /// The rendezvous' two ports.
    Ports,
    /// The rendezvous' refusal.
    NoPorts,
    /// The daemon's answer to the request.
    Answer,
}

impl Offer {
    /// A new session of ours with one device, through one rendezvous.
    pub fn new(
        me: &AtSign,
        to: &AtSign,
        device: &DeviceName,
        via: &AtSign,
        id: SessionId,
        nonce: Nonce,
        terms: Terms,
    ) -> Self {
        Self {
            me: me.clone(),
            to: to.clone(),
            device: device.clone(),
            via: via.clone(),
            id,
            nonce,
            terms: terms.possible(),
            socket_key: None,
        }
    }

    /// With a key that proves which socket is which, for who can check it.
    pub fn with_socket_key(mut self, key: SocketKey) -> Self {
        self.socket_key = Some(key);
        self
    }

    /// What the session must have.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// The same session, asked for in the words of another generation; what that one does not know is left out.
    pub fn in_words_of(mut self, generation: Generation) -> Self {
        self.terms.generation = generation;
        self.terms = self.terms.possible();
        self
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// A pattern that matches the keys of all messages we wait for.
    pub fn watch(&self) -> String {
        let (id, device) = (self.id, &self.device);
        format!(r"({id}\.{device}\.sshnp@|{id}\.sshrvd@|heartbeat\.{device}\.sshnp@)")
    }

    /// Which of the awaited messages this is, by its sender and key. Everything else is `None`.
    pub fn recognise(&self, from: &AtSign, entity: &str) -> Option<Awaited> {
        let is = |who: &AtSign, want: String| from == who && entity == want;
        if is(&self.to, ping::heartbeat_entity(&self.device)) {
            Some(Awaited::Heartbeat)
        } else if is(&self.via, ports::answer_entity(self.id)) {
            Some(Awaited::Ports)
        } else if is(&self.via, ports::refusal_entity(self.id)) {
            Some(Awaited::NoPorts)
        } else if is(&self.to, request::answer_entity(self.id, &self.device)) {
            Some(Awaited::Answer)
        } else {
            None
        }
    }

    /// The question to the daemon.
    pub fn ping(&self) -> Message {
        ping::ask(&self.to, &self.device)
    }

    /// The question to the rendezvous. Where nobody is to log in it is the old one, which all understand.
    pub fn ask_ports(&self) -> Message {
        let logins = Logins {
            client: self.terms.admit_client,
            daemon: self.terms.admit_device,
        };
        if logins == Logins::NONE {
            return ports::bare_request(&self.via, &self.device, self.id);
        }
        let request = PortsRequest {
            session: self.id,
            client: self.me.clone(),
            daemon: self.to.clone(),
            nonce: self.nonce.clone(),
            logins,
            socket_key: self.socket_key.clone(),
        };
        request.message(&self.via, &self.device)
    }

    /// The answers are there; the daemon's only if there is one ([`Terms::need_heartbeat`]).
    ///
    /// # Errors
    /// When daemon or rendezvous is too old for what the session must have.
    pub fn granted(
        self,
        ports: Ports,
        heartbeat: Option<&Heartbeat>,
    ) -> Result<Granted, SessionError> {
        let daemon = match heartbeat {
            Some(heartbeat) => heartbeat.clone(),
            None => Heartbeat::unknown(&self.device),
        };
        let (terms, can) = (self.terms, &daemon.features);
        if terms.admit_device && !can.relay_auth {
            return Err(self.lacks(&daemon, "log in to a rendezvous", Some(NO_ADMIT_DEVICE)));
        }
        if terms.encrypt && !can.relay_encryption {
            let what = "encrypt what passes the rendezvous";
            return Err(self.lacks(&daemon, what, Some(NO_ENCRYPT)));
        }
        let nonces = ports.nonce.as_ref().map(|rendezvous| Nonces {
            client: self.nonce.clone(),
            rendezvous: rendezvous.clone(),
        });
        let admission = match nonces {
            _ if !terms.admit_client && !terms.admit_device => None,
            Some(nonces) => Some(nonces),
            None => {
                return Err(SessionError::OldRendezvous {
                    via: self.via,
                    without: NO_ADMIT,
                });
            }
        };
        Ok(Granted {
            offer: self,
            ports,
            admission,
            daemon,
        })
    }

    fn lacks(
        &self,
        heartbeat: &Heartbeat,
        what: &'static str,
        without: Option<&'static str>,
    ) -> SessionError {
        let version = heartbeat.version.chars().filter(|c| !c.is_control());
        SessionError::Lacks {
            device: self.device.clone(),
            at: self.to.clone(),
            version: version.take(32).collect(),
            what,
            without,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
