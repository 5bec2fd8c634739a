//! "May this client use this device?" — asked by a daemon, answered by a policy.
//!
//! ```text
//!   daemon ── request.<id>.auth_checks.__rpcs.sshnp ──▶ policy      client, device, group
//!   daemon ◀── ack.<id>.…                                           heard
//!   daemon ◀── success.<id>.…                                       yes or no, why, what may be opened
//! ```
//!
//! * [`rpc`] — these messages as text. * [`rules`] — who may do what, and which rule says so.
//! * [`yaml`] — rules from a file. * [`group`], [`npp`] — rules from records on the policy's own atServer, as the
//!   older and the newer administrators' programs write them.
//!
//! The daemon puts its own `--permit-open` in front: what both lists name may be opened.
//!
//! Source: noports:packages/dart/noports_core/lib/src/npa/npa_impl.dart, npa_rpc.dart (messages);
//! noports:packages/dart/sshnoports/bin/npp_file.dart, npp_atserver.dart (decisions).

use std::{fmt, str::FromStr};

use super::{Message, ids::DeviceName, permit::Permit, ping::Heartbeat};
use crate::at::AtSign;

pub mod group;
pub mod npp;
pub mod rpc;
pub mod rules;
pub mod yaml;

/// Key of a group's record on the policy's own atServer, behind its id: `1.groups.policy.sshnp`.
pub const GROUPS: &str = "groups.policy.sshnp";
/// Key of what a policy tells itself about its decisions, behind the milliseconds: `….logs.policy.sshnp`.
pub const LOGS: &str = "logs.policy.sshnp";
/// Key of a daemon's sign of life, behind the device's name: `pi.devices.policy.sshnp`.
pub const DEVICES: &str = "devices.policy.sshnp";

/// Longest name of a device group, in bytes.
pub const MAX_GROUP_NAME: usize = 128;

/// The group a daemon says it belongs to, so that one rule can be for many devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceGroup(String);

/// Not a name of a device group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a device group: it needs 1 to {MAX_GROUP_NAME} bytes without control characters"
)]
pub struct BadGroup(String);

impl DeviceGroup {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A daemon that is in no group.
impl Default for DeviceGroup {
    fn default() -> Self {
        Self(super::ping::NO_GROUP.to_owned())
    }
}

impl FromStr for DeviceGroup {
    type Err = BadGroup;

    fn from_str(typed: &str) -> Result<Self, BadGroup> {
        let name = typed.trim();
        if (1..=MAX_GROUP_NAME).contains(&name.len()) && !name.contains(char::is_control) {
            Ok(Self(name.to_owned()))
        } else {
            Err(BadGroup(typed.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for DeviceGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a daemon asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthCheck {
    /// Who wants to use the device.
    pub client: AtSign,
    /// The device's atSign; it is the one that asks.
    pub daemon: AtSign,
    /// Which of its devices.
    pub device: DeviceName,
    /// The group that device says it is in.
    pub group: DeviceGroup,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthAnswer {
    /// Whether the client may use the device at all.
    pub authorized: bool,
    /// Why, in words for people; it may come from a stranger.
    pub message: Option<String>,
    /// `host:port` patterns; nothing else may be opened.
    pub permit_open: Vec<String>,
}

impl AuthAnswer {
    /// What may be opened. Words that are no pattern permit nothing.
    pub fn permit(&self) -> Permit {
        self.permit_open.iter().map(String::as_str).collect()
    }
}

/// "I am here", for the policy.
pub fn heartbeat(to: &AtSign, device: &DeviceName, heartbeat: &Heartbeat) -> Message {
    Message::new(to, format!("{device}.{DEVICES}"), heartbeat.print())
}

/// What a daemon's monitor has to match to hear a policy's answers, and a policy's to hear questions.
pub const WATCH_RPC: &str = r"\.auth_checks\.__rpcs\.sshnp@";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn group_names_are_any_printable_text() {
        for (typed, want) in [
            ("office", Some("office")),
            (" Floor 2 ", Some("Floor 2")),
            ("__none__", Some("__none__")),
            ("", None),
            ("a\nb", None),
        ] {
            let got = typed.parse::<DeviceGroup>().ok();
            assert_eq!(got.as_ref().map(DeviceGroup::as_str), want, "{typed:?}");
        }
        assert!(
            "x".repeat(MAX_GROUP_NAME + 1)
                .parse::<DeviceGroup>()
                .is_err()
        );
        assert_eq!(DeviceGroup::default().as_str(), "__none__");
    }

    #[test]
    fn a_policys_words_permit_what_they_name_and_nothing_else() {
        let answer = |words: &[&str]| AuthAnswer {
            authorized: true,
            message: None,
            permit_open: words.iter().map(|&w| w.to_owned()).collect(),
        };
        for (words, port, want) in [
            (&["localhost:22"][..], 22, true),
            (&["nonsense", "localhost:22"], 22, true),
            (&["nonsense"], 22, false),
            (&["nas:80,localhost:22"], 22, false),
            (&[], 22, false),
            (&["*:*"], 9, true),
        ] {
            assert_eq!(
                answer(words).permit().allows("localhost", port),
                want,
                "{words:?} {port}"
            );
        }
    }

    #[test]
    fn a_heartbeat_names_its_device() {
        let device = "pi".parse().unwrap();
        let text = heartbeat(
            &"@p".parse().unwrap(),
            &device,
            &Heartbeat::ours(&device, Vec::new()),
        );
        assert_eq!(text.entity, "pi.devices.policy.sshnp");
    }
}
