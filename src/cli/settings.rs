//! ○ What a program was told, value by value, and where each of them stands.
//!
//! A refusal names a flag or quotes a value. A file or a variable is blamed only where it alone can be meant: for a flag
//! that it brought in, or a value that stands in it and was not typed as well.

use std::{fmt, path::PathBuf};

use super::Failure;

/// Where a value was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Typed,
    /// In the environment.
    Variable(&'static str),
    /// In a file, on this line, counted from 1.
    File(PathBuf, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Typed => f.write_str("the command line"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
        }
    }
}

/// A flag that was given, and its value if it takes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The flag without its `--`.
    pub name: String,
    /// What stands behind it.
    pub value: Option<String>,
    /// Where.
    pub origin: Origin,
}

/// Everything that counts: what was typed, and what of files and variables it did not replace.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// From files and variables.
    pub inherited: Vec<Setting>,
    /// Words of the command line.
    pub typed: Vec<String>,
    /// Flags whose variable is set to nothing, which is as if it were not there; and that variable.
    pub empty: Vec<(&'static str, &'static str)>,
}

impl Settings {
    /// `/etc/noports/daemon.conf, line 3` or `NOPORTS_VIA`, if that is what a message is about.
    pub fn place(&self, message: &str) -> Option<String> {
        let by_flag = |setting: &&Setting| is_quoted(message, &format!("--{}", setting.name));
        let by_value = |setting: &&Setting| {
            let mut values = setting.value.iter().flat_map(|value| parts(value));
            values.any(|part| is_quoted(message, part) && !self.was_typed(part))
        };
        let flagged: Vec<&Setting> = self.inherited.iter().filter(by_flag).collect();
        let both: Vec<&Setting> = flagged.iter().copied().filter(by_value).collect();
        let blamed = if !both.is_empty() {
            both
        } else if let Some(&first) = flagged.first() {
            vec![first]
        } else if names_a_flag(message) {
            // Of the command line, then: what was inherited of it would be among these.
            Vec::new()
        } else {
            self.inherited.iter().filter(by_value).collect()
        };
        places(&blamed)
    }

    /// The message, and where a value in it comes from that nobody typed.
    pub fn with_origin(&self, message: &str) -> String {
        let is_named = |part: &&str| {
            let is_own = part.starts_with('@')
                || part.contains(['/', '.', ':'])
                || message.contains(&format!(" {part}/"));
            is_own && !self.was_typed(part) && is_word_of(message, part)
        };
        let named = self.inherited.iter().find_map(|setting| {
            let mut parts = setting.value.iter().flat_map(|value| parts(value));
            Some((parts.find(is_named)?, &setting.origin))
        });
        match named {
            Some((part, origin)) => format!("{message} ({part} comes from {origin})"),
            None => message.to_owned(),
        }
    }

    /// What is wrong; and if something is missing, the variable that was set for it, to nothing.
    pub fn with_empty(&self, failure: &Failure) -> String {
        let message = &failure.message;
        let texts = [Some(message), failure.hint.as_ref()];
        let asks_for = |flag: &str| {
            let flag = format!("--{flag} ");
            texts
                .iter()
                .flatten()
                .any(|text| format!("{text} ").contains(&flag))
        };
        let typed = |flag: &str| {
            let flag = format!("--{flag}");
            self.typed
                .iter()
                .any(|word| word.split('=').next() == Some(&flag))
        };
        let found = self
            .empty
            .iter()
            .find(|row| asks_for(row.0) && !typed(row.0));
        match found {
            Some((_, variable)) => format!("{message} ({variable} is empty)"),
            None => message.clone(),
        }
    }

    fn was_typed(&self, part: &str) -> bool {
        let mut words = self.typed.iter().flat_map(|word| parts(word));
        words.any(|word| word == part)
    }
}

