//! A random walk: ten devices, four clients, a stranger; faults by chance, sessions meanwhile.
//!
//! | what always holds | how it is seen |
//! | --- | --- |
//! | no request is answered twice | daemons' logs: one `open=` for each session |
//! | no stranger is served | the stranger's own sessions; daemons' logs |
//! | every wait ends | each session that was begun ends by itself, however it ends |
//! | every daemon is back within a minute of its network | after each step, sessions with those it struck and with others |
//! | nothing is left behind | descriptors, processes and memory are at the end what they were at the start |

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::{Duration, Instant},
};

use super::{
    random::Random,
    session::Session,
    setup::Setup,
    site::{ATSERVER, NOBODY, RENDEZVOUS_HOST, STRANGER, Site, client, device, manager},
};
use crate::world::{
    Process, children_of, descriptors, signal,
    support::{at_a_pace, becomes},
};

pub const DEVICES: usize = 10;
pub const CLIENTS: usize = 4;
/// From the end of a fault until a daemon serves.
const BACK: Duration = Duration::from_secs(60);
/// What is worth a line.
const LATE: Duration = Duration::from_secs(10);
/// For an answer, of somebody who tries while there is a fault.
const SHORT_PATIENCE: Duration = Duration::from_secs(10);
/// Descriptors more than at the start that are nobody's leftover: a connection that is being made anew.
const FEW: usize = 4;
/// Memory more than at the start, in KiB. What an allocator keeps differs from run to run.
const GROWTH: u64 = 12 * 1024;

/// What happens to somebody.
#[derive(Clone, Copy, Debug)]
enum Fault {
    CutDevice(usize),
    CutClient(usize),
    CutRendezvous,
    CutDeviceFromRendezvous(usize),
    UnplugDevice(usize),
    ResetDevice(usize),
    BadLine,
    KillAtserver,
    FreezeAtserver,
    KillRendezvous,
    FreezeRendezvous,
    KillDaemon(usize),
    FreezeDaemon(usize),
    RenumberDevice(usize),
    ForgetDevice(usize),
    FillDisk,
}

impl Fault {
    fn any(random: &mut Random) -> Self {
        let whose = random.below(DEVICES);
        match random.below(16) {
            0 => Self::CutDevice(whose),
            1 => Self::CutClient(random.below(CLIENTS)),
            2 => Self::CutRendezvous,
            3 => Self::CutDeviceFromRendezvous(whose),
            4 => Self::UnplugDevice(whose),
            5 => Self::ResetDevice(whose),
            6 => Self::BadLine,
            7 => Self::KillAtserver,
            8 => Self::FreezeAtserver,
            9 => Self::KillRendezvous,
            10 => Self::FreezeRendezvous,
            11 => Self::KillDaemon(whose),
            12 => Self::FreezeDaemon(whose),
            13 => Self::RenumberDevice(whose),
            14 => Self::ForgetDevice(whose),
            _ => Self::FillDisk,
        }
    }

    /// The device that it strikes alone.
    fn device(self) -> Option<usize> {
        match self {
            Self::CutDevice(whose)
            | Self::CutDeviceFromRendezvous(whose)
            | Self::UnplugDevice(whose)
            | Self::ResetDevice(whose)
            | Self::KillDaemon(whose)
            | Self::FreezeDaemon(whose)
            | Self::RenumberDevice(whose)
            | Self::ForgetDevice(whose) => Some(whose),
            _ => None,
        }
    }

