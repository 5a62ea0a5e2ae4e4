//! Which of the cluster's `ClusterTrustBundle`s (KEP-3257, Kubernetes 1.37) hold a store's authorities.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ConfigError;
use crate::parse_error::invalid;

/// Kubernetes has no longer names. (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>)
const MAX_NAME_BYTES: usize = 253;
/// Nor longer labels.
const MAX_LABEL_BYTES: usize = 63;

/// Where the authorities come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaBundle {
    /// One bundle, by its name.
    Named(String),
    /// All of a signer's that a selector picks, together.
    Signed {
        /// `<domain>/<path>`.
        signer_name: String,
        /// Which of them.
        label_selector: LabelSelector,
    },
}

/// Picks objects by their labels; an empty one picks all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must be there.
    pub match_labels: BTreeMap<String, String>,
    /// What else must be so of them.
    pub match_expressions: Vec<Requirement>,
}

/// What must be so of one label.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What about it.
    pub operator: Operator,
    /// Its values, for those operators that want some.
    #[serde(default)]
    pub values: Vec<String>,
}

/// Kubernetes' own, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// It has none of them.
    NotIn,
    /// It is there.
    Exists,
    /// It is not.
    DoesNotExist,
}

/// Before it is checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawCaBundle {
    name: Option<String>,
    signer_name: Option<String>,
    label_selector: Option<LabelSelector>,
}

// === impl Operator ===

impl Operator {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }

    fn wants_values(self) -> bool {
        matches!(self, Self::In | Self::NotIn)
    }
}

// === impl CaBundle ===

impl CaBundle {
    /// Checks what Kubernetes would check of each pod (`validateProjectionSources` of its API server).
    ///
    /// # Errors
    /// [`ConfigError`] names the place in the field.
    pub(super) fn checked(raw: RawCaBundle) -> Result<Self, ConfigError> {
        match raw {
            RawCaBundle { name: Some(name), signer_name: None, label_selector: None } => {
                if !is_bundle_name(&name) {
                    return Err(ConfigError::new(".name", invalid("name", &name, "that of a ClusterTrustBundle")));
                }
                Ok(Self::Named(name))
            }
            RawCaBundle { name: None, signer_name: Some(signer_name), label_selector: Some(label_selector) } => {
                if !is_signer_name(&signer_name) {
                    let problem = invalid("signer", &signer_name, "one such as example.com/stores");
                    return Err(ConfigError::new(".signerName", problem));
                }
                label_selector.check().map_err(|error| error.below(".labelSelector"))?;
                Ok(Self::Signed { signer_name, label_selector })
            }
            RawCaBundle { name: None, signer_name: Some(_), label_selector: None } => {
                let problem = "is missing: write {matchLabels: {…}}, or {} for all bundles of the signer";
                Err(ConfigError::new(".labelSelector", problem))
            }
            _ => Err(ConfigError::new("", "write {name: …}, or {signerName: …, labelSelector: {…}}")),
        }
    }
}

// === impl LabelSelector ===

impl LabelSelector {
    fn check(&self) -> Result<(), ConfigError> {
        let key = |place: String, key: &str| {
            let problem = || invalid("label", key, "one such as app or example.com/app");
            if is_label_key(key) { Ok(()) } else { Err(ConfigError::new(place, problem())) }
        };
        let value = |place: String, value: &str| {
            let problem = || invalid("value", value, "at most 63 letters, digits, '-', '_' and '.'");
            if value.is_empty() || is_label(value) { Ok(()) } else { Err(ConfigError::new(place, problem())) }
        };
        for (name, wanted) in &self.match_labels {
            key(".matchLabels".to_owned(), name)?;
            value(".matchLabels".to_owned(), wanted)?;
        }
        for (index, requirement) in self.match_expressions.iter().enumerate() {
            let place = |field: &str| format!(".matchExpressions[{index}].{field}");
            key(place("key"), &requirement.key)?;
            requirement.values.iter().try_for_each(|wanted| value(place("values"), wanted))?;
            let operator = requirement.operator;
            if operator.wants_values() == requirement.values.is_empty() {
                let verb = if operator.wants_values() { "wants some" } else { "takes none" };
                return Err(ConfigError::new(place("values"), format!("the operator {verb}")));
            }
        }
        Ok(())
    }
}

