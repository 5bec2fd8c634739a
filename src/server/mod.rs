//! An atServer and atDirectory small enough to read. See `spec`: the ten rules that break clients if missed.
//!
//! ```text
//!   socket ─▶ listen ─▶ Session (no I/O): line + transaction + time → reply, events ─▶ store commits ─▶ reply leaves
//!                                                      │
//!                                                      └─▶ notify: outbox → the peer's inbox (same process) or peer.rs (TLS)
//! ```

pub mod authority;
pub mod control;
pub mod directory;
pub mod enroll;
pub mod listen;
pub mod notify;
pub mod peer;
pub mod session;
pub mod store;
