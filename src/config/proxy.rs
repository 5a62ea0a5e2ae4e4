//! The operator's settings for proxies: for one provider, or for all.

use super::error::ConfigError;
use crate::provider::http::Proxy;

/// Checked; each field may be missing.
#[derive(Debug, Clone, Default)]
pub(super) struct ProxyFields {
    /// Or [`Proxy::NONE`].
    url: Option<String>,
    no_proxy: Option<Vec<String>>,
}

// === impl ProxyFields ===

impl ProxyFields {
    /// # Errors
    /// [`ConfigError`] names the field.
    pub(super) fn checked(url: Option<String>, no_proxy: Option<Vec<String>>) -> Result<Self, ConfigError> {
        url.as_deref().map_or(Ok(()), Proxy::check_url).map_err(ConfigError::at(".proxy"))?;
        Proxy::check_exceptions(no_proxy.as_deref().unwrap_or_default()).map_err(ConfigError::at(".noProxy"))?;
        Ok(Self { url, no_proxy })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.url.is_none() && self.no_proxy.is_none()
    }

    /// These, and where they are silent, those for all; `None` if nobody says anything about a proxy.
    pub(super) fn or(self, all: &Self) -> Option<Proxy> {
        let url = self.url.or_else(|| all.url.clone())?;
        let no_proxy = self.no_proxy.or_else(|| all.no_proxy.clone()).unwrap_or_default();
        Some(Proxy { url: Some(url).filter(|url| url != Proxy::NONE), no_proxy })
    }
}
