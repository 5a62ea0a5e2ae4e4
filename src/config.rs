//! The operator's configuration: where stores are, who may use what, and defaults for every annotation.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::annotations::KEYS;
use crate::bundle::parse_yaml;
use crate::options::Options;
use crate::parse_error::{ParseError, invalid, unknown};
use crate::provider::http::Proxy;
use crate::provider::{ProviderSettings, Settings};
use crate::quantity::parse_duration;
use crate::reference::is_provider_name;
use crate::sentence::{list, one_line, suggestion};

mod allow;
mod ca_bundle;
mod csi;
mod error;
mod identity;
pub mod injected;
mod proxy;
pub mod reload;
mod shape;
mod unlock;

use ca_bundle::RawCaBundle;
use csi::RawCsi;
use proxy::ProxyFields;

pub use allow::{Allow, Filled, Glob, OLD_RULES_COUNT, RequestGlob, RequestParts, matches};
pub use ca_bundle::{CaBundle, LabelSelector, Operator, Requirement};
pub use csi::{CsiConfig, CsiLimits, Unavailable};
pub use error::ConfigError;
pub use identity::{Identity, expand};

/// Everything the operator decides; validated when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Options of pods that say nothing.
    pub defaults: Options,
    /// `runtimeClassName`s whose pods share the node's memory volumes, so the gate holds.
    pub runtime_classes: Vec<String>,
    /// The CSI driver; `None` if there is none, and no pod may ask for mode csi.
    pub csi: Option<CsiConfig>,
    /// Globs of names that other webhooks give to containers: those get files only if a pod names them.
    pub injected_containers: Vec<String>,
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

/// The file's top level, before its parts are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawConfig {
    image: String,
    image_pull_policy: Option<String>,
    #[serde(default)]
    image_pull_secrets: Vec<String>,
    #[serde(default = "yes")]
    native_sidecars: bool,
    #[serde(default)]
    image_volumes: bool,
    #[serde(default)]
    kubelet_env: bool,
    default_provider: Option<String>,
    #[serde(default)]
    providers: BTreeMap<String, Value>,
    #[serde(default)]
    defaults: BTreeMap<String, Value>,
    #[serde(default)]
    runtime_classes: Vec<String>,
    #[serde(default = "injected::known")]
    injected_containers: Vec<String>,
    proxy: Option<String>,
    no_proxy: Option<Vec<String>>,
    csi: Option<RawCsi>,
}

fn yes() -> bool {
    true
}

/// What every provider has beside its own settings.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawProvider {
    audience: Option<String>,
    token_seconds: Option<i64>,
    role: Option<String>,
    refresh: Option<String>,
    #[serde(default)]
    revoke_on_exit: bool,
    proxy: Option<String>,
    no_proxy: Option<Vec<String>>,
    ca_bundle: Option<RawCaBundle>,
    allow: Option<Vec<Map<String, Value>>>,
}

impl RawProvider {
    const FIELDS: [&'static str; 9] =
        ["audience", "tokenSeconds", "role", "refresh", "revokeOnExit", "allow", "proxy", "noProxy", "caBundle"];
}

// === impl Config ===

impl Config {
    /// What the operator should know of this configuration, sentence by sentence: rules that allow more, or something
    /// else, than they say.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
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

    /// Parses and checks the file's text.
    ///
    /// # Errors
    /// [`ConfigError`] names the field and what it accepts.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let value = parse_yaml(text).map_err(|problem| ConfigError::new("", problem))?;
        let Value::Object(fields) = &value else {
            return Err(ConfigError::new("", "has no fields: write image: and providers:"));
        };
        Self::from_fields(fields).map_err(|ConfigError { place, problem }| ConfigError {
            place,
            problem: shape::without_scalars(&problem, &value),
        })
    }

    /// The configuration of a person's machine: `providers` and `defaultProvider` alone. No pod is injected with it.
    ///
    /// # Errors
    /// As [`Config::from_yaml`].
    pub fn of_stores(providers: Map<String, Value>, default_provider: Option<&str>) -> Result<Self, ConfigError> {
        let mut fields = Map::from_iter([("image".to_owned(), Value::from("none"))]);
        fields.insert("providers".to_owned(), Value::Object(providers));
        fields.extend(default_provider.map(|name| ("defaultProvider".to_owned(), Value::from(name))));
        Self::from_fields(&fields)
    }

