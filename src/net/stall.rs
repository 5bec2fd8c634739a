//! What TCP does too late: bytes that were sent into a stall are sent again soon after its end, and silence is told.
//!
//! ```text
//!   every 3 s, and 1 s while something is unanswered: the kernel is asked for each socket that is watched
//!     two repetitions or probes without an answer  ─▶ told, where somebody is to know
//!     the next repetition comes before the next look ─▶ TCP_USER_TIMEOUT shortly ahead, and back once it has come
//! ```
//! TCP sends again after twice as long each time, up to 2 minutes: what was typed 30 s ago into a line that has just come
//! back may arrive 30 s later. Its longest pause can be set for a socket only since Linux 6.15 (`TCP_RTO_MAX_MS`), and not
//! with the libraries used here. But a pause never reaches beyond `TCP_USER_TIMEOUT`, at which the connection would end:
//! so that time is put a few seconds ahead while the next pause is chosen, and away again long before it is over. Where
//! this process does not run for these few seconds, and the line is silent as well, the connection ends.
//!
//! That takes the moment since when something is unanswered, of which the kernel says nothing: the last look at which all
//! had arrived. In a stream that never rests there is none, and its pauses stay as they are.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_std::{
    net::TcpStream,
    task::{sleep, spawn},
};
use futures_lite::future::yield_now;
use rustix::net::sockopt;

use super::dial::SILENCE;
use crate::sys::sockets::{Course, Kernel, each_course, name_of};

/// Between two looks at connections that rest.
pub(super) const LOOK: Duration = Duration::from_secs(3);
/// The same while something is unanswered.
const BUSY_LOOK: Duration = Duration::from_secs(1);
/// Looks take at most this part of a processor, however many connections there are.
const PART: u32 = 50;
/// So many are looked at before others get their turn.
const AT_ONCE: usize = 256;
/// A repetition so near comes before the next look.
const NEAR: Duration = Duration::from_millis(1500);
/// A pause of half of this is the last that may be doubled. With [`LOOK`] and the way of the bytes it makes less than 10 s
/// from the end of a stall until they arrive.
const LONGEST_PAUSE: Duration = Duration::from_millis(5500);
/// So much without an answer is told: one may be lost.
const LOST: u64 = 2;

/// What is told, in the log.
const SILENT: &str = "rendezvous=silent";
/// Once it is over.
const ANSWERS: &str = "rendezvous=answers";

/// Whether somebody is told when a peer is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// In a line of the log, and again when it answers. Nothing ends for it: it may be a tunnel of a train.
    Aloud,
    /// Nobody is.
    Nobody,
}

/// A connection, whatever reads and writes it.
pub type AnySocket = Arc<dyn AsFd + Send + Sync>;

/// A socket stays watched until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct Watched {
    _held: Option<Arc<One>>,
}

struct One {
    socket: AnySocket,
    own: SocketAddr,
    peer: SocketAddr,
    tell: Tell,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// All that was sent until then has arrived.
    rested: Instant,
    /// The time at which the kernel gives up is near.
    is_pressed: bool,
    is_silent: bool,
}

/// What is watched.
type WatchList = Vec<Weak<One>>;

/// `None` while nobody looks.
static ALL: Mutex<Option<WatchList>> = Mutex::new(None);

fn all() -> MutexGuard<'static, Option<WatchList>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches this socket, which has just been opened or has no bytes on their way.
pub fn watch(tcp: &TcpStream, tell: Tell) -> Watched {
    watch_any(Arc::new(tcp.clone()), tell)
}

/// The same for a socket that somebody holds by a descriptor of its own: it shall not need two.
pub fn watch_any(socket: AnySocket, tell: Tell) -> Watched {
    let names = {
        let fd = socket.as_fd();
        let socket = socket2::SockRef::from(&fd);
        let name = |of: io::Result<socket2::SockAddr>| of.ok()?.as_socket();
        (name(socket.local_addr()), name(socket.peer_addr()))
    };
    let (Some(own), Some(peer)) = names else {
        return Watched { _held: None }; // it has ended already
    };
    let one = Arc::new(One {
        socket,
        own,
        peer,
        tell,
        state: Mutex::new(State {
            rested: Instant::now(),
            is_pressed: false,
            is_silent: false,
        }),
    });
    let mut all = all();
    let sockets = all.get_or_insert_with(|| {
        spawn(look_around());
        WatchList::new()
    });
    sockets.push(Arc::downgrade(&one));
    drop(all);
    Watched { _held: Some(one) }
}

