//! `who`: which pods hold a secret now, by their reports, or ever had it, by audit lines.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use serde_json::json;

use super::arguments::{OutputFormat, TargetArgs, WhoArgs};
use super::audit_file::{self, Accesses};
use super::connect::Cluster;
use super::denial;
use super::error::FleetError;
use super::inventory::{self, PodStatus};
use super::progress::ProgressLine;
use super::select;
use super::table::{age, aligned, now, pretty};
use crate::config::{Config, Identity};
use crate::plan::PlannedReference;
use crate::plan::policy::Refusals;
use crate::report::line::{HeldSecret, ReportLine};
use crate::sentence::counted_with;

/// What is asked for.
#[derive(Debug)]
enum Question<'a> {
    /// A secret, at whatever version or at one.
    Secret { reference: &'a str, version: Option<&'a str> },
    /// Whatever the operator's refusals are about.
    Denied(Box<Config>),
}

/// One secret that a pod holds.
struct Holding<'a> {
    status: &'a PodStatus,
    report: &'a ReportLine,
    secret: &'a HeldSecret,
    /// The place of the refusal that it is about.
    rule: Option<usize>,
}

/// Who has it.
pub(super) async fn answer(
    cluster: &Cluster,
    asked: &WhoArgs,
    progress: &mut ProgressLine,
) -> Result<String, FleetError> {
    let WhoArgs { all_namespaces, output, .. } = asked;
    let question = Question::of(asked)?;
    let is_json = *output == Some(OutputFormat::Json);
    let target = TargetArgs { names: Vec::new(), selector: None, all_namespaces: *all_namespaces };
    let found = select::pods(cluster, &target).await?;
    let statuses = inventory::look(cluster, found.pods, progress).await;
    progress.end();
    let problems: Vec<_> = statuses.iter().filter_map(|status| status.problem.as_deref()).collect();
    let cut = statuses.iter().filter(|status| question.may_be_left_out(status)).count();
    if let Some(first) = problems.first() {
        let have = counted_with(problems.len(), "pod", "has", "have");
        progress.say(&format!("{have} no report that can be read ({first}): nobody knows what is there"));
    }
    if cut > 0 {
        let hold = counted_with(cut, "pod", "holds", "hold");
        progress.say(&format!("{hold} more secrets than a report names: this one may be among them"));
    }
    let holders: Vec<_> = statuses.iter().flat_map(|status| question.holders(status)).collect();
    if is_json {
        let pods = holders.iter().map(|Holding { status, report, secret, rule }| {
            let mut pod = json!({
                "namespace": status.pod.namespace, "name": status.pod.name, "uid": status.pod.uid, "since": report.since,
                "generation": report.generation, "reference": secret.reference, "version": secret.version,
            });
            if let (Some(rule), Some(fields)) = (rule, pod.as_object_mut()) {
                fields.insert("rule".to_owned(), json!(rule));
            }
            pod
        });
        let pods: Vec<_> = pods.collect();
        return Ok(pretty(&json!({"schema": 1, "pods": pods, "without_report": problems.len(), "maybe": cut})));
    }
    if holders.is_empty() {
        let what = if matches!(question, Question::Denied(_)) { "what is denied" } else { "it" };
        return Ok(format!("no pod reports that it holds {what}\n"));
    }
    let now = now();
    let mut head = ["NAMESPACE", "POD", "REFERENCE", "VERSION", "SINCE"].map(str::to_owned).to_vec();
    head.extend(matches!(question, Question::Denied(_)).then(|| "RULE".to_owned()));
    let mut rows = vec![head];
    rows.extend(holders.iter().map(|Holding { status, report, secret, rule }| {
        let version = secret.version.clone().unwrap_or_else(|| "-".to_owned());
        let PodStatus { pod, .. } = status;
        let since = age(report.since.as_deref(), now);
        let mut row = vec![pod.namespace.clone(), pod.name.clone(), secret.reference.clone(), version, since];
        row.extend(rule.map(|rule| format!("deny[{rule}]")));
        row
    }));
    Ok(aligned(&rows))
}

/// Who ever had it, by the audit lines of a file: no cluster is asked.
pub(super) fn ever(asked: &WhoArgs) -> Result<String, FleetError> {
    let question = Question::of(asked)?;
    let is_json = asked.output == Some(OutputFormat::Json);
    let file = asked.from_audit.as_deref().unwrap_or(Path::new("-"));
    let is_wanted = |reference: &str, version: Option<&str>| question.is_about(reference, version);
    let found = if file == Path::new("-") {
        audit_file::read(io::stdin().lock(), is_wanted)?
    } else {
        let opened =
            File::open(file).map_err(|error| FleetError::Usage(format!("{}: {}", file.display(), error.kind())))?;
        audit_file::read(BufReader::new(opened), is_wanted)?
    };
    if is_json {
        let pods = found.iter().map(|(access, Accesses { first, last, count })| {
            json!({
                "namespace": access.namespace, "name": access.pod, "uid": access.uid, "reference": access.reference,
                "version": access.version, "first": first, "last": last, "count": count,
            })
        });
        return Ok(pretty(&json!({"schema": 1, "pods": pods.collect::<Vec<_>>()})));
    }
    if found.is_empty() {
        return Ok("no line tells of it\n".to_owned());
    }
    let head = ["NAMESPACE", "POD", "REFERENCE", "VERSION", "FIRST", "LAST", "DELIVERIES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(found.into_iter().map(|(access, Accesses { first, last, count })| {
        let version = access.version.unwrap_or_else(|| "-".to_owned());
        vec![access.namespace, access.pod, access.reference, version, first, last, count.to_string()]
    }));
    Ok(aligned(&rows))
}

