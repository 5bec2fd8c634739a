//! Who is connected to which atSign, and who wants to hear of what.
//!
//! ```text
//!   store's writer thread ──CommitEvent──▶ Board ─┬─ Note, Commit ─▶ [mailbox] ─▶ connection in monitor mode
//!                                                 ├─ Withdrawn ────▶ connections of that enrolment are cut
//!                                                 └─ Queued ───────▶ courier
//! ```
//!
//! Nothing here waits: the writer thread must not. A mailbox that is full is closed, and its connection with it.

use std::{
    collections::HashMap,
    net::Shutdown,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
};

use async_std::{channel, net::TcpStream};

use crate::{
    at::AtSign,
    server::{
        clock::now,
        session::Facts,
        store::{CommitEvent, notes::Note, register::Home},
    },
};

/// Most notifications that may wait for a slow monitor, and most bytes.
const MAILBOX: usize = 4096;
const MAILBOX_BYTES: usize = 32 << 20;

/// Takes a lock; what a panicking holder left behind is still whole, each change being one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everybody who lives here.
pub(super) struct Board {
    houses: RwLock<HashMap<AtSign, Arc<House>>>,
    /// To the courier: (from, to).
    queued: channel::Sender<(AtSign, AtSign)>,
}

/// One atSign's server while it runs.
pub(super) struct House {
    pub home: Home,
    pub port: u16,
    pub facts: Arc<Facts>,
    lines: Mutex<HashMap<u64, ListedConnection>>,
    next_line: AtomicUsize,
    last_commit: AtomicI64,
}

/// One connection, as others see it.
struct ListedConnection {
    session: String,
    enrollment: Option<String>,
    socket: TcpStream,
    mailbox: Option<Mailbox>,
}

/// Where a monitor's news wait for it.
struct Mailbox {
    sender: channel::Sender<Push>,
    waiting: Arc<MailboxLoad>,
}

/// The channel has no limit of its own: one with a limit takes room for all of it at once, 96 KiB for each monitor.
#[derive(Default)]
struct MailboxLoad {
    count: AtomicUsize,
    bytes: AtomicUsize,
    /// A sign of life waits already; another would say the same.
    stats: AtomicBool,
}

/// The other end of a mailbox.
pub(super) struct Inbox {
    receiver: channel::Receiver<Push>,
    waiting: Arc<MailboxLoad>,
}

/// Something for a monitor.
#[derive(Debug)]
pub(super) enum Push {
    /// It arrived.
    Note(Arc<Note>),
    /// The commit log grew.
    Stats,
}

impl Inbox {
    /// The next one; `None`: it overflowed.
    pub(super) async fn next(&self) -> Option<Push> {
        let push = self.receiver.recv().await.ok()?;
        match &push {
            Push::Note(note) => {
                self.waiting.count.fetch_sub(1, Ordering::Relaxed);
                self.waiting.bytes.fetch_sub(size(note), Ordering::Relaxed);
            }
            Push::Stats => self.waiting.stats.store(false, Ordering::Relaxed),
        }
        Some(push)
    }
}

fn size(note: &Note) -> usize {
    note.key.len() + note.value.as_ref().map_or(0, String::len) + 256
}

impl Board {
    pub(super) fn new(queued: channel::Sender<(AtSign, AtSign)>) -> Self {
        Self {
            houses: RwLock::default(),
            queued,
        }
    }

    pub(super) fn house(&self, who: &AtSign) -> Option<Arc<House>> {
        let houses = self.houses.read().unwrap_or_else(PoisonError::into_inner);
        houses.get(who).cloned()
    }

    pub(super) fn everybody(&self) -> Vec<Arc<House>> {
        let houses = self.houses.read().unwrap_or_else(PoisonError::into_inner);
        houses.values().cloned().collect()
    }

    pub(super) fn move_in(&self, house: Arc<House>) {
        let mut houses = self.houses.write().unwrap_or_else(PoisonError::into_inner);
        houses.insert(house.home.who.clone(), house);
    }

    pub(super) fn move_out(&self, who: &AtSign) -> Option<Arc<House>> {
        let mut houses = self.houses.write().unwrap_or_else(PoisonError::into_inner);
        houses.remove(who)
    }

    /// Takes what the store tells.
    pub(super) fn told(&self, event: CommitEvent) {
        match event {
            CommitEvent::Note(note) => {
                if let Some(house) = self.house(&note.to) {
                    house.push_note(&note);
                }
            }
            CommitEvent::Commit(who, id) => {
                if let Some(house) = self.house(&who) {
                    house.last_commit.store(id, Ordering::Relaxed);
                    house.push_stats();
                }
            }
            CommitEvent::Queued { from, to } => {
                // The channel has no limit of its own; the outbox has.
                let _ = self.queued.try_send((from, to));
            }
            CommitEvent::Withdrawn { of, enrollment, by } => {
                if let Some(house) = self.house(&of) {
                    house.cut(|line| {
                        line.session != by && line.enrollment.as_deref() == Some(&enrollment)
                    });
                }
            }
        }
    }
}

impl House {
    pub(super) fn new(home: Home, port: u16, facts: Facts, last_commit: Option<u64>) -> Self {
        let last = last_commit.and_then(|id| i64::try_from(id).ok());
        Self {
            home,
            port,
            facts: Arc::new(facts),
            lines: Mutex::default(),
            next_line: AtomicUsize::new(0),
            last_commit: AtomicI64::new(last.unwrap_or(-1)),
        }
    }

