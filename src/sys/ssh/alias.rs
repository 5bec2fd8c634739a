//! Names and addresses by which ssh knows a device.

use std::fmt::{self, Write as _};

/// The name under which ssh remembers a device's host key: the same whatever port or relay is used.
///
/// `dev1` of `@device` is `dev1.device.noports`. Characters beyond `a-z 0-9 _ -` are written as
/// `+hex+`, so that two devices never share a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKeyAlias(pub(super) String);

impl HostKeyAlias {
    /// For a device and the atSign it belongs to.
    pub fn new(device: &str, at_sign: &str) -> Self {
        let mut alias = String::new();
        for part in [device, at_sign.trim_start_matches('@')] {
            for c in part.chars().flat_map(char::to_lowercase) {
                match c {
                    'a'..='z' | '0'..='9' | '_' | '-' => alias.push(c),
                    other => {
                        let _ = write!(alias, "+{:x}+", u32::from(other));
                    }
                }
            }
            alias.push('.');
        }
        Self(alias + "noports")
    }
}

impl fmt::Display for HostKeyAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where there is no IPv4.
pub(super) const ONLY_V6: &str = "::1";
pub(super) const PLAIN: &str = "127.0.0.1";
/// [`PLAIN`] as an IPv6 socket has it.
pub(super) const MAPPED: &str = "::ffff:127.0.0.1";
