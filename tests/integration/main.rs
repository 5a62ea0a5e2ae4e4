//! Everything that is tested through public seams, in one binary.

mod agent;
mod contract;
mod readme;
mod webhook;

/// Stores, in process.
mod fakes {
    pub mod vault;
}
