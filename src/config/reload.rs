//! The operator's configuration, read again when its file changes: a bad one keeps the last good one and says why.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::metrics::ConfigMetrics;
use super::{Config, ConfigFaults};
use crate::bounded_read::{BoundedReadError, read_text};
use crate::metrics::Registry;
use crate::process::watch::{Watch, WatchError};

/// Bytes of a configuration: a ConfigMap has at most 1 MiB.
const MAX_BYTES: usize = 4 << 20;

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read.
    #[error("{} {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: BoundedReadError,
    },
    /// It says something that cannot be.
    #[error("{}", faults.of_file(path))]
    Config {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        #[source]
        faults: ConfigFaults,
    },
    /// Its directory cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// A configuration file, and what is made of its last good content.
#[derive(Debug)]
pub struct Reloading<T> {
    path: PathBuf,
    watch: Watch,
    /// As it was read first.
    text: String,
    config: Config,
    make: fn(Config) -> T,
    current: watch::Sender<Arc<T>>,
    /// What is wrong with the file as it is now: told once.
    refused: Option<String>,
}

// === impl Reloading ===

impl<T> Reloading<T> {
    /// Reads the file; the first time it has to be good.
    ///
    /// # Errors
    /// [`ReloadError`] names the file, or the fields in it.
    pub fn open(path: &Path, make: fn(Config) -> T) -> Result<Self, ReloadError> {
        let (text, config) = read(path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // ConfigMap volumes are swapped by a link in the directory: a watch on the file would die with the first swap.
        let watch = Watch::directory(directory)?;
        warn_of(&config);
        let current = watch::Sender::new(Arc::new(make(config.clone())));
        Ok(Self { path: path.to_owned(), watch, text, config, refused: None, make, current })
    }

    /// What is made of the last good configuration, now and later.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<T>> {
        self.current.subscribe()
    }

    /// Follows the file for ever, and shows in `registry` what it finds.
    pub async fn follow(mut self, registry: &Registry) {
        let metrics = ConfigMetrics::new(registry, &self.text);
        loop {
            self.watch.changed().await;
            self.look(&metrics);
        }
    }

    fn look(&mut self, metrics: &ConfigMetrics) {
        let refused = self.refused.take();
        match read(&self.path) {
            Ok((text, config)) if config == self.config => metrics.unchanged(&text),
            Ok((text, config)) => {
                warn_of(&config);
                self.config = config.clone();
                self.current.send_replace(Arc::new((self.make)(config)));
                metrics.loaded(&text);
                info!(path = %self.path.display(), "the new configuration is in force");
            }
            Err(error) => {
                let faults = error.to_string();
                // Whatever else changes in the directory, our own log perhaps, wakes us, too.
                if refused.as_ref() != Some(&faults) {
                    metrics.refused();
                    // One line for each fault, so none is cut.
                    faults.lines().for_each(|line| warn!("{line}"));
                    warn!(path = %self.path.display(), "keeping the last good configuration");
                }
                self.refused = Some(faults);
            }
        }
    }
}

fn warn_of(config: &Config) {
    for warning in config.warnings() {
        warn!("{warning}");
    }
}

fn read(path: &Path) -> Result<(String, Config), ReloadError> {
    let text =
        read_text(File::open(path), MAX_BYTES).map_err(|cause| ReloadError::Read { path: path.to_owned(), cause })?;
    match Config::read(&text) {
        Ok(config) => Ok((text, config)),
        Err(faults) => Err(ReloadError::Config { path: path.to_owned(), faults }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_bad_file_is_refused_once_whatever_else_changes_beside_it() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("config.yaml");
        fs::write(&file, "image: i").unwrap();
        let registry = Registry::default();
        let mut reloading = Reloading::open(&file, |config| config).unwrap();
        let metrics = ConfigMetrics::new(&registry, &reloading.text);
        for (text, refused) in [
            ("image: [", 1),
            ("image: [", 1),
            ("madeUp: 1", 2),
            ("madeUp: 1", 2),
            ("image: i", 2),
            ("madeUp: 1", 3),
            ("image: other", 3),
            ("madeUp: 1", 4),
        ] {
            fs::write(&file, text).unwrap();
            reloading.look(&metrics);
            let series = format!("hushpod_config_reload_total{{outcome=\"error\"}} {refused}\n");
            assert!(registry.to_string().contains(&series), "{text}: {registry}");
        }
    }
}
