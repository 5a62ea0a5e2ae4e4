//! `hushpod check`: all that is wrong with manifests, an operator's configuration and `.hushpod.yaml`, each with its
//! place; and which of the operator's rules lets whom have what. Only `--live` asks anybody.

use std::path::PathBuf;

use super::error::LocalError;
use super::source_file::SourceFile;
use super::wanted::working_directory;
use crate::config::NamespaceLabels;

pub(super) mod arguments;
mod files;
mod findings;
mod live;
mod manifests;
mod operator;
mod projects;
mod tell;

use arguments::CheckArgs;
use files::{FileKind, FoundFile};
use findings::{Checked, FindingKind};
use live::LiveCheck;
use manifests::CheckedBy;
use operator::Asking;

/// Checks what is named, and tells all that is wrong: the exit code says whether something is.
///
/// # Errors
/// One sentence, if a file cannot be read; or what the stores say, where that is no fault of a file.
pub(super) async fn check(args: CheckArgs) -> Result<u8, LocalError> {
    let output = args.output;
    let (mut checked, unanswered) = checked(args).await?;
    checked.sort();
    tell::print(output, &checked)?;
    match unanswered {
        // What is certain counts.
        Some(error) if checked.is_fine() => Err(error),
        _ => Ok(u8::from(!checked.is_fine())),
    }
}

async fn checked(args: CheckArgs) -> Result<(Checked, Option<LocalError>), LocalError> {
    let CheckArgs { targets, config: operator, live, profile, timeout, namespace, namespace_labels, .. } = args;
    let labels = if namespace_labels.is_empty() {
        NamespaceLabels::Unknown("say them with --namespace-labels".into())
    } else {
        NamespaceLabels::known(namespace_labels.into_iter().collect())
    };
    let mut checked = Checked::default();
    let config = operator.as_deref().map(SourceFile::read).transpose()?.and_then(|file| {
        checked.files += 1;
        operator::check(&file, &mut checked)
    });
    if let Some(identity) = args.identity {
        if let Some(config) = &config {
            let asking = Asking::new(identity, labels, args.roles);
            checked.answers = asking.answers(&targets, config)?;
            checked.rules = operator.unwrap_or_default().display().to_string();
        }
        return Ok((checked, None));
    }
    let is_whole = targets.is_empty() && operator.is_none();
    let targets = if is_whole {
        // One that was removed looks empty.
        working_directory()?;
        vec![PathBuf::from(".")]
    } else {
        targets
    };
    let listed = files::list(&targets)?;
    let mut live = live.then(|| LiveCheck::new(operator.as_deref(), profile.as_deref(), timeout));
    let mut by = CheckedBy::new(config, namespace, labels)?;
    for one in &listed {
        by.learn(one);
    }
    for one in &listed {
        one_file(one, &by, &mut live, &mut checked)?;
    }
    let unanswered = match live {
        Some(live) => live.ask(&mut checked).await?,
        None => None,
    };
    Ok((checked, unanswered))
}

fn one_file(
    listed: &FoundFile,
    by: &CheckedBy,
    live: &mut Option<LiveCheck>,
    checked: &mut Checked,
) -> Result<(), LocalError> {
    let Some(file) = listed.read(checked)? else { return Ok(()) };
    let kind = FileKind::of(&file, listed.is_named());
    checked.files += usize::from(!matches!(kind, FileKind::Other(_)));
    match kind {
        FileKind::Manifest(documents) => manifests::check(&file, documents, by, live.as_mut(), checked),
        FileKind::Operator => drop(operator::check(&file, checked)),
        FileKind::Project => projects::check(&file, live.as_mut(), checked),
        FileKind::Malformed(fault) => checked.fault(&file, FindingKind::Yaml, fault),
        FileKind::Other(None) => {}
        FileKind::Other(Some(why)) => checked.warn(&file, FindingKind::Skipped, file.fault("", why)),
    }
    Ok(())
}
