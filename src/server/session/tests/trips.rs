//! What each command costs on a store behind a network, in requests; and what happens when several atServers work on
//! the same rows. That each command of all these tests gives the same answer, events and rows there as near, also when
//! it has to run again, is checked where they run: [`World::decide`].

use std::{cell::Cell, net::IpAddr};

use super::*;
use crate::server::{
    passcode::Guesses,
    store::{MemoryStore, Rows, StoreError, log::Change, tests::far::Server},
};

/// Most requests of each command, for one that is logged in: one for the rows that are known from the start, one more
/// for what these lead to, one to commit. Later ones find what earlier ones wrote.
const OWNERS: &[(usize, &str)] = &[
    (0, "from:@alice"),
    (1, "from:@bob"),
    (2, "update:x.ns@alice v"),
    (2, "update:x.ns@alice w"),
    (2, "update:@bob:x.ns@alice v"),
    (2, "update:ttl:1000:@bob:x.ns@alice v"),
    (2, "update:public:x.ns@alice v"),
    (3, "update:meta:x.ns@alice:ttl:1000"),
    (2, r#"update:json:{"atKey":"j.ns@alice","value":"v"}"#),
    (2, "update:privatekey:at_pkam_publickey KEY"),
    (1, "llookup:x.ns@alice"),
    (1, "lookup:x.ns@alice"),
    (3, "lookup:x.ns@bob"),
    (1, "lookup:x.ns@far"),
    (3, "plookup:signing_publickey@bob"),
    (1, "scan"),
    (3, "scan:@bob"),
    (3, "sync:from:-1:limit:10"),
    (1, "stats"),
    (1, "config:block:show"),
    (2, "config:block:add:@carol"),
    (2, "config:block:remove:@carol"),
    (2, "notify:id:1:update:@bob:n.ns@alice:v"),
    (2, "notify:id:2:update:@alice:n.ns@alice:v"),
    (
        3,
        "notify:id:3:strategy:latest:notifier:me:latestN:1:@bob:n.ns@alice:v",
    ),
    (2, "notify:all:update:@bob,@carol:n.ns@alice:v"),
    (1, "notify:status:1"),
    (1, "notify:fetch:1"),
    (3, "notify:list"),
    (3, "notify:remove:2"),
    (1, "monitor"),
    (
        2,
        r#"batch:[{"id":1,"command":"update:b1.ns@alice v"},{"id":2,"command":"update:b2.ns@alice v"}]"#,
    ),
    (2, "delete:x.ns@alice"),
    (2, "delete:force:j.ns@alice"),
    (2, "delete:privatekey:at_secret"),
    (2, "otp:get"),
    (2, "otp:put:abc123"),
    (1, "enroll:list"),
    (1, "enroll:listns:ns"),
    (
        2,
        r#"enroll:request:{"appName":"np","deviceName":"d1","namespaces":{"ns":"rw"},"apkamPublicKey":"KEY"}"#,
    ),
    (
        3,
        r#"enroll:approve:{"enrollmentId":"ID","encryptedDefaultEncryptionPrivateKey":"P","encryptedDefaultSelfEncryptionKey":"S"}"#,
    ),
    (1, r#"enroll:fetch:{"enrollmentId":"ID"}"#),
];

/// The same for a connection that lives by the enrolment that was approved there.
const DEVICES: &[(usize, &str)] = &[
    (1, "info"),
    (
        2,
        "keys:put:self:namespace:__global:appName:np:deviceName:d1:keyName:k V",
    ),
    (1, "keys:get:self"),
    (1, "keys:get:keyName:np.d1.k.__self_keys.__global@alice"),
    (2, "keys:delete:keyName:np.d1.k.__self_keys.__global@alice"),
];

/// And once more for the owner, to end it.
const ENDING: &[(usize, &str)] = &[
    (3, r#"enroll:revoke:{"enrollmentId":"ID"}"#),
    (3, r#"enroll:unrevoke:{"enrollmentId":"ID"}"#),
    (3, r#"enroll:revoke:{"enrollmentId":"ID"}"#),
    (3, r#"enroll:delete:{"enrollmentId":"ID"}"#),
];

fn count(trips: usize, most: usize, what: &str) {
    println!("{trips:>2}  {what}");
    assert!(trips <= most, "{trips} requests, {most} at most: {what}");
}

fn count_all(world: &mut World, line: &mut Line, id: &mut String, all: &[(usize, &str)]) {
    for (most, command) in all {
        let command = command.replace("ID", id);
        let command = command.replace("KEY", &keys().public().text);
        world.trips = 0;
        let reply = world.ask(line, &command);
        if command.starts_with("enroll:request") {
            *id = reply.split('"').nth(3).unwrap().to_owned();
        }
        assert!(!reply.contains("invalid command"), "{command} → {reply}");
        count(world.trips, *most, &command[..command.len().min(70)]);
    }
}

/// Shows the table with `--nocapture`.
#[test]
fn each_command_takes_few_requests_on_a_store_behind_a_network() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut line = world.login("@alice");
    count(world.trips, 1, "pkam");
    let mut id = String::new();
    count_all(&mut world, &mut line, &mut id, OWNERS);
    world.deliver("@alice", "@bob");
    count(world.trips, 5, "(delivery)");
    let mut device = world.connect("@alice");
    let reply = world.ask(&mut device, "from:@alice");
    let signature = keys().sign(challenge_of(&reply).as_bytes()).unwrap();
    let login = format!("pkam:enrollmentId:{id}:{signature}");
    assert!(world.ask(&mut device, &login).starts_with("data:success"));
    count(world.trips, 1, "pkam:enrollmentId");
    count_all(&mut world, &mut device, &mut id, DEVICES);
    let mut line = world.login("@alice");
    count_all(&mut world, &mut line, &mut id, ENDING);
    let (home, now) = (world.home("@alice"), world.now + 24 * 3600 * 1000);
    world.decide(true, |tx| purge(tx, &home, now).unwrap());
    count(world.trips, 5, "(purge)");
    world.decide(true, |tx| register::clear(tx, &home).unwrap());
    count(world.trips, 2, "(an atSign's rows are removed)");
}

/// Two atServers, one store.
struct Both {
    server: Server,
    home: Home,
}

impl Both {
    fn new() -> Self {
        let world = World::new(&["@alice"]);
        Self {
            server: Server::of(&world.memory),
            home: world.home("@alice"),
        }
    }

    /// Carries out `one`, with `other` committed just before it would have been.
    fn at_once<T, U>(
        &mut self,
        one: impl Fn(&mut Tx<'_>, &Home) -> Result<T, StoreError>,
        other: impl Fn(&mut Tx<'_>, &Home) -> Result<U, StoreError> + 'static,
    ) -> Result<T, StoreError> {
        let home = self.home.clone();
        self.server.meanwhile = Some(Box::new(move |server| {
            server.write(|tx| other(tx, &home)).unwrap();
        }));
        let home = &self.home;
        let (done, _) = self.server.write(|tx| one(tx, home))?;
        Ok(done)
    }
}

#[test]
fn two_that_write_at_once_get_two_commit_ids() {
    let mut both = Both::new();
    let log = |tx: &mut Tx<'_>, home: &Home| home.log(tx, "k@alice", Change::Update, NOW);
    assert_eq!(both.at_once(log, log).unwrap(), 1);
    assert_eq!(both.at_once(log, log).unwrap(), 3);
}

#[test]
fn a_passcode_is_used_once_though_two_use_it_at_once() {
    let mut both = Both::new();
    let put = |tx: &mut Tx<'_>| Home::put_plain(&both.home, tx, "p@alice", "otp", None, NOW);
    both.server.write(put).unwrap();
    let take = |tx: &mut Tx<'_>, home: &Home| home.erase(tx, "p@alice");
    assert!(!both.at_once(take, take).unwrap(), "the other had it");
}

#[test]
fn a_row_that_appears_in_a_range_that_was_read_is_a_conflict() {
    let mut both = Both::new();
    let runs = Cell::new(0);
    let add = |tx: &mut Tx<'_>, name: &str| {
        let mut seen = 0;
        tx.visit(&[200], &[201], &mut |_, _| {
            seen += 1;
            Ok(true)
        })?;
        tx.put([&[200], name.as_bytes()].concat(), vec![seen])?;
        Ok(seen)
    };
    let one = |tx: &mut Tx<'_>, _: &Home| {
        runs.set(runs.get() + 1);
        add(tx, "one")
    };
    assert_eq!(both.at_once(one, move |tx, _| add(tx, "other")).unwrap(), 1);
    assert_eq!(runs.get(), 3, "with nothing, with the range, and again");
}

#[test]
fn what_was_not_read_is_no_conflict() {
    let mut both = Both::new();
    let runs = Cell::new(0);
    let one = |tx: &mut Tx<'_>, _: &Home| {
        runs.set(runs.get() + 1);
        let was = tx.get(&[200, 1])?;
        tx.put(vec![200, 1], vec![9])?;
        Ok(was)
    };
    let other = |tx: &mut Tx<'_>, _: &Home| tx.put(vec![200, 2], vec![9]);
    assert_eq!(both.at_once(one, other).unwrap(), None);
    assert_eq!(runs.get(), 2);
}

#[test]
fn whoever_is_always_too_late_gives_up_and_has_changed_nothing() {
    let mut both = Both::new();
    both.server.refusals = usize::MAX;
    let put = |tx: &mut Tx<'_>| tx.put(vec![200, 1], vec![9]);
    let failed: Result<_, StoreError> = both.server.write(put);
    assert!(matches!(failed, Err(StoreError::Contended)));
    both.server.refusals = 0;
    let (found, _) = both.server.write(|tx| tx.get(&[200, 1])).unwrap();
    assert_eq!(found, None);
}

#[test]
fn ranges_longer_than_an_answer_are_read_whole_and_no_further_than_wanted() {
    let mut memory = MemoryStore::new();
    for n in 0..1000u16 {
        let key = [&[200], &n.to_be_bytes()[..]].concat();
        memory.write(|tx| tx.put(key, vec![1])).unwrap();
    }
    for (most, trips) in [(10, 1), (64, 1), (65, 3), (1000, 4)] {
        let mut server = Server::of(&memory);
        let seen = |tx: &mut Tx<'_>| {
            let mut seen = 0;
            tx.visit(&[200], &[201], &mut |_, _| {
                seen += 1;
                Ok(seen < most)
            })?;
            Ok::<_, StoreError>(seen)
        };
        assert_eq!(server.write(seen).unwrap().0, most);
        assert_eq!(server.trips, trips, "{most} rows");
    }
}

fn request(otp: &str, device: usize) -> String {
    format!(
        r#"enroll:request:{{"appName":"np","deviceName":"d{device}","namespaces":{{"ns":"rw"}},"otp":"{otp}","apkamPublicKey":"K"}}"#
    )
}

/// A passcode is judged in a transaction, and counted with its answer: those in between must not be free.
#[test]
fn many_guesses_at_the_same_time_are_no_way_around_the_limit() {
    let mut world = World::new(&["@alice"]);
    let facts = Arc::new(Facts::default());
    let from: IpAddr = [192, 0, 2, 1].into();
    let stranger =
        |world: &World| Session::new(world.home("@alice"), facts.clone()).coming_from(from);
    let most = usize::try_from(Guesses::MOST).unwrap();
    let mut sessions: Vec<Session> = (0..most + 5).map(|_| stranger(&world)).collect();
    let mut jobs = Vec::new();
    for (n, session) in sessions.iter_mut().enumerate() {
        match session.read(&request("WRONG1", n), NOW) {
            LineAction::Run(job) => jobs.push(job),
            LineAction::Done(done) => panic!("{done:?}"),
        }
    }
    let mut judged = 0;
    let all: Vec<UncommittedOutcome> = sessions
        .iter()
        .zip(&jobs)
        .map(|(session, job)| world.decide(true, |tx| session.run(job, tx, NOW)))
        .collect();
    for (session, decision) in sessions.iter_mut().zip(all) {
        let reply = String::from_utf8(session.accept(decision).reply).unwrap();
        judged += usize::from(reply.contains("invalid otp"));
    }
    assert_eq!(judged, most);
}

#[test]
fn right_passcodes_are_not_counted_as_guesses() {
    let mut world = World::new(&["@alice"]);
    let facts = Arc::new(Facts::default());
    let mut owner = world.login("@alice");
    world.ask(&mut owner, "otp:put:abc123");
    for n in 0..usize::try_from(Guesses::MOST).unwrap() + 5 {
        let session = Session::new(world.home("@alice"), facts.clone());
        let mut line = Line {
            session: session.coming_from([192, 0, 2, 1].into()),
        };
        let reply = world.ask(&mut line, &request("abc123", n));
        assert!(reply.contains("pending"), "{n}: {reply}");
    }
}
