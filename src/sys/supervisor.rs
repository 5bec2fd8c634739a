//! How a service tells whoever started it that it is well: to systemd over its socket, to everybody else
//! (`noports daemon status`, OpenRC, procd, launchd, cron) through a small file.
//!
//! ```text
//!                                           ┌─ $NOTIFY_SOCKET   READY=1  STATUS=connected…  WATCHDOG=1  STOPPING=1   one datagram each
//!   tell(ServiceState, text), keep_alive ────┤
//!   tell_sessions(how many) ─────────────────┴─ $NOPORTS_STATE   {"pid":812,"state":"connected","text":"…","since":…,"started":…}
//! ```
//!
//! Without these variables nothing happens. The file is only written when the state changes, so it may lie on
//! flash; where there is no room for a new one the old one is overwritten, and one that cannot be written goes, because
//! what it says is no longer so, and is tried again. Beside it lies a lock, which the kernel holds for the process as long as that lives: a second process of the
//! same service ends at once, and whether a number in the file is still that process is no guess. Source: systemd/systemd man/sd_notify.xml.

mod lock;
mod sessions;

use std::{
    env,
    fs::{self, File, OpenOptions},
    future::Future,
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_io::Timer;
use async_std::task;
use log::{debug, warn};
use miniserde::{Deserialize, Serialize, json};

use super::{file, paths};

pub use lock::{Holder, holder, lock_file};
use lock::{ONLY_OURS, short};
pub use sessions::tell_sessions;

/// Names the file that holds the state.
pub const STATE_FILE: &str = "NOPORTS_STATE";
/// Variables of a service that are none of its children's business.
pub const OF_THE_SERVICE: [&str; 4] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", STATE_FILE];

/// What a service can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// It has begun, and is not there for anybody yet.
    Starting,
    /// It is there for those whom it serves.
    Connected,
    /// It was, or wants to be, and tries again.
    Lost,
    /// It was told to end.
    Stopping,
}

impl ServiceState {
    fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Connected => "connected",
            Self::Lost => "lost",
            Self::Stopping => "stopping",
        }
    }
}

/// What the file says. Times are seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StateReport {
    pub pid: u32,
    pub version: String,
    /// `starting`, `connected`, `lost` or `stopping`.
    pub state: String,
    pub text: String,
    /// Since when it is in this state.
    pub since: u64,
    /// Since when the process runs.
    pub started: u64,
    /// Sessions that would end with it.
    pub sessions: Option<u64>,
}

/// Tells the state, with a few words for the person who asks. `Starting` means to systemd that start-up is
/// done: a device must come up without a network, too.
pub fn tell(state: ServiceState, text: &str) {
    herald().tell(state, text);
    if herald().owes() && !IS_RETRYING.swap(true, Ordering::AcqRel) {
        task::spawn(write_again());
    }
}

/// Between two tries to write the file.
const AGAIN: Duration = Duration::from_secs(10);
static IS_RETRYING: AtomicBool = AtomicBool::new(false);

/// Until the file says what was told last.
async fn write_again() {
    while herald().owes() {
        Timer::after(AGAIN).await;
        herald().pay();
    }
    IS_RETRYING.store(false, Ordering::Release);
}

/// Whether somebody watches over this process, and would start it again.
pub fn is_watched() -> bool {
    let herald = herald();
    herald.socket.is_some() || herald.file.is_some()
}

/// As long as `silence` (how long ago something last showed that all is well) is below `limit`, keeps
/// telling the watchdog that we are alive. Never ends.
pub async fn keep_alive<T>(silence: impl Fn() -> Duration, limit: Duration) -> T {
    keep_alive_while(async || silence() < limit).await
}

/// As [`keep_alive`], with a question that takes time. Silence is told by not answering.
pub async fn keep_alive_while<T, F: Future<Output = bool>>(well: impl Fn() -> F) -> T {
    let Some(every) = watchdog(|name| env::var(name).ok(), std::process::id()) else {
        return futures_lite::future::pending().await;
    };
    loop {
        if well().await {
            herald().send("WATCHDOG=1");
        }
        Timer::after(every).await;
    }
}

/// Reads a state file; `None` when there is none that can be read.
pub fn read(path: &Path) -> Option<StateReport> {
    json::from_str(&file::text_now(path, file::SMALL).ok()?).ok()
}

/// Makes sure that this process is the only one of its service, for as long as it lives. What it starts does not inherit
/// that: sessions outlive it.
///
/// # Errors
/// `WouldBlock` when another one runs. A place where nothing can be locked is no error.
pub fn be_alone() -> io::Result<()> {
    static LOCK: OnceLock<Option<File>> = OnceLock::new();
    let Some(state) = &herald().file else {
        return Ok(());
    };
    if LOCK.get().is_none() {
        let _ = LOCK.set(lock::take(&lock_file(state))?);
    }
    Ok(())
}

