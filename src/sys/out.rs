//! Printing that survives a reader who has gone: `noports devices | head` is no accident.

use std::{
    fmt::Display,
    io::{self, Write},
};

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
    let _ = put(&mut io::stderr().lock(), format!("{text}\n").as_bytes());
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
