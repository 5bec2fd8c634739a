//! The file with the keys that sshd lets in: lines of sessions come and go, keys of people stay.
//!
//! ```text
//!   daemon A ─┐ lock, read,          ~/.ssh/authorized_keys              a person's editor
//!   daemon B ─┴ exchange the whole ▶   ssh-ed25519 AAAA… alice   ◀────── at any moment, without any lock
//!                                      … AAAA… sshnp_ephemeral_<session>
//! ```
//!
//! * After any number of sessions the file is what it was, byte for byte, with owner, group, mode and symbolic
//!   links; a missing LF at its end is missing again. A file that was not there is left empty (mode 600): some
//!   programs take one that comes and goes for a fault.
//! * What a person does to it at the same time is kept, be it by renaming another file over it or in place.
//! * A crash may leave a session's line behind. [`AuthorizedKeys::remove_stale`] finds these by their comment and
//!   spares those of sessions that another process still holds: each has a hidden file beside the keys that is
//!   locked as long as its process lives.
//! * Never another user's file, and as root never through another user's folders and links.
//!
//! All functions block, for some 10 ms and more: call them where that does not matter. An access control list on the
//! file is not carried over.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use place::{ExchangeOutcome, ResolvedPath};
pub use text::MARK;

use super::paths;

mod place;
mod text;
mod writers;

/// Longest line that is written, in bytes: the shortest limit of any sshd.
const MAX_LINE: usize = 8 * 1024;
/// Most attempts to get in between two edits of somebody else.
const MAX_ROUNDS: usize = 200;

/// One `authorized_keys` file. Clones are the same one; sessions live as long as the last of them.
#[derive(Clone, Debug)]
pub struct AuthorizedKeys {
    path: PathBuf,
    held: Arc<Mutex<HashMap<String, File>>>,
    /// Nobody is let in any more. Locked while the file is written to for somebody, so that closing waits for that.
    closed: Arc<Mutex<bool>>,
}

