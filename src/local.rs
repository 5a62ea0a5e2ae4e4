//! Commands for a person's machine and for CI jobs, where there is no cluster.

pub mod check;
