//! A group as the administrator's program stores it on the policy's own atServer: one record each, under
//! `<id>.groups.policy.sshnp`.
//!
//! Source: noports:packages/dart/noports_core/lib/src/admin/ (model classes and key names).

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use miniserde::{Deserialize, json};

use super::{
    GROUPS,
    rules::{Group, pattern},
};
use crate::at::AtSign;

/// Longest record that is looked at, in bytes.
pub const MAX_RECORD: usize = 1024 * 1024;

/// Why a record is no group: what, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct BadRecord {
    /// `devices.pi`, say.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl BadRecord {
    pub(super) fn new(field: impl Into<String>, why: impl Display) -> Self {
        Self {
            field: field.into(),
            why: why.to_string(),
        }
    }
}

/// A record's members; `otherwise` says what is wrong with one that has others.
pub(super) fn members<T: Deserialize>(text: &str, otherwise: &str) -> Result<T, BadRecord> {
    if text.len() > MAX_RECORD {
        let why = format!("longer than {MAX_RECORD} bytes");
        return Err(BadRecord::new("record", why));
    }
    json::from_str(text).map_err(|_| BadRecord::new("record", otherwise))
}

#[derive(Deserialize)]
struct DeviceEntry {
    name: String,
    #[serde(rename = "permitOpens")]
    permit: Vec<String>,
}

#[derive(Deserialize)]
struct Wire {
    name: String,
    #[serde(rename = "userAtSigns")]
    users: Vec<String>,
    #[serde(rename = "daemonAtSigns")]
    daemons: Vec<String>,
    devices: Vec<DeviceEntry>,
    #[serde(rename = "deviceGroups")]
    device_groups: Vec<DeviceEntry>,
}

/// Whether a key is that of a group, and its id.
pub fn id(entity: &str) -> Option<&str> {
    entity
        .strip_suffix(GROUPS)?
        .strip_suffix('.')
        .filter(|id| !id.is_empty())
}

/// Reads one record.
///
/// # Errors
/// The first member that cannot be used. A group with one bad entry is not used at all: a half one might
/// be taken for the whole.
pub fn parse(text: &str) -> Result<Group, BadRecord> {
    let wire: Wire = members(text, "not a group, or members are missing")?;
    let atsigns = |list: Vec<String>, field: &str| {
        list.iter()
            .map(|name| name.parse::<AtSign>())
            .collect::<Result<_, _>>()
            .map_err(|why| BadRecord::new(field, why))
    };
    Ok(Group {
        name: wire.name,
        users: atsigns(wire.users, "userAtSigns")?,
        daemons: atsigns(wire.daemons, "daemonAtSigns")?,
        devices: entries(wire.devices, "devices")?,
        device_groups: entries(wire.device_groups, "deviceGroups")?,
        ..Group::default()
    })
}

fn entries<K>(list: Vec<DeviceEntry>, field: &str) -> Result<BTreeMap<K, Vec<String>>, BadRecord>
where
    K: FromStr + Ord,
    K::Err: Display,
{
    let mut all: BTreeMap<K, Vec<String>> = BTreeMap::new();
    for DeviceEntry { name, permit } in list {
        let field = || format!("{field}.{name}");
        let key: K = name.parse().map_err(|why| BadRecord::new(field(), why))?;
        let known = all.entry(key).or_default();
        for word in &permit {
            known.push(pattern(word).map_err(|why| BadRecord::new(field(), why))?);
        }
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"id":"1","name":"sysadmins","description":"the ones with the pager","daemonAtSigns":["@d"],"devices":[{"name":"pi","permitOpens":["*:22"]},{"name":"pi","permitOpens":["*:80"]}],"deviceGroups":[{"name":"Office","permitOpens":["localhost:3389"]}],"userAtSigns":["@C"]}"#;

    #[test]
    fn a_record_becomes_a_group() {
        let group = parse(RECORD).unwrap();
        assert_eq!(group.name, "sysadmins");
        assert_eq!(group.users, ["@c".parse().unwrap()].into());
        assert_eq!(group.daemons, ["@d".parse().unwrap()].into());
        assert_eq!(group.devices[&"pi".parse().unwrap()], ["*:22", "*:80"]);
        assert_eq!(
            group.device_groups[&"Office".parse().unwrap()],
            ["localhost:3389"]
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (from, to, want) in [
            (
                r#""userAtSigns":["@C"]"#,
                r#""users":[]"#,
                "record: not a group, or members are missing",
            ),
            ("\"@C\"", "\"@a b\"", "userAtSigns: "),
            (
                "\"*:22\"",
                "\"22\"",
                "devices.pi: \"22\" is not host:port, where either may be *",
            ),
            (
                "\"*:22\"",
                "\"a:1,b:2\"",
                "devices.pi: \"a:1,b:2\" is not one host:port pattern",
            ),
            ("Office", "", "deviceGroups.: "),
        ] {
            let said = parse(&RECORD.replace(from, to)).unwrap_err().to_string();
            assert!(said.starts_with(want), "{to}: {said}");
        }
        assert!(parse(&" ".repeat(MAX_RECORD + 1)).is_err());
    }

    #[test]
    fn a_groups_key_has_an_id() {
        assert_eq!(id("12.groups.policy.sshnp"), Some("12"));
        for other in [
            "groups.policy.sshnp",
            ".groups.policy.sshnp",
            "1.logs.policy.sshnp",
        ] {
            assert_eq!(id(other), None, "{other}");
        }
    }
}
