//! What can come next on a command line: for the shells' completions, which ask with every word so far.
//!
//! One candidate a line, a tab, what it means. `:files` means: the names of files.

use std::{collections::BTreeSet, fs, path::Path};

use super::{Help, WITH_SERVICE};
use crate::{at::AtSign, cli::keystore, program::APPLETS, sys::paths};

/// Most of `~/.ssh/config` that is looked at, in bytes.
const MAX_CONFIG: usize = 256 * 1024;
/// Classic flags that are followed by an atSign.
const CLASSIC: [&str; 14] = [
    "-a",
    "--atsign",
    "-f",
    "--from",
    "-t",
    "--to",
    "-m",
    "--manager",
    "--managers",
    "-r",
    "--srvd",
    "-h",
    "--rendezvous",
    "-p",
];

/// Candidates for the last of `words`; the first is the name that was called. `help` tells a program's flags.
pub(super) fn candidates(words: &[&str], help: impl Fn(&[&str]) -> Help) -> Vec<(String, String)> {
    let Some((last, before)) = words.split_last() else {
        return Vec::new();
    };
    let all = match before.split_first() {
        None => Vec::new(),
        Some((called, before)) => {
            let called = Path::new(called).file_name().and_then(|name| name.to_str());
            match called {
                Some("noports") => behind_noports(before, last, help),
                _ => classic(before),
            }
        }
    };
    all.into_iter()
        .filter(|(word, _)| word == FILES || word.starts_with(last))
        .collect()
}

const FILES: &str = ":files";

fn behind_noports(
    before: &[&str],
    last: &str,
    help: impl Fn(&[&str]) -> Help,
) -> Vec<(String, String)> {
    let Some((name, mut rest)) = before.split_first() else {
        let shown = APPLETS.iter().filter(|applet| !applet.about.is_empty());
        return shown
            .map(|applet| (applet.name.to_owned(), applet.about.to_owned()))
            .collect();
    };
    let Some(applet) = APPLETS.iter().find(|applet| applet.name == *name) else {
        return Vec::new();
    };
    let mut path = vec![applet.name];
    let mut now = help(&path);
    let mut commands = commands(applet.name, &now);
    if let Some((word, more)) = rest.split_first()
        && commands.iter().any(|(command, _)| command == word)
    {
        path.push(word);
        let own = help(&path);
        // A service is installed with the flags of the program, too.
        now = if *word == "install" {
            both(own, &now, applet.name, &help)
        } else {
            own
        };
        rest = more;
        commands.clear();
    }
    let previous = rest.last().copied().unwrap_or_default();
    let flag = now
        .flags
        .iter()
        .find(|f| f.long == previous || f.short.as_deref() == Some(previous));
    if let Some(value) = flag.and_then(|flag| flag.value.as_deref()) {
        return values(previous, value);
    }
    let mut all = if rest.is_empty() {
        commands
    } else {
        Vec::new()
    };
    if last.starts_with('-') {
        all.extend(
            now.flags
                .iter()
                .map(|flag| (flag.long.clone(), flag.about.clone())),
        );
    } else if all.is_empty() || now.positional.iter().any(|row| row.0 == "atsign") {
        let wants = now
            .positional
            .iter()
            .any(|row| ATSIGNS.contains(&row.0.as_str()));
        all.extend(if wants {
            atsigns()
        } else {
            vec![(FILES.into(), String::new())]
        });
    }
    all
}

/// Words that can follow a program's name.
fn commands(applet: &str, help: &Help) -> Vec<(String, String)> {
    let mut all = help.commands.clone();
    all.extend(super::words_in_notes(help));
    if WITH_SERVICE.contains(&applet) {
        let service = [
            ("install", "as a service of this machine"),
            ("uninstall", "remove the service"),
            ("status", "how the service is"),
        ];
        let there: BTreeSet<String> = all.iter().map(|row| row.0.clone()).collect();
        let new = service.iter().filter(|row| !there.contains(row.0));
        all.extend(new.map(|(a, b)| ((*a).to_owned(), (*b).to_owned())));
    }
    all
}

fn both(mut own: Help, program: &Help, applet: &str, help: &impl Fn(&[&str]) -> Help) -> Help {
    let serves = program.commands.iter().any(|row| row.0 == "serve");
    let flags = if serves {
        help(&[applet, "serve"]).flags
    } else {
        program.flags.clone()
    };
    let there: BTreeSet<String> = own.flags.iter().map(|flag| flag.long.clone()).collect();
    own.flags
        .extend(flags.into_iter().filter(|flag| !there.contains(&flag.long)));
    own
}

/// Names of positional arguments that are atSigns.
const ATSIGNS: [&str; 3] = ["atsign", "client", "daemon"];

