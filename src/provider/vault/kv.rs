//! Which engine a path belongs to, and KV version 2's cheap look at the present version.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use serde::Deserialize;

use super::api::Api;
use super::api_types::VersionState;
use crate::provider::Version;
use crate::provider::http::Failure;

/// What was learnt about engines. Mounts change too seldom to ask twice.
#[derive(Debug, Default)]
pub(super) struct Engines {
    mounts: Vec<Mount>,
    /// Paths whose mount this login may not be told.
    hidden: BTreeSet<String>,
    /// Paths that this login may read, but not their metadata.
    metadata_denied: BTreeSet<String>,
}

/// An engine's place.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    /// Ends in `/`.
    path: String,
    pub(super) is_kv: bool,
}

/// What stands around everything.
#[derive(Deserialize)]
struct Framed<T> {
    data: T,
}

#[derive(Deserialize)]
struct MountData {
    path: String,
    r#type: String,
}

/// The parts of a KV version 2 secret's metadata that are of use here.
#[derive(Deserialize)]
struct Metadata {
    current_version: u64,
    #[serde(default)]
    versions: BTreeMap<String, VersionState>,
}

// === impl Engines ===

impl Engines {
    /// Another login may be told more.
    pub(super) fn forget_denials(&mut self) {
        self.hidden.clear();
        self.metadata_denied.clear();
    }

    fn find(&self, path: &str) -> Option<&Mount> {
        self.mounts.iter().find(|mount| path.starts_with(&mount.path))
    }

    /// Asking for this path's metadata is of no use to this login.
    pub(super) fn deny_metadata(&mut self, path: &str) {
        self.metadata_denied.insert(path.to_owned());
    }

    /// The mount of a path, if this login may know. It needs no right but one to something below the mount.
    async fn mount(&mut self, api: &Api, path: &str) -> Result<Option<Mount>, Failure> {
        if let Some(mount) = self.find(path) {
            return Ok(Some(mount.clone()));
        }
        if self.hidden.contains(path) {
            return Ok(None);
        }
        // In a namespace that is part of the path, Vault leaves the namespace out: where the mount ends, is not told.
        let found = look_up_mount(api, path).await?.filter(|mount| path.starts_with(&mount.path));
        match &found {
            Some(mount) => self.mounts.push(mount.clone()),
            None => drop(self.hidden.insert(path.to_owned())),
        }
        Ok(found)
    }

    /// The present version of a KV version 2 secret without its values. `None` if only a full read can tell: metadata
    /// are out of this login's reach, or the version is deleted.
    pub(super) async fn current_version(&mut self, api: &Api, path: &str) -> Result<Option<Version>, Failure> {
        if self.metadata_denied.contains(path) {
            return Ok(None);
        }
        let mount = self.mount(api, path).await?.map(|mount| mount.path);
        let Some(metadata_path) = metadata_path(path, mount.as_deref()) else { return Ok(None) };
        let response = match api.client.send(api.call(Method::GET, &metadata_path)?).await {
            Ok(response) => response,
            // Metadata of thousands of versions may be too large, where one version is not.
            Err(failed) if failed.is_connected => return Ok(None),
            Err(failed) => return Err(failed.into()),
        };
        match response.status.as_u16() {
            200 => {}
            403 | 404 => return Ok(None),
            _ => return Err(api.store_failure(&response, &metadata_path)),
        }
        let Some(Framed::<Metadata> { data }) = response.parse() else { return Ok(None) };
        let current = data.versions.get(&data.current_version.to_string()).filter(|state| state.is_there());
        Ok(current.map(|state| state.name(data.current_version)))
    }
}

/// The mount of a path, asked of Vault: as it is called in its own namespace.
pub(super) async fn look_up_mount(api: &Api, path: &str) -> Result<Option<Mount>, Failure> {
    const WHAT: &str = "the look-up of a mount";
    let response = api.send(api.call(Method::GET, &format!("sys/internal/ui/mounts/{path}"))?, WHAT).await?;
    let data = match response.status.as_u16() {
        200 => response.parse::<Framed<MountData>>().ok_or_else(|| api.garbage(WHAT))?.data,
        403 | 404 => return Ok(None),
        _ => return Err(api.store_failure(&response, WHAT)),
    };
    let is_kv = matches!(data.r#type.as_str(), "kv" | "generic" | "cubbyhole");
    Ok(Some(data).filter(|data| data.path.ends_with('/')).map(|data| Mount { path: data.path, is_kv }))
}

/// `<mount>/data/<path>` to `<mount>/metadata/<path>`. Where the mount is unknown, the first `data` ends it.
fn metadata_path(path: &str, mount: Option<&str>) -> Option<String> {
    let (mount, rest) = match mount {
        Some(mount) => (mount.trim_end_matches('/'), path.strip_prefix(mount)?.strip_prefix("data/")?),
        None => path.split_once("/data/")?,
    };
    Some(format!("{mount}/metadata/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_lie_beside_data() {
        for (path, mount, metadata) in [
            ("secret/data/db", Some("secret/"), Some("secret/metadata/db")),
            ("team/data/data/a/data/b", Some("team/data/"), Some("team/data/metadata/a/data/b")),
            ("secret/data/a/data/b", None, Some("secret/metadata/a/data/b")),
            ("secret/db", Some("secret/"), None),
            ("secret/db", None, None),
        ] {
            assert_eq!(metadata_path(path, mount).as_deref(), metadata, "{path} at {mount:?}");
        }
    }
}
