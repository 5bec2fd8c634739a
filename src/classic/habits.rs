//! What the programs of each generation say and understand: columns of the table of generations, for programs that are
//! held to one. Only with the feature `held`.
//!
//! A client's, a daemon's and a rendezvous' habits have nothing in common: what changed from one generation to the next
//! is different for each. A daemon is held as far as its command line lets it: reverse ssh and public keys are still a
//! matter of flags.

use super::keyring::TemporaryKeyRule;
use crate::np::{
    ids::Nonce,
    ping::{Features, Heartbeat, HeartbeatFormat},
    ports::{self, Ports},
    request::{Encryption, Meeting, RequestForm, SshRequest, TunnelRequest},
    session::{Generation, Terms},
};

/// What a client says, and what it makes of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHabits {
    /// What a session must have, and in whose words it is asked for.
    pub terms: Terms,
    /// One ssh inside another, whatever protects the session.
    pub two_sshs: bool,
    /// The features it has heard of.
    knows: Features,
}

/// What a daemon says of itself and understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaemonHabits {
    /// Version, that of what it is built on, and features; `None`: our own.
    about: Option<(&'static str, &'static str, Features)>,
    /// How it tells them.
    format: HeartbeatFormat,
    /// Words it hears; `None`: all that it is let.
    words: Option<&'static [&'static str]>,
    /// What protects sessions is understood.
    protection: bool,
    /// Nothing else than encrypted sessions is heard.
    insists: bool,
    /// Tunnels without encryption are known.
    plain_tunnels: bool,
    /// Whether a temporary key goes into an answer; `None`: as the command line says.
    temporary_keys: Option<TemporaryKeyRule>,
    /// Answers with a bare word.
    pub bare: bool,
}

/// Which requests a rendezvous understands, and how it joins sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RendezvousHabits {
    /// Knows the request that names both ends, and answers with a nonce.
    logins: bool,
    /// Joins sockets by their numbers.
    numbers: bool,
}

const NO_FEATURES: Features = Features {
    relay_auth: false,
    relay_encryption: false,
    public_keys: false,
    port_choice: false,
    adjustable_timeout: false,
    control_heartbeats: false,
    twin_keys: false,
};
const PROTECTION: Features = Features {
    relay_auth: true,
    relay_encryption: true,
    ..NO_FEATURES
};
const TUNNELS: Features = Features {
    port_choice: true,
    ..PROTECTION
};
const TIMEOUTS: Features = Features {
    adjustable_timeout: true,
    ..TUNNELS
};

/// Clients. Those before 5.3 open one ssh in another; those before 5.0 know of no features, but send public keys.
pub(super) mod client {
    use super::*;

    const fn old(words: Generation) -> ClientHabits {
        ClientHabits {
            terms: Terms::of(words),
            two_sshs: false,
            knows: with_keys(NO_FEATURES),
        }
    }

    const fn with_keys(features: Features) -> Features {
        Features {
            public_keys: true,
            ..features
        }
    }

    pub(crate) const V3: ClientHabits = old(Generation::V3);
    pub(crate) const RC2: ClientHabits = old(Generation::V4Rc2);
    pub(crate) const V4: ClientHabits = old(Generation::V4);
    pub(crate) const V50: ClientHabits = ClientHabits {
        two_sshs: true,
        knows: with_keys(PROTECTION),
        ..old(Generation::V5)
    };
    pub(crate) const V51: ClientHabits = ClientHabits {
        knows: with_keys(TUNNELS),
        ..V50
    };
    pub(crate) const V53: ClientHabits = ClientHabits {
        two_sshs: false,
        ..V51
    };
    pub(crate) const V56: ClientHabits = ClientHabits {
        knows: with_keys(TIMEOUTS),
        ..V53
    };
    pub(crate) const OURS: ClientHabits = ClientHabits {
        knows: Features {
            control_heartbeats: true,
            twin_keys: true,
            ..with_keys(TIMEOUTS)
        },
        ..V56
    };
}

