//! The server as it runs: ports, connections, and the tasks behind them.
//!
//! ```text
//!   directory port ─▶ accept ─▶ handshake ─▶ directory (directory.rs)
//!   @alice's port ──▶ accept ─▶ handshake ─▶ connection ─▶ Session ─▶ store ─▶ reply
//!   @bob's port ────▶   …   └─ HTTP ─▶ web       ▲                       │
//!                                                └── Board ◀── events ───┤
//!                                      courier ◀───────────── queued ────┘   (courier also purges what is over)
//! ```
//!
//! Each atSign has a port of its own, because `from` does not say whose server is meant. With a domain they share
//! one port and are told apart by the name the client asks for in its TLS greeting.

mod accept;
mod board;
#[cfg(test)]
mod budgets;
mod connection;
mod courier;
mod directory;
mod gate;
mod hub;
mod line_buffer;
mod load;
mod meter;
mod metrics;
mod options;
mod visitor;
mod web;
mod writes;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_std::{channel, future::timeout, net::TcpListener, task};

use crate::{
    at::{
        AtSign,
        client::Network,
        crypto::{self, KeyPair},
        metadata::Metadata,
    },
    budget::Budget,
    net::{recent::Recent, tls::Acceptor},
    secret::Secret,
};

use super::{
    clock::now,
    control::Hosted,
    health,
    peer::PeerServers,
    session::{Facts, Outbound, PKAM_KEY, SECRET},
    store::{
        Store, StoreError, Tx,
        backup::{self, Copied},
        log::Change,
        records::{Logged, Meta, Record},
        register::{self, Home, Registration},
    },
};
use board::{Board, House, lock};
use gate::{ConnectionGate, Failures, LOOKS, QUIET};
use hub::Hub;
use load::{BYTES, Bytes};
use meter::ServerMeter;
pub use options::{ServerError, ServerOptions, Timings};

/// Ports tried for a new atSign before giving up.
const PORTS_TRIED: u16 = 1000;
/// How long `stop` waits for the tasks to end.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// And then for the store to close; with another clone of the handle about it stays open.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// A running server. Cheap to clone.
#[derive(Clone)]
pub struct RunningServer {
    hub: Arc<Hub>,
    stop: channel::Sender<()>,
    /// Ends when the last task has ended.
    over: channel::Receiver<()>,
    /// One atSign is added or removed at a time.
    changes: Arc<async_std::sync::Mutex<()>>,
}

/// The server without its ports, for what is asked of the data while nothing is served. So it can be beside another one that
/// has the same ports: a backup of it that was restored.
///
/// # Errors
/// When the store cannot be opened.
pub async fn open(options: ServerOptions, tls: Acceptor) -> Result<RunningServer, ServerError> {
    run(options, tls, None, false).await
}

/// Starts the server; atSigns that do not live here are looked for in this network, if there is one.
///
/// # Errors
/// When the store cannot be opened, or a port that clients know is taken.
pub async fn start(
    options: ServerOptions,
    tls: Acceptor,
    network: Option<Network>,
) -> Result<RunningServer, ServerError> {
    run(options, tls, network, true).await
}

