//! Where the activation secret comes from, and where it must not.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Read},
    path::Path,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::{
    at::AtSign,
    cmd::common::{self, Failure},
    secret::Secret,
};

/// Longest activation secret, in bytes; real ones have 128.
const MAX_SECRET: u64 = 4096;
/// Where the secret may come from, beside a file and stdin.
const SECRET_VARIABLE: &str = "NOPORTS_SECRET";
const SECRET_HINT: &str = "use --secret-file FILE, the environment variable NOPORTS_SECRET, or stdin: \
     everybody on this machine can read a command line";

/// Options of this program that take a value.
const WITH_VALUE: [&str; 4] = ["--secret-file", "--keys", "--root", "--ca"];

/// Refuses command lines that seem to hold the secret, without repeating it.
pub fn refuse_secrets(args: &[&str]) -> Result<(), Failure> {
    let mut words = 0;
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        if WITH_VALUE.contains(&arg) {
            args.next();
        } else if arg.starts_with("--secret") || arg.starts_with("--cram") || arg.starts_with("-c")
        {
            return Err(
                Failure::misuse("the secret is never taken from the command line")
                    .hint(SECRET_HINT),
            );
        } else if arg.contains('=') && arg.starts_with('-') {
            return Err(
                Failure::misuse("an option and its value are two words here")
                    .hint("--keys FILE, not --keys=FILE"),
            );
        } else if !arg.starts_with('-') {
            words += 1;
        }
    }
    if words > 1 {
        return Err(Failure::misuse("one atSign is expected, and nothing else").hint(SECRET_HINT));
    }
    Ok(())
}

/// Reads the secret: from this file, else the environment, else stdin.
pub fn read_secret(file: Option<&Path>, who: &AtSign) -> Result<Secret<String>, Failure> {
    let (text, place) = if let Some(file) = file {
        let text = fs::File::open(file).and_then(read_bounded).map_err(|why| {
            Failure::misuse(format!(
                "cannot read the secret in {}: {why}",
                file.display()
            ))
        })?;
        (text, file.display().to_string())
    } else if let Ok(text) = std::env::var(SECRET_VARIABLE) {
        (Secret::new(text), SECRET_VARIABLE.to_owned())
    } else {
        let text = read_typed(who)
            .map_err(|why| Failure::misuse(format!("cannot read the secret from stdin: {why}")))?;
        (text, "stdin".to_owned())
    };
    let secret = Secret::new(text.reveal().trim().to_owned());
    if secret.reveal().is_empty() {
        return Err(Failure::misuse(format!("there is no secret in {place}"))
            .hint("--secret-file FILE, NOPORTS_SECRET, or stdin"));
    }
    Ok(secret)
}

fn read_bounded(from: impl Read) -> io::Result<Secret<String>> {
    let mut text = String::new();
    let read = from.take(MAX_SECRET + 1).read_to_string(&mut text);
    let text = Secret::new(text);
    if read? as u64 > MAX_SECRET {
        return Err(io::Error::other("it is too long to be one"));
    }
    Ok(text)
}

/// One line from stdin; on a terminal it is asked for and not shown.
fn read_typed(who: &AtSign) -> io::Result<Secret<String>> {
    let stdin = io::stdin();
    let hidden = stdin.is_terminal().then(|| {
        common::print_err(&format!("the one-time secret of {who} (it is not shown):"));
        Hidden::new()
    });
    let mut line = String::new();
    let read = stdin.lock().take(MAX_SECRET).read_line(&mut line);
    drop(hidden);
    let line = Secret::new(line);
    read.map(|_| line)
}

/// Switches the terminal's echo off, and on again when dropped.
struct Hidden(Option<Termios>);

impl Hidden {
    fn new() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else {
            return Self(None);
        };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let switched = tcsetattr(io::stdin(), OptionalActions::Flush, &quiet);
        Self(switched.is_ok().then_some(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cmd::common::exit;

    #[test]
    fn a_secret_in_the_command_line_is_refused_and_never_repeated() {
        for args in [
            &["@alice", "--secret", "TOPSECRET"][..],
            &["@alice", "--secret=TOPSECRET"],
            &["@alice", "-c", "TOPSECRET"],
            &["@alice", "-cTOPSECRET"],
            &["@alice", "--cramkey", "TOPSECRET"],
            &["@alice", "TOPSECRET"],
            &["TOPSECRET", "--json", "@alice"],
            &["@alice", "--root", "localhost:6400", "TOPSECRET"],
            &["@alice", "--pass=TOPSECRET"],
        ] {
            let failure = refuse_secrets(args).unwrap_err();
            let told = format!("{failure} {:?}", failure.hint);
            assert!(!told.contains("TOPSECRET"), "{args:?}: {told}");
            assert_eq!(failure.code, exit::MISUSE, "{args:?}");
            assert!(failure.hint.is_some(), "{args:?}");
        }
    }

    #[test]
    fn honest_command_lines_pass() {
        for args in [
            &["@alice"][..],
            &["@alice", "--secret-file", "s", "--json", "-q"],
            &[
                "--root",
                "localhost:6400",
                "--ca",
                "ca.pem",
                "--ca",
                "b.pem",
                "alice",
            ],
            &["--help"],
        ] {
            assert_eq!(refuse_secrets(args), Ok(()), "{args:?}");
        }
    }

    #[test]
    fn a_secret_file_is_trimmed_and_bounded() {
        let file = std::env::temp_dir().join(format!("np-secret-{}", uuid::Uuid::new_v4()));
        let who: AtSign = "@alice".parse().unwrap();
        let long = "x".repeat(MAX_SECRET as usize + 1);
        for (text, want) in [
            ("abc\n", Ok("abc")),
            ("  abc \r\n\n", Ok("abc")),
            ("\n", Err("no secret")),
            (&long, Err("too long")),
        ] {
            fs::write(&file, text).unwrap();
            match (read_secret(Some(&file), &who), want) {
                (Ok(secret), Ok(want)) => assert_eq!(secret.reveal(), want),
                (Err(failure), Err(want)) => {
                    assert!(failure.message.contains(want), "{failure}");
                }
                (got, want) => panic!("{got:?} instead of {want:?}"),
            }
        }
        fs::remove_file(&file).unwrap();
        let missing = read_secret(Some(&file), &who).unwrap_err();
        assert!(missing.message.contains("np-secret-"), "{missing}");
    }
}
