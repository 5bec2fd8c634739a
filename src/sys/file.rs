//! Files that a person named. They may be anything: a pipe that nobody writes to, a device without an end.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_std::task;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

/// For a pipe to come to its end, when another program makes what is read.
const PATIENCE: Duration = Duration::from_secs(20);

/// The beginning of a file, as text: so many bytes at most.
///
/// # Errors
/// What the system says; it is not text; it did not end in time.
pub async fn text(path: &Path, most: u64) -> io::Result<String> {
    let path = path.to_owned();
    task::spawn_blocking(move || text_now(&path, most)).await
}

/// As [`text`], on this thread.
///
/// # Errors
/// As [`text`].
pub fn text_now(path: &Path, most: u64) -> io::Result<String> {
    text_within(PATIENCE, path, most)
}

/// The metadata of a file, asked for off the executor: its file system may be far away.
///
/// # Errors
/// What the system says.
pub async fn metadata(path: PathBuf) -> io::Result<fs::Metadata> {
    task::spawn_blocking(move || fs::metadata(path)).await
}

fn text_within(time: Duration, path: &Path, most: u64) -> io::Result<String> {
    // Opening a pipe would wait for somebody who writes, and a terminal could become ours.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let mut text = String::new();
    let until = Instant::now() + time;
    Hurried { file, until }
        .take(most)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Reads until a moment, and no longer.
struct Hurried {
    file: File,
    until: Instant,
}

impl Read for Hurried {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end"));
            }
            // Also where something comes all the time: a device without an end meets the limit of bytes.
            let mut asked = [PollFd::new(&self.file, PollFlags::IN)];
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut asked, Some(&left)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => match self.file.read(buf) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => return outcome,
                },
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io::Write, thread};

    use super::*;
    use crate::testing::named_pipe;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_pipe_is_read_to_its_end_and_one_without_an_end_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = named_pipe(folder.path());
        let nobody = text_within(SHORT, &path, 100).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::TimedOut);
        let open = File::options().read(true).write(true).open(&path).unwrap();
        (&open).write_all(b"a beginning").unwrap();
        let no_end = text_within(SHORT, &path, 100).unwrap_err();
        assert_eq!(no_end.kind(), io::ErrorKind::TimedOut);
        drop(open);
        let there = path.clone();
        let writer = thread::spawn(move || {
            // Opens when the reader has.
            let mut pipe = File::options().write(true).open(there).unwrap();
            pipe.write_all(b"in ").unwrap();
            pipe.write_all(b"pieces").unwrap();
        });
        assert_eq!(text_within(LONG, &path, 100).unwrap(), "in pieces");
        writer.join().unwrap();
    }

    #[test]
    fn of_a_file_or_device_the_beginning_is_read_and_what_is_none_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(text_within(LONG, &path, 4).unwrap(), "0123");
        assert_eq!(text_within(LONG, &path, 99).unwrap(), "0123456789");
        let zero = text_within(LONG, Path::new("/dev/zero"), 1000).unwrap();
        assert_eq!(zero.len(), 1000);
        assert_eq!(text_within(LONG, Path::new("/dev/null"), 9).unwrap(), "");
        assert!(text_within(LONG, folder.path(), 9).is_err());
        fs::write(&path, [0xff]).unwrap();
        let what = text_within(LONG, &path, 9).unwrap_err();
        assert_eq!(what.to_string(), "stream did not contain valid UTF-8");
        let missing = text_within(LONG, &folder.path().join("none"), 9).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
