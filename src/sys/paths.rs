//! Where files live, and how they are replaced.

use std::{
    env,
    ffi::OsString,
    fs,
    fs::{File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use super::supervisor::STATE_FILE;

/// The person's home folder: `$HOME`, else what the system's list of users says.
pub fn home() -> Option<PathBuf> {
    env::home_dir().filter(|home| home.is_absolute())
}

/// Names the folder in which programs remember what must outlive them.
pub const MEMORY: &str = "NOPORTS_MEMORY";
/// Where that folder is below a home. Not below `/var`, which small devices keep in memory.
pub const MEMORY_AT_HOME: &str = ".local/state/noports";

/// The folder in which programs remember what must outlive them: `NOPORTS_MEMORY`, else where the person's programs keep
/// such things. `None`: nowhere.
pub fn memory() -> Option<PathBuf> {
    if let Some(folder) = named(MEMORY) {
        return Some(folder.into());
    }
    let states = named("XDG_STATE_HOME").map(PathBuf::from);
    match states.filter(|folder| folder.is_absolute()) {
        Some(states) => Some(states.join("noports")),
        None => home().map(|home| home.join(MEMORY_AT_HOME)),
    }
}

fn named(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

/// Names the folder for what lives as long as processes do.
pub const RUNTIME: &str = "NOPORTS_RUNTIME";

/// The folder for what lives as long as processes do, such as sockets: `NOPORTS_RUNTIME`, else beside the service's state
/// file, else where the system has such things of this user, else where the memory is. `None`: nowhere.
pub fn runtime() -> Option<PathBuf> {
    if let Some(folder) = named(RUNTIME) {
        return Some(folder.into());
    }
    if let Some(state) = named(STATE_FILE) {
        return Some(Path::new(&state).parent()?.to_owned());
    }
    let me = rustix::process::geteuid();
    let of_user = || PathBuf::from(format!("/run/user/{}", me.as_raw()));
    let place = named("XDG_RUNTIME_DIR").map_or_else(of_user, PathBuf::from);
    if place.is_absolute() && is_private(&place) {
        return Some(place.join("noports"));
    }
    if me.is_root() {
        return Some("/run/noports".into());
    }
    memory().map(|folder| folder.join("run"))
}

/// The folder of the bridges' control sockets, below that one.
pub fn bridges(runtime: &Path) -> PathBuf {
    runtime.join("bridges")
}

/// Whether this is a folder of this user, and closed to others.
pub fn is_private(folder: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    fs::metadata(folder)
        .is_ok_and(|about| about.is_dir() && about.uid() == me && about.mode() & 0o077 == 0)
}

/// Makes a folder that only its owner can look into, with those above it.
///
/// # Errors
/// What the system says; a folder that exists is fine and stays as it is.
pub fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// How long [`lock_soon`] waits, and how often it looks.
const LOCKED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Only this user's.
const MODE_OF_LOCK: u32 = 0o600;

/// A lock file that nobody else can open: whoever reads a file may lock it, and so keep others from their work. What is in
/// it stays, and a symbolic link is not followed.
///
/// # Errors
/// What the system says, or that it is another user's.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let file = open_lock_of_anybody(path)?;
    let about = file.metadata()?;
    if about.uid() != rustix::process::geteuid().as_raw() {
        let why = format!("{} belongs to user {}", path.display(), about.uid());
        return Err(io::Error::other(why));
    }
    // One of an earlier version, or of a wider umask.
    if about.mode() & 0o7777 != MODE_OF_LOCK {
        file.set_permissions(Permissions::from_mode(MODE_OF_LOCK))?;
    }
    Ok(file)
}

/// The same in a folder that is closed to others, whoever it belongs to.
///
/// # Errors
/// What the system says, or that it is no file.
pub fn open_lock_of_anybody(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true).mode(MODE_OF_LOCK);
    let file = options
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no file", path.display())));
    }
    Ok(file)
}

/// Takes a lock that nobody holds for long.
///
/// # Errors
/// What the system says, or that somebody does.
pub fn lock_soon(lock: &File) -> io::Result<()> {
    let end = Instant::now() + LOCKED_WITHIN;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(LOOK_EVERY),
            other => return other.map_err(Into::into),
        }
    }
}

/// Puts `bytes` at `path` as a whole or not at all, with these permission bits, safe against a power cut.
/// A symbolic link stays one: what it points to is replaced.
///
/// # Errors
/// What the system says, with the path, or that there is no file there; the old content is untouched then.
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    replace(&target, bytes, mode)
}

/// As [`atomic_write`], where a symbolic link was put by somebody else: it is replaced itself.
///
/// # Errors
/// As [`atomic_write`].
pub fn replace(target: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let with_path = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot write {}: {error}", target.display()),
        )
    };
    let there = fs::symlink_metadata(target).map(|about| about.file_type());
    if there.is_ok_and(|kind| !kind.is_file() && !kind.is_symlink()) {
        return Err(with_path(io::Error::other("it is no file")));
    }
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Some(name) = target.file_name() else {
        return Err(with_path(io::ErrorKind::InvalidInput.into()));
    };
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let temporary = folder.join(format!(".{}.{pid}.{serial}", name.display()));
    let replaced = write_through(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, target))
        .and_then(|()| File::open(folder)?.sync_all());
    replaced.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        with_path(error)
    })
}

fn write_through(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // Not left to the open: that would be subject to the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Tells apart temporary files of one process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_is_left_over() {
        let folder = Folder::new();
        let path = folder.0.join("file");
        for (bytes, mode) in [(&b"one"[..], 0o600), (b"two and more", 0o644), (b"", 0o600)] {
            atomic_write(&path, bytes, mode).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
                mode
            );
            assert_eq!(folder.names(), ["file"]);
        }
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let folder = Folder::new();
        let (target, link) = (folder.0.join("target"), folder.0.join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        atomic_write(&link, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    /// What a link led to was overwritten, and a pipe or a device, `/dev/null` too, gave way to a file.
    #[test]
    fn a_planted_link_is_replaced_itself_and_what_is_no_file_stays() {
        let folder = Folder::new();
        let (target, link) = (folder.0.join("target"), folder.0.join("link"));
        let pipe = crate::testing::named_pipe(&folder.0);
        fs::write(&target, "theirs").unwrap();
        for goal in [&target, &pipe, &folder.0.join("none")] {
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(goal, &link).unwrap();
            replace(&link, b"ours", 0o600).unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_file());
        }
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        for write in [replace, atomic_write] {
            let refused = write(&pipe, b"ours", 0o600).unwrap_err().to_string();
            assert!(refused.ends_with("pipe: it is no file"), "{refused}");
        }
    }

    #[test]
    fn a_refusal_names_the_path_and_keeps_what_was_there() {
        let folder = Folder::new();
        let path = folder.0.join("no-such-folder").join("file");
        let error = atomic_write(&path, b"x", 0o600).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        let taken = folder.0.join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(atomic_write(&taken, b"x", 0o600).is_err());
        assert_eq!(folder.names(), ["taken"]);
    }

    #[test]
    fn a_private_folder_is_closed_to_others() {
        let folder = Folder::new();
        let inner = folder.0.join("a").join("b");
        private_folder(&inner).unwrap();
        private_folder(&inner).unwrap();
        assert_eq!(
            fs::metadata(&inner).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
}
