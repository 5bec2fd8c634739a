//! What all tasks of the running server share.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_io::Timer;
use async_std::{channel, task};
use futures_lite::future::or;

use crate::{
    at::AtSign,
    budget::Budget,
    net::{recent::Recent, tls::Acceptor},
    server::{peer::PeerServers, session::Outbound, store::Store},
    text::endpoint::Endpoint,
};

use super::{
    board::{Board, lock},
    gate::{ConnectionGate, ConnectionParty, Failures},
    load::Bytes,
    meter::ServerMeter,
    options::{ServerError, ServerOptions},
};

/// What all tasks share.
pub(super) struct Hub {
    pub options: ServerOptions,
    pub tls: Acceptor,
    pub store: Store,
    pub board: Arc<Board>,
    pub peers: Option<PeerServers>,
    /// Connections to other servers.
    pub outbound: Arc<Outbound>,
    /// To the atServers, and to the atDirectory.
    pub gate: ConnectionGate,
    pub directory_gate: ConnectionGate,
    pub failures: Failures,
    pub bytes: Bytes,
    /// What strangers look up at the moment.
    pub looks: Budget<IpAddr>,
    /// Who writes at the moment.
    pub writes: Budget<ConnectionParty>,
    /// Who delivers at the moment.
    pub deliveries: Budget<AtSign>,
    /// Who asks for health and metrics.
    pub askers: Budget<&'static str>,
    pub meter: ServerMeter,
    /// When the log was told that accepting failed.
    pub shortage: Mutex<Recent<()>>,
    pub started: u64,
    pub directory: SocketAddr,
    /// With a domain: the port that all share.
    pub shared_port: Option<u16>,
    /// Whether it listens: where nothing is served, only the data is looked after.
    pub listens: bool,
    /// Accept loops by what they are for, to be cancelled.
    pub doors: Mutex<HashMap<String, task::JoinHandle<()>>>,
    /// Closed when the server stops.
    pub stopping: channel::Receiver<()>,
    /// Every task holds a copy; once all are gone the server is over. Taken when it stops.
    pub alive: Mutex<Option<channel::Sender<()>>>,
}

impl Hub {
    /// The host name clients are told for this atSign.
    pub(super) fn host_of(&self, who: &AtSign) -> String {
        match &self.options.domain {
            Some(domain) => format!("{}.{domain}", who.bare()),
            None => self.options.host.clone(),
        }
    }

    /// What the directory says.
    pub(super) fn find(&self, bare: &str) -> Option<Endpoint> {
        let who: AtSign = bare.parse().ok()?;
        let house = self.board.house(&who)?;
        Some(Endpoint {
            host: self.host_of(&who),
            port: house.port,
        })
    }

    pub(super) fn alive(&self) -> Result<channel::Sender<()>, ServerError> {
        lock(&self.alive).clone().ok_or(ServerError::Stopping)
    }

    pub(super) fn keep(&self, what: String, door: task::JoinHandle<()>) {
        lock(&self.doors).insert(what, door);
    }

    pub(super) async fn close(&self, what: &str) {
        let door = lock(&self.doors).remove(what);
        if let Some(door) = door {
            door.cancel().await;
        }
    }

    /// Runs something until it is done or the server stops.
    pub(super) async fn stoppable<T>(&self, work: impl Future<Output = Option<T>>) -> Option<T> {
        let stop = async {
            let _ = self.stopping.recv().await;
            None
        };
        or(work, stop).await
    }

    /// Waits; `false`: the server stops.
    pub(super) async fn pause(&self, time: Duration) -> bool {
        let time = async {
            Timer::after(time).await;
            Some(())
        };
        self.stoppable(time).await.is_some()
    }
}
