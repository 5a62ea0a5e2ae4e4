//! Everything that is tested through public seams, in one binary.

mod arrows;
mod chart;
mod readme;
mod tree;
mod webhook;
