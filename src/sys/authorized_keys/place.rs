//! Where the file really is, and how it is exchanged for another one without losing what others do to it.
//!
//! ```text
//!   lock ─▶ read ─▶ write beside it, fsync ─▶ exchange the two names ─▶ is what we took out what we read?
//!             ▲                                                            │ yes: done
//!             └──────────────── no: somebody was quicker; do it to theirs ─┘
//! ```
//!
//! Whoever edits the file by hand takes no lock. Exchanging both names (instead of renaming over the old file)
//! leaves their version in our hands, however late it came.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Component, Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use super::writers;

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Most symbolic links on the way to the file.
const MAX_LINKS: usize = 16;
/// Longest wait for the lock. Whoever holds it needs milliseconds.
const LOCK: Duration = Duration::from_secs(10);
/// Between two looks at the lock.
const LOCK_AGAIN: Duration = Duration::from_millis(3);
/// How long writers that we cannot see have to finish with what we took out: whoever writes in place has the file
/// open for about a millisecond.
const QUIET: Duration = Duration::from_millis(8);

/// The file's own place, without symbolic links.
#[derive(Clone, Debug)]
pub(super) struct ResolvedPath {
    folder: PathBuf,
    name: OsString,
}

/// The file as it was at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    file: Option<(File, Metadata)>,
    /// Its content; empty when there is no file.
    pub bytes: Vec<u8>,
}

/// What came of exchanging the file.
#[derive(Debug)]
pub(super) enum ExchangeOutcome {
    /// Ours is in place, and took the place of what we had seen.
    Done,
    /// Ours is in place, but this stood there.
    Instead(Vec<u8>),
    /// Ours is not in place: the file came or went.
    Again,
}

