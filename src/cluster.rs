//! The way to the API server: the cluster that this process runs in, or the one that it was told.
//!
//! Never `~/.kube/config`: on a person's machine that is whatever cluster was looked at last, and its webhook
//! configuration would be patched.

use std::path::{Path, PathBuf};

use kube::Client;
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The files and variables that pods have are not there.
    #[error(
        "not running in a pod of a cluster: set --kubeconfig FILE for the cluster that is meant, or --tls-dir DIR ({0})"
    )]
    NoPod(#[source] Box<InClusterError>),
    /// The file of `--kubeconfig` is of no use.
    #[error("--kubeconfig {}: {cause}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<KubeconfigError>,
    },
    /// What it says cannot be connected with.
    #[error("cannot connect to the Kubernetes API: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// A client of the cluster that `kubeconfig` names, or else of the one that this process runs in. Connects later.
///
/// # Errors
/// [`ClusterError`] says which file or flag is missing.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClusterError> {
    let config = match kubeconfig {
        None => Config::incluster().map_err(|cause| ClusterError::NoPod(Box::new(cause)))?,
        Some(path) => read(path)
            .await
            .map_err(|cause| ClusterError::Kubeconfig { path: path.to_owned(), cause: Box::new(cause) })?,
    };
    Client::try_from(config).map_err(|cause| ClusterError::Client(Box::new(cause)))
}

async fn read(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn only_the_cluster_that_was_meant_is_talked_to() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let good = file(
            "good",
            "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
             clusters: [{name: c, cluster: {server: 'https://cluster.example'}}]\n\
             contexts: [{name: here, context: {cluster: c, user: u, namespace: told}}]\nusers: [{name: u, user: {}}]\n",
        );
        assert_eq!(client(Some(&good)).await.unwrap().default_namespace(), "told");
        let missing = directory.path().join("missing");
        let no_context = file("no-context", "apiVersion: v1\nkind: Config\ncurrent-context: gone\n");
        for (path, part) in
            [(None, "--kubeconfig FILE"), (Some(&missing), "missing"), (Some(&no_context), "no-context")]
        {
            if path.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
                continue;
            }
            let error = client(path.map(PathBuf::as_path)).await.err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| error.contains(part)), "{path:?}: {error:?}");
        }
    }
}
