//! `host:port`, as people write it.

use std::{fmt, str::FromStr};

use super::host;

/// `host:port`; an IPv6 literal stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Reads `host[:port]`; `[::1]:22` and, where a default port is given, also `[::1]` and `::1`.
    ///
    /// What a host is, [`host`] says, and how it is spelt; a port is 1..=65535.
    ///
    /// # Errors
    /// [`BadEndpoint`] with the text, cut to a length fit for a message.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, BadEndpoint> {
        Self::read(text, default_port).ok_or_else(|| {
            let cut = text
                .char_indices()
                .nth(MAX_HOST)
                .map_or(text, |(at, _)| &text[..at]);
            BadEndpoint(cut.to_owned())
        })
    }

    fn read(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, behind) = rest.split_once(']')?;
            let host = &text[..address.len() + 2];
            match behind.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if behind.is_empty() => (host, None),
                None => return None,
            }
        } else if text.contains("::") || text.matches(':').count() > 1 {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            Some(_) => None,
            None => default_port,
        };
        Some(Self {
            host: host::canonical(host)?,
            port: port.filter(|&port| port != 0)?,
        })
    }
}

/// Not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?} is not host:port{}", .0, bracketed(.0))]
pub struct BadEndpoint(pub String);

/// What was probably meant by an IPv6 address without brackets: where it ends cannot be seen.
fn bracketed(text: &str) -> String {
    let meant = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host::canonical(host).filter(|host| host.contains(':'))?;
        Endpoint::parse(&format!("[{host}]:{port}"), None).ok()
    });
    meant.map_or(String::new(), |meant| {
        format!("; an IPv6 address stands in brackets: {meant}")
    })
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;
    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        Self::parse(text, None)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The longest name DNS can carry.
const MAX_HOST: usize = 253;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_as_people_write_them() {
        let long = "a".repeat(253);
        for (typed, default, want) in [
            ("localhost:22", None, Some(("localhost", 22))),
            ("root.atsign.org", Some(64), Some(("root.atsign.org", 64))),
            (
                "root.atsign.org:65535",
                Some(64),
                Some(("root.atsign.org", 65535)),
            ),
            ("127.0.0.1:1", None, Some(("127.0.0.1", 1))),
            ("[::1]:22", None, Some(("::1", 22))),
            ("[::1]", Some(5), Some(("::1", 5))),
            ("::1", Some(5), Some(("::1", 5))),
            ("[0:0:0:0:0:0:0:1]:22", None, Some(("::1", 22))),
            ("[FE80::1%eth0]:22", None, Some(("fe80::1%eth0", 22))),
            ("fe80::1%eth0", Some(5), Some(("fe80::1%eth0", 5))),
            ("[::1%eth0]:22", None, None),
            ("[fe80::1%a b]:22", None, None),
            (&format!("{long}:1"), None, Some((&*long, 1))),
            ("::1", None, None),
            ("[::1]", None, None),
            ("[::1]22", None, None),
            ("[::1]\u{e9}:22", None, None),
            ("[1.2.3.4]:22", None, None),
            ("[::1:22", None, None),
            ("[name]:22", None, None),
            ("a:b:22", None, None),
            ("localhost", None, None),
            ("localhost:", Some(1), None),
            ("localhost:0", None, None),
            ("localhost:65536", None, None),
            ("localhost:+22", None, None),
            ("localhost:2 2", None, None),
            (":22", None, None),
            ("", Some(22), None),
            ("two words:22", None, None),
            ("-oProxyCommand=x:22", None, None),
            ("caf\u{e9}:22", None, None),
            (&format!("{long}b:1"), None, None),
        ] {
            let got = Endpoint::parse(typed, default).ok();
            let want = want.map(|(host, port): (&str, u16)| Endpoint {
                host: host.to_owned(),
                port,
            });
            assert_eq!(got, want, "{typed} {default:?}");
        }
    }

    #[test]
    fn printed_endpoints_are_read_back() {
        for text in ["localhost:22", "[2001:db8::1]:443", "10.0.0.1:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_endpoint_is_quoted_but_not_at_any_length() {
        let BadEndpoint(text) = Endpoint::parse(&"\u{e9}".repeat(10_000), None).unwrap_err();
        assert_eq!(text.chars().count(), 253);
    }

    #[test]
    fn an_ipv6_address_without_brackets_is_shown_with_them() {
        for (typed, want) in [
            ("::1:80", Some("[::1]:80")),
            ("2001:DB8::1:443", Some("[2001:db8::1]:443")),
            ("fe80::1%eth0:22", Some("[fe80::1%eth0]:22")),
            ("::1:99999", None),
            ("a:b:1", None),
            (":80", None),
        ] {
            let said = Endpoint::parse(typed, None).unwrap_err().to_string();
            let hint = said.split("brackets: ").nth(1);
            assert_eq!(hint, want, "{said}");
        }
    }
}
