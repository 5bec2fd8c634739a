//! ○ What is said of a word that cannot be read: what is wrong, and the command line that was meant.
//!
//! Who types a flag of another program, of ssh or of the classic programs, hears where it belongs.

use argh::Optionality;

use super::{
    Failure, classic,
    grammar::{Grammar, Program, name_of, value_of},
    help::{usage, wrapped},
    hidden::{is_in_environment, names_secret, takes_secrets},
    near::{self, nearest},
    settings::{Origin, Setting, Settings},
    words::{BadWord, CommandLine, Fault},
};
use crate::{
    at::AtSign,
    sys::ssh::{leads_elsewhere, shell_line},
    text::terminal::{self, cut},
};

/// Flags of ssh that people type from habit, and those of them with a value.
const OF_SSH: &str = "46AaCfGgKkMNnqsTtVvXxYyBbcDEeFIiJLlmOopPQRSWw";
const OF_SSH_WITH_VALUE: &str = "BbcDEeFIiJLlmOopPQRSWw";

/// What ssh means by a letter, where that is a flag of ours.
const LETTERS_OF_SSH: &[(&str, &str)] = &[("-l", "user"), ("-i", "identity"), ("-L", "forward")];

/// Flags by other words for the same thing.
const ALSO: &[(&str, &str)] = &[
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
    ("port", "local-port"),
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

/// What help calls an atSign.
const ATSIGN: &str = "atsign";
/// What people write for several atSigns.
const FOR_MANY: &[&str] = &[
    "open",
    "all",
    "any",
    "anybody",
    "everybody",
    "everyone",
    "none",
];
/// Most programs that are named for a flag of theirs.
const MOST_OTHERS: usize = 4;
/// Most faults of one line that are mended.
const MOST_FAULTS: usize = 8;
/// Longest word of a command that is to be pasted, in characters.
const LONGEST: usize = 200;

/// A command line to be pasted: a program, and what was typed behind it. Where a secret may be among the words only help is
/// named: a terminal, a log and a script's output are seen by others.
pub fn replayed(program: &str, words: &[&str]) -> String {
    let is_long = |word: &&str| word.chars().nth(LONGEST).is_some();
    let is_atsign = |word: &&str| word.starts_with('@') && !is_in_environment(word);
    let is_harmless = words.len() <= 1 && words.iter().all(is_atsign);
    let hidden =
        takes_secrets(program) && !is_harmless || words.iter().any(|word| names_secret(word));
    if hidden || words.iter().any(is_long) {
        format!("{program} --help")
    } else {
        format!("{program} {}", shell_line(words))
            .trim_end()
            .to_owned()
    }
}

/// What a wrong word is judged by.
pub struct Correction<'a> {
    /// The program's words.
    pub grammar: &'a Grammar,
    /// All programs.
    pub programs: &'a [Program],
    /// Which of ours it is for; the classic program of that kind has flags that people know.
    pub program: &'static str,
}

