//! A key file while it is in the making.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::keystore;
use crate::{
    at::{AtSign, keyfile::AtKeys},
    sys::paths,
};

use super::{Failure, Phrases, exit};

const ELSEWHERE: &str = "choose another place: --keys FILE";

/// A key file before it has its name. A run that dies leaves it to the next one.
#[derive(Debug)]
pub struct DraftKeyFile {
    /// Beside the key file.
    pub path: PathBuf,
    phrases: Phrases,
}

impl DraftKeyFile {
    /// The draft of an atSign's first key file: `@alice_key.atKeys.new`.
    pub fn of(file: &Path) -> Self {
        Self::at(with_suffix(file, ".new"))
    }

    /// The draft of a key file that has been asked for: `@alice_key.atKeys.asked`.
    pub fn asked(file: &Path) -> Self {
        Self::at(with_suffix(file, ".asked"))
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            phrases: Phrases::default(),
        }
    }

    /// Protected, where there is a phrase.
    pub fn under(self, phrases: &Phrases) -> Self {
        Self {
            phrases: phrases.clone(),
            ..self
        }
    }

    /// What an earlier run left.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, who: &AtSign) -> Result<Option<AtKeys>, Failure> {
        if !self.path.exists() {
            return Ok(None);
        }
        let phrase = || self.phrases.for_reading(&self.path);
        keystore::unlock(&self.path, who, phrase)
            .map(Some)
            .map_err(|failure: Failure| {
                // A draft is renamed into place whole, so this is not one of ours that was cut off.
                failure.hint(format!(
                    "if {} holds nothing you need, remove it and start again",
                    self.path.display()
                ))
            })
    }

    /// All or nothing: a crash leaves the old draft, the new one, or none.
    ///
    /// # Errors
    /// [`exit::KEYS`].
    pub fn write(&self, keys: &AtKeys) -> Result<(), Failure> {
        keystore::save(keys, &self.path, self.phrases.known())
            .map_err(|why| Failure::from(why).hint(ELSEWHERE))
    }

    /// The draft becomes the key file.
    ///
    /// # Errors
    /// [`exit::KEYS`].
    pub fn publish(&self, file: &Path) -> Result<(), Failure> {
        fs::rename(&self.path, file)
            .and_then(|()| fs::File::open(folder_of(file))?.sync_all())
            .map_err(|why| {
                cannot_write(file, &why).hint(format!("the keys are in {}", self.path.display()))
            })
    }

    /// Forgets it: nothing in it is of use any more.
    pub fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Lets one run at a time make or change a key file: two that make keys would each overwrite the other's draft, and the
/// atServer trusts only one of them. The lock is `FILE.lock`, which goes with it.
#[derive(Debug)]
pub struct KeyFileLock {
    path: PathBuf,
    /// Held until it is closed, which is after the file has gone.
    _held: File,
}

impl KeyFileLock {
    /// Takes it; the key file's folder is made if need be.
    ///
    /// # Errors
    /// [`exit::KEYS`]: another run has it, or it cannot be made.
    pub fn take(file: &Path) -> Result<Self, Failure> {
        let path = with_suffix(file, ".lock");
        loop {
            let held = paths::private_folder(folder_of(file))
                .and_then(|()| paths::open_lock(&path))
                .map_err(|why| cannot_write(file, &why))?;
            match held.try_lock() {
                // Whoever had it may have removed it since we opened it.
                Ok(()) if is_at(&held, &path) => return Ok(Self { path, _held: held }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(at_work(file)),
                Err(TryLockError::Error(why)) => return Err(cannot_write(file, &why)),
            }
        }
    }
}

impl Drop for KeyFileLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether this open file is the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |about: fs::Metadata| (about.dev(), about.ino());
    let there = fs::symlink_metadata(path).map(place);
    file.metadata()
        .is_ok_and(|about| there.is_ok_and(|there| there == place(about)))
}

fn at_work(file: &Path) -> Failure {
    let text = format!("another run is at work on the key file {}", file.display());
    Failure::new(exit::KEYS, text).hint("wait until it has ended")
}

/// Refuses to go on where a key file is in the way.
///
/// # Errors
/// [`exit::KEYS`].
pub fn refuse_overwriting(file: &Path) -> Result<(), Failure> {
    if !file.exists() {
        return Ok(());
    }
    Err(Failure::new(
        exit::KEYS,
        format!("there is already a key file: {}", file.display()),
    )
    .hint("move it away, or write the new one elsewhere with --keys FILE"))
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn cannot_write(file: &Path, why: &io::Error) -> Failure {
    Failure::new(
        exit::KEYS,
        format!("cannot write the key file {}: {why}", file.display()),
    )
    .hint(ELSEWHERE)
}
