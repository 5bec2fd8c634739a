//! How a client asks for sessions, and how it can be held to an older generation for tests.
//!
//! | generation | asks with | two sshs | knows |
//! | --- | --- | --- | --- |
//! | `v3` | `privatekey`, `sshd` | no: the device logs in to us | – |
//! | `v4.0-rc.2` | `ssh_request`, four members; hears `connected` | with the person's own key | – |
//! | `v4` | the same; hears an envelope | with a temporary key | – |
//! | `v5.0` `v5.1` `v5.2` | ten members | always | logins, encryption; tunnels since 5.1 |
//! | `v5.3` … | ten members | without encryption | the same |
//! | ours | the newest | without encryption, where the device sends a key | everything |

use crate::np::{
    ping::{Features, Heartbeat},
    session::{Generation, Terms},
};

/// What a client says, and what it makes of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    /// What a session must have, and in whose words it is asked for.
    pub terms: Terms,
    /// One ssh inside another, whatever protects the session.
    pub two_sshs: bool,
    /// The features it has heard of.
    knows: Features,
}

const NOTHING: Features = Features {
    relay_auth: false,
    relay_encryption: false,
    public_keys: true,
    port_choice: false,
    adjustable_timeout: false,
    control_heartbeats: false,
    twin_keys: false,
};
const V50: Features = Features {
    relay_auth: true,
    relay_encryption: true,
    ..NOTHING
};
const V51: Features = Features {
    port_choice: true,
    ..V50
};
const V56: Features = Features {
    adjustable_timeout: true,
    ..V51
};
const ALL: Features = Features {
    control_heartbeats: true,
    twin_keys: true,
    ..V56
};

/// (generation, in whose words, two sshs always, what it knows)
const GENERATIONS: &[(&str, Generation, bool, Features)] = &[
    ("v3", Generation::V3, false, NOTHING),
    ("v4.0-rc.2", Generation::V4Rc2, false, NOTHING),
    ("v4.0.0-rc.2", Generation::V4Rc2, false, NOTHING),
    ("v4", Generation::V4, false, NOTHING),
    ("v5.0", Generation::V5, true, V50),
    ("v5.1", Generation::V5, true, V51),
    ("v5.2", Generation::V5, true, V51),
    ("v5.3", Generation::V5, false, V51),
    ("v5.5", Generation::V5, false, V51),
    ("v5.6", Generation::V5, false, V56),
    ("v5", Generation::V5, false, V56),
];

impl Default for Ways {
    fn default() -> Self {
        Self {
            terms: Terms::default(),
            two_sshs: false,
            knows: ALL,
        }
    }
}

impl Ways {
    /// A generation's: `v3`, `v4.0-rc.2`, `v5.2`, also with what follows: `v4.0.5`.
    pub fn of(generation: &str) -> Option<Self> {
        let fits = |name: &str| {
            let behind = generation.strip_prefix(name);
            behind.is_some_and(|behind| behind.is_empty() || behind.starts_with(['.', '-']))
        };
        let (_, words, two_sshs, knows) = GENERATIONS.iter().find(|(name, ..)| fits(name))?;
        Some(Self {
            terms: Terms::of(*words),
            two_sshs: *two_sshs,
            knows: *knows,
        })
    }

    /// The generation's that the environment names; everything when it names none.
    ///
    /// # Errors
    /// When it names one that is not known.
    #[cfg(feature = "held")]
    pub fn of_environment() -> Result<Self, crate::cli::Failure> {
        crate::cli::ways_of_environment(Self::of)
    }

    /// With less protection, as the person wants it: not encrypted, not logged in at the rendezvous by us, nor by
    /// the device.
    pub fn without(mut self, encryption: bool, client: bool, device: bool) -> Self {
        self.terms.encrypt &= !encryption;
        self.terms.admit_client &= !client;
        self.terms.admit_device &= !device;
        self
    }

    /// What we make of a daemon's features: those we have not heard of are not there.
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
        daemon
    }
}

/// The words a daemon of this version understands, where they are not those of all later ones.
pub fn words_of(version: &str) -> Option<Generation> {
    let is = |text: &str| {
        let behind = version.strip_prefix(text);
        behind.is_some_and(|behind| !behind.starts_with(|c: char| c.is_ascii_digit()))
    };
    match version {
        _ if version.starts_with("3.") => Some(Generation::V3),
        _ if is("4.0.0-rc.1") => Some(Generation::V3),
        _ if is("4.0.0-rc.2") || is("4.0.0-rc.3") => Some(Generation::V4Rc2),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::session::ask::ways::*;

    #[test]
    fn each_generation_has_its_ways() {
        for (name, words, two_sshs, encrypts) in [
            ("v3", Generation::V3, false, false),
            ("v3.4.2", Generation::V3, false, false),
            ("v4.0-rc.2", Generation::V4Rc2, false, false),
            ("v4.0.0-rc.2", Generation::V4Rc2, false, false),
            ("v4.0", Generation::V4, false, false),
            ("v4.0.5", Generation::V4, false, false),
            ("v5.0", Generation::V5, true, true),
            ("v5.2.0", Generation::V5, true, true),
            ("v5.3", Generation::V5, false, true),
            ("v5", Generation::V5, false, true),
        ] {
            let ways = Ways::of(name).unwrap();
            assert_eq!(
                (ways.terms.generation, ways.two_sshs, ways.terms.encrypt),
                (words, two_sshs, encrypts),
                "{name}"
            );
            assert!(!ways.knows.twin_keys, "{name}");
        }
        for unknown in ["", "5", "v51", "v9", "v30"] {
            assert_eq!(Ways::of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn protection_can_only_be_taken_away() {
        for (encryption, client, device) in [(true, false, false), (false, true, true)] {
            let terms = Ways::default().without(encryption, client, device).terms;
            assert_eq!(
                (terms.encrypt, terms.admit_client, terms.admit_device),
                (!encryption, !client, !device)
            );
        }
        let old = Ways::of("v4").unwrap().without(false, false, false);
        assert_eq!(old, Ways::of("v4").unwrap());
    }

    #[test]
    fn an_old_client_has_not_heard_of_new_features() {
        let ours = Heartbeat::ours(&"d".parse().unwrap(), Vec::new());
        assert_eq!(Ways::default().hear(ours.clone()), ours);
        let heard = Ways::of("v5.3").unwrap().hear(ours).features;
        assert!(heard.relay_encryption && heard.port_choice);
        assert!(!heard.twin_keys && !heard.control_heartbeats && !heard.adjustable_timeout);
    }

    #[test]
    fn daemons_that_need_other_words_are_known_by_their_version() {
        for (version, want) in [
            ("3.4.2", Some(Generation::V3)),
            ("4.0.0-rc.1", Some(Generation::V3)),
            ("4.0.0-rc.2", Some(Generation::V4Rc2)),
            ("4.0.0-rc.20", None),
            ("4.0.0-rc.4", None),
            ("4.0.5", None),
            ("5.6.1", None),
            ("0.2.0", None),
            ("", None),
        ] {
            assert_eq!(words_of(version), want, "{version}");
        }
    }
}
