//! The login of Google's own command line.

use serde::Deserialize;

use crate::provider::ProviderError;
use crate::provider::auth;
use crate::provider::auth::tool::Tool;
use crate::provider::http::date;
use crate::provider::session::{Renewal, Token};
use crate::secret::SecretValue;

/// What `gcloud config config-helper` prints for programs that need a token, such as `kubectl`.
#[derive(Deserialize)]
struct HelperAnswer {
    credential: HelperCredential,
    #[serde(default)]
    configuration: Configuration,
}

#[derive(Deserialize)]
struct HelperCredential {
    access_token: SecretValue,
    #[serde(default)]
    token_expiry: Option<String>,
}

#[derive(Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
struct Properties {
    #[serde(default)]
    core: CoreProperties,
}

#[derive(Default, Deserialize)]
struct CoreProperties {
    #[serde(default)]
    project: Option<String>,
}

/// A token, and the project that `gcloud` itself would have pay for requests.
pub(super) struct GcloudLogin {
    pub(super) token: Token,
    pub(super) project: Option<String>,
}

const DIRECTORY_VARIABLE: &str = "CLOUDSDK_CONFIG";
const ACTIVE_VARIABLE: &str = "CLOUDSDK_ACTIVE_CONFIG_NAME";

/// Asks `gcloud`.
pub(super) async fn log_in() -> Result<GcloudLogin, ProviderError> {
    let tool = Tool {
        program: "gcloud",
        arguments: ["config", "config-helper", "--format=json", "--quiet"].map(str::to_owned).into(),
        environment: &[("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")],
        login: "gcloud auth login".to_owned(),
    };
    let printed = tool.print().await?;
    taken(&printed).ok_or_else(|| tool.no_login("gcloud prints something other than a token"))
}

fn taken(printed: &SecretValue) -> Option<GcloudLogin> {
    let HelperAnswer { credential, configuration } = serde_json::from_slice(printed.expose()).ok()?;
    let HelperCredential { access_token, token_expiry } = credential;
    let life = match token_expiry {
        Some(end) => Some(date::until(date::parse_rfc3339(&end)?)?),
        None => None,
    };
    let project = configuration.properties.core.project;
    (!access_token.is_empty()).then(|| GcloudLogin { token: Token::new(access_token, life, Renewal::Never), project })
}

/// Who is logged in, as `gcloud` has it in the configuration that is in use.
pub(super) fn account() -> Option<SecretValue> {
    let directory = auth::settings_directory(DIRECTORY_VARIABLE, ".config/gcloud")?;
    let read = |name: &str| auth::secret_file(&directory.join(name), "gcloud's configuration").ok();
    let active = auth::environment(ACTIVE_VARIABLE).or_else(|| read("active_config"));
    let active = active.as_ref().and_then(SecretValue::expose_str).unwrap_or("default");
    read(&format!("configurations/config_{active}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_an_end_and_a_project() {
        let full = r#"{"configuration":{"active_configuration":"default","properties":{"core":{"account":"a@b",
            "project":"shop"}}},"credential":{"access_token":"canary","id_token":"x","token_expiry":"2099-01-01T00:00:00Z"}}"#;
        let GcloudLogin { token, project } = taken(&full.into()).unwrap();
        assert!(token.value == "canary".into() && token.life().is_some() && project.as_deref() == Some("shop"));
        let GcloudLogin { token, project } = taken(&r#"{"credential":{"access_token":"canary"}}"#.into()).unwrap();
        assert!(token.life().is_none() && project.is_none());
        for text in [
            "canary",
            "{}",
            r#"{"credential":{"access_token":""}}"#,
            r#"{"credential":{"access_token":"canary","token_expiry":"soon"}}"#,
            r#"{"credential":{"access_token":"canary","token_expiry":"2011-01-01T00:00:00Z"}}"#,
        ] {
            assert!(taken(&text.into()).is_none(), "{text}");
        }
    }
}
