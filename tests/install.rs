//! `install.sh`, run by dash and by busybox' sh with nothing but busybox around it: what it does, and everything
//! that can go wrong on the way. Releases are small scripts that say a version; the web server is ours.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, fs::symlink, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use async_std::task::block_on;

use crate::world::{DEVICE, Folder, NAME, NOPORTS, World, stdout, support::wait_until};

mod hostile;
mod signed;

const SCRIPT: &str = include_str!("../install.sh");
const LINKS: [&str; 10] = [
    "sshnp",
    "npt",
    "sshnpd",
    "srvd",
    "sshrvd",
    "srv",
    "sshrv",
    "npp_file",
    "npp_atserver",
    "at_activate",
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shell {
    Dash,
    Busybox,
    /// dash, and of tools only busybox': unlike busybox' own shell it has none of them in itself.
    DashAlone,
}

const SHELLS: [Shell; 2] = [Shell::Dash, Shell::Busybox];

/// How the web server treats archives.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    CutOff,
    Missing,
    Stalls,
    /// A byte now and then.
    Drips,
    Endless,
}

/// A machine to install on, and a place of releases.
struct Place {
    dir: Folder,
    shell: Shell,
    mood: Arc<Mutex<Mood>>,
    base: String,
}

impl Place {
    fn new(shell: Shell) -> Self {
        let dir = Folder::new();
        for folder in ["home", "tmp", "www", "tools"] {
            fs::create_dir(dir.path(folder)).unwrap();
        }
        fs::write(dir.path("install.sh"), SCRIPT).unwrap();
        if shell != Shell::Dash {
            let done = Command::new(found("busybox"))
                .args(["--install", "-s"])
                .arg(dir.path("tools"))
                .status();
            assert!(done.unwrap().success());
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mood = Arc::new(Mutex::new(Mood::Well));
        let (www, its) = (dir.path("www"), mood.clone());
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (www, mood) = (www.clone(), *its.lock().unwrap());
                thread::spawn(move || serve(socket.unwrap(), &www, mood));
            }
        });
        let place = Self {
            dir,
            shell,
            mood,
            base,
        };
        place.release("1.0.0", "");
        place
    }

    /// Makes this the newest release; `padding` makes it bigger.
    fn release(&self, version: &str, padding: &str) {
        let script = format!(
            "#!/bin/sh\n[ \"$1\" != --version ] || echo 'noports {version}'\nexit 0\n# {padding}\n"
        );
        self.release_of(version, &script);
    }

    fn release_of(&self, version: &str, script: &str) {
        let name = format!("noports-{version}-{}", arch());
        let folder = self.dir.path("tmp").join(&name);
        fs::create_dir_all(&folder).unwrap();
        put(&folder.join("noports"), script);
        let archive = self.dir.path("www").join(format!("{name}.tar.gz"));
        run(
            "tar",
            &["-czf", &text(&archive), "-C", &self.dir.text("tmp"), &name],
        );
        fs::remove_dir_all(folder).unwrap();
        fs::write(self.dir.path("www/VERSION"), format!("{version}\n")).unwrap();
        self.sums();
    }

    fn sums(&self) {
        let www = self.dir.text("www");
        run(
            "sh",
            &[
                "-c",
                &format!("cd '{www}' && sha256sum *.tar.gz >SHA256SUMS"),
            ],
        );
    }

    fn archive(&self, version: &str) -> String {
        self.dir
            .text(&format!("www/noports-{version}-{}.tar.gz", arch()))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(match self.shell {
            Shell::Dash | Shell::DashAlone => found("dash"),
            Shell::Busybox => found("busybox"),
        });
        if self.shell == Shell::Busybox {
            command.arg("sh");
        }
        command
            .arg(self.dir.path("install.sh"))
            .args(["--prefix", &self.dir.text("prefix")])
            .args(words);
        self.environment(&mut command);
        command
    }

    fn environment(&self, command: &mut Command) {
        let mut path = self.dir.text("tools");
        if self.shell == Shell::Dash {
            path += ":/usr/bin:/bin";
        }
        command
            .env("PATH", path)
            .env("HOME", self.dir.path("home"))
            .env("TMPDIR", self.dir.path("tmp"))
            .env("NOPORTS_BASE", &self.base)
            .env_remove("SUDO_USER")
            .stdin(Stdio::null());
    }

    /// Exit code and stderr.
    fn install(&self, words: &[&str]) -> (i32, String) {
        end(self
            .command(words)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap())
    }

    fn installs(&self, words: &[&str]) -> String {
        let (code, said) = self.install(words);
        assert_eq!(code, 0, "{:?} {words:?}: {said}", self.shell);
        said
    }

    /// It fails, with these words, a hint, and nothing is half done.
    fn fails(&self, words: &[&str], want: &str) {
        let before = self.everything();
        let (code, said) = self.install(words);
        assert_ne!(code, 0, "{:?} {words:?}: {said}", self.shell);
        assert!(said.contains(want), "{:?} {words:?}: {said}", self.shell);
        assert!(
            said.contains("\n  hint: "),
            "{:?} {words:?}: {said}",
            self.shell
        );
        assert_eq!(
            self.everything(),
            before,
            "{:?} {words:?}: {said}",
            self.shell
        );
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.dir.path("prefix/bin").join(name)
    }

    /// What the installed executable says it is.
    fn version(&self) -> String {
        let said = Command::new(self.bin("noports")).arg("--version").output();
        String::from_utf8(said.map(|said| said.stdout).unwrap_or_default())
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Every file below the prefix, and whether it is a link; empty folders do not count.
    fn everything(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.dir.path("prefix"), &mut found);
        walk(&self.dir.path("tmp"), &mut found);
        found.sort();
        found
    }

    /// A program that comes before the real one.
    fn tool(&self, name: &str, script: &str) {
        let path = self.dir.path("tools").join(name);
        let _ = fs::remove_file(&path);
        put(&path, &format!("#!/bin/sh\n{script}\n"));
        // Some builds of busybox run their own tools whatever PATH says (Debian 13's); functions come before those.
        if self.shell == Shell::Busybox && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let function = format!("{name}() {{ '{}' \"$@\"; }}\n", path.display());
            let file = self.dir.path("install.sh");
            let script = fs::read_to_string(&file).unwrap();
            if !script.contains(&function) {
                fs::write(&file, function + &script).unwrap();
            }
        }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// The same in a mount namespace, after `mount` has prepared it; `None` where that is not allowed.
    fn install_in(&self, mount: &str, words: &[&str]) -> Option<(i32, String)> {
        fs::create_dir_all(self.dir.path("prefix")).unwrap();
        let inner = self.command(words);
        let line: Vec<_> = [inner.get_program()]
            .into_iter()
            .chain(inner.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        // The tools of the namespace are the machine's own.
        let path = inner
            .get_envs()
            .find(|row| row.0 == "PATH")
            .unwrap()
            .1
            .unwrap()
            .to_str()
            .unwrap();
        let prefix = self.dir.text("prefix");
        let script = format!("{mount} || exit 99; PATH='{path}'; {}", line.join(" "))
            .replace("PREFIX", &prefix);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", &script]);
        self.environment(&mut command);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let (code, said) = end(command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap());
        (code != 99 && !said.starts_with("unshare")).then_some((code, said))
    }
}

