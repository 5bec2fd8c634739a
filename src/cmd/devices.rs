//! `noports devices`: which devices there are for us, and which of them answer.
//!
//! ```text
//!   scan for device_info.<name>.sshnp ──▶ the records that daemons keep for their managers
//!   each one: read it afresh, and ping its daemon, all at the same time
//!   heartbeats, until all have answered or the time is up ──▶ a table
//! ```
//! A device that hides keeps no record, so it is not found; it answers who knows its name (`--device`).
//!
//! Called as `sshnp --list-devices`, the list goes to stderr in that program's form.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnp/sshnp.dart (`listDevices`).

use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
    time::Duration,
};

use argh::FromArgs;
use async_std::{future::timeout, task};
use log::{LevelFilter, debug};
use miniserde::json;

use super::{
    common::{self, Failure, Progress, classic, with_account},
    open::about,
    service,
};
use crate::{
    at::{
        AtKey, AtSign, Verb,
        client::{Client, Event, Subscription},
    },
    np::{
        NAMESPACE,
        ids::DeviceName,
        ping::{self, Heartbeat},
    },
    sys,
};

/// Longest wait for all devices together, in seconds, unless --wait says otherwise.
const PATIENCE: u64 = 10;
/// Most devices that are looked at.
const MAX_DEVICES: usize = 1000;
/// Records that are read at the same time.
const AT_ONCE: usize = 16;

with_account! {
    /// Lists the devices you may use, and which of them answer.
    #[derive(FromArgs)]
    struct Args {
        /// only the devices of this atSign (default: all that have told you about themselves)
        #[argh(option)]
        to: Option<String>,
        /// also ask the device of this name, which may be hidden (with --to; repeat it)
        #[argh(option)]
        device: Vec<String>,
        /// your atSign (default: the only one with keys here)
        #[argh(option, long = "as")]
        as_: Option<String>,
        /// seconds to wait for their answers (default: 10)
        #[argh(option, default = "PATIENCE")]
        wait: u64,
        /// one JSON line for each device, instead of the table
        #[argh(switch)]
        json: bool,
    }
}

