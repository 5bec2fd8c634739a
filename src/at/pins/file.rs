//! The file of remembered keys: read and changed under a lock, and only where nobody else can write it.

use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    MOST,
    known::{KnownKeys, MAX_NOTES},
};
use crate::sys::{
    file::{self, Writers},
    paths,
};

/// Room for all keys, whose atSigns have 55 characters of up to four bytes, and for all notes.
const MAX_FILE: u64 = (MOST * 300 + MAX_NOTES) as u64;
/// The file's name.
pub(super) const FILE: &str = "known_keys";
/// Only this user's.
pub(super) const MODE: u32 = 0o600;

/// Tells whether a file is still the same one, and nobody has written it. No program of ours writes it in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    /// Of its content, and of its owner and mode: seconds and nanoseconds.
    changed: [(i64, i64); 2],
}

impl FileVersion {
    fn of(about: &fs::Metadata) -> Self {
        Self {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            changed: [
                (about.mtime(), about.mtime_nsec()),
                (about.ctime(), about.ctime_nsec()),
            ],
        }
    }
}

/// Where the keys are remembered; `None`: nowhere.
#[derive(Debug)]
pub(super) struct KnownKeysFile(Option<PathBuf>);

impl KnownKeysFile {
    pub(super) fn in_folder(folder: Option<PathBuf>) -> Self {
        Self(folder.map(|folder| folder.join(FILE)))
    }

    /// The file as it is now; `None`: there is none.
    pub(super) fn version(&self) -> io::Result<Option<FileVersion>> {
        let Some(file) = &self.0 else {
            return Ok(None);
        };
        match ours(file) {
            Ok(about) => Ok(Some(FileVersion::of(&about))),
            Err(missing) if is_missing(&missing) => Ok(None),
            Err(why) => Err(with_path(file, &why)),
        }
    }

    /// All that are remembered.
    ///
    /// # Errors
    /// When there is a file that cannot be read, or that others can write.
    pub(super) fn read(&self) -> io::Result<KnownKeys> {
        let Some(file) = &self.0 else {
            return Ok(BTreeMap::new());
        };
        let read = ours(file).and_then(|_| file::text_now(file, MAX_FILE));
        let text = match read {
            Err(missing) if is_missing(&missing) => String::new(),
            read => read.map_err(|why| with_path(file, &why))?,
        };
        let bad = |line: &str| {
            let text = format!("{}: {line:?} is no key", file.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let pairs = lines.map(|line| {
            let (who, known) = line.split_once(' ').ok_or_else(|| bad(line))?;
            let who = who.parse().map_err(|_| bad(line))?;
            Ok((who, known.parse().map_err(|_| bad(line))?))
        });
        pairs.collect()
    }

    /// One program at a time: two that change it at once would each forget what the other one wrote.
    pub(super) fn change(&self, change: impl FnOnce(&mut KnownKeys)) -> io::Result<()> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "there is no folder for them");
        let file = self.0.as_ref().ok_or_else(none)?;
        if let Some(folder) = file.parent() {
            paths::private_folder(folder).map_err(|why| with_path(folder, &why))?;
        }
        let beside = file.with_extension("lock");
        let lock = paths::open_lock(&beside);
        let locked = lock.and_then(|lock| paths::lock_soon(&lock).map(|()| lock));
        let _lock = locked.map_err(|why| with_path(&beside, &why))?;
        let before = self.read()?;
        let mut all = before.clone();
        change(&mut all);
        if all == before {
            return Ok(());
        }
        let lines = all.iter().map(|(who, known)| format!("{who} {known}\n"));
        let text = lines.collect::<String>();
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::other(format!("{} is full", file.display())));
        }
        paths::atomic_write(file, text.as_bytes(), MODE)
    }
}

/// Whoever can write a file, or replace it in its folder, decides whose key is believed.
fn ours(file: &Path) -> io::Result<fs::Metadata> {
    file.parent()
        .map_or(Ok(()), |folder| only_ours(folder).map(drop))?;
    only_ours(file)
}

fn only_ours(path: &Path) -> io::Result<fs::Metadata> {
    let about = match fs::metadata(path) {
        // What it leads to may come back: it is not as if nothing had been remembered.
        Err(why) if path.is_symlink() => {
            let text = format!("{} leads nowhere: {why}", path.display());
            return Err(io::Error::other(text));
        }
        about => about?,
    };
    file::refuse_others(path, &about, Writers::Nobody).map_err(|why| {
        let text = format!("{}: {why}", path.display());
        io::Error::new(why.kind(), text)
    })?;
    Ok(about)
}

/// Names what the system does not name, and who named it.
fn with_path(path: &Path, why: &io::Error) -> io::Error {
    let (mut text, path) = (why.to_string(), path.display().to_string());
    if !text.contains(&path) {
        text = format!("{path}: {text}");
    }
    if let Some(folder) = env::var_os(paths::MEMORY).filter(|folder| !folder.is_empty()) {
        text = format!("{}={}: {text}", paths::MEMORY, folder.display());
    }
    io::Error::new(why.kind(), text)
}

/// There is no such file, or no folder for it.
fn is_missing(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
