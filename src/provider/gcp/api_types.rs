//! Google's JSON, read straight into the types that keep secrets.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_32_ISCSI, Crc, NoTable};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::settings::is_number;
use crate::provider::auth::oauth::Whole;
use crate::provider::http::{Response, date};
use crate::provider::session::{Renewal, Token};
use crate::provider::{Answer, Version};
use crate::secret::{SecretTree, SecretValue};

/// Castagnoli's; payloads are small, so a table would cost more memory than it saves time.
const CRC32C: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISCSI);

/// A version with its value (`AccessSecretVersionResponse`).
#[derive(Deserialize)]
pub(super) struct AccessedVersion {
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
pub(super) struct VersionState {
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

/// Why an answer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is not what was asked for, or no base64.
    Garbage,
    /// The checksum is another one.
    Checksum,
}

// === impl AccessedVersion ===

impl AccessedVersion {
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

// === impl VersionState ===

impl VersionState {
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
pub(super) fn parse_impersonation(response: &Response) -> Option<Token> {
    let Impersonation { access_token, expire_time } = serde_json::from_slice(&response.body).ok()?;
    let ends = date::parse_rfc3339(&expire_time)? / 1000;
    let sent = response.headers.get(hyper::header::DATE).and_then(|value| date::parse_http_date(value.to_str().ok()?));
    let now = sent.unwrap_or_else(|| date::now() / 1000);
    let life = Duration::from_secs(ends.saturating_sub(now));
    (!access_token.is_empty()).then(|| Token::new(access_token, Some(life), Renewal::Never))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "projects/shop/secrets/db";

    fn access(json: &str) -> Result<Answer, Damage> {
        serde_json::from_str::<AccessedVersion>(json).unwrap().into_answer(PATH)
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
            assert_eq!(serde_json::from_str::<VersionState>(&json).unwrap().version(PATH), Ok(found), "{state}");
        }
    }
}