async fn run(
    options: ServerOptions,
    tls: Acceptor,
    network: Option<Network>,
    listens: bool,
) -> Result<RunningServer, ServerError> {
    let (queued, queue) = channel::unbounded();
    let board = Arc::new(Board::new(queued));
    let (folder, told) = (options.data.clone(), board.clone());
    let opened = task::spawn_blocking(move || Store::open(&folder, move |event| told.told(event)));
    let store = opened.await?;
    let doorway = SocketAddr::new(options.listen, options.directory_port);
    let directory = if listens {
        Some(listen("the atDirectory", doorway).await?)
    } else {
        None
    };
    let shared_port = match &options.domain {
        Some(_) => Some(shared_port(&store, &options).await?),
        None => None,
    };
    let shared = match shared_port.filter(|_| listens) {
        Some(port) => Some(shared_door(&store, &options, port).await?),
        None => None,
    };
    let (stop, stopping) = channel::bounded(1);
    let (alive, over) = channel::bounded(1);
    let outbound = Arc::<Outbound>::default();
    let within = options.timings.peer;
    let peers = |network| PeerServers::new(network, store.clone(), within, outbound.clone());
    let (gate, directory_gate) = ConnectionGate::both();
    let hub = Arc::new(Hub {
        peers: network.map(peers),
        outbound: outbound.clone(),
        tls,
        store,
        board,
        gate,
        directory_gate,
        failures: Failures::default(),
        bytes: Bytes::new(BYTES),
        looks: Budget::new(LOOKS),
        writes: Budget::new(writes::WRITES),
        deliveries: Budget::new(courier::DELIVERIES),
        askers: Budget::new(health::ASKERS),
        meter: ServerMeter::default(),
        shortage: Mutex::new(Recent::new(QUIET, 1)),
        started: now(),
        directory: directory
            .as_ref()
            .and_then(|door| door.local_addr().ok())
            .unwrap_or(doorway),
        shared_port: shared.as_ref().map(port_of).or(shared_port),
        listens,
        doors: Mutex::default(),
        stopping,
        alive: Mutex::new(Some(alive.clone())),
        options,
    });
    let running = RunningServer {
        hub: hub.clone(),
        stop,
        over,
        changes: Arc::default(),
    };
    hub.open_all(shared, &alive).await?;
    if let Some(directory) = directory {
        accept::directory(&hub, directory, alive.clone());
        courier::start(&hub, queue, alive);
    }
    Ok(running)
}

async fn listen(what: &str, at: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(at)
        .await
        .map_err(|why| ServerError::Port {
            what: what.to_owned(),
            at,
            why,
        })
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().map_or(0, |at| at.port())
}

/// Name of the counter that remembers the one port of a server with a domain.
const SHARED_PORT: &str = "shared port";

fn nobody() -> Result<Home, StoreError> {
    Ok(Home {
        number: 0,
        who: "@server".parse().map_err(|_| StoreError::Row)?,
    })
}

/// The one port of a server with a domain; 0 is any free one.
async fn shared_port(store: &Store, options: &ServerOptions) -> Result<u16, ServerError> {
    let remembered = store
        .read(move |tx| nobody()?.counter(tx, SHARED_PORT))
        .await?;
    Ok(match options.first_port {
        0 => u16::try_from(remembered).unwrap_or(0),
        port => port,
    })
}

/// Opens that port, and remembers which it is.
async fn shared_door(
    store: &Store,
    options: &ServerOptions,
    port: u16,
) -> Result<TcpListener, ServerError> {
    let door = listen("all atSigns", SocketAddr::new(options.listen, port)).await?;
    let port = port_of(&door);
    store
        .write(move |tx| nobody()?.set_counter(tx, SHARED_PORT, port.into()))
        .await
        .map(|()| door)
        .map_err(|why: StoreError| why.into())
}

impl Hub {
    /// Opens the ports of all atSigns that live here.
    async fn open_all(
        self: &Arc<Self>,
        shared: Option<TcpListener>,
        alive: &channel::Sender<()>,
    ) -> Result<(), ServerError> {
        let entries = self.store.read(|tx| register::all(tx)).await?;
        let mut doors = Vec::new();
        for entry in entries {
            if self.listens && shared.is_none() {
                let at = SocketAddr::new(self.options.listen, entry.port);
                doors.push((
                    entry.home.who.clone(),
                    listen(entry.home.who.as_str(), at).await?,
                ));
            }
            self.move_in(entry).await?;
        }
        for (who, door) in doors {
            accept::one(self, who, door, alive.clone());
        }
        if let Some(door) = shared {
            accept::shared(self, door, alive.clone());
        }
        Ok(())
    }