    fn from_fields(fields: &Map<String, Value>) -> Result<Self, ConfigError> {
        let RawConfig {
            image,
            image_pull_policy,
            image_pull_secrets,
            native_sidecars,
            image_volumes,
            kubelet_env,
            default_provider,
            providers,
            defaults,
            runtime_classes,
            injected_containers,
            proxy,
            no_proxy,
            csi,
        } = shape::read(fields)?;
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(ConfigError::new(".image", "write the image that is injected, such as registry/hushpod:0.1.0"));
        }
        if let Some(policy) = &image_pull_policy
            && !["Always", "IfNotPresent", "Never"].contains(&policy.as_str())
        {
            let problem = invalid("policy", policy, "Always, IfNotPresent or Never");
            return Err(ConfigError::new(".imagePullPolicy", problem));
        }
        let for_all = ProxyFields::checked(proxy, no_proxy)?;
        let providers = providers
            .into_iter()
            .map(|(name, value)| Ok((name.clone(), ProviderConfig::parse(&name, value, &for_all)?)))
            .collect::<Result<BTreeMap<_, _>, ConfigError>>()?;
        if let Some(name) = &default_provider
            && !providers.contains_key(name)
        {
            return Err(ConfigError::new(".defaultProvider", no_provider(name, &providers)));
        }
        let defaults = parse_defaults(&defaults)?;
        let csi = csi.map(CsiConfig::checked).transpose()?;
        let config = Self {
            image,
            image_pull_policy,
            image_pull_secrets,
            native_sidecars,
            image_volumes,
            kubelet_env,
            default_provider,
            providers,
            defaults,
            runtime_classes,
            csi,
            injected_containers,
        };
        config.check_unlocking()?;
        Ok(config)
    }
}

fn parse_defaults(entries: &BTreeMap<String, Value>) -> Result<Options, ConfigError> {
    let known: Vec<_> = KEYS.iter().filter(|key| key.has_operator_default).map(|key| key.name).collect();
    let mut options = Options::default();
    for (name, value) in entries {
        let place = shape::shown(name).map_or_else(|| ".defaults".to_owned(), |name| format!(".defaults.{name}"));
        if !known.contains(&name.as_str()) {
            let problem = format!("no annotation that can have a default{}", suggestion(name, &known));
            return Err(ConfigError::new(place, problem));
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if name != crate::annotations::FILE_MODE => number.to_string(),
            _ => return Err(ConfigError::new(place, "is not text: put it in quotes, as in an annotation")),
        };
        crate::annotations::set(&mut options, name, &text).map_err(ConfigError::at(&place))?;
    }
    Ok(options)
}

// === impl ProviderConfig ===

impl ProviderConfig {
    fn parse(name: &str, value: Value, for_all: &ProxyFields) -> Result<Self, ConfigError> {
        let place = shape::shown(name).map_or_else(|| ".providers".to_owned(), |name| format!(".providers.{name}"));
        Self::from_value(name, value, for_all).map_err(|error| error.below(&place))
    }

    fn from_value(name: &str, value: Value, for_all: &ProxyFields) -> Result<Self, ConfigError> {
        if !is_provider_name(name) {
            return Err(ConfigError::new("", "a provider's name has at most 40 lower-case letters, digits and '-'"));
        }
        let Value::Object(mut fields) = value else {
            return Err(ConfigError::new("", "write {type: …, address: …}"));
        };
        let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
        if !ProviderSettings::TYPES.contains(&kind) {
            return Err(ConfigError::new(".type", unknown("provider type", kind, &ProviderSettings::TYPES)));
        }
        let common: Map<_, _> = RawProvider::FIELDS
            .iter()
            .filter_map(|field| fields.remove(*field).map(|value| ((*field).to_owned(), value)))
            .collect();
        let settings: ProviderSettings = shape::read(&fields)?;
        settings.as_settings().validate().map_err(ConfigError::at(""))?;
        Self::from_parts(settings, shape::read(&common)?, for_all)
    }

