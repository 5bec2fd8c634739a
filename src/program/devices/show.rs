//! The devices as people and scripts see them: a table, a list in `sshnp`'s form, JSON lines.

use super::device::{Device, Trouble};
use crate::text::{
    columns,
    json::{Object, array},
    terminal::{escaped, steers},
};

impl Device {
    pub(super) fn state(&self) -> &'static str {
        match (self.active, self.hidden, self.trouble) {
            (true, true, _) => "hidden",
            (true, false, _) => "active",
            (false, _, Some(Trouble::Refused)) => "refused",
            (false, _, Some(Trouble::NotAsked)) => "not asked",
            (false, _, None) => "silent",
        }
    }

    pub(super) fn to_json(&self) -> String {
        let about = self.about.as_ref();
        let seen = if self.active {
            Some("now")
        } else {
            self.last_seen.as_deref()
        };
        let services = about.map_or(&[][..], |about| &about.services);
        let object = Object::event("device")
            .text("device", self.name.1.as_str())
            .text("atsign", self.name.0.as_str())
            .text("state", self.state())
            .maybe("version", about.map(|about| about.version.as_str()))
            .raw("services", array(services.iter().map(String::as_str)))
            .maybe("lastSeen", seen);
        match about
            .filter(|about| about.others)
            .and_then(|about| about.run.as_ref())
        {
            Some(run) => object.text("instance", run.as_str()),
            None => object,
        }
        .end()
    }

    pub(super) fn cells(&self) -> [String; 6] {
        let (version, services) = self.about.as_ref().map_or_else(Default::default, |about| {
            (shown(&about.version), shown(&about.services.join(" ")))
        });
        let seen = match (&self.last_seen, self.active) {
            (_, true) => "now".to_owned(),
            (Some(when), _) => shown(when),
            (None, _) => String::new(),
        };
        let (at, name) = &self.name;
        [
            name.to_string(),
            at.to_string(),
            self.state().to_owned(),
            version,
            services,
            seen,
        ]
    }
}

/// Longest text of one cell, in characters: what a daemon says must not flood a terminal.
const MAX_CELL: usize = 120;

fn shown(text: &str) -> String {
    escaped(text, steers).chars().take(MAX_CELL).collect()
}

/// The list as `sshnp` writes it. `alone`: they all have the atSign that was asked for.
///
/// Source: noports:packages/dart/sshnoports/lib/src/print_devices.dart.
pub(super) fn classic_list(devices: &[Device], alone: bool) -> String {
    if devices.is_empty() {
        return "[X] No devices found\n".to_owned();
    }
    let mut lines = Vec::new();
    for (title, active) in [("Active Devices:", true), ("Inactive Devices:", false)] {
        lines.push(title.to_owned());
        let some: Vec<&Device> = devices.iter().filter(|d| d.active == active).collect();
        if some.is_empty() {
            lines.push("  No devices found".to_owned());
        }
        for device in some {
            let (at, name) = &device.name;
            let owner = if alone { String::new() } else { at.to_string() };
            let about = device.about.as_ref();
            let (version, core) = about.map_or(("null", "null"), |a| (&a.version, &a.core));
            let (version, core) = (shown(version), shown(core));
            lines.push(format!("  {name}{owner} - v{version} (core v{core})"));
            if let Some(about) = about.filter(|about| !about.services.is_empty()) {
                let services: Vec<String> = about.services.iter().map(|s| shown(s)).collect();
                lines.push(format!("  - allowedServices: {}", services.join(" ")));
            }
        }
    }
    lines.join("\n")
}

pub(super) fn table(devices: &[Device]) -> String {
    let head = [
        "DEVICE",
        "ATSIGN",
        "STATE",
        "VERSION",
        "SERVICES",
        "LAST SEEN",
    ];
    let rows: Vec<[String; 6]> = std::iter::once(head.map(str::to_owned))
        .chain(devices.iter().map(Device::cells))
        .collect();
    let lines = columns::lines(&rows, &[]);
    let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n")
}
