//! Google Secret Manager, its token services and a machine's metadata service, as
//! <https://cloud.google.com/secret-manager/docs/reference/rest> (v1),
//! <https://cloud.google.com/iam/docs/reference/sts/rest>, <https://cloud.google.com/iam/docs/reference/credentials/rest>,
//! <https://developers.google.com/identity/protocols/oauth2/service-account> and
//! <https://cloud.google.com/compute/docs/metadata/querying-metadata> publish them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::UNIX_EPOCH;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::server::{FakeServer, Received, Reply};

mod tokens;

pub(crate) const PROJECT: &str = "shop";
/// The same project, as Google writes it.
const NUMBER: &str = "123456789012";
pub(crate) const POOL_PROVIDER: &str =
    "iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/k8s/providers/main";
pub(crate) const ISSUER: &str = "https://oidc.example/cluster";
pub(crate) const SUBJECT: &str = "system:serviceaccount:shop:web";
pub(crate) const ACCOUNT: &str = "web@shop.iam.gserviceaccount.com";
pub(crate) const REFRESH_TOKEN: &str = "1//canary-refresh";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).unwrap());

/// The account's key, as its file has it.
pub(crate) fn private_key() -> String {
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&*KEY).unwrap();
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

/// Google, and the machine that the client runs on.
pub(crate) struct FakeGcp {
    server: FakeServer,
    state: Arc<Mutex<World>>,
}

#[derive(Default)]
pub(crate) struct World {
    /// How much later it is here than elsewhere, in seconds.
    pub(crate) later: i64,
    /// Secrets whose values may be read, but not what there is to know about their versions.
    pub(crate) unlooked: BTreeSet<String>,
    /// How many looks the project's quota has left.
    pub(crate) looks_left: Option<u32>,
    /// What the next value's checksum is off by.
    pub(crate) damage: u32,
    /// The reason in every denial's details, where it is not that of a missing right.
    pub(crate) denial: Option<&'static str>,
    /// The federation's own identity may read without impersonation.
    pub(crate) is_direct: bool,
    /// How long tokens of service accounts live.
    pub(crate) token_seconds: Option<i64>,
    counter: u64,
    tokens: BTreeMap<String, Token>,
    /// By full name, without the project.
    secrets: BTreeMap<String, Secret>,
}

#[derive(Clone)]
struct Token {
    ends: i64,
    principal: Principal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Principal {
    /// Of the pool.
    Federated,
    /// The account.
    Account,
    /// A person, who has to say who pays.
    Person,
}

#[derive(Default)]
pub(crate) struct Secret {
    pub(crate) versions: Vec<Stored>,
    pub(crate) aliases: BTreeMap<String, usize>,
}

/// A version of a secret; the first has number 1.
pub(crate) struct Stored {
    data: Vec<u8>,
    pub(crate) state: &'static str,
}

/// The claims of a pod's projected token that it takes.
pub(crate) fn claims() -> Value {
    json!({"iss": ISSUER, "sub": SUBJECT, "aud": [format!("https://{POOL_PROVIDER}")]})
}

// === impl FakeGcp ===

impl FakeGcp {
    /// What an operator writes for it, but for the type and how pods log in.
    pub(crate) fn settings(&self) -> Value {
        json!({"address": self.url(), "project": PROJECT, "ca": self.certificates.ca})
    }

    /// How pods log in.
    pub(crate) fn federation(&self) -> Value {
        let url = self.url();
        json!({"method": "workload-identity-federation", "audience": format!("//{POOL_PROVIDER}"),
            "tokenUrl": format!("{url}/v1/token"), "impersonationUrl": url})
    }

    pub(crate) async fn start() -> Self {
        let state = Arc::<Mutex<World>>::default();
        let shared = Arc::clone(&state);
        let server = FakeServer::start(move |received| shared.lock().unwrap().answer(received)).await;
        Self { server, state }
    }

    /// The same machine's metadata service, which speaks no TLS.
    pub(crate) async fn start_metadata(&self) -> FakeServer {
        let shared = Arc::clone(&self.state);
        FakeServer::start_plain(move |received| shared.lock().unwrap().metadata(received)).await
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.state.lock().unwrap()
    }
}

impl Deref for FakeGcp {
    type Target = FakeServer;

