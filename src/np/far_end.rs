//! ○ What one end of a session needs to reach the other. All that was said before comes down to this.
//!
//! ```text
//!   client  session::Granted::accepted ──▶ FarEnd { port A, … } ─┐
//!                                                                ├─▶ a bridge: in this process, or one of its own
//!   daemon  request::Meeting::far_end ───▶ FarEnd { port B, … } ─┘
//! ```
//! A bridge of its own process makes it again from its words and one line on stdin. A client whose device logs in here
//! (`--legacy-daemon`) makes one without admission and keys.

use crate::{
    np::proof::SocketKey,
    pipe::{cipher::Side, keys::TransportKeys},
    secret::Secret,
    text::endpoint::Endpoint,
};

/// The other end of a session, as this one reaches it: what is ours on the way there, not what the other one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarEnd {
    /// Where the other end is met: the rendezvous, and our port there.
    pub rendezvous: Endpoint,
    /// First line on each socket there, without its LF; `None` where anybody is let in.
    pub admission: Option<Secret<String>>,
    /// Proves the numbers of sockets to a rendezvous that takes proofs ([`crate::np::proof`]).
    pub socket_key: Option<SocketKey>,
    /// For the stream behind that line; `None` sends everything as it is. Where a session carries many connections
    /// a stream's are the control channel's, and each connection has its own; records carry all connections.
    pub keys: Option<TransportKeys>,
    /// Which of the keys are ours to encrypt with.
    pub side: Side,
}
