//! `noports devices`: which devices there are for us, and which of them answer.
//!
//! ```text
//!   scan for device_info.<name>.sshnp ──▶ the records that daemons keep for their managers
//!   each one: read it afresh, and ping its daemon, all at the same time; the silent ones again after a while
//!   heartbeats, until all have answered or the time is up ──▶ a table: `show`
//! ```
//! Anybody can send records of devices, as many as he likes: those of atSigns with which a session was opened come first,
//! and of any other one no more than a few are asked unless --to names it.
//! A device that hides keeps no record, so it is not found; it answers who knows its name (`--device`).
//!
//! Called as `sshnp --list-devices`, the list goes to stderr in that program's form.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnp/sshnp.dart (`listDevices`).

use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
    time::{Duration, Instant},
};

use argh::{ArgsInfo, FromArgs};
use async_std::{channel::bounded, future::timeout, task};
use futures_lite::future::{or, pending, zip};
use log::{LevelFilter, debug};
use miniserde::json;

use crate::{
    at::{
        AtKey, AtSign, Verb,
        client::{AtError, Client, Event, Subscription, Timing},
        pins::Pins,
    },
    cli::{self, Console, Failure, Outcome, Progress, flags},
    np::{
        MAX_CLIENT_LINE, NAMESPACE,
        ids::DeviceName,
        ping::{self, Heartbeat},
    },
    session::{
        ask::{self, about},
        online,
    },
    sys::paths,
    text::duration::seconds,
};

use device::{Device, DeviceAddress, Trouble};
use show::{classic_list, table};

mod device;
mod show;

/// Longest wait for all devices together, unless --timeout says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most devices that are looked at.
const MAX_DEVICES: usize = 1000;
/// An atSign with which no session was opened, and that tells of more devices, is told in one line instead.
const FEW: usize = 20;
/// So many of them are named.
const NAMED: usize = 5;
/// Devices of all such atSigns together.
const MAX_OF_STRANGERS: usize = 100;
/// Daemons that are shown of one name.
const MOST_NAMESAKES: usize = 8;
/// How long others of a name are waited for that one of them speaks of.
const OTHERS: Duration = Duration::from_secs(1);
/// Records that are read at the same time.
const AT_ONCE: usize = 16;

flags! {
    /// List the devices you may use, and show which of them answer.
    ///
    /// Devices that hide are only found by name: --device.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(
        example = "{command_name}",
        example = "{command_name} --to @kitchen",
        example = "{command_name} --to @kitchen --device pi --json"
    )]
    pub(crate) struct Args {
        /// only devices of this atSign (default: all whose daemons list you as a manager)
        #[argh(option, arg_name = "atsign")]
        to: Option<String>,
        /// with --to: also ask the device of this name, which may be hidden
        #[argh(option, arg_name = "name")]
        device: Vec<String>,
        /// your atSign (or NOPORTS_AS; default: the only one with keys here)
        #[argh(option, long = "as", arg_name = "atsign")]
        as_: Option<String>,
        /// how long to wait for answers (default: 10s)
        #[argh(option, arg_name = "duration", default = "PATIENCE", from_str_fn(seconds))]
        timeout: Duration,
        account,
    }
}

/// The program.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    console.start(words, LevelFilter::Warn, 1, story)
}