/// Who keeps this process from being the only one of its service, for the person: `process 812 (flock) of user 1001`.
pub fn who_is_there() -> Option<String> {
    lock::who_holds(herald().file.as_deref()?)
}

/// The folder of the state file, for whoever has to keep a way open to it.
pub fn folder() -> Option<PathBuf> {
    let file = std::path::absolute(herald().file.as_deref()?).ok()?;
    file.parent().map(Path::to_owned)
}

/// Half of what the watchdog allows, if it watches this process.
fn watchdog(env: impl Fn(&str) -> Option<String>, pid: u32) -> Option<Duration> {
    let limit: u64 = env("WATCHDOG_USEC")?.parse().ok()?;
    match env("WATCHDOG_PID") {
        Some(text) if text.parse() != Ok(pid) => None,
        _ => Some(Duration::from_micros((limit / 2).max(1000))),
    }
}

/// Where the service manager listens, and a socket that is opened before the program confines itself.
struct Notifier {
    name: String,
    socket: UnixDatagram,
}

struct Herald {
    socket: Option<Notifier>,
    file: Option<PathBuf>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    last: Option<StateReport>,
    /// The file does not say so yet.
    is_owed: bool,
}

fn herald() -> &'static Herald {
    static HERALD: OnceLock<Herald> = OnceLock::new();
    HERALD.get_or_init(|| Herald {
        socket: env::var("NOTIFY_SOCKET").ok().and_then(Notifier::to),
        file: env::var_os(STATE_FILE).map(PathBuf::from),
        told: Mutex::default(),
    })
}

impl Herald {
    fn tell(&self, state: ServiceState, text: &str) {
        let text = short(text);
        // The file first: whoever hears the message may look there at once.
        self.write(state, &text);
        let status = if text.is_empty() { state.word() } else { &text };
        self.send(&match state {
            ServiceState::Stopping => format!("STOPPING=1\nSTATUS={status}"),
            _ => format!("READY=1\nSTATUS={status}"),
        });
    }

    fn send(&self, message: &str) {
        if let Some(notifier) = &self.socket
            && let Err(why) = notifier.send(message)
        {
            debug!("notify=failed reason=\"{why}\"");
        }
    }

