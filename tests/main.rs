//! One integration binary, so that it links once.
//!
//! | module | what |
//! | --- | --- |
//! | [`world`] | directory, atServers, rendezvous, daemon: in this process, on loopback, on free ports |
//! | [`session`] | ssh, scp and sftp through a real sshd, as their users run them |
//! | [`refuse`] | every refusal, with its exact text and exit code |
//! | [`faults`] | what happens when a part is killed |
//! | [`tunnel`] | any TCP port: many connections over one session, what ends it, listing devices |
//! | [`enroll`] | more devices with one atSign: asking, approving, revoking |
//! | [`atserver`] | our atServer as the clients' and the original server's own tests expect it, over TLS |
//! | [`foreign`] | other people's programs: PyPI's `atsdk` and `sshnpd` |
//! | [`policy`] | who may do what, decided by a process of its own |
//! | [`hostile`] | the atServer among people who mean no good, and on machines that fail |
//! | [`operate`] | running an atServer: backup, certificates, health, restarts |
//! | [`install`] | `install.sh`: what it does, and everything that can go wrong
//! | [`service`] | services: their files, what they tell whoever started them; manual pages, completions
//! | [`cli`] | the command line as text |
#![allow(clippy::unwrap_used, missing_docs)]

mod atserver;
mod cli;
mod enroll;
mod faults;
mod foreign;
mod hostile;
mod install;
mod operate;
mod policy;
mod refuse;
mod service;
mod session;
mod tunnel;
mod world;