/// Daemons.
pub(super) mod daemon {
    use super::*;

    pub(crate) const OURS: DaemonHabits = DaemonHabits {
        about: None,
        format: HeartbeatFormat::Newest,
        words: None,
        protection: true,
        insists: false,
        plain_tunnels: true,
        temporary_keys: None,
        bare: false,
    };
    pub(crate) const V4: DaemonHabits = DaemonHabits {
        about: Some(("4.0.5", "", NO_FEATURES)),
        format: HeartbeatFormat::V3,
        words: Some(&["privatekey", "sshpublickey", "sshd", "ping", "ssh_request"]),
        protection: false,
        temporary_keys: Some(TemporaryKeyRule::Always),
        ..OURS
    };
    pub(crate) const V3: DaemonHabits = DaemonHabits {
        about: Some(("3.4.2", "", NO_FEATURES)),
        words: Some(&["privatekey", "sshpublickey", "sshd", "ping"]),
        ..V4
    };
    pub(crate) const RC2: DaemonHabits = DaemonHabits {
        about: Some(("4.0.0-rc.2", "", NO_FEATURES)),
        temporary_keys: Some(TemporaryKeyRule::Never),
        bare: true,
        ..V4
    };
    pub(crate) const V50: DaemonHabits = DaemonHabits {
        about: Some(("5.0.2", "6.0.2", PROTECTION)),
        format: HeartbeatFormat::V50,
        protection: true,
        ..V4
    };
    pub(crate) const V51: DaemonHabits = DaemonHabits {
        about: Some(("5.1.0", "6.0.6", TUNNELS)),
        format: HeartbeatFormat::V50,
        plain_tunnels: false,
        temporary_keys: Some(TemporaryKeyRule::Always),
        ..OURS
    };
    pub(crate) const V52: DaemonHabits = DaemonHabits {
        about: Some(("5.2.0", "6.0.7", TUNNELS)),
        format: HeartbeatFormat::V52,
        ..V51
    };
    pub(crate) const V53: DaemonHabits = DaemonHabits {
        about: Some(("5.3.0", "6.1.0", TUNNELS)),
        ..V52
    };
    pub(crate) const V56: DaemonHabits = DaemonHabits {
        about: Some(("5.6.1", "6.1.0", TIMEOUTS)),
        ..V52
    };
    pub(crate) const C: DaemonHabits = DaemonHabits {
        about: Some(("0.2.0", "c0.1.0", TUNNELS)),
        format: HeartbeatFormat::V52,
        words: Some(&["sshpublickey", "ping", "ssh_request", "npt_request"]),
        insists: true,
        temporary_keys: Some(TemporaryKeyRule::Never),
        ..OURS
    };
    pub(crate) const PYTHON: DaemonHabits = DaemonHabits {
        words: Some(&["sshpublickey", "ssh_request"]),
        ..V4
    };
}

/// Rendezvous.
pub(super) mod rendezvous {
    use super::*;

    pub(crate) const OLD: RendezvousHabits = RendezvousHabits {
        logins: false,
        numbers: false,
    };
    pub(crate) const V5: RendezvousHabits = RendezvousHabits {
        logins: true,
        numbers: false,
    };
    pub(crate) const OURS: RendezvousHabits = RendezvousHabits {
        logins: true,
        numbers: true,
    };
}

impl Default for ClientHabits {
    fn default() -> Self {
        client::OURS
    }
}

impl Default for DaemonHabits {
    fn default() -> Self {
        daemon::OURS
    }
}

impl Default for RendezvousHabits {
    fn default() -> Self {
        rendezvous::OURS
    }
}

impl ClientHabits {
    /// What it makes of a daemon's features: those it has not heard of are not there.
    pub fn hear(&self, mut daemon: Heartbeat) -> Heartbeat {
        let (said, known) = (daemon.features, self.knows);
        daemon.features = Features {
            relay_auth: said.relay_auth && known.relay_auth,
            relay_encryption: said.relay_encryption && known.relay_encryption,
            public_keys: said.public_keys && known.public_keys,
            port_choice: said.port_choice && known.port_choice,
            adjustable_timeout: said.adjustable_timeout && known.adjustable_timeout,
            control_heartbeats: said.control_heartbeats && known.control_heartbeats,
            twin_keys: said.twin_keys && known.twin_keys,
        };
        // Older than every generation that can be held to.
        if !known.twin_keys {
            daemon.records = false;
            daemon.run = None;
        }
        daemon
    }
}

