//! Amounts of bytes, as people type and read them.

/// So many bytes: a number, with K, M, G or T behind it.
///
/// # Errors
/// What is possible.
///
/// ```
/// # use noports::text::size::size;
/// assert_eq!(size("500M"), Ok(500 << 20));
/// assert!(size("much").is_err());
/// ```
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || {
        let text: String = text.chars().take(100).collect();
        format!("{text:?} is no size: a size is a number with K, M, G or T behind it, such as 500M")
    };
    let upper = text.to_ascii_uppercase();
    let digits = upper.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match &upper[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(bad()),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| digits.parse::<u64>().ok()).flatten();
    number
        .and_then(|number| number.checked_mul(1 << power))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(bad)
}

/// What an atSign may keep. Below this it could not keep its own keys, and a unit was forgotten.
const LEAST: u64 = 1 << 20;

/// The same for what somebody may keep.
///
/// # Errors
/// What is possible.
pub fn quota(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < LEAST => Err(format!("{text:?} is too little: 1M or more, such as 500M")),
        bytes => Ok(bytes),
    }
}

/// The same in words, rounded down.
pub fn in_words(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let fits = units.iter().find(|(power, _)| bytes >> power >= 10);
    let exact = units
        .iter()
        .find(|(power, _)| bytes >> power > 0 && bytes.is_multiple_of(1 << power));
    match exact.or(fits) {
        Some((power, unit)) => format!("{}{unit}", bytes >> power),
        None => format!("{bytes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_leaves_room_for_an_atsigns_keys() {
        for text in ["1", "1023K", "1048575"] {
            assert!(quota(text).is_err_and(|why| why.ends_with("such as 500M")));
        }
        assert_eq!(quota("1M"), Ok(1 << 20));
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, want, words) in [
            ("1", Some(1), "1"),
            ("64k", Some(64 << 10), "64K"),
            ("500M", Some(500 << 20), "500M"),
            ("2G", Some(2 << 30), "2G"),
            ("3T", Some(3 << 40), "3T"),
            ("2047", Some(2047), "2047"),
            ("20470", Some(20_470), "19K"),
            ("0", None, ""),
            ("", None, ""),
            ("M", None, ""),
            ("-1", None, ""),
            ("1.5G", None, ""),
            ("1GB", None, ""),
            ("99999999T", None, ""),
            ("١", None, ""),
        ] {
            assert_eq!(size(text).ok(), want, "{text:?}");
            if let Some(bytes) = want {
                assert_eq!(in_words(bytes), words);
            }
        }
    }
}
