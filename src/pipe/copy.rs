//! One direction through a buffer that exists only while bytes move.
//!
//! ```text
//!   Read ──bytes──▶ Write ──all written──▶ Read …      end of file ──▶ Close ──▶ Ended
//!    │  nothing there: buffer back to the pool
//! ```

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_lite::{AsyncRead, AsyncWrite};

use super::{
    cipher::Cipher,
    drive::{Pump, PumpError, TURNS, closed, give_way},
    pool::Pool,
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
    /// `bytes[at..end]` still has to go out; what is behind it is from another time.
    Write {
        bytes: Vec<u8>,
        at: usize,
        end: usize,
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
        let phase = if early.is_empty() {
            Phase::Read
        } else {
            Phase::Write {
                end: early.len(),
                bytes: early,
                at: 0,
            }
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
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Phase, PumpError>> {
        let mut bytes = take_buffer();
        match Pin::new(&mut self.from).poll_read(cx, &mut bytes) {
            Poll::Ready(Ok(0)) => {
                give_buffer(bytes);
                Poll::Ready(Ok(Phase::Close))
            }
            Poll::Ready(Ok(got)) => {
                if let Some(cipher) = &mut self.cipher {
                    cipher.apply(&mut bytes[..got]);
                }
                Poll::Ready(Ok(Phase::Write {
                    bytes,
                    at: 0,
                    end: got,
                }))
            }
            Poll::Ready(Err(error)) => {
                give_buffer(bytes);
                Poll::Ready(Err(PumpError::Read(error)))
            }
            Poll::Pending => {
                give_buffer(bytes);
                if self.unflushed {
                    ready!(Pin::new(&mut self.to).poll_flush(cx)).map_err(PumpError::Write)?;
                    self.unflushed = false;
                }
                Poll::Pending
            }
        }
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump for Copy<R, W> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        for _ in 0..TURNS {
            match &mut self.phase {
                Phase::Read => self.phase = ready!(self.poll_fill(cx))?,
                Phase::Write { bytes, at, end } => {
                    let written = Pin::new(&mut self.to).poll_write(cx, &bytes[*at..*end]);
                    let wrote = ready!(written).map_err(PumpError::Write)?;
                    if wrote == 0 {
                        let error = io::Error::from(io::ErrorKind::WriteZero);
                        return Poll::Ready(Err(PumpError::Write(error)));
                    }
                    *at += wrote;
                    self.given += wrote as u64;
                    self.unflushed = true;
                    if at == end {
                        give_buffer(std::mem::take(bytes));
                        self.phase = Phase::Read;
                    }
                }
                Phase::Close => {
                    closed(ready!(Pin::new(&mut self.to).poll_close(cx)))?;
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

thread_local! {
    static BUFFERS: Pool<Vec<u8>> = const { Pool::new(KEPT) };
}

fn take_buffer() -> Vec<u8> {
    BUFFERS.with(Pool::take).unwrap_or_else(|| vec![0; CHUNK])
}

/// Buffers keep their length and what was last in them: to clear 64 KiB for each keystroke would cost more than to carry
/// it.
fn give_buffer(buffer: Vec<u8>) {
    if buffer.len() == CHUNK {
        BUFFERS.with(|idle| idle.give(buffer));
    }
}

/// One read. Large enough that the cipher runs at full speed.
const CHUNK: usize = 64 * 1024;
/// Idle buffers per thread.
const KEPT: usize = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_lite::future::{block_on, poll_fn};

    use super::*;

    /// One byte per read, as somebody types; sees in what state it gets the buffer.
    struct Keys {
        left: u8,
        cleared: usize,
    }

    impl AsyncRead for Keys {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.cleared += buf[1..].iter().filter(|&&byte| byte == 0).count();
            buf.fill(self.left);
            let got = usize::from(self.left > 0);
            self.left -= got as u8;
            Poll::Ready(Ok(got))
        }
    }

    #[test]
    fn a_short_read_clears_no_buffer_and_what_is_behind_it_never_goes_out() {
        // So that the pool of this thread holds a buffer with something in it.
        give_buffer(vec![0xaa; CHUNK]);
        let keys = Keys {
            left: 100,
            cleared: 0,
        };
        let mut out = Vec::new();
        let mut copy = Copy::new(keys, &mut out, b"early".to_vec(), None);
        block_on(poll_fn(|cx| copy.poll(cx))).unwrap();
        assert_eq!(copy.from.cleared, 0);
        assert_eq!(copy.given(), 105);
        let typed: Vec<u8> = (1..=100).rev().collect();
        assert_eq!(out, [b"early", &typed[..]].concat());
    }
}
