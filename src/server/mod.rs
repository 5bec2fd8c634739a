//! An atServer and atDirectory small enough to read.
//!
//! What breaks clients if missed: reply and prompt leave in one write; an empty line gets an answer; a monitor's
//! replies carry no prompt; a missing key is exactly `error:AT0015-key not found`; an update of a shared value
//! notifies its recipient, and is cached there when it may be.
//!
//! ```text
//!   socket ─▶ listen ─▶ Session (no I/O): line + transaction + time → reply, events ─▶ store commits ─▶ reply leaves
//!                                                      │
//!                                                      └─▶ delivery: outbox → the peer's inbox (same process) or peer.rs (TLS)
//!   socket ─▶ listen ─▶ web: GET of a public value, for clients that offer HTTP in their TLS greeting
//! ```
//!
//! # Who tests which verb
//!
//! *session* is `session/tests` (no sockets), *wire* is `tests/atserver` (TLS, line by line), *ours* are the programs
//! of this package in `tests/session.rs` and its neighbours, *atsdk* and *sshnpd* are other people's programs from PyPI
//! in `tests/foreign`. A dot: this suite sends the verb and depends on the answer.
//!
//! | verb | session | wire | ours | atsdk | sshnpd |
//! | --- | --- | --- | --- | --- | --- |
//! | directory look-up, hit | | • | • | • | • |
//! | directory look-up, `null` | | • | • | • | |
//! | blank line, `@exit` | • | • | | | |
//! | `from` | • | • | • | • | • |
//! | `cram` | • | • | • | • | |
//! | `pkam`, plain | • | • | • | • | • |
//! | `pkam` with `signingAlgo` or `enrollmentId` | • | • | | | |
//! | `pol` | • | • | | | |
//! | `scan` | • | • | | • | |
//! | `lookup`, `plookup` | • | • | • | • | • |
//! | `llookup` | • | • | • | • | • |
//! | `update` | • | • | • | • | • |
//! | `update:meta`, `update:json`, `batch` | • | • | | | |
//! | `delete` | • | • | • | • | |
//! | `delete:force` | | • | | | |
//! | references (`atsign://`), values over HTTP | | • | | | |
//! | `notify` | • | • | • | • | • |
//! | `notify:status`, `:fetch`, `:list` | • | • | | | |
//! | `notify:remove` | • | • | | | • |
//! | `notify:all` | | • | | | |
//! | `monitor` | • | • | • | • | • |
//! | `noop` | • | • | • | • | |
//! | `enroll`, `otp`, `keys:get` | • | • | `enroll:request` | | |
//! | `enroll:update`, `:listns`, `:infons` | | • | | | |
//! | `keys:put`, `keys:delete` | | • | | | |
//! | `config:block` | • | • | | | |
//! | `config:allow` | • | • | | | |
//! | `config:set`, `:reset`, `:print` | | • | | | |
//! | `sync`, `info` | • | • | | | |
//! | `stats:3`, `stats:11` | • | • | | | |
//! | `stats`, all the others | | • | | | |

pub mod authority;
mod clock;
pub mod control;
mod count;
pub mod delivery;
pub mod directory;
pub mod enrolment;
pub mod health;
mod http;
pub mod listen;
mod notification;
pub mod passcode;
pub mod peer;
mod pool;
mod refusal;
pub mod session;
pub mod store;
