//! A service's lock beside its state file: only one process of it runs, and whoever asks sees which.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use log::debug;

use crate::sys::paths;

/// Longest text, in bytes; a peer may have a say in it.
const MAX_TEXT: usize = 200;
/// How long the process before us may take to be gone, after its service manager has seen it end.
const GONE_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who holds a service's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// There is no lock: nothing has run yet, or a version that took none.
    Unknown,
    /// Nobody: whoever had it has ended.
    Nobody,
    /// A process that lives; its number, if the kernel tells.
    Process(Option<u32>),
}

/// Takes the lock. `None`: nothing can be locked there.
pub(super) fn take(path: &Path) -> io::Result<Option<File>> {
    let file = match paths::open_lock(path) {
        Ok(file) => file,
        Err(why) => {
            debug!("lock=not_taken reason=\"{why}\"");
            return Ok(None);
        }
    };
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if began.elapsed() < GONE_WITHIN => {
                thread::sleep(LOOK_EVERY);
            }
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(why)) => {
                debug!("lock=not_taken reason=\"{why}\"");
                return Ok(None);
            }
        }
    }
}

/// Mode of the state file, and of the lock beside it.
pub(super) const ONLY_OURS: u32 = 0o600;

/// Who holds the lock beside a state file, for the person: `process 812 (flock) of user 1001`.
pub(super) fn who_holds(state: &Path) -> Option<String> {
    let inode = fs::metadata(lock_file(state)).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = listed(&locks, inode, &["WRITE", "READ"]).next()?;
    let mut who = format!("process {pid}");
    if let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) {
        who += &format!(" ({})", short(name.trim_end()));
    }
    if let Some(user) = owner_of(pid) {
        who += &format!(" of user {user}");
    }
    Some(who)
}

fn owner_of(pid: u32) -> Option<u32> {
    let about = fs::metadata(format!("/proc/{pid}")).ok()?;
    Some(about.uid())
}

/// Where the lock beside a state file lies.
pub fn lock_file(state: &Path) -> PathBuf {
    state.with_extension("lock")
}

/// Who holds the lock beside a state file.
pub fn holder(state: &Path) -> Holder {
    let lock = lock_file(state);
    // Whoever may not open it may still look.
    let Ok(about) = fs::metadata(&lock) else {
        return Holder::Unknown;
    };
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    // An outsider's lock does not make him the service.
    let serves = |pid: &u32| owner_of(*pid).is_none_or(|user| user == about.uid());
    if let Some(pid) = listed(&locks, about.ino(), &["WRITE"]).find(serves) {
        return Holder::Process(Some(pid));
    }
    let Ok(file) = File::open(&lock) else {
        return Holder::Unknown;
    };
    // Not every file system has the same number there.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Holder::Process(None),
        Err(TryLockError::Error(_)) => Holder::Unknown,
        Ok(()) => Holder::Nobody,
    }
}

/// The processes that have locked a file, by the kernel's list: `1: FLOCK  ADVISORY  WRITE 812 fe:00:131 0 EOF`.
fn listed(locks: &str, inode: u64, kinds: &[&str]) -> impl Iterator<Item = u32> {
    locks.lines().filter_map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, kind, pid, file, ..] = words.as_slice() else {
            return None;
        };
        let same = file.rsplit(':').next()?.parse() == Ok(inode);
        pid.parse().ok().filter(|_| same && kinds.contains(kind))
    })
}

/// One line that fits into a datagram and onto a screen.
pub(super) fn short(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        if line.len() + letter.len_utf8() > MAX_TEXT {
            line.push('…');
            break;
        }
        line.push(if letter.is_control() { ' ' } else { letter });
    }
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_lock_tells_who_runs_and_ends_with_him() {
        let folder = Folder::new();
        let state = folder.0.join("noports-x.state");
        assert_eq!(holder(&state), Holder::Unknown);
        let lock = take(&lock_file(&state)).unwrap();
        assert!(lock.is_some());
        let held = holder(&state);
        if cfg!(target_os = "linux") {
            assert!(
                [Some(std::process::id()), None]
                    .map(Holder::Process)
                    .contains(&held),
                "{held:?}"
            );
        }
        let second = take(&lock_file(&state)).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        assert_eq!(holder(&state), Holder::Nobody);
        assert!(take(Path::new("/nowhere/at/all")).unwrap().is_none());
    }

    #[test]
    fn nobody_else_can_open_the_lock() {
        let folder = Folder::new();
        let lock = folder.path("state.lock");
        let mode = |file: &Path| file.metadata().unwrap().mode() & 0o7777;
        drop(take(&lock).unwrap().unwrap());
        assert_eq!(mode(&lock), 0o600);
        // What an earlier version left is narrowed, and what leads elsewhere is let alone.
        for wide in [0o644, 0o666, 0o4777] {
            let opened = std::os::unix::fs::PermissionsExt::from_mode(wide);
            fs::set_permissions(&lock, opened).unwrap();
            drop(take(&lock).unwrap().unwrap());
            assert_eq!(mode(&lock), 0o600, "{wide:o}");
        }
        fs::remove_file(&lock).unwrap();
        let elsewhere = folder.path("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, &lock).unwrap();
        assert!(take(&lock).unwrap().is_none());
        assert!(!elsewhere.exists());
    }

    #[test]
    fn an_outsiders_lock_is_not_the_services() {
        // Somebody else's file, of which we hold a lock that is shared.
        let folder = Folder::new();
        let state = folder.path("noports-x.state");
        let lock = lock_file(&state);
        let file = paths::open_lock(&lock).unwrap();
        file.lock_shared().unwrap();
        let second = take(&lock).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        let root = rustix::process::geteuid().is_root();
        if root && std::os::unix::fs::chown(&lock, Some(65534), None).is_ok() {
            assert_ne!(holder(&state), Holder::Process(Some(std::process::id())));
            assert!(take(&lock).unwrap().is_none(), "not ours");
        }
    }

    #[test]
    fn the_kernels_list_of_locks_is_read() {
        let list = "1: POSIX  ADVISORY  WRITE 7 fe:00:131 0 EOF\n2: FLOCK  ADVISORY  READ 8 fe:00:131 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 9 fe:00:131 0 EOF\n3: FLOCK  ADVISORY  WRITE 812 fe:00:131 0 EOF\n";
        // A lock that is shared keeps the service out, too; one that waits, or of another kind, does not.
        let both = &["WRITE", "READ"];
        assert_eq!(listed(list, 131, both).collect::<Vec<_>>(), [8, 812]);
        assert_eq!(listed(list, 131, &["WRITE"]).next(), Some(812));
        assert_eq!(listed(list, 31, both).next(), None);
        assert_eq!(listed("", 131, both).next(), None);
    }

    #[test]
    fn texts_are_cut_at_a_letter() {
        let long = "ü".repeat(MAX_TEXT);
        let cut = short(&long);
        assert!(
            cut.len() <= MAX_TEXT + '…'.len_utf8() && cut.ends_with("ü…"),
            "{cut}"
        );
    }
}
