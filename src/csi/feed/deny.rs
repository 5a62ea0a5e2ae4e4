//! What the operator's `deny` rules stop of a feed that runs.

use std::collections::BTreeMap;

use super::Feed;
use crate::config::Config;
use crate::csi::attached::denial;
use crate::plan::Plan;

// === impl Feed ===

impl Feed {
    /// Another configuration is in force: what it refuses is neither read nor renewed from now on, and what it refuses no
    /// more is read at once. Files that are there stay.
    pub(super) fn judge(&mut self) {
        let config = self.config.borrow_and_update().clone();
        let plan = self.volumes.first().map(|attached| &attached.record.plan);
        let denied = plan.map(|plan| refused_by(plan, &config)).unwrap_or_default();
        self.set_denied(denied);
    }

    pub(super) fn set_denied(&mut self, denied: BTreeMap<String, String>) {
        if denied == self.denied {
            return;
        }
        self.denied = denied;
        if self.denied.is_empty() {
            self.source.refresh_now();
        } else {
            // Others of its identity wait for a login that will not be.
            if std::mem::take(&mut self.is_first) {
                self.logins.pass();
            }
            self.refuse(&denial(&self.denied));
        }
        for attached in &mut self.volumes {
            let _in = attached.span.clone().entered();
            attached.deny(&self.denied, &*self.around);
        }
        self.note_failing();
    }
}

/// What the operator's rules refuse of a plan that was made before, in a sentence for each provider.
pub(super) fn refused_by(plan: &Plan, config: &Config) -> BTreeMap<String, String> {
    let mut refused = BTreeMap::new();
    for (request, denial) in plan.refused(config) {
        refused.entry(request.provider.clone()).or_insert_with(|| denial.to_string());
    }
    refused
}
