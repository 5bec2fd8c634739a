use super::*;
use crate::{
    at::verb::Operation,
    server::store::{Memory, records::Meta},
};

fn home(name: &str, number: u32) -> Home {
    Home {
        number,
        who: name.parse().unwrap(),
    }
}

pub(crate) fn note(id: &str, from: &str, to: &str, kind: Kind) -> Note {
    Note {
        id: id.into(),
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        key: format!("{to}:x.ns{from}"),
        value: Some("v".into()),
        operation: Operation::Update,
        is_text: false,
        is_encrypted: true,
        kind,
        status: Status::Queued,
        priority: "low".into(),
        strategy: "all".into(),
        depth: 1,
        notifier: "SYSTEM".into(),
        ttln: 1000,
        epoch_millis: 0,
        expires_at: 0,
        retries: 0,
        place: 0,
        meta: <Meta as Default>::default(),
    }
}

fn ids(notes: &[Note]) -> Vec<&str> {
    notes.iter().map(|note| note.id.as_str()).collect()
}

#[test]
fn received_times_only_grow_even_when_the_clock_goes_back() {
    let (bob, mut memory) = (home("@bob", 2), Memory::new());
    for (id, now, want) in [
        ("a", 100, 100),
        ("b", 100, 101),
        ("c", 50, 102),
        ("d", 200, 200),
    ] {
        let new = note(id, "@alice", "@bob", Kind::Received);
        let stored = memory
            .write(|tx| bob.take_in(tx, new, now))
            .unwrap()
            .0
            .unwrap();
        assert_eq!(stored.epoch_millis, want, "{id}");
    }
    memory.read(|tx| {
        let (page, more) = bob.inbox(tx, 100, 200, u64::MAX).unwrap();
        assert_eq!((ids(&page), more), (vec!["b", "c", "d"], None));
        // A page ends where the bytes do, and the next goes on from there.
        let (page, more) = bob.inbox(tx, 0, 200, 1).unwrap();
        assert_eq!((ids(&page), more), (vec!["a"], Some(100)));
        assert_eq!(ids(&bob.inbox(tx, 0, 101, u64::MAX).unwrap().0), ["a", "b"]);
    });
}

#[test]
fn a_full_box_makes_room_by_what_has_expired_and_by_nothing_else() {
    let (bob, mut memory) = (home("@bob", 2), Memory::new());
    for (kind, name, most) in [
        (Kind::Received, "inbox", MAX_INBOX),
        (Kind::Sent, "outbox", MAX_OUTBOX),
    ] {
        let store = |memory: &mut Memory, id: &str, life: u64, now: u64| {
            let (from, to) = match kind {
                Kind::Sent => ("@bob", "@alice"),
                _ => ("@alice", "@bob"),
            };
            let mut new = note(id, from, to, kind);
            new.ttln = life;
            let put = |tx: &mut Tx<'_>| match kind {
                Kind::Sent => bob.put_out(tx, new, now),
                _ => bob.take_in(tx, new, now),
            };
            memory.write(put).unwrap().0.is_some()
        };
        let mut fits = |id: &str, life, now| store(&mut memory, id, life, now);
        // Two that die early, one that lives on; then as full as thousands of others would make it.
        assert!(
            fits("a", 100, 0) && fits("b", 100, 0) && fits("c", 9000, 0),
            "{name}"
        );
        memory.write(|tx| bob.set_counter(tx, name, most)).unwrap();
        let mut fits = |id: &str, life, now| store(&mut memory, id, life, now);
        assert!(!fits("early", 9000, 99), "{name}: nothing is dead yet");
        assert!(fits("d", 9000, 100) && fits("e", 9000, 100), "{name}");
        assert!(!fits("f", 9000, 100), "{name}: as full as before");
        memory.read(|tx| {
            for (id, kept) in [("a", false), ("b", false), ("c", true), ("d", true)] {
                let found = bob.notes(tx, id).unwrap();
                let found = found.iter().any(|note| note.kind == kind);
                assert_eq!(found, kept, "{name}: {id}");
            }
        });
    }
}

#[test]
fn two_senders_with_the_same_id_do_not_overwrite_each_other() {
    let (bob, mut memory) = (home("@bob", 2), Memory::new());
    for from in ["@alice", "@mallory"] {
        let new = note("same", from, "@bob", Kind::Received);
        memory.write(|tx| bob.take_in(tx, new, 5)).unwrap();
    }
    memory.read(|tx| assert_eq!(bob.notes(tx, "same").unwrap().len(), 2));
}

#[test]
fn the_line_keeps_its_order_and_dead_notes_leave_no_row() {
    let (alice, mut memory) = (home("@alice", 1), Memory::new());
    for (id, to) in [("z", "@bob"), ("a", "@carol"), ("b", "@bob")] {
        let new = note(id, "@alice", to, Kind::Sent);
        memory
            .write(|tx| alice.put_out(tx, new, 10))
            .unwrap()
            .0
            .unwrap();
    }
    let bob = "@bob".parse().unwrap();
    let line = memory.read(|tx| alice.outbox(tx, &bob, 9, 1 << 20).unwrap());
    assert_eq!(ids(&line), ["z", "b"]);
    let all = memory.read(|tx| alice.recipients(tx).unwrap());
    assert_eq!(all, [bob.clone(), "@carol".parse().unwrap()]);
    memory
        .write(|tx| {
            let mut first = line[0].clone();
            first.status = Status::Delivered;
            alice.out_of_line(tx, &mut first)
        })
        .unwrap();
    assert_eq!(
        memory.read(|tx| alice.outbox(tx, &bob, 9, 1 << 20).unwrap().len()),
        1
    );
    memory
        .write(|tx| {
            assert_eq!(alice.dead_notes(tx, 1009, 9)?, []);
            for dead in alice.dead_notes(tx, 1010, 9)? {
                alice.drop_note(tx, &dead)?;
            }
            Ok::<_, StoreError>(())
        })
        .unwrap();
    memory.read(|tx| {
        let left = rows::key(rows::NOTE, 1, &[]);
        tx.visit(
            &left,
            &rows::behind(&rows::key(rows::NOTE_EXPIRY, 1, &[])),
            &mut |key, _| panic!("left over: {key:?}"),
        )
        .unwrap();
        for name in ["outbox", "outbox bytes"] {
            assert_eq!(alice.counter(tx, name).unwrap(), 0, "{name}");
        }
    });
}
