//! `noports service` and `noports daemon status`: which services are here, and how they are.
//!
//! Three places know: the file that we wrote, what the running program tells (`sys::notify`), and, when it
//! tells nothing, the service manager.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use argh::FromArgs;
use miniserde::json;

use super::{
    Failure, PROGRAMS, Program, act, below,
    host::{self, Init},
    render,
};
use crate::cli::{Console, exit, print_err, print_out};
use crate::sys::{
    supervisor::Told,
    user::{self, Person},
};
use crate::text::json::{Object, array};

/// The services of this machine: how they are, and a new start.
#[derive(FromArgs, Debug)]
#[argh(
    example = "{command_name} status",
    example = "{command_name} restart",
    note = "A service is made by noports daemon install, noports rendezvous install and so on.",
    error_code(1, "one of them does not run, or there is none"),
    error_code(4, "all run, but one of them is not connected")
)]
struct Args {
    #[argh(subcommand)]
    what: What,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum What {
    Status(Status),
    Restart(Restart),
}

/// Tell how they are.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
struct Status {
    /// only those of these programs (default: all)
    #[argh(positional)]
    program: Vec<String>,
    /// one line of JSON
    #[argh(switch)]
    json: bool,
}

/// Start them anew, for instance after an upgrade. Sessions live on.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "restart")]
struct Restart {
    /// only those of these programs (default: all)
    #[argh(positional)]
    program: Vec<String>,
    /// one line of JSON
    #[argh(switch)]
    json: bool,
}

/// Tell whether this program's service is installed, runs, and is connected.
#[derive(FromArgs, Debug)]
#[argh(
    error_code(1, "it is not installed, or does not run"),
    error_code(4, "it runs, but is not connected")
)]
struct OfProgram {
    /// one line of JSON
    #[argh(switch)]
    json: bool,
}

/// A service whose file is here.
#[derive(Clone, Debug)]
pub struct Found {
    /// What the service manager calls it.
    pub name: String,
    /// Which one that is.
    pub init: Init,
    /// Where its file is.
    pub file: PathBuf,
}

/// The program.
pub fn main(mut console: Console, words: &[&str]) -> ExitCode {
    let args: Args = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match args.what {
        What::Status(args) => show(&console, &args.program, args.json),
        What::Restart(args) => console.finish(args.json, restart(&args.program, args.json)),
    }
}

/// `noports daemon status`.
pub fn of_program(name: &str, program: &Program, words: &[&str]) -> ExitCode {
    let mut console = Console::new(name);
    match console.parse::<OfProgram>(words) {
        Ok(args) => show(&console, &[program.name.to_owned()], args.json),
        Err(code) => code,
    }
}

