//! Secrets engines: KV of both versions, and three that lease or issue.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Call, Reply, Server};

const CREATED: &str = "2026-11-21T10:26:12.971069283Z";
const DELETED: &str = "2026-11-21T10:26:13.109256157Z";
const DELETED_LATER: &str = "2099-11-21T10:26:13.109256157Z";

/// Of a KV version 2 secret, unless it says `max_versions`.
const KEPT_VERSIONS: usize = 10;

pub(super) enum Engine {
    Kv1(BTreeMap<String, Value>),
    /// And whether new versions are deleted some time (`delete_version_after`).
    Kv2(BTreeMap<String, Vec<Kv2Version>>, bool),
    /// Renewable credentials; per role, ttl and maximum in seconds.
    Database(BTreeMap<String, (u64, u64)>),
    /// One-time passwords: asked with parameters, not renewable.
    Ssh,
    /// Certificates: asked with parameters, no lease; for how many hours there is one to sign them.
    Pki(u64),
}

pub(super) struct Kv2Version {
    values: Value,
    created: String,
    /// When it was deleted, or will be.
    deletion_time: &'static str,
    is_destroyed: bool,
}

pub(super) struct LeaseState {
    pub(super) ends: Instant,
    ttl: Duration,
    max: Instant,
    is_renewable: bool,
    token: Option<String>,
}

// === impl Server ===

impl Server {
    pub(super) fn mount(&mut self, path: &str, body: &Value) -> Reply {
        let engine = match (body["type"].as_str(), body["options"]["version"].as_str()) {
            (Some("kv"), Some("2")) => Engine::Kv2(BTreeMap::new(), false),
            (Some("kv"), _) => Engine::Kv1(BTreeMap::new()),
            (Some("database"), _) => Engine::Database(BTreeMap::new()),
            (Some("ssh"), _) => Engine::Ssh,
            (Some("pki"), _) => Engine::Pki(0),
            other => panic!("the fake has no engine {other:?}"),
        };
        self.engines.insert(format!("{path}/"), engine);
        Reply::no_content()
    }

    pub(super) fn show_mount(&self, call: &Call, path: &str) -> Reply {
        let refused = || {
            let text = format!(
                "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}/\""
            );
            Reply::error(403, &text)
        };
        let Some((mount, engine)) = self.engines.iter().find(|(mount, _)| path.starts_with(mount.as_str())) else {
            return refused();
        };
        if !self.logins.sees_mount(call, mount) {
            return refused();
        }
        let (kind, options) = match engine {
            Engine::Kv1(_) => ("kv", json!({"version": "1"})),
            Engine::Kv2(..) => ("kv", json!({"version": "2"})),
            Engine::Database(_) => ("database", Value::Null),
            Engine::Ssh => ("ssh", Value::Null),
            Engine::Pki(_) => ("pki", Value::Null),
        };
        Reply::framed(
            200,
            json!({"data": {
                "accessor": "kv_1a5001fa", "config": {"default_lease_ttl": 2_764_800, "force_no_cache": false},
                "description": "", "local": false, "options": options, "path": mount, "seal_wrap": false, "type": kind,
            }}),
        )
    }

