//! Whether a session has begun: the service has said something, or our end had nothing to say to it.
//!
//! ```text
//!   byte from there ───────────────────────▶ begun            ssh's banner, say
//!   our input ends, then theirs ───────────▶ regular          a service that only listens
//!   theirs ends first, without a byte ─────▶ unbegun          nothing stands behind the rendezvous any more
//! ```
//!
//! A stream has no other sign of it: a login at the rendezvous is not answered.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use futures_lite::{AsyncRead, AsyncWrite};

/// What has been seen of a session.
#[derive(Debug, Default)]
pub(super) struct Watch {
    heard: AtomicBool,
    said_all: AtomicBool,
    unbegun: AtomicBool,
}

/// Our input, watched.
pub(super) struct Said<R>(R, Arc<Watch>);

/// Our output, watched.
pub(super) struct Heard<W>(W, Arc<Watch>);

/// Watches both ends of a local stream.
pub(super) fn watch<R, W>(input: R, output: W) -> (Said<R>, Heard<W>, Arc<Watch>) {
    let watch = Arc::new(Watch::default());
    (
        Said(input, watch.clone()),
        Heard(output, watch.clone()),
        watch,
    )
}

impl Watch {
    /// The other end was over first, and had not said a byte.
    pub(super) fn ended_unbegun(&self) -> bool {
        self.unbegun.load(Relaxed)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Said<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(0))) {
            self.1.said_all.store(true, Relaxed);
        }
        read
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Heard<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.1.heard.store(true, Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.1.heard.load(Relaxed) && !self.1.said_all.load(Relaxed) {
            self.1.unbegun.store(true, Relaxed);
        }
        Pin::new(&mut self.0).poll_close(cx)
    }
}
