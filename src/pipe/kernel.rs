//! The calls that move bytes from one descriptor to another inside the kernel. Only Linux has them: elsewhere they are refused, and
//! the bytes are copied.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

/// Both ends of a pipe that holds so many bytes, if the system's quota allows it; else 64 KiB, which works as well.
#[cfg(target_os = "linux")]
pub(super) fn pipe(most: usize) -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let _ = fcntl_setpipe_size(&write, most);
    Ok((read, write))
}

/// Moves so many bytes at most; one of the two is a pipe.
#[cfg(target_os = "linux")]
pub(super) fn splice(from: impl AsFd, to: impl AsFd, most: usize) -> Result<usize, Errno> {
    use rustix::pipe::SpliceFlags;
    let flags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
    rustix::pipe::splice(from, None, to, None, most, flags)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pipe(_most: usize) -> Result<(OwnedFd, OwnedFd), Errno> {
    Err(Errno::NOSYS)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn splice(_from: impl AsFd, _to: impl AsFd, _most: usize) -> Result<usize, Errno> {
    Err(Errno::NOSYS)
}