impl Correction<'_> {
    /// The failure for a word, among the words behind the program's name.
    pub(super) fn failure(&self, words: &[&str], bad: &BadWord) -> Failure {
        let name = &self.grammar.name;
        let failure = Failure::misuse(match &bad.fault {
            Fault::Unknown(word) => self.no_flag(word),
            Fault::NoValue(flag, instead) => match instead.as_deref() {
                None => format!("{flag} needs a value"),
                Some("") => format!("{flag} needs a value that is not empty"),
                Some(other) => format!("{flag} needs a value, but {other:?} follows"),
            },
            Fault::Value(flag) => format!("{flag} takes no value"),
            Fault::Glued(flag, value) => self.no_flag(&format!("{flag}{value}")),
            Fault::Plain(_) if takes_secrets(name) => "there is one argument too many".to_owned(),
            Fault::Plain(word) => format!("unexpected argument {word:?}"),
        });
        // What was typed wrongly in the first place counts, too.
        let secret = words.iter().any(|word| names_secret(word));
        if let Fault::NoValue(flag, _) = &bad.fault {
            return failure.hint(format!("{flag} {}", self.value(flag)));
        } else if let Some(meant) = self.meant(words, bad).filter(|_| !secret) {
            return failure.hint(replayed(name, &refs(&meant)));
        }
        failure.hint(format!("{name} --help"))
    }

    /// The command that was meant by these words behind a name that people have for this program.
    pub fn named(&self, words: &[&str]) -> String {
        let typed: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let meant = match CommandLine::read(self.grammar, words) {
            Ok(line) => self.with_device(&typed, &line),
            Err(bad) => self.meant(words, &bad),
        };
        replayed(&self.grammar.name, &refs(&meant.unwrap_or(typed)))
    }

    /// The whole line that was meant, where this word, and whatever is wrong behind it, can be told.
    fn meant(&self, words: &[&str], bad: &BadWord) -> Option<Vec<String>> {
        let mut meant: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let (mut bad, mut for_ssh) = (bad.clone(), Vec::new());
        for _ in 0..MOST_FAULTS {
            if let Some(instead) = self.instead(&refs(&meant), &bad) {
                meant.splice(bad.at..=bad.at, instead);
            } else if self.grammar.is_greedy() && is_of_ssh(&meant[bad.at]) {
                let end = meant.len().min(bad.at + words_of_ssh(&meant[bad.at]));
                let flag: Vec<String> = meant.drain(bad.at..end).collect();
                if leads_elsewhere(&flag).is_none() {
                    for_ssh.extend(flag);
                }
            } else {
                break;
            }
            match CommandLine::read(self.grammar, &refs(&meant)) {
                Err(next) => bad = next,
                Ok(line) => {
                    let meant = self.with_device(&meant, &line).unwrap_or(meant);
                    return Some(self.with_ssh(meant, for_ssh));
                }
            }
        }
        let is_better = meant.iter().map(String::as_str).ne(words.iter().copied());
        (is_better && for_ssh.is_empty()).then_some(meant)
    }

    /// What is for ssh stands behind `--`, in front of a command.
    fn with_ssh(&self, mut words: Vec<String>, for_ssh: Vec<String>) -> Vec<String> {
        let line = CommandLine::read(self.grammar, &refs(&words)).unwrap_or_default();
        let at = words.len() - line.rest.len();
        let ends = at > 0 && words[at - 1] == "--" || for_ssh.is_empty();
        let ends = (!ends).then(|| "--".to_owned());
        words.splice(at..at, ends.into_iter().chain(for_ssh));
        words
    }

    /// What belongs in a wrong word's place.
    fn instead(&self, words: &[&str], bad: &BadWord) -> Option<Vec<String>> {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        match &bad.fault {
            Fault::Value(flag) => Some(owned(&[flag])),
            Fault::Glued(flag, value) => Some(owned(&[flag, value])),
            Fault::NoValue(..) => None,
            Fault::Plain(word) => {
                let own = self.grammar.words().iter().map(|row| row.0);
                let near = nearest(word, own).first().map(|near| owned(&[near]));
                let forward = || self.grammar.flag("forward").filter(|_| is_forward(word));
                near.or_else(|| self.device(word, words))
                    .or_else(|| forward().map(|flag| owned(&[flag.long, word])))
            }
            Fault::Unknown(word) => {
                let value = words.get(bad.at).and_then(|whole| whole.split_once('='));
                let flag = flag_meant(self.grammar, self.program, word)?;
                let is_switch = self
                    .grammar
                    .flag(&flag[2..])
                    .is_some_and(|flag| value_of(flag).is_none());
                if is_switch && words.contains(&flag.as_str()) {
                    return Some(Vec::new());
                }
                let value = value.map(|(_, value)| value);
                Some(owned(&[&[flag.as_str()][..], value.as_slice()].concat()))
            }
        }
    }

    /// `pi@fleet` and `root@pi@fleet`, where a device can be meant and none was named.
    fn device(&self, word: &str, words: &[&str]) -> Option<Vec<String>> {
        let is_named = |word: &&str| *word == "--to" || word.starts_with("--to=");
        self.grammar
            .flag("to")
            .filter(|_| !words.iter().any(is_named))?;
        self.to(&DevicePlace::of(word)?)
    }

    /// The flags that say this.
    fn to(&self, place: &DevicePlace) -> Option<Vec<String>> {
        let user = place.user.map(|user| ["--user", user]);
        if user.is_some() {
            self.grammar.flag("user")?;
        }
        let to = format!("{}@{}", place.device, place.atsign);
        let words = user.iter().flatten().copied().chain(["--to", &to]);
        Some(words.map(str::to_owned).collect())
    }

    /// A device's name where an atSign is asked for, and a person's in front of it.
    pub(super) fn check_devices(&self, words: &[&str], line: &CommandLine) -> Result<(), Failure> {
        let rows = self.grammar.positionals().zip(&line.plain);
        let plain = rows.filter(|(row, _)| row.name == ATSIGN);
        let plain = plain.map(|(_, word)| (String::new(), word.as_str()));
        let flags = line.settings.iter().filter_map(|setting| {
            let flag = self.grammar.flag(&setting.name)?;
            let value = setting.value.as_deref()?;
            (value_of(flag) == Some(ATSIGN)).then(|| (flag.long.to_owned(), value))
        });
        for (flag, value) in flags.chain(plain) {
            let Some(place) = DevicePlace::of(value).filter(|place| !place.device.is_empty())
            else {
                continue;
            };
            let atsign = format!("@{}", place.atsign);
            let takes_device = self.grammar.flag("device").is_some() && !line.has("device");
            let instead = match flag.as_str() {
                "--to" if place.user.is_none() && !value.starts_with('@') => continue,
                "--to" => self.to(&place).unwrap_or_default(),
                "--as" if takes_device => [&flag, &atsign, "--device", place.device]
                    .map(str::to_owned)
                    .into(),
                "" => vec![atsign],
                _ => vec![flag.clone(), atsign],
            };
            let what = if flag == "--to" {
                "DEVICE@ATSIGN"
            } else {
                "an atSign"
            };
            let flag = if flag.is_empty() {
                format!("<{ATSIGN}>")
            } else {
                flag
            };
            let failure = Failure::misuse(format!("{flag} takes {what}, and not {value:?}"));
            let glued = format!("{flag}={value}");
            let at = words
                .iter()
                .position(|word| *word == value || *word == glued);
            let is_secret =
                takes_secrets(&self.grammar.name) || words.iter().any(|word| names_secret(word));
            let Some(at) = at.filter(|_| !instead.is_empty() && !is_secret) else {
                return Err(failure.hint(format!("{} --help", self.grammar.name)));
            };
            let from = if words[at] == value && flag.starts_with('-') {
                at - 1
            } else {
                at
            };
            let (before, rest) = (&words[..from], &words[at + 1..]);
            let meant = [before, &refs(&instead), rest].concat();
            return Err(failure.hint(replayed(&self.grammar.name, &meant)));
        }
        Ok(())
    }

    /// Words for somebody else begin with what is a device.
    fn with_device(&self, words: &[String], line: &CommandLine) -> Option<Vec<String>> {
        let first = line.rest.first()?;
        let at = words.len() - line.rest.len();
        let device = self.device(first, &refs(words))?;
        let (before, rest) = words.split_at(at);
        let ours = [before, &device, &rest[1..]].concat();
        // Flags of ours behind it are ours, unless something was said for ssh alone.
        if !before.ends_with(&["--".to_owned()]) {
            match CommandLine::read(self.grammar, &refs(&ours)) {
                Ok(_) => return Some(ours),
                Err(bad) if ours[bad.at].starts_with("--") => {
                    return self.meant(&refs(&ours), &bad);
                }
                Err(_) => {}
            }
        }
        let before = before.strip_suffix(&["--".to_owned()]).unwrap_or(before);
        let ends = (rest.len() > 1).then(|| "--".to_owned());
        Some([before, &device, ends.as_slice(), &rest[1..]].concat())
    }

    /// A secret in an atSign's place would be sent to the atDirectory, and a word of ours be taken for somebody.
    pub(super) fn check_atsigns(
        &self,
        line: &CommandLine,
        settings: &Settings,
    ) -> Result<(), Failure> {
        let name = &self.grammar.name;
        let mut plain = self.grammar.positionals().zip(&line.plain);
        let is_secret = |word: &str| !word.starts_with('@') || is_in_environment(word);
        if takes_secrets(name) && plain.any(|(row, word)| row.name == ATSIGN && is_secret(word)) {
            let why = "an atSign begins with @, and a secret is never taken from the command line";
            let example = self
                .grammar
                .examples()
                .find(|example| example.starts_with(name));
            return Err(
                Failure::misuse(why).hint(example.unwrap_or_else(|| format!("{name} --help")))
            );
        }
        for setting in settings.inherited.iter().chain(&line.settings) {
            let takes_atsign = self.grammar.flag(&setting.name).and_then(value_of) == Some(ATSIGN);
            let mut words = setting.value.iter().flat_map(|value| value.split(','));
            let ours = words.find(|word| takes_atsign && self.is_ours(&setting.name, word.trim()));
            if let Some(word) = ours {
                let (flag, word) = (&setting.name, word.trim());
                let place = match &setting.origin {
                    Origin::Typed => String::new(),
                    other => format!("{other}: "),
                };
                let why = format!("{place}--{flag}: {word:?} is a word of noports, and no atSign");
                return Err(Failure::misuse(why)
                    .hint(format!("if an atSign is called so: --{flag} @{word}")));
            }
        }
        Ok(())
    }

    /// What was typed for atSigns with dots, which count for nothing: each with what it is taken for.
    pub(super) fn folded(&self, line: &CommandLine) -> Vec<String> {
        let is_atsign = |setting: &&Setting| {
            self.grammar.flag(&setting.name).and_then(value_of) == Some(ATSIGN)
        };
        let typed = line.settings.iter().filter(is_atsign);
        let typed = typed.filter_map(|setting| setting.value.as_deref());
        let plain = self.grammar.positionals().zip(&line.plain);
        let plain = plain
            .filter(|(row, _)| row.name == ATSIGN)
            .map(|(_, word)| word.as_str());
        let words = typed.chain(plain).flat_map(|value| value.split(','));
        let folded = words.filter_map(|word| {
            let word = word.split('#').next()?.trim();
            let name = word.split_once('@').map_or(word, |(_, name)| name);
            let taken: AtSign = name.parse().ok()?;
            let is_dotted = name.contains('.');
            is_dotted.then(|| format!("@{name} is taken as {taken}: an atSign has no dots"))
        });
        folded.collect()
    }

    fn is_ours(&self, flag: &str, word: &str) -> bool {
        // There it means everybody.
        let is_meant = (self.program, flag, word) == ("rendezvous", "manager", "open");
        let mut names = self.programs.iter().map(|program| program.name);
        !is_meant && (FOR_MANY.contains(&word) || names.any(|name| name == word))
    }

    /// What is missing may stand in another word's place.
    pub(super) fn complete(
        &self,
        words: &[&str],
        line: &CommandLine,
        settings: &Settings,
    ) -> Result<(), Failure> {
        let meant: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        complete(self.grammar, words, line, settings).map_err(|failure| {
            match self.with_device(&meant, line) {
                Some(meant) if !words.iter().any(|word| names_secret(word)) => {
                    failure.hint(replayed(&self.grammar.name, &refs(&meant)))
                }
                _ => failure,
            }
        })
    }

    fn no_flag(&self, word: &str) -> String {
        if takes_secrets(&self.grammar.name) {
            return "unknown flag".to_owned();
        }
        let typed = word.trim_start_matches('-');
        let known = flag_meant(self.grammar, self.program, word).is_some();
        let more = match self.elsewhere(typed).filter(|_| !known) {
            Some(others) => format!(": it is one of {others}"),
            None if known || !self.grammar.is_greedy() || !is_of_ssh(word) => String::new(),
            None if leads_elsewhere(&[word.to_owned(), "0".to_owned()]).is_some() => {
                ": it would lead ssh elsewhere than to the device".to_owned()
            }
            None => ": flags for ssh go after --".to_owned(),
        };
        format!("unknown flag {word:?}{more}")
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
}