/// The services whose files are here and ours.
pub fn installed(destdir: Option<&Path>) -> Vec<Found> {
    let mut found = Vec::new();
    let Some(me) = user::me() else { return found };
    for (_, init) in Init::ALL {
        // OpenRC and procd keep theirs in one place; the file says whose it is.
        let example = below(destdir, &init.file("noports-x", &me));
        let (Some(folder), Some(shape)) = (example.parent(), example.file_name()) else {
            continue;
        };
        let shape = shape.to_string_lossy();
        let label = init.label("noports-x");
        let stem = if shape.contains(&label) {
            &label
        } else {
            "noports-x"
        };
        let Some((before, after)) = shape.split_once(stem) else {
            continue;
        };
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let middle = file
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after));
            let Some(name) = middle.and_then(name_of) else {
                continue;
            };
            let text = fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let openrc = text.starts_with("#!/sbin/openrc-run");
            let fits = match init {
                Init::OpenRc => openrc,
                Init::Procd => !openrc,
                _ => true,
            };
            if fits && render::is_ours(&text) {
                found.push(Found {
                    name,
                    init,
                    file: entry.path(),
                });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// `noports-daemon-b` from that, or from macOS' `org.noports.daemon-b`, if it is one of our programs.
fn name_of(stem: &str) -> Option<String> {
    let rest = stem
        .strip_prefix("noports-")
        .or_else(|| stem.strip_prefix("org.noports."))?;
    let ours = PROGRAMS.iter().any(|program| of(rest, program));
    ours.then(|| format!("noports-{rest}"))
}

fn of(rest: &str, program: &Program) -> bool {
    let instance = rest.strip_prefix(program.name);
    instance.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn chosen(programs: &[String]) -> Result<Vec<Found>, Failure> {
    let mut wanted = Vec::new();
    for word in programs {
        let program = PROGRAMS.iter().find(|program| program.name == word);
        wanted.push(program.ok_or_else(|| {
            let names: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
            Failure::misuse(format!("{word:?} is no service"))
                .hint(format!("there are {}", names.join(", ")))
        })?);
    }
    let mut found = installed(None);
    found.retain(|found| {
        let rest = found.name.trim_start_matches("noports-");
        wanted.is_empty() || wanted.iter().any(|program| of(rest, program))
    });
    if found.is_empty() {
        let what = programs.first().map_or("daemon", String::as_str);
        let none = match programs {
            [] => "no service of noports is installed here".to_owned(),
            _ => format!("noports {what} is not installed as a service here"),
        };
        return Err(Failure::plain(none).hint(format!("noports {what} install --help")));
    }
    Ok(found)
}

fn restart(programs: &[String], json: bool) -> Result<(), Failure> {
    let found = chosen(programs)?;
    for service in &found {
        let me = user::me().ok_or_else(|| Failure::plain("who are you?"))?;
        act::restart(service.init, &service.name, &service.file, &me)?;
        print_err(&format!("{} is started anew", service.name));
    }
    if json {
        let names = array(found.iter().map(|found| found.name.as_str()));
        print_out(&Object::event("restarted").raw("services", names).end());
    }
    Ok(())
}

/// How a service is.
#[derive(miniserde::Serialize, Debug)]
struct Row {
    service: String,
    init: &'static str,
    file: String,
    running: bool,
    /// Whether somebody starts it again when it ends.
    watched: bool,
    pid: Option<u32>,
    /// Seconds since 1970.
    started: Option<u64>,
    version: Option<String>,
    /// `connected`, `starting`, `lost`, `stopping`, or `down`.
    state: String,
    text: String,
    since: Option<u64>,
    log: String,
}

fn show(console: &Console, programs: &[String], json: bool) -> ExitCode {
    let found = match chosen(programs) {
        Ok(found) => found,
        Err(failure) => return console.finish(json, Err(failure)),
    };
    let Some(me) = user::me() else {
        return console.finish(json, Err(Failure::plain("who are you?")));
    };
    let rows: Vec<Row> = found.iter().map(|found| row(found, &me)).collect();
    if json {
        print_out(&json::to_string(&rows));
    } else {
        let now = now();
        for row in &rows {
            print_out(&row.as_text(now));
        }
    }
    let all = |good: fn(&Row) -> bool| rows.iter().all(good);
    ExitCode::from(
        match (all(|row| row.running), all(|row| row.state == "connected")) {
            (true, true) => exit::FINE,
            (true, false) => exit::UNREACHABLE,
            _ => exit::FAILED,
        },
    )
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn row(found: &Found, me: &Person) -> Row {
    let told = act::told(&found.init.state_file(&found.name, me));
    let text = match &told {
        Some(told) => told.text.clone(),
        None => asked(found.init, &found.name),
    };
    let state = told.as_ref().map_or("down", |told| &told.state).to_owned();
    let get = |pick: fn(&Told) -> u64| told.as_ref().map(pick);
    Row {
        service: found.name.clone(),
        init: found.init.word(),
        file: found.file.display().to_string(),
        running: told.is_some(),
        watched: told
            .as_ref()
            .is_some_and(|told| act::is_watched(found.init, &found.name, me, told.pid)),
        pid: told.as_ref().map(|told| told.pid),
        started: get(|told| told.started),
        version: told.as_ref().map(|told| told.version.clone()),
        state,
        text,
        since: get(|told| told.since),
        log: found.init.log(&found.name, me),
    }
}

/// Why it does not run, as far as systemd knows.
fn asked(init: Init, name: &str) -> String {
    let mut words = vec!["systemctl"];
    match init {
        Init::Systemd => {}
        Init::SystemdUser => words.push("--user"),
        _ => return String::new(),
    }
    words.extend([
        "show",
        name,
        "--property=ActiveState,SubState,Result,ExecMainStatus",
    ]);
    let said = host::output(&words, None)
        .map(|done| done.stdout)
        .unwrap_or_default();
    explain(&String::from_utf8_lossy(&said))
}

/// What systemd says about a service that does not run, in our words.
fn explain(properties: &str) -> String {
    let pairs: BTreeMap<&str, &str> = properties
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let get = |name| pairs.get(name).copied().unwrap_or_default();
    let code: u8 = get("ExecMainStatus").parse().unwrap_or(0);
    let meaning = exit::TABLE.iter().find(|row| row.0 == code && code != 0);
    let why = meaning.map_or(String::new(), |(code, text)| {
        format!(": {text} (exit code {code})")
    });
    match (get("ActiveState"), get("SubState")) {
        ("activating", "auto-restart") => format!("it fails again and again{why}"),
        ("failed", _) => format!("it has failed{why}"),
        ("inactive", _) => "it is stopped".to_owned(),
        _ => get("Result").replace("success", ""),
    }
}

impl Row {
    fn as_text(&self, now: u64) -> String {
        let ago = |at: Option<u64>| at.map_or(String::new(), |at| for_long(now.saturating_sub(at)));
        let mut text = format!("{}  ({}, {})\n", self.service, self.init, self.file);
        if !self.running {
            let why = if self.text.is_empty() { "" } else { ": " };
            text += &format!("  running     no{why}{}\n", self.text);
        } else {
            let (pid, version) = (self.pid.unwrap_or(0), self.version.as_deref().unwrap_or(""));
            let since = ago(self.started);
            text += &format!("  running     for {since}, process {pid}, version {version}\n");
            if !self.watched {
                text += "  watched     no, nothing starts it again: noports service restart\n";
            }
            let since = ago(self.since);
            text += &match self.state.as_str() {
                "connected" => format!("  connected   for {since}, {}\n", self.text),
                _ => format!("  connected   no, for {since}: {}\n", self.text),
            };
        }
        text + &format!("  log         {}", self.log)
    }
}

/// A length of time as people say it.
fn for_long(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::install::status::*;

    #[test]
    fn only_names_of_our_programs_are_ours() {
        for (stem, want) in [
            ("noports-daemon", Some("noports-daemon")),
            ("noports-daemon-b", Some("noports-daemon-b")),
            ("org.noports.daemon-b", Some("noports-daemon-b")),
            ("noports-daemons", None),
            ("noports-", None),
            ("sshd", None),
        ] {
            assert_eq!(name_of(stem).as_deref(), want, "{stem}");
        }
    }

    #[test]
    fn what_systemd_says_is_told_in_words() {
        for (said, want) in [
            (
                "ActiveState=activating\nSubState=auto-restart\nResult=exit-code\nExecMainStatus=3\n",
                "it fails again and again: the key file is missing or cannot be used (exit code 3)",
            ),
            (
                "ActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainStatus=2",
                "it has failed: the command line was wrong (exit code 2)",
            ),
            (
                "ActiveState=failed\nResult=watchdog\nExecMainStatus=0",
                "it has failed",
            ),
            (
                "ActiveState=inactive\nSubState=dead\nResult=success",
                "it is stopped",
            ),
            ("", ""),
        ] {
            assert_eq!(explain(said), want, "{said}");
        }
    }

    #[test]
    fn one_screen_says_how_it_is() {
        let row = |running, state: &str, text: &str| Row {
            service: "noports-daemon".into(),
            init: "systemd",
            file: "/f".into(),
            running,
            watched: true,
            pid: Some(7),
            started: Some(100),
            version: Some("1.0".into()),
            state: state.into(),
            text: text.into(),
            since: Some(3700),
            log: "journalctl -u noports-daemon".into(),
        };
        let told = row(true, "connected", "as @device").as_text(7400);
        assert_eq!(
            told,
            "noports-daemon  (systemd, /f)\n  running     for 2 h 1 min, process 7, version 1.0\n  \
             connected   for 1 h 1 min, as @device\n  log         journalctl -u noports-daemon"
        );
        let mut lost = row(true, "connected", "as @device");
        lost.watched = false;
        let told = lost.as_text(7400);
        assert!(
            told.contains("\n  watched     no, nothing starts it again: noports service restart\n"),
            "{told}"
        );
        let told = row(true, "lost", "no route").as_text(3730);
        assert!(
            told.contains("\n  connected   no, for 30 s: no route\n"),
            "{told}"
        );
        let told = row(false, "down", "it is stopped").as_text(0);
        assert!(
            told.contains("\n  running     no: it is stopped\n"),
            "{told}"
        );
    }
}
