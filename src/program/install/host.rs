//! What starts services on this machine, where its files are, and how it is told.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::sys::user::Person;

/// Something that starts services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd, for the machine.
    Systemd,
    /// systemd, for one person.
    SystemdUser,
    /// OpenRC (Alpine, Gentoo).
    OpenRc,
    /// OpenWrt's.
    Procd,
    /// macOS', for the machine.
    Launchd,
    /// macOS', for one person.
    LaunchdUser,
    /// A loop that cron starts at boot.
    Cron,
}

impl Init {
    /// All of them, with the words of `--init`.
    pub const ALL: [(&'static str, Self); 7] = [
        ("systemd", Self::Systemd),
        ("systemd-user", Self::SystemdUser),
        ("openrc", Self::OpenRc),
        ("procd", Self::Procd),
        ("launchd", Self::Launchd),
        ("launchd-user", Self::LaunchdUser),
        ("cron", Self::Cron),
    ];

    /// The word of `--init`.
    pub fn word(self) -> &'static str {
        let row = Self::ALL.iter().find(|row| row.1 == self);
        row.map_or("", |row| row.0)
    }

    /// What there is here, for root or for somebody else. `exists` looks at files.
    pub fn detect(root: bool, uid: u32, exists: impl Fn(&str) -> bool) -> Self {
        let personal = format!("/run/user/{uid}/systemd/private");
        match root {
            _ if cfg!(target_os = "macos") && root => Self::Launchd,
            _ if cfg!(target_os = "macos") => Self::LaunchdUser,
            true if exists("/run/systemd/system") => Self::Systemd,
            true if exists("/etc/openwrt_release") && exists("/sbin/procd") => Self::Procd,
            true if exists("/run/openrc") => Self::OpenRc,
            false if exists(&personal) => Self::SystemdUser,
            _ => Self::Cron,
        }
    }

    /// For the machine, with an account to run as; else for whoever asks.
    pub fn is_for_the_machine(self) -> bool {
        match self {
            Self::Systemd | Self::OpenRc | Self::Procd | Self::Launchd => true,
            Self::SystemdUser | Self::LaunchdUser | Self::Cron => false,
        }
    }

    /// Where the service's file belongs.
    pub fn file(self, name: &str, person: &Person) -> PathBuf {
        let home = &person.home;
        match self {
            Self::Systemd => format!("/etc/systemd/system/{name}.service").into(),
            Self::SystemdUser => home.join(format!(".config/systemd/user/{name}.service")),
            Self::OpenRc | Self::Procd => format!("/etc/init.d/{name}").into(),
            Self::Launchd => format!("/Library/LaunchDaemons/{}.plist", self.label(name)).into(),
            Self::LaunchdUser => {
                home.join(format!("Library/LaunchAgents/{}.plist", self.label(name)))
            }
            Self::Cron => data_folder(person).join(format!("{name}.sh")),
        }
    }

    /// Where the running service tells its state.
    pub fn state_file(self, name: &str, person: &Person) -> PathBuf {
        match self {
            Self::Systemd | Self::OpenRc => format!("/run/{name}/state").into(),
            Self::SystemdUser => format!("/run/user/{}/{name}/state", person.uid).into(),
            Self::Procd => format!("/var/run/{name}/state").into(),
            Self::Launchd | Self::LaunchdUser => person
                .home
                .join(format!("Library/Logs/noports/{name}.state")),
            Self::Cron => data_folder(person).join(format!("{name}.state")),
        }
    }

    /// macOS' name of a service.
    pub fn label(self, name: &str) -> String {
        format!("org.{}", name.replacen('-', ".", 1))
    }

    /// How to read its log.
    pub fn log(self, name: &str, person: &Person) -> String {
        match self {
            Self::Systemd => format!("journalctl -u {name}"),
            Self::SystemdUser => format!("journalctl --user -u {name}"),
            Self::OpenRc => format!("/var/log/{name}.log"),
            Self::Procd => format!("logread -e {name}"),
            Self::Launchd | Self::LaunchdUser | Self::Cron => {
                let file = self.state_file(name, person).with_extension("log");
                file.display().to_string()
            }
        }
    }

    /// Starts the service now and at every boot. A service that runs is started anew only if its file has `changed`.
    pub fn start(self, name: &str, file: &Path, changed: bool) -> Vec<Step> {
        let file = &file.display().to_string();
        let again = if changed { "restart" } else { "start" };
        match self {
            Self::Systemd => vec![
                step(&["systemctl", "daemon-reload"]),
                step(&["systemctl", "--quiet", "enable", name]),
                step(&["systemctl", again, name]),
            ],
            Self::SystemdUser => vec![
                step(&["systemctl", "--user", "daemon-reload"]),
                step(&["systemctl", "--user", "--quiet", "enable", name]),
                step(&["systemctl", "--user", again, name]),
            ],
            Self::OpenRc => vec![
                step(&["rc-update", "--quiet", "add", name, "default"]),
                step(&["rc-service", name, again]),
            ],
            Self::Procd => vec![step(&[file, "enable"]), step(&[file, again])],
            Self::Launchd | Self::LaunchdUser => {
                let domain = self.domain();
                let target = format!("{domain}/{}", self.label(name));
                let mut steps = vec![
                    step(&["launchctl", "enable", &target]),
                    step(&["launchctl", "bootstrap", &domain, file]).or_not(),
                    step(&["launchctl", "kickstart", &target]),
                ];
                if changed {
                    steps.insert(0, step(&["launchctl", "bootout", &target]).or_not());
                }
                steps
            }
            Self::Cron => Vec::new(),
        }
    }

