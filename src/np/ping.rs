//! "Are you there, and what can you do?"
//!
//! The answer also stands as a record on the daemon's atServer (`device_info.<device>.sshnp`), so that
//! people can list their devices.
//!
//! ```text
//!   3.4, 4.x   {"devicename":…,"version":…}
//!   5.0        … and ,"corePackageVersion","supportedFeatures":{…}
//!   5.2        … and ,"allowedServices":[…]
//!   later      … and "deviceGroupName" behind the name; more features
//!   ours       … and ,"answers":true: it answers on the control channel ([`super::control`])
//!              … and ,"records":true: it takes shares for keys, and sends records ([`super::agreement`])
//!              … and ,"others":true: another daemon of this atSign and name runs; ,"shared":true: as it is meant to
//!              … and ,"run":"<nonce>" at the end: which of its starts this is ([`super::request::stamp`])
//! ```
//!
//! A daemon that names no features at all takes public keys, and can do nothing else. Members that nobody knows
//! are passed over.
//!
//! Source: noports:packages/dart/noports_core/lib/src/common/features.dart and
//! noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart (members and their order).

use miniserde::{Deserialize, Serialize, json};

use super::{
    Message, NAMESPACE,
    ids::{DeviceName, Nonce},
};
use crate::at::AtSign;

/// The whole text of a ping.
pub const PING: &str = "ping";

/// When a ping without an answer is sent again, in seconds after the first one: the C daemon loses what arrives
/// while it asks its atServer whether it is still there.
pub const AGAIN: [u64; 3] = [2, 5, 9];

/// Longest answer that is looked at, in bytes.
pub const MAX_HEARTBEAT: usize = 64 * 1024;

/// What a daemon can do. Absent members, and everything but `true`, mean no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Features {
    /// Logs in to the rendezvous with a signed line.
    #[serde(rename = "srAuth")]
    pub relay_auth: bool,
    /// Encrypts what passes the rendezvous.
    #[serde(rename = "srE2ee")]
    pub relay_encryption: bool,
    /// Takes ssh public keys.
    #[serde(rename = "acceptsPublicKeys")]
    pub public_keys: bool,
    /// Opens other ports than ssh (`npt_request`).
    #[serde(rename = "supportsPortChoice")]
    pub port_choice: bool,
    /// Honours a time-out in requests.
    #[serde(rename = "adjustableTimeout")]
    pub adjustable_timeout: bool,
    /// Understands signs of life on the control channel.
    #[serde(rename = "controlChannelHeartbeats")]
    pub control_heartbeats: bool,
    /// One key per direction.
    #[serde(rename = "twinKeys")]
    pub twin_keys: bool,
}

/// Which members a generation of daemons has.
#[cfg(any(test, feature = "held"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeartbeatFormat {
    /// 3.4 and 4.x: name and version.
    V3,
    /// 5.0 and 5.1: features.
    V50,
    /// 5.2 to 5.6, and the C daemon: what may be opened.
    V52,
    /// The group.
    Newest,
}

/// Who a daemon is and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its name among the devices of its atSign.
    pub device: String,
    /// The group it is in, for policies.
    pub group: String,
    /// Version of the program.
    pub version: String,
    /// Version of what it is built on; the C daemon's begins with `c`.
    pub core: String,
    /// What it can do.
    pub features: Features,
    /// The patterns it lets people open.
    pub services: Vec<String>,
    /// Whether it answers on the control channel.
    pub answers: bool,
    /// Whether it agrees on keys that nothing opens later, and sends records.
    pub records: bool,
    /// Another daemon of this atSign and name runs.
    pub others: bool,
    /// As it is meant to.
    pub shared: bool,
    /// Which of its starts this is; `None`: it does not say.
    pub run: Option<Nonce>,
}

/// How [`Heartbeat::core`] begins in the answers of daemons of this program.
const OUR_CORE: &str = "rust-";

/// The group of a daemon that has none.
pub const NO_GROUP: &str = "__none__";

