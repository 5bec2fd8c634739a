//! The connections of one session: how many there are, how long there has been none, and their end.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use async_io::Timer;
use async_std::{
    channel::{Receiver, Sender, bounded, unbounded},
    future::timeout,
    net::TcpStream,
    task,
};
use futures_lite::{FutureExt, future};

use crate::{pipe::join::Carried, sys::process::descriptors_left};

/// Connections of one session at a time. Each costs descriptors, and no buffer while nothing moves.
pub const MAX_CONNECTIONS: usize = 1000;
/// Descriptors of one connection: a socket for either end. Without encryption bytes that move have a pipe as well, so that
/// the newest may fail for want of them; those that stand then copy instead of splicing.
const OF_A_CONNECTION: u64 = 2;
/// How much sooner than ours the device's last connection may have ended: what was on its way has still to be
/// taken by our local program.
const AHEAD: Duration = Duration::from_secs(15);

/// How a connection ended.
pub(super) enum ConnectionEnd {
    Carried(Carried),
    /// The session was over before it began.
    Unmet(TcpStream),
}

impl From<Carried> for ConnectionEnd {
    fn from(carried: Carried) -> Self {
        Self::Carried(carried)
    }
}

/// The connections of a session.
pub(super) struct Joins {
    pub(super) live: usize,
    /// At a time: as many as there are descriptors for, so that those that stand lose nothing to newcomers.
    pub(super) most: usize,
    carried: Carried,
    idle: Duration,
    pub(super) idle_since: Instant,
    report: Sender<ConnectionEnd>,
    pub(super) reports: Receiver<ConnectionEnd>,
    /// Its end is every connection's.
    gate: Sender<()>,
    stop: Receiver<()>,
}

impl Joins {
    pub(super) fn new(idle: Duration) -> Self {
        let (gate, stop) = bounded(1);
        let (report, reports) = unbounded();
        let most = usize::try_from(descriptors_left() / OF_A_CONNECTION);
        Self {
            live: 0,
            most: most.map_or(MAX_CONNECTIONS, |most| most.min(MAX_CONNECTIONS)),
            carried: Carried::default(),
            idle,
            idle_since: Instant::now(),
            report,
            reports,
            gate,
            stop,
        }
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.live >= self.most
    }

    pub(super) fn start<F>(&mut self, connection: impl FnOnce(Receiver<()>) -> F)
    where
        F: Future<Output = ConnectionEnd> + Send + 'static,
    {
        self.live += 1;
        let (work, report) = (connection(self.stop.clone()), self.report.clone());
        task::spawn(async move {
            let end = work.await;
            let _ = report.send(end).await;
        });
    }

    /// Waits until there has been no connection for too long. Dropping the future loses nothing.
    pub(super) async fn stood_too_long(&mut self) {
        loop {
            let too_long = async {
                match self.live {
                    0 => Timer::at(self.idle_since + self.idle).await,
                    _ => future::pending().await,
                };
                None
            };
            let one_ended = async { self.reports.recv().await.ok() };
            match one_ended.or(too_long).await {
                // The session is not over, so nobody is left unmet.
                Some(end) => drop(self.account(end)),
                None => return,
            }
        }
    }

    /// Whether there has been no connection for about as long as either end lets a session stand.
    pub(super) fn stood_idle(&self, device: Option<Duration>) -> bool {
        let whole = device.unwrap_or(self.idle).min(self.idle);
        let least = whole.saturating_sub(AHEAD.min(whole / 2));
        self.live == 0 && self.idle_since.elapsed() >= least
    }

    /// Returns the visitor whose connection had not begun when the session ended.
    pub(super) fn account(&mut self, end: ConnectionEnd) -> Option<TcpStream> {
        self.live -= 1;
        self.idle_since = Instant::now();
        match end {
            ConnectionEnd::Carried(carried) => {
                self.carried.up += carried.up;
                self.carried.down += carried.down;
                None
            }
            ConnectionEnd::Unmet(visitor) => Some(visitor),
        }
    }

    /// Waits until each has let go by itself, as it was told.
    pub(super) async fn let_go(&mut self, within: Duration) {
        let all = async {
            while self.live > 0 {
                match self.reports.recv().await {
                    Ok(end) => drop(self.account(end)),
                    Err(_) => break,
                }
            }
        };
        let _ = timeout(within, all).await;
    }

    /// Cuts what is left, and waits until nothing of it is. Also returns the visitors whose connections had
    /// not begun.
    pub(super) async fn end(mut self) -> (Carried, Vec<TcpStream>) {
        self.gate.close();
        let mut unmet = Vec::new();
        while self.live > 0 {
            match self.reports.recv().await {
                Ok(end) => unmet.extend(self.account(end)),
                Err(_) => break,
            }
        }
        (self.carried, unmet)
    }
}
