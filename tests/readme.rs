//! The README, followed by somebody who types what it says: every block of commands runs here, and prints what the README
//! shows, or stands in [`NOT_RUN`] with the reason.
//!
//! ```text
//!   README.md ── blocks (sh, console) ──▶ the story below: one home folder per machine, an atServer, a real sshd
//!                                            │ names, ports and folders of this run (`Reader::here`)
//!                                            ▼
//!                 `$ command` ──▶ sh ──▶ what it prints ══ the lines under it?   what differs each time: `VARIES`
//! ```
//! In what is shown, a line `…` stands for any number of lines, and ` …` at a line's end for the rest of it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use async_std::task::block_on;
use noports::sys::{sshd::Sshd, user};
use regex_lite::{Captures, Regex};

use crate::world::{
    NOPORTS, Process, World,
    support::{becomes, wait_until},
};

const README: &str = include_str!("../README.md");

/// Blocks that do not run here, by their first line.
const NOT_RUN: &[(&str, &str)] = &[
    (
        "noports daemon --as @my_device --manager @me --device pi    # on the device",
        "it goes to the public atDirectory",
    ),
    (
        "sudo noports daemon install",
        "it needs root and a service manager; tests/service.rs is about it",
    ),
];

/// What is another each time.
const VARIES: &[(&str, &str)] = &[
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"^\d\d:\d\d:\d\d up .*", "UPTIME"),
    (
        r"(through port|127\.0\.0\.1:|^atDirectory localhost:)\s*\d+",
        "$1 PORT",
    ),
    (r"^\d{1,5}$", "PORT"),
    (r"^[0-9a-f]{32,}…?$", "SECRET"),
    (r"^[0-9A-Z]{6}$", "CODE"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"\b[0-9a-f]{4}-[0-9a-f]{4}\b", "SHORT"),
];

/// Any number of lines, in what is shown.
const SKIP: &str = "…";
/// The rest of a line that is too long to be shown.
const REST: &str = " …";
/// Most columns of a line in a block, as a terminal has them, and of other text.
const MOST_COLUMNS: (usize, usize) = (80, 120);

/// A command, and the lines that are shown of it; none in a block that shows nothing.
type Step = (String, Option<Vec<String>>);

/// A fenced block of the README.
struct Block {
    language: String,
    lines: Vec<String>,
    is_done: Cell<bool>,
}

