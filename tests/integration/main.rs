//! Everything that is tested through public seams, in one binary.

mod agent;
mod arrows;
mod chart;
mod contract;
mod readme;
mod tree;
mod webhook;