fn values(flag: &str, value: &str) -> Vec<(String, String)> {
    match flag {
        "--to" | "--as" | "--manager" | "--via" | "--policy" | "--daemon" => atsigns(),
        "--device" => from_config("--device"),
        "--init" => {
            let kinds = [
                "systemd",
                "systemd-user",
                "openrc",
                "procd",
                "launchd",
                "launchd-user",
                "cron",
            ];
            kinds
                .iter()
                .map(|kind| ((*kind).to_owned(), String::new()))
                .collect()
        }
        _ if value.starts_with("file") || value.starts_with("dir") => files(),
        "--ca" | "--keys" | "--passphrase-file" | "--identity" | "--rules" | "--data" => files(),
        _ => Vec::new(),
    }
}

fn files() -> Vec<(String, String)> {
    vec![(FILES.to_owned(), String::new())]
}

fn classic(before: &[&str]) -> Vec<(String, String)> {
    match before.last() {
        Some(flag) if CLASSIC.contains(flag) => atsigns(),
        _ => files(),
    }
}

/// Those with keys here, and those that `~/.ssh/config` names.
fn atsigns() -> Vec<(String, String)> {
    let mut all = Vec::new();
    let folder = paths::home().map(|home| home.join(".atsign/keys"));
    let entries = folder.and_then(|folder| fs::read_dir(folder).ok());
    for entry in entries.into_iter().flatten().flatten() {
        if let Some(who) = keystore::owner(&entry.path()) {
            all.push((who.to_string(), "has keys here".to_owned()));
        }
    }
    for flag in ["--to", "--via", "--as"] {
        all.extend(
            from_config(flag)
                .into_iter()
                .filter(|row| row.0.parse::<AtSign>().is_ok()),
        );
    }
    all.sort();
    all.dedup_by(|a, b| a.0 == b.0);
    all
}

/// What follows a flag of ours in `~/.ssh/config`.
fn from_config(flag: &str) -> Vec<(String, String)> {
    let file = paths::home().map(|home| home.join(".ssh/config"));
    let bytes = file
        .and_then(|file| fs::read(file).ok())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_CONFIG)]);
    let found = after(&text, flag);
    found
        .into_iter()
        .map(|word| (word, "in ~/.ssh/config".to_owned()))
        .collect()
}

fn after(config: &str, flag: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in config.lines().filter(|line| line.contains("noports")) {
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            if word == flag {
                found.extend(
                    words
                        .next()
                        .map(|word| word.trim_matches(['"', '\'']).to_owned()),
                );
            }
        }
    }
    found.retain(|word| !word.chars().any(char::is_control));
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::docs::complete::*;

    fn help(path: &[&str]) -> Help {
        Help::parse(match path {
            ["policy"] => {
                "Usage: noports policy\n\nX\n\nOptions:\n  --help, help      x\n\nCommands:\n  serve             Answer\n  check             Explain\n"
            }
            ["policy", "serve"] => {
                "Usage: noports policy serve [--rules <file>] [--records]\n\nOptions:\n  --rules           r\n  --records         s\n"
            }
            ["policy", "install"] => {
                "Usage: noports policy install [--init <kind>]\n\nOptions:\n  --init            i\n"
            }
            ["client"] => {
                "Usage: noports client --to <to> [-q] [ssh...]\n\nOptions:\n  --to              whose\n  -q, --quiet       less\n"
            }
            _ => "",
        })
    }

    #[test]
    fn what_can_come_next() {
        for (line, want) in [
            ("noports cli", "client"),
            ("noports policy ", "serve check install uninstall status"),
            ("noports policy s", "serve status"),
            ("noports policy serve --r", "--rules --records"),
            ("noports policy serve --rules ", ":files"),
            ("noports policy install --", "--init --rules --records"),
            ("noports policy install --init sys", "systemd systemd-user"),
            ("noports client -", "--to --quiet"),
            ("noports client ", ":files"),
            ("noports nothing ", ""),
            ("noports", ""),
            ("/usr/bin/sshnp -x ", ":files"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let found = candidates(&words, help);
            let found: Vec<_> = found.iter().map(|row| row.0.as_str()).collect();
            assert_eq!(found.join(" "), want, "{line}");
        }
    }

    #[test]
    fn an_ssh_configuration_names_devices() {
        let config = "Host pi\n  ProxyCommand noports client --to @my_device --device \"pi\" --stdio\n  # --to @x\n";
        assert_eq!(
            after(config, "--to"),
            BTreeSet::from(["@my_device".to_owned()])
        );
        assert_eq!(after(config, "--device"), BTreeSet::from(["pi".to_owned()]));
    }
}
