//! The admission webhook.

pub mod access;
pub mod containers;
pub mod mounts;
pub mod mutate;
pub mod patch;
pub mod review;