    fn deref(&self) -> &FakeServer {
        &self.server
    }
}

// === impl World ===

impl World {
    fn now(&self) -> i64 {
        i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap() + self.later
    }

    /// Makes a version; `name` may begin with `locations/<location>/`.
    pub(crate) fn put(&mut self, name: &str, data: &[u8]) -> &mut Secret {
        let secret = self.secret(name);
        secret.versions.push(Stored { data: data.to_vec(), state: "ENABLED" });
        secret
    }

    pub(crate) fn secret(&mut self, name: &str) -> &mut Secret {
        let place = match name.rsplit_once('/') {
            Some((location, name)) => format!("{location}/secrets/{name}"),
            None => format!("secrets/{name}"),
        };
        self.secrets.entry(place).or_default()
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.secrets.remove(&format!("secrets/{name}"));
    }

    pub(crate) fn end_tokens(&mut self) {
        self.tokens.clear();
    }

    fn answer(&mut self, received: &Received) -> Reply {
        self.counter += 1;
        let path = received.path.clone();
        let reply = if received.method == Method::POST {
            match path.as_str() {
                "/v1/token" => self.exchange(received),
                "/token" => self.oauth(received),
                _ => match path.strip_prefix("/v1/projects/-/serviceAccounts/") {
                    Some(call) => self.impersonate(received, call),
                    None => status(404, "NOT_FOUND", "Method not found.", None),
                },
            }
        } else {
            self.secret_manager(received, path.trim_start_matches("/v1/")).unwrap_or_else(|refusal| refusal)
        };
        reply
            .header("date", http_date(self.now()))
            .header("vary", "X-Origin")
            .header("server", "ESF")
            .header("cache-control", "private")
            .header("x-content-type-options", "nosniff")
    }

    /// A person's token.
    pub(crate) fn token_of_person(&mut self, life: i64) -> String {
        self.new_token(life, Principal::Person)
    }

    fn new_token(&mut self, life: i64, principal: Principal) -> String {
        let name = format!("ya29.canary-{}", self.counter);
        self.tokens.insert(name.clone(), Token { ends: self.now() + life, principal });
        name
    }

    fn bearer(&self, received: &Received) -> Option<&Token> {
        let name = received.header("authorization")?.strip_prefix("Bearer ")?;
        self.tokens.get(name).filter(|token| token.ends > self.now())
    }

