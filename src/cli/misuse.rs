//! ○ What is said of a word that cannot be read: what is wrong, and the command line that was meant.
//!
//! Who types a flag of another program, of ssh or of the classic programs, hears where it belongs.

use argh::Optionality;

use super::{
    Failure,
    grammar::{Grammar, Program, name_of, value_of},
    help::{usage, wrapped},
    hidden::{names_secret, takes_secrets},
    near::nearest,
    settings::Settings,
    words::{BadWord, CommandLine, Fault},
};
use crate::{
    sys::ssh::shell_line,
    text::terminal::{self, cut},
};

/// Flags of ssh that people type from habit.
const OF_SSH: &str = "46AaCfGgKkMNnqsTtVvXxYyBbcDEeFIiJLlmOopPQRSWw";

/// Flags by other words for the same thing.
pub(super) const ALSO: &[(&str, &str)] = &[
    ("rendezvous", "via"),
    ("relay", "via"),
    ("rv", "via"),
    ("rvd", "via"),
    ("srvd", "via"),
    ("from", "as"),
    ("atsign", "as"),
    ("at-sign", "as"),
    ("name", "device"),
    ("key", "keys"),
    ("key-file", "keys"),
    ("login", "user"),
    ("username", "user"),
    ("identity-file", "identity"),
    ("directory", "root"),
    ("cafile", "ca"),
    ("silent", "quiet"),
    ("debug", "verbose"),
    ("output", "out"),
    ("local", "forward"),
];

/// How our variables begin.
const PREFIX: &str = "NOPORTS_";
/// All variables that any of our programs reads.
const VARIABLES: &[&str] = &[
    "NOPORTS_AS",
    "NOPORTS_CA",
    "NOPORTS_CODE",
    "NOPORTS_CONFIG",
    "NOPORTS_DATA",
    "NOPORTS_DEBUG",
    #[cfg(feature = "held")]
    "NOPORTS_GENERATION",
    "NOPORTS_KEYS",
    "NOPORTS_LOG",
    "NOPORTS_MEMORY",
    "NOPORTS_NEW_PASSPHRASE",
    "NOPORTS_PASSPHRASE",
    "NOPORTS_ROOT",
    "NOPORTS_RUNTIME",
    "NOPORTS_SECRET",
    "NOPORTS_STATE",
    "NOPORTS_VIA",
];

/// Most programs that are named for a flag of theirs.
const MOST_OTHERS: usize = 4;
/// Longest word of a command that is to be pasted, in characters.
const LONGEST: usize = 200;

/// A command line to be pasted: a program, and what was typed behind it. Where a secret may be among the words only help is
/// named: a terminal, a log and a script's output are seen by others.
pub fn replayed(program: &str, words: &[&str]) -> String {
    let is_long = |word: &&str| word.chars().nth(LONGEST).is_some();
    let hidden = takes_secrets(program) || words.iter().any(|word| names_secret(word));
    if hidden || words.iter().any(is_long) {
        format!("{program} --help")
    } else {
        format!("{program} {}", shell_line(words))
    }
}

/// What a wrong word is judged by.
pub(super) struct Correction<'a> {
    /// The program's words.
    pub(super) grammar: &'a Grammar,
    /// All programs.
    pub(super) programs: &'a [Program],
    /// Ours for a flag of the classic program of that name, if it has one: `-f` → `--as`.
    pub(super) ours: &'a dyn Fn(&str) -> Option<&'static str>,
}

