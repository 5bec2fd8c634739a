//! Who has come in, before anybody knows who it is.

use std::net::IpAddr;

use crate::net::tls::{HelloExtensions, TlsStream};

use super::gate::Pass;

/// A connection that has shaken hands.
pub(super) struct Visitor {
    pub stream: TlsStream,
    pub from: IpAddr,
    /// What it asked for.
    pub wish: HelloExtensions,
    pub pass: Pass,
}
