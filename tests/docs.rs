//! Manual pages, as mandoc reads them, and completions, as bash, zsh and fish offer them to whoever types at a terminal.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use async_std::task::block_on;

use rustix::process::{Pid, Signal, kill_process};

use noports::program::PROGRAMS;

use crate::world::{Folder, NOPORTS, stdout};

/// Everything below `share`, as `noports docs all` writes it.
fn share() -> Folder {
    let dir = Folder::new();
    let mut command = Command::new(NOPORTS);
    command.args(["docs", "all", &dir.text("share")]);
    let told = block_on(stdout(command));
    assert!(told.lines().all(|path| Path::new(path).is_file()), "{told}");
    dir
}

#[test]
fn every_program_has_a_page_under_each_of_its_names() {
    let dir = share();
    for program in PROGRAMS.iter().filter(|own| !own.about.is_empty()) {
        let page = |name: &str| {
            let path = dir.path(&format!("share/man/man1/{name}.1"));
            fs::read_to_string(path).unwrap()
        };
        let own = page(&format!("noports-{}", program.name));
        assert!(own.contains("\\fB\\-h, \\-\\-help\\fR\n"), "{own}");
        for link in program.links {
            let classic = page(link);
            let see = format!(".BR noports\\-{} (1)", program.name);
            assert!(classic.contains(&see), "{classic}");
        }
    }
}

#[test]
fn manual_pages_pass_the_lint_of_mandoc() {
    let dir = share();
    let pages = fs::read_dir(dir.path("share/man/man1")).unwrap();
    let pages: Vec<_> = pages.map(|page| page.unwrap().path()).collect();
    assert!(pages.len() > PROGRAMS.len(), "{pages:?}");
    let lint = Command::new("mandoc")
        .args(["-T", "lint", "-W", "style"])
        .args(&pages)
        .output();
    let lint = lint.expect("mandoc (packaging/test.sh installs it)");
    let told = String::from_utf8_lossy(&lint.stdout);
    assert!(lint.status.success() && told.is_empty(), "{told}");
}

/// A shell at a terminal of its own.
struct Shell(Child);

/// Gives a command a terminal of 200 columns; its keys come from stdin.
const TERMINAL: &str = "import pty, sys\n\
    pty.spawn(['sh', '-c', 'stty rows 50 cols 200; exec \"$@\"', 'sh'] + sys.argv[1:])";
/// Seconds that a shell has for all that it is asked.
const PATIENCE: &str = "60";

impl Shell {
    /// Starts it in the home of somebody who has keys, devices in `~/.ssh/config`, and has listed enrolments.
    fn start(shell: &[&str], dir: &Folder) -> Self {
        let home = dir.path("home");
        for (file, text) in [
            (".atsign/keys/@alice_key.atKeys", ""),
            (".atsign/keys/@bob_key.atKeys", ""),
            (
                ".ssh/config",
                "Host pi\n  ProxyCommand noports client --to @fleet --device pi1 --stdio\n",
            ),
            (
                ".cache/noports/enrolments/@alice",
                "approved\tc3ff0000-1\told\npending\tc3a9f7d2-0b6e\tnoports on kitchen\n",
            ),
            ("keyring", ""),
        ] {
            let path = home.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let folder = Path::new(NOPORTS).parent().unwrap().display();
        let path = std::env::var("PATH").unwrap();
        let child = Command::new("timeout")
            .args([PATIENCE, "python3", "-c", TERMINAL])
            .args(shell)
            .current_dir(&home)
            .env("HOME", &home)
            .env("PATH", format!("{folder}:{path}"))
            .env("XDG_DATA_DIRS", dir.path("share"))
            .env("SHARE", dir.path("share"))
            .env("TERM", "xterm")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Types, and waits until this has come out.
    fn types(&mut self, keys: &str, want: &str) {
        let stdin = self.0.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains(want) {
            let mut bytes = [0; 4096];
            let length = self.0.stdout.as_mut().unwrap().read(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&said);
            assert!(length > 0, "{keys:?}: no {want:?} in {text:?}");
            said.extend_from_slice(&bytes[..length]);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Who holds its terminal ends, and so does the shell.
        let pid = Pid::from_child(&self.0);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.0.wait();
    }
}

/// What is typed before the key for completion, and the line that it becomes.
const LINES: &[(&str, &str)] = &[
    ("noports cli", "noports client"),
    ("noports client --dev", "noports client --device"),
    ("noports client --to @al", "noports client --to @alice"),
    ("noports client --to=@fl", "noports client --to=@fleet"),
    ("noports client --to pi", "noports client --to pi1@fleet"),
    ("noports client --to pi1@f", "noports client --to pi1@fleet"),
    (
        "noports tunnel --to @fleet --device p",
        "noports tunnel --to @fleet --device pi1",
    ),
    (
        "noports client --keys keyr",
        "noports client --keys keyring",
    ),
    (
        "noports client --keys=keyr",
        "noports client --keys=keyring",
    ),
    (
        "noports enroll approve @alice c3",
        "noports enroll approve @alice c3a9-f7d2",
    ),
    (
        "noports daemon install --init openr",
        "noports daemon install --init openrc",
    ),
    ("noports help rend", "noports help rendezvous"),
    ("sshnp --fro", "sshnp --from"),
    ("sshnp --from @al", "sshnp --from @alice"),
    ("npt -t @fl", "npt -t @fleet"),
    ("npt --to=@fl", "npt --to=@fleet"),
    ("sshnpd --mana", "sshnpd --managers"),
    ("srvd -a @al", "srvd -a @alice"),
    ("sshrvd --key-file keyr", "sshrvd --key-file keyring"),
    ("srv --bind-l", "srv --bind-local-port"),
    ("npp_file --ya", "npp_file --yaml"),
    ("npp_atserver --ats", "npp_atserver --atsign"),
    (
        "at_activate approve -a @alice -i c3",
        "at_activate approve -a @alice -i c3a9-f7d2",
    ),
];

fn completes(shell: &[&str], load: &str) {
    let dir = share();
    let mut at = Shell::start(shell, &dir);
    at.types(&format!("{load}\rec''ho re''ady\r"), "ready");
    for (typed, want) in LINES {
        // What came of it is printed: it stands behind words that are not what they look like.
        let keys = format!("{typed}\t\x01ec''ho g''ot \r");
        at.types(&keys, &format!("got {want}\r\n"));
    }
}

#[test]
fn completions_in_bash() {
    completes(
        &["bash", "--norc", "-i"],
        ". $SHARE/bash-completion/completions/sshnp",
    );
}

#[test]
fn completions_in_zsh() {
    completes(
        &["zsh", "-f", "-i"],
        "fpath=($SHARE/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D",
    );
}

#[test]
fn completions_in_fish() {
    completes(&["fish", "--private"], "");
}
