//! What to run, how long things may take, and what can go wrong.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crate::{
    at::{AtSign, crypto::CryptoError},
    server::store::StoreError,
};

/// What to run.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The folder of the store; made when it is not there.
    pub data: PathBuf,
    /// The address to listen on.
    pub listen: IpAddr,
    /// The name told to clients in directory answers, such as `localhost`.
    pub host: String,
    /// The atDirectory's port; 0 takes any free one.
    pub directory_port: u16,
    /// The first port for atServers; 0 takes any free one. What an atSign got is remembered in the store.
    pub first_port: u16,
    /// All atServers share `first_port`; clients are told `<name>.<domain>`.
    pub domain: Option<String>,
    /// How long things may take.
    pub timings: Timings,
}

/// How long things may take; the defaults suit all known clients.
#[derive(Clone, Debug)]
pub struct Timings {
    /// From the TCP connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the handshake to the login.
    pub login: Duration,
    /// The same for who has asked for an enrolment. Some clients poll for hours whether they were approved: they
    /// reconnect.
    pub enrolling: Duration,
    /// Without a byte either way, after login.
    pub idle: Duration,
    /// The same for another atSign. Servers keep such a connection for five minutes after its last use.
    pub visitor_idle: Duration,
    /// Without a whole line, on a connection to the atDirectory. Some clients would keep one for ever.
    pub directory_idle: Duration,
    /// For each piece of a reply to be taken by the client.
    pub write: Duration,
    /// Between two signs of life on a monitor.
    pub stats: Duration,
    /// Between two attempts to deliver.
    pub retry: Duration,
    /// Between two purges of what has expired.
    pub purge: Duration,
    /// For another server to answer.
    pub peer: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            login: Duration::from_secs(30),
            enrolling: Duration::from_secs(10 * 60),
            idle: Duration::from_secs(30 * 24 * 3600),
            visitor_idle: Duration::from_secs(10 * 60),
            directory_idle: Duration::from_secs(60),
            write: Duration::from_secs(30),
            stats: Duration::from_secs(15),
            retry: Duration::from_secs(10),
            purge: Duration::from_secs(180),
            peer: Duration::from_secs(10),
        }
    }
}

/// Why the server cannot run, or do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A port cannot be opened.
    #[error("cannot listen on {at} for {what}: {why}")]
    Port {
        /// `the atDirectory` or an atSign.
        what: String,
        /// Address and port.
        at: SocketAddr,
        /// Why not.
        why: io::Error,
    },
    /// No port is left for a new atSign.
    #[error("no free port from {0} on")]
    NoPort(u16),
    /// It lives here already.
    #[error("{0} is already hosted here")]
    Exists(AtSign),
    /// It does not live here.
    #[error("{0} is not hosted here")]
    Unknown(AtSign),
    /// Its name cannot be part of a host name.
    #[error("{0} cannot be part of a host name, which sharing one port needs")]
    NotAHostName(AtSign),
    /// See [`CryptoError`].
    #[error("cannot make keys: {0}")]
    Keys(#[from] CryptoError),
    /// The server is being stopped.
    #[error("the server is stopping")]
    Stopping,
}

impl ServerError {
    /// What to try next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Store(why) => return why.hint().map(str::to_owned),
            Self::Port { at, why, .. } => match why.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "another program uses port {}; stop it, because clients know this port",
                    at.port()
                ),
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE".into()
                }
                io::ErrorKind::AddrNotAvailable => {
                    format!("{} is not an address of this machine", at.ip())
                }
                _ => return None,
            },
            Self::NoPort(_) => "choose another first port".into(),
            Self::Exists(who) => format!("its activation secret was shown when {who} was added"),
            Self::Unknown(who) => format!("add {who} first"),
            Self::NotAHostName(_) => "run the server without --domain".into(),
            Self::Keys(_) | Self::Stopping => return None,
        })
    }
}
