//! What is here, and how it is.
//!
//! Three places know: the file that we wrote, what the running program tells ([`supervisor`](crate::sys::supervisor)),
//! and, when it tells nothing, the service manager.

use std::{fs, path::Path};

use super::{
    file::{below, is_ours},
    init::MANAGERS,
    manager::Manager,
    process::running,
    programs::{PROGRAMS, Program},
    unit::{Unit, path},
};
use crate::{
    cli::Failure,
    sys::{
        file::{NamedFile, SMALL},
        supervisor::StateReport,
        user::{self, Person},
    },
};

/// A service whose file is here.
#[derive(Clone)]
pub struct InstalledService {
    /// Its name and its file; and who asks.
    pub unit: Unit,
    /// What starts it.
    pub manager: &'static dyn Manager,
}

/// The services whose files are here and ours.
pub fn installed(destdir: Option<&Path>) -> Vec<InstalledService> {
    let Some(me) = user::me() else {
        return Vec::new();
    };
    let all = MANAGERS.into_iter();
    let mut found: Vec<_> = all
        .flat_map(|manager| installed_for(manager, destdir, &me))
        .collect();
    found.sort_by(|a, b| a.unit.name.cmp(&b.unit.name));
    found
}

/// Those of one service manager.
pub(super) fn installed_for(
    manager: &'static dyn Manager,
    destdir: Option<&Path>,
    me: &Person,
) -> Vec<InstalledService> {
    let example = below(destdir, &manager.file("noports-x", me));
    let extension = example.extension();
    let ending = extension.map_or(String::new(), |end| format!(".{}", end.display()));
    let folder = example
        .parent()
        .and_then(|folder| fs::read_dir(folder).ok());
    let ours = folder.into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let unit = Unit {
            name: name_of(name.strip_suffix(&ending)?)?,
            person: me.clone(),
            file: entry.path(),
        };
        let text = text_of(&unit.file);
        (manager.is_its_own(&text) && is_ours(&text)).then_some(InstalledService { unit, manager })
    });
    ours.collect()
}

fn text_of(file: &Path) -> String {
    let bytes = NamedFile::open(file).and_then(|file| file.bytes(SMALL));
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

impl InstalledService {
    /// Whether it starts this file.
    pub fn starts(&self, executable: &Path) -> bool {
        text_of(&self.unit.file).contains(&path(executable))
    }

    /// What the end of its process would end, in words: a session of a rendezvous goes through that.
    pub fn would_end(&self) -> Option<String> {
        let told = running(&self.manager.state(&self.unit))?;
        let rest = self.unit.name.trim_start_matches("noports-");
        match told.sessions {
            Some(0) => None,
            Some(1) => Some("its session".to_owned()),
            Some(many) => Some(format!("its {many} sessions")),
            // A version before this one did not say.
            None => is_of(rest, Program::named("rendezvous")?).then(|| "its sessions".to_owned()),
        }
    }
}

/// `noports-daemon-b` from that, or from macOS' `org.noports.daemon-b`, if it is one of our programs.
fn name_of(stem: &str) -> Option<String> {
    let rest = stem
        .strip_prefix("noports-")
        .or_else(|| stem.strip_prefix("org.noports."))?;
    let ours = PROGRAMS.iter().any(|program| is_of(rest, program));
    ours.then(|| format!("noports-{rest}"))
}

fn is_of(rest: &str, program: &Program) -> bool {
    let instance = rest.strip_prefix(program.name);
    instance.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The services of these programs, or of all.
///
/// # Errors
/// When a word is no program that can be one, or there is none of them.
pub fn chosen(programs: &[String]) -> Result<Vec<InstalledService>, Failure> {
    let mut wanted = Vec::new();
    for word in programs {
        wanted.push(Program::named(word).ok_or_else(|| {
            let names = PROGRAMS.each_ref().map(|program| program.name);
            Failure::misuse(format!("{word:?} is not a service"))
                .hint(format!("choose {}", names.join(", ")))
        })?);
    }
    let mut found = installed(None);
    found.retain(|found| {
        let rest = found.unit.name.trim_start_matches("noports-");
        wanted.is_empty() || wanted.iter().any(|program| is_of(rest, program))
    });
    if found.is_empty() {
        let what = programs.first().map_or("daemon", String::as_str);
        let none = match programs {
            [] => "no service of noports is installed here".to_owned(),
            _ => format!("noports {what} is not installed as a service here"),
        };
        return Err(Failure::plain(none).hint(format!("noports {what} install --help")));
    }
    Ok(found)
}

/// How a service is.
#[derive(miniserde::Serialize, Debug)]
#[allow(missing_docs)]
pub struct ServiceStatus {
    pub service: String,
    pub init: &'static str,
    pub file: String,
    pub running: bool,
    /// Whether somebody starts it again when it ends.
    pub watched: bool,
    pub pid: Option<u32>,
    /// Seconds since 1970.
    pub started: Option<u64>,
    pub version: Option<String>,
    /// `connected`, `starting`, `lost`, `stopping`, `frozen`, or `down`.
    pub state: String,
    pub text: String,
    pub since: Option<u64>,
    /// Sessions that would end with it.
    pub sessions: Option<u64>,
    pub log: String,
}

impl ServiceStatus {
    /// Asks for it.
    pub fn of(service: &InstalledService) -> Self {
        let InstalledService { unit, manager } = service;
        let told = running(&manager.state(unit));
        let watched = told.as_ref().map(|told| manager.is_watched(unit, told.pid));
        let why = told.is_none().then(|| manager.why_down(unit));
        Self {
            service: unit.name.clone(),
            init: manager.word(),
            file: path(&unit.file),
            watched: watched.unwrap_or(false),
            log: manager.log(unit),
            ..Self::told(told, why.unwrap_or_default())
        }
    }

    /// Of a program that was started without a service manager of ours, by a container's engine, say, and tells here how it is.
    pub fn of_state(program: &Program, state: &Path) -> Self {
        Self {
            service: format!("noports-{}", program.name),
            init: "none",
            file: path(state),
            watched: true,
            log: "where its stderr goes".to_owned(),
            ..Self::told(running(state), String::new())
        }
    }

    fn told(told: Option<StateReport>, why: String) -> Self {
        let known = told.as_ref();
        Self {
            service: String::new(),
            init: "",
            file: String::new(),
            watched: false,
            log: String::new(),
            running: known.is_some(),
            pid: known.map(|told| told.pid),
            started: known.map(|told| told.started),
            version: known.map(|told| told.version.clone()),
            state: known.map_or("down", |told| &told.state).to_owned(),
            text: known.map_or(why, |told| told.text.clone()),
            since: known.map(|told| told.since),
            sessions: known.and_then(|told| told.sessions),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::service::state::*;

    #[test]
    fn only_names_of_our_programs_are_ours() {
        for (stem, want) in [
            ("noports-daemon", Some("noports-daemon")),
            ("noports-daemon-b", Some("noports-daemon-b")),
            ("org.noports.daemon-b", Some("noports-daemon-b")),
            ("noports-daemons", None),
            ("noports-", None),
            ("sshd", None),
        ] {
            assert_eq!(name_of(stem).as_deref(), want, "{stem}");
        }
    }
}
