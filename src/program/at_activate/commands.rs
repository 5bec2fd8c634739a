//! The classic commands and their options, and what help says of them.

use crate::cli::classic::{COMMON, ClassicOption, To};

pub(super) const SHARED: &[ClassicOption] = &[
    (&["atsign"], b'a', To::Value(ATSIGN)),
    (&["root-server", "rootServer"], b'r', To::Value("--root")),
    (&["keys"], b'k', To::Value("--keys")),
    (&["passPhrase", "pass-phrase"], b'P', To::Phrase),
    (&["help"], b'h', To::Switch("--help")),
    (&["debug"], 0, To::Switch("--verbose")),
    (&["mca"], 0, To::IgnoredValue),
    (&["registrarUrl"], b'g', To::IgnoredValue),
    (&["cramkey", "license-key"], b'c', To::IgnoredValue),
    (&["hashingAlgoType"], 0, To::IgnoredValue),
    (&["posture"], 0, To::IgnoredValue),
    (&["max-retries"], 0, To::IgnoredValue),
];
const ONBOARD: &[ClassicOption] = &[
    (&["cramkey", "license-key"], b'c', To::Secret),
    (&["yes"], b'y', To::Given),
    (&["allow-bad-registrar-certs"], 0, To::Given),
];
const OTP: &[ClassicOption] = &[(&["expiry"], b'e', To::Value("--ttl"))];
const SPP: &[ClassicOption] = &[
    (&["spp"], b's', To::Secret),
    (&["expiry"], b'e', To::Value("--ttl")),
];
const ENROLL: &[ClassicOption] = &[
    (&["passcode"], b's', To::Secret),
    (&["app"], b'p', To::Value("--app")),
    (&["device"], b'd', To::Value("--device")),
    (&["namespaces"], b'n', To::Value("--namespaces")),
    (&["expiry"], b'e', To::Value("--life")),
    (&["key-exchange"], 0, To::IgnoredValue),
];
const LIST: &[ClassicOption] = &[
    (&["enrollmentStatus"], b's', To::Value("--status")),
    (&["arx"], b'A', To::Value("--app-pattern")),
    (&["drx"], b'D', To::Value("--device-pattern")),
];
const DECIDE: &[ClassicOption] = &[
    (&["enrollmentId"], b'i', To::Value(ID)),
    (&["arx"], b'A', To::Value("--app-pattern")),
    (&["drx"], b'D', To::Value("--device-pattern")),
    (&["limit"], b'L', To::Value("--limit")),
    (&["approve-existing"], 0, To::Switch("--existing")),
];
const DECRYPT: &[ClassicOption] = &[(&["target-keys"], b't', To::Value(OUT))];
/// Stand for words of ours that are no options.
pub(super) const ATSIGN: &str = "@";
pub(super) const ID: &str = "id";
/// Its value gets the suffix of key files.
pub(super) const OUT: &str = "--out";

/// One classic command.
#[derive(Debug)]
pub(super) struct ClassicCommand {
    /// `approve`
    pub name: &'static str,
    /// For the overview.
    pub about: &'static str,
    /// Options beside those that all have.
    pub own: &'static [ClassicOption],
    /// Our words in front of the options, and behind them.
    pub front: &'static [&'static str],
    pub behind: &'static [&'static str],
}

const fn command(
    name: &'static str,
    about: &'static str,
    own: &'static [ClassicOption],
    front: &'static [&'static str],
) -> ClassicCommand {
    ClassicCommand {
        name,
        about,
        own,
        front,
        behind: &[],
    }
}

