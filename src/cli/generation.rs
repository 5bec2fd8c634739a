//! Which generation's ways a program has, for tests (feature `held`; no release has it): `NOPORTS_GENERATION=v4.0 noports daemon …` behaves as a
//! daemon of 4.0 towards its peers.
//!
//! ```text
//!   client      open::Ways          how it asks, what it has heard of
//!   daemon      daemon::Ways        what it says of itself, reads and answers
//!   rendezvous  rendezvous::Ways    which requests it reads, how it joins sockets
//! ```
//!
//! Three roles, three tables: what changed from one generation to the next is different for each.

use std::env;

use super::Failure;

/// Names the generation to which a program is held.
pub const GENERATION: &str = "NOPORTS_GENERATION";

/// A role's ways in the generation that the environment names; all there are when it names none.
///
/// # Errors
/// When `of`, the role's table, does not know it.
pub fn ways_of_environment<W: Default>(of: impl FnOnce(&str) -> Option<W>) -> Result<W, Failure> {
    match env::var(GENERATION) {
        Ok(name) if !name.is_empty() => {
            of(&name).ok_or_else(|| Failure::misuse(format!("{GENERATION}={name} is not known")))
        }
        _ => Ok(W::default()),
    }
}
