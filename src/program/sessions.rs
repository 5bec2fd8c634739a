//! `noports sessions` — the sessions that are open on this machine: list them, end one, have one log more.
//!
//! ```text
//!   DIR/bridges/PID.sock, of this user and of the services that are installed ──▶ each one is asked how it is
//! ```
//! Each is a process of its own ([`bridge`](super::bridge)), so they are there while their daemon is not. Sessions that a
//! client or a tunnel carries itself end with it, and are not shown.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use argh::{ArgsInfo, FromArgs};
use async_std::task;
use log::LevelFilter;
use miniserde::json;

use crate::{
    cli::{
        Console, Failure, Outcome, flags,
        grammar::{Word, word},
        print_err,
    },
    service::state::installed,
    session::control::{self, BridgeRequest, SessionState},
    sys::paths,
    text::{
        columns,
        size::in_words,
        terminal::{cut, harmless},
    },
};

/// Least of an id that names its session.
const SHORTEST: usize = 4;
/// So much of an id is shown.
const SHOWN: usize = 8;
/// A session that is told to end has this long.
const END_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

flags! {
    /// List the sessions that are open on this machine, and end them.
    ///
    /// Those of daemons, and those that a client or a tunnel with --print has left in the background; of this user, and for
    /// root of the services, too. UP are bytes to the other end, DOWN those from there.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "noports sessions",
        example = "noports sessions --json",
        example = "noports sessions end 3f2a91c0",
        example = "noports sessions log 3f2a91c0 debug",
        error_code(1, "failed"),
        error_code(2, "the command line was wrong"),
        error_code(5, "no such session")
    )]
    pub(crate) struct Args {
        output,
    }
}

flags! {
    /// End a session that is open on this machine.
    ///
    /// Nothing more is read at either end; what has been read is delivered, which may take 5 seconds.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "noports sessions end 3f2a91c0",
        example = "noports sessions end 3f2a91c0 --now",
        error_code(1, "failed"),
        error_code(2, "the command line was wrong"),
        error_code(5, "no such session")
    )]
    pub(crate) struct EndArgs {
        /// the session, or the beginning of its id
        #[argh(positional)]
        session: String,
        /// at once; what is on its way is lost
        #[argh(switch)]
        now: bool,
        output,
    }
}

flags! {
    /// Have a session log more, or less. Its lines are in the daemon's log.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "noports sessions log 3f2a91c0 debug",
        error_code(1, "failed"),
        error_code(2, "the command line was wrong"),
        error_code(5, "no such session")
    )]
    pub(crate) struct LogArgs {
        /// the session, or the beginning of its id
        #[argh(positional)]
        session: String,
        /// off, error, warn, info, debug or trace
        #[argh(positional, from_str_fn(level))]
        level: LevelFilter,
        output,
    }
}

/// What is done with sessions.
pub(super) const WORDS: &[Word] = &[
    word::<EndArgs>("end", "end one"),
    word::<LogArgs>("log", "have one log more, or less"),
];

