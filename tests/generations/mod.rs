//! Programs of every generation with each other.
//!
//! | module | what |
//! | --- | --- |
//! | [`client`] | sessions between clients and daemons of each generation, through a real sshd |
//! | [`rendezvous`] | what each generation says to a rendezvous, played by hand |
//! | [`daemon`] | what clients of each generation say to a daemon, and daemons held to a generation |
//! | [`matrix`] | every client with every daemon through every rendezvous |
//! | [`founding`] | the project's two founding documents, arrow by arrow |
//! | [`bridge`] | the classic program `srv` (and `sshrv`), as its callers run it |

mod bridge;
mod client;
pub mod daemon;
mod founding;
mod matrix;
mod rendezvous;
