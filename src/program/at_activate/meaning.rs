//! What a classic command line asks for, in our words.

use std::process::ExitCode;

use super::{
    commands::{ATSIGN, COMMANDS, ClassicCommand, ID, OUT, SHARED, help, overview},
    status,
};
use crate::{
    cli::{
        self, Console, Failure, Given,
        classic::{COMMON, Translated, read, unknown},
        exit,
    },
    program::{activate, enroll, keys},
};

/// What its messages call it.
pub(super) const NAME: &str = "at_activate";

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum CommandMeaning {
    /// Our words, and the secrets.
    Run(Vec<String>, Given),
    /// All commands, or one.
    Help(Option<&'static ClassicCommand>),
    Version,
    /// Commands from stdin, each with these words in front; whether a phrase is among them.
    Interactive(Vec<String>, bool),
}

impl CommandMeaning {
    /// Does it; `Err` holds the words in front of each command, where commands are to come from stdin.
    pub(super) fn run(self) -> Result<ExitCode, Vec<String>> {
        match self {
            Self::Run(ours, given) => return Ok(run_ours(&ours, given)),
            Self::Help(command) => cli::print_out(&command.map_or_else(overview, help)),
            Self::Version => cli::print_out(concat!("Version: ", env!("CARGO_PKG_VERSION"))),
            Self::Interactive(before, _) => return Err(before),
        }
        Ok(ExitCode::from(exit::FINE))
    }

    pub(super) fn shows_secrets(&self) -> bool {
        match self {
            Self::Run(_, given) => given.secret.is_some() || given.phrase.is_some(),
            Self::Interactive(_, secrets) => *secrets,
            _ => false,
        }
    }
}

/// Its own failures are told under its own name.
pub(super) fn console() -> Console {
    Console::new(NAME)
}

pub(super) fn run_ours(ours: &[String], given: Given) -> ExitCode {
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

pub(super) fn translate(words: &[&str]) -> Result<CommandMeaning, Failure> {
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
        let read = read(&[SHARED, COMMON], rest, |word| {
            Err(unknown(&[SHARED, COMMON], word))
        })?;
        let before = rest.iter().map(|&word| word.to_owned()).collect();
        return Ok(CommandMeaning::Interactive(
            before,
            read.given.phrase.is_some(),
        ));
    }
    let tables = [command.own, SHARED, COMMON];
    let read = read(&tables, rest, |word| Err(unknown(&tables, word)))?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::at_activate::meaning::*;

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
