//! The stores of a plan, connected.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::failure::SetupError;
use super::metrics::SourceMetrics;
use crate::plan::{Plan, PlannedProvider};
use crate::provider::http::{CaFile, Proxy, Reach};
use crate::provider::{Login, Provider, TokenSource};

/// The plan's providers, each with the token that `token_of` names for it, and with the authorities that Kubernetes keeps
/// in `authorities` if it has any there.
///
/// # Errors
/// [`SetupError`] names the provider whose settings are of no use.
pub fn connect(
    plan: &Plan,
    token_of: impl Fn(&str) -> TokenSource,
    authorities: &Path,
) -> Result<BTreeMap<String, Box<dyn Provider>>, SetupError> {
    connect_counted(plan, token_of, authorities, None)
}

/// As [`connect`], with requests to stores counted.
///
/// # Errors
/// As [`connect`].
pub fn connect_counted(
    plan: &Plan,
    token_of: impl Fn(&str) -> TokenSource,
    authorities: &Path,
    metrics: Option<&SourceMetrics>,
) -> Result<BTreeMap<String, Box<dyn Provider>>, SetupError> {
    let mut providers = BTreeMap::new();
    for (name, PlannedProvider { settings, role, proxy, ca_bundle, .. }) in &plan.providers {
        let login = Login { provider: name.clone(), role: role.clone(), token: token_of(name) };
        let ca_file = ca_bundle.then(|| Arc::new(CaFile::new(authorities.join(name))));
        let mut reach = Reach::through(Proxy::matcher_of(proxy.as_ref()));
        if let Some(metrics) = metrics {
            if let Some(file) = &ca_file {
                metrics.show_authorities(name, file);
            }
            reach = reach.counted_by(metrics.meter(name));
        }
        let provider = settings
            .connect(login, reach.with_ca_file(ca_file))
            .map_err(|error| SetupError { provider: name.clone(), error })?;
        providers.insert(name.clone(), provider);
    }
    Ok(providers)
}
