//! A socket in a folder, through which other processes of the same user ask a running one: one connection, one line there,
//! one line back, closed.
//!
//! ```text
//!   asker ──{"do":"…"}──▶ DIR/name.sock (0600) ─▶ is it our user, or root? ─▶ whoever listens
//!         ◀─────{…}──────
//! ```
//! Who is asked decides whether askers are answered one after the other ([`ControlSocket::serve`]) or beside each other
//! ([`ControlSocket::next`]). One who is slow is cut off after [`ASK_TIME`].

use std::{
    fs,
    future::Future,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
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
use rustix::fs::{CWD, Mode, OFlags, openat};
use socket2::{Domain, SockAddr, Socket, Type};

use super::line::{LineError, read_line};
use crate::{secret::Secret, text::duration::in_words};

/// Longest request, in bytes.
pub const MAX_REQUEST: usize = 4096;
/// A request has to be there, and its answer taken, within this.
pub const ASK_TIME: Duration = Duration::from_secs(5);
/// Longest path of a socket on Linux, in bytes.
const MAX_PATH: usize = 107;
/// Askers that wait to be heard; those behind them ask again after [`BREATH`].
pub const QUEUE: i32 = 128;
const BREATH: Duration = Duration::from_millis(50);

/// Why a process cannot be asked, or cannot listen.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ControlError {
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

/// The side that is asked. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// One that is open, while nobody is heard yet: it needs no other thread.
#[derive(Debug)]
pub struct OpenSocket {
    listener: StdListener,
    path: PathBuf,
}

impl OpenSocket {
    /// Opens the socket at this path. A file left by a process that died is replaced.
    ///
    /// # Errors
    /// When another process answers there, or the folder is not ours.
    pub fn at(path: &Path) -> Result<Self, ControlError> {
        let place = SocketName::of(path)?;
        clear(path, &place)?;
        let listener = bind(&place.name).map_err(failed(path))?;
        let path = path.to_owned();
        Ok(Self { listener, path })
    }

    /// From now on askers are heard.
    pub fn listen(self) -> ControlSocket {
        ControlSocket {
            listener: self.listener.into(),
            path: self.path,
        }
    }
}

impl ControlSocket {
    /// Opens the socket at this path, and listens.
    ///
    /// # Errors
    /// As [`OpenSocket::at`].
    pub fn listen(path: &Path) -> Result<Self, ControlError> {
        OpenSocket::at(path).map(OpenSocket::listen)
    }

    /// Answers for ever, one request at a time. `handle` is told each request's line, and gives the answer's.
    pub async fn serve(&self, mut handle: impl AsyncFnMut(Vec<u8>) -> Secret<String>) {
        loop {
            let mut asker = self.next().await;
            let answered = async {
                let answer = handle(asker.request().await?).await;
                asker.answer(&answer).await
            };
            if let Err(why) = answered.await {
                debug!("control refused=\"{why}\"");
            }
        }
    }

    /// The next asker. Dropping the future loses nobody.
    pub async fn next(&self) -> Asker {
        loop {
            match self.listener.accept().await {
                Ok((socket, _)) if is_ours(&socket) => return Asker(socket),
                Ok(_) => debug!("control refused=\"another user\""),
                Err(why) => {
                    // Out of file descriptors, say: trying again at once would only burn time.
                    warn!("control accept=\"{why}\"");
                    async_std::task::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// One process that asks.
#[derive(Debug)]
pub struct Asker(UnixStream);

impl Asker {
    /// Its line.
    ///
    /// # Errors
    /// When it says none in time, or too much.
    pub async fn request(&mut self) -> Result<Vec<u8>, LineError> {
        Ok(read_line(&mut self.0, MAX_REQUEST, ASK_TIME).await?.0)
    }

    /// The line back, and the end.
    ///
    /// # Errors
    /// When it is not taken in time.
    pub async fn answer(mut self, line: &Secret<String>) -> Result<(), LineError> {
        self.say(line).await?;
        within_ask_time(async {
            self.0.close().await?;
            // The asker closes last, so that the answer cannot be lost to a reset.
            self.0.read(&mut [0; 1]).await
        })
        .await?;
        Ok(())
    }

    /// The line back; the connection stays, for more.
    ///
    /// # Errors
    /// When it is not taken in time.
    pub async fn answer_and_stay(mut self, line: &Secret<String>) -> Result<OwnedFd, LineError> {
        self.say(line).await?;
        Ok(OwnedFd::from(self.0))
    }

    async fn say(&mut self, line: &Secret<String>) -> Result<(), LineError> {
        let line = Secret::new(format!("{}\n", line.reveal()));
        within_ask_time(self.0.write_all(line.reveal().as_bytes())).await
    }
}

async fn within_ask_time<T>(work: impl Future<Output = io::Result<T>>) -> Result<T, LineError> {
    let done = timeout(ASK_TIME, work).await;
    Ok(done.map_err(|_| LineError::TimedOut(ASK_TIME))??)
}

/// What somebody has been asked: the line back, and the connection, on which more may come.
#[derive(Debug)]
pub struct Answered {
    /// The line.
    pub line: Secret<Vec<u8>>,
    /// What came behind it.
    pub more: Vec<u8>,
    /// The connection.
    pub socket: UnixStream,
}

/// Asks whoever listens at this path, and takes at most `most` bytes, within this time. `None`: nobody is there.
///
/// # Errors
/// When somebody is, but cannot be asked or does not answer.
pub async fn ask(
    path: &Path,
    request: &str,
    most: usize,
    within: Duration,
) -> Result<Option<Answered>, ControlError> {
    let place = SocketName::of(path)?;
    let connected = timeout(within, connect(&place.name)).await;
    let connected = connected.map_err(|_| ControlError::Silent(within))?;
    let mut socket = match connected {
        Ok(socket) => socket,
        Err(why) if nobody_there(&why) => return Ok(None),
        Err(why) => return Err(failed(path)(why)),
    };
    let sent = socket.write_all(format!("{request}\n").as_bytes()).await;
    sent.map_err(failed(path))?;
    match read_line(&mut socket, most, within).await {
        Ok((line, more)) => Ok(Some(Answered {
            line: Secret::new(line),
            more,
            socket,
        })),
        Err(LineError::TimedOut(after)) => Err(ControlError::Silent(after)),
        Err(LineError::Io(why)) => Err(failed(path)(why)),
        Err(_) => Err(ControlError::Answer),
    }
}

/// Whether the file at this path is a socket that nobody listens at any more.
pub fn is_left_over(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let knocked = SocketName::of(path).map(|place| knock(&place.name));
    let is_refused = |why: &io::Error| why.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && knocked.is_ok_and(|knocked| knocked.is_err_and(|why| is_refused(&why)))
}

/// Whether somebody listens there, without waiting for one who does not take anybody in.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(()),
        knocked => knocked,
    }
}

/// Where a socket is, by a name that the system takes.
struct SocketName {
    name: PathBuf,
    /// The folder, as long as the name is meant by it.
    _folder: Option<OwnedFd>,
}

impl SocketName {
    /// A long path is gone by way of its folder's descriptor.
    fn of(path: &Path) -> Result<Self, ControlError> {
        if path.as_os_str().as_bytes().len() <= MAX_PATH {
            return Ok(Self {
                name: path.to_owned(),
                _folder: None,
            });
        }
        let too_long = || ControlError::PathTooLong(path.to_owned());
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(too_long());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, folder, flags, Mode::empty()).map_err(|_| too_long())?;
        let number = folder.as_raw_fd();
        let by_number = PathBuf::from(format!("/proc/self/fd/{number}"));
        let name = by_number.join(name);
        if !by_number.exists() || name.as_os_str().as_bytes().len() > MAX_PATH {
            return Err(too_long());
        }
        Ok(Self {
            name,
            _folder: Some(folder),
        })
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ControlError {
    let path = path.to_owned();
    move |why| ControlError::Io {
        path: path.clone(),
        why,
    }
}

/// Only this user's processes, and the administrator's: the file's mode says so already, while nobody changes it.
#[cfg(target_os = "linux")]
fn is_ours(socket: &UnixStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(socket);
    peer.is_ok_and(|peer| peer.uid == rustix::process::geteuid() || peer.uid.is_root())
}

/// The file's mode says it.
#[cfg(not(target_os = "linux"))]
fn is_ours(_: &UnixStream) -> bool {
    true
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

fn nobody_there(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Removes the socket of a process that died.
fn clear(path: &Path, place: &SocketName) -> Result<(), ControlError> {
    let fail = failed(path);
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(fail(why)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ControlError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match knock(&place.name) {
        Ok(_) => Err(ControlError::Running(path.to_owned())),
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
