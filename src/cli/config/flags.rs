//! Which flags a program has, as its own help says.
//!
//! argh tells nothing else about them, and a second list would drift away from the first.

/// The flag that names a file of flags.
const CONFIG: &str = "--config";

/// The flags of one program.
#[derive(Debug, Default)]
pub(super) struct Flags {
    flags: Vec<Flag>,
    /// Behind the first plain word everything is one.
    greedy: bool,
}

/// One flag, as help shows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flag {
    /// Without its `--`.
    name: String,
    short: Option<char>,
    /// Whether a value stands behind it.
    pub(super) takes_value: bool,
    /// Whether it may be given more than once.
    pub(super) repeats: bool,
}

/// A command line, as far as a file matters to it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine<'a> {
    /// Names of the flags on it.
    pub(super) given: Vec<String>,
    /// Where `--config` stands, and what behind it.
    pub(super) config: Option<(usize, &'a str)>,
    /// `--config` is the last word.
    pub(super) dangling: bool,
}

impl Flags {
    /// From a help text: what takes a value stands in the line of usage, short names in the table below.
    pub(super) fn of(help: &str) -> Self {
        let usage = help.lines().next().unwrap_or_default();
        let mut words = usage.split_whitespace().peekable();
        let mut all = Self::default();
        while let Some(word) = words.next() {
            let bare = word.trim_matches(['[', ']']);
            let value = words.peek().filter(|next| next.starts_with('<'));
            if bare.starts_with('-') {
                let takes_value = !word.ends_with(']') && value.is_some();
                all.flags.push(Flag {
                    name: bare.trim_start_matches('-').to_owned(),
                    short: None,
                    takes_value,
                    repeats: !takes_value || value.is_some_and(|v| v.contains("...")),
                });
            } else if word.starts_with('[') && word.ends_with("...]") {
                all.greedy = true;
            }
        }
        for line in help.lines() {
            let Some((short, long)) = line.trim_start().split_once(", --") else {
                continue;
            };
            let (Some(short), None) = (short.strip_prefix('-'), short.get(2..3)) else {
                continue;
            };
            let long = long.split_whitespace().next().unwrap_or_default();
            let flag = all
                .flags
                .iter_mut()
                .find(|f| f.name == short || f.name == long);
            if let Some(flag) = flag {
                flag.name = long.to_owned();
                flag.short = short.chars().next();
            }
        }
        all
    }

    pub(super) fn find(&self, name: &str) -> Option<&Flag> {
        self.flags.iter().find(|flag| flag.name == name)
    }

    /// `; manager?` where that is close to what was written.
    pub(super) fn nearest(&self, name: &str) -> String {
        let near = self
            .flags
            .iter()
            .map(|flag| (distance(&flag.name, name), &flag.name))
            .min();
        match near {
            Some((steps, other)) if steps <= 2 && steps * 2 < name.len() => format!("; {other}?"),
            _ => String::new(),
        }
    }

    /// Looks through a command line as argh will.
    pub(super) fn read<'a>(&self, args: &[&'a str]) -> CommandLine<'a> {
        let mut line = CommandLine::default();
        let mut at = 0;
        while let Some(&word) = args.get(at) {
            if word == "--" || (self.greedy && !word.starts_with('-')) {
                break;
            }
            if word == CONFIG && self.find("config").is_none() {
                line.config = args.get(at + 1).map(|&file| (at, file));
                line.dangling = line.config.is_none();
                at += 2;
                continue;
            }
            let flag = self.flags.iter().find(|flag| {
                word.strip_prefix("--") == Some(&flag.name)
                    || (word.len() == 2 && flag.short.is_some_and(|c| word.ends_with(c)))
            });
            if let Some(flag) = flag {
                line.given.push(flag.name.clone());
                at += usize::from(flag.takes_value);
            }
            at += 1;
        }
        line
    }
}

/// How many letters have to be changed, added, left out or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(40).collect(), b.chars().take(40).collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = usize::from(a[i - 1] != b[j - 1]);
                let mut least = (rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
                    .min(rows[i - 1][j - 1] + change);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use crate::cli::config::flags::*;

    const HELP: &str = "Usage: noports client --to <to> [--ca <ca...>] [-p <port>] [--print] [-q] [ssh...]\n\nOptions:\n  --to   whom\n  -p, --port  port\n  -q, --quiet       no progress, --to no one\n  --help, help      this\n";

    #[test]
    fn help_tells_which_flags_there_are() {
        let flags = Flags::of(HELP);
        let all: Vec<_> = flags
            .flags
            .iter()
            .map(|f| (f.name.as_str(), f.short, f.takes_value, f.repeats))
            .collect();
        assert_eq!(
            all,
            [
                ("to", None, true, false),
                ("ca", None, true, true),
                ("port", Some('p'), true, false),
                ("print", None, false, true),
                ("quiet", Some('q'), false, true),
            ]
        );
        assert!(flags.greedy);
    }

    #[test]
    fn the_flag_is_found_where_it_is_one() {
        let flags = Flags::of(HELP);
        for (args, given, config) in [
            ("", "", None),
            ("--to @d -q --config f", "to quiet", Some((3, "f"))),
            ("--config f -p 1", "port", Some((0, "f"))),
            ("--to --config -q", "to quiet", None),
            ("--to @d ls --config f", "to", None),
            ("--to @d -- --config f", "to", None),
        ] {
            let words: Vec<&str> = args.split_whitespace().collect();
            let line = flags.read(&words);
            assert_eq!(
                (line.given.join(" ").as_str(), line.config),
                (given, config),
                "{args}"
            );
        }
        assert!(flags.read(&["--config"]).dangling);
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        for (name, want) in [
            ("qiuet", "; quiet?"),
            ("prnt", "; print?"),
            ("qu", ""),
            ("frobnicate", ""),
        ] {
            assert_eq!(Flags::of(HELP).nearest(name), want, "{name}");
        }
    }
}
