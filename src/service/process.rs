//! The processes of services: whether one still is what told something, and how it is ended.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::programs::Program;
use crate::{
    cli::Failure,
    sys::supervisor::{self, Holder, StateReport},
};

/// For a loop, or a program, to end after it was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ends what a service manager, or a loop, has lost sight of: it was there before, and still is.
pub(super) fn end_lost(before: Option<StateReport>, state: &Path) -> Result<(), Failure> {
    match before {
        Some(told) if is_still_there(&told, state) => {
            end(told.pid, || is_still_there(&told, state))
        }
        _ => Ok(()),
    }
}

pub(super) fn end(pid: u32, lives: impl Fn() -> bool) -> Result<(), Failure> {
    if let Some(process) = process(pid) {
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
    let began = Instant::now();
    while is_alive(pid) && lives() {
        if began.elapsed() > ENDS_WITHIN {
            return Err(Failure::plain(format!("process {pid} does not end"))
                .hint(format!("kill -9 {pid}, then try again")));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn process(pid: u32) -> Option<rustix::process::Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
}

/// A process' command line, where the system shows it.
pub(super) fn words_of(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&bytes);
    let words = line.split_terminator('\0').map(str::to_owned);
    Some(words.collect())
}

/// What `/proc/PID/stat` says, as far as it matters here.
pub(super) struct Stat {
    zombie: bool,
    /// By SIGSTOP, or a debugger.
    frozen: bool,
    pub(super) parent: u32,
    /// Since the machine was started.
    began: Duration,
}

pub(super) fn stat(pid: u32) -> Option<Stat> {
    // Linux shows a hundred ticks a second to everybody, whatever it counts itself.
    const TICKS: f64 = 100.0;
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    let words: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u32 = words.get(19)?.parse().ok()?;
    Some(Stat {
        zombie: words.first() == Some(&"Z"),
        frozen: matches!(words.first(), Some(&("T" | "t"))),
        parent: words.get(1)?.parse().ok()?,
        began: Duration::from_secs_f64(f64::from(ticks) / TICKS),
    })
}

/// Whether there is such a process, and not only what its parent has not asked about yet.
pub fn is_alive(pid: u32) -> bool {
    let Some(process) = process(pid) else {
        return false;
    };
    match rustix::process::test_kill_process(process) {
        Err(why) if why == rustix::io::Errno::SRCH => false,
        _ => !stat(pid).is_some_and(|stat| stat.zombie),
    }
}

/// What the running service told, if it runs. One that is stopped cannot say so itself.
pub fn running(state: &Path) -> Option<StateReport> {
    let mut told = supervisor::read(state).filter(|told| is_still_there(told, state))?;
    if stat(told.pid).is_some_and(|stat| stat.frozen) {
        "frozen".clone_into(&mut told.state);
        told.text = format!("its process was stopped: kill -CONT {}", told.pid);
    }
    Some(told)
}

/// Whether the process that told it is still there: its number may belong to another one by now.
fn is_still_there(told: &StateReport, state: &Path) -> bool {
    if !is_alive(told.pid) {
        return false;
    }
    match supervisor::holder(state) {
        Holder::Process(Some(pid)) => pid == told.pid,
        Holder::Process(None) => is_a_program(told.pid),
        Holder::Nobody => false,
        // A version before this one runs; or this is not Linux.
        Holder::Unknown => is_a_program(told.pid) && is_older(told.pid, state),
    }
}

/// One of our programs, by its command line: `/usr/bin/noports daemon …`.
fn is_a_program(pid: u32) -> bool {
    let Some(words) = words_of(pid) else {
        return !cfg!(target_os = "linux");
    };
    let own = std::env::current_exe().ok();
    let own = own.as_deref().and_then(Path::file_name);
    let named = words.first().and_then(|word| Path::new(word).file_name());
    let ours = named.is_some_and(|name| name == "noports" || Some(name) == own);
    let program = words.get(1).and_then(|word| Program::named(word));
    ours && program.is_some()
}

/// Whether a process began before a file was written last. What began later did not write it.
fn is_older(pid: u32, file: &Path) -> bool {
    /// The two clocks are read one after the other, and one of them in hundredths.
    const SLACK: Duration = Duration::from_secs(2);
    let since_written = || fs::metadata(file).ok()?.modified().ok()?.elapsed().ok();
    let since_boot = || {
        let line = fs::read_to_string("/proc/uptime").ok()?;
        let seconds: f64 = line.split(' ').next()?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    match (since_written(), since_boot(), stat(pid)) {
        (Some(written), Some(up), Some(stat)) => up.saturating_sub(stat.began) + SLACK >= written,
        _ => !cfg!(target_os = "linux"),
    }
}

/// Removes what a service that has ended told, and its lock.
pub(super) fn forget(state: &Path) {
    let _ = fs::remove_file(supervisor::lock_file(state));
    let _ = fs::remove_file(state);
}

/// What a program said at its end, if that is the last that its log holds.
pub(super) fn last_failure(log: &Path) -> Option<String> {
    /// A message, and its hint.
    const END: u64 = 4096;
    let mut file = fs::File::open(log).ok()?;
    let start = file.metadata().ok()?.len().saturating_sub(END);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(END).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let last = text
        .lines()
        .rev()
        .find(|line| !line.starts_with("  hint: "))?;
    Some(
        last.strip_prefix("noports ")?
            .split_once(": ")?
            .1
            .to_owned(),
    )
}

/// Waits until a service is connected; says what it told last.
pub fn wait(state: &Path, within: Duration) -> Option<StateReport> {
    let began = Instant::now();
    loop {
        let told = running(state);
        if told.as_ref().is_some_and(|told| told.state == "connected") || began.elapsed() > within {
            return told;
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use crate::{service::process::*, testing::Folder};

    #[test]
    fn what_a_program_said_at_its_end_is_the_reason_and_nothing_older_is() {
        let folder = Folder::new();
        let log = folder.path("log");
        let long = "x\n".repeat(5000);
        for (text, want) in [
            ("noports daemon: no keys\n  hint: enroll\n", Some("no keys")),
            (&format!("{long}noports daemon: no\n"), Some("no")),
            ("noports daemon: no keys\nconnected\n", None),
            ("  hint: alone\n", None),
            ("noports\n", None),
            ("", None),
        ] {
            fs::write(&log, text).unwrap();
            assert_eq!(last_failure(&log).as_deref(), want, "{text:.80}");
        }
        assert_eq!(last_failure(&folder.path("none")), None);
        assert_eq!(last_failure(&folder.0), None);
    }

    #[test]
    fn we_are_alive_and_a_child_that_has_ended_is_not() {
        assert!(is_alive(std::process::id()));
        let mut child = Command::new("true").spawn().unwrap();
        let began = Instant::now();
        while is_alive(child.id()) {
            assert!(began.elapsed() < Duration::from_secs(10));
        }
        child.wait().unwrap();
        assert!(!is_alive(child.id()) && !is_alive(u32::MAX));
    }
}
