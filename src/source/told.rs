//! What of a source's work is told as accesses: logins, and what was read, or in vain.

use crate::audit::{AuditLog, AuditOutcome};
use crate::generation::Access;
use crate::provider::{ErrorKind, ProviderError, Version};
use crate::reference::Request;

/// The accesses of one provider.
#[derive(Clone, Copy)]
pub(super) struct ToldAccesses<'a> {
    pub(super) audit: &'a AuditLog,
    /// The provider's name.
    pub(super) provider: &'a str,
    /// The role that is asked for.
    pub(super) role: Option<&'a str>,
}

fn outcome_of(kind: ErrorKind) -> AuditOutcome {
    match kind {
        ErrorKind::NotFound => AuditOutcome::NotFound,
        ErrorKind::Denied => AuditOutcome::Denied,
        ErrorKind::Invalid => AuditOutcome::Invalid,
        ErrorKind::Throttled { .. } => AuditOutcome::Throttled,
        ErrorKind::Unavailable => AuditOutcome::Unavailable,
    }
}

// === impl ToldAccesses ===

impl ToldAccesses<'_> {
    /// Logins, in their order. The error of the last one, if it failed: what is answered with it was never asked for.
    pub(super) fn logins(self, tried: Vec<Result<(), ProviderError>>) -> Option<ProviderError> {
        let mut last = None;
        for login in tried {
            let outcome = login.as_ref().map_or_else(|error| outcome_of(error.kind), |()| AuditOutcome::Ok);
            self.audit.login(self.provider, self.role, outcome);
            last = login.err();
        }
        last
    }

    /// Values that came.
    pub(super) fn read(self, request: &Request, version: Option<&Version>, is_new: bool) -> Option<Access> {
        self.audit.read(request, version, is_new)
    }

    /// Values that did not, unless there was no login to ask for them with.
    pub(super) fn failed(self, request: &Request, error: &ProviderError, failed_login: Option<&ProviderError>) {
        if failed_login != Some(error) {
            self.audit.read_failed(request, outcome_of(error.kind));
        }
    }
}
