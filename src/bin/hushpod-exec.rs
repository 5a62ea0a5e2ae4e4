//! `hushpod-agent exec` and nothing else: what is copied into applications' containers, so small, and readable.

use std::process::ExitCode;

fn main() -> ExitCode {
    hushpod::exec::main(std::env::args_os().skip(1))
}
