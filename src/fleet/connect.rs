//! The cluster that is meant: a client, and the namespace that names are looked up in.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

use super::arguments::ClusterArgs;
use super::error::FleetError;
use crate::cluster::client_of_person;

/// Requests at a time: an API server's fair share for a person, and a kubelet's for a reader of logs.
pub(super) const AT_A_TIME: usize = 16;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster as a person sees it.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) client: Client,
    /// Where pods are looked for, unless all namespaces are meant.
    pub(super) namespace: String,
    /// Where the CSI driver's pods are; found if it is not said.
    pub(super) csi_namespace: Option<String>,
}

// === impl Cluster ===

impl Cluster {
    /// Connects with the first request.
    pub(super) async fn connect(args: &ClusterArgs) -> Result<Self, FleetError> {
        let ClusterArgs { kubeconfig, context, namespace, csi_namespace } = args;
        let client = client_of_person(kubeconfig.as_deref(), context.as_deref())
            .await
            .map_err(|error| FleetError::Failed(error.to_string()))?;
        let namespace = namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        Ok(Self { client, namespace, csi_namespace: csi_namespace.clone() })
    }

    /// Pods of the namespace.
    pub(super) fn pods(&self) -> Api<Pod> {
        self.pods_in(&self.namespace)
    }

    /// Pods of a namespace.
    pub(super) fn pods_in(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// A request that takes no longer than a person waits.
pub(super) async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service(format!("no answer for {} s", PATIENCE.as_secs()).into())),
    }
}
