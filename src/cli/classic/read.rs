//! Reading a classic command line, as upstream's parser reads it.
//!
//! `--name value`, `--name=value`, `-n value`, `-nvalue`, bundled switches (`-su`), and what the shipped launch
//! scripts write besides: empty words, and one word that holds flag and value (`"-p @x"`). A single-valued option
//! given twice keeps its last value.
//!
//! Source: args:lib/src/parser.dart (forms and refusals).

use std::{iter::Peekable, path::Path};

use super::tables::{
    ClassicOption, LOCAL_HOST, LOCAL_PORT, REMOTE_HOST, REMOTE_PORT, SEND_KEY, To,
};
use crate::{
    cli::{Failure, Given, near::nearest},
    secret::Secret,
};

/// What a classic command line says, in our words.
#[derive(Default)]
pub(crate) struct Translated {
    /// In order of first mention; single values are replaced.
    pub(crate) ours: Vec<(&'static str, Option<String>)>,
    pub(crate) ssh: Vec<String>,
    pub(crate) given: Given,
    /// The file with further settings.
    pub(crate) config: Option<String>,
    /// It only asks what there is.
    pub(crate) info: Option<InfoFlag>,
    /// Long names of the options that stood there.
    pub(crate) seen: Vec<&'static str>,
    /// Lists of ours that a file began: the command line's take their place.
    inherited: Vec<&'static str>,
}

/// What somebody only wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InfoFlag {
    Help,
    Version,
}

/// Stands for the words behind `--` among the inherited.
const SSH: &str = "--";

/// Reads a classic command line by these tables; `bare` hears the words that are no option.
pub(crate) fn read(
    tables: &[&[ClassicOption]],
    words: &[&str],
    bare: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<Translated, Failure> {
    let mut out = Translated::default();
    out.read(tables, words, bare)?;
    Ok(out)
}

fn find<'a>(
    tables: &[&'a [ClassicOption]],
    fits: impl Fn(&ClassicOption) -> bool,
) -> Option<&'a ClassicOption> {
    tables
        .iter()
        .flat_map(|table| table.iter())
        .find(|row| fits(row))
}

/// A word that is no option of this program; names the one that may be meant.
pub(crate) fn unknown(tables: &[&[ClassicOption]], word: &str) -> Failure {
    let name = word.trim_start_matches('-');
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    let failure = Failure::misuse(format!("Could not find an option named \"{name}\"."));
    match meant(tables, name) {
        Some(classic) => failure.hint(format!("--{classic}")),
        None => failure,
    }
}

/// The classic option for a flag of ours, or the nearest one.
fn meant(tables: &[&[ClassicOption]], name: &str) -> Option<&'static str> {
    let rows = || tables.iter().flat_map(|table| table.iter());
    if name == FORWARD && rows().any(|row| row.0.contains(&REMOTE_PORT)) {
        return Some(REMOTE_PORT);
    }
    let is_for = |row: &&ClassicOption| {
        let ours = row.2.ours();
        ours.is_some_and(|ours| ours.trim_start_matches('-') == name)
    };
    let ours = rows().find(is_for).and_then(|row| row.0.first().copied());
    let names = rows().flat_map(|row| row.0.iter().copied());
    ours.or_else(|| nearest(name, names).first().copied())
}

/// Our flag that the classic program has in parts.
const FORWARD: &str = "forward";

impl Translated {
    /// Adds a command line to what is there; where both have the same list, this one counts.
    pub(crate) fn read(
        &mut self,
        tables: &[&[ClassicOption]],
        words: &[&str],
        bare: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.inherited = self.ours.iter().map(|(name, _)| *name).collect();
        if !self.ssh.is_empty() {
            self.inherited.push(SSH);
        }
        self.read_all(tables, words, bare)
    }

    /// Adds a command line to what is there, as if it stood behind it.
    pub(crate) fn read_on(
        &mut self,
        tables: &[&[ClassicOption]],
        words: &[&str],
    ) -> Result<(), Failure> {
        self.read_all(tables, words, |_| Ok(()))
    }

