//! Everything that is tested through public seams, in one binary.

mod arrows;
mod readme;
mod tree;
mod webhook;
