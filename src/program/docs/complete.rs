//! What can come next on a command line: for the shells' completions, which ask with every word so far.
//!
//! ```text
//!   noports NAME [WORD] …   Grammar ──┐
//!   sshnp, at_activate …    tables  ──┴─▶ Scope: flags, words, arguments ──▶ candidates     what a value can be: values
//! ```
//! One candidate a line, a tab, what it means. `:files` means: the names of files.

use std::{collections::BTreeSet, path::Path};

use argh::Optionality;

use super::{
    grammar,
    values::{Kind, files},
};
use crate::{
    cli::{
        classic::{self, ClassicOption, To},
        grammar::{Grammar, Program, name_of, value_of},
        help,
    },
    program::at_activate,
    service,
    text::terminal::steers,
};

/// All programs of the executable.
type Programs = &'static [Program];

/// A word that can come next, and what it means.
pub(super) type Candidate = (String, String);

/// Candidates for the last of `words`; the first is the name that was called.
pub(super) fn candidates(programs: Programs, words: &[&str]) -> Vec<Candidate> {
    let Some((last, [called, before @ ..])) = words.split_last() else {
        return Vec::new();
    };
    let called = Path::new(called).file_name().and_then(|name| name.to_str());
    let all = match (called, before) {
        (Some("noports"), [] | ["help"]) => shown(programs),
        (Some("noports"), ["help", name]) => {
            Scope::of(programs, name, &[]).map_or_else(Vec::new, |of| of.0.words)
        }
        (Some("noports"), [name, before @ ..]) => next(programs, name, before, last),
        (Some(name), before) => next(programs, name, before, last),
        (None, _) => Vec::new(),
    };
    let fits = |row: &Candidate| row.0.starts_with(':') || row.0.starts_with(last);
    all.into_iter().filter(fits).collect()
}

/// Whether a shell may put it on somebody's line as it stands: names come from files, which others may have named.
pub(super) fn is_safe(row: &Candidate) -> bool {
    let means_something = |c: char| {
        steers(c) || c.is_whitespace() || c.is_ascii_punctuation() && !"@_-.:=/,+%".contains(c)
    };
    !row.0.contains(means_something)
}

fn next(programs: Programs, name: &str, before: &[&str], last: &str) -> Vec<Candidate> {
    Scope::of(programs, name, before)
        .map_or_else(Vec::new, |(scope, before)| scope.candidates(before, last))
}

fn shown(programs: Programs) -> Vec<Candidate> {
    let shown = programs.iter().filter(|program| !program.about.is_empty());
    let shown = shown.map(|program| (program.name.to_owned(), program.about.to_owned()));
    let help = ("help".to_owned(), "tell about a program".to_owned());
    shown.chain([help]).collect()
}

/// A flag, ours or a classic one.
pub(super) struct Flag {
    /// With their hyphens; the first is the one that is offered.
    pub names: Vec<String>,
    pub about: String,
    value: Option<Kind>,
    repeats: bool,
    /// For older peers: offered only when nothing else fits.
    rare: bool,
}

/// What can stand behind a name.
#[derive(Default)]
pub(super) struct Scope {
    pub flags: Vec<Flag>,
    pub words: Vec<Candidate>,
    /// One after the other; the last again and again, if `many`.
    arguments: Vec<Kind>,
    many: bool,
    /// The word that led here: `approve`.
    word: String,
}