    fn from_parts(settings: ProviderSettings, raw: RawProvider, for_all: &ProxyFields) -> Result<Self, ConfigError> {
        let RawProvider { audience, token_seconds, role, refresh, revoke_on_exit, proxy, no_proxy, ca_bundle, allow } =
            raw;
        let token_seconds = token_seconds.unwrap_or(600);
        if !(600..=3600).contains(&token_seconds) {
            return Err(ConfigError::new(".tokenSeconds", format!("{token_seconds} is not between 600 and 3600")));
        }
        if audience.as_deref() == Some("") {
            return Err(ConfigError::new(".audience", "an empty audience is the API server's own: name the store's"));
        }
        if audience.is_some() && settings.as_settings().default_audience().is_none() {
            let problem = "this provider takes no projected token with these settings: leave it out";
            return Err(ConfigError::new(".audience", problem));
        }
        let proxy = ProxyFields::checked(proxy, no_proxy)?;
        let is_remote = settings.as_settings().is_remote();
        if !proxy.is_empty() && !is_remote {
            return Err(ConfigError::new(".proxy", "this provider is not reached over a network: leave it out"));
        }
        let ca_bundle = ca_bundle.map(|raw| checked_bundle(raw, settings.as_settings())).transpose();
        let ca_bundle = ca_bundle.map_err(|error| error.below(".caBundle"))?;
        let default_audience = settings.as_settings().default_audience().map(str::to_owned);
        let refresh = refresh.map(|text| parse_duration(&text)).transpose();
        let refresh = refresh.map_err(ConfigError::at(".refresh"))?;
        if refresh.is_some_and(|refresh| refresh < Duration::from_secs(1)) {
            return Err(ConfigError::new(".refresh", "a second is the least"));
        }
        if let Some(template) = &role {
            expand(template, &Identity { namespace: "n".to_owned(), service_account: "s".to_owned() })
                .map_err(ConfigError::at(".role"))?;
        }
        let parameters = settings.as_settings().parameters();
        let rule = |(index, fields): (usize, Map<_, _>)| {
            let rule = shape::read(&fields).and_then(|raw| Allow::parse(raw, &parameters));
            rule.map_err(|error| error.below(&format!(".allow[{index}]")))
        };
        let allow = allow.map(|rules| rules.into_iter().enumerate().map(rule).collect()).transpose()?;
        Ok(Self {
            settings,
            audience: audience.or(default_audience),
            token_seconds,
            role,
            refresh,
            revoke_on_exit,
            proxy: if is_remote { proxy.or(for_all) } else { None },
            ca_bundle,
            allow,
        })
    }
}

fn checked_bundle(raw: RawCaBundle, settings: &dyn Settings) -> Result<CaBundle, ConfigError> {
    if !settings.is_remote() {
        return Err(ConfigError::new("", "this provider is not reached over a network: leave it out"));
    }
    if settings.ca().is_some() {
        return Err(ConfigError::new("", "stands beside ca: leave one of them out"));
    }
    CaBundle::checked(raw)
}

/// The sentence about a provider that the operator did not configure.
#[must_use]
pub fn no_provider(name: &str, providers: &BTreeMap<String, ProviderConfig>) -> ParseError {
    let known: Vec<_> = providers.keys().map(String::as_str).collect();
    unknown("provider", name, &known)
}

/// The sentence about a name between braces that is not ours.
#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
image: registry/hushpod:0.1.0
defaultProvider: files
providers:
  files: {type: file, path: /srv/secrets, role: "{{namespace}}-{{ service_account }}", refresh: 30s,
          allow: [{namespaces: ["team-*"]}]}