impl Block {
    fn all(text: &str) -> Vec<Self> {
        let mut blocks = Vec::new();
        let mut open: Option<Self> = None;
        for line in text.lines() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(language), None) => {
                    open = Some(Self {
                        language: language.to_owned(),
                        lines: Vec::new(),
                        is_done: Cell::new(false),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => block.push(line),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "a block does not end");
        blocks
    }

    /// One line more; what follows a backslash at a line's end belongs to that line.
    fn push(&mut self, line: &str) {
        match self.lines.last_mut() {
            Some(last) if last.ends_with('\\') => {
                last.pop();
                *last += line.trim_start();
            }
            _ => self.lines.push(line.to_owned()),
        }
    }

    fn has_commands(&self) -> bool {
        ["sh", "console", "bash", "shell", ""].contains(&&*self.language)
    }

    /// Without the prompt.
    fn first(&self) -> &str {
        let line = self.lines.first().map_or("", |line| line);
        line.strip_prefix("$ ").unwrap_or(line)
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for line in &self.lines {
            if self.language != "console" {
                steps.push((line.clone(), None));
            } else if let Some(command) = line.strip_prefix("$ ") {
                steps.push((command.to_owned(), Some(Vec::new())));
            } else {
                let step = steps.last_mut().expect("a console block begins with $");
                step.1.as_mut().unwrap().push(line.clone());
            }
        }
        steps
    }
}

/// Blocks of commands that were neither run nor are listed; and entries of the list that are of no use.
fn left_out(blocks: &[Block], not_run: &[(&str, &str)]) -> Vec<String> {
    let is_listed = |block: &Block| {
        not_run
            .iter()
            .any(|(line, _)| block.first().starts_with(line))
    };
    let missing = blocks
        .iter()
        .filter(|block| block.has_commands() && block.is_done.get() == is_listed(block))
        .map(|block| format!("run and listed, or neither: {}", block.first()));
    let stale = not_run
        .iter()
        .filter(|(line, _)| !blocks.iter().any(|block| block.first().starts_with(line)))
        .map(|(line, _)| format!("not in the README: {line}"));
    missing.chain(stale).collect()
}

/// A line without what varies.
fn plain(line: &str) -> String {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    VARIES.iter().fold(line, |line, (pattern, name)| {
        Regex::new(pattern)
            .unwrap()
            .replace_all(&line, *name)
            .into_owned()
    })
}

/// Whether this line is the shown one.
fn is_same(shown: &str, line: &str) -> bool {
    let (shown, line) = (plain(shown), plain(line));
    match shown.strip_suffix(REST) {
        Some(start) => line.starts_with(start),
        None => shown == line,
    }
}

/// Whether these lines are the shown ones; with `more`, whether they begin with them.
fn fits(shown: &[String], lines: &[String], more: bool) -> bool {
    match (shown, lines) {
        ([], rest) => more || rest.is_empty(),
        ([first, rest @ ..], _) if first == SKIP => {
            (0..=lines.len()).any(|skipped| fits(rest, &lines[skipped..], more))
        }
        ([first, shown @ ..], [line, lines @ ..]) => {
            is_same(first, line) && fits(shown, lines, more)
        }
        _ => false,
    }
}

/// Somebody who reads the README, and has several machines.
struct Reader {
    blocks: Vec<Block>,
    world: World,
    sshd: Sshd,
    /// Port of the web server on the device.
    web: u16,
    /// The tunnel's, once it is open.
    local: Cell<u16>,
    /// The directory that the reader hosts.
    root: Cell<u16>,
    running: BTreeMap<&'static str, Process>,
}

impl Reader {
    async fn start() -> Self {
        let world = World::empty("localhost", |_| {}).await;
        let sshd = world.sshd().await;
        let reader = Self {
            blocks: Block::all(README),
            web: web_server(),
            local: Cell::new(0),
            root: Cell::new(0),
            running: BTreeMap::new(),
            world,
            sshd,
        };
        fs::create_dir(reader.world.dir.path("srv")).unwrap();
        for (who, pkam, encryption) in [
            ("@me", "@client_example_pkam", "@client_example"),
            ("@my_device", "@device_example_pkam", "@device_example"),
            ("@my_rendezvous", "session", "@client_example"),
            ("@policy", "session", "@device_example"),
        ] {
            reader.world.activate(who, pkam, encryption).await;
            let from = reader.world.key_file(&who.parse().unwrap());
            let to = reader.home(who).join(".atsign/keys");
            fs::create_dir_all(&to).unwrap();
            fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
        }
        reader.set_up_ssh();
        let settings = reader.home("@my_device").join(".config/noports");
        fs::create_dir_all(&settings).unwrap();
        let port = format!("sshd-port {}\n", reader.sshd.port);
        fs::write(settings.join("daemon.conf"), port).unwrap();
        reader
    }

    /// The home folder on this machine.
    fn home(&self, machine: &str) -> PathBuf {
        let home = self.world.dir.path(machine);
        fs::create_dir_all(&home).unwrap();
        home
    }

