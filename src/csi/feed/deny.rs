//! What the operator's `deny` rules stop of a feed that runs.

use super::Feed;
use crate::csi::attached::denial;
use crate::report::Denial;

// === impl Feed ===

impl Feed {
    /// Another configuration is in force: what it refuses is neither read nor renewed from now on, and what it refuses no
    /// more is read at once. Files that are there stay.
    pub(super) fn judge(&mut self) {
        let config = self.config.borrow_and_update().clone();
        let denied = self.volumes.first().and_then(|attached| attached.record.plan.denied(&config));
        self.set_denied(denied);
    }

    pub(super) fn set_denied(&mut self, denied: Option<Denial>) {
        if denied == self.denied {
            return;
        }
        self.denied = denied;
        if let Some(failure) = self.denied.as_ref().map(denial) {
            // Others of its identity wait for a login that will not be.
            if std::mem::take(&mut self.is_first) {
                self.logins.pass();
            }
            self.refuse(&failure);
        } else {
            self.source.refresh_now();
        }
        for attached in &mut self.volumes {
            let _in = attached.span.clone().entered();
            attached.deny(self.denied.clone(), &*self.around);
        }
        self.note_failing();
    }
}
