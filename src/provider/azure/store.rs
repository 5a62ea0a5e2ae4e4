//! The store: reads.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method as HttpMethod;
use hyper::header::AUTHORIZATION;

use super::api_types::{Listed, Oddity, Page, SecretBundle, State};
use super::errors::failure;
use super::login::Issuer;
use super::settings::AzureSettings;
use crate::provider::http::{Call, Client, Failure, Reach, Response, bearer};
use crate::provider::session::{LoggedIn, Outcome, Store, Token};
use crate::provider::{Login, ProviderError, Reading, Settings as _, Version};
use crate::reference::Request;
use crate::secret::SecretValue;

/// Spoken by every cloud; later ones bring nothing for secrets.
const API_VERSION: &str = "7.4";

/// The longest page that vaults make.
const PAGE: &str = "25";

/// One vault, as one pod identity sees it.
pub type Azure = LoggedIn<AzureStore>;

/// What is a vault's own.
#[derive(Debug)]
pub struct AzureStore {
    issuer: Issuer,
    client: Client,
    token: Option<SecretValue>,
    /// Secrets whose versions this login may not list, or that have more than a page of them.
    metadata_denied: BTreeSet<String>,
    /// When the version last seen of each secret was given its attributes.
    updated: BTreeMap<String, u64>,
}

// === impl Azure ===

impl Azure {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &AzureSettings, login: Login, reach: Reach) -> Result<Self, ProviderError> {
        settings.validate().map_err(ProviderError::invalid)?;
        let reach = reach.with_ca(settings.ca.as_deref());
        let client = reach.client(&settings.address)?;
        let issuer = Issuer { settings: settings.clone(), login, reach };
        let (metadata_denied, updated) = Default::default();
        Ok(Self::new(AzureStore { issuer, client, token: None, metadata_denied, updated }))
    }
}

// === impl AzureStore ===

impl AzureStore {
    async fn get(&self, path: String, query: &[(&str, &str)]) -> Result<Response, Failure> {
        let mut call = Call::new(HttpMethod::GET, path).query("api-version", API_VERSION);
        for (name, value) in query {
            call = call.query(name, value);
        }
        if let Some(token) = &self.token {
            call = call.header(AUTHORIZATION, bearer(token, "the access token")?);
        }
        Ok(self.client.send(call).await?)
    }

    fn garbage(&self, what: &str) -> Failure {
        Failure::garbage(self.client.address(), what, "a vault's")
    }

    fn failure(&self, response: &Response, name: &str, version: Option<&str>) -> Failure {
        failure(response, self.issuer.asked(self.client.address()), name, version)
    }

    /// The present version without its value; `None` if only a full read can tell.
    async fn check_version(&mut self, name: &str) -> Result<Option<State>, Failure> {
        if self.metadata_denied.contains(name) {
            return Ok(None);
        }
        let response = self.get(format!("secrets/{name}/versions"), &[("maxresults", PAGE)]).await?;
        let listed = match response.status.as_u16() {
            200 => {
                let page = response.parse::<Page>().and_then(|page| page.present(name));
                page.ok_or_else(|| self.garbage(name))?
            }
            403 => Listed::OutOfReach,
            404 => Listed::Unclear,
            _ => return Err(self.failure(&response, name, None)),
        };
        Ok(match listed {
            Listed::Present(state) => Some(state),
            Listed::Unclear => None,
            Listed::OutOfReach => {
                self.metadata_denied.insert(name.to_owned());
                None
            }
        })
    }

    /// Whether the state is the one that is held: the same version, with the attributes that it had when it was read.
    fn is_held(&self, name: &str, state: &State, known: Option<&Version>) -> bool {
        let before = self.updated.get(name);
        known == Some(&state.version) && before.is_none_or(|before| state.updated.as_ref() == Some(before))
    }

    fn remember(&mut self, name: &str, state: &State) {
        match state.updated {
            Some(updated) => self.updated.insert(name.to_owned(), updated),
            None => self.updated.remove(name),
        };
    }

    async fn read_fully(&mut self, request: &Request, known: Option<&Version>) -> Outcome {
        let name = request.path.as_str();
        let path = match request.version() {
            Some(version) => format!("secrets/{name}/{version}"),
            None => format!("secrets/{name}"),
        };
        let response = self.get(path, &[]).await?;
        if response.status.as_u16() != 200 {
            return Err(self.failure(&response, name, request.version()));
        }
        let bundle = response.parse::<SecretBundle>().and_then(|bundle| bundle.into_answer(name));
        let (answer, state, oddity) = bundle.ok_or_else(|| self.garbage(name))?;
        if request.version().is_some_and(|pinned| pinned != state.version.0) {
            return Err(self.garbage(name));
        }
        if request.version().is_none() {
            let is_held = self.is_held(name, &state, known);
            self.remember(name, &state);
            if is_held {
                return Ok(Reading::NotModified);
            }
        }
        self.tell(name, &state, oddity);
        Ok(Reading::Fresh(answer))
    }

    /// Vaults give out what is not valid: the dates are for readers.
    fn tell(&self, name: &str, state: &State, oddity: Option<Oddity>) {
        let problem = match oddity {
            None => return,
            Some(Oddity::Expired) => "this version of the secret has expired; the vault gives it out all the same",
            Some(Oddity::NotYetValid) => {
                "this version of the secret is not valid yet; the vault gives it out all the same"
            }
        };
        tracing::warn!(provider = %self.issuer.login.provider, secret = name, version = %state.version, "{problem}");
    }
}

impl Store for AzureStore {
    async fn log_in(&mut self) -> Result<Token, Failure> {
        self.issuer.log_in().await
    }

    fn use_token(&mut self, token: &SecretValue) {
        self.token = Some(token.clone());
        self.metadata_denied.clear();
    }

    async fn read_one(&mut self, request: &Request, known: Option<&Version>) -> Outcome {
        match (known, request.version()) {
            // A version's value never changes.
            (Some(known), Some(pinned)) if known.0 == pinned => return Ok(Reading::NotModified),
            (Some(_), None) => {
                if let Some(state) = self.check_version(&request.path).await?
                    && self.is_held(&request.path, &state, known)
                {
                    self.remember(&request.path, &state);
                    return Ok(Reading::NotModified);
                }
            }
            _ => {}
        }
        self.read_fully(request, known).await
    }
}