/// For as long as something is watched.
async fn look_around() {
    let mut pause = LOOK;
    loop {
        sleep(pause).await;
        let Some(sockets) = what_is_left() else {
            return;
        };
        let (is_busy, least) = match Kernel::open() {
            Some(kernel) => ask(kernel, &sockets).await,
            None => read(&sockets),
        };
        pause = least.max(if is_busy { BUSY_LOOK } else { LOOK });
    }
}

/// Whether something is unanswered at one of these, and the pause that this look is worth.
async fn ask(mut kernel: Kernel, sockets: &WatchList) -> (bool, Duration) {
    let (mut is_busy, mut took) = (false, Duration::ZERO);
    for some in sockets.chunks(AT_ONCE) {
        let began = Instant::now();
        for one in some.iter().filter_map(Weak::upgrade) {
            if let Some(course) = kernel.course(one.own, one.peer) {
                is_busy |= one.look(&course, began);
            }
        }
        took += began.elapsed();
        yield_now().await;
    }
    (is_busy, took * PART)
}

/// The same by the tables of all connections of the machine. Of a pause as many times as long as there are lines, all
/// sessions of the machine together, with two lines each, take half a processor for it.
fn read(sockets: &WatchList) -> (bool, Duration) {
    let by_name = |weak: &Weak<One>| weak.upgrade().map(|one| (name_of(one.own, one.peer), one));
    let (began, mut is_busy) = (Instant::now(), false);
    let sockets: HashMap<_, _> = sockets.iter().filter_map(by_name).collect();
    let lines = each_course(|name, course| {
        if let Some(one) = sockets.get(name) {
            is_busy |= one.look(&course, began);
        }
    });
    (is_busy, began.elapsed() * lines.max(PART))
}

fn what_is_left() -> Option<WatchList> {
    let mut all = all();
    if let Some(sockets) = all.as_mut() {
        sockets.retain(|one| one.strong_count() > 0);
        sockets.shrink_to(2 * sockets.len());
    }
    all.take_if(|sockets| sockets.is_empty());
    all.clone()
}

impl One {
    /// Whether something is unanswered.
    fn look(&self, course: &Course, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limit) = state.limit(course, now) {
            // One that has ended needs none.
            let _ = sockopt::set_tcp_user_timeout(&self.socket, limit.as_millis() as u32);
        }
        if self.tell == Tell::Aloud {
            match state.news(course) {
                Some(true) => {
                    log::warn!("{SILENT} hint=\"the session waits for it, up to 5 minutes\"")
                }
                Some(false) => log::warn!("{ANSWERS}"),
                None => {}
            }
        }
        course.in_vain > 0
    }
}

impl State {
    /// When the kernel shall give up, counted from when something was unanswered, if that changes.
    fn limit(&mut self, course: &Course, now: Instant) -> Option<Duration> {
        if course.outstanding == 0 {
            self.rested = now;
        }
        let would_wait = course.in_vain > 0 && 2 * course.pause > LONGEST_PAUSE;
        let is_near = course.due.is_some_and(|due| due < NEAR);
        let was_pressed = self.is_pressed;
        self.is_pressed = would_wait && is_near;
        if self.is_pressed {
            let ahead = now.saturating_duration_since(self.rested) + LONGEST_PAUSE;
            return Some(ahead.min(SILENCE));
        }
        was_pressed.then_some(SILENCE)
    }

    /// Whether the peer is silent, if that is to be told.
    fn news(&mut self, course: &Course) -> Option<bool> {
        let is_silent = course.in_vain >= LOST;
        let was_silent = std::mem::replace(&mut self.is_silent, is_silent);
        (is_silent != was_silent).then_some(is_silent)
    }
}

impl fmt::Debug for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.own, self.peer)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.is_pressed {
            // What has not arrived yet may still do so, without us.
            let _ = sockopt::set_tcp_user_timeout(&self.socket, SILENCE.as_millis() as u32);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn state(rested: Instant) -> State {
        State {
            rested,
            is_pressed: false,
            is_silent: false,
        }
    }

    fn stalled(pause: Duration, due: Duration) -> Course {
        Course {
            outstanding: 5,
            due: Some(due),
            pause,
            in_vain: 6,
            ..Course::default()
        }
    }

