//! What can stand behind a flag: names that this machine knows, without asking anybody.
//!
//! ```text
//!   ~/.atsign/keys/@alice_key.atKeys                           atSigns
//!   ~/.ssh/config   ProxyCommand noports client --to pi1@fleet  atSigns, and devices of theirs
//!   enrolments as they were last listed                        codes
//!   bridges that answer                                        sessions
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
};

use super::complete::Candidate;
use crate::{
    at::AtSign,
    cli::{classic::To, keystore},
    np::ids::DeviceName,
    program::{enroll::seen, sessions},
    service::{self, Manager, init::MANAGERS},
    sys::{file::NamedFile, paths},
};

/// Most of `~/.ssh/config` that is looked at, in bytes.
const MAX_CONFIG: u64 = 256 * 1024;
/// Flags of ours that name whose device is meant.
const WHOM: [&str; 2] = ["--to", "-t"];

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AtSign,
    /// A device's atSign, or a device of it: `pi1@fleet`.
    Whom,
    /// The name of a device.
    Device,
    Enrolment,
    Session,
    Duration,
    Init,
    Service,
    OneOf(&'static [&'static str]),
    File,
    Other,
}

impl Kind {
    /// By the name of a flag, without its hyphens, or of an argument; and by what help calls its value.
    pub(super) fn of(name: &str, value: &str) -> Self {
        match (name, value) {
            ("to", _) => Self::Whom,
            ("as" | "manager" | "via" | "policy" | "daemon" | "client" | "others", _) => {
                Self::AtSign
            }
            ("device", _) => Self::Device,
            ("which", _) => Self::Enrolment,
            ("session", _) => Self::Session,
            ("level", _) => Self::OneOf(&["off", "error", "warn", "info", "debug", "trace"]),
            ("program", _) => Self::Service,
            ("init", _) => Self::Init,
            ("status", _) => Self::OneOf(&["pending", "approved", "denied", "revoked", "expired"]),
            ("client-source", _) => Self::OneOf(&["auto", "off"]),
            ("temporary-keys", _) => Self::OneOf(&["needed", "always", "never"]),
            ("keys" | "identity" | "send-key" | "rules" | "ssh" | "config", _) => Self::File,
            ("timeout" | "wait" | "idle-timeout", _) => Self::Duration,
            (_, "atsign") => Self::AtSign,
            (_, "duration" | "time" | "seconds") => Self::Duration,
            (_, "file" | "dir") => Self::File,
            _ => Self::Other,
        }
    }

    /// Of a classic option.
    pub(super) fn of_classic(to: To) -> Self {
        match to {
            // In whole seconds, or a port.
            To::Number(_) => Self::Other,
            // A classic program does not know our notation.
            To::Value("--to" | "@") => Self::AtSign,
            To::Value("id") => Self::Enrolment,
            To::Choice(all) => Self::OneOf(all),
            To::Config => Self::File,
            to => to.ours().map_or(Self::Other, |ours| {
                Self::of(ours.trim_start_matches('-'), "")
            }),
        }
    }

    /// All that are known; `word` led here, and `before` stands in front of what was typed.
    pub(super) fn values(self, word: &str, before: &[&str], typed: &str) -> Vec<Candidate> {
        match self {
            Self::AtSign => Known::here().atsigns(),
            Self::Whom => {
                let known = Known::here();
                [known.atsigns(), known.notations()].concat()
            }
            Self::Device => Known::here().devices(whom(before)),
            Self::Enrolment => {
                let who = before.iter().filter(|word| word.starts_with('@'));
                let who = who.filter_map(|word| word.parse().ok()).next();
                who.map_or_else(Vec::new, |who| seen::codes(&who, word))
            }
            Self::Session => sessions::ids(),
            Self::Duration => durations(typed),
            Self::Init => plain(&MANAGERS.map(Manager::word)),
            Self::Service => plain(&service::programs::PROGRAMS.each_ref().map(|own| own.name)),
            Self::OneOf(all) => plain(all),
            Self::File => files(),
            Self::Other => Vec::new(),
        }
    }
}

/// The names of files, which the shell knows.
pub(super) fn files() -> Vec<Candidate> {
    plain(&[":files"])
}

fn plain(words: &[&str]) -> Vec<Candidate> {
    let words = words.iter();
    words
        .map(|word| ((*word).to_owned(), String::new()))
        .collect()
}

/// The units that can stand behind a number, or some usual ones.
fn durations(typed: &str) -> Vec<Candidate> {
    if typed.is_empty() {
        return plain(&["30s", "5m", "1h", "1d"]);
    }
    let units = [
        ("s", "seconds"),
        ("m", "minutes"),
        ("h", "hours"),
        ("d", "days"),
    ];
    let number = typed.ends_with(|c: char| c.is_ascii_digit());
    let units = units.iter().filter(|_| number);
    units
        .map(|(unit, about)| (format!("{typed}{unit}"), (*about).to_owned()))
        .collect()
}

/// Whose device is meant: what stands behind `--to`.
fn whom<'a>(before: &[&'a str]) -> Option<&'a str> {
    let at = before.iter().rposition(|word| WHOM.contains(word));
    let behind = at.and_then(|at| before.get(at + 1).copied());
    behind.or_else(|| before.iter().find_map(|word| word.strip_prefix("--to=")))
}

