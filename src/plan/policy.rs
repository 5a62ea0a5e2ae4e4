//! Who may ask for what, and as whom: the operator's rules, by namespace, service account, role and canonical request.
//!
//! Defence in depth: the store's own policy is the authority. These rules keep a tenant's typo, or a role that is too
//! wide, from reaching further than the operator meant.

use std::collections::BTreeSet;

use super::Identity;
use crate::config::{Allow, Deny, Filled, Glob, NamespaceLabels, OLD_RULES_COUNT, RequestGlob};
use crate::provider::Parameters;
use crate::reference::{Request, VERSION_PARAM};
use crate::sentence::fitting;
use crate::steps::{self, OverBudget};

/// Most bytes of a request that a denial shows: one of any length would take the place of the sentence's own words.
const MOST_SHOWN: usize = 200;

/// What one identity may ask one provider for.
#[derive(Debug)]
pub struct Rights<'a> {
    identity: &'a Identity,
    /// `None` if there is a rule without `requests`, or no rule at all: everything.
    requests: Option<Vec<Right<'a>>>,
    /// The place of that rule, if there is one.
    everything: Option<usize>,
    old_rules_count: bool,
}

/// That a request may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// By which rule: its place among the provider's, from 0; `None` if there are no rules.
    pub rule: Option<usize>,
    /// What the operator should know, if that is so in this release only.
    pub warning: Option<String>,
}

/// Why a request may not be made: one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The operator's rules are against it.
    #[error("{0}")]
    Denied(String),
    /// To find out would take too long.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

#[derive(Debug)]
struct Right<'a> {
    /// The place of its rule.
    rule: usize,
    glob: &'a RequestGlob,
    /// `None` if it is not valid any more.
    filled: Option<(Filled<'a>, Vec<(&'a str, Filled<'a>)>)>,
}

// === impl Rights ===

impl<'a> Rights<'a> {
    /// The rules of a provider that are about this identity and the labels of its namespace, in the role that its pod
    /// asks for; no rules let everyone.
    ///
    /// # Errors
    /// [`PolicyError`], if there are rules, and none is about it.
    pub fn of(
        provider: &str,
        rules: Option<&'a [Allow]>,
        identity: &'a Identity,
        labels: &NamespaceLabels,
        role: Option<&str>,
    ) -> Result<Self, PolicyError> {
        let everything = Self { identity, requests: None, everything: None, old_rules_count: OLD_RULES_COUNT };
        let Some(rules) = rules else { return Ok(everything) };
        let Identity { namespace, service_account } = identity;
        let matches = |globs: &'a [Glob], text: &str| globs.iter().any(|glob| glob.fill(identity).matches(text));
        let any = |globs: &'a Option<Vec<Glob>>, text: &str| globs.as_ref().is_none_or(|globs| matches(globs, text));
        steps::take(rules.len())?;
        let mut mine: Vec<_> = rules.iter().enumerate().filter(|(_, rule)| rule.is_about(namespace, labels)).collect();
        let denied = |who: String, what: &str| -> Result<Self, PolicyError> {
            steps::check()?;
            Err(PolicyError::Denied(format!("{who} may not {what} (the operator's allow rules)")))
        };
        if mine.is_empty() {
            let asks = |rule: &Allow| rule.namespace_labels.is_some() && rule.names(namespace);
            if let Some(why) = labels.unknown().filter(|_| rules.iter().any(asks)) {
                steps::check()?;
                return Err(PolicyError::Denied(format!(
                    "the operator's allow rules of provider {provider:?} ask for the labels of namespace {namespace:?}, \
                     which are not known: {why}"
                )));
            }
            return denied(format!("namespace {namespace:?}"), &format!("use provider {provider:?}"));
        }
        mine.retain(|(_, rule)| any(&rule.service_accounts, service_account));
        let who = || format!("service account {service_account:?} in namespace {namespace:?}");
        if mine.is_empty() {
            return denied(who(), &format!("use provider {provider:?}"));
        }
        if let Some(role) = role {
            mine.retain(|(_, rule)| any(&rule.roles, role));
            if mine.is_empty() {
                return denied(who(), &format!("ask provider {provider:?} for role {role:?}"));
            }
        }
        if let Some((place, _)) = mine.iter().find(|(_, rule)| rule.requests.is_none()) {
            return Ok(Self { everything: Some(*place), ..everything });
        }
        let requests = mine
            .iter()
            .flat_map(|(place, rule)| rule.requests.iter().flatten().map(|glob| Right::of(*place, glob, identity)));
        Ok(Self { requests: Some(requests.collect()), ..everything })
    }

