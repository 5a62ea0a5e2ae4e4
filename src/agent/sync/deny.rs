//! What the operator's `deny` stops of an agent that runs: `hushpod.dev/deny` of its pod, which `kubectl hushpod deny`
//! sets.

use super::SyncLoop;
use crate::agent::error::AgentError;
use crate::report::Denial;

// === impl SyncLoop ===

impl SyncLoop {
    /// The annotation is there, or gone: what is denied is neither read nor renewed from now on, and what is denied no
    /// more is read at once. Files that are there stay.
    ///
    /// # Errors
    /// [`AgentError::Denied`], if there are none: nothing would bring them.
    pub(super) fn judge(&mut self) -> Result<(), AgentError> {
        let rules = self.controls.denied();
        let report = self.delivery.report_mut();
        if report.denied.as_ref().map(|denied| denied.rules.as_str()) != rules {
            let denied = rules.map(|rules| {
                let why = AgentError::Denied(rules.to_owned()).to_string();
                let providers = self.providers.iter().map(|provider| (provider.clone(), why.clone())).collect();
                Denial { rules: rules.to_owned(), providers }
            });
            report.note_denied(denied);
            if !self.is_denied() {
                self.note_failing();
                self.source.refresh_now();
            }
        }
        match &self.delivery.report().denied {
            Some(Denial { rules, .. }) if !self.delivery.is_open() => Err(AgentError::Denied(rules.clone())),
            _ => Ok(()),
        }
    }

    pub(super) fn is_denied(&self) -> bool {
        self.delivery.report().denied.is_some()
    }
}
