//! Panics: caught where damaged data makes a library panic, and told without the folders of whoever compiled it.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
};

use log::debug;

use super::out;

/// Where the sources of libraries are on the machine that compiles, and ours.
const REGISTRY: &str = "/registry/src/";
const LIBRARY: &str = "/library/";

thread_local! {
    /// This thread looks after panics itself.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs it; `None`: it panicked, which goes to the log and not to the person.
pub fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    let before = IS_CAUGHT.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(run));
    IS_CAUGHT.set(before);
    done.ok()
}

/// For the whole process. With `RUST_BACKTRACE` panics that nobody catches are told as usual.
pub fn tell_in_short() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |why| {
        if IS_CAUGHT.get() {
            debug!("caught={:?}", line(why));
        } else if std::env::var_os("RUST_BACKTRACE").is_some() {
            usual(why);
        } else {
            out::note(format!("noports: internal error: {}", line(why)));
        }
    }));
}

fn line(why: &PanicHookInfo) -> String {
    let said = why.payload();
    let text = said.downcast_ref::<&str>().copied();
    let text = text.or_else(|| said.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no reason given");
    match why.location() {
        Some(at) => format!("{text} ({}:{})", place(at.file()), at.line()),
        None => text.to_owned(),
    }
}

/// `redb-4.5.0/src/lib.rs` of a file of a library.
fn place(file: &str) -> &str {
    match (file.split_once(REGISTRY), file.split_once(LIBRARY)) {
        // The registry's own folder comes first.
        (Some((_, rest)), _) => rest.split_once('/').map_or(rest, |(_, rest)| rest),
        (None, Some((_, rest))) => rest,
        (None, None) => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_without_the_folders_of_whoever_compiled_it() {
        for (file, want) in [
            (
                "/home/me/.cargo/registry/src/index.crates.io-1949cf8c/redb-4.5.0/src/db.rs",
                "redb-4.5.0/src/db.rs",
            ),
            (
                "/rustc/0123abcd/library/core/src/option.rs",
                "core/src/option.rs",
            ),
            ("src/sys/out.rs", "src/sys/out.rs"),
        ] {
            assert_eq!(place(file), want);
        }
    }

    #[test]
    fn what_panics_is_caught_and_the_next_panic_is_told_again() {
        assert_eq!(caught(|| 1), Some(1));
        assert_eq!(caught(|| caught(|| panic!("in")).is_none()), Some(true));
        assert!(!IS_CAUGHT.get());
    }
}