    /// Whether this request may be made, and by which rule.
    ///
    /// # Errors
    /// [`PolicyError`] says what is not allowed, and where.
    pub fn check(&self, request: &Request, parameters: &Parameters) -> Result<Allowed, PolicyError> {
        let Some(rights) = &self.requests else { return Ok(Allowed { rule: self.everything, warning: None }) };
        if let Some(right) = rights.iter().find(|right| right.allows(request, parameters)) {
            return Ok(Allowed { rule: Some(right.rule), warning: None });
        }
        let namespace = &self.identity.namespace;
        let before =
            rights.iter().find(|right| self.old_rules_count && allowed_before(right.glob, self.identity, request));
        steps::check()?;
        let Some(right) = before else {
            let request = request.to_string();
            let request = fitting(&request, MOST_SHOWN);
            let sentence = format!("namespace {namespace:?} may not request {request} (the operator's allow rules)");
            return Err(PolicyError::Denied(sentence));
        };
        let warning = Some(format!(
            "\"{request}\" is allowed to namespace {namespace:?} in this release only, since the operator's rule {:?} \
             does not name its parameters: write {:?}",
            right.glob.text,
            right.instead(request, parameters)
        ));
        Ok(Allowed { rule: Some(right.rule), warning })
    }
}

/// The operator's refusals that are about one identity, by their places in the configuration.
#[derive(Debug)]
pub struct Refusals<'a> {
    identity: &'a Identity,
    rules: Vec<(usize, &'a Deny)>,
}

// === impl Refusals ===

impl<'a> Refusals<'a> {
    /// Those of these rules that are about this identity.
    #[must_use]
    pub fn of(rules: &'a [Deny], identity: &'a Identity) -> Self {
        steps::spend(rules.len());
        let mine = rules.iter().enumerate().filter(|(_, rule)| rule.is_about(identity));
        Self { identity, rules: mine.collect() }
    }

    /// The place of the first one that refuses this request.
    #[must_use]
    pub fn rule(&self, request: &Request) -> Option<usize> {
        self.first(request).map(|(index, _)| *index)
    }

    fn first(&self, request: &Request) -> Option<&(usize, &'a Deny)> {
        self.rules.iter().find(|(_, rule)| rule.names(request, self.identity))
    }

    /// Whether none of them refuses this request.
    ///
    /// # Errors
    /// [`PolicyError`] names the rule.
    pub fn check(&self, request: &Request) -> Result<(), PolicyError> {
        if self.rules.is_empty() {
            return Ok(());
        }
        steps::take(self.rules.len())?;
        let Some((index, rule)) = self.first(request) else { return Ok(()) };
        let Identity { namespace, service_account } = self.identity;
        let who = match rule.service_accounts {
            Some(_) => format!("service account {service_account:?} in namespace {namespace:?}"),
            None => format!("namespace {namespace:?}"),
        };
        steps::check()?;
        let request = request.to_string();
        let request = fitting(&request, MOST_SHOWN);
        Err(PolicyError::Denied(format!("{who} may not request {request} (the operator's rule deny[{index}])")))
    }
}

