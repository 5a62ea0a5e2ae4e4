//! Dynamic secrets and their leases.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::server::Reply;
use super::clock::iso;
use super::{Answer, Call, Limited, Server, error};

/// What makes credentials. Times are in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dynamic {
    pub(crate) ttl: u64,
    pub(crate) max_ttl: u64,
}

pub(super) struct LeaseState {
    name: String,
    environment: String,
    path: String,
    max_ttl: u64,
    ttl: u64,
    created: Duration,
    updated: Duration,
    ends: Duration,
}

// === impl Server ===

impl Server {
    pub(crate) fn set_dynamic(&mut self, environment: &str, path: &str, name: &str, dynamic: Dynamic) {
        self.dynamics.insert((environment.to_owned(), path.to_owned(), name.to_owned()), dynamic);
    }

    /// How many leases live.
    pub(crate) fn live_leases(&self) -> usize {
        let now = self.now();
        self.leases.values().filter(|lease| lease.ends > now).count()
    }

    /// A life that the request asks for, in seconds.
    fn wished_ttl(&self, call: &Call<'_>) -> Result<Option<u64>, Reply> {
        let Some(text) = call.body["ttl"].as_str() else { return Ok(None) };
        let (number, unit) = text.split_at(text.len() - 1);
        let factor = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(self.invalid("ttl", "TTL is not a time")),
        };
        let seconds = number.parse::<u64>().map_err(|_| self.invalid("ttl", "TTL is not a time"))? * factor;
        if seconds < 60 {
            return Err(self.invalid("ttl", "TTL must be a greater than 1min"));
        }
        Ok(Some(seconds))
    }

    /// Where a lease belongs. The project is always named by its slug.
    fn lease_place(&self, call: &Call<'_>) -> Result<(String, String), Reply> {
        for name in ["projectSlug", "environmentSlug"] {
            if call.text(name).is_empty() {
                return Err(self.invalid(name, "Required"));
            }
        }
        self.project_by_slug(call.text("projectSlug"))?;
        let path = call.body["path"].as_str().unwrap_or("/");
        Ok((call.text("environmentSlug").to_owned(), path.to_owned()))
    }

    pub(super) fn make_lease(&mut self, call: &Call<'_>) -> Answer {
        self.as_caller(Limited::Write, call, |this, _| {
            let wished = this.wished_ttl(call)?;
            let (environment, path) = this.lease_place(call)?;
            if !this.has_plan {
                let message = "Failed to create lease due to plan restriction. Upgrade plan to create dynamic secret lease.";
                return Err(error(400, "BadRequest", message));
            }
            let name = call.text("dynamicSecretName").to_lowercase();
            let key = (environment.clone(), path.clone(), name.clone());
            let missing = || error(404, "NotFound", &format!("Dynamic secret with name '{name}' not found"));
            let Dynamic { ttl, max_ttl } = *this.dynamics.get(&key).ok_or_else(missing)?;
            let ttl = wished.unwrap_or(ttl);
            if ttl > max_ttl {
                return Err(error(400, "BadRequest", "TTL cannot be larger than max TTL"));
            }
            let (id, now) = (this.next_id(), this.now());
            let ends = now + Duration::from_secs(ttl);
            let lease = LeaseState { name: name.clone(), environment, path, max_ttl, ttl, created: now, updated: now, ends };
            let number = this.leases.len() + 1;
            let body = json!({
                "lease": shown(&id, &lease),
                "dynamicSecret": {"id": "d-1", "name": name, "version": 1, "type": "sql-database",
                    "defaultTTL": "1h", "maxTTL": "24h", "folderId": "f"},
                "data": {"DB_USERNAME": format!("canary-user-{number}"), "DB_PASSWORD": format!("canary-password-{number}")},
            });
            this.leases.insert(id, lease);
            Ok(Reply::json(200, &body))
        })
    }

    pub(super) fn renew_lease(&mut self, call: &Call<'_>, id: &str) -> Answer {
        self.as_caller(Limited::Write, call, |this, _| {
            let wished = this.wished_ttl(call)?;
            let place = this.lease_place(call)?;
            let now = this.now();
            let lease = this.leases.get_mut(id).filter(|lease| lease.ends > now && lease.is_at(&place));
            let lease = lease.ok_or_else(|| missing(id))?;
            // Added to the present end, whatever is left until then.
            let ends = lease.ends + Duration::from_secs(wished.unwrap_or(lease.ttl));
            if ends > lease.created + Duration::from_secs(lease.max_ttl) {
                return Err(error(400, "BadRequest", "TTL cannot be larger than max ttl"));
            }
            (lease.ends, lease.updated) = (ends, now);
            Ok(Reply::json(200, &json!({"lease": shown(id, lease)})))
        })
    }

    pub(super) fn end_lease(&mut self, call: &Call<'_>, id: &str) -> Answer {
        self.as_caller(Limited::Write, call, |this, _| {
            let place = this.lease_place(call)?;
            if !call.body["isForced"].is_boolean() {
                return Err(this.invalid("isForced", "Expected boolean"));
            }
            let found = this.leases.get(id).is_some_and(|lease| lease.is_at(&place));
            let lease = this.leases.remove(id).filter(|_| found).ok_or_else(|| missing(id))?;
            Ok(Reply::json(200, &json!({"lease": shown(id, &lease)})))
        })
    }
}

// === impl LeaseState ===

impl LeaseState {
    fn is_at(&self, (environment, path): &(String, String)) -> bool {
        self.environment == *environment && self.path == *path
    }
}

fn missing(id: &str) -> Reply {
    error(404, "NotFound", &format!("Dynamic secret lease with ID '{id}' not found"))
}

fn shown(id: &str, lease: &LeaseState) -> Value {
    json!({"id": id, "version": 1, "externalEntityId": format!("canary-{}", lease.name), "expireAt": iso(lease.ends),
        "status": null, "statusDetails": null, "dynamicSecretId": "d-1", "createdAt": iso(lease.created),
        "updatedAt": iso(lease.updated)})
}