/// The program.
pub fn main(name: &str, words: &[&str]) -> ExitCode {
    let args: Args = match common::parse(name, words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    sys::log::start(LevelFilter::Warn, args.verbose, args.quiet);
    sys::process::protect_memory();
    let json = args.json;
    common::finish(name, json, common::run(1, story(args)))
}

/// A device's name and its atSign.
type Name = (AtSign, DeviceName);

async fn story(args: Args) -> Result<(), Failure> {
    let to = args.to.as_deref().map(str::parse::<AtSign>).transpose()?;
    let named = named(to.as_ref(), &args.device)?;
    let (network, keys) = args.account().open(args.as_.as_deref())?;
    let patience = Duration::from_secs(args.wait.clamp(1, 3600));
    let mut progress = Progress::new(args.quiet);

    progress.begin(format!("logging in as {}", keys.atsign));
    let watch = format!(r"heartbeat\.[^.]+\.{NAMESPACE}@");
    let (at, inbox) = Client::login_and_subscribe(&network, keys, &watch).await?;
    progress.begin("looking for devices");
    if classic().is_some() {
        common::print_err("Searching for devices...");
    }
    let mut names = find(&at, to.as_ref()).await?;
    names.extend(named);
    names.sort();
    names.dedup();
    progress.begin(format!("asking {} devices", names.len()));
    let devices = ask(&at, inbox, names, patience).await;
    let active = devices.iter().filter(|device| device.active).count();
    progress.done(format!("{active} of {} devices answer", devices.len()));
    if classic().is_some() {
        common::print_err(&classic_list(&devices, to.is_some()));
    } else if args.json {
        for device in &devices {
            common::print_out(&device.to_json());
        }
    } else if !devices.is_empty() {
        common::print_out(&table(&devices));
    }
    Ok(())
}

/// Devices that are asked whether they have a record or not.
fn named(to: Option<&AtSign>, names: &[String]) -> Result<Vec<Name>, Failure> {
    let device = |name: &String| name.parse::<DeviceName>();
    let names: Vec<DeviceName> = names
        .iter()
        .map(device)
        .collect::<Result<_, _>>()
        .map_err(|why| Failure::misuse(why.to_string()))?;
    match to {
        Some(to) => Ok(names.into_iter().map(|name| (to.clone(), name)).collect()),
        None if names.is_empty() => Ok(Vec::new()),
        None => Err(Failure::misuse("--device needs the device's atSign").hint("--to @device")),
    }
}

/// The records that daemons keep for us.
async fn find(at: &Client, of: Option<&AtSign>) -> Result<Vec<Name>, Failure> {
    let scan = Verb::Scan {
        show_hidden: false,
        of: of.cloned(),
        page: None,
        regex: Some(format!(r"device_info\.[^.]+\.{NAMESPACE}")),
    };
    let answer = at.run(&scan).await.map_err(|error| match of {
        Some(of) => about(error, of),
        None => error.into(),
    })?;
    let keys: Vec<String> = json::from_str(&answer)
        .map_err(|_| Failure::plain("the atServer's list of keys cannot be read"))?;
    let me = at.atsign();
    let mut names: Vec<Name> = keys.iter().filter_map(|key| device_of(key, me)).collect();
    names.sort();
    names.dedup();
    if names.len() > MAX_DEVICES {
        common::print_err(&format!("only the first {MAX_DEVICES} devices are asked"));
        names.truncate(MAX_DEVICES);
    }
    Ok(names)
}

/// `cached:@me:device_info.dev1.sshnp@device`, or the same without what stands before the entity.
fn device_of(key: &str, me: &AtSign) -> Option<Name> {
    let key: AtKey = key.parse().ok()?;
    if key.with().is_some_and(|with| with != me) {
        return None;
    }
    let entity = key.entity.strip_prefix("device_info.")?;
    let name = entity.strip_suffix(NAMESPACE)?.strip_suffix('.')?;
    Some((key.owner?, name.parse().ok()?))
}

/// What is known of one device.
#[derive(Debug, PartialEq, Eq)]
struct Device {
    name: Name,
    active: bool,
    /// From its heartbeat, else from its record.
    about: Option<Heartbeat>,
    /// When its record was written, as its atServer says; silent devices only.
    last_seen: Option<String>,
    /// It answers, and keeps no record.
    hidden: bool,
}

/// Pings all, reads all records, and waits until all have answered or the time is up.
async fn ask(
    at: &Client,
    inbox: Subscription,
    names: Vec<Name>,
    patience: Duration,
) -> Vec<Device> {
    let mut answers: HashMap<Name, Heartbeat> = HashMap::new();
    let hear = hear(at, inbox, &names, &mut answers);
    let mut records = BTreeMap::new();
    let questions = async {
        for some in names.chunks(AT_ONCE) {
            let asked: Vec<_> = some
                .iter()
                .map(|name| task::spawn(ask_one(at.clone(), name.clone())))
                .collect();
            for (name, task) in some.iter().zip(asked) {
                records.insert(name.clone(), task.await);
            }
        }
    };
    let both = futures_lite::future::zip(timeout(patience, hear), timeout(patience, questions));
    let _ = both.await;
    let device = |name: Name| {
        let (heartbeat, record) = (answers.remove(&name), records.remove(&name));
        let active = heartbeat.is_some();
        // Asked for its record, and there was none; not: the time was up before.
        let hidden = active && matches!(record, Some(Ok(None)));
        let record = record.and_then(Result::ok).flatten();
        let (text, written) = record.map_or((None, None), |(text, at)| (Some(text), at));
        Device {
            active,
            about: heartbeat.or_else(|| Heartbeat::parse(&text?).ok()),
            last_seen: written.filter(|_| !active),
            hidden,
            name,
        }
    };
    names.into_iter().map(device).collect()
}

/// A record's text, and when it was written.
type Record = Option<(String, Option<String>)>;

/// The device's record; `Err`: whether there is one cannot be told.
async fn ask_one(at: Client, (who, device): Name) -> Result<Record, ()> {
    service::send_or_log(&at, &ping::ask(&who, &device)).await;
    let entity = format!("device_info.{device}.{NAMESPACE}");
    at.get_shared_afresh(&who, &entity).await.map_err(|error| {
        debug!("record_of={device}{who} error={error:?}");
    })
}

async fn hear(
    at: &Client,
    mut inbox: Subscription,
    names: &[Name],
    answers: &mut HashMap<Name, Heartbeat>,
) {
    while answers.len() < names.len() {
        let note = match inbox.next().await {
            Some(Event::Note(note)) => note,
            Some(_) => continue,
            None => return,
        };
        // Only what a device we asked says of itself is ever decrypted.
        let sender = names.iter().find(|(who, device)| {
            *who == note.from && note.entity() == ping::heartbeat_entity(device)
        });
        let Some(name) = sender else { continue };
        if let Ok(Some(text)) = at.open(&note).await
            && let Ok(heartbeat) = Heartbeat::parse(&text)
        {
            answers.insert(name.clone(), heartbeat);
        }
    }
}

#[derive(miniserde::Serialize)]
struct DeviceLine<'a> {
    device: &'a str,
    atsign: &'a str,
    state: &'a str,
    version: Option<&'a str>,
    services: &'a [String],
    #[serde(rename = "lastSeen")]
    last_seen: Option<&'a str>,
}

impl Device {
    fn state(&self) -> &'static str {
        match (self.active, self.hidden) {
            (true, true) => "hidden",
            (true, false) => "active",
            (false, _) => "silent",
        }
    }

    fn to_json(&self) -> String {
        json::to_string(&DeviceLine {
            device: self.name.1.as_str(),
            atsign: self.name.0.as_str(),
            state: self.state(),
            version: self.about.as_ref().map(|about| about.version.as_str()),
            services: self.about.as_ref().map_or(&[], |about| &about.services),
            last_seen: if self.active {
                Some("now")
            } else {
                self.last_seen.as_deref()
            },
        })
    }

    fn cells(&self) -> [String; 6] {
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
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(MAX_CELL).collect()
}

