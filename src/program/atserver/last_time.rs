//! How the server was started last, kept in its data folder. A start without any of these flags is one as last time; and what
//! is done while no server runs gives the next atSign the port that it will be served on.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use argh::FromArgs;

use crate::{
    cli::Failure,
    sys::{
        file::{SMALL, text_now},
        paths,
    },
};

use super::serve::Serve;

/// File name in the data folder: one flag a line, without the `--`.
pub(super) const FILE: &str = "last-start.conf";

/// A flag, and what it was given.
pub(super) type Flag = (&'static str, String);

/// How the server with this data was started last; nothing, if it never was.
pub(super) fn last_time(data: &Path) -> Result<Option<Serve>, Failure> {
    let file = data.join(FILE);
    let text = match text_now(&file, SMALL) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|why| damaged(&file, &why.to_string()))?,
    };
    let rows = text.lines().filter_map(|line| line.split_once(' '));
    let words: Vec<String> = rows
        .flat_map(|(name, value)| [format!("--{name}"), value.to_owned()])
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let read = Serve::from_args(&["serve"], &words);
    read.map(Some)
        .map_err(|_| damaged(&file, "it holds what is no flag of this program"))
}

/// Keeps these for the next start. What cannot be kept is only missed then.
pub(super) fn keep(data: &Path, flags: &[Flag]) -> io::Result<()> {
    let lines = flags.iter().filter(|flag| !flag.1.contains(['\n', '\r']));
    let text: String = lines
        .map(|(name, value)| format!("{name} {value}\n"))
        .collect();
    let file = data.join(FILE);
    if fs::read(&file).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    paths::atomic_write(&file, text.as_bytes(), 0o600)
}

fn damaged(file: &Path, why: &str) -> Failure {
    let file = file.display();
    Failure::plain(format!("cannot use {file}: {why}")).hint(format!(
        "rm {file}; then give noports atserver serve its flags again"
    ))
}

/// As a path is kept: it is read from another folder next time.
pub(super) fn whole(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    path.display().to_string()
}
