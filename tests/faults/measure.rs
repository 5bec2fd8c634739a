//! What the delay line itself does, and a network to try things by hand.

use std::{
    io::BufRead,
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    inside::INSIDE,
    line::Way,
    net::{Net, full_name, own_program, wait_for_ready},
};
use crate::world::Process;

const PORT: &str = "7";
/// Round trips of each measurement.
const TRIPS: &str = "50";

/// Runs a role of this program at a host.
pub fn role(net: &Net, host: &str, words: &[&str]) -> Command {
    let entry = net.at(host);
    let mut command = Command::new(&entry[0]);
    command.args(&entry[1..]).arg(own_program());
    command.arg(INSIDE).args(words);
    command
}

pub fn said(net: &Net, words: &[&str]) -> String {
    let output = role(net, "a", words).output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {why}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// `a`, and `b` with somebody who says every byte again.
pub fn two_hosts(seed: u64) -> Result<(Net, Process), String> {
    let net = Net::of(&["a", "b"].map(str::to_owned), seed)?;
    let mut echo = role(&net, "b", &["echo", PORT]);
    let mut echo = Process(echo.stdout(Stdio::piped()).spawn().unwrap());
    wait_for_ready(&mut echo);
    Ok((net, echo))
}

/// Where that is.
pub fn far_end() -> String {
    format!("{}:{PORT}", full_name("b"))
}

/// Round trips and rates, as programs at two hosts see them.
///
/// # Errors
/// In a sentence, when this machine cannot do it.
pub fn measure(seed: u64) -> Result<(), String> {
    let (net, _echo) = two_hosts(seed)?;
    let at = far_end();
    println!("delay each way   round trip: shortest, middle, longest of {TRIPS} (ms)");
    for delay in [0, 5, 25, 50, 150] {
        net.between("a", "b", |way| way.delay = Duration::from_millis(delay));
        println!("{delay:>11} ms   {}", said(&net, &["ping", &at, TRIPS]));
    }
    net.heal();
    println!("rate (B/s)       got, both ways at once (B/s)");
    for (rate, bytes) in [
        (8_000, "40000"),
        (125_000, "500000"),
        (1_250_000, "5000000"),
        (0, "50000000"),
    ] {
        net.between("a", "b", |way| way.rate = rate);
        let name = match rate {
            0 => "no limit".to_owned(),
            rate => rate.to_string(),
        };
        println!("{name:>14}   {}", said(&net, &["pour", &at, bytes]));
    }
    net.heal();
    let before = net.packets();
    net.between("a", "b", |way| way.loss = 50);
    let got = said(&net, &["pour", &at, "5000000"]);
    let after = net.packets();
    let lost = (after.1 - before.1) as f64 / (after.0 - before.0) as f64;
    println!("loss of 50 in 1000: {:.0} lost, {got} B/s", lost * 1000.0);
    Ok(())
}

/// Hosts of these names, and orders on stdin.
///
/// # Errors
/// In a sentence, when this machine cannot do it.
pub fn lab(names: &[String], seed: u64) -> Result<(), String> {
    let mut net = Net::of(names, seed)?;
    for name in names {
        println!("{}: {} sh", full_name(name), net.at(name).join(" "));
    }
    println!(
        "orders: A B open|cut|resets|delay MS|rate BYTES|loss N; A forget|renumber; heal; packets. Ctrl-D ends"
    );
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<_> = line.split_whitespace().collect();
        if obey(&mut net, names, &words).is_none() {
            println!("no such order: {line}");
        }
    }
    Ok(())
}

fn obey(net: &mut Net, names: &[String], words: &[&str]) -> Option<()> {
    let is_known = |host: &&str| names.iter().any(|name| name == host);
    match words {
        [] => {}
        ["heal"] => net.heal(),
        ["packets"] => println!("{:?}", net.packets()),
        [host, "forget"] if is_known(host) => net.forget(host),
        [host, "renumber"] if is_known(host) => net.renumber(host),
        [one, other, order @ ..] if is_known(one) && is_known(other) && one != other => {
            let way = changed(Way::default(), order)?;
            net.between(one, other, |old| {
                // Orders add up, until `open`.
                *old = changed(*old, order).unwrap_or(way);
            });
        }
        _ => return None,
    }
    Some(())
}

fn changed(mut way: Way, order: &[&str]) -> Option<Way> {
    match *order {
        ["open"] => way = Way::default(),
        ["cut"] => way.is_cut = true,
        ["resets"] => way.resets = true,
        ["delay", milliseconds] => way.delay = Duration::from_millis(milliseconds.parse().ok()?),
        ["rate", bytes] => way.rate = bytes.parse().ok()?,
        ["loss", packets] => way.loss = packets.parse().ok()?,
        _ => return None,
    }
    Some(way)
}
