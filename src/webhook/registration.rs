//! Keeps the API servers' trust in this replica: its authority's certificate in the webhook configuration's
//! `caBundle`, and a leaf of a trusted authority in the TLS server.
//!
//! API servers read the configuration through informers, so a certificate is trusted a moment after it was written.
//! Nothing here relies on the write: a certificate counts from the moment the watch shows it, plus [`rotation::SETTLE`].
//!
//! Needs `get`, `list`, `watch` and `patch` on the one named `mutatingwebhookconfigurations`; list and watch carry the
//! field selector `metadata.name=…`, which RBAC's `resourceNames` lets through
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources>).

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, TestOperation};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use self::merge::{Own, merge};
use self::rotation::{Rotation, Stand};
use super::certificate::{CertificateError, Names, issue};
use super::trust::TrustReport;
use crate::cluster::said;
use crate::serve::readiness::{Guard, Readiness};
use crate::serve::tls::Served;

pub(super) mod merge;
mod rotation;

/// What `/readyz` shows meanwhile.
const WAITS_FOR: &str = "certificate in the webhook configuration";

/// For one attempt to write, its retries included; less while a certificate is about to count as lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 8;

/// Between failed attempts: the first and the longest pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Wall-clock time, which tests set.
#[derive(Clone)]
pub(super) struct RenewalClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

/// A replica that makes its own certificates.
#[derive(Debug)]
pub(super) struct SelfManaged {
    names: Names,
    configuration: String,
    served: Served,
    readiness: Readiness,
    /// Held while the API servers cannot trust what is served.
    waiting: Option<Guard>,
    clock: RenewalClock,
    report: Option<TrustReport>,
}

/// Why the `caBundle` could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistrationError {
    /// The API server refused, or is out of reach.
    #[error("mutatingwebhookconfiguration {name:?}: {}", in_short(.cause))]
    Api {
        /// The configuration.
        name: String,
        /// What the client said.
        #[source]
        cause: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("mutatingwebhookconfiguration {name:?}: no answer within {:.1} s", .patience.as_secs_f32())]
    Timeout {
        /// The configuration.
        name: String,
        /// How long it was waited for.
        patience: Duration,
    },
}

/// When to write again, and how long to wait if that fails.
#[derive(Debug)]
struct Attempts {
    not_before: Instant,
    pause: Duration,
}

fn in_short(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        error => said(error),
    }
}

/// The operations that put this replica's certificates into every webhook of `object`; `None` if they are there.
///
/// The first one makes it an optimistic lock: the API server tests it against the object it is about to change.
fn patch(object: &MutatingWebhookConfiguration, own: Own<'_>, now: SystemTime) -> Option<json_patch::Patch> {
    let adds: Vec<_> = bundles(object)
        .into_iter()
        .enumerate()
        .filter_map(|(index, bundle)| Some((index, merge(&bundle, own, now)?)))
        .map(|(index, merged)| {
            PatchOperation::Add(AddOperation {
                path: PointerBuf::from_tokens(["webhooks", &index.to_string(), "clientConfig", "caBundle"]),
                value: serde_json::json!(k8s_openapi::ByteString(merged.into_bytes())),
            })
        })
        .collect();
    let lock = PatchOperation::Test(TestOperation {
        path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
        value: object.metadata.resource_version.clone().into(),
    });
    (!adds.is_empty()).then(|| json_patch::Patch([lock].into_iter().chain(adds).collect()))
}

/// The `caBundle` of each webhook.
fn bundles(object: &MutatingWebhookConfiguration) -> Vec<Vec<u8>> {
    let webhooks = object.webhooks.iter().flatten();
    webhooks.map(|webhook| webhook.client_config.ca_bundle.clone().unwrap_or_default().0).collect()
}

/// After the first lost race up to 4 ms, for until it writes again, API servers refuse this process; twice as much after
/// each other one, up to half a second: those who lost together must not collide for ever.
fn jitter(attempt: u32) -> Duration {
    let mut random = [0];
    // Without randomness there is still no harm in waiting for some time.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let [random] = random;
    Duration::from_micros(u64::from(random) << (3 + attempt.min(8)))
}

// === impl RenewalClock ===

