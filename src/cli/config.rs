//! Flags from a file: what stands neither on the command line nor in the environment.
//!
//! ```text
//!   # /etc/noports/daemon.conf: write one flag per line, without the --
//!   as          @my_device
//!   manager     @alice
//!   manager     @bob
//!   permit-open localhost:22,nas:*
//!   hide
//!
//!   command line ─▶ environment (NOPORTS_…) ─▶ file ─▶ default        the first that says something wins
//! ```
//! A value is the rest of its line, as it stands: no quotes, no references; `~/` at its start is the home folder.
//! A flag on the command line takes the place of all lines of that name. The file goes through the same parser
//! as the command line, so there is nothing that only one of them can say.
//!
//! Which file: `--config FILE`, else `NOPORTS_CONFIG` (empty: none), else the first that exists, of whatever kind, of
//! `$XDG_CONFIG_HOME/noports/PROGRAM.conf` (usually in `~/.config`) and `/etc/noports/PROGRAM.conf`. The daemon
//! also takes the classic daemon's YAML file: `--config sshnpd.yaml`. Called by a classic name, a program reads
//! that program's files instead.
//!
//! Files are read for `client`, `tunnel`, `devices`, `daemon`, `rendezvous`, `policy` (`serve`) and `atserver` (`serve`).
//! Errors name the file and the line.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    Failure, exit,
    grammar::{Grammar, repeats, value_of},
    misuse::flag_meant,
    settings::{Origin, Setting},
    words::CommandLine,
};
use crate::{
    sys::{
        file::{NamedFile, Writers},
        paths,
    },
    text::terminal::{escaped, is_hidden},
};

/// Longest file, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Where the machine's files are.
const MACHINE: &str = "/etc/noports";
/// The flag that names the file, without its `--`.
pub const NAME: &str = "config";
/// Names the file; empty: there is none.
const VARIABLE: &str = "NOPORTS_CONFIG";
/// Programs that have such a file, and the word behind their name that it is for.
const PROGRAMS: &[(&str, Option<&str>)] = &[
    ("client", None),
    ("tunnel", None),
    ("daemon", None),
    ("devices", None),
    ("rendezvous", None),
    ("policy", Some("serve")),
    ("atserver", Some("serve")),
];

/// Flags that have a variable of their own, which stands before the file.
const VARIABLES: &[(&str, &str)] = &[
    ("root", "NOPORTS_ROOT"),
    ("ca", "NOPORTS_CA"),
    ("as", "NOPORTS_AS"),
    ("keys", "NOPORTS_KEYS"),
    ("via", "NOPORTS_VIA"),
    ("passphrase-file", "NOPORTS_PASSPHRASE"),
];

/// Reads a classic program's file: its path, its text.
type Foreign<'a> = &'a mut dyn FnMut(&Path, &str) -> Result<Vec<Setting>, Failure>;

/// What could be read, and why not all of it.
type Inherited = (Vec<Setting>, Option<Failure>);

/// What stands in a file and in the environment and was not typed; `program` is its name among ours, `yaml` reads the
/// classic daemon's file. Takes `--config` out of what was typed. What is wrong with the file is a misuse that names it,
/// the line and what is wrong there.
pub fn inherited(
    program: &str,
    grammar: &Grammar,
    line: &mut CommandLine,
    yaml: Foreign,
) -> Inherited {
    let named = line.settings.iter().filter(|setting| setting.name == NAME);
    let named: Vec<String> = named.filter_map(|setting| setting.value.clone()).collect();
    line.settings.retain(|setting| setting.name != NAME);
    let (mut settings, wrong) = match named.as_slice() {
        [first, .., last] => {
            let why = format!("--config is given twice: {first} and {last}");
            let failure = Failure::misuse(why).hint("one file is read; leave the other one out");
            (Vec::new(), Some(failure))
        }
        [only] => read(Path::new(only), program, grammar, yaml),
        [] => match usual(program) {
            Some(path) => {
                let (settings, wrong) = read(&path, program, grammar, yaml);
                (settings, wrong.map(of_variable))
            }
            None => (Vec::new(), None),
        },
    };
    let variables = variables(grammar);
    settings.retain(|setting| !variables.iter().any(|own| own.name == setting.name));
    settings.extend(variables);
    settings.retain(|setting| !line.has(&setting.name));
    (settings, wrong)
}

