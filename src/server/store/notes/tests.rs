use super::{
    shares::{MAX_SHARE, MAX_SHARE_BYTES, SenderShare},
    *,
};
use crate::{
    at::verb::Operation,
    server::store::{MemoryStore, records::Meta},
};

fn home(name: &str, number: u32) -> Home {
    Home {
        number,
        who: name.parse().unwrap(),
    }
}

pub(crate) fn note(id: &str, from: &str, to: &str, kind: NoteKind) -> Note {
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
        status: DeliveryStatus::Queued,
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
    let (bob, mut memory) = (home("@bob", 2), MemoryStore::new());
    for (id, now, want) in [
        ("a", 100, 100),
        ("b", 100, 101),
        ("c", 50, 102),
        ("d", 200, 200),
    ] {
        let new = note(id, "@alice", "@bob", NoteKind::Received);
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
fn a_full_line_makes_room_by_what_has_expired_and_by_nothing_else() {
    let (bob, mut memory) = (home("@bob", 2), MemoryStore::new());
    let (kind, name, most) = (NoteKind::Sent, "outbox", MAX_OUTBOX);
    let store = |memory: &mut MemoryStore, id: &str, life: u64, now: u64| {
        let mut new = note(id, "@bob", "@alice", kind);
        new.ttln = life;
        let put = |tx: &mut Tx<'_>| bob.put_out(tx, new, now);
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

#[test]
fn two_senders_with_the_same_id_do_not_overwrite_each_other() {
    let (bob, mut memory) = (home("@bob", 2), MemoryStore::new());
    for from in ["@alice", "@mallory"] {
        let new = note("same", from, "@bob", NoteKind::Received);
        memory.write(|tx| bob.take_in(tx, new, 5)).unwrap();
    }
    memory.read(|tx| assert_eq!(bob.notes(tx, "same").unwrap().len(), 2));
}

#[test]
fn the_line_keeps_its_order_and_dead_notes_leave_no_row() {
    let (alice, mut memory) = (home("@alice", 1), MemoryStore::new());
    for (id, to) in [("z", "@bob"), ("a", "@carol"), ("b", "@bob")] {
        let new = note(id, "@alice", to, NoteKind::Sent);
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
            first.status = DeliveryStatus::Delivered;
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

/// A box and what is sent to it.
struct Inbox {
    home: Home,
    memory: MemoryStore,
    now: u64,
}

impl Inbox {
    fn new() -> Self {
        Self {
            home: home("@bob", 2),
            memory: MemoryStore::new(),
            now: 1,
        }
    }

    /// Whether it was taken in.
    fn send(&mut self, from: &str, id: &str, size: usize) -> bool {
        self.send_living(from, id, size, 1_000_000_000)
    }

    fn send_living(&mut self, from: &str, id: &str, size: usize, life: u64) -> bool {
        let mut new = note(id, from, "@bob", NoteKind::Received);
        new.value = Some("v".repeat(size));
        new.ttln = life;
        self.now += 1;
        let (home, now) = (&self.home, self.now);
        let taken = self.memory.write(|tx| home.take_in(tx, new, now));
        taken.unwrap().0.is_some()
    }

    /// Rows as if somebody had sent so many small ones more.
    fn fill(&mut self, senders: usize, each: u64) {
        for sender in 0..senders {
            for number in 0..each {
                assert!(self.send(&format!("@s{sender}"), &format!("i{number}"), 1));
            }
        }
    }

    fn share(&self, of: &str) -> SenderShare {
        let who = of.parse().unwrap();
        self.memory.read(|tx| self.home.share_of(tx, &who).unwrap())
    }

    fn has(&self, from: &str, id: &str) -> bool {
        let who = from.parse().unwrap();
        let found = self.memory.read(|tx| self.home.note_from(tx, id, &who));
        found.unwrap().is_some()
    }

    /// All rows and counters say the same.
    fn check(&self) {
        self.memory.read(|tx| {
            let (notes, _) = self.home.inbox(tx, 0, u64::MAX - 1, u64::MAX).unwrap();
            let count = self.home.counter(tx, "inbox").unwrap();
            let bytes = self.home.counter(tx, "inbox bytes").unwrap();
            assert_eq!(notes.len() as u64, count);
            assert_eq!(notes.iter().map(Note::size).sum::<u64>(), bytes);
            assert!(count <= MAX_INBOX && bytes <= MAX_INBOX_BYTES);
            let mut shares = std::collections::HashMap::<_, SenderShare>::new();
            for note in &notes {
                let share = shares.entry(note.from.clone()).or_default();
                *share = share.with(note);
            }
            let rows = |table| {
                let (prefix, mut rows) = (self.home.key(table, &[]), 0);
                tx.visit(&prefix, &rows::behind(&prefix), &mut |_, _| {
                    rows += 1;
                    Ok(true)
                })
                .unwrap();
                rows
            };
            for (who, share) in &shares {
                assert_eq!(self.home.share_of(tx, who).unwrap(), *share, "{who}");
            }
            assert_eq!(rows(rows::SHARE), shares.len());
            let others = shares.keys().filter(|who| **who != self.home.who);
            assert_eq!(rows(rows::LARGEST), others.count());
            assert_eq!(rows(rows::SENDER), notes.len());
        });
    }
}

#[test]
fn one_sender_cannot_fill_the_box_and_its_own_oldest_gives_way() {
    let mut all = Inbox::new();
    assert!(all.send("@carol", "hers", 1));
    for number in 0..MAX_SHARE + 3 {
        assert!(all.send("@eve", &format!("e{number}"), 1));
    }
    assert_eq!(all.share("@eve").count, MAX_SHARE);
    assert!(!all.has("@eve", "e2") && all.has("@eve", "e3") && all.has("@carol", "hers"));
    all.check();
    // Few rows, many bytes.
    for number in 0..20 {
        assert!(all.send("@big", &format!("b{number}"), 9 << 20));
    }
    assert!(all.share("@big").bytes <= MAX_SHARE_BYTES && all.has("@big", "b19"));
    assert!(all.has("@carol", "hers"));
    // Metadata counts, too.
    for number in 0..20 {
        let mut new = note(&format!("m{number}"), "@meta", "@bob", NoteKind::Received);
        new.meta.items.enc_key_name = Some(crate::at::metadata::Item::Set("n".repeat(9 << 20)));
        let home = &all.home;
        all.memory.write(|tx| home.take_in(tx, new, 9)).unwrap();
    }
    assert!(all.share("@meta").bytes <= MAX_SHARE_BYTES);
    all.check();
}

#[test]
fn many_senders_who_fill_the_box_leave_room_for_one_who_sends_little() {
    let mut all = Inbox::new();
    // Eight at their share: the box is full to the last.
    for sender in 0..8 {
        let most = MAX_SHARE / 100;
        for number in 0..most {
            assert!(all.send(&format!("@s{sender}"), &format!("i{number}"), 1));
        }
    }
    // As full as a hundred times as many would make it.
    let home = all.home.clone();
    let full = 8 * (MAX_SHARE / 100);
    let room = |memory: &mut MemoryStore, count: u64| {
        memory
            .write(|tx| {
                home.set_counter(tx, "inbox", count)?;
                home.set_counter(tx, "inbox shared", count)
            })
            .unwrap();
    };
    room(&mut all.memory, MAX_INBOX);
    assert!(all.send("@new", "n", 1));
    assert!(all.has("@new", "n") && !all.has("@s0", "i0"));
    // Whoever has less than others is not pushed out by them: the sender's own oldest goes.
    for number in 0..100 {
        assert!(all.send("@s3", &format!("more{number}"), 1));
    }
    assert!(all.has("@new", "n"));
    assert!(all.share("@s3").count <= MAX_SHARE / 100);
    // So does the owner's own, whoever sends.
    assert!(all.send("@bob", "own", 1));
    for number in 0..100 {
        assert!(all.send(&format!("@x{number}"), "x", 1));
    }
    assert!(all.has("@bob", "own") && all.has("@new", "n"));
    room(&mut all.memory, full);
    all.check();
}

#[test]
fn shares_stay_exact_whatever_happens_to_notifications() {
    let mut all = Inbox::new();
    all.fill(3, 20);
    assert!(all.send("@s1", "i3", 700), "one is overwritten");
    assert!(all.send_living("@s2", "short", 5, 10) && all.send("@bob", "own", 9));
    all.check();
    let (home, now) = (all.home.clone(), all.now + 100);
    let drop = |memory: &mut MemoryStore, now: u64| {
        memory
            .write(|tx| {
                for dead in home.dead_notes(tx, now, 99)? {
                    home.drop_note(tx, &dead)?;
                }
                Ok::<_, StoreError>(())
            })
            .unwrap();
    };
    drop(&mut all.memory, now);
    assert!(!all.has("@s2", "short"));
    all.check();
    drop(&mut all.memory, u64::MAX - 2);
    assert_eq!(all.share("@s0"), SenderShare::default());
    all.check();
}

#[test]
fn a_box_of_an_earlier_version_is_counted_at_the_first_chance() {
    let mut all = Inbox::new();
    all.fill(3, 5);
    let home = all.home.clone();
    let forget = |memory: &mut MemoryStore| {
        memory
            .write(|tx| {
                for table in [rows::SENDER, rows::SHARE, rows::LARGEST] {
                    let prefix = home.key(table, &[]);
                    let mut keys = Vec::new();
                    tx.visit(&prefix, &rows::behind(&prefix), &mut |key, _| {
                        keys.push(key.to_vec());
                        Ok(true)
                    })?;
                    for key in keys {
                        tx.remove(&key)?;
                    }
                }
                home.set_counter(tx, "inbox shared", 0)
            })
            .unwrap();
    };
    forget(&mut all.memory);
    assert!(all.send("@s0", "new", 1));
    assert_eq!(all.share("@s0").count, 6);
    all.check();
    // The same when the first thing is that one goes.
    forget(&mut all.memory);
    let one = all.memory.read(|tx| home.notes(tx, "i1").unwrap());
    all.memory.write(|tx| home.drop_note(tx, &one[0])).unwrap();
    all.check();
}

#[test]
fn a_note_that_has_left_the_line_keeps_its_status_and_no_large_value() {
    let (alice, mut memory) = (home("@alice", 1), MemoryStore::new());
    for (id, length, kept) in [
        ("small", 100, true),
        ("most", MAX_SPENT_VALUE, true),
        ("more", MAX_SPENT_VALUE + 1, false),
        ("large", 9 << 20, false),
    ] {
        let mut new = note(id, "@alice", "@bob", NoteKind::Sent);
        new.value = Some("v".repeat(length));
        let stored = memory.write(|tx| alice.put_out(tx, new, 100)).unwrap().0;
        let mut stored = stored.unwrap();
        stored.status = DeliveryStatus::Delivered;
        memory
            .write(|tx| alice.out_of_line(tx, &mut stored))
            .unwrap();
        memory.read(|tx| {
            let from = "@alice".parse().unwrap();
            let found = alice.note_from(tx, id, &from).unwrap().unwrap();
            assert_eq!(found.status, DeliveryStatus::Delivered, "{id}");
            assert_eq!(found.value.is_some(), kept, "{id}");
            assert_eq!(alice.counter(tx, "outbox bytes").unwrap(), 0, "{id}");
        });
    }
}

#[test]
fn what_has_left_the_line_has_a_budget_and_the_oldest_give_way() {
    let (alice, mut memory) = (home("@alice", 1), MemoryStore::new());
    let from = "@alice".parse().unwrap();
    let send = |memory: &mut MemoryStore, id: &str, length: usize, now: u64| {
        let mut new = note(id, "@alice", "@bob", NoteKind::Sent);
        (new.value, new.ttln) = (Some("v".repeat(length)), 1 << 40);
        let step = |tx: &mut Tx<'_>| {
            let mut sent = alice.put_out(tx, new, now)?.unwrap();
            alice.out_of_line(tx, &mut sent)
        };
        memory.write(step).unwrap();
    };
    let rows = |memory: &mut MemoryStore, table| {
        memory.read(|tx| {
            let mut count = 0;
            tx.visit_prefix(&alice.key(table, &[]), &mut |_, _| {
                count += 1;
                Ok(true)
            })
            .unwrap();
            count
        })
    };
    let counted = |memory: &mut MemoryStore| {
        memory.read(|tx| ["spent", "spent bytes"].map(|name| alice.counter(tx, name).unwrap()))
    };
    for number in 0..MAX_SPENT + 20 {
        send(&mut memory, &format!("n{number}"), 1, number);
    }
    let is_there = |memory: &mut MemoryStore, id: &str| {
        memory.read(|tx| alice.note_from(tx, id, &from).unwrap().is_some())
    };
    assert!(!is_there(&mut memory, "n19") && is_there(&mut memory, "n20"));
    for table in [rows::NOTE, rows::NOTE_EXPIRY, rows::SPENT] {
        assert_eq!(rows(&mut memory, table), MAX_SPENT, "{table}");
    }
    // The same id again, and one that is removed by its sender, count once and not at all.
    send(&mut memory, "n20", 1, 9_000);
    let removed = memory.read(|tx| alice.note_from(tx, "n21", &from).unwrap().unwrap());
    memory.write(|tx| alice.drop_note(tx, &removed)).unwrap();
    assert_eq!(counted(&mut memory)[0], MAX_SPENT - 1);
    // Long ones give way by their bytes.
    for number in 0..MAX_SPENT_BYTES / MAX_SPENT_VALUE as u64 + 50 {
        let now = 10_000 + number;
        send(&mut memory, &format!("l{number}"), MAX_SPENT_VALUE, now);
    }
    let [count, bytes] = counted(&mut memory);
    assert!(bytes <= MAX_SPENT_BYTES && bytes > MAX_SPENT_BYTES - 2 * MAX_SPENT_VALUE as u64);
    assert_eq!(rows(&mut memory, rows::SPENT), count);
    // Those of an earlier version have no row; rows whose note is gone are forgotten.
    let all = memory.read(|tx| alice.dead_notes(tx, 1 << 50, 99_999).unwrap());
    memory
        .write(|tx| all.iter().try_for_each(|note| alice.drop_note(tx, note)))
        .unwrap();
    assert_eq!(counted(&mut memory), [0, 0]);
}
