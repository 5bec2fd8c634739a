//! Stdin and stdout as one stream between two programs, as ssh's `ProxyCommand` wants it.
//!
//! The descriptors stay in blocking mode, because whoever shares them (the shell we were started from)
//! would be surprised by anything else. So every step asks first whether it would block.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
};

use async_io::Async;
use futures_lite::{AsyncRead, AsyncWrite};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What comes in; ends too when the [`Output`] is closed, so that nobody waits for a person who has
/// nothing left to say to.
pub struct Input {
    source: Source,
    over: Arc<Over>,
}

/// What goes out.
pub struct Output {
    sink: Sink,
    over: Arc<Over>,
}

/// Both, made of our own stdin and stdout.
///
/// # Errors
/// What the system says, if one of them is closed for instance.
pub fn stdio() -> io::Result<(Input, Output)> {
    let (input, output) = (io::stdin(), io::stdout());
    stream(
        input.as_fd().try_clone_to_owned()?,
        output.as_fd().try_clone_to_owned()?,
    )
}

/// Both, made of any two descriptors in blocking mode.
///
/// # Errors
/// What the system says.
pub fn stream(input: OwnedFd, output: OwnedFd) -> io::Result<(Input, Output)> {
    let over = Arc::new(Over::default());
    let source = match watched(input)? {
        Ok(watched) => Source::Watched(watched),
        Err(plain) => Source::File(async_std::fs::File::from(std::fs::File::from(plain))),
    };
    let sink = match watched(output)? {
        Ok(watched) => Sink::Watched(Some(watched)),
        Err(plain) => Sink::File(async_std::fs::File::from(std::fs::File::from(plain))),
    };
    let input = Input {
        source,
        over: over.clone(),
    };
    Ok((input, Output { sink, over }))
}

/// Pipes, sockets and terminals can be watched; plain files never block and cannot.
fn watched(fd: OwnedFd) -> io::Result<Result<Async<OwnedFd>, OwnedFd>> {
    let spare = fd.try_clone()?;
    match Async::new_nonblocking(fd) {
        Ok(watched) => Ok(Ok(watched)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Err(spare)),
        Err(error) => Err(error),
    }
}

enum Source {
    Watched(Async<OwnedFd>),
    File(async_std::fs::File),
}

enum Sink {
    /// `None` after the end.
    Watched(Option<Async<OwnedFd>>),
    File(async_std::fs::File),
}

impl AsyncRead for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.over.poll(cx).is_ready() {
            return Poll::Ready(Ok(0));
        }
        match &mut self.source {
            Source::File(file) => Pin::new(file).poll_read(cx, buf),
            Source::Watched(watched) => loop {
                if would_not_block(watched.get_ref(), PollFlags::IN)? {
                    match rustix::io::read(watched.get_ref(), &mut *buf) {
                        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                        // A terminal whose other end has gone.
                        Err(rustix::io::Errno::IO) => return Poll::Ready(Ok(0)),
                        outcome => return Poll::Ready(outcome.map_err(io::Error::from)),
                    }
                }
                ready!(watched.poll_readable(cx))?;
            },
        }
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.sink {
            Sink::File(file) => Pin::new(file).poll_write(cx, buf),
            Sink::Watched(None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Sink::Watched(Some(watched)) => loop {
                if would_not_block(watched.get_ref(), PollFlags::OUT)? {
                    let piece = &buf[..buf.len().min(PIECE)];
                    match rustix::io::write(watched.get_ref(), piece) {
                        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                        outcome => return Poll::Ready(outcome.map_err(io::Error::from)),
                    }
                }
                ready!(watched.poll_writable(cx))?;
            },
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.sink {
            Sink::File(file) => Pin::new(file).poll_flush(cx),
            Sink::Watched(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.sink {
            // Its close leaves behind what has not been flushed.
            Sink::File(file) => ready!(Pin::new(file).poll_flush(cx))?,
            Sink::Watched(watched) => *watched = None,
        }
        self.over.set();
        Poll::Ready(Ok(()))
    }
}

/// Asks the kernel without waiting. An end or an error counts: reading or writing tells which.
fn would_not_block(fd: &OwnedFd, wanted: PollFlags) -> io::Result<bool> {
    let mut asked = [PollFd::new(fd, wanted)];
    let at_once = Timespec::default();
    match poll(&mut asked, Some(&at_once)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// That the output has ended, and who wants to know.
#[derive(Default)]
struct Over(Mutex<(bool, Option<Waker>)>);

impl Over {
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let Ok(mut state) = self.0.lock() else {
            return Poll::Ready(());
        };
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn set(&self) {
        let waiting = match self.0.lock() {
            Ok(mut state) => {
                state.0 = true;
                state.1.take()
            }
            Err(_) => None,
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// A pipe that is ready takes this much without blocking (POSIX: PIPE_BUF).
const PIECE: usize = 4096;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};

    use async_std::task::{block_on, spawn_blocking};
    use futures_lite::{AsyncReadExt, AsyncWriteExt, future::zip};

    use super::*;

    #[test]
    fn bytes_pass_through_pipes_whole_and_the_end_is_seen() {
        let ((mut far_in, near_out), (near_in, mut far_out)) =
            (io::pipe().unwrap(), io::pipe().unwrap());
        let (mut input, mut output) = stream(near_in.into(), near_out.into()).unwrap();
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n / 251) as u8).collect();
        let (to_send, to_echo) = (sent.clone(), sent.len());
        let writer = spawn_blocking(move || far_out.write_all(&to_send));
        let reader = spawn_blocking(move || {
            let mut heard = Vec::new();
            far_in.read_to_end(&mut heard).map(|_| heard)
        });
        block_on(async {
            let mut all = Vec::new();
            input.read_to_end(&mut all).await.unwrap();
            assert_eq!(all.len(), to_echo);
            output.write_all(&all).await.unwrap();
            output.close().await.unwrap();
            writer.await.unwrap();
            assert!(reader.await.unwrap() == sent);
        });
    }

    #[test]
    fn closing_the_output_ends_the_input_although_nobody_closed_it() {
        let ((_far_in, near_out), (near_in, _far_out)) = (io::pipe().unwrap(), io::pipe().unwrap());
        let (mut input, mut output) = stream(near_in.into(), near_out.into()).unwrap();
        block_on(async {
            let mut byte = [0; 1];
            let (got, closed) = zip(input.read(&mut byte), async {
                futures_lite::future::yield_now().await;
                output.close().await
            })
            .await;
            assert_eq!(got.unwrap(), 0);
            assert!(closed.is_ok());
        });
    }

    #[test]
    fn plain_files_work_too() {
        let path = std::env::temp_dir().join(format!("stdio-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, "from a file").unwrap();
        let source = std::fs::File::open(&path).unwrap();
        let sink = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        let (mut input, mut output) = stream(source.into(), sink.into()).unwrap();
        block_on(async {
            let mut text = String::new();
            input.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "from a file");
            output.write_all(b", and back").await.unwrap();
            output.close().await.unwrap();
        });
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "from a file, and back"
        );
        std::fs::remove_file(&path).unwrap();
    }
}
