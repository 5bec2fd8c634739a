//! Sockets: dial with one deadline, TLS, one bounded line, back-off; and who may have how much at a time. A leaf:
//! knows no protocol.

pub mod backoff;
pub mod dial;
pub mod line;
pub mod places;
pub mod recent;
pub mod tls;