async fn story(console: &Console, args: Args) -> Result<(), Failure> {
    let (to, mut devices) = (args.to.as_deref(), args.device.clone());
    // `--to pi1@fleet` means this device of that atSign.
    let own = to.filter(|to| !to.starts_with('@') && to.contains('@'));
    let to = match own {
        Some(own) => {
            let (to, device) = ask::device_at(own, None)?;
            devices.push(device.to_string());
            Some(to)
        }
        None => to.map(str::parse::<AtSign>).transpose()?,
    };
    let named = named(to.as_ref(), &devices)?;
    let (network, keys) = args.account().load(console, args.as_.as_deref())?;
    let patience = args.timeout.clamp(ask::LEAST_PATIENCE, ask::MOST_PATIENCE);
    let mut progress = console.progress(args.quiet);

    progress.begin(format!("logging in as {}", keys.atsign));
    let watch = format!(r"heartbeat\.[^.]+\.{NAMESPACE}@");
    let (at, inbox) =
        Client::login_and_subscribe(&network, keys, &watch, MAX_CLIENT_LINE, Timing::default())
            .await?;
    let pins = Pins::new(paths::memory(), Vec::new());
    at.heed(pins.clone(), None);
    progress.begin("looking for devices");
    if console.is_classic() {
        cli::print_err("Searching for devices...");
    }
    let mut names = find(&at, to.as_ref()).await?;
    if to.is_none() {
        let known = pins.read().unwrap_or_default();
        // A session notes what the device can do.
        let is_known = |who: &AtSign| known.get(who).is_some_and(|known| !known.notes.is_empty());
        let strangers;
        (names, strangers) = in_order(names, is_known);
        tell_strangers(&strangers);
    }
    if names.len() > MAX_DEVICES {
        cli::print_err(&format!("only the first {MAX_DEVICES} devices are asked"));
        names.truncate(MAX_DEVICES);
    }
    names.extend(
        named
            .into_iter()
            .filter(|name| !names.contains(name))
            .collect::<Vec<_>>(),
    );
    progress.begin(match names.len() {
        1 => "asking 1 device".to_owned(),
        count => format!("asking {count} devices"),
    });
    let (devices, failures) = ask(&at, inbox, names, patience).await;
    tell_namesakes(&devices);
    let active = devices.iter().filter(|device| device.active).count();
    if devices.is_empty() {
        tell_none(at.atsign(), &mut progress);
    } else {
        progress.done(format!("{active} of {} devices answered", devices.len()));
    }
    if console.is_classic() {
        cli::print_err(&classic_list(&devices, to.is_some()));
    } else if !devices.is_empty() {
        let lines: Vec<_> = devices.iter().map(Device::to_json).collect();
        let outcome = Outcome::json(lines.join("\n")).plain(table(&devices));
        console.tell(args.json, outcome);
    }
    tell_failures(&devices, failures)
}

/// Why there may be none.
fn tell_none(me: &AtSign, progress: &mut Progress) {
    progress.done(format!("no daemon has told {me} of its device"));
    progress.note(format!(
        "a daemon tells those that it names with --manager; if {me} has new keys, once they are believed there: noports \
         trust {me}; one that hides, or asks a policy about {me}, is asked by its name: noports devices --to @kitchen \
         --device pi"
    ));
}

/// Of which devices there are two that are not meant to be.
fn tell_namesakes(devices: &[Device]) {
    for pair in devices.windows(2) {
        let [one, other] = pair else { continue };
        let shared = one.about.as_ref().is_some_and(|about| about.shared);
        if one.name == other.name && !shared {
            let (at, name) = &one.name;
            cli::print_err(&format!(
                "two daemons answer as {name}{at}: stop one of them, or give it a name of its own (--device there); if it is \
                 intended: --shared-name there"
            ));
        }
    }
}

/// What went wrong, each once. A failure when that is all there is to say.
fn tell_failures(devices: &[Device], failures: Vec<(AtSign, AtError)>) -> Result<(), Failure> {
    let mut told: Vec<Failure> = Vec::new();
    for (who, error) in failures {
        let failure = about(error, &who);
        if told
            .iter()
            .all(|earlier| earlier.message != failure.message)
        {
            told.push(failure);
        }
    }
    let none = devices.iter().all(|device| device.trouble.is_some());
    let last = if none { told.pop() } else { None };
    for failure in told {
        cli::print_err(&format!("noports devices: {failure}"));
    }
    last.map_or(Ok(()), Err)
}

/// Devices that are asked whether they have a record or not.
fn named(to: Option<&AtSign>, names: &[String]) -> Result<Vec<DeviceAddress>, Failure> {
    let device = |name: &String| name.parse::<DeviceName>();
    let names: Vec<DeviceName> = names
        .iter()
        .map(device)
        .collect::<Result<_, _>>()
        .map_err(|why| Failure::misuse(why.to_string()))?;
    match to {
        Some(to) => Ok(names.into_iter().map(|name| (to.clone(), name)).collect()),
        None if names.is_empty() => Ok(Vec::new()),
        None => Err(
            Failure::misuse("--device needs the device's atSign").hint(format!(
                "noports devices --to @kitchen --device {}",
                names[0]
            )),
        ),
    }
}

