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
//! one after the other: a person is asking, and a slow asker is cut off after [`ASK_TIME`].

use std::{
    fs,
    future::Future,
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, PermissionsExt},
            net::UnixListener as StdListener,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use async_std::{future::timeout, os::unix::net::UnixListener, os::unix::net::UnixStream};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use log::{debug, warn};
use miniserde::{Deserialize, Serialize, json};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    at::AtSign,
    net::line::{LineError, read_line},
    secret::Secret,
    sys::ssh::shell_line,
    text::duration::in_words,
};

/// File name of the socket, in the data folder.
pub const SOCKET: &str = "control.sock";
/// Longest request, in bytes.
const MAX_REQUEST: usize = 4096;
/// Longest answer, in bytes: room for about 40 000 atSigns.
const MAX_ANSWER: usize = 8 << 20;
/// A request has to be there, and its answer taken, within this.
pub const ASK_TIME: Duration = Duration::from_secs(5);
/// An answer has to come within this; adding an atSign makes an RSA pair, slow on small machines.
pub const ANSWER_TIME: Duration = Duration::from_secs(120);
/// Longest path of a socket on Linux, in bytes.
const MAX_PATH: usize = 107;
/// Askers that wait to be heard; those behind them ask again after [`BREATH`].
const QUEUE: i32 = 128;
const BREATH: Duration = Duration::from_millis(50);

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
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AdminError {
    #[error("another server is running with {}", .0.display())]
    Running(PathBuf),
    #[error("{} exists, but is not a socket", .0.display())]
    NoSocket(PathBuf),
    #[error("the path of {} is too long for a socket: {} bytes, at most {MAX_PATH}", .0.display(), .0.as_os_str().len())]
    PathTooLong(PathBuf),
    #[error("cannot use {}: {why}", path.display())]
    Io { path: PathBuf, why: io::Error },
    #[error("the running server did not answer within {}", in_words(*.0))]
    Silent(Duration),
    #[error("the running server's answer cannot be read")]
    Answer,
}

impl AdminError {
    /// What to try next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Running(path) => format!(
                "where it listens: noports atserver status --data {}",
                shell_line(&[path.parent().unwrap_or(path).display().to_string()])
            ),
            Self::NoSocket(path) => format!("move {} away", path.display()),
            Self::PathTooLong(_) => "choose a folder with a shorter name: --data DIR".into(),
            Self::Io { path, why } if why.kind() == io::ErrorKind::PermissionDenied => format!(
                "run as the owner of {}",
                path.parent().unwrap_or(path).display()
            ),
            Self::Answer => "restart the running server: it may be of another version".into(),
            Self::Io { .. } | Self::Silent(_) => return None,
        })
    }
}

