//! The operator's configuration.

/// Operator configuration (placeholder while the tree is laid out).
#[derive(Debug, Clone, Default)]
pub struct Config {}
