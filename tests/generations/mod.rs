//! Programs of every generation with each other.
//!
//! | module | what |
//! | --- | --- |
//! | [`client`] | sessions between clients and daemons of each generation, through a real sshd |
//! | [`rendezvous`] | what each generation says to a rendezvous, played by hand |
//! | [`bridge`] | the classic program `srv` (and `sshrv`), as its callers run it |

mod bridge;
mod client;
mod rendezvous;
