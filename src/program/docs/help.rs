//! ○ What `--help` says, taken apart again: the one place where flags are described is where they are declared.
//!
//! ```text
//!   Usage: noports policy check --rules <file> [--json] [--] <client>     names, values
//!                                                                         what it is, in paragraphs
//!   Options:                                                              Commands:  Examples:  Notes:  Error codes:
//!     --rules           file with                                         columns; what is further in goes on
//!                       the rules
//! ```

/// One program's help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Help {
    /// `noports policy check --rules <file> …`
    pub usage: String,
    /// What it is.
    pub about: String,
    /// Words without a flag.
    pub positional: Vec<(String, String)>,
    /// Flags.
    pub flags: Vec<HelpFlag>,
    /// Programs within the program.
    pub commands: Vec<(String, String)>,
    /// Command lines.
    pub examples: Vec<String>,
    /// Remarks, line by line as they are.
    pub notes: Vec<String>,
    /// Exit codes of its own.
    pub codes: Vec<(String, String)>,
}

/// A flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HelpFlag {
    /// `-q`
    pub short: Option<String>,
    /// `--quiet`
    pub long: String,
    /// `file`, when a value follows.
    pub value: Option<String>,
    /// What it does.
    pub about: String,
}

impl Help {
    /// Reads the text that `--help` prints.
    pub(super) fn parse(text: &str) -> Self {
        let mut help = Self::default();
        let mut heading = "";
        for line in text.lines() {
            let inner = line.starts_with("  ") || line.is_empty();
            if let Some(usage) = line.strip_prefix("Usage: ") {
                help.usage = usage.to_owned();
            } else if !inner && line.ends_with(':') && !line.contains(' ')
                || HEADINGS.contains(&line)
            {
                heading = line;
            } else if let Some(rest) = line.strip_prefix("--config FILE ") {
                help.flags.push(HelpFlag {
                    short: None,
                    long: "--config".to_owned(),
                    value: Some("file".to_owned()),
                    about: rest.to_owned(),
                });
                heading = "Options:";
            } else if !line.starts_with(' ') && !line.is_empty() && !heading.is_empty() {
                // What follows stands for itself; the last flag is the one that it is about.
                if let Some(last) = help.flags.last_mut() {
                    go_on(&mut last.about, line);
                }
            } else if heading.is_empty() {
                help.about += line;
                help.about.push('\n');
            } else if !line.is_empty() {
                help.take(heading, line);
            }
        }
        help.about = help.about.trim().to_owned();
        for flag in help.flags.iter_mut().filter(|flag| flag.value.is_none()) {
            flag.value = value_in(&help.usage, &flag.long);
        }
        help
    }

    fn take(&mut self, heading: &str, line: &str) {
        let list = match heading {
            "Options:" => return self.take_flag(line),
            "Examples:" => return self.examples.push(line.trim().to_owned()),
            "Notes:" => {
                return self
                    .notes
                    .push(line.strip_prefix("  ").unwrap_or(line).to_owned());
            }
            "Positional Arguments:" => &mut self.positional,
            "Commands:" => &mut self.commands,
            "Error codes:" => &mut self.codes,
            _ => return,
        };
        let (name, about) = columns(line);
        match (name.is_empty(), list.last_mut()) {
            (true, Some(last)) => go_on(&mut last.1, about),
            _ => list.push((name.to_owned(), about.to_owned())),
        }
    }

    fn take_flag(&mut self, line: &str) {
        let (names, about) = columns(line);
        if names.is_empty() {
            if let Some(last) = self.flags.last_mut() {
                go_on(&mut last.about, about);
            }
            return;
        }
        let mut short = None;
        let mut long = String::new();
        for name in names.split(", ") {
            match name.strip_prefix("--") {
                Some(_) => long = name.to_owned(),
                None if name.starts_with('-') => short = Some(name.to_owned()),
                None => {}
            }
        }
        self.flags.push(HelpFlag {
            short,
            long,
            value: None,
            about: about.to_owned(),
        });
    }
}

