//! Tokens, policies and auth methods.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Call, Reply, Server};

/// What every token may do, as far as this suite needs Vault's policy `default`.
const DEFAULT: [(&str, &str); 5] = [
    ("auth/token/lookup-self", "read"),
    ("auth/token/renew-self", "update"),
    ("auth/token/revoke-self", "update"),
    ("sys/leases/renew", "update"),
    // Decided by whether anything below the mount is allowed.
    ("sys/internal/ui/mounts/*", "read"),
];

#[derive(Default)]
pub(super) struct Logins {
    tokens: BTreeMap<String, Token>,
    /// By policy, the capabilities of each path.
    policies: BTreeMap<String, Vec<(String, Vec<String>)>>,
    /// By mount, without `auth/`.
    methods: BTreeMap<String, AuthMethod>,
}

struct Token {
    policies: Vec<String>,
    is_root: bool,
    /// Policy `default` is its own, too.
    has_default: bool,
    is_renewable: bool,
    ttl: Duration,
    ends: Option<Instant>,
    max: Option<Instant>,
}

struct AuthMethod {
    kind: String,
    is_configured: bool,
    roles: BTreeMap<String, Value>,
}

// === impl Logins ===

impl Logins {
    pub(super) fn with_root(token: &str) -> Self {
        let root = Token {
            policies: vec!["root".to_owned()],
            is_root: true,
            has_default: true,
            is_renewable: false,
            ttl: Duration::ZERO,
            ends: None,
            max: None,
        };
        Self { tokens: BTreeMap::from([(token.to_owned(), root)]), ..Self::default() }
    }

    pub(super) fn live(&self, now: Instant) -> usize {
        self.tokens.values().filter(|token| token.ends.is_none_or(|ends| ends > now)).count()
    }

    pub(super) fn set_policy(&mut self, name: &str, body: &Value) -> Reply {
        // A policy may be written as JSON, which spares this fake the other language.
        let policy: Value = serde_json::from_str(body["policy"].as_str().unwrap()).unwrap();
        let paths = policy["path"].as_object().unwrap().iter().map(|(path, rule)| {
            let capabilities = rule["capabilities"].as_array().unwrap();
            (path.clone(), capabilities.iter().map(|name| name.as_str().unwrap().to_owned()).collect())
        });
        self.policies.insert(name.to_owned(), paths.collect());
        Reply::no_content()
    }

    fn rules<'a>(&'a self, token: &'a Token) -> impl Iterator<Item = &'a (String, Vec<String>)> {
        token.policies.iter().filter_map(|name| self.policies.get(name)).flatten()
    }

    pub(super) fn permit(&self, call: &Call, now: Instant) -> Result<(), Reply> {
        let Some(token) = &call.token else { return Err(Reply::error(403, "permission denied")) };
        let Some(token) = self.tokens.get(token).filter(|token| token.ends.is_none_or(|ends| ends > now)) else {
            return Err(Reply::error(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"));
        };
        let wanted: &[&str] = match call.method.as_str() {
            "GET" => &["read"],
            "DELETE" => &["delete"],
            _ => &["update", "create"],
        };
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => call.path.starts_with(prefix),
            None => call.path == pattern,
        };
        let by_default =
            token.has_default && DEFAULT.iter().any(|(path, capability)| fits(path) && wanted.contains(capability));
        let by_policy = self
            .rules(token)
            .any(|(path, capabilities)| fits(path) && capabilities.iter().any(|name| wanted.contains(&name.as_str())));
        if token.is_root || by_default || by_policy {
            return Ok(());
        }
        Err(Reply::error(403, "1 error occurred:\n\t* permission denied\n\n"))
    }

    pub(super) fn sees_mount(&self, call: &Call, mount: &str) -> bool {
        let Some(token) = call.token.as_ref().and_then(|token| self.tokens.get(token)) else { return false };
        token.is_root
            || self
                .rules(token)
                .any(|(path, _)| path.starts_with(mount) || mount.starts_with(path.trim_end_matches('*')))
    }
}

// === impl Server ===

impl Server {
    /// What needs no token. `None` if this is no login.
    pub(super) fn log_in(&mut self, call: &Call) -> Option<Reply> {
        let mount = call.path.strip_prefix("auth/")?.strip_suffix("/login")?;
        let Some(method) = self.logins.methods.get(mount) else {
            return Some(Reply::error(403, "permission denied"));
        };
        let role = match method.kind.as_str() {
            "jwt" => method.jwt_role(&call.body),
            "kubernetes" => method.kubernetes_role(&call.body),
            _ => method.approle(&call.body),
        };
        Some(match role {
            Ok(role) => {
                let role = role.clone();
                self.issue_token(&role, true)
            }
            Err(reply) => reply,
        })
    }

