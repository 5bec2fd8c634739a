//! The rules of the newer policy service, as it stores them on its own atServer: small records that name each
//! other by number.
//!
//! ```text
//!   client ◀── member ──▶ client group ◀── acl ──▶ service ──▶ daemon
//!   @alice                ops               │       pi, office   @my_device
//!                                           └─ localhost:22
//! ```
//! A service is one device in one device group; both have to be as the record says. Several entries add up.
//!
//! Source: noports:packages/dart/noports_core/lib/src/npp/models.g.dart (members), npp_cache.dart (key names, and
//! how they belong together).

use std::collections::{BTreeMap, BTreeSet};

use miniserde::Deserialize;

use super::{
    DeviceGroup,
    group::{BadRecord, members},
    rules::{Group, pattern},
};
use crate::{at::AtSign, np::ids::DeviceName};

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Somebody.
    Client,
    /// A name for several of them.
    ClientGroup,
    /// Who is in which.
    Member,
    /// A device's atSign.
    Daemon,
    /// One of its devices.
    Service,
    /// What a group may open there.
    Acl,
}

/// What stands between a record's number and `.policy.sshnp` in its key.
const KINDS: [(&str, RecordKind); 6] = [
    ("client", RecordKind::Client),
    ("client_group", RecordKind::ClientGroup),
    ("client_group_members", RecordKind::Member),
    ("daemon", RecordKind::Daemon),
    ("service", RecordKind::Service),
    ("service_acl", RecordKind::Acl),
];

/// Number and kind, if a key is that of such a record: `3.client.policy.sshnp`.
pub fn kind(entity: &str) -> Option<(&str, RecordKind)> {
    let (id, rest) = entity.strip_suffix(".policy.sshnp")?.split_once('.')?;
    let row = KINDS.iter().find(|row| row.0 == rest)?;
    let is_number = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some((id, row.1))
}

/// Records, as they come in.
#[derive(Clone, Debug, Default)]
pub struct Records {
    clients: BTreeMap<String, AtSign>,
    groups: BTreeMap<String, String>,
    members: Vec<(String, String)>,
    daemons: BTreeMap<String, AtSign>,
    services: BTreeMap<String, (String, DeviceName, DeviceGroup)>,
    acls: Vec<(String, String, String)>,
}

#[derive(Deserialize)]
struct WireClient {
    #[serde(rename = "atSign")]
    atsign: String,
}

#[derive(Deserialize)]
struct WireGroup {
    name: String,
}

#[derive(Deserialize)]
struct WireMember {
    #[serde(rename = "clientId")]
    client: String,
    #[serde(rename = "clientGroupId")]
    group: String,
}

#[derive(Deserialize)]
struct WireService {
    #[serde(rename = "daemonId")]
    daemon: String,
    #[serde(rename = "deviceName")]
    device: String,
    #[serde(rename = "deviceGroupName")]
    group: String,
}

#[derive(Deserialize)]
struct WireAcl {
    #[serde(rename = "serviceId")]
    service: String,
    #[serde(rename = "clientGroupId")]
    group: String,
    #[serde(rename = "permitOpen")]
    permit: String,
}

fn wire<T: Deserialize>(text: &str) -> Result<T, BadRecord> {
    members(text, "members are missing or of another kind")
}

impl Records {
    /// Takes one record in.
    ///
    /// # Errors
    /// The first member that cannot be used; the record is left out then.
    pub fn add(&mut self, id: &str, kind: RecordKind, text: &str) -> Result<(), BadRecord> {
        let id = id.to_owned();
        let atsign = |text: &str| {
            let who: WireClient = wire(text)?;
            who.atsign
                .parse::<AtSign>()
                .map_err(|w| BadRecord::new("atSign", w))
        };
        match kind {
            RecordKind::Client => drop(self.clients.insert(id, atsign(text)?)),
            RecordKind::Daemon => drop(self.daemons.insert(id, atsign(text)?)),
            RecordKind::ClientGroup => {
                let group: WireGroup = wire(text)?;
                self.groups.insert(id, group.name);
            }
            RecordKind::Member => {
                let member: WireMember = wire(text)?;
                self.members.push((member.client, member.group));
            }
            RecordKind::Service => {
                let service: WireService = wire(text)?;
                let device = service
                    .device
                    .parse()
                    .map_err(|w| BadRecord::new("deviceName", w))?;
                let bad_group = |why| BadRecord::new("deviceGroupName", why);
                let group = service.group.parse().map_err(bad_group)?;
                self.services.insert(id, (service.daemon, device, group));
            }
            RecordKind::Acl => {
                let acl: WireAcl = wire(text)?;
                let permit = pattern(&acl.permit).map_err(|w| BadRecord::new("permitOpen", w))?;
                self.acls.push((acl.group, acl.service, permit));
            }
        }
        Ok(())
    }

