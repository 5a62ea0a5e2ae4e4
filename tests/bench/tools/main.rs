//! What `tests/bench/run` measures with: a load of admission requests, the floor under any webhook, a store.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is what the driver reads")]

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

mod floor;
mod load;
mod store;

// As in `hushpod`: the floor is the same server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
enum Cli {
    /// Sends admission requests over TLS connections that are kept, and prints how long the answers took
    Load(load::Args),
    /// Serves one answer to whatever is asked, with the webhook's own server
    Floor(floor::Args),
    /// A store that speaks Vault's protocol over TLS, until its standard input is closed
    Store(store::Args),
}

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // An error says that one is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let outcome = match cli {
        Cli::Load(args) => load::run(&args),
        Cli::Floor(args) => floor::run(args),
        Cli::Store(args) => store::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
