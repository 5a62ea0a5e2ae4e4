//! `hushpod`: webhook, CSI driver, demo, and `kubectl hushpod`.

use std::path::PathBuf;
use std::process::ExitCode;

use hushpod::cli;
use hushpod::serve::workers;
use tokio::runtime::Builder;

// An admission is many small allocations: with this one it takes a quarter less time than with libc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Every TLS connection of this process uses one provider; a second one must not slip in by a dependency's default.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let name = words.next().map(PathBuf::from).and_then(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    let name = name.unwrap_or_default();
    let cli = match cli::prepare(&name) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // What a person waits for is over before other threads would have begun.
    let mut runtime = match &cli {
        Some(cli) if cli.is_of_a_person() => Builder::new_current_thread(),
        _ => {
            let mut runtime = Builder::new_multi_thread();
            runtime.worker_threads(workers());
            runtime
        }
    };
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            match cli {
                Some(cli) => cli::run(cli).await,
                None => cli::run_as_plugin(&name, words.collect()).await,
            }
        }),
        Err(_) => ExitCode::FAILURE,
    }
}
