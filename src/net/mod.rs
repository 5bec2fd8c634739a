//! Sockets: dial with one deadline, TLS, one bounded line, back-off. A leaf: knows no protocol.

pub mod backoff;
pub mod dial;
pub mod line;
pub mod tls;