/// Where a program of this machine is: the tests' own PATH is shorter.
fn found(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut all = std::env::split_paths(&path).map(|folder| folder.join(program));
    all.find(|file| file.exists())
        .unwrap_or_else(|| panic!("{program}; packaging/test.sh installs it"))
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "arm" => "armv7",
        other => other,
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn put(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run(program: &str, words: &[&str]) {
    assert!(
        Command::new(program)
            .args(words)
            .status()
            .unwrap()
            .success(),
        "{program} {words:?}"
    );
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            walk(&path, found);
        } else {
            let what = fs::read_link(&path).map(|to| text(&to));
            let what =
                what.unwrap_or_else(|_| format!("{:?}", fs::read(&path).map(|bytes| bytes.len())));
            found.push(format!("{} {what}", path.display()));
        }
    }
}

fn end(mut child: Child) -> (i32, String) {
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let status = child.wait().unwrap();
    (
        status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or(0)),
        said,
    )
}

/// One request; what follows the slash is a file.
fn serve(socket: TcpStream, www: &Path, mood: Mood) {
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    let Some(Ok(request)) = lines.next() else {
        return;
    };
    for line in lines.by_ref() {
        if line.is_ok_and(|line| line.is_empty()) {
            break;
        }
    }
    let name = request
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/')
        .to_owned();
    let mood = if name.ends_with(".tar.gz") {
        mood
    } else {
        Mood::Well
    };
    let file = fs::read(www.join(&name))
        .ok()
        .filter(|_| mood != Mood::Missing);
    let mut socket = socket;
    let Some(bytes) = file else {
        let _ = socket.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        return;
    };
    if mood == Mood::Endless {
        let _ = socket.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        while socket.write_all(&[b'x'; 1 << 16]).is_ok() {}
        return;
    }
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
    if mood == Mood::Drips {
        let mut drops = head.as_bytes().iter().chain(&bytes);
        while drops
            .next()
            .is_some_and(|drop| socket.write_all(&[*drop]).is_ok())
        {
            thread::sleep(Duration::from_millis(100));
        }
        return;
    }
    let _ = socket.write_all(head.as_bytes());
    let half = &bytes[..bytes.len() / 2];
    let _ = socket.write_all(if mood == Mood::Well { &bytes } else { half });
    if mood == Mood::Stalls {
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest); // until the other end has had enough
    }
    let _ = socket.shutdown(Shutdown::Both);
}

