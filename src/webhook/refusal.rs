//! Why a pod is denied.

use crate::annotations::AnnotationError;
use crate::parse_error::ParseError;
use crate::plan::PlanError;
use crate::steps::OverBudget;

/// Why a pod is denied, in one sentence for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An annotation cannot be understood.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// The bundle cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The pod itself stands in the way.
    #[error("{0}")]
    Pod(String),
}

// === impl Refusal ===

impl Refusal {
    /// What stands in the way, in a word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Annotation(_) => "annotation",
            Self::Plan(PlanError { is_denied: true, .. }) => "policy",
            Self::Plan(_) => "plan",
            Self::Pod(_) => "pod",
        }
    }

    /// Whether the operator's rules are against it, and not its form.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Plan(error) if error.is_denied)
    }
}

impl From<OverBudget> for Refusal {
    fn from(spent: OverBudget) -> Self {
        Self::Pod(spent.to_string())
    }
}

impl From<ParseError> for Refusal {
    fn from(problem: ParseError) -> Self {
        Self::Pod(problem.to_string())
    }
}
