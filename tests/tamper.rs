//! A rendezvous that changes what passes, between the bridges of both ends as they ship.
//!
//! ```text
//!   visitor ═ client's bridge ══ records ══ tampers ══ records ══ device's bridge ═ service
//! ```
//! Each trial is a session of its own: both programs say something and end, and one thing is done to what passes. Whatever
//! that is: no program may be given a byte that the other one has not said, or an end before it has said all; and the end
//! of the session that hears it must name it. `cargo bench --bench tamper` does it a hundred thousand times.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_std::{
    future::timeout,
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::{
    AsyncReadExt, AsyncWriteExt, FutureExt,
    future::{self, zip},
};
use noports::{
    np::far_end::FarEnd,
    pipe::{
        cipher::Side,
        join::{Carried, reset},
        keys::TransportKeys,
        record::{MAX_CONTENT, OVERHEAD, RecordKeys, Suite},
    },
    secret::Secret,
    session::bridge::{BridgeError, Greeting, Live, LocalEnd, Many, Plan, Visitors, run_watched},
    text::endpoint::Endpoint,
};
use random::Random;

#[path = "faults/random.rs"]
#[allow(dead_code)]
mod random;

/// What is done to the bytes of one direction, or to both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// The session as it is without any.
    Nothing,
    FlipBit,
    Cut,
    InsertSome,
    InsertThousand,
    LeaveOutBytes,
    LeaveOutRecord,
    RepeatRecord,
    SwapRecords,
    /// The last record, which ends the direction, does not come.
    LeaveOutEnd,
    /// Each end hears itself.
    SwapSides,
    /// The two ends are of different sessions.
    JoinSessions,
}

const ATTACKS: [Attack; 11] = [
    Attack::FlipBit,
    Attack::Cut,
    Attack::InsertSome,
    Attack::InsertThousand,
    Attack::LeaveOutBytes,
    Attack::LeaveOutRecord,
    Attack::RepeatRecord,
    Attack::SwapRecords,
    Attack::LeaveOutEnd,
    Attack::SwapSides,
    Attack::JoinSessions,
];

/// How an end names what it has heard.
const NAMES: [&str; 6] = [
    "what came from the other end is no record of this session",
    "the other end does not have this session's keys",
    "what the other end sent was changed on the way",
    "the other end sent a record that is not due",
    "the stream was cut on the way",
    "the other end sent a frame that means nothing here",
];
/// What is cut by a reset, TCP names.
const RESET: &str = "Connection reset by peer";
/// Two programs that hear nothing for so long wait for what was swallowed: by a record that seems longer than it is.
const STALLED: Duration = Duration::from_millis(500);
/// Far more than a trial takes.
const HUNG: Duration = Duration::from_secs(40);

/// What became of many trials of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub trials: u64,
    /// The end that heard it failed, and named it.
    pub detected: u64,
    /// The other end failed, too. Else it had said and heard all before.
    pub told: u64,
    /// A program was given a byte that was not said.
    pub delivered: u64,
    /// A program was told that this was all, and it was not.
    pub ended: u64,
    /// An end that went on.
    pub hung: u64,
}

/// Of every kind.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<Attack, Count>);

impl Tally {
    pub fn sum(&self) -> Count {
        let mut sum = Count::default();
        self.0.values().for_each(|count| sum.add(count));
        sum
    }
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.trials += other.trials;
        self.detected += other.detected;
        self.told += other.told;
        self.delivered += other.delivered;
        self.ended += other.ended;
        self.hung += other.hung;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "attack",
            "trials",
            "detected",
            "told",
            "delivered",
            "ended",
            "hung",
        ];
        let [attack, rest @ ..] = head;
        write!(f, "{attack:<16}")?;
        rest.iter().try_for_each(|word| write!(f, "{word:>11}"))?;
        let kinds = self
            .0
            .iter()
            .map(|(kind, count)| (format!("{kind:?}"), *count));
        for (kind, count) in kinds.chain([("all".to_owned(), self.sum())]) {
            write!(f, "\n{kind:<16}")?;
            let Count {
                trials,
                detected,
                told,
                delivered,
                ended,
                hung,
            } = count;
            for figure in [trials, detected, told, delivered, ended, hung] {
                write!(f, "{figure:>11}")?;
            }
        }
        Ok(())
    }
}

