//! Doing it: the file, the service manager, and for cron a line in the crontab and a loop.

use std::{
    fs, io,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Failure,
    host::{self, Init},
    quote,
    render::{self, Service},
};
use crate::sys::{paths, supervisor, user::Person};

/// For a loop to end after it was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a service's file is about to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is none yet.
    New,
    /// It is there, and ours, and says something else.
    Other,
    /// It is already as it should be.
    None,
}

/// Compares with what is there.
///
/// # Errors
/// When a file of somebody else's is in the way, unless `force`.
pub fn compare(file: &Path, text: &str, force: bool) -> Result<Change, Failure> {
    let shown = file.display();
    let there = match fs::read(file) {
        Ok(there) => there,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Change::New),
        Err(why) => return Err(Failure::plain(format!("cannot read {shown}: {why}"))),
    };
    let there = String::from_utf8_lossy(&there);
    if there == text {
        return Ok(Change::None);
    }
    if force || render::is_ours(&there) {
        return Ok(Change::Other);
    }
    Err(
        Failure::plain(format!("{shown} was not written by noports"))
            .hint("look at it; --force replaces it, --instance NAME takes another name"),
    )
}

/// Writes the service's file, making the folders above it.
///
/// # Errors
/// With the path.
pub fn write(file: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let parent = file.parent().unwrap_or(Path::new("/"));
    let failed = |why: &dyn std::fmt::Display| Failure::plain(why.to_string());
    fs::create_dir_all(parent)
        .map_err(|why| failed(&format!("cannot make {}: {why}", parent.display())))?;
    paths::atomic_write(file, text.as_bytes(), mode).map_err(|why| failed(&why))
}

/// Makes a folder that the service writes to, and gives it to whom it runs as. One that exists stays as it is.
///
/// # Errors
/// With the path.
pub fn folder_for(path: &Path, person: &Person) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let make = || {
        paths::private_folder(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        match rustix::process::geteuid().is_root() {
            true => chown(path, Some(person.uid), Some(person.gid)),
            false => Ok(()),
        }
    };
    make().map_err(|why| Failure::plain(format!("cannot make {}: {why}", path.display())))
}

/// Starts the service, now and at every boot.
///
/// # Errors
/// The service manager's, in its words.
pub fn start(init: Init, service: &Service, file: &Path, changed: bool) -> Result<(), Failure> {
    let state = init.state_file(&service.name, &service.person);
    if init == Init::Cron {
        return start_loop(&service.name, file, &service.person, changed);
    }
    if changed && matches!(init, Init::Launchd | Init::LaunchdUser) {
        let folder = state.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)
            .map_err(|why| Failure::plain(format!("cannot make {}: {why}", folder.display())))?;
    }
    for step in init.start(&service.name, file, changed) {
        step.run().map_err(|why| {
            Failure::plain(why).hint(format!(
                "the log may say more: {}",
                init.log(&service.name, &service.person)
            ))
        })?;
    }
    Ok(())
}

/// Starts a service anew, and nothing else.
///
/// # Errors
/// The service manager's, in its words.
pub fn restart(init: Init, name: &str, file: &Path, person: &Person) -> Result<(), Failure> {
    if init == Init::Cron {
        return start_loop(name, file, person, true);
    }
    for step in init.restart(name, file) {
        step.run().map_err(Failure::plain)?;
    }
    Ok(())
}

/// Ends a service and removes its file. Sessions live on, keys and data stay.
///
/// # Errors
/// When its file cannot be removed, or its loop does not end.
pub fn remove(init: Init, name: &str, file: &Path, person: &Person) -> Result<(), Failure> {
    if init == Init::Cron {
        let _ = set_crontab(name, None);
        stop_loop(name, person)?;
    }
    for step in init.stop(name, file) {
        step.run().map_err(Failure::plain)?;
    }
    fs::remove_file(file)
        .map_err(|why| Failure::plain(format!("cannot remove {}: {why}", file.display())))?;
    if matches!(init, Init::Cron | Init::Launchd | Init::LaunchdUser) {
        let _ = fs::remove_file(init.state_file(name, person));
    }
    for step in init.forget() {
        step.run().map_err(Failure::plain)?;
    }
    Ok(())
}

