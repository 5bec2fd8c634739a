//! Services of this machine: our programs that never end, in the hands of what starts services here.
//!
//! ```text
//!   words ──plan──▶ Service ──init/*──▶ a file from packaging/services ──▶ the manager's commands
//!                                            │                                     │
//!                    state  ◀── is it ours? ─┘      process ◀── the state file ◀── the running program
//! ```
//!
//! | file | what it knows |
//! | --- | --- |
//! | [`init`] | one file per service manager: where its file is, what it says, how it is told |
//! | [`plan`] | from words to a service: whom it runs as, where it writes, whether it would start |
//! | [`mod@file`] | a file that we did not write is never replaced unasked |
//! | [`state`] | what is here, and how it is |
//! | [`process`] | whether the process that told something is still that process; how it is ended |
//! | [`step`], [`quote`] | commands, and words as shells read them |
//!
//! It uses `sys`, `text` and the failures of `cli`; of the programs it knows what [`PROGRAMS`] says.

use std::path::{Path, PathBuf};

use crate::{cli::Failure, sys::user::Person};

use process::{end_lost, told};
use step::{Step, run};

pub mod file;
pub mod init;
pub mod plan;
pub mod process;
pub mod quote;
pub mod state;
pub mod step;

/// Stands in every file that we wrote; a file without it is left alone.
const MARK: &str = "Written by noports, by the word install. The next install replaces this file.";
/// How far into a file the mark may stand.
const MARK_WITHIN: usize = 600;

/// A program that can be a service.
#[derive(Debug)]
pub struct Program {
    /// Its name among all programs.
    pub name: &'static str,
    /// What stands before its flags.
    pub serve: &'static [&'static str],
    /// One line for people.
    about: &'static str,
    /// Its flags that name files or folders.
    files: &'static [&'static str],
    /// It serves many at a time.
    many: bool,
    /// It may be told to listen on a port below 1024.
    low_ports: bool,
}

/// All of them.
pub static PROGRAMS: [Program; 4] = [
    Program {
        name: "daemon",
        serve: &["daemon"],
        about: "waits on this device for sessions",
        files: &["--config", "--keys", "--ca", "--passphrase-file"],
        many: false,
        low_ports: false,
    },
    Program {
        name: "rendezvous",
        serve: &["rendezvous"],
        about: "joins the two ends of sessions",
        files: &["--config", "--keys", "--ca", "--passphrase-file"],
        many: true,
        low_ports: false,
    },
    Program {
        name: "policy",
        serve: &["policy", "serve"],
        about: "decides who may use which device",
        files: &["--config", "--keys", "--ca", "--passphrase-file", "--rules"],
        many: false,
        low_ports: false,
    },
    Program {
        name: "atserver",
        serve: &["atserver", "serve"],
        about: "hosts atSigns",
        files: &["--config", "--data", "--ca", "--tls-cert", "--tls-key"],
        many: true,
        low_ports: true,
    },
];

impl Program {
    /// The program of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROGRAMS.iter().find(|program| program.name == name)
    }
}

/// A service as its manager sees it.
#[derive(Clone, Debug)]
pub struct Unit {
    /// What the manager calls it: `noports-daemon`.
    pub name: String,
    /// Whom it runs as.
    pub person: Person,
    /// The file that makes it a service.
    pub file: PathBuf,
}

/// A service to be.
#[derive(Clone, Debug)]
pub struct Service {
    /// Which of our programs.
    pub program: &'static Program,
    /// Its name, its file, whom it runs as.
    pub unit: Unit,
    /// The executable, and its words behind it.
    pub executable: PathBuf,
    /// Program and flags.
    pub words: Vec<String>,
    /// Variables, beside that for the state.
    pub environment: Vec<(&'static str, String)>,
    /// Folders that it writes to.
    pub writes: Vec<PathBuf>,
}

/// What a service manager is told to do, by commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start it, now and at every boot; one that runs goes on.
    Start,
    /// The same for a file that has changed; one that runs is started anew.
    Replace,
    /// Start it anew, and nothing else.
    Restart,
    /// End it, and start it no more at boot.
    Stop,
    /// What remains to be done when the file is gone.
    Forget,
}

impl Order {
    /// The order that starts a service.
    pub fn start(changed: bool) -> Self {
        if changed { Self::Replace } else { Self::Start }
    }
}

/// Something that starts services. Whatever it stops, sessions are processes of their own and live on.
pub trait Manager: Sync {
    /// The word of `--init`.
    fn word(&self) -> &'static str;

    /// For the machine, with an account to run as; else for whoever asks.
    fn is_for_the_machine(&self) -> bool;

    /// Whether it runs on this machine, for the person of this number. `exists` looks at files.
    fn is_here(&self, uid: u32, exists: &dyn Fn(&str) -> bool) -> bool;

