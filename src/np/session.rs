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
mod tests {
    use super::*;
    use crate::np::{
        ping::Features,
        request::tests::{SESSION, vectors},
    };

    fn offer() -> Offer {
        offer_on(Terms::default())
    }

    fn offer_on(terms: Terms) -> Offer {
        let name = |text: &str| text.parse::<AtSign>().unwrap();
        Offer::new(
            &name("@client_example"),
            &name("@device_example"),
            &"my_device".parse().unwrap(),
            &name("@relay_example"),
            SESSION.parse().unwrap(),
            "2024-10-24T10:15:30.123456".parse().unwrap(),
            terms,
        )
    }

    fn heartbeat(twin_keys: bool) -> Heartbeat {
        let mut heartbeat = Heartbeat::ours(&"my_device".parse().unwrap(), vec![]);
        heartbeat.features.twin_keys = twin_keys;
        heartbeat
    }

    #[test]
    fn a_whole_session_without_a_network() {
        let v = vectors();
        let (client, device, ephemeral) = (
            v.key("@client_example"),
            v.key("@device_example"),
            v.key("session"),
        );
        for twin in [true, false] {
            let ports = Ports::parse(&v.text(&["relayRequest", "response_v5"])).unwrap();
            let granted = offer().granted(ports, Some(&heartbeat(twin))).unwrap();
            assert_eq!(granted.twin_keys(), twin);
            let asked = granted.request(Some(ephemeral.public()), &client).unwrap();

            let request = SshRequest::parse(&asked.text, client.public()).unwrap();
            assert_eq!(
                (
                    request.meeting.port,
                    request.meeting.encryption.as_ref().unwrap().twin_keys
                ),
                (40190, twin),
                "the daemon dials port B"
            );
            let keys = Keys::random(twin).unwrap();
            let to = "@client_example".parse().unwrap();
            let answer = request::accept(
                &request,
                Some(&keys),
                None,
                &to,
                &"my_device".parse().unwrap(),
                &device,
            )
            .unwrap();

            let ready = granted
                .accepted(&answer.text, device.public(), Some(&ephemeral), &client)
                .unwrap();
            assert_eq!(
                (ready.port, &ready.keys),
                (40189, &Some(keys)),
                "the client dials port A"
            );
            assert_eq!(
                ready.admission.as_deref(),
                Some(v.text(&["relayAuth", "sideA_client"]).trim_end())
            );
            assert_eq!(ready.ephemeral_key, None);
        }
    }

    #[test]
    fn only_the_right_sender_is_recognised() {
        let offer = offer();
        let s = offer.id();
        for (from, entity, want) in [
            (
                "@device_example",
                "heartbeat.my_device.sshnp".to_owned(),
                Some(Awaited::Heartbeat),
            ),
            ("@mallory", "heartbeat.my_device.sshnp".to_owned(), None),
            ("@device_example", "heartbeat.other.sshnp".to_owned(), None),
            (
                "@relay_example",
                format!("{s}.sshrvd"),
                Some(Awaited::Ports),
            ),
            ("@device_example", format!("{s}.sshrvd"), None),
            (
                "@relay_example",
                format!("nack.{s}.sshrvd"),
                Some(Awaited::NoPorts),
            ),
            (
                "@device_example",
                format!("{s}.my_device.sshnp"),
                Some(Awaited::Answer),
            ),
            ("@relay_example", format!("{s}.my_device.sshnp"), None),
            (
                "@device_example",
                format!("{}.my_device.sshnp", SessionId::random()),
                None,
            ),
        ] {
            assert_eq!(
                offer.recognise(&from.parse().unwrap(), &entity),
                want,
                "{from} {entity}"
            );
        }
    }

    #[test]
    fn a_tunnel_is_asked_for_only_where_it_is_understood() {
        let v = vectors();
        let (client, ephemeral) = (v.key("@client_example"), v.key("session"));
        let ports = Ports::parse(&v.text(&["relayRequest", "response_v5"])).unwrap();
        let month = Duration::from_secs(30 * 24 * 3600);
        let ask = |heartbeat: &Heartbeat| {
            let granted = offer().granted(ports.clone(), Some(heartbeat)).unwrap();
            granted.tunnel_request(("nas", 443), month, Some(ephemeral.public()), &client)
        };
        let asked = ask(&heartbeat(true)).unwrap();
        assert_eq!(asked.entity, "npt_request.my_device.sshnp");
        let request = TunnelRequest::parse(&asked.text, client.public()).unwrap();
        assert_eq!(
            (request.target_host.as_str(), request.target_port),
            ("nas", 443)
        );
        assert_eq!((request.timeout, request.meeting.port), (month, 40190));

        let mut old = heartbeat(false);
        old.features.port_choice = false;
        old.version = "5.0.2".into();
        assert_eq!(
            ask(&old).unwrap_err().to_string(),
            "the daemon my_device@device_example (version 5.0.2) cannot open other ports than ssh"
        );
    }

