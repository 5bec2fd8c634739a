//! Flags from a file: what stands neither on the command line nor in the environment.
//!
//! ```text
//!   # /etc/noports/daemon.conf: one flag per line, as on the command line, without the --
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
//! Which file: `--config FILE`, else `NOPORTS_CONFIG` (empty: none), else the first that exists of
//! `$XDG_CONFIG_HOME/noports/PROGRAM.conf` (usually in `~/.config`) and `/etc/noports/PROGRAM.conf`. The daemon
//! also takes the classic daemon's YAML file: `--config sshnpd.yaml`. Called by a classic name, a program reads
//! that program's files instead.
//!
//! Files are read for `client`, `tunnel`, `devices`, `daemon`, `rendezvous`, `policy` (`serve`) and `atserver` (`serve`).
//! Errors name the file and the line.

use std::{
    env, fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use argh::FromArgs;

use super::{Failure, exit};
use crate::sys::paths;

use flags::Flags;
pub use origin::{Origin, Setting};

mod flags;
mod origin;

/// Longest file, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Where the machine's files are.
const MACHINE: &str = "/etc/noports";
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

/// What is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadSetting {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub why: String,
}

/// Reads a classic program's file: its path, its text.
type Foreign<'a> = &'a mut dyn FnMut(&Path, &str) -> Result<Vec<Setting>, Failure>;

/// Adds to a command line what a file says, and tells which of its lines count. `name` is what help calls the
/// program, word by word; `yaml` reads the classic daemon's file.
///
/// # Errors
/// A misuse that names the file, the line and what is wrong there.
pub fn extend<T: FromArgs>(
    name: &[&str],
    words: &mut Vec<String>,
    yaml: Foreign,
) -> Result<Option<Origin>, Failure> {
    let args: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((program, word)) = program(name, &args) else {
        return Ok(None);
    };
    let below = usize::from(word.is_some());
    let help = [&args[..below], &["--help"]].concat();
    let Err(help) = T::from_args(name, &help) else {
        return Ok(None);
    };
    let flags = Flags::of(&help.output);
    let line = flags.read(&args[below..]);
    if line.dangling {
        return Err(Failure::misuse("--config needs a file").hint("--config FILE"));
    }
    let given = line.given;
    let named = line
        .config
        .map(|(at, file)| (below + at, PathBuf::from(file)));
    let path = if let Some((at, file)) = named {
        words.drain(at..at + 2);
        file
    } else if let Some(file) = usual(program) {
        file
    } else {
        return Ok(None);
    };
    let mut settings = read(&path, program, &flags, yaml)?;
    settings.retain(|setting| {
        let variable = VARIABLES.iter().find(|row| row.0 == setting.name);
        let from_outside = variable.is_some_and(|row| is_set(row.1));
        !from_outside && !given.contains(&setting.name)
    });
    let mut added = Vec::new();
    for setting in &settings {
        added.push(format!("--{}", setting.name));
        added.extend(setting.value.as_deref().map(at_home));
    }
    let variables = VARIABLES.iter().filter_map(|row| env::var(row.1).ok());
    let elsewhere = words.iter().cloned().chain(variables).collect();
    words.splice(below..below, added);
    Ok(Some(Origin::new(&path, settings, elsewhere)))
}

/// What is said about files under a program's help.
pub fn help(name: &[&str], args: &[&str]) -> String {
    match program(name, args) {
        None => String::new(),
        Some((program, _)) => format!(
            "\n\n--config FILE reads further flags from a file: one per line, without the --. Without it:\n\
             $XDG_CONFIG_HOME/noports/{program}.conf or {MACHINE}/{program}.conf. The command line wins, then the\n\
             environment."
        ),
    }
}

fn program(name: &[&str], args: &[&str]) -> Option<(&'static str, Option<&'static str>)> {
    let last = name.last()?;
    let found = PROGRAMS.iter().find(|row| row.0 == *last)?;
    let fits = found.1.is_none_or(|below| args.first() == Some(&below));
    (fits && name.len() > 1).then_some(*found)
}

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
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
    own.into_iter().chain([machine]).find(|path| path.exists())
}