    pub(super) fn use_engine(&mut self, call: &Call) -> Reply {
        let Some(mount) = self.engines.keys().find(|mount| call.path.starts_with(mount.as_str())).cloned() else {
            return Reply::error(404, &format!("no handler for route {:?}. route entry not found.", call.path));
        };
        let rest = call.path[mount.len()..].to_owned();
        let is_write = matches!(call.method.as_str(), "POST" | "PUT");
        let unsupported = || Reply::error(405, "1 error occurred:\n\t* unsupported operation\n\n");
        match self.engines.get_mut(&mount).unwrap() {
            Engine::Kv1(secrets) => kv1(secrets, call, &rest),
            Engine::Kv2(_, deletes) if rest == "config" => {
                *deletes = !call.body["delete_version_after"].is_null();
                Reply::no_content()
            }
            Engine::Kv2(secrets, deletes) => kv2(secrets, *deletes, call, &rest),
            Engine::Database(roles) => match rest.split_once('/') {
                Some(("roles", role)) if is_write => {
                    let seconds = |field: &str| call.body[field].as_u64().unwrap();
                    roles.insert(role.to_owned(), (seconds("default_ttl"), seconds("max_ttl")));
                    Reply::no_content()
                }
                Some(("creds", _)) if is_write => unsupported(),
                Some(("creds", role)) => {
                    let Some(&(ttl, max)) = roles.get(role) else {
                        return Reply::error(500, &format!("1 error occurred:\n\t* unknown role: {role}\n\n"));
                    };
                    let user = self.next_name("v-web-canary");
                    let data = json!({"username": user, "password": format!("canary-{user}")});
                    self.lease(call, data, "database", (ttl, max), true)
                }
                _ => Reply::not_found(),
            },
            Engine::Ssh if rest.starts_with("roles/") => Reply::no_content(),
            Engine::Ssh if !is_write => unsupported(),
            Engine::Ssh => match call.body["ip"].as_str() {
                None => Reply::error(400, "Missing ip"),
                Some(ip) => {
                    let key = self.next_name("canary-otp");
                    let data = json!({"ip": ip, "key": key, "key_type": "otp", "port": 22, "username": "u"});
                    self.lease(call, data, "ssh", (2_764_800, 2_764_800), false)
                }
            },
            Engine::Pki(left) if rest == "root/generate/internal" => {
                *left = hours(&call.body["ttl"]).unwrap();
                Reply::framed(200, json!({"data": {}}))
            }
            Engine::Pki(_) if !rest.starts_with("issue/") => Reply::framed(200, json!({"data": {}})),
            Engine::Pki(_) if !is_write => unsupported(),
            Engine::Pki(left) if hours(&call.body["ttl"]).is_some_and(|life| life > *left) => Reply::error(
                400,
                "cannot satisfy request, as TTL would result in notAfter of 2026-11-23T10:26:12Z that is beyond the \
                 expiration of the CA certificate at 2026-11-22T10:26:12Z",
            ),
            Engine::Pki(_) => self.issue(call),
        }
    }

    fn issue(&mut self, call: &Call) -> Reply {
        if call.body["common_name"].is_null() {
            return Reply::error(400, "the common_name field is required, or must be provided in a CSR");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let serial = self.next_name("5f:10:9c:");
        Reply::framed(
            200,
            json!({"mount_type": "pki", "data": {
                "ca_chain": ["-----BEGIN CERTIFICATE-----"], "certificate": format!("-----BEGIN CERTIFICATE----- {serial}"),
                "expiration": now + 72 * 3600, "issuing_ca": "-----BEGIN CERTIFICATE-----",
                "private_key": "-----BEGIN EC PRIVATE KEY----- canary", "private_key_type": "ec", "serial_number": serial,
            }}),
        )
    }

    fn lease(&mut self, call: &Call, data: Value, kind: &str, (ttl, max): (u64, u64), is_renewable: bool) -> Reply {
        let id = format!("{}/{}", call.path, self.next_name("canary-lease"));
        let now = self.now();
        let ttl = Duration::from_secs(ttl);
        let max = now + Duration::from_secs(max);
        self.leases
            .insert(id.clone(), LeaseState { ends: now + ttl, ttl, max, is_renewable, token: call.token.clone() });
        Reply::framed(
            200,
            json!({"lease_id": id, "renewable": is_renewable, "lease_duration": ttl.as_secs(),
            "data": data, "mount_type": kind}),
        )
    }

    pub(super) fn change_lease(&mut self, verb: &str, body: &Value) -> Reply {
        let id = body["lease_id"].as_str().unwrap_or_default().to_owned();
        let now = self.now();
        if verb == "revoke" {
            self.leases.remove(&id);
            return Reply::no_content();
        }
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.ends > now) else {
            return Reply::error(400, "lease not found");
        };
        if !lease.is_renewable {
            return Reply::error(400, "lease is not renewable");
        }
        lease.ends = (now + lease.ttl).min(lease.max);
        // Whole seconds, as Vault rounds them.
        let left = (lease.ends.duration_since(now) + Duration::from_millis(500)).as_secs();
        Reply::framed(200, json!({"lease_id": id, "renewable": true, "lease_duration": left}))
    }

    /// A token's end is the end of its leases.
    pub(super) fn end_leases_of(&mut self, token: &str) {
        self.leases.retain(|_, lease| lease.token.as_deref() != Some(token));
    }
}

fn hours(life: &Value) -> Option<u64> {
    life.as_str()?.strip_suffix('h')?.parse().ok()
}

