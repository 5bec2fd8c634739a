//! What all programs share: their common flags, the environment behind them, exit codes, progress.
//!
//! ```text
//!   flags     --root HOST[:PORT]   --ca FILE …   --keys FILE   --passphrase-file FILE   -q   -v    [`with_account`]
//!     else    NOPORTS_ROOT         NOPORTS_CA    NOPORTS_KEYS  NOPORTS_PASSPHRASE                  account, secret
//!     else    a file of flags                                                                      [`config`]
//!     else    the defaults
//! ```
//!
//! `--as` (or `NOPORTS_AS`) and `--json` are declared by each program, which says whose atSign it is and what
//! it prints.

use log::error;

use super::sys::out;

pub use account::{key_file, network};
pub use console::Console;
pub use draft::{DraftKeyFile, refuse_overwriting};
pub use failure::{Failure, exit};
pub use outcome::Outcome;
pub use progress::Progress;
pub use secret::{Given, Phrases, SecretSource};
pub use voice::{Voice, version};
pub use with_account::Account;
pub(crate) use with_account::with_account;

mod account;
pub mod classic;
pub mod config;
mod console;
mod draft;
mod failure;
pub mod keystore;
mod outcome;
mod progress;
mod secret;
mod voice;
mod with_account;

/// One line of results on stdout. A reader that went away is no error; a full disk goes to the log.
pub fn print_out(line: &str) {
    if let Err(why) = out::line(line) {
        error!("stdout=\"{why}\"");
    }
}

/// One line on stderr.
pub fn print_err(line: &str) {
    out::note(line);
}
