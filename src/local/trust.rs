//! Which stores may have a person's login: an address in a cloned repository would decide where a token goes.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::error::{LocalError, LocalFailure};
use super::private_file::{own_directory, write_private};
use crate::bounded_read::read_text;
use crate::config::{Config, ProviderConfig};

/// Says yes for all stores, where nobody can be asked.
const VARIABLE: &str = "HUSHPOD_TRUST";
/// Below the state directory (XDG Base Directory Specification).
const FILE: &str = "hushpod/trusted";
/// Most bytes of that file.
const MAX_BYTES: usize = 1 << 20;

/// Where a store's settings send logins: its type, every address in it, and every file of `auth`, since some of those
/// hold addresses, too, and each is sent or says what is. `None` if the settings leave all to the type.
pub(super) fn destination(provider: &ProviderConfig) -> Option<String> {
    if !provider.settings.as_settings().is_remote() {
        return None;
    }
    let settings = serde_json::to_value(&provider.settings).unwrap_or(Value::Null);
    let proxy = serde_json::to_value(&provider.proxy).unwrap_or(Value::Null);
    let mut addresses = addresses_in("", &settings);
    addresses.extend(addresses_in("proxy", &proxy));
    if addresses.is_empty() {
        return None;
    }
    if let Some(ca) = provider.settings.as_settings().ca() {
        addresses.push(format!("ca=sha256:{}", hex::encode(digest(&SHA256, ca.as_bytes()))));
    }
    let kind = settings.get("type").and_then(Value::as_str).unwrap_or_default();
    // One line of the file of what is trusted, whatever stands in an address.
    Some(format!("{kind} {}", addresses.join(" ")).escape_debug().to_string())
}

fn addresses_in(name: &str, value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if text.contains("://") || name == "file" || name.ends_with("File") => {
            vec![if name == "address" { text.clone() } else { format!("{name}={text}") }]
        }
        Value::Object(fields) => fields.iter().flat_map(|(name, value)| addresses_in(name, value)).collect(),
        Value::Array(items) => items.iter().flat_map(|item| addresses_in(name, item)).collect(),
        _ => Vec::new(),
    }
}

/// All destinations of a configuration's stores.
pub(super) fn destinations(config: &Config) -> BTreeSet<String> {
    config.providers.values().filter_map(destination).collect()
}

fn file() -> Option<PathBuf> {
    Some(own_directory("XDG_STATE_HOME", ".local/state")?.join(FILE))
}

/// What a person said yes to before.
fn remembered() -> BTreeSet<String> {
    let file = file().filter(|file| file.is_file());
    let text = file.and_then(|file| read_text(File::open(file), MAX_BYTES).ok()).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Keeps them for the next time.
///
/// # Errors
/// One sentence, if there is no home directory, or it cannot be written.
pub(super) fn remember(destinations: &BTreeSet<String>) -> Result<(), LocalError> {
    let file = file().ok_or_else(|| LocalError::failed("there is no home directory to remember it in: set HOME"))?;
    let failed = |error: io::Error| LocalError::failed(format!("{}: {}", file.display(), error.kind()));
    let all: Vec<_> = remembered().union(destinations).cloned().collect();
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    write_private(&file, (all.join("\n") + "\n").as_bytes()).map_err(failed)
}

/// Lets a command go on only if each of these stores may have the login: those of `own` may, and those that a person
/// said yes to, now or before.
///
/// # Errors
/// One sentence that says which may not, and how to let them.
pub(super) fn check(wanted: &BTreeSet<String>, own: &BTreeSet<String>) -> Result<(), LocalError> {
    if wanted.is_subset(own) || env::var_os(VARIABLE).is_some_and(|value| value == "1") {
        return Ok(());
    }
    let known = remembered();
    let new: BTreeSet<_> = wanted.iter().filter(|it| !own.contains(*it) && !known.contains(*it)).cloned().collect();
    if new.is_empty() {
        return Ok(());
    }
    let listed = new.iter().map(String::as_str).collect::<Vec<_>>().join("\n  ");
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        let question = format!("Your login is about to be sent, for the first time, to\n  {listed}\nTrust? [y/N] ");
        let _ = io::stderr().write_all(question.as_bytes());
        let mut answer = String::new();
        let _ = io::stdin().lock().read_line(&mut answer);
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            return remember(&new);
        }
    }
    let told = new.iter().map(|destination| format!("\"{destination}\"")).collect::<Vec<_>>().join(", ");
    let problem = format!("not trusted: {told} would get your login, and the address is not from a file of your own");
    let hint = format!("look at the address, then run `hushpod trust .`, or set {VARIABLE}=1");
    Err(LocalError::new(LocalFailure::Untrusted, problem).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(providers: &str) -> Config {
        Config::from_yaml(&format!("image: i\nproviders:\n{providers}")).unwrap()
    }

    #[test]
    fn every_address_counts_and_what_has_none_goes_where_its_type_goes() {
        let of = |provider: &str| destination(&config(&format!("  a: {provider}")).providers["a"]);
        let vault = "address: 'https://vault.example:8200'";
        for (provider, expected) in [
            (format!("{{type: vault, {vault}}}"), Some("vault https://vault.example:8200")),
            (
                format!("{{type: vault, {vault}, proxy: 'http://proxy.example:3128'}}"),
                Some("vault https://vault.example:8200 url=http://proxy.example:3128"),
            ),
            ("{type: aws, region: eu-west-1}".to_owned(), None),
            (
                "{type: aws, region: eu-west-1, stsEndpoint: 'https://sts.example'}".to_owned(),
                Some("aws stsEndpoint=https://sts.example"),
            ),
            (
                "{type: aws, region: eu-west-1, ssoEndpoint: 'https://sso.example'}".to_owned(),
                Some("aws ssoEndpoint=https://sso.example"),
            ),
            (
                "{type: aws, region: eu-west-1, auth: {method: profile, profile: x, configFile: /repo/config}}"
                    .to_owned(),
                Some("aws configFile=/repo/config"),
            ),
            (
                "{type: azure, address: 'https://v.example', scope: 'https://x.example/.default', auth: {method: cli}}"
                    .to_owned(),
                Some("azure https://v.example scope=https://x.example/.default"),
            ),
            (
                "{type: gcp, project: p, auth: {method: application-default-credentials, file: /repo/adc.json}}"
                    .to_owned(),
                Some("gcp file=/repo/adc.json"),
            ),
            ("{type: gcp, project: p, auth: {method: application-default-credentials}}".to_owned(), None),
            ("{type: file, path: /srv, identityFile: /srv/key}".to_owned(), None),
        ] {
            assert_eq!(of(&provider).as_deref(), expected, "{provider}");
        }
    }

    #[test]
    fn a_store_of_ones_own_file_is_not_asked_about() {
        let own = destinations(&config("  a: {type: vault, address: 'https://vault.example:8200'}"));
        assert!(check(&own, &own).is_ok());
        assert!(check(&BTreeSet::new(), &own).is_ok());
    }
}
