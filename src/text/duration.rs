//! How long, as people write it.
//!
//! ```text
//!   90   90s   1h30m   1h,30m   2d 12h            and where parts of a second matter: 500ms
//! ```
//! A number without a unit counts seconds. Several parts are added up.

use std::time::Duration;

/// Units in milliseconds; the first that fits is meant.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Longest text that an error repeats, in characters.
const MAX_SHOWN: usize = 100;

/// A duration in whole seconds.
///
/// # Errors
/// What is possible, when the text is no duration or too long for a number of milliseconds.
///
/// ```
/// # use noports::text::duration::seconds;
/// assert_eq!(seconds("1h30m").unwrap().as_secs(), 5400);
/// assert_eq!(seconds("soon").unwrap_err(), "invalid duration \"soon\": such as 90s, 1h30m or 7d");
/// ```
pub fn seconds(text: &str) -> Result<Duration, String> {
    let whole = read(text).filter(|time| time.subsec_millis() == 0);
    whole.ok_or_else(|| bad(text, "90s, 1h30m or 7d"))
}

/// A duration in milliseconds.
///
/// # Errors
/// As [`seconds`].
pub fn millis(text: &str) -> Result<Duration, String> {
    read(text).ok_or_else(|| bad(text, "500ms, 90s, 1h30m or 7d"))
}

fn bad(text: &str, examples: &str) -> String {
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    let near = near(text).map_or(String::new(), |near| format!(" {near}?"));
    format!("invalid duration {shown:?}:{near} such as {examples}")
}

/// `1hour` → `1h`: a number, and a unit that is written out.
fn near(text: &str) -> Option<String> {
    const SPELT: [(&str, char); 5] = [
        ("sec", 's'),
        ("min", 'm'),
        ("hour", 'h'),
        ("hr", 'h'),
        ("day", 'd'),
    ];
    let text = text.trim().to_lowercase();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, letter) = SPELT
        .iter()
        .find(|row| unit.trim_start().starts_with(row.0))?;
    (!digits.is_empty()).then(|| format!("{digits}{letter}"))
}

fn read(text: &str) -> Option<Duration> {
    let mut sum = 0u64;
    for group in text.split(',') {
        let mut rest = group.trim();
        let mut first = true;
        // An empty group is none: `1h,,30m`.
        while first || !rest.is_empty() {
            let (millis, behind) = part(rest, first)?;
            sum = sum.checked_add(millis)?;
            rest = behind;
            first = false;
        }
    }
    Some(Duration::from_millis(sum))
}

/// `1h30m` → an hour, and `30m` behind it. Only a part that stands alone may lack its unit.
fn part(text: &str, alone: bool) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    let count: u64 = digits.parse().ok()?;
    let rest = rest.trim_start();
    if rest.is_empty() {
        return alone.then_some((count.checked_mul(1000)?, rest));
    }
    let (unit, each) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
    let behind = rest[unit.len()..].trim_start();
    Some((count.checked_mul(*each)?, behind))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_parser_reads_what_people_write() {
        const HOUR: u64 = 3_600_000;
        for (text, want) in [
            ("90", Some(90_000)),
            ("90s", Some(90_000)),
            (" 90 s ", Some(90_000)),
            ("1h30m", Some(HOUR + 30 * 60_000)),
            ("1h,30m", Some(HOUR + 30 * 60_000)),
            ("1h, 30m", Some(HOUR + 30 * 60_000)),
            ("1h 30m", Some(HOUR + 30 * 60_000)),
            ("1h,14m,30s", Some(HOUR + 14 * 60_000 + 30_000)),
            ("1h,30", Some(HOUR + 30_000)),
            ("2d,1h,10m,20s,999ms", Some(177_020_999)),
            ("7d", Some(7 * 24 * HOUR)),
            ("500ms", Some(500)),
            ("1m500ms", Some(60_500)),
            ("0", Some(0)),
            ("", None),
            (" ", None),
            ("s", None),
            ("h", None),
            ("1w", None),
            ("1H", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5h", None),
            ("1h,", None),
            ("1h,,30m", None),
            (",1h", None),
            ("1h30", None),
            ("1 2", None),
            ("soon", None),
            ("5min", None),
            ("1e3", None),
            ("١s", None),
            ("1é", None),
            ("99999999999999999999d", None),
            ("9999999999999999d", None),
            ("18446744073709551615", None),
        ] {
            let got = millis(text).ok().map(|time| time.as_millis());
            assert_eq!(got, want.map(u128::from), "{text:?}");
            let whole = want.filter(|millis| millis % 1000 == 0);
            let got = seconds(text).ok().map(|time| time.as_millis());
            assert_eq!(got, whole.map(u128::from), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_possible_and_is_bounded() {
        let said = |text: &str| millis(text).unwrap_err();
        assert_eq!(
            said("1\u{1b}[2J"),
            "invalid duration \"1\\u{1b}[2J\": such as 500ms, 90s, 1h30m or 7d"
        );
        assert!(said(&"9".repeat(100_000)).len() < 200);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9mshd, é-]{0,30}") {
            let _ = (seconds(&text), millis(&text));
        }
    }
}