#[rustfmt::skip]
pub(super) const COMMANDS: &[ClassicCommand] = &[
    command("status", "show whether an atSign is activated (exit codes 0 to 4)", &[], &["status"]),
    command("onboard", "make the first keys of an atSign", ONBOARD, &["activate"]),
    command("otp", "make a passcode for one request", OTP, &["enroll", "otp"]),
    command("spp", "set a passcode for many requests", SPP, &["enroll", "spp"]),
    // The original waits without end; a request lives for two days.
    ClassicCommand {
        behind: &["--timeout", "172800"],
        ..command("enroll", "get keys for this device", ENROLL, &["enroll"])
    },
    command("interactive", "read commands from stdin until exit or quit", &[], &[]),
    command("list", "list enrolments", LIST, &["enroll", "list"]),
    command("fetch", "show one enrolment", DECIDE, &["enroll", "list"]),
    ClassicCommand {
        behind: &["--yes"],
        ..command("approve", "approve pending requests", DECIDE, &["enroll", "approve"])
    },
    command("auto", "wait for requests, and approve those that match", DECIDE, &["enroll", "auto"]),
    command("deny", "refuse pending requests", DECIDE, &["enroll", "deny"]),
    command("revoke", "revoke enrolments: their keys stop working", DECIDE, &["enroll", "revoke"]),
    command("unrevoke", "restore revoked enrolments", DECIDE, &["enroll", "unrevoke"]),
    command("delete", "delete denied or revoked enrolments", DECIDE, &["enroll", "delete"]),
    command("decrypt", "write a copy of a key file without its pass phrase", DECRYPT, &["keys", "unprotect"]),
];

/// What `at_activate help` prints.
pub(super) fn overview() -> String {
    let mut text =
        "Usage: at_activate COMMAND -a @you [-k KEYFILE] [-r ROOT] …, where COMMAND is".to_owned();
    for command in COMMANDS {
        text += &format!("\n  {:<11}  {}", command.name, command.about);
    }
    text + "\n  version      print the version\nat_activate COMMAND --help lists its options.\n\
            Without a command: onboard."
}

/// What `--help` behind a command prints.
pub(super) fn help(command: &'static ClassicCommand) -> String {
    let ClassicCommand {
        name, about, front, ..
    } = command;
    let mut text = format!("Usage: at_activate {name} -a @you …\n{about}");
    if !front.is_empty() && *name != "status" {
        text += &format!("\nThe same as: noports {} @you …", front.join(" "));
    }
    text += "\n\nOptions:";
    let own = command.own.iter();
    let shared = SHARED.iter().chain(COMMON).filter(|row| {
        let taken = |own: &ClassicOption| own.0 == row.0 || (row.1 != 0 && own.1 == row.1);
        !command.own.iter().any(taken)
    });
    let mut listed: Vec<&str> = Vec::new();
    for (names, letter, to) in own.chain(shared) {
        if listed.contains(&names[0]) {
            continue;
        }
        listed.push(names[0]);
        let letter = match letter {
            0 => "    ".to_owned(),
            letter => format!("-{}, ", char::from(*letter)),
        };
        let (value, means) = option_meaning(*to);
        let option = format!("{letter}--{}{value}", names[0]);
        text += format!("\n  {option:<34}  {means}").trim_end();
    }
    text
}

/// An option's value in help, and what it is here.
fn option_meaning(to: To) -> (&'static str, String) {
    match to {
        To::Value(ATSIGN) => (" ATSIGN", "the atSign".to_owned()),
        To::Value(ID) => (" ID", "id of the enrolment".to_owned()),
        To::Value(ours) | To::Values(ours) | To::Number(ours) | To::List(ours) => {
            (" VALUE", format!("here {ours}"))
        }
        To::Switch(ours) => ("", format!("here {ours}")),
        To::Secret => (
            " SECRET",
            "here from a file, the environment or stdin".to_owned(),
        ),
        To::Phrase => (" PHRASE", "here --passphrase-file".to_owned()),
        To::Given => ("", "always on".to_owned()),
        To::IgnoredValue | To::Ssh | To::Choice(_) | To::Config => {
            (" VALUE", "no effect".to_owned())
        }
        To::Unset(_) | To::Key | To::Help | To::Version => ("", String::new()),
    }
}
