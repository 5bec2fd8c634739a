//! The calendar, in UTC: moments as text, and days read back.

use std::time::{SystemTime, UNIX_EPOCH};

/// In milliseconds.
const DAY: u64 = 86_400_000;

/// Days since 1970-01-01 → year, month, day (proleptic Gregorian).
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 1 March of the year 0, so that the leap day is a year's last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Milliseconds since 1970 → `2024-10-24 12:01:34.567Z`, as the atProtocol writes it.
pub fn date(millis: u64) -> String {
    let days = i64::try_from(millis / DAY).unwrap_or(i64::MAX >> 8);
    let (year, month, day) = civil(days);
    let second = millis / 1000 % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        millis % 1000
    )
}

/// A moment as `2026-11-21T10:00:00.123Z`, as logs write it; before 1970 counts as 1970.
pub fn utc(moment: SystemTime) -> String {
    date(millis(moment)).replacen(' ', "T", 1)
}

/// A moment as `2026-11-21 10:00:00.123456Z`, as the classic programs write it.
pub fn with_micros(moment: SystemTime) -> String {
    let micros = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = date(millis(moment));
    text.truncate(text.len() - ".000Z".len());
    format!("{text}.{:06}Z", micros.subsec_micros())
}

fn millis(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `2024-10-24` → milliseconds since 1970 of its first instant. `None`: no such day, or before 1970.
pub fn parse_day(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, '-');
    let mut part = || parts.next()?.parse::<i64>().ok();
    let (year, month, day) = (part()?, part()?, part()?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let shifted_year = if month > 2 { year } else { year - 1 };
    let month_index = (month + 9) % 12;
    let days = 365 * shifted_year + shifted_year.div_euclid(4) - shifted_year.div_euclid(100)
        + shifted_year.div_euclid(400)
        + (153 * month_index + 2) / 5
        + day
        - 1
        - 719_468;
    (civil(days) == (year, month, day)).then(|| u64::try_from(days).ok()?.checked_mul(DAY))?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_written_and_read_as_the_calendar_has_them() {
        for (millis, text) in [
            (0, "1970-01-01 00:00:00.000Z"),
            (951_782_399_999, "2000-02-28 23:59:59.999Z"),
            (951_782_400_000, "2000-02-29 00:00:00.000Z"),
            (951_868_800_000, "2000-03-01 00:00:00.000Z"),
            (1_729_771_294_567, "2024-10-24 12:01:34.567Z"),
            (1_735_689_599_000, "2024-12-31 23:59:59.000Z"),
            (4_102_444_800_000, "2100-01-01 00:00:00.000Z"),
        ] {
            assert_eq!(date(millis), text, "{millis}");
            let day = millis - millis % 86_400_000;
            assert_eq!(parse_day(&text[..10]), Some(day), "{text}");
        }
        for wrong in [
            "2023-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-01-32",
            "1969-12-31",
            "x",
            "",
        ] {
            assert_eq!(parse_day(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn moments_are_written_in_utc() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (1_735_689_600, "2025-01-01T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let moment = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(7);
            assert_eq!(utc(moment), want);
        }
    }
}
