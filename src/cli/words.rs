//! ○ Reading a command line: words become settings, each with the place it came from.
//!
//! ```text
//!   --to @d   --to=@d   -v   -vv   -h   --   name          all that is typed, in one reader
//! ```
//! What argh gets to see afterwards is always `--name value`; whatever it has to say against a value is then told of
//! the place where that value stands.

use argh::FlagInfo;

use super::{
    grammar::{Grammar, name_of, value_of},
    settings::{Origin, Setting},
};

/// A command line, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// In the order they were given.
    pub settings: Vec<Setting>,
    /// Plain words.
    pub plain: Vec<String>,
    /// What stands behind `--`, or behind the first plain word where the rest is for somebody else.
    pub rest: Vec<String>,
    /// `--help`, `-h` or `help`: nothing else counts.
    pub help: bool,
}

/// A word that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadWord {
    /// Where it stands among the words, from 0.
    pub at: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// Why a word cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such flag; without the `=` and what is behind it.
    Unknown(String),
    /// A flag's value is missing; the flag, and what stands in its place.
    NoValue(String, Option<String>),
    /// A switch with a value.
    Value(String),
    /// `--to@me`: a flag with its value glued to it.
    Glued(String, String),
    /// One plain word more than are expected.
    Plain(String),
}

impl CommandLine {
    /// Reads typed words.
    ///
    /// # Errors
    /// [`BadWord`], the first of them.
    pub fn read(grammar: &Grammar, words: &[&str]) -> Result<Self, BadWord> {
        let mut line = Self::default();
        let mut rest = words.iter().copied();
        while let Some(word) = rest.next() {
            let at = words.len() - rest.len() - 1;
            line.word(grammar, word, &mut rest)
                .map_err(|fault| BadWord { at, fault })?;
            if line.help {
                break;
            }
        }
        Ok(line)
    }

    fn word<'a>(
        &mut self,
        grammar: &Grammar,
        word: &'a str,
        words: &mut (impl Iterator<Item = &'a str> + Clone),
    ) -> Result<(), Fault> {
        if word == "--" {
            self.rest.extend(words.map(str::to_owned));
        } else if is_help(grammar, word, self.is_empty()) {
            self.help = true;
        } else if let Some(long) = word.strip_prefix("--") {
            self.long(grammar, long, words)?;
        } else if let Some(letters) = letters_of(grammar, word) {
            self.letters(grammar, word, letters, words)?;
        } else if grammar.is_greedy() {
            self.rest.push(word.to_owned());
            self.rest.extend(words.map(str::to_owned));
        } else {
            self.plain(grammar, word)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.plain.is_empty()
    }

    fn long<'a>(
        &mut self,
        grammar: &Grammar,
        long: &str,
        words: &mut (impl Iterator<Item = &'a str> + Clone),
    ) -> Result<(), Fault> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        match grammar.flag(name) {
            Some(flag) => self.take(grammar, flag, value, words),
            None if name == "help" && value.is_some() => Err(Fault::Value("--help".to_owned())),
            None => Err(unknown(grammar, long, name)),
        }
    }

    fn letters<'a>(
        &mut self,
        grammar: &Grammar,
        word: &str,
        letters: &str,
        words: &mut (impl Iterator<Item = &'a str> + Clone),
    ) -> Result<(), Fault> {
        let flags = letters.chars().map(|letter| grammar.letter(letter));
        let Some(flags) = flags.collect::<Option<Vec<_>>>() else {
            // `-p7000`: only the first letter is a flag, and the rest its value.
            let first = letters.chars().next().and_then(|c| grammar.letter(c));
            let value = letters.get(1..).filter(|rest| !rest.is_empty());
            return match (first.filter(|flag| value_of(flag).is_some()), value) {
                (Some(flag), Some(value)) => {
                    let value = value.strip_prefix('=').unwrap_or(value);
                    self.take(grammar, flag, Some(value.to_owned()), words)
                }
                _ => Err(Fault::Unknown(word.to_owned())),
            };
        };
        for flag in flags {
            self.take(grammar, flag, None, words)?;
        }
        Ok(())
    }

