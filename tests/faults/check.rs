//! Whether the bench itself does what it is told: a fault that is none makes every row green.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    figures,
    line::Wiring,
    measure::{far_end, role, said, two_hosts},
    net::{Net, own_program},
    rows::Miss,
    tunnel::Talk,
};
use crate::world::{Process, support::wait_until};

/// For what should be heard.
const SOON: Duration = Duration::from_secs(10);
/// For what should not.
const SILENCE: Duration = Duration::from_millis(1500);

/// All of it.
///
/// # Errors
/// What it does not do.
pub fn check(seed: u64) -> Result<(), String> {
    figures::check()?;
    a_seed_decides_what_is_lost()?;
    // First of what takes a network: it says in a sentence what this machine cannot do.
    let (mut net, _echo) = two_hosts(seed)?;
    hosts_go_with_a_run_that_is_killed();
    it_delays_and_narrows(&net)?;
    it_cuts_and_resets(&net)?;
    a_router_forgets(&net)?;
    an_address_changes(&mut net)
}

fn demand(so: bool, what: String) -> Result<(), String> {
    if so {
        Ok(())
    } else {
        Err(format!("the line: {what}"))
    }
}

/// Which of a thousand packets get through.
fn got_through(seed: u64) -> Vec<bool> {
    let mut wiring = Wiring::new(seed);
    let address = |host| Ipv4Addr::new(10, 0, 0, host);
    wiring.address(0, &[IpAddr::from(address(1))]);
    wiring.address(1, &[IpAddr::from(address(2))]);
    wiring.change(0, 1, |way| way.loss = 100);
    let mut packet = [0; 28];
    packet[0] = 0x45;
    packet[12..16].copy_from_slice(&address(1).octets());
    packet[16..20].copy_from_slice(&address(2).octets());
    let mut passes = || {
        let before = wiring.dropped;
        wiring.take(0, &packet, std::time::Instant::now());
        wiring.dropped == before
    };
    (0..1000).map(|_| passes()).collect()
}

fn a_seed_decides_what_is_lost() -> Result<(), String> {
    let one = got_through(1);
    let lost = one.iter().filter(|through| !*through).count();
    let is_so = one == got_through(1) && one != got_through(2) && (50..200).contains(&lost);
    demand(
        is_so,
        format!("100 of 1000 were to be lost, always the same: {lost}"),
    )
}

fn hosts_go_with_a_run_that_is_killed() {
    let mut lab = Command::new(own_program());
    lab.args(["--lab", "x", "y"]);
    lab.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut lab = Process(lab.spawn().unwrap());
    let mut lines = BufReader::new(lab.0.stdout.take().unwrap()).lines();
    let mut keeper = || {
        let line = lines.next().unwrap().unwrap();
        let digits = line.split("--target=").nth(1).unwrap_or_default();
        let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
        format!("/proc/{digits}/ns")
    };
    let keepers = [keeper(), keeper()];
    lab.kill();
    wait_until("the hosts of a killed run have gone", || {
        !keepers.iter().any(|keeper| Path::new(keeper).exists())
    });
}

fn it_delays_and_narrows(net: &Net) -> Result<(), String> {
    net.between("a", "b", |way| way.delay = Duration::from_millis(25));
    let trips = said(net, &["ping", &far_end(), "9"]);
    let shortest: f64 = trips.split(' ').next().unwrap_or_default().parse().unwrap();
    demand(
        (50.0..60.0).contains(&shortest),
        format!("25 ms each way: {trips} ms"),
    )?;
    net.heal();
    net.between("a", "b", |way| way.rate = 125_000);
    let got = said(net, &["pour", &far_end(), "250000"]);
    let rate: f64 = got.parse().unwrap();
    net.heal();
    demand(rate < 130_000.0, format!("125000 bytes a second: {rate}"))
}

fn dialled(net: &Net) -> String {
    let within = SILENCE.as_millis().to_string();
    said(net, &["dial", &far_end(), &within])
}

fn it_cuts_and_resets(net: &Net) -> Result<(), String> {
    net.between("a", "b", |way| way.is_cut = true);
    let cut = dialled(net);
    net.heal();
    net.between("a", "b", |way| way.resets = true);
    let resets = dialled(net);
    net.heal();
    let healed = dialled(net);
    let is_so = (&*cut, &*resets, &*healed) == ("silence", "ConnectionRefused", "ok");
    demand(
        is_so,
        format!("cut: {cut}, resets: {resets}, healed: {healed}"),
    )
}

fn talk(net: &Net) -> Result<Talk, String> {
    let mut talk = Talk::start(role(net, "a", &["talk", &far_end()]));
    let heard = talk.say("before").map(|()| talk.hear("before", SOON));
    demand(matches!(heard, Ok(Ok(_))), format!("{heard:?}"))?;
    Ok(talk)
}

/// A connection that stood before is silent for good.
fn is_dead(mut talk: Talk) -> bool {
    talk.say("after").is_ok() && matches!(talk.hear("after", SILENCE), Err(Miss::Late(_)))
}

fn a_router_forgets(net: &Net) -> Result<(), String> {
    let old = talk(net)?;
    net.forget("a");
    let is_dead = is_dead(old);
    let new = talk(net);
    demand(is_dead, "a router forgot nothing".to_owned())?;
    new.map(drop)
}

fn an_address_changes(net: &mut Net) -> Result<(), String> {
    let old = talk(net)?;
    net.renumber("b");
    let is_dead = is_dead(old);
    let new = talk(net);
    demand(is_dead, "an old address still works".to_owned())?;
    new.map(drop)
}
