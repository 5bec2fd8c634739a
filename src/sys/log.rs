//! Logs: one line each on stderr, readable by people and by the journal.
//!
//! ```text
//!   2026-11-21T10:00:00.123Z info  program::bridge: side=device ended up=52 down=1090     a terminal or a file
//!   <6>program::bridge: side=device ended up=52 down=1090                                 the journal adds time itself
//! ```

use std::{env, io::Write, time::SystemTime};

use env_logger::Target;
use log::{Level, LevelFilter};

use super::out;
use crate::text::{
    calendar::utc,
    terminal::{LONGEST, cut, escaped, steers},
};

/// Starts logging; later calls change nothing.
///
/// * `usual` — the program's level without flags.
/// * `verbose` — how often `-v` was given: one level more each.
/// * `quiet` — `-q`: errors only.
///
/// `NOPORTS_LOG` (a level, or `module=level,…`) overrules all three. Other crates never get below warnings
/// by flags alone.
pub fn start(usual: LevelFilter, verbose: u8, quiet: bool, reader: Reader) {
    let level = level(usual, verbose, quiet);
    let journal = is_journal();
    let mut builder = env_logger::Builder::new();
    let wanted = env::var(VARIABLE).unwrap_or_default();
    let bad = bad_filter(&wanted);
    if let Some(bad) = bad {
        let (all, bad) = (cut(&wanted, LONGEST), cut(bad, LONGEST));
        out::note(format_args!(
            "{VARIABLE}={all:?} is not heeded: {bad:?} is no level; there are {}, and MODULE=LEVEL,…",
            LEVELS.join(", ")
        ));
    }
    let by_variable = bad.is_none() && !wanted.is_empty();
    if by_variable {
        builder.parse_filters(&wanted);
    } else {
        // Ours are let through up to the level that is set below, so that it can change.
        builder
            .filter_level(level.min(LevelFilter::Warn))
            .filter_module(OURS, LevelFilter::Trace);
    }
    builder.target(Target::Pipe(Box::new(out::Stderr)));
    builder.format(move |out, record| {
        let text = record.args().to_string();
        if reader == Reader::Person && verbose == 0 && !by_variable && !journal {
            return out.write_all(remark(record.level().as_str(), &text).as_bytes());
        }
        let line = line(
            SystemTime::now(),
            record.level(),
            record.target(),
            &text,
            journal,
        );
        out.write_all(line.as_bytes())
    });
    if builder.try_init().is_ok() && !by_variable {
        set_level(level);
    }
}

/// Who reads a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Whoever waits for a program's end: without `-v` they have no use for time and place.
    Person,
    /// Another program, or somebody much later.
    Operator,
}

/// A record for somebody who waits.
fn remark(level: &str, text: &str) -> String {
    let word = match level {
        "WARN" => "WARNING",
        other => other,
    };
    format!("{word}: {}\n", escaped(text, steers))
}

/// A line of another program's log, as somebody who waits reads it; one that is none as it is.
pub fn without_place(line: &str) -> String {
    let read = || {
        let (_time, rest) = line.split_once("Z ")?;
        let (level, rest) = rest.split_once(' ')?;
        let (_place, text) = rest.split_once(": ")?;
        let level = level.to_ascii_uppercase();
        LEVELS
            .contains(&level.to_ascii_lowercase().as_str())
            .then(|| remark(&level, text).trim_end().to_owned())
    };
    read().unwrap_or_else(|| line.to_owned())
}

/// From now on so much is told; where `NOPORTS_LOG` is set, no more than that lets through.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// The first part of `info` or `module=level,module=level` that is neither. Whoever reads it takes any word for a module's
/// name, and says nothing then.
fn bad_filter(wanted: &str) -> Option<&str> {
    // Behind a slash stands what a line has to hold.
    let (filters, _) = wanted.split_once('/').unwrap_or((wanted, ""));
    let mut parts = filters.split(',').filter(|part| !part.trim().is_empty());
    parts.find(|part| {
        let level = part.split_once('=').map_or(*part, |(_, level)| level);
        !LEVELS.contains(&level.trim().to_lowercase().as_str())
    })
}

fn level(usual: LevelFilter, verbose: u8, quiet: bool) -> LevelFilter {
    if quiet {
        return LevelFilter::Error;
    }
    let wanted = usual as usize + usize::from(verbose);
    LevelFilter::iter()
        .nth(wanted)
        .unwrap_or(LevelFilter::Trace)
}

fn line(now: SystemTime, level: Level, target: &str, text: &str, journal: bool) -> String {
    let module = target.strip_prefix(OURS).unwrap_or(target);
    let place = module.trim_start_matches("::");
    // What a peer sent may be quoted here; it must not forge a second line or drive the terminal.
    let text = escaped(text, steers);
    if journal {
        return format!("<{}>{place}: {text}\n", priority(level));
    }
    let name = level.as_str().to_ascii_lowercase();
    format!("{} {name:<5} {place}: {text}\n", utc(now))
}

