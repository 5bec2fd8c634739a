//! How another process adds, lists and removes atSigns while the server runs.
//!
//! The running server holds the store locked, so it is asked through a Unix socket in the data
//! folder: one connection, one JSON line there, one JSON line back, closed.
//!
//! ```text
//!   noports atserver add @alice ──{"do":"add","atsign":"@alice"}──▶ DIR/control.sock (0600) ─▶ Running
//!                               ◀──────{"secret":"…"}──────────────
//! ```
//!
//! Who may open the socket owns the data folder anyway, so there is no login. Requests are answered
//! one after the other: a person is asking, and a slow asker is cut off: [`control_socket`] does that.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use miniserde::{Deserialize, Serialize, json};

use crate::{
    at::AtSign,
    net::control_socket::{self, ControlSocket},
    secret::Secret,
    sys::ssh::shell_line,
};

/// File name of the socket, in the data folder.
pub const SOCKET: &str = "control.sock";
/// Longest answer, in bytes: room for about 40 000 atSigns.
const MAX_ANSWER: usize = 8 << 20;
/// An answer has to come within this; adding an atSign makes an RSA pair, slow on small machines.
pub const ANSWER_TIME: Duration = Duration::from_secs(120);

/// What an administrator can ask of the running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminRequest {
    /// Host one more atSign.
    Add(AtSign),
    /// Which atSigns are hosted.
    List,
    /// Host this one no longer; its data is lost.
    Remove(AtSign),
    /// Let this one keep so many bytes.
    Quota(AtSign, u64),
    /// Where the server listens.
    Status,
    /// Copy everything, as it is at this moment, into this new file (a whole path).
    Backup(PathBuf),
}

/// What the server answers an [`AdminRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAnswer {
    /// The one-time activation secret of an added atSign.
    Secret(Secret<String>),
    /// The hosted atSigns.
    List(Vec<Hosted>),
    /// The server's state.
    Status(ServerStatus),
    /// What a backup holds.
    Backup(BackupTotals),
    /// Done, nothing to tell.
    Done,
    /// Refused: what, and what to try next.
    Refused {
        /// One line, for people.
        error: String,
        /// One line, for people.
        hint: Option<String>,
    },
}

/// One hosted atSign, with the host and port that clients are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Hosted {
    pub atsign: String,
    pub host: String,
    pub port: u16,
    /// Whether its owner has activated it.
    pub activated: bool,
}

/// State of a running server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ServerStatus {
    /// `host:port` of the atDirectory.
    pub directory: String,
    /// File of the authority to trust; empty with a certificate from elsewhere.
    pub ca: String,
    /// Folder of all data.
    pub data: String,
    /// Process id.
    pub pid: u32,
    /// How many atSigns are hosted.
    pub atsigns: u32,
    /// Version of the program.
    pub version: String,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BackupTotals {
    pub atsigns: u32,
    pub rows: u64,
}

/// Why the server could not be asked, or cannot listen.
pub use crate::net::control_socket::ControlError as AdminError;

/// What to try next.
pub fn hint(error: &AdminError) -> Option<String> {
    Some(match error {
        AdminError::Running(path) => format!(
            "where it listens: noports atserver status --data {}",
            shell_line(&[path.parent().unwrap_or(path).display().to_string()])
        ),
        AdminError::NoSocket(path) => format!("move {} away", path.display()),
        AdminError::PathTooLong(_) => "choose a folder with a shorter name: --data DIR".into(),
        AdminError::Io { path, why } if why.kind() == io::ErrorKind::PermissionDenied => format!(
            "run as the owner of {}",
            path.parent().unwrap_or(path).display()
        ),
        AdminError::Answer => "restart the running server: it may be of another version".into(),
        AdminError::Io { .. } | AdminError::Silent(_) => return None,
    })
}

/// The server's side of the socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminSocket(ControlSocket);

impl AdminSocket {
    /// Opens the socket in this data folder. A file left by a server that died is replaced.
    ///
    /// # Errors
    /// When another server answers there, or the folder is not ours.
    pub fn listen(data: &Path) -> Result<Self, AdminError> {
        ControlSocket::listen(&data.join(SOCKET)).map(Self)
    }

