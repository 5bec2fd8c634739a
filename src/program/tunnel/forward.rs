//! `[BIND:]PORT:HOST:PORT`, as for `ssh -L`.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use crate::{
    sys::sockets::loopback,
    text::{
        endpoint::Endpoint,
        host::canonical,
        port::{port, port_or_any},
    },
};

/// Most words between colons: two IPv6 addresses and two ports.
const MOST_WORDS: usize = 18;

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
        if let Some(meant) = bracketed(&self.text) {
            return meant;
        }
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

/// With the brackets that an IPv6 address needs here, where that makes it one that can be read.
fn bracketed(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split(':').take(MOST_WORDS + 1).collect();
    if words.len() > MOST_WORDS {
        return None;
    }
    let last = words.len();
    // The longest address first, for `2001:db8::1` holds others.
    let places = (1..=last)
        .rev()
        .flat_map(|long| (0..=last - long).map(move |at| (at, at + long)));
    let with = places.filter_map(|(start, end)| {
        let address = words[start..end].join(":");
        let known = canonical(&address).is_some_and(|host| host.contains(':'));
        let inner = format!("[{address}]");
        known.then(|| {
            [&words[..start], &[&inner], &words[end..]]
                .concat()
                .join(":")
        })
    });
    let with: Vec<String> = with.collect();
    // A target alone, and one that has its brackets.
    let typed = text.starts_with('[').then(|| text.to_owned());
    let with_port = with.iter().chain(&typed);
    let with_port = with_port.map(|text| format!("0:{text}"));
    let mut all = with.iter().cloned().chain(with_port);
    all.find(|text| read(text).is_some())
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
        bind: bind.map_or_else(|| Some(loopback()), address)?,
        port: port_or_any(port).ok()?,
        target: Endpoint::parse(&format!("{host}:{target}"), None).ok()?,
    })
}

fn address(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(loopback()),
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
            ("8080:::1:80", "8080:[::1]:80"),
            ("8080:2001:db8::1:80", "8080:[2001:db8::1]:80"),
            ("8080:fe80::1%eth0:80", "8080:[fe80::1%eth0]:80"),
            ("::1:8080:localhost:80", "[::1]:8080:localhost:80"),
            ("::1:80", "0:[::1]:80"),
            ("[::1]:80", "0:[::1]:80"),
            ("::1", "8080:localhost:80"),
            ("1:2:3:4:5:6:7:8:9:10", "1:[2:3:4:5:6:7:8:9]:10"),
            (&":".repeat(300), "8080:localhost:80"),
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
