//! The matrix of faults: what is done, to what, and how long it may take until everything is as before.

use std::time::{Duration, Instant};

use super::{
    listed,
    random::Random,
    setup::Setup,
    site::{ATSERVER, RENDEZVOUS_HOST, Site, client, device, manager},
    tunnel::Tunnel,
};
use crate::world::{Process, children_of, signal, support::at_a_pace};

/// How long it took from the end of the fault.
pub type Measured = Result<Duration, Miss>;

/// Why there is no time.
#[derive(Debug)]
pub enum Miss {
    /// It took longer than we waited; the last thing that was said meanwhile.
    Late(String),
    /// Something else is wrong.
    Wrong(String),
}

impl From<String> for Miss {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

/// One fault.
pub struct Row {
    pub name: &'static str,
    pub fault: &'static str,
    /// Longest time from the end of the fault until a new session works, unless the fault says what else is measured.
    pub limit: Duration,
    /// Takes too long for CI.
    pub is_long: bool,
    /// What it takes besides a device and a manager.
    pub setup: fn(&mut Setup),
    /// The last one: how long to wait.
    pub run: fn(&mut Site, &mut Random, Duration) -> Measured,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Rows that today's code does not do in time, and why. One that it does by now fails until it is taken out here.
pub const KNOWN_LATE: &[(&str, &str)] = &[];

/// All rows; those that take longest come first.
pub const ROWS: &[Row] = &[
    long(row(
        "stalled-long",
        "all silent for 120 s under a tunnel: what was typed arrives",
        10,
        stalled_long,
    )),
    long(row(
        "bad-line",
        "5 % loss, 300 ms there and back, 8 kB/s everywhere: one session",
        15,
        bad_line,
    )),
    long(row(
        "cut-both",
        "device and rendezvous cut from the atServer for 120 s",
        10,
        cut_both,
    )),
    row(
        "rendezvous-silent",
        "rendezvous loses its power under an idle tunnel: both ends are told, and wait",
        60,
        rendezvous_silent,
    ),
    row(
        "stalled-tunnel",
        "all silent for 30 s under a tunnel: what was typed arrives",
        10,
        stalled_tunnel,
    ),
    row(
        "nat-forgets",
        "the device's NAT forgets all connections",
        22,
        nat_forgets,
    ),
    row(
        "boot",
        "a device boots without network, which comes after 20 s",
        10,
        boot,
    ),
    row(
        "atserver-frozen",
        "atServer stopped (SIGSTOP) for 20 s",
        10,
        atserver_frozen,
    ),
    row(
        "device-sleeps",
        "a device sleeps for 20 s, meanwhile its NAT forgets",
        10,
        device_sleeps,
    ),
    row(
        "link-down",
        "the device's link is down for 10 s, and it knows",
        10,
        link_down,
    ),
    row(
        "name-moves",
        "the atServer moves: its name has another address, the old one is silent",
        10,
        name_moves,
    ),
    row("nothing", "no fault at all: one session", 5, nothing),
    row(
        "cut-device",
        "device–atServer cut (silence) for 10 s",
        10,
        cut_device,
    ),
    row(
        "cut-rendezvous",
        "rendezvous–atServer cut (silence) for 10 s",
        10,
        cut_rendezvous,
    ),
    row(
        "reset-device",
        "device–atServer resets everything for 5 s",
        10,
        reset_device,
    ),
    row(
        "atserver-killed",
        "atServer killed and restarted",
        10,
        atserver_killed,
    ),
    row(
        "rendezvous-killed",
        "rendezvous killed and restarted",
        10,
        rendezvous_killed,
    ),
    row(
        "address-changed",
        "the device gets another address",
        10,
        address_changed,
    ),
    row(
        "disk-full",
        "the atServer's disk is full for 10 s",
        15,
        disk_full,
    ),
    row(
        "rendezvous-dies",
        "rendezvous killed under a tunnel: both ends notice",
        2,
        rendezvous_dies,
    ),
    row(
        "daemon-killed",
        "daemon killed and restarted under a tunnel, which stays",
        10,
        daemon_killed,
    ),
    row(
        "ipv6-silent",
        "nothing of a client's IPv6 arrives: one session",
        5,
        ipv6_silent,
    ),
    row(
        "ipv4-silent",
        "nothing of a client's IPv4 arrives: one session",
        5,
        ipv4_silent,
    ),
    // From here on: those of `attacks.md` that are a fault and no load.
    long(row(
        "rendezvous-frozen",
        "N22: the rendezvous takes everything and carries nothing under a tunnel: it is told",
        60,
        listed::rendezvous_frozen,
    )),
    long(row(
        "frozen-and-kept",
        "N22: the same with --keep-alive, and then a rendezvous that is well: the next connection works",
        30,
        listed::frozen_and_kept,
    )),
    long(Row {
        setup: |setup| {
            setup.clients = 2;
            setup.strangers = listed::GUESTS;
            setup.has_policy = true;
        },
        ..row(
            "policy-dies",
            "N13: one of two policies is frozen between question and answer, ten times: the longest session",
            8,
            listed::policy_dies,
        )
    }),
    long(row(
        "no-room-in-run",
        "N21: no room for the state file, then no atServer: it does not say connected",
        120,
        listed::no_room_in_run,
    )),
    long(row(
        "false-route",
        "N17: the rendezvous starts with a route for IPv6 that leads nowhere: one session",
        10,
        listed::false_route,
    )),
    long(row(
        "other-localhost",
        "N24: a service on one localhost, another user on the other one: the longest of 20 sessions, none of them his",
        5,
        listed::other_localhost,
    )),
    long(Row {
        setup: |setup| setup.others = &["@aaa"],
        ..row(
            "invented-devices",
            "N23: 1,000 devices that a stranger invents: the list of devices, one's own first",
            20,
            listed::invented_devices,
        )
    }),
];

const fn row(
    name: &'static str,
    fault: &'static str,
    limit: u64,
    run: fn(&mut Site, &mut Random, Duration) -> Measured,
) -> Row {
    Row {
        name,
        fault,
        limit: seconds(limit),
        is_long: false,
        setup: |_| {},
        run,
    }
}

const fn long(row: Row) -> Row {
    Row {
        is_long: true,
        ..row
    }
}

/// A world that has just started may be anywhere between two signs of life.
fn at_some_moment(random: &mut Random) {
    at_a_pace(random.between(Duration::ZERO, seconds(3)));
}

fn nothing(site: &mut Site, _: &mut Random, _: Duration) -> Measured {
    Ok(site.session().wait()?)
}

fn cut_device(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    cut(site, &device(0), random, patience)
}

fn cut_rendezvous(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    cut(site, RENDEZVOUS_HOST, random, patience)
}

fn cut(site: &mut Site, whom: &str, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    site.net.between(whom, ATSERVER, |way| way.is_cut = true);
    at_a_pace(random.between(seconds(9), seconds(11)));
    site.net.heal();
    site.recovery(patience)
}

fn reset_device(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    site.net
        .between(&device(0), ATSERVER, |way| way.resets = true);
    at_a_pace(random.between(seconds(4), seconds(6)));
    site.net.heal();
    site.recovery(patience)
}

fn atserver_killed(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    drop(site.atserver.take());
    site.atserver = Some(site.start_atserver());
    site.recovery(patience)
}

fn atserver_frozen(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    let server = site.atserver.as_ref().map(Process::id).unwrap();
    signal(server, "STOP");
    at_a_pace(random.between(seconds(19), seconds(21)));
    signal(server, "CONT");
    site.recovery(patience)
}

fn rendezvous_killed(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    drop(site.rendezvous.take());
    site.rendezvous = Some(site.start_rendezvous());
    site.recovery(patience)
}

fn address_changed(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    site.net.renumber(&device(0));
    site.recovery(patience)
}

fn nat_forgets(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    site.net.forget(&device(0));
    site.recovery(patience)
}

fn boot(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    drop(site.daemons[0].take());
    site.net.around(&device(0), |way| way.is_cut = true);
    site.daemons[0] = Some(site.daemon_alone(0));
    at_a_pace(random.between(seconds(19), seconds(21)));
    site.net.heal();
    site.recovery(patience)
}

fn disk_full(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    let disk = site.disk();
    disk.fill(0);
    let began = Instant::now();
    // Somebody tries meanwhile.
    let tried = site.open(&client(0), &manager(0), 0, seconds(5)).wait();
    at_a_pace(seconds(10).saturating_sub(began.elapsed()));
    disk.make_room();
    let measured = site.recovery(patience);
    match tried {
        Ok(_) => Err(Miss::Wrong(
            "a session opened on a full disk: the fault was none".to_owned(),
        )),
        Err(_) => measured,
    }
}

fn bad_line(site: &mut Site, random: &mut Random, _: Duration) -> Measured {
    at_some_moment(random);
    site.net.everywhere(|way| {
        way.loss = 50;
        way.delay = Duration::from_millis(150);
        way.rate = 8_000;
    });
    Ok(site.session().wait()?)
}

fn cut_both(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    site.net.around(ATSERVER, |way| way.is_cut = true);
    at_a_pace(random.between(seconds(115), seconds(125)));
    site.net.heal();
    site.recovery(patience)
}

fn device_sleeps(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    let daemon = site.daemons[0].as_ref().map(Process::id).unwrap();
    signal(daemon, "STOP");
    site.net.forget(&device(0));
    at_a_pace(random.between(seconds(19), seconds(21)));
    signal(daemon, "CONT");
    site.recovery(patience)
}

fn link_down(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    site.net.unplug(&device(0));
    at_a_pace(random.between(seconds(9), seconds(11)));
    site.net.plug(&device(0));
    site.recovery(patience)
}

fn name_moves(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    at_some_moment(random);
    site.net.renumber(ATSERVER);
    site.recovery(patience)
}

fn rendezvous_dies(site: &mut Site, _: &mut Random, patience: Duration) -> Measured {
    let tunnel = Tunnel::open(site)?;
    drop(site.rendezvous.take());
    both_notice(site, tunnel, patience)
}

fn daemon_killed(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    let mut tunnel = Tunnel::open(site)?;
    at_some_moment(random);
    drop(site.daemons[0].take());
    site.daemons[0] = Some(site.daemon(0));
    let back = site.recovery(patience)?;
    tunnel.say("after")?;
    tunnel.hear("after", patience)?;
    Ok(back)
}

fn ipv6_silent(site: &mut Site, _: &mut Random, _: Duration) -> Measured {
    site.net.around(&client(0), |way| way.drops_ipv6 = true);
    Ok(site.session().wait()?)
}

fn ipv4_silent(site: &mut Site, _: &mut Random, _: Duration) -> Measured {
    site.net.around(&client(0), |way| way.drops_ipv4 = true);
    Ok(site.session().wait()?)
}

fn stalled_tunnel(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    stalled(site, random, seconds(30), patience)
}

fn stalled_long(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    stalled(site, random, seconds(120), patience)
}

fn stalled(site: &Site, random: &mut Random, length: Duration, patience: Duration) -> Measured {
    let mut tunnel = Tunnel::open(site)?;
    at_some_moment(random);
    site.net.around(RENDEZVOUS_HOST, |way| way.is_cut = true);
    let typed = random.between(seconds(1), seconds(5));
    at_a_pace(typed);
    tunnel.say("typed")?;
    at_a_pace(length - typed);
    site.net.heal();
    tunnel.hear("typed", patience)
}

/// How long until both ends say so. Neither ends: it might come back.
fn rendezvous_silent(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    let mut tunnel = Tunnel::open(site)?;
    at_some_moment(random);
    site.net.around(RENDEZVOUS_HOST, |way| way.is_cut = true);
    let began = Instant::now();
    let daemon = site.daemons[0].as_ref().map(Process::id).unwrap();
    let is_told = |log: &str| site.world.log(log).contains("rendezvous=silent");
    while began.elapsed() <= patience {
        if tunnel.has_ended() || children_of(daemon).is_empty() {
            return Err(Miss::Wrong("an end did not wait".to_owned()));
        }
        if is_told("tunnel") && is_told(&device(0)) {
            return Ok(began.elapsed());
        }
        at_a_pace(Duration::from_millis(50));
    }
    let (client, device) = (is_told("tunnel"), is_told(&device(0)));
    Err(Miss::Late(format!(
        "the client was told: {client}, the device was told: {device}"
    )))
}

/// How long until both ends of a tunnel know that it is over.
fn both_notice(site: &Site, mut tunnel: Tunnel, patience: Duration) -> Measured {
    let began = Instant::now();
    let daemon = site.daemons[0].as_ref().map(Process::id).unwrap();
    let mut noticed = || (tunnel.has_ended(), children_of(daemon).is_empty());
    while began.elapsed() <= patience {
        if noticed() == (true, true) {
            return Ok(began.elapsed());
        }
        at_a_pace(Duration::from_millis(50));
    }
    let (client, device) = noticed();
    Err(Miss::Late(format!(
        "the client noticed: {client}, the device noticed: {device}"
    )))
}