    fn read_all(
        &mut self,
        tables: &[&[ClassicOption]],
        words: &[&str],
        mut bare: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rest = words.iter().copied().peekable();
        while let Some(word) = rest.next() {
            let word = word.trim();
            if word.is_empty() {
                // The launch scripts pass empty words where a setting is empty.
            } else if word == "--" {
                self.ssh.extend(rest.by_ref().map(str::to_owned));
            } else if let Some(long) = word.strip_prefix("--") {
                self.long(tables, long, &mut rest)?;
            } else if let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) {
                self.letters(tables, letters, &mut rest)?;
            } else {
                bare(word)?;
            }
        }
        Ok(())
    }

    fn long<'a>(
        &mut self,
        tables: &[&[ClassicOption]],
        long: &'a str,
        rest: &mut Peekable<impl Iterator<Item = &'a str>>,
    ) -> Result<(), Failure> {
        let ends = |c: char| c == '=' || c.is_whitespace();
        let (name, value) = match long.split_once(ends) {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        let row = find(tables, |row| row.0.contains(&name));
        let Some(row) = row else {
            return Err(match name.strip_prefix("no-") {
                Some(yes) => match find(tables, |row| row.0.contains(&yes)) {
                    Some(row) if row.2.takes_value() => {
                        Failure::misuse(format!("Cannot negate non-flag option \"{name}\"."))
                    }
                    Some(_) => Failure::misuse(format!("Cannot negate option \"{name}\".")),
                    None => unknown(tables, name),
                },
                None => unknown(tables, name),
            });
        };
        if value.is_some() && !row.2.takes_value() {
            let why = format!("Flag option \"{name}\" should not be given a value.");
            return Err(Failure::misuse(why));
        }
        self.take(row, value, rest)
    }

    fn letters<'a>(
        &mut self,
        tables: &[&[ClassicOption]],
        letters: &'a str,
        rest: &mut Peekable<impl Iterator<Item = &'a str>>,
    ) -> Result<(), Failure> {
        let alone = letters.chars().nth(1).is_none();
        for (at, letter) in letters.char_indices() {
            let row = find(tables, |row| row.1 != 0 && char::from(row.1) == letter);
            let row = row.ok_or_else(|| {
                let what = if alone { "or flag" } else { "with short name" };
                let failure =
                    Failure::misuse(format!("Could not find an option {what} \"-{letter}\"."));
                let for_ssh =
                    find(tables, |row| matches!(row.2, To::Ssh)).and_then(|row| row.0.first());
                match for_ssh {
                    Some(option) => failure.hint(format!(
                        "what is for ssh stands behind --{option}, or behind --"
                    )),
                    None => failure,
                }
            })?;
            if row.2.takes_value() {
                if at > 0 {
                    let why =
                        format!("Option \"-{letter}\" must be a flag to be in a collapsed \"-\".");
                    return Err(Failure::misuse(why));
                }
                // `-p@x`, `-p=@x`, and the scripts' `"-p @x"` as one word.
                let behind = letters.get(at + letter.len_utf8()..).unwrap_or_default();
                let value = behind.strip_prefix('=').unwrap_or(behind);
                return self.take(row, (!behind.is_empty()).then_some(value), rest);
            }
            self.take(row, None, rest)?;
        }
        Ok(())
    }

    fn take<'a>(
        &mut self,
        row: &ClassicOption,
        value: Option<&'a str>,
        rest: &mut Peekable<impl Iterator<Item = &'a str>>,
    ) -> Result<(), Failure> {
        let long = row.0.first().copied().unwrap_or_default();
        self.seen.push(long);
        let mut text = String::new();
        if row.2.takes_value() {
            let value = value
                .or_else(|| rest.next())
                .ok_or_else(|| Failure::misuse(format!("Missing argument for \"{long}\".")))?;
            text = value.trim().to_owned();
            if text.is_empty() {
                // An empty setting of a launch script: as if it were not there.
                return Ok(());
            }
        }
        match row.2 {
            To::Value(ours) => self.set(ours, text),
            To::Number(ours) => {
                if text.parse::<i64>().is_err() {
                    return Err(not_a_number(row, &text));
                }
                self.set(ours, text);
            }
            To::Values(ours) => {
                self.disinherit(ours);
                self.ours.push((ours, Some(text)));
            }
            To::List(ours) => self.add(ours, text),
            To::Switch(ours) => self.ours.push((ours, None)),
            To::Unset(ours) => self.ours.retain(|(name, _)| *name != ours),
            To::Given | To::IgnoredValue => {}
            To::Key => {
                let file = rest.next_if(|word| word.trim().ends_with(".pub"));
                self.ours.retain(|(name, _)| *name != SEND_KEY);
                self.ours
                    .push((SEND_KEY, file.map(|f| f.trim().to_owned())));
            }
            To::Choice(all) if all.contains(&text.as_str()) => {}
            To::Choice(_) => {
                let why = format!("\"{text}\" is not an allowed value for option \"{long}\".");
                return Err(Failure::misuse(why));
            }
            To::Secret => self.given.secret = Some(Secret::new(text)),
            To::Phrase => self.given.phrase = Some(Secret::new(text)),
            To::Config => self.config = Some(text),
            To::Help => self.info = Some(InfoFlag::Help),
            To::Version => self.info = self.info.or(Some(InfoFlag::Version)),
            To::Ssh => self.add_ssh(&text),
        }
        Ok(())
    }

    fn add_ssh(&mut self, text: &str) {
        if self.disinherit(SSH) {
            self.ssh.clear();
        }
        let words = text.split(',').flat_map(str::split_whitespace);
        self.ssh.extend(words.map(str::to_owned));
    }

    fn set(&mut self, ours: &'static str, value: String) {
        self.ours.retain(|(name, _)| *name != ours);
        self.ours.push((ours, Some(value)));
    }

    fn add(&mut self, ours: &'static str, value: String) {
        self.disinherit(ours);
        match self.ours.iter_mut().find(|(name, _)| *name == ours) {
            Some((_, Some(list))) => *list = format!("{list},{value}"),
            _ => self.ours.push((ours, Some(value))),
        }
    }

    /// Forgets a list that a file began; says whether there was one.
    fn disinherit(&mut self, ours: &'static str) -> bool {
        let Some(at) = self.inherited.iter().position(|name| *name == ours) else {
            return false;
        };
        self.inherited.remove(at);
        self.inherited.retain(|name| *name != ours);
        self.ours.retain(|(name, _)| *name != ours);
        true
    }

    /// Whether one of ours is there.
    pub(crate) fn has(&self, ours: &str) -> bool {
        self.ours.iter().any(|(name, _)| *name == ours)
    }

    /// `-p 80 -h nas -l 8080` → `--forward 127.0.0.1:8080:nas:80`
    pub(crate) fn join_forward(&mut self) {
        let mut part = |wanted: &str| {
            let at = self.ours.iter().position(|(name, _)| *name == wanted)?;
            self.ours.remove(at).1
        };
        let Some(port) = part(REMOTE_PORT) else {
            return;
        };
        let (host, here, bind) = (part(REMOTE_HOST), part(LOCAL_PORT), part(LOCAL_HOST));
        let host = bracketed(host.as_deref().unwrap_or("localhost"));
        let bind = bind.as_deref().map_or("localhost".to_owned(), address);
        let here = here.as_deref().unwrap_or("0");
        let forward = format!("{bind}:{here}:{host}:{port}");
        self.ours.push(("--forward", Some(forward)));
    }

    /// Which public key is sent: the file that is named, else the identity's. `false`: there is none to send.
    pub(crate) fn join_key(&mut self, home: Option<&Path>) -> bool {
        let Some(at) = self.ours.iter().position(|(name, _)| *name == SEND_KEY) else {
            return true;
        };
        let identity = |ours: &[(&str, Option<String>)]| {
            let found = ours.iter().find(|(name, _)| *name == "--identity");
            let file = found.and_then(|(_, file)| file.clone())?;
            let is_public = file.ends_with(".pub");
            Some(if is_public { file } else { file + ".pub" })
        };
        let file = match self.ours.remove(at).1 {
            // In 3.x it was the name of a file in ~/.ssh.
            Some(name) if !name.contains('/') => {
                home.map(|home| home.join(".ssh").join(&name).display().to_string())
            }
            Some(path) => Some(path),
            None => identity(&self.ours),
        };
        let found = file.is_some();
        self.ours
            .extend(file.map(|file| ("--send-key", Some(file))));
        found
    }

    /// Our command line.
    pub(crate) fn print(self) -> Vec<String> {
        let mut words = Vec::new();
        for (name, value) in self.ours {
            words.extend(Some(name.to_owned()).filter(|n| !n.is_empty()));
            words.extend(value);
        }
        if !self.ssh.is_empty() {
            words.push("--".to_owned());
            words.extend(self.ssh);
        }
        words
    }
}

fn not_a_number(row: &ClassicOption, text: &str) -> Failure {
    let long = row.0.first().copied().unwrap_or_default();
    let short = match row.1 {
        0 => String::new(),
        letter => format!(" (-{})", char::from(letter)),
    };
    Failure::misuse(format!(
        "Invalid value \"{text}\" for option --{long}{short}"
    ))
}

/// The first of several addresses that is one. `0` means all.
fn address(list: &str) -> String {
    let all = list.split(',').map(str::trim);
    let usable = all.clone().find(|word| {
        matches!(*word, "0" | "localhost") || word.parse::<std::net::IpAddr>().is_ok()
    });
    match usable.or_else(|| all.clone().next()).unwrap_or_default() {
        "0" => "0.0.0.0".to_owned(),
        word => bracketed(word),
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}
