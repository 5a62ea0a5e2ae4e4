//! The CSI driver on nodes: `hushpod csi`, without what the webhook and people need.

use std::process::ExitCode;

fn main() -> ExitCode {
    hushpod::csi::cli::main()
}
