//! Points in time as stores write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// Milliseconds since 1970 of `2026-01-31T05:31:56.123Z`, or of the same with another offset (RFC 3339).
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Seconds since 1970 of `Sat, 21 Nov 2026 10:59:46 GMT` (RFC 9110, 5.6.7).
#[must_use]
pub fn parse_http_date(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc2822).ok().filter(|_| text.ends_with(" GMT"))?;
    u64::try_from(at.unix_timestamp()).ok()
}

/// Milliseconds since 1970, by this machine's clock.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How long it is until then, in milliseconds since 1970; `None` if that is over.
#[must_use]
pub fn until(end: u64) -> Option<Duration> {
    end.checked_sub(now()).map(Duration::from_millis)
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
            // RFC 3339, 4.2 and 4.3, and the examples of 5.8.
            ("2023-11-07T05:31:56+01:00", Some(1_699_331_516_000)),
            ("2023-11-07T05:31:56+00:00", Some(1_699_335_116_000)),
            ("2023-11-07T05:31:56-00:00", Some(1_699_335_116_000)),
            ("2023-11-07T05:31:56.5-11:30", Some(1_699_376_516_500)),
            ("1985-04-12t23:20:50.52z", Some(482_196_050_520)),
            ("1996-12-19T16:39:57-08:00", Some(851_042_397_000)),
            ("1990-12-31T15:59:60-08:00", Some(662_687_999_999)),
            ("1937-01-01T12:00:27.87+00:20", None),
            ("1970-01-01T00:30:00+01:00", None),
            ("2023-11-07T05:31:56+24:00", None),
            ("2023-11-07T05:31:56+0100", None),
            ("2023-11-07T05:31:56", None),
            ("2023-11-07T05:31:56UTC", None),
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
