//! Who is still writing to a file? As far as `/proc` shows it: our own user's processes, for root all.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Longest wait for somebody to close the file. An editor needs milliseconds; who needs longer has forgotten it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(2);

/// Waits until nobody has the file open for writing under this name (as the kernel shows it). Writers that cannot
/// be seen, such as those in another container, have `at_least` this long, unless it has `changed` before.
pub(super) fn wait(name: &OsStr, at_least: Duration, changed: impl Fn() -> bool) {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let quiet = began.elapsed() >= at_least || changed();
        if quiet && !is_written(name) {
            return;
        }
        thread::sleep(AGAIN);
    }
}

fn is_written(name: &OsStr) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        let number = process.file_name();
        number.as_encoded_bytes().iter().all(u8::is_ascii_digit)
            && is_written_by(&process.path(), name)
    })
}

fn is_written_by(process: &Path, name: &OsStr) -> bool {
    // Gone meanwhile, or not ours to look into.
    let Ok(open) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    open.flatten().any(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == name)
            && may_write(&process.join("fdinfo").join(descriptor.file_name()))
    })
}

/// The flags it was opened with, octal; the last two bits say for what.
fn may_write(info: &Path) -> bool {
    let info = fs::read_to_string(info).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.is_some_and(|flags| !flags.trim_end().ends_with(['0', '4']))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{File, OpenOptions};

    use super::*;
    use crate::testing::Folder;

    #[test]
    fn writers_are_seen_and_readers_are_not() {
        let folder = Folder::new();
        let path = fs::canonicalize(&folder.0).unwrap().join("file");
        fs::write(&path, "x").unwrap();
        let name = path.as_os_str();
        let _reader = File::open(&path).unwrap();
        assert!(!is_written(name));
        for options in [
            OpenOptions::new().append(true),
            OpenOptions::new().write(true),
            OpenOptions::new().read(true).write(true),
        ] {
            let writer = options.open(&path).unwrap();
            assert!(is_written(name), "{options:?}");
            drop(writer);
            assert!(!is_written(name), "{options:?}");
        }
    }
}
