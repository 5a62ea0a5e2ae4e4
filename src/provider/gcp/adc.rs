//! Application default credentials: the files that Google's tools make, by their `type`.
//!
//! <https://cloud.google.com/docs/authentication/application-default-credentials>,
//! <https://google.aip.dev/auth/4117> for federations.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::provider::auth;
use crate::provider::{ErrorKind, ProviderError};
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::Sentence;

pub(crate) const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
pub(crate) const HOME_FILE: &str = ".config/gcloud/application_default_credentials.json";
const WHAT: &str = "application default credentials";

/// What a file says about its owner.
pub(super) enum Credentials {
    /// A service account's key.
    ServiceAccount(ServiceAccount),
    /// A person's login.
    User(User),
    /// A federation.
    External(External),
}

#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    pub(super) client_email: String,
    pub(super) private_key: SecretValue,
    #[serde(default)]
    pub(super) private_key_id: Option<String>,
    #[serde(default)]
    pub(super) token_uri: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct User {
    pub(super) client_id: String,
    pub(super) client_secret: SecretValue,
    pub(super) refresh_token: SecretValue,
    /// Who pays: Google asks it of people.
    #[serde(default)]
    pub(super) quota_project_id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct External {
    pub(super) audience: String,
    pub(super) subject_token_type: String,
    pub(super) token_url: String,
    credential_source: CredentialSource,
    #[serde(default)]
    pub(super) service_account_impersonation_url: Option<String>,
}

#[derive(Deserialize)]
struct CredentialSource {
    #[serde(default)]
    file: Option<PathBuf>,
    #[serde(default)]
    format: Option<SourceFormat>,
}

#[derive(Deserialize)]
struct SourceFormat {
    r#type: String,
    #[serde(default)]
    subject_token_field_name: Option<String>,
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

/// Reads what [`read`] finds. Anew at each login, since keys are rotated.
pub(super) fn load(file: Option<&Path>) -> Result<Credentials, ProviderError> {
    parse(&read(file)?)
}

/// The file that is set, else the variable's, else the one in the home directory.
pub(super) fn read(file: Option<&Path>) -> Result<SecretValue, ProviderError> {
    match (file, auth::environment(VARIABLE)) {
        (Some(file), _) => auth::secret_file(file, WHAT),
        (None, Some(path)) => auth::secret_file(Path::new(auth::text(&path, VARIABLE)?), WHAT),
        (None, None) => auth::home_file(HOME_FILE, WHAT)?.ok_or_else(|| {
            invalid(format!(
                "there are no {WHAT}: run `gcloud auth application-default login`, set {VARIABLE}, or set auth.file"
            ))
        }),
    }
}

fn parse(text: &SecretValue) -> Result<Credentials, ProviderError> {
    let Kind { r#type } =
        serde_json::from_slice(text.expose()).map_err(|_| invalid(format!("{WHAT}: the file is not Google's JSON")))?;
    let damaged = |_| invalid(format!("{WHAT}: the file lacks a field that its type has: make it anew"));
    // One at a time: to find out the type on the way, serde would keep copies of what it read.
    let bytes = text.expose();
    match r#type.as_str() {
        "service_account" => serde_json::from_slice(bytes).map(Credentials::ServiceAccount).map_err(damaged),
        "authorized_user" => serde_json::from_slice(bytes).map(Credentials::User).map_err(damaged),
        "external_account" => serde_json::from_slice(bytes).map(Credentials::External).map_err(damaged),
        _ => Err(invalid(format!(
            "{WHAT}: unknown type of file: expected service_account, authorized_user or external_account; to act as a \
             service account, set the role instead"
        ))),
    }
}

fn invalid(message: impl Into<Sentence>) -> ProviderError {
    ProviderError::new(ErrorKind::Invalid, message)
}

// === impl External ===

impl External {
    /// The token that is to be exchanged.
    pub(super) fn subject_token(&self) -> Result<SecretValue, ProviderError> {
        let Some(file) = &self.credential_source.file else {
            return Err(invalid(format!("{WHAT}: only a credential_source with a file can be used here")));
        };
        let content = auth::secret_file(file, "subject token")?;
        let field = match &self.credential_source.format {
            None => return Ok(content),
            Some(format) if format.r#type == "text" => return Ok(content),
            Some(SourceFormat { r#type, subject_token_field_name: Some(field) }) if r#type == "json" => field,
            Some(_) => return Err(invalid(format!("{WHAT}: the credential_source's format is neither text nor json"))),
        };
        let found = SecretTree::from_json(content.expose()).ok().and_then(|tree| tree.key(field).ok());
        found.as_ref().and_then(SecretTree::as_value).cloned().ok_or_else(|| {
            invalid(
                "subject token: the credential_source's file is not a JSON document with the text field that it names",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(json: &str) -> String {
        match parse(&json.into()) {
            Ok(Credentials::ServiceAccount(account)) => format!("service account {}", account.client_email),
            Ok(Credentials::User(user)) => format!("user of {:?}", user.quota_project_id),
            Ok(Credentials::External(external)) => format!("external for {}", external.audience),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Invalid);
                error.message.to_string()
            }
        }
    }

    #[test]
    fn files_are_read_by_their_type() {
        for (json, found) in [
            (
                r#"{"type":"service_account","client_email":"a@b","private_key":"canary","project_id":"p"}"#,
                "service account a@b",
            ),
            (
                r#"{"type":"authorized_user","client_id":"i","client_secret":"canary","refresh_token":"canary","quota_project_id":"p"}"#,
                r#"user of Some("p")"#,
            ),
            (
                r#"{"type":"external_account","audience":"//iam","subject_token_type":"t","token_url":"u","credential_source":{"file":"/x"}}"#,
                "external for //iam",
            ),
            (r#"{"type":"service_account","private_key":"canary"}"#, "lacks a field"),
            (r#"{"type":"impersonated_service_account","x":"canary"}"#, "set the role instead"),
            ("canary", "not Google's JSON"),
        ] {
            let shown = kind(json);
            assert!(shown.contains(found) && !shown.contains("canary"), "{json}: {shown}");
        }
    }

    #[test]
    fn subject_tokens_come_from_text_or_json() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let token = |source: &str, content: &str| {
            std::fs::write(&file, content).unwrap();
            let source = source.replace("FILE", file.to_str().unwrap());
            let json = format!(
                r#"{{"audience":"a","subject_token_type":"t","token_url":"u","credential_source":{{{source}}}}}"#
            );
            let found = serde_json::from_str::<External>(&json).unwrap().subject_token();
            found.map(|token| token.expose_str().unwrap().to_owned()).map_err(|error| error.message.to_string())
        };
        let json = r#""file":"FILE","format":{"type":"json","subject_token_field_name":"id_token"}"#;
        assert_eq!(token(r#""file":"FILE""#, "canary\n").unwrap(), "canary");
        assert_eq!(token(r#""file":"FILE","format":{"type":"text"}"#, "canary").unwrap(), "canary");
        assert_eq!(token(json, r#"{"id_token":"canary"}"#).unwrap(), "canary");
        for (source, content, part) in [
            (json, r#"{"other":"canary"}"#, "not a JSON document with the text field"),
            (json, "canary", "not a JSON document"),
            (r#""file":"FILE","format":{"type":"json"}"#, "canary", "neither text nor json"),
            (r#""url":"http://host""#, "canary", "with a file"),
        ] {
            let problem = token(source, content).unwrap_err();
            assert!(problem.contains(part) && !problem.contains("canary"), "{source}: {problem}");
        }
    }
}
