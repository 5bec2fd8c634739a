//! Where a value that is refused came from.
//!
//! A refusal names a flag or quotes a value. The file is blamed only where it alone can be meant: for a flag that
//! its line brought in, or a value that stands in it and nowhere else.

use std::path::{Path, PathBuf};

/// One line of a file of flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Counted from 1.
    pub line: usize,
    /// The flag without its `--`.
    pub name: String,
    /// What stands behind it.
    pub value: Option<String>,
}

/// The lines of a file by which a program goes, and what it was told besides.
#[derive(Clone, Debug)]
pub struct Origin {
    path: PathBuf,
    /// Only what counts: the command line and the environment have taken the place of the others.
    settings: Vec<Setting>,
    /// Words of the command line, values of the environment.
    elsewhere: Vec<String>,
}

impl Origin {
    /// `settings` are those of this file that count; `elsewhere`: the words that did not come from it.
    pub fn new(path: &Path, settings: Vec<Setting>, elsewhere: Vec<String>) -> Self {
        Self {
            path: path.to_owned(),
            settings,
            elsewhere,
        }
    }

    /// `/etc/noports/daemon.conf, line 3`, if that is what a message is about.
    pub fn place(&self, message: &str) -> Option<String> {
        let lines: Vec<String> = self.lines(message).iter().map(usize::to_string).collect();
        let path = self.path.display();
        (!lines.is_empty()).then(|| format!("{path}, line {}", lines.join(" or ")))
    }

    fn lines(&self, message: &str) -> Vec<usize> {
        let by_flag = |setting: &&Setting| is_quoted(message, &format!("--{}", setting.name));
        let by_value = |setting: &&Setting| {
            let mut values = setting.value.iter().flat_map(|value| parts(value));
            values.any(|part| is_quoted(message, part) && !self.stands_elsewhere(part))
        };
        let lines = |found: Vec<&Setting>| found.iter().map(|setting| setting.line).collect();
        let flagged: Vec<&Setting> = self.settings.iter().filter(by_flag).collect();
        let both: Vec<&Setting> = flagged.iter().copied().filter(by_value).collect();
        if !both.is_empty() {
            lines(both)
        } else if let Some(first) = flagged.first() {
            vec![first.line]
        } else if names_a_flag(message) {
            // Of the command line, then: what the file says of it would be among the settings.
            Vec::new()
        } else {
            lines(self.settings.iter().filter(by_value).collect())
        }
    }

    fn stands_elsewhere(&self, part: &str) -> bool {
        let mut words = self.elsewhere.iter().flat_map(|word| parts(word));
        words.any(|word| word == part)
    }
}

/// A value, and what a list that is one holds.
fn parts(value: &str) -> impl Iterator<Item = &str> {
    let parts = value.split(',').map(str::trim).chain([value]);
    parts.filter(|part| !part.is_empty())
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
    use crate::cli::config::origin::*;

    fn origin(lines: &[(&str, &str)], elsewhere: &[&str]) -> Origin {
        let settings = lines
            .iter()
            .enumerate()
            .map(|(index, (name, value))| Setting {
                line: index + 1,
                name: (*name).to_owned(),
                value: Some((*value).to_owned()).filter(|value| !value.is_empty()),
            });
        let elsewhere = elsewhere.iter().map(|&word| word.to_owned()).collect();
        Origin::new(Path::new("f.conf"), settings.collect(), elsewhere)
    }

    #[test]
    fn a_refusal_finds_the_line_it_is_about() {
        let file = origin(&[("as", "@x"), ("manager", "@a, b c"), ("hide", "")], &[]);
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
            let place = origin(lines, typed).place(message);
            assert_eq!(place.as_deref(), want, "{lines:?} {typed:?}");
        }
    }
}
