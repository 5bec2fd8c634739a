//! `[BIND:]PORT:HOST:PORT`, as for `ssh -L`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    str::FromStr,
};

use crate::text::{
    endpoint::Endpoint,
    port::{port, port_or_any},
};

/// A local port, and what is to be behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where we listen; this machine only, unless somebody asked for more.
    pub bind: IpAddr,
    /// Our port; 0 is any free one.
    pub port: u16,
    /// What the device opens.
    pub target: Endpoint,
}

impl Forward {
    /// Whether only one of them can listen.
    pub fn collides_with(&self, other: &Self) -> bool {
        let all = self.bind.is_unspecified() || other.bind.is_unspecified();
        self.port != 0 && self.port == other.port && (all || self.bind == other.bind)
    }
}

/// Not `[BIND:]PORT:HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not [BIND:]PORT:HOST:PORT{}", .why.as_ref().map_or(String::new(), |why| format!(": {why}")))]
pub struct BadForward {
    text: String,
    /// What is wrong with a port of it.
    why: Option<String>,
}

impl BadForward {
    fn new(text: &str) -> Self {
        let numbers = text.split(':').filter(|word| is_number(word));
        Self {
            text: text.chars().take(300).collect(),
            why: numbers.filter_map(|word| port_or_any(word).err()).next(),
        }
    }

    /// The forward that was probably meant; else one that shows what they look like.
    pub fn meant(&self) -> String {
        let is_port = |word: &str| port(word).is_ok();
        let host = |name: &str| Endpoint::parse(&format!("{name}:1"), None).is_ok();
        match self.text.split(':').collect::<Vec<_>>()[..] {
            [port] if is_port(port) => format!("{port}:localhost:{port}"),
            [here, there] if is_port(here) && is_port(there) => format!("{here}:localhost:{there}"),
            [name, there] if host(name) && is_port(there) => format!("0:{name}:{there}"),
            [here, name] if is_port(here) && host(name) => format!("{here}:{name}:{here}"),
            _ => "8080:localhost:80".to_owned(),
        }
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

impl FromStr for Forward {
    type Err = BadForward;

    fn from_str(text: &str) -> Result<Self, BadForward> {
        read(text).ok_or_else(|| BadForward::new(text))
    }
}

fn read(text: &str) -> Option<Forward> {
    // Brackets hold colons, so this cannot simply be split.
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        let end = match rest.strip_prefix('[') {
            Some(inside) => inside.find(']')? + 2,
            None => rest.find(':').unwrap_or(rest.len()),
        };
        words.push(&rest[..end]);
        match rest[end..].strip_prefix(':') {
            Some(behind) => rest = behind,
            None if rest.len() == end => break,
            None => return None,
        }
    }
    let (bind, port, host, target) = match words[..] {
        [port, host, target] => (None, port, host, target),
        [bind, port, host, target] => (Some(bind), port, host, target),
        _ => return None,
    };
    Some(Forward {
        bind: bind.map_or_else(|| Some(here()), address)?,
        port: port_or_any(port).ok()?,
        target: Endpoint::parse(&format!("{host}:{target}"), None).ok()?,
    })
}

/// This machine's own address: 127.0.0.1, and where there is no IPv4 at all `::1`.
fn here() -> IpAddr {
    let none = |why: io::Error| why.kind() == io::ErrorKind::AddrNotAvailable;
    if UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_err_and(none) {
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    }
}

fn address(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(here()),
        "*" => Some(Ipv4Addr::UNSPECIFIED.into()),
        literal => literal.trim_matches(['[', ']']).parse().ok(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::tunnel::forward::*;

    #[test]
    fn forwards_as_people_write_them() {
        for (text, want) in [
            (
                "8080:localhost:80",
                Some(("127.0.0.1", 8080, "localhost:80")),
            ),
            ("0:nas:443", Some(("127.0.0.1", 0, "nas:443"))),
            ("localhost:1:h:2", Some(("127.0.0.1", 1, "h:2"))),
            ("0.0.0.0:1:h:2", Some(("0.0.0.0", 1, "h:2"))),
            ("*:1:h:2", Some(("0.0.0.0", 1, "h:2"))),
            ("[::1]:1:h:2", Some(("::1", 1, "h:2"))),
            ("1:[fe80::1]:2", Some(("127.0.0.1", 1, "[fe80::1]:2"))),
            ("[::]:1:[::1]:2", Some(("::", 1, "[::1]:2"))),
            ("", None),
            ("80", None),
            ("1:h", None),
            ("1:h:0", None),
            ("1:h:", None),
            (":h:1", None),
            ("70000:h:1", None),
            ("+1:h:1", None),
            ("name:1:h:2", None),
            ("1:a b:2", None),
            ("1:-x:2", None),
            ("1:[::1:2", None),
            ("1:[::1]x:2", None),
            ("a:1:b:2:3", None),
        ] {
            let got = text.parse::<Forward>().ok();
            let got = got.map(|f| (f.bind.to_string(), f.port, f.target.to_string()));
            let want = want.map(|(bind, port, to)| (bind.to_owned(), port, to.to_owned()));
            assert_eq!(got, want, "{text:?}");
        }
    }
    #[test]
    fn a_wrong_forward_is_answered_with_the_one_that_was_meant() {
        for (text, want) in [
            ("8080:80", "8080:localhost:80"),
            ("8080", "8080:localhost:8080"),
            ("nas:443", "0:nas:443"),
            ("8080:nas", "8080:nas:8080"),
            ("8080:nas:99999", "8080:localhost:80"),
            ("", "8080:localhost:80"),
            ("0:0", "8080:localhost:80"),
            ("-x:80", "8080:localhost:80"),
        ] {
            let bad = text.parse::<Forward>().unwrap_err();
            assert_eq!(bad.meant(), want, "{text:?}");
            assert!(bad.meant().parse::<Forward>().is_ok(), "{text:?}");
        }
        let high = "99999:nas:80".parse::<Forward>().unwrap_err();
        assert_eq!(
            high.to_string(),
            "\"99999:nas:80\" is not [BIND:]PORT:HOST:PORT: \"99999\" is not a port: a port is a number from 1 to 65535; \
             0 is any free one"
        );
    }
}