impl Scope {
    /// For the program of this name, and the words behind it that are left to look at.
    pub(super) fn of<'a, 'b>(
        programs: Programs,
        name: &str,
        before: &'a [&'b str],
    ) -> Option<(Self, &'a [&'b str])> {
        if name == "at_activate" {
            return Some(Self::of_at_activate(programs, before));
        }
        if let Some((ours, options)) = classic::options(name) {
            return Some((Self::of_options(programs, ours, options), before));
        }
        let fits = |own: &&Program| own.name == name || own.links.contains(&name);
        let program = programs.iter().find(fits)?;
        let own = before.split_first().and_then(|(word, rest)| {
            let grammar = grammar(program, Some(word))?;
            let mut scope = Self::of_grammar(&grammar);
            if let Some(service) = service::Program::named(name).filter(|_| *word == "install") {
                // A service is installed with the flags that it runs with, too.
                let theirs = grammar_of(program, service.serve.get(1).copied());
                scope.add(theirs.flags);
            }
            scope.word = (*word).to_owned();
            Some((scope, rest))
        });
        own.or_else(|| Some((grammar_of(program, None), before)))
    }

    fn of_grammar(grammar: &Grammar) -> Self {
        let flags = grammar.flags().map(|flag| Flag {
            names: [flag.long.to_owned()]
                .into_iter()
                .chain(flag.short.map(|letter| format!("-{letter}")))
                .collect(),
            about: help::row(flag).1,
            value: value_of(flag).map(|value| Kind::of(name_of(flag), value)),
            repeats: flag.optionality == Optionality::Repeating,
            rare: flag.hidden,
        });
        let help = Flag {
            names: vec!["--help".to_owned(), "-h".to_owned()],
            about: help::help_row().1,
            value: None,
            repeats: false,
            rare: false,
        };
        let arguments: Vec<_> = grammar
            .positionals()
            .filter(|row| row.name != "word")
            .collect();
        let last = arguments.last().map(|row| &row.optionality);
        Self {
            flags: flags.chain([help]).collect(),
            words: grammar
                .words()
                .iter()
                .map(|(word, about)| ((*word).to_owned(), (*about).to_owned()))
                .collect(),
            many: matches!(last, Some(Optionality::Repeating | Optionality::Greedy)),
            arguments: arguments
                .iter()
                .map(|row| Kind::of(row.name, row.name))
                .collect(),
            word: String::new(),
        }
    }

    fn of_at_activate<'a, 'b>(programs: Programs, before: &'a [&'b str]) -> (Self, &'a [&'b str]) {
        let mut commands = at_activate::options();
        if let Some((word, rest)) = before.split_first()
            && let Some((name, _, options)) = commands.find(|row| row.0 == *word)
        {
            let scope = Self::of_options(programs, "enroll", options.into_iter());
            let word = if name == "fetch" { "list" } else { name }.to_owned();
            return (Self { word, ..scope }, rest);
        }
        let words =
            at_activate::options().map(|(name, about, _)| (name.to_owned(), about.to_owned()));
        let scope = Self {
            words: words.collect(),
            ..Self::default()
        };
        (scope, before)
    }

    /// Of the options of a classic program; each is told about in the words of our own.
    fn of_options(
        programs: Programs,
        ours: &str,
        options: impl Iterator<Item = &'static ClassicOption>,
    ) -> Self {
        let program = programs.iter().find(|program| program.name == ours);
        let grammar = program.map(Grammar::of_program);
        let about = |to: To| match to {
            To::Help => Some(help::help_row().1),
            To::Version => Some("print the version".to_owned()),
            _ => {
                let ours = to.ours()?.trim_start_matches('-');
                let flag = grammar.as_ref()?.flag(ours)?;
                Some(help::row(flag).1)
            }
        };
        let flag = |(names, letter, to): &'static ClassicOption| Flag {
            names: names
                .iter()
                .map(|name| format!("--{name}"))
                .chain((*letter != 0).then(|| format!("-{}", char::from(*letter))))
                .collect(),
            about: about(*to).unwrap_or_else(|| classic::meaning(*to)),
            value: to.takes_value().then(|| Kind::of_classic(*to)),
            repeats: matches!(to, To::Values(_)),
            rare: matches!(to, To::Given | To::IgnoredValue | To::Choice(_)),
        };
        let mut scope = Self::default();
        scope.add(options.map(flag));
        scope
    }

    /// Adds flags, but for those that are there.
    fn add(&mut self, flags: impl IntoIterator<Item = Flag>) {
        for flag in flags {
            if self
                .flags
                .iter()
                .all(|own| own.names[..1] != flag.names[..1])
            {
                self.flags.push(flag);
            }
        }
    }

    fn flag(&self, name: &str) -> Option<usize> {
        let is_it = |flag: &Flag| flag.names.iter().any(|own| own == name);
        self.flags.iter().position(is_it)
    }

    /// What `last` can become, behind these words.
    fn candidates(&self, before: &[&str], last: &str) -> Vec<Candidate> {
        let values = |kind: &Kind, typed| kind.values(&self.word, before, typed);
        let (mut used, mut plain) = (BTreeSet::new(), 0);
        let mut words = before.iter();
        while let Some(word) = words.next() {
            if *word == "--" {
                return files();
            }
            let (name, glued) = split(word);
            let flag = self.flag(name);
            used.extend(flag);
            plain += usize::from(!word.starts_with('-'));
            if let Some(kind) = flag.and_then(|at| self.flags[at].value.as_ref())
                && glued.is_none()
                && words.next().is_none()
            {
                return values(kind, last);
            }
        }
        if let (name, Some(typed)) = split(last) {
            let kind = self.flag(name).and_then(|at| self.flags[at].value.as_ref());
            let all = kind.map_or_else(Vec::new, |kind| values(kind, typed));
            return all.into_iter().map(|row| glue(name, row)).collect();
        }
        if last.starts_with('-') {
            return self.flags_like(last, &used);
        }
        let mut all = Vec::new();
        if before.is_empty() {
            all.extend(self.words.iter().cloned());
        }
        let argument = self.arguments.get(plain).or_else(|| {
            let last = self.arguments.last();
            last.filter(|_| self.many)
        });
        all.extend(argument.map_or_else(Vec::new, |kind| values(kind, last)));
        all
    }

    /// Flags that begin so and can still be said: by their first name, else by another; rare ones if there is no other.
    fn flags_like(&self, typed: &str, used: &BTreeSet<usize>) -> Vec<Candidate> {
        let left = self.flags.iter().enumerate();
        let left: Vec<&Flag> = left
            .filter(|(at, flag)| flag.repeats || !used.contains(at))
            .map(|(_, flag)| flag)
            .collect();
        let like = |rare: bool, names: usize| {
            let rows = left.iter().filter(|flag| flag.rare == rare);
            let rows = rows.flat_map(|flag| {
                let names = flag.names.iter().take(names);
                names.map(|name| (name.clone(), flag.about.clone()))
            });
            rows.filter(|row| row.0.starts_with(typed))
                .collect::<Vec<Candidate>>()
        };
        let tries = [
            (false, 1),
            (true, 1),
            (false, usize::MAX),
            (true, usize::MAX),
        ];
        let mut found = tries.into_iter().map(|(rare, names)| like(rare, names));
        found.find(|rows| !rows.is_empty()).unwrap_or_default()
    }
}

