//! Who we are on this machine, and who else there is.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Somebody with an account on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Person {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl Person {
    /// A program that is to run as this person, and inherits nothing of ours.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.home)
            .env("USER", &self.name)
            .current_dir("/")
            .stdin(Stdio::null());
        if rustix::process::geteuid().is_root() && self.uid != 0 {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }
}

/// Somebody by name.
pub fn by_name(name: &str) -> Option<Person> {
    people(&users()).find(|person| person.name == name)
}

/// Somebody by number.
pub fn by_number(uid: u32) -> Option<Person> {
    people(&users()).find(|person| person.uid == uid)
}

/// All of them, each account once.
pub fn everybody() -> Vec<Person> {
    let mut all: Vec<_> = people(&users()).collect();
    all.sort_by_key(|person| person.uid);
    all.dedup_by_key(|person| person.uid);
    all
}

/// Ourselves. Where the list of users does not know us, as on macOS, the environment does.
pub fn me() -> Option<Person> {
    let uid = rustix::process::geteuid().as_raw();
    let home = super::paths::home();
    let mut me = by_number(uid).or_else(|| {
        Some(Person {
            name: name()?,
            uid,
            gid: rustix::process::getegid().as_raw(),
            home: home.clone()?,
        })
    })?;
    me.home = home.unwrap_or(me.home);
    Some(me)
}

fn users() -> String {
    fs::read_to_string("/etc/passwd").unwrap_or_default()
}

fn people(list: &str) -> impl Iterator<Item = Person> {
    list.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else {
            return None;
        };
        Some(Person {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.into(),
        })
    })
}

/// The name of the user we run as: by the system's list of users, else by `$USER`.
pub fn name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw();
    let name = by_number(uid).map(|person| person.name);
    name.or_else(|| env::var("USER").ok())
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_users_is_read_by_number() {
        let list =
            "root:x:0:0:root:/root:/bin/sh\nbroken\n\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n";
        for (uid, want) in [(0, Some("root")), (1000, Some("pi")), (1, None)] {
            let person = people(list).find(|person| person.uid == uid);
            let name = person.map(|person| person.name);
            assert_eq!(name.as_deref(), want, "{uid}");
        }
        let pi = people(list).find(|person| person.name == "pi");
        let want = Person {
            name: "pi".to_owned(),
            uid: 1000,
            gid: 1000,
            home: "/home/pi".into(),
        };
        assert_eq!(pi, Some(want));
        assert_eq!(people(list).count(), 2);
    }
}
