//! The operator's refusals: what nobody, or nobody of some, may have, whatever `allow` says.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::allow::{Glob, RequestParts, accounts_match_nothing, globs, namespaces_match_nothing, plain_globs};
use super::error::{ConfigError, Faults};
use super::identity::Identity;
use crate::parse_error::{ParseError, rule};
use crate::provider::{Parameters, Settings};
use crate::reference::{Reference, Request};
use crate::sentence::suggestion;

/// One rule: all that it says must hold of a request to refuse it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deny {
    /// What is asked for; `None` is everything.
    pub references: Option<Vec<DeniedReference>>,
    /// Names of namespaces; `None` is every one.
    pub namespaces: Option<Vec<Glob>>,
    /// Names of service accounts; `None` is every one.
    pub service_accounts: Option<Vec<Glob>>,
}

/// A glob of references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedReference {
    /// As the operator wrote it.
    text: String,
    provider: Glob,
    request: RequestParts,
    /// Why no reference is one of these.
    fault: Option<String>,
}

/// Stores by name.
pub(super) type Stores<'a> = BTreeMap<&'a str, &'a dyn Settings>;

/// A rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawDeny {
    references: Option<Vec<String>>,
    namespaces: Option<Vec<String>>,
    service_accounts: Option<Vec<String>>,
}

// === impl Deny ===

impl Deny {
    /// Reads a rule, and tells of each field that is wrong.
    pub(super) fn parse(raw: RawDeny, providers: &Stores<'_>, faults: &mut Faults) -> Self {
        let RawDeny { references, namespaces, service_accounts } = raw;
        // What was taken away since it was wrong is not missing.
        if references.is_none() && namespaces.is_none() && service_accounts.is_none() && faults.is_empty() {
            let problem = "would be everything for everyone: expected references, namespaces or serviceAccounts";
            faults.push(ConfigError::new("", problem));
        }
        let read = |text| DeniedReference::parse(text, providers);
        let references = references.map(|texts| faults.take_each(".references", texts, read));
        let namespaces = namespaces.map(|texts| plain_globs(".namespaces", texts, faults));
        let service_accounts = service_accounts.map(|texts| globs(".serviceAccounts", texts, faults));
        // Without what is wrong it would be about more: then nothing is made of it, since there are faults.
        Self {
            references: references.flatten(),
            namespaces: namespaces.flatten(),
            service_accounts: service_accounts.flatten(),
        }
    }

    /// Whether it is about what this identity asks for.
    #[must_use]
    pub fn is_about(&self, identity: &Identity) -> bool {
        let any = |globs: &Option<Vec<Glob>>, text: &str| {
            globs.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.fill(identity).matches(text)))
        };
        any(&self.namespaces, &identity.namespace) && any(&self.service_accounts, &identity.service_account)
    }

    /// Whether it is about this request, if it is about the identity that makes it.
    #[must_use]
    pub fn names(&self, request: &Request, identity: &Identity) -> bool {
        self.references.as_ref().is_none_or(|all| all.iter().any(|one| one.names(request, identity)))
    }

    /// What of it nothing can ever match, each with the field before it.
    pub(super) fn matches_nothing(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.references.as_ref().is_some_and(Vec::is_empty) {
            found.push("references: an empty list stands for no reference".to_owned());
        }
        for DeniedReference { text, fault, .. } in self.references.iter().flatten() {
            found.extend(fault.as_ref().map(|fault| format!("references: {text:?}: {fault}")));
        }
        found.extend(namespaces_match_nothing(self.namespaces.as_deref()));
        found.extend(accounts_match_nothing(self.service_accounts.as_deref()));
        found
    }
}

// === impl DeniedReference ===

impl DeniedReference {
    /// # Errors
    /// One sentence, if it never meant anything.
    fn parse(text: String, providers: &Stores<'_>) -> Result<Self, ParseError> {
        let Some((name, rest)) = text.split_once(':').filter(|(_, rest)| !rest.is_empty()) else {
            return Err(rule(format!(
                "{text:?} names no provider: expected <provider>:<path>, such as vault:secret/*"
            )));
        };
        let provider = Glob::parse(name).ok().filter(|glob| !glob.has_placeholder());
        let provider = provider
            .ok_or_else(|| rule(format!("{text:?} has a placeholder for a provider: expected its name, or a glob")))?;
        if rest.contains('#') {
            return Err(rule(format!("{text:?} names a key, and rules are about whole requests: leave #… out")));
        }
        let known: Vec<_> = providers.iter().filter(|(known, _)| provider.is(known)).collect();
        // Of several providers' parameters every one is fine.
        let of_one = if let [(_, one)] = known[..] { Some(*one) } else { None };
        let parameters = of_one.map_or(Parameters { narrowing: &[], widening: None }, Settings::parameters);
        let mut request = RequestParts::parse(rest, &parameters).map_err(|problem| {
            // Of a scalar no part may be told: what would be accepted is ours.
            let told = problem.to_string();
            let ours = ["; did you mean ", ": expected "].iter().find_map(|words| told.get(told.find(words)?..));
            rule(format!("{text:?} has something behind its path that is not understood{}", ours.unwrap_or_default()))
        })?;
        let mut fault = None;
        if known.is_empty() {
            let names: Vec<_> = providers.keys().copied().collect();
            fault = Some(format!("there is no such provider{}", suggestion(name, &names)));
        }
        // One secret is meant by whatever name the store has for it.
        if let (Some(settings), Some(_), Some(_)) = (of_one, provider.as_literal(), request.path.as_literal()) {
            let resolved = text.parse::<Reference>().map_err(ParseError::from);
            match resolved.and_then(|reference| settings.resolve(name, &reference)) {
                Ok(canonical) => request.path = Glob::literal(&canonical.path),
                Err(problem) => fault = Some(format!("the provider has no such request: {problem}")),
            }
        }
        Ok(Self { text, provider, request, fault })
    }

