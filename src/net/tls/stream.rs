//! An encrypted connection that may be read and written by two tasks.
//!
//! The wrapped library reads the socket while it writes, and writes while it reads. Two things follow:
//!
//! ```text
//!   task R waits in poll_read                 task W in poll_write
//!        │                                        │ pulls R's bytes out of the socket, decrypts them:
//!        │ ◀───── must be woken by us ─────────── │ no event will ever come for them
//!        │                                        │
//!        └── both leave a waker at the same socket direction; the reactor keeps one and wakes the
//!            other each time it is replaced: two waiting tasks would wake each other for ever
//! ```
//!
//! So the library sees one waker only, which wakes both sides; and after every write in which the
//! socket was read, the reader is woken.

use std::{
    io,
    net::Shutdown,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use async_std::net::TcpStream;
use futures_lite::{AsyncRead, AsyncWrite};

use crate::net::Duplex;

/// An encrypted connection. Every write is flushed by its writer; a waiting reader is woken after every write
/// (the wrapped library loses that wake-up).
///
/// Closing sends the closing message and ends our direction; reading goes on until the peer has ended
/// his. A peer that ends without a closing message is taken to have ended: all our streams are framed.
pub struct TlsStream {
    inner: RoleStream,
    socket: ObservedSocket,
    sides: Arc<Sides>,
    /// Made of `sides`, once.
    waker: Waker,
}

enum RoleStream {
    Client(Box<async_tls::client::TlsStream<ObservedSocket>>),
    Server(Box<async_tls::server::TlsStream<ObservedSocket>>),
}

impl TlsStream {
    pub(super) fn client(
        tls: async_tls::client::TlsStream<ObservedSocket>,
        socket: ObservedSocket,
    ) -> Self {
        Self::new(RoleStream::Client(Box::new(tls)), socket)
    }

    pub(super) fn server(
        tls: async_tls::server::TlsStream<ObservedSocket>,
        socket: ObservedSocket,
    ) -> Self {
        Self::new(RoleStream::Server(Box::new(tls)), socket)
    }

    fn new(inner: RoleStream, socket: ObservedSocket) -> Self {
        let sides = Arc::new(Sides::default());
        let waker = Waker::from(sides.clone());
        Self {
            inner,
            socket,
            sides,
            waker,
        }
    }

    /// The socket below, to cut the connection from another task with `shutdown`.
    pub fn socket(&self) -> TcpStream {
        self.socket.tcp.clone()
    }

    fn poll_inner<T>(
        &mut self,
        side: impl Fn(&Sides) -> &WakerSlot,
        cx: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut dyn Duplex>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        side(&self.sides).keep(cx.waker());
        let both = &mut Context::from_waker(&self.waker);
        let outcome = match &mut self.inner {
            RoleStream::Client(tls) => step(Pin::new(&mut **tls), both),
            RoleStream::Server(tls) => step(Pin::new(&mut **tls), both),
        };
        if outcome.is_ready() {
            side(&self.sides).clear();
        }
        outcome
    }

    /// A step of the writer, and what it owes to the reader.
    fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut dyn Duplex>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.socket.was_read.store(false, Ordering::Relaxed);
        let outcome = self.poll_inner(|sides| &sides.writer, cx, step);
        if self.socket.was_read.load(Ordering::Relaxed) {
            self.sides.reader.wake();
        }
        outcome
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_inner(|sides| &sides.reader, cx, |tls, cx| tls.poll_read(cx, buf)) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(0))
            }
            outcome => outcome,
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |tls, cx| tls.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writing(cx, |tls, cx| tls.poll_flush(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_writing(cx, |tls, cx| tls.poll_close(cx)) {
            // The peer has gone already; there is nobody left to tell.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                Poll::Ready(Ok(()))
            }
            outcome => outcome,
        }
    }
}

/// Who waits: at most one reader and one writer.
#[derive(Default)]
struct Sides {
    reader: WakerSlot,
    writer: WakerSlot,
}

impl Wake for Sides {
    fn wake(self: Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

#[derive(Default)]
struct WakerSlot(Mutex<Option<Waker>>);

impl WakerSlot {
    fn keep(&self, waker: &Waker) {
        if let Ok(mut slot) = self.0.lock() {
            match &mut *slot {
                Some(kept) => kept.clone_from(waker),
                empty => *empty = Some(waker.clone()),
            }
        }
    }

    fn clear(&self) {
        if let Ok(mut slot) = self.0.lock() {
            *slot = None;
        }
    }

    fn wake(&self) {
        let waiting = self.0.lock().ok().and_then(|mut slot| slot.take());
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// The socket, noting whenever a read of it has had an outcome: bytes, end or error.
#[derive(Clone)]
pub(super) struct ObservedSocket {
    tcp: TcpStream,
    was_read: Arc<AtomicBool>,
}

impl ObservedSocket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            was_read: Arc::default(),
        }
    }
}

impl AsyncRead for ObservedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if outcome.is_ready() {
            self.was_read.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl AsyncWrite for ObservedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    /// The runtime's own socket only flushes here.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.tcp.shutdown(Shutdown::Write))
    }
}