    /// Starts a service anew.
    pub fn restart(self, name: &str, file: &Path) -> Vec<Step> {
        match self {
            Self::Systemd => vec![step(&["systemctl", "restart", name])],
            Self::SystemdUser => vec![step(&["systemctl", "--user", "restart", name])],
            Self::OpenRc => vec![step(&["rc-service", name, "restart"])],
            Self::Procd => vec![step(&[&file.display().to_string(), "restart"])],
            Self::Launchd | Self::LaunchdUser => {
                let target = format!("{}/{}", self.domain(), self.label(name));
                vec![step(&["launchctl", "kickstart", "-k", &target])]
            }
            Self::Cron => Vec::new(),
        }
    }

    /// Ends the service and takes it from what is started at boot. Sessions live on.
    pub fn stop(self, name: &str, file: &Path) -> Vec<Step> {
        let file = &file.display().to_string();
        match self {
            Self::Systemd => {
                vec![step(&["systemctl", "--quiet", "disable", "--now", name]).or_not()]
            }
            Self::SystemdUser => {
                vec![step(&["systemctl", "--user", "--quiet", "disable", "--now", name]).or_not()]
            }
            Self::OpenRc => vec![
                step(&["rc-service", "--quiet", "--ifstarted", name, "stop"]).or_not(),
                step(&["rc-update", "--quiet", "delete", name]).or_not(),
            ],
            Self::Procd => vec![
                step(&[file, "stop"]).or_not(),
                step(&[file, "disable"]).or_not(),
            ],
            Self::Launchd | Self::LaunchdUser => {
                let target = format!("{}/{}", self.domain(), self.label(name));
                vec![step(&["launchctl", "bootout", &target]).or_not()]
            }
            Self::Cron => Vec::new(),
        }
    }

    /// What remains to be done when the file is gone.
    pub fn forget(self) -> Vec<Step> {
        match self {
            Self::Systemd => vec![step(&["systemctl", "daemon-reload"]).or_not()],
            Self::SystemdUser => vec![step(&["systemctl", "--user", "daemon-reload"]).or_not()],
            _ => Vec::new(),
        }
    }

    fn domain(self) -> String {
        match self {
            Self::Launchd => "system".to_owned(),
            _ => format!("gui/{}", rustix::process::geteuid().as_raw()),
        }
    }
}

/// Where the cron loop and its log live.
pub fn data_folder(person: &Person) -> PathBuf {
    person.home.join(".local/share/noports")
}

/// Whether somebody's own services run while he is not logged in.
pub fn lingers(person: &Person) -> bool {
    Path::new("/var/lib/systemd/linger")
        .join(&person.name)
        .exists()
}

/// One command of the service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    words: Vec<String>,
    /// Its failure is no failure of ours.
    pub(super) optional: bool,
}

fn step(words: &[&str]) -> Step {
    Step {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        optional: false,
    }
}

impl Step {
    fn or_not(mut self) -> Self {
        self.optional = true;
        self
    }

    /// As a person would type it.
    pub fn shown(&self) -> String {
        super::quote::line(&self.words, super::quote::shell)
    }

    /// Does it.
    ///
    /// # Errors
    /// In words: what was run, and what it said.
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
    use crate::program::install::host::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn what_starts_services_is_found_by_what_runs() {
        for (root, there, want) in [
            (true, &["/run/systemd/system"][..], Init::Systemd),
            (true, &["/etc/openwrt_release", "/sbin/procd"], Init::Procd),
            (true, &["/run/openrc"], Init::OpenRc),
            (true, &[], Init::Cron),
            (false, &["/run/systemd/system"], Init::Cron),
            (
                false,
                &["/run/systemd/system", "/run/user/7/systemd/private"],
                Init::SystemdUser,
            ),
            (false, &["/run/openrc"], Init::Cron),
        ] {
            let found = Init::detect(root, 7, |path| there.contains(&path));
            assert_eq!(found, want, "{root} {there:?}");
        }
    }

    #[test]
    fn a_command_that_does_not_listen_is_heard() {
        let text = "x".repeat(1 << 20);
        let done = output(&["sh", "-c", "echo not for you >&2; exit 3"], Some(&text)).unwrap();
        assert_eq!(done.status.code(), Some(3));
        assert_eq!(first_line(&done.stderr).unwrap(), "not for you");
    }

    #[test]
    fn a_step_that_fails_says_which_and_why() {
        let failed = step(&[
            "sh",
            "-c",
            "echo >&2; echo the reason >&2; echo See more >&2; exit 3",
        ]);
        let why = failed.run().unwrap_err();
        assert!(why.ends_with(": the reason"), "{why}");
        assert!(failed.or_not().run().is_ok());
        let missing = step(&["/no/such/program", "a b"]).run().unwrap_err();
        assert!(missing.starts_with("/no/such/program 'a b': "), "{missing}");
    }
}
