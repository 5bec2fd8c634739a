//! systemd, for the machine and for one person.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    cli::exit,
    service::{
        command::{ManagerCommand, command, output},
        manager::{Manager, ServiceAction},
        quote::line,
        unit::{Service, Unit, path},
    },
    sys::user::Person,
};

/// Open files of a program that serves many at a time, and of one that does not.
const MANY: &str = "1048576";
const FEW: &str = "65536";

/// Which of the two systemd runs the service.
#[derive(Debug, PartialEq, Eq)]
pub enum Systemd {
    /// The machine's.
    Machine,
    /// One person's.
    Person,
}

impl Systemd {
    fn either<T>(&self, machine: T, person: T) -> T {
        match self {
            Self::Machine => machine,
            Self::Person => person,
        }
    }

    fn words<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        [
            self.either(&["systemctl"][..], &["systemctl", "--user"]),
            words,
        ]
        .concat()
    }
}

impl Manager for Systemd {
    fn word(&self) -> &'static str {
        self.either("systemd", "systemd-user")
    }

    fn is_for_the_machine(&self) -> bool {
        *self == Self::Machine
    }

    fn is_here(&self, uid: u32, exists: &dyn Fn(&str) -> bool) -> bool {
        let own = format!("/run/user/{uid}/systemd/private");
        exists(self.either("/run/systemd/system", own.as_str()))
    }

    fn file(&self, name: &str, person: &Person) -> PathBuf {
        let own = person.home.join(".config/systemd/user");
        let folder = self.either(PathBuf::from("/etc/systemd/system"), own);
        folder.join(format!("{name}.service"))
    }

    fn boot_link(&self, unit: &Unit) -> Option<PathBuf> {
        let target = self.either("multi-user.target.wants", "default.target.wants");
        let file = unit.file.file_name()?;
        Some(unit.file.parent()?.join(target).join(file))
    }

    fn render(&self, service: &Service) -> String {
        let template = self.either(
            include_str!("../../../packaging/services/system.service"),
            include_str!("../../../packaging/services/user.service"),
        );
        let environment = service.variables("\n", |name, value| {
            format!("Environment={}", setting(&format!("{name}={value}")))
        });
        let folders = service.writes.iter().map(|p| format!("-{}", path(p)));
        let folders: Vec<_> = folders.collect();
        let writes = if folders.is_empty() {
            String::new()
        } else {
            format!("ReadWritePaths={}", line(&folders, setting))
        };
        let capabilities = if service.program.low_ports {
            "# The one thing of root's that it may: listen on a port below 1024. That rules out PrivateUsers.\n\
             CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE"
        } else {
            "CapabilityBoundingSet=\nPrivateUsers=yes"
        };
        let descriptors = if service.program.many { MANY } else { FEW };
        let values = vec![
            ("COMMAND", line(&service.command(), command_word)),
            ("ENVIRONMENT", environment),
            ("WRITES", writes),
            ("CAPABILITIES", capabilities.to_owned()),
            ("DESCRIPTORS", descriptors.to_owned()),
        ];
        service.fill(template, values)
    }

    fn state(&self, unit: &Unit) -> PathBuf {
        let own = format!("/run/user/{}", unit.person.uid);
        let folder = Path::new(self.either("/run", own.as_str()));
        folder.join(&unit.name).join("state")
    }

    fn log(&self, unit: &Unit) -> String {
        let whose = self.either("", "--user ");
        format!("journalctl {whose}-u {}", unit.name)
    }

    fn commands(&self, action: ServiceAction, unit: &Unit) -> Vec<ManagerCommand> {
        let name = unit.name.as_str();
        let run = |words: &[&str]| command(&self.words(words));
        let (reload, enable) = (run(&["daemon-reload"]), run(&["--quiet", "enable", name]));
        match action {
            ServiceAction::Start => vec![reload, enable, run(&["start", name])],
            ServiceAction::Replace => vec![reload, enable, run(&["restart", name])],
            ServiceAction::Restart => vec![run(&["restart", name])],
            ServiceAction::Stop => vec![run(&["--quiet", "disable", "--now", name]).or_not()],
            ServiceAction::Forget => vec![reload.or_not()],
        }
    }

    fn why_down(&self, unit: &Unit) -> String {
        let properties = "--property=ActiveState,SubState,Result,ExecMainStatus";
        let done = output(&self.words(&["show", &unit.name, properties]), None);
        let said = done.map(|done| done.stdout).unwrap_or_default();
        explain(&String::from_utf8_lossy(&said))
    }

    fn note(&self, person: &Person) -> Option<String> {
        let who = &person.name;
        let lingers = Path::new("/var/lib/systemd/linger").join(who).exists();
        (!self.is_for_the_machine() && !lingers).then(|| {
            format!(
                "it runs only while {who} is logged in; to change that: sudo loginctl enable-linger {who}"
            )
        })
    }
}

