//! What `/proc` says of threads: which limits each of them has.

use std::{fs, path::Path};

/// One thread's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskLimits {
    /// Nothing that it starts gains privileges.
    pub no_new_privileges: bool,
    /// System calls are filtered.
    pub filtered: bool,
    /// Capabilities that it has, as the kernel numbers them.
    pub capabilities: u64,
}

/// One of our programs that runs.
#[derive(Clone, Debug)]
pub struct RunningProgram {
    /// Its process.
    pub pid: u32,
    /// Which program.
    pub name: String,
    /// Of each thread.
    pub tasks: Vec<TaskLimits>,
}

/// Of all threads of a process; empty where the kernel does not tell.
pub fn of_process(pid: u32) -> Vec<TaskLimits> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let status = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    status.map(|status| limits(&status)).collect()
}

fn limits(status: &str) -> TaskLimits {
    let value = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    TaskLimits {
        no_new_privileges: value("NoNewPrivs:").as_deref() == Some("1"),
        filtered: value("Seccomp:").as_deref() == Some("2"),
        capabilities: value("CapEff:")
            .and_then(|text| u64::from_str_radix(&text, 16).ok())
            .unwrap_or_default(),
    }
}

/// Those of our programs that run and can be seen, by this process' own name and these words behind it.
pub fn running(programs: &[&str]) -> Vec<RunningProgram> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<_> = processes
        .flatten()
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let name = program(&process.path(), programs)?;
            let tasks = of_process(pid);
            Some(RunningProgram { pid, name, tasks })
        })
        .collect();
    found.sort_by_key(|program| program.pid);
    found
}

/// `noports daemon --as …`: the second word.
fn program(process: &Path, programs: &[&str]) -> Option<String> {
    let words = fs::read(process.join("cmdline")).ok()?;
    let mut words = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let (first, second) = (words.next()?, words.next()?);
    let is_ours = Path::new(first.as_ref()).file_name()? == "noports";
    (is_ours && programs.contains(&second.as_ref())).then(|| second.into_owned())
}