fn kv1(secrets: &mut BTreeMap<String, Value>, call: &Call, key: &str) -> Reply {
    match call.method.as_str() {
        "POST" | "PUT" => {
            secrets.insert(key.to_owned(), call.body.clone());
            Reply::no_content()
        }
        _ => match secrets.get(key) {
            None => Reply::not_found(),
            Some(values) => {
                // A key named ttl is taken for a hint about how often to look.
                let hint = if values["ttl"] == "30m" { 1800 } else { 2_764_800 };
                Reply::framed(200, json!({"lease_duration": hint, "data": values, "mount_type": "kv"}))
            }
        },
    }
}

fn kv2(secrets: &mut BTreeMap<String, Vec<Kv2Version>>, deletes: bool, call: &Call, rest: &str) -> Reply {
    let (area, key) = rest.split_once('/').unwrap_or((rest, ""));
    match (call.method.as_str(), area) {
        ("POST" | "PUT", "data") => {
            let values = call.body["data"].clone();
            if !values.is_object() {
                return Reply::error(400, "no data provided");
            }
            let versions = secrets.entry(key.to_owned()).or_default();
            let created = created_time();
            let deletion_time = if deletes { DELETED_LATER } else { "" };
            versions.push(Kv2Version { values, created: created.clone(), deletion_time, is_destroyed: false });
            Reply::framed(
                200,
                json!({"data": {"created_time": created, "custom_metadata": null, "deletion_time": deletion_time,
                "destroyed": false, "version": versions.len()}, "mount_type": "kv"}),
            )
        }
        ("DELETE", "data") => {
            if let Some(version) = secrets.get_mut(key).and_then(|versions| versions.last_mut()) {
                version.deletion_time = DELETED;
            }
            Reply::no_content()
        }
        ("PUT" | "POST", "destroy") => {
            for number in call.body["versions"].as_array().unwrap() {
                let index = usize::try_from(number.as_u64().unwrap()).unwrap() - 1;
                secrets.get_mut(key).unwrap()[index].is_destroyed = true;
            }
            Reply::no_content()
        }
        ("DELETE", "metadata") => {
            secrets.remove(key);
            Reply::no_content()
        }
        ("GET", "data") => kv2_read(secrets.get(key), call),
        ("GET", "metadata") => secrets.get(key).map_or_else(Reply::not_found, |versions| kv2_metadata(versions)),
        _ => Reply::framed(
            404,
            json!({"warnings": ["Invalid path for a versioned K/V secrets engine. See the API docs \
            for the appropriate API endpoints to use. If using the Vault CLI, use 'vault kv get' for this operation."]}),
        ),
    }
}

/// Another one each time, as clocks have it.
fn created_time() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("2026-11-21T10:26:12.{:09}Z", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn kv2_read(versions: Option<&Vec<Kv2Version>>, call: &Call) -> Reply {
    let Some(versions) = versions else { return Reply::not_found() };
    let number = call.query.get("version").map_or(versions.len(), |text| text.parse().unwrap());
    let kept = versions.iter().enumerate().skip(versions.len().saturating_sub(KEPT_VERSIONS));
    let Some((_, version)) = kept.into_iter().find(|(index, _)| index + 1 == number) else { return Reply::not_found() };
    let is_gone = version.deletion_time == DELETED || version.is_destroyed;
    let values = if is_gone { Value::Null } else { version.values.clone() };
    let data = json!({"data": values, "metadata": {"created_time": version.created, "custom_metadata": null,
        "deletion_time": version.deletion_time, "destroyed": version.is_destroyed,
        "version": number}});
    if is_gone {
        Reply::framed(404, json!({"data": data}))
    } else {
        Reply::framed(200, json!({"data": data, "mount_type": "kv"}))
    }
}

fn kv2_metadata(versions: &[Kv2Version]) -> Reply {
    let states = versions.iter().enumerate().map(|(index, version)| {
        let state = json!({"created_time": version.created, "deletion_time": version.deletion_time,
            "destroyed": version.is_destroyed});
        ((index + 1).to_string(), state)
    });
    let states = states.skip(versions.len().saturating_sub(KEPT_VERSIONS));
    Reply::framed(
        200,
        json!({"data": {"cas_required": false, "created_time": CREATED,
        "current_version": versions.len(), "custom_metadata": null, "delete_version_after": "0s", "max_versions": 0,
        "oldest_version": 0, "updated_time": CREATED, "versions": states.collect::<serde_json::Map<_, _>>()},
        "mount_type": "kv"}),
    )
}
