//! The commands of service managers, and what they say when they fail.

use std::{
    io,
    path::Path,
    process::{Command, Output, Stdio},
};

use super::quote;
use crate::cli::Failure;

/// One command of the service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerCommand {
    words: Vec<String>,
    /// Its failure is no failure of ours.
    pub(super) optional: bool,
}

/// A command whose failure is one.
pub fn command(words: &[&str]) -> ManagerCommand {
    ManagerCommand {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        optional: false,
    }
}

impl ManagerCommand {
    /// One whose failure is none.
    pub fn or_not(mut self) -> Self {
        self.optional = true;
        self
    }

    /// As a person would type it.
    pub fn shown(&self) -> String {
        quote::line(&self.words, quote::shell)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// What was run, and what it said.
    pub fn run(&self) -> Result<(), String> {
        let said = match output(&self.words, None) {
            Ok(done) if done.status.success() => return Ok(()),
            _ if self.optional => return Ok(()),
            Ok(done) => first_line(&done.stderr).unwrap_or_else(|| done.status.to_string()),
            Err(why) => why.to_string(),
        };
        Err(format!("{}: {said}", self.shown()))
    }
}

/// Does one after the other, up to the first that fails.
///
/// # Errors
/// What that one said.
pub fn run(commands: &[ManagerCommand]) -> Result<(), Failure> {
    commands
        .iter()
        .try_for_each(|command| command.run().map_err(Failure::plain))
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started.
pub fn output<S: AsRef<str>>(words: &[S], input: Option<&str>) -> io::Result<Output> {
    let Some((program, rest)) = words.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut command = Command::new(program.as_ref());
    command
        .args(rest.iter().map(AsRef::as_ref))
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Asked from cron or through su, systemctl --user does not know where its manager is.
    let bus = format!("/run/user/{}", rustix::process::geteuid().as_raw());
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() && Path::new(&bus).exists() {
        command.env("XDG_RUNTIME_DIR", bus);
    }
    let mut child = command.spawn()?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        match io::Write::write_all(&mut stdin, text.as_bytes()) {
            // It does not want to hear it; why not is what it says itself.
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => {}
            done => done?,
        }
    }
    child.wait_with_output()
}

fn first_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::service::command::*;

    #[test]
    fn a_command_that_does_not_listen_is_heard() {
        let text = "x".repeat(1 << 20);
        let done = output(&["sh", "-c", "echo not for you >&2; exit 3"], Some(&text)).unwrap();
        assert_eq!(done.status.code(), Some(3));
        assert_eq!(first_line(&done.stderr).unwrap(), "not for you");
    }

    #[test]
    fn a_command_that_fails_says_which_and_why() {
        let failed = command(&[
            "sh",
            "-c",
            "echo >&2; echo the reason >&2; echo See more >&2; exit 3",
        ]);
        let why = failed.run().unwrap_err();
        assert!(why.ends_with(": the reason"), "{why}");
        assert!(failed.or_not().run().is_ok());
        let missing = command(&["/no/such/program", "a b"]).run().unwrap_err();
        assert!(missing.starts_with("/no/such/program 'a b': "), "{missing}");
    }
}
