//! ○ What `--help` prints: what it is for, examples, then the flags of every day first.
//!
//! ```text
//!   about ─▶ examples ─▶ usage ─▶ arguments, words ─▶ flags ─▶ for older peers ─▶ common flags ─▶ notes ─▶ exit codes
//! ```
//! A flag that argh hides is one for older peers; the common ones are those of
//! [`flags`](mod@super::flags).

use argh::{FlagInfo, Optionality, PositionalInfo};

use super::grammar::{Grammar, repeats, value_of};

/// Columns of a terminal.
pub(super) const WIDTH: usize = 80;
/// Where the text about a flag begins.
const COLUMN: usize = 26;
/// Flags that most programs have, told at the end.
const COMMON: [&str; 9] = [
    "--root",
    "--ca",
    "--keys",
    "--passphrase-file",
    "--config",
    "--json",
    "--quiet",
    "--verbose",
    "--help",
];

/// The whole text, without a line end at its end.
pub fn text(grammar: &Grammar, more: &str) -> String {
    // argh joins all lines of a comment.
    let mut text = wrapped(&one_line(grammar.about()), 0, 0);
    let examples: String = grammar
        .examples()
        .map(|example| format!("  {example}\n"))
        .collect();
    if !examples.is_empty() {
        text += &format!("\n{examples}");
    }
    text += &format!("\nUsage: {}\n", wrapped(&usage(grammar), 7, 7).trim());
    let arguments = grammar
        .positionals()
        .filter(|row| !row.description.is_empty() && !is_word(grammar, row));
    text += &section(
        "Arguments",
        arguments.map(|row| (row.name.to_owned(), row.description.to_owned())),
    );
    let words = grammar.words().iter();
    text += &section(
        "Words",
        words.map(|(word, about)| ((*word).to_owned(), summary(about))),
    );
    let daily = grammar
        .flags()
        .filter(|flag| !flag.hidden && !is_common(flag));
    text += &section("Flags", daily.map(row));
    text += &section(
        "For older peers",
        grammar.flags().filter(|flag| flag.hidden).map(row),
    );
    let common = grammar
        .flags()
        .filter(|flag| !flag.hidden)
        .filter(|flag| is_common(flag));
    text += &section("Common flags", common.map(row).chain([help_row()]));
    for note in grammar.notes() {
        text += &format!("\n{note}\n");
    }
    if !more.is_empty() {
        text += &format!("\n{}", wrapped(more, 0, 0));
    }
    let codes = grammar
        .codes()
        .map(|(code, about)| (code.to_string(), about.to_owned()));
    text += &section("Exit codes", codes);
    text.trim_end().to_owned()
}

/// `noports client --to <atsign> [flags] [-- <ssh>]`
pub fn usage(grammar: &Grammar) -> String {
    let mut usage = grammar.name.clone();
    if !grammar.words().is_empty() {
        let own = grammar.positionals().any(|row| is_word(grammar, row));
        usage += if grammar.needs_word() || own {
            " WORD"
        } else {
            " [WORD]"
        };
    }
    for flag in grammar
        .flags()
        .filter(|flag| flag.optionality == Optionality::Required)
    {
        if let Some(value) = value_of(flag) {
            usage += &format!(" {} <{value}>", flag.long);
        }
    }
    usage += " [flags]";
    let arguments = grammar
        .positionals()
        .filter(|row| !row.hidden && !is_word(grammar, row));
    for argument in arguments {
        let name = argument.name;
        usage += &match argument.optionality {
            Optionality::Required => format!(" <{name}>"),
            Optionality::Optional => format!(" [<{name}>]"),
            Optionality::Repeating => format!(" [<{name}>...]"),
            Optionality::Greedy => format!(" [-- <{name}>...]"),
        };
    }
    usage
}

/// Whether this argument is one of the words, which are told by themselves.
fn is_word(grammar: &Grammar, argument: &PositionalInfo<'static>) -> bool {
    argument.name == "word" && !grammar.words().is_empty()
}

