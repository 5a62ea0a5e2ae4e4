//! The operator's configuration as a file has it: alone, or in the chart's values, below `config`, where most people
//! write it.

use serde_json::{Map, Value};

use super::Config;
use super::error::{ConfigError, ConfigFault, ConfigFaults, MOST};
use super::places;
use crate::bundle::parse_yaml;

/// The values' field that is the configuration.
const FIELD: &str = "config";
/// Stands for the image that the chart fills in.
const IMAGE: &str = "the-chart-s";

// === impl Config ===

impl Config {
    /// As [`Config::from_yaml`], and finds all that is wrong.
    ///
    /// # Errors
    /// [`ConfigFaults`], each with its line and column.
    pub fn read(text: &str) -> Result<Self, ConfigFaults> {
        read_by(text, Self::from_value)
    }

    /// As [`Config::read`], of a file that a person has: it may be one of the chart's values. Also gives the place in the
    /// file that the configuration stands at: `.config`, or nothing.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read_written(text: &str) -> Result<(Self, &'static str), ConfigFaults> {
        read_by(text, |value| match Self::in_values(value) {
            Some(fields) => Self::of_chart(fields).map(|config| (config, ".config")),
            None => Self::from_value(value).map(|config| (config, "")),
        })
    }

    /// The configuration in values of the chart, if these are some.
    #[must_use]
    pub fn in_values(value: &Value) -> Option<&Map<String, Value>> {
        let fields = value.get(FIELD)?.as_object()?;
        value.get("providers").is_none().then_some(fields)
    }

    /// What the chart makes of its value `config`.
    fn of_chart(fields: &Map<String, Value>) -> Result<Self, Vec<ConfigError>> {
        let mut filled = fields.clone();
        filled.entry("image").or_insert_with(|| Value::from(IMAGE));
        let errors = |errors: Vec<ConfigError>| errors.into_iter().map(|error| error.below(".config")).collect();
        Self::from_value(&Value::Object(filled)).map_err(errors)
    }
}

fn read_by<T>(text: &str, from_value: impl Fn(&Value) -> Result<T, Vec<ConfigError>>) -> Result<T, ConfigFaults> {
    let outcome = parse_yaml(text);
    if let Some(Ok(config)) = outcome.as_ref().ok().map(&from_value) {
        return Ok(config);
    }
    let (places, value) = match places::read(text) {
        Ok(read) => read,
        Err((line, column)) => {
            let problem = outcome.map_or_else(|problem| problem.to_string(), |_| "is not YAML".to_owned());
            let error = ConfigError::new("", problem);
            return Err(ConfigFaults(vec![ConfigFault { line, column, error }]));
        }
    };
    let mut faults = places::twice(&places);
    let errors = from_value(&value).err().unwrap_or_default();
    faults.extend(errors.into_iter().map(|error| places::locate(&places, error)));
    if faults.is_empty() {
        let problem = outcome.map_or_else(|problem| problem.to_string(), |_| "is of no use".to_owned());
        faults.push(places::locate(&places, ConfigError::new("", problem)));
    }
    faults.sort_by_key(|fault| (fault.line, fault.column));
    if let Some((line, column)) = faults.get(MOST - 1).map(|last| (last.line, last.column)) {
        faults.truncate(MOST);
        let error = ConfigError::new("", "has as many faults as are told at once: mend these, there may be more");
        faults.push(ConfigFault { line, column, error });
    }
    Err(ConfigFaults(faults))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str = "image: {repository: r/h}
replicaCount: 3
config:
  defaultProvider: vault
  providers:
    vault:
      type: vault
      address: https://v
      refresh: soon
      auth: {mount: auth/k}
";

    #[test]
    fn p9_faults_of_the_charts_values_stand_where_they_are_in_that_file() {
        let faults = Config::read_written(VALUES).unwrap_err().0;
        let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("9:7: configuration.config.providers.vault.refresh: invalid"), "{told:?}");
        assert!(told[1].starts_with("10:14: configuration.config.providers.vault.auth.mount: invalid"), "{told:?}");
        let good = VALUES.replace("soon", "30s").replace("auth/k", "k");
        let (config, place) = Config::read_written(&good).unwrap();
        assert_eq!((place, config.providers.len()), (".config", 1));
    }

    #[test]
    fn what_is_no_file_of_values_is_a_configuration() {
        let alone = "image: i\nproviders: {f: {type: file, path: /srv}}\n";
        let (config, place) = Config::read_written(alone).unwrap();
        assert_eq!((config, place), (Config::read(alone).unwrap(), ""));
        for text in ["config: 5", "{}", "providers: {}\nconfig: {providers: {}}", "x: [config]"] {
            assert!(Config::read_written(text).is_err(), "{text}");
        }
        assert!(Config::read(VALUES).is_err(), "what the webhook mounts is no file of values");
    }
}
