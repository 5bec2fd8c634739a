//! What the roles share, with I/O: asking for a session, deciding who gets one, and carrying it.
//!
//! | file | what it does | who uses it |
//! | --- | --- | --- |
//! | [`ask`] | log in, ask for two ports, request a session | client, tunnel, devices |
//! | [`authorise`] | may this atSign open a session? the list of managers, then the policy | daemon |
//! | [`launch`] | start a bridge as a process of its own, its secrets over a pipe | daemon, client, tunnel |
//! | [`bridge`] | one end of the pipe: local stream, rendezvous, one or many connections; told by [`launch`] when it is a process of its own | bridge, client, tunnel |
//! | [`control`] | a bridge's control socket: how it is, its log, its end | bridge, daemon, sessions |
//! | [`ignored`] | what the log says of what others do: few lines of one party a minute | daemon, rendezvous, policy |
//! | [`online`] | stay logged in, send messages, end on a signal | daemon, rendezvous, policy, atserver |

pub mod ask;
pub mod authorise;
pub mod bridge;
pub mod control;
pub mod ignored;
pub mod launch;
pub mod online;
