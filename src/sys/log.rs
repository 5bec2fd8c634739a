//! Logs: one line each on stderr, readable by people and by the journal.
//!
//! ```text
//!   2026-11-21T10:00:00.123Z info  program::bridge: side=device ended up=52 down=1090     a terminal or a file
//!   <6>program::bridge: side=device ended up=52 down=1090                                 the journal adds time itself
//! ```

use std::{
    env,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use log::{Level, LevelFilter};

/// Starts logging; later calls change nothing.
///
/// * `usual` — the program's level without flags.
/// * `verbose` — how often `-v` was given: one level more each.
/// * `quiet` — `-q`: errors only.
///
/// `NOPORTS_LOG` (a level, or `module=level,…`) overrules all three. Other crates never get below warnings
/// by flags alone.
pub fn start(usual: LevelFilter, verbose: u8, quiet: bool) {
    let level = level(usual, verbose, quiet);
    let journal = is_journal();
    let mut builder = env_logger::Builder::new();
    match env::var(VARIABLE) {
        Ok(wanted) if !wanted.is_empty() => builder.parse_filters(&wanted),
        _ => builder
            .filter_level(level.min(LevelFilter::Warn))
            .filter_module(OURS, level),
    };
    builder.format(move |out, record| {
        let text = record.args().to_string();
        let line = line(
            SystemTime::now(),
            record.level(),
            record.target(),
            &text,
            journal,
        );
        out.write_all(line.as_bytes())
    });
    let _ = builder.try_init();
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
    let place = target.strip_prefix(OURS).unwrap_or(target);
    let place = place.trim_start_matches("::");
    let text = one_line(text);
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

/// What a peer sent may be quoted in a log; it must not forge a second line or drive the terminal.
fn one_line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A moment as `2026-11-21T10:00:00.123Z`; before 1970 counts as 1970.
pub fn utc(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years that begin in March put the leap day last; 719 468 days lie before 1970-01-01 since 0000-03-01.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
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
/// Overrules the flags.
const VARIABLE: &str = "NOPORTS_LOG";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (1_735_689_600, "2025-01-01T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let moment = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(7);
            assert_eq!(utc(moment), want);
        }
    }

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
}