    fn write(&self, state: ServiceState, text: &str) {
        if self.file.is_none() {
            return;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut told = self.told();
        let before = told.last.as_ref();
        let same = before.is_some_and(|before| before.state == state.word());
        if same && before.is_some_and(|before| before.text == text) {
            return;
        }
        let next = StateReport {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: state.word().to_owned(),
            text: text.to_owned(),
            since: before.filter(|_| same).map_or(now, |before| before.since),
            started: before.map_or(now, |before| before.started),
            sessions: before.and_then(|before| before.sessions),
        };
        told.last = Some(next);
        self.write_down(&mut told);
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owes(&self) -> bool {
        self.told().is_owed
    }

    /// Writes what could not be written before.
    fn pay(&self) {
        let mut told = self.told();
        if told.is_owed {
            self.write_down(&mut told);
        }
    }

    fn write_down(&self, told: &mut Told) {
        let (Some(file), Some(report)) = (&self.file, &told.last) else {
            return;
        };
        let text = json::to_string(report);
        let written = paths::replace(file, text.as_bytes(), ONLY_OURS).or_else(|why| {
            // Where there is no room for a second one. What is no file is somebody else's.
            if !fs::symlink_metadata(file).is_ok_and(|about| about.is_file()) {
                return Err(why);
            }
            overwrite(file, text.as_bytes()).map_err(|_| {
                let _ = fs::remove_file(file);
                why
            })
        });
        let was_owed = std::mem::replace(&mut told.is_owed, written.is_err());
        match written {
            Err(why) if !was_owed => warn!("state=not_written reason=\"{why}\""),
            Ok(()) if was_owed => warn!("state=written"),
            _ => {}
        }
    }
}

/// Where there is no room for a new file, the old one's is left.
fn overwrite(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(no_link)
        .open(file)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

impl Notifier {
    fn to(name: String) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let opened = UnixDatagram::unbound()
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .inspect_err(|why| debug!("notify=failed reason=\"{why}\""));
        let socket = opened.ok()?;
        Some(Self { name, socket })
    }

    fn send(&self, message: &str) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(name) = self.name.strip_prefix('@') {
            use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
            let address = SocketAddr::from_abstract_name(name)?;
            let sent = self.socket.send_to_addr(message.as_bytes(), &address);
            return sent.map(drop);
        }
        self.socket
            .send_to(message.as_bytes(), &self.name)
            .map(drop)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::{sys::supervisor::*, testing::Folder};

    fn herald(socket: Option<String>, file: Option<PathBuf>) -> Herald {
        Herald {
            socket: socket.and_then(Notifier::to),
            file,
            told: Mutex::default(),
        }
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn states_are_told_in_the_words_of_the_service_manager() {
        let folder = Folder::new();
        let name = folder.0.join("s");
        let socket = UnixDatagram::bind(&name).unwrap();
        let herald = herald(Some(name.display().to_string()), None);
        for (state, text, want) in [
            (
                ServiceState::Starting,
                "logging in",
                "READY=1\nSTATUS=logging in",
            ),
            (ServiceState::Connected, "", "READY=1\nSTATUS=connected"),
            (
                ServiceState::Lost,
                "a\nMAINPID=1",
                "READY=1\nSTATUS=a MAINPID=1",
            ),
            (ServiceState::Stopping, "", "STOPPING=1\nSTATUS=stopping"),
        ] {
            herald.tell(state, text);
            assert_eq!(heard(&socket), want, "{state:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_begins_with_an_at_is_in_the_abstract_namespace() {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
        let name = format!("notify-{}", uuid::Uuid::new_v4());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        herald(Some(format!("@{name}")), None).send("WATCHDOG=1");
        assert_eq!(heard(&socket), "WATCHDOG=1");
    }

    #[test]
    fn nobody_listening_is_no_accident() {
        herald(Some("/nowhere/at/all".to_owned()), None).tell(ServiceState::Connected, "");
        herald(None, Some("/nowhere/at/all".into())).tell(ServiceState::Connected, "");
    }

    #[test]
    fn the_file_changes_with_the_state_only_and_keeps_the_times() {
        let folder = Folder::new();
        let file = folder.0.join("state");
        let herald = herald(None, Some(file.clone()));
        herald.tell(ServiceState::Connected, "as @me");
        let first = read(&file).unwrap();
        assert_eq!(
            (first.pid, first.state.as_str()),
            (std::process::id(), "connected")
        );
        std::fs::remove_file(&file).unwrap();
        herald.tell(ServiceState::Connected, "as @me");
        assert!(!file.exists(), "written though nothing changed");
        herald.tell(ServiceState::Lost, "\"why\"");
        let second = read(&file).unwrap();
        assert_eq!(
            (second.state.as_str(), second.text.as_str()),
            ("lost", "\"why\"")
        );
        assert_eq!(second.started, first.started);
    }

    #[test]
    fn a_state_that_finds_no_room_is_written_over_the_old_one_or_as_soon_as_there_is() {
        let folder = Folder::new();
        // No room for a new file: its name would be too long.
        let file = folder.0.join("s".repeat(255));
        fs::write(&file, "connected, for a very long time".repeat(20)).unwrap();
        let full = herald(None, Some(file.clone()));
        full.tell(ServiceState::Lost, "no route");
        assert_eq!(read(&file).unwrap().state, "lost");
        assert!(!full.owes());
        // Nothing to write over, either.
        let later = folder.0.join("later");
        let file = later.join("state");
        let none = herald(None, Some(file.clone()));
        none.tell(ServiceState::Connected, "");
        none.tell(ServiceState::Lost, "no route");
        assert!(none.owes());
        none.pay();
        assert!(none.owes());
        fs::create_dir(&later).unwrap();
        none.pay();
        assert_eq!(read(&file).unwrap().state, "lost");
        assert!(!none.owes());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_process_that_is_watched_answers_and_twice_as_often_as_it_must() {
        for (variables, want) in [
            (&[][..], None),
            (&[("WATCHDOG_USEC", "120000000")], Some(60_000)),
            (
                &[("WATCHDOG_USEC", "120000000"), ("WATCHDOG_PID", "7")],
                Some(60_000),
            ),
            (
                &[("WATCHDOG_USEC", "120000000"), ("WATCHDOG_PID", "8")],
                None,
            ),
            (&[("WATCHDOG_USEC", "x")], None),
            (&[("WATCHDOG_USEC", "0")], Some(1)),
        ] {
            let env = |name: &str| {
                let found = variables.iter().find(|row| row.0 == name)?;
                Some(found.1.to_owned())
            };
            let got = watchdog(env, 7).map(|every| every.as_millis());
            assert_eq!(got, want, "{variables:?}");
        }
    }

    #[test]
    fn nobody_else_can_open_the_state() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new();
        let state = folder.path("state");
        herald(None, Some(state.clone())).tell(ServiceState::Connected, "");
        let mode = state.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
}
