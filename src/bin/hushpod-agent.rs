//! The agent that lives in pods.

use std::process::ExitCode;

fn main() -> ExitCode {
    hushpod::agent::cli::main()
}