    /// OpenSSH asks the password file for the home folder, so it is told; and it trusts the device already.
    fn set_up_ssh(&self) {
        let (tools, ssh) = (self.world.dir.path("tools"), self.home("@me").join(".ssh"));
        for folder in [&tools, &ssh] {
            fs::create_dir_all(folder).unwrap();
        }
        symlink(NOPORTS, tools.join("noports")).unwrap();
        let config = ssh.join("config");
        for (tool, more) in [
            ("ssh", String::new()),
            ("scp", format!("-S {}/ssh", tools.display())),
        ] {
            let path = tools.join(tool);
            let real = find(tool);
            let script = format!(
                "#!/bin/sh\nexec {} -F {} {more} \"$@\"\n",
                real.display(),
                config.display()
            );
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let known = ssh.join("known_hosts");
        fs::write(
            &known,
            format!("pi.my_device.noports {}\n", self.sshd.host_key),
        )
        .unwrap();
        let block = self.block("Host pi");
        let settings = format!(
            "{}\nHost *\n  IdentityFile {}\n  UserKnownHostsFile {}\n  BatchMode yes\n",
            self.here("@me", &block.lines.join("\n")),
            self.sshd.identity.display(),
            known.display()
        );
        fs::write(config, settings).unwrap();
    }

    /// The README's names, ports and folders as they are in this run.
    fn here(&self, machine: &str, text: &str) -> String {
        let names = Regex::new(
            r"at\.example\.org:6400|at\.example\.org|--port 6400|0\.0\.0\.0|rv\.example\.org|/home/pi/|/home/me/|ssh pi@|User pi\b|localhost:22\b|localhost:80\b|\b8080\b",
        )
        .unwrap();
        let home = self.home(machine);
        let replaced = names.replace_all(text, |found: &Captures| match &found[0] {
            "at.example.org:6400" => format!("localhost:{}", self.root.get()),
            "at.example.org" => "localhost".to_owned(),
            "--port 6400" => "--port 0".to_owned(),
            "0.0.0.0" | "rv.example.org" => "127.0.0.1".to_owned(),
            "/home/pi/" => format!("{}/", self.world.dir.text("srv")),
            "/home/me/" => format!("{}/", home.display()),
            "ssh pi@" => format!("ssh {}@", user::name().unwrap()),
            "User pi" => format!("User {}", user::name().unwrap()),
            "localhost:22" => format!("localhost:{}", self.sshd.port),
            "localhost:80" => format!("localhost:{}", self.web),
            _ => self.local.get().to_string(),
        });
        replaced.into_owned()
    }

    /// The block with this first line, else the only one whose first line begins so.
    fn block(&self, first: &str) -> &Block {
        if let Some(block) = self.blocks.iter().find(|block| block.first() == first) {
            return block;
        }
        let mut found = self
            .blocks
            .iter()
            .filter(|block| block.first().starts_with(first));
        let block = found
            .next()
            .unwrap_or_else(|| panic!("the README has no block {first:?}"));
        assert!(
            found.next().is_none(),
            "several blocks begin with {first:?}"
        );
        block
    }

    /// A command on this machine; the world's atDirectory, unless it is one of those who host their own.
    fn command(&self, machine: &str, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let home = self.home(machine);
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if ["NOPORTS_", "XDG_"]
                .iter()
                .any(|own| name.to_string_lossy().starts_with(own))
            {
                command.env_remove(name);
            }
        }
        if machine.starts_with('@') {
            command
                .env("NOPORTS_ROOT", self.world.root())
                .env("NOPORTS_CA", self.world.dir.path("at/ca.pem"));
        }
        command
            .env("PATH", format!("{}:{path}", self.world.dir.text("tools")))
            .env("HOME", &home)
            .current_dir(home)
            .args(["-c", &self.here(machine, line)]);
        command
    }

    /// Starts it; everything it prints goes, in order, into a file of this kind.
    fn spawn(&self, machine: &str, line: &str, stdin: &str, to: &str) -> (Process, PathBuf) {
        let file = self.world.dir.path(&format!("{machine}.{to}"));
        let said = fs::File::create(&file).unwrap();
        let mut command = self.command(machine, line);
        command
            .stdin(Stdio::piped())
            .stderr(said.try_clone().unwrap())
            .stdout(said);
        let mut process = Process(command.spawn().unwrap());
        let mut pipe = process.0.stdin.take().unwrap();
        // Who does not read it has ended, or will say so.
        let _ = pipe.write_all(stdin.as_bytes());
        (process, file)
    }

    /// Runs the block that begins with this, to its end; what it printed.
    fn follow(&self, first: &str, machine: &str) -> Vec<String> {
        self.follow_with(first, machine, "")
    }

