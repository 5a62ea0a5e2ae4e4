//! Everything that is tested through public seams, in one binary.

mod contract;

/// Stores, in process.
mod fakes {
    pub mod vault;
}