#[test]
fn it_installs_upgrades_goes_back_and_leaves_nothing() {
    for shell in SHELLS {
        let place = Place::new(shell);
        let said = place.installs(&[]);
        assert!(said.contains("installed noports 1.0.0: "), "{said}");
        assert!(said.contains("is not on your PATH yet"), "{said}");
        assert_eq!(place.version(), "noports 1.0.0");
        for link in LINKS {
            assert_eq!(
                fs::read_link(place.bin(link)).unwrap(),
                Path::new("noports"),
                "{link}"
            );
        }
        // The same again changes nothing.
        let before = place.everything();
        let said = place.installs(&[]);
        assert!(
            said.contains("noports 1.0.0 is installed already"),
            "{said}"
        );
        assert_eq!(place.everything(), before);
        // What would be done is only said.
        place.release("1.10.0", "");
        assert!(place.installs(&["--dry-run"]).contains("there is 1.0.0"));
        assert_eq!(place.version(), "noports 1.0.0");

        let said = place.installs(&[]);
        assert!(
            said.contains("1.10.0") && said.contains("before: 1.0.0"),
            "{said}"
        );
        assert_eq!(place.version(), "noports 1.10.0");
        place.installs(&["--rollback"]);
        assert_eq!(place.version(), "noports 1.0.0");
        place.installs(&["--rollback"]);
        assert_eq!(place.version(), "noports 1.10.0");

        // An old one only when it is asked for in so many words.
        place.fails(&["--version", "1.0.0"], "1.0.0 is older than 1.10.0");
        place.installs(&["--version", "1.0.0", "--downgrade"]);
        assert_eq!(place.version(), "noports 1.0.0");

        let said = place.installs(&["--uninstall"]);
        assert!(said.contains("removed noports from"), "{said}");
        assert_eq!(place.everything(), Vec::<String>::new());
        assert!(
            place
                .installs(&["--uninstall"])
                .contains("is not installed")
        );
    }
}

#[test]
fn an_archive_at_hand_needs_no_network_but_has_its_checksum_looked_at() {
    for shell in SHELLS {
        let place = Place::new(shell);
        let archive = place.archive("1.0.0");
        let closed = ["--base", "http://127.0.0.1:1"];
        place.installs(&[&closed[..], &["--local", &archive]].concat());
        assert_eq!(place.version(), "noports 1.0.0");
        fs::write(
            place.dir.path("www/SHA256SUMS"),
            fs::read(place.dir.path("www/SHA256SUMS"))
                .unwrap()
                .to_ascii_uppercase(),
        )
        .unwrap();
        place.release("1.1.0", "");
        fs::write(place.archive("1.1.0"), "something else").unwrap();
        place.fails(&["--local", &place.archive("1.1.0")], "the checksum of");
        place.fails(
            &["--local", "/no/such/file"],
            "there is no file /no/such/file",
        );
    }
}

#[test]
fn what_cannot_be_downloaded_changes_nothing() {
    for shell in SHELLS {
        let place = Place::new(shell);
        place.fails(
            &["--base", ""],
            "no address to download from (there is no public one yet)",
        );
        place.fails(
            &["--base", "http://example.org"],
            "http://example.org is not https",
        );
        place.fails(&["--base", "ftp://x"], "is not an http address");
        place.fails(
            &["--base", "http://127.0.0.1:1"],
            "cannot get http://127.0.0.1:1/VERSION",
        );
        place.fails(&["--version", "9.9.9"], "there is no noports-9.9.9");
        place.fails(&["--version", "../x"], "is not a version");
        place.set(Mood::Missing);
        // busybox' wget has one exit code for everything.
        place.fails(
            &[],
            if shell == Shell::Dash {
                "there is no http"
            } else {
                "cannot get http"
            },
        );
        place.set(Mood::CutOff);
        place.fails(
            &[],
            if shell == Shell::Dash {
                "was cut off"
            } else {
                "cannot get"
            },
        );
        place.set(Mood::Well);
        let archive = place.archive("1.0.0");
        let mut bytes = fs::read(&archive).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&archive, bytes).unwrap();
        place.fails(&[], "is wrong; nothing was changed");
        // The right checksum of something that is no release.
        place.sums();
        fs::write(&archive, "no archive").unwrap();
        place.sums();
        place.fails(&[], "cannot unpack");
        assert!(!place.bin("noports").exists());
    }
}

