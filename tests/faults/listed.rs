//! Rows of `attacks.md` that are a fault, or a neighbour, and no load.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    inside::INSIDE,
    net::{own_program, wait_for_ready},
    random::Random,
    rows::{Measured, Miss},
    site::{
        ATSERVER, PATIENCE, POLICY_HOST, RENDEZVOUS_HOST, SERVICE, STRANGER, Site, client, device,
        manager, stranger,
    },
    tunnel::Tunnel,
};
use crate::world::{
    DEVICE, Process, RENDEZVOUS, signal,
    support::{Disk, at_a_pace},
};

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Whom a policy lets in, each once: an answer of its holds for a while.
pub const GUESTS: usize = 10;
/// How far the policies are from the atServer, one way.
const AWAY: Duration = Duration::from_millis(100);
/// Sessions with each address of a service that another user would like to be.
const SESSIONS: usize = 10;
/// What a stranger invents.
const INVENTED: usize = 1_000;

fn wrong(why: String) -> Miss {
    Miss::Wrong(why)
}

/// How long until this is so.
fn until(limit: Duration, what: &str, mut so: impl FnMut() -> bool) -> Measured {
    let began = Instant::now();
    while began.elapsed() <= limit {
        if so() {
            return Ok(began.elapsed());
        }
        at_a_pace(LOOK_AGAIN);
    }
    Err(Miss::Late(format!("not yet: {what}")))
}

fn freeze(process: Option<&Process>) {
    process.iter().for_each(|one| signal(one.id(), "STOP"));
}

fn thaw(process: Option<&Process>) {
    process.iter().for_each(|one| signal(one.id(), "CONT"));
}

/// Until the client says so, or ends.
pub fn rendezvous_frozen(site: &mut Site, _: &mut Random, patience: Duration) -> Measured {
    let mut tunnel = Tunnel::open(site)?;
    let silence = site.world.log("tunnel").len();
    freeze(site.rendezvous.as_ref());
    tunnel.say("lost")?;
    let told = until(patience, "told", || {
        let said = &site.world.log("tunnel")[silence..];
        tunnel.has_ended() || said.contains("rendezvous=carries_nothing")
    });
    thaw(site.rendezvous.as_ref());
    told
}

/// It is told; then another rendezvous of its name is there, too, and the next connection through the same tunnel works.
pub fn frozen_and_kept(site: &mut Site, random: &mut Random, patience: Duration) -> Measured {
    let mut tunnel = Tunnel::open_with(site, &["--keep-alive"])?;
    freeze(site.rendezvous.as_ref());
    tunnel.say("lost")?;
    at_a_pace(random.between(Duration::from_secs(58), Duration::from_secs(60)));
    let frozen = site.rendezvous.take();
    site.rendezvous = Some(site.start_rendezvous());
    let began = Instant::now();
    while began.elapsed() <= patience {
        if tunnel
            .next(site, patience.saturating_sub(began.elapsed()))
            .is_ok()
        {
            drop(frozen);
            return Ok(began.elapsed());
        }
        at_a_pace(LOOK_AGAIN);
    }
    Err(Miss::Late("no connection through the tunnel".to_owned()))
}

/// Each question by somebody who has not asked before.
pub fn policy_dies(site: &mut Site, random: &mut Random, _: Duration) -> Measured {
    drop(site.policy.take());
    let guests: Vec<_> = (0..GUESTS)
        .map(|number| format!("'{}'", stranger(number)))
        .collect();
    let rules = site.world.dir.path("policy.yaml");
    let text = fs::read_to_string(&rules).unwrap_or_default();
    let text = text.replace(&format!("'{}'", manager(0)), &guests.join(", "));
    fs::write(&rules, text).map_err(|why| why.to_string())?;
    let both = [
        site.start_policy(&["--shared"]),
        site.start_policy(&["--shared"]),
    ];
    // So that there is a while between question and answer.
    site.net
        .between(POLICY_HOST, ATSERVER, |way| way.delay = AWAY);
    let mut longest = Duration::ZERO;
    for number in 0..GUESTS {
        let victim = Some(&both[number % 2]);
        let session = site.open(STRANGER, &stranger(number), 0, PATIENCE);
        at_a_pace(random.between(Duration::ZERO, 8 * AWAY));
        freeze(victim);
        let took = session.wait();
        thaw(victim);
        longest = longest.max(took.map_err(|why| wrong(format!("guest {number}: {why}")))?);
    }
    Ok(longest)
}

