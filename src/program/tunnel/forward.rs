//! `[BIND:]PORT:HOST:PORT`, as for `ssh -L`; and times as people write them.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    time::Duration,
};

use crate::net::dial::Endpoint;

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

/// Not `[BIND:]PORT:HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not [BIND:]PORT:HOST:PORT")]
pub struct BadForward(pub String);

impl FromStr for Forward {
    type Err = BadForward;

    fn from_str(text: &str) -> Result<Self, BadForward> {
        read(text).ok_or_else(|| BadForward(text.chars().take(300).collect()))
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
        bind: bind.map_or(Some(Ipv4Addr::LOCALHOST.into()), address)?,
        port: number(port)?,
        target: Endpoint::parse(&format!("{host}:{target}"), None).ok()?,
    })
}

fn address(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        "*" => Some(Ipv4Addr::UNSPECIFIED.into()),
        literal => literal.trim_matches(['[', ']']).parse().ok(),
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// `30s`, `1h,14m,30s`, `7d`, or a number of seconds; 0 is for ever, which is `most`.
pub(super) fn parse_duration(text: &str, most: Duration) -> Option<Duration> {
    let mut seconds = 0u64;
    for part in text.split(',') {
        let part = part.trim();
        let (digits, unit) = match part.char_indices().last()? {
            (at, 's') => (&part[..at], 1),
            (at, 'm') => (&part[..at], 60),
            (at, 'h') => (&part[..at], 3600),
            (at, 'd') => (&part[..at], 24 * 3600),
            _ => (part, 1),
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        seconds = seconds.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
    }
    match seconds {
        0 => Some(most),
        some => Some(Duration::from_secs(some).min(most)),
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
    fn times_as_people_write_them() {
        const MOST: Duration = Duration::from_secs(365 * 24 * 3600);
        for (text, want) in [
            ("30s", Some(30)),
            ("1h,14m,30s", Some(3600 + 14 * 60 + 30)),
            ("7d", Some(7 * 24 * 3600)),
            ("45", Some(45)),
            ("0", Some(MOST.as_secs())),
            ("9999d", Some(MOST.as_secs())),
            ("", None),
            ("s", None),
            ("1w", None),
            ("-1s", None),
            ("1.5h", None),
            ("99999999999999999999d", None),
        ] {
            let got = parse_duration(text, MOST).map(|time| time.as_secs());
            assert_eq!(got, want, "{text:?}");
        }
    }
}
