//! Whole conversations, on a store in memory and a clock that stands where it is put.

mod data;
mod enrolment;
mod login;
mod notices;
mod printed;
mod trips;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::*;
use crate::{
    at::{
        AtSign,
        crypto::{KeyPair, cram_digest},
        fault::Fault,
        verb::AccessList,
    },
    server::{
        delivery::{Delivery, deliver, purge},
        store::{
            CommitEvent, MemoryStore, lists,
            register::{self, Home},
            tests::far,
        },
    },
};

const NOW: u64 = 1_729_771_294_567;

fn keys() -> &'static KeyPair {
    static KEYS: OnceLock<KeyPair> = OnceLock::new();
    KEYS.get_or_init(|| KeyPair::generate().unwrap())
}

/// Some atSigns in one store.
struct World {
    memory: MemoryStore,
    now: u64,
    events: Vec<CommitEvent>,
    /// Requests that the last command would cost on a store behind a network.
    trips: usize,
}

/// One connection.
struct Line {
    session: Session,
}

impl World {
    fn new(names: &[&str]) -> Self {
        let mut memory = MemoryStore::new();
        for name in names {
            let who: AtSign = name.parse().unwrap();
            memory
                .write(|tx| {
                    let home = register::add(tx, &who, 6500, NOW)?;
                    let public = keys().public().text.clone();
                    let key = format!("public:signing_publickey{who}");
                    home.put_plain(tx, &key, &public, None, NOW)?;
                    home.put_plain(tx, auth::SECRET, "s3cret", None, NOW)?;
                    home.put_plain(tx, auth::PKAM_KEY, &public, None, NOW)
                })
                .unwrap();
        }
        Self {
            memory,
            now: NOW,
            events: Vec::new(),
            trips: 0,
        }
    }

    fn home(&self, name: &str) -> Home {
        let who = name.parse().unwrap();
        self.memory
            .read(|tx| register::find(tx, &who).unwrap().unwrap().home)
    }

    fn connect(&self, name: &str) -> Line {
        let facts = Facts {
            started: NOW - 62_000,
            ..Facts::default()
        };
        Line {
            session: Session::new(self.home(name), Arc::new(facts)),
        }
    }

    fn login(&mut self, name: &str) -> Line {
        let mut line = self.connect(name);
        self.pkam(&mut line, name);
        line
    }

    fn pkam(&mut self, line: &mut Line, name: &str) {
        self.pkam_after(line, name, &format!("from:{name}"));
    }

    /// With this command for the challenge.
    fn pkam_after(&mut self, line: &mut Line, name: &str, from: &str) {
        let challenge = self.ask(line, from);
        let challenge = challenge
            .trim_start_matches("data:")
            .split('\n')
            .next()
            .unwrap();
        let signature = keys().sign(challenge.as_bytes()).unwrap();
        let want = format!("data:success\n{name}@");
        assert_eq!(self.ask(line, &format!("pkam:{signature}")), want);
    }

    fn run(&mut self, line: &mut Line, text: &str) -> CommandOutcome {
        let now = self.now;
        match line.session.read(text, now) {
            LineAction::Done(outcome) => outcome,
            LineAction::Run(job) => {
                // A command must not write when it said it would only look.
                let before = format!("{:?}", line.session);
                let decision = self.decide(job.writes(), |tx| line.session.run(&job, tx, now));
                // The facts of all connections, too: nobody has seen anything yet.
                assert_eq!(format!("{:?}", line.session), before, "{text}");
                line.session.accept(decision)
            }
        }
    }

