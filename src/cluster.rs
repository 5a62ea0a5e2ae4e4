//! The way to the API server: the cluster that this process runs in, or the one that it was told.
//!
//! Servers never look at `~/.kube/config`: on a person's machine that is whatever cluster was looked at last, and its
//! webhook configuration would be patched. A person who types `kubectl hushpod` means that very cluster.

use std::error::Error;
use std::path::{Path, PathBuf};

use kube::Client;
use kube::client::AuthError;
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::sentence::{fitting, one_line};

pub mod events;
pub mod namespaces;
pub mod watch;

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The files and variables that pods have are not there.
    #[error(
        "not running in a pod of a cluster: set --kubeconfig FILE for the cluster that is meant, or --tls-dir DIR ({0})"
    )]
    NoPod(#[source] Box<InClusterError>),
    /// The file of `--kubeconfig` is of no use.
    #[error("--kubeconfig {}: {}", path.display(), of_kubeconfig(cause))]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<KubeconfigError>,
    },
    /// There is no such context, or no kubeconfig at all.
    #[error("no cluster to talk to: {}", of_kubeconfig(.0))]
    NoContext(#[source] Box<KubeconfigError>),
    /// What it says cannot be connected with.
    #[error("cannot connect to the Kubernetes API: {}", said(.0))]
    Client(#[source] Box<kube::Error>),
}

/// What an error of the API server, or of the way to it, says: its innermost cause. Never what an answer holds, nor what a
/// program for logins prints, which may be a token.
#[must_use]
pub fn said(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    if let kube::Error::SerdeError(_) = error {
        return "the answer is not that of an API server: check the address, and what stands in front of it".to_owned();
    }
    let mut cause: &(dyn Error + 'static) = error;
    loop {
        if let Some(login) = cause.downcast_ref::<AuthError>() {
            return of_login(login);
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None => break,
        }
    }
    let is_unreached = matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_));
    if is_unreached { format!("the API server cannot be reached: {cause}") } else { cause.to_string() }
}

/// What a login that a kubeconfig describes says.
fn of_login(error: &AuthError) -> String {
    const PROGRAM: &str = "the kubeconfig's program for logins";
    /// Bytes of what it says on standard error.
    const MOST: usize = 300;
    match error {
        AuthError::AuthExecStart(cause) => format!("{PROGRAM} cannot be started: {cause}"),
        AuthError::AuthExecRun { out, .. } => {
            let told = String::from_utf8_lossy(out.stderr.trim_ascii());
            let told = if told.is_empty() { "run it by hand to see why".into() } else { one_line(&told) };
            format!("{PROGRAM} ends with {}: {}", out.status, fitting(&told, MOST))
        }
        AuthError::AuthExecParse(_) => format!("{PROGRAM} prints something other than an ExecCredential"),
        other => other.to_string(),
    }
}

/// A kubeconfig holds keys and tokens: nothing of it is shown.
fn of_kubeconfig(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(_) => "is not a kubeconfig, or not YAML".to_owned(),
        KubeconfigError::CurrentContextNotSet => "has no current context: say --context".to_owned(),
        other => other.to_string(),
    }
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

/// A client as kubectl would have one: of `kubeconfig`, or the files of `KUBECONFIG`, or `~/.kube/config`, or else of the
/// cluster that this process runs in; in it, of `context`. Connects later.
///
/// # Errors
/// [`ClusterError`] says which file, context or plugin is the matter.
pub async fn client_of_person(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, ClusterError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let read = kubeconfig.map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let config = match read {
        Ok(read) => Config::from_custom_kubeconfig(read, &options).await.map_err(Box::new),
        Err(cause) if kubeconfig.is_some() || context.is_some() => Err(Box::new(cause)),
        Err(cause) => Config::incluster().map_err(|_| Box::new(cause)),
    };
    let config = config.map_err(|cause| match kubeconfig {
        Some(path) => ClusterError::Kubeconfig { path: path.to_owned(), cause },
        None => ClusterError::NoContext(cause),
    })?;
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
    async fn a_person_names_file_and_context_as_for_kubectl() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(
            &path,
            "apiVersion: v1\nkind: Config\ncurrent-context: one\n\
             clusters: [{name: c, cluster: {server: 'https://cluster.example'}}]\n\
             contexts: [{name: one, context: {cluster: c, user: u, namespace: a}}, {name: two, context: {cluster: c, user: u, namespace: b}}]\n\
             users: [{name: u, user: {}}]\n",
        )
        .unwrap();
        for (context, namespace) in [(None, "a"), (Some("two"), "b")] {
            assert_eq!(client_of_person(Some(&path), context).await.unwrap().default_namespace(), namespace);
        }
        for (path, context, part) in
            [(path.as_path(), Some("three"), "three"), (directory.path().join("none").as_path(), None, "none")]
        {
            let error = client_of_person(Some(path), context).await.err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| error.contains(part)), "{error:?}");
        }
    }

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
