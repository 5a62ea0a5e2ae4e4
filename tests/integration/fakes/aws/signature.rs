//! Signature version 4, from its description alone: nothing here is shared with the product.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// The parts of an `Authorization` header.
pub(super) struct Authorization<'a> {
    pub(super) key_id: &'a str,
    pub(super) date: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) signed_headers: Vec<&'a str>,
    pub(super) signature: &'a str,
}

impl<'a> Authorization<'a> {
    pub(super) fn parse(header: &'a str) -> Option<Self> {
        let rest = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let parts: BTreeMap<_, _> = rest.split(',').filter_map(|part| part.trim().split_once('=')).collect();
        let scope: Vec<_> = parts.get("Credential")?.split('/').collect();
        let [key_id, date, region, service, "aws4_request"] = scope[..] else { return None };
        let signed_headers = parts.get("SignedHeaders")?.split(';').collect();
        Some(Self { key_id, date, region, service, signed_headers, signature: parts.get("Signature")? })
    }
}

/// The signature of a `POST /` with these headers (lower-case names, in order) and this body.
pub(super) fn of(secret: &str, region: &str, service: &str, headers: &BTreeMap<&str, &str>, body: &[u8]) -> String {
    let at = headers["x-amz-date"];
    let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let lines = lines.concat();
    let names = headers.keys().copied().collect::<Vec<_>>().join(";");
    let canonical = format!("POST\n/\n\n{lines}\n{names}\n{}", hex(digest(&SHA256, body).as_ref()));
    let scope = format!("{}/{region}/{service}/aws4_request", &at[..8]);
    let to_sign = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
    let parts = [&at[..8], region, service, "aws4_request", to_sign.as_str()];
    let key = parts.iter().fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    hex(&key)
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// Seconds since 1970 of `20261121T133000Z`.
pub(super) fn seconds(at: &str) -> Option<i64> {
    let part = |from: usize, to: usize| at.get(from..to);
    let (date, time) = (part(0, 8)?, part(9, 15)?);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &date[..4],
        date.get(4..6)?,
        date.get(6..)?,
        &time[..2],
        time.get(2..4)?,
        time.get(4..)?
    );
    Some(DateTime::from_str(&text, Format::DateTime).ok()?.secs())
}

/// Headers of an administrator's call, now.
pub(crate) fn sign_call(
    (key_id, secret): (&str, &str),
    (region, service): (&str, &str),
    host: &str,
    target: Option<&str>,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let now = DateTime::from_secs(DateTime::from(std::time::SystemTime::now()).secs()).fmt(Format::DateTime).unwrap();
    let at: String = now.chars().filter(|c| !"-:".contains(*c)).collect();
    let mut headers = BTreeMap::from([("host", host), ("x-amz-date", at.as_str())]);
    headers.extend(target.map(|target| ("x-amz-target", target)));
    let signature = of(secret, region, service, &headers, body);
    let scope = format!("{key_id}/{}/{region}/{service}/aws4_request", &at[..8]);
    let names = headers.keys().copied().collect::<Vec<_>>().join(";");
    let authorization = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}");
    let target = target.map(|target| ("x-amz-target", target.to_owned()));
    [("x-amz-date", at), ("authorization", authorization)].into_iter().chain(target).collect()
}

#[test]
fn signatures_are_those_of_the_published_example() {
    // https://github.com/awslabs/aws-c-auth/tree/main/tests/aws-signing-test-suite/v4/post-vanilla
    let headers = BTreeMap::from([("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")]);
    let signature = of("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "service", &headers, b"");
    assert_eq!(signature, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
}