/// A word of a command line: `%` and `$` mean something there.
fn command_word(word: &str) -> String {
    setting(word).replace('$', "$$")
}

/// A word of another setting, where `$` means nothing.
fn setting(word: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in word.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '%' => quoted += "%%",
            _ => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// What systemd says about a service that does not run, in our words.
fn explain(properties: &str) -> String {
    let pairs: BTreeMap<&str, &str> = properties
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let get = |name| pairs.get(name).copied().unwrap_or_default();
    let code: u8 = get("ExecMainStatus").parse().unwrap_or(0);
    let meaning = exit::TABLE.iter().find(|row| row.0 == code && code != 0);
    let why = meaning.map_or(String::new(), |(code, text)| {
        format!(": {text} (exit code {code})")
    });
    match (get("ActiveState"), get("SubState")) {
        ("activating", "auto-restart") => format!("it keeps failing{why}"),
        ("failed", _) => format!("it has failed{why}"),
        ("inactive", _) => "it is stopped".to_owned(),
        _ => get("Result").replace("success", ""),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::service::{init::systemd::*, quote::tests::HOSTILE};

    /// systemd's own rules, read backwards: quotes, backslashes, specifiers, variables.
    fn as_systemd_reads(line: &str, command_line: bool) -> Vec<String> {
        let mut words = Vec::new();
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            if letter == ' ' {
                continue;
            }
            assert_eq!(letter, '"', "{line}");
            let mut word = String::new();
            loop {
                match letters.next().unwrap() {
                    '"' => break,
                    '\\' => word.push(letters.next().unwrap()),
                    double @ ('%' | '$') if double == '%' || command_line => {
                        assert_eq!(letters.next(), Some(double), "{line}");
                        word.push(double);
                    }
                    other => word.push(other),
                }
            }
            words.push(word);
        }
        words
    }

    #[test]
    fn systemd_reads_the_same_words() {
        assert_eq!(
            as_systemd_reads(&line(HOSTILE, command_word), true),
            HOSTILE
        );
        assert_eq!(as_systemd_reads(&line(HOSTILE, setting), false), HOSTILE);
    }

    #[test]
    fn what_systemd_says_is_told_in_words() {
        for (said, want) in [
            (
                "ActiveState=activating\nSubState=auto-restart\nResult=exit-code\nExecMainStatus=3\n",
                "it keeps failing: the key file is missing or cannot be used (exit code 3)",
            ),
            (
                "ActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainStatus=2",
                "it has failed: the command line was wrong (exit code 2)",
            ),
            (
                "ActiveState=failed\nResult=watchdog\nExecMainStatus=0",
                "it has failed",
            ),
            (
                "ActiveState=inactive\nSubState=dead\nResult=success",
                "it is stopped",
            ),
            ("", ""),
        ] {
            assert_eq!(explain(said), want, "{said}");
        }
    }
}
