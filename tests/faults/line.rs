//! The delay line: the network between hosts, in one thread of this process. Each host has a TUN device; what comes out of
//! one is put into another, or not, or later.
//!
//! ```text
//!   host A ─▶ TUN ─▶ ┌───────────────────────────────────────────────┐ ─▶ TUN ─▶ host B
//!                    │ A's router (what it knows) ─▶ the way A ─▶ B: │
//!                    │ cut? resets? lost? narrow? how far?           │
//!   host A ◀─ TUN ◀─ └───────────────────────────────────────────────┘ ◀─ TUN ◀─ host B
//! ```
//!
//! | a [`Way`], one for each direction between two hosts | what happens |
//! | --- | --- |
//! | `is_cut` | nothing gets through, and nobody is told |
//! | `drops_ipv4`, `drops_ipv6` | the same for one of the two |
//! | `resets` | no TCP gets through; both ends of a connection that says something are reset |
//! | `delay` | each packet comes so much later |
//! | `rate` | so many bytes a second; a queue of half a second, beyond it packets are dropped |
//! | `loss` | so many packets of a thousand are lost; which ones, the seed decides |
//!
//! Besides, a host's router can [forget](Wiring::forget) all connections (NAT: what did not begin since then is dropped), and
//! a host's addresses can change: what bears an old one is dropped.
//!
//! Kernels without `sch_netem` are common, and a rule for what happens to a single packet is easier to repeat than one of the
//! kernel's. Orders count for packets that come after them; what is on its way arrives.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    io,
    net::IpAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_setfl},
};

use super::{
    net::is_of_crowd,
    packet::{Flow, Packet},
    random::Random,
};

/// Longest packet of a host.
const LARGEST: usize = 65_536;
/// What a narrow way keeps waiting: about what a router at home does.
const QUEUE: Duration = Duration::from_millis(500);
/// Packets of one host before others have their turn.
const TURN: usize = 64;
/// Connections that a router knows. Older ones go first, as a whole.
const MAX_FLOWS: usize = 20_000;

/// Of IPv6 and TCP, with options.
const LONGEST_HEADERS: usize = 100;

/// Which host, by the order in which they were given.
pub type Host = usize;

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Way {
    /// Nothing gets through, and nobody is told.
    pub is_cut: bool,
    /// The same for one of the two.
    pub drops_ipv4: bool,
    pub drops_ipv6: bool,
    /// No TCP gets through, and both ends are told.
    pub resets: bool,
    /// How much later.
    pub delay: Duration,
    /// Bytes a second; 0: no limit.
    pub rate: u64,
    /// Lost packets of a thousand.
    pub loss: u16,
}

impl Way {
    fn drops(&self, to: IpAddr) -> bool {
        let drops_family = if to.is_ipv4() {
            self.drops_ipv4
        } else {
            self.drops_ipv6
        };
        self.is_cut || drops_family
    }
}

/// A way, and what is on it.
struct Lane {
    way: Way,
    /// When the last byte that was taken is past the narrow place.
    free: Instant,
    chance: Random,
}

/// What a host's router knows of connections.
#[derive(Default)]
struct Router {
    known: HashSet<Flow>,
    /// Only what it knows gets through.
    is_strict: bool,
}

/// A packet that arrives later; the earliest is the greatest.
type Later = Reverse<(Instant, u64, Host, Vec<u8>)>;

/// How hosts are connected.
pub struct Wiring {
    hosts: HashMap<IpAddr, Host>,
    lanes: HashMap<(Host, Host), Lane>,
    routers: HashMap<Host, Router>,
    queue: BinaryHeap<Later>,
    seed: u64,
    /// Who has the addresses of a [crowd](super::net::is_of_crowd).
    pub crowd: Option<Host>,
    /// Lines of JSON that were seen, where somebody listens in.
    pub overheard: Option<Vec<String>>,
    /// Packets that were taken, of any fate.
    pub taken: u64,
    /// Packets that went nowhere.
    pub dropped: u64,
}

