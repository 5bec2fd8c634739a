//! Printing that survives a reader who has gone: `noports devices | head` is no accident.

use std::{
    fmt::Display,
    io::{self, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Most that hear what goes to stderr; the oldest gives way.
const MOST_LISTENERS: usize = 4;
static LISTENERS: Mutex<Vec<UnixStream>> = Mutex::new(Vec::new());

/// One line of results on stdout. A closed pipe is fine: the reader has seen enough.
///
/// # Errors
/// Anything else, a full disk for example.
pub fn line(text: impl Display) -> io::Result<()> {
    forgive(put(
        &mut io::stdout().lock(),
        format!("{text}\n").as_bytes(),
    ))
}

/// Text on stdout as it is, for instance help.
///
/// # Errors
/// As [`line()`].
pub fn text(text: impl Display) -> io::Result<()> {
    forgive(put(&mut io::stdout().lock(), text.to_string().as_bytes()))
}

/// One line for the person on stderr: progress, errors, hints. Nobody there to read it is fine too.
pub fn note(text: impl Display) {
    let _ = put(&mut Stderr, format!("{text}\n").as_bytes());
}

/// Whatever goes to stderr goes there, too, from now on. Nobody is waited for: one who does not read is left.
pub fn also_to(listener: OwnedFd) {
    let listener = UnixStream::from(listener);
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    let mut all = listeners();
    if all.len() == MOST_LISTENERS {
        all.remove(0);
    }
    all.push(listener);
}

fn listeners() -> MutexGuard<'static, Vec<UnixStream>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// stderr, and whoever else is to hear what goes there.
#[derive(Debug)]
pub struct Stderr;

impl Write for Stderr {
    /// All of it, so that a line stays one.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let hears =
            |listener: &mut UnixStream| listener.write(bytes).is_ok_and(|sent| sent == bytes.len());
        listeners().retain_mut(hears);
        io::stderr().lock().write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

fn put(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

fn forgive(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_has_gone_is_no_error_but_a_full_disk_is() {
        let (reads, mut writes) = io::pipe().unwrap();
        drop(reads);
        let outcome = put(&mut writes, b"x\n");
        assert_eq!(
            outcome.as_ref().unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        assert!(forgive(outcome).is_ok());
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        assert!(forgive(put(&mut full.unwrap(), b"x\n")).is_err());
    }
}
