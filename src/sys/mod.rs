//! The machine: ssh and its keys, processes, users, signals, standard streams, paths, logs, and what a service
//! tells its manager ([`supervisor`]). A leaf.

pub mod authorized_keys;
pub mod file;
pub mod log;
pub mod memory;
pub mod out;
pub mod panics;
pub mod paths;
pub mod process;
pub mod sandbox;
pub mod signal;
pub mod sockets;
pub mod ssh;
pub mod ssh_key;
pub mod sshd;
pub mod stdio;
pub mod supervisor;
pub mod user;
