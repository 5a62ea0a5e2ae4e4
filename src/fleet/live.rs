//! `--live`: what agents say at this moment. Executed in tenants' pods alone, in our own container; never in the driver's,
//! where every executed program is root on the node.

use futures_util::StreamExt as _;
use futures_util::stream;
use kube::api::AttachParams;
use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::connect::{AT_A_TIME, Cluster, in_time};
use super::error::{FleetError, said};
use super::inventory::PodStatus;
use super::our_pod::OurPod;
use super::progress::ProgressLine;
use crate::contract::{AGENT, LIVE, SECRETS_PATH};
use crate::options::Mode;

/// Bytes that an agent may say.
const MOST: u64 = 64 * 1024;

/// What an agent says.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Live {
    pub(super) uid: String,
    /// The agent's own JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Asks the agents of these pods.
pub(super) async fn ask(cluster: &Cluster, statuses: &[PodStatus], progress: &mut ProgressLine) -> Vec<Live> {
    let pods: Vec<_> = statuses.iter().map(|status| status.pod.clone()).collect();
    let pods: Vec<_> = pods.into_iter().filter(|pod| pod.is_live() && pod.mode != Mode::Csi).collect();
    let all = pods.len();
    let mut answers = stream::iter(pods)
        .map(|pod| async move {
            let answer = ask_one(cluster, &pod).await;
            let (status, problem) = match answer {
                Ok(status) => (Some(status), None),
                Err(error) => (None, Some(error.to_string())),
            };
            Live { uid: pod.uid, status, problem }
        })
        .buffer_unordered(AT_A_TIME);
    let mut live = Vec::new();
    while let Some(answer) = answers.next().await {
        live.push(answer);
        progress.at(live.len(), all, "agents asked");
    }
    live
}

async fn ask_one(cluster: &Cluster, pod: &OurPod) -> Result<Value, FleetError> {
    let params = AttachParams::default().container(pod.agent()).stderr(false);
    let live = format!("{SECRETS_PATH}/{LIVE}");
    let command = [AGENT, "status", "--json", "--files", &live];
    let api = cluster.pods_in(&pod.namespace);
    let answer = in_time(async {
        let mut process = api.exec(&pod.name, command, &params).await?;
        let mut bytes = Vec::new();
        if let Some(out) = process.stdout() {
            out.take(MOST).read_to_end(&mut bytes).await.map_err(|error| kube::Error::Service(error.into()))?;
        }
        process.abort();
        Ok(bytes)
    });
    let bytes = answer.await.map_err(|error| FleetError::Failed(said(&error)))?;
    serde_json::from_slice(&bytes)
        .map_err(|_| FleetError::Failed("the agent's answer is not what was expected".to_owned()))
}

// === impl Live ===

impl Live {
    /// In a cell.
    pub(super) fn shown(&self) -> String {
        let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
        match (&self.status, &self.problem) {
            (Some(status), _) => {
                let processes = status["processes"].as_array().map_or(&[][..], Vec::as_slice);
                let running: Vec<_> = processes.iter().take(8).map(|process| text(&process["generation"])).collect();
                let running = if running.is_empty() { String::new() } else { format!(", runs {}", running.join(" ")) };
                format!("{}{running}", text(&status["newest"]))
            }
            (None, problem) => problem.clone().unwrap_or_default(),
        }
    }
}
