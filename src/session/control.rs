//! What a bridge is asked while it runs, and what it answers; where its socket is.
//!
//! ```text
//!   DIR/bridges/PID.sock (0600, DIR/bridges 0700)      {"do":"state"}                   {"state":{…}}
//!   noports sessions, a daemon that has started ─────▶ {"do":"log","level":"debug"}     {}
//!                                                      {"do":"end","now":false}         {}: it lets go, or at once
//!                                                      {"do":"follow"}                  {"state":{…}}, then its stderr
//! ```
//! The process's number is the file's name: a session's id is chosen by its client, which may choose the same twice.
//! A daemon hears its bridges on their stderr; one that was started again follows those that it finds.
//!
//! | budget | in all | of one | who gives way |
//! | --- | --- | --- | --- |
//! | `askers`: of one bridge, at a time | 16 | 16 | the oldest |

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_std::task;
use log::{LevelFilter, debug};
use miniserde::{Deserialize, Serialize, json};

use super::bridge::Live;
use crate::{
    net::{
        control_socket::{self, Answered, Asker, ControlError, ControlSocket, OpenSocket},
        line::LineError,
    },
    secret::Secret,
    sys::{log as logging, out, paths},
};

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 16 * 1024;
/// A bridge answers at once, unless it has been stopped.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Those who ask one bridge at the same time.
const ASKERS: usize = 16;
/// How the sockets' names end.
const SUFFIX: &str = "sock";

/// Whose session it is, as its bridge is told by who starts it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its id.
    pub session: Option<String>,
    /// The device's name.
    pub device: Option<String>,
    /// The device's atSign.
    #[serde(rename = "as")]
    pub atsign: Option<String>,
    /// The client's.
    pub client: Option<String>,
    /// The folder of control sockets, if there is to be one.
    pub folder: Option<String>,
}

/// A session, as its bridge tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SessionState {
    pub pid: u32,
    pub version: String,
    pub session: Option<String>,
    pub device: Option<String>,
    /// The device's atSign.
    #[serde(rename = "as")]
    pub atsign: Option<String>,
    pub client: Option<String>,
    /// `client` or `device`: which end this is.
    pub side: String,
    /// What is dialled at this end, or where it listens.
    pub target: String,
    pub rendezvous: String,
    /// Whether it carries any number of connections.
    pub many: bool,
    /// Seconds since 1970.
    pub since: u64,
    /// `connecting` until the other end has been heard, `paired`, `closing`.
    pub phase: String,
    pub connections: u64,
    /// Bytes to the other end, as of the last turn of each connection.
    pub up: u64,
    /// Bytes from the other end.
    pub down: u64,
    /// Seconds since the last of them.
    pub quiet: Option<u64>,
    /// How often the target could not be reached, or broke off.
    pub failures: u64,
    /// Why, the last time.
    pub reason: Option<String>,
}

impl SessionState {
    /// What it is called by: its id, or the process's number where it has none.
    pub fn name(&self) -> String {
        let name = self.session.clone();
        name.unwrap_or_else(|| self.pid.to_string())
    }
}

/// What a bridge can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeRequest {
    /// How it is.
    State,
    /// Log so much from now on.
    Log(LevelFilter),
    /// End: let go of what has been read, or at once.
    End {
        /// At once.
        now: bool,
    },
    /// How it is, and from now on whatever it says on stderr.
    Follow,
}

#[derive(Serialize, Deserialize)]
struct RequestLine {
    #[serde(rename = "do")]
    verb: String,
    level: Option<String>,
    now: Option<bool>,
}

#[derive(Default, Serialize, Deserialize)]
struct AnswerLine {
    state: Option<SessionState>,
    error: Option<String>,
}

impl BridgeRequest {
    fn print(self) -> String {
        let (verb, level, now) = match self {
            Self::State => ("state", None, None),
            Self::Log(level) => ("log", Some(level.as_str().to_lowercase()), None),
            Self::End { now } => ("end", None, Some(now)),
            Self::Follow => ("follow", None, None),
        };
        let verb = verb.to_owned();
        json::to_string(&RequestLine { verb, level, now })
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let line: RequestLine = json::from_str(str::from_utf8(line).ok()?).ok()?;
        Some(match line.verb.as_str() {
            "state" => Self::State,
            "log" => Self::Log(line.level?.parse().ok()?),
            "end" => Self::End {
                now: line.now.unwrap_or(false),
            },
            "follow" => Self::Follow,
            _ => return None,
        })
    }
}

/// The control socket of this process, in this folder. `None`: there can be none, which no session fails for.
pub fn open(folder: Option<&Path>) -> Option<OpenSocket> {
    let Some(folder) = folder else {
        debug!("control=none reason=\"there is no folder for it\"");
        return None;
    };
    let opened = paths::private_folder(folder)
        .map_err(|why| why.to_string())
        .and_then(|()| match paths::is_private(folder) {
            true => Ok(()),
            false => Err(format!("{} is open to others", folder.display())),
        })
        .and_then(|()| {
            let path = folder.join(format!("{}.{SUFFIX}", std::process::id()));
            OpenSocket::at(&path).map_err(|why| why.to_string())
        });
    opened
        .inspect_err(|why| debug!("control=none reason={why:?}"))
        .ok()
}

