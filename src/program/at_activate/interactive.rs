//! `at_activate interactive`: one command after the other from stdin, all with the options of the first line.
//!
//! ```text
//!   at_activate interactive -a @x -k FILE
//!   $ list -s pending            the same as  at_activate list -a @x -k FILE -s pending
//!   $ approve -i c3a9f7d2-…
//!   $ exit
//! ```
//! The prompt is on stderr, so that stdout holds results only. Each command logs in by itself: a session that is
//! left open for hours depends on no connection.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
};

use crate::{
    at::AtSign,
    cli::{self, Failure, exit, keystore},
    secret::Secret,
};

use super::meaning::{CommandMeaning, NAME, console, run_ours, translate};

/// Longest line, in bytes.
const MAX_LINE: u64 = 64 * 1024;
const END: &str = "Type \"exit\" or \"quit\" to end the interactive session.";

/// Runs commands until `exit`, `quit` or the end of the input.
pub(super) fn run(before: &[String]) -> ExitCode {
    let phrase = match phrase(before) {
        Ok(phrase) => phrase,
        Err(failure) => return console().finish(false, Err(failure)),
    };
    cli::print_err(END);
    let mut line = String::new();
    loop {
        prompt();
        line.clear();
        // Not locked for longer: a command may read from stdin, too.
        match io::stdin().lock().take(MAX_LINE).read_line(&mut line) {
            Ok(0) => return ExitCode::from(exit::FINE),
            Ok(_) => {}
            Err(why) => {
                cli::print_err(&format!("{NAME}: cannot read stdin: {why}"));
                return ExitCode::from(exit::FAILED);
            }
        }
        match read(before, &line) {
            TypedLine::Empty => {}
            TypedLine::End => return ExitCode::from(exit::FINE),
            TypedLine::Refused(why) => cli::print_err(&why),
            TypedLine::Run(words) => act(&words, phrase.as_ref()),
        }
    }
}

/// Runs one; it tells by itself how that went.
fn act(words: &[String], phrase: Option<&Secret<String>>) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match translate(&words) {
        Ok(CommandMeaning::Run(ours, mut given)) => {
            given.phrase = given.phrase.or_else(|| phrase.cloned());
            run_ours(&ours, given);
        }
        Ok(meaning) => {
            if matches!(meaning, CommandMeaning::Help(None)) {
                cli::print_err(END);
            }
            // No line asks for commands from stdin: `read` refuses that.
            let _ = meaning.run();
        }
        Err(failure) => {
            console().finish(false, Err(failure));
        }
    }
}

/// Makes sure that there are keys; the phrase that opens them, so that it is meaning for once.
fn phrase(before: &[String]) -> Result<Option<Secret<String>>, Failure> {
    let mut words = vec!["otp"];
    words.extend(before.iter().map(String::as_str));
    let CommandMeaning::Run(ours, given) = translate(&words)? else {
        return Ok(None);
    };
    let who = ours.get(2).filter(|word| !word.starts_with('-'));
    let who = who.ok_or_else(|| Failure::misuse("Option atsign is mandatory."))?;
    let who: AtSign = who.parse()?;
    let keys = ours.iter().position(|word| word == "--keys");
    let keys = keys.and_then(|at| ours.get(at + 1)).map(Path::new);
    let file = cli::key_file(&who, keys)?;
    let phrases = given.phrases(None)?;
    let mut used = None;
    keystore::unlock(&file, &who, || {
        let phrase = phrases.for_reading(&file)?;
        used = Some(phrase.clone());
        Ok::<_, Failure>(phrase)
    })?;
    Ok(used)
}

fn prompt() {
    if io::stderr().is_terminal() {
        let mut err = io::stderr().lock();
        let _ = err.write_all(b"$ ").and_then(|()| err.flush());
    }
}

#[derive(Debug, PartialEq, Eq)]
enum TypedLine {
    Empty,
    End,
    Refused(String),
    Run(Vec<String>),
}

/// `before` comes first, so that an option of the line counts instead of the same one there.
fn read(before: &[String], line: &str) -> TypedLine {
    let mut words = line.split_whitespace();
    let Some(name) = words.next() else {
        return TypedLine::Empty;
    };
    match name {
        "exit" | "quit" => return TypedLine::End,
        "onboard" | "interactive" | "status" | "enroll" | "decrypt" => {
            return TypedLine::Refused(format!(
                "The \"{name}\" command may not be used in interactive session"
            ));
        }
        "help" | "version" => return TypedLine::Run(vec![name.to_owned()]),
        _ if name.starts_with('-') => {
            return TypedLine::Refused(format!("Unknown command: {name}"));
        }
        _ => {}
    }
    let name = std::iter::once(name.to_owned());
    let rest = words.map(str::to_owned);
    TypedLine::Run(name.chain(before.iter().cloned()).chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use crate::program::at_activate::interactive::*;

    #[test]
    fn lines_become_commands_with_the_options_of_the_session() {
        let before = ["-a", "@x"].map(str::to_owned);
        let run = |words: &str| TypedLine::Run(words.split(' ').map(str::to_owned).collect());
        for (line, want) in [
            ("\n", TypedLine::Empty),
            (" exit \n", TypedLine::End),
            ("quit", TypedLine::End),
            ("otp", run("otp -a @x")),
            ("list  -s\tpending\r\n", run("list -a @x -s pending")),
            ("otp -a @y", run("otp -a @x -a @y")),
            ("help", run("help")),
            ("version\n", run("version")),
            (
                "-a @y",
                TypedLine::Refused("Unknown command: -a".to_owned()),
            ),
        ] {
            assert_eq!(read(&before, line), want, "{line:?}");
        }
        for name in ["onboard", "interactive", "status", "enroll", "decrypt"] {
            let refused = read(&before, name);
            assert!(
                matches!(&refused, TypedLine::Refused(why) if why.contains(name)),
                "{refused:?}"
            );
        }
    }
}
