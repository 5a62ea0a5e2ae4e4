//! Everything that is tested through public seams, in one binary.

mod agent;
mod readme;
mod webhook;
