//! The key file while it is in the making.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    at::{AtSign, keyfile::AtKeys},
    cmd::{
        common::{Failure, exit},
        keystore,
    },
};

const ELSEWHERE: &str = "choose another place: --keys FILE";

/// The key file before it has its name: `@alice_key.atKeys.new`.
pub struct Draft(pub PathBuf);

impl Draft {
    /// The draft of this key file.
    pub fn of(file: &Path) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(".new");
        Self(name.into())
    }

    /// What an earlier run left.
    pub fn read(&self, who: &AtSign) -> Result<Option<AtKeys>, Failure> {
        if !self.0.exists() {
            return Ok(None);
        }
        keystore::load(&self.0, who).map(Some).map_err(|why| {
            // A draft is renamed into place whole, so this is not one of ours that was cut off.
            Failure::from(why).hint("if it holds nothing you need, remove it and start again")
        })
    }

    /// All or nothing: a crash leaves the old draft, the new one, or none.
    pub fn write(&self, keys: &AtKeys) -> Result<(), Failure> {
        keystore::save(keys, &self.0).map_err(|why| Failure::from(why).hint(ELSEWHERE))
    }

    /// The draft becomes the key file.
    pub fn publish(&self, file: &Path) -> Result<(), Failure> {
        fs::rename(&self.0, file)
            .and_then(|()| fs::File::open(folder_of(file))?.sync_all())
            .map_err(|why| {
                cannot_write(file, &why).hint(format!("the keys are in {}", self.0.display()))
            })
    }
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