impl Correction<'_> {
    /// The failure for a word, among the words behind the program's name.
    pub(super) fn failure(&self, words: &[&str], bad: &BadWord) -> Failure {
        let name = &self.grammar.name;
        let corrected = |instead: &[&str]| self.corrected(words, bad.at, instead);
        match &bad.fault {
            Fault::Unknown(word) => self.unknown(words, bad.at, word),
            Fault::NoValue(flag, instead) => {
                let why = match instead.as_deref() {
                    None => format!("{flag} needs a value"),
                    Some("") => format!("{flag} needs a value that is not empty"),
                    Some(other) => format!("{flag} needs a value, but {other:?} follows"),
                };
                Failure::misuse(why).hint(format!("{flag} {}", self.value(flag)))
            }
            Fault::Value(flag) => {
                Failure::misuse(format!("{flag} takes no value")).hint(corrected(&[flag]))
            }
            Fault::Glued(flag, value) => {
                let word = format!("{flag}{value}");
                Failure::misuse(self.no_flag(&word)).hint(corrected(&[flag, value]))
            }
            Fault::Plain(word) => {
                let failure = Failure::misuse(if takes_secrets(name) {
                    "there is one argument too many".to_owned()
                } else {
                    format!("unexpected argument {word:?}")
                });
                let own = self.grammar.words().iter().map(|row| row.0);
                match nearest(word, own).first() {
                    Some(near) => failure.hint(corrected(&[near])),
                    None => failure.hint(format!("{name} --help")),
                }
            }
        }
    }

    fn unknown(&self, words: &[&str], at: usize, word: &str) -> Failure {
        let failure = Failure::misuse(self.no_flag(word));
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
        let secret = words.iter().any(|word| names_secret(word));
        if !secret && (self.ours)(word).is_some_and(|ours| self.knows(ours)) {
            // Whoever types one of the classic flags types more of them.
            return failure.hint(replayed(&self.grammar.name, &self.modern(words)));
        }
        let also = ALSO
            .iter()
            .find(|row| row.0 == typed && self.grammar.flag(row.1).is_some());
        if let Some((_, ours)) = also {
            return failure.hint(instead(&format!("--{ours}")));
        }
        if let Some(near) = nearest(typed, self.grammar.flags().map(name_of)).first() {
            return failure.hint(instead(&format!("--{near}")));
        }
        if !secret && self.grammar.is_greedy() && is_of_ssh(word) {
            let rest = words.get(at..).unwrap_or_default();
            let before = words.get(..at).unwrap_or_default();
            let line = [before, &["--"], rest].concat();
            let line = replayed(&self.grammar.name, &line);
            return failure.hint(format!("flags for ssh go after --: {line}"));
        }
        match self.elsewhere(typed) {
            Some(others) if !takes_secrets(&self.grammar.name) => {
                failure.hint(format!("--{typed} is a flag of {others}"))
            }
            Some(_) => failure.hint(format!("{} --help", self.grammar.name)),
            None => failure.hint(format!("{} --help", self.grammar.name)),
        }
    }

    fn no_flag(&self, word: &str) -> String {
        if takes_secrets(&self.grammar.name) {
            "unknown flag".to_owned()
        } else {
            format!("unknown flag {word:?}")
        }
    }

    /// The words with ours in the place of classic flags.
    fn modern<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        let own = |word: &str| {
            let name = word.trim_start_matches('-');
            let name = name.split_once('=').map_or(name, |(name, _)| name);
            let mut letters = name.chars();
            let letter = letters.next().filter(|_| letters.next().is_none());
            !word.starts_with('-')
                || self.grammar.flag(name).is_some()
                || letter.is_some_and(|letter| self.grammar.letter(letter).is_some())
        };
        let modern = words.iter().map(|word| match (self.ours)(word) {
            Some(ours) if !own(word) && self.knows(ours) => ours,
            _ => word,
        });
        modern.collect()
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
        (1..=MOST_OTHERS)
            .contains(&others.len())
            .then(|| others.join(", "))
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
        // What was typed wrongly in the first place counts, too.
        if words.iter().any(|word| names_secret(word)) {
            return format!("{} --help", self.grammar.name);
        }
        replayed(&self.grammar.name, &[before, instead, behind].concat())
    }
}

/// Refuses a command line in which something is missing that neither a file nor the environment says.
pub(super) fn complete(
    grammar: &Grammar,
    line: &CommandLine,
    settings: &Settings,
) -> Result<(), Failure> {
    let example = || {
        let example = grammar.examples().next();
        example.unwrap_or_else(|| usage(grammar))
    };
    let said = |name: &str| line.has(name) || settings.inherited.iter().any(|own| own.name == name);
    let mut required = grammar
        .flags()
        .filter(|flag| flag.optionality == Optionality::Required);
    if let Some(flag) = required.find(|flag| !said(name_of(flag))) {
        return Err(Failure::misuse(format!("{} is missing", flag.long)).hint(example()));
    }
    let arguments = grammar.positionals();
    let mut needed = arguments.filter(|row| row.optionality == Optionality::Required);
    match needed.nth(line.plain.len()) {
        Some(argument) => {
            Err(Failure::misuse(format!("<{}> is missing", argument.name)).hint(example()))
        }
        None => Ok(()),
    }
}