/// The first sentence of what a word is for, as a line of a list: small letter, no full stop.
fn summary(about: &str) -> String {
    let about = one_line(about);
    let first = about.split_once(". ").map_or(&*about, |(first, _)| first);
    let mut letters = first.trim_end_matches('.').chars();
    let initial = letters.next().map(|letter| letter.to_lowercase());
    initial.into_iter().flatten().chain(letters).collect()
}

/// `-q, --quiet` or `--ca <file>`, and what it is.
pub fn row(flag: &'static FlagInfo<'static>) -> (String, String) {
    let mut names = flag
        .short
        .map_or(String::new(), |letter| format!("-{letter}, "));
    names += flag.long;
    let mut about = one_line(flag.description);
    if let Some(value) = value_of(flag) {
        names += &format!(" <{value}>");
        if repeats(flag) && !about.contains("repeat") {
            about += "; may be repeated";
        }
    }
    (names, about)
}

/// Whether most programs have this flag.
pub fn is_common(flag: &FlagInfo<'static>) -> bool {
    COMMON.contains(&flag.long)
}

/// What is said of `--help`, which no program declares.
pub fn help_row() -> (String, String) {
    ("-h, --help".to_owned(), "print this".to_owned())
}

fn section(title: &str, rows: impl Iterator<Item = (String, String)>) -> String {
    let lines: String = rows.map(|(name, about)| line(&name, &about)).collect();
    if lines.is_empty() {
        return lines;
    }
    format!("\n{title}:\n{lines}")
}

fn line(name: &str, about: &str) -> String {
    let name = format!("  {name}");
    let about = wrapped(about, COLUMN, COLUMN);
    if name.chars().count() + 2 > COLUMN {
        format!("{name}\n{about}")
    } else {
        format!("{name:COLUMN$}{}", about.trim_start())
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Lines of at most [`WIDTH`], indented; each with its end.
pub(crate) fn wrapped(text: &str, first: usize, others: usize) -> String {
    let mut lines = String::new();
    for paragraph in text.lines() {
        let mut line = " ".repeat(if lines.is_empty() { first } else { others });
        let mut empty = true;
        for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines += line.trim_end();
                lines.push('\n');
                line = " ".repeat(others);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line += word;
            empty = false;
        }
        lines += line.trim_end();
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use argh::{ArgsInfo, FromArgs};

    use super::*;

    /// Opens something far away, and tells about it in words that need more than one line of a terminal.
    ///
    /// Second paragraph.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(example = "{command_name} --to @device", error_code(7, "silent"))]
    #[allow(dead_code)]
    struct Far {
        /// whom
        #[argh(option, arg_name = "atsign")]
        to: String,
        /// a text about this flag that is long enough for a second line of help
        #[argh(option)]
        a_flag_with_a_long_name: Option<String>,
        /// for daemons before 5.0
        #[argh(switch, hidden_help)]
        old: bool,
        /// an authority
        #[argh(option, arg_name = "file")]
        ca: Vec<String>,
        /// say nothing
        #[argh(switch, short = 'q')]
        quiet: bool,
        /// for ssh
        #[argh(positional, greedy)]
        ssh: Vec<String>,
    }

    #[test]
    fn help_has_examples_first_and_fits_a_terminal() {
        let text = text(&Grammar::of::<Far>("noports far"), "Files too.");
        let want = "\
Opens something far away, and tells about it in words that need more than one
line of a terminal. Second paragraph.

  noports far --to @device

Usage: noports far --to <atsign> [flags] [-- <ssh>...]

Arguments:
  ssh                     for ssh

Flags:
  --to <atsign>           whom
  --a-flag-with-a-long-name <a-flag-with-a-long-name>
                          a text about this flag that is long enough for a
                          second line of help

For older peers:
  --old                   for daemons before 5.0

Common flags:
  --ca <file>             an authority; may be repeated
  -q, --quiet             say nothing
  -h, --help              print this

Files too.

Exit codes:
  7                       silent";
        assert_eq!(text, want);
    }
}
