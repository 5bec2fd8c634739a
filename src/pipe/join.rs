//! Two streams made one, until both directions have ended.
//!
//! ```text
//!   early ─┐
//!   a.read ┴──▶ b.write        an end of file on one side shuts down only that direction: a client
//!   a.write ◀── b.read         that sends its request and stops writing still gets the answer
//! ```

use std::{future::Future, io, net::Shutdown, os::fd::AsFd, time::Duration};

use async_io::Async;
use async_std::net::TcpStream;
use futures_lite::{AsyncRead, AsyncWrite, FutureExt, future};

use super::{copy::Copy, drive::drive, relay::Relay};

pub use super::relay::Socket;

pub use super::{
    cipher::Ciphers,
    drive::{Carried, End, HALF_CLOSED, JoinFailure, Meter},
    half::HalfClose,
};

/// Joins two sockets as they are; `splice(2)` where the kernel offers it. `early_*` came in behind each one's first line
/// and is delivered to the other first.
///
/// # Errors
/// The first read or write error of either side. Both sockets are closed by then,
/// and a reset of one is passed on as a reset of the other.
pub async fn splice(
    a: TcpStream,
    early_a: Vec<u8>,
    b: TcpStream,
    early_b: Vec<u8>,
) -> io::Result<Carried> {
    let (a, b) = (raw(a)?, raw(b)?);
    splice_until(&a, early_a, &b, early_b, HALF_CLOSED, future::pending()).await
}

/// The same; the end after so long in silence with one direction closed, and cut when `stop` says why.
///
/// # Errors
/// As [`splice`], and what `stop` says.
pub async fn splice_until(
    a: &Socket,
    early_a: Vec<u8>,
    b: &Socket,
    early_b: Vec<u8>,
    half_closed: Duration,
    stop: impl Future<Output = io::Error>,
) -> io::Result<Carried> {
    let (mut up, mut down) = (Relay::new(a, b, early_a), Relay::new(b, a, early_b));
    let outcome = drive(half_closed, &mut up, &mut down, None)
        .or(cut(stop))
        .await;
    Ok(close(outcome, &[a, b])?)
}

/// [`splice`] of two sockets that nobody has read from; what passes is counted while it does.
///
/// # Errors
/// As [`splice`]; and at which end.
pub async fn splice_metered(
    a: &Socket,
    b: &Socket,
    half_closed: Duration,
    meter: &Meter,
) -> Result<Carried, JoinFailure> {
    let (mut up, mut down) = (Relay::new(a, b, Vec::new()), Relay::new(b, a, Vec::new()));
    let outcome = drive(half_closed, &mut up, &mut down, Some(meter)).await;
    close(outcome, &[a, b])
}

async fn cut(stop: impl Future<Output = io::Error>) -> Result<Carried, JoinFailure> {
    Err(JoinFailure {
        error: stop.await,
        at: None,
        abrupt: true,
    })
}

/// One of two sockets to be joined.
#[derive(Debug)]
pub struct Leg<R> {
    /// The socket.
    pub socket: TcpStream,
    /// What came behind its first line.
    pub early: Vec<u8>,
    /// Gives what comes from it after that, as far as the other one is to see it.
    pub rest: R,
}

/// [`splice_until`] for sockets of which the other one is not to see everything. Through a buffer.
///
/// # Errors
/// As [`splice_until`].
pub async fn join_legs<R>(
    a: Leg<R>,
    b: Leg<R>,
    half_closed: Duration,
    stop: impl Future<Output = io::Error>,
) -> io::Result<Carried>
where
    R: AsyncRead + Unpin + Send,
{
    let mut up = Copy::new(a.rest, HalfClose(&b.socket), a.early, None);
    let mut down = Copy::new(b.rest, HalfClose(&a.socket), b.early, None);
    let outcome = drive(half_closed, &mut up, &mut down, None)
        .or(cut(stop))
        .await;
    Ok(close(outcome, &[&a.socket, &b.socket])?)
}

/// Joins a local stream (reader and writer) with a remote socket: local → remote is encrypted with `outbound`,
/// remote → local decrypted with `inbound`.
///
/// The end of the remote's bytes closes `local_write`; wrap a socket in [`HalfClose`], or it will not tell. What passes is
/// counted while it does.
///
/// # Errors
/// As [`splice_metered`]. The local stream is dropped, so a caller that kept a handle on its socket can reset it.
pub async fn join<R, W>(
    local_read: R,
    local_write: W,
    remote: TcpStream,
    ciphers: Ciphers,
    half_closed: Duration,
    meter: &Meter,
) -> Result<Carried, JoinFailure>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let mut up = Copy::new(local_read, HalfClose(&remote), Vec::new(), ciphers.outbound);
    let mut down = Copy::new(&remote, local_write, Vec::new(), ciphers.inbound);
    let outcome = drive(half_closed, &mut up, &mut down, Some(meter)).await;
    close(outcome, &[&remote])
}

/// A descriptor of its own, so that it does not matter who else holds the socket.
///
/// # Errors
/// Without another descriptor.
pub fn raw(tcp: TcpStream) -> io::Result<Socket> {
    let fd = tcp.as_fd().try_clone_to_owned()?;
    Async::new_nonblocking(std::net::TcpStream::from(fd))
}

/// Ends a connection so that the peer cannot take it for a regular end; whoever else holds the socket.
pub fn reset<S: AsFd>(socket: &S) {
    // Connecting to nowhere takes a socket out of its connection at once.
    if rustix::net::connect_unspec(socket).is_err() {
        let _ = socket2::SockRef::from(socket).shutdown(Shutdown::Both);
    }
}

/// Nobody may go on with a socket that a failed session has used.
fn close<S: AsFd>(
    outcome: Result<Carried, JoinFailure>,
    sockets: &[&S],
) -> Result<Carried, JoinFailure> {
    outcome.inspect_err(|failure| {
        for socket in sockets {
            if failure.abrupt {
                reset(*socket);
            } else {
                let _ = socket2::SockRef::from(*socket).shutdown(Shutdown::Both);
            }
        }
    })
}

impl From<io::Error> for JoinFailure {
    /// It has not begun.
    fn from(error: io::Error) -> Self {
        Self {
            error,
            at: None,
            abrupt: true,
        }
    }
}

impl From<JoinFailure> for io::Error {
    fn from(failure: JoinFailure) -> Self {
        failure.error
    }
}

#[cfg(test)]
mod tests;
