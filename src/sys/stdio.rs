//! Stdin and stdout as one stream between two programs, as ssh's `ProxyCommand` wants it.
//!
//! The descriptors stay in blocking mode, because whoever shares them (the shell we were started from)
//! would be surprised by anything else. So it is each single read and write that is told not to wait; where the
//! kernel cannot be told (terminals, and pipes before Linux 6.5), every step asks first whether it would block.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use async_io::{Async, Timer};
use futures_lite::{AsyncRead, AsyncWrite};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ReadWriteFlags, ioctl_fionread, preadv2, pwritev2},
};

/// What comes in; ends too when the [`Output`] is closed and nothing comes for a moment, so that nobody waits for a person
/// who has nothing left to say to, and what a program is about to say is not lost.
pub struct Input {
    source: InputDescriptor,
    over: Arc<EndSignal>,
    /// Nothing has come since it was over.
    last: Option<Timer>,
}

/// How long that moment is.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What goes out.
pub struct Output {
    sink: OutputDescriptor,
    over: Arc<EndSignal>,
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
    let over = Arc::new(EndSignal::default());
    let source = match watched(input)? {
        Ok(watched) => InputDescriptor::Watched(watched, WaitMode::default()),
        Err(plain) => InputDescriptor::File(async_std::fs::File::from(std::fs::File::from(plain))),
    };
    let sink = match watched(output)? {
        Ok(watched) => OutputDescriptor::Watched(Some(watched), WaitMode::default()),
        Err(plain) => OutputDescriptor::File(async_std::fs::File::from(std::fs::File::from(plain))),
    };
    let input = Input {
        source,
        over: over.clone(),
        last: None,
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

enum InputDescriptor {
    Watched(Async<OwnedFd>, WaitMode),
    File(async_std::fs::File),
}

enum OutputDescriptor {
    /// `None` after the end.
    Watched(Option<Async<OwnedFd>>, WaitMode),
    File(async_std::fs::File),
}

/// How a descriptor in blocking mode is kept from blocking.
#[derive(Clone, Copy, Default)]
enum WaitMode {
    /// The kernel is told with each step.
    #[default]
    PerCall,
    /// It cannot be told about this descriptor: it is asked before each step.
    Polled,
}

impl WaitMode {
    /// `None`: there is nothing to read yet.
    fn read(&mut self, fd: &OwnedFd, buf: &mut [u8]) -> io::Result<Option<usize>> {
        if let Self::PerCall = self {
            let told = preadv2(fd, &mut [IoSliceMut::new(buf)], HERE, NOWAIT);
            if !self.is_told_in_vain(&told) {
                return tried(told);
            }
        }
        if would_not_block(fd, PollFlags::IN)? {
            tried(rustix::io::read(fd, buf))
        } else {
            Ok(None)
        }
    }

    /// `None`: there is no room yet.
    fn write(&mut self, fd: &OwnedFd, buf: &[u8]) -> io::Result<Option<usize>> {
        if let Self::PerCall = self {
            let told = pwritev2(fd, &[IoSlice::new(buf)], HERE, NOWAIT);
            if !self.is_told_in_vain(&told) {
                return tried(told);
            }
        }
        if would_not_block(fd, PollFlags::OUT)? {
            tried(rustix::io::write(fd, &buf[..buf.len().min(PIECE)]))
        } else {
            Ok(None)
        }
    }

    /// Whether the kernel cannot be told about this descriptor; then it is asked from now on.
    fn is_told_in_vain(&mut self, told: &rustix::io::Result<usize>) -> bool {
        let vain = matches!(told, Err(Errno::OPNOTSUPP | Errno::NOSYS));
        if vain {
            *self = Self::Polled;
        }
        vain
    }
}

fn tried(outcome: rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl AsyncRead for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match &mut this.source {
            InputDescriptor::File(file) => Pin::new(file).poll_read(cx, buf),
            InputDescriptor::Watched(watched, how) => loop {
                match how.read(watched.get_ref(), buf) {
                    Ok(None) => {
                        if this.over.poll(cx).is_ready() {
                            let last = this.last.get_or_insert_with(|| Timer::after(LAST_WORDS));
                            if Pin::new(last).poll(cx).is_ready() {
                                return Poll::Ready(Ok(0));
                            }
                        }
                        ready!(watched.poll_readable(cx))?;
                    }
                    Ok(Some(got)) => {
                        this.last = None;
                        return Poll::Ready(Ok(got));
                    }
                    // A terminal whose other end has gone.
                    Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                        return Poll::Ready(Ok(0));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
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
            OutputDescriptor::File(file) => Pin::new(file).poll_write(cx, buf),
            OutputDescriptor::Watched(None, _) => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            OutputDescriptor::Watched(Some(watched), how) => loop {
                if let Some(wrote) = how.write(watched.get_ref(), buf)? {
                    return Poll::Ready(Ok(wrote));
                }
                ready!(watched.poll_writable(cx))?;
            },
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.sink {
            OutputDescriptor::File(file) => Pin::new(file).poll_flush(cx),
            OutputDescriptor::Watched(..) => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.sink {
            // Its close leaves behind what has not been flushed.
            OutputDescriptor::File(file) => ready!(Pin::new(file).poll_flush(cx))?,
            OutputDescriptor::Watched(watched, _) => *watched = None,
        }
        self.over.set();
        Poll::Ready(Ok(()))
    }
}

/// Between two looks at whether somebody is there.
const LOOK: Duration = Duration::from_secs(5);
/// After so long without anybody there what was said last has arrived.
const ABANDONED: Duration = Duration::from_secs(30);

/// Ends when nobody is left at our stdin nor at our stdout, as when the process there was killed: then nothing more comes, and
/// what the far end says would reach nobody. A stream of which one direction has ended is none of that.
pub async fn abandoned() -> io::Error {
    left_alone([io::stdin().as_fd(), io::stdout().as_fd()], LOOK, ABANDONED).await
}

async fn left_alone(ends: [impl AsFd; 2], look: Duration, patience: Duration) -> io::Error {
    let mut since = None;
    loop {
        async_std::task::sleep(look).await;
        since = ends
            .iter()
            .all(is_left)
            .then(|| since.unwrap_or_else(Instant::now));
        if since.is_some_and(|since: Instant| since.elapsed() >= patience) {
            let why = "nobody is there any more to read or write";
            return io::Error::new(io::ErrorKind::BrokenPipe, why);
        }
    }
}

/// Whether the other end is gone, and nothing that it said is left.
fn is_left(end: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(end, PollFlags::empty())];
    let told = poll(&mut asked, Some(&Timespec::default()));
    let gone = PollFlags::HUP | PollFlags::ERR;
    told.is_ok() && asked[0].revents().intersects(gone) && ioctl_fionread(end).unwrap_or(0) == 0
}

/// Asks the kernel without waiting. An end or an error counts: reading or writing tells which.
fn would_not_block(fd: &OwnedFd, wanted: PollFlags) -> io::Result<bool> {
    let mut asked = [PollFd::new(fd, wanted)];
    let at_once = Timespec::default();
    match poll(&mut asked, Some(&at_once)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// That the output has ended, and who wants to know.
#[derive(Default)]
struct EndSignal(Mutex<(bool, Option<Waker>)>);

impl EndSignal {
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
/// Offset of reads and writes: where the descriptor is.
const HERE: u64 = u64::MAX;
const NOWAIT: ReadWriteFlags = ReadWriteFlags::NOWAIT;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};

    use async_std::task::{block_on, spawn_blocking};
    use futures_lite::{
        AsyncReadExt, AsyncWriteExt,
        future::{poll_once, zip},
    };
    use rustix::fs::OFlags;

    use super::*;
    use crate::testing::named_pipe;

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

    fn output(out: impl Into<OwnedFd>, how: WaitMode) -> Output {
        let watched = Async::new_nonblocking(out.into()).unwrap();
        Output {
            sink: OutputDescriptor::Watched(Some(watched), how),
            over: Arc::default(),
        }
    }

    /// What was in the pipe, and what came a moment later, was left out when the other side had ended.
    #[test]
    fn what_a_program_still_says_is_heard_after_the_other_side_has_ended() {
        let (ours, theirs) = std::io::pipe().unwrap();
        let mut theirs = std::fs::File::from(OwnedFd::from(theirs));
        let (mut input, mut output) =
            stream(ours.into(), std::io::pipe().unwrap().1.into()).unwrap();
        let mut said = [0; 4];
        std::io::Write::write_all(&mut theirs, b"more").unwrap();
        block_on(output.close()).unwrap();
        block_on(input.read_exact(&mut said)).unwrap();
        assert_eq!(&said, b"more");
        assert!(block_on(poll_once(input.read(&mut said))).is_none());
        std::io::Write::write_all(&mut theirs, b"last").unwrap();
        block_on(input.read_exact(&mut said)).unwrap();
        assert_eq!(&said, b"last");
        // Then nothing comes, and nobody waits for it.
        assert_eq!(block_on(input.read(&mut said)).unwrap(), 0);
        drop(theirs);
    }

    /// What one write moves; `None`: it has to wait.
    fn one_write(out: &mut Output) -> Option<usize> {
        block_on(poll_once(out.write(&[1; 1 << 20]))).map(Result::unwrap)
    }

    #[test]
    fn one_write_fills_a_pipe_and_a_full_one_neither_blocks_nor_becomes_nonblocking() {
        let (_far_in, near_out) = io::pipe().unwrap();
        let shared = near_out.try_clone().unwrap();
        let room = rustix::pipe::fcntl_getpipe_size(&shared).unwrap();
        let mut told = output(near_out, WaitMode::PerCall);
        let first = one_write(&mut told);
        match told.sink {
            OutputDescriptor::Watched(_, WaitMode::PerCall) => assert_eq!(first, Some(room)),
            // A kernel that cannot be told.
            _ => assert_eq!(first, Some(PIECE)),
        }
        while one_write(&mut told).is_some() {}
        assert_eq!(
            one_write(&mut output(shared.try_clone().unwrap(), WaitMode::Polled)),
            None
        );
        let flags = rustix::fs::fcntl_getfl(&shared).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK), "others use it, too");
    }

    #[test]
    fn where_the_kernel_cannot_be_told_a_write_is_small_and_an_empty_read_waits() {
        let dir = tempfile::tempdir().unwrap();
        // Named ones are those that no kernel so far can be told about, beside terminals.
        let path = named_pipe(dir.path());
        let open = || std::fs::File::options().read(true).write(true).open(&path);
        let (mut input, _over) =
            stream(open().unwrap().into(), io::pipe().unwrap().1.into()).unwrap();
        let mut byte = [0; 2];
        assert!(block_on(poll_once(input.read(&mut byte))).is_none());
        let mut named = output(open().unwrap(), WaitMode::PerCall);
        assert_eq!(one_write(&mut named), Some(PIECE));
        assert!(matches!(
            named.sink,
            OutputDescriptor::Watched(_, WaitMode::Polled)
        ));
        while one_write(&mut named).is_some() {}
        assert_eq!(block_on(input.read(&mut byte)).unwrap(), 2);
    }

    #[test]
    fn a_full_socket_makes_the_writer_wait_until_somebody_reads() {
        let (mut far, near) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut near = output(near, WaitMode::PerCall);
        let mut sent = 0;
        while let Some(wrote) = one_write(&mut near) {
            sent += wrote;
        }
        let reader = spawn_blocking(move || {
            let mut all = vec![0; sent];
            far.read_exact(&mut all).map(|()| far)
        });
        block_on(async {
            near.write_all(b"more").await.unwrap();
            let mut far = reader.await.unwrap();
            let mut more = [0; 4];
            far.read_exact(&mut more).unwrap();
            assert_eq!(&more, b"more");
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

    /// Killed, it left a session that stood until its half-closed time was over: ten minutes.
    #[test]
    fn whoever_is_gone_from_both_ends_is_noticed_and_from_one_alone_is_not() {
        let alone = |input: &OwnedFd, output: &OwnedFd| {
            let (look, patience) = (Duration::from_millis(1), Duration::from_millis(20));
            let waiting = left_alone([input, output], look, patience);
            let ends = async_std::future::timeout(Duration::from_millis(400), waiting);
            block_on(ends).is_ok()
        };
        let ((mut far_in, near_out), (near_in, mut far_out)) =
            (io::pipe().unwrap(), io::pipe().unwrap());
        let (near_in, near_out): (OwnedFd, OwnedFd) = (near_in.into(), near_out.into());
        assert!(!alone(&near_in, &near_out), "both are there");
        far_out.write_all(b"last").unwrap();
        drop(far_out);
        assert!(!alone(&near_in, &near_out), "somebody still reads");
        drop(far_in.read(&mut []).map(|_| far_in));
        assert!(!alone(&near_in, &near_out), "what was said is still there");
        rustix::io::read(&near_in, &mut [0; 9]).unwrap();
        assert!(alone(&near_in, &near_out));
        // As one socket, and as files, at which nobody ever is.
        let (far, near) = std::os::unix::net::UnixStream::pair().unwrap();
        let near: OwnedFd = near.into();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!alone(&near, &near), "it has said all, and listens");
        drop(far);
        assert!(alone(&near, &near));
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        assert!(!alone(&file, &near) && !alone(&file, &file));
    }

    #[test]
    fn plain_files_work_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
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
    }
}