/// So many trials, some at a time. One that went wrong is printed with its number.
pub async fn run(trials: u64, at_once: usize, seed: u64) -> Tally {
    let (next, tally) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(Mutex::new(Tally::default())),
    );
    let workers: Vec<_> = (0..at_once)
        .map(|_| {
            let (next, tally) = (next.clone(), tally.clone());
            task::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= trials {
                        return;
                    }
                    let trial = Trial::of(number, Random::new(seed.wrapping_add(number << 20)));
                    let kind = trial.attack;
                    let count = trial.run().await;
                    tally.lock().unwrap().0.entry(kind).or_default().add(&count);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await;
    }
    let tally = tally.lock().unwrap();
    tally.clone()
}

/// So many sessions as they are without any attack, so that there is something to be detected.
pub async fn honest(trials: u64) {
    for number in 0..trials {
        let attack = Attack::Nothing;
        let trial = Trial {
            attack,
            ..Trial::of(number, Random::new(number))
        };
        let (heard, _) = trial.carried().await;
        for (said, heard) in trial.said.iter().zip(&heard) {
            assert!(*said == *heard.got.lock().unwrap(), "many={}", trial.many);
            assert!(heard.ended.load(Relaxed));
        }
    }
}

/// How a bridge ended.
type EndOf = Result<Carried, BridgeError>;

/// One session, and what is done to it.
struct Trial {
    number: u64,
    attack: Attack,
    /// Where it is done: to what this side sends.
    from: Side,
    /// As streams on one connection, or as the only one.
    many: bool,
    /// What the client's program and the device's say.
    said: [Vec<u8>; 2],
    random: Random,
}

impl Trial {
    fn of(number: u64, mut random: Random) -> Self {
        let many = random.below(2) == 0;
        let said = [(); 2].map(|()| {
            let most = if random.below(8) == 0 { 60_000 } else { 3000 };
            let length = 1 + random.below(most);
            (0..length).map(|_| random.next() as u8).collect()
        });
        let mut attack = ATTACKS[number as usize % ATTACKS.len()];
        if many && attack == Attack::LeaveOutEnd {
            attack = Attack::FlipBit; // no program waits for the end of the session
        }
        let from = if random.below(2) == 0 {
            Side::Client
        } else {
            Side::Device
        };
        Self {
            number,
            attack,
            from,
            many,
            said,
            random,
        }
    }

    fn plan(&self, local: LocalEnd, rendezvous: Endpoint, side: Side) -> Plan {
        let other = u8::from(self.attack == Attack::JoinSessions && side == Side::Device);
        let keys = RecordKeys {
            suite: Suite::fastest(),
            to_device: Secret::new([1 + other; 32]),
            to_client: Secret::new([7 + other; 32]),
        };
        Plan {
            local,
            far: FarEnd {
                rendezvous,
                admission: None,
                socket_key: None,
                keys: Some(TransportKeys::Records(keys)),
                side,
            },
            timeout: HUNG,
            many: self.many.then(Many::default),
            greeting: Greeting::Any,
            nearness: None,
            source: None,
        }
    }

    async fn run(self) -> Count {
        let (heard, outcome) = self.carried().await;
        self.judge(outcome, heard)
    }