    fn take<'a>(
        &mut self,
        grammar: &Grammar,
        flag: &'static FlagInfo<'static>,
        value: Option<String>,
        words: &mut (impl Iterator<Item = &'a str> + Clone),
    ) -> Result<(), Fault> {
        let takes = value_of(flag).is_some();
        let value = match value {
            Some(_) if !takes => return Err(Fault::Value(flag.long.to_owned())),
            Some(value) if value.is_empty() => {
                return Err(Fault::NoValue(flag.long.to_owned(), Some(value)));
            }
            None if takes => Some(next_value(grammar, flag, words)?),
            value => value,
        };
        self.settings.push(Setting {
            name: name_of(flag).to_owned(),
            value,
            origin: Origin::Typed,
        });
        Ok(())
    }

    fn plain(&mut self, grammar: &Grammar, word: &str) -> Result<(), Fault> {
        let many = grammar
            .positionals()
            .any(|row| row.optionality == argh::Optionality::Repeating);
        if !many && self.plain.len() >= grammar.positionals().count() {
            return Err(Fault::Plain(word.to_owned()));
        }
        self.plain.push(word.to_owned());
        Ok(())
    }

    /// As argh reads it: every flag and every value a word of its own.
    pub fn canonical(&self) -> Vec<String> {
        let mut words = Vec::new();
        for setting in &self.settings {
            words.push(format!("--{}", setting.name));
            words.extend(setting.value.clone());
        }
        // Behind `--` nothing is a flag, so a plain word may begin with one.
        if !(self.plain.is_empty() && self.rest.is_empty()) {
            words.push("--".to_owned());
        }
        words.extend(self.plain.iter().chain(&self.rest).cloned());
        words
    }

    /// Whether this flag was given, here.
    pub fn has(&self, name: &str) -> bool {
        self.settings.iter().any(|setting| setting.name == name)
    }
}

/// What stands behind one dash; a number below nothing is a value that somebody refuses in its own words.
fn letters_of<'a>(grammar: &Grammar, word: &'a str) -> Option<&'a str> {
    let letters = word.strip_prefix('-').filter(|rest| !rest.is_empty())?;
    let is_number = letters.parse::<f64>().is_ok() && !grammar.is_greedy();
    (!is_number).then_some(letters)
}

/// `help` is a word like any other behind a flag or another word.
fn is_help(grammar: &Grammar, word: &str, first: bool) -> bool {
    match word {
        "--help" => true,
        "-h" => grammar.letter('h').is_none(),
        "help" => first && grammar.flag("help").is_none(),
        _ => false,
    }
}

/// A flag in a value's place is a value that was forgotten, or a variable that was empty.
fn next_value<'a>(
    grammar: &Grammar,
    flag: &FlagInfo<'static>,
    words: &mut (impl Iterator<Item = &'a str> + Clone),
) -> Result<String, Fault> {
    let missing =
        |instead: Option<&str>| Fault::NoValue(flag.long.to_owned(), instead.map(str::to_owned));
    let is_flag = |word: &str| {
        let long = word.strip_prefix("--");
        let name = long.map(|long| long.split_once('=').map_or(long, |(name, _)| name));
        name.is_some_and(|name| name.is_empty() || grammar.flag(name).is_some())
    };
    match words.clone().next() {
        None => Err(missing(None)),
        Some(word) if is_flag(word) => Err(missing(Some(word))),
        Some("") => Err(missing(Some(""))),
        Some(word) => {
            words.next();
            Ok(word.to_owned())
        }
    }
}