defaults: {mount-path: /run/secrets-of-mine, mode: init+sidecar, size-limit: 65536}
runtimeClasses: [runc]
"#;

    #[test]
    fn a_full_configuration_is_understood() {
        let config = Config::from_yaml(GOOD).unwrap();
        assert_eq!(config.defaults.mount_path.as_deref(), Some("/run/secrets-of-mine"));
        assert_eq!(config.defaults.size_limit, Some(65536));
        let files = &config.providers["files"];
        assert_eq!(files.refresh, Some(Duration::from_secs(30)));
        assert_eq!(files.allow.as_ref().unwrap()[0].requests, None);
        let identity = Identity { namespace: "team-a".to_owned(), service_account: "web".to_owned() };
        assert_eq!(expand(files.role.as_ref().unwrap(), &identity).unwrap(), "team-a-web");
    }

    #[test]
    fn rules_that_allow_more_than_they_say_are_told_of_when_they_are_read() {
        let warnings = |store: &str, requests: &str| {
            let text = format!(
                "image: i\nproviders: {{s: {{{store}, role: r, allow: [{{namespaces: [a], requests: [{requests}]}}]}}}}"
            );
            Config::from_yaml(&text).unwrap().warnings()
        };
        let vault = "type: vault, address: 'https://v'";
        let infisical = "type: infisical, address: 'https://i', project: p, environment: e";
        for (store, requests, parts) in [
            (vault, "'secret/data/*'", &["providers.s.allow", "\"secret/data/*?NAME=*\"", "secret/data/*"][..]),
            (vault, "'pki/issue/web?common_name=*'", &["pki/issue/web?common_name=*"]),
            (vault, "'pki/issue/web?common_name=a.svc'", &[]),
            (vault, "'pki/*?*'", &["name=value", "next release"]),
            (vault, "'secret/data/a#key'", &["whole requests", "next release"]),
            (vault, "'pki?a=1&a=2'", &["twice", "next release"]),
            (vault, "'50%'", &["%25", "next release"]),
            (infisical, "'/a?recursiv=true'", &["did you mean \"recursive\"?", "next release"]),
            (infisical, "'/a?recursive=true'", &[]),
            ("type: file, path: /srv", "'a/*'", &[]),
            ("type: aws, region: eu-west-1", "'a/*', '*'", &[]),
        ] {
            let warnings = warnings(store, requests);
            assert_eq!(warnings.len(), usize::from(!parts.is_empty()), "{requests}: {warnings:?}");
            for part in parts {
                assert!(warnings[0].contains(part), "{requests}: {warnings:?} lacks {part:?}");
            }
        }
        let many = vec!["'secret/data/*'"; 1000].join(",");
        assert!(warnings(vault, &many)[0].len() < 2000);
    }

    #[test]
    fn p9_a_bad_configuration_names_the_field() {
        for (from, to, parts) in [
            ("image: registry/hushpod:0.1.0", "image: ''", &[".image", "registry"][..]),
            ("image: registry/hushpod:0.1.0", "imge: x", &["imge"]),
            ("defaultProvider: files", "defaultProvider: file", &[".defaultProvider", "\"files\""]),
            ("type: file", "type: fil", &[".providers.files.type", "\"file\""]),
            ("type: file, path: /srv/secrets", "type: file, path: /srv/secrets, pth: x", &[".providers.files", "pth"]),
            ("refresh: 30s", "refresh: soon", &[".providers.files.refresh", "30s"]),
            ("refresh: 30s", "refresh: 10ms", &[".providers.files.refresh", "second"]),
            ("refresh: 30s", "audience: x", &[".providers.files.audience", "leave it out"]),
            ("[\"team-*\"]", "[\"{{namespace}}\"]", &[".allow[0].namespaces", "everyone"]),
            ("[\"team-*\"]", "[a], requests: [\"{{pod}}/*\"]", &[".allow[0].requests", "expected namespace or"]),
            ("[\"team-*\"]", "[a], roles: [\"{{\"]", &[".allow[0].roles", "}}"]),
            ("namespaces: [\"team-*\"]", "roles: [a]", &["providers.files.allow[0].namespaces", "is missing"]),
            (
                "namespaces: [\"team-*\"]",
                "namespace: [a]",
                &["providers.files.allow[0]", "unknown field", "did you mean \"namespaces\"?"],
            ),
            ("[\"team-*\"]", "[a], roles: a", &["providers.files.allow[0].roles", "is not a list"]),
            ("[{namespaces: [\"team-*\"]}]", "[a]", &["providers.files.allow"]),
            ("[\"team-*\"]", "[a], serviceAccount: [a]", &[".providers.files", "serviceAccounts"]),
            ("refresh: 30s", "tokenSeconds: 60", &[".providers.files.tokenSeconds", "600"]),
            ("{{namespace}}-", "{{nmespace}}-", &["nmespace", "expected namespace or"]),
            ("{{namespace}}-", "{{namespace-", &["asks for another name"]),
            ("mode: init+sidecar", "mode: both", &[".defaults.mode", "init+sidecar"]),
            ("mount-path: /run/secrets-of-mine", "mount-path: /hushpod-bin", &[".defaults.mount-path", "program goes"]),
            ("mount-path: /run/secrets-of-mine", "mount-path: /hushpod-bin/x/", &[".defaults.mount-path", "another"]),
            ("mode: init+sidecar", "\"x\\ny\": x", &[".defaults: no annotation"]),
            (
                "type: file, path: /srv/secrets",
                "type: file, path: 5",
                &[".providers.files.path: is not text: put it in quotes"],
            ),
            (
                "type: file, path: /srv/secrets",
                "type: aws, region: x, account: 123456789012",
                &[".providers.files.account: is not text: put it in quotes"],
            ),
            ("image: registry/hushpod:0.1.0", "", &[".image: is missing"]),
            ("runtimeClasses: [runc]", "runtimeClasses: runc", &[".runtimeClasses: is not a list"]),
            ("runtimeClasses: [runc]", "nativeSidecars: 3", &[".nativeSidecars: is neither true nor false"]),
            ("runtimeClasses: [runc]", "image: x", &["has the same key twice at line", "leave one of them out"]),
            ("runtimeClasses: [runc]", "---\nimage: x", &["several YAML documents", "write one"]),
            ("mode: init+sidecar", "pin: x", &[".defaults.pin", "default"]),
            ("mode: init+sidecar", "file-mode: 0440", &[".defaults.file-mode", "quotes"]),
            ("  files:", "  Files:", &[".providers.Files", "lower-case"]),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let message = Config::from_yaml(&text).unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "{to}: {message:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn a_proxy_for_all_is_every_stores_unless_it_has_its_own() {
        let config = |for_all: &str, own: &str| {
            let vault = format!("{{type: vault, address: 'https://vault:8200'{own}}}");
            let files = "{type: file, path: /srv}";
            Config::from_yaml(&format!("image: r/h:1\n{for_all}\nproviders: {{files: {files}, vault: {vault}}}\n"))
        };
        let all = "proxy: 'http://all:3128'\nnoProxy: [svc, 10.0.0.0/8]";
        for (for_all, own, proxy) in [
            ("", "", None),
            (all, "", Some((Some("http://all:3128"), &["svc", "10.0.0.0/8"][..]))),
            (all, ", proxy: 'http://own:1'", Some((Some("http://own:1"), &["svc", "10.0.0.0/8"]))),
            (all, ", noProxy: []", Some((Some("http://all:3128"), &[]))),
            (all, ", proxy: none", Some((None, &["svc", "10.0.0.0/8"]))),
            ("", ", proxy: 'http://own:1', noProxy: [vault]", Some((Some("http://own:1"), &["vault"]))),
        ] {
            let config = config(for_all, own).unwrap();
            let expected = proxy.map(|(url, list)| Proxy {
                url: url.map(str::to_owned),
                no_proxy: list.iter().map(|&entry| entry.to_owned()).collect(),
            });
            assert_eq!(config.providers["vault"].proxy, expected, "{for_all} {own}");
            assert_eq!(config.providers["files"].proxy, None);
        }
        for (for_all, own, part) in [
            ("proxy: 'https://p:1'", "", ".proxy"),
            ("noProxy: ['http://x']", "", ".noProxy"),
            ("", ", proxy: 'http://me:canary@p:1'", "vault.proxy"),
            ("", ", noProxy: ['a b']", "vault.noProxy"),
        ] {
            let problem = config(for_all, own).unwrap_err().to_string();
            assert!(problem.contains(part) && !problem.contains("canary"), "{problem}");
        }
    }

    #[test]
    fn p5_no_scalar_of_the_file_is_told() {
        let with = |from: &str, to: &str| GOOD.replace(from, to);
        for text in [
            // Files that were given by mistake.
            "hvs.canary-token".to_owned(),
            "eyJhbGciOiJSUzI1NiJ9.canary.x\n".to_owned(),
            "[default]\naws_secret_access_key = canary\n".to_owned(),
            "TOKEN=canary\nOTHER='canary".to_owned(),
            "- canary\n- {a: canary}".to_owned(),
            "password: canary".to_owned(),
            "canary-canary-canary-canary-canary-canary-canary: x".to_owned(),
            "a: [canary".to_owned(),
            "a: 'canary\nb: canary".to_owned(),
            "a: *canary".to_owned(),
            "a: canary\na: canary".to_owned(),
            "a: canary\n---\nb: canary".to_owned(),
            "{\"apiVersion\":\"canary\"}".to_owned(),
            "a:\n\t- canary: canary: canary".to_owned(),
            "%canary\n".to_owned(),
            "!canary x".to_owned(),
            // Each value of a good one is another.
            with("image: registry/hushpod:0.1.0", "image: my canary"),
            with("image: registry/hushpod:0.1.0", "image: {x: canary}"),
            with("image: registry/hushpod:0.1.0", "image: x\nimagePullPolicy: canary"),
            with("image: registry/hushpod:0.1.0", "image: x\nnativeSidecars: canary"),
            with("image: registry/hushpod:0.1.0", "image: x\nimagePullSecrets: canary"),
            with("defaultProvider: files", "defaultProvider: canary"),
            with("type: file", "type: canary"),
            with("path: /srv/secrets", "path: [canary]"),
            with("path: /srv/secrets", "path: canary, identityFrom: 'canary:canary'"),
            with("type: file, path: /srv/secrets", "type: vault, address: 'https://canary:canary@x'"),
            with("type: file, path: /srv/secrets", "type: vault, address: 'http://canary.example'"),
            with("type: file, path: /srv/secrets", "type: vault, address: 'https://x', namespace: '/'"),
            with("type: file, path: /srv/secrets", "type: vault, address: 'https://x', auth: {method: canary}"),
            with("type: file, path: /srv/secrets", "type: vault, address: 'https://x', auth: {mount: 'auth/canary'}"),
            with("type: file, path: /srv/secrets", "type: vault, address: 'https://x', ca: canary"),
            with("type: file, path: /srv/secrets", "type: aws, region: 'can ary canary'"),
            with("type: file, path: /srv/secrets", "type: infisical, address: 'https://x', project: 'canary canary'"),
            with("type: file, path: /srv/secrets", "type: azure, address: 'canary://canary'"),
            with("type: file, path: /srv/secrets", "type: gcp, project: 'canary canary'"),
            with("refresh: 30s", "refresh: canary"),
            with("refresh: 30s", "tokenSeconds: canary"),
            with("refresh: 30s", "audience: canary"),
            with("refresh: 30s", "revokeOnExit: canary"),
            with("{{namespace}}-", "{{namespace-canary"),
            with("namespaces: [\"team-*\"]", "namespaces: canary"),
            with("namespaces: [\"team-*\"]", "namespaces: [a], requests: ['{{canary']"),
            with("mode: init+sidecar", "mode: canary"),
            with("mode: init+sidecar", "file-mode: canary"),
            with("mode: init+sidecar", "notify: 'canary:canary'"),
            with("size-limit: 65536", "size-limit: canary"),
            with("mount-path: /run/secrets-of-mine", "mount-path: canary"),
            with("runtimeClasses: [runc]", "runtimeClasses: canary"),
            with("runtimeClasses: [runc]", "runtimeClasses: [{a: canary}]"),
        ] {
            assert_ne!(text, GOOD);
            // Some of them are good: what is wrong with those is seen later.
            if let Err(error) = Config::from_yaml(&text) {
                let message = error.to_string();
                assert!(!message.contains("canary") && !message.contains('\n'), "{text}: {message}");
                assert!(!message.contains("Options") && !message.contains("Policy in"), "a library's words: {message}");
            }
        }
    }
}
