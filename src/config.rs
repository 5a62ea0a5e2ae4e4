//! The operator's configuration: where stores are, who may use what, and defaults for every annotation.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::options::Options;
use crate::parse_error::{ParseError, unknown};
use crate::provider::ProviderSettings;
use crate::provider::http::Proxy;
use crate::sentence::{list, one_line};

mod allow;
mod ca_bundle;
mod csi;
mod deny;
mod error;
mod fields;
mod identity;
pub mod injected;
mod labels;
pub mod metrics;
mod places;
mod proxy;
pub mod reload;
mod shape;
mod unlock;
mod written;

pub use allow::{Allow, Filled, Glob, OLD_RULES_COUNT, RequestGlob, RequestParts, matches};
pub use ca_bundle::{CaBundle, LabelSelector, Operator, Requirement};
pub use csi::{CsiConfig, CsiLimits, Unavailable};
pub use deny::{DeniedReference, Deny};
pub use error::{ConfigError, ConfigFault, ConfigFaults};
pub use identity::{Identity, expand};
pub use labels::NamespaceLabels;

/// Everything the operator decides; validated when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the operator's")]
pub struct Config {
    /// Image of the injected containers.
    pub image: String,
    /// Their `imagePullPolicy`; `None` leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    /// Names of Secrets of type `kubernetes.io/dockerconfigjson` that pods add for our image.
    pub image_pull_secrets: Vec<String>,
    /// Whether the cluster runs native sidecars (Kubernetes ≥ 1.29).
    pub native_sidecars: bool,
    /// Whether the cluster's runtimes mount images as volumes, and execute from them.
    pub image_volumes: bool,
    /// Whether every kubelet reads variables out of files as 1.35 does, and may.
    pub kubelet_env: bool,
    /// Provider of references that name none.
    pub default_provider: Option<String>,
    /// Stores by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// What is refused whatever a provider allows.
    pub deny: Vec<Deny>,
    /// Options of pods that say nothing.
    pub defaults: Options,
    /// `runtimeClassName`s whose pods share the node's memory volumes, so the gate holds.
    pub runtime_classes: Vec<String>,
    /// The CSI driver; `None` if there is none, and no pod may ask for mode csi.
    pub csi: Option<CsiConfig>,
    /// Globs of names that other webhooks give to containers: those get files only if a pod names them.
    pub injected_containers: Vec<String>,
    /// Whether there are audit lines.
    pub audit: bool,
}

/// One store, and who may use it how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// Type, address and the like.
    pub settings: ProviderSettings,
    /// Audience of the projected token; `None` if the store takes none.
    pub audience: Option<String>,
    /// Life of the projected token, 600 to 3600 s.
    pub token_seconds: i64,
    /// Template of the role that pods log in as.
    pub role: Option<String>,
    /// Poll interval.
    pub refresh: Option<Duration>,
    /// Whether leases and login are revoked when an agent ends.
    pub revoke_on_exit: bool,
    /// How it is reached, as its own fields or those for all say; `None` if none does.
    pub proxy: Option<Proxy>,
    /// Where its authorities come from, if they may change while pods run.
    pub ca_bundle: Option<CaBundle>,
    /// Who may ask for what; `None` is everyone for everything.
    pub allow: Option<Vec<Allow>>,
}

// === impl Config ===

impl Config {
    /// What the operator should know of this configuration, sentence by sentence: rules that allow more, or something
    /// else, than they say, and rules that nothing can match.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.rules_of_nothing();
        for (name, provider) in &self.providers {
            let rules = provider.allow.iter().flatten().flat_map(|rule| rule.requests.iter().flatten());
            let (good, bad): (Vec<_>, Vec<_>) = rules.partition(|glob| glob.meaning.is_ok());
            warnings.extend(bad.iter().filter_map(|glob| {
                let problem = glob.meaning.as_ref().err()?;
                Some(format!("providers.{name}.allow: {problem}: in the next release this refuses the configuration"))
            }));
            let widens = provider.settings.as_settings().parameters().widening.is_none_or(|names| !names.is_empty());
            let wide: Vec<_> =
                good.iter().filter(|glob| widens && glob.allowed_more()).map(|glob| glob.text.as_str()).collect();
            if let Some(first) = wide.first().filter(|_| OLD_RULES_COUNT) {
                let path = first.split('?').next().unwrap_or_default();
                warnings.push(format!(
                    "providers.{name}.allow: parameters that a rule does not name pass in this release only; if references \
                     have any, name them, as in \"{path}?NAME=*\". These rules name none, or have a * that runs over \
                     several: {}",
                    list(&wide)
                ));
            }
        }
        warnings.iter().map(|warning| one_line(warning)).collect()
    }

    /// Rules that nothing can match, by their places.
    fn rules_of_nothing(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, provider) in &self.providers {
            for (index, rule) in provider.allow.iter().flatten().enumerate() {
                let nothing = rule.matches_nothing();
                found.extend(nothing.iter().map(|what| format!("providers.{name}.allow[{index}].{what}")));
            }
        }
        for (index, rule) in self.deny.iter().enumerate() {
            found.extend(rule.matches_nothing().iter().map(|what| format!("deny[{index}].{what}")));
        }
        found.into_iter().map(|what| format!("{what}: this rule matches nothing")).collect()
    }

    /// Whether some rule asks for the labels of namespaces.
    #[must_use]
    pub fn asks_for_labels(&self) -> bool {
        let mut rules = self.providers.values().flat_map(|provider| provider.allow.iter().flatten());
        rules.any(|rule| rule.namespace_labels.is_some())
    }
}

/// The sentence about a provider that the operator did not configure.
#[must_use]
pub fn no_provider(name: &str, providers: &BTreeMap<String, ProviderConfig>) -> ParseError {
    let known: Vec<_> = providers.keys().map(String::as_str).collect();
    unknown("provider", name, &known)
}

#[cfg(test)]
mod tests;
