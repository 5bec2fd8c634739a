//! The classic `at_activate`: one command per line of the table → `noports activate` and `noports enroll`.
//!
//! ```text
//!   at_activate onboard -a @x -c SECRET            noports activate @x
//!   at_activate otp -a @x                          noports enroll otp @x
//!   at_activate enroll -a @x -s CODE -p noports -d NAME -n sshnp:rw,sshrvd:rw -k FILE
//!   at_activate approve -a @x --arx noports --drx NAME
//! ```
//! Without a command it is `onboard`, as in old scripts. Secrets in the command line are taken, since those
//! scripts have them there, but not without a word about it. What scripts read on stdout is as it was: a code by
//! itself, `Enrollment ID: …`, `Approved …`, the columns of `list`. A decision for which nothing fits is no failure.
//!
//! `--arx` and `--drx` are patterns that any part of a name may fit, as in the original. It grants by them whatever
//! is meaning for, and says nothing; here `*` and `__manage`, which reach all of the atSign, are granted to the one
//! request that is named by its id (`-i`), never by a pattern.
//! Exit codes are those of our programs, but for `status`, which has its own.
//!
//! Source: at_client_sdk:packages/at_onboarding_cli/lib/src/cli/auth_cli_args.dart.

use std::process::ExitCode;

use super::{activate, enroll, keys};
use crate::cli::{
    self, Console, Failure, Given,
    classic::{COMMON, Row, To, Translated, read, unknown},
    exit,
};

mod interactive;
mod status;

const SHARED: &[Row] = &[
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
    (&["arx"], b'A', To::Value("--app-pattern")),
    (&["drx"], b'D', To::Value("--device-pattern")),
];
const DECIDE: &[Row] = &[
    (&["enrollmentId"], b'i', To::Value(ID)),
    (&["arx"], b'A', To::Value("--app-pattern")),
    (&["drx"], b'D', To::Value("--device-pattern")),
    (&["limit"], b'L', To::Value("--limit")),
    (&["approve-existing"], 0, To::Switch("--existing")),
];
const DECRYPT: &[Row] = &[(&["target-keys"], b't', To::Value(OUT))];
/// In messages.
const NAME: &str = "at_activate";
/// Stand for words of ours that are no options.
const ATSIGN: &str = "@";
const ID: &str = "id";
/// Its value gets the suffix of key files.
const OUT: &str = "--out";

/// One classic command.
#[derive(Debug)]
struct ClassicCommand {
    name: &'static str,
    /// For the overview.
    about: &'static str,
    /// Options beside those that all have.
    own: &'static [Row],
    /// Our words in front of the options, and behind them.
    front: &'static [&'static str],
    behind: &'static [&'static str],
}

