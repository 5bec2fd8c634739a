//! Servers and archives that mean harm, and machines that other people left in a state.

use std::{os::unix::fs::MetadataExt, time::Instant};

use crate::install::*;

/// The script with limits that a test can wait for.
fn hasty() -> String {
    let mut script = SCRIPT.to_owned();
    for (from, to) in [
        ("ARCHIVE_SECONDS=1800", "ARCHIVE_SECONDS=2"),
        ("LIST_SECONDS=60", "LIST_SECONDS=20"),
        ("ARCHIVE_BLOCKS=80000", "ARCHIVE_BLOCKS=2000"),
        ("--speed-time 30", "--speed-time 1"),
    ] {
        assert!(script.contains(from), "{from}");
        script = script.replace(from, to);
    }
    script
}

#[test]
fn a_download_without_an_end_and_one_that_stands_still_are_given_up() {
    for shell in SHELLS {
        let place = Place::new(shell);
        fs::write(place.dir.path("install.sh"), hasty()).unwrap();
        place.set(Mood::Endless);
        place.fails(&[], "is bigger than anything that is released");
        for mood in [Mood::Stalls, Mood::Drips] {
            place.set(mood);
            let began = Instant::now();
            place.fails(&[], "takes too long");
            assert!(began.elapsed().as_secs() < 60, "{shell:?}");
        }
        place.set(Mood::Well);
        place.installs(&[]);
    }
}

/// What Python's tarfile writes, since tar itself refuses to.
const PACKS: &str = r#"
import io, sys, tarfile
name, to, kind = sys.argv[1:]
body = b'#!/bin/sh\n[ "$1" != --version ] || echo noports 1.0.0\nexit 0\n'
pack = tarfile.open(to, "w:gz")
def add(path, data=body, type=tarfile.REGTYPE, link="", mode=0o755):
    one = tarfile.TarInfo(path)
    one.type, one.linkname, one.mode = type, link, mode
    one.size = len(data) if type == tarfile.REGTYPE else 0
    pack.addfile(one, io.BytesIO(data) if one.size else None)
out = to + ".out"
match kind:
    case "link": add(name + "/noports", type=tarfile.SYMTYPE, link="/bin/ls")
    case "hard link": add(name + "/noports", type=tarfile.LNKTYPE, link="/etc/passwd")
    case "twice": add(name + "/noports"); add(name + "/noports", type=tarfile.SYMTYPE, link="/bin/ls")
    case "pipe": add(name + "/noports", type=tarfile.FIFOTYPE)
    case "folder": add(name + "/noports", type=tarfile.DIRTYPE)
    case "up": add("../noports"); add("../../../../../.." + out)
    case "absolute": add(out)
    case "bomb": add(name + "/noports", body + b"\0" * 120_000_000)
    case "empty": pass
    case "more": add(out); add("../up"); add(name, type=tarfile.SYMTYPE, link="/tmp"); add(name + "/noports", mode=0o6777)
pack.close()
"#;

#[test]
fn only_the_executable_leaves_an_archive() {
    for shell in SHELLS {
        let place = Place::new(shell);
        let archive = place.archive("1.0.0");
        let name = format!("noports-1.0.0-{}", arch());
        for (kind, installs) in [
            ("link", false),
            ("hard link", false),
            ("twice", false),
            ("pipe", false),
            ("folder", false),
            ("up", false),
            ("absolute", false),
            ("bomb", false),
            ("empty", false),
            ("more", true),
        ] {
            run("python3", &["-c", PACKS, &name, &archive, kind]);
            place.sums();
            if installs {
                place.installs(&[]);
                let mode = fs::metadata(place.bin("noports")).unwrap().mode();
                assert_eq!(mode & 0o7777, 0o755, "{kind}");
            } else {
                // With a hint, and with nothing changed.
                place.fails(&[], "install.sh: ");
            }
            assert!(!Path::new(&format!("{archive}.out")).exists(), "{kind}");
            let left = place.everything();
            assert!(!left.iter().any(|file| file.contains("/up ")), "{left:?}");
        }
    }
}

#[test]
fn a_lock_without_an_owner_is_taken_over_and_one_with_a_live_owner_is_not() {
    for shell in SHELLS {
        let place = Place::new(shell);
        let lock = place.dir.path("prefix/lib/noports/lock");
        for owner in [
            None,
            Some(""),
            Some("999999999"),
            Some("somebody"),
            Some("1 2"),
        ] {
            fs::create_dir_all(&lock).unwrap();
            if let Some(owner) = owner {
                fs::write(lock.join("pid"), owner).unwrap();
            }
            place.installs(&[]);
            assert!(!lock.exists(), "{owner:?}");
        }
        fs::create_dir_all(&lock).unwrap();
        fs::write(lock.join("pid"), std::process::id().to_string()).unwrap();
        place.fails(&[], "another install.sh is running here, process");
    }
}

