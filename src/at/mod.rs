//! The atProtocol, usable without NoPorts.
//!
//! ```text
//!    ┌────────────┐ where is @alice? ┌─────────────┐
//!    │            │ ───────────────▶ │ atDirectory │
//!    │   client   │ ◀── host:port ── └─────────────┘
//!    │            │                  ┌──────────────────┐   notify    ┌────────────────┐
//!    │            │ ── verb ───────▶ │ @alice's atServer│ ──────────▶ │ @bob's atServer│
//!    │            │ ◀─ reply ─────── └──────────────────┘             └────────────────┘
//!    └────────────┘
//! ```
//!
//! Words: [`atsign`], [`key`], [`metadata`], [`verb`], [`reply`], [`fault`], [`error`], [`notification`].
//! Keys and ciphers: [`crypto`], [`keyfile`], [`passphrase`], [`auth`], [`share`], [`enrolment`].
//! I/O lives in [`directory`], [`client`] and [`pins`] (the keys of others) alone; everything else takes bytes and time as
//! arguments.

pub mod atsign;
pub mod auth;
pub mod client;
pub mod crypto;
pub mod directory;
pub mod enrolment;
pub mod error;
pub mod fault;
pub mod key;
pub mod keyfile;
pub mod metadata;
pub mod notification;
pub mod passphrase;
pub mod pins;
pub mod reply;
pub mod share;
#[cfg(test)]
pub(crate) mod vectors;
pub mod verb;

pub use atsign::AtSign;
pub use key::AtKey;
pub use metadata::Metadata;
pub use notification::Notification;
pub use reply::{Replies, Reply};
pub use verb::Verb;