/// The list as `sshnp` writes it. `alone`: they all have the atSign that was asked for.
///
/// Source: noports:packages/dart/sshnoports/lib/src/print_devices.dart.
fn classic_list(devices: &[Device], alone: bool) -> String {
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

fn table(devices: &[Device]) -> String {
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
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths);
        let text: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(at: &str, device: &str) -> Name {
        (at.parse().unwrap(), device.parse().unwrap())
    }

    #[test]
    fn devices_are_found_in_every_form_of_their_key() {
        let me = "@me".parse().unwrap();
        for (key, want) in [
            (
                "cached:@me:device_info.dev1.sshnp@dev",
                Some(("@dev", "dev1")),
            ),
            ("@me:device_info.dev1.sshnp@dev", Some(("@dev", "dev1"))),
            ("device_info.dev-1.sshnp@dev", Some(("@dev", "dev-1"))),
            ("@other:device_info.dev1.sshnp@me", None),
            ("device_info.a.b.sshnp@dev", None),
            ("device_info..sshnp@dev", None),
            ("username.dev1.sshnp@dev", None),
            ("device_info.dev1.other@dev", None),
            ("", None),
        ] {
            let want = want.map(|(at, device)| name(at, device));
            assert_eq!(device_of(key, &me), want, "{key}");
        }
    }

    fn device(at: &str, device: &str, active: bool) -> Device {
        let services = vec!["localhost:22".to_owned(), "nas:\u{1b}[2J443".to_owned()];
        Device {
            name: name(at, device),
            active,
            about: Some(Heartbeat {
                version: "1.2.3".into(),
                ..Heartbeat::ours(&device.parse().unwrap(), services)
            }),
            last_seen: (!active).then(|| "2026-11-21 10:00:00.000Z".to_owned()),
            hidden: false,
        }
    }

    #[test]
    fn a_table_is_aligned_and_holds_no_control_characters() {
        let mut devices = vec![device("@d", "pi", true), device("@device", "kiosk", false)];
        devices[1].about = None;
        let want = "\
DEVICE  ATSIGN   STATE   VERSION  SERVICES                 LAST SEEN
pi      @d       active  1.2.3    localhost:22 nas:[2J443  now
kiosk   @device  silent                                    2026-11-21 10:00:00.000Z";
        assert_eq!(table(&devices), want);
    }

    #[test]
    fn the_classic_list_is_in_two_parts() {
        assert_eq!(classic_list(&[], true), "[X] No devices found\n");
        let mut active = device("@d", "pi", true);
        active.about.as_mut().unwrap().core = "6.2.0".into();
        let mut silent = device("@d", "kiosk", false);
        let about = silent.about.as_mut().unwrap();
        (about.version, about.core, about.services) = ("5.6.3".into(), "6.1".into(), Vec::new());
        assert_eq!(
            classic_list(&[active, silent], true),
            "Active Devices:\n  pi - v1.2.3 (core v6.2.0)\n  - allowedServices: localhost:22 nas:[2J443\n\
             Inactive Devices:\n  kiosk - v5.6.3 (core v6.1)"
        );
        let active = [device("@d", "pi", true)];
        let list = classic_list(&active, false);
        assert!(list.contains("\n  pi@d - v1.2.3 "), "{list}");
        assert!(
            list.ends_with("\nInactive Devices:\n  No devices found"),
            "{list}"
        );
    }

    #[test]
    fn a_hidden_device_is_asked_by_name() {
        let at = "@d".parse().unwrap();
        let names = |list: &[&str]| list.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            named(Some(&at), &names(&["My Pi"])).unwrap(),
            [name("@d", "my_pi")]
        );
        assert!(named(None, &names(&["pi"])).is_err());
        assert!(named(Some(&at), &names(&["a.b"])).is_err());
        let hidden = Device {
            hidden: true,
            ..device("@d", "pi", true)
        };
        assert_eq!(
            (hidden.state(), hidden.cells()[2].as_str()),
            ("hidden", "hidden")
        );
    }

    #[test]
    fn a_line_of_json_for_each_device() {
        let mut silent = device("@d", "pi", false);
        silent.about = None;
        assert_eq!(
            silent.to_json(),
            r#"{"device":"pi","atsign":"@d","state":"silent","version":null,"services":[],"lastSeen":"2026-11-21 10:00:00.000Z"}"#
        );
        let active = device("@d", "pi", true).to_json();
        assert!(
            active.contains(r#""state":"active","version":"1.2.3","services":["localhost:22","#)
        );
        assert!(active.ends_with(r#""lastSeen":"now"}"#), "{active}");
    }
}
