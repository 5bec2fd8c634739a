//! `noports service` and `noports daemon status`: which services are here, how they are, a new start, and the end of all.
//!
//! A restart leaves alone what carries sessions: those of a rendezvous go through its process, those of a daemon do not.
//! Packages say `restart --after-upgrade` and `uninstall`; as root these reach the services that people have of their own,
//! each as that person, and say what they could not reach.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use argh::{ArgsInfo, FromArgs};
use miniserde::json;

use crate::{
    cli::{Console, Failure, Outcome, exit, print_err},
    service::{
        Program, others, process,
        state::{self, InstalledService, chosen},
    },
    sys::supervisor::STATE_FILE,
    text::json::array,
};

/// Show or restart the services of this machine.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "{command_name} status",
    example = "{command_name} restart",
    example = "{command_name} restart daemon",
    note = "To make a service: noports daemon install, noports rendezvous install and so on.",
    error_code(1, "a service does not run, or was not restarted, or there is none"),
    error_code(4, "all services run, but one of them is not connected")
)]
pub(crate) struct Args {
    #[argh(subcommand)]
    what: Subcommand,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Subcommand {
    Status(Status),
    Restart(Restart),
    Uninstall(Uninstall),
}

/// Show whether the services run and are connected.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "status",
    example = "{command_name}",
    example = "{command_name} daemon"
)]
struct Status {
    /// only services of these programs (default: all)
    #[argh(positional)]
    program: Vec<String>,
    /// print results as JSON lines on stdout
    #[argh(switch)]
    json: bool,
}

/// Restart the services, for instance after an upgrade. Sessions of a daemon go on; a rendezvous that carries sessions is
/// left as it is.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "restart",
    example = "{command_name}",
    example = "{command_name} daemon rendezvous",
    example = "{command_name} rendezvous --force"
)]
struct Restart {
    /// only services of these programs (default: all)
    #[argh(positional)]
    program: Vec<String>,
    /// restart also what carries sessions, which ends them
    #[argh(switch)]
    force: bool,
    /// for packages: only what runs; and, as root, what people run of their own
    #[argh(switch)]
    after_upgrade: bool,
    /// as root: people's own services are named, and left as they are
    #[argh(switch)]
    own: bool,
    /// print results as JSON lines on stdout
    #[argh(switch)]
    json: bool,
}

/// Stop and remove all services that start this executable; as root, people's own as well. Keys and data stay.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "uninstall", example = "{command_name}")]
struct Uninstall {
    /// as root: not people's own services; while they run, nothing is done
    #[argh(switch)]
    own: bool,
    /// with --own: leave them behind
    #[argh(switch)]
    force: bool,
    /// print results as JSON lines on stdout
    #[argh(switch)]
    json: bool,
}

/// Show whether this program's service is installed, runs, and is connected.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "{command_name}",
    example = "{command_name} --json",
    error_code(1, "it is not installed, or does not run"),
    error_code(4, "it runs, but is not connected")
)]
pub(crate) struct OfProgram {
    /// print results as JSON lines on stdout
    #[argh(switch)]
    json: bool,
}

/// The program.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    console.act(words, |console, args: Args| match args.what {
        Subcommand::Status(args) => show(console, &args.program, args.json),
        Subcommand::Restart(args) => console.finish(args.json, restart(console, &args)),
        Subcommand::Uninstall(args) => console.finish(args.json, uninstall(console, &args)),
    })
}

/// `noports daemon status`.
pub fn of_program(console: Console, program: &Program, words: &[&str]) -> ExitCode {
    console.act(words, |console, args: OfProgram| {
        show(console, &[program.name.to_owned()], args.json)
    })
}

/// Whether `status` of this program is the service's: nothing more is asked, and there is one.
pub fn is_known(program: &Program, words: &[&str]) -> bool {
    let asks_more = words.iter().any(|word| word.starts_with("--data"));
    let names = [program.name.to_owned()];
    !asks_more && (state_here().is_some() || chosen(&names).is_ok())
}

/// Where a program tells how it is that an engine of containers started, say.
fn state_here() -> Option<PathBuf> {
    let named = std::env::var_os(STATE_FILE).filter(|value| !value.is_empty());
    named.map(PathBuf::from)
}

