//! TLS: the only file that knows which library does it.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_std::net::TcpStream;
use futures_lite::{AsyncRead, AsyncWrite};

/// Authorities we trust: the bundled list, plus files given by `--ca`.
#[derive(Clone)]
pub struct Connector(Arc<rustls::ClientConfig>);

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsError {
    #[error("cannot read the authority file {0}: {1}")]
    Authority(String, String),
    #[error("{name}'s certificate is signed by an authority that is not trusted here")]
    UnknownAuthority { name: String },
    #[error("the certificate is not for {name}")]
    WrongName { name: String },
    #[error("the certificate of {name} has expired or is not valid yet")]
    Expired { name: String },
    #[error("TLS with {name} failed: {why}")]
    Failed { name: String, why: String },
    #[error("TLS with {name} did not finish in time")]
    TimedOut { name: String },
}
impl TlsError {
    /// What to try next.
    pub fn hint(&self) -> Option<&'static str> {
        todo!()
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// The bundled authorities and those in these PEM files.
    pub fn new<P: AsRef<Path>>(_more: &[P]) -> Result<Self, TlsError> {
        todo!()
    }
    /// Checks the name, finishes the handshake within the time. The name may be an IP address.
    pub async fn connect(
        &self,
        _name: &str,
        _tcp: TcpStream,
        _within: Duration,
    ) -> Result<TlsStream, TlsError> {
        todo!()
    }
}

/// The server's side.
#[derive(Clone)]
pub struct Acceptor(Arc<rustls::ServerConfig>);

impl Acceptor {
    /// From a configuration with its certificates; no session tickets are sent.
    pub fn new(_config: rustls::ServerConfig) -> Self {
        todo!()
    }
    /// Certificate chain and key in PEM.
    pub fn from_pem(_chain: &str, _key: &str) -> Result<Self, TlsError> {
        todo!()
    }
    /// Finishes the handshake within the time. Also gives the name the client asked for (SNI), if any.
    pub async fn accept(
        &self,
        _tcp: TcpStream,
        _within: Duration,
    ) -> Result<(TlsStream, Option<String>), TlsError> {
        todo!()
    }
}

/// An encrypted connection. Every write is flushed by its writer; a waiting reader is woken after every write
/// (the wrapped library loses that wake-up).
pub struct TlsStream {/* enum client/server, waker of a pending read, clone of the TcpStream */}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        todo!()
    }
}
impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        todo!()
    }
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}
