//! What must survive a crash: one file, one writer thread, many readers.
//!
//! ```text
//!   write(command) ─▶ queue ─▶ writer thread: run each command on its own overlay
//!   write(command) ─▶          ├─ Err: its overlay is thrown away, the others do not notice
//!                              ├─ Ok:  its overlay goes into the batch
//!                              └─ one durable commit for the batch ─▶ events out ─▶ answers out
//!   read(command)  ─▶ a snapshot of the last commit
//! ```
//!
//! A command is a closure that may run again ([`attempt`]): it reads rows, decides, and leaves its changes in a [`Tx`],
//! with a list of [`CommitEvent`]s that come true with the commit. What carries it out is a [`attempt::Backend`]:
//!
//! ```text
//!                        rows             what is not at hand        commit
//!   disk     (redb)      all at hand      never                      into the batch; its writer is alone, so no conflict
//!   memory   (tests)     all at hand      never                      into the map
//!   far      (tests)     none at first    asked for in one request   one request, refused if what was read has changed
//! ```
//!
//! `tests::far` stands for a store behind a network, such as an SQL server that several atServers share: all commands of
//! the session's tests run on it, too. What the rows mean is told in [`rows`]; [`records`], [`log`] and [`notes`]
//! give them types.

pub mod attempt;
pub mod backup;
pub mod copies;
pub mod disk;
mod error;
pub mod lists;
pub mod log;
pub mod meta;
pub mod notes;
pub mod quota;
pub mod records;
pub mod register;
pub mod rows;
#[cfg(test)]
pub mod tests;
mod tx;

pub use disk::Store;
pub use error::StoreError;
#[cfg(test)]
pub use tests::MemoryStore;
#[cfg(any(test, feature = "inside"))]
pub use tx::{Access, Chance, Changes, EachRow};
pub use tx::{CommitEvent, Rows, Tx};