    /// The newest commit id, or none before the first.
    pub(super) fn last_commit(&self) -> Option<u64> {
        u64::try_from(self.last_commit.load(Ordering::Relaxed)).ok()
    }

    /// A connection begins; it is listed until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>, session: &str, socket: TcpStream) -> Guard {
        let number = self.next_line.fetch_add(1, Ordering::Relaxed) as u64;
        let line = ListedConnection {
            session: session.to_owned(),
            enrollment: None,
            socket,
            mailbox: None,
        };
        lock(&self.lines).insert(number, line);
        self.facts.enter(session, now());
        Guard {
            house: self.clone(),
            number,
            session: session.to_owned(),
        }
    }

    /// How many of its connections are monitors.
    pub(super) fn monitors(&self) -> usize {
        let lines = lock(&self.lines);
        lines.values().filter(|line| line.mailbox.is_some()).count()
    }

    /// Ends all connections.
    pub(super) fn cut_all(&self) {
        self.cut(|_| true);
    }

    fn cut(&self, which: impl Fn(&ListedConnection) -> bool) {
        for line in lock(&self.lines).values().filter(|line| which(line)) {
            let _ = line.socket.shutdown(Shutdown::Both);
        }
    }

    fn push_note(&self, note: &Arc<Note>) {
        for line in lock(&self.lines).values() {
            let Some(mailbox) = &line.mailbox else {
                continue;
            };
            let waiting = &mailbox.waiting;
            let bytes = waiting.bytes.fetch_add(size(note), Ordering::Relaxed);
            let count = waiting.count.fetch_add(1, Ordering::Relaxed);
            let full = bytes > MAILBOX_BYTES || count >= MAILBOX;
            if full || mailbox.sender.try_send(Push::Note(note.clone())).is_err() {
                mailbox.sender.close();
            }
        }
    }

    fn push_stats(&self) {
        for line in lock(&self.lines).values() {
            if let Some(mailbox) = &line.mailbox
                && !mailbox.waiting.stats.swap(true, Ordering::Relaxed)
                && mailbox.sender.try_send(Push::Stats).is_err()
            {
                mailbox.sender.close();
            }
        }
    }
}

/// A connection's entry in its house.
pub(super) struct Guard {
    house: Arc<House>,
    number: u64,
    session: String,
}

impl Guard {
    /// From now on news are put into a mailbox for this connection; the old one is thrown away.
    pub(super) fn open_mailbox(&self) -> Inbox {
        let (sender, receiver) = channel::unbounded();
        let waiting = Arc::<MailboxLoad>::default();
        let mailbox = Mailbox {
            sender,
            waiting: waiting.clone(),
        };
        if let Some(line) = lock(&self.house.lines).get_mut(&self.number) {
            line.mailbox = Some(mailbox);
        }
        Inbox { receiver, waiting }
    }

    /// This connection now lives by an enrolment, or by none.
    pub(super) fn lives_by(&self, enrollment: Option<&str>) {
        if let Some(line) = lock(&self.house.lines).get_mut(&self.number) {
            line.enrollment = enrollment.map(str::to_owned);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.house.lines).remove(&self.number);
        self.house.facts.leave(&self.session);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::{net::TcpListener, task::block_on};

    use super::*;
    use crate::server::store::notes::{NoteKind, tests::note};

    #[test]
    fn a_monitor_that_does_not_read_loses_its_mailbox_and_others_do_not() {
        block_on(async {
            let (queued, _) = channel::unbounded();
            let board = Board::new(queued);
            let home = Home {
                number: 1,
                who: "@bob".parse().unwrap(),
            };
            let house = Arc::new(House::new(home, 1, Facts::default(), None));
            board.move_in(house.clone());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let (one, two) = (TcpStream::connect(at).await, TcpStream::connect(at).await);
            let (slow, quick) = (
                house.enter("_1", one.unwrap()),
                house.enter("_2", two.unwrap()),
            );
            let (unread, read) = (slow.open_mailbox(), quick.open_mailbox());
            let mut big = note("n", "@alice", "@bob", NoteKind::Received);
            big.value = Some("v".repeat(MAILBOX_BYTES / 4));
            let big = Arc::new(big);
            for n in 0..8 {
                board.told(CommitEvent::Note(big.clone()));
                assert!(matches!(read.next().await, Some(Push::Note(_))), "{n}");
            }
            let mut got = 0;
            while unread.next().await.is_some() {
                got += 1;
            }
            assert!((4..8).contains(&got), "{got} of 8 big ones fit");
            // Signs of life do not pile up.
            for _ in 0..3 {
                board.told(CommitEvent::Commit("@bob".parse().unwrap(), 7));
            }
            assert!(matches!(read.next().await, Some(Push::Stats)));
            board.told(CommitEvent::Note(big));
            assert!(matches!(read.next().await, Some(Push::Note(_))));
            assert_eq!(house.last_commit(), Some(7));
            let connections = || house.facts.connections.load(Ordering::Relaxed);
            assert_eq!(connections(), 2);
            drop(slow);
            assert_eq!(connections(), 1);
        });
    }
}