const fn command(
    name: &'static str,
    about: &'static str,
    own: &'static [Row],
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
const COMMANDS: &[ClassicCommand] = &[
    command("status", "how far an atSign is; the exit code tells, 0 to 4", &[], &["status"]),
    command("onboard", "make the first keys of an atSign", ONBOARD, &["activate"]),
    command("otp", "make a code for one request", OTP, &["enroll", "otp"]),
    command("spp", "set a code for many requests", SPP, &["enroll", "spp"]),
    // The original waits without end; a request lives for two days.
    ClassicCommand {
        behind: &["--timeout", "172800"],
        ..command("enroll", "ask for keys of its own for this device", ENROLL, &["enroll"])
    },
    command("interactive", "take commands from stdin, until exit, quit or its end", &[], &[]),
    command("list", "show enrolments", LIST, &["enroll", "list"]),
    command("fetch", "show one enrolment", DECIDE, &["enroll", "list"]),
    ClassicCommand {
        behind: &["--yes"],
        ..command("approve", "grant requests that wait", DECIDE, &["enroll", "approve"])
    },
    command("auto", "wait for requests, and approve those that fit", DECIDE, &["enroll", "auto"]),
    command("deny", "refuse requests that wait", DECIDE, &["enroll", "deny"]),
    command("revoke", "take enrolments back", DECIDE, &["enroll", "revoke"]),
    command("unrevoke", "give them back", DECIDE, &["enroll", "unrevoke"]),
    command("delete", "forget a denied or revoked one", DECIDE, &["enroll", "delete"]),
    command("decrypt", "copy a key file without its pass phrase", DECRYPT, &["keys", "unprotect"]),
];

/// What a command line asks for.
#[derive(Debug)]
enum CommandMeaning {
    /// Our words, and the secrets.
    Run(Vec<String>, Given),
    /// All commands, or one.
    Help(Option<&'static ClassicCommand>),
    Version,
    /// Commands from stdin, each with these words in front; whether a phrase is among them.
    Interactive(Vec<String>, bool),
}

/// Runs the classic command line.
pub fn main(words: &[&str]) -> ExitCode {
    if words.is_empty() {
        let failure = Failure::misuse("You must supply a command.").hint("at_activate help");
        return console().finish(false, Err(failure));
    }
    match translate(words) {
        Ok(meaning) => {
            if meaning.shows_secrets() {
                cli::print_err(
                    "at_activate: everybody on this machine can read a secret in the command line",
                );
            }
            run(meaning)
        }
        Err(failure) => console().finish(false, Err(failure)),
    }
}

impl CommandMeaning {
    fn shows_secrets(&self) -> bool {
        match self {
            Self::Run(_, given) => given.secret.is_some() || given.phrase.is_some(),
            Self::Interactive(_, secrets) => *secrets,
            _ => false,
        }
    }
}

fn run(meaning: CommandMeaning) -> ExitCode {
    match meaning {
        CommandMeaning::Run(ours, given) => run_ours(&ours, given),
        CommandMeaning::Help(command) => {
            cli::print_out(&command.map_or_else(overview, help));
            ExitCode::from(exit::FINE)
        }
        CommandMeaning::Version => {
            cli::print_out(concat!("Version: ", env!("CARGO_PKG_VERSION")));
            ExitCode::from(exit::FINE)
        }
        CommandMeaning::Interactive(before, _) => interactive::run(&before),
    }
}

/// Its own failures are told under its own name.
fn console() -> Console {
    Console::new(NAME)
}

fn run_ours(ours: &[String], given: Given) -> ExitCode {
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    let console = |program: &str| Console::new("noports").word(program).with(given);
    match ours.split_first() {
        Some((&"activate", rest)) => activate::main(console("activate"), rest),
        Some((&"enroll", rest)) => enroll::main(console("enroll"), rest),
        Some((&"keys", rest)) => keys::main(console("keys"), rest),
        Some((_, rest)) => status::main(rest),
        None => ExitCode::from(exit::MISUSE),
    }
}

fn translate(words: &[&str]) -> Result<CommandMeaning, Failure> {
    let (name, rest) = match words.split_first() {
        Some((word, rest)) if !word.starts_with('-') => (*word, rest),
        Some((&"-h" | &"--help", _)) | None => return Ok(CommandMeaning::Help(None)),
        Some((&"--version", _)) => return Ok(CommandMeaning::Version),
        Some(_) => ("onboard", words),
    };
    match name {
        "help" => return Ok(CommandMeaning::Help(None)),
        "version" => return Ok(CommandMeaning::Version),
        _ => {}
    }
    let command = COMMANDS.iter().find(|row| row.name == name);
    let command = command.ok_or_else(|| {
        Failure::misuse(format!("Unknown command: {name}")).hint("at_activate help")
    })?;
    if rest.iter().any(|word| matches!(*word, "-h" | "--help")) {
        return Ok(CommandMeaning::Help(Some(command)));
    }
    if name == "interactive" {
        // Refused now rather than with every command.
        let read = read(&[SHARED, COMMON], rest, |word| Err(unknown(word)))?;
        let before = rest.iter().map(|&word| word.to_owned()).collect();
        return Ok(CommandMeaning::Interactive(
            before,
            read.given.phrase.is_some(),
        ));
    }
    let read = read(&[command.own, SHARED, COMMON], rest, |word| {
        Err(unknown(word))
    })?;
    let Translated {
        mut ours,
        mut given,
        ..
    } = read;
    given.classic = true;
    let mut words: Vec<String> = command.front.iter().map(|&word| word.to_owned()).collect();
    for place in [ATSIGN, ID] {
        let at = ours.iter().position(|(name, _)| *name == place);
        words.extend(at.and_then(|at| ours.remove(at).1));
    }
    for (name, value) in ours {
        words.push(name.to_owned());
        words.extend(value.map(|value| match name {
            OUT => with_suffix(value),
            _ => value,
        }));
    }
    words.extend(command.behind.iter().map(|&word| word.to_owned()));
    Ok(CommandMeaning::Run(words, given))
}

/// The original takes care that the copy is recognised as a key file.
fn with_suffix(file: String) -> String {
    if file.ends_with(".atKeys") {
        file
    } else {
        file + ".atKeys"
    }
}

fn overview() -> String {
    let mut text =
        "usage: at_activate COMMAND -a @you [-k KEYFILE] [-r ROOT] …, where COMMAND is".to_owned();
    for command in COMMANDS {
        text += &format!("\n  {:<11}  {}", command.name, command.about);
    }
    text + "\n  version      print the version\nat_activate COMMAND --help tells its options, and what is the same here.\n\
            Without a command it is onboard."
}

fn help(command: &'static ClassicCommand) -> String {
    let ClassicCommand {
        name, about, front, ..
    } = command;
    let mut text = format!("usage: at_activate {name} -a @you …\n{about}");
    if !front.is_empty() {
        text += &format!("\nthe same as: noports {} @you …", front.join(" "));
    }
    text += "\n\noptions:";
    let own = command.own.iter();
    let shared = SHARED.iter().chain(COMMON).filter(|row| {
        let taken = |own: &Row| own.0 == row.0 || (row.1 != 0 && own.1 == row.1);
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
        To::Value(ID) => (" ID", "which enrolment".to_owned()),
        To::Value(ours) | To::Values(ours) | To::Number(ours) | To::List(ours) => {
            (" VALUE", format!("here {ours}"))
        }
        To::Switch(ours) => ("", format!("here {ours}")),
        To::Secret => (
            " SECRET",
            "here from a file, the environment or stdin".to_owned(),
        ),
        To::Phrase => (" PHRASE", "here --passphrase-file".to_owned()),
        To::Given => ("", "taken, and always so".to_owned()),
        To::IgnoredValue | To::Ssh | To::Choice(_) | To::Config => {
            (" VALUE", "taken, of no effect".to_owned())
        }
        To::Unset(_) | To::Key | To::Help | To::Version => ("", String::new()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::at_activate::*;

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
                "enroll list @d --status pending --app-pattern a",
                "",
                "",
            ),
            ("fetch -i e-1 -a @d", "enroll list @d e-1", "", ""),
            (
                "approve -a @d --arx noports --drx NAME",
                "enroll approve @d --app-pattern noports --device-pattern NAME --yes",
                "",
                "",
            ),
            (
                "auto -a @d -A noports -D p -L 1 --approve-existing",
                "enroll auto @d --app-pattern noports --device-pattern p --limit 1 --existing",
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
            (
                "delete -a @d --enrollmentId e-1 --root-server r:1 --passPhrase x --debug",
                "enroll delete @d e-1 --root r:1 --verbose",
                "",
                "x",
            ),
            (
                "decrypt -a @d -P x -k f -t plain",
                "keys unprotect @d --keys f --out plain.atKeys",
                "",
                "x",
            ),
            (
                "decrypt -a @d --target-keys p.atKeys",
                "keys unprotect @d --out p.atKeys",
                "",
                "",
            ),
        ] {
            let split: Vec<&str> = words.split(' ').collect();
            let Ok(CommandMeaning::Run(ours, given)) = translate(&split) else {
                panic!("{words}");
            };
            assert!(given.classic, "{words}");
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
            (&["onbord", "-a", "@x"][..], "Unknown command: onbord"),
            (
                &["interactive", "-s", "x"],
                "Could not find an option or flag \"-s\".",
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

    /// Every command with every option that the original's own has, by each of its names.
    #[test]
    fn every_option_of_every_command_is_taken() {
        const ALL: &[&str] = &[
            "-a @x",
            "--atsign @x",
            "-r h",
            "--root-server h",
            "--rootServer=h",
            "-k f",
            "--keys f",
            "-v",
            "--verbose",
            "--debug",
            "--mca 3",
            "-g url",
            "--registrarUrl url",
            "-c S",
            "--cramkey S",
            "--license-key S",
            "-P p",
            "--passPhrase p",
            "--hashingAlgoType argon2id",
            "--posture legacy",
        ];
        const BY_REGEX: &[&str] = &[
            "-i e",
            "--enrollmentId e",
            "--arx a",
            "-A a",
            "--drx d",
            "-D d",
        ];
        let rows: &[(&str, &[&str])] = &[
            ("status", &[]),
            (
                "onboard",
                &[
                    "-y",
                    "--yes",
                    "--max-retries 5",
                    "--allow-bad-registrar-certs",
                ],
            ),
            ("otp", &["-e 1h", "--expiry 1h"]),
            (
                "spp",
                &["-s abcdef", "--spp abcdef", "-e 1h", "--expiry 1h"],
            ),
            (
                "enroll",
                &[
                    "-s C",
                    "--passcode C",
                    "-p app",
                    "--app app",
                    "-d dev",
                    "--device dev",
                    "-n x:rw",
                    "--namespaces x:rw",
                    "-e 1h",
                    "--expiry 1h",
                    "--max-retries 5",
                    "--key-exchange legacy",
                ],
            ),
            ("interactive", &[]),
            (
                "list",
                &[
                    "-s pending",
                    "--enrollmentStatus pending",
                    "-A a",
                    "--drx d",
                ],
            ),
            ("fetch", &["-i e", "--enrollmentId e"]),
            ("approve", BY_REGEX),
            (
                "auto",
                &["-A a", "-D d", "-L 2", "--limit 2", "--approve-existing"],
            ),
            ("deny", BY_REGEX),
            ("revoke", BY_REGEX),
            ("unrevoke", BY_REGEX),
            ("delete", &["-i e", "--enrollmentId e"]),
            ("decrypt", &["-t f", "--target-keys f"]),
        ];
        assert_eq!(rows.len(), COMMANDS.len());
        for (command, own) in rows {
            for option in ALL.iter().chain(*own) {
                let words = format!("{command} {option}");
                let words: Vec<&str> = words.split(' ').collect();
                assert!(translate(&words).is_ok(), "{words:?}");
            }
        }
    }

    #[test]
    fn every_command_explains_itself() {
        for words in [&["help"][..], &["-h"], &["--help"]] {
            assert!(
                matches!(translate(words), Ok(CommandMeaning::Help(None))),
                "{words:?}"
            );
        }
        for words in [&["version"][..], &["--version"]] {
            assert!(
                matches!(translate(words), Ok(CommandMeaning::Version)),
                "{words:?}"
            );
        }
        for row in COMMANDS {
            assert!(
                overview().contains(&format!("  {} ", row.name)),
                "{}",
                row.name
            );
            for flag in ["-h", "--help"] {
                let meaning = translate(&[row.name, flag]);
                let Ok(CommandMeaning::Help(Some(command))) = meaning else {
                    panic!("{}: {meaning:?}", row.name);
                };
                let text = help(command);
                assert!(text.contains("-a, --atsign ATSIGN"), "{text}");
                assert_eq!(
                    text.matches(" -s, ").count() as u8,
                    row.own.iter().filter(|r| r.1 == b's').count() as u8,
                    "{text}"
                );
                assert!(
                    text.lines().all(|line| line.chars().count() <= 80),
                    "{text}"
                );
            }
        }
    }
}