fn restart(console: &Console, args: &Restart) -> Result<(), Failure> {
    let found = if args.after_upgrade {
        let mut found = own_services(&others::own_file()?);
        found.retain(|found| process::running(&found.manager.state(&found.unit)).is_some());
        found
    } else {
        let mut found = chosen(&args.program)?;
        // Somebody who has services of their own means those.
        if found.iter().any(is_in_reach) {
            found.retain(is_in_reach);
        }
        found
    };
    let (mut done, mut left, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for service in &found {
        let name = &service.unit.name;
        let restarted = match service.would_end().filter(|_| !args.force) {
            Some(what) => {
                left.extend(process::running(&service.manager.state(&service.unit)));
                Err(left_alone(name, &what))
            }
            None => service.manager.restart(&service.unit),
        };
        match restarted {
            Ok(()) => {
                print_err(&format!("{name} is restarted"));
                done.push(name.as_str());
            }
            Err(failure) => problems.push(failure),
        }
    }
    if args.after_upgrade && rustix::process::geteuid().is_root() {
        let others = if args.own {
            Ok(())
        } else {
            others::act(&["service", "restart", "--after-upgrade"], print_err)
        };
        for old in others::running(&others::own_file()?, true) {
            let (program, who, pid) = (old.program, old.who, old.pid);
            if left.iter().all(|told| told.pid != pid) {
                print_err(&format!(
                    "the {program} of {who}, process {pid}, still runs the version before"
                ));
            }
        }
        problems.extend(others.err());
    }
    let outcome = Outcome::new("restarted").raw("services", array(done));
    console.tell(args.json, outcome);
    told(problems)
}

/// Whether whoever asks may start and stop it.
fn is_in_reach(service: &InstalledService) -> bool {
    rustix::process::geteuid().is_root() || !service.manager.is_for_the_machine()
}

/// The services in reach that start this file.
fn own_services(file: &Path) -> Vec<InstalledService> {
    let mut found = state::installed(None);
    found.retain(|found| found.starts(file) && is_in_reach(found));
    found
}

fn left_alone(name: &str, what: &str) -> Failure {
    let program = name.trim_start_matches("noports-");
    let program = program.split('-').next().unwrap_or(program);
    let text = format!("{name} goes on as it is: a restart would end {what}");
    Failure::plain(text).hint(format!(
        "once they are over, or to end them now: noports service restart {program} --force"
    ))
}

/// The last problem ends the program; those before it are said at once.
fn told(mut problems: Vec<Failure>) -> Result<(), Failure> {
    let last = problems.pop();
    for Failure { message, hint, .. } in problems {
        print_err(&message);
        if let Some(hint) = hint {
            print_err(&format!("  hint: {hint}"));
        }
    }
    last.map_or(Ok(()), Err)
}

fn uninstall(console: &Console, args: &Uninstall) -> Result<(), Failure> {
    let own = others::own_file()?;
    let found = own_services(&own);
    let is_root = rustix::process::geteuid().is_root();
    if is_root && args.own && !args.force {
        refuse_while_used(&own, &found)?;
    }
    let mut problems = Vec::new();
    for service in &found {
        let (name, file) = (&service.unit.name, service.unit.file.display());
        let what = service.would_end();
        let ended = what.map_or(String::new(), |what| format!(", which ended {what}"));
        match service.manager.remove(&service.unit) {
            Ok(()) => print_err(&format!("{name} is stopped{ended}, {file} removed")),
            Err(failure) => problems.push(failure),
        }
    }
    if is_root {
        let others = if args.own {
            Ok(())
        } else {
            others::act(&["service", "uninstall"], print_err)
        };
        for left in others::running(&own, false) {
            let (program, who, pid) = (left.program, left.who, left.pid);
            print_err(&format!(
                "the {program} of {who}, process {pid}, is no service and still runs: kill {pid}"
            ));
        }
        problems.extend(others.err());
    }
    let outcome = Outcome::new("uninstalled").raw("removed", found.len());
    console.tell(args.json, outcome);
    told(problems)
}

/// What runs from this file, and is none of these services.
fn refuse_while_used(file: &Path, services: &[InstalledService]) -> Result<(), Failure> {
    let known = services
        .iter()
        .filter_map(|found| process::running(&found.manager.state(&found.unit)));
    let known: Vec<u32> = known.map(|told| told.pid).collect();
    let mut others = others::running(file, false);
    others.retain(|found| !known.contains(&found.pid));
    if others.is_empty() {
        return Ok(());
    }
    let each = others.iter().map(|found| {
        format!(
            "the {} of {}, process {}",
            found.program, found.who, found.pid
        )
    });
    let all: Vec<String> = each.collect();
    Err(Failure::plain(format!(
        "nothing was removed, for this runs from here: {}",
        all.join("; ")
    ))
    .hint("without --own their services are removed, too; --force leaves them behind"))
}

fn show(console: &Console, programs: &[String], json: bool) -> ExitCode {
    let named: Vec<_> = programs
        .iter()
        .filter_map(|word| Program::named(word))
        .collect();
    let rows = match (state_here(), &named[..]) {
        (Some(state), [program]) => vec![state::ServiceStatus::of_state(program, &state)],
        _ => match chosen(programs) {
            Ok(found) => found.iter().map(state::ServiceStatus::of).collect(),
            Err(failure) => return console.finish(json, Err(failure)),
        },
    };
    let now = now();
    let texts: Vec<_> = rows.iter().map(|row| as_text(row, now)).collect();
    let outcome = Outcome::new("services")
        .raw("services", json::to_string(&rows))
        .plain(texts.join("\n"));
    console.tell(json, outcome);
    let all = |good: fn(&state::ServiceStatus) -> bool| rows.iter().all(good);
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

/// A few lines for people.
fn as_text(row: &state::ServiceStatus, now: u64) -> String {
    let ago = |at: Option<u64>| at.map_or(String::new(), |at| for_long(now.saturating_sub(at)));
    let mut text = format!("{}  ({}, {})\n", row.service, row.init, row.file);
    if !row.running {
        let why = if row.text.is_empty() { "" } else { ": " };
        text += &format!("  running     no{why}{}\n", row.text);
    } else {
        let (pid, version) = (row.pid.unwrap_or(0), row.version.as_deref().unwrap_or(""));
        let since = ago(row.started);
        text += &format!("  running     for {since}, process {pid}, version {version}\n");
        if !row.watched {
            text +=
                "  watched     no, nothing restarts it when it stops: noports service restart\n";
        }
        let since = ago(row.since);
        text += &match row.state.as_str() {
            "connected" => format!("  connected   for {since}, {}\n", row.text),
            _ => format!("  connected   no, for {since}: {}\n", row.text),
        };
        if let Some(sessions) = row.sessions {
            text += &format!("  sessions    {sessions}\n");
        }
    }
    text + &format!("  log         {}", row.log)
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
    use crate::program::service::*;

    #[test]
    fn one_screen_says_how_it_is() {
        let row = |running, state: &str, text: &str| state::ServiceStatus {
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
            sessions: None,
            log: "journalctl -u noports-daemon".into(),
        };
        let told = as_text(&row(true, "connected", "as @device"), 7400);
        assert_eq!(
            told,
            "noports-daemon  (systemd, /f)\n  running     for 2 h 1 min, process 7, version 1.0\n  \
             connected   for 1 h 1 min, as @device\n  log         journalctl -u noports-daemon"
        );
        let mut lost = row(true, "connected", "as @device");
        lost.watched = false;
        let told = as_text(&lost, 7400);
        assert!(
            told.contains(
                "\n  watched     no, nothing restarts it when it stops: noports service restart\n"
            ),
            "{told}"
        );
        let told = as_text(&row(true, "lost", "no route"), 3730);
        assert!(
            told.contains("\n  connected   no, for 30 s: no route\n"),
            "{told}"
        );
        let told = as_text(&row(false, "down", "it is stopped"), 0);
        assert!(
            told.contains("\n  running     no: it is stopped\n"),
            "{told}"
        );
    }
}
