//! One attack: a good user before, during and after it, and what the victim holds meanwhile.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{
        inside::INSIDE,
        net::own_program,
        rows::Miss,
        session::Session,
        setup::Setup,
        site::{
            self, ATSERVER, POLICY_HOST, RENDEZVOUS_HOST, STRANGER, Site, client, device, manager,
        },
        tunnel::Tunnel,
    },
    Attack, Besides, Victim,
    outcome::{Held, Log, Outcome, Tried},
};
use crate::world::{Process, children_of, descriptors, signal, support::at_a_pace};

/// Between two sessions of the good user.
const PACE: Duration = Duration::from_secs(2);
/// How often the victim is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Between two points of the disk's curve.
const POINT: Duration = Duration::from_secs(30);
/// Between two looks at sessions.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// For an attacker who needs an outage, and for words on what stands.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of [`Besides::Hole`].
const HOLE: Duration = Duration::from_secs(13);

/// How long each part takes.
#[derive(Clone, Copy)]
pub struct Times {
    pub before: Duration,
    /// None: as long as the attack says.
    pub during: Option<Duration>,
    pub after: Duration,
    /// From the end of the attack until memory is looked at.
    pub settled: Duration,
    /// By how much sessions may be late on a machine that does other things, too.
    pub slack: Duration,
    /// KiB by which memory may differ then without meaning anything: what an allocator keeps, bridges that end.
    pub few: u64,
}

/// One attack at a time, whatever else waits: its seconds are to be its own.
static TURN: Mutex<()> = Mutex::new(());

/// Does it.
///
/// # Errors
/// In a sentence, when this machine cannot do it, or nothing works even before the attack.
pub fn besiege(
    attack: &'static Attack,
    program: &str,
    seed: u64,
    times: Times,
    is_alone: bool,
) -> Result<Outcome, String> {
    let mut setup = Setup::of(1, 2);
    setup.program = program.to_owned();
    setup.disk = 1_500;
    (attack.setup)(&mut setup);
    let (away, devices, clients) = (setup.away, setup.devices, setup.clients);
    let site = Site::made(setup, seed)?;
    site.net.make_crowd(STRANGER);
    for host in (0..devices).map(device).chain((0..clients).map(client)) {
        site.net
            .between(&host, RENDEZVOUS_HOST, |way| way.delay = away);
    }
    site.session().wait()?;
    let turn = is_alone.then(|| TURN.lock());
    let during = times.during.unwrap_or(Duration::from_secs(attack.seconds));
    let mut siege = Siege::begin(&site, attack)?;
    let mut outcome = Outcome::of(attack, seed, times);
    let stop = AtomicBool::new(false);
    let standing = thread::scope(|scope| -> Result<_, String> {
        let mut tunnel = siege.tunnel.take().ok_or("no tunnel")?;
        let does_dial = attack.besides.dials();
        let (site, stop) = (&site, &stop);
        let standing = scope.spawn(move || {
            let stood = stand(&mut tunnel, stop);
            (stood, tunnel)
        });
        let through = does_dial.then(|| {
            scope.spawn(|| {
                siege
                    .second
                    .as_ref()
                    .map(|second| through(site, second, stop))
            })
        });
        outcome.before = siege.sessions(times.before, || {});
        outcome.held_before = siege.held();
        outcome.disk_before = site.used();
        let log = site.world.log(&attack.victim.host()).len();
        let began = Instant::now();
        siege.attack(&mut outcome, during, seed)?;
        outcome.took = began.elapsed();
        outcome.disk_worst = site.used();
        outcome.log = Log::read(&site.world.log(&attack.victim.host())[log..]);
        let ended = Instant::now();
        outcome.after = siege.sessions(times.after, || {});
        stop.store(true, Relaxed);
        let (stood, tunnel) = standing.join().map_err(|_| "it panicked, see above")?;
        drop(tunnel);
        outcome.through = through
            .and_then(|it| it.join().ok().flatten())
            .unwrap_or_default();
        drop(turn);
        let before = outcome.held_before;
        let is_back = || siege.held().is_back(&before, times.few);
        // Who measures wants to know what it is then; who only checks has waited long enough once it is well.
        while ended.elapsed() < times.settled && (is_alone || !is_back()) {
            at_a_pace(LOOK);
        }
        outcome.held_after = siege.held();
        outcome.killed = site.memory_killed();
        outcome.is_alive = siege.is_alive();
        outcome.keys_left = keys_left(site);
        Ok(stood)
    })?;
    outcome.standing = standing;
    Ok(outcome)
}

/// What is under way.
struct Siege<'a> {
    site: &'a Site,
    attack: &'static Attack,
    tunnel: Option<Tunnel>,
    /// For new connections, where somebody looks on.
    second: Option<Tunnel>,
    told: Vec<String>,
    worst: Mutex<Held>,
    /// Bytes on the atServer's disk, [`POINT`] by [`POINT`] since the attack began.
    disk: Mutex<Vec<u64>>,
    /// The daemon or policy that was started again.
    restarted: Mutex<Option<Process>>,
}