/// Runs the program; `args` without its name.
pub fn main(console: Console, args: &[&str]) -> ExitCode {
    match args.split_first() {
        Some((&"end", rest)) => console.word("end").start(rest, LevelFilter::Warn, 1, end),
        Some((&"log", rest)) => console.word("log").start(rest, LevelFilter::Warn, 1, log),
        _ => console.start(args, LevelFilter::Warn, 1, list),
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    let wrong = |_| format!("there is no level {text:?}: off, error, warn, info, debug or trace");
    text.parse().map_err(wrong)
}

/// One that answers.
struct Found {
    socket: PathBuf,
    state: SessionState,
}

async fn list(console: &Console, args: Args) -> Result<(), Failure> {
    let found = all(args.quiet).await?;
    let lines: Vec<_> = found.iter().map(|one| as_json(&one.state)).collect();
    let outcome = Outcome::json(lines.join("\n")).plain(table(&found));
    if !found.is_empty() {
        console.tell(args.json, outcome);
    } else if !args.json {
        console.tell(
            false,
            Outcome::new("sessions").plain("no session is open".to_owned()),
        );
    }
    Ok(())
}

async fn end(console: &Console, args: EndArgs) -> Result<(), Failure> {
    let id = &args.session;
    let one = named(id, args.quiet).await?;
    let asked = control::tell(&one.socket, BridgeRequest::End { now: args.now }).await;
    asked.map_err(unasked)?;
    let name = one.state.name();
    let until = Instant::now() + END_WITHIN;
    while matches!(control::state(&one.socket).await, Ok(Some(state)) if state.pid == one.state.pid)
    {
        if Instant::now() > until {
            let failure = Failure::plain(format!("session {name} is still there"));
            return Err(failure.hint(format!("noports sessions end {id} --now")));
        }
        task::sleep(LOOK_AGAIN).await;
    }
    let outcome = Outcome::new("ended").with("session", &name);
    console.tell(args.json, outcome.plain(format!("ended {name}")));
    Ok(())
}

async fn log(console: &Console, args: LogArgs) -> Result<(), Failure> {
    let one = named(&args.session, args.quiet).await?;
    let asked = control::tell(&one.socket, BridgeRequest::Log(args.level)).await;
    asked.map_err(unasked)?;
    let (name, level) = (one.state.name(), args.level.as_str().to_lowercase());
    let outcome = Outcome::new("log")
        .with("session", &name)
        .with("level", &level);
    console.tell(args.json, outcome.plain(format!("{name} logs {level}")));
    Ok(())
}

fn unasked(why: impl std::fmt::Display) -> Failure {
    Failure::plain(format!("the session's bridge cannot be asked: {why}"))
}

/// The session that is meant by its number, or by enough of its id.
async fn named(id: &str, quiet: bool) -> Result<Found, Failure> {
    let unknown = |why: String| {
        Failure::new(crate::cli::exit::UNKNOWN, why)
            .hint("noports sessions lists those that are open")
    };
    let mut found = all(quiet).await?;
    found.retain(|one| is_meant(&one.state, id));
    match found.len() {
        1 => found.pop().ok_or_else(|| unknown(String::new())),
        0 => Err(unknown(format!("there is no session {id:?}"))),
        many => Err(unknown(format!("{many} sessions begin with {id:?}"))),
    }
}

fn is_meant(state: &SessionState, id: &str) -> bool {
    let begins = |own: &String| own.starts_with(id) && id.len() >= SHORTEST;
    state.session.as_ref().is_some_and(begins) || state.pid.to_string() == id
}

/// The folders in which sockets may be: this user's own, and those of the services here.
fn folders() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = paths::runtime().into_iter().collect();
    // Who names a folder means that one.
    if std::env::var_os(paths::RUNTIME).is_none() {
        let services = installed(None).into_iter();
        all.extend(services.filter_map(|one| {
            let state = one.manager.state(&one.unit);
            Some(state.parent()?.to_owned())
        }));
    }
    let mut all: Vec<_> = all.iter().map(|folder| paths::bridges(folder)).collect();
    all.sort();
    all.dedup();
    all
}

/// All sessions that answer, the oldest first.
async fn all(quiet: bool) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for folder in folders() {
        match control::sockets(&folder) {
            Ok(sockets) => found.extend(answering(sockets).await),
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                if !quiet {
                    let folder = folder.display();
                    print_err(&format!(
                        "not shown: the sessions of another user in {folder}"
                    ));
                }
            }
            Err(why) => {
                let failure = format!("cannot read {}: {why}", folder.display());
                return Err(Failure::plain(failure));
            }
        }
    }
    found.sort_by_key(|one| (one.state.since, one.state.pid));
    Ok(found)
}

async fn answering(sockets: Vec<PathBuf>) -> Vec<Found> {
    let asking = sockets.into_iter().map(|socket| {
        task::spawn(async move {
            let state = state_of(&socket).await?;
            Some(Found { socket, state })
        })
    });
    let mut found = Vec::new();
    for one in asking.collect::<Vec<_>>() {
        found.extend(one.await);
    }
    found
}

async fn state_of(socket: &Path) -> Option<SessionState> {
    match control::state(socket).await {
        Ok(state) => state,
        Err(why) => {
            log::warn!("bridge={} reason=\"{why}\"", socket.display());
            None
        }
    }
}

/// Ids of the sessions here, each with whose it is: for a shell that completes.
pub(super) fn ids() -> Vec<(String, String)> {
    let found = task::block_on(all(true)).unwrap_or_default();
    let rows = found.iter().map(|one| &one.state);
    rows.map(|state| (state.name(), about(state))).collect()
}

fn about(state: &SessionState) -> String {
    let client = state.client.as_deref().unwrap_or("-");
    harmless(&format!("{client} to {}", state.target))
}

/// `{"event":"session",…}`
fn as_json(state: &SessionState) -> String {
    let members = json::to_string(state);
    format!(
        "{{\"event\":\"session\",{}",
        members.trim_start_matches('{')
    )
}

