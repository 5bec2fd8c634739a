use std::{
    fs::{OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use uuid::Uuid;

use super::*;
use crate::testing::{Folder, at_a_pace};

const KEY: &str =
    "command=\"echo \\\"x\\\";sleep 20\",PermitOpen=\"localhost:22\" ssh-ed25519 AAAAC3";

fn session() -> String {
    Uuid::new_v4().to_string()
}

#[test]
fn a_session_comes_and_goes() {
    let folder = Folder::new();
    let path = folder.path("authorized_keys");
    let keys = AuthorizedKeys::at(&path);
    for (original, during) in [
        ("", "KEY\n"),
        ("ssh-rsa AAAA me\n", "ssh-rsa AAAA me\nKEY\n"),
        ("ssh-rsa AAAA me", "ssh-rsa AAAA me\nKEY"),
    ] {
        for line in [KEY.to_owned(), format!("{KEY} {MARK}SESSION")] {
            fs::write(&path, original).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            let id = session();
            keys.add_session_key(&line.replace("SESSION", &id), &id)
                .unwrap();
            let want = during.replace("KEY", &format!("{KEY} {MARK}{id}"));
            assert_eq!(fs::read_to_string(&path).unwrap(), want);
            keys.add_session_key(KEY, &id).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), want, "twice is once");
            keys.remove_session(&id).unwrap();
            keys.remove_session(&id).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), original);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        }
    }
    assert_eq!(folder.names(), ["authorized_keys"]);
}

#[test]
fn a_file_that_was_not_there_is_left_empty_and_private() {
    let folder = Folder::new();
    let path = folder.path(".ssh/authorized_keys");
    let (keys, id) = (AuthorizedKeys::at(&path), session());
    keys.remove_session(&id).unwrap();
    assert_eq!(keys.remove_stale().unwrap(), 0);
    assert!(folder.names().is_empty(), "looking makes nothing");
    keys.add_session_key(KEY, &id).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&folder.path(".ssh")), mode(&path)), (0o700, 0o600));
    keys.remove_session(&id).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn a_symbolic_link_stays_one() {
    let folder = Folder::new();
    let (real, link) = (folder.path("real"), folder.path("link"));
    fs::write(&real, "a").unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    let (keys, id) = (AuthorizedKeys::at(&link), session());
    keys.add_session_key(KEY, &id).unwrap();
    assert!(fs::read_to_string(&real).unwrap().contains(&id));
    keys.remove_session(&id).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&real).unwrap(), b"a");
}

#[test]
fn what_a_crash_left_behind_goes_and_living_sessions_stay() {
    let folder = Folder::new();
    let path = folder.path("authorized_keys");
    fs::write(&path, "a").unwrap();
    let [ours, theirs, crashed] = [session(), session(), session()];
    let (daemon, other) = (AuthorizedKeys::at(&path), AuthorizedKeys::at(&path));
    daemon.add_session_key(KEY, &ours).unwrap();
    other.add_session_key(KEY, &theirs).unwrap();
    let gone = AuthorizedKeys::at(&path);
    gone.add_session_key(KEY, &crashed).unwrap();
    assert_eq!(daemon.remove_stale().unwrap(), 0, "all three live");
    // What the system does for a process that ends: its locks go, its files stay.
    drop(gone);
    assert_eq!(daemon.remove_stale().unwrap(), 1);
    let now = fs::read_to_string(&path).unwrap();
    assert!(now.contains(&ours) && now.contains(&theirs) && !now.contains(&crashed));
    drop((daemon, other));
    fs::write(folder.path(".authorized_keys.noports-new"), "half").unwrap();
    assert_eq!(AuthorizedKeys::at(&path).remove_stale().unwrap(), 2);
    assert_eq!(fs::read(&path).unwrap(), b"a");
    assert_eq!(folder.names(), ["authorized_keys"]);
}

#[test]
fn keys_of_people_stay() {
    let folder = Folder::new();
    let path = folder.path("authorized_keys");
    let (keys, id) = (AuthorizedKeys::at(&path), session());
    fs::write(&path, "ssh-rsa AAAA me").unwrap();
    keys.add_session_key(KEY, &id).unwrap();
    assert!(keys.add_key("ssh-ed25519 AAAAnew you\n").unwrap());
    assert!(!keys.add_key("restrict ssh-ed25519 AAAAnew again").unwrap());
    keys.remove_session(&id).unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "ssh-rsa AAAA me\nssh-ed25519 AAAAnew you\n"
    );
}

