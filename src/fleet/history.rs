//! `history`: the generations that a pod had, as far back as the log goes that has its reports.

use kube::Api;
use kube::ResourceExt as _;

use super::arguments::{HistoryArgs, OutputFormat, TargetArgs};
use super::connect::Cluster;
use super::error::{FleetError, said};
use super::inventory;
use super::logs::{LogPart, reports};
use super::our_pod::OurPod;
use super::safe::shown;
use super::select;
use super::table::{age, aligned, now, pretty};
use crate::options::Mode;
use crate::report::line::{HeldSecret, ReportLine};

/// How far back the driver's log is read.
const DRIVER_SECONDS: i64 = 7 * 24 * 3600;
/// Secrets that a line names.
const MOST_SECRETS: usize = 4;

/// The history of one pod.
pub(super) async fn of(cluster: &Cluster, asked: &HistoryArgs) -> Result<String, FleetError> {
    let HistoryArgs { pod, output } = asked;
    let target = TargetArgs { names: vec![pod.clone()], selector: None, all_namespaces: false };
    let found = select::pods(cluster, &target).await?;
    if !found.templates.is_empty() {
        let names: Vec<_> = found.pods.iter().map(|pod| shown(&pod.name_any(), 253)).take(8).collect();
        let names = if names.is_empty() { "none now".to_owned() } else { names.join(", ") };
        return Err(FleetError::Usage(format!("a history is of one pod: those of {} are {names}", shown(pod, 253))));
    }
    let pod = found.pods.iter().find_map(OurPod::of).ok_or_else(|| FleetError::Failed("no such pod".to_owned()))?;
    let lines = changes(all_reports(cluster, &pod).await?);
    if *output == Some(OutputFormat::Json) {
        return Ok(pretty(&lines));
    }
    if lines.is_empty() {
        return Ok(format!("no report in the log of {}\n", pod.agent()));
    }
    Ok(table(&lines, now()))
}

async fn all_reports(cluster: &Cluster, pod: &OurPod) -> Result<Vec<ReportLine>, FleetError> {
    let failed = |error: &kube::Error| FleetError::Failed(format!("the log cannot be read: {}", said(error)));
    if pod.mode == Mode::Csi {
        let driver = inventory::driver_of(cluster, pod).await?;
        let api: Api<_> = cluster.pods_in(&driver.namespace().unwrap_or_default());
        let lines = reports(&api, &driver.name_any(), pod.agent(), LogPart::Since(DRIVER_SECONDS)).await;
        let lines = lines.map_err(|error| failed(&error))?;
        return Ok(lines.into_iter().filter(|line| line.pod.uid.as_ref() == Some(&pod.uid)).collect());
    }
    let api = cluster.pods_in(&pod.namespace);
    // Most containers were never started anew, and then there is none.
    let mut lines = reports(&api, &pod.name, pod.agent(), LogPart::Previous).await.unwrap_or_default();
    let present = reports(&api, &pod.name, pod.agent(), LogPart::LongEnd).await;
    lines.extend(present.map_err(|error| failed(&error))?);
    Ok(lines)
}

/// The first report of each generation, of each volume.
fn changes(lines: Vec<ReportLine>) -> Vec<ReportLine> {
    let mut kept: Vec<ReportLine> = Vec::new();
    for line in lines.into_iter().filter(|line| line.generation.is_some()) {
        let before = kept.iter().rfind(|before| before.volume == line.volume);
        if before.is_none_or(|before| before.generation != line.generation || before.since != line.since) {
            kept.push(line);
        }
    }
    kept
}

fn table(lines: &[ReportLine], now: i64) -> String {
    let mut rows = vec![["SINCE", "AGE", "GENERATION", "WHY", "SECRETS"].map(str::to_owned).to_vec()];
    for (index, line) in lines.iter().enumerate() {
        let before = lines.get(..index).into_iter().flatten().rfind(|before| before.volume == line.volume);
        let why = match line {
            ReportLine { pinned: Some(_), .. } => "pin",
            ReportLine { advance: Some(asked), held: true, .. } if asked.done => "advance",
            _ => "newest",
        };
        rows.push(vec![
            line.since.clone().unwrap_or_default(),
            age(line.since.as_deref(), now),
            line.generation.as_ref().map(|id| id.0.clone()).unwrap_or_default(),
            why.to_owned(),
            differences(before.map_or(&[][..], |before| &before.secrets), &line.secrets),
        ]);
    }
    aligned(&rows)
}

/// What is another version than before.
fn differences(before: &[HeldSecret], after: &[HeldSecret]) -> String {
    let name = |secret: &HeldSecret| match (&secret.version, secret.lease) {
        (Some(version), _) => version.clone(),
        (None, true) => "lease".to_owned(),
        (None, false) => "no version".to_owned(),
    };
    let changed: Vec<_> = after
        .iter()
        .filter_map(|secret| {
            let earlier = before.iter().find(|earlier| earlier.reference == secret.reference);
            match earlier {
                Some(earlier) if earlier == secret && !secret.lease => None,
                Some(earlier) => Some(format!("{} {} to {}", secret.reference, name(earlier), name(secret))),
                None => Some(format!("{} {}", secret.reference, name(secret))),
            }
        })
        .collect();
    let more = changed.len().saturating_sub(MOST_SECRETS);
    let mut words: Vec<_> = changed.into_iter().take(MOST_SECRETS).collect();
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::GenerationId;

    fn line(id: &str, since: &str, version: &str) -> ReportLine {
        let secret = HeldSecret { reference: "vault:a".into(), version: Some(version.into()), ..HeldSecret::default() };
        ReportLine {
            generation: Some(GenerationId(id.into())),
            since: Some(since.into()),
            secrets: vec![secret],
            ..ReportLine::default()
        }
    }

    #[test]
    fn each_generation_is_told_once_with_what_it_changed() {
        let (one, two) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        let back = ReportLine { pinned: Some(GenerationId("g1".into())), ..line("g1", "2026-01-01T02:00:00Z", "1") };
        let lines = changes(vec![
            ReportLine::default(),
            line("g1", one, "1"),
            ReportLine { held: true, ..line("g1", one, "1") },
            line("g2", two, "2"),
            line("g2", two, "2"),
            back,
        ]);
        let now = super::super::table::seconds("2026-01-01T03:00:00Z").unwrap();
        assert_eq!(
            table(&lines, now).lines().collect::<Vec<_>>(),
            [
                "SINCE                 AGE  GENERATION  WHY     SECRETS",
                "2026-01-01T00:00:00Z  3h   g1          newest  vault:a 1",
                "2026-01-01T01:00:00Z  2h   g2          newest  vault:a 1 to 2",
                "2026-01-01T02:00:00Z  60m  g1          pin     vault:a 2 to 1",
            ]
        );
    }
}