    /// The same with what the person types.
    fn follow_with(&self, first: &str, machine: &str, stdin: &str) -> Vec<String> {
        let block = self.block(first);
        block.is_done.set(true);
        let (mut all, mut exports) = (Vec::new(), String::new());
        for (line, shown) in block.steps() {
            if line.starts_with("export ") {
                exports = format!("{line}\n");
                continue;
            }
            let (mut process, file) =
                self.spawn(machine, &format!("{exports}{line}"), stdin, "said");
            let status = process.0.wait().unwrap();
            let lines = lines_of(&file);
            assert!(status.success(), "{line}: {status}\n{}", lines.join("\n"));
            let shown = shown.map(|shown| self.shown(machine, &shown));
            if let Some(shown) = shown.filter(|shown| !fits(shown, &lines, false)) {
                panic!(
                    "{line}\nREADME:\n{}\nprinted:\n{}",
                    shown.join("\n"),
                    lines.join("\n")
                );
            }
            if let Some(port) = lines.last().and_then(|line| line.parse().ok()) {
                self.local.set(port);
            }
            all.extend(lines);
        }
        all
    }

    fn shown(&self, machine: &str, shown: &[String]) -> Vec<String> {
        shown.iter().map(|line| self.here(machine, line)).collect()
    }

    /// Starts the program of this block, in place of the one that ran on this machine, and waits for what is shown.
    fn serve(&mut self, first: &str, machine: &'static str, stdin: &str) -> Vec<String> {
        let steps = self.steps_of(first, 1);
        self.serve_step(&steps[0], machine, stdin)
    }

    /// A block with one command for each of these machines: the first one ends, the others start programs.
    fn serve_others(&mut self, first: &str, machines: &[&'static str]) {
        let steps = self.steps_of(first, machines.len());
        let mut ended = self.command(machines[0], &steps[0].0);
        assert!(ended.output().unwrap().status.success(), "{}", steps[0].0);
        for (step, machine) in steps.iter().zip(machines).skip(1) {
            self.serve_step(step, machine, "");
        }
    }

    /// The commands of a block that has so many.
    fn steps_of(&self, first: &str, number: usize) -> Vec<Step> {
        let block = self.block(first);
        block.is_done.set(true);
        let steps = block.steps();
        assert_eq!(steps.len(), number, "commands in the block {first:?}");
        steps
    }

    fn serve_step(&mut self, step: &Step, machine: &'static str, stdin: &str) -> Vec<String> {
        self.running.remove(machine);
        let (line, shown) = step;
        // So that ending the process ends the program.
        let (process, file) = self.spawn(machine, &format!("exec {line}"), stdin, "service");
        let shown = shown.as_ref().map(|shown| self.shown(machine, shown));
        let mut lines = Vec::new();
        let is_there = block_on(becomes(|| {
            lines = lines_of(&file);
            match &shown {
                Some(shown) => fits(shown, &lines, true),
                None => lines.iter().any(|line| line.contains(": ready ")),
            }
        }));
        assert!(
            is_there,
            "{line}\nREADME:\n{}\nprinted:\n{}",
            shown.unwrap_or_default().join("\n"),
            lines.join("\n")
        );
        self.running.insert(machine, process);
        lines
    }
}

fn lines_of(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Where the machine's own tool is.
fn find(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(tool))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{tool} is not installed; packaging/test.sh installs it"))
}

/// The web page on the device. Ends with the tests.
fn web_server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let text = "hello from the device\n";
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
            let mut request = std::io::BufReader::new(socket.try_clone().unwrap());
            let mut line = String::new();
            while std::io::BufRead::read_line(&mut request, &mut line).is_ok_and(|size| size > 2) {
                line.clear();
            }
            let _ = socket.write_all(format!("{head}{text}").as_bytes());
        }
    });
    port
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let mut reader = block_on(Reader::start());

    // The two commands at the top, and whom they need.
    reader.serve("noports rendezvous --as", "@my_rendezvous", "");
    let daemon = "noports daemon --as @my_device --manager @me --device pi";
    reader.serve(daemon, "@my_device", "");
    reader.follow(
        "noports client --to pi@my_device --via @my_rendezvous",
        "@me",
    );

    // ssh, and programs that use it.
    fs::write(reader.home("@me").join("notes.txt"), "a note\n").unwrap();
    let bare = reader.world.dir.path("srv/project.git");
    let made = Command::new("git")
        .args(["init", "-q", "--bare"])
        .arg(bare)
        .status();
    assert!(made.unwrap().success());
    reader.follow("ssh pi uptime", "@me");
    let copy = reader.home("@me").join("copy.txt");
    assert_eq!(fs::read_to_string(copy).unwrap(), "a note\n");
    assert!(reader.home("@me").join("project/.git").is_dir());

    // Keys that are remembered.
    reader.follow("noports trust show @me", "@my_device");

    // Any port.
    reader.serve(
        "noports daemon --as @my_device --manager @me --device pi --permit-open",
        "@my_device",
        "",
    );
    reader.follow("noports tunnel", "@me");

    // One more device.
    let code = reader
        .follow("noports enroll otp @me", "@me")
        .pop()
        .unwrap();
    reader.serve("noports enroll @me --device kitchen", "@kitchen", &code);
    reader.follow("noports enroll approve @me", "@me");
    let keys = reader.home("@kitchen").join(".atsign/keys/@me_key.atKeys");
    wait_until("the new device has its keys", || keys.exists());

    // A policy; and strangers.
    let rules = reader.block("userGroups:").lines.join("\n");
    let rules = reader.here("@policy", &rules);
    fs::write(reader.home("@policy").join("policy.yaml"), rules).unwrap();
    reader.serve_others(
        "noports policy check",
        &["@policy", "@policy", "@my_device"],
    );

    host_ones_own(&mut reader);

    let left_out = left_out(&reader.blocks, NOT_RUN);
    assert!(left_out.is_empty(), "{}", left_out.join("\n"));
}

