//! Other people's programs against our server, and against our client: PyPI's `atsdk` and `sshnpd`.
//!
//! ```text
//!   test ── one line of JSON each way ──▶ agent.py: atsdk ──┐
//!     │                                                     ├──▶ our atServer
//!     ├──▶ our client ──────────────────────────────────────┤
//!     └──▶ daemon.py: sshnpd ───────────────────────────────┘
//! ```
//!
//! Both are installed once, each with what it pins, into a virtual environment below `target/tmp`. Certificates are
//! checked, against the world's own authority.

mod daemon;
mod namespace;
mod sdk;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use miniserde::json;

use crate::world::{Process, World};

/// The newest `atsdk` these tests were made with.
const ATSDK: &str = "atsdk==0.2.81";
/// The last `sshnpd` on PyPI; it pins an older `atsdk`.
const SSHNPD: &str = "sshnpd==0.4.16";
/// For one order; atsdk itself waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign");

/// A virtual environment with this package, made when it is not there yet.
fn environment(requirement: &str) -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign");
    fs::create_dir_all(&all).unwrap();
    let home = all.join(requirement);
    // Tests of this process and of others may want it at the same time.
    let lock = fs::File::create(all.join(format!("{requirement}.lock"))).unwrap();
    lock.lock().unwrap();
    let complete = home.join("complete");
    if complete.exists() && home.join("bin/python3").exists() {
        return home;
    }
    let _ = fs::remove_dir_all(&home);
    let mut venv = Command::new("python3");
    run(venv.args(["-m", "venv"]).arg(&home));
    let mut pip = Command::new(home.join("bin/python3"));
    let quietly = ["--quiet", "--no-input", "--disable-pip-version-check"];
    run(pip
        .args(["-m", "pip", "install"])
        .args(quietly)
        .arg(requirement));
    fs::write(complete, "").unwrap();
    home
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|why| panic!("{command:?}: {why}; {REMEDY}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}; {REMEDY}\n{said}",
        output.status
    );
}

const REMEDY: &str =
    "these tests need python3 with venv (packaging/test.sh installs it) and, once, a package index";

/// A Python program in this world: it finds the key files and trusts the world's authority.
fn python(world: &World, environment: &Path, program: &str) -> Command {
    let home = world.dir.path("home");
    if !home.exists() {
        fs::create_dir_all(home.join(".atsign")).unwrap();
        symlink(world.dir.path("keys"), home.join(".atsign/keys")).unwrap();
    }
    let mut command = Command::new(environment.join("bin/python3"));
    command
        .arg(program)
        .env("HOME", home)
        .env("SSL_CERT_FILE", world.dir.path("at/ca.pem"))
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // Key files are looked for here, too.
        .current_dir(&world.dir.0);
    command
}

/// Where its directory is, as two words.
fn directory(world: &World) -> [String; 2] {
    let root = world.network.root.to_string();
    let (host, port) = root.rsplit_once(':').unwrap();
    [host.to_owned(), port.to_owned()]
}

/// Programs in Python take the first address of a name, and only IPv4; so the world has an address for a name.
async fn world() -> World {
    World::start_with("127.0.0.1", |_| {}).await
}

/// A program that uses atsdk, and does as it is told.
struct Agent {
    orders: ChildStdin,
    answers: mpsc::Receiver<String>,
    _process: Process,
}

impl Agent {
    fn start(world: &World) -> Self {
        Self::start_at(world, &directory(world))
    }

    /// With the directory it is to use; without, the one it was made for.
    fn start_at(world: &World, directory: &[String]) -> Self {
        let mut command = python(world, &environment(ATSDK), &format!("{SCRIPTS}/agent.py"));
        command
            .args(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // atsdk prints what it does.
            .stderr(fs::File::create(world.dir.path("agent.log")).unwrap());
        let mut child = command.spawn().unwrap();
        Self {
            orders: child.stdin.take().unwrap(),
            answers: lines(&mut child),
            _process: Process(child),
        }
    }

    /// Logged in.
    fn login(world: &World, who: &str) -> Self {
        let mut agent = Self::start(world);
        agent.ask(&["login", who]);
        agent
    }

    fn order(&mut self, words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        writeln!(self.orders, "{}", json::to_string(&words)).unwrap();
        let answer = self.answers.recv_timeout(PATIENCE);
        let answer = answer.unwrap_or_else(|why| panic!("{words:?}: {why}"));
        json::from_str(&answer).unwrap()
    }

    /// An order that must succeed.
    fn ask(&mut self, words: &[&str]) -> Vec<String> {
        let mut answer = self.order(words);
        assert_eq!(answer.remove(0), "ok", "{words:?}: {answer:?}");
        answer
    }

    /// An order that must fail: the exception's class and text.
    fn fail(&mut self, words: &[&str]) -> (String, String) {
        match &self.order(words)[..] {
            [error, class, text] if error == "error" => (class.clone(), text.clone()),
            other => panic!("{words:?}: {other:?}"),
        }
    }
}

/// What it prints, line by line.
fn lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
