//! The store: reads, renews, revokes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::api::Api;
use super::asked::{Asked, What};
use super::events::Events;
use super::lease::{make_lease, renew_lease, revoke_lease};
use super::limits::Limits as RateLimits;
use super::login::{Issuer, renew};
use super::projects::Projects;
use super::secrets::Secrets;
use super::settings::InfisicalSettings;
use crate::provider::http::{Failure, Reach};
use crate::provider::session::{LoggedIn, Outcome, Renewal, Store, Token};
use crate::provider::{Lease, Login, ProviderError, Reading, Settings as _, Version};
use crate::reference::Request;
use crate::secret::SecretValue;

/// One Infisical, as one pod identity sees it.
pub type Infisical = LoggedIn<InfisicalStore>;

/// What is Infisical's own.
pub struct InfisicalStore {
    issuer: Issuer,
    api: Api,
    projects: Projects,
    secrets: Secrets,
    events: Events,
}

// === impl Infisical ===

impl Infisical {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &InfisicalSettings, login: Login, reach: Reach) -> Result<Self, ProviderError> {
        settings.validate().map_err(ProviderError::invalid)?;
        let client = Arc::new(reach.with_ca(settings.ca.as_deref()).client(&settings.address)?);
        let who = match (&login.role, settings.needs_role()) {
            (Some(role), true) => format!("identity {role:?}"),
            _ => "this login".to_owned(),
        };
        let (events, projects) = (Events::new(Arc::clone(&client), login.provider.clone()), Projects::new(settings));
        let api = Api { client, limits: RateLimits::default(), token: None, who };
        let issuer = Issuer { settings: settings.clone(), login, refusal: None };
        Ok(Self::new(InfisicalStore { issuer, api, projects, secrets: Secrets::new(), events }))
    }
}

// === impl InfisicalStore ===

impl InfisicalStore {
    async fn read(&mut self, request: &Request, known: Option<&Version>) -> Outcome {
        let asked = Asked::of(&self.issuer.settings, request).map_err(Failure::invalid)?;
        match (&asked.what, request.version()) {
            (What::Lease { name, ttl }, _) => {
                let project = self.projects.slug(&mut self.api, &asked.project).await?;
                make_lease(&mut self.api, &project, &asked, name, ttl.as_deref()).await.map(Reading::Fresh)
            }
            (What::Folder { .. }, Some(_)) => Err(Failure::not_found(format!(
                "{}: a folder has no versions, so what it was cannot be read again",
                asked.describe()
            ))),
            (What::Secret { version: Some(pinned), .. }, _) if known.is_some_and(|known| known.0 == *pinned) => {
                // A version never changes.
                Ok(Reading::NotModified)
            }
            _ => {
                let project = self.projects.id(&mut self.api, &asked.project).await?;
                self.events.watch(&project, &asked);
                self.secrets.read(&mut self.api, &project, request, &asked, known).await
            }
        }
    }
}

impl Store for InfisicalStore {
    async fn log_in(&mut self) -> Result<Token, Failure> {
        self.issuer.log_in(&mut self.api).await
    }

    fn use_token(&mut self, token: &SecretValue) {
        self.events.use_token(token);
        self.api.token = Some(token.clone());
    }

    async fn read_one(&mut self, request: &Request, known: Option<&Version>) -> Outcome {
        let outcome = self.read(request, known).await;
        self.events.set_spread(self.api.limits.spread);
        outcome
    }

    async fn renew(&mut self, token: &Token) -> Result<Option<Token>, Failure> {
        renew(&mut self.api, token).await
    }

    async fn end(&mut self, token: &SecretValue) -> Result<(), Failure> {
        self.issuer.end(&mut self.api, token).await
    }

    /// How long it may be renewed, this process was not told.
    fn resume(&self, token: Token) -> Option<Token> {
        Some(token.with(Renewal::Never))
    }

    async fn renew_lease(&mut self, lease: &Lease) -> Result<Lease, Failure> {
        renew_lease(&mut self.api, lease).await
    }

    async fn revoke_lease(&mut self, lease: &Lease) -> Result<(), Failure> {
        revoke_lease(&mut self.api, lease).await
    }

    fn leases_outlive_logins(&self) -> bool {
        true
    }

    async fn changed(&mut self) {
        self.events.changed(self.issuer.settings.events).await;
    }

    fn pace(&self) -> Option<Duration> {
        self.api.limits.pace
    }
}

impl fmt::Debug for InfisicalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InfisicalStore").field("issuer", &self.issuer).field("api", &self.api).finish_non_exhaustive()
    }
}
