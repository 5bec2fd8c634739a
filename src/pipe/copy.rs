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
    time::Instant,
};

use futures_lite::{AsyncRead, AsyncWrite};

use super::{
    cipher::Cipher,
    drive::{Pump, PumpError, TURNS, closed, give_way},
    pool::Pool,
    record::{MAX_CONTENT, OVERHEAD, Opener, RecordError, Sealer},
};

/// Moves bytes from `from` to `to`, then closes `to`.
pub(super) struct Copy<R, W> {
    from: R,
    to: W,
    change: Change,
    phase: Phase,
    /// Something was written since the last flush.
    unflushed: bool,
    given: u64,
}

/// What happens to bytes on their way.
#[derive(Debug, Default)]
pub enum Change {
    /// Nothing.
    #[default]
    None,
    /// Encrypted or decrypted in place.
    Cipher(Box<Cipher>),
    /// Made into records; `None` when the last of them is made.
    Seal(Option<Box<Sealer>>),
    /// Records are opened; with the beginning of one that is not all there.
    Open(Box<Opener>, Vec<u8>),
}

enum Phase {
    Read,
    /// `bytes[at..end]` still has to go out; what is behind it is from another time. Until it has, `count` bytes of the
    /// stream are not given.
    Write {
        bytes: Vec<u8>,
        at: usize,
        end: usize,
        count: usize,
    },
    Close,
    Ended,
}

impl<R, W> Copy<R, W> {
    /// `early` was read from `from` before, and is changed like the rest.
    pub(super) fn new(from: R, to: W, early: Vec<u8>, mut change: Change) -> Self {
        let phase = match (&mut change, early) {
            (Change::Seal(Some(sealer)), early) => sealed(sealer, &early),
            (_, early) if early.is_empty() => Phase::Read,
            (Change::Cipher(cipher), mut early) => {
                cipher.apply(&mut early);
                plain(early)
            }
            (_, early) => plain(early),
        };
        Self {
            from,
            to,
            change,
            phase,
            unflushed: false,
            given: 0,
        }
    }
}

fn plain(bytes: Vec<u8>) -> Phase {
    let end = bytes.len();
    Phase::Write {
        bytes,
        at: 0,
        end,
        count: 0,
    }
}

/// Says hello, where nothing has been said before.
fn sealed(sealer: &mut Sealer, content: &[u8]) -> Phase {
    // Two more than there are pieces: HELLO, or the end of an epoch, and a piece that is not full.
    let records = content.len() / MAX_CONTENT + 2;
    let mut bytes = Vec::with_capacity(content.len() + records * OVERHEAD);
    sealer.seal(content, Instant::now(), &mut bytes);
    Phase::Write {
        at: 0,
        end: bytes.len(),
        bytes,
        count: content.len(),
    }
}

fn not_authentic(error: RecordError) -> PumpError {
    PumpError::Read(io::Error::new(io::ErrorKind::InvalidData, error))
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Copy<R, W> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Phase, PumpError>> {
        let mut bytes = take_buffer();
        let held = match &self.change {
            Change::Open(opener, _) if opener.has_ended() => {
                give_buffer(bytes);
                return Poll::Ready(Ok(Phase::Close));
            }
            Change::Open(_, rest) => {
                bytes[..rest.len()].copy_from_slice(rest);
                rest.len()
            }
            _ => 0,
        };
        match Pin::new(&mut self.from).poll_read(cx, &mut bytes[held..]) {
            Poll::Ready(Ok(0)) => {
                give_buffer(bytes);
                Poll::Ready(match &self.change {
                    Change::Open(..) => Err(not_authentic(RecordError::Cut)),
                    _ => Ok(Phase::Close),
                })
            }
            Poll::Ready(Ok(got)) => Poll::Ready(self.change.apply(bytes, held + got)),
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

impl Change {
    /// What has to be written, now that so many bytes are there.
    fn apply(&mut self, mut bytes: Vec<u8>, end: usize) -> Result<Phase, PumpError> {
        match self {
            Self::None | Self::Seal(None) => {}
            Self::Cipher(cipher) => cipher.apply(&mut bytes[..end]),
            Self::Seal(Some(sealer)) => {
                let phase = sealed(sealer, &bytes[..end]);
                give_buffer(bytes);
                return Ok(phase);
            }
            Self::Open(opener, rest) => {
                let opened = opener.open(&mut bytes[..end]).map_err(not_authentic)?;
                *rest = bytes[opened.rest].to_vec();
                if opened.content == 0 {
                    give_buffer(bytes);
                    return Ok(Phase::Read);
                }
                return Ok(Phase::Write {
                    bytes,
                    at: 0,
                    end: opened.content,
                    count: 0,
                });
            }
        }
        Ok(Phase::Write {
            bytes,
            at: 0,
            end,
            count: 0,
        })
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump for Copy<R, W> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        for _ in 0..TURNS {
            match &mut self.phase {
                Phase::Read => self.phase = ready!(self.poll_fill(cx))?,
                Phase::Write {
                    bytes,
                    at,
                    end,
                    count,
                } => {
                    let written = Pin::new(&mut self.to).poll_write(cx, &bytes[*at..*end]);
                    let wrote = ready!(written).map_err(PumpError::Write)?;
                    if wrote == 0 {
                        let error = io::Error::from(io::ErrorKind::WriteZero);
                        return Poll::Ready(Err(PumpError::Write(error)));
                    }
                    *at += wrote;
                    self.unflushed = true;
                    if !matches!(self.change, Change::Seal(_)) {
                        self.given += wrote as u64;
                    }
                    if at == end {
                        self.given += *count as u64;
                        give_buffer(std::mem::take(bytes));
                        self.phase = match self.change {
                            Change::Seal(None) => Phase::Close,
                            _ => Phase::Read,
                        };
                    }
                }
                Phase::Close => {
                    if let Change::Seal(sealer) = &mut self.change
                        && let Some(sealer) = sealer.take()
                    {
                        let mut bytes = Vec::new();
                        sealer.end(Instant::now(), &mut bytes);
                        self.phase = plain(bytes);
                        continue;
                    }
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

pub(super) fn take_buffer() -> Vec<u8> {
    BUFFERS.with(Pool::take).unwrap_or_else(|| vec![0; CHUNK])
}

/// Buffers keep their length and what was last in them: to clear 64 KiB for each keystroke would cost more than to carry
/// it.
pub(super) fn give_buffer(buffer: Vec<u8>) {
    if buffer.len() == CHUNK {
        BUFFERS.with(|idle| idle.give(buffer));
    }
}

/// One read. Large enough that the cipher runs at full speed.
pub(super) const CHUNK: usize = 64 * 1024;
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
        let mut copy = Copy::new(keys, &mut out, b"early".to_vec(), Change::None);
        block_on(poll_fn(|cx| copy.poll(cx))).unwrap();
        assert_eq!(copy.from.cleared, 0);
        assert_eq!(copy.given(), 105);
        let typed: Vec<u8> = (1..=100).rev().collect();
        assert_eq!(out, [b"early", &typed[..]].concat());
    }
}
