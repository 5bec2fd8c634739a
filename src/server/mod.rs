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
//! # What others may use up
//!
//! To an atServer everybody but its owner, with the devices he enrolled, is a stranger: tenants of the same process and other
//! servers, too. Each row is one [`crate::budget::Budget`], as `/metrics` shows it (`noports_atserver_budget_used{budget="…"}`,
//! `_refused_total`, `_evicted_total`); of the rows below the line the store keeps count. A *network* is an IPv4 address or an
//! IPv6 /64, a *range* a /24 or /48. An exhausted budget is a line of the log a minute, which names who has most.
//! With fewer descriptors there are fewer connections, and shares in proportion.
//!
//! | budget | all | of one | never strangers' | who gives way | flag |
//! | --- | --- | --- | --- | --- | --- |
//! | connections | 8192 | network 512, range 2048, not shaken hands 256 and 2048, strangers of one atSign 2048, visiting atSign 64, owner 2048, owners 7168 | 2048 | the biggest network's oldest stranger, then the biggest owner's oldest | |
//! | directory_connections | 1024 | network 64, range 256, not shaken hands 32 and 256 | 0 | the biggest network's oldest | |
//! | login_checks | 64 | network 4 | 0 | the next one waits | |
//! | lookups | 4 | network 1 | 0 | the next one waits; owners need no place | |
//! | writes | 256 | atSign or network 16 | 0 | the next one waits, one of each atSign before the next of each | |
//! | bytes_in_work | 256 MiB | network 12 MiB, range 24 MiB, strangers of one atSign 24 MiB, visiting atSign 12 MiB, owner 96 MiB, owners 208 MiB | 208 MiB | the biggest network's oldest stranger, then the biggest owner's oldest | |
//! | outgoing | 200 | atSign 64, its deliveries 32, host 64, deliveries there 32 | 50 | connections that are idle; the next one is refused | `--root` |
//! | proofs | 32 | caller 2, network 8 | 0 | the next one waits | `--root` |
//! | deliveries | 64 | sender 8 | 0 | the next one waits | |
//! | health | 12 | 12 | 2 | the oldest that has not asked | `--metrics` |
//! | --- | | | | | |
//! | disk | | atSign 1024 MiB | | the owner can write nothing new | `--quota` |
//! | inbox | 50000 | sender 6250 | | the oldest of whoever has most | |
//! | inbox bytes | 128 MiB | sender 16 MiB | | the same | |
//! | outbox | 20000 | 20000 | | the sender is refused | |
//! | outbox bytes | 128 MiB | 128 MiB | | the same | |
//! | sent | 5000 | 5000 | | the oldest: nobody hears what became of it | |
//! | sent bytes | 16 MiB | 16 MiB | | the same | |
//! | copies | 64 MiB | their owner 8 MiB | | the oldest of whoever has most | |
//!
//! Times: 30 s to log in (10 minutes after `enroll:request`), 10 minutes of silence for another atSign, a minute for a line
//! to the atDirectory; who is not the owner sends and takes at least 64 KiB a second.
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