/// Whether the file of a command line that cannot be read asks for JSON.
pub fn asks_for_json(program: &str, grammar: &Grammar, words: &[&str]) -> bool {
    let flag = format!("--{NAME}");
    let at = words
        .iter()
        .position(|word| word.split('=').next() == Some(&flag));
    let named = at.and_then(|at| match words[at].split_once('=') {
        Some((_, named)) => Some(named),
        None => words.get(at + 1).copied(),
    });
    let file = named.map(PathBuf::from).or_else(|| usual(program));
    let text = file.and_then(|path| Some((text(&path).ok()?, path)));
    text.is_some_and(|(text, path)| {
        let (settings, _) = parse(&path, &text, grammar);
        settings.iter().any(|setting| setting.name == "json")
    })
}

/// Flags of this program whose variable is set to nothing, and that variable.
pub fn empty_variables(grammar: &Grammar) -> Vec<(&'static str, &'static str)> {
    let known = VARIABLES.iter().filter(|row| grammar.flag(row.0).is_some());
    let empty = known.filter(|row| env::var_os(row.1).is_some_and(|value| value.is_empty()));
    empty.copied().collect()
}

/// The variables that stand for flags of this program and are set.
pub fn variables(grammar: &Grammar) -> Vec<Setting> {
    // One that the flag's own words do not name is another one's: `atserver serve --root` asks nobody by default.
    let is_named = |row: &&(&str, &'static str)| {
        grammar
            .flag(row.0)
            .is_some_and(|flag| flag.description.contains(row.1))
    };
    let set = VARIABLES.iter().filter(is_named);
    let set = set.filter_map(|(name, variable)| {
        let value = env::var(variable).ok().filter(|value| !value.is_empty())?;
        // A phrase is no text for a message.
        let value = (*name != "passphrase-file").then_some(value);
        Some(Setting {
            name: (*name).to_owned(),
            value,
            origin: Origin::Variable(variable),
        })
    });
    set.collect()
}

/// What is said about files under a program's help.
pub fn help(program: &str) -> String {
    format!(
        "Flags can also come from a file, one per line, without the --: the file given with --config, else \
         $XDG_CONFIG_HOME/noports/{program}.conf, else {MACHINE}/{program}.conf. The command line wins over the \
         environment, which wins over the file."
    )
}

/// Whether a program, or this word of it, has such a file.
pub fn has_file(program: &str, word: Option<&str>) -> bool {
    PROGRAMS.contains(&(program, word))
}

/// The file of somebody who names none on the command line.
fn usual(program: &str) -> Option<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE) {
        return Some(PathBuf::from(named)).filter(|path| !path.as_os_str().is_empty());
    }
    let file = format!("{program}.conf");
    let own = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(paths::home()?.join(".config")));
    let own = own.map(|folder| folder.join("noports").join(&file));
    let machine = Path::new(MACHINE).join(&file);
    own.into_iter().chain([machine]).find(|path| is_there(path))
}

/// With the variable that named the file, if one did.
fn of_variable(failure: Failure) -> Failure {
    match env::var_os(VARIABLE) {
        Some(_) => Failure {
            message: format!("{} (it is named by {VARIABLE})", failure.message),
            ..failure
        },
        None => failure,
    }
}

/// Whether something is there, of whatever kind: flags that protect must not vanish because it cannot be read. A folder that
/// cannot be looked into, or a link to one that is gone, may hold the file.
fn is_there(path: &Path) -> bool {
    let is_lost = |folder: &Path| folder.is_symlink() && !folder.exists();
    match fs::symlink_metadata(path).map_err(|why| why.kind()) {
        Err(ErrorKind::NotFound) => path.ancestors().skip(1).any(is_lost),
        // Users without a home have `/dev/null` for one.
        found => found.err() != Some(ErrorKind::NotADirectory),
    }
}

