//! `hushpod test`, which `helm test` runs.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cluster;
use crate::parse_error::{ParseError, rule};
use crate::webhook::server::Trial;

const LONG: &str = "\
Ask the API server whether a pod with annotations of ours would get its secrets:
what `helm test` runs.

Examples:
  hushpod test --namespace shop --kubeconfig ~/.kube/config \\
    --annotation hushpod.dev/file.password=secret/data/web/db#password
  hushpod test --namespace shop --label app=web \\
    --annotation hushpod.dev/dir.app=infisical:/backend";
const AFTER: &str = "\
The pod is a server-side dry run: none is made, and no store is asked.

Exit codes: 0 injected; 1 not injected, or there was no asking: why, and what to
do; 2 wrong usage";

#[derive(Debug, Args)]
#[command(
    about = "Ask the API server whether a pod with annotations of ours would get its secrets: what `helm test` runs",
    long_about = LONG,
    after_help = AFTER
)]
pub(super) struct TestArgs {
    /// Where the pod would be.
    #[arg(long, value_name = "NAME")]
    namespace: String,
    /// An annotation of it, such as hushpod.dev/file.password=secret/data/web/db#password.
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = name_and_value, required = true)]
    annotations: Vec<(String, String)>,
    /// A label of it.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = name_and_value)]
    labels: Vec<(String, String)>,
    /// The cluster to ask, if this does not run in it.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

fn name_and_value(text: &str) -> Result<(String, String), ParseError> {
    let (name, value) = text.split_once('=').ok_or_else(|| rule("expected NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn run(args: TestArgs) -> ExitCode {
    let TestArgs { namespace, annotations, labels, kubeconfig } = args;
    let map = |pairs: Vec<(String, String)>| pairs.into_iter().collect::<BTreeMap<_, _>>();
    let trial = Trial { namespace, annotations: map(annotations), labels: map(labels) };
    let outcome = match cluster::client(kubeconfig.as_deref()).await {
        Ok(client) => trial.ask(client).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let is_injected = outcome.is_ok();
    let (Ok(sentence) | Err(sentence)) = outcome;
    // If nobody takes the sentence, the exit code has to do.
    let _ = writeln!(io::stdout(), "{sentence}");
    if is_injected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
