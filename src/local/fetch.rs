//! One question to all stores of a plan, for as long as a person waits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::error::{LocalError, LocalFailure};
use super::output::patiently;
use crate::annotations::variable_of;
use crate::contract::CA_PATH;
use crate::generation::Generation;
use crate::plan::{Plan, PlannedItem};
use crate::provider::TokenSource;
use crate::reference::Request;
use crate::secret::SecretValue;
use crate::sentence::list;
use crate::source::{Event, Source, SourceFailure, connect};

/// What other stores have to say is waited for so long, once one has said that something is not there.
const OTHERS: Duration = Duration::from_secs(1);

/// What failed last, by provider and request.
type Failures = BTreeMap<(String, Option<Request>), SourceFailure>;

/// A variable's name, or a file's path.
pub(super) fn name_of(item: &PlannedItem) -> &str {
    let path = item.target.path().as_str();
    variable_of(path).unwrap_or(path)
}

/// A source for a plan. `tokens` are shown to the providers of their names.
///
/// # Errors
/// One sentence that names the provider whose settings are of no use.
pub(super) fn source_of(plan: &Plan, tokens: &BTreeMap<String, SecretValue>) -> Result<Source, LocalError> {
    let token_of = |name: &str| TokenSource::Channel(watch::channel(tokens.get(name).cloned()).1);
    let providers = connect(plan, token_of, Path::new(CA_PATH))
        .map_err(|failed| LocalError::of_store(&failed.provider, &failed.error))?;
    Ok(Source::new(plan, providers))
}

/// Asks until everything is there, or something certainly is not, or `timeout` is over. A store on this machine that has
/// failed for a second is not waited for.
///
/// # Errors
/// All that is missing, together, with the names of the variables and files that want it.
pub(super) async fn fetch(source: &mut Source, plan: &Plan, timeout: Duration) -> Result<Generation, LocalError> {
    let names: Vec<_> = plan.providers.keys().map(String::as_str).collect();
    patiently(&names, answer(source, plan, timeout)).await
}

async fn answer(source: &mut Source, plan: &Plan, timeout: Duration) -> Result<Generation, LocalError> {
    let mut until = Instant::now() + timeout;
    let mut failures = Failures::new();
    let mut failing_here: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let event = tokio::select! {
            event = source.next() => event,
            () = sleep_until(until) => break,
        };
        match event {
            Event::Changed(generation) => return Ok(generation),
            Event::Unchanged | Event::Silent => {}
            Event::Failed(failed) => {
                let here = failed.iter().filter(|failure| is_here(plan, &failure.provider));
                let mut since = here.map(|it| *failing_here.entry(it.provider.clone()).or_insert_with(Instant::now));
                let has_had_time = since.any(|since| since.elapsed() >= OTHERS);
                failures.extend(failed.into_iter().map(|it| ((it.provider.clone(), it.request.clone()), it)));
                let refused = failures.values().filter(|failure| failure.error.kind.is_permanent());
                let refused: BTreeSet<_> = refused.map(|failure| &failure.provider).collect();
                if has_had_time || refused.len() == plan.providers.len() {
                    break;
                }
                if !refused.is_empty() {
                    until = until.min(Instant::now() + OTHERS);
                }
            }
        }
    }
    Err(describe(plan, &failures, timeout))
}

/// Whether a store is on this machine: a file that is not there now, or half written, a person has to put right.
fn is_here(plan: &Plan, provider: &str) -> bool {
    plan.providers.get(provider).is_some_and(|planned| !planned.settings.as_settings().is_remote())
}

/// All failures, each with the names that it is about; what no waiting would change comes first.
fn describe(plan: &Plan, failures: &Failures, timeout: Duration) -> LocalError {
    let is_final = failures.values().any(|failure| failure.error.kind.is_permanent());
    let counts = |failure: &&SourceFailure| failure.error.kind.is_permanent() || !is_final;
    // A login that is refused is refused to every request: one line.
    let mut lines: BTreeMap<(&str, &str), Vec<&SourceFailure>> = BTreeMap::new();
    for failure in failures.values().filter(counts) {
        lines.entry((&failure.provider, &failure.error.message)).or_default().push(failure);
    }
    let mut errors: Vec<_> = lines.into_values().filter_map(|alike| line(plan, &alike)).collect();
    errors.sort_by(|a, b| a.names.cmp(&b.names));
    if !errors.is_empty() {
        if !is_final {
            for error in &mut errors {
                error.kind = LocalFailure::Unreachable;
            }
        }
        return LocalError::all(errors);
    }
    let names: Vec<_> = plan.providers.keys().map(String::as_str).collect();
    let waited = format!("no answer within {} s from {}", timeout.as_secs_f64(), list(&names));
    LocalError::new(LocalFailure::Unreachable, waited).with_hint("raise --timeout, or look whether the store is up")
}

/// What failed alike, in one sentence.
fn line(plan: &Plan, alike: &[&SourceFailure]) -> Option<LocalError> {
    let first = alike.first()?;
    let requests = alike.iter().filter_map(|failure| failure.request.as_ref());
    let mut names: Vec<_> = requests.flat_map(|request| names_of(plan, request)).collect();
    names.sort();
    names.dedup();
    let mut error = LocalError::of_store(&first.provider, &first.error);
    if let ([SourceFailure { request: Some(request), error: answer, .. }], true) = (alike, !names.is_empty()) {
        error.problem = format!("{request}: {}", &*answer.message);
    }
    if !names.is_empty() {
        error.problem.insert_str(0, &format!("{}: ", names.join(", ")));
    }
    Some(error.about(names))
}

/// What wants a request's answer.
pub(super) fn names_of(plan: &Plan, request: &Request) -> Vec<String> {
    let wants = |item: &&PlannedItem| item.from.references().any(|take| take.request == *request);
    plan.items.iter().filter(wants).map(|item| name_of(item).to_owned()).collect()
}
