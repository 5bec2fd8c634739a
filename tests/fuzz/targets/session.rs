//! The atServer's session as a whole: several connections to two atSigns, a clock that jumps, any commands.
//!
//! ```text
//!   input, one step a line:   a…c  the rest of the line goes to a connection of @alice's server
//!                             d…f  … of @bob's
//!                             p    @bob's server vouches for connection a (what `pol` asks for)
//!                             m    both couriers run
//!                             +N   N seconds pass; -N: the clock is set back
//!   in lines: $C digest of the challenge, $S its signature, $I the newest enrolment, $O the newest passcode,
//!             $P a public key
//! ```
//!
//! What must hold whatever comes is in [`World::check`] and [`World::settle`].
#![no_main]

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, OnceLock},
};

use libfuzzer_sys::fuzz_target;
use miniserde::json::{self, Value};
use noports::{at::{AtSign, Replies, Reply, crypto::{KeyPair, cram_digest}, reply::Mode}, server::{delivery::{Delivery, deliver, purge}, enrolment, session::{Facts, FollowUp, CommandOutcome, Session, LineAction, MonitorView, live_line, page}, store::{Access, Chance, Changes, CommitEvent, Rows, StoreError, Tx, register::{self, Home}, rows}}};

mod vectors;

const NOW: u64 = 1_729_771_234_567;
/// In a record that only the whole owner may see. No input can hold it: the last part is made anew each time.
const CANARY: &str = "canary-";
const SECRET: &str = "activation-";
const MAX_STEPS: usize = 60;

fn keys() -> &'static KeyPair {
    static KEYS: OnceLock<KeyPair> = OnceLock::new();
    KEYS.get_or_init(|| vectors::pair("@client_example"))
}

struct Line {
    session: Session,
    home: Home,
    challenge: String,
    watch: Option<Box<MonitorView>>,
    /// The prompt, once it is of another atSign.
    peer: bool,
    closed: bool,
}

struct World {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    now: u64,
    homes: Vec<Home>,
    lines: Vec<Line>,
    /// Highest commit id ever seen, per home.
    commits: Vec<Option<u64>>,
    canary: String,
    secret: String,
    enrolment: String,
    passcode: String,
}

fuzz_target!(|script: &str| {
    let mut world = World::new();
    for step in script.split('\n').take(MAX_STEPS) {
        let Some(first) = step.chars().next() else {
            continue;
        };
        let rest = &step[first.len_utf8()..];
        match first {
            'a'..='f' => world.say(first as usize - 'a' as usize, rest),
            'p' => world.vouch(),
            'm' => world.settle(),
            '+' | '-' => {
                let millis = rest.parse::<u32>().map_or(0, |n| u64::from(n) * 1000);
                world.now = match first {
                    '+' => world.now.saturating_add(millis),
                    _ => world.now.saturating_sub(millis),
                };
            }
            _ => {}
        }
    }
    world.settle();
});

impl World {
    fn new() -> Self {
        let random = noports::np::ids::SessionId::random();
        let mut world = Self {
            rows: BTreeMap::new(),
            now: NOW,
            homes: Vec::new(),
            lines: Vec::new(),
            commits: vec![None; 2],
            canary: format!("{CANARY}{random}"),
            secret: format!("{SECRET}{random}"),
            enrolment: "none".into(),
            passcode: "none".into(),
        };
        for name in ["@alice", "@bob"] {
            let who: AtSign = name.parse().expect("an atSign");
            let (canary, secret) = (world.canary.clone(), world.secret.clone());
            let home = world.write(|tx| {
                let home = register::add(tx, &who, 6500, NOW)?;
                let public = &keys().public().text;
                for (key, value) in [
                    (format!("public:signing_publickey{who}"), public),
                    ("privatekey:at_pkam_publickey".into(), public),
                    ("privatekey:at_secret".into(), &secret),
                    (format!("canary.hidden{who}"), &canary),
                ] {
                    home.put_plain(tx, &key, value, None, NOW)?;
                }
                Ok(home)
            });
            for _ in 0..3 {
                let facts = Arc::new(Facts {
                    started: NOW,
                    ..Facts::default()
                });
                world.lines.push(Line {
                    session: Session::new(home.clone(), facts),
                    home: home.clone(),
                    challenge: String::new(),
                    watch: None,
                    peer: false,
                    closed: false,
                });
            }
            world.homes.push(home);
        }
        world
    }

