//! `hushpod get`: one value, byte by byte.

use super::arguments::GetArgs;
use super::error::LocalError;
use super::output::{check_terminal, emit};
use super::wanted::WantedSecrets;
use crate::bundle::{Bundle, Item, Target, parse_reference};
use crate::secret::SecretValue;

/// What the value is called where a file needs a name.
const NAME: &str = "value";

/// Prints or writes it.
///
/// # Errors
/// What is missing or refused.
pub(super) async fn get(args: GetArgs) -> Result<(), LocalError> {
    let GetArgs { reference, output, show, stores, copies } = args;
    check_terminal(output.as_deref(), show)?;
    let mut wanted = WantedSecrets::read(&stores, &[])?.caching(copies);
    wanted.bundle = one(&reference)?;
    let value = fetched(&wanted).await.map_err(|error| named(error, &reference))?;
    emit(output.as_deref(), value.expose())
}

fn one(reference: &str) -> Result<Bundle, LocalError> {
    let usage = |error: &dyn std::fmt::Display| LocalError::usage(error.to_string());
    let parsed = parse_reference(reference).map_err(|error| usage(&error))?;
    let target = NAME.parse().map(Target::File).map_err(|error| usage(&error))?;
    let mut bundle = Bundle::default();
    bundle.push(Item::short("REF", target, parsed)).map_err(|error| usage(&error))?;
    Ok(bundle)
}

async fn fetched(wanted: &WantedSecrets) -> Result<SecretValue, LocalError> {
    let files = wanted.fetch().await?.files(&|_| false)?.files;
    let file = files.into_iter().next().ok_or_else(|| LocalError::failed("the store answered nothing"))?;
    Ok(file.bytes)
}

/// The error is about the reference, which is all that was typed.
fn named(error: LocalError, reference: &str) -> LocalError {
    let problem = error.problem.as_str();
    let rest =
        [format!("{NAME}: "), format!("file {NAME}: ")].iter().find_map(|own| problem.strip_prefix(own.as_str()));
    let problem = rest.unwrap_or(problem).to_owned();
    LocalError { problem, ..error }.about(vec![reference.to_owned()])
}
