//! Everything before NoPorts 5.0, and how the generations differ.
//!
//! | file | what |
//! | --- | --- |
//! | [`generation`] | the table of generations: how old daemons want to be asked |
//! | `habits` | its further columns: what programs of each generation say and understand; only for tests (feature `held`) |
//!
//! Used by [`session`](crate::session) and [`program`](crate::program). What the messages of each generation look like
//! stays with the messages, in [`np`](crate::np).

pub mod generation;
#[cfg(feature = "held")]
pub mod habits;
