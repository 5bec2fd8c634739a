//! Services that other people have of their own, for root: a package is upgraded and removed for everybody.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use async_std::{future::timeout, task::block_on};

use super::{file, init::MANAGERS, process::words_of, programs::Program, state::installed_for};
use crate::{
    cli::Failure,
    sys::user::{self, Person},
};

/// For everything of one person. A service manager gives each service a minute and a half to end.
const PATIENCE: Duration = Duration::from_secs(180);

/// Everybody but root who has services of their own.
fn people() -> Vec<Person> {
    let mut people = user::everybody();
    people.retain(|person| {
        let own = MANAGERS
            .into_iter()
            .filter(|manager| !manager.is_for_the_machine());
        let mut own = own.flat_map(|manager| installed_for(manager, None, person));
        person.uid != 0 && own.next().is_some()
    });
    people
}

/// Does this with everybody's own services, each as that person; `tell` hears what it says.
///
/// # Errors
/// Whose services it could not be done with.
pub fn act(words: &[&str], tell: impl Fn(&str)) -> Result<(), Failure> {
    let executable = own_file()?;
    let mut failed = Vec::new();
    for person in people() {
        let mut command = person.command(&executable);
        command.args(words);
        let done = output_within(command, PATIENCE);
        let said = match &done {
            Ok(done) => String::from_utf8_lossy(&done.stderr).into_owned(),
            Err(why) => why.to_string(),
        };
        for line in said.lines() {
            tell(&format!("{}: {line}", person.name));
        }
        if !done.is_ok_and(|done| done.status.success()) {
            failed.push(person.name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::plain(format!(
        "not done for {}",
        failed.join(", ")
    )))
}

/// What a command says; one that takes longer is ended. Anything may be in the way of somebody else's own services.
fn output_within(command: Command, patience: Duration) -> io::Result<Output> {
    let mut command = async_process::Command::from(command);
    let output = command.kill_on_drop(true).output();
    block_on(timeout(patience, output)).unwrap_or_else(|_| {
        let why = format!("it was not done within {} s", patience.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

/// The file that this program was started from.
///
/// # Errors
/// When the system does not tell.
pub fn own_file() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|why| Failure::plain(format!("cannot find this program's own file: {why}")))
}

/// A process of one of our programs that never end.
#[derive(Debug, PartialEq, Eq)]
pub struct RunningProgram {
    /// Its number.
    pub pid: u32,
    /// Whose it is.
    pub who: String,
    /// Which of our programs.
    pub program: &'static str,
}

/// Those that run this file; or only those that run one which has been replaced or removed since.
pub fn running(file: &Path, only_old: bool) -> Vec<RunningProgram> {
    let (file, old) = (file.to_owned(), file::removed(file));
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = numbers.filter_map(|pid: u32| {
        let runs = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let is_ours = runs == old || (runs == file && !only_old);
        let program = Program::named(words_of(pid)?.get(1)?).filter(|_| is_ours)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let uid = line.split_whitespace().next()?.parse().ok()?;
        let who = user::by_number(uid).map_or_else(|| uid.to_string(), |person| person.name);
        Some(RunningProgram {
            pid,
            who,
            program: program.name,
        })
    });
    ours.filter(|found| found.pid != std::process::id())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_command_that_never_ends_holds_nobody_up() {
        let run = |script: &str, patience| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            output_within(command, patience)
        };
        let said = run("echo done >&2; exit 3", PATIENCE).unwrap();
        assert_eq!(
            (said.stderr, said.status.code()),
            (b"done\n".to_vec(), Some(3))
        );
        for endless in ["exec sleep 1000", "sleep 1000", "while :; do :; done"] {
            let late = run(endless, Duration::from_millis(300)).err().unwrap();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut, "{endless}");
        }
    }
}
