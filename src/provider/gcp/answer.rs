//! What Google's JSON says, read straight into the types that keep secrets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_32_ISCSI, Crc, NoTable};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::is_number;
use crate::provider::auth::bearer::Bearer;
use crate::provider::auth::oauth::Whole;
use crate::provider::http::Response;
use crate::provider::{Answer, Version};
use crate::secret::{SecretTree, SecretValue};

/// Castagnoli's; payloads are small, so that a table would cost more memory than it saves time.
const CRC32C: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISCSI);

/// A version with its value (`AccessSecretVersionResponse`).
#[derive(Deserialize)]
pub(super) struct Access {
    name: String,
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    /// Base64; Google takes no empty values.
    data: SecretValue,
    #[serde(default)]
    data_crc32c: Option<Whole>,
}

/// A version without its value (`SecretVersion`).
#[derive(Deserialize)]
pub(super) struct Look {
    name: String,
    #[serde(default)]
    state: String,
}

/// A service account's token (`GenerateAccessTokenResponse`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonation {
    access_token: SecretValue,
    expire_time: String,
}

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is not what was asked for, or no base64.
    Garbage,
    /// The checksum is another one.
    Checksum,
}

// === impl Access ===

impl Access {
    /// The value; `path` is the secret's full name.
    pub(super) fn into_answer(self, path: &str) -> Result<Answer, Damage> {
        let version = version_of(&self.name, path).ok_or(Damage::Garbage)?;
        let Payload { data, data_crc32c } = self.payload;
        let mut bytes = decode(&data).filter(|bytes| !bytes.is_empty()).ok_or(Damage::Garbage)?;
        if data_crc32c.is_some_and(|Whole(expected)| expected != u64::from(CRC32C.checksum(&bytes))) {
            return Err(Damage::Checksum);
        }
        let tree = SecretTree::from_bytes(std::mem::take(&mut *bytes));
        Ok(Answer { tree, version: Some(version), expires_in: None, lease: None })
    }
}

fn decode(data: &SecretValue) -> Option<Zeroizing<Vec<u8>>> {
    let text = data.expose();
    let mut bytes = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(text.len())));
    STANDARD.decode_vec(text, &mut bytes).ok()?;
    Some(bytes)
}

// === impl Look ===

impl Look {
    /// The version, if a read would answer it; the error is whether it is garbage.
    pub(super) fn version(&self, path: &str) -> Result<Option<Version>, Damage> {
        let version = version_of(&self.name, path).ok_or(Damage::Garbage)?;
        Ok((self.state == "ENABLED").then_some(version))
    }
}

/// The number in `projects/<number>/secrets/<name>/versions/<version>`, if it is of that secret: the project may be
/// written otherwise than it was asked for.
fn version_of(name: &str, path: &str) -> Option<Version> {
    let (secret, version) = name.split_once("/versions/")?;
    let below_project = |name: &str| name.splitn(3, '/').nth(2).map(str::to_owned);
    let is_it = below_project(secret).is_some_and(|found| Some(found) == below_project(path));
    (is_it && is_number(version)).then(|| Version(version.to_owned()))
}

/// A service account's token. Its end is a point in time, measured by the clock of who wrote it.
pub(super) fn parse_impersonation(response: &Response) -> Option<Bearer> {
    let Impersonation { access_token, expire_time } = serde_json::from_slice(&response.body).ok()?;
    let ends = parse_rfc3339(&expire_time)?;
    let date = response.headers.get(hyper::header::DATE).and_then(|value| parse_http_date(value.to_str().ok()?));
    let now = date.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    (!access_token.is_empty()).then(|| Bearer::new(access_token, Some(Duration::from_secs(ends.saturating_sub(now)))))
}

/// Seconds since 1970 of `2026-11-21T10:59:46.123Z` (RFC 3339 as protobuf writes it, always in UTC).
pub(super) fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    Some(days(year, month, day)? * 86_400 + seconds(time)?)
}

/// Seconds since 1970 of `Sat, 21 Nov 2026 10:59:46 GMT` (RFC 9110, 5.6.7).
fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.strip_suffix(" GMT")?.split_once(", ")?.1.split(' ');
    let (day, month, year) = (words.next()?.parse().ok()?, words.next()?, words.next()?.parse().ok()?);
    let month = MONTHS.find(month).filter(|at| at % 3 == 0 && month.len() == 3)? / 3 + 1;
    Some(days(year, u64::try_from(month).ok()?, day)? * 86_400 + seconds(words.next()?)?)
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

    const PATH: &str = "projects/shop/secrets/db";

    fn access(json: &str) -> Result<Answer, Damage> {
        serde_json::from_str::<Access>(json).unwrap().into_answer(PATH)
    }

    #[test]
    fn a_value_is_what_its_checksum_says() {
        // The check value of the CRC catalogue: "123456789" has 0xE3069283.
        let with = |data: &str, sum: &str| {
            format!(r#"{{"name":"projects/1/secrets/db/versions/7","payload":{{"data":"{data}"{sum}}}}}"#)
        };
        for (json, found) in [
            (with("MTIzNDU2Nzg5", r#","dataCrc32c":"3808858755""#), Ok("123456789")),
            (with("MTIzNDU2Nzg5", r#","dataCrc32c":3808858755"#), Ok("123456789")),
            (with("MTIzNDU2Nzg5", ""), Ok("123456789")),
            (with("", r#","dataCrc32c":"0""#), Err(Damage::Garbage)),
            (with("MTIzNDU2Nzg5", r#","dataCrc32c":"3808858754""#), Err(Damage::Checksum)),
            (with("Y2FuYXJ5", r#","dataCrc32c":"3808858755""#), Err(Damage::Checksum)),
            (with("canary!", ""), Err(Damage::Garbage)),
            (with("Y2FuYXJ5", "").replace("secrets/db", "secrets/other"), Err(Damage::Garbage)),
            (with("Y2FuYXJ5", "").replace("versions/7", "versions/canary"), Err(Damage::Garbage)),
            (with("Y2FuYXJ5", "").replace("/1/secrets", "/1/locations/x/secrets"), Err(Damage::Garbage)),
        ] {
            let shown = access(&json).map(|answer| {
                assert_eq!(answer.version, Some(Version("7".to_owned())));
                String::from_utf8(answer.tree.as_value().unwrap().expose().to_vec()).unwrap()
            });
            assert_eq!(shown.as_deref(), found.as_ref().copied(), "{json}");
        }
    }

    #[test]
    fn only_an_enabled_version_is_present() {
        for (state, found) in [("ENABLED", Some(Version("7".to_owned()))), ("DISABLED", None), ("DESTROYED", None)] {
            let json = format!(r#"{{"name":"projects/1/secrets/db/versions/7","state":"{state}"}}"#);
            assert_eq!(serde_json::from_str::<Look>(&json).unwrap().version(PATH), Ok(found), "{state}");
        }
    }

    #[test]
    fn points_in_time_are_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00.5Z", Some(951_825_600)),
            ("2026-11-21T10:59:46.109256157Z", Some(1_795_258_786)),
            ("2026-11-21T10:59:46+01:00", None),
            ("2026-13-21T10:59:46Z", None),
            ("2026-11-21", None),
            ("canary", None),
        ] {
            assert_eq!(parse_rfc3339(text), seconds, "{text}");
        }
        assert_eq!(parse_http_date("Sat, 21 Nov 2026 10:59:46 GMT"), Some(1_795_258_786));
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for text in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sat, 21 ovD 2026 10:59:46 GMT", "", "canary"] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }
}
