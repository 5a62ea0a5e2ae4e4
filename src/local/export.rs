//! `hushpod export`: variables as shells, tools and CI systems read them.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;

use super::arguments::{ExportArgs, ExportFormat};
use super::error::LocalError;
use super::files::NamedValues;
use super::github;
use super::output::{check_terminal, emit, tell_unmasked};
use super::private_file::random_hex;
use super::wanted::WantedSecrets;
use crate::secret::SecretValue;

mod quoted;

use quoted::encode;

/// Where GitHub's runner reads the variables of later steps.
const GITHUB_ENV: &str = "GITHUB_ENV";

/// Writes the variables.
///
/// # Errors
/// Every value that the format cannot hold, together; nothing is written then.
pub(super) async fn export(args: ExportArgs) -> Result<(), LocalError> {
    let ExportArgs { format, output, show, variables, stores, copies } = args;
    // Masks are the only thing that GitHub's format prints, and only where there is a runner to take them.
    let target = match (format, &output) {
        (ExportFormat::Github, None) => Some(github_env()?),
        _ => None,
    };
    check_terminal(output.as_deref(), show)?;
    let found = WantedSecrets::read(&stores, &variables.variables)?.caching(copies).variables(&variables).await?;
    if format != ExportFormat::Github {
        return emit(output.as_deref(), encode(format, &found)?.expose());
    }
    let written = github::assignments(&found, &random_hex(16).map_err(|error| LocalError::failed(error.to_string()))?)?;
    mask(&found)?;
    match target {
        None => emit(output.as_deref(), written.expose()),
        Some(path) => {
            append(&path, &written).map_err(|error| LocalError::failed(format!("{}: {}", path.display(), error.kind())))
        }
    }
}

fn github_env() -> Result<PathBuf, LocalError> {
    let path = env::var_os(GITHUB_ENV).filter(|path| !path.is_empty()).map(PathBuf::from);
    path.ok_or_else(|| {
        LocalError::usage(format!("{GITHUB_ENV} is not set: this format is for a step of GitHub Actions, or -o FILE"))
    })
}

/// Tells GitHub's runner what to hide, before anything can show it.
fn mask(found: &NamedValues) -> Result<(), LocalError> {
    let (masks, unmasked) = github::masks(found);
    emit(None, masks.expose())?;
    tell_unmasked(&unmasked);
    Ok(())
}

/// Other steps' variables are in it, too.
fn append(path: &PathBuf, written: &SecretValue) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(written.expose())
}
