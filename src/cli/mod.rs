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

use std::{future::Future, pin::Pin, process::ExitCode};

use argh::FromArgs;
use async_global_executor::GlobalExecutorConfig;
use log::error;

use super::sys::out;

pub use account::{key_file, network};
pub use draft::{Draft, refuse_overwriting};
pub use failure::{Failure, exit};
pub use progress::Progress;
pub use secret::{Given, Phrases, Source, remember_phrase};
pub use voice::{Voice, adopt, classic, version};
pub use with_account::Account;
pub(crate) use with_account::with_account;

mod account;
pub mod classic;
pub mod config;
mod draft;
mod failure;
pub mod keystore;
mod progress;
mod secret;
mod voice;
mod with_account;

/// Reads a program's arguments (without its name). `name` is what help calls it: `noports activate`.
///
/// # Errors
/// `Err` holds the exit code when there is nothing left to do: help was printed, or the misuse named.
pub fn parse<T: FromArgs>(name: &str, args: &[&str]) -> Result<T, ExitCode> {
    let words: Vec<&str> = name.split_whitespace().collect();
    let args =
        config::extend::<T>(&words, args).map_err(|failure| finish(name, false, Err(failure)))?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    T::from_args(&words, &args).map_err(|early| {
        let text = early.output.trim_end();
        if early.status.is_ok() {
            print_out(&format!("{text}{}", config::help(&words, &args)));
            return ExitCode::from(exit::FINE);
        }
        let text = match config::place(text) {
            Some(place) => format!("{place}: {text}"),
            None => text.to_owned(),
        };
        if let Some(voice) = classic() {
            return voice.misuse(&text);
        }
        print_err(&format!("{name}: {text}"));
        print_err(&format!("  hint: {name} --help tells what is possible"));
        ExitCode::from(exit::MISUSE)
    })
}

/// Looks at a service's arguments with `look`, which starts nothing, and says what would keep it from starting.
pub fn verify<T: FromArgs>(
    name: &str,
    words: &[&str],
    look: impl FnOnce(T) -> Result<(), Failure>,
) -> ExitCode {
    match parse(name, words) {
        Ok(args) => finish(name, false, look(args)),
        Err(code) => code,
    }
}

/// Ends a program: prints the failure, if there is one, and gives the exit code.
/// With `json` the failure is also one JSON line on stdout.
pub fn finish(name: &str, json: bool, result: Result<(), Failure>) -> ExitCode {
    let Err(mut failure) = result else {
        return ExitCode::from(exit::FINE);
    };
    if failure.code == exit::MISUSE
        && let Some(place) = config::place(&failure.message)
    {
        failure.message = format!("{place}: {}", failure.message);
    }
    if let Some(voice) = classic() {
        return voice.fail(&failure);
    }
    print_err(&format!("{name}: {failure}"));
    if let Some(hint) = &failure.hint {
        print_err(&format!("  hint: {hint}"));
    }
    if json {
        print_out(&failure.to_json());
    }
    ExitCode::from(failure.code)
}

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

/// [`run`] and [`finish`] for a client, which under a classic name ends as scripts know it when it is told to end.
pub fn run_client<F>(name: &str, json: bool, threads: usize, story: F) -> ExitCode
where
    F: Future<Output = Result<ExitCode, Failure>>,
{
    match run(threads, voice::until_told(story)) {
        Ok(code) => code,
        Err(failure) => finish(name, json, Err(failure)),
    }
}

/// Runs a program's story on this many executor threads. Call it before anything else touches the
/// runtime: its size is fixed by the first use.
pub fn run<F: Future>(threads: usize, story: F) -> F::Output {
    let threads = threads.max(1);
    async_global_executor::init_with_config(
        GlobalExecutorConfig::default()
            .with_min_threads(threads)
            .with_max_threads(threads),
    );
    // One type for all programs: the runtime's own loop is compiled once.
    let story: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(story);
    async_std::task::block_on(story)
}