    #[test]
    fn the_time_to_give_up_is_ahead_only_while_a_long_pause_is_chosen() {
        let start = Instant::now();
        let mut state = state(start);
        let mut limit = |after: u32, course| state.limit(&course, start + after * SECOND);
        let rests = Course::default();
        assert_eq!(limit(0, rests), None);
        // Short pauses are doubled as they are.
        assert_eq!(limit(10, stalled(SECOND, SECOND)), None);
        // The next one would be long, but comes later.
        assert_eq!(limit(11, stalled(6 * SECOND, 3 * SECOND)), None);
        // It comes before the next look: 12 s have gone by since all had arrived.
        let ahead = limit(12, stalled(6 * SECOND, SECOND));
        assert_eq!(ahead, Some(12 * SECOND + LONGEST_PAUSE));
        // It came, or something was answered.
        assert_eq!(limit(13, stalled(6 * SECOND, 5 * SECOND)), Some(SILENCE));
        assert_eq!(limit(14, stalled(6 * SECOND, 4 * SECOND)), None);
        assert!(limit(17, stalled(6 * SECOND, SECOND)).is_some());
        assert_eq!(limit(18, rests), Some(SILENCE));
        // Counted from the last rest, and never beyond the longest silence.
        let ahead = limit(20, stalled(6 * SECOND, SECOND));
        assert_eq!(ahead, Some(2 * SECOND + LONGEST_PAUSE));
        assert_eq!(limit(317, stalled(6 * SECOND, SECOND)), Some(SILENCE));
    }

    #[test]
    fn two_lost_probes_or_repetitions_are_told_once_and_so_is_an_answer() {
        let mut state = state(Instant::now());
        let mut news = |in_vain| {
            state.news(&Course {
                in_vain,
                ..Course::default()
            })
        };
        assert_eq!((news(0), news(1)), (None, None));
        assert_eq!((news(2), news(3)), (Some(true), None));
        assert_eq!(news(0), Some(false));
        assert_eq!(news(1), None);
    }

    /// A connection of ours.
    fn watched() -> (std::net::TcpListener, TcpStream, Watched) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let tcp = TcpStream::from(tcp);
        let watched = watch(&tcp, Tell::Nobody);
        (listener, tcp, watched)
    }

    /// Bytes that this thread has read from files.
    fn read_until_now() -> usize {
        let said = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        let count = said.lines().find_map(|line| line.strip_prefix("rchar: "));
        count.unwrap().parse().unwrap()
    }

    /// Each of a thousand idle sessions read the lines of all.
    #[test]
    fn a_look_at_one_socket_costs_the_same_however_many_others_there_are() {
        const OTHERS: usize = 100;
        /// Of a table, less than it has.
        const LINE: usize = 100;
        let Some(kernel) = Kernel::open() else {
            return; // this kernel, or the sandbox around us, has only tables
        };
        let others: Vec<_> = (0..OTHERS).map(|_| watched()).collect();
        let one = vec![Arc::downgrade(others[0].2._held.as_ref().unwrap())];
        let before = read_until_now();
        let (is_busy, _) = async_std::task::block_on(ask(kernel, &one));
        assert!(!is_busy && read_until_now() - before < OTHERS * LINE);
        // So can those by a table tell.
        let before = read_until_now();
        let (is_busy, pause) = read(&one);
        assert!(!is_busy && read_until_now() - before > OTHERS * LINE);
        assert!(pause > Duration::ZERO);
    }

    #[test]
    fn a_socket_is_seen_both_by_asking_and_in_the_tables() {
        let (_listener, tcp, watched) = watched();
        let one = watched._held.as_ref().unwrap();
        let sockets = vec![Arc::downgrade(one)];
        let long_ago = Instant::now().checked_sub(SECOND).unwrap();
        let forget = || one.state.lock().unwrap().rested = long_ago;
        let is_seen = || one.state.lock().unwrap().rested > long_ago;
        forget();
        read(&sockets);
        assert!(is_seen());
        if let Some(kernel) = Kernel::open() {
            forget();
            async_std::task::block_on(ask(kernel, &sockets));
            assert!(is_seen());
        }
        drop(tcp);
    }

    #[test]
    fn one_that_is_dropped_is_watched_no_longer_and_gives_up_when_others_do() {
        let (_listener, tcp, watched) = watched();
        let one = Arc::downgrade(watched._held.as_ref().unwrap());
        let strong = one.upgrade().unwrap();
        let near = stalled(6 * SECOND, SECOND);
        strong.look(&near, Instant::now());
        let limit = || sockopt::tcp_user_timeout(&tcp).unwrap();
        assert!(Duration::from_millis(limit().into()) < 10 * SECOND);
        drop((strong, watched));
        assert_eq!(Duration::from_millis(limit().into()), SILENCE);
        assert!(one.upgrade().is_none());
    }
}