// === impl Question ===

impl<'a> Question<'a> {
    /// What part of the answer is taken is nobody's business here.
    fn of(asked: &'a WhoArgs) -> Result<Self, FleetError> {
        let WhoArgs { reference, version, denied_by, .. } = asked;
        let Some(file) = denied_by else {
            let reference = reference.as_deref().unwrap_or_default().split('#').next().unwrap_or_default();
            return Ok(Self::Secret { reference, version: version.as_deref() });
        };
        let config = denial::configuration(file)?;
        if config.deny.is_empty() {
            return Err(FleetError::Usage(format!("{} has no deny, so it refuses nothing", file.display())));
        }
        Ok(Self::Denied(Box::new(config)))
    }
}

impl Question<'_> {
    /// Whether a secret by this name and at this version is meant.
    fn is_about(&self, reference: &str, held: Option<&str>) -> bool {
        let Self::Secret { reference: asked, version } = self else { return false };
        let is_wanted = |wanted: &str| {
            // Vault's have the time at which they were made behind them: a path that was deleted begins at 1 again.
            held.is_some_and(|held| held == wanted || held.split('@').next() == Some(wanted))
        };
        version.is_none_or(is_wanted) && is_reference(asked, reference)
    }

    fn holders<'a>(&self, status: &'a PodStatus) -> Vec<Holding<'a>> {
        let of_report = |report: &'a ReportLine| -> Vec<Holding<'a>> {
            let held = |secret: &'a HeldSecret, rule| Holding { status, report, secret, rule };
            let Self::Denied(config) = self else {
                let secrets = report.secrets.iter();
                let is_asked = |secret: &&HeldSecret| self.is_about(&secret.reference, secret.version.as_deref());
                return secrets.filter(is_asked).map(|secret| held(secret, None)).collect();
            };
            let refused = refused(config, &status.pod.namespace, report).into_iter();
            refused.map(|(secret, rule)| held(secret, Some(rule))).collect()
        };
        status.reports.iter().flat_map(of_report).collect()
    }

    fn may_be_left_out(&self, status: &PodStatus) -> bool {
        status.reports.iter().any(|report| report.secrets_left_out > 0) && self.holders(status).is_empty()
    }
}

/// What a report names and the operator's refusals are about: each with the place of its rule.
pub(super) fn refused<'a>(config: &Config, namespace: &str, report: &'a ReportLine) -> Vec<(&'a HeldSecret, usize)> {
    let identity = Identity { namespace: namespace.to_owned(), service_account: report.pod.account.clone() };
    let refusals = Refusals::of(&config.deny, &identity);
    let refused = report.secrets.iter().filter_map(|secret| {
        let taken = PlannedReference::try_from(secret.reference.clone()).ok()?;
        Some((secret, refusals.rule(&taken.request)?))
    });
    refused.collect()
}

/// Without a provider any provider's is meant, without parameters any that has some.
fn is_reference(asked: &str, reference: &str) -> bool {
    let without_params = |text: &str| text.split('?').next().unwrap_or_default().to_owned();
    let path = reference.split_once(':').map_or(reference, |(_, path)| path);
    [reference, path]
        .into_iter()
        .any(|known| known == asked || (!asked.contains('?') && without_params(known) == asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_about_a_reference_by_provider_path_and_parameters() {
        for (asked, version, reference, held, expected) in [
            ("vault:secret/data/db", None, "vault:secret/data/db", Some("3"), true),
            ("secret/data/db", None, "vault:secret/data/db", Some("3"), true),
            ("vault:secret/data/db", Some("3"), "vault:secret/data/db", Some("3"), true),
            ("vault:secret/data/db", Some("3"), "vault:secret/data/db", Some("3@2026-11-28T22:21:04Z"), true),
            ("vault:secret/data/db", Some("3"), "vault:secret/data/db", Some("30@2026-11-28T22:21:04Z"), false),
            ("vault:secret/data/db", Some("4"), "vault:secret/data/db", Some("3"), false),
            ("vault:secret/data/db", Some("4"), "vault:secret/data/db", None, false),
            ("other:secret/data/db", None, "vault:secret/data/db", None, false),
            ("secret/data", None, "vault:secret/data/db", None, false),
            ("/app", None, "infisical:/app?env=prod", None, true),
            ("infisical:/app?env=prod", None, "infisical:/app?env=prod", None, true),
            ("infisical:/app?env=dev", None, "infisical:/app?env=prod", None, false),
            ("arn:aws:x", None, "aws:arn:aws:x", None, true),
        ] {
            let question = Question::Secret { reference: asked, version };
            assert_eq!(question.is_about(reference, held), expected, "{asked} {reference}");
        }
    }
}
