//! Two streams made one, until both directions have ended.
//!
//! ```text
//!   early ─┐
//!   a.read ┴──▶ b.write        an end of file on one side shuts down only that direction: a client
//!   a.write ◀── b.read         that sends its request and stops writing still gets the answer
//! ```

use std::{io, time::Duration};

use async_std::net::TcpStream;
use futures_lite::{AsyncRead, AsyncWrite};

use super::cipher::Cipher;

/// Bytes moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Carried {
    pub up: u64,
    pub down: u64,
}

/// Joins two sockets as they are; `splice(2)` where the kernel offers it. `early_*` came in behind each one's first line
/// and is delivered to the other first. Gives up after `idle` without a byte either way.
///
/// # Errors
/// The first read or write error of either side, `TimedOut` for `idle`. Both sockets are closed by then.
pub async fn splice(
    _a: TcpStream,
    _early_a: Vec<u8>,
    _b: TcpStream,
    _early_b: Vec<u8>,
    _idle: Option<Duration>,
) -> io::Result<Carried> {
    todo!()
}

/// What happens to bytes on their way: `None` leaves them as they are.
#[allow(missing_docs)]
pub struct Ciphers {
    pub outbound: Option<Cipher>,
    pub inbound: Option<Cipher>,
}

/// Joins a local stream (reader and writer) with a remote socket: local → remote is encrypted with `outbound`,
/// remote → local decrypted with `inbound`.
///
/// # Errors
/// As [`splice`].
pub async fn join<R, W>(
    _local_read: R,
    _local_write: W,
    _remote: TcpStream,
    _ciphers: Ciphers,
    _idle: Option<Duration>,
) -> io::Result<Carried>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    todo!()
}
