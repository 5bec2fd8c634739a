//! Asks an atDirectory where an atSign's atServer is.

use std::{fmt, str::FromStr};

use crate::net::{dial::Endpoint, tls::Connector};

use super::{atsign::AtSign, client::AtError};

/// Default directory.
pub const DEFAULT_ROOT: &str = "root.atsign.org:64";

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// An atDirectory.
    Directory(Endpoint),
    /// `proxy:host[:port]`: no look-up; this is everybody's atServer.
    Proxy(Endpoint),
}

impl FromStr for Root {
    type Err = String;
    fn from_str(_text: &str) -> Result<Self, String> {
        todo!()
    }
}
impl fmt::Display for Root {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// Looks an atSign up. `Ok(None)`: the directory says `null`.
///
/// # Errors
/// When the directory cannot be reached or does not answer within its deadline.
pub async fn find(
    _root: &Root,
    _tls: &Connector,
    _who: &AtSign,
) -> Result<Option<Endpoint>, AtError> {
    todo!()
}
