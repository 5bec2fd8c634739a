//! A service: as its manager sees it, and as its file is to say it.

use std::path::{Path, PathBuf};

use super::{file::MARK, programs::Program, quote};
use crate::sys::user::Person;

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

impl Service {
    /// The whole command line.
    pub fn command(&self) -> Vec<String> {
        let mut command = vec![path(&self.executable)];
        command.extend(self.words.iter().cloned());
        command
    }

    /// The words that let the program look at its flags and keys, and start nothing.
    pub(super) fn verify(&self) -> Vec<String> {
        let flags = &self.words[self.program.serve.len()..];
        let verify = [self.program.name, "verify"].map(str::to_owned);
        verify.into_iter().chain(flags.iter().cloned()).collect()
    }

    pub(super) fn title(&self) -> String {
        format!("noports {}: {}", self.program.name, self.program.about)
    }

    /// Each variable as the manager needs it.
    pub(super) fn variables(&self, between: &str, write: impl Fn(&str, &str) -> String) -> String {
        let all = self.environment.iter();
        let written: Vec<_> = all.map(|(name, value)| write(name, value)).collect();
        written.join(between)
    }

    /// Each variable as a line of a shell.
    pub(super) fn exports(&self) -> String {
        self.variables("\n", |name, value| {
            format!("export {}", quote::assignment(name, value))
        })
    }

    /// The template with these values; what all managers want, and these do not hold, stands behind them.
    pub(super) fn fill(&self, template: &str, mut values: Vec<(&str, String)>) -> String {
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

/// As text, for files and for people.
pub(super) fn path(path: &Path) -> String {
    path.display().to_string()
}
