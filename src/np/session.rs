//! The client's side of one session, step by step. Each step consumes the one before, so no message
//! can be used twice or out of turn.
//!
//! ```text
//!   Offer ──ping, ask_ports──▶            `offer`: two questions at once, to daemon and rendezvous
//!     │ granted(ports, heartbeat)         or a SessionError: `refused`
//!     ▼
//!   Granted ──request──▶                  `granted`: signed, with an ephemeral public key
//!     │ accepted(answer)
//!     ▼
//!   Ready { far end: rendezvous, admission line, session keys; temporary ssh key }
//! ```
//!
//! What the session must have, and in which generation's words it is asked for, are its [`Terms`] (`terms`). Unless
//! somebody says otherwise nothing is left out, and a peer that cannot take part in that is refused by name.
//!
//! The daemon's side is one step ([`super::request::SshRequest::parse`], then
//! [`super::request::accept`]), the rendezvous' too ([`super::ports`], [`super::admit`]).

pub use granted::{Granted, Ready};
pub use offer::{Awaited, Offer};
pub use refused::{NO_ADMIT, NO_ADMIT_DEVICE, NO_ENCRYPT, SessionError};
pub use terms::{Generation, Terms};

mod granted;
mod offer;
mod refused;
mod terms;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
