//! How the server was started last, kept in its data folder. A start without any of these flags is one as last time; and what
//! is done while no server runs gives the next atSign the port that it will be served on.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use argh::FromArgs;

use crate::{
    cli::{
        Failure, config, exit,
        grammar::Grammar,
        settings::{Origin, Setting},
        words::CommandLine,
    },
    sys::paths,
};

use super::serve::Serve;

/// File name in the data folder: one flag a line, without the `--`.
pub(super) const FILE: &str = "last-start.conf";

/// A flag, and what it was given.
pub(super) type Flag = (&'static str, String);

/// How the server with this data was started last; nothing, if it never was.
pub(super) fn last_time(data: &Path) -> Result<Option<Serve>, Failure> {
    let file = data.join(FILE);
    match fs::symlink_metadata(&file) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        about => is_ours(
            &about.map_err(|why| damaged(&file, &why.to_string()))?,
            data,
        )
        .map_err(|why| damaged(&file, why))?,
    }
    let settings = settings(&file)?;
    let words: Vec<[String; 2]> = settings.iter().map(words).collect();
    let words: Vec<&str> = words.iter().flatten().map(String::as_str).collect();
    let read = Serve::from_args(&["serve"], &words);
    read.map(Some)
        .map_err(|early| damaged(&file, early.output.trim_end()))
}

/// Whoever could write it decides what is served: an administrator, or whoever the data belongs to.
fn is_ours(about: &fs::Metadata, data: &Path) -> Result<(), &'static str> {
    let owners = fs::metadata(data).map(|data| data.uid());
    let me = rustix::process::geteuid().as_raw();
    if about.is_symlink() {
        Err("it is a link")
    } else if [0, me].contains(&about.uid()) || owners.is_ok_and(|owner| owner == about.uid()) {
        Ok(())
    } else {
        Err("it belongs to another user")
    }
}

/// What stands in it, by the reader of all files of flags. Only what [`Serve::flags`] writes.
fn settings(file: &Path) -> Result<Vec<Setting>, Failure> {
    let grammar = Grammar::of::<Serve>("noports atserver serve");
    let named = Setting {
        name: config::NAME.to_owned(),
        value: Some(file.display().to_string()),
        origin: Origin::Typed,
    };
    let mut line = CommandLine {
        settings: vec![named],
        ..CommandLine::default()
    };
    let no_yaml = &mut |_: &Path, _: &str| Ok(Vec::new());
    let (mut settings, wrong) = config::inherited("atserver", &grammar, &mut line, no_yaml);
    if let Some(failure) = wrong {
        return Err(without(file, failure));
    }
    // Beside the file the reader knows the environment.
    settings.retain(|setting| matches!(setting.origin, Origin::File(..)));
    for setting in &settings {
        let one = words(setting);
        let one = Serve::from_args(&["serve"], &one.each_ref().map(String::as_str));
        let is_kept = one.is_ok_and(|one| !one.flags().is_empty());
        if !is_kept {
            let Setting { name, origin, .. } = setting;
            let failure = Failure::plain(format!("{origin}: {name} is not kept, or not like this"));
            return Err(without(file, failure));
        }
    }
    Ok(settings)
}

fn words(setting: &Setting) -> [String; 2] {
    let value = setting.value.clone().unwrap_or_default();
    [format!("--{}", setting.name), value]
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
    let failure = Failure::plain(format!("cannot use {}: {why}", file.display()));
    without(file, failure)
}

/// The command line is not to blame.
fn without(file: &Path, failure: Failure) -> Failure {
    let file = file.display();
    let failure = Failure {
        code: exit::FAILED,
        ..failure
    };
    failure.hint(format!(
        "rm {file}; then give noports atserver serve its flags again"
    ))
}

/// As a path is kept: it is read from another folder next time.
pub(super) fn whole(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    path.display().to_string()
}