    /// Where the file of a service of this name belongs.
    fn file(&self, name: &str, person: &Person) -> PathBuf;

    /// What that file says.
    fn render(&self, service: &Service) -> String;

    /// Whether a file of ours in its place is its own: two managers share `/etc/init.d`.
    fn is_its_own(&self, _text: &str) -> bool {
        true
    }

    /// Where the running service tells its state.
    fn state(&self, unit: &Unit) -> PathBuf;

    /// Whether that file outlives the service.
    fn leaves_state(&self) -> bool {
        false
    }

    /// How to read its log.
    fn log(&self, unit: &Unit) -> String;

    /// The commands for an order.
    fn commands(&self, order: Order, unit: &Unit) -> Vec<Step>;

    /// What a start would do, a line each.
    fn plan(&self, unit: &Unit, changed: bool) -> Vec<String> {
        let steps = self.commands(Order::start(changed), unit);
        let lines = steps
            .iter()
            .map(|step| format!("would run {}", step.shown()));
        lines.collect()
    }

    /// What must be there before a start.
    ///
    /// # Errors
    /// With the path.
    fn prepare(&self, _unit: &Unit) -> Result<(), Failure> {
        Ok(())
    }

    /// Starts the service, now and at every boot.
    ///
    /// # Errors
    /// The service manager's, in its words.
    fn start(&self, unit: &Unit, changed: bool) -> Result<(), Failure> {
        let state = self.state(unit);
        let before = told(&state).filter(|_| changed);
        if changed {
            let _ = std::fs::remove_file(&state);
            self.prepare(unit)?;
        }
        run(&self.commands(Order::start(changed), unit))
            .map_err(|failure| failure.hint(format!("the log may say more: {}", self.log(unit))))?;
        end_lost(before, &state)
    }

    /// Starts the service anew, and nothing else.
    ///
    /// # Errors
    /// The service manager's, in its words.
    fn restart(&self, unit: &Unit) -> Result<(), Failure> {
        let state = self.state(unit);
        let before = told(&state);
        run(&self.commands(Order::Restart, unit))?;
        end_lost(before, &state)
    }

    /// Ends the service and takes it from what is started at boot.
    ///
    /// # Errors
    /// The service manager's, in its words.
    fn stop(&self, unit: &Unit) -> Result<(), Failure> {
        run(&self.commands(Order::Stop, unit))
    }

    /// Ends the service and removes its file. Keys and data stay.
    ///
    /// # Errors
    /// When its file cannot be removed, or it does not end.
    fn remove(&self, unit: &Unit) -> Result<(), Failure> {
        let state = self.state(unit);
        self.stop(unit)?;
        end_lost(told(&state), &state)?;
        file::remove(&unit.file)?;
        if self.leaves_state() {
            process::forget(&state);
        }
        run(&self.commands(Order::Forget, unit))
    }

    /// Whether somebody starts it again when it ends.
    fn is_watched(&self, _unit: &Unit, _pid: u32) -> bool {
        true
    }

    /// Why it does not run, as far as the manager knows.
    fn why_down(&self, _unit: &Unit) -> String {
        String::new()
    }

    /// What a person should know once it is started.
    fn note(&self, _person: &Person) -> Option<String> {
        None
    }
}

/// Whether we wrote this file.
pub fn is_ours(text: &str) -> bool {
    let head: String = text.chars().take(MARK_WITHIN).collect();
    head.contains(MARK)
}

impl Service {
    /// The whole command line.
    pub fn command(&self) -> Vec<String> {
        let mut command = vec![path(&self.executable)];
        command.extend(self.words.iter().cloned());
        command
    }

    fn title(&self) -> String {
        format!("noports {}: {}", self.program.name, self.program.about)
    }

    /// Each variable as the manager needs it.
    fn variables(&self, between: &str, write: impl Fn(&str, &str) -> String) -> String {
        let all = self.environment.iter();
        let all: Vec<_> = all.map(|(name, value)| write(name, value)).collect();
        all.join(between)
    }

    /// Each variable as a line of a shell.
    fn exports(&self) -> String {
        self.variables("\n", |name, value| {
            format!("export {}", quote::assignment(name, value))
        })
    }

    /// The template with these values; what all managers want, and these do not hold, stands behind them.
    fn fill(&self, template: &str, mut values: Vec<(&str, String)>) -> String {
        values.extend([
            ("MARK", format!("# {MARK}")),
            ("TITLE", self.title()),
            ("NAME", self.unit.name.clone()),
            ("PROGRAM", self.program.name.to_owned()),
            ("USER", self.unit.person.name.clone()),
        ]);
        quote::fill(template, &values)
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
