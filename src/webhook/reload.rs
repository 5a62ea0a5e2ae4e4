//! The operator's configuration, read again when its file changes: a bad one keeps the last good one and says why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::answer::Reviewer;
use super::metrics::Metrics;
use super::mutate::Injector;
use super::review;
use crate::config::{Config, ConfigError};
use crate::process::watch::{Watch, WatchError};

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// It says something that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its directory cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// A configuration file and its last good content.
#[derive(Debug)]
pub struct Reloading {
    path: PathBuf,
    watch: Watch,
    current: watch::Sender<Arc<Injector>>,
}

// === impl Reloading ===

impl Reloading {
    /// Reads the file; the first time it has to be good.
    ///
    /// # Errors
    /// [`ReloadError`] names the file, or the field in it.
    pub fn open(path: &Path) -> Result<Self, ReloadError> {
        let config = read(path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // ConfigMap volumes are swapped by a link in the directory: a watch on the file would die with the first swap.
        let watch = Watch::directory(directory)?;
        warn_of(&config);
        Ok(Self { path: path.to_owned(), watch, current: watch::Sender::new(Arc::new(Injector::new(config))) })
    }

    /// Decides by whatever configuration is the last good one at that moment.
    #[must_use]
    pub fn review(&self) -> Reviewer {
        let current = self.current.subscribe();
        Arc::new(move |body| {
            let injector = Arc::clone(&current.borrow());
            review::answer(body, &injector)
        })
    }

    /// Follows the file for ever.
    pub async fn follow(mut self, metrics: Metrics) {
        loop {
            self.watch.changed().await;
            match read(&self.path) {
                Ok(config) => {
                    let is_new = self.current.send_if_modified(|present| {
                        let is_new = *present.config() != config;
                        if is_new {
                            warn_of(&config);
                            *present = Arc::new(Injector::new(config));
                        }
                        is_new
                    });
                    if is_new {
                        metrics.count_reload(true);
                        info!(path = %self.path.display(), "the new configuration is in force");
                    }
                }
                Err(error) => {
                    metrics.count_reload(false);
                    warn!(path = %self.path.display(), %error, "keeping the last good configuration");
                }
            }
        }
    }
}

fn warn_of(config: &Config) {
    for warning in config.warnings() {
        warn!("{warning}");
    }
}

fn read(path: &Path) -> Result<Config, ReloadError> {
    let text = std::fs::read_to_string(path).map_err(|cause| ReloadError::Read { path: path.to_owned(), cause })?;
    Ok(Config::from_yaml(&text)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use base64_simd::STANDARD;
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::serve::metrics::Registry;

    /// The patch for a pod that is the same each time.
    fn patch(review: &Reviewer) -> String {
        let request = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "operation": "CREATE", "namespace": "shop", "resource": {"group": "", "resource": "pods"},
                "object": {
                    "metadata": {"annotations": {"hushpod.dev/file.db": "secret/data/db#password"}},
                    "spec": {"containers": [{"name": "web"}]},
                },
            },
        });
        let answer: Value = serde_json::from_slice(&review(request.to_string().as_bytes()).body).unwrap();
        let patch = answer["response"]["patch"].as_str().unwrap_or_else(|| panic!("denied: {answer}"));
        String::from_utf8(STANDARD.decode_to_vec(patch).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_last_good_configuration_decides_also_on_pods_that_were_seen_before() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("config.yaml");
        let write = |host: &str, rest: &str| {
            let vault = format!("providers: {{v: {{type: vault, address: 'https://{host}', role: web}}}}");
            let fresh = directory.path().join("fresh");
            fs::write(&fresh, format!("image: registry/hushpod:1\ndefaultProvider: v\n{vault}\n{rest}\n")).unwrap();
            fs::rename(&fresh, &file).unwrap();
        };
        write("one.example", "");
        let registry = Registry::default();
        let reloading = Reloading::open(&file).unwrap();
        let review = reloading.review();
        tokio::spawn(reloading.follow(Metrics::new(registry.clone())));
        let counted = async |outcome: &str| {
            let series = format!("hushpod_config_reload_total{{outcome=\"{outcome}\"}} 1\n");
            let seen = async {
                while !registry.to_string().contains(&series) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap_or_else(|_| panic!("no {series}"));
        };
        assert!(patch(&review).contains("one.example"));

        write("two.example", "madeUp: 1");
        counted("error").await;
        assert!(patch(&review).contains("one.example"), "the last good one stays");

        write("three.example", "");
        counted("ok").await;
        let decided = patch(&review);
        assert!(decided.contains("three.example") && !decided.contains("one.example"), "{decided}");
    }
}
