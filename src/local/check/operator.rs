//! An operator's configuration: all that is wrong with it, and which of its rules lets whom have what.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::findings::{Checked, FindingKind, RuleAnswer};
use crate::annotations;
use crate::config::{Config, ConfigFaults, Deny, Identity, NamespaceLabels};
use crate::contract::PREFIX;
use crate::local::error::LocalError;
use crate::local::source_file::{FileFault, SourceFile};
use crate::options::Options;
use crate::plan::Plan;
use crate::plan::policy::Rights;
use crate::reference::{Reference, Request};

/// Who asks.
pub(super) struct Asking {
    identity: Identity,
    labels: NamespaceLabels,
    options: Options,
}

/// Says what is wrong with a configuration; gives it, if nothing is.
pub(super) fn check(file: &SourceFile, checked: &mut Checked) -> Option<Config> {
    match Config::read_written(&file.text) {
        Ok((config, above)) => {
            for warning in config.warnings() {
                // It begins with the field.
                let field = warning.split(": ").next().unwrap_or_default();
                let fault = file.fault(&format!("{above}.{field}"), &warning);
                checked.warn(file, FindingKind::Advice, fault);
            }
            Some(config)
        }
        Err(ConfigFaults(faults)) => {
            for fault in faults {
                let at = Some((fault.line, fault.column));
                let fault = FileFault { at, problem: fault.error.to_string() };
                checked.fault(file, FindingKind::Configuration, fault);
            }
            None
        }
    }
}

// === impl Asking ===

impl Asking {
    pub(super) fn new(identity: Identity, labels: NamespaceLabels, roles: Vec<(String, String)>) -> Self {
        Self { identity, labels, options: Options { roles: roles.into_iter().collect(), ..Options::default() } }
    }

    /// What the rules say to each reference.
    ///
    /// # Errors
    /// One sentence, if one is not a reference.
    pub(super) fn answers(&self, references: &[PathBuf], config: &Config) -> Result<Vec<RuleAnswer>, LocalError> {
        let answer = |reference: &PathBuf| {
            let text = reference.to_str().ok_or_else(|| LocalError::usage("a reference is not UTF-8"))?;
            text.parse::<Reference>().map_err(|error| LocalError::usage(format!("{text:?}: {error}")))?;
            Ok(self.ask(text, config))
        };
        references.iter().map(answer).collect()
    }

    fn ask(&self, reference: &str, config: &Config) -> RuleAnswer {
        let outcome = self.plan(reference, config);
        let request = self.request(reference, config);
        let (allowed, sentence) = match &outcome {
            Ok(warnings) if warnings.is_empty() => (true, "may be requested".to_owned()),
            Ok(warnings) => (true, warnings.join("; ")),
            Err(problem) => (false, problem.clone()),
        };
        let rule = request
            .as_ref()
            .and_then(|request| if allowed { self.allowing(request, config) } else { self.denying(request, config) });
        let request = request.map(|request| request.to_string());
        RuleAnswer { reference: reference.to_owned(), request, allowed, rule, sentence }
    }

    /// As the webhook would: with what unlocks a store, and the role that it needs.
    fn plan(&self, reference: &str, config: &Config) -> Result<Vec<String>, String> {
        // As a document, whatever is asked for.
        let item = serde_json::json!([{"file": "x", "from": {"x": reference}, "format": "json"}]);
        let annotations = BTreeMap::from([(format!("{PREFIX}{}", annotations::SECRETS), item.to_string())]);
        let (bundle, _) = annotations::parse(&annotations).map_err(|error| error.to_string())?;
        let options = self.options.clone().or(&config.defaults);
        let planned = Plan::build_with_warnings(self.identity.clone(), &self.labels, &bundle, &options, config);
        planned.map(|built| built.warnings).map_err(|error| error.problem)
    }

    fn request(&self, reference: &str, config: &Config) -> Option<Request> {
        let reference: Reference = reference.parse().ok()?;
        let name = reference.provider.as_ref().or(config.defaults.provider.as_ref());
        let name = name.or(config.default_provider.as_ref())?;
        let settings = config.providers.get(name)?.settings.in_namespace(&self.identity.namespace);
        settings.as_settings().resolve(name, &reference).ok()
    }

