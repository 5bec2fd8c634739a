//! The machine: ssh, processes, signals, standard streams, paths, logs. A leaf.

pub mod log;
pub mod notify;
pub mod out;
pub mod paths;
pub mod process;
pub mod signal;
pub mod sockets;
pub mod ssh;
pub mod sshd;
pub mod stdio;
pub mod user;
