//! Profiles of the classic client: `KEY=value` lines, as its desktop program writes them.
//!
//! ```text
//!   # ~/.sshnp/config/my_pi.env, the profile "my pi"
//!   FROM=@alice
//!   TO=@my_device
//!   SRVD=@rv_eu
//!   DEVICE=pi
//! ```
//! A key is an option's long name, in capitals. Lines with none or several `=` are skipped, and so are keys that
//! nobody knows.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnp/models/config_file_repository.dart.

use std::path::{Path, PathBuf};

use super::tables::ClassicOption;
use crate::cli::{Failure, config};

/// One option from a file, as a classic word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileOption {
    /// Counted from 1.
    pub(super) line: usize,
    /// `--name=value`, or `--name`.
    pub(super) text: String,
}

/// Options that a profile may set.
const KEYS: &[&str] = &[
    "from",
    "to",
    "device",
    "srvd",
    "host",
    "local-port",
    "send-ssh-public-key",
    "local-ssh-options",
    "remote-user-name",
    "tunnel-user-name",
    "root-domain",
    "remote-sshd-port",
    "authenticate-client-to-rvd",
    "authenticate-device-to-rvd",
    "encrypt-rvd-traffic",
    // From older templates.
    "key-file",
    "verbose",
    // Of a tunnel.
    "remote-port",
    "remote-host",
];

/// A profile: its path, its options, and remarks on lines that are not heeded.
pub(super) type Profile = (PathBuf, Vec<FileOption>, Vec<String>);

/// Reads a profile: a path, or the name of one in `~/.sshnp/config`.
pub(super) fn read(
    named: &str,
    home: Option<&Path>,
    tables: &[&[ClassicOption]],
) -> Result<Profile, Failure> {
    let path = find(named, home).ok_or_else(|| {
        Failure::misuse(format!("Config file does not exist: {named}"))
            .hint("a path, or the name of a profile in ~/.sshnp/config")
    })?;
    let text = config::text(&path)?;
    let remarks = unended(&text).map(|(line, key)| {
        format!(
            "{}, line {line}: left out, for there is no = behind {key}",
            path.display()
        )
    });
    let remarks = remarks.collect();
    Ok((path, words(&text, tables), remarks))
}

fn find(named: &str, home: Option<&Path>) -> Option<PathBuf> {
    let path = PathBuf::from(named);
    if path.exists() || named.contains('/') {
        return path.exists().then_some(path);
    }
    let name = named
        .strip_suffix(".env")
        .unwrap_or(named)
        .replace(' ', "_");
    let path = home?.join(".sshnp/config").join(format!("{name}.env"));
    path.exists().then_some(path)
}

/// Lines that begin with a key and go on without a `=`.
fn unended(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines.filter_map(|(index, line)| {
        let key = line
            .split_whitespace()
            .next()
            .filter(|_| !line.contains('='))?;
        let name = key.to_lowercase().replace('_', "-");
        let known = KEYS.contains(&name.as_str()) && key == key.to_uppercase();
        known.then_some((index + 1, key))
    })
}

fn words(text: &str, tables: &[&[ClassicOption]]) -> Vec<FileOption> {
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            Some(FileOption {
                line: index + 1,
                text: word(line, tables)?,
            })
        })
        .collect()
}

fn word(line: &str, tables: &[&[ClassicOption]]) -> Option<String> {
    let (key, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
    let (name, value) = (key.trim().to_lowercase().replace('_', "-"), value.trim());
    let known = KEYS.contains(&name.as_str()) && key.trim() == key.trim().to_uppercase();
    if !known || value.contains('=') || value.contains(char::is_control) {
        return None;
    }
    let rows = || tables.iter().flat_map(|table| table.iter());
    let row = rows().find(|row| row.0.contains(&name.as_str()))?;
    if row.2.takes_value() {
        return (!value.is_empty()).then(|| format!("--{name}={value}"));
    }
    if value.eq_ignore_ascii_case("true") {
        return Some(format!("--{name}"));
    }
    let no = format!("no-{name}");
    let has_no = rows().any(|row| row.0.contains(&no.as_str()));
    has_no.then(|| format!("--{no}"))
}

#[cfg(test)]
mod tests {
    use crate::cli::classic::profile::*;
    use crate::cli::classic::tables::CLIENT;

    #[test]
    fn a_key_without_its_sign_is_remarked() {
        let text = "TO @d\r\nFROM=@a\n# TO x\nto @d\nDEVICE\nPROFILE x\n";
        let found: Vec<_> = unended(text).collect();
        assert_eq!(found, [(1, "TO"), (5, "DEVICE")]);
    }

    #[test]
    fn a_line_is_an_option_or_nothing() {
        for (line, want) in [
            ("FROM=@alice", Some("--from=@alice")),
            (" TO = @d ", Some("--to=@d")),
            ("# FROM=@alice", None),
            ("FROM", None),
            ("LOCAL_SSH_OPTIONS=-o A=b", None),
            ("LOCAL_SSH_OPTIONS=-v,-C", Some("--local-ssh-options=-v,-C")),
            ("LOCAL_SSH_OPTIONS=", None),
            ("SRVD=", None),
            ("HOST=@rv", Some("--host=@rv")),
            ("ENCRYPT_RVD_TRAFFIC=true", Some("--encrypt-rvd-traffic")),
            (
                "ENCRYPT_RVD_TRAFFIC=False",
                Some("--no-encrypt-rvd-traffic"),
            ),
            ("SEND_SSH_PUBLIC_KEY=true", Some("--send-ssh-public-key")),
            ("SEND_SSH_PUBLIC_KEY=false", None),
            ("PROFILE_NAME=pi", None),
            ("from=@alice", None),
            ("QUIET=true", None),
            ("KEY_FILE=/k", Some("--key-file=/k")),
            ("RSA=true", None),
            ("TO=@d\u{1b}[2J", None),
        ] {
            assert_eq!(word(line, &[CLIENT]).as_deref(), want, "{line}");
        }
    }
}