/// Answers whoever asks this bridge, for ever. Who says nothing holds nobody up.
pub async fn serve(socket: ControlSocket, live: Arc<Live>) {
    let mut askers = VecDeque::with_capacity(ASKERS);
    loop {
        let asker = socket.next().await;
        if askers.len() == ASKERS {
            let oldest: Option<task::JoinHandle<()>> = askers.pop_front();
            if let Some(oldest) = oldest {
                oldest.cancel().await;
            }
        }
        let live = live.clone();
        askers.push_back(task::spawn(async move {
            if let Err(why) = answer(asker, &live).await {
                debug!("control refused=\"{why}\"");
            }
        }));
    }
}

async fn answer(mut asker: Asker, live: &Live) -> Result<(), LineError> {
    let request = BridgeRequest::parse(&asker.request().await?);
    let mut line = <AnswerLine as Default>::default();
    match request {
        Some(BridgeRequest::State | BridgeRequest::Follow) => line.state = Some(live.state()),
        Some(BridgeRequest::Log(level)) => logging::set_level(level),
        Some(BridgeRequest::End { .. }) => {}
        None => line.error = Some("this bridge does not support this request".to_owned()),
    }
    let line = Secret::new(json::to_string(&line));
    if request == Some(BridgeRequest::Follow) {
        out::also_to(asker.answer_and_stay(&line).await?);
        return Ok(());
    }
    let answered = asker.answer(&line).await;
    // The answer first: it may be the last that this process does.
    if let Some(BridgeRequest::End { now }) = request {
        live.leave(now);
    }
    answered
}

/// How the bridge is whose socket this is. `None`: it has ended.
///
/// # Errors
/// When it is there, and cannot be asked.
pub async fn state(path: &Path) -> Result<Option<SessionState>, ControlError> {
    match asked(path, BridgeRequest::State).await? {
        None => Ok(None),
        Some((Some(state), _)) => Ok(Some(state)),
        Some((None, _)) => Err(ControlError::Answer),
    }
}

/// Tells the bridge to do something. `false`: it has ended.
///
/// # Errors
/// As [`state`].
pub async fn tell(path: &Path, what: BridgeRequest) -> Result<bool, ControlError> {
    Ok(asked(path, what).await?.is_some())
}

/// The bridge's state, and from now on its stderr.
///
/// # Errors
/// As [`state`].
pub async fn follow(path: &Path) -> Result<Option<(SessionState, Answered)>, ControlError> {
    match asked(path, BridgeRequest::Follow).await? {
        None => Ok(None),
        Some((Some(state), answered)) => Ok(Some((state, answered))),
        Some((None, _)) => Err(ControlError::Answer),
    }
}

async fn asked(
    path: &Path,
    request: BridgeRequest,
) -> Result<Option<(Option<SessionState>, Answered)>, ControlError> {
    let asked = control_socket::ask(path, &request.print(), MAX_ANSWER, ANSWER_TIME).await?;
    let Some(answered) = asked else {
        return Ok(None);
    };
    let text = str::from_utf8(answered.line.reveal()).map_err(|_| ControlError::Answer)?;
    let line: AnswerLine = json::from_str(text).map_err(|_| ControlError::Answer)?;
    match line.error {
        Some(_) => Err(ControlError::Answer),
        None => Ok(Some((line.state, answered))),
    }
}

/// The sockets in this folder; those of dead bridges are removed, where nobody else can change what is in there.
///
/// # Errors
/// When there is such a folder and it cannot be read.
pub fn sockets(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let is_ours = paths::is_private(folder);
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<_> = paths.filter(|path| is_named_so(path)).collect();
    found.retain(|path| {
        let is_dead = control_socket::is_left_over(path);
        if is_dead && is_ours {
            let _ = fs::remove_file(path);
        }
        !is_dead
    });
    Ok(found)
}

/// `PID.sock`
fn is_named_so(path: &Path) -> bool {
    let number = path
        .file_stem()
        .and_then(|stem| stem.to_str()?.parse::<u32>().ok());
    number.is_some() && path.extension().is_some_and(|end| end == SUFFIX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back_as_what_was_printed_and_nonsense_is_none() {
        for request in [
            BridgeRequest::State,
            BridgeRequest::Log(LevelFilter::Off),
            BridgeRequest::Log(LevelFilter::Trace),
            BridgeRequest::End { now: true },
            BridgeRequest::End { now: false },
            BridgeRequest::Follow,
        ] {
            assert_eq!(
                BridgeRequest::parse(request.print().as_bytes()),
                Some(request)
            );
        }
        let gentle = BridgeRequest::End { now: false };
        assert_eq!(BridgeRequest::parse(br#"{"do":"end"}"#), Some(gentle));
        for line in [
            &b""[..],
            b"{}",
            b"\xff",
            br#"{"do":"fly"}"#,
            br#"{"do":"log"}"#,
            br#"{"do":"log","level":"loud"}"#,
            br#"{"do":["state"]}"#,
        ] {
            assert_eq!(BridgeRequest::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_table_says_what_the_constants_are() {
        let header = include_str!("control.rs");
        let row = header
            .lines()
            .find(|line| line.contains("`askers`"))
            .unwrap();
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let total = ASKERS.to_string();
        assert_eq!(cells[2..4], [total.as_str(), total.as_str()]);
    }
}