    fn issue_token(&mut self, fields: &Value, is_login: bool) -> Reply {
        let field = |name: &str| if is_login { &fields[format!("token_{name}")] } else { &fields[name] };
        let policies: Vec<String> = serde_json::from_value(field("policies").clone()).unwrap_or_default();
        let (ttl, max) = (seconds(field("ttl")), seconds(field("max_ttl")));
        let ttl = if ttl == 0 { 2_764_800 } else { ttl };
        let is_batch = *field("type") == "batch";
        let name = self.next_name(if is_batch { "hvb.canary" } else { "hvs.canary" });
        let now = self.now();
        let token = Token {
            policies: policies.clone(),
            is_root: false,
            has_default: *field("no_default_policy") != true,
            is_renewable: !is_batch,
            ttl: Duration::from_secs(ttl),
            ends: Some(now + Duration::from_secs(ttl)),
            max: (max > 0).then(|| now + Duration::from_secs(max)),
        };
        self.logins.tokens.insert(name.clone(), token);
        auth_reply(&name, &policies, ttl, !is_batch)
    }

    /// Tokens and auth methods: what needs a token and a right.
    pub(super) fn manage_logins(&mut self, call: &Call, components: &[&str]) -> Reply {
        match (call.method.as_str(), components) {
            ("POST", ["sys", "auth", mount @ ..]) => {
                let kind = call.body["type"].as_str().unwrap().to_owned();
                let method = AuthMethod { is_configured: kind == "approle", kind, roles: BTreeMap::new() };
                self.logins.methods.insert(mount.join("/"), method);
                Reply::no_content()
            }
            ("POST", ["auth", mount @ .., "config"]) => {
                self.logins.methods.get_mut(&mount.join("/")).unwrap().is_configured = true;
                Reply::no_content()
            }
            ("POST", ["auth", mount @ .., "role", role]) => {
                let roles = &mut self.logins.methods.get_mut(&mount.join("/")).unwrap().roles;
                roles.insert((*role).to_owned(), call.body.clone());
                Reply::no_content()
            }
            ("GET", ["auth", .., role, "role-id"]) => {
                Reply::framed(200, json!({"data": {"role_id": format!("canary-id-{role}")}}))
            }
            ("POST", ["auth", .., role, "secret-id"]) => {
                Reply::framed(200, json!({"data": {"secret_id": format!("canary-secret-{role}")}}))
            }
            ("POST", ["auth", "token", "create"]) => self.issue_token(&call.body, false),
            ("POST", ["auth", "token", "revoke"]) => self.revoke_token(call.body["token"].as_str().unwrap()),
            ("POST", ["auth", "token", "revoke-self"]) => {
                let token = call.token.clone().unwrap_or_default();
                self.revoke_token(&token)
            }
            ("POST" | "PUT", ["auth", "token", "renew-self"]) => self.renew_self(call),
            ("GET", ["auth", "token", "lookup-self"]) => self.look_up_self(call),
            _ => Reply::error(404, "no handler for route \"x\". route entry not found."),
        }
    }

    fn revoke_token(&mut self, token: &str) -> Reply {
        self.logins.tokens.remove(token);
        self.end_leases_of(token);
        Reply::no_content()
    }

    fn renew_self(&mut self, call: &Call) -> Reply {
        let now = self.now();
        let name = call.token.clone().unwrap_or_default();
        let Some(token) = self.logins.tokens.get_mut(&name) else { unreachable!("permitted above") };
        if !token.is_renewable {
            let text = if token.is_root { "lease is not renewable" } else { "batch tokens cannot be renewed" };
            return Reply::error(400, text);
        }
        let ends = now + token.ttl;
        let ends = token.max.map_or(ends, |max| max.min(ends));
        token.ends = Some(ends);
        let left = ends.duration_since(now).as_secs();
        auth_reply(&name, &token.policies, left, true)
    }

