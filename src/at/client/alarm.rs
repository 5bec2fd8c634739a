//! Tells the connections of one client that they may be dead, so that they are proved at once.
//!
//! ```text
//!   every 5 s: the local address is no longer ours? the tick itself late (sleep)? ──┐
//!   one of them: its proof is not answered within 1 s ─────────────────────────────┤
//!                                                                                  ▼
//!                                    command, monitors: noop:0 ─▶ no byte in time ─▶ a new connection
//! ```
//! A connection whose address is gone, or whose NAT forgot it, hears nothing at all: not that it has ended, either. Only
//! services look around every 5 s; the rest costs nothing while all is well.

use std::{
    future::pending,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use async_std::{
    channel::{Receiver, Sender, bounded},
    task::{sleep, spawn},
};
use log::info;

use crate::at::atsign::AtSign;

/// How often a service looks around.
const TICK: Duration = Duration::from_secs(5);
/// A tick that is so much too late: this machine slept, or this process did.
const SLEPT: Duration = Duration::from_secs(5);
/// How long an answer may take when there is a reason of ours to doubt: with [`TICK`] and a new login less than 10 s.
const PROMPT: Duration = Duration::from_secs(2);

/// The bells of one client's connections.
#[derive(Default)]
pub(super) struct Alarm {
    bells: Mutex<Vec<Wire>>,
    rung: Mutex<Option<Instant>>,
    next: AtomicU64,
}

/// Where a bell hangs.
struct Wire {
    id: u64,
    ring: Sender<Duration>,
    /// Local address of the connection that stands.
    local: Option<SocketAddr>,
}

/// A connection is to prove itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    /// An answer must come in this time.
    pub within: Duration,
    /// It was the alarm: the others know already.
    pub is_alarm: bool,
}

impl Proof {
    /// Because nothing was heard for a while.
    pub(super) fn of_quiet(within: Duration) -> Self {
        Self {
            within,
            is_alarm: false,
        }
    }
}

/// One connection's.
pub(super) struct Bell {
    alarm: Arc<Alarm>,
    id: u64,
    rings: Receiver<Duration>,
}

impl Alarm {
    pub(super) fn bell(self: &Arc<Self>) -> Bell {
        let (ring, rings) = bounded(1);
        let id = self.next.fetch_add(1, Relaxed);
        self.bells().push(Wire {
            id,
            ring,
            local: None,
        });
        Bell {
            alarm: Arc::clone(self),
            id,
            rings,
        }
    }

    fn bells(&self) -> MutexGuard<'_, Vec<Wire>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it last rang. What has not been proved since may be dead.
    pub(super) fn last_rung(&self) -> Option<Instant> {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, within: Duration, except: Option<u64>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        for wire in self.bells().iter() {
            if Some(wire.id) != except {
                let _ = wire.ring.try_send(within); // one that rings already is enough
            }
        }
    }

    /// The address of a connection that this host no longer has. Each connection is told of once.
    fn lost_address(&self, is_ours: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        let mut bells = self.bells();
        let lost = |wire: &&mut Wire| wire.local.is_some_and(|local| !is_ours(local));
        let gone: Vec<_> = bells.iter_mut().filter(lost).collect();
        let taken = gone.into_iter().filter_map(|wire| wire.local.take());
        taken.last()
    }

    /// One look around: whether everything is to be proved, and why.
    fn look(
        &self,
        clock: &mut Clock,
        now: (Instant, SystemTime),
        is_ours: impl Fn(SocketAddr) -> bool,
    ) -> Option<String> {
        let late = clock.late(now);
        let lost = self.lost_address(is_ours);
        let why = match (late, lost) {
            (Some(late), _) => format!("asleep for {} s", late.as_secs()),
            (None, Some(lost)) => format!("{} is no longer our address", lost.ip()),
            (None, None) => return None,
        };
        self.ring(PROMPT, None);
        Some(why)
    }

    /// Looks around for as long as there are connections.
    pub(super) fn watch(self: &Arc<Self>, who: &AtSign) {
        let (alarm, who) = (Arc::downgrade(self), who.clone());
        spawn(look_around(alarm, who));
    }
}

async fn look_around(alarm: Weak<Alarm>, who: AtSign) {
    let mut clock = Clock(Instant::now(), SystemTime::now());
    loop {
        sleep(TICK).await;
        let Some(alarm) = alarm.upgrade() else {
            return;
        };
        let now = (Instant::now(), SystemTime::now());
        if let Some(why) = alarm.look(&mut clock, now, is_ours) {
            info!("as={who} state=proving reason={why:?}");
        }
    }
}

/// When the last tick was, by both clocks: one of them stands still while a machine sleeps, the other leaps when it is
/// set. A leap that was no sleep costs one proof.
struct Clock(Instant, SystemTime);

impl Clock {
    /// How much too late this tick is, if it is that.
    fn late(&mut self, now: (Instant, SystemTime)) -> Option<Duration> {
        let by_run = now.0.saturating_duration_since(self.0);
        let by_wall = now.1.duration_since(self.1).unwrap_or_default();
        *self = Self(now.0, now.1);
        let late = by_run.max(by_wall).saturating_sub(TICK);
        (late > SLEPT).then_some(late)
    }
}

/// Whether this host has that address. One that it lacks cannot be bound; whatever else goes wrong says nothing.
fn is_ours(mut local: SocketAddr) -> bool {
    local.set_port(0);
    let bound = UdpSocket::bind(local);
    !matches!(bound, Err(why) if why.kind() == io::ErrorKind::AddrNotAvailable)
}

impl Bell {
    /// A new connection stands here. What rang for an earlier one is over.
    pub(super) fn stands(&self, local: Option<SocketAddr>) {
        self.set(local);
        while self.rings.try_recv().is_ok() {}
    }

    /// Nothing stands here any more.
    pub(super) fn fell(&self) {
        self.set(None);
    }

    fn set(&self, local: Option<SocketAddr>) {
        let mut bells = self.alarm.bells();
        if let Some(wire) = bells.iter_mut().find(|wire| wire.id == self.id) {
            wire.local = local;
        }
    }

    /// Waits until it rings.
    pub(super) async fn rung(&self) -> Proof {
        match self.rings.recv().await {
            Ok(within) => Proof {
                within,
                is_alarm: true,
            },
            Err(_) => pending().await, // the alarm keeps the other end
        }
    }

    /// This connection has not been answered.
    pub(super) fn ring_others(&self, within: Duration) {
        self.alarm.ring(within, Some(self.id));
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let id = self.id;
        self.alarm.bells().retain(|wire| wire.id != id);
    }
}