/// AtSigns that this machine knows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    /// Each with where it comes from.
    atsigns: BTreeMap<String, &'static str>,
    /// AtSign and device.
    devices: BTreeSet<(String, String)>,
}

impl Known {
    fn here() -> Self {
        let home = paths::home();
        let config = home.as_ref().map(|home| home.join(".ssh/config"));
        // What cannot be read offers nothing.
        let config = config.and_then(|path| NamedFile::open(&path).ok());
        let text = config.and_then(|file| file.bytes(MAX_CONFIG).ok());
        let mut known = Self::of_ssh(&String::from_utf8_lossy(&text.unwrap_or_default()));
        let folders = [
            home.map(|home| home.join(".atsign/keys")),
            env::var_os("NOPORTS_KEYS").map(PathBuf::from),
        ];
        let entries = folders.into_iter().flatten().map(fs::read_dir);
        for entry in entries.flatten().flatten().flatten() {
            if let Some(who) = keystore::owner(&entry.path()) {
                known.atsigns.insert(who.to_string(), "has keys here");
            }
        }
        known
    }

    /// What flags of ours say in `~/.ssh/config`.
    fn of_ssh(config: &str) -> Self {
        let mut known = Self::default();
        for line in config.lines().filter(|line| line.contains("noports")) {
            let bare = |word: &str| word.trim_matches(['"', '\'']).to_owned();
            let words: Vec<String> = line.split([' ', '\t', '=']).map(bare).collect();
            let value_of = |flag: &str| {
                let at = words.iter().position(|word| word == flag)?;
                let clean = |word: &&String| !word.chars().any(char::is_control);
                words.get(at + 1).filter(clean).cloned()
            };
            for flag in ["--to", "--via", "--as"] {
                let Some(value) = value_of(flag) else {
                    continue;
                };
                let (device, name) = value.split_once('@').unwrap_or(("", &value));
                let Ok(who) = format!("@{name}").parse::<AtSign>() else {
                    continue;
                };
                if flag == "--to" {
                    let device = Some(device.to_owned()).filter(|device| !device.is_empty());
                    let device = device.or_else(|| value_of("--device"));
                    // The shell puts it on its line as it stands: nothing in it may mean something there.
                    let device = device.filter(|device| device.parse::<DeviceName>().is_ok());
                    known
                        .devices
                        .extend(device.map(|device| (who.to_string(), device)));
                }
                known.atsigns.insert(who.to_string(), "in ~/.ssh/config");
            }
        }
        known
    }

    fn atsigns(&self) -> Vec<Candidate> {
        let rows = self.atsigns.iter();
        rows.map(|(who, about)| (who.clone(), (*about).to_owned()))
            .collect()
    }

    /// `pi1@fleet`
    fn notations(&self) -> Vec<Candidate> {
        let rows = self.devices.iter();
        rows.map(|(who, device)| (format!("{device}{who}"), "in ~/.ssh/config".to_owned()))
            .collect()
    }

    /// Names of devices, of this atSign or of any.
    fn devices(&self, of: Option<&str>) -> Vec<Candidate> {
        let of = of
            .and_then(|of| of.parse::<AtSign>().ok())
            .map(|of| of.to_string());
        let rows = self.devices.iter();
        rows.filter(|row| of.as_ref().is_none_or(|of| *of == row.0))
            .map(|(who, device)| (device.clone(), format!("of {who}")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::program::docs::values::*;

    #[test]
    fn an_ssh_configuration_names_atsigns_and_devices() {
        let known = Known::of_ssh(
            "Host pi\n  ProxyCommand noports client --to @Fleet --device \"pi1\" --via=@rv_eu --stdio\n\
             ProxyCommand noports client --to nas@home --stdio\n\
             ProxyCommand other --to @no\nProxyCommand noports client --to @b\x1b[2J --as\n",
        );
        let atsigns: Vec<_> = known.atsigns.keys().map(String::as_str).collect();
        assert_eq!(atsigns, ["@fleet", "@home", "@rv_eu"]);
        let rows: Vec<_> = known.notations().into_iter().map(|row| row.0).collect();
        assert_eq!(rows, ["pi1@fleet", "nas@home"]);
        let devices: Vec<_> = known
            .devices(Some("@home"))
            .into_iter()
            .map(|row| row.0)
            .collect();
        assert_eq!(devices, ["nas"]);
    }

    #[test]
    fn nothing_that_a_shell_would_run_is_offered_as_a_device() {
        for device in [
            "$(id)", "`id`", "a;id", "a|id", "a&id", "a>f", "$(id)@k", "a'b",
        ] {
            let to = if device.contains('@') { device } else { "@k" };
            let line = format!("ProxyCommand noports client --to {to} --device {device}\n");
            assert_eq!(Known::of_ssh(&line).devices, BTreeSet::new(), "{device}");
        }
    }

    #[test]
    fn the_device_belongs_to_whom_is_named_before() {
        for (before, want) in [
            (&["--to", "@a"][..], Some("@a")),
            (&["-t", "@a", "-q"], Some("@a")),
            (&["--to=@a"], Some("@a")),
            (&["--as", "@a"], None),
        ] {
            assert_eq!(whom(before), want, "{before:?}");
        }
    }
}