/// The word that has to stand first is missing, or there is none of that name.
pub(super) fn no_word(grammar: &Grammar, words: &[&str]) -> Failure {
    let name = &grammar.name;
    let known = || grammar.words().iter().map(|row| row.0);
    let all = known().collect::<Vec<_>>().join(", ");
    let Some((first, rest)) = words.split_first() else {
        return Failure::misuse(format!("a word is missing: {all}")).hint(format!("{name} --help"));
    };
    if first.starts_with('-') {
        let flag = first.trim_start_matches('-');
        let flag = flag.split_once('=').map_or(flag, |(flag, _)| flag);
        let has = |word: &&str| {
            grammar
                .below(word)
                .is_some_and(|below| below.flag(flag).is_some())
        };
        let failure = Failure::misuse(format!("a word is missing before {first}: {all}"));
        return match known().find(has) {
            Some(word) => failure.hint(replayed(&format!("{name} {word}"), words)),
            None => failure.hint(format!("{name} --help")),
        };
    }
    let failure = Failure::misuse(format!("there is no {first:?}; choose {all}"));
    match nearest(first, known()).first() {
        Some(near) if rest.is_empty() => failure.hint(format!("{name} {near}")),
        Some(near) => failure.hint(replayed(&format!("{name} {near}"), rest)),
        None => failure.hint(format!("{name} --help")),
    }
}

/// Help needs nothing behind it.
pub fn value_of_help(name: &str) -> Failure {
    Failure::misuse("--help takes no value").hint(format!("{name} --help"))
}

/// What argh says against a value, in fewer words: ours stand behind it, and repeat the value.
pub(super) fn plain(text: &str, words: &[&str]) -> String {
    let parts = || {
        let (before, rest) = text.split_once("Error parsing ")?;
        let (kind, rest) = rest.split_once(" '")?;
        let (name, rest) = rest.split_once("' with value '")?;
        // There may be such signs in the value, too.
        let mut values = words.iter();
        let why = values.find_map(|value| rest.strip_prefix(*value)?.strip_prefix("': "))?;
        Some(match kind {
            "option" => format!("{before}{name}: {why}"),
            _ => format!("{before}<{name}>: {why}"),
        })
    };
    parts().unwrap_or_else(|| text.to_owned())
}

/// Variables that look like ours and are none.
pub(super) fn unknown_variables() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let strange =
        names.filter(|name| name.starts_with(PREFIX) && !VARIABLES.contains(&name.as_str()));
    strange
        .map(|name| {
            let near = near_variables(&name).join(" or ");
            let name = cut(&name, terminal::LONGEST);
            if near.is_empty() {
                let bare = VARIABLES
                    .iter()
                    .map(|known| known.trim_start_matches(PREFIX));
                let all = bare.collect::<Vec<_>>().join(", ");
                let all = wrapped(&format!("behind {PREFIX} there can be {all}"), 2, 2);
                format!("the variable {name} means nothing here\n{}", all.trim_end())
            } else {
                format!("the variable {name} means nothing here; {near}?")
            }
        })
        .collect()
}

/// The variables that may be meant.
fn near_variables(name: &str) -> Vec<String> {
    let bare = |name: &str| {
        name.trim_start_matches(PREFIX)
            .to_lowercase()
            .replace('_', "-")
    };
    let typed = bare(name);
    let also = ALSO.iter().find(|row| row.0 == typed);
    let typed = also.map_or(typed.as_str(), |row| row.1);
    let known: Vec<String> = VARIABLES.iter().map(|known| bare(known)).collect();
    let near = nearest(typed, known.iter().map(String::as_str)).into_iter();
    near.map(|near| format!("{PREFIX}{}", near.to_uppercase().replace('-', "_")))
        .collect()
}

fn is_of_ssh(word: &str) -> bool {
    let mut letters = word.trim_start_matches('-').chars();
    !word.starts_with("--") && letters.next().is_some_and(|letter| OF_SSH.contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_value_is_told_whatever_is_in_the_value() {
        for value in ["x", "", "x': y", "a\"b", "' with value '"] {
            let text =
                format!("Error parsing option '--bind' with value '{value}': {value:?} is bad");
            let told = plain(&text, &["--bind", value, "x"]);
            assert_eq!(told, format!("--bind: {value:?} is bad"));
        }
        assert_eq!(plain("else", &[]), "else");
    }

    #[test]
    fn a_secret_is_never_repeated_in_a_hint() {
        for (program, words, want) in [
            (
                "noports client",
                &["--to", "@d"][..],
                "noports client --to @d",
            ),
            (
                "noports client",
                &["--passphrase-file", "f"],
                "noports client --passphrase-file f",
            ),
            (
                "noports client",
                &["--passphrase", "S"],
                "noports client --help",
            ),
            (
                "noports client",
                &["-passphrase=S"],
                "noports client --help",
            ),
            (
                "noports daemon",
                &["\u{2014}secret=S"],
                "noports daemon --help",
            ),
            ("noports enroll", &["@alice", "S"], "noports enroll --help"),
            (
                "noports enroll approve",
                &["S"],
                "noports enroll approve --help",
            ),
            ("noports activate", &["-sS"], "noports activate --help"),
            ("noports keys", &["protect", "S"], "noports keys --help"),
        ] {
            assert_eq!(replayed(program, words), want, "{program} {words:?}");
        }
    }
}