    /// What became of what the client's program said, and of what the device's did; and of both ends, if they ended.
    async fn carried(&self) -> ([Arc<Heard>; 2], Option<[EndOf; 2]>) {
        let (door, door_at) = listen().await;
        let (service, service_at) = listen().await;
        let ((clients, client_at), (devices, device_at)) = (listen().await, listen().await);
        let visitors = LocalEnd::Listen(Visitors::of(door).unwrap());
        let client = self.plan(visitors, client_at, Side::Client);
        let device = self.plan(LocalEnd::Dial(service_at), device_at, Side::Device);
        let lives = [Arc::new(Live::default()), Arc::new(Live::default())];
        let ends = [(client, &lives[0]), (device, &lives[1])]
            .map(|(plan, live)| task::spawn(run_watched(plan, live.clone(), || ())));

        let tamper = Tamper::of(self);
        let done = tamper.is_done.clone();
        let middle = task::spawn(middle(clients, devices, self.attack, self.from, tamper));
        let [visitor, server] = [Arc::new(Heard::default()), Arc::new(Heard::default())];
        let (heard, said) = (visitor.clone(), self.said[0].clone());
        let visits = task::spawn(async move {
            if let Ok(tcp) = TcpStream::connect(door_at.to_string()).await {
                heard.exchange(tcp, &said).await;
            }
        });
        let (heard, said) = (server.clone(), self.said[1].clone());
        let serves = task::spawn(async move {
            if let Ok((tcp, _)) = service.accept().await {
                heard.exchange(tcp, &said).await;
            }
        });

        let [client, device] = ends;
        let stalled = async {
            self.stalls(&done, [&server, &visitor]).await;
            lives[self.from as usize].leave(true);
            future::pending().await
        };
        let both = async { Some(zip(client, device).await) };
        let hung = async {
            task::sleep(HUNG).await;
            None
        };
        let outcome = both.or(stalled).or(hung).await;
        middle.cancel().await;
        for (program, heard) in [(visits, &visitor), (serves, &server)] {
            if heard.began.load(Relaxed) {
                let _ = timeout(HUNG, program).await;
            } else {
                program.cancel().await;
            }
        }
        let outcome = outcome.map(|(client, device)| [client, device]);
        ([server, visitor], outcome)
    }

    /// Waits until it has been done and nothing moves any more; a session of many connections does not end by itself.
    async fn stalls(&self, done: &AtomicBool, heard: [&Heard; 2]) {
        let (mut before, mut since) = ([0; 2], Instant::now());
        while since.elapsed() < STALLED {
            task::sleep(STALLED / 20).await;
            let now = heard.map(|heard| heard.got.lock().unwrap().len());
            let have_ended = heard.iter().all(|heard| heard.ended.load(Relaxed));
            let is_done = done.load(Relaxed) && self.attack != Attack::Nothing;
            if now != before || !self.many || !(have_ended || is_done) {
                (before, since) = (now, Instant::now());
            }
        }
    }

    fn judge(&self, outcome: Option<[EndOf; 2]>, heard: [Arc<Heard>; 2]) -> Count {
        let mut count = Count {
            trials: 1,
            ..Count::default()
        };
        for (said, heard) in self.said.iter().zip(&heard) {
            let got = heard.got.lock().unwrap();
            count.delivered |= u64::from(!said.starts_with(&got));
            let is_whole = got.len() == said.len();
            let ended = heard.ended.load(Relaxed) && !heard.failed.load(Relaxed);
            count.ended |= u64::from(ended && !is_whole);
        }
        match &outcome {
            None => count.hung = 1,
            Some(ends) => {
                let (to, by) = match self.from {
                    Side::Client => (&ends[1], &ends[0]),
                    Side::Device => (&ends[0], &ends[1]),
                };
                // Where both hear it, the first one's end may be what the other one hears.
                let is_of_both = matches!(self.attack, Attack::SwapSides | Attack::JoinSessions);
                let by_other = is_of_both && is_named(by, self.attack);
                count.detected = u64::from(is_named(to, self.attack) || by_other);
                count.told = u64::from(by.is_err());
            }
        }
        if count.detected == 0 || count.delivered + count.ended + count.hung > 0 {
            let Self {
                number,
                attack,
                from,
                many,
                said,
                ..
            } = self;
            let said = said.each_ref().map(Vec::len);
            let got = heard.map(|heard| heard.got.lock().unwrap().len());
            eprintln!(
                "{number}: {attack:?} of {from:?}, many={many} said={said:?} got={got:?}: {count:?} {outcome:?}"
            );
        }
        count
    }
}

