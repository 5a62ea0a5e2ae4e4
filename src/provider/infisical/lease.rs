//! Dynamic secrets: credentials that live for a while.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::api::Api;
use super::asked::Asked;
use super::limits::Kind;
use crate::provider::http::{Failure, Scope, date};
use crate::provider::{Answer, ErrorKind, Lease};
use crate::secret::{SecretTree, SecretValue};

const LEASES: &str = "api/v1/dynamic-secrets/leases";

/// All that the server wants to know when it renews or ends a lease. Another process may do that, so it is part of
/// the lease's id: one line each.
struct Handle<'a> {
    id: &'a str,
    project: &'a str,
    environment: &'a str,
    path: &'a str,
    ttl: Option<&'a str>,
}

/// Where a lease belongs, and what is to become of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamic_secret_name: Option<&'a str>,
    project_slug: &'a str,
    environment_slug: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_forced: Option<bool>,
}

#[derive(Deserialize)]
struct Made<'a> {
    lease: Granted,
    /// Read by itself: no number in it may be computed.
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Renewed {
    lease: Granted,
}

/// Points in time, RFC 3339 by the server's clock.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    id: String,
    expire_at: String,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    updated_at: String,
}

// === impl Granted ===

impl Granted {
    /// How long it lives from `since`, which is a point by the server's clock, as its end is; where the server does not
    /// tell, from now by ours.
    fn ttl(&self, since: &str) -> Option<Duration> {
        let ends = date::parse_rfc3339(&self.expire_at)?;
        let since = date::parse_rfc3339(since).unwrap_or_else(date::now);
        Some(Duration::from_millis(ends.saturating_sub(since))).filter(|ttl| !ttl.is_zero())
    }
}

// === impl Handle ===

impl<'a> Handle<'a> {
    fn of(lease: &'a Lease) -> Result<Self, Failure> {
        let read = || {
            let mut lines = lease.id.expose_str()?.split('\n');
            let mut line = || lines.next();
            let (id, project, environment, path) = (line()?, line()?, line()?, line()?);
            Some(Self { id, project, environment, path, ttl: line() })
        };
        read().ok_or_else(|| Failure::invalid("the lease is not Infisical's"))
    }

    fn to_id(&self) -> SecretValue {
        let Self { id, project, environment, path, ttl } = self;
        [id, project, environment, path].into_iter().chain(ttl).copied().collect::<Vec<_>>().join("\n").into()
    }

    fn call(&self) -> LeaseCall<'a> {
        let Self { project, environment, path, .. } = *self;
        LeaseCall {
            dynamic_secret_name: None,
            project_slug: project,
            environment_slug: environment,
            path,
            ttl: None,
            is_forced: None,
        }
    }

    /// For messages.
    fn describe(&self) -> String {
        format!("the lease from {} in environment {}", self.path, self.environment)
    }
}

/// Makes a lease of the dynamic secret `name`; `project` is the slug of the one that is asked.
pub(super) async fn make_lease(
    api: &mut Api,
    project: &str,
    asked: &Asked,
    name: &str,
    ttl: Option<&str>,
) -> Result<Answer, Failure> {
    let what = asked.describe();
    let handle = Handle { id: "", project, environment: &asked.environment, path: &asked.path, ttl };
    let body = LeaseCall { dynamic_secret_name: Some(name), ttl, ..handle.call() };
    let response = api.send(Kind::Write, api.call(Method::POST, LEASES)?.json(&body)).await?;
    let Made { lease: granted, data } = api.parse(&response, &what)?;
    let ttl = granted.ttl(&granted.created_at).ok_or_else(|| api.garbage(&what))?;
    let data = SecretTree::from_json(data.get().as_bytes()).map_err(|error| {
        let message = format!("{} answers {what} with a document that {error}", api.client.address());
        Failure::invalid(message)
    })?;
    if !matches!(data, SecretTree::Map(_)) {
        return Err(api.garbage(&what));
    }
    let id = Handle { id: &granted.id, ..handle }.to_id();
    let lease = Some(Lease { id, ttl, renewable: true });
    Ok(Answer { tree: data, version: None, expires_in: None, lease })
}

pub(super) async fn renew_lease(api: &mut Api, lease: &Lease) -> Result<Lease, Failure> {
    let handle = Handle::of(lease)?;
    // What is asked for is added to the present end; without it, the dynamic secret's own TTL is.
    let body = LeaseCall { ttl: handle.ttl, ..handle.call() };
    let call = api.call(Method::POST, format!("{LEASES}/{}/renew", handle.id))?.described_as("a lease's renewal");
    let call = call.json(&body);
    let response = api.send(Kind::Write, call).await?;
    let what = handle.describe();
    match api.parse::<Renewed>(&response, &what) {
        Ok(Renewed { lease: granted }) => {
            let ttl = granted.ttl(&granted.updated_at).ok_or_else(|| api.garbage(&what))?;
            Ok(Lease { id: Handle { id: &granted.id, ..handle }.to_id(), ttl, renewable: true })
        }
        Err(failure) => Err(match failure.error.kind {
            ErrorKind::Invalid => Failure::invalid(format!("{what} cannot be renewed: its longest life is reached")),
            ErrorKind::NotFound => Failure::not_found(format!("{what} has ended or was revoked")),
            _ => failure,
        }),
    }
}

pub(super) async fn revoke_lease(api: &mut Api, lease: &Lease) -> Result<(), Failure> {
    let handle = Handle::of(lease)?;
    let body = LeaseCall { is_forced: Some(false), ..handle.call() };
    let call = api.call(Method::DELETE, format!("{LEASES}/{}", handle.id))?.described_as("a lease's end");
    let call = call.json(&body);
    let response = api.send(Kind::Write, call).await?;
    if response.status.is_success() {
        return Ok(());
    }
    match api.refused(&response, &handle.describe()) {
        // One that the server does not know has ended already.
        failure if failure.error.kind == ErrorKind::NotFound && failure.scope == Scope::Call => Ok(()),
        failure => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_carries_what_its_renewal_needs() {
        for ttl in [None, Some("3600s")] {
            let handle = Handle { id: "l-1", project: "shop", environment: "prod", path: "/db", ttl };
            let lease = Lease { id: handle.to_id(), ttl: Duration::ZERO, renewable: true };
            let read = Handle::of(&lease).ok().unwrap();
            assert_eq!(
                (read.id, read.project, read.environment, read.path, read.ttl),
                ("l-1", "shop", "prod", "/db", ttl)
            );
        }
        let other = Lease { id: "database/creds/x".into(), ttl: Duration::ZERO, renewable: true };
        assert_eq!(Handle::of(&other).err().unwrap().error.kind, ErrorKind::Invalid);
    }
}
