//! One direction inside the kernel: socket → pipe → socket, no byte comes up here.
//!
//! ```text
//!   from ──splice(2)──▶ [pipe] ──splice(2)──▶ to       the pipe is empty between two fillings, and then
//!                                                      goes back to the pool: a waiting session has none
//! ```
//!
//! A text that is not to arrive can only stand at the beginning, which is read until it is known what it is.
//!
//! Where the kernel refuses (no pipes left, a filter on system calls) the rest is copied.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_io::Async;
use futures_lite::AsyncWrite;
use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

use super::{
    copy::{Change, Copy},
    drive::{Pump, PumpError, TURNS, closed, give_way},
    half::HalfClose,
    pool::Pool,
    strip::Beginning,
};

/// A socket registered with the reactor.
pub type Socket = Async<TcpStream>;

type Copying<'a> = Copy<&'a Socket, HalfClose<&'a Socket>>;

/// Moves bytes from one socket to another, then ends the other one's input.
pub(super) enum Relay<'a> {
    /// It is not yet known what `from` begins with; the other one is where that goes.
    Begin(Box<Beginning>, &'a Socket, &'a Socket),
    Splice(Splice<'a>),
    /// With what had gone before it took over.
    Copy(Box<Copying<'a>>, u64),
}

impl<'a> Relay<'a> {
    /// `early` was read from `from` before.
    pub(super) fn new(from: &'a Socket, to: &'a Socket, mut early: Vec<u8>) -> Self {
        early.shrink_to_fit();
        Self::Splice(Splice {
            from,
            to,
            early: (early, 0),
            filled: None,
            ended: false,
            given: 0,
        })
    }

    /// Without this text, if `from` begins with it.
    pub(super) fn without(text: &str, from: &'a Socket, to: &'a Socket) -> Self {
        Self::Begin(Box::new(Beginning::new(text)), from, to)
    }

    /// The same direction by copying only; for tests and benchmarks of that path.
    #[cfg(test)]
    pub(super) fn copying(from: &'a Socket, to: &'a Socket, early: Vec<u8>) -> Self {
        Self::Copy(
            Box::new(Copy::new(from, HalfClose(to), early, Change::None)),
            0,
        )
    }
}

impl Pump for Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        if let Self::Begin(beginning, from, to) = self {
            let (from, to) = (*from, *to);
            let early = ready!(beginning.poll(from, cx)).map_err(PumpError::Read)?;
            *self = Self::new(from, to, early);
        }
        if let Self::Splice(splice) = self {
            match ready!(splice.poll(cx)) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(SpliceError::Failed(broken)) => return Poll::Ready(Err(broken)),
                Err(SpliceError::Refused(why)) => {
                    log::debug!("splice=refused reason={why} fallback=copy");
                    let (copy, given) = splice.give_up().map_err(PumpError::Read)?;
                    *self = Self::Copy(Box::new(copy), given);
                }
            }
        }
        match self {
            Self::Copy(copy, _) => copy.poll(cx),
            Self::Begin(..) | Self::Splice(_) => give_way(cx),
        }
    }

    fn given(&self) -> u64 {
        match self {
            Self::Begin(..) => 0,
            Self::Splice(splice) => splice.given,
            Self::Copy(copy, before) => before + copy.given(),
        }
    }
}

pub(super) struct Splice<'a> {
    from: &'a Socket,
    to: &'a Socket,
    /// Bytes to send first, and how many of them have gone.
    early: (Vec<u8>, usize),
    /// A pipe with so many bytes in it.
    filled: Option<(Pipe, usize)>,
    ended: bool,
    given: u64,
}

/// Why splicing stops before the end.
enum SpliceError {
    Failed(PumpError),
    /// The kernel does not splice here; nothing is lost.
    Refused(Errno),
}

