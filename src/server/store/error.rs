//! Why the store cannot be used, and what to try next.

use std::{io, path::PathBuf, sync::Arc};

/// What to try when the disk is full, and how the system names that in the database's words.
const ROOM: &str = "make room on the disk";
const FULL: &str = "(os error 28)";

/// Why the store cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the folder.
    #[error("the data folder {0} is in use by another process")]
    InUse(PathBuf),
    /// The file is there but cannot be read as a store.
    #[error("the store {0} is damaged: {1}")]
    Damaged(PathBuf, String),
    /// Written by a version of this program that came later.
    #[error("the store {0} was written by a newer version of this program")]
    Newer(PathBuf),
    /// The folder or the file cannot be made or opened.
    #[error("cannot use {0}: {1}")]
    Folder(PathBuf, Arc<io::Error>),
    /// The disk failed.
    #[error("the store failed: {0}")]
    Disk(String),
    /// Too little room on the disk to write safely; nothing was changed.
    #[error("the disk is full")]
    Full,
    /// A restore would replace what is there.
    #[error("the data folder {0} is not empty")]
    NotEmpty(PathBuf),
    /// A backup never replaces a file.
    #[error("{0} already exists")]
    Exists(PathBuf),
    /// No backup, or one that was changed since.
    #[error("{0} is not a complete backup: {1}")]
    BadBackup(PathBuf, String),
    /// A row that this program did not write.
    #[error("a row of the store cannot be read")]
    Row,
    /// A reading transaction was asked to write: a mistake in this program.
    #[error("a reading transaction cannot write")]
    ReadOnly,
    /// The closure panicked; nothing of it was kept.
    #[error("a transaction was given up")]
    GivenUp,
    /// Others changed the same rows, again and again.
    #[error("too many others change the same")]
    Contended,
    /// There is nothing to make a new id of.
    #[error("the system gave no random bytes")]
    Random,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What to try next.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::InUse(_) => "stop the other `noports atserver serve` on this folder",
            Self::Damaged(..) => "restore it from a backup; nothing has been changed",
            Self::Newer(_) => "install the newer version, or start with another --data folder",
            Self::Folder(_, why) if why.kind() == io::ErrorKind::StorageFull => ROOM,
            Self::Disk(why) if why.contains(FULL) => ROOM,
            Self::Folder(..) => "check that the folder exists, and that this user may write to it",
            Self::Disk(_) => "check the disk",
            Self::Full => {
                "make room; the server goes on by itself, and what it acknowledged is safe"
            }
            Self::NotEmpty(_) => {
                "choose another --data folder; or add --force: the old store is kept beside the new one"
            }
            Self::Exists(_) => "choose another name",
            Self::BadBackup(..) => "use another backup; nothing has been changed",
            _ => return None,
        })
    }
}