const HEADINGS: [&str; 2] = ["Positional Arguments:", "Error codes:"];
/// Where the second column begins.
const COLUMN: usize = 20;

/// Name and text of a line of a list; a line that goes on has no name.
fn columns(line: &str) -> (&str, &str) {
    let indent = line.len() - line.trim_start().len();
    let line = line.trim();
    if indent >= COLUMN {
        return ("", line);
    }
    // A name that is too long for its column is followed by one blank, and so are exit codes.
    let end = match line.find("  ") {
        Some(end) => end,
        None if line.starts_with('-') => {
            let names = line
                .match_indices(' ')
                .find(|(at, _)| !line[..*at].ends_with(','));
            names.map_or(line.len(), |(at, _)| at)
        }
        None => line.find(' ').unwrap_or(line.len()),
    };
    (line[..end].trim(), line[end..].trim())
}

fn go_on(text: &mut String, more: &str) {
    text.push(' ');
    text.push_str(more);
}

/// The name of a flag's value in the usage line: `[--ca <file...>]`.
fn value_in(usage: &str, flag: &str) -> Option<String> {
    let mut from = usage;
    // No name is everywhere, and nowhere a value.
    while !flag.is_empty()
        && let Some(at) = from.find(flag)
    {
        from = &from[at + flag.len()..];
        if let Some(rest) = from.strip_prefix(" <") {
            return Some(rest.split('>').next()?.to_owned());
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::docs::help::*;

    const TEXT: &str = "Usage: noports x --to <to> [--ca <file...>] [-q] [--] <who> [<ssh...>]\n\nDoes it: well.\n\n\
        Positional Arguments:\n  who               whose\n                    keys\n\n\
        Options:\n  --to              the device's atSign: \n                    or not\n  \
        --a-very-long-flag-of-it short text\n  --ca              file\n  -q, --quiet       no  progress\n  \
        --help, help      display usage information\n\n\
        Commands:\n  serve             Answer\n                    daemons.\n\n\
        Examples:\n  noports x @a\n\nNotes:\n  First,\n    otp       make\n\nError codes:\n  1 failed\n  10 no keys\n\n\
        --config FILE reads flags:\none per line.\n";

    /// Rows that are no flags, where flags stand.
    #[test]
    fn help_of_a_strange_form_ends() {
        let help =
            Help::parse("Usage: x [-q] <a>\n\nOptions:\n  -q                quiet\n  word  more\n");
        let longs: Vec<_> = help.flags.iter().map(|f| (&*f.long, &f.value)).collect();
        assert_eq!(longs, [("", &None), ("", &None)]);
    }

    #[test]
    fn help_is_taken_apart() {
        let help = Help::parse(TEXT);
        let row = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(help.about, "Does it: well.");
        assert_eq!(help.positional, [row("who", "whose keys")]);
        assert_eq!(help.commands, [row("serve", "Answer daemons.")]);
        assert_eq!(help.codes, [row("1", "failed"), row("10", "no keys")]);
        assert_eq!(help.examples, ["noports x @a"]);
        assert_eq!(help.notes, ["First,", "  otp       make"]);
        let flags: Vec<_> = help
            .flags
            .iter()
            .map(|f| {
                let short = f.short.as_deref().unwrap_or("");
                (short, f.long.as_str(), f.value.as_deref(), f.about.as_str())
            })
            .collect();
        assert_eq!(
            flags,
            [
                ("", "--to", Some("to"), "the device's atSign: or not"),
                ("", "--a-very-long-flag-of-it", None, "short text"),
                ("", "--ca", Some("file..."), "file"),
                ("-q", "--quiet", None, "no  progress"),
                ("", "--help", None, "display usage information"),
                ("", "--config", Some("file"), "reads flags: one per line."),
            ]
        );
    }
}
