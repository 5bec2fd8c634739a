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

use crate::cli::{
    self, Failure,
    classic::{COMMON, ClassicOption},
};

use commands::{COMMANDS, SHARED};
use meaning::{console, translate};

mod commands;
mod interactive;
mod meaning;
mod status;

/// Each command with a line about it, and its options.
pub(super) fn options()
-> impl Iterator<Item = (&'static str, &'static str, Vec<&'static ClassicOption>)> {
    COMMANDS.iter().map(|command| {
        let all = command.own.iter().chain(SHARED).chain(COMMON);
        (command.name, command.about, all.collect())
    })
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
            let run = meaning.run();
            run.unwrap_or_else(|before| interactive::run(&before))
        }
        Err(failure) => console().finish(false, Err(failure)),
    }
}
