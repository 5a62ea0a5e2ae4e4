//! A vault's JSON, read straight into the types that keep secrets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::settings::is_version;
use crate::provider::{Answer, Version};
use crate::secret::{SecretTree, SecretValue};

/// A secret's version with its value (`SecretBundle`).
#[derive(Deserialize)]
pub(super) struct SecretBundle {
    value: SecretValue,
    /// `https://<vault>/secrets/<name>/<version>`.
    id: String,
    #[serde(default)]
    attributes: Attributes,
}

/// A page of a secret's versions (`SecretListResult`).
#[derive(Deserialize)]
pub(super) struct Page {
    value: Vec<ListedSecret>,
    #[serde(default, rename = "nextLink")]
    next_link: Option<String>,
}

/// A version without its value (`SecretItem`).
#[derive(Deserialize)]
struct ListedSecret {
    id: String,
    #[serde(default)]
    attributes: Attributes,
}

/// Points in time are seconds since 1970.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(default)]
    exp: Option<u64>,
    #[serde(default)]
    created: Option<u64>,
    #[serde(default)]
    updated: Option<u64>,
}

/// A secret's present state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) version: Version,
    /// When its version was last given other attributes, such as another end; its value never changes.
    pub(super) updated: Option<u64>,
}

/// What a list of versions says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// This one is present.
    Present(State),
    /// A read will tell: two are of the same second, the newest is disabled, or there is none.
    Unclear,
    /// There are more versions than a page has, or this login may not know them.
    OutOfReach,
}

/// What is odd about a version that the vault gives out all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    NotYetValid,
    Expired,
}

// === impl SecretBundle ===

impl SecretBundle {
    /// The values and the state; `None` if this is not a version of that secret.
    pub(super) fn into_answer(self, name: &str) -> Option<(Answer, State, Option<Oddity>)> {
        let version = version_of(&self.id, name)?;
        let now = SystemTime::now();
        // Beyond what a clock can tell there is no end.
        let point = |at: Option<u64>| UNIX_EPOCH.checked_add(Duration::from_secs(at?));
        let until = |at: Option<u64>| point(at).map(|at| at.duration_since(now).ok());
        let expires_in = until(self.attributes.exp);
        let oddity = match (until(self.attributes.nbf), expires_in) {
            (_, Some(None)) => Some(Oddity::Expired),
            (Some(Some(_)), _) => Some(Oddity::NotYetValid),
            _ => None,
        };
        let answer = Answer {
            tree: SecretTree::Text(self.value),
            version: Some(version.clone()),
            expires_in: expires_in.flatten(),
            lease: None,
        };
        Some((answer, State { version, updated: self.attributes.updated }, oddity))
    }
}

// === impl Page ===

impl Page {
    /// The version that a read without a version answers: the newest one, enabled or not. `None` if this is not a list
    /// of that secret's versions.
    pub(super) fn present(&self, name: &str) -> Option<Listed> {
        if self.next_link.as_ref().is_some_and(|link| !link.is_empty()) {
            return Some(Listed::OutOfReach);
        }
        let created = |item: &&ListedSecret| item.attributes.created.unwrap_or_default();
        let Some(newest) = self.value.iter().max_by_key(created) else { return Some(Listed::Unclear) };
        let is_alone = self.value.iter().filter(|item| created(item) == created(&newest)).count() == 1;
        let version = version_of(&newest.id, name)?;
        if !is_alone || newest.attributes.enabled != Some(true) {
            return Some(Listed::Unclear);
        }
        Some(Listed::Present(State { version, updated: newest.attributes.updated }))
    }
}

/// The version in a secret's id.
fn version_of(id: &str, name: &str) -> Option<Version> {
    let (rest, version) = id.rsplit_once('/')?;
    let (rest, found) = rest.rsplit_once('/')?;
    let is_it = found.eq_ignore_ascii_case(name) && rest.ends_with("/secrets") && is_version(version);
    is_it.then(|| Version(version.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    fn page(items: &[(&str, u64, bool)], next: &str) -> Option<Listed> {
        let items = items.iter().map(|(version, created, enabled)| {
            serde_json::json!({"id": format!("https://v.vault.azure.net/secrets/DB/{version}"),
                "attributes": {"enabled": enabled, "created": created, "updated": created + 1}})
        });
        let page = serde_json::json!({"value": items.collect::<Vec<_>>(), "nextLink": next});
        serde_json::from_value::<Page>(page).unwrap().present("db")
    }

    #[test]
    fn the_newest_version_is_the_present_one() {
        let present = |version: &str, updated| {
            Some(Listed::Present(State { version: Version(version.to_owned()), updated: Some(updated) }))
        };
        for (what, items, next, found) in [
            ("in any order", &[(NEW, 9, true), (OLD, 5, true)][..], "", present(NEW, 10)),
            ("older ones may be disabled", &[(OLD, 5, false), (NEW, 9, true)], "", present(NEW, 10)),
            ("a disabled one is present", &[(OLD, 5, true), (NEW, 9, false)], "", Some(Listed::Unclear)),
            ("of the same second", &[(OLD, 9, true), (NEW, 9, true)], "", Some(Listed::Unclear)),
            ("none", &[], "", Some(Listed::Unclear)),
            ("more to come", &[(NEW, 9, true)], "https://v/next", Some(Listed::OutOfReach)),
            ("no version", &[("canary", 9, true)], "", None),
        ] {
            assert_eq!(page(items, next), found, "{what}");
        }
    }

    #[test]
    fn an_answer_has_the_vaults_version_and_end() {
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
        for (attributes, life, oddity) in [
            (serde_json::json!({}), None, None),
            (serde_json::json!({"exp": now + 600, "nbf": now - 5}), Some(600), None),
            (serde_json::json!({"exp": now - 600}), None, Some(Oddity::Expired)),
            (serde_json::json!({"exp": u64::MAX, "nbf": now - 5}), None, None),
            (serde_json::json!({"nbf": now + 600, "exp": null}), None, Some(Oddity::NotYetValid)),
        ] {
            let json = serde_json::json!({"value": "canary", "attributes": attributes,
                "id": format!("https://v.vault.azure.net/secrets/Db/{}", OLD.to_ascii_uppercase())});
            let bundle: SecretBundle = serde_json::from_value(json).unwrap();
            let (answer, state, found) = bundle.into_answer("db").unwrap();
            assert_eq!(
                (&state.version.0, &answer.version, found),
                (&OLD.to_owned(), &Some(Version(OLD.into())), oddity)
            );
            assert_eq!(answer.expires_in.map(|life| life.as_secs() / 10), life.map(|_: u64| 59), "{attributes}");
        }
    }

    #[test]
    fn an_answer_for_another_secret_is_none() {
        for id in [
            format!("https://v.vault.azure.net/secrets/other/{OLD}"),
            "https://v.vault.azure.net/secrets/db".to_owned(),
            format!("https://v.vault.azure.net/keys/db/{OLD}"),
            "canary".to_owned(),
        ] {
            let bundle: SecretBundle =
                serde_json::from_value(serde_json::json!({"value": "canary", "id": id})).unwrap();
            assert!(bundle.into_answer("db").is_none(), "{id}");
        }
    }
}