    /// All of them as rules, and what names a record that is not there. One group of people has a rule for each
    /// atSign whose devices it may use.
    pub fn groups(&self) -> (Vec<Group>, Vec<String>) {
        let mut missing = Vec::new();
        let mut users: BTreeMap<&str, BTreeSet<AtSign>> = BTreeMap::new();
        for (client, group) in &self.members {
            match (self.clients.get(client), self.groups.contains_key(group)) {
                (Some(who), true) => drop(users.entry(group).or_default().insert(who.clone())),
                (None, _) => missing.push(format!("client {client}")),
                (_, false) => missing.push(format!("client_group {group}")),
            }
        }
        // The people alone, too: whoever is in a group without an entry is told so, and not "no group".
        let mut rules: BTreeMap<(&str, Option<&AtSign>), Group> = BTreeMap::new();
        for (group, users) in &users {
            rules.insert((group, None), self.rule(group, None, users));
        }
        for (group, service, permit) in &self.acls {
            let Some((daemon, device, device_group)) = self.services.get(service) else {
                missing.push(format!("service {service}"));
                continue;
            };
            let Some(daemon) = self.daemons.get(daemon) else {
                missing.push(format!("daemon {daemon}"));
                continue;
            };
            let Some(users) = users.get(group.as_str()) else {
                if !self.groups.contains_key(group) {
                    missing.push(format!("client_group {group}"));
                }
                continue;
            };
            let rule = rules
                .entry((group, Some(daemon)))
                .or_insert_with(|| self.rule(group, Some(daemon), users));
            let place = (device.clone(), device_group.clone());
            rule.services.entry(place).or_default().push(permit.clone());
        }
        (rules.into_values().collect(), missing)
    }

