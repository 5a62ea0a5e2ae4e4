//! Everything that is tested through public seams, in one binary.

mod readme;
mod webhook;
