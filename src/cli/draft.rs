//! A key file while it is in the making.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::keystore;
use crate::at::{AtSign, keyfile::AtKeys};

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
        Self::with_suffix(file, ".new")
    }

    /// The draft of a key file that has been asked for: `@alice_key.atKeys.asked`.
    pub fn asked(file: &Path) -> Self {
        Self::with_suffix(file, ".asked")
    }

    fn with_suffix(file: &Path, suffix: &str) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        Self {
            path: name.into(),
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