    fn begin(self, site: &mut Site) {
        match self {
            Self::CutDevice(whose) => site
                .net
                .between(&device(whose), ATSERVER, |w| w.is_cut = true),
            Self::CutClient(whose) => site
                .net
                .between(&client(whose), ATSERVER, |w| w.is_cut = true),
            Self::CutRendezvous => site
                .net
                .between(RENDEZVOUS_HOST, ATSERVER, |w| w.is_cut = true),
            Self::CutDeviceFromRendezvous(whose) => {
                site.net
                    .between(&device(whose), RENDEZVOUS_HOST, |w| w.is_cut = true);
            }
            Self::UnplugDevice(whose) => site.net.around(&device(whose), |w| w.is_cut = true),
            Self::ResetDevice(whose) => site.net.around(&device(whose), |w| w.resets = true),
            Self::BadLine => site.net.everywhere(|way| {
                way.delay = Duration::from_millis(100);
                way.loss = 20;
            }),
            Self::KillAtserver => drop(site.atserver.take()),
            Self::FreezeAtserver => stop(site.atserver.as_ref()),
            Self::KillRendezvous => drop(site.rendezvous.take()),
            Self::FreezeRendezvous => stop(site.rendezvous.as_ref()),
            Self::KillDaemon(whose) => drop(site.daemons[whose].take()),
            Self::FreezeDaemon(whose) => stop(site.daemons[whose].as_ref()),
            Self::RenumberDevice(whose) => site.net.renumber(&device(whose)),
            Self::ForgetDevice(whose) => site.net.forget(&device(whose)),
            Self::FillDisk => site.disk().fill(0),
        }
    }

    /// When it ends among others. Whoever is started is waited for, and needs the network and the atServer.
    fn turn(self) -> u8 {
        match self {
            Self::KillRendezvous | Self::KillDaemon(_) => 2,
            Self::KillAtserver => 1,
            _ => 0,
        }
    }

    fn end(self, site: &mut Site) {
        match self {
            Self::KillAtserver => site.atserver = Some(site.start_atserver()),
            Self::FreezeAtserver => go_on(site.atserver.as_ref()),
            Self::KillRendezvous => site.rendezvous = Some(site.start_rendezvous()),
            Self::FreezeRendezvous => go_on(site.rendezvous.as_ref()),
            Self::KillDaemon(whose) => site.daemons[whose] = Some(site.daemon(whose)),
            Self::FreezeDaemon(whose) => go_on(site.daemons[whose].as_ref()),
            Self::FillDisk => site.disk().make_room(),
            _ => site.net.heal(),
        }
    }
}

fn stop(process: Option<&Process>) {
    process.into_iter().for_each(|one| signal(one.id(), "STOP"));
}

fn go_on(process: Option<&Process>) {
    process.into_iter().for_each(|one| signal(one.id(), "CONT"));
}

/// What came of the walk.
#[derive(Default)]
struct Came {
    steps: usize,
    sessions: usize,
    /// Sessions that failed while there was a fault; they may.
    failed: usize,
    worst: Duration,
}

/// Walks for so long.
///
/// # Errors
/// What does not hold, with the step.
pub fn walk(setup: Setup, length: Duration, seed: u64) -> Result<(), String> {
    let mut site = Site::made(setup, seed)?;
    for number in 0..DEVICES {
        site.recovery_of(number, BACK)
            .map_err(|why| format!("at the start: {why:?}"))?;
    }
    let before = settled(&site, None)?;
    let (mut random, mut came) = (Random::new(seed), Came::default());
    let began = Instant::now();
    while began.elapsed() < length {
        came.steps += 1;
        step(&mut site, &mut random, &mut came)
            .map_err(|why| format!("step {}: {why}", came.steps))?;
    }
    println!(
        "walk: {} steps, {} sessions, {} of them failed while there was a fault, worst {:.1} s until a device was back",
        came.steps,
        came.sessions,
        came.failed,
        came.worst.as_secs_f64()
    );
    nobody_twice(&site)?;
    let after = settled(&site, Some(&before))?;
    for (name, then) in &before {
        println!("{name:<12} at the start {then}, at the end {}", after[name]);
    }
    Ok(())
}

