//! Whether the table on the server's front page tells what the constants say.

use super::{
    super::{
        health::ASKERS,
        peer,
        session::{DELIVERIES_TO_HOST, OF_HOME, OF_SENDER, OUTGOING, TO_HOST},
        store::{copies, notes, quota},
    },
    courier::{DELIVERIES, DELIVERIES_OF_ONE},
    gate::{CHECKS, CHECKS_OF_ONE, CONNECTIONS, ENQUIRIES, LOOKS, LOOKS_OF_ONE, Shares},
    load::{self, BYTES},
    writes::{WRITES, WRITES_OF_ONE},
};
use crate::budget::Limits;

const PAGE: &str = include_str!("../mod.rs");
const MIB: u64 = 1 << 20;

/// The cells of a row.
fn row(name: &str) -> Vec<&'static str> {
    let head = format!("//! | {name} |");
    let line = PAGE.lines().find(|line| line.starts_with(&head));
    let line = line.unwrap_or_else(|| panic!("no row of {name}"));
    line.split('|').skip(2).map(str::trim).collect()
}

/// The numbers of a cell, one after the other.
fn numbers(cell: &str) -> Vec<u64> {
    let words = cell.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn the_table_tells_what_the_constants_say() {
    let shares = |all: &Shares, unit: u64| {
        let parts = [all.network, all.range];
        let hands = [all.handshakes_of_network, all.handshakes];
        let rest = [all.house, all.visitor, all.owner, all.owners];
        let hands = hands.into_iter().filter(|part| *part > 0);
        let all = parts.into_iter().chain(hands).chain(rest);
        all.map(|part| part / unit).collect::<Vec<_>>()
    };
    let of_connections = Shares::of_connections(CONNECTIONS.total);
    let mut of_enquiries = shares(&Shares::of_connections(ENQUIRIES.total), 1);
    of_enquiries.truncate(4);
    let rows: [(Limits, u64, Vec<u64>); 10] = [
        (CONNECTIONS, 1, shares(&of_connections, 1)),
        (ENQUIRIES, 1, of_enquiries),
        (CHECKS, 1, vec![CHECKS_OF_ONE]),
        (LOOKS, 1, vec![LOOKS_OF_ONE]),
        (WRITES, 1, vec![WRITES_OF_ONE]),
        (BYTES, MIB, shares(&load::SHARES, MIB)),
        (
            OUTGOING,
            1,
            vec![OF_HOME, OF_SENDER, TO_HOST, DELIVERIES_TO_HOST],
        ),
        (peer::PROOFS, 1, vec![peer::OF_CALLER, peer::OF_NETWORK]),
        (DELIVERIES, 1, vec![DELIVERIES_OF_ONE]),
        (ASKERS, 1, vec![ASKERS.total]),
    ];
    for (limits, unit, of_one) in rows {
        let cells = row(limits.name);
        assert_eq!(numbers(cells[0]), [limits.total / unit], "{}", limits.name);
        assert_eq!(numbers(cells[1]), of_one, "{}", limits.name);
        assert_eq!(
            numbers(cells[2]),
            [limits.reserve / unit],
            "{}",
            limits.name
        );
    }
    let kept = [
        ("inbox", notes::MAX_INBOX, notes::MAX_INBOX / 8),
        (
            "inbox bytes",
            notes::MAX_INBOX_BYTES / MIB,
            notes::MAX_INBOX_BYTES / 8 / MIB,
        ),
        ("outbox", notes::MAX_OUTBOX, notes::MAX_OUTBOX),
        (
            "outbox bytes",
            notes::MAX_OUTBOX_BYTES / MIB,
            notes::MAX_OUTBOX_BYTES / MIB,
        ),
        ("sent", notes::MAX_SPENT, notes::MAX_SPENT),
        (
            "sent bytes",
            notes::MAX_SPENT_BYTES / MIB,
            notes::MAX_SPENT_BYTES / MIB,
        ),
        ("copies", copies::MAX_COPIES / MIB, copies::MAX_SHARE / MIB),
    ];
    for (name, all, of_one) in kept {
        let cells = row(name);
        assert_eq!(
            (numbers(cells[0]), numbers(cells[1])),
            (vec![all], vec![of_one]),
            "{name}"
        );
    }
    assert_eq!(numbers(row("disk")[1]), [quota::DEFAULT / MIB]);
    let times = super::Timings::default();
    let told = format!(
        "//! Times: {} s to log in ({} minutes after `enroll:request`), {} minutes of silence",
        times.login.as_secs(),
        times.enrolling.as_secs() / 60,
        times.visitor_idle.as_secs() / 60
    );
    assert!(PAGE.contains(&told), "{told}");
}
