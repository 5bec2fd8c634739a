//! What confines programs on this machine: tried out in a thread of its own, which ends with it; and what the kernel says of
//! those that run.

use std::{fs, path::Path, thread};

use super::{PartResult, check, failed};
use crate::sys::sandbox::{
    Confined, Confinement, POLICY,
    tasks::{self, RunningProgram, TaskLimits},
};

/// Those that confine themselves.
const PROGRAMS: [&str; 5] = ["daemon", "bridge", "rendezvous", "policy", "atserver"];

/// A thread confines itself and tries what it may not do any more. What the kernel does not offer is no failure.
pub(super) fn here(folder: &Path) -> PartResult {
    let outside = folder.join("outside");
    fs::write(&outside, "x").map_err(failed)?;
    let tried = thread::scope(|scope| {
        let one = scope.spawn(|| {
            let confined = Confinement::of(&POLICY).enter_here();
            let written = fs::write(&outside, "y").is_ok();
            (confined, written, is_refused())
        });
        one.join()
    });
    let (confined, written, refused) = tried.map_err(|_| failed("the thread did not end well"))?;
    check(
        confined.files.is_none() || !written,
        "a file is written that nobody allowed",
    )?;
    check(
        !confined.calls || refused,
        "a system call is made that is forbidden",
    )?;
    Ok(told(&confined))
}

/// A kind of socket that none of our programs uses.
#[cfg(target_os = "linux")]
fn is_refused() -> bool {
    use rustix::{
        io::Errno,
        net::{AddressFamily, SocketType, socket},
    };
    let ciphers = u16::try_from(libc::AF_ALG).map(AddressFamily::from_raw);
    ciphers.is_ok_and(|kind| socket(kind, SocketType::SEQPACKET, None).err() == Some(Errno::PERM))
}

#[cfg(not(target_os = "linux"))]
fn is_refused() -> bool {
    false
}

fn told(confined: &Confined) -> String {
    let mut parts = Vec::new();
    if let Some(generation) = confined.files {
        parts.push(format!("files (Landlock {generation})"));
    }
    if confined.calls {
        parts.push("system calls".to_owned());
    }
    if confined.no_new_privileges {
        parts.push("no new privileges".to_owned());
    }
    if confined.capabilities_dropped {
        parts.push("no capabilities".to_owned());
    }
    parts.extend(confined.missing.iter().map(|what| format!("NOT {what}")));
    parts.join(", ")
}

/// Each of our programs that runs here.
pub(super) fn running() -> Vec<String> {
    let found = tasks::running(&PROGRAMS);
    found.iter().map(limits).collect()
}

fn limits(program: &RunningProgram) -> String {
    let RunningProgram { pid, name, tasks } = program;
    let all = |has: fn(&TaskLimits) -> bool| !tasks.is_empty() && tasks.iter().all(has);
    let say = |has, what: &str| {
        if has {
            what.to_owned()
        } else {
            format!("NOT {what}")
        }
    };
    let words = [
        say(all(|task| task.filtered), "system calls"),
        say(all(|task| task.no_new_privileges), "no new privileges"),
        say(all(|task| task.capabilities == 0), "no capabilities"),
    ];
    format!(
        "{name} {pid}, {} threads: {}",
        tasks.len(),
        words.join(", ")
    )
}
