//! The configuration's file, field by field: all that is wrong with it is found at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::allow::Allow;
use super::ca_bundle::{CaBundle, RawCaBundle};
use super::csi::CsiConfig;
use super::deny::Deny;
use super::error::{ConfigError, Faults};
use super::identity::{Identity, expand};
use super::proxy::ProxyFields;
use super::{Config, ProviderConfig, injected, shape};
use crate::annotations::KEYS;
use crate::bundle::parse_yaml;
use crate::options::Options;
use crate::parse_error::{invalid, unknown};
use crate::provider::http::check_ca;
use crate::provider::{Parameters, ProviderSettings, Settings, SettingsFault, SettingsFaults};
use crate::quantity::parse_duration;
use crate::reference::is_provider_name;
use crate::sentence::{nearest, suggestion};

/// The file's top level, before its parts are checked.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the file")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawConfig {
    image: Option<String>,
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
    deny: Vec<Map<String, Value>>,
    #[serde(default)]
    defaults: BTreeMap<String, Value>,
    #[serde(default)]
    runtime_classes: Vec<String>,
    #[serde(default = "injected::known")]
    injected_containers: Vec<String>,
    proxy: Option<String>,
    no_proxy: Option<Vec<String>>,
    csi: Option<Map<String, Value>>,
    #[serde(default = "yes")]
    audit: bool,
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
    /// Parses and checks the file's text.
    ///
    /// # Errors
    /// [`ConfigError`] names the field and what it accepts: the first of what [`Config::read`] finds.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let value = parse_yaml(text).map_err(|problem| ConfigError::new("", problem))?;
        Self::from_value(&value).map_err(first)
    }

    pub(super) fn from_value(value: &Value) -> Result<Self, Vec<ConfigError>> {
        let Value::Object(fields) = value else {
            return Err(vec![ConfigError::new("", "has no fields: write image: and providers:")]);
        };
        let mut faults = Faults::default();
        let config = Self::from_fields(fields, &mut faults);
        let errors = faults.into_errors();
        match config {
            Some(config) if errors.is_empty() => Ok(config),
            _ => Err(errors
                .into_iter()
                .map(|error| ConfigError { problem: shape::without_scalars(&error.problem, value), ..error })
                .collect()),
        }
    }

    /// The configuration of a person's machine: `providers` and `defaultProvider` alone. No pod is injected with it.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn of_stores(providers: Map<String, Value>, default_provider: Option<&str>) -> Result<Self, ConfigError> {
        Self::all_of_stores(providers, default_provider).map_err(first)
    }

    /// As [`Config::of_stores`], and finds all that is wrong.
    ///
    /// # Errors
    /// Every [`ConfigError`].
    pub fn all_of_stores(
        providers: Map<String, Value>,
        default_provider: Option<&str>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Map::from_iter([("image".to_owned(), Value::from("none"))]);
        fields.insert("providers".to_owned(), Value::Object(providers));
        fields.extend(default_provider.map(|name| ("defaultProvider".to_owned(), Value::from(name))));
        Self::from_value(&Value::Object(fields))
    }

    /// What can be made of the fields; it counts only if nothing is wrong.
    fn from_fields(fields: &Map<String, Value>, faults: &mut Faults) -> Option<Self> {
        let RawConfig {
            image,
            image_pull_policy,
            image_pull_secrets,
            native_sidecars,
            image_volumes,
            kubelet_env,
            default_provider,
            providers: stores,
            deny,
            defaults,
            runtime_classes,
            injected_containers,
            proxy,
            no_proxy,
            csi,
            audit,
        } = shape::read_all(fields, faults)?;
        let image = checked_image(image, fields.contains_key("image"), faults);
        if let Some(policy) = &image_pull_policy
            && !["Always", "IfNotPresent", "Never"].contains(&policy.as_str())
        {
            let problem = invalid("policy", policy, "Always, IfNotPresent or Never");
            faults.push(ConfigError::new(".imagePullPolicy", problem));
        }
        let for_all = faults.take(ProxyFields::checked(proxy, no_proxy)).unwrap_or_default();
        let providers = checked_stores(stores, &for_all, faults);
        // One that is wrong is there all the same.
        let written = fields.get("providers").and_then(Value::as_object).into_iter().flat_map(Map::keys);
        let written: Vec<_> = written.map(String::as_str).filter(|name| is_provider_name(name)).collect();
        if let Some(name) = default_provider.as_deref().filter(|name| !written.contains(name)) {
            faults.push(ConfigError::new(".defaultProvider", unknown("provider", name, &written)));
        }
        let defaults = parse_defaults(&defaults, faults);
        let csi = csi.and_then(|csi| faults.below(".csi", |faults| CsiConfig::from_fields(&csi, faults)));
        let deny = checked_denials(&deny, &providers, faults);
        let is_whole = image.is_some();
        let config = Self {
            image: image.unwrap_or_default(),
            image_pull_policy,
            image_pull_secrets,
            native_sidecars,
            image_volumes,
            kubelet_env,
            default_provider,
            providers,
            deny,
            defaults,
            runtime_classes,
            csi,
            audit,
            injected_containers,
        };
        config.check_unlocking(&written, faults);
        is_whole.then_some(config)
    }
}

