//! `hold`, `release`, `pin`, `refresh`, `advance`: annotations of running pods, some at a time, until reports say that it
//! is done. What is to be done follows from annotations and reports alone, so a command that was interrupted goes on when
//! it is typed again.

use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;

use super::arguments::{ControlArgs, TargetArgs};
use super::connect::Cluster;
use super::error::FleetError;
use super::inventory::PodStatus;
use super::order::{Order, Wish};
use super::out::write;
use super::progress::ProgressLine;
use super::safe::shown;
use super::waves::{Waves, WavesEnded};
use super::{inventory, next_pods, select};
use crate::sentence::{counted, counted_with};

/// Does it.
pub(super) async fn run(
    cluster: &Cluster,
    wish: Wish,
    args: ControlArgs,
    progress: &mut ProgressLine,
) -> Result<ExitCode, FleetError> {
    let target = &args.target;
    if target.names.is_empty() && target.selector.is_none() {
        return Err(FleetError::Usage(
            "say which pods: their names, a workload such as deploy/web, or -l SELECTOR".to_owned(),
        ));
    }
    let found = select::pods(cluster, target).await?;
    let pods = look(cluster, found.pods, progress).await?;
    if pods.is_empty() {
        return Err(FleetError::Failed(format!("no pod to tell: {}", nobody(target, &cluster.namespace))));
    }
    let order = wish.order(&pods, progress)?;
    let next: Vec<_> =
        found.templates.iter().map(|(workload, known)| next_pods::sentence(&order, workload, known)).collect();
    carry_out(cluster, &order, pods, &next, &args, progress).await
}

/// Those of the pods that something could be told, and what they report.
pub(super) async fn look(
    cluster: &Cluster,
    pods: Vec<Pod>,
    progress: &mut ProgressLine,
) -> Result<Vec<PodStatus>, FleetError> {
    let all = inventory::look(cluster, pods, progress).await;
    progress.end();
    let (pods, left_out): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|status| status.pod.is_live() && !status.pod.has_ended());
    if !left_out.is_empty() {
        let are = counted_with(left_out.len(), "pod", "is", "are");
        say(&format!("{are} left out: ended, being deleted, or with nothing of ours that runs (mode init)"))?;
    }
    Ok(pods)
}

/// Tells these pods, unless it is done, and waits; says first what is about to be done, and what next pods will do.
pub(super) async fn carry_out(
    cluster: &Cluster,
    order: &Order,
    pods: Vec<PodStatus>,
    next: &[String],
    args: &ControlArgs,
    progress: &mut ProgressLine,
) -> Result<ExitCode, FleetError> {
    let ControlArgs { dry_run, max, pause, timeout, .. } = *args;
    let is_done = |status: &PodStatus| order.is_done(status) && order.is_asked(&status.pod);
    let (done, mut todo): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_done);
    // What was begun is ended first; else in an order that is the same each time.
    todo.sort_by_key(|status| !order.is_asked(&status.pod));
    let at_a_time = max.of(done.len() + todo.len());
    say(&order.summary(&done, &todo, at_a_time))?;
    for sentence in next {
        say(sentence)?;
    }
    if dry_run {
        for (number, batch) in todo.chunks(at_a_time).enumerate() {
            let names: Vec<_> = batch.iter().map(|status| order.shown(&status.pod, &cluster.namespace)).collect();
            say(&format!("{}: {}", number + 1, names.join(" ")))?;
        }
        say("nothing was changed (--dry-run)")?;
        return Ok(ExitCode::SUCCESS);
    }
    let pods = todo.into_iter().map(|status| status.pod).collect();
    let waves = Waves { cluster, order, at_a_time, pause, timeout };
    let WavesEnded { done: now_done, gone } = waves.run(pods, progress).await?;
    let gone = match gone {
        0 => String::new(),
        1 => ", 1 is gone".to_owned(),
        _ => format!(", {gone} are gone"),
    };
    say(&format!("done: {}{gone}", counted(done.len() + now_done, "pod")))?;
    Ok(ExitCode::SUCCESS)
}

/// A line for people.
pub(super) fn say(text: &str) -> Result<(), FleetError> {
    write(format!("{text}\n").as_bytes())
}

/// What there is none of, for somebody who mistyped a label or looks in another namespace.
fn nobody(target: &TargetArgs, namespace: &str) -> String {
    let of = match &target.selector {
        Some(selector) => format!("labels {}", shown(selector, 253)),
        None => target.names.iter().map(|name| shown(name, 253)).take(8).collect::<Vec<_>>().join(" "),
    };
    let place = if target.all_namespaces {
        "no namespace".to_owned()
    } else {
        format!("nothing in namespace {}", shown(namespace, 253))
    };
    format!("{place} has running pods with secrets of hushpod for {of}")
}
