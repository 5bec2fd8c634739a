//! The authority's files: whole or absent, old or new, at any moment.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::error::AuthorityError;
use crate::sys::file::text_now;

/// Largest file read, in bytes; real ones have under 1 000.
const MAX_FILE: u64 = 64 * 1024;

/// Puts a text in the place of a file, which is the old or the new one at any moment.
pub(super) fn replace(file: &Path, text: &str) -> Result<(), AuthorityError> {
    let draft = file.with_extension("next");
    let _ = fs::remove_file(&draft);
    write_new(&draft, text.as_bytes(), 0o644)?;
    fs::rename(&draft, file).map_err(|why| AuthorityError::Unwritable {
        file: file.to_owned(),
        why,
    })
}

/// A small text file; `None` when there is none.
pub(super) fn read(file: &Path) -> Result<Option<String>, AuthorityError> {
    let unreadable = |why| AuthorityError::Unreadable {
        file: file.to_owned(),
        why,
    };
    match text_now(file, MAX_FILE) {
        Ok(text) => Ok(Some(text)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(unreadable(why)),
    }
}

/// Writes a file so that it is either whole or absent, and never takes the place of another.
pub(super) fn write_new(file: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let draft = file.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&draft); // of a process that died and had the same number
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut out| {
            out.set_permissions(fs::Permissions::from_mode(mode))?;
            out.write_all(bytes)?;
            out.sync_all()
        })
        .and_then(|()| publish(&draft, file));
    let _ = fs::remove_file(&draft);
    written.map_err(|why| AuthorityError::Unwritable {
        file: file.to_owned(),
        why,
    })
}

/// Gives a finished draft its name, unless somebody else's has it by now.
fn publish(draft: &Path, file: &Path) -> io::Result<()> {
    match fs::hard_link(draft, file) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
        Err(_) => fs::rename(draft, file)?, // a file system without hard links
        Ok(()) => {}
    }
    match file.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