    /// The first rule that would do alone.
    fn allowing(&self, request: &Request, config: &Config) -> Option<String> {
        let name = &request.provider;
        let provider = config.providers.get(name)?;
        let parameters = provider.settings.as_settings().parameters();
        let role = self.options.roles.get(name).map(String::as_str);
        let is_enough = |rule| {
            let rights = Rights::of(name, Some(std::slice::from_ref(rule)), &self.identity, &self.labels, role);
            rights.is_ok_and(|rights| rights.check(request, &parameters).is_ok())
        };
        let index = provider.allow.as_ref()?.iter().position(is_enough)?;
        Some(format!("providers.{name}.allow[{index}]"))
    }

    fn denying(&self, request: &Request, config: &Config) -> Option<String> {
        let is_it = |rule: &Deny| rule.is_about(&self.identity) && rule.names(request, &self.identity);
        config.deny.iter().position(is_it).map(|index| format!("deny[{index}]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
image: i
defaultProvider: vault
providers:
  vault:
    type: vault
    address: "https://v"
    role: web
    allow:
      - {namespaces: [ops]}
      - {namespaces: ["team-*"], requests: ["secret/data/{{namespace}}/*"]}
      - {namespaceLabels: {tier: prod}, requests: ["secret/data/prod/*"]}
  open: {type: aws, region: eu-west-1, role: "arn:aws:iam::123456789012:role/{{service_account}}"}
  sops: {type: file, volumes: true, identity: "vault:secret/data/age#key"}
deny:
  - {references: ["vault:secret/data/team-a/old"]}
  - {namespaces: [team-z]}
"#;

    fn asked((namespace, service_account): (&str, &str), labels: Option<&str>, reference: &str) -> RuleAnswer {
        let pair = |one: &str| one.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
        let labels = labels.map(|text| NamespaceLabels::known(text.split(',').map(pair).collect()));
        let labels = labels.unwrap_or_else(|| NamespaceLabels::Unknown("say them with --namespace-labels".into()));
        let identity = Identity { namespace: namespace.to_owned(), service_account: service_account.to_owned() };
        let config = Config::from_yaml(CONFIG).unwrap();
        let answers = Asking::new(identity, labels, Vec::new()).answers(&[reference.into()], &config);
        answers.unwrap().pop().unwrap()
    }

    #[test]
    fn p6_the_rule_that_decides_is_named() {
        let team = ("team-a", "web");
        for (who, labels, reference, rule, part) in [
            (("ops", "web"), None, "secret/data/x#k", Ok(Some("providers.vault.allow[0]")), "may be requested"),
            (team, None, "/v1/secret/data/team-a/db", Ok(Some("providers.vault.allow[1]")), "may be"),
            (team, None, "secret/data/team-a/old", Err(Some("deny[0]")), "rule deny[0]"),
            (team, Some("tier=prod"), "secret/data/prod/x", Ok(Some("providers.vault.allow[2]")), "may be"),
            (team, Some("tier=dev"), "secret/data/prod/x", Err(None), "may not request"),
            (("other", "web"), None, "secret/data/prod/x", Err(None), "say them with --namespace-labels"),
            (("other", "web"), Some("a=b"), "secret/data/prod/x", Err(None), "may not use provider"),
            (("team-z", "web"), None, "open:db", Err(Some("deny[1]")), "deny[1]"),
            (("other", "web"), None, "open:db", Ok(None), "may be"),
            (("other", "web"), None, "oepn:db", Err(None), "did you mean \"open\"?"),
            (team, None, "sops:v/x.yaml", Err(None), "is unlocked by vault:secret/data/age"),
        ] {
            let answer = asked(who, labels, reference);
            assert_eq!(answer.allowed, rule.is_ok(), "{reference}: {answer:?}");
            let (Ok(rule) | Err(rule)) = rule;
            assert_eq!(answer.rule.as_deref(), rule, "{reference}: {answer:?}");
            assert!(answer.sentence.contains(part), "{reference}: {answer:?}");
        }
    }
}
