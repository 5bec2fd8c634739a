//! One direction through a buffer that exists only while bytes move.
//!
//! ```text
//!   Read ──bytes──▶ Write ──all written──▶ Read …      end of file ──▶ Close ──▶ Ended
//!    │  nothing there: buffer back to the pool
//! ```

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_lite::{AsyncRead, AsyncWrite};

use super::{
    cipher::Cipher,
    drive::{Broken, Pump, TURNS, give_way},
};

/// Moves bytes from `from` to `to`, then closes `to`.
pub(super) struct Copy<R, W> {
    from: R,
    to: W,
    cipher: Option<Cipher>,
    phase: Phase,
    /// Something was written since the last flush.
    unflushed: bool,
    given: u64,
}

enum Phase {
    Read,
    /// `bytes[at..]` still has to go out.
    Write {
        bytes: Vec<u8>,
        at: usize,
    },
    Close,
    Ended,
}

impl<R, W> Copy<R, W> {
    /// `early` was read from `from` before, and is transformed like the rest.
    pub(super) fn new(from: R, to: W, mut early: Vec<u8>, mut cipher: Option<Cipher>) -> Self {
        if let Some(cipher) = &mut cipher {
            cipher.apply(&mut early);
        }
        let phase = match early.is_empty() {
            true => Phase::Read,
            false => Phase::Write {
                bytes: early,
                at: 0,
            },
        };
        Self {
            from,
            to,
            cipher,
            phase,
            unflushed: false,
            given: 0,
        }
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Copy<R, W> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Phase, Broken>> {
        let mut bytes = pool::take();
        match Pin::new(&mut self.from).poll_read(cx, &mut bytes) {
            Poll::Ready(Ok(0)) => {
                pool::give(bytes);
                Poll::Ready(Ok(Phase::Close))
            }
            Poll::Ready(Ok(got)) => {
                bytes.truncate(got);
                if let Some(cipher) = &mut self.cipher {
                    cipher.apply(&mut bytes);
                }
                Poll::Ready(Ok(Phase::Write { bytes, at: 0 }))
            }
            Poll::Ready(Err(error)) => {
                pool::give(bytes);
                Poll::Ready(Err(Broken::Read(error)))
            }
            Poll::Pending => {
                pool::give(bytes);
                if self.unflushed {
                    ready!(Pin::new(&mut self.to).poll_flush(cx)).map_err(Broken::Write)?;
                    self.unflushed = false;
                }
                Poll::Pending
            }
        }
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump for Copy<R, W> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        for _ in 0..TURNS {
            match &mut self.phase {
                Phase::Read => self.phase = ready!(self.poll_fill(cx))?,
                Phase::Write { bytes, at } => {
                    let written = Pin::new(&mut self.to).poll_write(cx, &bytes[*at..]);
                    let wrote = ready!(written).map_err(Broken::Write)?;
                    if wrote == 0 {
                        let error = io::Error::from(io::ErrorKind::WriteZero);
                        return Poll::Ready(Err(Broken::Write(error)));
                    }
                    *at += wrote;
                    self.given += wrote as u64;
                    self.unflushed = true;
                    if *at == bytes.len() {
                        pool::give(std::mem::take(bytes));
                        self.phase = Phase::Read;
                    }
                }
                Phase::Close => {
                    match ready!(Pin::new(&mut self.to).poll_close(cx)) {
                        // It has gone by itself; what it had to say is the other direction's matter.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        outcome => outcome.map_err(Broken::Write)?,
                    }
                    self.phase = Phase::Ended;
                }
                Phase::Ended => return Poll::Ready(Ok(())),
            }
        }
        give_way(cx)
    }

    fn given(&self) -> u64 {
        self.given
    }
}

/// Buffers between two uses. Each thread keeps a few; a session that waits holds none.
mod pool {
    use super::{CHUNK, KEPT, RefCell};

    thread_local! {
        static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn take() -> Vec<u8> {
        let mut buffer = BUFFERS
            .with(|kept| kept.borrow_mut().pop())
            .unwrap_or_default();
        buffer.resize(CHUNK, 0);
        buffer
    }

    pub(super) fn give(buffer: Vec<u8>) {
        if buffer.capacity() == CHUNK {
            BUFFERS.with(|kept| {
                let mut kept = kept.borrow_mut();
                if kept.len() < KEPT {
                    kept.push(buffer);
                }
            });
        }
    }
}

/// One read. Large enough that the cipher runs at full speed.
const CHUNK: usize = 64 * 1024;
/// Idle buffers per thread.
const KEPT: usize = 4;
