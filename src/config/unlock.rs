//! Stores that cannot be read without another provider's secret, such as files that are encrypted.

use super::error::Faults;
use super::{Config, ConfigError, Identity, expand};
use crate::parse_error::{ParseError, rule};
use crate::reference::{Key, Reference, Request};
use crate::sentence::suggestion;

// === impl Config ===

impl Config {
    /// The request that unlocks a provider for this identity, and the part of its answer that does; `None` if it needs
    /// none.
    ///
    /// # Errors
    /// One sentence that says what the operator has to write.
    pub fn unlocking(&self, name: &str, identity: &Identity) -> Result<Option<(Request, Option<Key>)>, ParseError> {
        let template = self.providers.get(name).and_then(|provider| provider.settings.as_settings().unlocked_by());
        let Some(template) = template else { return Ok(None) };
        self.lender(name, template, identity).map(Some).map_err(|problem| problem.at(&format!("identity {template:?}")))
    }

    fn lender(&self, name: &str, template: &str, identity: &Identity) -> Result<(Request, Option<Key>), ParseError> {
        let reference: Reference = expand(template, identity)?.parse()?;
        let known: Vec<_> = self.providers.keys().map(String::as_str).filter(|known| *known != name).collect();
        let Some(other) = &reference.provider else {
            return Err(rule("names no provider: expected <provider>:<path>#<key>"));
        };
        let provider = self.providers.get(other).filter(|_| other != name);
        let settings = provider
            .ok_or_else(|| rule(format!("there is no other provider {other:?}{}", suggestion(other, &known))))?
            .settings
            .as_settings();
        if settings.unlocked_by().is_some() {
            return Err(rule(format!(
                "provider {other:?} needs an identity itself: keep this one in a store that does not"
            )));
        }
        let request = settings.resolve(other, &reference)?;
        if settings.is_leased(&request) {
            return Err(rule("has a lease, and would be another one each time: name a stored secret"));
        }
        if settings.volume(&request).is_some() {
            return Err(rule("is in a volume of the pod, and so in etcd: keep it in a secret store"));
        }
        Ok((request, reference.key))
    }

    /// Checks what can be without a pod. Of the providers that are written some may not be here, since they are wrong.
    pub(super) fn check_unlocking(&self, written: &[&str], faults: &mut Faults) {
        let is_wrong = |name: &str| written.contains(&name) && !self.providers.contains_key(name);
        let anyone = Identity { namespace: "n".to_owned(), service_account: "s".to_owned() };
        for (name, provider) in &self.providers {
            let template = provider.settings.as_settings().unlocked_by().unwrap_or_default();
            if template.split_once(':').is_some_and(|(lender, _)| is_wrong(lender)) {
                continue;
            }
            faults.take(self.unlocking(name, &anyone).map_err(ConfigError::at(&format!(".providers.{name}"))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(identity: &str) -> Result<Config, ConfigError> {
        Config::from_yaml(&format!(
            r#"
image: registry/hushpod:0.1.0
providers:
  vault: {{type: vault, address: "https://vault.example:8200"}}
  plain: {{type: file, path: /srv/keys}}
  own: {{type: file, volumes: true}}
  locked: {{type: file, path: /srv/other, identity: "vault:secret/data/other#key"}}
  sops: {{type: file, volumes: true, identity: {identity:?}}}
"#
        ))
    }

    #[test]
    fn an_identity_is_a_request_of_another_provider() {
        let identity = Identity { namespace: "team-a".to_owned(), service_account: "web".to_owned() };
        for (text, request, key) in [
            ("vault:secret/data/age#key", "vault:secret/data/age", Some(Key::Literal("key".to_owned()))),
            (
                "vault:/v1/secret/data/{{namespace}}/age#key",
                "vault:secret/data/team-a/age",
                Some(Key::Literal("key".to_owned())),
            ),
            ("plain:age.txt", "plain:age.txt", None),
        ] {
            let (found, part) = config(text).unwrap().unlocking("sops", &identity).unwrap().unwrap();
            assert_eq!((found.to_string().as_str(), part), (request, key), "{text}");
        }
        assert_eq!(config("plain:x").unwrap().unlocking("vault", &identity), Ok(None));
    }

    #[test]
    fn p9_an_identity_that_cannot_be_is_refused_when_the_configuration_is_read() {
        for (text, part) in [
            ("secret/data/age#key", "expected <provider>:<path>#<key>"),
            ("valut:secret/data/age#key", "did you mean \"vault\"?"),
            ("sops:a/b", "no other provider \"sops\""),
            ("locked:a", "needs an identity itself"),
            ("own:volume/key", "and so in etcd"),
            ("vault:database/creds/web#key", "has a lease"),
            ("vault:secret/data/{{pod}}#key", "expected namespace or"),
            ("plain:a/../b", "begins with '..'"),
            ("plain:a b", "white space"),
            ("", "the path is empty"),
        ] {
            let message = config(text).unwrap_err().to_string();
            assert!(message.contains(".providers.sops: identity") && message.contains(part), "{text}: {message}");
        }
    }
}