    fn secret_manager(&mut self, received: &Received, path: &str) -> Result<Reply, Reply> {
        let Some(token) = self.bearer(received).cloned() else { return Err(unauthenticated()) };
        if token.principal == Principal::Person && received.header("x-goog-user-project") != Some(PROJECT) {
            let text = "The secretmanager.googleapis.com API requires a quota project, which is not set by default.";
            return Err(status(403, "PERMISSION_DENIED", text, Some("SERVICE_DISABLED")));
        }
        let (path, is_access) = match path.strip_suffix(":access") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let found = path.strip_prefix("projects/").and_then(|rest| rest.split_once('/'));
        let found = found.filter(|_| received.method == Method::GET);
        let Some((project, (place, version))) =
            found.and_then(|(project, rest)| Some((project, rest.split_once("/versions/")?)))
        else {
            return Err(status(404, "NOT_FOUND", "Method not found.", None));
        };
        self.permit(project, place, is_access, &token)?;
        if !is_access && let Some(left) = &mut self.looks_left {
            if *left == 0 {
                let text = "Quota exceeded for quota metric 'Read requests' and limit 'Read requests per minute'.";
                return Err(status(429, "RESOURCE_EXHAUSTED", text, Some("RATE_LIMIT_EXCEEDED")));
            }
            *left -= 1;
        }
        let name = format!("projects/{NUMBER}/{place}");
        let Some(secret) = self.secrets.get(place).filter(|secret| !secret.versions.is_empty()) else {
            let text = format!("Secret [{name}] not found or has no versions.");
            return Err(status(404, "NOT_FOUND", &text, None));
        };
        let number = match version {
            "latest" => secret.versions.len(),
            version => match (version.parse(), secret.aliases.get(version)) {
                (Ok(number), _) => number,
                (Err(_), Some(number)) => *number,
                (Err(_), None) => 0,
            },
        };
        let name = format!("{name}/versions/{number}");
        let Some(stored) = number.checked_sub(1).and_then(|index| secret.versions.get(index)) else {
            return Err(status(404, "NOT_FOUND", &format!("Secret Version [{name}] not found."), None));
        };
        if !is_access {
            let created = rfc3339(1_795_258_786 + i64::try_from(number).unwrap());
            let mut version = json!({"name": name, "createTime": created, "state": stored.state,
                "replicationStatus": {"automatic": {}}, "etag": format!("\"15ff{number}\""),
                "clientSpecifiedPayloadChecksum": true});
            if stored.state == "DESTROYED" {
                version["destroyTime"] = json!(created);
            }
            return Ok(Reply::json(200, &version));
        }
        if stored.state != "ENABLED" {
            let text = format!("Secret Version [{name}] is in {} state. canary", stored.state);
            return Err(status(400, "FAILED_PRECONDITION", &text, None));
        }
        let sum = crc32c(&stored.data).wrapping_add(std::mem::take(&mut self.damage));
        let payload = json!({"data": STANDARD.encode(&stored.data), "dataCrc32c": sum.to_string()});
        Ok(Reply::json(200, &json!({"name": name, "payload": payload})))
    }

    fn permit(&self, project: &str, place: &str, is_access: bool, token: &Token) -> Result<(), Reply> {
        let name = place.rsplit('/').next().unwrap_or_default();
        let may = [PROJECT, NUMBER].contains(&project)
            && !name.starts_with("closed")
            && (token.principal != Principal::Federated || self.is_direct)
            && (is_access || !self.unlooked.contains(name))
            && self.denial.is_none();
        if may {
            return Ok(());
        }
        let right = if is_access { "access" } else { "get" };
        let text = format!("Permission 'secretmanager.versions.{right}' denied for resource (or it may not exist).");
        Err(status(403, "PERMISSION_DENIED", &text, Some(self.denial.unwrap_or("IAM_PERMISSION_DENIED"))))
    }
}

fn unauthenticated() -> Reply {
    let text = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid \
                authentication credential.";
    status(401, "UNAUTHENTICATED", text, Some("ACCESS_TOKEN_EXPIRED"))
        .header("www-authenticate", r#"Bearer realm="https://accounts.google.com/", error="invalid_token""#)
}

/// `google.rpc.Status` in JSON.
fn status(code: u16, status: &str, text: &str, reason: Option<&str>) -> Reply {
    let mut error = json!({"code": code, "message": format!("{text} canary"), "status": status});
    if let Some(reason) = reason {
        error["details"] = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason,
            "domain": "googleapis.com", "metadata": {"service": "secretmanager.googleapis.com"}}]);
    }
    Reply::json(code, &json!({"error": error}))
}

/// Castagnoli's, bit by bit (RFC 3720, B.4), and not by the crate that is tested.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82F6_3B78 } else { sum >> 1 })
    })
}

/// Year, month and day of a number of seconds since 1970, and the seconds of that day.
fn civil(seconds: i64) -> (i64, i64, i64, i64) {
    let days = seconds.div_euclid(86_400) + 719_468;
    let era_day = days.rem_euclid(146_097);
    let year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let in_year = era_day - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + days.div_euclid(146_097) * 400 + next, month, day, seconds.rem_euclid(86_400))
}

fn rfc3339(at: i64) -> String {
    let (year, month, day, time) = civil(at);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

fn http_date(at: i64) -> String {
    let (year, month, day, time) = civil(at);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(at / 86_400 % 7).unwrap()];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[usize::try_from(month - 1).unwrap()];
    format!("{weekday}, {day:02} {month} {year} {:02}:{:02}:{:02} GMT", time / 3600, time / 60 % 60, time % 60)
}
