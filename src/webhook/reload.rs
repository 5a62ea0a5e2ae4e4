//! The operator's configuration, read again when its file changes: a bad one keeps the last good one and says why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::mutate::Injector;
use super::{Metrics, Review, review};
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
        Ok(Self { path: path.to_owned(), watch, current: watch::Sender::new(Arc::new(Injector::new(config))) })
    }

    /// Decides by whatever configuration is the last good one at that moment.
    #[must_use]
    pub fn review(&self) -> Review {
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

fn read(path: &Path) -> Result<Config, ReloadError> {
    let text = std::fs::read_to_string(path).map_err(|cause| ReloadError::Read { path: path.to_owned(), cause })?;
    Ok(Config::from_yaml(&text)?)
}
