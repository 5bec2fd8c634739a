//! `noports service` and `noports daemon status`: which services are here, how they are, and a new start.

use std::{
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use argh::{ArgsInfo, FromArgs};
use miniserde::json;

use crate::{
    cli::{Console, Failure, Outcome, exit, print_err},
    service::{
        Program,
        state::{self, chosen},
    },
    text::json::array,
};

/// Show or restart the services of this machine.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "{command_name} status",
    example = "{command_name} restart",
    example = "{command_name} restart daemon",
    note = "A service is made by noports daemon install, noports rendezvous install and so\non.",
    error_code(1, "a service does not run, or there is none"),
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

/// Restart the services, for instance after an upgrade. Sessions of a daemon go on.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "restart",
    example = "{command_name}",
    example = "{command_name} daemon rendezvous"
)]
struct Restart {
    /// only services of these programs (default: all)
    #[argh(positional)]
    program: Vec<String>,
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
    })
}

/// `noports daemon status`.
pub fn of_program(console: Console, program: &Program, words: &[&str]) -> ExitCode {
    console.act(words, |console, args: OfProgram| {
        show(console, &[program.name.to_owned()], args.json)
    })
}

fn restart(console: &Console, args: &Restart) -> Result<(), Failure> {
    let found = chosen(&args.program)?;
    for service in &found {
        service.manager.restart(&service.unit)?;
        print_err(&format!("{} is started anew", service.unit.name));
    }
    let names = array(found.iter().map(|found| found.unit.name.as_str()));
    console.tell(args.json, Outcome::new("restarted").raw("services", names));
    Ok(())
}

fn show(console: &Console, programs: &[String], json: bool) -> ExitCode {
    let found = match chosen(programs) {
        Ok(found) => found,
        Err(failure) => return console.finish(json, Err(failure)),
    };
    let rows: Vec<_> = found.iter().map(state::ServiceStatus::of).collect();
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
            text += "  watched     no, nothing starts it again: noports service restart\n";
        }
        let since = ago(row.since);
        text += &match row.state.as_str() {
            "connected" => format!("  connected   for {since}, {}\n", row.text),
            _ => format!("  connected   no, for {since}: {}\n", row.text),
        };
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
            told.contains("\n  watched     no, nothing starts it again: noports service restart\n"),
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
