//! Services of this machine: our programs that never end, in the hands of what starts services here.
//!
//! ```text
//!   words ──plan──▶ Service ──init/*──▶ a file from packaging/services ──▶ the manager's commands
//!                                            │                                     │
//!                    state  ◀── is it ours? ─┘      process ◀── the state file ◀── the running program
//! ```
//!
//! | file | what it knows |
//! | --- | --- |
//! | [`init`] | one file per service manager: where its file is, what it says, how it is told |
//! | [`manager`] | what all of them can do |
//! | [`programs`], [`mod@unit`] | our programs that can be services; one such service |
//! | [`plan`] | from words to a service: whom it runs as, where it writes, whether it would start |
//! | [`mod@file`] | a file that we did not write is never replaced unasked |
//! | [`state`] | what is here, and how it is |
//! | [`others`] | the same for people's own services, as root |
//! | [`process`] | whether the process that told something is still that process; how it is ended |
//! | [`mod@command`], [`quote`] | commands, and words as shells read them |
//!
//! It uses `sys`, `text` and the failures of `cli`; of the programs it knows what [`programs`] says.

pub use manager::Manager;
pub use programs::Program;
pub use unit::Service;

pub mod command;
pub mod file;
pub mod init;
pub mod manager;
pub mod others;
pub mod plan;
pub mod process;
pub mod programs;
pub mod quote;
pub mod state;
pub mod unit;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
