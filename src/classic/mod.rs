//! Everything before NoPorts 5.0, and how the generations differ.
//!
//! | file | what |
//! | --- | --- |
//! | [`generation`] | the table of generations: how old daemons want to be asked |
//! | `habits` | its further columns: what programs of each generation say and understand; for tests only (feature `held`) |
//! | [`reverse`] | 3.x: the device logs in to the client by ssh and brings a port along |
//! | [`two_sshs`] | 4.x, and 5.x without encryption: one ssh carries another |
//! | [`tunnel_ssh`] | the words of the ssh that carries, for both of these; and the file with the key it logs in with |
//! | [`mod@keyring`] | the device's temporary keys for sessions that only ssh encrypts |
//! | `temporary` | the line that lets such a key in, here and on the device |
//! | [`strip`] | what old programs put in front of their stream |
//!
//! Used by [`session`](crate::session) and [`program`](crate::program); uses neither. What the messages of each generation
//! look like stays with the messages, in [`np`](crate::np).

pub mod generation;
#[cfg(feature = "held")]
pub mod habits;
pub mod keyring;
pub mod reverse;
pub mod strip;
mod temporary;
pub mod tunnel_ssh;
pub mod two_sshs;