#[test]
fn going_back_after_an_upgrade_that_was_cut_off_says_that_nothing_else_is_there() {
    for shell in SHELLS {
        let place = Place::new(shell);
        place.installs(&[]);
        // What an upgrade leaves that is killed just before the new file takes its place.
        fs::copy(
            place.bin("noports"),
            place.dir.path("prefix/lib/noports/previous"),
        )
        .unwrap();
        place.fails(&["--rollback"], "is the version that is here");
        place.release("1.1.0", "");
        place.installs(&[]);
        place.installs(&["--rollback"]);
        assert_eq!(place.version(), "noports 1.0.0");
    }
}

#[test]
fn without_a_home_a_person_is_told_what_to_do() {
    for shell in SHELLS {
        let place = Place::new(shell);
        place.tool("id", "echo 1000");
        let mut command = place.command(&[]);
        let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let prefix = words.iter().position(|word| word == "--prefix").unwrap();
        let mut without = Command::new(command.get_program());
        without.args(&words[..prefix]).args(&words[prefix + 2..]);
        place.environment(&mut without);
        // Before the tools of the machine.
        let path = format!("{}:/usr/bin:/bin", place.dir.text("tools"));
        without.env("PATH", path).env_remove("HOME");
        let (code, said) = end(without.stderr(Stdio::piped()).spawn().unwrap());
        assert!(code == 2 && said.contains("HOME is not set"), "{said}");
        assert!(said.contains("hint: --prefix DIR"), "{said}");
        command.env_remove("HOME");
        let (code, said) = end(command.stderr(Stdio::piped()).spawn().unwrap());
        assert_eq!(code, 0, "with --prefix no home is needed: {said}");
    }
}

#[test]
fn what_root_installs_can_be_entered_by_everybody_whatever_its_umask() {
    for shell in SHELLS {
        let place = Place::new(shell);
        let strict = SCRIPT.replacen("set -eu\n", "set -eu\numask 077\n", 1);
        fs::write(place.dir.path("install.sh"), &strict).unwrap();
        place.tool("id", "echo 0");
        place.installs(&[]);
        for folder in ["prefix", "prefix/bin", "prefix/lib", "prefix/lib/noports"] {
            let mode = fs::metadata(place.dir.path(folder)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o755, "{shell:?} {folder}");
        }
    }
}

/// The program says whom it does not reach, and that services still use it; whom it shall reach is the script's to ask.
#[test]
fn users_whose_services_go_on_with_the_old_program_are_named_and_served_if_asked() {
    for shell in SHELLS {
        let place = Place::new(shell);
        let calls = place.dir.text("calls");
        let release = |version: &str| {
            let script = format!(
                "#!/bin/sh\n[ \"$1\" != --version ] || echo 'noports {version}'\n[ \"$1\" != service ] || echo \"$*\" >>'{calls}'\n\
                 case $* in\n*restart*--own) echo 'the daemon of pi, process 7, still runs the version before' >&2; exit 1 ;;\n\
                 *uninstall*--own) echo 'the daemon of pi runs from here' >&2; exit 1 ;;\nesac\nexit 0\n"
            );
            place.release_of(version, &script);
        };
        let called = || {
            let told = fs::read_to_string(&calls).unwrap_or_default();
            fs::write(&calls, "").unwrap();
            told
        };
        // What is not root reaches its own alone.
        place.tool("id", "echo 1000");
        for version in ["1.0.1", "1.0.2"] {
            release(version);
            let said = place.installs(&[]);
            assert!(!said.contains("of pi"), "{said}");
        }
        assert_eq!(called(), "service restart --after-upgrade\n");
        place.tool("id", "echo 0");
        release("1.0.3");
        let said = place.installs(&[]);
        assert_eq!(called(), "service restart --after-upgrade --own\n");
        assert!(
            said.contains("  the daemon of pi, process 7, still"),
            "{said}"
        );
        assert!(said.contains("--all-users does that from here"), "{said}");
        release("1.0.4");
        let said = place.installs(&["--all-users"]);
        assert_eq!(called(), "service restart --after-upgrade\n");
        assert!(!said.contains("still runs"), "{said}");
        release("1.0.5");
        place.installs(&["--no-restart"]);
        assert_eq!(called(), "");

        place.fails(&["--uninstall"], "the daemon of pi runs from here");
        assert_eq!(called(), "service uninstall --own\n");
        assert!(place.bin("noports").exists());
        place.installs(&["--uninstall", "--all-users"]);
        assert_eq!(called(), "service uninstall\n");
        assert!(!place.bin("noports").exists());
        release("1.0.6");
        place.installs(&[]);
        place.installs(&["--uninstall", "--force"]);
        assert_eq!(called(), "service uninstall --own --force\n");
        assert!(!place.bin("noports").exists());
    }
}