/// Rules of `deny` by their places, as reports and annotations name them: `deny[0], deny[2]`; of many the first.
#[must_use]
pub fn rules_text(places: &BTreeSet<usize>) -> String {
    const MOST: usize = 4;
    let named: Vec<_> = places.iter().take(MOST).map(|place| format!("deny[{place}]")).collect();
    let more = places.len().saturating_sub(MOST);
    named.join(", ") + &if more == 0 { String::new() } else { format!(" and {more} more") }
}

impl<'a> Right<'a> {
    fn of(rule: usize, glob: &'a RequestGlob, identity: &'a Identity) -> Self {
        let filled = glob.meaning.as_ref().ok().map(|parts| {
            let params = parts.params.iter().map(|(name, glob)| (name.as_str(), glob.fill(identity)));
            (parts.path.fill(identity), params.collect())
        });
        Self { rule, glob, filled }
    }

    /// Whether path and parameters match: every one that is named, and none that widens is not.
    fn allows(&self, request: &Request, parameters: &Parameters) -> bool {
        let Some((path, params)) = &self.filled else { return false };
        let is_named = |name: &String| params.iter().any(|(named, _)| named == name);
        path.matches(&request.path)
            && params.iter().all(|(name, glob)| request.params.get(*name).is_some_and(|value| glob.matches(value)))
            && request.params.keys().all(|name| parameters.narrows(name) || is_named(name))
    }

    /// The rule that allows this request.
    fn instead(&self, request: &Request, parameters: &Parameters) -> String {
        let widening = request.params.keys().filter(|name| !parameters.narrows(name));
        let params: Vec<_> = widening.map(|name| format!("{name}=*")).collect();
        let sign = if params.is_empty() { "" } else { "?" };
        format!("{}{sign}{}", self.glob.path(), params.join("&"))
    }
}