    /// Answers for ever, one request at a time. `handle` is told each request.
    pub async fn serve(&self, mut handle: impl AsyncFnMut(AdminRequest) -> AdminAnswer) {
        let mut answer = async |line: Vec<u8>| {
            let request = std::str::from_utf8(&line).ok();
            let answer = match request.and_then(AdminRequest::parse) {
                Some(request) => handle(request).await,
                None => AdminAnswer::Refused {
                    error: "the running server does not support this request".into(),
                    hint: Some("restart it: it may be of another version".into()),
                },
            };
            Secret::new(answer.print())
        };
        self.0.serve(&mut answer).await;
    }
}

/// Asks the running server. `None`: there is none.
///
/// # Errors
/// When there is one, but it cannot be asked or does not answer.
pub async fn ask(data: &Path, request: &AdminRequest) -> Result<Option<AdminAnswer>, AdminError> {
    let path = data.join(SOCKET);
    let asked = control_socket::ask(&path, &request.print(), MAX_ANSWER, ANSWER_TIME).await?;
    let Some(answered) = asked else {
        return Ok(None);
    };
    let text = std::str::from_utf8(answered.line.reveal()).map_err(|_| AdminError::Answer)?;
    AdminAnswer::parse(text).map(Some).ok_or(AdminError::Answer)
}

#[derive(Serialize, Deserialize)]
struct ControlRequest {
    #[serde(rename = "do")]
    verb: String,
    atsign: Option<String>,
    file: Option<String>,
    bytes: Option<u64>,
}

impl AdminRequest {
    fn print(&self) -> String {
        let (verb, atsign, file) = match self {
            Self::Add(who) => ("add", Some(who), None),
            Self::List => ("list", None, None),
            Self::Remove(who) => ("remove", Some(who), None),
            Self::Status => ("status", None, None),
            Self::Backup(file) => ("backup", None, Some(file)),
            Self::Quota(who, _) => ("quota", Some(who), None),
        };
        let bytes = match self {
            Self::Quota(_, bytes) => Some(*bytes),
            _ => None,
        };
        json::to_string(&ControlRequest {
            verb: verb.to_owned(),
            atsign: atsign.map(AtSign::to_string),
            file: file.map(|file| file.display().to_string()),
            bytes,
        })
    }

    fn parse(line: &str) -> Option<Self> {
        let line: ControlRequest = json::from_str(line).ok()?;
        let who = || line.atsign.as_ref()?.parse().ok();
        match line.verb.as_str() {
            "add" => Some(Self::Add(who()?)),
            "list" => Some(Self::List),
            "remove" => Some(Self::Remove(who()?)),
            "quota" => Some(Self::Quota(who()?, line.bytes?)),
            "status" => Some(Self::Status),
            "backup" => {
                let file = PathBuf::from(line.file?);
                file.is_absolute().then_some(Self::Backup(file))
            }
            _ => None,
        }
    }
}

/// Exactly one of the first five is there; none means "done".
#[derive(Default, Serialize, Deserialize)]
struct ControlAnswer {
    secret: Option<String>,
    list: Option<Vec<Hosted>>,
    status: Option<ServerStatus>,
    backup: Option<BackupTotals>,
    error: Option<String>,
    hint: Option<String>,
}

impl AdminAnswer {
    fn print(&self) -> String {
        let mut line = <ControlAnswer as Default>::default();
        match self {
            Self::Secret(secret) => line.secret = Some(secret.reveal().clone()),
            Self::List(rows) => line.list = Some(rows.clone()),
            Self::Status(status) => line.status = Some(status.clone()),
            Self::Backup(backup) => line.backup = Some(backup.clone()),
            Self::Done => {}
            Self::Refused { error, hint } => {
                line.error = Some(error.clone());
                line.hint.clone_from(hint);
            }
        }
        json::to_string(&line)
    }

    fn parse(line: &str) -> Option<Self> {
        let line: ControlAnswer = json::from_str(line).ok()?;
        Some(match line {
            ControlAnswer {
                error: Some(error),
                hint,
                ..
            } => Self::Refused { error, hint },
            ControlAnswer {
                secret: Some(secret),
                ..
            } => Self::Secret(Secret::new(secret)),
            ControlAnswer {
                list: Some(rows), ..
            } => Self::List(rows),
            ControlAnswer {
                status: Some(status),
                ..
            } => Self::Status(status),
            ControlAnswer {
                backup: Some(backup),
                ..
            } => Self::Backup(backup),
            _ => Self::Done,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
