//! The classic daemon's configuration file.
//!
//! ```yaml
//! atsign:
//!   atsign: my_device            # "@…" in quotes, or without the @
//! access:
//!   managers: [alice, "@bob"]
//!   permitopen: ["localhost:22"]
//! device:
//!   name: pi
//! ```
//! Each member becomes the classic option it stands for. Members that nobody knows are told and left out: later
//! versions have more of them.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_config.dart (names and types);
//! noports:packages/dart/sshnoports/bundles/core/config/sshnpd.yaml (`ssh/ssh-client`).

use super::profile::FileOption;
use crate::text::yaml::{BadYaml, NodePath, tree};

/// Where it is, unless somebody says otherwise.
pub(super) const USUAL: &str = "/etc/noports/sshnpd.yaml";
/// Names another one.
pub(super) const VARIABLE: &str = "SSHNPD_CONFIG";

#[derive(Clone, Copy)]
enum ValueType {
    Text,
    /// Or one text with commas.
    List,
    Flag,
    Port,
}

/// (section, member, classic option, what stands there)
const MEMBERS: &[(&str, &str, &str, ValueType)] = &[
    ("atsign", "atsign", "atsign", ValueType::Text),
    ("atsign", "keys", "key-file", ValueType::Text),
    ("atsign", "passphrase", "pass-phrase", ValueType::Text),
    ("atsign", "root", "root-server", ValueType::Text),
    ("access", "managers", "managers", ValueType::List),
    ("access", "policy", "policy-manager", ValueType::Text),
    ("access", "permitopen", "permit-open", ValueType::List),
    ("device", "name", "device", ValueType::Text),
    ("device", "group", "device-group", ValueType::Text),
    ("device", "hide", "hide", ValueType::Flag),
    ("ssh", "add-publickeys", "sshpublickey", ValueType::Flag),
    ("ssh", "client", "ssh-client", ValueType::Text),
    ("ssh", "ssh-client", "ssh-client", ValueType::Text),
    ("ssh", "sshd-port", "local-sshd-port", ValueType::Port),
    ("ssh", "algorithm", "ssh-algorithm", ValueType::Text),
    (
        "ssh",
        "publickey-permissions",
        "sshpublickey-permissions",
        ValueType::List,
    ),
    (
        "ssh",
        "ephemeral-permissions",
        "ephemeral-permissions",
        ValueType::List,
    ),
    ("runtime", "storage-path", "storage-path", ValueType::Text),
    (
        "runtime",
        "clear-cached-pks",
        "clear-cached-pks",
        ValueType::Flag,
    ),
    ("runtime", "strict", "strict", ValueType::Flag),
    ("runtime", "verbose", "verbose", ValueType::Flag),
    ("runtime", "debug", "debug", ValueType::Flag),
];

/// The options that a file sets, and remarks on what in it means nothing.
pub(super) fn read(text: &str) -> Result<(Vec<FileOption>, Vec<String>), BadYaml> {
    let root = tree(text)?;
    let (mut words, mut remarks) = (Vec::new(), Vec::new());
    let ignored = |path: &str, place: &NodePath| {
        format!("line {}: {path} is not known and left out", place.line())
    };
    for (section, place) in NodePath::top(&root).entries()? {
        if !MEMBERS.iter().any(|row| row.0 == section) {
            remarks.push(ignored(section, &place));
            continue;
        }
        for (member, place) in place.entries()? {
            let row = MEMBERS
                .iter()
                .find(|row| (row.0, row.1) == (section, member));
            match row {
                Some((_, _, option, kind)) => words.extend(word(option, *kind, &place)?),
                None => remarks.push(ignored(&format!("{section}.{member}"), &place)),
            }
        }
    }
    Ok((words, remarks))
}

