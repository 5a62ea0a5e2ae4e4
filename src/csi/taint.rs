//! The startup taint: a new node has no driver yet, and the scheduler, which does not count inline volumes, sends it pods
//! all the same, whose volumes wait for kubelet's next try. A node that comes with the taint gets none until the driver is
//! there.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

/// Its key. The effect and a value are the operator's.
const KEY: &str = "csi.hushpod.dev/not-ready";
/// Between two tries: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Takes the taint away each time that kubelet has registered the driver: a node that was made anew has it again. Runs for
/// ever.
pub(super) async fn remove_when_registered(client: Client, node: String, mut registrations: watch::Receiver<u64>) {
    let nodes = Api::<Node>::all(client);
    while registrations.changed().await.is_ok() {
        let (mut pause, longest) = PAUSES;
        while let Err(error) = remove(&nodes, &node).await {
            warn!(node, taint = KEY, %error, "the node's startup taint may still be there: no new pods come");
            sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }
}

/// Takes all taints of the key away, and leaves the others as they are.
async fn remove(nodes: &Api<Node>, node: &str) -> Result<(), Box<kube::Error>> {
    // A patch that changes nothing answers with the node: no right to read nodes is needed.
    let present = nodes.patch(node, &PatchParams::default(), &Patch::Merge(json!({}))).await?;
    let taints = present.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let operations = removal(&taints);
    if operations.is_empty() {
        return Ok(());
    }
    let patch =
        serde_json::from_value(Value::Array(operations)).map_err(|error| Box::new(kube::Error::SerdeError(error)))?;
    nodes.patch(node, &PatchParams::default(), &Patch::<Node>::Json(patch)).await?;
    info!(node, taint = KEY, "the node's startup taint is taken away: its pods may come");
    Ok(())
}

/// The operations of a JSON patch, which fails if somebody else has changed the list.
fn removal(taints: &[Taint]) -> Vec<Value> {
    let ours = taints.iter().enumerate().filter(|(_, taint)| taint.key == KEY);
    // From the last on: what follows one that goes moves up.
    let ours = ours.rev().flat_map(|(at, taint)| {
        let path = format!("/spec/taints/{at}");
        [json!({"op": "test", "path": path, "value": taint}), json!({"op": "remove", "path": path})]
    });
    ours.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::{IntoResponse, Response};
    use axum::routing::patch;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    /// An API server with one node, which may be patched and nothing else.
    #[derive(Clone, Default)]
    struct ApiServer(Arc<Mutex<Inner>>);

    #[derive(Default)]
    struct Inner {
        taints: Vec<Value>,
        /// How often it answers 503 from now on.
        failures: u32,
        /// What somebody else adds in front of the list between the next two calls.
        added: Option<Value>,
        patches: u32,
    }

    impl ApiServer {
        fn start(&self) -> (watch::Sender<u64>, JoinHandle<()>) {
            let answer = async |State(server): State<Self>, headers: HeaderMap, body: String| {
                Self::patch(&server, &headers, &body)
            };
            let router = Router::new().route("/api/v1/nodes/n1", patch(answer)).with_state(self.clone());
            let (registrations, told) = watch::channel(0);
            let client = Client::new(router, "default");
            (registrations, tokio::spawn(remove_when_registered(client, "n1".to_owned(), told)))
        }

        fn patch(server: &Self, headers: &HeaderMap, body: &str) -> Response {
            let mut inner = server.0.lock().unwrap();
            inner.patches += 1;
            if inner.failures > 0 {
                inner.failures -= 1;
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
            node["spec"] = json!({"taints": inner.taints});
            if headers["content-type"] == "application/json-patch+json" {
                let patch: json_patch::Patch = serde_json::from_str(body).unwrap();
                if json_patch::patch(&mut node, &patch).is_err() {
                    return StatusCode::UNPROCESSABLE_ENTITY.into_response();
                }
            } else {
                assert_eq!(body, "{}", "it is there to be read");
            }
            inner.taints = node["spec"]["taints"].as_array().unwrap().clone();
            let added = inner.added.take();
            inner.taints.splice(..0, added);
            node.to_string().into_response()
        }

        fn taints(&self) -> Vec<String> {
            let inner = self.0.lock().unwrap();
            inner.taints.iter().map(|taint| format!("{}:{}", taint["key"], taint["effect"]).replace('"', "")).collect()
        }
    }

    fn taint(key: &str, effect: &str) -> Value {
        json!({"key": key, "effect": effect})
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_mins(5), "{what}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_taint_goes_when_the_driver_is_registered_and_no_other_does() {
        let api = ApiServer::default();
        let others = [taint("dedicated", "NoSchedule"), taint("csi.hushpod.dev/not-ready-yet", "NoExecute")];
        let ours = [taint(KEY, "NoSchedule"), taint(KEY, "NoExecute")];
        api.0.lock().unwrap().taints = [&ours[..1], &others[..1], &ours[1..], &others[1..]].concat();
        let (registrations, task) = api.start();
        sleep(Duration::from_mins(1)).await;
        assert_eq!(api.0.lock().unwrap().patches, 0, "before kubelet knows the driver, pods would wait for it");
        registrations.send_modify(|count| *count += 1);
        let left = ["dedicated:NoSchedule", "csi.hushpod.dev/not-ready-yet:NoExecute"];
        until("the taints to go", || api.taints() == left).await;
        // The node is made anew, and kubelet registers the driver again.
        api.0.lock().unwrap().taints = ours.to_vec();
        registrations.send_modify(|count| *count += 1);
        until("the taints of the new node to go", || api.taints().is_empty()).await;
        let patches = api.0.lock().unwrap().patches;
        // One without it is left alone.
        registrations.send_modify(|count| *count += 1);
        until("another look", || api.0.lock().unwrap().patches == patches + 1).await;
        sleep(Duration::from_mins(5)).await;
        assert_eq!(api.0.lock().unwrap().patches, patches + 1);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_again_and_never_takes_away_what_somebody_else_put_there() {
        let api = ApiServer::default();
        {
            let mut inner = api.0.lock().unwrap();
            inner.taints = vec![taint(KEY, "NoSchedule")];
            inner.failures = 4;
            // The list has moved when the second patch comes.
            inner.added = Some(taint("other", "NoSchedule"));
        }
        let (registrations, task) = api.start();
        registrations.send_modify(|count| *count += 1);
        until("the taint to go", || api.taints() == ["other:NoSchedule"]).await;
        task.abort();
    }
}
