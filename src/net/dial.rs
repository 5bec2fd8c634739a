//! Outbound connections: every address, one deadline.

use std::{fmt, io, str::FromStr, time::Duration};

use async_std::net::TcpStream;

/// `host:port`; an IPv6 literal stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Reads `host[:port]`.
    pub fn parse(_text: &str, _default_port: Option<u16>) -> Result<Self, BadEndpoint> {
        todo!()
    }
}
/// Not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port")]
pub struct BadEndpoint(pub String);
impl FromStr for Endpoint {
    type Err = BadEndpoint;
    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        Self::parse(text, None)
    }
}
impl fmt::Display for Endpoint {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// Connects to the first address that answers, trying the next one after a short head start. No delay, keep-alive on.
///
/// # Errors
/// The last address' error, or `TimedOut`.
pub async fn dial(_to: &Endpoint, _within: Duration) -> io::Result<TcpStream> {
    todo!()
}