    /// Runs something near and far: answer, events and rows must be the same.
    fn decide<T: std::fmt::Debug>(&mut self, writes: bool, run: impl Fn(&mut Tx<'_>) -> T) -> T {
        let (done, trips) = far::same_as_near(&mut self.memory, writes, run);
        self.trips = trips;
        self.events.extend(done.1);
        done.0
    }

    fn ask(&mut self, line: &mut Line, text: &str) -> String {
        String::from_utf8(self.run(line, text).reply).unwrap()
    }

    /// Runs a conversation: command, then the exact reply.
    fn talk(&mut self, line: &mut Line, transcript: &[(&str, &str)]) {
        for (command, reply) in transcript {
            assert_eq!(self.ask(line, command), *reply, "{command}");
        }
    }

    /// Delivers what waits from one to the other.
    fn deliver(&mut self, from: &str, to: &str) -> Delivery {
        let (home, to, now) = (self.home(from), to.parse().unwrap(), self.now);
        self.decide(true, |tx| deliver(tx, &home, &to, now).unwrap())
    }

    /// What the monitors of this atSign would have been told since the last time.
    fn told(&mut self, who: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for event in std::mem::take(&mut self.events) {
            if let CommitEvent::Note(note) = event
                && note.to.as_str() == who
            {
                lines.push(live_line(&note));
            }
        }
        lines
    }

    fn replay(&self, name: &str, watch: &MonitorView) -> Vec<String> {
        let (home, mut at, mut all) = (self.home(name), watch.replay, Vec::new());
        while let Some(after) = at {
            let now = self.now;
            let (lines, more) = self
                .memory
                .read(|tx| page(tx, &home, watch, after, now).unwrap());
            all.extend(lines);
            at = more;
        }
        all
    }

    fn monitor(&mut self, line: &mut Line, command: &str) -> Box<MonitorView> {
        let outcome = self.run(line, command);
        assert_eq!(outcome.reply, b"");
        match outcome.next {
            FollowUp::Watch(watch) => watch,
            other => panic!("{other:?}"),
        }
    }
}

fn challenge_of(reply: &str) -> &str {
    reply
        .trim_start_matches("data:")
        .split('\n')
        .next()
        .unwrap()
}

/// Something like a command: the right words in any order.
fn commandish() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let words = [
        "from",
        "cram",
        "pkam",
        "pol",
        "scan",
        "lookup",
        "plookup",
        "llookup",
        "update",
        "delete",
        "notify",
        "monitor",
        "noop",
        "info",
        "stats",
        "sync",
        "config",
        "batch",
        "enroll",
        "otp",
        "keys",
        "all",
        "meta",
        "json",
        "public",
        "cached",
        "@alice",
        "@bob",
        "x.ns",
        "@",
        ":",
        " ",
        "ttl",
        "ttr",
        "-1",
        "9999999999999999999",
        "true",
        "null",
        "id",
        "block",
        "allow",
        "add",
        "show",
        "request",
        "{}",
        "{\"a\":",
        "[",
        "list",
        "fetch",
        "messageType",
        "text",
        "key",
        "privatekey",
        "at_secret",
        "\u{1f6e0}",
        "\u{0}",
        "\r",
        "selfNotifications",
        "(",
        "limit",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..9).prop_map(|w| w.concat())
}

proptest::proptest! {
    /// Whatever is sent: one whole reply with its prompt, or something for the listener to do; never a panic.
    #[test]
    fn every_line_gets_one_whole_reply(lines in proptest::collection::vec(commandish(), 1..6)) {
        let mut world = World::new(&["@alice"]);
        for mut line in [world.connect("@alice"), world.login("@alice")] {
            for text in &lines {
                let outcome = world.run(&mut line, text);
                let reply = String::from_utf8(outcome.reply).unwrap();
                let waits = !matches!(outcome.next, FollowUp::Nothing);
                let (body, prompt) = reply.rsplit_once('\n').unwrap_or(("", &reply));
                proptest::prop_assert!(waits == reply.is_empty() || outcome.close, "{text}");
                proptest::prop_assert!(!body.contains('\n'), "{text} → {reply}");
                proptest::prop_assert!(
                    ["", "@", "@alice@"].contains(&prompt), "{text} → {reply}"
                );
            }
        }
    }
}
