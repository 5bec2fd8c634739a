//! ○ The file that a service manager needs: from a template in `packaging/services`, filled in.

use std::path::{Path, PathBuf};

use super::{
    Program,
    host::{self, Init},
    quote::{self, fill, line},
};
use crate::sys::user::Person;

/// Where a template lies, from here.
macro_rules! template {
    ($name:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/services/", $name)
    };
}

/// Stands in every file that we wrote; a file without it is left alone.
const MARK: &str = "Written by noports, by the word install. The next install replaces this file.";
/// How far into a file the mark may stand.
const MARK_WITHIN: usize = 600;
/// Open files of a program that serves many at a time, and of one that does not.
const MANY: &str = "1048576";
const FEW: &str = "65536";

/// A service to be.
#[derive(Clone, Debug)]
pub struct Service {
    /// Which of our programs.
    pub program: &'static Program,
    /// What the service manager calls it: `noports-daemon`.
    pub name: String,
    /// The executable, and its words behind it.
    pub executable: PathBuf,
    /// Program and flags.
    pub words: Vec<String>,
    /// Variables, beside that for the state.
    pub environment: Vec<(&'static str, String)>,
    /// Whom it runs as.
    pub person: Person,
    /// Folders that it writes to.
    pub writes: Vec<PathBuf>,
}

/// Whether we wrote this file.
pub fn is_ours(text: &str) -> bool {
    let head: String = text.chars().take(MARK_WITHIN).collect();
    head.contains(MARK)
}

impl Service {
    /// The text of its file, and the file's permission bits.
    pub fn file(&self, init: Init) -> (String, u32) {
        match init {
            Init::Systemd => (
                self.systemd(include_str!(template!("system.service"))),
                0o644,
            ),
            Init::SystemdUser => (self.systemd(include_str!(template!("user.service"))), 0o644),
            Init::OpenRc => (self.openrc(), 0o755),
            Init::Procd => (self.procd(), 0o755),
            Init::Launchd | Init::LaunchdUser => (self.launchd(init), 0o644),
            Init::Cron => (self.cron(), 0o755),
        }
    }

    /// The whole command line.
    pub fn command(&self) -> Vec<String> {
        let mut command = vec![self.executable.display().to_string()];
        command.extend(self.words.iter().cloned());
        command
    }

    fn title(&self) -> String {
        format!("noports {}: {}", self.program.name, self.program.about)
    }

    fn common<'a>(&'a self, mark: &'a str, title: &'a str) -> Vec<(&'static str, &'a str)> {
        vec![
            ("MARK", mark),
            ("TITLE", title),
            ("NAME", &self.name),
            ("PROGRAM", self.program.name),
        ]
    }

    fn systemd(&self, template: &str) -> String {
        let (mark, title) = (format!("# {MARK}"), self.title());
        let environment: Vec<_> = self
            .environment
            .iter()
            .map(|(name, value)| {
                let word = quote::systemd_value(&format!("{name}={value}"));
                format!("Environment={word}")
            })
            .collect();
        let writes: Vec<_> = self
            .writes
            .iter()
            .map(|p| format!("-{}", path(p)))
            .collect();
        let writes = match writes.is_empty() {
            true => String::new(),
            false => format!("ReadWritePaths={}", line(&writes, quote::systemd_value)),
        };
        let capabilities = if self.program.low_ports {
            "# The one thing of root's that it may: listen on a port below 1024. That rules out PrivateUsers.\n\
             CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE"
        } else {
            "CapabilityBoundingSet=\nPrivateUsers=yes"
        };
        let mut values = self.common(&mark, &title);
        let (command, environment) = (
            line(&self.command(), quote::systemd),
            environment.join("\n"),
        );
        values.extend([
            ("COMMAND", command.as_str()),
            ("ENVIRONMENT", &environment),
            ("USER", &self.person.name),
            ("WRITES", &writes),
            ("CAPABILITIES", capabilities),
            ("DESCRIPTORS", if self.program.many { MANY } else { FEW }),
        ]);
        fill(template, &values)
    }

    fn exports(&self) -> String {
        let line =
            |(name, value): &(&str, String)| format!("export {name}={}", quote::shell(value));
        let lines: Vec<_> = self.environment.iter().map(line).collect();
        lines.join("\n")
    }

    fn openrc(&self) -> String {
        let (mark, title) = (format!("# {MARK}"), quote::shell(&self.title()));
        let mut values = self.common(&mark, &title);
        // Read by the shell as a value, then once more as a command line.
        let executable = quote::shell(&quote::shell(&path(&self.executable)));
        let arguments = quote::shell(&line(&self.words, quote::shell));
        let exports = self.exports();
        values.extend([
            ("EXECUTABLE", executable.as_str()),
            ("ARGUMENTS", &arguments),
            ("ENVIRONMENT", &exports),
            ("USER", &self.person.name),
        ]);
        fill(include_str!(template!("openrc.sh")), &values)
    }

    fn procd(&self) -> String {
        let (mark, title) = (format!("# {MARK}"), self.title());
        let mut values = self.common(&mark, &title);
        let command = line(&self.command(), quote::shell);
        let home = quote::shell(&path(&self.person.home));
        let environment: Vec<_> = self
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={}", quote::shell(value)))
            .collect();
        let environment = environment.join(" ");
        values.extend([
            ("COMMAND", command.as_str()),
            ("HOME", &home),
            ("ENVIRONMENT", &environment),
            ("USER", &self.person.name),
        ]);
        fill(include_str!(template!("procd.sh")), &values)
    }

    fn launchd(&self, init: Init) -> String {
        let label = init.label(&self.name);
        let string = |text: &str| format!("        <string>{}</string>", quote::xml(text));
        let command: Vec<_> = self.command().iter().map(|word| string(word)).collect();
        let pair = |(name, value): &(&str, String)| {
            format!("        <key>{name}</key>\n{}", string(value))
        };
        let environment: Vec<_> = self.environment.iter().map(pair).collect();
        let user = match init {
            Init::Launchd => format!(
                "    <key>UserName</key>\n    <string>{}</string>",
                quote::xml(&self.person.name)
            ),
            _ => String::new(),
        };
        let state = init.state_file(&self.name, &self.person);
        let log = quote::xml(&path(&state.with_extension("log")));
        let state = quote::xml(&path(&state));
        let (command, environment) = (command.join("\n"), environment.join("\n"));
        let values = [
            ("MARK", MARK),
            ("LABEL", label.as_str()),
            ("COMMAND", &command),
            ("ENVIRONMENT", &environment),
            ("USER", &user),
            ("STATE", &state),
            ("LOG", &log),
        ];
        fill(include_str!(template!("launchd.plist")), &values)
    }

    fn cron(&self) -> String {
        let (mark, title) = (format!("# {MARK}"), self.title());
        let mut values = self.common(&mark, &title);
        let command = line(&self.command(), quote::shell);
        let folder = quote::shell(&path(&host::data_folder(&self.person)));
        let exports = self.exports();
        values.extend([
            ("COMMAND", command.as_str()),
            ("FOLDER", &folder),
            ("ENVIRONMENT", &exports),
        ]);
        fill(include_str!(template!("loop.sh")), &values)
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