fn first(errors: Vec<ConfigError>) -> ConfigError {
    errors.into_iter().next().unwrap_or_else(|| ConfigError::new("", "is of no use"))
}

fn checked_image(image: Option<String>, is_written: bool, faults: &mut Faults) -> Option<String> {
    let problem = match image {
        Some(image) if !image.is_empty() && !image.contains(char::is_whitespace) => return Some(image),
        Some(_) => "write the image that is injected, such as registry/hushpod:0.1.0",
        // That it is not text was told.
        None if is_written => return None,
        None => "is missing",
    };
    faults.push(ConfigError::new(".image", problem));
    None
}

fn checked_stores(
    stores: BTreeMap<String, Value>,
    for_all: &ProxyFields,
    faults: &mut Faults,
) -> BTreeMap<String, ProviderConfig> {
    let mut providers = BTreeMap::new();
    for (name, value) in stores {
        let place =
            shape::field_name(&name).map_or_else(|| ".providers".to_owned(), |name| format!(".providers.{name}"));
        let provider = faults.below(&place, |faults| ProviderConfig::from_value(&name, value, for_all, faults));
        providers.extend(provider.map(|provider| (name, provider)));
    }
    providers
}

fn checked_denials(
    deny: &[Map<String, Value>],
    providers: &BTreeMap<String, ProviderConfig>,
    faults: &mut Faults,
) -> Vec<Deny> {
    let settings = providers.iter().map(|(name, provider)| (name.as_str(), provider.settings.as_settings())).collect();
    faults
        .below_each(".deny", deny, |rule, faults| Some(Deny::parse(shape::read_all(rule, faults)?, &settings, faults)))
}

fn parse_defaults(entries: &BTreeMap<String, Value>, faults: &mut Faults) -> Options {
    let known: Vec<_> = KEYS.iter().filter(|key| key.has_operator_default).map(|key| key.name).collect();
    let mut options = Options::default();
    for (name, value) in entries {
        let place = shape::field_name(name).map_or_else(|| ".defaults".to_owned(), |name| format!(".defaults.{name}"));
        if !known.contains(&name.as_str()) {
            let problem = format!("no annotation that can have a default{}", suggestion(name, &known));
            faults.push(ConfigError::new(place, problem).of(name));
            continue;
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if name != crate::annotations::FILE_MODE => number.to_string(),
            _ => {
                faults.push(ConfigError::new(place, "is not text: put it in quotes, as in an annotation"));
                continue;
            }
        };
        let set = crate::annotations::set(&mut options, name, &text);
        faults.take(set.map_err(ConfigError::at(&place)));
    }
    options
}

// === impl ProviderConfig ===

impl ProviderConfig {
    /// What can be made of it; it counts only if nothing is wrong.
    fn from_value(name: &str, value: Value, for_all: &ProxyFields, faults: &mut Faults) -> Option<Self> {
        if !is_provider_name(name) {
            let problem = "a provider's name has at most 40 lower-case letters, digits and '-'";
            faults.push(ConfigError::new("", problem).of(name));
            return None;
        }
        let Value::Object(mut fields) = value else {
            faults.push(ConfigError::new("", "write {type: …, address: …}"));
            return None;
        };
        let kind = known_type(fields.get("type"), faults);
        let common: Map<_, _> = RawProvider::FIELDS
            .iter()
            .filter_map(|field| fields.remove(*field).map(|value| ((*field).to_owned(), value)))
            .collect();
        let settings = kind.and_then(|kind| {
            let written = fields.insert("type".to_owned(), Value::from(kind));
            checked_settings(&fields, written.is_some_and(|written| written == kind), faults)
        });
        if let Some(ca) = fields.get("ca").and_then(Value::as_str).filter(|_| kind.is_none()) {
            faults.take(check_ca(ca).map_err(ConfigError::at(".ca")));
        }
        let raw = shape::read_all(&common, faults);
        Self::from_parts(settings, raw?, for_all, faults)
    }

