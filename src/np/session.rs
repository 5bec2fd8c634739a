//! The client's side of one session, step by step. Each step consumes the one before, so no message
//! can be used twice or out of turn.
//!
//! ```text
//!   Offer ──ping, ask_ports──▶            two questions at once, to daemon and rendezvous
//!     │ granted(ports, heartbeat)
//!     ▼
//!   Granted ──request──▶                  signed, with an ephemeral public key
//!     │ accepted(answer)
//!     ▼
//!   Ready { rendezvous, admission line, session keys, temporary ssh key }
//! ```
//!
//! What the session must have, and in which generation's words it is asked for, are its [`Terms`]. Unless
//! somebody says otherwise nothing is left out, and a peer that cannot take part in that is refused by name.
//!
//! The daemon's side is one step ([`super::request::SshRequest::parse`], then
//! [`super::request::accept`]), the rendezvous' too ([`super::ports`], [`super::admit`]).

use std::{fmt, time::Duration};

use super::{
    Message,
    envelope::EnvelopeError,
    ids::{DeviceName, Nonce, SessionId},
    ping::{self, Heartbeat},
    ports::{self, Logins, Ports, PortsRequest},
    request::{
        self, Answer, AnswerError, Encryption, Form, Keys, Meeting, Nonces, SshRequest,
        TunnelRequest,
    },
    reverse::{self, ReverseRequest},
};
use crate::{
    at::{
        AtSign,
        crypto::{KeyPair, PublicKey},
    },
    secret::Secret,
};

/// What protects a session, and in whose words it is asked for. What is false is not done, even where the peer
/// could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// We log in at the rendezvous.
    pub admit_client: bool,
    /// The device logs in there.
    pub admit_device: bool,
    /// What passes it is encrypted by us, whatever runs inside.
    pub encrypt: bool,
    /// How we ask.
    pub generation: Generation,
}

/// How a session is asked for. The ones before [`Self::V5`] know neither logins nor encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// The device logs in to us by ssh: [`super::reverse`]. Answered with a bare word.
    V3,
    /// The device meets us, and answers with a bare word: 4.0's release candidate 2.
    V4Rc2,
    /// The same; the answer is signed and holds a temporary ssh key.
    V4,
    /// Everything.
    V5,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            admit_client: true,
            admit_device: true,
            encrypt: true,
            generation: Generation::V5,
        }
    }
}

impl Terms {
    /// A generation as it was: the earlier ones without any protection of their own.
    pub fn of(generation: Generation) -> Self {
        let protected = generation == Generation::V5;
        Self {
            admit_client: protected,
            admit_device: protected,
            encrypt: protected,
            generation,
        }
    }

    /// What can be: a generation that knows no protection is not asked for any.
    fn possible(self) -> Self {
        match self.generation {
            Generation::V5 => self,
            other => Self::of(other),
        }
    }

    /// Whether the daemon must say what it can do before it is asked for a session.
    pub fn need_heartbeat(&self) -> bool {
        let terms = self.possible();
        terms.admit_device || terms.encrypt
    }
}

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

/// What stands in the way of a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// An old daemon.
    #[error("the daemon {device}{at} (version {version}) cannot {what}")]
    Lacks {
        /// Name of the device.
        device: DeviceName,
        /// Its atSign.
        at: AtSign,
        /// What it says it is.
        version: String,
        /// The missing ability.
        what: &'static str,
        /// The flag that does without it.
        without: Option<&'static str>,
    },
    /// An old rendezvous.
    #[error("the rendezvous {via} does not check who uses its ports")]
    OldRendezvous {
        /// Its atSign.
        via: AtSign,
        /// The flags that do without.
        without: &'static str,
    },
    /// Asked for in the words of a generation that has none for it.
    #[error("{0} cannot be asked for in the words of that generation")]
    Unspeakable(&'static str),
    /// Encryption needs a fresh key of ours.
    #[error("there is no key for the session's keys")]
    NoEphemeral,
    /// We could not sign.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// Flags that leave a protection out: ours, and how the classic programs call it.
pub const NO_ENCRYPT: &str = "--no-encrypt (classic: --no-et)";
/// See [`NO_ENCRYPT`].
pub const NO_ADMIT_DEVICE: &str = "--no-admit-device (classic: --no-ad)";
/// See [`NO_ENCRYPT`].
pub const NO_ADMIT: &str = "--no-admit-client and --no-admit-device (classic: --no-ac and --no-ad)";

impl SessionError {
    /// The flag that would allow the session all the same, with less protection.
    pub fn without(&self) -> Option<&'static str> {
        match self {
            Self::Lacks { without, .. } => *without,
            Self::OldRendezvous { without, .. } => Some(without),
            _ => None,
        }
    }
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
        }
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

/// A session with a meeting point. Prints as what was agreed, for a log:
/// `generation=5 login=both encryption=twin`.
#[derive(Clone, Debug)]
pub struct Granted {
    offer: Offer,
    ports: Ports,
    admission: Option<Nonces>,
    daemon: Heartbeat,
}

impl Granted {
    /// Whether each direction will have its own key.
    pub fn twin_keys(&self) -> bool {
        self.offer.terms.encrypt && self.daemon.features.twin_keys
    }

    /// What the session has.
    pub fn terms(&self) -> Terms {
        self.offer.terms
    }

    /// What the daemon says of itself.
    pub fn daemon(&self) -> &Heartbeat {
        &self.daemon
    }