impl AuthorizedKeys {
    /// `~/.ssh/authorized_keys`.
    ///
    /// # Errors
    /// `NotFound` when this user has no home folder.
    pub fn of_this_user() -> io::Result<Self> {
        let home = paths::home().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "this user has no home folder")
        })?;
        Ok(Self::at(&home.join(".ssh").join("authorized_keys")))
    }

    /// The file at this path; it need not be there yet.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            held: Arc::default(),
            closed: Arc::default(),
        }
    }

    /// Lets a session's key in, until [`Self::remove_session`] or the next [`Self::remove_stale`] after our end.
    ///
    /// `line` is `options type key`, with or without the comment `sshnp_ephemeral_<session>`; `session` is a UUID.
    /// A line that the session has already is replaced.
    ///
    /// # Errors
    /// `InvalidInput` for a line that is none, `PermissionDenied` for a file that is not ours, else what the
    /// system says; the file is as it was then.
    pub fn add_session_key(&self, line: &str, session: &str) -> io::Result<()> {
        known_session(session)?;
        let comment = format!(" {MARK}{session}");
        let line = format!("{}{comment}", line.trim_end_matches(&comment));
        checked(&line)?;
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            let why = "no more keys are let in: the program is ending";
            return Err(io::Error::new(io::ErrorKind::NotConnected, why));
        }
        let place = self.place()?;
        let _lock = place.lock()?;
        if !self.held().contains_key(session) {
            let alive = place::hold(&place.beside(session))?;
            self.held().insert(session.to_owned(), alive);
        }
        let added = edit(&place, |bytes| {
            if text::has_line(bytes, &line) {
                return bytes.to_vec();
            }
            let (others, _) = text::without_sessions(bytes, |found| found == session);
            text::with_session(&others, &line)
        });
        if added.is_err() {
            self.forget(&place, session);
        }
        added
    }

    /// Takes a session's key out again. A session without one is fine.
    ///
    /// # Errors
    /// As [`Self::add_session_key`]; the key is still let in then.
    pub fn remove_session(&self, session: &str) -> io::Result<()> {
        known_session(session)?;
        if !self.is_there() {
            self.held().remove(session);
            return Ok(());
        }
        let place = self.place()?;
        let _lock = place.lock()?;
        let gone = |bytes: &[u8]| text::without_sessions(bytes, |found| found == session).0;
        edit(&place, gone)?;
        self.forget(&place, session);
        Ok(())
    }

    /// Takes all sessions' keys out again that were let in here, also one that is just on its way in, and lets no more in.
    ///
    /// # Errors
    /// As [`Self::remove_session`].
    pub fn close(&self) -> io::Result<()> {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let sessions: Vec<String> = self.held().keys().cloned().collect();
        let gone = sessions.iter().map(|session| self.remove_session(session));
        gone.fold(Ok(()), Result::and)
    }

    /// Takes out the keys of all sessions that nobody holds any more; returns how many lines that were.
    ///
    /// # Errors
    /// As [`Self::remove_session`].
    pub fn remove_stale(&self) -> io::Result<usize> {
        if !self.is_there() {
            return Ok(0);
        }
        let _writing = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.place()?;
        let _lock = place.lock()?;
        let count = std::cell::Cell::new(0);
        edit(&place, |bytes| {
            let (left, lines) =
                text::without_sessions(bytes, |session| !self.lives(&place, session));
            count.set(count.get().max(lines));
            left
        })?;
        for left in place.neighbours()? {
            if left == "new" || (text::is_session(&left) && !self.lives(&place, &left)) {
                let _ = fs::remove_file(place.beside(&left));
            }
        }
        Ok(count.get())
    }

    /// Lets a person's key in for good. `false`: it was in the file already, with whatever options.
    ///
    /// `line` is `[options ]type key[ comment]`, one whole line without its LF.
    ///
    /// # Errors
    /// As [`Self::add_session_key`].
    pub fn add_key(&self, line: &str) -> io::Result<bool> {
        let line = line.trim();
        checked(line)?;
        let place = self.place()?;
        let _lock = place.lock()?;
        let added = std::cell::Cell::new(false);
        edit(&place, |bytes| {
            let with = text::with_key(bytes, line);
            added.set(added.get() || with.is_some());
            with.unwrap_or_else(|| bytes.to_vec())
        })?;
        Ok(added.get())
    }

    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    /// The file's real place. A missing folder is made, private.
    fn place(&self) -> io::Result<ResolvedPath> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.exists()) {
            paths::private_folder(folder)?;
        }
        ResolvedPath::of(&self.path)
    }

    fn lives(&self, place: &ResolvedPath, session: &str) -> bool {
        self.held().contains_key(session) || place::is_held(&place.beside(session))
    }

    fn forget(&self, place: &ResolvedPath, session: &str) {
        let _ = fs::remove_file(place.beside(session));
        self.held().remove(session);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, File>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `change` to the file, and again to whatever somebody else made of it meanwhile. `change` done twice must be
/// the same as once.
fn edit(place: &ResolvedPath, change: impl Fn(&[u8]) -> Vec<u8>) -> io::Result<()> {
    let mut seen = place.read()?;
    let mut wanted = change(&seen.bytes);
    let mut ours_is_there = false;
    for _ in 0..MAX_ROUNDS {
        if wanted == seen.bytes {
            return Ok(());
        }
        match place.put(&seen, &wanted)? {
            // Put::Again: whatever we put there is not there any more, or part of what is. And even when all went well,
            // somebody who had read the file before us may have written it back after us.
            ExchangeOutcome::Done | ExchangeOutcome::Again => {
                ours_is_there = false;
                seen = place.read()?;
                wanted = change(&seen.bytes);
            }
            ExchangeOutcome::Instead(found) => {
                // Ours is in place, without what somebody did to the file before it. That comes next; if somebody
                // appended to our own earlier version, just that.
                let next = match found.strip_prefix(&seen.bytes[..]) {
                    Some(tail) if ours_is_there => [&wanted[..], tail].concat(),
                    _ => change(&found),
                };
                seen = place.read()?;
                seen.bytes = wanted;
                ours_is_there = true;
                wanted = next;
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("{} is written to all the time", place.path().display()),
    ))
}

fn known_session(session: &str) -> io::Result<()> {
    if text::is_session(session) {
        return Ok(());
    }
    Err(invalid("not a session's id"))
}

/// One line with a key on it: what could be taken for two, or for none, never gets into the file.
fn checked(line: &str) -> io::Result<()> {
    if line.len() > MAX_LINE {
        return Err(invalid("the key's line is too long"));
    }
    if line.chars().any(|c| c.is_control()) {
        return Err(invalid(
            "the key's line holds a line end or another control character",
        ));
    }
    if text::blob(line).is_none() || line.starts_with('#') {
        return Err(invalid("not an ssh public key"));
    }
    Ok(())
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