impl ResolvedPath {
    /// Follows symbolic links, each of which must be ours or the system's, as must all folders on the way:
    /// otherwise another user could lead us to a file of ours that is not meant.
    ///
    /// # Errors
    /// `PermissionDenied` with the path that somebody else owns; else what the system says.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut ahead: Vec<OsString> = words(&std::path::absolute(path)?);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        trusted(&here, &fs::symlink_metadata(&here)?)?;
        while let Some(word) = ahead.pop() {
            if word == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&word);
            let about = match fs::symlink_metadata(&next) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && ahead.is_empty() => {
                    return own_folder(here, word);
                }
                other => other.map_err(|error| at(&next, error))?,
            };
            if about.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refused(&next, "too many symbolic links"));
                }
                trusted(&next, &about)?;
                let target = fs::read_link(&next)?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                ahead.extend(words(&target));
            } else if ahead.is_empty() {
                return own_folder(here, word);
            } else {
                trusted(&next, &about)?;
                here = next;
            }
        }
        Err(refused(path, "no file name"))
    }

    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Hidden neighbours of the file: `.authorized_keys.noports-` and this.
    pub(super) fn beside(&self, what: &str) -> PathBuf {
        self.folder.join(self.neighbour(what))
    }

    fn neighbour(&self, what: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(".noports-");
        name.push(what);
        name
    }

    /// The endings of all neighbours there are.
    pub(super) fn neighbours(&self) -> io::Result<Vec<String>> {
        let nameless = self.neighbour("");
        let start = nameless.to_string_lossy();
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&*start)) {
                found.push(rest.to_owned());
            }
        }
        Ok(found)
    }

    /// Waits for the lock, which all our processes take before they touch the file.
    ///
    /// # Errors
    /// `TimedOut` after ten seconds; else what the system says.
    pub(super) fn lock(&self) -> io::Result<Lock> {
        let path = self.beside("lock");
        let until = Instant::now() + LOCK;
        loop {
            let opened = hidden().create(true).truncate(false).open(&path);
            let file = opened.map_err(|error| at(&path, error))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path)? => return Ok(Lock { file, path }),
                // Its last holder removed it; the name now means another file, or none.
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(at(&path, error)),
            }
            if Instant::now() > until {
                let held = "another program holds the lock";
                return Err(at(&path, io::Error::new(io::ErrorKind::TimedOut, held)));
            }
            thread::sleep(LOCK_AGAIN);
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// `PermissionDenied` when the file is not a plain one of ours; else what the system says.
    pub(super) fn read(&self) -> io::Result<Snapshot> {
        let path = self.path();
        match plain_file(&path) {
            Ok((file, about)) => {
                let bytes = content(&file).map_err(|error| at(&path, error))?;
                let file = Some((file, about));
                Ok(Snapshot { file, bytes })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Snapshot {
                file: None,
                bytes: Vec::new(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Puts `wanted` where `seen` was, with its mode and group.
    ///
    /// # Errors
    /// What the system says; the file is as it was then.
    pub(super) fn put(&self, seen: &Snapshot, wanted: &[u8]) -> io::Result<ExchangeOutcome> {
        let (path, new) = (self.path(), self.beside("new"));
        let about = seen.file.as_ref().map(|(_, about)| about);
        let written = write_beside(&new, wanted, about)
            .map_err(|error| at(&path, error))
            .and_then(|()| match &seen.file {
                None => bring(&new, &path),
                Some((file, about)) => exchange(&new, &path, file, about, &seen.bytes),
            });
        // After an exchange this is the old file; else one that did not get there.
        let _ = fs::remove_file(&new);
        if matches!(
            written,
            Ok(ExchangeOutcome::Done | ExchangeOutcome::Instead(_))
        ) {
            // What a power cut could undo now, the next start does again.
            let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        }
        written
    }
}

/// Held until dropped; then nothing is left of it.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // First the name, while it is still ours: whoever waits notices that it means another file.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// A hidden file that says "alive" as long as somebody holds it locked; a crash lets go of it.
///
/// # Errors
/// What the system says.
pub(super) fn hold(path: &Path) -> io::Result<File> {
    let file = hidden().create(true).truncate(false).open(path)?;
    file.try_lock()?;
    Ok(file)
}

/// Whether somebody holds this file.
pub(super) fn is_held(path: &Path) -> bool {
    match hidden().open(path) {
        Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

fn hidden() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options
}

fn words(path: &Path) -> Vec<OsString> {
    let words = path.components().filter_map(|part| match part {
        Component::Normal(word) => Some(word.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut words: Vec<_> = words.collect();
    words.reverse();
    words
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Ours, or the system's; and for root nothing that others may write to.
fn trusted(path: &Path, about: &Metadata) -> io::Result<()> {
    // Where root is somebody else's number (user namespaces), the root folder shows which.
    let system = fs::symlink_metadata("/").map_or(0, |root| root.uid());
    if ![me(), 0, system].contains(&about.uid()) {
        return Err(refused(path, "it belongs to another user"));
    }
    let (open, sticky) = (about.mode() & 0o022 != 0, about.mode() & 0o1000 != 0);
    if me() == 0 && about.is_dir() && open && !sticky {
        return Err(refused(path, "others may write there"));
    }
    Ok(())
}

fn own_folder(folder: PathBuf, name: OsString) -> io::Result<ResolvedPath> {
    let about = fs::symlink_metadata(&folder)?;
    trusted(&folder, &about)?;
    Ok(ResolvedPath { folder, name })
}

/// Opens a plain file of ours that has no other name.
fn plain_file(path: &Path) -> io::Result<(File, Metadata)> {
    let mut options = OpenOptions::new();
    // Without waiting: the name may stand for a pipe.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).custom_flags(flags.bits() as i32);
    let file = options.open(path).map_err(|error| at(path, error))?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(refused(path, "it is not a plain file"));
    }
    if about.uid() != me() {
        return Err(refused(path, "it belongs to another user"));
    }
    if about.nlink() > 1 {
        return Err(refused(path, "it has a second name (a hard link)"));
    }
    Ok((file, about))
}

fn content(file: &File) -> io::Result<Vec<u8>> {
    let (mut bytes, mut reader) = (Vec::new(), file);
    io::Seek::rewind(&mut reader)?;
    reader.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is too long",
        ));
    }
    Ok(bytes)
}

fn write_beside(new: &Path, bytes: &[u8], like: Option<&Metadata>) -> io::Result<()> {
    // Left by a crash: nobody else has it, as we hold the lock.
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)?;
    if let Some(like) = like {
        if file.metadata()?.gid() != like.gid() {
            fchown(&file, None, Some(like.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// For a file that was not there.
fn bring(new: &Path, path: &Path) -> io::Result<ExchangeOutcome> {
    match fs::hard_link(new, path) {
        Ok(()) => Ok(ExchangeOutcome::Done),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(ExchangeOutcome::Again),
        // A file system without second names.
        Err(_) => fs::rename(new, path).map(|()| ExchangeOutcome::Done),
    }
}

fn exchange(
    new: &Path,
    path: &Path,
    old: &File,
    about: &Metadata,
    bytes: &[u8],
) -> io::Result<ExchangeOutcome> {
    let now = fs::symlink_metadata(path);
    if !now.is_ok_and(|now| is_same(&now, about)) {
        return Ok(ExchangeOutcome::Again);
    }
    // Writing ours took a while; from here on it is microseconds.
    let swap = || renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE);
    match swap() {
        Ok(()) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(ExchangeOutcome::Again),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            return rename_over(new, path, old, bytes);
        }
        Err(error) => return Err(at(path, error.into())),
    }
    let Ok((found, now)) = plain_file(new) else {
        // Something else than a file of ours has come there meanwhile: it goes back.
        swap().map_err(|error| at(path, error.into()))?;
        return Ok(ExchangeOutcome::Again);
    };
    // Who had it open before still writes into this one; nobody can open it any more.
    let changed = || content(&found).is_ok_and(|found| found != bytes);
    writers::wait(new.as_os_str(), QUIET, changed);
    if now.mode() != about.mode() {
        fs::set_permissions(path, Permissions::from_mode(now.mode() & 0o7777))?;
    }
    verdict(content(&found)?, bytes)
}

/// Where two names cannot be exchanged: over it. What is written into the old file after that is still noticed.
fn rename_over(new: &Path, path: &Path, old: &File, bytes: &[u8]) -> io::Result<ExchangeOutcome> {
    fs::rename(new, path)?;
    let mut gone = path.as_os_str().to_owned();
    gone.push(" (deleted)");
    let changed = || content(old).is_ok_and(|found| found != bytes);
    writers::wait(&gone, QUIET, changed);
    verdict(content(old)?, bytes)
}

/// Whether nobody has touched the file since.
fn is_same(now: &Metadata, then: &Metadata) -> bool {
    let facts = |about: &Metadata| {
        let changed = (about.ctime(), about.ctime_nsec());
        (about.dev(), about.ino(), about.len(), changed)
    };
    facts(now) == facts(then)
}

fn verdict(found: Vec<u8>, bytes: &[u8]) -> io::Result<ExchangeOutcome> {
    Ok(if found == bytes {
        ExchangeOutcome::Done
    } else {
        ExchangeOutcome::Instead(found)
    })
}

/// Whether the name still means this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    Ok(fs::symlink_metadata(path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn refused(path: &Path, why: &str) -> io::Error {
    at(path, io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