/// `~/` at a value's start is the home folder.
fn at_home(value: &str) -> String {
    match (value.strip_prefix("~/"), paths::home()) {
        (Some(rest), Some(home)) => home.join(rest).display().to_string(),
        _ => value.to_owned(),
    }
}

fn read(path: &Path, program: &str, grammar: &Grammar, yaml: Foreign) -> Inherited {
    let text = match text(path) {
        Ok(text) => text,
        Err(failure) => return (Vec::new(), Some(failure)),
    };
    let is_yaml = path
        .extension()
        .is_some_and(|end| end == "yaml" || end == "yml");
    if is_yaml && program == "daemon" {
        return match yaml(path, &text) {
            Ok(settings) => (settings, None),
            Err(failure) => (Vec::new(), Some(failure)),
        };
    }
    let (settings, wrong) = parse(path, &text, grammar);
    let wrong = wrong.map(|(line, why)| {
        Failure::misuse(format!("{}, line {line}: {why}", path.display()))
            .hint("write one flag per line, without the --")
    });
    (settings, wrong)
}

/// A configuration file's text.
///
/// # Errors
/// A misuse that names it: it cannot be read, is too long, is no text, or others could let themselves in with it.
pub fn text(path: &Path) -> Result<String, Failure> {
    let name = escaped(&path.to_string_lossy(), is_hidden);
    NamedFile::open_safe(path, Writers::Group)
        .and_then(|file| file.text(MAX_FILE))
        .map_err(|why| Failure::new(exit::MISUSE, format!("cannot use {name}: {why}")))
}

/// The lines of a file; and what is wrong first, and on which line.
fn parse(path: &Path, text: &str, grammar: &Grammar) -> (Vec<Setting>, Option<(usize, String)>) {
    let (mut settings, mut wrong): (Vec<Setting>, _) = (Vec::new(), None);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match setting(line, &settings, grammar) {
            Ok((name, value)) => settings.push(Setting {
                name: name.to_owned(),
                value: value.map(at_home),
                origin: Origin::File(path.to_owned(), index + 1),
            }),
            Err(why) => wrong = wrong.or(Some((index + 1, why))),
        }
    }
    (settings, wrong)
}

/// A line, behind these.
fn setting<'a>(
    line: &'a str,
    before: &[Setting],
    grammar: &Grammar,
) -> Result<(&'a str, Option<&'a str>), String> {
    let (name, value) = flag(line, grammar)?;
    let once = grammar.flag(name).is_some_and(|flag| !repeats(flag));
    let first = before.iter().find(|other| other.name == name);
    if let Some(Origin::File(_, first)) = first.filter(|_| once).map(|first| &first.origin) {
        return Err(format!("{name} is already set on line {first}"));
    }
    Ok((name, value))
}

fn flag<'a>(line: &'a str, grammar: &Grammar) -> Result<(&'a str, Option<&'a str>), String> {
    if line.contains('\r') {
        return Err("a carriage return alone; lines end with a line feed".to_owned());
    }
    if line.contains('\u{feff}') {
        return Err("a byte-order mark in the middle of the file; save it without".to_owned());
    }
    if line.contains(|c: char| c.is_control() && c != '\t') {
        return Err("a control character".to_owned());
    }
    let (name, value) = line
        .split_once(char::is_whitespace)
        .map_or((line, None), |(name, value)| (name, Some(value.trim())));
    let name = name.strip_prefix("--").unwrap_or(name);
    if name.split('=').next() == Some(NAME) {
        return Err("config is for the command line only".to_owned());
    }
    let Some(flag) = grammar.flag(name) else {
        return Err(match name.split_once('=') {
            Some((name, value)) if grammar.flag(name).is_some() => {
                format!("write {name} {value}, without the =")
            }
            // What stands behind an unknown name may be a secret.
            Some((name, _)) => unknown(name, grammar),
            None => unknown(name, grammar),
        });
    };
    match (value_of(flag).is_some(), value) {
        (true, None) => Err(format!("{name} needs a value")),
        (false, Some(_)) => Err(format!("{name} takes no value")),
        (true, Some(value)) if value.starts_with("= ") => {
            Err(format!("write {name} {}, without the =", value[1..].trim()))
        }
        (true, Some(value))
            if value.starts_with(['"', '\'', '\u{201c}', '\u{201e}', '\u{2018}']) =>
        {
            Err(format!("write the value of {name} without quotes"))
        }
        _ => Ok((name, value)),
    }
}

