//! Who may do what, and which rule says so.
//!
//! ```text
//!   client ──▶ the groups that name it ──▶ those that name the daemon ──▶ devices["pi"]   what may be opened
//!                                                                    └──▶ deviceGroups["office"]
//! ```
//! Rules from a file: what is said of the device's own name is all; its group counts only when nothing is
//! said of the name. Rules from records: both count. What several groups allow adds up.

use std::collections::{BTreeMap, BTreeSet};

use super::{AuthAnswer, AuthCheck, DeviceGroup};
use crate::{
    at::AtSign,
    np::{ids::DeviceName, permit::Permit},
};

/// These people may use these devices, for these connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// For people.
    pub name: String,
    /// Who is in it.
    pub users: BTreeSet<AtSign>,
    /// Whose devices it is about.
    pub daemons: BTreeSet<AtSign>,
    /// What may be opened on a device of this name.
    pub devices: BTreeMap<DeviceName, Vec<String>>,
    /// What may be opened on devices that say they are in this group.
    pub device_groups: BTreeMap<DeviceGroup, Vec<String>>,
    /// What may be opened on a device of this name that says it is in this group.
    pub services: BTreeMap<(DeviceName, DeviceGroup), Vec<String>>,
}

/// What happens when both a device's name and its group have an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// The name's entry is all.
    NameFirst,
    /// They add up; without any pattern it is a no.
    Both,
}

/// Everything a policy knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// In the order of their source.
    pub groups: Vec<Group>,
    /// Depends on the source.
    pub combine: Combine,
}

impl Rules {
    /// Whether anything is said about this daemon. Others need no answer.
    pub fn name_daemon(&self, who: &AtSign) -> bool {
        self.groups.iter().any(|group| group.daemons.contains(who))
    }
}

/// A yes or no, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the daemon is told.
    pub answer: AuthAnswer,
    /// Which entries said yes.
    pub by: Option<MatchedBy>,
    /// The groups whose rules said yes; after a no those that name the client.
    pub groups: Vec<String>,
    /// How it came about, for the person who writes the rules.
    pub why: String,
}

/// Which kind of entry said yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchedBy {
    /// The one of the device's name.
    DeviceName,
    /// The one of its group.
    DeviceGroup,
    /// One for that name in that group.
    Service,
    /// More than one of these.
    Both,
}

impl MatchedBy {
    /// For logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::DeviceName => "device_name",
            Self::DeviceGroup => "device_group",
            Self::Service => "service",
            Self::Both => "device_name+device_group",
        }
    }
}

/// Some groups' entries for the same thing, added up.
#[derive(Clone, Default)]
struct Hit {
    patterns: Vec<String>,
    groups: Vec<String>,
}

impl Hit {
    fn of(groups: &[&Group], entry: impl Fn(&Group) -> Option<&Vec<String>>) -> Option<Self> {
        let mut hit = Self::default();
        for group in groups {
            if let Some(patterns) = entry(group) {
                hit.add(patterns, &group.name);
            }
        }
        (!hit.groups.is_empty()).then_some(hit)
    }

    fn add(&mut self, patterns: &[String], group: &str) {
        for pattern in patterns {
            if !self.patterns.contains(pattern) {
                self.patterns.push(pattern.clone());
            }
        }
        if !self.groups.iter().any(|known| known == group) {
            self.groups.push(group.to_owned());
        }
    }

    fn and(mut self, other: Self) -> Self {
        for group in &other.groups {
            self.add(&other.patterns, group);
        }
        self
    }
}

