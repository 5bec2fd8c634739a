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
//!    main ─▶ program ─▶ session ─┬─▶ np ───▶ at (the files without I/O only), pipe (ciphers)
//!              │                 ├─▶ at ───▶ net ───▶ sys (files)
//!              │                 └─▶ pipe, net, sys
//!              ├─▶ server ▶ at, net
//!              ├─▶ service ▶ sys; and, as session does, the failures of cli
//!              └─▶ cli ───▶ at, net, sys      secret, text, budget: anyone.   Nothing points upward; np and server never meet.
//!    classic: used by program and session; uses np, at (without I/O), net, sys and cli.
//! ```
//! Who may use a room may also use what that one uses. ○ stands before a file that touches no socket, clock or disk.
//!
//! * [`program`] — one file per word that a person types; each reads top to bottom as its story.
//! * [`session`] — what the roles share: asking for a session, deciding who gets one, carrying it.
//! * [`classic`] — everything before NoPorts 5.0, and how the generations differ.
//! * [`service`] — programs as services of this machine: one file for each kind of service manager.
//! * [`cli`] — the command line: flags and where they come from, classic words, failures, progress.
//! * [`np`] — NoPorts: what the programs say to each other. Bytes and time come in as arguments.
//! * [`at`] — the atProtocol: names, verbs, replies, encryption; and the client that speaks it.
//! * [`server`] — an atServer and atDirectory small enough to read; the same types as the client's.
//! * [`pipe`], [`net`], [`sys`] — bytes in motion, sockets, the machine. They know no protocol.
//! * `noports_ciphers` (the folder `src/ciphers`) — AES-CTR, a crate of its own so that it is compiled for speed.
//!
//! To follow an ssh session keep two files open: the role's ([`program::client`], [`program::daemon`],
//! [`program::rendezvous`]) and [`np::session`].
//!
//! # What each party can see
//!
//! | party | learns | cannot |
//! | --- | --- | --- |
//! | rendezvous | addresses, sizes, times, the two atSigns | read a byte; between two ends of this program, change, add, repeat or leave out one, or end a stream unnoticed |
//! | atServers, atDirectory | who notifies whom and when | read what is said between programs that know each other's keys; have a session opened with another key of a manager than the first that was seen, or that was named; have an old request acted on again |
//! | network | that TLS to an atServer and a TCP stream to a rendezvous exist | the same |
//! | policy | who wants to use which device, and when | see what passes through a session (but it decides who gets one, itself included) |
//! | an atSign that is not a manager | nothing: its requests are ignored | make the daemon dial out |
//!
//! What whoever runs an atServer still can: hold messages back; at the first contact tell a key of their own, for
//! [`at::pins`] believes the first one (`--manager @me#FINGERPRINT` does not); send what is signed by nobody in the
//! name of an atSign of theirs: a ping, a policy's answer (so whoever runs the policy's atServer decides as the policy
//! does), and where the daemon was started for it an ssh key (`--accept-keys`) or a request to log in (`--reverse-ssh`).
//! A changed key of a rendezvous is told to the client's person and no more. Of the clients that a policy lets in the 1,000
//! latest keys are remembered. Clients of others sign no time: their requests are known by the daemon's list of those that
//! it acted on. What a device or rendezvous says it can do is signed by nobody; a client remembers it with the key, refuses
//! a device that has no records or no twin keys any more, and tells it when there is no signed time or no proof any more. To a manager
//! with another key than before a daemon tells nothing but that, and that it is there.
//!
//! Two ends of this program seal what passes the rendezvous in records ([`pipe::record`]) under keys that both make for the
//! session and then forget ([`np::agreement`]): X25519 and ML-KEM-768, so that what is recorded today stays closed when a key of
//! an atSign, or a quantum computer, comes later. A device that has done so once is refused when it says that it cannot any more;
//! its signed answer says it again. With every other NoPorts the stream is AES-256-CTR, with a key per direction where both ends
//! know *twin keys*, and not authenticated: somebody on the path could flip bits, which ssh inside notices and ends, and the keys
//! are wrapped with RSA-2048. `--require authenticated` refuses that. With a device that does not know twin keys there is a
//! warning: use that tunnel only for protocols that encrypt their own traffic (TLS, ssh). Signatures are RSA-2048. Keys of other people's messages are decrypted only for senders on the list
//! (RUSTSEC-2023-0071 is why); a policy, and a daemon that asks one, decrypt for others at most five different keys per
//! sender and hour.
//!
//! Not in this version: the newer relay login and port 443, choosing a rendezvous by itself, an address with release files
//! to download.

// Without the feature `inside` nothing but [`main`] leaves the crate, so the compiler sees what the executable does not use.
#[cfg(feature = "inside")]
pub mod at;
#[cfg(feature = "inside")]
pub mod budget;
#[cfg(feature = "inside")]
pub mod classic;
#[cfg(feature = "inside")]
pub mod cli;
#[cfg(feature = "inside")]
pub mod net;
#[cfg(feature = "inside")]
pub mod np;
#[cfg(feature = "inside")]
pub mod pipe;
#[cfg(feature = "inside")]
pub mod program;
#[cfg(feature = "inside")]
pub mod secret;
#[cfg(feature = "inside")]
pub mod server;
#[cfg(feature = "inside")]
pub mod service;
#[cfg(feature = "inside")]
pub mod session;
#[cfg(feature = "inside")]
pub mod sys;
#[cfg(feature = "inside")]
pub mod text;

#[cfg(not(feature = "inside"))]
mod at;
#[cfg(not(feature = "inside"))]
mod budget;
#[cfg(not(feature = "inside"))]
mod classic;
#[cfg(not(feature = "inside"))]
mod cli;
#[cfg(not(feature = "inside"))]
mod net;
#[cfg(not(feature = "inside"))]
mod np;
#[cfg(not(feature = "inside"))]
mod pipe;
#[cfg(not(feature = "inside"))]
mod program;
#[cfg(not(feature = "inside"))]
mod secret;
#[cfg(not(feature = "inside"))]
mod server;
#[cfg(not(feature = "inside"))]
mod service;
#[cfg(not(feature = "inside"))]
mod session;
#[cfg(not(feature = "inside"))]
mod sys;
#[cfg(test)]
#[allow(unreachable_pub)] // Shared with the binary of tests.
mod testing;
#[cfg(not(feature = "inside"))]
mod text;

pub use program::main;
