//! What the tests of several rooms need.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};

/// A pipe with a name: whoever opens it the usual way waits for the other end.
pub fn named_pipe(folder: &Path) -> PathBuf {
    let path = folder.join("pipe");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}
