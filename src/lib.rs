//! Reach a device that has no open port: ssh and any TCP service, end-to-end encrypted.
//!
//! ```text
//!    client host                              rendezvous host                         device (no open port)
//!  ┌───────────────┐  asks for two ports    ┌────────────────┐                      ┌──────────────────────┐
//!  │ noports client│ ─────── (1) ─────────▶ │ noports        │                      │ noports daemon       │
//!  │               │ ◀── host,A,B,nonce ─── │   rendezvous   │                      │  (monitor, outbound) │
//!  │               │ ─────── (2) signed session request ─────────────────────────▶ │                      │
//!  │               │ ◀────── (3) signed answer: keys for this session ──────────── │                      │
//!  │   ssh ◀─▶ bridge ══════ TCP out ═════▶ A ══ splice ══ B ◀═════ TCP out ══════ bridge ◀─▶ sshd:22    │
//!  └───────────────┘   end-to-end encrypted └────────────────┘                      └──────────────────────┘
//!    (1)(2)(3) travel as end-to-end encrypted notifications: program → own atServer → peer's atServer → program
//! ```
//!
//! Only outbound connections, everywhere except at the rendezvous (and at an atServer, for those
//! who host their own).
//!
//! # The rooms, and who may use whom
//!
//! ```text
//!    main ─▶ cmd ─┬─▶ np ───▶ at (the files without I/O only)
//!                 ├─▶ at ───▶ net
//!                 ├─▶ server ▶ at, net
//!                 └─▶ pipe, net, sys           secret: anyone.   Nothing points upward; np and server never meet.
//! ```
//!
//! * [`cmd`] — one file per program; each reads top to bottom as its story. What several need is beside them.
//! * [`np`] — NoPorts: what the programs say to each other. Bytes and time come in as arguments.
//! * [`at`] — the atProtocol: names, verbs, replies, encryption; and the client that speaks it.
//! * [`server`] — an atServer and atDirectory small enough to read; the same types as the client's.
//! * [`pipe`], [`net`], [`sys`] — bytes in motion, sockets, the machine. They know no protocol.
//!
//! To follow an ssh session keep two files open: the role's ([`cmd::client`], [`cmd::daemon`],
//! [`cmd::rendezvous`]) and [`np::session`].

pub mod at;
pub mod cmd;
pub mod net;
pub mod np;
pub mod pipe;
pub mod secret;
pub mod server;
pub mod sys;
