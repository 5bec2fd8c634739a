//! Reverse ssh, as before 4.0: the device logs in to the client and brings a port along.
//!
//! ```text
//!   client                                                           device
//!   1 a fresh ssh key; its public half into our own authorized_keys, for this session
//!   2 bridge: rendezvous ◀─▶ our sshd
//!   3 privatekey ──────────────────────────────────────────────────▶ slot of its sender ─┐
//!     sshd ─────────────────────────────────────────────────────────────────────────────┴▶ ssh -R LP:localhost:22, through
//!   4 the key comes out again, whatever happened ◀────── connected ── the rendezvous, to the client's sshd
//!   5 person's ssh ─▶ localhost:LP ─▶ our sshd ═══════════════════▶ device's ssh ─▶ its sshd
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`client`] | 1 and 4: a key in our own `authorized_keys`, no longer than it is needed |
//! | [`device`] | 3: private keys that wait for their request, and the ssh that uses them |

pub mod client;
pub mod device;
