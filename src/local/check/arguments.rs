//! The command line of `hushpod check`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::Identity;
use crate::local::error::ErrorArgs;
use crate::parse_error::{ParseError, rule};
use crate::quantity::parse_duration;

/// What is asked for.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files, directories or - for standard input [default: the working directory]; with --as, references
    #[arg(value_name = "FILE|DIR|-|REFERENCE")]
    pub(super) targets: Vec<PathBuf>,
    /// The operator's configuration, alone or in the chart's values: it is checked, and manifests by it
    #[arg(long, env = "HUSHPOD_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Ask the stores for every reference, with your login
    #[arg(long, conflicts_with = "identity")]
    pub(super) live: bool,
    /// The profile of .hushpod.yaml, with --live
    #[arg(long, short = 'p', env = "HUSHPOD_PROFILE", value_name = "NAME")]
    pub(super) profile: Option<String>,
    /// How long stores may take, with --live
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
    /// The namespace of manifests that say none
    #[arg(long, short = 'n', value_name = "NAME", default_value = "default")]
    pub(super) namespace: String,
    /// Labels of namespaces, for rules that ask for them
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = pair, value_delimiter = ',', requires = "config")]
    pub(super) namespace_labels: Vec<(String, String)>,
    /// Say which rule lets this one have the references
    #[arg(long = "as", value_name = "NAMESPACE/ACCOUNT", requires = "config", requires = "targets")]
    pub(super) identity: Option<Identity>,
    /// A role that it asks for by annotation
    #[arg(long = "role", value_name = "PROVIDER=ROLE", value_parser = pair, requires = "identity")]
    pub(super) roles: Vec<(String, String)>,
    /// How it is told
    #[arg(long, short = 'o', value_name = "FORMAT", default_value = "text")]
    pub(super) output: CheckFormat,
    #[command(flatten)]
    pub(crate) errors: ErrorArgs,
}

/// Who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CheckFormat {
    /// file:line:column: sentence
    Text,
    /// One object
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// ::error and ::warning lines for a workflow of GitHub
    Github,
}

fn pair(text: &str) -> Result<(String, String), ParseError> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or_else(|| rule("expected NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}