impl Wiring {
    pub fn new(seed: u64) -> Self {
        Self {
            hosts: HashMap::new(),
            lanes: HashMap::new(),
            routers: HashMap::new(),
            queue: BinaryHeap::new(),
            seed,
            crowd: None,
            overheard: None,
            taken: 0,
            dropped: 0,
        }
    }

    /// From now on this host is the one with these addresses, and with no others.
    pub fn address(&mut self, host: Host, addresses: &[IpAddr]) {
        self.hosts.retain(|_, whose| *whose != host);
        self.hosts
            .extend(addresses.iter().map(|address| (*address, host)));
    }

    /// Changes the way from one host to another.
    pub fn change(&mut self, from: Host, to: Host, change: impl FnOnce(&mut Way)) {
        change(&mut self.lane(from, to).way);
    }

    /// All ways are as they were at the start; routers know what they know.
    pub fn heal(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.way = Way::default();
        }
    }

    /// This host's router knows no connection any more: only those that begin from now on get through.
    pub fn forget(&mut self, host: Host) {
        let router = self.routers.entry(host).or_default();
        router.known.clear();
        router.is_strict = true;
    }

    fn lane(&mut self, from: Host, to: Host) -> &mut Lane {
        let seed = self.seed ^ ((from as u64) << 32 | to as u64);
        self.lanes.entry((from, to)).or_insert_with(|| Lane {
            way: Way::default(),
            free: Instant::now(),
            chance: Random::new(seed),
        })
    }

    /// A packet comes out of a host; what has to be put into hosts at once.
    pub fn take(&mut self, from: Host, bytes: &[u8], now: Instant) -> Vec<(Host, Vec<u8>)> {
        self.taken += 1;
        let at_once = self.route(from, bytes, now);
        self.dropped += u64::from(at_once.is_none());
        at_once.unwrap_or_default()
    }

    fn whose(&self, address: IpAddr) -> Option<Host> {
        let is_own = self.hosts.get(&address).copied();
        is_own.or_else(|| self.crowd.filter(|_| is_of_crowd(address)))
    }

    /// A line of JSON that begins in a packet's first bytes is kept.
    fn listen_in(&mut self, bytes: &[u8]) {
        let Some(overheard) = &mut self.overheard else {
            return;
        };
        let start = bytes
            .windows(2)
            .take(LONGEST_HEADERS)
            .position(|two| two == b"{\"");
        let line = start.and_then(|start| std::str::from_utf8(&bytes[start..]).ok());
        overheard.extend(line.filter(|line| line.ends_with('\n')).map(str::to_owned));
    }

    /// None: it is dropped.
    fn route(&mut self, from: Host, bytes: &[u8], now: Instant) -> Option<Vec<(Host, Vec<u8>)>> {
        let packet = Packet::read(bytes)?;
        self.listen_in(bytes);
        let to = self.whose(packet.to)?;
        let is_own = self.whose(packet.from) == Some(from);
        if !is_own || !self.passes(from, &packet, true) || !self.passes(to, &packet, false) {
            return None;
        }
        let lane = self.lane(from, to);
        if lane.way.drops(packet.to) {
            return None;
        }
        if lane.way.resets && packet.tcp.is_some() {
            let [back, on] = packet.resets()?;
            return Some(vec![(from, back), (to, on)]);
        }
        let due = lane.due(bytes.len(), now)?;
        if due <= now {
            return Some(vec![(to, bytes.to_vec())]);
        }
        let later = Reverse((due, self.taken, to, bytes.to_vec()));
        self.queue.push(later);
        Some(Vec::new())
    }

    /// Whether a host's router lets it through. Connections begin only from within, or before it became strict.
    fn passes(&mut self, host: Host, packet: &Packet<'_>, is_outward: bool) -> bool {
        let (Some(router), Some(flow)) = (self.routers.get_mut(&host), packet.flow()) else {
            return true;
        };
        if is_outward && packet.tcp.as_ref().is_some_and(|tcp| tcp.begins()) {
            if router.known.len() >= MAX_FLOWS {
                router.known.clear();
            }
            router.known.insert(flow);
        }
        !router.is_strict || router.known.contains(&flow)
    }

    /// What arrives by now.
    fn arrivals(&mut self, now: Instant) -> Vec<(Host, Vec<u8>)> {
        let mut arrived = Vec::new();
        while self.next_arrival().is_some_and(|due| due <= now) {
            arrived.extend(
                self.queue
                    .pop()
                    .map(|Reverse((_, _, to, bytes))| (to, bytes)),
            );
        }
        arrived
    }

    fn next_arrival(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((due, ..))| *due)
    }
}

