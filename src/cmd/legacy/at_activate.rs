//! The classic `at_activate`: one command per line of the table → `noports activate` and `noports enroll`.
//!
//! ```text
//!   at_activate onboard -a @x -c SECRET            noports activate @x
//!   at_activate otp -a @x                          noports enroll otp @x
//!   at_activate enroll -a @x -s CODE -p noports -d NAME -n sshnp:rw,sshrvd:rw -k FILE
//!   at_activate approve -a @x --arx noports --drx NAME
//! ```
//! Without a command it is `onboard`, as in old scripts. Secrets in the command line are taken, since those
//! scripts have them there, but not without a word about it.
//!
//! Source: at_client_sdk:packages/at_onboarding_cli/lib/src/cli/auth_cli_args.dart.

use std::process::ExitCode;

use super::{COMMON, Row, To, Translated, read, status, unknown};
use crate::cmd::{
    activate,
    common::{self, Failure, Given, exit},
    enroll,
};

const SHARED: &[Row] = &[
    (&["atsign"], b'a', To::Value(ATSIGN)),
    (&["root-server", "rootServer"], b'r', To::Value("--root")),
    (&["keys"], b'k', To::Value("--keys")),
    (&["passPhrase", "pass-phrase"], b'P', To::Phrase),
    (&["debug"], 0, To::Switch("--verbose")),
    (&["mca"], 0, To::IgnoredValue),
    (&["registrarUrl"], b'g', To::IgnoredValue),
    (&["cramkey", "license-key"], b'c', To::IgnoredValue),
    (&["hashingAlgoType"], 0, To::IgnoredValue),
    (&["posture"], 0, To::IgnoredValue),
    (&["max-retries"], 0, To::IgnoredValue),
];
const ONBOARD: &[Row] = &[
    (&["cramkey", "license-key"], b'c', To::Secret),
    (&["yes"], b'y', To::Given),
    (&["allow-bad-registrar-certs"], 0, To::Given),
];
const OTP: &[Row] = &[(&["expiry"], b'e', To::Value("--ttl"))];
const SPP: &[Row] = &[
    (&["spp"], b's', To::Secret),
    (&["expiry"], b'e', To::Value("--ttl")),
];
const ENROLL: &[Row] = &[
    (&["passcode"], b's', To::Secret),
    (&["app"], b'p', To::Value("--app")),
    (&["device"], b'd', To::Value("--device")),
    (&["namespaces"], b'n', To::Value("--namespaces")),
    (&["expiry"], b'e', To::Value("--life")),
    (&["key-exchange"], 0, To::IgnoredValue),
];
const LIST: &[Row] = &[
    (&["enrollmentStatus"], b's', To::Value("--status")),
    (&["arx"], b'A', To::Value("--app")),
    (&["drx"], b'D', To::Value("--device")),
];
const DECIDE: &[Row] = &[
    (&["enrollmentId"], b'i', To::Value(ID)),
    (&["arx"], b'A', To::Value("--app")),
    (&["drx"], b'D', To::Value("--device")),
    (&["limit"], b'L', To::Value("--limit")),
    (&["approve-existing"], 0, To::Switch("--existing")),
];
/// Stand for words of ours that are no options.
const ATSIGN: &str = "@";
const ID: &str = "id";

/// (classic command, its options, our words in front, our words behind)
type Command = (
    &'static str,
    &'static [Row],
    &'static [&'static str],
    &'static [&'static str],
);
const COMMANDS: &[Command] = &[
    ("onboard", ONBOARD, &["activate"], &[]),
    ("status", &[], &["status"], &[]),
    ("otp", OTP, &["enroll", "otp"], &[]),
    ("spp", SPP, &["enroll", "spp"], &[]),
    // The original waits without end; a request lives for two days.
    ("enroll", ENROLL, &["enroll"], &["--timeout", "172800"]),
    ("list", LIST, &["enroll", "list"], &[]),
    ("fetch", DECIDE, &["enroll", "list"], &[]),
    ("approve", DECIDE, &["enroll", "approve"], &["--yes"]),
    ("auto", DECIDE, &["enroll", "auto"], &[]),
    ("deny", DECIDE, &["enroll", "deny"], &[]),
    ("revoke", DECIDE, &["enroll", "revoke"], &[]),
    ("unrevoke", DECIDE, &["enroll", "unrevoke"], &[]),
    ("delete", DECIDE, &["enroll", "delete"], &[]),
];

/// Runs the classic command line.
pub fn main(words: &[&str]) -> ExitCode {
    let (ours, given) = match translate(words) {
        Ok(translated) => translated,
        Err(failure) => return common::finish("at_activate", false, Err(failure)),
    };
    if given.secret.is_some() || given.phrase.is_some() {
        common::print_err(
            "at_activate: everybody on this machine can read a secret in the command line",
        );
    }
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    match ours.split_first() {
        Some((&"activate", rest)) => activate::main_given("noports activate", rest, given),
        Some((&"enroll", rest)) => enroll::main_given("noports enroll", rest, given),
        Some((&"status", rest)) => status::main(rest),
        _ => help(),
    }
}

