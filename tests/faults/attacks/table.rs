//! The attacks.

use std::time::Duration;

use super::{
    Attack, Besides, Place, Victim, doors, meetings, notes,
    outcome::{Outcome, failed, longest},
    peers,
};

/// As most of them are: a stranger at his own host, for 20 s, with G as all there is.
const USUAL: Attack = Attack {
    name: "",
    number: "",
    what: "",
    victim: Victim::Atserver,
    place: Place::Stranger,
    besides: Besides::Nothing,
    seconds: 20,
    quick: None,
    setup: |_| {},
    run: None,
    own: |_| Ok(()),
};

fn demand(so: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if so { Ok(()) } else { Err(what()) }
}

/// MiB of pages that the atServer's store keeps for good once enough has been written.
const STORE_CACHE: u64 = 32;
/// MiB that the good user's own bridges take at a time, in a debug build: three of them.
const BRIDGES: u64 = 6;

/// MiB that the victim's memory may grow by.
fn grows_at_most(outcome: &Outcome, mib: u64) -> Result<(), String> {
    let grown = outcome
        .held_worst
        .memory
        .saturating_sub(outcome.held_before.memory)
        / 1024;
    demand(grown <= mib, || {
        format!("memory +{grown} MiB, {mib} are allowed")
    })
}

/// KiB that the disk may grow by.
fn writes_at_most(outcome: &Outcome, kib: u64) -> Result<(), String> {
    let written = outcome.disk_worst.saturating_sub(outcome.disk_before) / 1024;
    demand(written <= kib, || {
        format!("disk +{written} KiB, {kib} are allowed")
    })
}

/// New connections in a tunnel come about.
fn opens_in_tunnel(outcome: &Outcome) -> Result<(), String> {
    let (lost, longest) = (failed(&outcome.through), longest(&outcome.through));
    demand(lost == 0 && longest < Duration::from_secs(3), || {
        format!("new connections in a tunnel: {lost} failed, {longest:?} at most")
    })
}

/// Who was restarted meanwhile is ready soon.
fn ready_soon(outcome: &Outcome) -> Result<(), String> {
    let took = outcome.restart.unwrap_or_default();
    demand(took < Duration::from_secs(10), || {
        format!("ready again after {took:?}")
    })
}