    /// An atSign's server begins to run.
    async fn move_in(&self, entry: Registration) -> Result<(), ServerError> {
        let home = entry.home.clone();
        let ready = self.store.write(move |tx| home.ready_quota(tx));
        // On a full disk the count begins the next time.
        match ready.await {
            Ok(()) | Err(StoreError::Full) => {}
            Err(why) => return Err(why.into()),
        }
        let home = entry.home.clone();
        let last = self.store.read(move |tx| home.last_commit(tx)).await?;
        let facts = Facts {
            started: self.started,
            outbound: self.outbound.clone(),
            ..Facts::default()
        };
        let port = self.shared_port.unwrap_or(entry.port);
        self.board
            .move_in(Arc::new(House::new(entry.home, port, facts, last)));
        Ok(())
    }

    /// A port for a new atSign.
    async fn new_door(&self) -> Result<TcpListener, ServerError> {
        let at = |port| SocketAddr::new(self.options.listen, port);
        let first = self.options.first_port;
        if first == 0 {
            return listen("a new atSign", at(0)).await;
        }
        let taken = self.store.read(|tx| register::all(tx)).await?;
        let is_free = |port: &u16| taken.iter().all(|entry| entry.port != *port);
        for port in (first..=u16::MAX).take(PORTS_TRIED.into()).filter(is_free) {
            match TcpListener::bind(at(port)).await {
                Ok(door) => return Ok(door),
                Err(why) if why.kind() == io::ErrorKind::AddrInUse => {}
                Err(why) => {
                    return Err(ServerError::Port {
                        what: "a new atSign".into(),
                        at: at(port),
                        why,
                    });
                }
            }
        }
        Err(ServerError::NoPort(first))
    }
}

impl RunningServer {
    /// Where the atDirectory listens.
    pub fn directory(&self) -> SocketAddr {
        self.hub.directory
    }

