//! One integration binary, so that it links once.
//!
//! | module | what |
//! | --- | --- |
//! | [`world`] | directory, atServers, rendezvous, daemon: in this process, on loopback, on free ports |
//! | [`sessions`] | control sockets of bridges: listing, ending, restarted daemons, hostile askers |
//! | [`session`] | ssh, scp and sftp through a real sshd, as their users run them |
//! | [`refuse`] | every refusal, with its exact text and exit code |
//! | [`faults`] | what happens when a part is killed |
//! | [`tamper`] | a rendezvous that changes what passes: every change is detected, and none delivered |
//! | [`tunnel`] | any TCP port: many connections over one session, what ends it, listing devices |
//! | [`enroll`] | more devices with one atSign: asking, approving, revoking |
//! | [`access`] | whom an atServer lets in, and what strangers meet |
//! | [`atserver`] | our atServer as the clients' and the original server's own tests expect it, over TLS |
//! | [`generations`] | programs of every generation with each other |
//! | [`foreign`] | other people's programs: PyPI's `atsdk` and `sshnpd` |
//! | [`policy`] | who may do what, decided by a process of its own |
//! | [`hostile`] | the atServer among people who mean no good, and on machines that fail |
//! | [`houses`] | an atServer's folder: damaged, locked, copied, full |
//! | [`operate`] | running an atServer: backup, certificates, health, restarts |
//! | [`install`] | `install.sh`: what it does, and everything that can go wrong |
//! | [`service`] | services: their files, what they tell whoever started them |
//! | [`packages`] | packages, images and services: who is restarted, who is left alone, what is refused first |
//! | [`tools`] | rsync, git, curl and ssh's own forwardings, as their users run them |
//! | [`sandbox`] | what running programs may still do, and that they still do all that they should |
//! | [`readme`] | the README's commands, and what they print |
//! | [`cli`] | the command line as text |
//! | [`careless`] | what careless or spiteful people put on a command line and into files |
//! | [`docs`] | manual pages; completions in the shells themselves |
//! | [`trials`] | situations of the field: targets that fail, portals, two daemons of one name |
//! | [`typing`] | typing errors, and the corrections they get |

#![allow(unreachable_pub)] // Nothing leaves a binary of tests.
#![allow(clippy::unwrap_used, missing_docs)]

#[cfg(not(feature = "held"))]
compile_error!(
    "these tests hold programs to older generations: cargo test --locked --features held"
);

mod access;
mod atserver;
mod careless;
mod cli;
mod docs;
mod enroll;
mod faults;
mod foreign;
mod generations;
mod hostile;
mod houses;
mod install;
mod operate;
mod packages;
mod policy;
mod readme;
mod refuse;
mod sandbox;
mod service;
mod session;
mod sessions;
mod tamper;
mod tools;
mod trials;
mod tunnel;
mod typing;
mod world;
