//! Sockets: dial with one deadline, TLS, one bounded line, back-off; who may have how much at a time, and whose an address is. A leaf:
//! knows no protocol.

pub mod backoff;
pub mod dial;
pub mod line;
pub mod network;
pub mod places;
pub mod recent;
pub mod tls;
