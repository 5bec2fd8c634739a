//! Is this a host? One answer for everything that is dialled, wherever the text came from.
//!
//! ```text
//!   nas   rv.example.org.   my_box-2      a name: labels of letters, digits, - and _
//!   192.0.2.7                             an IPv4 address
//!   ::1   [2001:db8::1]                   an IPv6 address, in brackets or not, however it is spelt
//!   fe80::1%eth0                          the same with a zone: one on a link of the machine that dials it
//! ```
//! So no credentials, paths, ports, blanks, control characters, nor what a shell would understand; and nothing
//! that begins with `-`, which ssh would take for an option.

use std::net::Ipv6Addr;

/// Longest name, in bytes. Source: RFC 1035, 2.3.4. How long a label may be is the resolver's business.
const MAX_NAME: usize = 253;

/// Longest name of a link, in bytes. Source: IFNAMSIZ of Linux.
const MAX_ZONE: usize = 15;

/// Whether it can be dialled.
pub fn is_host(text: &str) -> bool {
    canonical(text).is_some()
}

/// Whether others can dial it, too: a zone says something on one machine only.
pub fn is_host_for_all(text: &str) -> bool {
    is_host(text) && !text.contains('%')
}

/// The host without the brackets of an IPv6 address, and that in the one spelling that it is compared in (RFC 5952).
/// `None`: it is none.
///
/// ```
/// # use noports::text::host::canonical;
/// assert_eq!(canonical("[0:0::0001]").as_deref(), Some("::1"));
/// assert_eq!(canonical("me@nas"), None);
/// ```
pub fn canonical(text: &str) -> Option<String> {
    let inside = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match inside {
        Some(address) => ipv6(address),
        None if is_name(text) => Some(text.to_owned()),
        None => ipv6(text),
    }
}

fn ipv6(text: &str) -> Option<String> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    match zone {
        None => Some(address.to_string()),
        // Only there it means anything.
        Some(zone) if address.is_unicast_link_local() && is_zone(zone) => {
            Some(format!("{address}%{zone}"))
        }
        Some(_) => None,
    }
}

fn is_zone(text: &str) -> bool {
    let proper = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=MAX_ZONE).contains(&text.len()) && text.bytes().all(proper)
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
            "fe80::1%eth0",
            "[fe80::1%br-lan.7]",
            "fe80::1%2",
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
            "fe80::1%",
            "fe80::1%eth0%eth1",
            "fe80::1%eth0;id",
            "fe80::1%a/b",
            "fe80::1%sixteen_letters_",
            "2001:db8::1%eth0",
            "::1%lo",
            "nas%eth0",
            "192.0.2.7%eth0",
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

    #[test]
    fn an_address_has_one_spelling() {
        for (text, want) in [
            ("0:0:0:0:0:0:0:1", "::1"),
            ("[0::0001]", "::1"),
            ("::0.0.0.1", "::1"),
            ("2001:DB8:0:0::00A", "2001:db8::a"),
            ("::FFFF:C000:0207", "::ffff:192.0.2.7"),
            ("[FE80:0::1%Eth0]", "fe80::1%Eth0"),
            ("Nas.", "Nas."),
            ("192.0.2.7", "192.0.2.7"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(want), "{text}");
        }
        assert!(is_host_for_all("[::1]") && !is_host_for_all("fe80::1%eth0"));
    }
}
