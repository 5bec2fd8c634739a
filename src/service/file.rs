//! A service's file, and the folders around it. What we did not write is never replaced unasked.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use crate::{
    cli::Failure,
    sys::{
        file::{NamedFile, SMALL},
        paths,
        user::Person,
    },
};

/// Stands in every file that we wrote; a file without it is left alone.
pub(super) const MARK: &str =
    "Written by noports, by the word install. The next install replaces this file.";
/// How far into a file the mark may stand.
const MARK_WITHIN: usize = 600;

/// What a service's file is about to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// There is none yet.
    New,
    /// It is there, and ours, and says something else.
    Other,
    /// It is already as it should be.
    None,
}

/// Compares with what is there.
///
/// # Errors
/// When a file of somebody else's is in the way, unless `force`.
pub fn compare(file: &Path, text: &str, force: bool) -> Result<FileChange, Failure> {
    let shown = file.display();
    let bytes = match NamedFile::open(file).and_then(|file| file.bytes(SMALL)) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(FileChange::New),
        Err(why) => return Err(Failure::plain(format!("cannot read {shown}: {why}"))),
    };
    let there = String::from_utf8_lossy(&bytes);
    if there == text {
        return Ok(FileChange::None);
    }
    if force || is_ours(&there) {
        return Ok(FileChange::Other);
    }
    Err(
        Failure::plain(format!("{shown} was not written by noports"))
            .hint("look at it; --force replaces it, --instance NAME takes another name"),
    )
}

/// Whether we wrote this file.
pub(super) fn is_ours(text: &str) -> bool {
    let head: String = text.chars().take(MARK_WITHIN).collect();
    head.contains(MARK)
}

/// Writes the service's file, making the folders above it.
///
/// # Errors
/// With the path.
pub fn write(file: &Path, text: &str) -> Result<(), Failure> {
    folder(file.parent().unwrap_or(Path::new("/")))?;
    // A script is run, all others are read.
    let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
    paths::atomic_write(file, text.as_bytes(), mode).map_err(|why| Failure::plain(why.to_string()))
}

/// Removes a service's file.
///
/// # Errors
/// With the path.
pub fn remove(file: &Path) -> Result<(), Failure> {
    fs::remove_file(file)
        .map_err(|why| Failure::plain(format!("cannot remove {}: {why}", file.display())))
}

/// Makes a folder, and those above it.
///
/// # Errors
/// With the path.
pub fn folder(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|why| cannot_make(path, &why))
}

/// Makes a folder that the service writes to, and gives it to whom it runs as. One that exists stays as it is.
///
/// # Errors
/// With the path.
pub fn folder_for(path: &Path, person: &Person) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let new: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
    let make = || {
        paths::private_folder(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        if rustix::process::geteuid().is_root() {
            // Those above it, too: nobody else's may stand in somebody's home.
            for folder in new {
                chown(folder, Some(person.uid), Some(person.gid))?;
            }
        }
        Ok(())
    };
    make().map_err(|why| cannot_make(path, &why))
}

fn cannot_make(path: &Path, why: &io::Error) -> Failure {
    Failure::plain(format!("cannot make {}: {why}", path.display()))
}

/// Makes a link, and the folders above it.
///
/// # Errors
/// With the path.
pub fn link(link: &Path, to: &Path) -> Result<(), Failure> {
    folder(link.parent().unwrap_or(Path::new("/")))?;
    let _ = fs::remove_file(link);
    symlink(to, link).map_err(|why| cannot_make(link, &why))
}

/// What the kernel calls the file of a running program that is there no more.
pub(super) fn removed(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(" (deleted)");
    name.into()
}

/// A path below another one.
pub fn below(folder: Option<&Path>, path: &Path) -> PathBuf {
    match folder {
        Some(folder) => folder.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}