#[test]
fn an_executable_that_does_not_run_here_is_not_installed() {
    for shell in SHELLS {
        let place = Place::new(shell);
        place.installs(&[]);
        place.release_of("1.5.0", "\x7fELF of another processor");
        place.fails(&[], "does not run on this machine");
        place.release_of("1.6.0", "#!/bin/sh\necho noports 1.4.0\n");
        place.fails(&[], "the archive of 1.6.0 holds 1.4.0");
        assert_eq!(place.version(), "noports 1.0.0");
    }
}

#[test]
fn no_room_and_no_right_to_write_change_nothing() {
    for shell in SHELLS {
        let place = Place::new(shell);
        // Does not compress: 300 kB of digits from a simple generator.
        let mut seed = 1_u64;
        let noise = std::iter::repeat_with(|| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + (seed >> 60) as u8)
        });
        let noise: String = noise.take(300_000).collect();
        place.release("2.0.0", &noise);
        for (size, want) in [
            ("64k", "nothing was changed"),
            ("400k", "nothing was changed"),
        ] {
            let mount = format!("mount -t tmpfs -o size={size} none 'PREFIX'");
            let Some((code, said)) = place.install_in(&mount, &[]) else {
                return;
            };
            assert!(
                code == 1 && said.contains(want) && said.contains("check the free space"),
                "{size} {code}: {said}"
            );
        }
        let (code, said) = place
            .install_in("mount -t tmpfs -o ro none 'PREFIX'", &[])
            .unwrap();
        assert!(
            code == 1 && said.contains("cannot write below"),
            "{code}: {said}"
        );
    }
}

#[test]
fn a_machine_without_what_is_needed_is_told_what_that_is() {
    let place = Place::new(Shell::DashAlone);
    place.tool(
        "uname",
        "case $1 in -m) echo pdp11 ;; *) echo Linux ;; esac",
    );
    place.fails(&[], "there is no release for this processor, pdp11");
    place.tool("uname", "echo Plan9");
    place.fails(&[], "there are releases for Linux only, and this is Plan9");
    place.tool(
        "uname",
        &format!(
            "case $1 in -m) echo {} ;; *) echo Linux ;; esac",
            std::env::consts::ARCH
        ),
    );
    for (missing, want) in [
        ("wget", "this needs curl or wget, and neither is installed"),
        ("mktemp", "this needs mktemp, which is not installed"),
        ("gzip", "this needs gzip, which is not installed"),
        ("sha256sum", "cannot check a SHA-256 checksum"),
    ] {
        let tool = place.dir.path("tools").join(missing);
        fs::remove_file(&tool).unwrap();
        // The script knows what busybox has in itself.
        if missing == "sha256sum" {
            place.tool("busybox", "exit 1");
            place.tool("sha256sum", "exit 1");
        }
        place.fails(&[], want);
        let _ = fs::remove_file(&tool);
        symlink(found("busybox"), &tool).unwrap();
    }
}

