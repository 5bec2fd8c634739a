//! Ports, as people type them.

/// A port that somebody can be reached at.
///
/// # Errors
/// What is possible.
///
/// ```
/// # use noports::text::port::{port, port_or_any};
/// assert_eq!(port("22"), Ok(22));
/// assert_eq!(port("99999").unwrap_err(), "\"99999\" is not a port: a port is a number from 1 to 65535");
/// assert_eq!(port_or_any("0"), Ok(0));
/// ```
pub fn port(text: &str) -> Result<u16, String> {
    match read(text) {
        Some(port) if port != 0 => Ok(port),
        _ => Err(bad(text)),
    }
}

/// The same for a port of our own, where 0 is any free one.
///
/// # Errors
/// What is possible.
pub fn port_or_any(text: &str) -> Result<u16, String> {
    read(text).ok_or_else(|| format!("{}; 0 is any free one", bad(text)))
}

/// Longest text that an error repeats, in characters.
const MAX_SHOWN: usize = 100;

fn bad(text: &str) -> String {
    let text: String = text.chars().take(MAX_SHOWN).collect();
    format!("{text:?} is not a port: a port is a number from 1 to 65535")
}

fn read(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_from_1_to_65535() {
        for (text, want) in [
            ("1", Some(1)),
            ("22", Some(22)),
            ("65535", Some(65_535)),
            ("0022", Some(22)),
            ("0", None),
            ("65536", None),
            ("99999", None),
            ("99999999999999999999", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            (" 22", None),
            ("22 ", None),
            ("22x", None),
            ("ssh", None),
            ("١", None),
        ] {
            assert_eq!(port(text).ok(), want, "{text:?}");
            let any = if text == "0" { Some(0) } else { want };
            assert_eq!(port_or_any(text).ok(), any, "{text:?}");
            if any.is_none() {
                let told = port_or_any(text).unwrap_err();
                assert!(told.contains("a number from 1 to 65535; 0 is"), "{told}");
            }
        }
        assert!(port(&"9".repeat(100_000)).unwrap_err().len() < 200);
    }
}