/// At most 80 columns wide.
fn table(found: &[Found]) -> String {
    let head = ["SESSION", "WITH", "TARGET", "STATE", "FOR", "UP", "DOWN"];
    let states = found.iter().map(|one| &one.state);
    let rows = states.clone().map(|state| cells(state, now()));
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    let mut lines = columns::lines(&rows, &[]);
    lines.extend(states.filter_map(|state| {
        let (id, reason) = (short(state), state.reason.as_ref()?);
        let times = state.failures;
        Some(harmless(&format!(
            "{id}: {times} x {}: {reason}",
            state.target
        )))
    }));
    let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n")
}

fn short(state: &SessionState) -> String {
    state.name().chars().take(SHOWN).collect()
}

fn cells(state: &SessionState, now: u64) -> [String; 7] {
    let cell = |text: &str, most| cut(&harmless(text).replace('\n', " "), most);
    [
        cell(&short(state), SHOWN),
        cell(&with(state), 13),
        cell(&service(&state.target, 13), 13),
        cell(&state.phase, 10),
        for_long(now.saturating_sub(state.since)),
        in_words(state.up),
        in_words(state.down),
    ]
}

/// From whom it is, at the device's end; to which device, at the client's.
fn with(state: &SessionState) -> String {
    match (&state.client, &state.device, &state.atsign) {
        (Some(client), ..) if state.side == "device" => format!("from {client}"),
        (_, Some(device), Some(atsign)) if state.side != "device" => format!("to {device}{atsign}"),
        _ => state.side.clone(),
    }
}

/// The port is shown in any case.
fn service(target: &str, most: usize) -> String {
    match target.rsplit_once(':') {
        Some((host, port)) if target.chars().count() > most => {
            let room = most.saturating_sub(port.chars().count() + 1).max(2);
            format!("{}:{port}", cut(host, room))
        }
        _ => target.to_owned(),
    }
}

/// In at most four characters, for up to 27 years.
fn for_long(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> SessionState {
        SessionState {
            pid: 4_194_304,
            version: "1.0".to_owned(),
            session: Some("3f2a91c0-0000-4000-8000-000000000000".to_owned()),
            device: Some("d".repeat(36)),
            atsign: Some("@device".to_owned()),
            client: Some(format!("@{}", "c".repeat(54))),
            side: "device".to_owned(),
            target: format!("{}.example.org:65535", "t".repeat(200)),
            rendezvous: "rv:1".to_owned(),
            many: true,
            since: 0,
            phase: "connecting".to_owned(),
            connections: 3,
            up: u64::MAX,
            down: u64::MAX,
            quiet: Some(1),
            failures: 0,
            reason: None,
        }
    }

    #[test]
    fn the_widest_row_fits_into_80_columns_and_moves_no_cursor() {
        let mut wide = state();
        wide.phase = "\u{1b}[2J\nconnecting".to_owned();
        for state in [state(), wide] {
            let socket = PathBuf::new();
            for line in table(&[Found { socket, state }]).lines() {
                assert!(line.chars().count() <= 80, "{line}");
                assert!(!line.contains('\u{1b}'), "{line}");
            }
        }
    }

    /// Of `localhost:5432` the port was cut off, and nothing said at which end the session is.
    #[test]
    fn a_row_shows_the_port_and_which_end_it_is() {
        for (side, target, client, want) in [
            (
                "device",
                "localhost:22",
                Some("@alice"),
                ["from @alice", "localhost:22"],
            ),
            (
                "client",
                "localhost:54321",
                None,
                ["to pi@kitchen", "localh…:54321"],
            ),
            (
                "client",
                "[2001:db8::1:2:3]:443",
                None,
                ["to pi@kitchen", "[2001:db…:443"],
            ),
            ("device", "nas", None, ["device", "nas"]),
        ] {
            let state = SessionState {
                side: side.to_owned(),
                target: target.to_owned(),
                client: client.map(str::to_owned),
                device: Some("pi".to_owned()),
                atsign: Some("@kitchen".to_owned()),
                ..state()
            };
            let row = cells(&state, 0);
            assert_eq!([&row[1], &row[2]], want);
        }
    }

    #[test]
    fn a_session_is_meant_by_enough_of_its_id_or_by_its_number() {
        for (id, want) in [
            ("3f2a", true),
            ("3f2a91c0-0000-4000-8000-000000000000", true),
            ("4194304", true),
            ("3f2", false),
            ("", false),
            ("4194", false),
            ("3F2A", false),
        ] {
            assert_eq!(is_meant(&state(), id), want, "{id}");
        }
    }

    #[test]
    fn a_script_reads_everything_in_one_line() {
        let line = as_json(&state());
        assert!(
            line.starts_with("{\"event\":\"session\",\"pid\":4194304,"),
            "{line}"
        );
        assert!(json::from_str::<SessionState>(&line).is_ok());
    }
}