    /// The rendezvous' host and ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The signed request for an ssh session; `ephemeral` where it is to be encrypted.
    ///
    /// # Errors
    /// When the key cannot sign, or the session is another way round.
    pub fn request(
        &self,
        ephemeral: Option<&PublicKey>,
        signer: &KeyPair,
    ) -> Result<Message, SessionError> {
        let form = match self.offer.terms.generation {
            Generation::V3 => return Err(SessionError::Unspeakable("a direct session")),
            Generation::V4Rc2 | Generation::V4 => Form::V4,
            Generation::V5 => Form::V5,
        };
        let meeting = self.meeting(ephemeral)?;
        let request = SshRequest { meeting, form };
        Ok(request.message(&self.offer.to, &self.offer.device, signer)?)
    }

    /// The signed request for a session to `host` and `port`, as the device sees them, that may stand
    /// `timeout` without a connection.
    ///
    /// # Errors
    /// When the daemon only does ssh, or the key cannot sign.
    pub fn tunnel_request(
        &self,
        (host, port): (&str, u16),
        timeout: Duration,
        ephemeral: Option<&PublicKey>,
        signer: &KeyPair,
    ) -> Result<Message, SessionError> {
        if self.offer.terms.generation != Generation::V5 {
            return Err(SessionError::Unspeakable("another port than ssh"));
        }
        if !self.daemon.features.port_choice {
            let what = "open other ports than ssh";
            return Err(self.offer.lacks(&self.daemon, what, None));
        }
        let request = TunnelRequest {
            meeting: self.meeting(ephemeral)?,
            target_host: host.to_owned(),
            target_port: port,
            timeout,
        };
        Ok(request.message(&self.offer.to, &self.offer.device, signer)?)
    }

    /// The two messages for a session in which the device logs in to us: as `user` with `key`, so that our port
    /// `forward` leads to its sshd.
    pub fn reverse_requests(&self, forward: u16, user: &str, key: &Secret<String>) -> [Message; 2] {
        let (to, device) = (&self.offer.to, &self.offer.device);
        let request = ReverseRequest {
            forward,
            host: self.ports.host.clone(),
            port: self.ports.daemon,
            user: user.to_owned(),
            session: Some(self.offer.id),
        };
        [
            reverse::private_key_message(key, to, device),
            request.message(to, device),
        ]
    }

    fn meeting(&self, ephemeral: Option<&PublicKey>) -> Result<Meeting, SessionError> {
        let terms = self.offer.terms;
        let encryption = match (terms.encrypt, ephemeral) {
            (false, _) => None,
            (true, None) => return Err(SessionError::NoEphemeral),
            (true, Some(ephemeral)) => Some(Encryption {
                ephemeral: ephemeral.clone(),
                twin_keys: self.twin_keys(),
            }),
        };
        Ok(Meeting {
            session: self.offer.id,
            host: self.ports.host.clone(),
            port: self.ports.daemon,
            admission: self.admission.clone().filter(|_| terms.admit_device),
            encryption,
        })
    }

    /// The daemon has answered: where the generation signs, its signature is `device_key`'s, and its session and
    /// status are right.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn accepted(
        self,
        answer: &str,
        device_key: &PublicKey,
        ephemeral: Option<&KeyPair>,
        signer: &KeyPair,
    ) -> Result<Ready, AnswerError> {
        let terms = self.offer.terms;
        let ephemeral = ephemeral.filter(|_| terms.encrypt);
        let (keys, ephemeral_key) =
            match request::read_answer(answer, self.offer.id, device_key, ephemeral)? {
                Answer::Bare if terms.generation > Generation::V4Rc2 => {
                    return Err(AnswerError::Unsigned);
                }
                Answer::Bare => (None, None),
                Answer::Signed {
                    keys,
                    ephemeral_key,
                } => (keys, ephemeral_key),
            };
        if terms.encrypt && keys.is_none() {
            return Err(AnswerError::Keys);
        }
        let admission = match self.admission.filter(|_| terms.admit_client) {
            Some(nonces) => Some(nonces.admission(self.offer.id).line(signer)?),
            None => None,
        };
        Ok(Ready {
            host: self.ports.host,
            port: self.ports.client,
            admission,
            keys,
            ephemeral_key,
        })
    }
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = self.offer.terms;
        let generation = match terms.generation {
            Generation::V3 => "3",
            Generation::V4Rc2 => "4rc2",
            Generation::V4 => "4",
            Generation::V5 => "5",
        };
        let login = match (terms.admit_client, terms.admit_device) {
            (true, true) => "both",
            (true, false) => "client",
            (false, true) => "device",
            (false, false) => "none",
        };
        let encryption = match (terms.encrypt, self.twin_keys()) {
            (false, _) => "none",
            (true, false) => "single",
            (true, true) => "twin",
        };
        write!(
            f,
            "generation={generation} login={login} encryption={encryption}"
        )
    }
}

/// A session that only wants bytes.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The rendezvous.
    pub host: String,
    /// Our port there (A).
    pub port: u16,
    /// First line on the socket, without its line end; `None` where we do not log in.
    pub admission: Option<String>,
    /// For what follows; `None` where it passes as it is.
    pub keys: Option<Keys>,
    /// A private ssh key in PEM form that the device lets in for some seconds, if it sent one.
    pub ephemeral_key: Option<Secret<String>>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
