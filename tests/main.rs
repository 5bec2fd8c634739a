//! One integration binary, so that it links once.
//!
//! | module | what |
//! | --- | --- |
//! | [`world`] | directory, atServers, rendezvous, daemon: in this process, on loopback, on free ports |
//! | [`session`] | ssh, scp and sftp through a real sshd, as their users run them |
//! | [`refuse`] | every refusal, with its exact text and exit code |
//! | [`faults`] | what happens when a part is killed |
//! | [`policy`] | who may do what, decided by a process of its own |
//! | [`cli`] | the command line as text |
#![allow(clippy::unwrap_used, missing_docs)]

mod cli;
mod faults;
mod policy;
mod refuse;
mod session;
mod world;