impl<'a> Splice<'a> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SpliceError>> {
        for _ in 0..TURNS {
            if self.early.1 < self.early.0.len() {
                ready!(self.poll_early(cx))?;
            } else if self.filled.is_some() {
                ready!(self.poll_drain(cx))?;
            } else if !self.ended {
                ready!(self.poll_fill(cx))?;
            } else {
                let shut = self.to.get_ref().shutdown(Shutdown::Write);
                return Poll::Ready(closed(shut).map_err(SpliceError::Failed));
            }
        }
        give_way(cx)
    }

    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SpliceError>> {
        let (bytes, at) = &mut self.early;
        let mut to = self.to;
        let wrote = ready!(Pin::new(&mut to).poll_write(cx, &bytes[*at..]))
            .map_err(|error| SpliceError::Failed(PumpError::Write(error)))?;
        *at += wrote;
        self.given += wrote as u64;
        if *at == bytes.len() {
            self.early = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SpliceError>> {
        let pipe = take_pipe().map_err(SpliceError::Refused)?;
        loop {
            match splice(self.from, None, &pipe.write, None, MOST, FLAGS) {
                Ok(0) => {
                    self.ended = true;
                    give_pipe(pipe);
                    return Poll::Ready(Ok(()));
                }
                Ok(got) => {
                    self.filled = Some((pipe, got));
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match self.from.poll_readable(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Err(SpliceError::Failed(PumpError::Read(error))));
                    }
                    Poll::Pending => {
                        give_pipe(pipe);
                        return Poll::Pending;
                    }
                },
                Err(errno) if refusal(errno) => {
                    return Poll::Ready(Err(SpliceError::Refused(errno)));
                }
                Err(errno) => {
                    return Poll::Ready(Err(SpliceError::Failed(PumpError::Read(errno.into()))));
                }
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SpliceError>> {
        while let Some((pipe, left)) = &mut self.filled {
            match splice(&pipe.read, None, self.to, None, *left, FLAGS) {
                Ok(sent) => {
                    self.given += sent as u64;
                    *left -= sent;
                    if *left == 0
                        && let Some((pipe, _)) = self.filled.take()
                    {
                        give_pipe(pipe);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => ready!(self.to.poll_writable(cx))
                    .map_err(|error| SpliceError::Failed(PumpError::Write(error)))?,
                Err(errno) if refusal(errno) => {
                    return Poll::Ready(Err(SpliceError::Refused(errno)));
                }
                Err(errno) => {
                    return Poll::Ready(Err(SpliceError::Failed(PumpError::Write(errno.into()))));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Goes on by copying: with the bytes still in the pipe first. Also says how many have gone before.
    fn give_up(&mut self) -> io::Result<(Copying<'a>, u64)> {
        let mut held = Vec::new();
        if let Some((pipe, left)) = self.filled.take() {
            held.resize(left, 0);
            let mut at = 0;
            while at < left {
                match rustix::io::read(&pipe.read, &mut held[at..])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    got => at += got,
                }
            }
        }
        Ok((
            Copy::new(self.from, HalfClose(self.to), held, Change::None),
            self.given,
        ))
    }
}

fn refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP
    )
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

thread_local! {
    /// Empty ones.
    static PIPES: Pool<Pipe> = const { Pool::new(KEPT) };
}

fn take_pipe() -> Result<Pipe, Errno> {
    if let Some(pipe) = PIPES.with(Pool::take) {
        return Ok(pipe);
    }
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Above the system's quota the size stays at 64 KiB, which works as well.
    let _ = fcntl_setpipe_size(&write, MOST);
    Ok(Pipe { read, write })
}

fn give_pipe(pipe: Pipe) {
    PIPES.with(|idle| idle.give(pipe));
}

/// One filling, and the size of pipe asked for.
const MOST: usize = 256 * 1024;
/// Idle pipes per thread.
const KEPT: usize = 8;
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read, Write},
    };

    use async_std::task::block_on;

    use super::*;

    fn pair() -> (TcpStream, Socket) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (far, Async::new(listener.accept().unwrap().0).unwrap())
    }

    /// As if the kernel had refused between the two halves of a step.
    #[test]
    fn what_is_in_the_pipe_goes_first_when_copying_takes_over() {
        let ((mut source, from), (mut sink, to)) = (pair(), pair());
        source.write_all(b"in the pipe, ").unwrap();
        let mut relay = Relay::new(&from, &to, b"early, ".to_vec());
        block_on(async {
            poll_fn(|cx| {
                let Relay::Splice(splice) = &mut relay else {
                    panic!("splicing until told otherwise");
                };
                if splice.given == 0 {
                    let _ = splice.poll_early(cx);
                }
                splice.poll_fill(cx).map(|outcome| assert!(outcome.is_ok()))
            })
            .await;
            if let Relay::Splice(splice) = &mut relay {
                let (copy, before) = splice.give_up().unwrap();
                relay = Relay::Copy(Box::new(copy), before);
            }
            source.write_all(b"behind it").unwrap();
            source.shutdown(Shutdown::Write).unwrap();
            poll_fn(|cx| relay.poll(cx)).await.unwrap();
        });
        let mut all = String::new();
        sink.read_to_string(&mut all).unwrap();
        assert_eq!(all, "early, in the pipe, behind it");
        assert_eq!(relay.given(), 29);
    }

    /// It was copied to the end, at nearly twice the cost.
    #[test]
    fn behind_a_text_that_is_left_out_bytes_go_through_the_kernel() {
        let ((mut source, from), (mut sink, to)) = (pair(), pair());
        let mut relay = Relay::without("the-id", &from, &to);
        source.write_all(b"the-id\nall of it").unwrap();
        source.shutdown(Shutdown::Write).unwrap();
        block_on(poll_fn(|cx| relay.poll(cx))).unwrap();
        assert!(matches!(relay, Relay::Splice(_)));
        assert_eq!(relay.given(), 9);
        let mut all = String::new();
        sink.read_to_string(&mut all).unwrap();
        assert_eq!(all, "all of it");
    }
}