/// `f.conf, line 1 or 3`
fn places(blamed: &[&Setting]) -> Option<String> {
    // The same value in a file and in a variable: it is not known which is meant, so nobody is named.
    let is_file = |setting: &&Setting| matches!(setting.origin, Origin::File(..));
    let files = blamed
        .iter()
        .copied()
        .filter(|setting| is_file(setting))
        .count();
    if files != 0 && files != blamed.len() {
        return None;
    }
    let mut text = blamed.first()?.origin.to_string();
    for pair in blamed.windows(2) {
        let [before, setting] = pair else { continue };
        text += &match (&before.origin, &setting.origin) {
            (Origin::File(a, _), Origin::File(b, line)) if a == b => format!(" or {line}"),
            (_, other) => format!(" or {other}"),
        };
    }
    Some(text)
}

/// A value, and what a list that is one holds.
fn parts(value: &str) -> impl Iterator<Item = &str> {
    let files = value.split(':').filter(|file| file.contains('/'));
    let parts = value.split([',', '=']).map(str::trim).chain([value]);
    let parts = parts.chain(files);
    parts.filter(|part| !part.is_empty())
}

/// Whether it stands there with nothing glued to it.
fn is_word_of(message: &str, part: &str) -> bool {
    let glued = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/');
    message.match_indices(part).any(|(at, _)| {
        let (before, behind) = (&message[..at], &message[at + part.len()..]);
        !before.ends_with(glued) && !behind.starts_with(|c| glued(c) && c != '/')
    })
}

fn is_quoted(message: &str, word: &str) -> bool {
    let mut quotes = ["\"", "'"].iter();
    quotes.any(|quote| message.contains(&format!("{quote}{word}{quote}")))
}

fn names_a_flag(message: &str) -> bool {
    message.contains("'--") || message.contains("\"--")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(lines: &[(&str, &str)], typed: &[&str]) -> Settings {
        let lines = lines
            .iter()
            .enumerate()
            .map(|(index, (name, value))| Setting {
                name: (*name).to_owned(),
                value: Some((*value).to_owned()).filter(|value| !value.is_empty()),
                origin: Origin::File("f.conf".into(), index + 1),
            });
        let settings = lines;
        Settings {
            inherited: settings.collect(),
            typed: typed.iter().map(|&word| word.to_owned()).collect(),
            empty: Vec::new(),
        }
    }

    #[test]
    fn a_refusal_finds_the_line_it_is_about() {
        let file = settings(&[("as", "@x"), ("manager", "@a, b c"), ("hide", "")], &[]);
        for (message, want) in [
            (
                "Error parsing option '--manager' with value 'x'",
                Some("f.conf, line 2"),
            ),
            ("\"b c\" is no atSign", Some("f.conf, line 2")),
            ("\"@x\" is no atSign", Some("f.conf, line 1")),
            ("x is wrong", None),
            ("a daemon needs somebody who may use it", None),
        ] {
            assert_eq!(file.place(message).as_deref(), want, "{message}");
        }
    }

    #[test]
    fn a_file_is_not_blamed_for_what_was_typed() {
        let blank = "white space in \"a b\"";
        let number = "Error parsing option '--timeout' with value '99x': invalid digit";
        for (lines, typed, message, want) in [
            // The same value in both: it is not known which is meant, so nobody is named.
            (
                &[("identity", "a b")][..],
                &["--to", "a b"][..],
                blank,
                None,
            ),
            (
                &[("to", "a b")],
                &["--identity", "x"],
                blank,
                Some("f.conf, line 1"),
            ),
            (
                &[("identity", "a b")],
                &["--manager", "@x,a b"],
                blank,
                None,
            ),
            // A flag that the file does not bring in.
            (&[("user", "99x")], &["--timeout", "99x"], number, None),
            (&[("user", "99x")], &[], number, None),
            (
                &[("timeout", "99x")],
                &["--user", "99x"],
                number,
                Some("f.conf, line 1"),
            ),
            // Several lines of the file.
            (
                &[("manager", "@a"), ("manager", "99x")],
                &[],
                "Error parsing option '--manager' with value '99x'",
                Some("f.conf, line 2"),
            ),
            (
                &[("identity", "a b"), ("hide", ""), ("to", "a b")],
                &[],
                blank,
                Some("f.conf, line 1 or 3"),
            ),
        ] {
            let place = settings(lines, typed).place(message);
            assert_eq!(place.as_deref(), want, "{lines:?} {typed:?}");
        }
    }
}
