//! A store for the agent: the test suite's own Vault, over TLS.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

#[path = "../../integration/fakes"]
#[allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "written for the integration tests"
)]
mod fakes {
    pub(crate) mod server;
    pub(crate) mod tls;
    pub(crate) mod vault;
}

use fakes::vault::{FakeVault, ROOT};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write the authority's certificate
    #[arg(long)]
    ca: PathBuf,
}

/// Prints where it listens and its root token.
pub(crate) fn run(args: &Args) -> super::Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let store = runtime.block_on(FakeVault::start());
    fs::write(&args.ca, &store.certificates.ca)?;
    println!("{}", json!({"address": format!("https://{}", store.address), "token": ROOT}));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