    /// Whatever a rule does not name of a request's parameters makes no difference: a refusal is wide.
    fn names(&self, request: &Request, identity: &Identity) -> bool {
        let RequestParts { path, params } = &self.request;
        let has = |(name, glob): (&String, &Glob)| {
            request.params.get(name).is_some_and(|value| glob.fill(identity).matches(value))
        };
        self.provider.is(&request.provider) && path.fill(identity).matches(&request.path) && params.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const PROVIDERS: &str = r#"
image: i
providers:
  vault: {type: vault, address: "https://v", role: r}
  vault-b: {type: vault, address: "https://b", role: r}
  aws: {type: aws, region: eu-west-1}
  infisical: {type: infisical, address: "https://i", project: p, environment: prod, allowParams: [env], role: r}
"#;

    fn config(rule: &str) -> Result<Config, ConfigError> {
        Config::from_yaml(&format!("{PROVIDERS}deny: [{rule}]\n"))
    }

    #[test]
    fn p6_a_refusal_is_by_reference_namespace_and_account_in_whatever_spelling() {
        for (rule, who, reference, is_denied) in [
            ("{references: ['vault:secret/data/prod/*']}", "a/web", "vault:secret/data/prod/db", true),
            ("{references: ['vault:secret/data/prod/*']}", "a/web", "vault:/v1/secret/data/prod/db?version=3", true),
            ("{references: ['vault:secret/data/prod/*']}", "a/web", "vault:secret/data/dev/db", false),
            ("{references: ['vault:secret/data/prod/*']}", "a/web", "vault-b:secret/data/prod/db", false),
            ("{references: ['vault*:secret/data/prod/*']}", "a/web", "vault-b:secret/data/prod/db", true),
            ("{references: ['*:*']}", "a/web", "aws:db", true),
            ("{references: ['vault:/v1/secret/data/x']}", "a/web", "vault:secret/data/x", true),
            ("{references: ['vault:secret/data/{{namespace}}/*']}", "a/web", "vault:secret/data/a/x", true),
            ("{references: ['vault:secret/data/{{namespace}}/*']}", "a/web", "vault:secret/data/b/x", false),
            ("{references: ['vault:pki/issue/*?ttl=*']}", "a/web", "vault:pki/issue/web?ttl=1h&common_name=x", true),
            ("{references: ['vault:pki/issue/*?ttl=*']}", "a/web", "vault:pki/issue/web?common_name=x", false),
            ("{references: ['infisical:/team/*']}", "a/web", "infisical:/team/x?recursive=true", true),
            ("{namespaces: ['team-*']}", "team-a/web", "aws:db", true),
            ("{namespaces: ['team-*']}", "other/web", "aws:db", false),
            ("{serviceAccounts: [web]}", "other/web", "aws:db", true),
            ("{namespaces: [a], serviceAccounts: ['{{namespace}}-*']}", "a/a-web", "aws:db", true),
            ("{namespaces: [a], serviceAccounts: ['{{namespace}}-*']}", "a/web", "aws:db", false),
            ("{namespaces: [a], references: ['aws:db']}", "a/web", "vault:secret/data/x", false),
        ] {
            let config = config(rule).unwrap();
            assert_eq!(config.warnings(), Vec::<String>::new(), "{rule}");
            let (namespace, account) = who.split_once('/').unwrap();
            let identity = Identity { namespace: namespace.into(), service_account: account.into() };
            let reference: Reference = reference.parse().unwrap();
            let name = reference.provider.clone().unwrap();
            let request = config.providers[&name].settings.as_settings().resolve(&name, &reference).unwrap();
            let [deny] = &config.deny[..] else { panic!() };
            assert_eq!(deny.is_about(&identity) && deny.names(&request, &identity), is_denied, "{rule}: {request}");
        }
    }

    #[test]
    fn p9_a_refusal_that_cannot_be_is_refused_and_one_of_nothing_is_warned_of() {
        for (rule, part) in [
            ("{}", "everything for everyone"),
            ("{references: ['secret/data/x']}", "names no provider"),
            ("{references: ['vault:secret/data/x#key']}", "whole requests"),
            ("{references: ['{{namespace}}:x']}", "placeholder for a provider"),
            ("{references: ['infisical:/x?recursiv=true']}", "did you mean \"recursive\"?"),
            ("{namespaces: ['{{namespace}}']}", "everyone"),
            ("{namespace: [a]}", "did you mean \"namespaces\"?"),
        ] {
            let problem = config(rule).unwrap_err().to_string();
            assert!(problem.contains("deny[0]") && problem.contains(part), "{rule}: {problem}");
        }
        for (rule, part) in [
            ("{references: ['valt:secret/*']}", "did you mean \"vault\"?"),
            ("{references: []}", "stands for no reference"),
            ("{references: ['vault:secret/data/../x']}", "no such request"),
            ("{namespaces: [Team]}", "\"Team\" is the name of no namespace"),
            ("{namespaces: []}", "stands for no namespace"),
            ("{serviceAccounts: [a_b]}", "\"a_b\" is the name of no service account"),
        ] {
            let warnings = config(rule).unwrap().warnings();
            let is_told = |warning: &String| warning.starts_with("deny[0]") && warning.contains(part);
            assert!(warnings.len() == 1 && warnings.iter().all(is_told), "{rule}: {warnings:?}");
        }
    }
}
