//! Everything that is tested through public seams, in one binary.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test ends with a panic, says on stderr why it was skipped, and takes literals as they are"
)]

mod agent;
mod alerts;
mod arrows;
mod authorities;
mod chart;
mod chart_values;
mod check;
mod contract;
mod demo;
mod environments;
mod fakes;
mod fleet;
mod homonyms;
mod hostile;
mod house;
mod krew;
mod literals;
mod local;
mod log;
mod man;
mod migration;
mod pages;
mod plans;
mod proto;
mod readme;
mod sizing;
mod sources;
mod storm;
mod style;
mod tree;
mod values;
mod webhook;
