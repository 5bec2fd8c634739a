//! ○ What a client wants, and its first two questions.

use super::terms::{Generation, Terms};
use crate::{
    at::AtSign,
    np::{
        Message,
        ids::{DeviceName, Nonce, SessionId},
        ping,
        ports::{self, Logins, PortsRequest},
        proof::SocketKey,
        request, sshkey,
    },
};

/// A session that has been thought of.
#[derive(Clone, Debug)]
pub struct Offer {
    pub(super) me: AtSign,
    pub(super) to: AtSign,
    pub(super) device: DeviceName,
    pub(super) via: AtSign,
    pub(super) id: SessionId,
    pub(super) nonce: Nonce,
    pub(super) terms: Terms,
    pub(super) socket_key: Option<SocketKey>,
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
    /// What the daemon made of an ssh key.
    KeyFate,
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
        format!(
            r"({id}\.{device}\.sshnp@|{id}\.sshrvd@|heartbeat\.{device}\.sshnp@|sshpublickey\.{device}\.sshnp@)"
        )
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
        } else if is(&self.to, sshkey::entity(&self.device)) {
            Some(Awaited::KeyFate)
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
}
