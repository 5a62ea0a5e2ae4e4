//! Points in time as stores write them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 of `2026-01-31T05:31:56.123Z` (RFC 3339, in UTC).
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let millis = fraction.get(..3).unwrap_or(fraction).parse::<u64>().ok()?;
    let scale = [100, 10, 1].get(fraction.len().min(3).checked_sub(1)?)?;
    Some((days(year, month, day)? * 86_400 + seconds(time)?) * 1000 + millis * scale)
}

/// Seconds since 1970 of `Sat, 21 Nov 2026 10:59:46 GMT` (RFC 9110, 5.6.7).
#[must_use]
pub fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.strip_suffix(" GMT")?.split_once(", ")?.1.split(' ');
    let (day, month, year) = (words.next()?.parse().ok()?, words.next()?, words.next()?.parse().ok()?);
    let month = MONTHS.find(month).filter(|at| at % 3 == 0 && month.len() == 3)? / 3 + 1;
    Some(days(year, u64::try_from(month).ok()?, day)? * 86_400 + seconds(words.next()?)?)
}

/// Milliseconds since 1970, by this machine's clock.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Of `10:59:46`.
fn seconds(time: &str) -> Option<u64> {
    let mut parts = time.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    (hour < 24 && minute < 60 && second < 61).then_some(hour * 3600 + minute * 60 + second)
}

/// Days since 1970 in the Gregorian calendar, whose year is reckoned from March so that leap days come last
/// (<https://howardhinnant.github.io/date_algorithms.html#days_from_civil>).
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let in_year = (153 * month + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + in_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("1970-01-02T00:00:00Z", Some(86_400_000)),
            ("2000-02-29T12:34:56.7Z", Some(951_827_696_700)),
            ("2023-11-07T05:31:56.120Z", Some(1_699_335_116_120)),
            ("2100-03-01T00:00:00.000123Z", Some(4_107_542_400_000)),
            ("2023-13-07T05:31:56Z", None),
            ("2023-11-07T05:31:56+01:00", None),
            ("2023-11-07", None),
            ("1969-12-31T23:59:59Z", None),
            ("0000-01-01T00:00:00Z", None),
            ("18446744073709551615-01-01T00:00:00Z", None),
            ("2023-11-18446744073709551615T00:00:00Z", None),
            ("2023-11-07T05:31:56.18446744073709551615Z", Some(1_699_335_116_184)),
            ("canary", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
        assert_eq!(parse_http_date("Sat, 21 Nov 2026 10:59:46 GMT"), Some(1_795_258_786));
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for text in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sat, 21 ovD 2026 10:59:46 GMT", "", "canary"] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }
}
