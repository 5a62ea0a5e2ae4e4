//! Why a call fails, as kubelet is told: in our own words, since it becomes an event of the pod, and goes into etcd.

use tonic::{Code, Status};

use super::budget::OverLimit;
use crate::provider::ErrorKind;
use crate::sentence::{fitting, one_line};

/// Why a call fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub(super) struct CallFailure {
    /// What kubelet makes of it.
    pub(super) kind: FailureKind,
    sentence: String,
}

/// Kinds of failure. kubelet takes a volume for uncertain, and takes it away when the pod goes, only after those that are
/// not final (`IsCSIFinalError`); after the others it forgets the volume, so nothing of it may be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The request makes no sense. Final.
    Invalid,
    /// The cluster is not set up for it. Final.
    Precondition,
    /// A store has no such secret. Final.
    NotFound,
    /// A store, or a rule of the operator, refuses it. Final.
    Denied,
    /// The first files are not there yet.
    Waiting,
    /// There is no room.
    Exhausted,
    /// The pod goes, and waits for nothing any more.
    PodGone,
}

/// Bytes of a sentence: what an event takes.
const MOST: usize = 900;

// === impl CallFailure ===

impl CallFailure {
    pub(super) fn new(kind: FailureKind, sentence: impl AsRef<str>) -> Self {
        Self { kind, sentence: fitting(&one_line(sentence.as_ref()), MOST).into_owned() }
    }

    pub(super) fn invalid(sentence: impl AsRef<str>) -> Self {
        Self::new(FailureKind::Invalid, sentence)
    }
}

impl From<OverLimit> for CallFailure {
    fn from(over: OverLimit) -> Self {
        Self::new(FailureKind::Exhausted, over.to_string())
    }
}

impl From<CallFailure> for Status {
    fn from(CallFailure { kind, sentence }: CallFailure) -> Self {
        Self::new(kind.code(), sentence)
    }
}

// === impl FailureKind ===

impl FailureKind {
    /// Of what a store refuses for good.
    pub(super) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::Throttled { .. } | ErrorKind::Unavailable => Self::Waiting,
        }
    }

    /// Whether kubelet forgets the volume.
    pub(super) fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Exhausted | Self::PodGone)
    }

    fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::Precondition => Code::FailedPrecondition,
            Self::NotFound => Code::NotFound,
            Self::Denied => Code::PermissionDenied,
            Self::Waiting => Code::Unavailable,
            Self::Exhausted => Code::ResourceExhausted,
            Self::PodGone => Code::Aborted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_forgets_after_final_codes_alone() {
        use FailureKind::*;
        // https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/volume/csi/csi_client.go, isFinalError
        let not_final =
            [Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable, Code::ResourceExhausted, Code::Aborted];
        for kind in [Invalid, Precondition, NotFound, Denied, Waiting, Exhausted, PodGone] {
            assert_eq!(kind.is_final(), !not_final.contains(&kind.code()), "{kind:?}");
        }
        let status = Status::from(CallFailure::invalid("é\n".repeat(1000)));
        assert!(status.message().len() <= MOST && !status.message().contains('\n'), "{status}");
    }
}