impl<'a> Siege<'a> {
    fn begin(site: &'a Site, attack: &'static Attack) -> Result<Self, String> {
        let looks_on = attack.besides.dials();
        let said = |miss| match miss {
            Miss::Late(why) | Miss::Wrong(why) => why,
        };
        let tunnel = Tunnel::open(site).map_err(said)?;
        let (mut second, mut told) = (None, Vec::new());
        if looks_on {
            let ports = listening(site);
            site.net.listen_in();
            let opened = Tunnel::open(site).map_err(said)?;
            opened.next(site, PATIENCE).map_err(said)?;
            let heard = site.net.overheard();
            told = listening(site);
            told.retain(|port| !ports.contains(port));
            told.extend(heard.into_iter().filter(|line| line.contains("signature")));
            second = Some(opened);
        }
        Ok(Self {
            site,
            attack,
            tunnel: Some(tunnel),
            second,
            told,
            worst: Mutex::default(),
            disk: Mutex::default(),
            restarted: Mutex::default(),
        })
    }

    /// The victim's process.
    fn victim(&self) -> Option<u32> {
        let site = self.site;
        let process = match self.attack.victim {
            Victim::Atserver => &site.atserver,
            Victim::Rendezvous => &site.rendezvous,
            Victim::Daemon => &site.daemons[0],
            Victim::Policy => &site.policy,
        };
        let restarted = self.restarted.lock().unwrap();
        let is_its = match self.attack.besides {
            Besides::Restart => self.attack.victim == Victim::Daemon,
            _ => self.attack.victim == Victim::Policy,
        };
        let again = restarted.as_ref().filter(|_| is_its);
        again.or(process.as_ref()).map(Process::id)
    }

    /// Whether its process is still the one that it was, or was made to be.
    fn is_alive(&self) -> bool {
        self.victim().is_some_and(|id| {
            let status = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // In brackets: a name, which may hold anything.
            let state = status.rsplit(") ").next().unwrap_or_default();
            !state.is_empty() && !state.starts_with('Z')
        })
    }

    fn held(&self) -> Held {
        self.victim().map(held_by).unwrap_or_default()
    }

    /// Sessions at the good user's pace for so long, and how each ended; `at_the_end`: when no more is begun.
    fn sessions(&self, length: Duration, at_the_end: impl FnOnce()) -> Vec<Tried> {
        let began = Instant::now();
        let (mut open, mut tried): (Vec<Session>, Vec<Tried>) = Default::default();
        let (mut next, mut look, mut point) = (began, began, began + POINT);
        let mut at_the_end = Some(at_the_end);
        loop {
            let now = Instant::now();
            let is_over = began.elapsed() >= length;
            if is_over && let Some(end) = at_the_end.take() {
                end();
            }
            if is_over && open.is_empty() {
                return tried;
            }
            if now >= next && !is_over {
                open.push(self.session());
                next += PACE;
            }
            if now >= look {
                let mut worst = self.worst.lock().unwrap();
                *worst = worst.most(&self.held());
                look += LOOK;
            }
            if now >= point {
                self.disk.lock().unwrap().push(self.site.used());
                point += POINT;
            }
            open.retain_mut(|session| {
                let ended = session.ended();
                let took = session.began.elapsed();
                let is_lost = ended.is_none() && took > PATIENCE;
                let ended = ended.or(is_lost.then(|| Err("it still waits".to_owned())));
                let Some(ended) = ended else { return true };
                let began = session.began;
                tried.push(Tried { began, took, ended });
                false
            });
            at_a_pace(LOOK_AGAIN);
        }
    }

    /// Of the good user; of the one whose way is open where the other's is cut.
    fn session(&self) -> Session {
        match self.attack.besides {
            Besides::Hole => self.site.open(&client(1), &manager(1), 0, site::PATIENCE),
            _ => self.site.session(),
        }
    }

    /// The attack itself, with what else happens.
    fn attack(&self, outcome: &mut Outcome, length: Duration, seed: u64) -> Result<(), String> {
        let (site, besides) = (self.site, self.attack.besides);
        // What stood is over, so that everything that came meanwhile is told again.
        let outage = |resets| {
            for host in [device(0), RENDEZVOUS_HOST.to_owned()] {
                site.net.between(&host, ATSERVER, |way| way.resets = resets);
            }
        };
        match besides {
            Besides::Outage => outage(true),
            Besides::NarrowLine => site.net.around(&device(0), |way| way.rate = 125_000),
            _ => {}
        }
        let mut attacker = self.attack.run.map(|_| self.attacker(seed));
        if besides == Besides::Outage {
            let process = attacker.as_mut().ok_or("an outage needs an attacker")?;
            let began = Instant::now();
            while process.0.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE {
                at_a_pace(LOOK_AGAIN);
            }
            outage(false);
        }
        let trouble = thread::scope(|scope| {
            let trouble = scope.spawn(|| self.trouble());
            let end = || drop(attacker.take());
            outcome.during = self.sessions(length, end);
            trouble.join().unwrap_or_default()
        });
        outcome.restart = trouble;
        outcome.told = self.last_word();
        outcome.held_worst = *self.worst.lock().unwrap();
        outcome.disk_curve = std::mem::take(&mut *self.disk.lock().unwrap());
        site.net.heal();
        Ok(())
    }