    #[test]
    fn old_peers_are_named() {
        let new_ports = Ports::parse("h,1,2,nonce").unwrap();
        let mut old = heartbeat(false);
        old.features = Features::default();
        old.version = "4.0.5".into();
        let why = offer().granted(new_ports, Some(&old)).unwrap_err();
        assert_eq!(why.without(), Some(NO_ADMIT_DEVICE));
        assert_eq!(
            why.to_string(),
            "the daemon my_device@device_example (version 4.0.5) cannot log in to a rendezvous"
        );
        let old_ports = Ports::parse("h,1,2").unwrap();
        let why = offer()
            .granted(old_ports, Some(&heartbeat(true)))
            .unwrap_err();
        assert_eq!(
            why.to_string(),
            "the rendezvous @relay_example does not check who uses its ports"
        );
        assert_eq!(why.without(), Some(NO_ADMIT));
    }

    /// Every choice of protection, against a daemon and a rendezvous that can do it all.
    #[test]
    fn what_is_left_out_is_neither_asked_for_nor_needed() {
        let v = vectors();
        let (client, device, ephemeral) = (
            v.key("@client_example"),
            v.key("@device_example"),
            v.key("session"),
        );
        let (to, name) = (
            "@client_example".parse().unwrap(),
            "my_device".parse().unwrap(),
        );
        for bits in 0..8 {
            let terms = Terms {
                admit_client: bits & 1 == 0,
                admit_device: bits & 2 == 0,
                encrypt: bits & 4 == 0,
                generation: Generation::V5,
            };
            let offer = offer_on(terms);
            let nobody = !terms.admit_client && !terms.admit_device;
            let old = offer.ask_ports().text == SESSION;
            assert_eq!(old, nobody, "{terms:?}");
            let ports = match nobody {
                true => "127.0.0.1,40189,40190",
                false => "127.0.0.1,40189,40190,2024-10-24T10:15:31.654321",
            };
            let ports = Ports::parse(ports).unwrap();
            let heartbeat = terms.need_heartbeat().then(|| heartbeat(true));
            let granted = offer.granted(ports, heartbeat.as_ref()).unwrap();
            let public = terms.encrypt.then(|| ephemeral.public());
            let asked = granted.request(public, &client).unwrap();
            let request = SshRequest::parse(&asked.text, client.public()).unwrap();
            assert_eq!(request.meeting.admission.is_some(), terms.admit_device);
            assert_eq!(request.meeting.encryption.is_some(), terms.encrypt);
            assert_eq!(request.form, Form::V5);

            let keys = terms.encrypt.then(|| Keys::random(true).unwrap());
            let answer = request::accept(&request, keys.as_ref(), None, &to, &name, &device);
            let answer = answer.unwrap().text;
            let ready = granted.accepted(&answer, device.public(), Some(&ephemeral), &client);
            let ready = ready.unwrap();
            assert_eq!(ready.admission.is_some(), terms.admit_client, "{terms:?}");
            assert_eq!(ready.keys, keys, "{terms:?}");
        }
    }

    #[test]
    fn protection_that_was_asked_for_cannot_be_answered_away() {
        let v = vectors();
        let (client, device, ephemeral) = (
            v.key("@client_example"),
            v.key("@device_example"),
            v.key("session"),
        );
        let read = |terms: Terms, answer: &str| {
            let ports = Ports::parse("h,1,2,n").unwrap();
            let granted = offer_on(terms)
                .granted(ports, Some(&heartbeat(true)))
                .unwrap();
            granted.accepted(answer, device.public(), Some(&ephemeral), &client)
        };
        let old = v.text(&["envelopes", "v4_response", "envelope"]);
        let new = v.text(&["envelopes", "v5_npt_response", "envelope"]);
        let of = Terms::of;
        let plain = Terms {
            encrypt: false,
            ..Terms::default()
        };
        for (terms, answer, want) in [
            (Terms::default(), "connected", Err(AnswerError::Unsigned)),
            (plain, "connected", Err(AnswerError::Unsigned)),
            (of(Generation::V4), "connected", Err(AnswerError::Unsigned)),
            (of(Generation::V4Rc2), "connected", Ok((false, false))),
            (of(Generation::V3), "connected", Ok((false, false))),
            (Terms::default(), &*old, Err(AnswerError::Keys)),
            (plain, &*old, Ok((false, true))),
            (of(Generation::V4), &*old, Ok((false, true))),
            (of(Generation::V4Rc2), &*old, Ok((false, true))),
            (Terms::default(), &*new, Ok((true, false))),
            (plain, &*new, Ok((false, false))),
        ] {
            let got = read(terms, answer)
                .map(|ready| (ready.keys.is_some(), ready.ephemeral_key.is_some()));
            assert_eq!(got, want, "{terms:?} {answer:.40}");
        }
    }