/// Our program's name and words, and the secrets.
fn translate(words: &[&str]) -> Result<(Vec<String>, Given), Failure> {
    let (name, rest) = match words.split_first() {
        Some((word, rest)) if !word.starts_with('-') => (*word, rest),
        Some((&"-h" | &"--help", _)) | None => ("help", words),
        Some(_) => ("onboard", words),
    };
    if name == "help" {
        return Ok(<(Vec<String>, Given)>::default());
    }
    let command = COMMANDS.iter().find(|row| row.0 == name);
    let (_, own, front, behind) = command.ok_or_else(|| {
        Failure::misuse(format!("Unknown command: {name}")).hint("at_activate help")
    })?;
    let read = read(&[own, SHARED, COMMON], rest, |word| Err(unknown(word)))?;
    let Translated {
        mut ours, given, ..
    } = read;
    let mut words: Vec<String> = front.iter().map(|&word| word.to_owned()).collect();
    for place in [ATSIGN, ID] {
        let at = ours.iter().position(|(name, _)| *name == place);
        words.extend(at.and_then(|at| ours.remove(at).1));
    }
    for (name, value) in ours {
        words.push(name.to_owned());
        words.extend(value);
    }
    words.extend(behind.iter().map(|&word| word.to_owned()));
    Ok((words, given))
}

fn help() -> ExitCode {
    let mut text =
        "at_activate COMMAND -a @you [-k KEYFILE] [-r ROOT] …, where COMMAND is".to_owned();
    for (name, _, front, _) in COMMANDS {
        text += &match *name {
            "status" => {
                "\n  status    tells how far an atSign is, also as its exit code".to_owned()
            }
            _ => format!("\n  {name:<9} noports {}", front.join(" ")),
        };
    }
    common::print_out(&text);
    ExitCode::from(exit::FINE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn classic_commands_become_ours_and_secrets_stay_apart() {
        for (words, want, secret, phrase) in [
            (
                "onboard -a @x -c S -r localhost -y",
                "activate @x --root localhost",
                "S",
                "",
            ),
            ("-c S -a @x", "activate @x", "S", ""),
            ("status -a @x", "status @x", "", ""),
            ("otp -a @d -e 1h", "enroll otp @d --ttl 1h", "", ""),
            ("spp -s abcdef -a @d", "enroll spp @d", "abcdef", ""),
            (
                "enroll -a @d -s A1B2C3 -p noports -k f -d n -n sshnp:rw,sshrvd:rw -P open",
                "enroll @d --app noports --keys f --device n --namespaces sshnp:rw,sshrvd:rw --timeout 172800",
                "A1B2C3",
                "open",
            ),
            (
                "list -a @d -s pending --arx a",
                "enroll list @d --status pending --app a",
                "",
                "",
            ),
            ("fetch -i e-1 -a @d", "enroll list @d e-1", "", ""),
            (
                "approve -a @d --arx noports --drx NAME",
                "enroll approve @d --app noports --device NAME --yes",
                "",
                "",
            ),
            (
                "auto -a @d -A noports -D p -L 1 --approve-existing",
                "enroll auto @d --app noports --device p --limit 1 --existing",
                "",
                "",
            ),
            ("deny -i e-1 -a @d", "enroll deny @d e-1", "", ""),
            (
                "revoke --enrollmentId=e-1 -a@d -v",
                "enroll revoke @d e-1 --verbose",
                "",
                "",
            ),
            ("unrevoke -a @d -i e-1", "enroll unrevoke @d e-1", "", ""),
            (
                "delete -a @d -i e-1 -k /k",
                "enroll delete @d e-1 --keys /k",
                "",
                "",
            ),
            ("help", "", "", ""),
            ("--help", "", "", ""),
        ] {
            let split: Vec<&str> = words.split(' ').collect();
            let (ours, given) = translate(&split).unwrap();
            let text = |secret: &Option<crate::secret::Secret<String>>| {
                secret
                    .as_ref()
                    .map_or(String::new(), |s| s.reveal().clone())
            };
            let got = (ours.join(" "), text(&given.secret), text(&given.phrase));
            assert_eq!(got, (want.into(), secret.into(), phrase.into()), "{words}");
        }
    }

    #[test]
    fn what_nobody_knows_is_refused_by_name() {
        for (words, want) in [
            (
                &["interactive", "-a", "@x"][..],
                "Unknown command: interactive",
            ),
            (&["otp", "-a"], "Missing argument for \"atsign\"."),
            (
                &["otp", "--nope"],
                "Could not find an option named \"nope\".",
            ),
            (&["otp", "left"], "Could not find an option named \"left\"."),
        ] {
            assert_eq!(translate(words).unwrap_err().message, want, "{words:?}");
        }
    }
}
