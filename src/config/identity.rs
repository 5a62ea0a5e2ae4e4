//! The identity that asks, and the operator's templates that are filled in for it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ca_bundle::{is_dns_label, is_dns_subdomain};
use super::shape;
use crate::parse_error::{ParseError, invalid, rule};

/// Who asks, and what templates are filled with: the pod's namespace and service account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Identity {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service account in that namespace.
    pub service_account: String,
}

// === impl Identity ===

/// As people write it, `NAMESPACE/ACCOUNT`: names that Kubernetes takes, since rules would match others, too.
impl FromStr for Identity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts = text.split_once('/');
        let parts = parts.filter(|(namespace, account)| is_dns_label(namespace) && is_dns_subdomain(account));
        let (namespace, account) =
            parts.ok_or_else(|| invalid("identity", text, "NAMESPACE/ACCOUNT, by names that Kubernetes takes"))?;
        Ok(Self { namespace: namespace.to_owned(), service_account: account.to_owned() })
    }
}

pub(super) fn asks_for(template: &str, other: &str) -> ParseError {
    let asked = shape::field_name(other).map_or_else(|| "another name".to_owned(), |other| format!("{other:?}"));
    rule(format!("{template:?} asks for {asked}: expected namespace or service_account"))
}

/// Fills `{{namespace}}` and `{{service_account}}` in.
///
/// # Errors
/// One sentence, if another name stands between the braces.
pub fn expand(template: &str, identity: &Identity) -> Result<String, ParseError> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, tail) =
            after.split_once("}}").ok_or_else(|| rule(format!("{template:?} has a {{{{ without its }}}}")))?;
        text.push_str(before);
        text.push_str(match name.trim() {
            "namespace" => &identity.namespace,
            "service_account" => &identity.service_account,
            other => return Err(asks_for(template, other)),
        });
        rest = tail;
    }
    text.push_str(rest);
    Ok(text)
}