fn is_named(end: &EndOf, attack: Attack) -> bool {
    let Err(error) = end else { return false };
    let text = error.to_string();
    let by_tcp = attack == Attack::Cut && text.contains(RESET);
    by_tcp || NAMES.iter().any(|name| text.contains(name))
}

async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, at)
}

/// What a program has heard.
#[derive(Default)]
struct Heard {
    began: AtomicBool,
    got: Mutex<Vec<u8>>,
    /// It was told that this is all.
    ended: AtomicBool,
    /// It was told that the connection is reset, and only once: when it wrote.
    failed: AtomicBool,
}

impl Heard {
    async fn exchange(&self, tcp: TcpStream, said: &[u8]) {
        self.began.store(true, Relaxed);
        let (mut tx, mut rx) = (tcp.clone(), tcp);
        let says = async {
            let halves = said.split_at(said.len() / 2);
            for half in [halves.0, halves.1] {
                if tx.write_all(half).await.is_err() {
                    return self.failed.store(true, Relaxed);
                }
                task::yield_now().await;
            }
            let _ = tx.shutdown(Shutdown::Write);
        };
        let hears = async {
            let mut bytes = vec![0; 16 * 1024];
            loop {
                match rx.read(&mut bytes).await {
                    Ok(0) => return self.ended.store(true, Relaxed),
                    Ok(got) => self.got.lock().unwrap().extend_from_slice(&bytes[..got]),
                    Err(_) => return,
                }
            }
        };
        zip(says, hears).await;
    }
}

/// Joins what comes to two ports, and does to it what is to be done.
async fn middle(
    clients: TcpListener,
    devices: TcpListener,
    attack: Attack,
    from: Side,
    tamper: Tamper,
) {
    let (client, device) = zip(clients.accept(), devices.accept()).await;
    let (client, device) = (client.unwrap().0, device.unwrap().0);
    if attack == Attack::SwapSides {
        let (client, device) = ([&client, &client], [&device, &device]);
        let none = || Tamper {
            is_done: Arc::new(true.into()),
            ..tamper.clone()
        };
        zip(pump(client, none()), pump(device, none())).await;
        return;
    }
    let honest = Tamper {
        is_done: Arc::new(true.into()),
        ..tamper.clone()
    };
    let (up, down) = match from {
        Side::Client => (tamper, honest),
        Side::Device => (honest, tamper),
    };
    zip(pump([&client, &device], up), pump([&device, &client], down)).await;
}