impl DaemonHabits {
    /// Whether messages with this word are heard at all.
    pub fn hears(&self, word: &str) -> bool {
        self.words.is_none_or(|words| words.contains(&word))
    }

    /// What it says of itself.
    pub fn say(&self, ours: Heartbeat) -> Heartbeat {
        let Some((version, core, features)) = self.about else {
            return ours;
        };
        Heartbeat {
            version: version.to_owned(),
            core: core.to_owned(),
            features: Features {
                public_keys: ours.features.public_keys,
                ..features
            },
            records: false,
            ..ours
        }
    }

    /// Whether it takes shares for keys.
    pub fn records(&self) -> bool {
        self.about.is_none()
    }

    /// In the members of its time.
    pub fn print(&self, heartbeat: &Heartbeat) -> String {
        heartbeat.print_as(self.format)
    }

    /// Leaves of a request for ssh what this generation understands. `false`: it takes no notice.
    pub fn read_ssh(&self, request: &mut SshRequest) -> bool {
        if !self.protection {
            request.form = RequestForm::V4;
        }
        self.read(&mut request.meeting)
    }

    /// Leaves of a request for a tunnel what this generation understands. `false`: it takes no notice.
    pub fn read_tunnel(&self, request: &mut TunnelRequest) -> bool {
        self.read(&mut request.meeting)
            && (self.plain_tunnels || request.meeting.encryption.is_some())
    }

    fn read(&self, meeting: &mut Meeting) -> bool {
        if self.insists && meeting.encryption.is_none() {
            return false;
        }
        if !self.protection {
            (meeting.admission, meeting.encryption) = (None, None);
        }
        if let (Some((_, _, features)), Some(Encryption::Stream { twin_keys, .. })) =
            (self.about, &mut meeting.encryption)
        {
            *twin_keys &= features.twin_keys;
        }
        true
    }

    /// When a temporary key goes into an answer, unless its time decides: as this says.
    pub fn temporary_keys(&self, told: TemporaryKeyRule) -> TemporaryKeyRule {
        self.temporary_keys.unwrap_or(told)
    }
}

impl RendezvousHabits {
    /// Whether requests of this form are understood.
    pub fn reads(&self, form: ports::PortsForm) -> bool {
        form == ports::PortsForm::Bare || self.logins
    }

    /// Its half of what makes an admission line unlike every other.
    pub fn nonce(&self) -> Nonce {
        if self.numbers {
            Nonce::random_numbered()
        } else {
            Nonce::random()
        }
    }