/// All of them, in the order of `attacks.md`.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "huge-note",
        number: "A1",
        what: "one notification of 6 MB of quotes, to daemon and rendezvous",
        victim: Victim::Daemon,
        quick: Some(8),
        run: Some(|own| Box::pin(notes::huge_note(own))),
        ..USUAL
    },
    Attack {
        name: "backlog",
        number: "A2",
        what: "1,200 notes to daemon and rendezvous while they are away",
        victim: Victim::Daemon,
        besides: Besides::Outage,
        quick: Some(8),
        run: Some(|own| Box::pin(notes::backlog(own))),
        ..USUAL
    },
    Attack {
        name: "full-inbox",
        number: "A3",
        what: "52,000 notes that live for a year",
        seconds: 90,
        run: Some(|own| Box::pin(notes::full_inbox(own))),
        ..USUAL
    },
    Attack {
        name: "silent-sockets",
        number: "A4",
        what: "300 silent sockets at each port of a tunnel",
        victim: Victim::Rendezvous,
        besides: Besides::LooksOn,
        quick: Some(8),
        run: Some(|own| Box::pin(doors::silent_sockets(own))),
        own: opens_in_tunnel,
        ..USUAL
    },
    Attack {
        name: "hole",
        number: "A4a",
        what: "nothing from client to rendezvous for 13 s, and new connections in a tunnel",
        victim: Victim::Rendezvous,
        besides: Besides::Hole,
        own: |outcome| {
            // Those that were begun in the hole may wait for its end, and for TCP's next try.
            let (lost, longest) = (failed(&outcome.through), longest(&outcome.through));
            demand(lost == 0 && longest < Duration::from_secs(21), || {
                format!("new connections in a tunnel: {lost} failed, {longest:?} at most")
            })
        },
        ..USUAL
    },
    Attack {
        name: "replayed-login",
        number: "A5",
        what: "a login line that was seen, with 399 other numbers",
        victim: Victim::Rendezvous,
        besides: Besides::LooksOn,
        quick: Some(8),
        run: Some(|own| Box::pin(doors::replayed_login(own))),
        own: opens_in_tunnel,
        ..USUAL
    },
    Attack {
        name: "tarpit",
        number: "A5a",
        what: "ports are asked for with somebody whose atServer takes no connection",
        victim: Victim::Rendezvous,
        setup: |setup| setup.is_federated = true,
        run: Some(|own| Box::pin(meetings::tarpit(own))),
        ..USUAL
    },
    Attack {
        name: "proofs",
        number: "A5b",
        what: "260 proofs of silent atServers, before any login",
        setup: |setup| setup.is_federated = true,
        run: Some(|own| Box::pin(doors::proofs(own))),
        ..USUAL
    },
    Attack {
        name: "idle-pairs",
        number: "A6",
        what: "one atSign's sessions with 500 idle pairs each, at a rendezvous with 2,048 descriptors",
        victim: Victim::Rendezvous,
        setup: |setup| setup.descriptors = Some(("rendezvous", 2_048)),
        run: Some(|own| Box::pin(meetings::idle_pairs(own))),
        ..USUAL
    },
    Attack {
        name: "one-word",
        number: "A7",
        what: "18 addresses with 511 connections each that say one word",
        seconds: 60,
        run: Some(|own| Box::pin(doors::one_word(own))),
        ..USUAL
    },
    Attack {
        name: "dead-sessions",
        number: "A8",
        what: "another manager asks 200 times a second for a year at a silent rendezvous",
        victim: Victim::Daemon,
        place: Place::Manager,
        run: Some(|own| Box::pin(meetings::dead_sessions(own))),
        ..USUAL
    },
    Attack {
        name: "new-key",
        number: "A9",
        what: "another manager's atServer has a new key for him, and somebody asks with that",
        victim: Victim::Daemon,
        place: Place::Manager,
        run: Some(|own| Box::pin(meetings::new_key(own))),
        own: |outcome| {
            demand(outcome.told == "served 0", || {
                format!("the attacker: {}", outcome.told)
            })
        },
        ..USUAL
    },
    Attack {
        name: "slow-line",
        number: "A10",
        what: "20 notes of 500 KB to a daemon with 1 Mbit/s",
        victim: Victim::Daemon,
        besides: Besides::NarrowLine,
        seconds: 30,
        run: Some(|own| Box::pin(notes::slow_line(own))),
        ..USUAL
    },
    Attack {
        name: "fill-disk",
        number: "A12",
        what: "a tenant writes 400 records of 2 MB, and as many for others",
        seconds: 40,
        run: Some(|own| Box::pin(notes::fill_disk(own))),
        // He may: that is his quota, and what the store's file is longer than what is in it.
        own: |outcome| writes_at_most(outcome, (1024 + 256) * 1024),
        ..USUAL
    },
    Attack {
        name: "note-flood",
        number: "A13",
        what: "notes that match what the daemon listens for, as fast as it goes",
        victim: Victim::Daemon,
        quick: Some(8),
        run: Some(|own| Box::pin(notes::note_flood(own))),
        ..USUAL
    },
    Attack {
        name: "dead-starts",
        number: "A14",
        what: "another manager asks 12 times a second for a rendezvous where nobody is",
        victim: Victim::Daemon,
        place: Place::Manager,
        run: Some(|own| Box::pin(meetings::dead_starts(own))),
        ..USUAL
    },
    Attack {
        name: "wrong-logins",
        number: "A15",
        what: "wrong logins as the device, from its own address, and its daemon restarts",
        place: Place::Device,
        besides: Besides::Restart,
        run: Some(|own| Box::pin(doors::wrong_logins(own))),
        own: ready_soon,
        ..USUAL
    },
    Attack {
        name: "pol-house",
        number: "N1",
        what: "2,200 connections of a tenant that proved who he is, to the user's atServer",
        seconds: 40,
        run: Some(|own| Box::pin(doors::pol_house(own))),
        ..USUAL
    },
    Attack {
        name: "endless-lines",
        number: "N2",
        what: "60 such connections with a line of 10 MB that does not end",
        run: Some(|own| Box::pin(doors::endless_lines(own))),
        own: |outcome| grows_at_most(outcome, 64),
        ..USUAL
    },
    Attack {
        name: "slow-readers",
        number: "N3",
        what: "300 connections without login that want 9 MB and hardly read",
        run: Some(|own| Box::pin(notes::slow_readers(own))),
        own: |outcome| grows_at_most(outcome, 128),
        ..USUAL
    },
    Attack {
        name: "cached-rows",
        number: "N4",
        what: "cached values of one byte under long names, as fast as it goes",
        seconds: 40,
        run: Some(|own| Box::pin(notes::cached_rows(own))),
        own: |outcome| writes_at_most(outcome, 80 * 1024),
        ..USUAL
    },
    Attack {
        name: "many-recipients",
        number: "N5",
        what: "one line with 20,000 recipients that are nobody",
        run: Some(|own| Box::pin(notes::many_recipients(own))),
        own: |outcome| grows_at_most(outcome, 20 + STORE_CACHE),
        ..USUAL
    },
    Attack {
        name: "big-key",
        number: "N6",
        what: "a rendezvous is to know keys of 10 MB",
        setup: |setup| setup.is_federated = true,
        run: Some(|own| Box::pin(meetings::big_key(own))),
        own: |outcome| grows_at_most(outcome, 32).and_then(|()| writes_at_most(outcome, 10 * 1024)),
        ..USUAL
    },
    Attack {
        name: "one-byte",
        quick: Some(8),
        number: "N7",
        what: "2,000 connections to the directory that say one byte, from the user's own host",
        place: Place::User,
        run: Some(|own| Box::pin(doors::one_byte(own))),
        ..USUAL
    },
    Attack {
        name: "made-up-logins",
        number: "N8",
        what: "wrong logins under made-up names, as fast as it goes",
        quick: Some(8),
        run: Some(|own| Box::pin(doors::made_up_logins(own))),
        ..USUAL
    },
    Attack {
        name: "health-port",
        number: "N9",
        what: "another user of the atServer's machine dials its health port as fast as it goes",
        place: Place::Atserver,
        setup: |setup| {
            setup
                .more
                .push(("atserver", &["--metrics", "127.0.0.1:9464"]))
        },
        run: Some(|own| Box::pin(doors::health_port(own))),
        own: |outcome| {
            let most = outcome
                .held_worst
                .descriptors
                .saturating_sub(outcome.held_before.descriptors);
            demand(most <= 30, || format!("{most} descriptors more"))
        },
        ..USUAL
    },
    Attack {
        name: "questions",
        number: "N10",
        what: "eight strangers ask a policy as daemons do, as fast as it goes",
        victim: Victim::Policy,
        setup: |setup| {
            setup.strangers = 8;
            setup.has_policy = true;
        },
        run: Some(|own| Box::pin(meetings::questions(own))),
        ..USUAL
    },
    Attack {
        name: "many-senders",
        number: "N11",
        what: "questions to a policy, each by another name of one server; it is restarted meanwhile",
        victim: Victim::Policy,
        seconds: 60,
        besides: Besides::PolicyRestart,
        setup: |setup| {
            setup.has_policy = true;
            setup.is_federated = true;
        },
        run: Some(|own| Box::pin(peers::many_senders(own))),
        own: ready_soon,
        ..USUAL
    },
    Attack {
        name: "planted-rules",
        number: "N12",
        what: "rules that a stranger plants beside a policy's own; it is restarted meanwhile, at 2 Mbit/s",
        victim: Victim::Policy,
        seconds: 60,
        besides: Besides::PolicyRestart,
        setup: |setup| {
            setup.has_policy = true;
            setup.has_records = true;
        },
        run: Some(|own| Box::pin(notes::planted_rules(own))),
        own: ready_soon,
        ..USUAL
    },
    Attack {
        name: "again-please",
        number: "N14",
        what: "eight strangers say the same request again, as fast as it goes",
        victim: Victim::Rendezvous,
        setup: |setup| setup.strangers = 8,
        run: Some(|own| Box::pin(meetings::again_please(own))),
        ..USUAL
    },
    Attack {
        name: "unused-grants",
        number: "D",
        what: "eight strangers ask for ports that they never use, as fast as it goes",
        victim: Victim::Rendezvous,
        setup: |setup| setup.strangers = 8,
        run: Some(|own| Box::pin(meetings::unused_grants(own))),
        ..USUAL
    },
    Attack {
        name: "shy-names",
        number: "N15",
        what: "ports are asked for by ever new names whose own server is silent",
        victim: Victim::Rendezvous,
        seconds: 40,
        setup: |setup| setup.is_federated = true,
        run: Some(|own| Box::pin(peers::shy_names(own))),
        ..USUAL
    },
    Attack {
        name: "many-networks",
        number: "N16",
        what: "silent sockets at a tunnel's ports, each from another /64",
        victim: Victim::Rendezvous,
        besides: Besides::LooksOn,
        run: Some(|own| Box::pin(doors::many_networks(own))),
        own: opens_in_tunnel,
        ..USUAL
    },
    Attack {
        name: "many-networks-far",
        number: "N16",
        what: "the same while managers and devices are 150 ms away and back",
        victim: Victim::Rendezvous,
        besides: Besides::LooksOn,
        setup: |setup| setup.away = Duration::from_millis(75),
        run: Some(|own| Box::pin(doors::many_networks(own))),
        own: opens_in_tunnel,
        ..USUAL
    },
    Attack {
        name: "temporary-keys",
        number: "N19",
        what: "another manager asks for five ssh sessions a second, with a temporary key each, and never comes",
        victim: Victim::Daemon,
        place: Place::Manager,
        seconds: 40,
        setup: |setup| setup.more.push(("daemon", &["--temporary-keys", "always"])),
        run: Some(|own| Box::pin(meetings::temporary_keys(own))),
        ..USUAL
    },
    Attack {
        name: "small-device",
        number: "N20",
        what: "another manager's sessions at a silent rendezvous, at a device with 64 MB",
        victim: Victim::Daemon,
        place: Place::Manager,
        setup: |setup| setup.memory = Some(("daemon", 64 * 1024 * 1024)),
        run: Some(|own| Box::pin(meetings::dead_sessions(own))),
        ..USUAL
    },
    Attack {
        name: "pings",
        number: "N18",
        what: "another manager pings as fast as it goes",
        victim: Victim::Daemon,
        place: Place::Manager,
        run: Some(|own| Box::pin(meetings::pings(own))),
        own: |outcome| grows_at_most(outcome, 5 + BRIDGES),
        ..USUAL
    },
];