/// Our flag for one that is unknown: with one dash too few, by a classic name, another word for it, or nearly this one.
pub(super) fn flag_meant(grammar: &Grammar, program: &str, word: &str) -> Option<String> {
    let typed = word.trim_start_matches('-');
    let known = |name: &&str| grammar.flag(name).is_some();
    let also = ALSO.iter().filter(|row| row.0 == typed).map(|row| row.1);
    let classic = classic::ours(program, word).and_then(|ours| ours.strip_prefix("--"));
    let own = Some(typed).filter(|_| !word.starts_with("--"));
    let of_ssh = LETTERS_OF_SSH.iter().filter(|row| row.0 == word);
    let own = own.into_iter().chain(of_ssh.map(|row| row.1));
    let meant = own.chain(classic).chain(also).find(known);
    let near = || {
        nearest(typed, grammar.flags().map(name_of))
            .first()
            .copied()
    };
    meant.or_else(near).map(|name| format!("--{name}"))
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// `8080:localhost:80`
fn is_forward(word: &str) -> bool {
    let port = word.split(':').next().unwrap_or_default();
    word.contains(':') && port.parse::<u16>().is_ok()
}

/// Refuses a command line in which something is missing that neither a file nor the environment says.
fn complete(
    grammar: &Grammar,
    words: &[&str],
    line: &CommandLine,
    settings: &Settings,
) -> Result<(), Failure> {
    let example = || {
        let own = format!("{} ", grammar.name);
        let example = grammar.examples().find(|example| example.starts_with(&own));
        example.unwrap_or_else(|| usage(grammar))
    };
    let said = |name: &str| line.has(name) || settings.inherited.iter().any(|own| own.name == name);
    let mut required = grammar
        .flags()
        .filter(|flag| flag.optionality == Optionality::Required);
    if let Some(flag) = required.find(|flag| !said(name_of(flag))) {
        return Err(Failure::misuse(format!("{} is missing", flag.long)).hint(example()));
    }
    let mut given = grammar.positionals().zip(&line.plain);
    if let Some((argument, _)) = given.find(|(_, word)| word.is_empty()) {
        return Err(Failure::misuse(format!("<{}> is empty", argument.name)).hint(example()));
    }
    let arguments = grammar.positionals();
    let mut needed = arguments.filter(|row| row.optionality == Optionality::Required);
    match needed.nth(line.plain.len()) {
        Some(argument) => Err(Failure::misuse(format!("<{}> is missing", argument.name))
            .hint(filled(grammar, words, line).unwrap_or_else(example))),
        None => Ok(()),
    }
}

/// What was typed, and the example's arguments where there are none.
fn filled(grammar: &Grammar, words: &[&str], line: &CommandLine) -> Option<String> {
    let example = grammar.examples().next()?;
    let behind = example.strip_prefix(&grammar.name)?;
    let example: Vec<&str> = behind.split_whitespace().collect();
    let example = CommandLine::read(grammar, &example).ok()?;
    let missing = example.plain.get(line.plain.len()..)?;
    let is_hidden = takes_secrets(&grammar.name) || words.iter().any(|word| names_secret(word));
    if is_hidden || words.is_empty() || words.contains(&"--") {
        return None;
    }
    Some(replayed(&grammar.name, &[words, &refs(missing)].concat()))
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
    match near::meant(first, known()) {
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

/// A device as people write it: `pi@fleet`, `root@pi@fleet`, `@fleet/pi`.
struct DevicePlace<'a> {
    user: Option<&'a str>,
    /// Empty: the atSign alone.
    device: &'a str,
    atsign: &'a str,
}

impl<'a> DevicePlace<'a> {
    fn of(word: &'a str) -> Option<Self> {
        let path = word.strip_prefix('@').and_then(|rest| rest.split_once('/'));
        let (before, atsign) = match path {
            Some((atsign, device)) => (device, atsign),
            None => word.rsplit_once('@')?,
        };
        let (user, device) = match before.split_once('@') {
            // `@a@b` is two atSigns.
            Some(("", _)) => return None,
            Some((user, device)) => (Some(user), device),
            None => (None, before),
        };
        crate::session::ask::device_at(&format!("{device}@{atsign}"), None).ok()?;
        Some(Self {
            user,
            device,
            atsign,
        })
    }
}

/// How many words a flag of ssh is, with its value.
fn words_of_ssh(word: &str) -> usize {
    let is_alone = word.chars().count() == 2 && word.ends_with(|c| OF_SSH_WITH_VALUE.contains(c));
    1 + usize::from(is_alone)
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
