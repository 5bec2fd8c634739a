//! Our own executable as a child that outlives us, and no core dumps.

use std::{
    env,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::{fs::FileExt, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process,
    sync::{Mutex, OnceLock},
    thread,
};

use async_process::{Child, Command, Stdio};
use futures_lite::AsyncWriteExt;
use rustix::{
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

/// Our own executable; where the kernel offers it, the very file that is running, even if it has been
/// replaced or removed since.
///
/// # Errors
/// What the system says.
pub fn own_executable() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() {
        return Ok(running.to_owned());
    }
    env::current_exe()
}

/// How many threads can work at the same time here.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Starts a program (as a rule our own executable) so that it survives us: in a process group of its own, so that a key
/// pressed at our terminal does not reach it, and not killed when the handle is dropped.
///
/// `input` is what it reads on stdin (secrets travel here), then the end. Its stdout is discarded;
/// its stderr is the handle's `stderr`, and may be dropped when enough has been read.
///
/// # Errors
/// What the system says.
pub async fn spawn_apart<S: AsRef<OsStr>>(
    program: &Path,
    arguments: &[S],
    input: &[u8],
) -> io::Result<Child> {
    let mut command = process::Command::new(program);
    // It has its own secrets from stdin; ours are none of its business.
    command
        .arg0("noports") // what a list of processes shows
        .args(arguments)
        .process_group(0)
        .env_remove("NOPORTS_PASSPHRASE");
    for name in super::supervisor::OF_THE_SERVICE {
        command.env_remove(name);
    }
    let spawn = || spawn_with_input(command);
    feed(with_lot(spawn)?, input).await
}

fn spawn_with_input(command: process::Command) -> io::Result<Child> {
    let mut command = Command::from(command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn()
}

async fn feed(mut child: Child, input: &[u8]) -> io::Result<Child> {
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ended without reading has its reason, which its stderr and status tell.
        match stdin.write_all(input).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    Ok(child)
}

/// Keeps secrets out of core files and out of reach of debuggers of the same user.
///
/// With `NOPORTS_DEBUG` set it does nothing: then a debugger may look, and so may tests.
pub fn protect_memory() {
    if env::var_os("NOPORTS_DEBUG").is_some() {
        return;
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        log::debug!("core_dumps=left reason={error}");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::debug!("dumpable=left reason={error}");
    }
}

/// How ready the system is to end this process where memory runs out.
const LOT: &str = "/proc/self/oom_score_adj";
/// More than that of others: it is one session, and its daemon serves all.
const LOT_OF_A_SESSION: &str = "200";
/// The file, and what was in it.
static OWN_LOT: OnceLock<Mutex<(File, String)>> = OnceLock::new();

/// Where memory runs out, the system ends this process before others. Before [`protect_memory`], after which nobody but
/// root may write that file.
pub fn first_to_go() {
    if let Err(error) = std::fs::write(LOT, LOT_OF_A_SESSION) {
        log::debug!("oom_score=left reason={error}");
    }
}

/// The same for what this process starts, which cannot do it itself: it has this one's limits. Before [`protect_memory`],
/// too, and before the sandbox.
pub fn sessions_go_first() {
    let opened = File::options().read(true).write(true).open(LOT);
    let read = opened.and_then(|mut file| {
        let mut own = String::new();
        file.read_to_string(&mut own)?;
        Ok((file, own))
    });
    match read {
        Ok(lot) => drop(OWN_LOT.set(Mutex::new(lot))),
        Err(error) => log::debug!("oom_score=left reason={error}"),
    }
}

/// Starts a child that inherits the lot of a session.
fn with_lot<T>(start: impl FnOnce() -> T) -> T {
    let lot = OWN_LOT.get().map(|lot| lot.lock());
    let Some(Ok(lot)) = lot else { return start() };
    let (file, own) = &*lot;
    let set = |text: &str| {
        if let Err(error) = file.write_all_at(text.as_bytes(), 0) {
            log::debug!("oom_score=left reason={error}");
        }
    };
    set(LOT_OF_A_SESSION);
    let started = start();
    set(own);
    started
}

/// As many descriptors as the system allows this process: each connection needs one, relayed ones need two, and the usual
/// limit is 1024.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::debug!("descriptors={:?} reason={error}", limit.current);
    }
}

/// Descriptors for what is being done already: names to be resolved, sockets on their way.
const SPARE_DESCRIPTORS: u64 = 8;

/// How many descriptors this process may have.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many more descriptors may be used for newcomers.
pub fn descriptors_left() -> u64 {
    // The system gives out the lowest number that is free.
    let next = match File::open("/") {
        Ok(probe) => u64::try_from(probe.as_raw_fd()).unwrap_or_default(),
        Err(error) if is_out_of_descriptors(&error) => return 0,
        Err(_) => 0,
    };
    descriptor_limit().saturating_sub(next + SPARE_DESCRIPTORS)
}

/// Whether this failed because all descriptors are used.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;
    use futures_lite::AsyncReadExt;

    use super::*;

    fn shell(script: &str) -> process::Command {
        let mut command = process::Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn our_executable_can_be_opened() {
        assert!(std::fs::File::open(own_executable().unwrap()).is_ok());
    }

    #[test]
    fn a_child_reads_its_input_and_is_heard_on_stderr() {
        block_on(async {
            let child = spawn_with_input(shell("cat >&2; exit 3")).unwrap();
            let mut child = feed(child, b"a secret\n").await.unwrap();
            let mut heard = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut heard)
                .await
                .unwrap();
            assert_eq!(heard, "a secret\n");
            assert_eq!(child.status().await.unwrap().code(), Some(3));
        });
    }

    #[test]
    fn a_child_that_does_not_read_is_no_accident() {
        block_on(async {
            let input = vec![b'x'; 1 << 20];
            let child = spawn_with_input(shell("exec 0<&-; exit 4")).unwrap();
            let mut child = feed(child, &input).await.unwrap();
            assert_eq!(child.status().await.unwrap().code(), Some(4));
        });
    }
}