fn unknown(grammar: &Grammar, long: &str, name: &str) -> Fault {
    let flags = grammar.flags().filter(|flag| value_of(flag).is_some());
    let glued = flags.filter_map(|flag| {
        let value = long.strip_prefix(name_of(flag))?;
        let apart = value.starts_with(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        apart.then_some((flag.long, value))
    });
    match glued.last() {
        Some((flag, value)) => Fault::Glued(flag.to_owned(), value.to_owned()),
        None => Fault::Unknown(format!("--{name}")),
    }
}

#[cfg(test)]
mod tests {
    use argh::{ArgsInfo, FromArgs};

    use super::*;

    /// for tests
    #[derive(FromArgs, ArgsInfo)]
    #[allow(dead_code)]
    struct Ours {
        /// whom
        #[argh(option)]
        to: Option<String>,
        /// which
        #[argh(option)]
        device: Option<String>,
        /// a port
        #[argh(option, short = 'p')]
        port: Option<u16>,
        /// less
        #[argh(switch, short = 'q')]
        quiet: bool,
        /// more
        #[argh(switch, short = 'v')]
        verbose: u8,
        /// who
        #[argh(positional)]
        who: Option<String>,
    }

    fn read(text: &str) -> Result<String, Fault> {
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let line = CommandLine::read(&Grammar::of::<Ours>("noports x"), &words)
            .map_err(|bad| bad.fault)?;
        Ok(match line.help {
            true => "help".to_owned(),
            false => line.canonical().join(" "),
        })
    }

    #[test]
    fn all_ways_to_type_a_flag_are_one() {
        for (typed, want) in [
            ("--to @d -q", "--to @d --quiet"),
            ("--to=@d --port=7", "--to @d --port 7"),
            ("--to=a=b", "--to a=b"),
            ("-vv -qv", "--verbose --verbose --quiet --verbose"),
            ("-p7000", "--port 7000"),
            ("-p=7000", "--port 7000"),
            ("-vp 7", "--verbose --port 7"),
            ("@me --to @d", "--to @d -- @me"),
            ("--to @d -- -q", "--to @d -- -q"),
            ("--to -x", "--to -x"),
            ("help", "help"),
            ("--to @d -h", "help"),
            ("--to @d --help", "help"),
            ("--to help", "--to help"),
            ("", ""),
        ] {
            assert_eq!(read(typed).as_deref(), Ok(want), "{typed}");
        }
    }

    #[test]
    fn what_is_wrong_is_known_by_its_kind() {
        let text = str::to_owned;
        for (typed, want) in [
            ("--devcie pi", Fault::Unknown(text("--devcie"))),
            ("--devcie=pi", Fault::Unknown(text("--devcie"))),
            ("-L 80", Fault::Unknown(text("-L"))),
            ("-json", Fault::Unknown(text("-json"))),
            ("--to@me", Fault::Glued(text("--to"), text("@me"))),
            ("--to", Fault::NoValue(text("--to"), None)),
            (
                "--device --to @me",
                Fault::NoValue(text("--device"), Some(text("--to"))),
            ),
            (
                "--device --to=@me",
                Fault::NoValue(text("--device"), Some(text("--to=@me"))),
            ),
            ("--quiet=yes", Fault::Value(text("--quiet"))),
            ("--help=x", Fault::Value(text("--help"))),
            ("--help=", Fault::Value(text("--help"))),
            ("--to=", Fault::NoValue(text("--to"), Some(String::new()))),
            ("-p=", Fault::NoValue(text("--port"), Some(String::new()))),
            ("a b", Fault::Plain(text("b"))),
        ] {
            assert_eq!(read(typed), Err(want), "{typed}");
        }
    }

    #[test]
    fn the_word_that_is_wrong_is_known_by_its_place() {
        let grammar = Grammar::of::<Ours>("noports x");
        let words = ["--to", "@d", "-v", "--devcie", "pi"];
        let bad = CommandLine::read(&grammar, &words).err();
        assert_eq!(bad.map(|bad| bad.at), Some(3));
    }

    proptest::proptest! {
        #[test]
        fn no_words_make_it_panic(text in "[-=a-z@ é]{0,60}") {
            let _ = read(&text);
        }
    }
}