fn word(option: &str, kind: ValueType, place: &NodePath) -> Result<Option<FileOption>, BadYaml> {
    let text = match kind {
        ValueType::List if !place.is_text() => {
            let texts = place.texts()?;
            let all: Vec<&str> = texts.iter().map(|(text, _)| *text).collect();
            Some(all.join(",")).filter(|list| !list.is_empty())
        }
        _ => place.text()?.map(str::to_owned),
    };
    let Some(text) = text else { return Ok(None) };
    if text.contains(char::is_control) {
        return Err(place.bad("a control character"));
    }
    let text = match kind {
        ValueType::Flag => match text.as_str() {
            "true" | "True" | "TRUE" => format!("--{option}"),
            // All but one of the flags are off by default, and that one means nothing here.
            "false" | "False" | "FALSE" => return Ok(None),
            other => return Err(place.bad(format!("{other:?} is neither true nor false"))),
        },
        ValueType::Port if !matches!(text.parse(), Ok(1..=u16::MAX)) => {
            return Err(place.bad(format!("{text:?} is not a port")));
        }
        _ => format!("--{option}={text}"),
    };
    Ok(Some(FileOption {
        line: place.line(),
        text,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::cli::classic::sshnpd_yaml::*;

    fn said(text: &str) -> Result<(String, String), String> {
        let (words, remarks) = read(text).map_err(|bad| bad.to_string())?;
        let words: Vec<String> = words
            .iter()
            .map(|word| format!("{}:{}", word.line, word.text))
            .collect();
        Ok((words.join(" "), remarks.join("; ")))
    }

    #[test]
    fn each_member_is_an_option() {
        for (text, want) in [
            ("", ""),
            ("atsign:\n  atsign: '@d'\n", "2:--atsign=@d"),
            ("atsign:\n  atsign:\n  keys: ~\n  root:\n", ""),
            (
                "atsign: {keys: /k, passphrase: p q, root: 'proxy:h:1'}",
                "1:--key-file=/k 1:--pass-phrase=p q 1:--root-server=proxy:h:1",
            ),
            (
                "access:\n  managers:\n    - a\n    - '@b'\n  policy: p\n  permitopen: ['*:*', 'nas:80']\n",
                "3:--managers=a,@b 5:--policy-manager=p 6:--permit-open=*:*,nas:80",
            ),
            ("access: {managers: 'a, b'}", "1:--managers=a, b"),
            ("access: {managers: [], permitopen: }", ""),
            (
                "device: {name: pi, group: g, hide: true}",
                "1:--device=pi 1:--device-group=g 1:--hide",
            ),
            (
                "ssh: {add-publickeys: true, client: dart, sshd-port: 2222, algorithm: ssh-rsa}",
                "1:--sshpublickey 1:--ssh-client=dart 1:--local-sshd-port=2222 1:--ssh-algorithm=ssh-rsa",
            ),
            (
                "ssh: {ssh-client: openssh, publickey-permissions: [a, b], ephemeral-permissions: ['c=\"d\"']}",
                "1:--ssh-client=openssh 1:--sshpublickey-permissions=a,b 1:--ephemeral-permissions=c=\"d\"",
            ),
            (
                "runtime: {storage-path: /s, clear-cached-pks: false, strict: true, verbose: True, debug: false}",
                "1:--storage-path=/s 1:--strict 1:--verbose",
            ),
        ] {
            assert_eq!(said(text), Ok((want.into(), String::new())), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        for (text, want) in [
            ("atsign:\n  atsign: @d\n", "line 2: "),
            (
                "device:\n  hide: maybe\n",
                "line 2: device.hide: \"maybe\" is neither true nor false",
            ),
            (
                "ssh:\n\n  sshd-port: 0\n",
                "line 3: ssh.sshd-port: \"0\" is not a port",
            ),
            (
                "ssh: {sshd-port: 65536}",
                "line 1: ssh.sshd-port: \"65536\" is not a port",
            ),
            (
                "device:\n  name: [a]\n",
                "line 2: device.name: a list where a text is expected",
            ),
            (
                "access:\n  managers: {a: b}\n",
                "line 2: access.managers: a map where a list is expected",
            ),
            (
                "device: pi\n",
                "line 1: device: a text where names are expected",
            ),
            (
                "device: {name: a, name: b}\n",
                "line 1: device.name: given twice",
            ),
        ] {
            let why = said(text).unwrap_err();
            assert!(why.starts_with(want), "{text}: {why}");
        }
    }

    #[test]
    fn what_nobody_knows_is_told_and_left_out() {
        let (words, remarks) =
            said("events:\n  a: b\ndevice:\n  name: pi\n  colour: red\n").unwrap();
        assert_eq!(words, "4:--device=pi");
        assert_eq!(
            remarks,
            "line 2: events is not known and left out; line 5: device.colour is not known and left out"
        );
    }
}