/// One fault, sometimes two, and who tries what meanwhile.
fn step(site: &mut Site, random: &mut Random, came: &mut Came) -> Result<(), String> {
    let count = 1 + usize::from(random.below(4) == 0);
    let mut faults: Vec<_> = (0..count).map(|_| Fault::any(random)).collect();
    faults.dedup_by_key(|fault| std::mem::discriminant(fault));
    let length = random.between(Duration::from_millis(300), Duration::from_secs(8));
    println!(
        "walk, step {:>3}: {faults:?} for {:.1} s",
        came.steps,
        length.as_secs_f64()
    );
    faults.iter().for_each(|fault| fault.begin(site));
    let began = Instant::now();
    let tried = tries(site, random);
    let stranger = site.open(
        STRANGER,
        NOBODY,
        random.below(DEVICES),
        Duration::from_secs(3),
    );
    at_a_pace(length.saturating_sub(began.elapsed()));
    faults.sort_by_key(|fault| fault.turn());
    faults.iter().for_each(|fault| fault.end(site));
    let mut struck: Vec<_> = faults.iter().filter_map(|fault| fault.device()).collect();
    struck.push(random.below(DEVICES));
    for number in struck {
        let back = site.recovery_of(number, BACK);
        let back =
            back.map_err(|why| format!("dev{number} is not back after {BACK:?}: {why:?}"))?;
        if back > LATE {
            println!(
                "      dev{number} is back after {:.1} s",
                back.as_secs_f64()
            );
        }
        came.worst = came.worst.max(back);
        came.sessions += 1;
    }
    for session in tried {
        came.sessions += 1;
        if let Err(why) = session.wait() {
            came.failed += 1;
            ends(&why)?;
        }
    }
    match stranger.wait() {
        Ok(_) => Err("a stranger was served".to_owned()),
        Err(why) => ends(&why),
    }
}

/// Each client tries one device.
fn tries(site: &Site, random: &mut Random) -> Vec<Session> {
    let one = |number| {
        let to = random.below(DEVICES);
        site.open(&client(number), &manager(number), to, SHORT_PATIENCE)
    };
    (0..CLIENTS).map(one).collect()
}

/// Whatever a session says when it fails, it says something.
fn ends(why: &str) -> Result<(), String> {
    if why.contains("still waits") {
        Err(why.to_owned())
    } else {
        Ok(())
    }
}

/// No request twice, no stranger at all, as the daemons tell it.
fn nobody_twice(site: &Site) -> Result<(), String> {
    let mut times: HashMap<String, usize> = HashMap::new();
    for number in 0..DEVICES {
        let log = site.world.log(&device(number));
        for line in log.lines().filter(|line| line.contains(" open=")) {
            if line.contains(&format!("from={NOBODY}")) {
                return Err(format!("a stranger was served: {line}"));
            }
            let session = line.split("session=").nth(1).unwrap_or_default();
            let session = session.split(' ').next().unwrap_or_default();
            *times.entry(session.to_owned()).or_default() += 1;
        }
    }
    println!("{} requests were served", times.len());
    match times.iter().find(|(_, times)| **times > 1) {
        Some((session, times)) => Err(format!("session {session} was served {times} times")),
        None => Ok(()),
    }
}

/// What a program holds.
struct Held {
    descriptors: usize,
    children: usize,
    /// KiB
    resident: u64,
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (files, children) = (self.descriptors, self.children);
        write!(
            f,
            "{files} descriptors, {children} children, {} KiB",
            self.resident
        )
    }
}

impl Held {
    fn by(process: &Process) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        Self {
            descriptors: descriptors(process.id()),
            children: children_of(process.id()).len(),
            resident: resident.unwrap_or_default(),
        }
    }

    fn is_within(&self, before: &Self) -> bool {
        self.children == 0
            && self.descriptors <= before.descriptors + FEW
            && self.resident <= before.resident + GROWTH
    }
}

fn all(site: &Site) -> BTreeMap<String, Held> {
    let servers = [
        ("atserver", &site.atserver),
        ("rendezvous", &site.rendezvous),
    ];
    let daemons = site.daemons.iter().enumerate();
    let daemons = daemons.map(|(number, daemon)| (device(number), daemon));
    let named = servers.map(|(name, process)| (name.to_owned(), process));
    let running = named.into_iter().chain(daemons);
    running
        .filter_map(|(name, process)| Some((name, Held::by(process.as_ref()?))))
        .collect()
}

/// Waits until nothing is under way; what everybody holds then.
fn settled(
    site: &Site,
    before: Option<&BTreeMap<String, Held>>,
) -> Result<BTreeMap<String, Held>, String> {
    let left = || {
        let now = all(site);
        let too_much = now.iter().find(|(name, held)| match before {
            Some(before) => !held.is_within(&before[*name]),
            None => held.children > 0,
        });
        too_much.map(|(name, held)| format!("{name} still holds {held}"))
    };
    async_std::task::block_on(becomes(|| left().is_none()));
    left().map_or_else(|| Ok(all(site)), Err)
}