async fn pump([mut from, mut to]: [&TcpStream; 2], mut tamper: Tamper) {
    let mut bytes = vec![0; 64 * 1024];
    let outcome = async {
        loop {
            let got = from.read(&mut bytes).await?;
            if got == 0 {
                to.write_all(&tamper.rest()).await?;
                return to.shutdown(Shutdown::Write);
            }
            let passes = tamper.pass(&bytes[..got]);
            to.write_all(&passes).await?;
            if tamper.is_cut {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    };
    if outcome.await.is_err() {
        for end in [from, to] {
            if tamper.resets {
                reset(end);
            } else {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

/// Does one thing to the bytes of one direction.
#[derive(Clone)]
struct Tamper {
    attack: Attack,
    /// The byte, or the record, that it is done to.
    at: usize,
    seen: usize,
    /// A record that is not all there, and those that are held back.
    held: Vec<u8>,
    is_done: Arc<AtomicBool>,
    is_cut: bool,
    /// Cut so that TCP tells it at once.
    resets: bool,
    random: Random,
}

impl Tamper {
    fn of(trial: &Trial) -> Self {
        use Attack::*;
        let (mut random, said) = (trial.random.clone(), trial.said[trial.from as usize].len());
        let at = match trial.attack {
            // As far as it certainly comes: the first record, and the bytes.
            FlipBit | Cut | InsertSome | InsertThousand | LeaveOutBytes => {
                random.below(said + OVERHEAD)
            }
            // Those that no other one has to be heard for.
            SwapRecords if trial.many => random.below(2 - trial.from as usize),
            // The first record, and one at least for so many bytes.
            _ => random.below(1 + said.div_ceil(MAX_CONTENT)),
        };
        Self {
            attack: trial.attack,
            at,
            seen: 0,
            held: Vec::new(),
            is_done: Arc::new(matches!(trial.attack, Nothing | JoinSessions).into()),
            is_cut: false,
            resets: random.below(4) == 0,
            random,
        }
    }

    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        use Attack::*;
        if self.is_done.load(Relaxed) {
            return bytes.to_vec();
        }
        match self.attack {
            LeaveOutRecord | RepeatRecord | SwapRecords | LeaveOutEnd => self.pass_records(bytes),
            _ => self.pass_bytes(bytes),
        }
    }

    fn pass_bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (at, mut passes) = (self.at - self.seen, bytes.to_vec());
        self.seen += bytes.len();
        if at >= bytes.len() {
            return passes;
        }
        self.is_done.store(true, Relaxed);
        let count = 1 + self.random.below(40);
        match self.attack {
            Attack::FlipBit => passes[at] ^= 1 << self.random.below(8),
            Attack::LeaveOutBytes => drop(passes.drain(at..bytes.len().min(at + count))),
            Attack::Cut => {
                passes.truncate(at);
                self.is_cut = true;
            }
            attack => {
                let count = if attack == Attack::InsertSome {
                    count
                } else {
                    1000
                };
                let more = (0..count).map(|_| self.random.next() as u8);
                passes.splice(at..at, more.collect::<Vec<_>>());
            }
        }
        passes
    }

    fn pass_records(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let mut passes = Vec::new();
        while let Some(length) = record_at(&self.held) {
            let next = record_at(&self.held[length..]);
            let is_due = self.seen == self.at && self.attack != Attack::LeaveOutEnd;
            match (self.attack, next) {
                (Attack::SwapRecords, None) if is_due => break,
                // Until another one comes, it may be the last.
                (Attack::LeaveOutEnd, None) => break,
                _ => {}
            }
            let record: Vec<u8> = self.held.drain(..length).collect();
            self.seen += 1;
            match self.attack {
                Attack::LeaveOutRecord if is_due => {}
                Attack::RepeatRecord if is_due => passes.extend([&record[..], &record].concat()),
                Attack::SwapRecords if is_due => {
                    passes.extend(self.held.drain(..next.unwrap_or_default()));
                    passes.extend(record);
                }
                _ => passes.extend(record),
            }
            if is_due {
                self.is_done.store(true, Relaxed);
                passes.append(&mut self.held);
                break;
            }
        }
        passes
    }

    /// What is held when the direction ends.
    fn rest(&mut self) -> Vec<u8> {
        if self.attack == Attack::LeaveOutEnd {
            return Vec::new();
        }
        std::mem::take(&mut self.held)
    }
}

/// How long the record is that stands here, if all of it does.
fn record_at(bytes: &[u8]) -> Option<usize> {
    let length = 2 + usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
    (bytes.len() >= length).then_some(length)
}

#[test]
fn a_rendezvous_that_changes_nothing_carries_all() {
    task::block_on(honest(20));
}

#[test]
fn whatever_the_rendezvous_does_to_a_session_is_detected_and_none_of_it_delivered() {
    let tally = task::block_on(run(330, 8, 1));
    let sum = tally.sum();
    assert_eq!(
        (sum.detected, sum.delivered, sum.ended, sum.hung),
        (330, 0, 0, 0),
        "\n{tally}"
    );
}
