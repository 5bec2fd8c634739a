//! Is this a host? One answer for everything that is dialled, wherever the text came from.
//!
//! ```text
//!   nas   rv.example.org.   my_box-2      a name: labels of letters, digits, - and _
//!   192.0.2.7                             an IPv4 address
//!   ::1   [2001:db8::1]                   an IPv6 address, in brackets or not
//! ```
//! So no credentials, paths, ports, zones, blanks, control characters, nor what a shell would understand; and nothing
//! that begins with `-`, which ssh would take for an option.

use std::net::Ipv6Addr;

/// Longest name, in bytes. Source: RFC 1035, 2.3.4. How long a label may be is the resolver's business.
const MAX_NAME: usize = 253;

/// Whether it can be dialled.
pub fn is_host(text: &str) -> bool {
    bare(text).is_some()
}

/// The host without the brackets of an IPv6 address. `None`: it is none.
///
/// ```
/// # use noports::text::host::bare;
/// assert_eq!(bare("[::1]"), Some("::1"));
/// assert_eq!(bare("me@nas"), None);
/// ```
pub fn bare(text: &str) -> Option<&str> {
    let inside = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let fine = match inside {
        Some(address) => is_ipv6(address),
        None => is_name(text) || is_ipv6(text),
    };
    fine.then(|| inside.unwrap_or(text))
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// An IPv4 address is one, too.
fn is_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    text.len() <= MAX_NAME && labels.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let proper = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(proper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_answer_to_what_a_host_is() {
        let (label, name) = ("a".repeat(253), format!("{}bcd", "a.".repeat(125)));
        assert_eq!(name.len(), 253);
        for host in [
            "nas",
            "localhost",
            "rv.example.org",
            "rv.example.org.",
            "my_box-2",
            "_srv.x",
            "3com",
            "192.0.2.7",
            "::1",
            "[::1]",
            "2001:db8::1",
            "[2001:db8::1]",
            "::ffff:192.0.2.7",
            "xn--bcher-kva.example",
            &label,
            &name,
        ] {
            assert!(is_host(host), "{host:?}");
        }
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "-x",
            "a.-b",
            "-oProxyCommand=x",
            "a b",
            "me@nas",
            "me:secret@nas",
            "http://nas",
            "nas/x",
            "nas:22",
            "1.2.3.4:5",
            "::1:x",
            "[::1",
            "::1]",
            "[nas]",
            "[1.2.3.4]",
            "[[::1]]",
            "[]",
            "fe80::1%eth0",
            "[::1]:22",
            "nas\n",
            "nas\0",
            "nas\u{7f}",
            "n,as",
            "na$s",
            "*",
            "b\u{fc}cher",
            &format!("{label}a"),
            &format!("{name}d"),
        ] {
            assert!(!is_host(text), "{text:?}");
        }
    }
}