    fn look_up_self(&self, call: &Call) -> Reply {
        let now = self.now();
        let name = call.token.as_deref().unwrap_or_default();
        let Some(token) = self.logins.tokens.get(name) else { unreachable!("permitted above") };
        let ttl = token.ends.map_or(0, |ends| ends.duration_since(now).as_secs());
        Reply::framed(
            200,
            json!({"data": {"accessor": "0agOel1WNoD2uhZq7m7Ak51f", "creation_ttl": token.ttl.as_secs(),
            "display_name": "token", "id": name, "policies": token.policies, "renewable": token.is_renewable,
            "ttl": ttl, "type": "service"}, "mount_type": "token"}),
        )
    }
}

// === impl AuthMethod ===

impl AuthMethod {
    fn jwt_role(&self, body: &Value) -> Result<&Value, Reply> {
        let refuse = |text: String| Err(Reply::error(400, &text));
        if !self.is_configured {
            return refuse("could not load configuration".to_owned());
        }
        let name = body["role"].as_str().unwrap_or_default();
        let Some(role) = self.roles.get(name) else { return refuse(format!("role {name:?} could not be found")) };
        let Some(claims) = claims(body) else {
            return refuse(
                "error validating token: error verifying token signature: go-jose/go-jose: compact JWS format must \
                 have three parts"
                    .to_owned(),
            );
        };
        let problem = if claims["exp"].as_i64().unwrap() < unix_now() {
            "invalid expiration time (exp) claim: token is expired"
        } else if !shares(&claims["aud"], &role["bound_audiences"]) {
            "invalid audience (aud) claim: audience claim does not match any expected audience"
        } else if !role["bound_subject"].is_null() && role["bound_subject"] != claims["sub"] {
            "invalid subject (sub) claim"
        } else {
            return Ok(role);
        };
        refuse(format!("error validating token: {problem}"))
    }

    fn kubernetes_role(&self, body: &Value) -> Result<&Value, Reply> {
        let name = body["role"].as_str().unwrap_or_default();
        let Some(role) = self.roles.get(name) else {
            return Err(Reply::error(400, &format!("invalid role name {name:?}")));
        };
        if !self.is_configured {
            return Err(Reply::error(500, "could not load backend configuration"));
        }
        let Some(claims) = claims(body) else {
            return Err(Reply::error(403, "compact JWS format must have three parts"));
        };
        let account = &claims["kubernetes.io"];
        let bound = |field: &str, name: &Value| role[field].as_array().is_some_and(|names| names.contains(name));
        let problem = if claims["exp"].as_i64().unwrap() < unix_now() {
            "invalid expiration time (exp) claim: token is expired"
        } else if !role["audience"].is_null() && !shares(&claims["aud"], &json!([role["audience"]])) {
            "invalid audience (aud) claim: audience claim does not match any expected audience"
        } else if !bound("bound_service_account_names", &account["serviceaccount"]["name"]) {
            "service account name not authorized"
        } else if !bound("bound_service_account_namespaces", &account["namespace"]) {
            "namespace not authorized"
        } else {
            return Ok(role);
        };
        Err(Reply::error(403, problem))
    }

    fn approle(&self, body: &Value) -> Result<&Value, Reply> {
        let found = self.roles.iter().find(|(name, _)| {
            body["role_id"] == format!("canary-id-{name}") && body["secret_id"] == format!("canary-secret-{name}")
        });
        found.map(|(_, role)| role).ok_or_else(|| Reply::error(400, "invalid role or secret ID"))
    }
}

fn auth_reply(token: &str, policies: &[String], ttl: u64, is_renewable: bool) -> Reply {
    Reply::framed(
        200,
        json!({"auth": {"client_token": token, "accessor": "igJ5wqSeY0IgB1couIUeLrni",
        "policies": policies, "token_policies": policies, "metadata": null, "lease_duration": ttl,
        "renewable": is_renewable, "entity_id": "", "token_type": "service", "orphan": true, "mfa_requirement": null,
        "num_uses": 0}}),
    )
}

fn claims(body: &Value) -> Option<Value> {
    let payload = body["jwt"].as_str()?.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn shares(some: &Value, others: &Value) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    list(some).iter().any(|one| list(others).contains(one))
}

fn seconds(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.trim_end_matches('s').parse().ok()).unwrap_or_default()
}

fn unix_now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}
