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
//!   Ready { rendezvous, admission line, session keys }
//! ```
//!
//! The daemon's side is one step ([`super::request::SshRequest::parse`], then
//! [`super::request::accept`]), the rendezvous' too ([`super::ports`], [`super::admit`]).

use std::time::Duration;

use super::{
    Message,
    admit::Admission,
    envelope::EnvelopeError,
    ids::{DeviceName, Nonce, SessionId},
    ping::{self, Heartbeat},
    ports::{self, Logins, Ports, PortsRequest},
    request::{self, AnswerError, Keys, SshRequest, TunnelRequest},
};
use crate::at::{
    AtSign,
    crypto::{KeyPair, PublicKey},
};

/// A session that has been thought of.
#[derive(Clone, Debug)]
pub struct Offer {
    me: AtSign,
    to: AtSign,
    device: DeviceName,
    via: AtSign,
    id: SessionId,
    nonce: Nonce,
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
    },
    /// An old rendezvous.
    #[error("the rendezvous {0} does not check who uses its ports")]
    OldRendezvous(AtSign),
    /// We could not sign.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
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
    ) -> Self {
        Self {
            me: me.clone(),
            to: to.clone(),
            device: device.clone(),
            via: via.clone(),
            id,
            nonce,
        }
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

    /// The question to the rendezvous.
    pub fn ask_ports(&self) -> Message {
        let request = PortsRequest {
            session: self.id,
            client: self.me.clone(),
            daemon: self.to.clone(),
            nonce: self.nonce.clone(),
            logins: Logins::BOTH,
        };
        request.message(&self.via, &self.device)
    }

    /// Both answers are there.
    ///
    /// # Errors
    /// When daemon or rendezvous is too old for an encrypted, admitted session.
    pub fn granted(self, ports: Ports, heartbeat: &Heartbeat) -> Result<Granted, SessionError> {
        if !heartbeat.features.relay_auth {
            return Err(self.lacks(heartbeat, "log in to a rendezvous"));
        }
        if !heartbeat.features.relay_encryption {
            return Err(self.lacks(heartbeat, "encrypt what passes the rendezvous"));
        }
        let Some(rendezvous_nonce) = ports.nonce.clone() else {
            return Err(SessionError::OldRendezvous(self.via));
        };
        let admission = Admission {
            session: self.id,
            client_nonce: self.nonce.clone(),
            rendezvous_nonce,
        };
        Ok(Granted {
            offer: self,
            ports,
            admission,
            daemon: heartbeat.clone(),
        })
    }

    fn lacks(&self, heartbeat: &Heartbeat, what: &'static str) -> SessionError {
        let version = heartbeat.version.chars().filter(|c| !c.is_control());
        SessionError::Lacks {
            device: self.device.clone(),
            at: self.to.clone(),
            version: version.take(32).collect(),
            what,
        }
    }
}

/// A session with a meeting point.
#[derive(Clone, Debug)]
pub struct Granted {
    offer: Offer,
    ports: Ports,
    admission: Admission,
    daemon: Heartbeat,
}

impl Granted {
    /// Whether each direction will have its own key.
    pub fn twin_keys(&self) -> bool {
        self.daemon.features.twin_keys
    }

    /// What the daemon says of itself.
    pub fn daemon(&self) -> &Heartbeat {
        &self.daemon
    }

    /// The signed request for an ssh session.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn request(
        &self,
        ephemeral: &PublicKey,
        signer: &KeyPair,
    ) -> Result<Message, SessionError> {
        let request = self.common(ephemeral);
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
        ephemeral: &PublicKey,
        signer: &KeyPair,
    ) -> Result<Message, SessionError> {
        if !self.daemon.features.port_choice {
            return Err(self.offer.lacks(&self.daemon, "open other ports than ssh"));
        }
        let request = TunnelRequest {
            session: self.common(ephemeral),
            target_host: host.to_owned(),
            target_port: port,
            timeout,
        };
        Ok(request.message(&self.offer.to, &self.offer.device, signer)?)
    }

    fn common(&self, ephemeral: &PublicKey) -> SshRequest {
        SshRequest {
            session: self.offer.id,
            host: self.ports.host.clone(),
            port: self.ports.daemon,
            client_nonce: self.admission.client_nonce.clone(),
            rendezvous_nonce: self.admission.rendezvous_nonce.clone(),
            ephemeral: ephemeral.clone(),
            twin_keys: self.twin_keys(),
        }
    }

    /// The daemon has answered: its signature is `device_key`'s, its session and status are right.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn accepted(
        self,
        answer: &str,
        device_key: &PublicKey,
        ephemeral: &KeyPair,
        signer: &KeyPair,
    ) -> Result<Ready, AnswerError> {
        let keys = request::read_answer(answer, self.offer.id, device_key, ephemeral)?;
        let admission = self.admission.line(signer)?;
        Ok(Ready {
            host: self.ports.host,
            port: self.ports.client,
            admission,
            keys,
        })
    }
}

/// A session that only wants bytes.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The rendezvous.
    pub host: String,
    /// Our port there (A).
    pub port: u16,
    /// First line on the socket, without its line end.
    pub admission: String,
    /// For what follows.
    pub keys: Keys,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::np::{ping::Features, request::tests::vectors};

    fn offer() -> Offer {
        let name = |text: &str| text.parse::<AtSign>().unwrap();
        Offer::new(
            &name("@client_example"),
            &name("@device_example"),
            &"my_device".parse().unwrap(),
            &name("@relay_example"),
            "6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11".parse().unwrap(),
            "2024-10-24T10:15:30.123456".parse().unwrap(),
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
            let granted = offer().granted(ports, &heartbeat(twin)).unwrap();
            assert_eq!(granted.twin_keys(), twin);
            let asked = granted.request(ephemeral.public(), &client).unwrap();

            let request = SshRequest::parse(&asked.text, client.public()).unwrap();
            assert_eq!(
                (request.port, request.twin_keys),
                (40190, twin),
                "the daemon dials port B"
            );
            let keys = Keys::random(request.twin_keys).unwrap();
            let to = "@client_example".parse().unwrap();
            let answer =
                request::accept(&request, &keys, &to, &"my_device".parse().unwrap(), &device)
                    .unwrap();

            let ready = granted
                .accepted(&answer.text, device.public(), &ephemeral, &client)
                .unwrap();
            assert_eq!(
                (ready.port, &ready.keys),
                (40189, &keys),
                "the client dials port A"
            );
            assert_eq!(
                ready.admission,
                v.text(&["relayAuth", "sideA_client"]).trim_end()
            );
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
            let granted = offer().granted(ports.clone(), heartbeat).unwrap();
            granted.tunnel_request(("nas", 443), month, ephemeral.public(), &client)
        };
        let asked = ask(&heartbeat(true)).unwrap();
        assert_eq!(asked.entity, "npt_request.my_device.sshnp");
        let request = TunnelRequest::parse(&asked.text, client.public()).unwrap();
        assert_eq!(
            (request.target_host.as_str(), request.target_port),
            ("nas", 443)
        );
        assert_eq!((request.timeout, request.session.port), (month, 40190));

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
        let why = offer().granted(new_ports, &old).unwrap_err().to_string();
        assert_eq!(
            why,
            "the daemon my_device@device_example (version 4.0.5) cannot log in to a rendezvous"
        );
        let old_ports = Ports::parse("h,1,2").unwrap();
        let why = offer().granted(old_ports, &heartbeat(true)).unwrap_err();
        assert_eq!(
            why,
            SessionError::OldRendezvous("@relay_example".parse().unwrap())
        );
    }
}
