//! What all programs share: their common flags, the environment behind them, exit codes, progress.
//!
//! ```text
//!   flags     --root HOST[:PORT]   --ca FILE …   --keys FILE   --passphrase-file FILE   -q   -v    [`flags`](mod@flags)
//!     else    NOPORTS_ROOT         NOPORTS_CA    NOPORTS_KEYS  NOPORTS_PASSPHRASE                  account, secret
//!     else    a file of flags                                                                      [`config`]
//!     else    the defaults
//! ```
//!
//! `--as` (or `NOPORTS_AS`) and `--json` are declared by each program, which says whose atSign it is and what
//! it prints.
//!
//! # When something fails
//!
//! Every failure is one line that says what, one line that says what to try, and an exit code:
//!
//! | code | meaning | code | meaning |
//! | --- | --- | --- | --- |
//! | 0 | done (after ssh has run: ssh's own code) | 7 | the device did not answer |
//! | 1 | failed, or stdout could not be written | 8 | the device refused |
//! | 2 | the command line was wrong | 9 | the rendezvous did not answer or cannot be reached, or the session broke off |
//! | 3 | the key file is missing or cannot be used | 10 | an answer cannot be trusted |
//! | 4 | the atDirectory or an atServer cannot be reached | 11 | a TLS certificate is not trusted here |
//! | 5 | no such atSign | 12 | the service on the device cannot be reached |
//! | 6 | the atServer refused the login | | |
//!
//! `-v` logs to stderr, twice logs more; keys and payloads are never logged. `--json` gives scripts one JSON line. Called by
//! a classic name a program ends with 1 when the command line was wrong.
//!
//! # Environment
//!
//! `NOPORTS_ROOT`, `NOPORTS_CA`, `NOPORTS_AS`, `NOPORTS_KEYS`, `NOPORTS_VIA` and `NOPORTS_PASSPHRASE` stand for the flags of
//! these names, `NOPORTS_CONFIG` for `--config` (empty: no file). The command line wins, then the environment, then the file.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{sys::out, text::terminal::harmless};

pub use account::{key_file, network, with_keys};
pub use console::Console;
pub use draft::{DraftKeyFile, KeyFileLock, refuse_overwriting};
pub use failure::{Failure, exit};
pub(crate) use flags::flags;
pub use flags::{Account, HasOutput, Output, separated};
pub use outcome::Outcome;
pub use progress::Progress;
pub use secret::{Given, Phrases, SecretSource};
pub use voice::{Voice, version};

mod account;
pub mod classic;
pub mod config;
mod console;
mod draft;
mod failure;
mod flags;
pub mod grammar;
pub mod help;
mod hidden;
pub mod keystore;
pub mod misuse;
pub mod near;
mod outcome;
mod progress;
mod secret;
pub mod settings;
mod voice;
pub mod words;

/// Whether something that was to be on stdout is not there.
static LOST: AtomicBool = AtomicBool::new(false);

/// One line of results on stdout. A reader that went away is no error; a full disk is told on stderr, once, and ends the
/// program with [`exit::FAILED`] when it ends; see [`is_output_lost`].
pub fn print_out(line: &str) {
    if let Err(why) = out::line(line)
        && !LOST.swap(true, Ordering::Relaxed)
    {
        print_err(&format!("cannot write to stdout: {why}"));
    }
}

/// Whether a line of results could not be written.
pub fn is_output_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Lines on stderr. Whatever names, files and peers put into them moves no cursor.
pub fn print_err(line: &str) {
    out::note(harmless(line));
}
