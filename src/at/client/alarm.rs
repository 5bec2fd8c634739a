//! Tells the connections of one client that they may be dead, so that they are proved at once.
//!
//! ```text
//!   every 5 s: the local address is no longer ours? the tick itself late (sleep)? ──┐
//!   one of them: its proof is not answered within 0.5 s ───────────────────────────┤
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
pub(super) struct ProofDemand {
    /// An answer must come in this time.
    pub within: Duration,
    /// It was the alarm: the others know already.
    pub is_alarm: bool,
}

impl ProofDemand {
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

    /// All connections are to be proved: an answer must come within so long.
    pub(super) fn ring(&self, within: Duration) {
        self.ring_but(within, None);
    }

    fn ring_but(&self, within: Duration, except: Option<u64>) {
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

    /// One look around: why everything is to be proved, if it is.
    pub(super) fn look(
        &self,
        clock: &mut Clock,
        now: Now,
        is_ours: impl Fn(SocketAddr) -> bool,
    ) -> Option<String> {
        let (late, lost) = (clock.late(now), self.lost_address(is_ours));
        if let Some(late) = late {
            return Some(format!("asleep for {} s", late.as_secs()));
        }
        lost.map(|lost| format!("{} is no longer our address", lost.ip()))
    }

    /// Looks around for as long as there are connections.
    pub(super) fn watch(self: &Arc<Self>, who: &AtSign, prompt: Duration) {
        let (alarm, who) = (Arc::downgrade(self), who.clone());
        spawn(look_around(alarm, who, prompt));
    }
}

async fn look_around(alarm: Weak<Alarm>, who: AtSign, prompt: Duration) {
    let mut clock = Clock::new(now());
    loop {
        sleep(TICK).await;
        let Some(alarm) = alarm.upgrade() else {
            return;
        };
        if let Some(why) = alarm.look(&mut clock, now(), is_ours) {
            info!("as={who} state=proving reason={why:?}");
            alarm.ring(prompt);
        }
    }
}

/// Time by both clocks: one of them stands still while a machine sleeps, the other leaps when it is set.
pub(super) type Now = (Instant, SystemTime);

fn now() -> Now {
    (Instant::now(), SystemTime::now())
}

/// When the last tick was.
pub(super) struct Clock(Now);

impl Clock {
    pub(super) fn new(now: Now) -> Self {
        Self(now)
    }

    /// How much too late this tick is, if it is that. A leap that was no sleep costs one proof.
    fn late(&mut self, now: Now) -> Option<Duration> {
        let by_run = now.0.saturating_duration_since(self.0.0);
        let by_wall = now.1.duration_since(self.0.1).unwrap_or_default();
        self.0 = now;
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
    pub(super) async fn rung(&self) -> ProofDemand {
        match self.rings.recv().await {
            Ok(within) => ProofDemand {
                within,
                is_alarm: true,
            },
            Err(_) => pending().await, // the alarm keeps the other end
        }
    }

    /// This connection has not been answered.
    pub(super) fn ring_others(&self, within: Duration) {
        self.alarm.ring_but(within, Some(self.id));
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let id = self.id;
        self.alarm.bells().retain(|wire| wire.id != id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_this_host_does_not_have_is_not_ours() {
        assert!(is_ours("127.0.0.1:7".parse().unwrap()));
        // Addresses for documents: nobody has them.
        assert!(!is_ours("192.0.2.1:7".parse().unwrap()));
        if UdpSocket::bind("[::1]:0").is_ok() {
            assert!(is_ours("[::1]:7".parse().unwrap()));
            assert!(!is_ours("[2001:db8::1]:7".parse().unwrap()));
            assert!(!is_ours("[::ffff:192.0.2.1]:7".parse().unwrap()));
            assert!(is_ours("[::ffff:127.0.0.1]:7".parse().unwrap()));
        }
    }

    #[test]
    fn a_tick_that_comes_late_by_either_clock_was_a_sleep() {
        let start = now();
        let after = |run: u64, wall: i64| {
            let leap = Duration::from_secs(wall.unsigned_abs());
            let wall = if wall < 0 {
                start.1 - leap
            } else {
                start.1 + leap
            };
            Clock::new(start).late((start.0 + Duration::from_secs(run), wall))
        };
        for (run, wall, late) in [
            (5, 5, None),
            (9, 9, None),
            (10, 10, None),
            (11, 11, Some(6)),   // stopped, or without a processor
            (5, 905, Some(900)), // asleep: one clock stood still
            (5, -900, None),     // set back
            (60, -900, Some(55)),
            (0, 0, None),
        ] {
            assert_eq!(
                after(run, wall),
                late.map(Duration::from_secs),
                "{run} {wall}"
            );
        }
    }

    #[test]
    fn a_late_tick_is_told_once() {
        let start = now();
        let late = (start.0 + 4 * TICK, start.1 + 4 * TICK);
        let (alarm, mut clock) = (Alarm::default(), Clock::new(start));
        assert!(alarm.look(&mut clock, late, is_ours).is_some());
        let next = (late.0 + TICK, late.1 + TICK);
        assert_eq!(alarm.look(&mut clock, next, is_ours), None);
    }
}