#[derive(Serialize)]
struct Wire<'a> {
    #[serde(rename = "devicename")]
    device: &'a str,
    #[serde(rename = "deviceGroupName")]
    group: &'a str,
    version: &'a str,
    #[serde(rename = "corePackageVersion")]
    core: &'a str,
    #[serde(rename = "supportedFeatures")]
    features: Features,
    #[serde(rename = "allowedServices")]
    services: &'a [String],
}

#[derive(Deserialize)]
struct LooseHeartbeat {
    devicename: Option<json::Value>,
    #[serde(rename = "deviceGroupName")]
    group: Option<json::Value>,
    version: Option<json::Value>,
    #[serde(rename = "corePackageVersion")]
    core: Option<json::Value>,
    #[serde(rename = "supportedFeatures")]
    features: Option<json::Value>,
    #[serde(rename = "allowedServices")]
    services: Option<json::Value>,
    answers: Option<json::Value>,
    records: Option<json::Value>,
    others: Option<json::Value>,
    shared: Option<json::Value>,
    run: Option<json::Value>,
}

/// Not a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon's answer to the ping cannot be read")]
pub struct BadHeartbeat;

impl Heartbeat {
    /// What our own daemon says of itself.
    pub fn ours(device: &DeviceName, services: Vec<String>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            core: format!("{OUR_CORE}{}", env!("CARGO_PKG_VERSION")),
            features: Features {
                relay_auth: true,
                relay_encryption: true,
                public_keys: false,
                port_choice: true,
                adjustable_timeout: true,
                control_heartbeats: true,
                twin_keys: true,
            },
            services,
            answers: true,
            records: true,
            ..Self::unknown(device)
        }
    }

    /// Whether it is of this program: only then is it known that a request that comes twice acts once.
    pub fn is_ours(&self) -> bool {
        self.core.starts_with(OUR_CORE)
    }

    /// Nothing but a name: stands in for the answer of a daemon that was not asked, or does not answer.
    pub fn unknown(device: &DeviceName) -> Self {
        Self {
            device: device.to_string(),
            group: NO_GROUP.to_owned(),
            version: String::new(),
            core: String::new(),
            features: unnamed_features(),
            services: Vec::new(),
            answers: false,
            records: false,
            others: false,
            shared: false,
            run: None,
        }
    }

    /// The text of an earlier generation: the members it had, and of the features those that are true or that it
    /// knew.
    #[cfg(any(test, feature = "held"))]
    pub fn print_as(&self, format: HeartbeatFormat) -> String {
        let text = |text: &str| json::to_string(text);
        let (device, version) = (text(&self.device), text(&self.version));
        if format == HeartbeatFormat::Newest {
            return self.print();
        }
        let mut out = format!(r#"{{"devicename":{device},"version":{version}"#);
        if format >= HeartbeatFormat::V50 {
            let f = &self.features;
            let features: Vec<String> = [
                ("srAuth", f.relay_auth, true),
                ("srE2ee", f.relay_encryption, true),
                ("acceptsPublicKeys", f.public_keys, true),
                (
                    "supportsPortChoice",
                    f.port_choice,
                    format >= HeartbeatFormat::V52,
                ),
                ("adjustableTimeout", f.adjustable_timeout, false),
                ("controlChannelHeartbeats", f.control_heartbeats, false),
                ("twinKeys", f.twin_keys, false),
            ]
            .into_iter()
            .filter(|(_, has, known)| *has || *known)
            .map(|(name, has, _)| format!(r#""{name}":{has}"#))
            .collect();
            let (core, features) = (text(&self.core), features.join(","));
            out += &format!(r#","corePackageVersion":{core},"supportedFeatures":{{{features}}}"#);
        }
        if format >= HeartbeatFormat::V52 {
            out += &format!(r#","allowedServices":{}"#, json::to_string(&self.services));
        }
        out + "}"
    }

    /// The JSON text, members in the order upstream writes them.
    pub fn print(&self) -> String {
        let mut text = json::to_string(&Wire {
            device: &self.device,
            group: &self.group,
            version: &self.version,
            core: &self.core,
            features: self.features,
            services: &self.services,
        });
        for (name, is_so) in [
            ("answers", self.answers),
            ("records", self.records),
            ("others", self.others),
            ("shared", self.shared),
        ] {
            if is_so {
                text.pop();
                text += &format!(r#","{name}":true}}"#);
            }
        }
        if let Some(run) = &self.run {
            text.pop();
            text += &format!(r#","run":{}}}"#, json::to_string(run.as_str()));
        }
        text
    }

    /// Reads any generation's answer. A daemon that names no features at all (4.x) takes public keys
    /// and nothing else.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn parse(text: &str) -> Result<Self, BadHeartbeat> {
        if text.len() > MAX_HEARTBEAT {
            return Err(BadHeartbeat);
        }
        let read: LooseHeartbeat = json::from_str(text).map_err(|_| BadHeartbeat)?;
        let words = |value: Option<json::Value>| match value {
            Some(json::Value::String(text)) => Some(text),
            _ => None,
        };
        let is_true = |value: Option<json::Value>| matches!(value, Some(json::Value::Bool(true)));
        let core = words(read.core).unwrap_or_default();
        let service = |value: json::Value| {
            let service = words(Some(value))?;
            // The C daemon prints any port as 0.
            Some(match service.strip_suffix(":0") {
                Some(host) if core.starts_with('c') => format!("{host}:*"),
                _ => service,
            })
        };
        Ok(Self {
            device: words(read.devicename).unwrap_or_default(),
            group: words(read.group).unwrap_or_else(|| NO_GROUP.to_owned()),
            version: words(read.version).unwrap_or_default(),
            features: features(read.features),
            services: match read.services {
                Some(json::Value::Array(list)) => list.into_iter().filter_map(service).collect(),
                _ => Vec::new(),
            },
            core,
            answers: is_true(read.answers),
            records: is_true(read.records),
            others: is_true(read.others),
            shared: is_true(read.shared),
            run: words(read.run).and_then(|run| run.parse().ok()),
        })
    }
}

fn features(value: Option<json::Value>) -> Features {
    let Some(json::Value::Object(members)) = value else {
        return unnamed_features();
    };
    let has = |name: &str| matches!(members.get(name), Some(json::Value::Bool(true)));
    Features {
        relay_auth: has("srAuth"),
        relay_encryption: has("srE2ee"),
        public_keys: has("acceptsPublicKeys"),
        port_choice: has("supportsPortChoice"),
        adjustable_timeout: has("adjustableTimeout"),
        control_heartbeats: has("controlChannelHeartbeats"),
        twin_keys: has("twinKeys"),
    }
}

/// Of a daemon that names none.
fn unnamed_features() -> Features {
    Features {
        public_keys: true,
        ..Features::default()
    }
}

/// The question.
pub fn ask(to: &AtSign, device: &DeviceName) -> Message {
    Message::new(to, format!("ping.{device}.{NAMESPACE}"), PING)
}

/// The answer.
pub fn answer(to: &AtSign, device: &DeviceName, heartbeat: &Heartbeat) -> Message {
    Message::new(to, heartbeat_entity(device), heartbeat.print())
}

/// `heartbeat.<device>.sshnp`
pub fn heartbeat_entity(device: &DeviceName) -> String {
    format!("heartbeat.{device}.{NAMESPACE}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn our_own_answer_is_pinned() {
        let ours = Heartbeat::ours(&"dev1".parse().unwrap(), vec!["localhost:22".into()]);
        let v = env!("CARGO_PKG_VERSION");
        let want = format!(
            r#"{{"devicename":"dev1","deviceGroupName":"__none__","version":"{v}","corePackageVersion":"rust-{v}","supportedFeatures":{{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false,"supportsPortChoice":true,"adjustableTimeout":true,"controlChannelHeartbeats":true,"twinKeys":true}},"allowedServices":["localhost:22"],"answers":true,"records":true}}"#
        );
        assert_eq!(ours.print(), want);
        assert_eq!(Heartbeat::parse(&want).unwrap(), ours);
        assert!(ours.is_ours());
        let run = Some("0123456789abcdef".parse().unwrap());
        let in_a_run = Heartbeat { run, ..ours };
        let end = r#","run":"0123456789abcdef"}"#;
        let want = format!("{}{end}", want.strip_suffix('}').unwrap());
        assert_eq!(in_a_run.print(), want);
        assert_eq!(Heartbeat::parse(&want).unwrap(), in_a_run);
        let among_others = Heartbeat {
            others: true,
            shared: true,
            ..in_a_run
        };
        let text = among_others.print();
        assert!(
            text.contains(r#","others":true,"shared":true,"run":"#),
            "{text}"
        );
        assert_eq!(Heartbeat::parse(&text).unwrap(), among_others);
        let theirs = Heartbeat::parse(r#"{"corePackageVersion":"c0.1.0"}"#).unwrap();
        assert!(!theirs.is_ours() && !Heartbeat::unknown(&"dev1".parse().unwrap()).is_ours());
    }

    #[test]
    fn the_answers_of_earlier_generations_are_pinned() {
        let mut daemon =
            Heartbeat::ours(&"my_device".parse().unwrap(), vec!["localhost:22".into()]);
        let some = Features {
            relay_auth: true,
            relay_encryption: true,
            ..Features::default()
        };
        for (members, version, core, features, want) in [
            (
                HeartbeatFormat::V3,
                "4.0.5",
                "",
                Features::default(),
                r#"{"devicename":"my_device","version":"4.0.5"}"#,
            ),
            (
                HeartbeatFormat::V50,
                "5.0.2",
                "6.0.2",
                some,
                r#"{"devicename":"my_device","version":"5.0.2","corePackageVersion":"6.0.2","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false}}"#,
            ),
            (
                HeartbeatFormat::V52,
                "5.6.1",
                "6.1.0",
                Features {
                    port_choice: true,
                    adjustable_timeout: true,
                    ..some
                },
                r#"{"devicename":"my_device","version":"5.6.1","corePackageVersion":"6.1.0","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false,"supportsPortChoice":true,"adjustableTimeout":true},"allowedServices":["localhost:22"]}"#,
            ),
        ] {
            (daemon.version, daemon.core) = (version.to_owned(), core.to_owned());
            daemon.features = features;
            let text = daemon.print_as(members);
            assert_eq!(text, want, "{members:?}");
            let read = Heartbeat::parse(&text).unwrap();
            let unnamed = members == HeartbeatFormat::V3;
            let want = if unnamed {
                unnamed_features()
            } else {
                features
            };
            assert_eq!((read.features, read.version), (want, version.to_owned()));
        }
        assert_eq!(daemon.print_as(HeartbeatFormat::Newest), daemon.print());
    }

    #[test]
    fn every_generation_can_be_read() {
        let none = Features::default();
        for (text, want) in [
            // 3.4 and 4.x
            (
                r#"{"devicename":"d","version":"4.0.5"}"#,
                Features {
                    public_keys: true,
                    ..none
                },
            ),
            // C daemon
            (
                r#"{"devicename":"dev1","version":"0.2.0","corePackageVersion":"c0.1.0","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":true,"supportsPortChoice":true},"allowedServices":["localhost:0"]}"#,
                Features {
                    relay_auth: true,
                    relay_encryption: true,
                    public_keys: true,
                    port_choice: true,
                    ..none
                },
            ),
            // Only an exact `true` counts; a list that is none is empty.
            (
                r#"{"supportedFeatures":{"twinKeys":"true","srAuth":1,"srE2ee":true,"new":true},"allowedServices":"x"}"#,
                Features {
                    relay_encryption: true,
                    ..none
                },
            ),
        ] {
            assert_eq!(Heartbeat::parse(text).unwrap().features, want, "{text}");
        }
        for (core, said, want) in [
            ("c0.1.0", "localhost:0", "localhost:*"),
            ("c1.0.20", "*:0", "*:*"),
            ("c0.1.0", "nas:80", "nas:80"),
            ("6.2.0", "localhost:0", "localhost:0"),
        ] {
            let text = format!(r#"{{"corePackageVersion":"{core}","allowedServices":["{said}"]}}"#);
            assert_eq!(Heartbeat::parse(&text).unwrap().services, [want], "{text}");
        }
        for bad in ["", "pong", "[]", "{", "7"] {
            assert_eq!(Heartbeat::parse(bad), Err(BadHeartbeat), "{bad:?}");
        }
    }
}
