//! ○ What is said of a word that cannot be read: what is wrong, and the command line that was meant.
//!
//! Who types a flag of another program, of ssh or of the classic programs, hears where it belongs.

use super::{
    Failure,
    grammar::{Grammar, Program, name_of, value_of},
    near::nearest,
    words::{BadWord, Fault},
};
use crate::sys::ssh::shell_line;

/// Flags of ssh that people type from habit.
const OF_SSH: &str = "46AaCfGgKkMNnqsTtVvXxYyBbcDEeFIiJLlmOopPQRSWw";

/// What a misuse is judged by.
pub struct Surroundings<'a> {
    /// The program's words.
    pub grammar: &'a Grammar,
    /// All programs.
    pub programs: &'a [Program],
    /// Ours for a flag of the classic program of that name, if it has one: `-f` → `--as`.
    pub ours: &'a dyn Fn(&str) -> Option<&'static str>,
}

impl Surroundings<'_> {
    /// The failure for a word, among the words behind the program's name.
    pub fn failure(&self, words: &[&str], bad: &BadWord) -> Failure {
        let name = &self.grammar.name;
        let corrected = |instead: &[&str]| self.corrected(words, bad.at, instead);
        match &bad.fault {
            Fault::Unknown(word) => self.unknown(words, bad.at, word),
            Fault::NoValue(flag, instead) => {
                let why = match instead.as_deref() {
                    None => format!("{flag} needs a value"),
                    Some("") => format!("{flag} needs a value, and there is an empty one"),
                    Some(other) => format!("{flag} needs a value; behind it stands {other:?}"),
                };
                Failure::misuse(why).hint(format!("{flag} {}", self.value(flag)))
            }
            Fault::Value(flag) => {
                Failure::misuse(format!("{flag} takes no value")).hint(corrected(&[flag]))
            }
            Fault::Glued(flag, value) => {
                Failure::misuse(format!("there is no flag \"{flag}{value}\""))
                    .hint(corrected(&[flag, value]))
            }
            Fault::Plain(word) => {
                let failure = Failure::misuse(format!("{word:?} is one word too many"));
                let own = self.grammar.words().iter().map(|row| row.0);
                match nearest(word, own).first() {
                    Some(near) => failure.hint(corrected(&[near])),
                    None => failure.hint(format!("{name} --help")),
                }
            }
        }
    }

    fn unknown(&self, words: &[&str], at: usize, word: &str) -> Failure {
        let failure = Failure::misuse(format!("there is no flag {word:?}"));
        let typed = word.trim_start_matches('-');
        let value = words.get(at).and_then(|whole| whole.split_once('='));
        let instead = |flag: &str| {
            let mut words_instead = vec![flag];
            words_instead.extend(value.map(|(_, value)| value));
            self.corrected(words, at, &words_instead)
        };
        if self.grammar.flag(typed).is_some() && !word.starts_with("--") {
            return failure.hint(instead(&format!("--{typed}")));
        }
        if let Some(ours) = (self.ours)(word).filter(|ours| self.knows(ours)) {
            return failure.hint(instead(ours));
        }
        if let Some(near) = nearest(typed, self.grammar.flags().map(name_of)).first() {
            return failure.hint(instead(&format!("--{near}")));
        }
        if self.grammar.is_greedy() && is_of_ssh(word) {
            let rest = words.get(at..).unwrap_or_default();
            let before = words.get(..at).unwrap_or_default();
            let line = [before, &["--"], rest].concat();
            let hint = format!(
                "flags of ssh stand behind --: {} {}",
                self.grammar.name,
                shell_line(&line)
            );
            return failure.hint(hint);
        }
        match self.elsewhere(typed) {
            Some(others) => failure.hint(format!("--{typed} is a flag of {others}")),
            None => failure.hint(format!("{} --help", self.grammar.name)),
        }
    }

    fn knows(&self, flag: &str) -> bool {
        let name = flag.trim_start_matches('-');
        flag.starts_with("--") && self.grammar.flag(name).is_some()
    }

    /// Which other programs have this flag.
    fn elsewhere(&self, name: &str) -> Option<String> {
        let has = |program: &&Program| {
            !program.about.is_empty()
                && (program.info)()
                    .flags
                    .iter()
                    .any(|flag| name_of(flag) == name)
        };
        let others = self.programs.iter().filter(has);
        let others: Vec<String> = others
            .map(|program| format!("noports {}", program.name))
            .collect();
        (!others.is_empty()).then(|| others.join(", "))
    }

    fn value(&self, flag: &str) -> String {
        let known = self.grammar.flag(flag.trim_start_matches('-'));
        let value = known.and_then(value_of).unwrap_or("value");
        value.to_uppercase()
    }

    /// The command line that was typed, with something else in a word's place.
    fn corrected(&self, words: &[&str], at: usize, instead: &[&str]) -> String {
        let before = words.get(..at).unwrap_or_default();
        let behind = words.get(at + 1..).unwrap_or_default();
        format!(
            "{} {}",
            self.grammar.name,
            shell_line(&[before, instead, behind].concat())
        )
    }
}

fn is_of_ssh(word: &str) -> bool {
    let mut letters = word.trim_start_matches('-').chars();
    !word.starts_with("--") && letters.next().is_some_and(|letter| OF_SSH.contains(letter))
}