    /// Of settings that cannot be read, what else is wrong is told all the same.
    fn from_parts(
        settings: Option<ProviderSettings>,
        raw: RawProvider,
        for_all: &ProxyFields,
        faults: &mut Faults,
    ) -> Option<Self> {
        let RawProvider { audience, token_seconds, role, refresh, revoke_on_exit, proxy, no_proxy, ca_bundle, allow } =
            raw;
        let known = settings.as_ref().map(ProviderSettings::as_settings);
        let token_seconds = token_seconds.unwrap_or(600);
        if !(600..=3600).contains(&token_seconds) {
            faults.push(ConfigError::new(".tokenSeconds", format!("{token_seconds} is not between 600 and 3600")));
        }
        if audience.as_deref() == Some("") {
            let problem = "an empty audience is the API server's own: name the store's";
            faults.push(ConfigError::new(".audience", problem));
        } else if audience.is_some() && known.is_some_and(|settings| settings.default_audience().is_none()) {
            let problem = "this provider takes no projected token with these settings: leave it out";
            faults.push(ConfigError::new(".audience", problem));
        }
        let proxy = faults.take(ProxyFields::checked(proxy, no_proxy)).unwrap_or_default();
        let is_remote = known.is_none_or(Settings::is_remote);
        if !proxy.is_empty() && !is_remote {
            faults.push(ConfigError::new(".proxy", "this provider is not reached over a network: leave it out"));
        }
        let ca_bundle = ca_bundle.map(|raw| checked_bundle(raw, known)).transpose();
        let ca_bundle = faults.take(ca_bundle.map_err(|error| error.below(".caBundle"))).flatten();
        let default_audience = known.and_then(Settings::default_audience).map(str::to_owned);
        let refresh = refresh.map(|text| parse_duration(&text)).transpose();
        let refresh = faults.take(refresh.map_err(ConfigError::at(".refresh"))).flatten();
        if refresh.is_some_and(|refresh| refresh < Duration::from_secs(1)) {
            faults.push(ConfigError::new(".refresh", "a second is the least"));
        }
        if let Some(template) = &role {
            let anyone = Identity { namespace: "n".to_owned(), service_account: "s".to_owned() };
            faults.take(expand(template, &anyone).map_err(ConfigError::at(".role")));
        }
        let parameters = known.map_or(Parameters { narrowing: &[], widening: None }, Settings::parameters);
        let rules = allow.as_deref().map(|rules| {
            faults.below_each(".allow", rules, |rule, faults| {
                Allow::parse(shape::read_all(rule, faults)?, &parameters, faults)
            })
        });
        Some(Self {
            settings: settings?,
            audience: audience.or(default_audience),
            token_seconds,
            role,
            refresh,
            revoke_on_exit,
            proxy: if is_remote { proxy.or(for_all) } else { None },
            ca_bundle,
            allow: rules,
        })
    }
}

/// The settings, if all that they need is there; what is wrong with them is told in any case. `is_sure`: their type is no
/// guess; else nobody knows what their values should be.
fn checked_settings(fields: &Map<String, Value>, is_sure: bool, faults: &mut Faults) -> Option<ProviderSettings> {
    let mut misread = Faults::default();
    let read = shape::read_filled::<ProviderSettings>(fields, &mut misread);
    let mut found = SettingsFaults::default();
    if let Some((settings, _)) = read.as_ref().filter(|_| is_sure) {
        settings.as_settings().check(&mut found);
    }
    let misread = misread.into_errors();
    let (settings, filled) = read.map_or((None, Vec::new()), |(settings, filled)| (Some(settings), filled));
    let is_misread = |field: &str| {
        let place = format!(".{field}");
        filled.contains(&place) || misread.iter().any(|error| error.is_about(&place))
    };
    let is_news = |fault: &SettingsFault| {
        // What is missing may be what has another name there.
        let may_be_missing = misread.is_empty();
        let is_known = is_misread(&fault.field) || fault.others.iter().any(|field| is_misread(field));
        !is_known && (may_be_missing || !fault.is_missing)
    };
    let found = found
        .into_iter()
        .filter(is_news)
        .map(|SettingsFault { field, problem, .. }| ConfigError::new(shape::place(field.split('.')), problem))
        .collect::<Vec<_>>();
    for error in misread.into_iter().chain(found) {
        faults.push(error);
    }
    settings.filter(|_| filled.is_empty())
}

/// The type, or of one that is misspelt what it may be: what else is wrong is told all the same.
fn known_type(written: Option<&Value>, faults: &mut Faults) -> Option<&'static str> {
    const TYPES: [&str; ProviderSettings::TYPES.len()] = ProviderSettings::TYPES;
    let Some(written) = written else {
        faults.push(ConfigError::new(".type", format!("is missing: expected one of {}", TYPES.join(", "))));
        return None;
    };
    let word = written.as_str().unwrap_or_default();
    let known = TYPES.iter().find(|known| **known == word).copied();
    if known.is_none() {
        faults.push(ConfigError::new(".type", unknown("provider type", word, &TYPES)));
    }
    known.or_else(|| nearest(word, &TYPES))
}

fn checked_bundle(raw: RawCaBundle, settings: Option<&dyn Settings>) -> Result<CaBundle, ConfigError> {
    if settings.is_some_and(|settings| !settings.is_remote()) {
        return Err(ConfigError::new("", "this provider is not reached over a network: leave it out"));
    }
    if settings.is_some_and(|settings| settings.ca().is_some()) {
        return Err(ConfigError::new("", "stands beside ca: leave one of them out"));
    }
    CaBundle::checked(raw)
}