    fn write<T>(&mut self, run: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> T {
        let chance = Chance::default();
        let mut tx = Tx::new(&self.rows, Access::Write, &chance);
        let value = run(&mut tx).expect("a store in memory never fails");
        let (changes, events) = tx.finish();
        self.apply(changes, &events);
        value
    }

    fn apply(&mut self, changes: Changes, events: &[CommitEvent]) {
        for event in events {
            self.hear(event);
        }
        for (key, change) in changes {
            match change {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// What monitors are shown is one line of JSON, and for them.
    fn hear(&self, event: &CommitEvent) {
        let CommitEvent::Note(note) = event else { return };
        let line = live_line(note);
        assert!(
            line.ends_with('\n') && line.matches('\n').count() == 1,
            "{line:?}"
        );
        let text = line.strip_prefix("notification: ").expect("a notification");
        assert!(json::from_str::<Value>(text).is_ok(), "{text}");
        for one in self.lines.iter().filter(|line| line.home.who == note.to) {
            if let Some(watch) = &one.watch {
                let _ = watch.wants_live(note);
            }
        }
    }

    fn say(&mut self, number: usize, text: &str) {
        let line = &mut self.lines[number];
        if line.closed || text.len() > line.session.max_line() {
            return;
        }
        let text = text
            .replace("$C", &cram_digest(&self.secret, &line.challenge))
            .replace("$I", &self.enrolment)
            .replace("$O", &self.passcode)
            .replace("$P", &keys().public().text);
        let text = match text.contains("$S") {
            true => text.replace(
                "$S",
                &keys().sign(line.challenge.as_bytes()).expect("it can sign"),
            ),
            false => text,
        };
        let trusted = may_see(line, &self.rows, self.now);
        let chance = Chance::default();
        let mut tx = Tx::new(&self.rows, Access::Write, &chance);
        let (outcome, writes) = match line.session.read(&text, self.now) {
            LineAction::Done(outcome) => (outcome, false),
            LineAction::Run(job) => match job.writes() {
                true => {
                    let decision = line.session.run(&job, &mut tx, self.now);
                    (line.session.accept(decision), true)
                },
                false => {
                    let chance = Chance::default();
                    let mut reading = Tx::new(&self.rows, Access::Read, &chance);
                    let decision = line.session.run(&job, &mut reading, self.now);
                    (line.session.accept(decision), false)
                }
            },
        };
        let (changes, events) = tx.finish();
        self.check(number, &text, trusted, &outcome, writes, &changes, &events);
        self.apply(changes, &events);
        self.learn(number, outcome);
    }

    /// What must hold after every command.
    #[allow(clippy::too_many_arguments)]
    fn check(
        &mut self,
        number: usize,
        text: &str,
        trusted: bool,
        outcome: &CommandOutcome,
        writes: bool,
        changes: &Changes,
        events: &[CommitEvent],
    ) {
        let line = &self.lines[number];
        let reply = std::str::from_utf8(&outcome.reply).expect("replies are text");
        // A reply is whole, and our own client takes it for exactly one.
        if !reply.is_empty() {
            one_reply(reply, text);
        }
        assert!(!is_store_failure(reply), "{text:?}: {reply:?}");
        // Refused: nothing has happened.
        let refused = reply.starts_with("error:");
        assert!(
            !refused || (changes.is_empty() && events.is_empty()),
            "{text:?}: {reply:?}"
        );
        assert!(writes || changes.is_empty(), "{text:?}");
        // Secrets stay where they are.
        assert!(!reply.contains(&self.secret), "{text:?}: {reply:?}");
        assert!(
            trusted || may_see(line, &self.rows, self.now) || !reply.contains(&self.canary),
            "{text:?}: {reply:?}"
        );
        // Nobody's rows change but this atSign's.
        for key in changes.keys() {
            let owned = rows::OWNED.contains(&key[0]);
            assert!(
                owned && key[1..5] == line.home.number.to_be_bytes(),
                "{text:?}: {key:?}"
            );
        }
        // A stranger writes nothing but requests for an enrolment, another atSign nothing but notifications.
        if !line.session.is_known() || line.peer {
            let said = text.trim().to_lowercase().replace(' ', "");
            let asks =
                said.starts_with("enroll:request") || (line.peer && said.starts_with("notify"));
            assert!(changes.is_empty() || asks, "{text:?}: {changes:?}");
        }
        self.check_commits(number / 3, changes);
        self.check_grant(number, text, changes);
    }

    /// A commit id is never used twice, and never goes back.
    fn check_commits(&mut self, home: usize, changes: &Changes) {
        for (key, change) in changes {
            if key[0] == rows::COMMIT && change.is_some() && !self.rows.contains_key(key) {
                let id = rows::number(&key[rows::HEAD..]);
                assert!(
                    id > self.commits[home],
                    "commit {id:?} after {:?}",
                    self.commits[home]
                );
            }
        }
        let ids = changes
            .iter()
            .filter(|(key, change)| key[0] == rows::COMMIT && change.is_some());
        let newest = ids
            .filter_map(|(key, _)| rows::number(&key[rows::HEAD..]))
            .max();
        self.commits[home] = self.commits[home].max(newest);
    }

    /// An enrolment without rights over others writes in its namespaces only.
    fn check_grant(&self, number: usize, text: &str, changes: &Changes) {
        let line = &self.lines[number];
        let Some(id) = line.session.enrollment() else {
            return;
        };
        let Ok(Some(found)) = enrolment::find(&self.rows, &line.home, id, self.now) else {
            return;
        };
        let names = &found.namespaces;
        if names.contains_key("*") || names.contains_key("__manage") {
            return;
        }
        let asks = text.to_lowercase().contains("enroll");
        for key in changes.keys().filter(|key| key[0] == rows::RECORD) {
            let key = String::from_utf8_lossy(&key[rows::HEAD..]).into_owned();
            let entity = key.rsplit_once('@').map_or(&*key, |(entity, _)| entity);
            let inside = names.keys().any(|n| {
                entity.ends_with(&format!(".{n}"))
                    || entity.ends_with(&format!(":{n}"))
                    || entity == n
            });
            let shared = entity.contains("shared_key");
            let known = [
                "publickey",
                "signing_publickey",
                "signing_privatekey",
                "configkey",
                "_",
            ];
            let reserved = known.iter().any(|known| entity.contains(known));
            assert!(
                inside || shared || reserved || asks,
                "{text:?} writes {key}, has {names:?}"
            );
            assert!(!key.starts_with("privatekey:"), "{text:?} writes {key}");
        }
    }

    /// What the next commands can use.
    fn learn(&mut self, number: usize, outcome: CommandOutcome) {
        let line = &mut self.lines[number];
        let reply = String::from_utf8(outcome.reply).unwrap_or_default();
        let body = reply.split('\n').next().unwrap_or_default();
        if let Some(data) = body.strip_prefix("data:") {
            let challenge = data.strip_prefix("proof:").unwrap_or(data);
            if challenge.starts_with('_') {
                line.challenge = challenge.to_owned();
            }
            if let Some((id, _)) = noports::at::enrolment::parse_answer(data) {
                self.enrolment = id;
            }
            if data.len() == 6 {
                self.passcode = data.to_owned();
            }
        }
        let own = format!("{}@", line.home.who);
        if reply.ends_with('@') {
            let prompt = reply.rsplit('\n').next().unwrap_or_default();
            line.peer = prompt.len() > 1 && prompt != own;
        }
        if let FollowUp::Watch(watch) = outcome.next {
            line.watch = Some(watch);
        }
        line.closed = outcome.close;
    }

    /// What connection a has to show to be believed to be @bob.
    fn vouch(&mut self) {
        let line = &self.lines[0];
        let nonce = line.challenge.rsplit(':').next().unwrap_or_default();
        let signature = keys().sign(nonce.as_bytes()).expect("it can sign");
        let key = format!("public:{}@bob", line.session.id());
        let (bob, now) = (self.homes[1].clone(), self.now);
        self.write(|tx| bob.put_plain(tx, &key, &signature, None, now));
    }

    /// Couriers and purge run; then the inboxes must make sense.
    fn settle(&mut self) {
        let now = self.now;
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = (self.homes[from].clone(), self.homes[to].who.clone());
            for _ in 0..MAX_STEPS {
                match self.write(|tx| deliver(tx, &from, &to, now)) {
                    Delivery::Some => {}
                    _ => break,
                }
            }
        }
        for home in self.homes.clone() {
            let mut seen = HashSet::new();
            let (notes, more) = home
                .inbox(&self.rows, 0, u64::MAX - 1, u64::MAX)
                .expect("own rows");
            assert!(more.is_none());
            for pair in notes.windows(2) {
                assert!(
                    pair[0].epoch_millis < pair[1].epoch_millis,
                    "times only grow"
                );
            }
            for note in &notes {
                assert!(note.to == home.who, "{note:?}");
                assert!(
                    seen.insert((note.id.clone(), note.from.clone(), note.epoch_millis)),
                    "{note:?}"
                );
            }
            let last = home.last_epoch(&self.rows).expect("own rows");
            assert!(notes.last().is_none_or(|note| note.epoch_millis <= last));
        }
        for line in &self.lines {
            let Some(watch) = &line.watch else { continue };
            let mut from = watch.replay;
            while let Some(after) = from {
                let (lines, next) =
                    page(&self.rows, &line.home, watch, after, now).expect("own rows");
                assert!(
                    lines
                        .iter()
                        .all(|line| line.matches('\n').count() == 1 && line.ends_with('\n'))
                );
                assert!(next.is_none_or(|next| next > after), "a replay goes on");
                from = next;
            }
        }
        for _ in 0..MAX_STEPS {
            let homes = self.homes.clone();
            let more = self.write(|tx| {
                let mut more = false;
                for home in &homes {
                    more |= purge(tx, home, now)?;
                }
                Ok(more)
            });
            if !more {
                break;
            }
        }
    }
}

/// Logged in without an enrolment, or with one that may see the canary.
fn may_see(line: &Line, rows: &dyn Rows, now: u64) -> bool {
    let Some(id) = line.session.enrollment() else {
        return line.session.is_known() && !line.peer;
    };
    let found = enrolment::find(rows, &line.home, id, now);
    found.is_ok_and(|found| {
        found.is_none_or(|found| {
            found
                .namespaces
                .keys()
                .any(|name| name == "*" || name.ends_with("hidden"))
        })
    })
}

/// A store in memory never fails: a row was written that cannot be read.
fn is_store_failure(reply: &str) -> bool {
    reply.starts_with("error:AT0002") || reply.starts_with(r#"error:{"errorCode":"AT0002""#)
}

/// Exactly one reply, then a prompt; or, on a monitor, a line.
fn one_reply(reply: &str, text: &str) {
    let (mut replies, mut all) = (Replies::new(Mode::Request), Vec::new());
    replies.expect_prompt();
    replies.push(reply.as_bytes());
    loop {
        match replies.pop() {
            Ok(Some(reply)) => all.push(reply),
            Ok(None) => break,
            Err(why) => panic!("{text:?}: {reply:?}: {why}"),
        }
    }
    if all.is_empty() {
        all.extend(replies.finish().expect("a reply"));
    }
    assert_eq!(all.len(), 1, "{text:?}: {reply:?}");
    assert!(
        matches!(all[0], Reply::Data(_) | Reply::Error(_) | Reply::Prompt(_)),
        "{all:?}"
    );
    assert!(reply.matches('\n').count() <= 1, "{text:?}: {reply:?}");
}