/// As rules were read until 0.1: a glob without `?` was about paths alone; one with `?` about path and parameters in one,
/// `version` apart.
fn allowed_before(glob: &RequestGlob, identity: &Identity, request: &Request) -> bool {
    let before = glob.before.fill(identity);
    if !glob.text.contains('?') {
        return before.matches(&request.path);
    }
    let mut unpinned = request.clone();
    unpinned.params.remove(VERSION_PARAM);
    let text = unpinned.to_string();
    before.matches(text.strip_prefix(&format!("{}:", request.provider)).unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;

    const CONFIG: &str = r#"
image: registry/hushpod:0.1.0
providers:
  vault:
    type: vault
    address: "https://vault"
    role: web
    allow:
      - {namespaces: ["team-*"], requests: ["secret/data/{{namespace}}/*"]}
      - {namespaces: [team-a], serviceAccounts: ["{{namespace}}-web"], requests: ["pki/issue/web?common_name=*.a.svc"]}
      - {namespaces: [ops], roles: ["{{namespace}}-*", shared]}
      - {namespaces: [odd], requests: ["a%2A/*", "b/*?x=1%262&y=*"]}
  infisical:
    type: infisical
    address: "https://infisical"
    project: p
    environment: prod
    allowParams: [env]
    role: web
    allow: [{namespaces: ["team-*"], requests: ["/{{namespace}}/*", "/shared?env=dev", "/dyn/*?dynamic=*"]}]
  files: {type: file, path: /srv}
"#;

    struct Asked {
        outcome: Result<Allowed, PolicyError>,
        without_old_rules: Result<Allowed, PolicyError>,
    }

    fn ask(who: &str, provider: &str, role: Option<&str>, reference: &str) -> Asked {
        let config = Config::from_yaml(CONFIG).unwrap();
        let (namespace, account) = who.split_once('/').unwrap();
        let identity = Identity { namespace: namespace.into(), service_account: account.into() };
        let ProviderParts { settings, allow } = parts(&config, provider);
        let request = settings.resolve(provider, &reference.parse().unwrap()).unwrap();
        let parameters = settings.parameters();
        let ask = |old_rules_count| {
            let rights = Rights::of(provider, allow, &identity, &NamespaceLabels::NotAsked, role)?;
            Rights { old_rules_count, ..rights }.check(&request, &parameters)
        };
        Asked { outcome: ask(true), without_old_rules: ask(false) }
    }

    struct ProviderParts<'a> {
        settings: &'a dyn crate::provider::Settings,
        allow: Option<&'a [Allow]>,
    }

    fn parts<'a>(config: &'a Config, provider: &str) -> ProviderParts<'a> {
        let provider = &config.providers[provider];
        ProviderParts { settings: provider.settings.as_settings(), allow: provider.allow.as_deref() }
    }

    #[test]
    fn p6_rules_are_by_namespace_account_role_and_request() {
        for (who, provider, role, reference, part) in [
            ("team-a/web", "vault", None, "secret/data/team-a/db", None),
            ("team-a/web", "vault", None, "secret/data/team-a/db?version=3", None),
            ("team-a/web", "vault", None, "secret/data/team-b/db", Some("may not request vault:secret/data/team-b/db")),
            ("team-a/team-a-web", "vault", None, "pki/issue/web?common_name=x.a.svc", None),
            ("team-a/team-b-web", "vault", None, "pki/issue/web?common_name=x.a.svc", Some("may not request")),
            ("team-a/team-a-web", "vault", None, "pki/issue/web?common_name=x.b.svc", Some("may not request")),
            ("team-a/team-a-web", "vault", None, "pki/issue/web", Some("may not request")),
            ("team-b/team-b-web", "vault", None, "pki/issue/web?common_name=x.a.svc", Some("may not request")),
            (
                "other/web",
                "vault",
                None,
                "secret/data/other/db",
                Some("namespace \"other\" may not use provider \"vault\""),
            ),
            ("ops/web", "vault", None, "any/thing?a=b", None),
            ("ops/web", "vault", Some("ops-admin"), "any/thing?a=b", None),
            ("ops/web", "vault", Some("shared"), "any/thing?a=b", None),
            ("ops/web", "vault", Some("admin"), "any/thing", Some("may not ask provider \"vault\" for role \"admin\"")),
            ("odd/web", "vault", None, "a%2A/x", None),
            ("odd/web", "vault", None, "aa/x", Some("may not request")),
            ("odd/web", "vault", None, "b/x?x=1%262&y=", None),
            ("odd/web", "vault", None, "b/x?x=1%262", Some("may not request")),
            ("team-a/web", "infisical", None, "/team-a/x?tags=a", None),
            ("team-a/web", "infisical", None, "/team-a/x?version=1#K", None),
            ("team-a/web", "infisical", None, "/shared?env=dev", None),
            ("team-a/web", "infisical", None, "/shared?env=dev&secret=K", None),
            ("team-a/web", "infisical", None, "/shared?env=stage", Some("may not request")),
            ("team-a/web", "infisical", None, "/shared", Some("may not request")),
            ("team-a/web", "infisical", None, "/dyn/db?dynamic=pg", None),
        ] {
            let Asked { outcome, without_old_rules } = ask(who, provider, role, reference);
            match part {
                None => assert!(matches!(outcome, Ok(Allowed { warning: None, .. })), "{who} {reference}"),
                Some(part) => {
                    assert!(
                        outcome.as_ref().is_err_and(|e| e.to_string().contains(part)),
                        "{who} {reference}: {outcome:?}"
                    );
                }
            }
            assert_eq!(without_old_rules, outcome, "{who} {reference}");
        }
    }

    #[test]
    fn the_rule_that_allows_a_request_is_told_by_its_place() {
        for (who, provider, role, reference, place) in [
            ("team-a/web", "vault", None, "secret/data/team-a/db", Some(0)),
            ("team-a/team-a-web", "vault", None, "secret/data/team-a/db", Some(0)),
            ("team-a/team-a-web", "vault", None, "pki/issue/web?common_name=x.a.svc", Some(1)),
            ("ops/web", "vault", Some("shared"), "any/thing", Some(2)),
            ("odd/web", "vault", None, "a%2A/x", Some(3)),
            ("team-a/web", "infisical", None, "/team-a/x?recursive=true", Some(0)),
            ("team-a/web", "files", None, "a.json", None),
        ] {
            let Asked { outcome, .. } = ask(who, provider, role, reference);
            assert_eq!(outcome.map(|allowed| allowed.rule), Ok(place), "{who} {reference}");
        }
    }

    #[test]
    fn p6_what_a_rule_does_not_name_passes_with_a_warning_for_one_release() {
        for (provider, reference, instead) in [
            ("vault", "secret/data2/team-a/db?x=1", None),
            ("infisical", "/team-a/x?recursive=true", Some("/{{namespace}}/*?recursive=*")),
            ("infisical", "/team-a/x?env=dev&tags=t", Some("/{{namespace}}/*?env=*")),
            ("infisical", "/team-a/x?dynamic=pg&ttl=1h", Some("/{{namespace}}/*?dynamic=*&ttl=*")),
            ("infisical", "/dyn/db?dynamic=pg&ttl=1h", Some("/dyn/*?dynamic=*&ttl=*")),
            ("infisical", "/shared?env=dev&recursive=true", None),
        ] {
            let Asked { outcome, without_old_rules } = ask("team-a/web", provider, None, reference);
            assert!(
                without_old_rules.as_ref().is_err_and(|e| e.to_string().contains("may not request")),
                "{without_old_rules:?}"
            );
            match instead {
                None => assert_eq!(outcome, without_old_rules, "{reference}"),
                Some(instead) => {
                    let warning = outcome.unwrap().warning.unwrap_or_default();
                    assert!(warning.contains(&format!("write {instead:?}")), "{reference}: {warning}");
                }
            }
        }
    }

    #[test]
    fn p6_rules_are_by_labels_of_namespaces_too() {
        let rules = "[{namespaces: ['team-*'], namespaceLabels: {tier: prod, 'example.com/team': 'a*'}}, \
                     {namespaceLabels: {open: '*'}}, {namespaces: [named]}]";
        let text =
            format!("image: i\nproviders: {{v: {{type: vault, address: 'https://v', role: r, allow: {rules}}}}}");
        let config = Config::from_yaml(&text).unwrap();
        assert!(config.asks_for_labels() && config.warnings().is_empty(), "{:?}", config.warnings());
        let known = |labels: &[(&str, &str)]| {
            let pairs = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            NamespaceLabels::known(pairs.collect::<BTreeMap<_, _>>())
        };
        let unknown = NamespaceLabels::Unknown("no way to the API server".into());
        for (namespace, labels, part) in [
            ("team-a", known(&[("tier", "prod"), ("example.com/team", "a-1"), ("other", "x")]), None),
            ("team-a", known(&[("tier", "prod")]), Some("may not use provider \"v\"")),
            ("team-a", known(&[("tier", "prod"), ("example.com/team", "b")]), Some("may not use")),
            ("other", known(&[("tier", "prod"), ("example.com/team", "a")]), Some("may not use")),
            ("other", known(&[("open", "")]), None),
            ("named", known(&[]), None),
            ("named", unknown.clone(), None),
            ("other", unknown, Some("labels of namespace \"other\", which are not known: no way to the API server")),
            ("other", NamespaceLabels::NotAsked, Some("not known")),
        ] {
            let identity = Identity { namespace: namespace.to_owned(), service_account: "web".to_owned() };
            let rules = config.providers["v"].allow.as_deref();
            let outcome = Rights::of("v", rules, &identity, &labels, None).map(drop);
            match part {
                None => assert_eq!(outcome, Ok(()), "{namespace} {labels:?}"),
                Some(part) => {
                    assert!(outcome.as_ref().is_err_and(|e| e.to_string().contains(part)), "{namespace}: {outcome:?}");
                }
            }
        }
    }
}