fn at_home(value: &str) -> String {
    match (value.strip_prefix("~/"), paths::home()) {
        (Some(rest), Some(home)) => home.join(rest).display().to_string(),
        _ => value.to_owned(),
    }
}

fn read(path: &Path, program: &str, flags: &Flags, yaml: Foreign) -> Result<Vec<Setting>, Failure> {
    let name = path.display();
    let text = text(path)?;
    let is_yaml = path
        .extension()
        .is_some_and(|end| end == "yaml" || end == "yml");
    if is_yaml && program == "daemon" {
        return yaml(path, &text);
    }
    parse(&text, flags).map_err(|bad| {
        Failure::misuse(format!("{name}, {bad}"))
            .hint("one flag per line, as on the command line, without the --")
    })
}

/// A configuration file's text.
///
/// # Errors
/// A misuse that names it: it cannot be read, is too long, is no text, or can be written by everybody, who could
/// then let themselves in.
pub fn text(path: &Path) -> Result<String, Failure> {
    let name = path.display();
    let bad = |why: String| Failure::new(exit::MISUSE, format!("cannot use {name}: {why}"));
    let file = fs::File::open(path).map_err(|why| bad(why.to_string()))?;
    let about = file.metadata().map_err(|why| bad(why.to_string()))?;
    if about.is_file() && about.permissions().mode() & 0o002 != 0 {
        return Err(bad("everybody may write to it".to_owned()).hint(format!("chmod o-w {name}")));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(|why| bad(why.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(bad(format!("it is longer than {MAX_FILE} bytes")));
    }
    Ok(text)
}

fn parse(text: &str, flags: &Flags) -> Result<Vec<Setting>, BadSetting> {
    let mut settings: Vec<Setting> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let bad = |why: String| BadSetting {
            line: line_number,
            why,
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains(char::is_control) && line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(bad("a control character".to_owned()));
        }
        let (name, value) = line
            .split_once(char::is_whitespace)
            .map_or((line, None), |(name, value)| (name, Some(value.trim())));
        let name = name.strip_prefix("--").unwrap_or(name);
        let Some(flag) = flags.find(name) else {
            let why = match name.split_once('=') {
                Some((name, value)) => format!("write {name} {value}, without the ="),
                None => format!("there is no flag {name:?}{}", flags.nearest(name)),
            };
            return Err(bad(why));
        };
        match (flag.takes_value, value) {
            (true, None) => return Err(bad(format!("{name} needs a value"))),
            (false, Some(_)) => return Err(bad(format!("{name} takes no value"))),
            _ => {}
        }
        let first = settings.iter().find(|s| s.name == name);
        if let Some(first) = first.filter(|_| !flag.repeats) {
            return Err(bad(format!("{name} stands on line {} already", first.line)));
        }
        settings.push(Setting {
            line: line_number,
            name: name.to_owned(),
            value: value.map(str::to_owned),
        });
    }
    Ok(settings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::cli::config::*;

    const HELP: &str = "Usage: noports x [--as <as>] [--manager <manager...>] [--hide] [-v]\n\nDoes it.\n\nOptions:\n  --as  who\n  -v, --verbose     log more\n";

    fn read(text: &str) -> Result<String, String> {
        let settings = parse(text, &Flags::of(HELP)).map_err(|bad| bad.to_string())?;
        let words = settings.iter().map(|s| match &s.value {
            Some(value) => format!("{}:{}={value}", s.line, s.name),
            None => format!("{}:{}", s.line, s.name),
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
            ("as @x\nas @y", Err("line 2: as stands on line 1 already")),
            ("\nas", Err("line 2: as needs a value")),
            ("hide yes", Err("line 1: hide takes no value")),
            (
                "mangaer @x",
                Err("line 1: there is no flag \"mangaer\"; manager?"),
            ),
            ("frobnicate", Err("line 1: there is no flag \"frobnicate\"")),
            ("as=@x", Err("line 1: write as @x, without the =")),
            ("as @x\u{1b}[2J", Err("line 1: a control character")),
            ("help", Err("line 1: there is no flag \"help\"")),
        ] {
            let want = want.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(read(text), want, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-=a-z@ #\n\t~é]{0,60}") {
            let _ = parse(&text, &Flags::of(HELP));
        }
    }
}
