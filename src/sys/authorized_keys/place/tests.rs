use std::os::unix::fs::symlink;

use super::*;
use crate::testing::{Folder, at_a_pace};

#[test]
fn links_are_followed_to_the_end() {
    let folder = Folder::new();
    fs::create_dir(folder.path("real")).unwrap();
    fs::write(folder.path("real/keys"), "x").unwrap();
    symlink("real", folder.path("dir")).unwrap();
    symlink("../dir/keys", folder.path("real/link")).unwrap();
    symlink(folder.path("dir/link"), folder.path("absolute")).unwrap();
    let want = fs::canonicalize(folder.path("real/keys")).unwrap();
    for name in ["real/keys", "dir/keys", "real/link", "absolute"] {
        assert_eq!(
            ResolvedPath::of(&folder.path(name)).unwrap().path(),
            want,
            "{name}"
        );
    }
    let absent = ResolvedPath::of(&folder.path("dir/new")).unwrap().path();
    assert_eq!(absent, want.with_file_name("new"));
    symlink("loop", folder.path("loop")).unwrap();
    let error = ResolvedPath::of(&folder.path("loop"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("too many symbolic links"), "{error}");
}

#[test]
fn what_is_no_plain_file_of_ours_is_left_alone() {
    let folder = Folder::new();
    let file = folder.path("keys");
    let place = ResolvedPath::of(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(place.read().is_err(), "a folder");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "x").unwrap();
    fs::hard_link(&file, folder.path("second")).unwrap();
    let error = place.read().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("second name"), "{error}");
}

#[test]
#[ignore = "needs root: nobody else can give files away; packaging/test.sh runs it where it can"]
fn root_is_not_led_into_other_peoples_files() {
    let folder = Folder::new();
    let theirs = folder.path("home");
    fs::create_dir(&theirs).unwrap();
    fs::write(folder.path("keys"), "root's").unwrap();
    symlink(folder.path("keys"), theirs.join("link")).unwrap();
    fs::write(theirs.join("keys"), "theirs").unwrap();
    symlink(folder.path("keys"), folder.path("planted")).unwrap();
    for path in [theirs.clone(), theirs.join("keys")] {
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
    }
    std::os::unix::fs::lchown(folder.path("planted"), Some(12345), None).unwrap();
    for path in [
        theirs.join("keys"),
        theirs.join("link"),
        theirs.join("new"),
        folder.path("planted"),
    ] {
        let error = ResolvedPath::of(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{path:?}");
        assert!(error.to_string().contains("another user"), "{error}");
    }
    fs::set_permissions(&folder.0, Permissions::from_mode(0o777)).unwrap();
    let error = ResolvedPath::of(&folder.path("keys"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("others may write there"), "{error}");
}

#[test]
fn the_lock_is_one_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let place = ResolvedPath::of(&folder.path("keys")).unwrap();
    let held = place.lock().unwrap();
    let (other, counter) = (place.clone(), std::sync::Arc::new(0.into()));
    let count: std::sync::Arc<std::sync::atomic::AtomicUsize> = counter;
    let seen = count.clone();
    let waiting = thread::spawn(move || {
        let _held = other.lock().unwrap();
        seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
    });
    assert_eq!(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
    drop(held);
    assert_eq!(waiting.join().unwrap(), 1, "it waited for us");
    assert!(place.neighbours().unwrap().is_empty());
}

#[test]
fn what_somebody_else_put_there_in_between_comes_to_light() {
    let folder = Folder::new();
    let path = folder.path("keys");
    fs::write(&path, "old\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let place = ResolvedPath::of(&path).unwrap();

    let seen = place.read().unwrap();
    assert!(matches!(
        place.put(&seen, b"ours\n").unwrap(),
        ExchangeOutcome::Done
    ));
    assert_eq!(fs::read(&path).unwrap(), b"ours\n");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);

    // By renaming, before our last look and right behind it.
    let mut seen = place.read().unwrap();
    fs::write(folder.path("theirs"), "theirs\n").unwrap();
    fs::rename(folder.path("theirs"), &path).unwrap();
    assert!(matches!(
        place.put(&seen, b"x").unwrap(),
        ExchangeOutcome::Again
    ));
    if let Some((_, about)) = &mut seen.file {
        *about = fs::metadata(&path).unwrap();
    }
    let put = place.put(&seen, b"ours 2\n").unwrap();
    assert!(matches!(put, ExchangeOutcome::Instead(found) if found == b"theirs\n"));

    // In place, through a file that was opened before.
    let seen = place.read().unwrap();
    let mut late = OpenOptions::new().append(true).open(&path).unwrap();
    let new = place.beside("new");
    let writer = thread::spawn(move || {
        // Our version is in place, theirs is on its way to the old one.
        while !fs::read(&new).is_ok_and(|bytes| bytes == b"ours 2\n") {
            thread::yield_now();
        }
        // Well after the file was looked at: a pause is what must not deceive it.
        at_a_pace(4 * QUIET);
        late.write_all(b"late\n").unwrap();
    });
    let put = place.put(&seen, b"ours 3\n").unwrap();
    writer.join().unwrap();
    assert!(matches!(put, ExchangeOutcome::Instead(found) if found == b"ours 2\nlate\n"));

    // Gone.
    let seen = place.read().unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        place.put(&seen, b"x").unwrap(),
        ExchangeOutcome::Again
    ));
    // Come.
    let seen = place.read().unwrap();
    fs::write(&path, "theirs").unwrap();
    assert!(matches!(
        place.put(&seen, b"x").unwrap(),
        ExchangeOutcome::Again
    ));
    // A link in its place.
    let seen = place.read().unwrap();
    fs::rename(&path, folder.path("elsewhere")).unwrap();
    symlink("elsewhere", &path).unwrap();
    assert!(matches!(
        place.put(&seen, b"x").unwrap(),
        ExchangeOutcome::Again
    ));
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert!(place.neighbours().unwrap().is_empty());
}
