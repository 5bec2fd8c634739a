//! How a command is carried out on a store, however far away its rows are.
//!
//! ```text
//!                 ┌───────────────── again, with the rows that were missing ◀── fetch ──┐
//!                 ▼                                                                     │ some were not at hand
//!   rows ─▶ command(rows, arguments, time) ─▶ answer, changes, events ──────────────────┤
//!                 ▲                                                                     │ all were
//!                 └───────────────── again, with the rows of now ◀── somebody changed ◀── commit ─▶ answer and events out
//!                                                                    what it had read
//! ```
//!
//! A command may run any number of times; only the last time counts. So it depends on nothing but the rows, its
//! arguments and the time it is given, and changes nothing but its [`Tx`]: what it does to anything else comes after
//! the commit, with its answer. What it draws at random ([`Tx::draw`]) stays the same when it runs again.

use crate::sys::panics;

use super::{
    error::StoreError,
    tx::{Access, Chance, Changes, CommitEvent, Rows, Tx},
};

/// How often a command is tried. Each time it learns of more rows, or somebody else's command went through.
const MAX_ATTEMPTS: usize = 200;

/// Where one command finds its rows, and writes its changes. A store behind a network needs two requests for it:
/// "give me these rows and ranges, with their versions", and "make these changes if what I read is still so"
/// (in SQL: a table of key, value and version, `WHERE key >= … AND key < … ORDER BY key`, serialisable).
pub trait Backend {
    /// The rows. One that is not at hand is taken for absent, and remembered for [`Backend::fetch`].
    fn rows(&self) -> &dyn Rows;

    /// Gets what was not at hand; `false`: nothing was missing, and the attempt may count.
    ///
    /// # Errors
    /// When the store fails.
    fn fetch(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Makes the changes; `false`: what the command read has changed since, and nothing was done.
    ///
    /// # Errors
    /// When the store fails, or has no room.
    fn commit(&mut self, changes: Changes) -> Result<bool, StoreError>;
}

/// Runs a command until an attempt of it counts. `Err` of the command undoes all that this attempt did.
///
/// # Errors
/// The command's, or why it could not be kept.
pub(super) fn until_committed<T, E: From<StoreError>>(
    base: &mut dyn Backend,
    access: Access,
    chance: &Chance,
    run: impl Fn(&mut Tx<'_>) -> Result<T, E>,
) -> Result<(T, Vec<CommitEvent>), E> {
    for _ in 0..MAX_ATTEMPTS {
        let mut tx = Tx::new(base.rows(), access, chance);
        let result =
            panics::caught(|| run(&mut tx)).unwrap_or_else(|| Err(StoreError::GivenUp.into()));
        if result.is_err() {
            tx.discard();
        }
        let (changes, events) = tx.finish();
        // Whatever came of an attempt that was missing something: it does not count.
        if base.fetch()? {
            continue;
        }
        // A refusal, too, must be one of rows that are still so.
        if base.commit(changes)? {
            return result.map(|value| (value, events));
        }
    }
    Err(StoreError::Contended.into())
}
