//! Some pods at a time: told, waited for, looked at again, then the next ones.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use tokio::time::{Instant, sleep};

use super::connect::{AT_A_TIME, Cluster, in_time};
use super::error::{FleetError, is_missing};
use super::inventory::{self, PodStatus};
use super::order::Order;
use super::our_pod::OurPod;
use super::progress::ProgressLine;
use super::safe::shown;
use super::table::{now, state};
use crate::report::line::ReportLine;
use crate::sentence::counted_with;

/// Between two looks at the reports: at first, and at most. A report comes within a second or two.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Pods that a sentence names.
const MOST_NAMED: usize = 5;
/// A driver's clock may be another than ours.
const CLOCKS: i64 = 60;

/// How many pods are told at a time, and waited for.
pub(super) struct Waves<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) order: &'a Order,
    pub(super) at_a_time: usize,
    pub(super) pause: Duration,
    pub(super) timeout: Duration,
}

/// What became of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WavesEnded {
    pub(super) done: usize,
    pub(super) gone: usize,
}

// === impl Waves ===

impl Waves<'_> {
    /// All of them, batch by batch.
    ///
    /// # Errors
    /// The first batch that is not done in time, or has pods that are not ready any more: the rest stays as it is.
    pub(super) async fn run(&self, pods: Vec<OurPod>, progress: &mut ProgressLine) -> Result<WavesEnded, FleetError> {
        let all = pods.len();
        let mut ended = WavesEnded::default();
        let mut batches = pods.chunks(self.at_a_time.max(1)).peekable();
        while let Some(batch) = batches.next() {
            let told = self.tell(batch).await?;
            ended.gone += batch.len() - told.len();
            let before = ended.done;
            let WavesEnded { done, gone } = self
                .wait(told.clone(), |done| {
                    progress.at(before + done, all, "pods report that it is done");
                })
                .await?;
            ended.done += done;
            ended.gone += gone;
            let is_last = batches.peek().is_none();
            if !is_last && !self.pause.is_zero() {
                sleep(self.pause).await;
            }
            if self.order.changes_files() {
                self.are_ready(&told, is_last).await?;
            }
        }
        progress.end();
        Ok(ended)
    }

    /// Annotates the pods; those that are gone are left out.
    async fn tell(&self, batch: &[OurPod]) -> Result<Vec<OurPod>, FleetError> {
        let mut patches = stream::iter(batch.to_vec())
            .map(|pod| async move {
                if self.order.is_asked(&pod) {
                    return (pod, Ok(()));
                }
                let api = self.cluster.pods_in(&pod.namespace);
                let patch = Patch::Merge(self.order.patch(&pod));
                let told = in_time(api.patch(&pod.name, &PatchParams::default(), &patch)).await;
                (pod, told.map(drop))
            })
            .buffer_unordered(AT_A_TIME);
        let mut told = Vec::new();
        while let Some((pod, outcome)) = patches.next().await {
            match outcome {
                Ok(()) => told.push(pod),
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    let pod = pod.shown_from(&self.cluster.namespace);
                    return Err(FleetError::of_api(&format!("pod {pod} cannot be told, so no further one is"), &error));
                }
            }
        }
        Ok(told)
    }

    /// Until the reports of all of them say that it is done.
    async fn wait(&self, pods: Vec<OurPod>, mut count: impl FnMut(usize)) -> Result<WavesEnded, FleetError> {
        let start = Instant::now();
        let mut ended = WavesEnded::default();
        let mut left = pods;
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause.min(self.timeout)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let seconds = i64::try_from(start.elapsed().as_secs()).unwrap_or(i64::MAX).saturating_add(CLOCKS);
            let mut silent = ProgressLine::silent();
            let statuses = inventory::look_at(self.cluster, std::mem::take(&mut left), seconds, &mut silent).await;
            let mut behind = Vec::new();
            for status in statuses {
                if self.order.is_done(&status) {
                    ended.done += 1;
                } else {
                    behind.push(status);
                }
            }
            // What went meanwhile, or is on its way, reports no more, or will report nothing new.
            let mut looks = stream::iter(behind)
                .map(|status| async move { (self.is_gone(&status.pod).await, status) })
                .buffer_unordered(AT_A_TIME);
            let mut behind = Vec::new();
            while let Some((is_gone, status)) = looks.next().await {
                if is_gone {
                    ended.gone += 1;
                } else {
                    behind.push(status);
                }
            }
            drop(looks);
            count(ended.done);
            if behind.is_empty() {
                return Ok(ended);
            }
            let refuse = behind.iter().filter(|status| self.order.is_refused(&status.reports));
            let mut refuse: Vec<_> = refuse.map(|status| status.pod.shown_from(&self.cluster.namespace)).collect();
            if !refuse.is_empty() {
                refuse.sort();
                return Err(FleetError::Failed(format!(
                    "cannot go back to that generation: {}; their logs say why (pin_refused)",
                    named(&refuse)
                )));
            }
            if start.elapsed() >= self.timeout {
                return Err(self.not_in_time(&behind));
            }
            left = behind.into_iter().map(|status| status.pod).collect();
        }
    }

    async fn is_gone(&self, pod: &OurPod) -> bool {
        matches!(self.present(pod).await, Ok(None))
    }

    /// The same pod as it is now, if there is one.
    async fn present(&self, pod: &OurPod) -> kube::Result<Option<OurPod>> {
        let found: kube::Result<Pod> = in_time(self.cluster.pods_in(&pod.namespace).get(&pod.name)).await;
        match found {
            Ok(found) => Ok(OurPod::of(&found).filter(|found| found.uid == pod.uid && !found.has_ended())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pods that were ready are to be so again before others are touched.
    async fn are_ready(&self, told: &[OurPod], is_last: bool) -> Result<(), FleetError> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let mut looks = stream::iter(told.iter().filter(|pod| pod.is_ready).cloned().collect::<Vec<_>>())
                .map(|pod| async move { (self.present(&pod).await, pod) })
                .buffer_unordered(AT_A_TIME);
            let mut unready = Vec::new();
            while let Some((present, pod)) = looks.next().await {
                let present = present.map_err(|error| FleetError::of_api("pods cannot be looked at", &error))?;
                if present.is_some_and(|present| !present.is_ready) {
                    unready.push(pod.shown_from(&self.cluster.namespace));
                }
            }
            drop(looks);
            if unready.is_empty() {
                return Ok(());
            }
            if start.elapsed() >= self.timeout {
                unready.sort();
                let rest = if is_last { "" } else { "; the rest stays as it is: type the same again to go on" };
                return Err(FleetError::Stopped(format!("not ready any more: {}{rest}", named(&unready))));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn not_in_time(&self, behind: &[PodStatus]) -> FleetError {
        let none = ReportLine::default();
        let mut names: Vec<_> = behind
            .iter()
            .map(|status| {
                let report = status.reports.first().unwrap_or(&none);
                let pod = status.pod.shown_from(&self.cluster.namespace);
                format!("{pod} ({})", shown(&state(status, report, now()), 200))
            })
            .collect();
        names.sort();
        FleetError::NotInTime(format!(
            "{} not reported within {} s that it is done: {}; type the same again to go on",
            counted_with(behind.len(), "pod", "has", "have"),
            self.timeout.as_secs(),
            named(&names)
        ))
    }
}

/// A pod of that name has another UID, or there is none.
fn is_gone(error: &kube::Error) -> bool {
    is_missing(error) || matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn named(names: &[String]) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let mut text = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}
