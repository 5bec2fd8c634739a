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
        place.set(Mood::Stalls);
        let began = Instant::now();
        place.fails(&[], "takes too long");
        assert!(began.elapsed().as_secs() < 60, "{shell:?}");
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

/// A program that waits as a daemon, and says when it is asked to restart or go.
const SERVES: &str = r#"
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static void tell(const char *what) {
    FILE *file = fopen(CALLS, "a");
    if (file) { fprintf(file, "%d %s\n", (int)getuid(), what); fclose(file); }
}
int main(int count, char **words) {
    if (count < 2) return 0;
    if (!strcmp(words[1], "--version")) puts("noports " VERSION);
    else if (count == 2 && !strcmp(words[1], "daemon")) { puts("up"); fflush(stdout); pause(); }
    else if (count > 2 && !strcmp(words[2], "restart")) tell("restart");
    else if (count > 2 && !strcmp(words[2], "status") && getuid()) puts("noports-daemon-x  (of a test)");
    else if (count > 4 && !strcmp(words[2], "uninstall")) tell(words[4]);
    return 0;
}
"#;

#[test]
fn users_whose_services_go_on_with_the_old_program_are_named_and_served_if_asked() {
    if !rustix::process::getuid().is_root() {
        return; // nobody else can be another user
    }
    let place = Place::new(Shell::Dash);
    let calls = place.dir.path("calls");
    fs::write(&calls, "").unwrap();
    fs::set_permissions(&calls, fs::Permissions::from_mode(0o666)).unwrap();
    let source = place.dir.text("serves.c");
    fs::write(&source, SERVES).unwrap();
    let release = |version: &str| {
        let folder = place
            .dir
            .path("tmp")
            .join(format!("noports-{version}-{}", arch()));
        fs::create_dir_all(&folder).unwrap();
        let program = text(&folder.join("noports"));
        let defines = [
            format!("-DVERSION=\"{version}\""),
            format!("-DCALLS=\"{}\"", calls.display()),
        ];
        run("cc", &["-o", &program, &defines[0], &defines[1], &source]);
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let tmp = place.dir.text("tmp");
        run("tar", &["-czf", &place.archive(version), "-C", &tmp, &name]);
        fs::remove_dir_all(folder).unwrap();
        fs::write(place.dir.path("www/VERSION"), version).unwrap();
        place.sums();
    };
    let told = || fs::read_to_string(&calls).unwrap();
    for folder in [".", "prefix", "prefix/bin"] {
        let folder = place.dir.path(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    release("1.0.1");
    place.installs(&[]);
    let daemon = Daemon::start(&place);
    release("1.0.2");
    let said = place.installs(&[]);
    let want = format!(
        "daemon of daemon, process {}, goes on with the old",
        daemon.pid()
    );
    assert!(said.contains(&want), "{said}");
    assert!(said.contains("noports service restart"), "{said}");
    release("1.0.3");
    place.installs(&["--all-users"]);
    assert!(told().contains("1 restart\n"), "{}", told());
    drop(daemon);

    let daemon = Daemon::start(&place);
    place.fails(&["--uninstall"], "programs of these users run from here");
    place.installs(&["--uninstall", "--all-users"]);
    assert!(told().contains("1 x\n"), "{}", told());
    assert!(!place.bin("noports").exists());
    drop(daemon);
}

/// A program of a user's, started by a shell of his.
struct Daemon(Child);

impl Daemon {
    fn start(place: &Place) -> Self {
        let script = format!("'{}' daemon & wait", place.bin("noports").display());
        let mut child = Command::new("setpriv")
            .args([
                "--reuid",
                "1",
                "--regid",
                "1",
                "--clear-groups",
                "sh",
                "-c",
                &script,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut heard = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut heard).unwrap();
        assert_eq!(heard, "up\n");
        Self(child)
    }

    fn pid(&self) -> String {
        let shell = self.0.id();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        children.unwrap().trim().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.pid()).status();
        let _ = self.0.wait();
    }
}
