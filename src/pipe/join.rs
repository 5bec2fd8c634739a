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
    drive::{Carried, End, HALF_CLOSED, JoinFailure, Meter},
    half::HalfClose,
    keys::Changes,
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
    let leg = |socket, early| Leg {
        socket,
        early,
        without: None,
    };
    let (a, b) = (leg(&a, early_a), leg(&b, early_b));
    splice_until(a, b, HALF_CLOSED, future::pending()).await
}

/// One of two sockets to be joined.
#[derive(Debug)]
pub struct Leg<'a> {
    /// The socket.
    pub socket: &'a Socket,
    /// What came in behind its first line.
    pub early: Vec<u8>,
    /// Where nothing has come in: what is left out, with one line end behind it, if its bytes begin so.
    pub without: Option<String>,
}

impl<'a> Leg<'a> {
    fn to(self, other: &'a Socket) -> Relay<'a> {
        match self.without {
            Some(text) if self.early.is_empty() => Relay::without(&text, self.socket, other),
            _ => Relay::new(self.socket, other, self.early),
        }
    }
}

/// The same; the end after so long in silence with one direction closed, and cut when `stop` says why.
///
/// # Errors
/// As [`splice`], and what `stop` says.
pub async fn splice_until(
    a: Leg<'_>,
    b: Leg<'_>,
    half_closed: Duration,
    stop: impl Future<Output = io::Error>,
) -> io::Result<Carried> {
    let (a_socket, b_socket) = (a.socket, b.socket);
    let (mut up, mut down) = (a.to(b_socket), b.to(a_socket));
    let outcome = drive(half_closed, &mut up, &mut down, None)
        .or(cut(stop))
        .await;
    Ok(close(outcome, &[a_socket, b_socket])?)
}

/// [`splice`] of two sockets that nobody has read from; what passes is counted while it does.
///
/// # Errors
/// As [`splice`]; and at which end.
pub async fn splice_metered(a: &Socket, b: &Socket, meter: &Meter) -> Result<Carried, JoinFailure> {
    let (mut up, mut down) = (Relay::new(a, b, Vec::new()), Relay::new(b, a, Vec::new()));
    let outcome = drive(HALF_CLOSED, &mut up, &mut down, Some(meter)).await;
    close(outcome, &[a, b])
}

async fn cut(stop: impl Future<Output = io::Error>) -> Result<Carried, JoinFailure> {
    Err(JoinFailure {
        error: stop.await,
        at: None,
        abrupt: true,
    })
}

/// Joins a local stream (reader and writer) with a remote socket, with a change for each direction.
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
    changes: Changes,
    meter: &Meter,
) -> Result<Carried, JoinFailure>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let mut up = Copy::new(local_read, HalfClose(&remote), Vec::new(), changes.outbound);
    let mut down = Copy::new(&remote, local_write, Vec::new(), changes.inbound);
    let outcome = drive(HALF_CLOSED, &mut up, &mut down, Some(meter)).await;
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