impl Lane {
    /// When a packet of this length arrives; none: never.
    fn due(&mut self, length: usize, now: Instant) -> Option<Instant> {
        if self.way.loss > 0 && self.chance.below(1000) < usize::from(self.way.loss) {
            return None;
        }
        if self.way.rate == 0 {
            return Some(now + self.way.delay);
        }
        let start = self.free.max(now);
        if start - now > QUEUE {
            return None;
        }
        let nanos = length as u128 * 1_000_000_000 / u128::from(self.way.rate);
        self.free = start + Duration::from_nanos(nanos as u64);
        Some(self.free + self.way.delay)
    }
}

/// The thread that carries. It ends with its owner.
pub struct Line {
    wiring: Arc<Mutex<Wiring>>,
    /// Its end is the thread's.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    /// Between these TUN devices, in the order of the hosts.
    pub fn start(wiring: Wiring, devices: Vec<OwnedFd>) -> io::Result<Self> {
        for device in &devices {
            fcntl_setfl(device, OFlags::NONBLOCK)?;
        }
        let wiring = Arc::new(Mutex::new(wiring));
        let (stop, stopped) = UnixStream::pair()?;
        let carried = Arc::clone(&wiring);
        let thread = thread::Builder::new().name("line".to_owned());
        let thread = thread.spawn(move || carry(&carried, &devices, &stopped))?;
        Ok(Self {
            wiring,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn wiring(&self) -> MutexGuard<'_, Wiring> {
        lock(&self.wiring)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(wiring: &Mutex<Wiring>) -> MutexGuard<'_, Wiring> {
    wiring.lock().unwrap_or_else(PoisonError::into_inner)
}

fn carry(wiring: &Mutex<Wiring>, devices: &[OwnedFd], stopped: &UnixStream) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let (arrived, next) = {
            let mut wiring = lock(wiring);
            (wiring.arrivals(Instant::now()), wiring.next_arrival())
        };
        put(devices, &arrived);
        let ready = wait(devices, stopped, next);
        if ready.last() == Some(&true) {
            return;
        }
        for (host, device) in devices.iter().enumerate().filter(|(host, _)| ready[*host]) {
            for _ in 0..TURN {
                // A device whose host has gone has nothing to say.
                let Ok(length) = rustix::io::read(device, &mut buffer[..]) else {
                    break;
                };
                let at_once = lock(wiring).take(host, &buffer[..length], Instant::now());
                put(devices, &at_once);
            }
        }
    }
}

/// Puts packets into hosts. One that takes none loses it, as with a cable.
fn put(devices: &[OwnedFd], packets: &[(Host, Vec<u8>)]) {
    for (host, bytes) in packets {
        let _ = rustix::io::write(&devices[*host], bytes);
    }
}

/// Until something comes or is due; which devices have something, and last, whether to stop.
fn wait(devices: &[OwnedFd], stopped: &UnixStream, next: Option<Instant>) -> Vec<bool> {
    let descriptors = devices.iter().map(AsFd::as_fd);
    let all = descriptors.chain([stopped.as_fd()]);
    let mut polled: Vec<_> = all
        .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
        .collect();
    let timeout = next.map(|next| {
        let left = next.saturating_duration_since(Instant::now());
        Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        }
    });
    let _ = poll(&mut polled, timeout.as_ref());
    let has_some = |one: &PollFd<'_>| one.revents().intersects(PollFlags::IN | PollFlags::HUP);
    polled.iter().map(has_some).collect()
}