/// The line's end by which we know our line in somebody's crontab.
fn tag(name: &str) -> String {
    format!("# {name}, written by noports")
}

/// A crontab with our line, or without it; everything else in it stays.
fn with_line(crontab: &str, name: &str, line: Option<&str>) -> String {
    let tag = tag(name);
    let mut lines: Vec<&str> = crontab.lines().filter(|old| !old.ends_with(&tag)).collect();
    lines.extend(line);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn set_crontab(name: &str, line: Option<&str>) -> Result<(), Failure> {
    let no_cron = |why: &dyn std::fmt::Display| {
        Failure::plain(format!(
            "nothing here starts services, and cron neither: {why}"
        ))
        .hint("install cron, or start the program from what you have; --print shows the loop")
    };
    // Somebody without a crontab is told so on stderr, with an exit code of its own.
    let before = host::output(&["crontab", "-l"], None).map_err(|why| no_cron(&why))?;
    let before = match before.status.success() {
        true => String::from_utf8_lossy(&before.stdout).into_owned(),
        false => String::new(),
    };
    let after = with_line(&before, name, line);
    if after == before {
        return Ok(());
    }
    let done = host::output(&["crontab", "-"], Some(&after)).map_err(|why| no_cron(&why))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(no_cron(&String::from_utf8_lossy(&done.stderr).trim())),
    }
}

fn start_loop(name: &str, file: &Path, person: &Person, changed: bool) -> Result<(), Failure> {
    let shown = file.display().to_string();
    let command = quote::cron(&format!("/bin/sh {}", quote::shell(&shown)));
    let line = format!("@reboot {command} {}", tag(name));
    set_crontab(name, Some(&line))?;
    if changed {
        stop_loop(name, person)?;
    }
    Command::new("/bin/sh")
        .arg(file)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
        .map_err(|why| Failure::plain(format!("cannot start {shown}: {why}")))
}

fn stop_loop(name: &str, person: &Person) -> Result<(), Failure> {
    let file = host::data_folder(person).join(format!("{name}.pid"));
    let number = || fs::read_to_string(&file).ok()?.trim().parse::<i32>().ok();
    let Some(pid) = number() else { return Ok(()) };
    // The number may belong to another process by now.
    let ours = fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .map_or(cfg!(not(target_os = "linux")), |line| line.contains(name));
    let Some(process) = rustix::process::Pid::from_raw(pid).filter(|_| ours) else {
        let _ = fs::remove_file(&file);
        return Ok(());
    };
    let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    let began = Instant::now();
    while is_alive(pid as u32) {
        if began.elapsed() > ENDS_WITHIN {
            return Err(Failure::plain(format!("process {pid} does not end")));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Whether there is such a process, and not only what its parent has not asked about yet.
pub fn is_alive(pid: u32) -> bool {
    let Some(process) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    match rustix::process::test_kill_process(process) {
        Err(why) if why == rustix::io::Errno::SRCH => false,
        _ => !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.starts_with(" Z"))
        }),
    }
}

/// What the running service told, if it runs.
pub fn told(state: &Path) -> Option<supervisor::Told> {
    supervisor::read(state).filter(|told| is_alive(told.pid))
}

/// Waits until a service is connected; says what it told last.
pub fn wait(state: &Path, within: Duration) -> Option<supervisor::Told> {
    let began = Instant::now();
    loop {
        let told = told(state);
        if told.as_ref().is_some_and(|told| told.state == "connected") || began.elapsed() > within {
            return told;
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::install::act::*;

    #[test]
    fn a_crontab_keeps_what_is_not_ours() {
        let ours = format!("@reboot sh x {}", tag("noports-daemon"));
        let others = format!(
            "# mine\n0 4 * * * backup\n@reboot sh y {}\n",
            tag("noports-daemon-b")
        );
        let with = with_line(&others, "noports-daemon", Some(&ours));
        assert_eq!(with, format!("{others}{ours}\n"));
        assert_eq!(with_line(&with, "noports-daemon", Some(&ours)), with);
        assert_eq!(with_line(&with, "noports-daemon", None), others);
        assert_eq!(with_line("", "noports-daemon", None), "");
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
