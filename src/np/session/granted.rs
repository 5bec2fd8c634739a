//! ○ From the meeting point to the pipe: the request to the daemon, and what its answer makes of the session.

use std::{fmt, time::Duration};

use super::{
    offer::Offer,
    refused::{NO_ADMIT, NO_ADMIT_DEVICE, NO_ENCRYPT, NO_REQUIRE, SessionError},
    terms::{Generation, Terms},
};
use crate::{
    at::crypto::{KeyPair, PublicKey},
    np::far_end::FarEnd,
    np::{
        Message,
        ping::Heartbeat,
        ports::Ports,
        proof::SocketKey,
        request::{
            self, Answer, AnswerError, ClientKeys, Encryption, Meeting, Nonces, Offered,
            RequestForm, SshRequest, Stamp, TunnelRequest,
        },
        reverse::{self, ReverseRequest},
    },
    pipe::{cipher::Side, record::Suite},
    secret::Secret,
};

/// A session with a meeting point. Prints as what was agreed, for a log:
/// `generation=5 login=both encryption=records`.
#[derive(Clone, Debug)]
pub struct Granted {
    offer: Offer,
    ports: Ports,
    admission: Option<Nonces>,
    daemon: Heartbeat,
    signed_at: Option<Duration>,
}

impl Offer {
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
        if terms.authenticate && !daemon.records {
            let what = "authenticate what passes the rendezvous";
            return Err(self.lacks(&daemon, what, Some(NO_REQUIRE)));
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
            signed_at: None,
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

impl Granted {
    /// Whether each direction will have its own key.
    pub fn twin_keys(&self) -> bool {
        self.offer.terms.encrypt && self.daemon.features.twin_keys
    }

    /// The clock when requests are signed, since 1970: for daemons that act on each at most once, also after a restart.
    pub fn signed_at(mut self, since_1970: Duration) -> Self {
        self.signed_at = Some(since_1970);
        self
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

    /// Whether what passes will be records.
    pub fn records(&self) -> bool {
        let terms = self.offer.terms;
        terms.encrypt && terms.generation == Generation::V5 && self.daemon.records
    }

    /// The signed request for an ssh session; `keys` where it is to be encrypted.
    ///
    /// # Errors
    /// When the key cannot sign, or the session is another way round.
    pub fn request(
        &self,
        keys: Option<&ClientKeys>,
        signer: &KeyPair,
    ) -> Result<Message, SessionError> {
        let form = match self.offer.terms.generation {
            Generation::V3 => return Err(SessionError::Unspeakable("a direct session")),
            Generation::V4Rc2 | Generation::V4 => RequestForm::V4,
            Generation::V5 => RequestForm::V5,
        };
        let meeting = self.meeting(keys)?;
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
        keys: Option<&ClientKeys>,
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
            meeting: self.meeting(keys)?,
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

    /// The key that proves sockets, where the rendezvous takes proofs.
    fn socket_key(&self) -> Option<SocketKey> {
        let key = self.offer.socket_key.clone();
        key.filter(|_| request::takes_proofs(self.admission.as_ref()))
    }

    fn meeting(&self, keys: Option<&ClientKeys>) -> Result<Meeting, SessionError> {
        let terms = self.offer.terms;
        let encryption = match (terms.encrypt, keys) {
            (false, _) => None,
            (true, None) => return Err(SessionError::NoEphemeral),
            (true, Some(ClientKeys::Rsa(ephemeral))) => Some(Encryption::Stream {
                ephemeral: ephemeral.public().clone(),
                twin_keys: self.twin_keys(),
            }),
            (true, Some(ClientKeys::Shares(agreement))) => Some(Encryption::Records(Offered {
                shares: agreement.shares().clone(),
                suite: Suite::fastest(),
            })),
        };
        let run = self.daemon.run.clone();
        let stamp = run.zip(self.signed_at).map(|(run, at)| Stamp { run, at });
        Ok(Meeting {
            session: self.offer.id,
            host: self.ports.host.clone(),
            port: self.ports.daemon,
            admission: self.admission.clone().filter(|_| terms.admit_device),
            socket_key: self
                .socket_key()
                .filter(|_| terms.admit_device && self.daemon.is_ours()),
            encryption,
            stamp,
        })
    }

    /// The daemon has answered what was asked in `request`: where the generation signs, its signature is `device_key`'s, and
    /// its session and status are right.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn accepted(
        self,
        (request, answer): (&str, &str),
        device_key: &PublicKey,
        keys: &mut Option<ClientKeys>,
        signer: &KeyPair,
    ) -> Result<Ready, AnswerError> {
        let (terms, socket_key) = (self.offer.terms, self.socket_key());
        let mut asked = request::Asked {
            keys,
            request,
            client: (&self.offer.me, signer.public()),
            device: &self.offer.to,
            name: &self.offer.device,
        };
        let asked = Some(&mut asked).filter(|_| terms.encrypt);
        let (keys, ephemeral_key, takes_shares) =
            match request::read_answer(answer, self.offer.id, device_key, asked)? {
                Answer::Bare if terms.generation > Generation::V4Rc2 => {
                    return Err(AnswerError::Unsigned);
                }
                Answer::Bare => (None, None, false),
                Answer::Signed {
                    keys,
                    ephemeral_key,
                    takes_shares,
                } => (keys, ephemeral_key, takes_shares),
            };
        if terms.encrypt && keys.is_none() {
            return Err(AnswerError::Keys);
        }
        let admission = match self.admission.filter(|_| terms.admit_client) {
            Some(nonces) => Some(Secret::new(nonces.admission(self.offer.id).line(signer)?)),
            None => None,
        };
        Ok(Ready {
            far: FarEnd {
                rendezvous: self.ports.at_client(),
                socket_key: socket_key.filter(|_| admission.is_some()),
                admission,
                keys,
                side: Side::Client,
            },
            ephemeral_key,
            takes_shares,
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
            _ if self.records() => "records",
            (true, false) => "single",
            (true, true) => "twin",
        };
        write!(
            f,
            "generation={generation} login={login} encryption={encryption}"
        )
    }
}

/// What the daemon's yes makes of a session.
#[derive(Clone, Debug)]
pub struct Ready {
    /// How we reach the device's end.
    pub far: FarEnd,
    /// A private ssh key in PEM form that the device lets in for some seconds, if it sent one.
    pub ephemeral_key: Option<Secret<String>>,
    /// Whether the device, which has signed that, would have taken shares.
    pub takes_shares: bool,
}
