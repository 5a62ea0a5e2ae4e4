//! The client: reads.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method as HttpMethod;
use hyper::header::AUTHORIZATION;
use hyper_util::client::proxy::matcher::Matcher;
use serde::de::DeserializeOwned;

use super::AzureSettings;
use super::answer::{Bundle, Listed, Oddity, Page, State};
use super::complaint::failure;
use crate::provider::auth::bearer::{Bearer, BearerStore, Failure, Reach};
use crate::provider::http::{Address, Call, Client, Limits, Response};
use crate::provider::{ErrorKind, Login, ProviderError, Reading, Settings as _, Version};
use crate::reference::Request;

/// Spoken by every cloud; later ones bring nothing for secrets.
const API_VERSION: &str = "7.4";

/// The longest page that vaults make.
const PAGE: &str = "25";

/// One vault, as one pod identity sees it.
#[derive(Debug)]
pub struct Azure {
    pub(super) settings: AzureSettings,
    pub(super) login: Login,
    pub(super) reach: Reach,
    client: Client,
    session: Option<Bearer>,
    /// Secrets whose versions this login may not list, or that have more than a page of them.
    unlisted: BTreeSet<String>,
    /// When the version last seen of each secret was given its attributes.
    updated: BTreeMap<String, u64>,
}

// === impl Azure ===

impl Azure {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &AzureSettings, login: Login, proxy: Matcher) -> Result<Self, ProviderError> {
        Self::connect_with(settings, login, Limits::default(), proxy)
    }

    /// As [`Self::connect`], with other limits than the usual.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect_with(
        settings: &AzureSettings,
        login: Login,
        limits: Limits,
        proxy: Matcher,
    ) -> Result<Self, ProviderError> {
        settings.validate().map_err(|problem| ProviderError::new(ErrorKind::Invalid, problem))?;
        let reach = Reach { ca: settings.ca.clone(), limits, proxy };
        let client = reach.client(&settings.address)?;
        Ok(Self {
            settings: settings.clone(),
            login,
            reach,
            client,
            session: None,
            unlisted: BTreeSet::new(),
            updated: BTreeMap::new(),
        })
    }

    pub(super) fn address(&self) -> &Address {
        self.client.address()
    }

    async fn get(&self, path: String, query: &[(&str, &str)]) -> Result<Response, Failure> {
        let mut call = Call::new(HttpMethod::GET, path).query("api-version", API_VERSION);
        for (name, value) in query {
            call = call.query(name, value);
        }
        if let Some(bearer) = &self.session {
            call = call.header(AUTHORIZATION, bearer.header()?);
        }
        Ok(self.client.send(call).await?)
    }

    fn garbage(&self, what: &str) -> Failure {
        let message = format!("{} answers {what} with something that is not a vault's JSON", self.address());
        Failure::new(ErrorKind::Unavailable, message)
    }

    fn parse<T: DeserializeOwned>(&self, response: &Response, what: &str) -> Result<T, Failure> {
        serde_json::from_slice(&response.body).map_err(|_| self.garbage(what))
    }

    /// The present version without its value; `None` if only a full read can tell.
    async fn look(&mut self, name: &str) -> Result<Option<State>, Failure> {
        if self.unlisted.contains(name) {
            return Ok(None);
        }
        let response = self.get(format!("secrets/{name}/versions"), &[("maxresults", PAGE)]).await?;
        let listed = match response.status.as_u16() {
            200 => {
                let page: Page = self.parse(&response, name)?;
                page.present(name).ok_or_else(|| self.garbage(name))?
            }
            403 => Listed::OutOfReach,
            404 => Listed::Unclear,
            _ => return Err(failure(&response, self, name, None)),
        };
        Ok(match listed {
            Listed::Present(state) => Some(state),
            Listed::Unclear => None,
            Listed::OutOfReach => {
                self.unlisted.insert(name.to_owned());
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

    async fn read_fully(&mut self, request: &Request, known: Option<&Version>) -> Result<Reading, Failure> {
        let name = request.path.as_str();
        let path = match request.version() {
            Some(version) => format!("secrets/{name}/{version}"),
            None => format!("secrets/{name}"),
        };
        let response = self.get(path, &[]).await?;
        if response.status.as_u16() != 200 {
            return Err(failure(&response, self, name, request.version()));
        }
        let bundle: Bundle = self.parse(&response, name)?;
        let (answer, state, oddity) = bundle.into_answer(name).ok_or_else(|| self.garbage(name))?;
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

    /// Vaults give out what is not valid: the dates are for whoever reads.
    fn tell(&self, name: &str, state: &State, oddity: Option<Oddity>) {
        let problem = match oddity {
            None => return,
            Some(Oddity::Expired) => "this version of the secret has expired; the vault gives it out all the same",
            Some(Oddity::NotYetValid) => {
                "this version of the secret is not valid yet; the vault gives it out all the same"
            }
        };
        tracing::warn!(provider = %self.login.provider, secret = name, version = %state.version, "{problem}");
    }
}

impl BearerStore for Azure {
    fn held(&self) -> Option<&Bearer> {
        self.session.as_ref()
    }

    fn hold(&mut self, bearer: Option<Bearer>) {
        self.session = bearer;
    }

    async fn log_in(&mut self) -> Result<Bearer, Failure> {
        self.make_token().await
    }

    fn forget_denials(&mut self) {
        self.unlisted.clear();
    }

    async fn read_one(&mut self, request: &Request, known: Option<&Version>) -> Result<Reading, Failure> {
        match (known, request.version()) {
            // A version's value never changes.
            (Some(known), Some(pinned)) if known.0 == pinned => return Ok(Reading::NotModified),
            (Some(_), None) => {
                if let Some(state) = self.look(&request.path).await?
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
