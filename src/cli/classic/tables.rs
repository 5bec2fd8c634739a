//! Every option of the classic programs: its names, its letter, and what becomes of it here.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnp/models/sshnp_arg.dart, sshnpd/sshnpd_params.dart,
//! sshnpd/sshnpd_config.dart, srvd/srvd_params.dart, npa/npa_params.dart;
//! noports:packages/dart/sshnoports/bin/npt.dart, srv.dart, npp_file.dart.

/// What becomes of a classic option.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// Ours, with a value.
    Value(&'static str),
    /// Ours, with a whole number.
    Number(&'static str),
    /// Ours, with a value, as often as it is given.
    Values(&'static str),
    /// Ours, with one value: a list, to which each further one is added behind a comma.
    List(&'static str),
    /// Ours, without a value.
    Switch(&'static str),
    /// Takes back one of ours.
    Unset(&'static str),
    /// A switch that asks for what we do anyway.
    Given,
    /// Sends the public key of the identity; in 3.x the name of a public key's file stands behind it.
    Key,
    /// Takes a value that means nothing here.
    IgnoredValue,
    /// Takes one of these values, which mean nothing here.
    Choice(&'static [&'static str]),
    /// Takes a value that stands behind `--` for ssh; commas separate several.
    Ssh,
    /// A secret in the open: an activation secret or a code.
    Secret,
    /// A secret in the open: the phrase of key files.
    Phrase,
    /// Names a file with further settings.
    Config,
    /// Only tells what there is.
    Help,
    /// Only tells the version.
    Version,
}

impl To {
    /// Whether a value stands behind it.
    pub(crate) fn takes_value(self) -> bool {
        match self {
            Self::Value(_) | Self::Number(_) | Self::Values(_) | Self::List(_) => true,
            Self::IgnoredValue | Self::Choice(_) | Self::Ssh => true,
            Self::Secret | Self::Phrase | Self::Config => true,
            Self::Switch(_) | Self::Unset(_) | Self::Given | Self::Key => false,
            Self::Help | Self::Version => false,
        }
    }
}

/// (long names, short name or 0, what becomes of it)
pub(crate) type ClassicOption = (&'static [&'static str], u8, To);

/// What all programs have.
pub(crate) const COMMON: &[ClassicOption] = &[
    (
        &["root-domain", "root-server", "rootServer", "rootDomain"],
        0,
        To::Value("--root"),
    ),
    (&["verbose"], b'v', To::Switch("--verbose")),
    (&["storage-path"], 0, To::IgnoredValue),
    (&["help"], 0, To::Switch("--help")),
];

/// What tells about a program.
pub(crate) const TOLD: &[ClassicOption] =
    &[(&["help"], 0, To::Help), (&["version"], 0, To::Version)];

/// Services say one line per session without being asked; that is what `-v` asks for.
pub(crate) const SERVICE: &[ClassicOption] = &[
    (&["verbose", "no-verbose"], b'v', To::Given),
    (&["debug"], 0, To::Switch("--verbose")),
    (&["pass-phrase", "passPhrase"], b'P', To::Phrase),
];

const SSH_CLIENTS: To = To::Choice(&["openssh", "dart", "/usr/bin/ssh", "pure-dart"]);
const SSH_ALGORITHMS: To = To::Choice(&["ssh-ed25519", "ssh-rsa"]);

pub(crate) const CLIENT: &[ClassicOption] = &[
    (&["from"], b'f', To::Value("--as")),
    (&["to"], b't', To::Value("--to")),
    (&["device"], b'd', To::Value("--device")),
    (&["srvd"], b'r', To::Value("--via")),
    (&["host"], b'h', To::Value("--via")),
    // Of the sshd on the client's side, or of its host: from the days of reverse sessions.
    (&["port"], b'p', To::IgnoredValue),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (&["identity-file"], b'i', To::Value("--identity")),
    (&["identity-passphrase"], 0, To::IgnoredValue),
    (&["pass-phrase", "passPhrase"], 0, To::Phrase),
    (&["remote-user-name"], b'u', To::Value("--user")),
    (&["tunnel-user-name"], b'U', To::Value("--tunnel-user")),
    (&["local-ssh-options"], b'o', To::Ssh),
    (&["output-execution-command"], b'x', To::Switch("--print")),
    (&["quiet"], b'q', To::Switch("--quiet")),
    (
        &["authenticate-client-to-rvd", "ac"],
        0,
        To::Unset("--no-admit-client"),
    ),
    (
        &["no-authenticate-client-to-rvd", "no-ac"],
        0,
        To::Switch("--no-admit-client"),
    ),
    (
        &["authenticate-device-to-rvd", "ad"],
        0,
        To::Unset("--no-admit-device"),
    ),
    (
        &["no-authenticate-device-to-rvd", "no-ad"],
        0,
        To::Switch("--no-admit-device"),
    ),
    ENCRYPT,
    NO_ENCRYPT,
    (&["discover-daemon-features", "ddf"], 0, To::Given),
    (&["daemon-ping-timeout", "dpt"], 0, To::Number("--timeout")),
    (&["idle-timeout"], 0, To::Number("--idle-timeout")),
    (&["ssh-algorithm"], 0, SSH_ALGORITHMS),
    (&["ssh-client"], 0, SSH_CLIENTS),
    (&["local-port"], b'l', To::Number("--local-port")),
    (&["remote-sshd-port"], 0, To::Number("--remote-sshd-port")),
    (&["local-sshd-port"], b'P', To::Number("--local-sshd-port")),
    (&["legacy-daemon"], 0, To::Switch("--legacy-daemon")),
    (&["no-legacy-daemon"], 0, To::Unset("--legacy-daemon")),
    (&["send-ssh-public-key"], b's', To::Key),
    (&["ssh-public-key"], 0, To::Value(SEND_KEY)),
    (
        &["add-forwards-to-tunnel"],
        0,
        To::Switch("--add-forwards-to-tunnel"),
    ),
    (&["relay-auth-mode", "ram"], 0, RELAY_AUTH),
    (&["config-file"], 0, To::Config),
    // Never as a client: that is another program.
    (&["list-devices", "ls"], 0, To::Switch("noports devices")),
];

/// A public key's file; the name of one in `~/.ssh`, or a path.
pub(crate) const SEND_KEY: &str = "send-key";

const ENCRYPT: ClassicOption = (&["encrypt-rvd-traffic", "et"], 0, To::Unset("--no-encrypt"));
const NO_ENCRYPT: ClassicOption = (
    &["no-encrypt-rvd-traffic", "no-et"],
    0,
    To::Switch("--no-encrypt"),
);
const RELAY_AUTH: To = To::Choice(&["payload", "escr"]);

/// What makes up a `--forward`; joined at the end.
pub(crate) const REMOTE_PORT: &str = "remote-port";
pub(crate) const REMOTE_HOST: &str = "remote-host";
pub(crate) const LOCAL_PORT: &str = "local-port";
pub(crate) const LOCAL_HOST: &str = "local-host";

pub(crate) const TUNNEL: &[ClassicOption] = &[
    (&["from"], b'f', To::Value("--as")),
    (&["to"], b't', To::Value("--to")),
    (&["device"], b'd', To::Value("--device")),
    (&["srvd"], b'r', To::Value("--via")),
    (&["remote-port", "rp"], b'p', To::Number(REMOTE_PORT)),
    (&["remote-host", "rh"], b'h', To::Value(REMOTE_HOST)),
    (&["local-port", "lp"], b'l', To::Number(LOCAL_PORT)),
    (&["local-host", "lh"], 0, To::Value(LOCAL_HOST)),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (&["pass-phrase", "passPhrase"], b'P', To::Phrase),
    (&["exit-when-connected"], b'x', To::Switch("--print")),
    (&["keep-alive"], b'K', To::Switch("--keep-alive")),
    (&["timeout"], b'T', To::Value("--timeout")),
    (&["daemon-ping-timeout", "dpt"], 0, To::Number("--wait")),
    (&["quiet"], b'q', To::Switch("--quiet")),
    ENCRYPT,
    NO_ENCRYPT,
    (&["per-session-storage", "pss"], 0, To::Given),
    (&["no-per-session-storage", "no-pss"], 0, To::Given),
    (&["heartbeat"], b'H', To::IgnoredValue),
    (&["relay-auth-mode", "ram"], 0, RELAY_AUTH),
    (&["config-file"], 0, To::Config),
];

/// `sshnp --list-devices` waits for all devices together.
pub(crate) const DEVICES: &[ClassicOption] = &[
    (&["list-devices", "ls"], 0, To::Given),
    (&["daemon-ping-timeout", "dpt"], 0, To::Number("--wait")),
    (&["device"], b'd', To::IgnoredValue),
];

pub(crate) const DAEMON: &[ClassicOption] = &[
    (&["atsign"], b'a', To::Value("--as")),
    (&["managers", "manager"], b'm', To::Values("--manager")),
    (&["device"], b'd', To::Value("--device")),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (&["permit-open", "po"], 0, To::List("--permit-open")),
    (&["local-sshd-port"], 0, To::Number("--sshd-port")),
    (&["sshpublickey"], b's', To::Switch("--accept-keys")),
    (&["no-sshpublickey"], 0, To::Unset("--accept-keys")),
    (
        &["sshpublickey-permissions"],
        b'S',
        To::Value("--key-options"),
    ),
    (&["hide"], b'h', To::Switch("--hide")),
    (&["un-hide", "username"], b'u', To::Given),
    (&["no-un-hide", "no-username"], 0, To::Switch("--hide")),
    (&["ssh-client"], 0, SSH_CLIENTS),
    (&["ssh-algorithm"], 0, SSH_ALGORITHMS),
    (
        &["ephemeral-permissions", "ephemeral-permission"],
        0,
        To::Value("--temporary-key-options"),
    ),
    // Ours: what the classic daemon always does, or what its clients of some versions want.
    (&["reverse-ssh"], 0, To::Switch("--reverse-ssh")),
    (&["bare-answers"], 0, To::Switch("--bare-answers")),
    (&["temporary-keys"], 0, To::Value("--temporary-keys")),
    (
        &["require-protection"],
        0,
        To::Switch("--require-protection"),
    ),
    (&["policy-manager"], b'p', To::Value("--policy")),
    (&["device-group", "dg"], 0, To::Value("--device-group")),
    (&["config"], 0, To::Config),
    // Envelopes are always verified, and no public key is ever kept.
    (&["strict", "no-strict"], 0, To::Given),
    (&["clear-cached-pks", "no-clear-cached-pks"], 0, To::Given),
];

pub(crate) const RENDEZVOUS: &[ClassicOption] = &[
    (&["atsign"], b'a', To::Value("--as")),
    (&["ip"], b'i', To::Value("--host")),
    (&["manager"], b'm', To::Values("--manager")),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (
        &[
            "per-session-storage",
            "pss",
            "no-per-session-storage",
            "no-pss",
        ],
        0,
        To::Given,
    ),
];

/// Known only where the variable `ENABLE_SNOOP` says `true`.
pub(crate) const SNOOP: &[ClassicOption] = &[
    (&["snoop"], b's', To::Switch("--snoop")),
    (&["no-snoop"], 0, To::Unset("--snoop")),
];

pub(crate) const POLICY: &[ClassicOption] = &[
    (&["atsign"], b'a', To::Value("--as")),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    // The classic programs answer every daemon, too: the list only shapes their log.
    (&["daemon-atsigns"], 0, To::IgnoredValue),
];

pub(crate) const POLICY_FILE: &[ClassicOption] = &[(&["yaml"], 0, To::Value("--rules"))];