    fn rule(&self, group: &str, daemon: Option<&AtSign>, users: &BTreeSet<AtSign>) -> Group {
        Group {
            name: self.groups.get(group).cloned().unwrap_or_default(),
            users: users.clone(),
            daemons: daemon.into_iter().cloned().collect(),
            ..Group::default()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::np::policy::{
        AuthCheck,
        rules::{Combine, MatchedBy, Rules},
    };

    const RECORDS: &[(&str, &str)] = &[
        ("1.client", r#"{"id":"1","name":"Alice","atSign":"@Alice"}"#),
        ("2.client", r#"{"id":"2","name":"Bob","atSign":"@bob"}"#),
        ("3.client", r#"{"id":"3","name":"Idle","atSign":"@idle"}"#),
        ("1.client_group", r#"{"id":"1","name":"ops"}"#),
        ("2.client_group", r#"{"id":"2","name":"dev"}"#),
        ("3.client_group", r#"{"id":"3","name":"none"}"#),
        (
            "1.client_group_members",
            r#"{"id":"1","clientId":"1","clientGroupId":"1"}"#,
        ),
        (
            "2.client_group_members",
            r#"{"id":"2","clientId":"1","clientGroupId":"2"}"#,
        ),
        (
            "3.client_group_members",
            r#"{"id":"3","clientId":"2","clientGroupId":"2"}"#,
        ),
        (
            "4.client_group_members",
            r#"{"id":"4","clientId":"3","clientGroupId":"3"}"#,
        ),
        ("1.daemon", r#"{"id":"1","atSign":"@d"}"#),
        ("2.daemon", r#"{"id":"2","atSign":"@e"}"#),
        (
            "1.service",
            r#"{"id":"1","daemonId":"1","deviceName":"pi","deviceGroupName":"office"}"#,
        ),
        (
            "2.service",
            r#"{"id":"2","daemonId":"2","deviceName":"pi","deviceGroupName":"__none__"}"#,
        ),
        (
            "1.service_acl",
            r#"{"id":"1","serviceId":"1","clientGroupId":"1","permitOpen":"localhost:22"}"#,
        ),
        (
            "2.service_acl",
            r#"{"id":"2","serviceId":"1","clientGroupId":"2","permitOpen":"*:80"}"#,
        ),
        (
            "3.service_acl",
            r#"{"id":"3","serviceId":"2","clientGroupId":"2","permitOpen":"*:*"}"#,
        ),
    ];

    fn records(more: &[(&str, &str)]) -> Records {
        let mut records = Records::default();
        for (key, text) in RECORDS.iter().chain(more) {
            let entity = format!("{key}.policy.sshnp");
            let (id, kind) = kind(&entity).unwrap();
            records.add(id, kind, text).unwrap();
        }
        records
    }

    #[test]
    fn a_service_is_a_device_in_a_device_group_of_one_daemon() {
        let (groups, missing) = records(&[]).groups();
        assert_eq!(missing, [""; 0]);
        let rules = Rules {
            groups,
            combine: Combine::Both,
        };
        for (client, daemon, device, group, want) in [
            ("@alice", "@d", "pi", "office", Some("localhost:22 *:80")),
            ("@bob", "@d", "pi", "office", Some("*:80")),
            ("@bob", "@e", "pi", "__none__", Some("*:*")),
            ("@bob", "@d", "pi", "__none__", None),
            ("@bob", "@e", "pi", "office", None),
            ("@bob", "@d", "tv", "office", None),
            ("@idle", "@d", "pi", "office", None),
            ("@nobody", "@d", "pi", "office", None),
        ] {
            let decision = rules.decide(&AuthCheck {
                client: client.parse().unwrap(),
                daemon: daemon.parse().unwrap(),
                device: device.parse().unwrap(),
                group: group.parse().unwrap(),
            });
            let answer = decision.answer;
            let permit = answer.authorized.then(|| answer.permit_open.join(" "));
            assert_eq!(
                permit.as_deref(),
                want,
                "{client} {daemon} {device} {group}"
            );
            assert_eq!(
                decision.by,
                want.map(|_| MatchedBy::Service),
                "{client} {daemon}"
            );
            let known = client != "@nobody";
            let message = answer.message.unwrap();
            assert_eq!(
                message == format!("No permissions for {client}"),
                !known,
                "{message}"
            );
        }
    }

    #[test]
    fn what_names_a_record_that_is_not_there_is_left_out_and_told() {
        let (groups, missing) = records(&[
            (
                "9.client_group_members",
                r#"{"clientId":"77","clientGroupId":"1"}"#,
            ),
            (
                "8.client_group_members",
                r#"{"clientId":"1","clientGroupId":"66"}"#,
            ),
            (
                "9.service_acl",
                r#"{"serviceId":"55","clientGroupId":"1","permitOpen":"*:*"}"#,
            ),
            (
                "9.service",
                r#"{"daemonId":"44","deviceName":"pi","deviceGroupName":"x"}"#,
            ),
            (
                "8.service_acl",
                r#"{"serviceId":"9","clientGroupId":"1","permitOpen":"*:*"}"#,
            ),
        ])
        .groups();
        assert_eq!(groups, records(&[]).groups().0);
        assert_eq!(
            missing.join(", "),
            "client 77, client_group 66, service 55, daemon 44"
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (kind, text, want) in [
            (RecordKind::Client, "{}", "record: "),
            (RecordKind::Client, r#"{"atSign":"@a b"}"#, "atSign: "),
            (RecordKind::Daemon, r#"{"atSign":7}"#, "record: "),
            (
                RecordKind::Service,
                r#"{"daemonId":"1","deviceName":"a b@","deviceGroupName":"x"}"#,
                "deviceName: ",
            ),
            (
                RecordKind::Service,
                r#"{"daemonId":"1","deviceName":"pi","deviceGroupName":""}"#,
                "deviceGroupName: ",
            ),
            (
                RecordKind::Acl,
                r#"{"serviceId":"1","clientGroupId":"1","permitOpen":"a:1,b:2"}"#,
                "permitOpen: ",
            ),
        ] {
            let said = Records::default()
                .add("1", kind, text)
                .unwrap_err()
                .to_string();
            assert!(said.starts_with(want), "{text}: {said}");
        }
    }

    #[test]
    fn keys_tell_what_a_record_is() {
        for (entity, want) in [
            ("1.client.policy.sshnp", Some(("1", RecordKind::Client))),
            ("12.service_acl.policy.sshnp", Some(("12", RecordKind::Acl))),
            ("1.groups.policy.sshnp", None),
            (".client.policy.sshnp", None),
            ("x.client.policy.sshnp", None),
            ("client.policy.sshnp", None),
            ("1.client.policy.other", None),
        ] {
            assert_eq!(kind(entity), want, "{entity}");
        }
    }
}