#[test]
fn other_peoples_files_stay() {
    for shell in SHELLS {
        let place = Place::new(shell);
        fs::create_dir_all(place.dir.path("prefix/bin")).unwrap();
        put(
            &place.bin("noports"),
            "#!/bin/sh\necho noports 0.0.1 of somebody else\n",
        );
        place.fails(&[], "belongs to another program");
        place.fails(&["--uninstall"], "belongs to another program");
        fs::remove_file(place.bin("noports")).unwrap();
        put(&place.bin("sshnp"), "theirs");
        symlink("elsewhere", place.bin("npt")).unwrap();
        let said = place.installs(&[]);
        assert!(
            said.contains("sshnp belongs to another program, left alone"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(place.bin("sshnp")).unwrap(), "theirs");
        assert_eq!(
            fs::read_link(place.bin("npt")).unwrap(),
            Path::new("elsewhere")
        );
        place.installs(&["--force"]);
        assert_eq!(
            fs::read_link(place.bin("sshnp")).unwrap(),
            Path::new("noports")
        );
        // What was changed by hand since is not ours any more.
        put(&place.bin("noports"), "#!/bin/sh\necho mine\n");
        place.release("1.1.0", "");
        place.fails(&[], "belongs to another program, or was changed");
        place.installs(&["--force"]);
        assert_eq!(place.version(), "noports 1.1.0");
    }
}

/// In a checkout: nothing is built, nor written, with a Rust that cannot do it.
#[test]
fn a_rust_that_is_too_old_is_named_before_anything_is_built() {
    let manifest = "name = \"noports\"\nrust-version = \"1.90\"\n";
    for shell in SHELLS {
        let mut place = Place::new(shell);
        place.base = String::new();
        fs::write(place.dir.path("Cargo.toml"), manifest).unwrap();
        let built = place.dir.path("built");
        let says = |tool: &str, version: &str| {
            let mark = built.display();
            let script = format!(
                "[ \"$1\" = --version ] || {{ echo >'{mark}'; exit 1; }}; echo '{tool} {version} (of a test)'"
            );
            place.tool(tool, &script);
        };
        place.tool("cc", "exit 0");
        for (cargo, rustc, want) in [
            ("1.85.1", "1.85.1", "needs cargo 1.90 or later, and"),
            ("1.95.0", "1.63.0", "needs rustc 1.90 or later, and"),
            ("1.9.0", "1.9.0", "needs cargo 1.90 or later, and"),
            ("1.89.0-nightly", "1.90.0", "needs cargo 1.90 or later, and"),
            (
                "",
                "1.90.0",
                "needs cargo 1.90 or later, which is not installed",
            ),
        ] {
            says("cargo", cargo);
            says("rustc", rustc);
            place.fails(&[], want);
            assert!(!built.exists(), "{cargo} {rustc}");
            assert!(!place.dir.path("prefix").exists(), "{cargo} {rustc}");
        }
        for (cargo, rustc) in [
            ("1.90.0", "1.90.0"),
            ("1.96.0", "1.96.0+dfsg1"),
            ("2.0.0", "2.0.0"),
        ] {
            says("cargo", cargo);
            says("rustc", rustc);
            let (_, said) = place.install(&[]);
            assert!(said.contains("cannot build it"), "{said}");
            assert!(built.exists(), "{cargo} {rustc}: {said}");
            fs::remove_file(&built).unwrap();
        }
    }
}

/// Only packages that apt would install, and that are new enough, are named.
#[test]
fn the_hint_for_a_rust_that_is_too_old_names_what_apt_has() {
    let web = "apt-get install rustc-web cargo-web";
    let rustup = "apt-get install rustup && rustup default stable";
    let elsewhere = "install rustup (your package manager, or https://rustup.rs)";
    // With a PATH of its own: this machine's rustup counts for nothing.
    for shell in SHELLS.into_iter().filter(|shell| *shell != Shell::Dash) {
        let mut place = Place::new(shell);
        place.base = String::new();
        fs::write(
            place.dir.path("Cargo.toml"),
            "name = \"noports\"\nrust-version = \"1.90\"\n",
        )
        .unwrap();
        place.tool("cargo", "echo cargo 1.85.1");
        let hints = |want: &str, about: &[&str]| {
            let (code, said) = place.install(&[]);
            assert_eq!(code, 1, "{said}");
            let hint = format!("\n  hint: {want}");
            assert!(said.contains(&hint), "{about:?}: {said}");
        };
        hints(elsewhere, &["no apt"]);
        let candidates = |of: [&str; 3]| {
            let rows = ["rustc-web", "cargo-web", "rustup"].iter().zip(of);
            let rows = rows.map(|(name, version)| {
                format!("[ \"$2\" != {name} ] || echo '  Candidate: {version}'; ")
            });
            let script = format!(
                "[ \"$1\" = policy ] || exit 1\necho \"$2:\"; echo '  Installed: (none)'\n{}",
                rows.collect::<String>()
            );
            place.tool("apt-cache", &script);
        };
        for (of, want) in [
            (
                ["1.96.0+dfsg1-1~deb12u2", "1.96.0+dfsg1-1~deb12u2", "(none)"],
                web,
            ),
            (["1.90.0+dfsg3-1", "1.90.0+dfsg3-1", "1.27.1-3"], web),
            (["1:1.96.0-1", "1:1.96.0-1", "(none)"], web),
            (
                [
                    "1.85.0+dfsg3-1~deb12u3",
                    "1.85.0+dfsg3-1~deb12u3",
                    "1.27.1-3",
                ],
                rustup,
            ),
            (["1.96.0-1", "1.85.0-1", "1.27.1-3"], rustup),
            (["1.96.0-1", "(none)", "(none)"], elsewhere),
            (["(none)", "(none)", "1.27.1-3"], rustup),
            (["(none)", "(none)", "(none)"], elsewhere),
        ] {
            candidates(of);
            hints(want, &of);
        }
        place.tool("apt-cache", "exit 100");
        hints(elsewhere, &["apt-cache fails"]);
        place.tool("rustup", "exit 0");
        hints("rustup default stable && rustup update stable", &["rustup"]);
    }
}

/// Every `mv` and `cp` of an upgrade is once the last thing that happens.
#[test]
fn a_run_that_is_killed_anywhere_leaves_a_version_that_works() {
    for shell in SHELLS {
        let place = Place::new(shell);
        place.installs(&[]);
        place.release("2.0.0", "");
        let count = place.dir.text("count");
        let mut survived = false;
        for moment in 1..30 {
            for tool in ["mv", "cp", "ln"] {
                place.tool(
                    tool,
                    &format!(
                        "echo >>'{count}'; [ $(wc -l <'{count}') != {moment} ] || kill -9 $PPID; exec /bin/{tool} \"$@\""
                    ),
                );
            }
            fs::write(&count, "").unwrap();
            let (code, _) = place.install(&[]);
            let version = place.version();
            assert!(
                ["noports 1.0.0", "noports 2.0.0"].contains(&version.as_str()),
                "{moment}: {version:?}"
            );
            survived = code == 0;
            if survived {
                break;
            }
            assert_eq!(code, -9, "{moment}");
            // The next run goes on: it knows what is there, and the lock of the dead is none.
            fs::write(&count, "\n".repeat(100)).unwrap();
            let (code, said) = place.install(&[]);
            assert_eq!(
                (code, place.version().as_str()),
                (0, "noports 2.0.0"),
                "{moment}: {said}"
            );
            let left = place.everything();
            assert!(
                !left
                    .iter()
                    .any(|file| file.contains(".new") || file.contains("stage.")),
                "{left:?}"
            );
            place.installs(&["--version", "1.0.0", "--downgrade"]);
        }
        assert!(survived, "an upgrade has fewer steps");
    }
}

#[test]
fn one_run_at_a_time_and_one_that_is_told_to_end_cleans_up() {
    for shell in SHELLS {
        let place = Place::new(shell);
        place.set(Mood::Stalls);
        let mut first = place
            .command(&[])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lock = place.dir.path("prefix/lib/noports/lock/pid");
        wait_until("the first run has its lock", || lock.exists());
        let (code, said) = place.install(&[]);
        assert!(
            code == 1 && said.contains("another install.sh is running here, process"),
            "{said}"
        );
        assert!(lock.exists(), "the lock is the first one's");
        // The shell hears it when its download ends, so the downloads hear it too, as at Ctrl-C: also the one that the shell
        // was just about to start.
        let pid = first.id();
        let mut is_told = false;
        wait_until("the first run has ended", || {
            let children =
                fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            for child in children.split(' ').filter(|child| !child.is_empty()) {
                let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
                if line.contains("curl") || line.contains("wget") {
                    if !std::mem::replace(&mut is_told, true) {
                        run("kill", &["-TERM", &pid.to_string()]);
                    }
                    // A short download may have ended by itself meanwhile.
                    let _ = Command::new("kill").args(["-TERM", child]).output();
                }
            }
            first.try_wait().unwrap().is_some()
        });
        let (code, said) = end(first);
        assert_ne!(code, 0, "{said}");
        assert_eq!(place.everything(), Vec::<String>::new(), "{said}");
    }
}

#[test]
fn a_script_that_was_cut_off_does_nothing() {
    let place = Place::new(Shell::Dash);
    let ends: Vec<usize> = SCRIPT.match_indices('\n').map(|(at, _)| at).collect();
    // Every line's end, and every letter of the last line.
    let last = SCRIPT.trim_end().rfind('\n').unwrap() + 1;
    let cuts = ends
        .iter()
        .copied()
        .filter(|at| *at < last)
        .chain(last..SCRIPT.trim_end().len());
    for cut in cuts {
        let mut command = Command::new(found("dash"));
        command.args(["-s", "--", "--prefix", &place.dir.text("prefix")]);
        place.environment(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = child
            .stdin
            .take()
            .unwrap()
            .write_all(&SCRIPT.as_bytes()[..cut]);
        child.wait().unwrap();
        assert!(
            !place.dir.path("prefix").exists(),
            "cut after {cut} bytes: {:?}",
            &SCRIPT[..cut].lines().last()
        );
    }
    let mut command = Command::new(found("dash"));
    command.args(["-s", "--", "--prefix", &place.dir.text("prefix")]);
    place.environment(&mut command);
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(SCRIPT.as_bytes())
        .unwrap();
    let (code, said) = end(child);
    assert_eq!(
        (code, place.version().as_str()),
        (0, "noports 1.0.0"),
        "{said}"
    );
}

#[test]
fn what_is_asked_of_a_device_is_looked_at_before_anything_is_downloaded() {
    for shell in SHELLS {
        let place = Place::new(shell);
        for (words, want) in [
            (&["device"][..], "--as is missing"),
            (&["device", "--as", "@d"], "--manager is missing"),
            (&["device", "--as"], "--as needs a value"),
            (&["devices"], "unknown word: devices"),
        ] {
            place.fails(words, want);
        }
        assert!(!place.dir.path("prefix").exists());
    }
}

/// A checkout of this one's packaging, with an executable to pack.
struct Checkout(Folder);

impl Checkout {
    fn new() -> Self {
        let dir = Folder::new();
        let from = env!("CARGO_MANIFEST_DIR");
        for what in ["packaging", "LICENSE", "README.md", ".gitignore"] {
            run("cp", &["-R", &format!("{from}/{what}"), &dir.text("")]);
        }
        let keys = dir.path("packaging/containers/keys");
        let _ = fs::remove_dir_all(&keys);
        let place = Self(dir);
        place.git(&["init", "-q"]);
        place.git(&["add", "-A"]);
        // What first-keys.sh leaves, and what people leave.
        fs::create_dir_all(&keys).unwrap();
        for stray in [
            "packaging/containers/keys/@me_key.atKeys",
            "packaging/containers/ca.pem",
            "packaging/services/notes.txt",
            "packaging/services/.secret",
            "packaging/stray/id_ed25519",
        ] {
            let file = place.0.path(stray);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "secret").unwrap();
        }
        put(&place.0.path("program"), "#!/bin/sh\n");
        place
    }

    fn git(&self, words: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(words).current_dir(&self.0.0).stderr(Stdio::null());
        // Started from a hook, git would work on the checkout that it came from.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(name);
        }
        let done = git.output().unwrap();
        assert!(done.status.success(), "git {words:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Exit code, what was said, and whether there is an archive now.
    fn pack(&self) -> (i32, String, bool) {
        let mut pack = Command::new("sh");
        pack.arg(self.0.path("packaging/archive.sh"))
            .args([
                &self.0.text("program"),
                "1.0.0",
                "x86_64",
                &self.0.text("out"),
            ])
            .env("SOURCE_DATE_EPOCH", "0");
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            pack.env_remove(name);
        }
        let (code, said) = end(pack.stderr(Stdio::piped()).spawn().unwrap());
        (code, said, self.archive().exists())
    }

    fn archive(&self) -> PathBuf {
        self.0.path("out/noports-1.0.0-x86_64.tar.gz")
    }

    fn packed(&self) -> Vec<String> {
        let tar = Command::new("tar").arg("-tzf").arg(self.archive()).output();
        let list = String::from_utf8(tar.unwrap().stdout).unwrap();
        let files = list.lines().filter(|line| !line.ends_with('/'));
        let mut files: Vec<String> = files
            .map(|line| line.trim_start_matches("noports-1.0.0-x86_64/").to_owned())
            .collect();
        files.sort();
        files
    }
}

#[test]
fn an_archive_holds_what_git_tracks_and_no_keys() {
    let place = Checkout::new();
    let (code, said, there) = place.pack();
    assert!(code == 0 && there, "{said}");
    let tracked = place.git(&[
        "ls-files",
        "LICENSE",
        "README.md",
        "packaging/SECURITY.md",
        "packaging/CHANGELOG.md",
        "packaging/*/*",
    ]);
    let mut want: Vec<String> = tracked
        .lines()
        .map(|line| line.trim_start_matches("packaging/").to_owned())
        .chain(["noports".to_owned()])
        .collect();
    want.sort();
    assert_eq!(place.packed(), want);
    for each in ["services/loop.sh", "SECURITY.md", "licences/crates.txt"] {
        assert!(want.contains(&each.to_owned()), "{each}: {want:?}");
    }
    let ignored = place.git(&["status", "--short", "--ignored"]);
    for line in [
        "!! packaging/containers/ca.pem",
        "!! packaging/containers/keys/",
    ] {
        assert!(ignored.lines().any(|other| other == line), "{ignored}");
    }
}

#[test]
fn an_archive_with_a_key_or_a_link_or_without_git_is_not_made() {
    for (add, want) in [
        (
            "packaging/containers/keys/@me_key.atKeys",
            "looks like a key",
        ),
        ("packaging/containers/ca.pem", "looks like a key"),
        ("packaging/stray/id_ed25519", "looks like a key"),
        ("packaging/stray/link", "is no file"),
    ] {
        let place = Checkout::new();
        symlink("/etc/passwd", place.0.path("packaging/stray/link")).unwrap();
        place.git(&["add", "-f", add]);
        let (code, said, there) = place.pack();
        assert!(code == 1 && !there && said.contains(want), "{add}: {said}");
    }
    let place = Checkout::new();
    fs::remove_dir_all(place.0.path(".git")).unwrap();
    let (code, said, there) = place.pack();
    assert!(
        code == 1 && !there && said.contains("this is no checkout"),
        "{said}"
    );
}

/// A machine with nothing but cron, and a world around it: one line makes a device of it.
#[test]
fn one_line_makes_a_device() {
    block_on(async {
        let world = World::start().await;
        let place = Place::new(Shell::Dash);
        place.release_of(
            env!("CARGO_PKG_VERSION"),
            &format!("#!/bin/sh\nexec '{NOPORTS}' \"$@\"\n"),
        );
        let crontab = place.dir.text("crontab");
        place.tool(
            "crontab",
            &format!("case $1 in -l) cat '{crontab}' ;; -) cat >'{crontab}.new' && mv '{crontab}.new' '{crontab}' ;; esac"),
        );
        fs::write(&crontab, "0 4 * * * backup\n").unwrap();
        let keys = place.dir.text("device.atKeys");
        let code = stdout(world.noports(&["enroll", "otp", DEVICE])).await;
        let mut approves = world.noports(&["enroll", "auto", DEVICE, "--app-pattern", ".*"]);
        let mut approves = approves
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says when it listens.
        let mut heard = String::new();
        BufReader::new(approves.stderr.take().unwrap())
            .read_line(&mut heard)
            .unwrap();
        let words = |code: &str| -> Vec<String> {
            let ca = world.dir.text("at/ca.pem");
            let root = world.root();
            let words = [
                "--no-restart",
                "device",
                "--as",
                DEVICE,
                "--manager",
                "@alice",
                "--device",
                NAME,
                "--code",
                code,
                "--keys",
                &keys,
                "--root",
                &root,
                "--ca",
                &ca,
                "--init",
                "cron",
                "--instance",
                "t",
            ];
            words.map(str::to_owned).to_vec()
        };
        let guard = Uninstall(&place);
        for turn in ["first", "again"] {
            let words = words(code.trim());
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let (code, said) = place.install(&words);
            assert_eq!(code, 0, "{turn}: {said}");
            assert!(said.contains("connected as @device"), "{turn}: {said}");
        }
        let listed = stdout(world.noports(&["enroll", "list", DEVICE, "--json"])).await;
        assert!(
            listed.contains(&format!("\"device\":\"{NAME}\"")),
            "{listed}"
        );
        let lines = fs::read_to_string(&crontab).unwrap();
        assert!(
            lines.starts_with("0 4 * * * backup\n@reboot /bin/sh "),
            "{lines}"
        );
        assert_eq!(lines.lines().count(), 2, "{lines}");
        let shown = place.noports(&["daemon", "status"]);
        assert!(
            shown.contains("connected   for ") && shown.contains("noports-daemon-t  (cron"),
            "{shown}"
        );

        let removed = place.noports(&["daemon", "uninstall", "--instance", "t"]);
        assert_eq!(removed, "");
        assert_eq!(fs::read_to_string(&crontab).unwrap(), "0 4 * * * backup\n");
        assert!(Path::new(&keys).exists());
        drop(guard);
        let _ = approves.wait();
    });
}

/// Ends the service whatever happens.
struct Uninstall<'a>(&'a Place);

impl Drop for Uninstall<'_> {
    fn drop(&mut self) {
        self.0.noports(&["daemon", "uninstall", "--instance", "t"]);
    }
}

impl Place {
    /// The installed program's stdout.
    fn noports(&self, words: &[&str]) -> String {
        let mut command = Command::new(self.bin("noports"));
        command.args(words).stderr(Stdio::null());
        self.environment(&mut command);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }
}