/// An atServer of the reader's own, and keys from it.
fn host_ones_own(reader: &mut Reader) {
    let said = reader.serve("noports atserver serve", "host", "");
    let port = said[0].rsplit_once(':').unwrap().1.parse().unwrap();
    reader.root.set(port);
    let secret = reader.follow("noports atserver add @me", "host").remove(0);
    for who in ["@my_device", "@my_rendezvous"] {
        let line = format!("noports atserver add {who} --data ~/atserver");
        assert!(
            reader
                .command("host", &line)
                .output()
                .unwrap()
                .status
                .success()
        );
    }
    let ca = reader.home("host").join("atserver/ca.pem");
    fs::copy(ca, reader.home("owner").join("ca.pem")).unwrap();
    reader.follow_with("export NOPORTS_ROOT", "owner", &secret);
}

#[test]
fn the_readme_fits_a_terminal() {
    let mut is_code = false;
    for line in README.lines() {
        let width = line.chars().count();
        if line.starts_with("```") {
            is_code = !is_code;
        } else if is_code {
            assert!(width <= MOST_COLUMNS.0, "{line}");
        } else if !line.starts_with('|') {
            assert!(width <= MOST_COLUMNS.1, "{line}");
        }
    }
}

#[test]
fn a_block_that_nobody_runs_is_named() {
    let blocks = Block::all(
        "```sh\nls a\n```\ntext\n```yaml\na: b\n```\n```console\n$ ls b\nb\n```\n```\nls c\n```\n",
    );
    assert_eq!(blocks.len(), 4);
    blocks[2].is_done.set(true);
    let gone = [("ls c", "a reason"), ("ls d", "not there")];
    assert_eq!(
        left_out(&blocks, &gone),
        [
            "run and listed, or neither: ls a",
            "not in the README: ls d"
        ]
    );
    assert_eq!(
        left_out(&blocks, &[("ls a", ""), ("ls b", ""), ("ls c", "")]),
        ["run and listed, or neither: ls b"]
    );
}

#[test]
fn output_that_differs_from_what_is_shown_is_noticed() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let fits = |shown, printed, more| fits(&lines(shown), &lines(printed), more);
    assert!(fits("a  b\nc", "a b\nc", false));
    assert!(!fits("a\nc", "a\nd", false));
    assert!(!fits("a", "a\nb", false));
    assert!(fits("a", "a\nb", true));
    assert!(!fits("a\nb", "a", true));
    assert!(fits("a b …", "a b c d", false));
    assert!(!fits("a b …", "a c d", false));
    assert!(fits("…\nb", "x\ny\nb", false));
    assert!(!fits("…\nb", "x\ny", false));
    assert!(fits(
        "2026-01-01T00:00:00.000Z info ready",
        "2027-12-31T23:59:59.123Z info ready",
        false
    ));
    assert!(!fits(
        "through port 1234 as a",
        "through port 4321 as b",
        false
    ));
}
