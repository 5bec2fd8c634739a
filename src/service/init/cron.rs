//! Where no service manager is: a loop that cron starts at boot, by a line in the person's crontab.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    cli::Failure,
    service::{
        command::{ManagerCommand, output},
        manager::{Manager, ServiceAction},
        process::{end, end_lost, is_alive, running, words_of},
        quote::{line, shell},
        unit::{Service, Unit, path},
    },
    sys::user::Person,
};

/// cron, and a loop of ours.
#[derive(Debug)]
pub struct Cron;

impl Manager for Cron {
    fn word(&self) -> &'static str {
        "cron"
    }

    fn is_for_the_machine(&self) -> bool {
        false
    }

    fn is_here(&self, _uid: u32, _exists: &dyn Fn(&str) -> bool) -> bool {
        true
    }

    fn works_here(&self, _person: &Person) -> Result<(), Failure> {
        crontab().map(drop)
    }

    fn file(&self, name: &str, person: &Person) -> PathBuf {
        data_folder(person).join(format!("{name}.sh"))
    }

    fn render(&self, service: &Service) -> String {
        let values = vec![
            ("COMMAND", line(&service.command(), shell)),
            ("FOLDER", shell(&path(&data_folder(&service.unit.person)))),
            ("ENVIRONMENT", service.exports()),
        ];
        service.fill(include_str!("../../../packaging/services/loop.sh"), values)
    }

    fn state(&self, unit: &Unit) -> PathBuf {
        data_folder(&unit.person).join(format!("{}.state", unit.name))
    }

    fn leaves_state(&self) -> bool {
        true
    }

    fn log(&self, unit: &Unit) -> String {
        path(&self.state(unit).with_extension("log"))
    }

    fn commands(&self, _action: ServiceAction, _unit: &Unit) -> Vec<ManagerCommand> {
        Vec::new()
    }

    fn plan(&self, unit: &Unit, _changed: bool) -> Vec<String> {
        let file = unit.file.display();
        vec![format!(
            "would add it to your crontab and start it: sh {file}"
        )]
    }

    fn start(&self, unit: &Unit, changed: bool) -> Result<(), Failure> {
        start_loop(unit, changed)
    }

    fn restart(&self, unit: &Unit) -> Result<(), Failure> {
        start_loop(unit, true)
    }

    fn stop(&self, unit: &Unit) -> Result<(), Failure> {
        // Without cron there is no line either.
        let _ = set_crontab(&unit.name, None);
        stop_loop(unit)
    }

    fn note(&self, _person: &Person) -> Option<String> {
        let note = "nothing here runs crontabs now (cron, crond): until that does, it is not started at boot";
        (!runs_crontabs()).then(|| note.to_owned())
    }

    /// A program without its loop runs on by itself.
    fn is_watched(&self, unit: &Unit, _pid: u32) -> bool {
        loop_of(unit).is_some()
    }
}

/// Where the loop, its state and its log live.
fn data_folder(person: &Person) -> PathBuf {
    person.home.join(".local/share/noports")
}

/// A command in a crontab, where `%` ends a line.
fn quoted(command: &str) -> String {
    command.replace('%', r"\%")
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

fn no_cron(why: &dyn std::fmt::Display) -> Failure {
    Failure::plain(format!(
        "there is no service manager here, and cron cannot be used: {why}"
    ))
    .hint("install cron; or start the program yourself, as --print shows")
}

/// What the crontab says now.
fn crontab() -> Result<String, Failure> {
    /// What is said to somebody who may have none; by busybox, too, where it has not the rights for that.
    const NO: [&str; 3] = ["not allowed", "suid", "ermission denied"];
    let listed = output(&["crontab", "-l"], None).map_err(|why| no_cron(&why))?;
    if listed.status.success() {
        return Ok(String::from_utf8_lossy(&listed.stdout).into_owned());
    }
    // Somebody without a crontab is told so on stderr, with an exit code of its own.
    let said = String::from_utf8_lossy(&listed.stderr);
    match said
        .lines()
        .find(|line| NO.iter().any(|no| line.contains(no)))
    {
        Some(line) => Err(no_cron(&line)),
        None => Ok(String::new()),
    }
}

/// Whether a program that reads crontabs is there. Where processes are hidden, it may be.
fn runs_crontabs() -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let name = |process: fs::DirEntry| fs::read_to_string(process.path().join("comm")).ok();
    let is_hidden = !Path::new("/proc/1/comm").exists();
    is_hidden || processes.filter_map(name).any(|name| name.contains("cron"))
}

fn set_crontab(name: &str, line: Option<&str>) -> Result<(), Failure> {
    let before = crontab()?;
    let after = with_line(&before, name, line);
    if after == before {
        return Ok(());
    }
    let done = output(&["crontab", "-"], Some(&after)).map_err(|why| no_cron(&why))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(no_cron(&String::from_utf8_lossy(&done.stderr).trim()))
    }
}

fn start_loop(unit: &Unit, changed: bool) -> Result<(), Failure> {
    let shown = path(&unit.file);
    let command = quoted(&format!("/bin/sh {}", shell(&shown)));
    let line = format!("@reboot {command} {}", tag(&unit.name));
    set_crontab(&unit.name, Some(&line))?;
    // A program whose loop is lost is not found by the next loop: it would only stand in its way.
    if changed || loop_of(unit).is_none() {
        stop_loop(unit)?;
        let state = Cron.state(unit);
        end_lost(running(&state), &state)?;
        let _ = fs::remove_file(state);
    }
    Command::new("/bin/sh")
        .arg(&unit.file)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
        .map_err(|why| Failure::plain(format!("cannot start {shown}: {why}")))
}

fn pid_file(unit: &Unit) -> PathBuf {
    data_folder(&unit.person).join(format!("{}.pid", unit.name))
}

/// The loop's process. Its number may belong to another process by now, even to another loop of ours.
fn loop_of(unit: &Unit) -> Option<u32> {
    let text = fs::read_to_string(pid_file(unit)).ok()?;
    let pid = text.trim().parse().ok()?;
    let script = format!("{}.sh", unit.name);
    let ours = match words_of(pid) {
        Some(words) => runs_script(&words, &script),
        None => is_alive(pid) && !cfg!(target_os = "linux"),
    };
    ours.then_some(pid)
}

fn runs_script(words: &[String], script: &str) -> bool {
    let name = |word: &str| Path::new(word).file_name().map(OsStr::to_os_string);
    let mut words = words.iter().map(|word| name(word).unwrap_or_default());
    let shell = words.next().unwrap_or_default();
    let shells = ["sh", "dash", "ash", "bash", "busybox"];
    let first = words.find(|word| word != "sh");
    shells.iter().any(|known| shell == *known) && first.is_some_and(|word| word == script)
}

fn stop_loop(unit: &Unit) -> Result<(), Failure> {
    if let Some(pid) = loop_of(unit) {
        end(pid, || loop_of(unit) == Some(pid))?;
    }
    let _ = fs::remove_file(pid_file(unit));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::service::init::cron::*;

    #[test]
    fn a_command_keeps_its_percent_signs_to_itself() {
        assert_eq!(quoted("sh '/a%b'"), r"sh '/a\%b'");
    }

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
}