/// The records that daemons keep for us.
async fn find(at: &Client, of: Option<&AtSign>) -> Result<Vec<DeviceAddress>, Failure> {
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
    // What others share with us lies on our own atServer, too.
    let is_wanted = |device: &DeviceAddress| of.is_none_or(|of| device.0 == *of);
    let found = keys.iter().filter_map(|key| device_of(key, me));
    let mut names: Vec<DeviceAddress> = found.filter(is_wanted).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// In one line, whoever they are.
fn tell_strangers(strangers: &BTreeMap<AtSign, usize>) {
    let count: usize = strangers.values().sum();
    if let Some(first) = strangers.keys().next() {
        let names: Vec<&str> = strangers.keys().take(NAMED).map(AtSign::as_str).collect();
        let more = if strangers.len() > NAMED {
            " and others"
        } else {
            ""
        };
        cli::print_err(&format!(
            "{count} devices of {}{more} are not asked, as you have opened no session there: noports devices --to {first}",
            names.join(", ")
        ));
    }
}

/// Devices that are asked, those of known atSigns first; and of which strangers how many are not.
fn in_order(
    names: Vec<DeviceAddress>,
    is_known: impl Fn(&AtSign) -> bool,
) -> (Vec<DeviceAddress>, BTreeMap<AtSign, usize>) {
    let mut counts: BTreeMap<AtSign, usize> = BTreeMap::new();
    for (who, _) in &names {
        *counts.entry(who.clone()).or_default() += 1;
    }
    let (mut known, of_strangers): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|(who, _)| is_known(who));
    counts.retain(|who, _| !is_known(who));
    // Those with few first: who invents a crowd of atSigns gives each at least one device.
    let mut strangers: Vec<_> = counts
        .iter()
        .map(|(who, count)| (*count, who.clone()))
        .collect();
    strangers.sort();
    let mut room = MAX_OF_STRANGERS;
    for (count, who) in strangers {
        if count <= FEW.min(room) {
            room -= count;
            counts.remove(&who);
        }
    }
    let asked = of_strangers
        .into_iter()
        .filter(|(who, _)| !counts.contains_key(who));
    known.extend(asked);
    (known, counts)
}

/// `cached:@me:device_info.dev1.sshnp@device`, or the same without what stands before the entity.
fn device_of(key: &str, me: &AtSign) -> Option<DeviceAddress> {
    let key: AtKey = key.parse().ok()?;
    if key.with().is_some_and(|with| with != me) {
        return None;
    }
    let entity = key.entity.strip_prefix("device_info.")?;
    let name = entity.strip_suffix(NAMESPACE)?.strip_suffix('.')?;
    Some((key.owner?, name.parse().ok()?))
}

