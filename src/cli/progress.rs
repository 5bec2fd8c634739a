//! How far a program is, on stderr.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Instant,
};

use super::{print_err, voice};
use crate::{sys::out, text::terminal::harmless};

/// Tells on stderr how far a program is.
///
/// ```text
///   on a terminal            elsewhere                 with -q
///   ✓ logged in as @alice    0.12 s          logged in as @alice       nothing
/// ```
#[derive(Debug)]
pub struct Progress {
    style: ProgressStyle,
    since: Instant,
    /// A line waits for its end.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProgressStyle {
    Silent,
    /// Only the classic programs' own lines.
    Classic,
    Plain,
    Terminal,
}

/// Column of the times, and width that a started line is padded to.
const WIDTH: usize = 62;
/// Columns before the text, and of the time behind it.
const MARK: usize = 4;
const TIME: usize = 9;

impl Progress {
    /// Starts the clock of the first step.
    pub fn new(quiet: bool) -> Self {
        Self::in_style(if quiet {
            ProgressStyle::Silent
        } else if io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb")
        {
            ProgressStyle::Terminal
        } else {
            ProgressStyle::Plain
        })
    }

    /// Tells what the classic programs do, and nothing else.
    pub(super) fn classic_only(quiet: bool) -> Self {
        // They keep quiet when they log: the log tells more.
        let logs = log::max_level() > log::LevelFilter::Warn;
        Self::in_style(if quiet || logs {
            ProgressStyle::Silent
        } else {
            ProgressStyle::Classic
        })
    }

    fn in_style(style: ProgressStyle) -> Self {
        Self {
            style,
            since: Instant::now(),
            begun: false,
        }
    }

    /// Whether nothing is told at all.
    pub fn is_silent(&self) -> bool {
        self.style == ProgressStyle::Silent
    }

    /// A step that takes a while begins: `making keys…`. [`Progress::done`] takes its line's place.
    pub fn begin(&mut self, what: impl Display) {
        self.since = Instant::now();
        let text = match self.style {
            ProgressStyle::Silent | ProgressStyle::Classic => return,
            ProgressStyle::Plain => format!("{what}…\n"),
            ProgressStyle::Terminal => begun(&what.to_string(), columns()),
        };
        self.begun = true;
        write_now(&text);
    }

    /// A step is finished; the next one's clock starts.
    pub fn done(&mut self, what: impl Display) {
        let line = line(
            self.style,
            &harmless(&what.to_string()),
            self.since.elapsed().as_secs_f64(),
            columns(),
        );
        self.since = Instant::now();
        self.begun = false;
        if let Some(line) = line {
            out::note(line);
        }
    }

    /// A line of the classic programs; told only under their names.
    pub fn classic(&self, what: impl Display) {
        if self.style == ProgressStyle::Classic {
            voice::step(what);
        }
    }

    /// A remark that is no step.
    pub fn note(&self, what: impl Display) {
        match self.style {
            ProgressStyle::Silent | ProgressStyle::Classic => {}
            ProgressStyle::Plain => print_err(&what.to_string()),
            ProgressStyle::Terminal => {
                out::note(format_args!("\r\x1b[K    {}", harmless(&what.to_string())))
            }
        }
    }
}

impl Drop for Progress {
    /// What failed is told on a line of its own.
    fn drop(&mut self) {
        if self.begun && self.style == ProgressStyle::Terminal {
            write_now("\r\x1b[K");
        }
    }
}

fn write_now(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Of the terminal behind stderr.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { usize::MAX } else { columns }
}

/// A step that is not finished, on one row: only that one can be written over.
fn begun(what: &str, columns: usize) -> String {
    let room = columns.saturating_sub(MARK + 1);
    if what.chars().count() <= room {
        format!("  … {what}")
    } else {
        format!("  … {}…", what.chars().take(room).collect::<String>())
    }
}

/// The line of a finished step. Its time goes where there is no room for it.
fn line(style: ProgressStyle, what: &str, seconds: f64, columns: usize) -> Option<String> {
    let width = WIDTH.min(columns.saturating_sub(MARK + TIME));
    match style {
        ProgressStyle::Silent | ProgressStyle::Classic => None,
        ProgressStyle::Plain => Some(what.to_owned()),
        ProgressStyle::Terminal if what.chars().count() > width && width < WIDTH => {
            Some(format!("\r\x1b[K  ✓ {what}"))
        }
        ProgressStyle::Terminal => Some(format!("\r\x1b[K  ✓ {what:<width$} {seconds:>6.2} s")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::cli::progress::*;

    #[test]
    fn progress_fits_where_it_goes() {
        let what = "logged in as @alice";
        assert_eq!(line(ProgressStyle::Silent, what, 0.1, 80), None);
        assert_eq!(line(ProgressStyle::Classic, what, 0.1, 80), None);
        assert_eq!(line(ProgressStyle::Plain, what, 0.1, 80).unwrap(), what);
        let shown = line(ProgressStyle::Terminal, what, 0.124, 80).unwrap();
        assert!(shown.ends_with("  0.12 s"), "{shown}");
        assert!(shown.contains("✓ logged in as @alice  "), "{shown}");
    }

    #[test]
    fn no_line_breaks_in_a_narrow_terminal() {
        let visible = |text: &str| text.trim_start_matches("\r\x1b[K").chars().count();
        let (short, long) = (
            "found @alice's atServer",
            "activated; the secret is no longer valid",
        );
        for columns in [20, 40, 60, 80, 200] {
            for what in [short, long] {
                let begun = begun(what, columns);
                assert!(visible(&begun) <= columns, "{columns} {begun}");
                let done = line(ProgressStyle::Terminal, what, 0.1, columns).unwrap();
                let least = MARK + what.chars().count();
                assert!(visible(&done) <= columns.max(least), "{columns} {done}");
            }
        }
        assert!(
            line(ProgressStyle::Terminal, short, 0.1, 40)
                .unwrap()
                .ends_with("0.10 s")
        );
        assert!(
            line(ProgressStyle::Terminal, long, 0.1, 40)
                .unwrap()
                .ends_with("valid")
        );
    }
}
