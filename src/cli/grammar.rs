//! ○ What a program understands, as data: its flags, arguments, words, examples and notes.
//!
//! ```text
//!   #[derive(FromArgs, ArgsInfo)] ──▶ Grammar ──▶ words are read by it        [`words`](super::words)
//!                                        ├──────▶ --help                       `help`
//!                                        ├──────▶ files of flags               [`config`](super::config)
//!                                        └──────▶ manual pages, completions
//! ```
//! A flag is described in one place: where it is declared.

use std::process::ExitCode;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

use super::Console;

/// What argh knows of a struct of flags.
pub type Info = CommandInfoWithArgs;

/// One program of the executable.
#[derive(Debug)]
pub struct Program {
    /// `noports NAME`
    pub name: &'static str,
    /// Names of links that mean this program, with the classic command line.
    pub links: &'static [&'static str],
    /// One line for the overview; empty: not shown.
    pub about: &'static str,
    /// Its flags.
    pub info: fn() -> Info,
    /// Words of its own that have flags of their own: `noports enroll approve`.
    pub words: &'static [Word],
    /// Runs it with the words behind its name.
    pub main: fn(Console, &[&str]) -> ExitCode,
}

/// A word behind a program's name.
#[derive(Debug)]
pub struct Word {
    /// As it is typed.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Its flags.
    pub info: fn() -> Info,
}

/// A word whose flags are this struct's.
pub const fn word<T: ArgsInfo>(name: &'static str, about: &'static str) -> Word {
    Word {
        name,
        about,
        info: T::get_args_info,
    }
}

impl Program {
    /// Whether this is one of its words.
    pub fn takes(&self, word: &str) -> bool {
        self.words.iter().any(|own| own.name == word)
            || (self.info)().commands.iter().any(|sub| sub.name == word)
    }
}

/// The flags and arguments of a program, or of a word of it.
pub struct Grammar {
    /// What help calls it: `noports enroll approve`.
    pub name: String,
    info: Info,
    words: Vec<(&'static str, &'static str)>,
    has_file: bool,
}

/// The flag of programs that have a file of flags; argh does not see it.
static CONFIG: FlagInfo<'static> = FlagInfo {
    kind: FlagInfoKind::Option { arg_name: "file" },
    optionality: Optionality::Optional,
    long: "--config",
    short: None,
    description: "file with further flags (or NOPORTS_CONFIG)",
    hidden: false,
};

impl Grammar {
    /// Of this struct of flags.
    pub fn of<T: ArgsInfo>(name: &str) -> Self {
        Self::new(name, T::get_args_info())
    }

    /// Of a program.
    pub fn of_program(program: &Program) -> Self {
        Self::new(&format!("noports {}", program.name), (program.info)()).with_words(program)
    }

    /// With the words that the program itself looks for.
    #[must_use]
    pub fn with_words(mut self, program: &Program) -> Self {
        let own = program.words.iter().map(|word| (word.name, word.about));
        self.words.extend(own);
        self
    }

    /// Of a word of a program: one that argh knows as a sub-command, or one with a struct of its own.
    pub fn of_word(program: &Program, word: &str) -> Option<Self> {
        let name = format!("noports {} {word}", program.name);
        if let Some(own) = program.words.iter().find(|own| own.name == word) {
            return Some(Self::new(&name, (own.info)()));
        }
        Self::of_program(program).below(word)
    }

    fn new(name: &str, info: Info) -> Self {
        let words = info.commands.iter();
        let words = words
            .map(|sub| (sub.name, sub.command.description))
            .collect();
        Self {
            name: name.to_owned(),
            info,
            words,
            has_file: false,
        }
    }

    /// The same for a program that has a file of flags.
    #[must_use]
    pub fn with_file(mut self) -> Self {
        self.has_file = true;
        self
    }

    /// Of a sub-command that argh knows.
    pub fn below(&self, word: &str) -> Option<Self> {
        let sub = self.info.commands.iter().find(|sub| sub.name == word)?;
        let name = format!("{} {word}", self.name);
        Some(Self::new(&name, sub.command.clone()))
    }

    /// What it is for; several paragraphs.
    pub fn about(&self) -> &'static str {
        self.info.description
    }

    /// Command lines that work, complete.
    pub fn examples(&self) -> impl Iterator<Item = String> {
        let name: Vec<String> = self.name.split(' ').map(str::to_owned).collect();
        // Of a word that several programs have: noports daemon install, noports rendezvous install.
        let is_of_another = move |example: &String| {
            let words: Vec<&str> = example.split(' ').collect();
            match (&name[..], &words[..]) {
                ([_, own, word], [_, program, same, ..]) => word == same && own != program,
                _ => false,
            }
        };
        let all = self.told(self.info.examples);
        all.filter(move |example| !is_of_another(example))
    }

    /// What else is to be said.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.told(self.info.notes)
    }

    fn told(&self, texts: &'static [&'static str]) -> impl Iterator<Item = String> {
        let name = self.name.clone();
        let whole = move |text: &&str| text.replace("{command_name}", &name);
        texts.iter().map(whole)
    }

    /// Exit codes of its own, and what they mean.
    pub fn codes(&self) -> impl Iterator<Item = (i32, &'static str)> {
        let codes = self.info.error_codes.iter();
        codes.map(|row| (row.code, row.description))
    }

    /// Words that can follow its name, each with a line about it.
    pub fn words(&self) -> &[(&'static str, &'static str)] {
        &self.words
    }

    /// Whether one of these words has to follow.
    pub fn needs_word(&self) -> bool {
        !self.info.commands.is_empty()
    }

    /// All flags but `--help`.
    pub fn flags(&self) -> impl Iterator<Item = &'static FlagInfo<'static>> {
        let config = self.has_file.then_some(&CONFIG);
        let flags = self.info.flags.iter().chain(config);
        flags.filter(|flag| flag.long != "--help")
    }

    /// The flag with this name, without its `--`.
    pub fn flag(&self, name: &str) -> Option<&'static FlagInfo<'static>> {
        self.flags().find(|flag| name_of(flag) == name)
    }

    /// The flag with this letter.
    pub fn letter(&self, letter: char) -> Option<&'static FlagInfo<'static>> {
        self.flags().find(|flag| flag.short == Some(letter))
    }

    /// What stands behind the flags.
    pub fn positionals(&self) -> impl Iterator<Item = &'static argh::PositionalInfo<'static>> {
        self.info.positionals.iter()
    }

    /// Whether everything behind the first plain word is for somebody else.
    pub fn is_greedy(&self) -> bool {
        self.positionals()
            .any(|row| row.optionality == Optionality::Greedy)
    }
}

/// A flag's name without its `--`.
pub fn name_of(flag: &FlagInfo<'static>) -> &'static str {
    flag.long.trim_start_matches('-')
}

/// What help calls a flag's value; `None`: it has none.
pub fn value_of(flag: &FlagInfo<'static>) -> Option<&'static str> {
    match flag.kind {
        FlagInfoKind::Switch => None,
        FlagInfoKind::Option { arg_name } => Some(arg_name),
    }
}

/// Whether a flag counts more than once. A switch does no harm.
pub fn repeats(flag: &FlagInfo<'static>) -> bool {
    value_of(flag).is_none() || flag.optionality == Optionality::Repeating
}
