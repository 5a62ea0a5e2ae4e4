//! A real API server, and a day in 24 seconds: three replicas whose clocks differ renew their certificates every few
//! seconds, while others write to the configuration and take their authorities out.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::api::{DeleteParams, PostParams};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConnection, SideData};

use super::*;
use crate::serve::tls::{provider, server_config};

/// A day of the replicas' clocks.
const DAY: Duration = Duration::from_secs(24);
/// How far the first and the last clock are from the second: less than what certificates allow for.
const APART: Duration = Duration::from_mins(4);
/// How long the API servers' informers may lag; less than what replicas wait for.
const LAG: Duration = Duration::from_secs(3);

/// The replicas' time, without a difference.
#[derive(Debug, Clone, Copy)]
struct FastClock {
    born: SystemTime,
    start: Instant,
}

impl FastClock {
    fn now(self) -> SystemTime {
        self.born + self.start.elapsed() * 3600
    }
}

impl TimeProvider for FastClock {
    fn current_time(&self) -> Option<UnixTime> {
        self.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// Whether a caller that trusts `bundle` would get through to who serves this; without a network.
fn is_trusted(bundle: &[u8], served: &Served, clock: FastClock) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in rustls::pki_types::pem::PemObject::pem_slice_iter(bundle) {
        let certificate: CertificateDer<'static> = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let config = ClientConfig::builder_with_details(provider(), Arc::new(clock))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("hushpod.secrets.svc").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    let mut server = ServerConnection::new(server_config(served).unwrap()).map_err(|error| error.to_string())?;
    while client.is_handshaking() || server.is_handshaking() {
        carry(&mut client, &mut server).map_err(|error| error.to_string())?;
        carry(&mut server, &mut client).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Hands over all that one side has to say.
fn carry<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut unread = bytes.as_slice();
    while !unread.is_empty() {
        to.read_tls(&mut unread).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs HUSHPOD_TRUST_KUBECONFIG: a cluster in which it makes a webhook configuration that meets no pod"]
async fn p7_certificates_that_are_rotated_every_few_seconds_are_always_trusted() {
    let file = std::env::var("HUSHPOD_TRUST_KUBECONFIG").expect("HUSHPOD_TRUST_KUBECONFIG: a kubeconfig");
    let kubeconfig = kube::config::Kubeconfig::read_from(file).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let name = format!("hushpod-trust-{}", std::process::id());
    let mut object = configuration(&[PLACEHOLDER]);
    object["metadata"] = json!({"name": name});
    object["webhooks"][0]["objectSelector"] = json!({"matchLabels": {"hushpod.dev/nobody": "has-this"}});
    let object: MutatingWebhookConfiguration = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();

    let clock = FastClock { born: SystemTime::now(), start: Instant::now() };
    let clocks = [
        RenewalClock::new(move || clock.now() - APART),
        RenewalClock::new(move || clock.now()),
        RenewalClock::new(move || clock.now() + APART),
    ];
    let replicas: Vec<_> = clocks
        .into_iter()
        .enumerate()
        .map(|(index, clock)| Replica::of(client.clone(), &name, &format!("pod-{index}"), clock, SystemTime::now()))
        .collect();
    let outcome = watch_over(&api, &name, &replicas, clock).await;
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let (rotations, checks) = outcome.unwrap();
    assert!(rotations >= 9 && checks > 500, "{rotations} rotations, {checks} handshakes");
}

/// Three days: how many certificates were served, and how often it was looked.
async fn watch_over(
    api: &Api<MutatingWebhookConfiguration>,
    name: &str,
    replicas: &[Replica],
    clock: FastClock,
) -> Result<(usize, usize), String> {
    let start = Instant::now();
    while !replicas.iter().all(Replica::is_ready) {
        if start.elapsed() > seconds(30) {
            return Err("not ready within 30 s".to_owned());
        }
        sleep(Duration::from_millis(50)).await;
    }
    let (mut leaves, mut checks) = (BTreeSet::new(), 0);
    let mut seen: Vec<(Instant, Vec<u8>)> = Vec::new();
    let end = Instant::now() + 3 * DAY;
    while Instant::now() < end {
        // What another writer does; and it wakes replicas, whose timers do not know how fast their clocks are.
        let note = json!({"metadata": {"annotations": {"e2e": checks.to_string()}}});
        let object = api.patch(name, &PatchParams::default(), &Patch::Merge(note)).await.map_err(|e| e.to_string())?;
        seen.push((Instant::now(), bundles(&object).remove(0)));
        seen.retain(|(at, _)| at.elapsed() <= LAG + seconds(1));
        for replica in replicas.iter().filter(|replica| replica.is_ready()) {
            // By what an API server has that is up to date, and by what one has that lags.
            for (at, bundle) in [seen.first(), seen.last()].into_iter().flatten() {
                let lags = at.elapsed();
                is_trusted(bundle, &replica.served, clock)
                    .map_err(|error| format!("{error}, by a bundle of {lags:?} ago, after {:?}", start.elapsed()))?;
                checks += 1;
            }
            leaves.insert(replica.served.expires());
        }
        if let Some(unready) = replicas.iter().position(|replica| !replica.is_ready()) {
            return Err(format!("replica {unready} became unready after {:?}", start.elapsed()));
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok((leaves.len() - replicas.len(), checks))
}