/// The server's side of the socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Opens the socket in this data folder. A file left by a server that died is replaced.
    ///
    /// # Errors
    /// When another server answers there, or the folder is not ours.
    pub fn listen(data: &Path) -> Result<Self, AdminError> {
        let path = data.join(SOCKET);
        check_length(&path)?;
        clear(&path)?;
        let listener = bind(&path).map_err(|why| AdminError::Io {
            path: path.clone(),
            why,
        })?;
        Ok(Self {
            listener: listener.into(),
            path,
        })
    }

    /// Answers for ever, one request at a time. `handle` is told each request.
    pub async fn serve<F: Future<Output = AdminAnswer>>(
        &self,
        mut handle: impl FnMut(AdminRequest) -> F,
    ) {
        loop {
            match self.listener.accept().await {
                Ok((socket, _)) => {
                    if let Err(why) = serve_one(socket, &mut handle).await {
                        debug!("control refused=\"{why}\"");
                    }
                }
                Err(why) => {
                    // Out of file descriptors, say: trying again at once would only burn time.
                    warn!("control accept=\"{why}\"");
                    async_std::task::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks the running server. `None`: there is none.
///
/// # Errors
/// When there is one, but it cannot be asked or does not answer.
pub async fn ask(data: &Path, request: &AdminRequest) -> Result<Option<AdminAnswer>, AdminError> {
    let path = data.join(SOCKET);
    let fail = |why| AdminError::Io {
        path: path.clone(),
        why,
    };
    check_length(&path)?;
    let connected = timeout(ANSWER_TIME, connect(&path)).await;
    let connected = connected.map_err(|_| AdminError::Silent(ANSWER_TIME))?;
    let mut socket = match connected {
        Ok(socket) => socket,
        Err(why) if nobody_there(&why) => return Ok(None),
        Err(why) => return Err(fail(why)),
    };
    let line = request.print() + "\n";
    socket.write_all(line.as_bytes()).await.map_err(fail)?;
    let line = match read_line(&mut socket, MAX_ANSWER, ANSWER_TIME).await {
        Ok((line, _)) => Secret::new(line),
        Err(LineError::TimedOut(after)) => return Err(AdminError::Silent(after)),
        Err(LineError::Io(why)) => return Err(fail(why)),
        Err(_) => return Err(AdminError::Answer),
    };
    let text = std::str::from_utf8(line.reveal()).map_err(|_| AdminError::Answer)?;
    AdminAnswer::parse(text).map(Some).ok_or(AdminError::Answer)
}

/// Where too many ask already, the system turns the next one away; that one tries again.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(why) if is_crowded(&why) => async_std::task::sleep(BREATH).await,
            other => return other,
        }
    }
}

/// A full queue is "try again", which the runtime may find out only afterwards: then the socket is "not connected".
fn is_crowded(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}

async fn serve_one<F: Future<Output = AdminAnswer>>(
    mut socket: UnixStream,
    handle: &mut impl FnMut(AdminRequest) -> F,
) -> Result<(), LineError> {
    let (line, _) = read_line(&mut socket, MAX_REQUEST, ASK_TIME).await?;
    let request = std::str::from_utf8(&line)
        .ok()
        .and_then(AdminRequest::parse);
    let answer = match request {
        Some(request) => handle(request).await,
        None => AdminAnswer::Refused {
            error: "the running server does not support this request".into(),
            hint: Some("restart it: it may be of another version".into()),
        },
    };
    let line = Secret::new(answer.print() + "\n");
    timeout(ASK_TIME, async {
        socket.write_all(line.reveal().as_bytes()).await?;
        socket.close().await?;
        // The asker closes last, so that the answer cannot be lost to a reset.
        socket.read(&mut [0; 1]).await
    })
    .await
    .map_err(|_| LineError::TimedOut(ASK_TIME))??;
    Ok(())
}

fn nobody_there(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn check_length(path: &Path) -> Result<(), AdminError> {
    if path.as_os_str().as_bytes().len() > MAX_PATH {
        return Err(AdminError::PathTooLong(path.to_owned()));
    }
    Ok(())
}

/// Removes the socket of a server that died.
fn clear(path: &Path) -> Result<(), AdminError> {
    let fail = |why| AdminError::Io {
        path: path.to_owned(),
        why,
    };
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(fail(why)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(AdminError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(AdminError::Running(path.to_owned())),
        Err(why) if nobody_there(&why) => match fs::remove_file(path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(fail(why)),
            _ => Ok(()),
        },
        Err(why) => Err(fail(why)),
    }
}

/// Binds, closes the file to others, and only then listens: nobody else gets in between.
fn bind(path: &Path) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(QUEUE)?;
    Ok(StdListener::from(OwnedFd::from(socket)))
}

#[derive(Serialize, Deserialize)]
struct RequestLine {
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
        json::to_string(&RequestLine {
            verb: verb.to_owned(),
            atsign: atsign.map(AtSign::to_string),
            file: file.map(|file| file.display().to_string()),
            bytes,
        })
    }

    fn parse(line: &str) -> Option<Self> {
        let line: RequestLine = json::from_str(line).ok()?;
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
struct AnswerLine {
    secret: Option<String>,
    list: Option<Vec<Hosted>>,
    status: Option<ServerStatus>,
    backup: Option<BackupTotals>,
    error: Option<String>,
    hint: Option<String>,
}

impl AdminAnswer {
    fn print(&self) -> String {
        let mut line = <AnswerLine as Default>::default();
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
        let line: AnswerLine = json::from_str(line).ok()?;
        Some(match line {
            AnswerLine {
                error: Some(error),
                hint,
                ..
            } => Self::Refused { error, hint },
            AnswerLine {
                secret: Some(secret),
                ..
            } => Self::Secret(Secret::new(secret)),
            AnswerLine {
                list: Some(rows), ..
            } => Self::List(rows),
            AnswerLine {
                status: Some(status),
                ..
            } => Self::Status(status),
            AnswerLine {
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