/// Pings all, reads all records, and waits until all that could be asked have answered, or the time is up. Also says
/// why some could not be.
async fn ask(
    at: &Client,
    inbox: Subscription,
    names: Vec<DeviceAddress>,
    patience: Duration,
) -> (Vec<Device>, Vec<(AtSign, AtError)>) {
    let mut answers = Answers::new();
    let (give_up, hopeless) = bounded(1);
    let hear = or(hear(at, inbox, &names, &mut answers), async {
        if hopeless.recv().await.is_err() {
            pending().await
        }
    });
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
        if records.len() == names.len() && records.values().all(|record| record.is_err()) {
            // Nobody will answer.
            let _ = give_up.try_send(());
        }
    };
    let both = zip(timeout(patience, hear), timeout(patience, questions));
    let _ = both.await;
    let mut failures = Vec::new();
    let mut device = |name: DeviceAddress| {
        let (heartbeats, record) = (answers.remove(&name), records.remove(&name));
        let mut heartbeats = heartbeats.unwrap_or_default().into_iter();
        let heartbeat = heartbeats.next();
        let active = heartbeat.is_some();
        // Asked for its record, and there was none; not: the time was up before.
        let hidden = active && matches!(record, Some(Ok(Some(None))));
        let (record, error) = match record {
            Some(Ok(record)) => (record.flatten(), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let error = error.filter(|_| !active);
        let trouble = error.as_ref().map(Trouble::of);
        failures.extend(error.map(|error| (name.0.clone(), error)));
        let (text, written) = record.map_or((None, None), |(text, at)| (Some(text), at));
        let first = Device {
            active,
            about: heartbeat.or_else(|| Heartbeat::parse(&text?).ok()),
            last_seen: written.filter(|_| !active),
            hidden,
            trouble,
            name: name.clone(),
        };
        let namesakes = heartbeats.map(move |heartbeat| Device {
            active,
            about: Some(heartbeat),
            last_seen: None,
            hidden,
            trouble: None,
            name: name.clone(),
        });
        std::iter::once(first).chain(namesakes)
    };
    let devices = names.into_iter().flat_map(&mut device).collect();
    (devices, failures)
}

/// What has answered as each device.
type Answers = HashMap<DeviceAddress, Vec<Heartbeat>>;

/// A record's text, and when it was written.
type DeviceRecord = Option<(String, Option<String>)>;

/// The device's record; `None`: whether there is one cannot be told; `Err`: it could not be asked.
async fn ask_one(
    at: Client,
    (who, device): DeviceAddress,
) -> Result<Option<DeviceRecord>, AtError> {
    online::send(&at, &ping::ask(&who, &device)).await?;
    let entity = format!("device_info.{device}.{NAMESPACE}");
    match at.get_shared_afresh(&who, &entity).await {
        Ok(record) => Ok(Some(record)),
        // The question only waits on its way: it will not be let in either.
        Err(error) if Trouble::of(&error) == Trouble::Refused => Err(error),
        Err(error) => {
            debug!("record_of={device}{who} reason={:?}", error.to_string());
            Ok(None)
        }
    }
}

async fn hear(
    at: &Client,
    mut inbox: Subscription,
    names: &[DeviceAddress],
    answers: &mut Answers,
) {
    let begun = Instant::now();
    let mut repeats = ping::AGAIN.map(Duration::from_secs).into_iter();
    let mut next = repeats.next();
    let mut all_since: Option<Instant> = None;
    while answers.len() < names.len() || awaits_others(answers) {
        let is_all = answers.len() == names.len();
        let event = match next {
            _ if is_all => {
                let since = all_since.get_or_insert_with(Instant::now).elapsed();
                match timeout(OTHERS.saturating_sub(since), inbox.next()).await {
                    Ok(event) => Ok(event),
                    Err(_) => return,
                }
            }
            Some(after) => timeout(after.saturating_sub(begun.elapsed()), inbox.next()).await,
            None => Ok(inbox.next().await),
        };
        let note = match event {
            Ok(Some(Event::Note(note))) => note,
            Ok(Some(_)) => continue,
            Ok(None) => return,
            Err(_) => {
                ping_again(at, names, answers);
                next = repeats.next();
                continue;
            }
        };
        // Only what a device we asked says of itself is ever decrypted.
        let sender = names.iter().find(|(who, device)| {
            *who == note.from && note.entity() == ping::heartbeat_entity(device)
        });
        let Some(name) = sender else { continue };
        if let Ok(Some(text)) = at.decrypt(&note).await
            && let Ok(heartbeat) = Heartbeat::parse(&text)
        {
            let said = answers.entry(name.clone()).or_default();
            if said.is_empty() || said.len() < MOST_NAMESAKES && is_another(said, &heartbeat) {
                said.push(heartbeat);
            }
        }
    }
}

/// Whether a device that speaks of others has not been heard twice.
fn awaits_others(answers: &Answers) -> bool {
    answers
        .values()
        .any(|said| said.len() == 1 && said.iter().any(|one| one.others))
}

/// A daemon that has not answered yet; those of others do not say which they are.
fn is_another(said: &[Heartbeat], heartbeat: &Heartbeat) -> bool {
    heartbeat.run.is_some() && said.iter().all(|one| one.run != heartbeat.run)
}

/// Asks those that are silent once more; what is heard meanwhile does not wait for that.
fn ping_again(at: &Client, names: &[DeviceAddress], answers: &Answers) {
    let silent = names.iter().filter(|name| !answers.contains_key(*name));
    let silent: Vec<DeviceAddress> = silent.cloned().collect();
    let at = at.clone();
    task::spawn(async move {
        for (who, device) in silent {
            // What can go wrong was told the first time.
            let _ = online::send(&at, &ping::ask(&who, &device)).await;
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