/// There is no such flag; which one may be meant: by a classic name, another word for it, or nearly this one.
fn unknown(name: &str, grammar: &Grammar) -> String {
    let program = grammar.name.split(' ').nth(1).unwrap_or_default();
    match flag_meant(grammar, program, &format!("--{name}")) {
        Some(near) => format!("unknown flag {name:?}; did you mean {}?", &near[2..]),
        // It may be another file, with a secret in it.
        None => "unknown flag".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::cli::config::*;

    use argh::{ArgsInfo, FromArgs};

    /// for tests
    #[derive(FromArgs, ArgsInfo)]
    #[allow(dead_code)]
    struct Ours {
        /// who
        #[argh(option, long = "as")]
        as_: Option<String>,
        /// whom
        #[argh(option)]
        manager: Vec<String>,
        /// not seen
        #[argh(switch)]
        hide: bool,
        /// log more
        #[argh(switch, short = 'v')]
        verbose: u8,
    }

    fn read(text: &str) -> Result<String, String> {
        let grammar = Grammar::of::<Ours>("noports x");
        let (settings, wrong) = parse(Path::new("f"), text, &grammar);
        if let Some((line, why)) = wrong {
            return Err(format!("line {line}: {why}"));
        }
        let words = settings.iter().map(|setting| {
            let Origin::File(_, line) = &setting.origin else {
                panic!("{setting:?}");
            };
            let value = setting
                .value
                .as_ref()
                .map_or(String::new(), |value| format!("={value}"));
            format!("{line}:{}{value}", setting.name)
        });
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_line_is_a_flag() {
        for (text, want) in [
            ("", Ok("")),
            ("# as @x\n\n  \nas @x\r\n", Ok("4:as=@x")),
            ("--as\t @x y  # z", Ok("1:as=@x y  # z")),
            (
                "manager @a\nmanager @b\nhide\nverbose\nverbose",
                Ok("1:manager=@a 2:manager=@b 3:hide 4:verbose 5:verbose"),
            ),
            ("as @x\nas @y", Err("line 2: as is already set on line 1")),
            ("\nas", Err("line 2: as needs a value")),
            (
                "as \"@x\"",
                Err("line 1: write the value of as without quotes"),
            ),
            (
                "hide\nas \"@x",
                Err("line 2: write the value of as without quotes"),
            ),
            (
                "as \u{201c}@x\u{201d}",
                Err("line 1: write the value of as without quotes"),
            ),
            ("as @x\"", Ok("1:as=@x\"")),
            ("hide yes", Err("line 1: hide takes no value")),
            (
                "mangaer @x",
                Err("line 1: unknown flag \"mangaer\"; did you mean manager?"),
            ),
            ("frobnicate", Err("line 1: unknown flag")),
            ("as=@x", Err("line 1: write as @x, without the =")),
            ("phrase=S", Err("line 1: unknown flag")),
            ("as @x\u{1b}[2J", Err("line 1: a control character")),
            (
                "as @x\rhide\rhide",
                Err("line 1: a carriage return alone; lines end with a line feed"),
            ),
            ("as = @x", Err("line 1: write as @x, without the =")),
            (
                "atsign @x",
                Err("line 1: unknown flag \"atsign\"; did you mean as?"),
            ),
            (
                "as @x\nconfig other.conf",
                Err("line 2: config is for the command line only"),
            ),
            (
                "--config=other.conf",
                Err("line 1: config is for the command line only"),
            ),
            ("help", Err("line 1: unknown flag")),
        ] {
            let want = want.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(read(text), want, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-=a-z@ #\n\t~é]{0,60}") {
            let _ = read(&text);
        }
    }
}