#[test]
fn nothing_but_one_line_with_a_key_gets_in() {
    let folder = Folder::new();
    let path = folder.path("authorized_keys");
    let keys = AuthorizedKeys::at(&path);
    for line in [
        "",
        "#ssh-ed25519 AAAA",
        "hello",
        "ssh-ed25519",
        "ssh-ed25519 AAAA a\nssh-ed25519 AAAA b",
        "ssh-ed25519 AAAA a\rb",
        "ssh-ed25519 AAAA a\0",
        &format!("ssh-ed25519 AAAA{}", "A".repeat(MAX_LINE)),
    ] {
        for refused in [
            keys.add_key(line).map(drop),
            keys.add_session_key(line, &session()),
        ] {
            assert_eq!(
                refused.unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{line:?}"
            );
        }
    }
    for id in ["", "x", "../../etc/passwd", &session().to_uppercase()] {
        assert!(keys.add_session_key(KEY, id).is_err(), "{id:?}");
        assert!(keys.remove_session(id).is_err(), "{id:?}");
    }
    assert!(folder.names().is_empty());
}

/// Two daemons with sessions, and a person who edits by renaming and in place, quicker than people do.
#[test]
fn nobodys_edits_are_lost() {
    let folder = Folder::new();
    let path = folder.path("authorized_keys");
    fs::write(&path, "first\n").unwrap();
    let done = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let person = scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::SeqCst) {
                let line = format!("line {n}\n");
                if n % 3 == 0 {
                    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                    thread::yield_now();
                    file.write_all(line.as_bytes()).unwrap();
                } else {
                    let text = fs::read_to_string(&path).unwrap() + &line;
                    fs::write(folder.path("theirs"), text).unwrap();
                    fs::rename(folder.path("theirs"), &path).unwrap();
                }
                // They look before they go on.
                let began = std::time::Instant::now();
                while !fs::read_to_string(&path).unwrap().contains(&line) {
                    assert!(began.elapsed().as_secs() < 10, "{line} is lost");
                    thread::yield_now();
                }
                n += 1;
                at_a_pace(std::time::Duration::from_millis(10 + n % 50));
            }
            n
        });
        let daemons: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let keys = AuthorizedKeys::at(&path);
                    for _ in 0..8 {
                        let id = session();
                        keys.add_session_key(KEY, &id).unwrap();
                        keys.remove_session(&id).unwrap();
                    }
                })
            })
            .collect();
        let ends: Vec<_> = daemons.into_iter().map(|daemon| daemon.join()).collect();
        done.store(true, Ordering::SeqCst);
        let written = person.join().unwrap();
        assert!(ends.iter().all(Result::is_ok));
        written
    });
    // The person may have written back what they had read while a session's line was there.
    AuthorizedKeys::at(&path).remove_stale().unwrap();
    let lines: String = (0..written).map(|n| format!("line {n}\n")).collect();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("first\n{lines}")
    );
    assert_eq!(folder.names(), ["authorized_keys"]);
}

#[test]
fn a_key_on_its_way_in_is_out_again_when_the_file_is_closed() {
    let folder = Folder::new();
    let path = folder.path("authorized_keys");
    for round in 0..20 {
        fs::write(&path, "ssh-rsa AAAA me\n").unwrap();
        let keys = AuthorizedKeys::at(&path);
        let adding: Vec<_> = (0..2)
            .map(|_| {
                let keys = keys.clone();
                thread::spawn(move || keys.add_session_key(KEY, &session()))
            })
            .collect();
        // At another moment each time: before the first, between them, and afterwards.
        while keys.held().len() < round % 3 {
            thread::yield_now();
        }
        keys.close().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ssh-rsa AAAA me\n", "{round}");
        for adding in adding {
            let _ = adding.join().unwrap();
        }
        assert!(keys.add_session_key(KEY, &session()).is_err(), "{round}");
        assert_eq!(fs::read(&path).unwrap(), b"ssh-rsa AAAA me\n", "{round}");
    }
    assert_eq!(folder.names(), ["authorized_keys"]);
}