fn grammar_of(program: &Program, word: Option<&str>) -> Scope {
    grammar(program, word).map_or_else(Scope::default, |grammar| Scope::of_grammar(&grammar))
}

/// `--to=@a` → `--to` and `@a`
fn split(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=').filter(|_| word.starts_with("--")) {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    }
}

fn glue(flag: &str, (value, about): Candidate) -> Candidate {
    if value.starts_with(':') {
        (value, about)
    } else {
        (format!("{flag}={value}"), about)
    }
}

#[cfg(test)]
mod tests {
    use crate::program::{
        PROGRAMS,
        docs::{BASH, FISH, ZSH, complete::*},
    };

    #[test]
    fn what_can_come_next() {
        for (line, want) in [
            ("noports cli", "client"),
            ("noports policy ", "serve check install uninstall status"),
            ("noports policy s", "serve status"),
            ("noports policy serve --r", "--rules --records --root"),
            ("noports policy serve --rules ", ":files"),
            ("noports policy serve --rules=", ":files"),
            ("noports policy install --ru", "--run-as --rules"),
            ("noports policy install --init sys", "systemd systemd-user"),
            ("noports policy install --init=ope", "--init=openrc"),
            ("noports client --timeout 9", "9s 9m 9h 9d"),
            ("noports client --quiet --qu", ""),
            ("noports client -- ", ":files"),
            ("noports help poli", "policy"),
            ("noports help policy c", "check"),
            ("noports nothing ", ""),
            ("noports", ""),
            ("noports sshnp --fro", "--from"),
            ("/usr/bin/sshnp -f", "-f"),
            ("sshnp --dpt", "--dpt"),
            ("sshnpd --ssh-algorithm ", "ssh-ed25519 ssh-rsa"),
            ("at_activate unr", "unrevoke"),
            ("srv --loc", "--local-host --local-source --local-port"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let found = candidates(PROGRAMS, &words);
            let found: Vec<_> = found.iter().map(|row| row.0.as_str()).collect();
            assert_eq!(found.join(" "), want, "{line}");
        }
    }

    #[test]
    fn nothing_is_offered_that_a_shell_or_a_terminal_would_act_on() {
        for (word, safe) in [
            ("@alice", true),
            ("pi1@fleet", true),
            ("--to=@🦄", true),
            (":files", true),
            ("1h30m", true),
            ("@a\u{1b}[2J", false),
            ("@a\u{202e}b", false),
            ("@a|id", false),
            ("@a<b", false),
            ("@a\"b", false),
            ("@a\\b", false),
            ("@a~b", false),
            ("@a b", false),
            ("$(id)", false),
        ] {
            assert_eq!(is_safe(&(word.to_owned(), String::new())), safe, "{word}");
        }
    }

    #[test]
    fn the_scripts_are_for_every_name() {
        for link in PROGRAMS.iter().flat_map(|program| program.links) {
            for script in [BASH, ZSH, FISH] {
                assert!(
                    script.split_whitespace().any(|word| word == *link),
                    "{link}"
                );
            }
        }
    }
}
