//! Sockets: dial with one deadline, TLS, one bounded line, a socket for other processes of ours, back-off; what TCP does too
//! late; who may have how much at a time, and whose an address is. A leaf:
//! knows no protocol.

use futures_lite::{AsyncRead, AsyncWrite};

pub mod backoff;
pub mod control_socket;
pub mod dial;
pub mod line;
pub mod network;
pub mod recent;
pub mod ssh_server;
pub mod stall;
pub mod tls;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}
