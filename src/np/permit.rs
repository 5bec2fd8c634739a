//! What a daemon lets people open: a list of `host:port` patterns.

use std::{fmt, str::FromStr};

use crate::text::{host::canonical, port};

/// Most patterns in one list.
pub const MAX_PATTERNS: usize = 1024;

/// One pattern: `localhost:22`, `*:22`, `localhost:*` or `*:*`. Nothing is resolved:
/// `127.0.0.1:22` and `localhost:22` are different. Of an IPv6 address every spelling is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    host: Option<String>,
    port: Option<u16>,
}

/// A list of patterns; anything that matches one of them may be opened.
///
/// ```
/// use noports::np::permit::Permit;
/// let permit: Permit = "localhost:22, *:3389".parse().unwrap();
/// assert!(permit.allows("localhost", 22) && permit.allows("nas", 3389));
/// assert!(!permit.allows("nas", 22));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit(Vec<Pattern>);

/// A word in the list that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port, where either may be *")]
pub struct BadPattern(pub String);

impl Permit {
    /// `*:*`
    pub fn anything() -> Self {
        Self(vec![Pattern {
            host: None,
            port: None,
        }])
    }

    /// Whether one of the patterns matches.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        let spelt = canonical(host);
        let host = plain(spelt.as_deref().unwrap_or(host));
        self.0.iter().any(|p| {
            p.host
                .as_deref()
                .is_none_or(|h| plain(h).eq_ignore_ascii_case(host))
                && p.port.is_none_or(|wanted| wanted == port)
        })
    }

    /// Each pattern as text, for the device record.
    pub fn services(&self) -> Vec<String> {
        self.0.iter().map(Pattern::to_string).collect()
    }
}

/// `localhost.` is another way to write `localhost`. Of other names a dot may change the meaning.
fn plain(host: &str) -> &str {
    let name = host.strip_suffix('.');
    name.filter(|name| name.eq_ignore_ascii_case("localhost"))
        .unwrap_or(host)
}

/// Another program's list, each pattern a word of its own: words that are no pattern permit nothing.
impl<'a> FromIterator<&'a str> for Permit {
    fn from_iter<I: IntoIterator<Item = &'a str>>(words: I) -> Self {
        let patterns = words.into_iter().take(MAX_PATTERNS);
        Self(patterns.filter_map(|word| word.parse().ok()).collect())
    }
}

impl FromStr for Permit {
    type Err = BadPattern;

    fn from_str(list: &str) -> Result<Self, BadPattern> {
        let words: Vec<&str> = list
            .split(',')
            .map(str::trim)
            .filter(|w| !w.is_empty())
            .collect();
        if words.len() > MAX_PATTERNS {
            return Err(BadPattern(format!("{} patterns", words.len())));
        }
        words
            .into_iter()
            .map(Pattern::from_str)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(word: &str) -> Result<Self, BadPattern> {
        let bad = || BadPattern(word.to_owned());
        let (host, port) = word.rsplit_once(':').ok_or_else(bad)?;
        let host = match host {
            "*" => None,
            name => Some(canonical(name).ok_or_else(bad)?.to_lowercase()),
        };
        let port = match port {
            "*" => None,
            number => Some(port::port(number).map_err(|_| bad())?),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref().unwrap_or("*") {
            address if address.contains(':') => write!(f, "[{address}]:")?,
            name => write!(f, "{name}:")?,
        }
        match self.port {
            Some(port) => write!(f, "{port}"),
            None => f.write_str("*"),
        }
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.services().join(","))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_by_text_alone() {
        for (list, host, port, want) in [
            ("[::1]:8080", "::1", 8080, true),
            ("[::1]:8080", "127.0.0.1", 8080, false),
            ("[::1]:8080", "localhost", 8080, false),
            ("[2001:DB8::1]:*", "2001:db8::1", 22, true),
            ("[::1]:80", "0:0:0:0:0:0:0:1", 80, true),
            ("[0::0001]:80", "[::1]", 80, true),
            ("::0.0.0.1:80", "::1", 80, true),
            ("[::1]:80", "::2", 80, false),
            ("[::1]:80", "::", 80, false),
            ("[FE80::1%eth0]:80", "fe80:0::1%eth0", 80, true),
            ("[fe80::1%eth0]:80", "fe80::1%eth1", 80, false),
            ("[fe80::1%eth0]:80", "fe80::1", 80, false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1", 80, false),
            ("localhost:22", "localhost", 22, true),
            ("localhost:22", "LOCALHOST", 22, true),
            ("localhost:22", "localhost.", 22, true),
            ("localhost.:22", "Localhost", 22, true),
            ("localhost:22", "localhost..", 22, false),
            ("localhost:22", "foo.localhost", 22, false),
            ("nas:22", "nas.", 22, false),
            ("localhost:22", "127.0.0.1", 22, false),
            ("localhost:22", "localhost", 23, false),
            ("*:22", "anything", 22, true),
            ("localhost:*", "localhost", 65535, true),
            ("localhost:*", "other", 1, false),
            ("*:*", "other", 1, true),
            ("a:1,b:2", "b", 2, true),
            ("a:1,b:2", "a", 2, false),
            ("", "localhost", 22, false),
        ] {
            assert_eq!(
                list.parse::<Permit>().unwrap().allows(host, port),
                want,
                "{list} {host}:{port}"
            );
        }
    }

    #[test]
    fn a_bad_word_is_named() {
        for bad in [
            "22",
            "localhost",
            "localhost:0",
            "localhost:65536",
            "localhost:+22",
            ":22",
            "a b:22",
            "h:x",
            "a\n:1",
            "localhost:22:80",
            "localhost::80",
            "[nas]:80",
            "[::1:80",
            "::1]:80",
            "[::1%lo]:80",
            "[fe80::1%e h]:80",
            "127.0.0.1:22:*",
            "*:22:80",
        ] {
            let list = format!("localhost:22,{bad}");
            assert_eq!(
                list.parse::<Permit>(),
                Err(BadPattern(bad.to_owned())),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_list_prints_as_it_is_read() {
        for (typed, text) in [
            ("localhost:22,*:3389,nas:*,*:*,[::1]:80", ""),
            ("[0:0::1]:80,fe80::1:80", "[::1]:80,[fe80::1]:80"),
            ("[FE80::1%eth0]:*", "[fe80::1%eth0]:*"),
        ] {
            let text = if text.is_empty() { typed } else { text };
            assert_eq!(typed.parse::<Permit>().unwrap().to_string(), text);
            assert_eq!(text.parse::<Permit>(), typed.parse());
        }
    }
}
