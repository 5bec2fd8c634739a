//! Programs of every generation with each other.
//!
//! | module | what |
//! | --- | --- |
//! | [`rendezvous`] | what each generation says to a rendezvous, played by hand |
//! | [`matrix`] | every client with every daemon through every rendezvous |
//! | [`bridge`] | the classic program `srv` (and `sshrv`), as its callers run it |

mod bridge;
mod matrix;
mod rendezvous;