    /// Each generation's messages from its first to its last, as they travelled.
    #[test]
    fn the_transcripts_of_earlier_generations() {
        let v = vectors();
        let (client, device) = (v.key("@client_example"), v.key("@device_example"));
        let old_ports = || Ports::parse(&v.text(&["relayRequest", "response_v4"])).unwrap();
        let entity = |message: &Message| format!("{}:{}", message.to, message.entity);

        for generation in [Generation::V4Rc2, Generation::V4] {
            let offer = offer_on(Terms::of(generation));
            assert!(!offer.terms().need_heartbeat());
            let ports = offer.ask_ports();
            assert_eq!(entity(&ports), "@relay_example:my_device.sshrvd");
            assert_eq!(ports.text, v.text(&["relayRequest", "legacy_value"]));
            let granted = offer.granted(old_ports(), None).unwrap();
            let asked = granted.request(None, &client).unwrap();
            assert_eq!(
                entity(&asked),
                "@device_example:ssh_request.my_device.sshnp"
            );
            assert_eq!(
                asked.text,
                v.text(&["envelopes", "v4_ssh_request_direct", "envelope"])
            );
            let answer = match generation {
                Generation::V4 => v.text(&["envelopes", "v4_response", "envelope"]),
                _ => "connected".to_owned(),
            };
            let ready = granted
                .accepted(&answer, device.public(), None, &client)
                .unwrap();
            assert_eq!(
                (ready.port, ready.admission, ready.keys),
                (40190, None, None)
            );
            assert_eq!(ready.ephemeral_key.is_some(), generation == Generation::V4);
        }

        let granted = offer_on(Terms::of(Generation::V3))
            .granted(old_ports(), None)
            .unwrap();
        let pem = Secret::new("PEM".to_owned());
        let [key, line] = granted.reverse_requests(58358, "gary", &pem);
        assert_eq!(entity(&key), "@device_example:privatekey.my_device.sshnp");
        assert_eq!(entity(&line), "@device_example:sshd.my_device.sshnp");
        assert_eq!(line.text, format!("58358 40189 gary 127.0.0.1 {SESSION}"));
        let direct = granted.request(None, &client).unwrap_err();
        assert_eq!(direct, SessionError::Unspeakable("a direct session"));
        let ready = granted
            .accepted("connected", device.public(), None, &client)
            .unwrap();
        assert_eq!((ready.host.as_str(), ready.port), ("127.0.0.1", 40190));
    }

    /// 5.x, to the byte; the answers' wrapped keys are random, so theirs are read only.
    #[test]
    fn the_transcript_of_version_5() {
        let v = vectors();
        let (client, device, ephemeral) = (
            v.key("@client_example"),
            v.key("@device_example"),
            v.key("session"),
        );
        let answered = r#"{"devicename":"my_device","version":"5.6.1","corePackageVersion":"6.1.0","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false,"supportsPortChoice":true,"adjustableTimeout":true},"allowedServices":["localhost:22","localhost:3389"]}"#;
        let daemon = Heartbeat::parse(answered).unwrap();
        let granted = || {
            let ports = Ports::parse(&v.text(&["relayRequest", "response_v5"])).unwrap();
            offer().granted(ports, Some(&daemon)).unwrap()
        };
        assert_eq!(offer().ping().text, "ping");
        let asked = offer().ask_ports();
        assert_eq!(asked.text, v.text(&["relayRequest", "v5_value"]));
        let public = Some(ephemeral.public());
        let ssh = granted().request(public, &client).unwrap();
        assert_eq!(
            ssh.text,
            v.text(&["envelopes", "v5_ssh_request", "envelope"])
        );
        let to = ("localhost", 3389);
        let tunnel = granted().tunnel_request(to, Duration::from_secs(30), public, &client);
        let want = v.text(&["envelopes", "v5_npt_request", "envelope"]);
        assert_eq!(tunnel.unwrap().text, want);
        for name in ["v5_ssh_response_c_daemon", "v5_npt_response"] {
            let answer = v.text(&["envelopes", name, "envelope"]);
            let ready = granted().accepted(&answer, device.public(), Some(&ephemeral), &client);
            let ready = ready.unwrap();
            let line = v.text(&["relayAuth", "sideA_client"]);
            assert_eq!(ready.admission.as_deref(), Some(line.trim_end()), "{name}");
            assert!(ready.keys.is_some_and(|keys| !keys.are_twin()), "{name}");
        }
    }

    #[test]
    fn what_was_agreed_is_one_line() {
        let plain = Terms {
            encrypt: false,
            admit_client: false,
            ..Terms::default()
        };
        for (terms, twin, want) in [
            (
                Terms::default(),
                true,
                "generation=5 login=both encryption=twin",
            ),
            (
                Terms::default(),
                false,
                "generation=5 login=both encryption=single",
            ),
            (plain, true, "generation=5 login=device encryption=none"),
            (
                Terms::of(Generation::V3),
                true,
                "generation=3 login=none encryption=none",
            ),
        ] {
            let ports = Ports::parse("h,1,2,n").unwrap();
            let granted = offer_on(terms)
                .granted(ports, Some(&heartbeat(twin)))
                .unwrap();
            assert_eq!(granted.to_string(), want);
        }
    }
}