    /// Places for those that ask for health and metrics.
    pub(super) fn askers(&self) -> &Budget<&'static str> {
        &self.hub.askers
    }

    /// Makes an atSign, opens its port at once, and returns the secret for its activation: 128 hex characters that
    /// can be used once.
    ///
    /// # Errors
    /// When it is here already, or no port can be opened.
    pub async fn add(&self, who: &AtSign) -> Result<Secret<String>, ServerError> {
        let _one_at_a_time = self.changes.lock().await;
        let hub = &self.hub;
        if hub.board.house(who).is_some() {
            return Err(ServerError::Exists(who.clone()));
        }
        if hub.shared_port.is_some() && !who.bare().bytes().all(is_host_byte) {
            return Err(ServerError::NotAHostName(who.clone()));
        }
        let alive = hub.alive()?;
        let door = match hub.shared_port {
            Some(_) => None,
            None => Some(hub.new_door().await?),
        };
        let port = door.as_ref().map_or(0, port_of);
        let signing = task::spawn_blocking(KeyPair::generate).await?;
        let secret = Secret::new(hex(&crypto::random::<64>()?));
        let (name, written, time) = (who.clone(), secret.clone(), now());
        let entry = hub
            .store
            .write(move |tx| write_new_home(tx, &name, port, &signing, &written, time))
            .await?;
        hub.move_in(entry).await?;
        if let Some(door) = door.filter(|_| hub.listens) {
            accept::one(hub, who.clone(), door, alive);
        }
        log::info!("atsign={who} port={port} added");
        Ok(secret)
    }

    /// Everybody who lives here, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<Hosted>, ServerError> {
        let time = now();
        let entries = self.hub.store.read(move |tx| {
            let mut found = Vec::new();
            for entry in register::all(tx)? {
                let activated = entry.home.live(tx, PKAM_KEY, time)?.is_some();
                found.push((entry, activated));
            }
            Ok::<_, StoreError>(found)
        });
        let hosted = |(entry, activated): (Registration, bool)| Hosted {
            host: self.hub.host_of(&entry.home.who),
            port: self.hub.shared_port.unwrap_or(entry.port),
            atsign: entry.home.who.to_string(),
            activated,
        };
        Ok(entries.await?.into_iter().map(hosted).collect())
    }

    /// Lets an atSign keep so many bytes.
    ///
    /// # Errors
    /// When it does not live here, or the store fails.
    pub async fn set_quota(&self, who: &AtSign, bytes: u64) -> Result<(), ServerError> {
        let house = self.hub.board.house(who);
        let home = house
            .ok_or_else(|| ServerError::Unknown(who.clone()))?
            .home
            .clone();
        let set = self.hub.store.write(move |tx| home.set_quota(tx, bytes));
        set.await.map_err(|why: StoreError| why)?;
        log::info!("atsign={who} quota={bytes}");
        Ok(())
    }

    /// Removes an atSign with all it has stored, and ends its connections.
    ///
    /// # Errors
    /// When it does not live here, or the store fails.
    pub async fn remove(&self, who: &AtSign) -> Result<(), ServerError> {
        let _one_at_a_time = self.changes.lock().await;
        let hub = &self.hub;
        let moved_out = hub.board.move_out(who);
        let house = moved_out.ok_or_else(|| ServerError::Unknown(who.clone()))?;
        hub.close(who.as_str()).await;
        house.cut_all();
        if let Some(peers) = &hub.peers {
            peers.part(who);
        }
        let home = house.home.clone();
        hub.store
            .write(move |tx| register::remove(tx, &home))
            .await
            .map_err(|why: StoreError| why)?;
        loop {
            let home = house.home.clone();
            let more = hub
                .store
                .write(move |tx| register::clear(tx, &home))
                .await?;
            if !more {
                break;
            }
        }
        log::info!("atsign={who} removed");
        Ok(())
    }

    /// Copies everything, as it is at this moment, and these small files into a new file.
    ///
    /// # Errors
    /// See [`backup::write`].
    pub async fn back_up(
        &self,
        to: PathBuf,
        files: BTreeMap<String, Vec<u8>>,
    ) -> Result<Copied, ServerError> {
        let store = self.hub.store.clone();
        let copied = task::spawn_blocking(move || backup::write(&store, &to, &files)).await?;
        log::info!(
            "backup rows={} atsigns={}",
            copied.rows,
            copied.atsigns.len()
        );
        Ok(copied)
    }

    /// Closes the ports, ends all connections, and returns once all tasks have ended (or after ten seconds). Every
    /// answer given before is safe on disk. The store closes with the last clone of this handle.
    pub async fn stop(self) {
        let Self {
            hub, stop, over, ..
        } = self;
        stop.close();
        let doors: Vec<_> = lock(&hub.doors).drain().collect();
        for (_, door) in doors {
            door.cancel().await;
        }
        for house in hub.board.everybody() {
            house.cut_all();
        }
        lock(&hub.alive).take();
        let closing = hub.store.closing();
        drop(hub);
        let _ = timeout(STOP_WITHIN, over.recv()).await;
        // A look at the store may still be on its way out, in a thread of its own.
        let _ = timeout(CLOSE_WITHIN, closing).await;
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes all that a new atSign's server begins with.
fn write_new_home(
    tx: &mut Tx<'_>,
    who: &AtSign,
    port: u16,
    signing: &KeyPair,
    secret: &Secret<String>,
    time: u64,
) -> Result<Registration, StoreError> {
    let home = register::add(tx, who, port, time)?;
    let plain = Metadata {
        is_binary: Some(false),
        is_encrypted: Some(false),
        ..Metadata::default()
    };
    let (public, private) = (&signing.public().text, signing.private_text().reveal());
    for (key, value) in [
        (format!("public:signing_publickey{who}"), public),
        (format!("{who}:signing_privatekey{who}"), private),
    ] {
        let record = Record {
            value: value.clone(),
            meta: Meta::merged(None, &plain, time),
        };
        home.put(tx, &key, &record, Change::Update, Logged::ByKey)?;
    }
    home.put_plain(
        tx,
        "privatekey:signing_keypair_generated",
        "true",
        None,
        time,
    )?;
    home.put_plain(tx, SECRET, secret.reveal(), None, time)?;
    Ok(Registration {
        home,
        port,
        created: time,
    })
}
