//! The writing half of a socket, which really ends when it is closed.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll},
};

use futures_lite::AsyncWrite;
use rustix::net::{Shutdown, shutdown};

/// A socket to write to. The runtime's own sockets only flush on close, so that the peer would wait
/// for ever for the end of what it reads; this one tells it.
///
/// Any [`join`](super::join::join) that writes to a local socket wants it wrapped in this.
#[derive(Clone, Debug)]
pub struct HalfClose<S>(pub S);

impl<S: AsyncWrite + AsFd + Unpin> AsyncWrite for HalfClose<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&self.0, Shutdown::Write).map_err(io::Error::from))
    }
}