/// The kernel's numbers, which the journal reads from the start of a line.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The service manager names the stream it reads; stderr may have been redirected since.
fn is_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else {
        return false;
    };
    env::var("JOURNAL_STREAM")
        .is_ok_and(|named| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Our own modules' prefix.
const OURS: &str = "noports";
/// Its words, as the variable has them.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Overrules the flags.
const VARIABLE: &str = "NOPORTS_LOG";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn flags_move_the_level() {
        for (usual, verbose, quiet, want) in [
            (LevelFilter::Info, 0, false, LevelFilter::Info),
            (LevelFilter::Warn, 1, false, LevelFilter::Info),
            (LevelFilter::Info, 1, false, LevelFilter::Debug),
            (LevelFilter::Info, 9, false, LevelFilter::Trace),
            (LevelFilter::Info, 1, true, LevelFilter::Error),
        ] {
            assert_eq!(
                level(usual, verbose, quiet),
                want,
                "{usual} {verbose} {quiet}"
            );
        }
    }

    #[test]
    fn a_filter_that_means_nothing_is_found() {
        for (wanted, want) in [
            ("", None),
            ("info", None),
            ("DEBUG", None),
            ("warn,noports::server=trace", None),
            ("off/word", None),
            ("zzz", Some("zzz")),
            ("info,zzz", Some("zzz")),
            ("noports=loud", Some("noports=loud")),
            ("noports::server", Some("noports::server")),
        ] {
            assert_eq!(bad_filter(wanted), want, "{wanted}");
        }
    }

    #[test]
    fn one_record_is_one_line_whatever_a_peer_put_into_it() {
        let text = "from=\u{1b}[2J\n2026 info forged";
        let line = line(
            UNIX_EPOCH,
            Level::Info,
            "noports::program::bridge",
            text,
            false,
        );
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000Z info  program::bridge: from=\\u{1b}[2J\\n2026 info forged\n"
        );
    }

    #[test]
    fn a_persons_line_has_neither_time_nor_place() {
        for (line, want) in [
            (
                "1970-01-01T00:00:00.000Z warn  session::bridge: connection=3 ended reason=\"x: y\"",
                "WARNING: connection=3 ended reason=\"x: y\"",
            ),
            ("1970-01-01T00:00:00.000Z error at: x", "ERROR: x"),
            ("what is no log line: stays", "what is no log line: stays"),
            ("JAZZ is no level: stays", "JAZZ is no level: stays"),
        ] {
            assert_eq!(without_place(line), want);
        }
        assert_eq!(
            remark("WARN", "a\u{1b}[2J\nb"),
            "WARNING: a\\u{1b}[2J\\nb\n"
        );
    }

    #[test]
    fn the_journal_gets_priorities_instead_of_times() {
        for (level, want) in [
            (Level::Error, "<3>rustls: x\n"),
            (Level::Warn, "<4>rustls: x\n"),
            (Level::Info, "<6>rustls: x\n"),
            (Level::Trace, "<7>rustls: x\n"),
        ] {
            assert_eq!(line(UNIX_EPOCH, level, "rustls", "x", true), want);
        }
    }

    /// All files of ours that ship, by path.
    fn sources() -> Vec<(String, String)> {
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let ships = text.split("#[cfg(test)]").next().unwrap_or_default();
                    found.push((path.display().to_string(), ships.to_owned()));
                }
            }
        }
        found
    }

    /// The text of each log line, from its macro's name to the end of the call.
    fn log_lines(text: &str) -> impl Iterator<Item = &str> {
        let macros = ["error!(", "warn!(", "info!(", "debug!("];
        macros.into_iter().flat_map(move |name| {
            let lines = text.split(name).skip(1);
            lines.map(|rest| {
                let ends = [")\n", "),\n", ");\n"].into_iter();
                let end = ends.filter_map(|end| rest.find(end)).min();
                rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
            })
        })
    }

    /// There were `reason=`, `error=` and `why=`, and errors as Rust writes them: `Directory { … }`.
    #[test]
    fn a_log_line_has_one_word_for_a_reason_and_tells_it_in_words() {
        let (mut lines, mut bad) = (0, Vec::new());
        for (path, text) in sources() {
            for line in log_lines(&text) {
                lines += 1;
                let other = [" why=", " error=", "\"why=", "\"error="];
                let debug = ["{error:?}", "{failure:?}", "other.err()"];
                if other.iter().chain(&debug).any(|word| line.contains(word)) {
                    bad.push(format!("{path}: {line}"));
                }
            }
        }
        assert!(lines > 100, "{lines}");
        assert!(bad.is_empty(), "{bad:#?}");
    }
}