impl RenewalClock {
    /// A clock that tells what `now` says.
    pub(super) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    #[must_use]
    pub(super) fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for RenewalClock {
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for RenewalClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

// === impl SelfManaged ===

impl SelfManaged {
    /// Blocks `readiness` until the API servers trust what [`SelfManaged::run`] has put into `served`.
    /// `configuration` names the `MutatingWebhookConfiguration`.
    #[must_use]
    pub(super) fn new(
        names: Names,
        configuration: String,
        served: Served,
        readiness: Readiness,
        clock: RenewalClock,
    ) -> Self {
        let waiting = Some(readiness.block(WAITS_FOR));
        Self { names, configuration, served, readiness, waiting, clock, report: None }
    }

    /// The same, which people hear of through `report`.
    #[must_use]
    pub(super) fn reporting_to(self, report: TrustReport) -> Self {
        Self { report: Some(report), ..self }
    }

    /// Serves a certificate at once, gets it trusted, and renews both for as long as it is polled.
    ///
    /// # Errors
    /// Only if the first certificate cannot be made: later failures are logged and tried again.
    pub(super) async fn run(mut self, client: kube::Client) -> Result<Infallible, CertificateError> {
        let api: Api<MutatingWebhookConfiguration> = Api::all(client);
        let mut watch = pin!(watch_object(api.clone(), &self.configuration).default_backoff());
        let mut rotation = Rotation::new(issue(&self.names, self.clock.now())?);
        self.served.publish(rotation.serving.issued.credentials.clone());
        let mut watched: Vec<Vec<u8>> = Vec::new();
        // What the watch showed last, until a write was tried with it.
        let mut shown = None;
        let mut attempts = Attempts::new();
        loop {
            rotation.look(&watched, Instant::now());
            self.renew(&mut rotation);
            self.tell(&rotation);
            if let Some(report) = &mut self.report {
                report.show(rotation.is_known_to(&watched), &self.configuration);
            }
            let wants_write = rotation.wants_write(&watched, &self.names, self.clock.now());
            if wants_write && attempts.are_due() {
                let written = self.write(&api, &rotation, shown.take()).await;
                if let Some(report) = &self.report {
                    report.wrote(&written);
                }
                attempts.count(&written);
                // It may have taken long enough for something to count by now.
                continue;
            }
            tokio::select! {
                object = watch.next() => match object {
                    Some(Ok(object)) => {
                        watched = self.watched(object.as_ref());
                        shown = object;
                    }
                    Some(Err(error)) => warn!(configuration = self.configuration, %error, "watch failed, trying again"),
                    // The stream has no end; if it had one, what is known stays as it is.
                    None => pending().await,
                },
                () = sleep_until(rotation.wake(wants_write.then_some(attempts.not_before))) => {}
            }
        }
    }

    fn watched(&self, object: Option<&MutatingWebhookConfiguration>) -> Vec<Vec<u8>> {
        let bundles = object.map(bundles).unwrap_or_default();
        if bundles.is_empty() {
            warn!(configuration = self.configuration, "there is no such mutatingwebhookconfiguration with webhooks");
        }
        bundles
    }

    /// Makes the next authority when the newest is half way through its life, and serves it when it is trusted.
    fn renew(&self, rotation: &mut Rotation) {
        let now = self.clock.now();
        if rotation.is_due(now) {
            match issue(&self.names, now) {
                Ok(issued) => rotation.next = Some(Stand::new(issued)),
                Err(error) => warn!(%error, "cannot renew the certificate, trying again"),
            }
        }
        if rotation.advance(Instant::now(), now) {
            info!("serving the renewed certificate");
            self.served.publish(rotation.serving.issued.credentials.clone());
        }
    }

    /// Blocks or releases readiness.
    fn tell(&mut self, rotation: &Rotation) {
        match (rotation.is_trusted(Instant::now(), self.clock.now()), &self.waiting) {
            (true, Some(_)) => {
                info!(configuration = self.configuration, "the API servers know this replica's certificate");
                self.waiting = None;
            }
            (false, None) => self.waiting = Some(self.readiness.block(WAITS_FOR)),
            _ => {}
        }
    }

    async fn write(
        &self,
        api: &Api<MutatingWebhookConfiguration>,
        rotation: &Rotation,
        shown: Option<MutatingWebhookConfiguration>,
    ) -> Result<(), RegistrationError> {
        let name = &self.configuration;
        let patience = rotation.patience(Instant::now()).unwrap_or(WRITE_TIMEOUT);
        match timeout(patience, self.try_write(api, rotation, shown)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => Err(RegistrationError::Api { name: name.clone(), cause: Box::new(cause) }),
            Err(_) => Err(RegistrationError::Timeout { name: name.clone(), patience }),
        }
    }

    /// First with what was `shown`, which is the newest there is if the watch has just told of it; after that with what is
    /// asked for.
    async fn try_write(
        &self,
        api: &Api<MutatingWebhookConfiguration>,
        rotation: &Rotation,
        mut shown: Option<MutatingWebhookConfiguration>,
    ) -> kube::Result<()> {
        let params = PatchParams { field_manager: Some("hushpod-webhook".to_owned()), ..PatchParams::default() };
        let (wanted, kept) = (rotation.wanted(), rotation.previous.as_slice());
        let own = Own { common_name: &self.names.common_name(), wanted: &wanted, kept };
        for attempt in 1.. {
            let object = match shown.take() {
                Some(object) => object,
                None => api.get(&self.configuration).await?,
            };
            let Some(patch) = patch(&object, own, self.clock.now()) else { break };
            let written = api.patch(&self.configuration, &params, &Patch::<()>::Json(patch)).await;
            match written {
                Ok(_) => {
                    info!(configuration = self.configuration, "wrote this replica's certificate to the caBundle");
                    break;
                }
                // 409 if somebody wrote after the test, 422 if the test itself failed.
                Err(kube::Error::Api(status)) if attempt < ATTEMPTS && matches!(status.code, 409 | 422) => {
                    debug!(attempt, "another writer was first");
                    sleep(jitter(attempt)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

// === impl Attempts ===

impl Attempts {
    fn new() -> Self {
        Self { not_before: Instant::now(), pause: FIRST_PAUSE }
    }

    fn are_due(&self) -> bool {
        Instant::now() >= self.not_before
    }

    fn count(&mut self, outcome: &Result<(), RegistrationError>) {
        if let Err(error) = outcome {
            warn!(%error, retry_in = ?self.pause, "cannot write this replica's certificate to the caBundle");
            self.not_before = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else {
            // The watch will show it; if it does not, something has taken it out again.
            self.not_before = Instant::now() + FIRST_PAUSE;
            self.pause = FIRST_PAUSE;
        }
    }
}

#[cfg(test)]
mod tests;
