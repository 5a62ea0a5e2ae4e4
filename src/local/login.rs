//! `hushpod login status`: which login each store gets, and until when.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::arguments::StatusOfLogins;
use super::error::{LocalError, LocalFailure};
use super::id_token;
use super::output::{emit, patiently, spoken};
use super::wanted::WantedSecrets;
use crate::config::ProviderConfig;
use crate::provider::http::{Proxy, Reach};
use crate::provider::{Login, ProviderError, Session, TokenSource};

/// A store, and what came of logging in.
struct CheckedLogin<'a> {
    name: &'a str,
    provider: &'a ProviderConfig,
    outcome: Result<Option<Session>, LocalError>,
}

/// Logs in to each store and prints a line for it.
///
/// # Errors
/// Every store that does not take its login, together, after the lines of the others; or that these cannot be written.
pub(super) async fn status(args: StatusOfLogins) -> Result<(), LocalError> {
    let wanted = WantedSecrets::read(&args.stores, &[])?;
    let providers = &wanted.config().providers;
    wanted.check_trust(providers.keys().map(String::as_str))?;
    if providers.is_empty() {
        return Err(LocalError::usage("no file names a store").with_hint("write providers: in .hushpod.yaml"));
    }
    let each = providers.iter().map(async |(name, provider)| {
        let outcome = log_in(name, provider, args.stores.timeout).await;
        CheckedLogin { name, provider, outcome }
    });
    let names: Vec<_> = providers.keys().map(String::as_str).collect();
    let mut lines = String::new();
    let mut errors = Vec::new();
    for checked in patiently(&names, join_all(each)).await {
        // A `String` takes everything.
        let _ = writeln!(lines, "{}", checked.line());
        errors.extend(checked.outcome.err());
    }
    emit(None, lines.as_bytes())?;
    if errors.is_empty() { Ok(()) } else { Err(LocalError::all(errors)) }
}

async fn log_in(name: &str, provider: &ProviderConfig, most: Duration) -> Result<Option<Session>, LocalError> {
    let of_store = |error: &ProviderError| LocalError::of_store(name, error);
    let token = id_token::of(name, &provider.settings, provider.audience.as_deref()).await?;
    let login = Login {
        provider: name.to_owned(),
        role: provider.role.clone(),
        token: TokenSource::Channel(watch::channel(token).1),
    };
    let reach = Reach::through(Proxy::matcher_of(provider.proxy.as_ref()));
    let mut store = provider.settings.connect(login, reach).map_err(|error| of_store(&error))?;
    let Ok(extended) = timeout(most, store.extend_session()).await else {
        let problem = format!("provider {name}: no answer within {} s", most.as_secs_f64());
        return Err(LocalError::new(LocalFailure::Unreachable, problem));
    };
    extended.map_err(|error| of_store(&error))?;
    Ok(store.session())
}

// === impl CheckedLogin ===

impl CheckedLogin<'_> {
    fn line(&self) -> String {
        let settings = serde_json::to_value(&self.provider.settings).unwrap_or(Value::Null);
        let text = |at: &str| settings.pointer(at).and_then(Value::as_str).unwrap_or("-").to_owned();
        let outcome = match &self.outcome {
            Err(_) => "refused or not to be had: see below".to_owned(),
            Ok(None) => "needs no login".to_owned(),
            Ok(Some(Session { ttl: None, .. })) => "good, and the store names no end".to_owned(),
            Ok(Some(Session { ttl: Some(ttl), .. })) => format!("good for {}", spoken(*ttl)),
        };
        format!("{:<16} {:<10} {:<32} {outcome}", self.name, text("/type"), text("/auth/method"))
    }
}
