//! An atServer and atDirectory small enough to read.
//!
//! What breaks clients if missed: reply and prompt leave in one write; an empty line gets an answer; a monitor's
//! replies carry no prompt; a missing key is exactly `error:AT0015-key not found`; an update of a shared value
//! notifies its recipient, and is cached there when it may be.
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