impl Rules {
    /// Answers a question.
    pub fn decide(&self, q: &AuthCheck) -> Decision {
        let theirs: Vec<&Group> = self
            .groups
            .iter()
            .filter(|g| g.users.contains(&q.client))
            .collect();
        let AuthCheck { client, daemon, .. } = q;
        if theirs.is_empty() {
            let why = format!("no group names {client} among its userAtSigns");
            return no(format!("No permissions for {client}"), &theirs, why);
        }
        let here: Vec<&Group> = theirs
            .iter()
            .copied()
            .filter(|g| g.daemons.contains(daemon))
            .collect();
        if here.is_empty() {
            let why =
                format!("none of the groups of {client} names {daemon} among its daemonAtSigns");
            let message = match self.combine {
                Combine::NameFirst => format!("No permissions for {client} at {daemon}"),
                Combine::Both => nothing_here(q),
            };
            return no(message, &theirs, why);
        }
        let named = Hit::of(&here, |group| group.devices.get(&q.device));
        let grouped = Hit::of(&here, |group| group.device_groups.get(&q.group));
        if let (Combine::NameFirst, Some(named)) = (self.combine, &named) {
            return yes(q, named.clone(), MatchedBy::DeviceName, self.combine);
        }
        let service = (q.device.clone(), q.group.clone());
        let served = Hit::of(&here, |group| group.services.get(&service));
        let kinds = [
            MatchedBy::DeviceName,
            MatchedBy::DeviceGroup,
            MatchedBy::Service,
        ];
        let hits = [named, grouped, served].into_iter().zip(kinds);
        let all = hits.filter_map(|(hit, by)| Some((hit?, by)));
        match all.reduce(|(hit, _), (more, _)| (hit.and(more), MatchedBy::Both)) {
            Some((hit, by)) => self.unless_empty(q, hit, by),
            None => {
                let why = format!(
                    "they have no entry for the device {} and none for the device group {}",
                    q.device, q.group
                );
                no(nothing_here(q), &here, why)
            }
        }
    }

    fn unless_empty(&self, q: &AuthCheck, hit: Hit, by: MatchedBy) -> Decision {
        if self.combine == Combine::Both && hit.patterns.is_empty() {
            let why = "their entries for this device allow nothing".to_owned();
            return Decision {
                groups: hit.groups,
                ..no(nothing_here(q), &[], why)
            };
        }
        yes(q, hit, by, self.combine)
    }
}

/// Patterns from outside: all of them have to be patterns.
///
/// # Errors
/// The word that is none.
pub(super) fn pattern(word: &str) -> Result<String, String> {
    let permit: Permit = word
        .parse()
        .map_err(|bad: crate::np::permit::BadPattern| bad.to_string())?;
    match permit.services().as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(format!("{word:?} is not one host:port pattern")),
    }
}

fn nothing_here(q: &AuthCheck) -> String {
    format!(
        "No permissions for {} at {} for either the device {} or the deviceGroup {}",
        q.client, q.daemon, q.device, q.group
    )
}

fn yes(q: &AuthCheck, hit: Hit, by: MatchedBy, combine: Combine) -> Decision {
    let AuthCheck {
        client,
        daemon,
        device,
        group,
    } = q;
    let place = match (combine, by) {
        (Combine::Both, _) => format!("device {device} and/or device group {group}"),
        (_, MatchedBy::DeviceGroup) => format!("device group {group}"),
        _ => format!("device {device}"),
    };
    let entry = match by {
        MatchedBy::DeviceName => format!("the entry for the device {device}"),
        MatchedBy::DeviceGroup => format!("the entry for the device group {group}"),
        MatchedBy::Service => format!("the service {device} in the device group {group}"),
        MatchedBy::Both => {
            format!("the entries for the device {device} and the device group {group}")
        }
    };
    let message = format!("{client} has permission for {place} at daemon {daemon}");
    Decision {
        answer: answer(true, message, hit.patterns),
        by: Some(by),
        groups: hit.groups,
        why: entry,
    }
}

fn no(message: String, groups: &[&Group], why: String) -> Decision {
    Decision {
        answer: answer(false, message, Vec::new()),
        by: None,
        groups: groups.iter().map(|g| g.name.clone()).collect(),
        why,
    }
}

fn answer(authorized: bool, message: String, permit_open: Vec<String>) -> AuthAnswer {
    AuthAnswer {
        authorized,
        message: Some(message),
        permit_open,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