    /// Something that happens during the attack; how long a daemon took to be ready again.
    fn trouble(&self) -> Option<Duration> {
        let site = self.site;
        match self.attack.besides {
            Besides::Hole => {
                site.net
                    .between(&client(0), RENDEZVOUS_HOST, |way| way.is_cut = true);
                at_a_pace(HOLE);
                site.net.heal();
                None
            }
            Besides::Restart => {
                at_a_pace(Duration::from_secs(5));
                signal(site.daemons[0].as_ref()?.id(), "KILL");
                let began = Instant::now();
                *self.restarted.lock().unwrap() = Some(site.daemon(0));
                Some(began.elapsed())
            }
            Besides::PolicyRestart => {
                at_a_pace(Duration::from_secs(30));
                site.net.around(POLICY_HOST, |way| way.rate = 250_000);
                signal(site.policy.as_ref()?.id(), "KILL");
                let began = Instant::now();
                *self.restarted.lock().unwrap() = Some(site.start_policy(&[]));
                Some(began.elapsed())
            }
            _ => None,
        }
    }

    fn attacker(&self, seed: u64) -> Process {
        let (host, own) = (
            self.attack.place.host(),
            own_program().display().to_string(),
        );
        let seed = seed.to_string();
        let mut words = vec![INSIDE, "attack", self.attack.name, &seed];
        words.extend(self.told.iter().map(String::as_str));
        let mut command = self.site.command(&host, &own, &words);
        command.stdout(Stdio::from(self.site.log_file("attacker")));
        command.stderr(self.site.log_file("attacker-errors"));
        Process(command.spawn().unwrap())
    }

    fn last_word(&self) -> String {
        let log = self.site.world.log("attacker");
        log.lines().last().unwrap_or_default().to_owned()
    }
}

/// Ports on which the rendezvous listens.
fn listening(site: &Site) -> Vec<String> {
    let id = site
        .rendezvous
        .as_ref()
        .map(Process::id)
        .unwrap_or_default();
    let files = ["tcp", "tcp6"].map(|name| format!("/proc/{id}/net/{name}"));
    let ports = |file: &String| -> Vec<String> {
        let Ok(file) = fs::File::open(file) else {
            return Vec::new();
        };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        let port = |line: String| -> Option<String> {
            let fields: Vec<_> = line.split_whitespace().collect();
            // 0A: listening.
            let is_one = fields.get(3) == Some(&"0A");
            let hexadecimal = fields.get(1)?.rsplit(':').next()?;
            let port = u16::from_str_radix(hexadecimal, 16).ok()?;
            is_one.then(|| port.to_string())
        };
        lines.filter_map(port).collect()
    };
    let mut all: Vec<_> = files.iter().flat_map(ports).collect();
    all.dedup();
    all
}

/// What a process and its children hold.
fn held_by(id: u32) -> Held {
    let children = children_of(id);
    let all = children.iter().copied().chain([id]);
    Held {
        memory: all.map(memory_of).sum(),
        descriptors: descriptors(id),
        children: children.len(),
    }
}

/// Temporary keys that the device's sshd would still take.
fn keys_left(site: &Site) -> usize {
    let file = site.home(&device(0)).join(".ssh/authorized_keys");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter(|line| !line.trim().is_empty()).count()
}

/// KiB; what it shares with others counts in part.
fn memory_of(id: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or_default()
}

/// A connection that stands: how late a word on it was at most, or what became of it.
fn stand(tunnel: &mut Tunnel, stop: &AtomicBool) -> Result<Duration, String> {
    let mut worst = Duration::ZERO;
    while !stop.load(Relaxed) {
        tunnel.say("still here")?;
        match tunnel.hear("still here", PATIENCE) {
            Ok(took) => worst = worst.max(took),
            Err(Miss::Late(why) | Miss::Wrong(why)) => return Err(why),
        }
        at_a_pace(LOOK);
    }
    Ok(worst)
}

/// New connections in a tunnel that stands.
fn through(site: &Site, tunnel: &Tunnel, stop: &AtomicBool) -> Vec<Tried> {
    let mut tried = Vec::new();
    while !stop.load(Relaxed) {
        let began = Instant::now();
        let ended = tunnel.next(site, Duration::from_secs(20));
        let took = began.elapsed();
        let ended = ended.map(drop).map_err(|miss| match miss {
            Miss::Late(why) | Miss::Wrong(why) => why,
        });
        tried.push(Tried { began, took, ended });
        at_a_pace(PACE.saturating_sub(took));
    }
    tried
}
