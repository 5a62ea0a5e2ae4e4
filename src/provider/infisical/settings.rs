//! The operator's settings for Infisical.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::parse_error::{invalid, rule};
use crate::provider::names::is_uuid;
use crate::provider::{SettingsFaults, auth};

/// Where Infisical is, what a reference without parameters is about, and how to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InfisicalSettings {
    /// `https://host[:port]`, without `/api`; plain `http://` only on this machine.
    pub address: String,
    /// PEM certificates of the authorities that may sign Infisical's; without them, the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Slug of the (sub-)organization to log in to, where the identity belongs to several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The project's id (a UUID), or its slug, which costs a look-up after each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The project's slug beside its id: dynamic secrets want it, and this spares its look-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_slug: Option<String>,
    /// The environment's slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Kubernetes namespaces whose secrets are elsewhere; what they leave out is as for all. A plan has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, Place>,
    /// Which part of the place tenants may choose in a reference: `?env=`, `?project=`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_params: Vec<PlaceParam>,
    /// How to log in.
    #[serde(default)]
    pub auth: InfisicalAuth,
    /// Whether to subscribe to changes, where the server's plan has that. Polling goes on beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub events: bool,
}

/// A project and one of its environments, as [`InfisicalSettings`] has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Place {
    /// Id or slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Slug beside an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_slug: Option<String>,
    /// Slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// A parameter that places a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaceParam {
    /// `?env=<slug>`.
    Env,
    /// `?project=<id or slug>`.
    Project,
}

/// An auth method and where its proof comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InfisicalAuth {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// `token`: a file with an access token. `kubernetes`, `oidc`, `jwt`: a JWT to show instead of the pod's projected
    /// token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// `universal`: a file with the client id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id_file: Option<PathBuf>,
    /// `universal`: a file with the client secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
}

/// Infisical's auth methods that fit a pod, a laptop or a CI job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A service-account token, which Infisical lets the cluster review.
    #[default]
    Kubernetes,
    /// A JWT, which Infisical verifies with the keys that its issuer publishes.
    Oidc,
    /// A JWT, which Infisical verifies with keys that it was given.
    Jwt,
    /// Client id and client secret: the files, else `INFISICAL_UNIVERSAL_AUTH_CLIENT_ID` and `…_CLIENT_SECRET`.
    Universal,
    /// A token made elsewhere: `tokenFile`, else `INFISICAL_TOKEN`.
    Token,
    /// What `infisical login` made, which Infisical's own command line is asked for.
    Cli,
}

// === impl Method ===

impl Method {
    /// Whether a JWT is shown for a machine identity.
    pub(super) fn shows_jwt(self) -> bool {
        matches!(self, Self::Kubernetes | Self::Oidc | Self::Jwt)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

// === impl PlaceParam ===

impl PlaceParam {
    /// As a reference writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Project => "project",
        }
    }
}

// === impl Place ===

impl Place {
    pub(super) fn check(&self, faults: &mut SettingsFaults) {
        for (field, value) in
            [("project", &self.project), ("projectSlug", &self.project_slug), ("environment", &self.environment)]
        {
            if let Some(text) = value.as_deref().filter(|text| !is_name(text)) {
                faults.of(field, Err(invalid(field, text, "an id, or a slug such as my-project")));
            }
        }
        let problem = match (&self.project, &self.project_slug) {
            (None, Some(_)) => rule("projectSlug stands beside project: write the project's id too"),
            (Some(project), Some(slug)) if !is_uuid(project) && project != slug => {
                rule(format!("project {project:?} is a slug already: leave projectSlug out, or write the id"))
            }
            _ => return,
        };
        faults.together("projectSlug", &["project"], problem);
    }
}

// === impl InfisicalAuth ===

impl InfisicalAuth {
    pub(super) fn check(&self, faults: &mut SettingsFaults) {
        let is_universal = self.method == Method::Universal;
        let takes_token = !matches!(self.method, Method::Universal | Method::Cli);
        let fields = [
            ("clientIdFile", self.client_id_file.is_some(), is_universal),
            ("clientSecretFile", self.client_secret_file.is_some(), is_universal),
            ("tokenFile", self.token_file.is_some(), takes_token),
        ];
        auth::check_fields(self.method, &fields, faults);
        if is_universal && self.client_id_file.is_some() != self.client_secret_file.is_some() {
            let problem = rule("auth.clientIdFile and auth.clientSecretFile belong together: set both, or none");
            faults.together("auth.clientIdFile", &["auth.clientSecretFile", auth::METHOD], problem);
        }
    }
}

// === impl InfisicalSettings ===

impl InfisicalSettings {
    pub(super) fn place(&self) -> Place {
        let Self { project, project_slug, environment, .. } = self.clone();
        Place { project, project_slug, environment }
    }

    /// What one Kubernetes namespace is to know of these settings; `None` if that is all of them.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Option<Self> {
        if self.namespaces.is_empty() {
            return None;
        }
        let mut known = Self { namespaces: BTreeMap::new(), ..self.clone() };
        if let Some(Place { project, project_slug, environment }) = self.namespaces.get(namespace) {
            if project.is_some() {
                // A slug belongs to its project.
                (known.project, known.project_slug) = (project.clone(), project_slug.clone());
            }
            if environment.is_some() {
                known.environment.clone_from(environment);
            }
        }
        Some(known)
    }
}

/// Whether this can be an id or a slug.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
