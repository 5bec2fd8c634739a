//! What the daemon says of itself and understands, and how it can be held to an older generation for tests.
//!
//! It is held as far as the command line lets it: reverse ssh and public keys are still a matter of flags. One row of the table is one generation.

use super::{Asked, keyring::When};
use crate::np::{
    ping::{Features, Heartbeat, Members},
    request::Form,
};

/// What a daemon of some generation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    /// Version, that of what it is built on, and features; `None`: our own.
    about: Option<(&'static str, &'static str, Features)>,
    /// How it tells them.
    members: Members,
    /// Words it hears; `None`: all that it is let.
    words: Option<&'static [&'static str]>,
    /// What protects sessions is understood.
    protection: bool,
    /// Nothing else than encrypted sessions is heard.
    insists: bool,
    /// Tunnels without encryption are known.
    plain_tunnels: bool,
    /// Whether a temporary key goes into an answer; `None`: as the command line says.
    temporary_keys: Option<When>,
    /// Answers with a bare word.
    bare: bool,
}

const OURS: Ways = Ways {
    about: None,
    members: Members::Newest,
    words: None,
    protection: true,
    insists: false,
    plain_tunnels: true,
    temporary_keys: None,
    bare: false,
};

const NOTHING: Features = Features {
    relay_auth: false,
    relay_encryption: false,
    public_keys: false,
    port_choice: false,
    adjustable_timeout: false,
    control_heartbeats: false,
    twin_keys: false,
};
const FIRST: Features = Features {
    relay_auth: true,
    relay_encryption: true,
    ..NOTHING
};
const TUNNELS: Features = Features {
    port_choice: true,
    ..FIRST
};

const V4: Ways = Ways {
    about: Some(("4.0.5", "", NOTHING)),
    members: Members::V3,
    words: Some(&["privatekey", "sshpublickey", "sshd", "ping", "ssh_request"]),
    protection: false,
    temporary_keys: Some(When::Always),
    ..OURS
};

/// (generation, what its daemon does)
const GENERATIONS: &[(&str, Ways)] = &[
    (
        "v3",
        Ways {
            about: Some(("3.4.2", "", NOTHING)),
            words: Some(&["privatekey", "sshpublickey", "sshd", "ping"]),
            ..V4
        },
    ),
    (
        "v4.0-rc.2",
        Ways {
            about: Some(("4.0.0-rc.2", "", NOTHING)),
            temporary_keys: Some(When::Never),
            bare: true,
            ..V4
        },
    ),
    ("v4.0", V4),
    (
        "v5.0",
        Ways {
            about: Some(("5.0.2", "6.0.2", FIRST)),
            members: Members::V50,
            protection: true,
            ..V4
        },
    ),
    (
        "v5.3",
        Ways {
            about: Some(("5.3.0", "6.1.0", TUNNELS)),
            members: Members::V52,
            words: None,
            plain_tunnels: false,
            temporary_keys: Some(When::Always),
            ..OURS
        },
    ),
    (
        "c",
        Ways {
            about: Some(("0.2.0", "c0.1.0", TUNNELS)),
            members: Members::V52,
            words: Some(&["sshpublickey", "ping", "ssh_request", "npt_request"]),
            insists: true,
            temporary_keys: Some(When::Never),
            ..OURS
        },
    ),
    (
        "python",
        Ways {
            words: Some(&["sshpublickey", "ssh_request"]),
            ..V4
        },
    ),
];

impl Default for Ways {
    fn default() -> Self {
        OURS
    }
}

impl Ways {
    /// A generation's, by its name in the table.
    pub fn of(generation: &str) -> Option<Self> {
        let found = GENERATIONS.iter().find(|(name, _)| *name == generation);
        found.map(|(_, ways)| *ways)
    }

    /// The generation's that the environment names; our own when it names none.
    ///
    /// # Errors
    /// When it names one that is not known.
    #[cfg(feature = "held")]
    pub fn of_environment() -> Result<Self, crate::cli::Failure> {
        crate::cli::ways_of_environment(Self::of)
    }

    /// Whether messages with this word are heard at all.
    pub(super) fn hears(&self, word: &str) -> bool {
        self.words.is_none_or(|words| words.contains(&word))
    }

    /// What it says of itself.
    pub(super) fn say(&self, ours: Heartbeat) -> Heartbeat {
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
            ..ours
        }
    }

    /// In the members of its time.
    pub(super) fn print(&self, heartbeat: &Heartbeat) -> String {
        heartbeat.print_as(self.members)
    }

    /// A request as this generation reads it; `None` when it takes no notice.
    pub(super) fn read(&self, mut asked: Asked) -> Option<Asked> {
        let meeting = asked.meeting_mut();
        if self.insists && meeting.encryption.is_none() {
            return None;
        }
        if !self.protection {
            (meeting.admission, meeting.encryption) = (None, None);
        }
        if let (Some((_, _, features)), Some(encryption)) = (self.about, &mut meeting.encryption) {
            encryption.twin_keys &= features.twin_keys;
        }
        match &mut asked {
            Asked::Ssh(request) if !self.protection => request.form = Form::V4,
            Asked::Tunnel(request)
                if !self.plain_tunnels && request.meeting.encryption.is_none() =>
            {
                return None;
            }
            _ => {}
        }
        Some(asked)
    }

    /// When a temporary key goes into an answer, unless its time decides: as this says.
    pub(super) fn temporary_keys(&self, told: When) -> When {
        self.temporary_keys.unwrap_or(told)
    }

    /// Whether yes is a bare word.
    pub(super) fn is_bare(&self) -> bool {
        self.bare
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::daemon::ways::*;

    #[test]
    fn each_generation_says_what_it_is_and_hears_what_it_knew() {
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
            let ways = Ways::of(name).unwrap();
            assert_eq!(ways.print(&ways.say(ours.clone())), said, "{name}");
            let all = ["privatekey", "sshd", "ping", "ssh_request", "npt_request"];
            let heard: Vec<_> = all.into_iter().filter(|word| ways.hears(word)).collect();
            assert_eq!(heard.join(" "), words, "{name}");
        }
        let ways = Ways::default();
        assert_eq!(ways.print(&ways.say(ours.clone())), ours.print());
        assert_eq!(Ways::of("v6"), None);
    }
}
