//! Programs of every generation with each other.
//!
//! | module | what |
//! | --- | --- |
//! | [`rendezvous`] | what each generation says to a rendezvous, played by hand |
//! | [`bridge`] | the classic program `srv` (and `sshrv`), as its callers run it |

mod bridge;
mod rendezvous;