    /// The answer, as its time wrote it.
    pub fn print(&self, ports: &Ports) -> String {
        if self.logins {
            ports.print()
        } else {
            ports.print_old()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::classic::{generation::Profile, habits::*};

    fn client(generation: &str) -> ClientHabits {
        Profile::named(generation).unwrap().client.unwrap()
    }

    #[test]
    fn each_generation_asks_in_its_words() {
        for (name, words, two_sshs, encrypts) in [
            ("v3", Generation::V3, false, false),
            ("v4.0-rc.2", Generation::V4Rc2, false, false),
            ("v4.0", Generation::V4, false, false),
            ("v5.0", Generation::V5, true, true),
            ("v5.2.0", Generation::V5, true, true),
            ("v5.3", Generation::V5, false, true),
            ("v5", Generation::V5, false, true),
        ] {
            let habits = client(name);
            assert_eq!(
                (
                    habits.terms.generation,
                    habits.two_sshs,
                    habits.terms.encrypt
                ),
                (words, two_sshs, encrypts),
                "{name}"
            );
            assert!(!habits.knows.twin_keys, "{name}");
        }
        for none in ["c", "python"] {
            assert_eq!(Profile::named(none).unwrap().client, None, "{none}");
        }
    }

    #[test]
    fn an_old_client_has_not_heard_of_new_features() {
        let ours = Heartbeat::ours(&"d".parse().unwrap(), Vec::new());
        assert_eq!(ClientHabits::default().hear(ours.clone()), ours);
        let heard = client("v5.3").hear(ours).features;
        assert!(heard.relay_encryption && heard.port_choice);
        assert!(!heard.twin_keys && !heard.control_heartbeats && !heard.adjustable_timeout);
    }

    #[test]
    fn each_daemon_says_what_it_is_and_hears_what_it_knew() {
        let ours = Heartbeat::ours(&"dev1".parse().unwrap(), vec!["localhost:22".into()]);
        for (name, said, words) in [
            (
                "v3",
                r#"{"devicename":"dev1","version":"3.4.2"}"#,
                "privatekey sshd ping",
            ),
            (
                "v4.0-rc.2",
                r#"{"devicename":"dev1","version":"4.0.0-rc.2"}"#,
                "privatekey sshd ping ssh_request",
            ),
            (
                "v4.0",
                r#"{"devicename":"dev1","version":"4.0.5"}"#,
                "privatekey sshd ping ssh_request",
            ),
            (
                "v5.0",
                r#"{"devicename":"dev1","version":"5.0.2","corePackageVersion":"6.0.2","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false}}"#,
                "privatekey sshd ping ssh_request",
            ),
            (
                "v5.3",
                r#"{"devicename":"dev1","version":"5.3.0","corePackageVersion":"6.1.0","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false,"supportsPortChoice":true},"allowedServices":["localhost:22"]}"#,
                "privatekey sshd ping ssh_request npt_request",
            ),
            (
                "v5.1",
                r#"{"devicename":"dev1","version":"5.1.0","corePackageVersion":"6.0.6","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false,"supportsPortChoice":true}}"#,
                "privatekey sshd ping ssh_request npt_request",
            ),
            (
                "v5.6",
                r#"{"devicename":"dev1","version":"5.6.1","corePackageVersion":"6.1.0","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false,"supportsPortChoice":true,"adjustableTimeout":true},"allowedServices":["localhost:22"]}"#,
                "privatekey sshd ping ssh_request npt_request",
            ),
            (
                "c",
                r#"{"devicename":"dev1","version":"0.2.0","corePackageVersion":"c0.1.0","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false,"supportsPortChoice":true},"allowedServices":["localhost:22"]}"#,
                "ping ssh_request npt_request",
            ),
            (
                "python",
                r#"{"devicename":"dev1","version":"4.0.5"}"#,
                "ssh_request",
            ),
        ] {
            let habits = Profile::named(name).unwrap().daemon;
            assert_eq!(habits.print(&habits.say(ours.clone())), said, "{name}");
            let all = ["privatekey", "sshd", "ping", "ssh_request", "npt_request"];
            let heard: Vec<_> = all.into_iter().filter(|word| habits.hears(word)).collect();
            assert_eq!(heard.join(" "), words, "{name}");
        }
        let habits = DaemonHabits::default();
        assert_eq!(habits.print(&habits.say(ours.clone())), ours.print());
    }

    #[test]
    fn each_rendezvous_knows_the_logins_and_numbers_of_its_time() {
        for (generation, logins, numbers) in [
            ("v3", false, false),
            ("v4", false, false),
            ("v4.0.0-rc.2", false, false),
            ("v5", true, false),
            ("v5.3", true, false),
        ] {
            let want = Some(RendezvousHabits { logins, numbers });
            let found = Profile::named(generation).unwrap().rendezvous;
            assert_eq!(found, want, "{generation}");
        }
        let all = RendezvousHabits::default();
        assert!(all.nonce().takes_numbers());
        assert!(all.reads(ports::PortsForm::Full) && all.reads(ports::PortsForm::Bare));
    }
}