/// RFC 1123, lower-case.
pub(super) fn is_dns_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_LABEL_BYTES).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Labels of any length, as Kubernetes has it for names of objects.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= MAX_NAME_BYTES && text.split('.').all(is_part)
}

/// A signer's bundle has the signer before its name: `example.com:stores:prod`.
fn is_bundle_name(name: &str) -> bool {
    match name.rsplit_once(':') {
        Some((signer, name)) => {
            is_dns_subdomain(name) && signer.split_once(':').is_some_and(|(domain, path)| is_signer(domain, path))
        }
        None => is_dns_subdomain(name),
    }
}

fn is_signer_name(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, path)| is_signer(domain, path))
}

fn is_signer(domain: &str, path: &str) -> bool {
    domain.len() <= MAX_NAME_BYTES
        && domain.contains('.')
        && domain.split('.').all(is_dns_label)
        && is_dns_subdomain(path)
}

/// What labels' values are, and their names behind a `/`.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LABEL_BYTES
        && bytes.iter().copied().all(is_inner)
        && is_end(bytes.first())
        && is_end(bytes.last())
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_label(name),
        None => is_label(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config(fields: &str) -> Result<Config, String> {
        let text = format!("image: i\nproviders: {{s: {{{fields}}}}}");
        Config::from_yaml(&text).map_err(|error| error.to_string())
    }

    const VAULT: &str = "type: vault, address: 'https://v'";

    #[test]
    fn a_bundle_is_named_or_selected() {
        let signed = |labels: &[(&str, &str)], expressions: &[(&str, Operator, &[&str])]| CaBundle::Signed {
            signer_name: "example.com/stores".to_owned(),
            label_selector: LabelSelector {
                match_labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
                match_expressions: expressions
                    .iter()
                    .map(|(key, operator, values)| Requirement {
                        key: (*key).to_owned(),
                        operator: *operator,
                        values: values.iter().map(|&value| value.to_owned()).collect(),
                    })
                    .collect(),
            },
        };
        let named = |name: &str| CaBundle::Named(name.to_owned());
        for (bundle, expected) in [
            ("name: stores", named("stores")),
            ("name: a.b-c.d", named("a.b-c.d")),
            ("name: 'example.com:stores:prod'", named("example.com:stores:prod")),
            ("signerName: example.com/stores, labelSelector: {}", signed(&[], &[])),
            (
                "signerName: example.com/stores, labelSelector: {matchLabels: {example.com/store: Vault_1, live: ''}}",
                signed(&[("example.com/store", "Vault_1"), ("live", "")], &[]),
            ),
            (
                "signerName: example.com/stores, labelSelector: {matchExpressions: [{key: a, operator: NotIn, values: \
                 [b, c]}, {key: d, operator: Exists}]}",
                signed(&[], &[("a", Operator::NotIn, &["b", "c"]), ("d", Operator::Exists, &[])]),
            ),
        ] {
            let config = config(&format!("{VAULT}, caBundle: {{{bundle}}}")).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.providers["s"].ca_bundle, Some(expected), "{bundle}");
        }
        assert_eq!(config(VAULT).unwrap().providers["s"].ca_bundle, None);
        for store in [
            "type: infisical, address: 'https://i', project: p, environment: e",
            "type: aws, region: eu-west-1",
            "type: ssm, region: eu-west-1",
            "type: azure, address: 'https://v.example', tenant: common.example",
            "type: gcp, project: shop-1, auth: {method: metadata}",
        ] {
            let bundle = config(&format!("{store}, caBundle: {{name: stores}}"));
            assert_eq!(
                bundle.map(|config| config.providers["s"].ca_bundle.clone()),
                Ok(Some(named("stores"))),
                "{store}"
            );
        }
    }

    #[test]
    fn p9_a_bundle_that_cannot_be_names_the_field() {
        let bundle = |fields: &str| format!("{VAULT}, caBundle: {fields}");
        let signed = |selector: &str| bundle(&format!("{{signerName: example.com/stores, labelSelector: {selector}}}"));
        let label = "a".repeat(64);
        for (fields, parts) in [
            (bundle("{}"), &[".s.caBundle: write {name: …}, or {signerName: …"][..]),
            (bundle("stores"), &[".s.caBundle: has no fields of its own"]),
            (bundle("{nme: stores}"), &[".s.caBundle: unknown field \"nme\"; did you mean \"name\"?"]),
            (bundle("{name: stores, signerName: example.com/stores}"), &[".s.caBundle: write {name: …}, or"]),
            (bundle("{name: stores, labelSelector: {}}"), &[".s.caBundle: write {name: …}, or"]),
            (bundle("{labelSelector: {}}"), &[".s.caBundle: write {name: …}, or"]),
            (bundle("{name: ''}"), &[".s.caBundle.name: invalid name", "ClusterTrustBundle"]),
            (bundle("{name: Stores}"), &[".s.caBundle.name"]),
            (bundle("{name: 'stores:prod'}"), &[".s.caBundle.name"]),
            (bundle("{name: 'example.com:stores:'}"), &[".s.caBundle.name"]),
            (bundle(&format!("{{name: {}}}", "a".repeat(254))), &[".s.caBundle.name"]),
            (bundle("{signerName: example.com/stores}"), &[".s.caBundle.labelSelector: is missing", "or {} for all"]),
            (bundle("{signerName: stores, labelSelector: {}}"), &[".s.caBundle.signerName", "example.com/stores"]),
            (bundle("{signerName: example/stores, labelSelector: {}}"), &[".s.caBundle.signerName"]),
            (bundle("{signerName: example.com/a/b, labelSelector: {}}"), &[".s.caBundle.signerName"]),
            (signed("{matchLabel: {a: b}}"), &["unknown field \"matchLabel\"; did you mean \"matchLabels\"?"]),
            (signed("{matchLabels: {'a b': c}}"), &[".s.caBundle.labelSelector.matchLabels: invalid label"]),
            (signed("{matchLabels: {a: 'b c'}}"), &[".s.caBundle.labelSelector.matchLabels: invalid value"]),
            (signed(&format!("{{matchLabels: {{a: {label}}}}}")), &["matchLabels: invalid value", "at most 63"]),
            (signed(&format!("{{matchLabels: {{{label}: a}}}}")), &["matchLabels: invalid label"]),
            (signed("{matchExpressions: [{key: a, operator: Is, values: [b]}]}"), &["is not one of In, NotIn, Exists"]),
            (
                signed("{matchExpressions: [{key: a, operator: In}]}"),
                &["matchExpressions[0].values: the operator wants"],
            ),
            (
                signed(
                    "{matchExpressions: [{key: a, operator: Exists}, {key: b, operator: DoesNotExist, values: [c]}]}",
                ),
                &["matchExpressions[1].values: the operator takes none"],
            ),
            (
                signed("{matchExpressions: [{key: 'a b', operator: Exists}]}"),
                &["matchExpressions[0].key: invalid label"],
            ),
            (
                "type: file, path: /srv, caBundle: {name: stores}".to_owned(),
                &[".s.caBundle: this provider is not reached over a network"],
            ),
        ] {
            let message = config(&fields).unwrap_err();
            for part in parts {
                assert!(message.contains(part), "{fields}: {message:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn p9_authorities_come_from_one_place() {
        let ca = rcgen::generate_simple_self_signed(["v".to_owned()]).unwrap().cert.pem();
        let text = serde_json::json!({"image": "i", "providers": {"s": {
            "type": "vault", "address": "https://v", "ca": ca, "caBundle": {"name": "stores"},
        }}});
        let message = Config::from_yaml(&text.to_string()).unwrap_err().to_string();
        assert!(message.contains(".s.caBundle: stands beside ca: leave one of them out"), "{message}");
    }
}
