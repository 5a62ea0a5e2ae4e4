//! `hold`, `release`, `pin`, `refresh`, `advance`: annotations of running pods, some at a time, until reports say that it
//! is done. What is to be done follows from annotations and reports alone, so a command that was interrupted goes on when
//! it is typed again.

use std::process::ExitCode;

use super::arguments::{ControlArgs, TargetArgs};
use super::connect::Cluster;
use super::error::FleetError;
use super::order::Wish;
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
    let ControlArgs { target, dry_run, max, pause, timeout } = args;
    if target.names.is_empty() && target.selector.is_none() {
        return Err(FleetError::Usage(
            "say which pods: their names, a workload such as deploy/web, or -l SELECTOR".to_owned(),
        ));
    }
    let found = select::pods(cluster, &target).await?;
    let all = inventory::look(cluster, found.pods, progress).await;
    progress.end();
    let (pods, left_out): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|status| status.pod.is_live() && !status.pod.has_ended());
    let say = |text: String| write(format!("{text}\n").as_bytes());
    if !left_out.is_empty() {
        let are = counted_with(left_out.len(), "pod", "is", "are");
        say(format!("{are} left out: ended, being deleted, or with nothing of ours that runs (mode init)"))?;
    }
    if pods.is_empty() {
        return Err(FleetError::Failed(format!("no pod to tell: {}", nobody(&target, &cluster.namespace))));
    }
    let order = wish.order(&pods, progress)?;
    let (done, mut todo): (Vec<_>, Vec<_>) = pods.into_iter().partition(|status| order.is_done(&status.reports));
    // What was begun is ended first; else in an order that is the same each time.
    todo.sort_by_key(|status| !order.is_asked(&status.pod));
    let at_a_time = max.of(done.len() + todo.len());
    say(order.summary(&done, &todo, at_a_time))?;
    for (workload, annotations) in &found.templates {
        say(next_pods::sentence(&order, workload, annotations))?;
    }
    if dry_run {
        for (number, batch) in todo.chunks(at_a_time).enumerate() {
            let names: Vec<_> = batch.iter().map(|status| status.pod.shown_from(&cluster.namespace)).collect();
            say(format!("{}: {}", number + 1, names.join(" ")))?;
        }
        say("nothing was changed (--dry-run)".to_owned())?;
        return Ok(ExitCode::SUCCESS);
    }
    let pods = todo.into_iter().map(|status| status.pod).collect();
    let waves = Waves { cluster, order: &order, at_a_time, pause, timeout };
    let WavesEnded { done: now_done, gone } = waves.run(pods, progress).await?;
    let gone = match gone {
        0 => String::new(),
        1 => ", 1 is gone".to_owned(),
        _ => format!(", {gone} are gone"),
    };
    say(format!("done: {}{gone}", counted(done.len() + now_done, "pod")))?;
    Ok(ExitCode::SUCCESS)
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