/// How long until the state file no longer says what is not so.
pub fn no_room_in_run(site: &mut Site, _: &mut Random, patience: Duration) -> Measured {
    let host = device(0);
    let folder = site.home(&host).join("state");
    fs::create_dir_all(&folder).map_err(|why| why.to_string())?;
    let shown = folder.display().to_string();
    site.net
        .sh(&host, &format!("mount -t tmpfs -o size=64k tmpfs {shown}"));
    let seen = site.net.root(&host).join(shown.trim_start_matches('/'));
    drop(site.daemons[0].take());
    let mut command = site.role(
        &host,
        &site
            .daemon_words(0)
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );
    command.env("NOPORTS_STATE", folder.join("daemon"));
    command.stdout(Stdio::null()).stderr(site.log_file(&host));
    site.daemons[0] = Some(Process(command.spawn().map_err(|why| why.to_string())?));
    let says = || {
        let text = fs::read_to_string(seen.join("daemon")).unwrap_or_default();
        text.contains(r#""state":"connected""#)
    };
    until(PATIENCE, "connected", says)?;
    Disk(seen.clone()).fill(0);
    drop(site.atserver.take());
    until(patience, "another state than connected", || !says())
}

/// Nothing but a route: all that is sent there is lost.
pub fn false_route(site: &mut Site, _: &mut Random, patience: Duration) -> Measured {
    drop(site.rendezvous.take());
    site.net
        .around(RENDEZVOUS_HOST, |way| way.drops_ipv6 = true);
    let words = ["rendezvous", "--as", RENDEZVOUS, "--bind", "::"];
    site.rendezvous = Some(site.serve(RENDEZVOUS_HOST, &words));
    site.recovery(patience)
}

/// Of all sessions the longest; every one of them is to reach the right listener, whichever address that has.
pub fn other_localhost(site: &mut Site, _: &mut Random, _: Duration) -> Measured {
    let host = device(0);
    site.net.sh(
        &host,
        "echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start",
    );
    let own = own_program().display().to_string();
    let port = SERVICE.to_string();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut longest = Duration::ZERO;
    for (right, others) in [("::1", "127.0.0.1"), ("127.0.0.1", "::1")] {
        site.services.clear();
        let service = site.command(&host, &own, &[INSIDE, "echo", &port, right]);
        let words = [&nobody[..], &[&own, INSIDE, "greet", &port, others]].concat();
        let greeting = site.command(&host, "setpriv", &words);
        site.services = [service, greeting].map(ready).into();
        for number in 0..SESSIONS {
            let took = site.session().wait();
            let took =
                took.map_err(|why| wrong(format!("service at {right}, session {number}: {why}")));
            longest = longest.max(took?);
        }
    }
    Ok(longest)
}

fn ready(mut command: Command) -> Process {
    let mut process = Process(command.stdout(Stdio::piped()).spawn().unwrap());
    wait_for_ready(&mut process);
    process
}

/// How long the list takes; one's own device answers, and stands first.
pub fn invented_devices(site: &mut Site, _: &mut Random, _: Duration) -> Measured {
    // It is one's own because a session was opened with it.
    site.session().wait()?;
    let list = || {
        let words = ["devices", "--as", &manager(0), "--json"];
        let began = Instant::now();
        let output = site.role(&client(0), &words).output();
        let output = output.map_err(|why| wrong(why.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok::<_, Miss>((began.elapsed(), text))
    };
    let (before, text) = list()?;
    let is_first = |text: &str| {
        text.lines()
            .next()
            .is_some_and(|line| line.contains(DEVICE) && line.contains("active"))
    };
    if !is_first(&text) {
        return Err(wrong(format!("the list, before: {text}")));
    }
    let own = own_program().display().to_string();
    let count = INVENTED.to_string();
    let status = site
        .command(STRANGER, &own, &[INSIDE, "invent", &manager(0), &count])
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(wrong("the stranger could not".to_owned()));
    }
    let (after, text) = list()?;
    let lines = text.lines().count();
    if is_first(&text) {
        println!("invented-devices: {lines} lines, {after:.1?}, before {before:.1?}");
        Ok(after)
    } else {
        Err(wrong(format!(
            "{lines} lines, the first: {:?}",
            text.lines().next()
        )))
    }
}
