//! What `helm test` asks: would a pod with annotations of ours get its secrets in this cluster, and if not, why?
//!
//! The pod is created as a server-side dry run, so all admission is asked and nothing is kept
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run>).

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client, Error};
use serde_json::json;
use tokio::time::timeout;

use super::pod::{LISTS, containers, name_of, runs_agent};
use crate::contract::{MUTATING_WEBHOOK, POLICY, SECRETS_VOLUME};

/// The API server gives a webhook up to 30 s, and others may be asked too.
const PATIENCE: Duration = Duration::from_mins(1);

/// The pod that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Where.
    pub namespace: String,
    /// Whole, with their prefix.
    pub annotations: BTreeMap<String, String>,
    /// For clusters where a label says who is injected.
    pub labels: BTreeMap<String, String>,
}

/// How the API server answered.
enum Answer {
    Pod(Box<Pod>),
    /// Its sentence.
    Refused(String),
    /// There was no answer of the API server's: why.
    None(String),
}

/// Why a pod would not have its secrets, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// Neither the webhook nor the policy was asked.
    #[error(
        "not injected, and would start without its secrets: the webhook is not asked about pods of namespace \
         {namespace:?} (values webhook.excludedNamespaces and webhook.namespaceSelector; before Kubernetes 1.30 the \
         label of webhook.objectSelector), and no policy refuses them (policy.enabled)"
    )]
    PassedBy {
        /// The pod's.
        namespace: String,
    },
    /// The API server has not decided.
    #[error("the API server could not be asked: {0}")]
    NoAnswer(String),
    /// The API server refuses the pod.
    #[error("not injected: {advice}. The API server says: {sentence}")]
    Refused {
        /// What to do.
        advice: &'static str,
        /// The API server's own words.
        sentence: String,
    },
}

// === impl Trial ===

impl Trial {
    /// Asks the API server, and says `Ok` if the pod would have its secrets. Both are one sentence for a person.
    ///
    /// # Errors
    /// [`TrialError`] says why it would not, and what to do.
    pub async fn ask(&self, client: Client) -> Result<String, TrialError> {
        let pods: Api<Pod> = Api::namespaced(client, &self.namespace);
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let answer = match timeout(PATIENCE, pods.create(&dry_run, &self.pod())).await {
            Err(_) => Answer::None(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(Ok(pod)) => Answer::Pod(Box::new(pod)),
            Ok(Err(Error::Api(status))) => Answer::Refused(status.message.clone()),
            Ok(Err(error)) => Answer::None(error.to_string()),
        };
        self.judge(&answer)
    }

    /// One that Pod Security `restricted` admits, and that leaves its uid to the cluster.
    fn pod(&self) -> Pod {
        let pod = json!({
            "metadata": {"generateName": "hushpod-test-", "annotations": self.annotations, "labels": self.labels},
            "spec": {
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "app",
                    "image": "never.invalid/pulled",
                    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        // The form is Kubernetes' own: a test reads it.
        serde_json::from_value(pod).unwrap_or_default()
    }

    fn judge(&self, answer: &Answer) -> Result<String, TrialError> {
        let Self { namespace, .. } = self;
        let sentence = match answer {
            Answer::Pod(pod) if is_injected(pod) => {
                return Ok(format!(
                    "injected: a pod of namespace {namespace:?} with these annotations gets its secrets"
                ));
            }
            Answer::Pod(_) => {
                return Err(TrialError::PassedBy { namespace: namespace.clone() });
            }
            Answer::None(why) => return Err(TrialError::NoAnswer(why.clone())),
            Answer::Refused(sentence) => sentence,
        };
        let has = |words: &[&str]| words.iter().any(|word| sentence.contains(word));
        let of_webhook = |what: &str| has(&[&format!("{what} webhook {MUTATING_WEBHOOK:?}")]);
        let advice = if of_webhook("failed calling") && has(&["x509", "tls:", "certificate"]) {
            "the API server does not trust the webhook: its caBundle is empty or another's (tls.mode self: see the \
             webhook's log; certManager: is the CA injector running?)"
        } else if of_webhook("failed calling") {
            "the API server does not reach the webhook: are its pods ready, and may the control plane connect to \
             webhook.port of them (firewall, NetworkPolicy; hostNetwork where it reaches no pod addresses)?"
        } else if of_webhook("admission") {
            "the operator's configuration does not let this pod have it (config.providers, allow, deny), or test.annotations \
             ask for something else than you meant"
        } else if has(&[&format!("'{POLICY}'"), &format!("{POLICY:?}")]) {
            "the webhook was not asked about this pod, or something took its work away: see webhook.excludedNamespaces, \
             webhook.namespaceSelector, and the cluster's other webhooks"
        } else if has(&["cannot create resource"]) {
            "this test has lost its Role: run it by `helm test`"
        } else if has(&["namespaces "]) && has(&["not found"]) {
            "set test.namespace to one that is there"
        } else {
            "something else in the cluster refuses such pods (quota, Pod Security, another webhook or policy): set \
             test.namespace to one that takes them"
        };
        Err(TrialError::Refused { advice, sentence: sentence.clone() })
    }
}

/// By what the agent runs as or what the driver mounts, as the policy sees it.
fn is_injected(pod: &Pod) -> bool {
    let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
    let has_agent = || LISTS.iter().flat_map(|list| containers(&spec, list)).any(runs_agent);
    let volume = containers(&spec, "volumes").iter().find(|volume| name_of(volume) == SECRETS_VOLUME);
    volume.is_some_and(|volume| volume.get("csi").is_some() || has_agent())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial() -> Trial {
        Trial {
            namespace: "team-a".into(),
            annotations: BTreeMap::from([("hushpod.dev/file.x".into(), "secret/data/x#x".into())]),
            labels: BTreeMap::from([("hushpod.dev/inject".into(), "true".into())]),
        }
    }

    fn pod(spec: &serde_json::Value) -> Answer {
        Answer::Pod(Box::new(serde_json::from_value(json!({"spec": spec})).unwrap()))
    }

    #[test]
    fn the_pod_asks_and_is_restricted() {
        let pod = serde_json::to_value(trial().pod()).unwrap();
        assert_eq!(pod["metadata"]["annotations"], json!({"hushpod.dev/file.x": "secret/data/x#x"}));
        assert_eq!(pod["metadata"]["labels"], json!({"hushpod.dev/inject": "true"}));
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
    }

    #[test]
    fn what_the_pod_became_says_whether_it_was_injected() {
        let app = json!({"name": "app"});
        let agent = json!({"name": "hushpod", "command": ["/hushpod-agent", "sidecar"]});
        let memory = json!({"name": "hushpod-secrets", "emptyDir": {"medium": "Memory"}});
        let driver = json!({"name": "hushpod-secrets", "csi": {"driver": "csi.hushpod.dev"}});
        for (spec, injected) in [
            (json!({"containers": [app], "initContainers": [agent], "volumes": [memory]}), true),
            (json!({"containers": [app, agent], "volumes": [memory]}), true),
            (json!({"containers": [app], "volumes": [driver]}), true),
            (json!({"containers": [app]}), false),
            (json!({"containers": [app], "volumes": [memory]}), false),
            (json!({"containers": [app], "initContainers": [agent]}), false),
        ] {
            assert_eq!(trial().judge(&pod(&spec)).is_ok(), injected, "{spec}");
        }
    }

    #[test]
    fn each_usual_reason_is_told() {
        let calling = r#"Internal error occurred: failed calling webhook "pods.hushpod.dev": failed to call webhook: Post "https://hushpod-webhook.hushpod.svc:443/mutate?timeout=5s": "#;
        for (sentence, part) in [
            (format!("{calling}context deadline exceeded"), "does not reach the webhook"),
            (format!("{calling}dial tcp 10.0.0.7:10250: connect: connection refused"), "does not reach the webhook"),
            (
                r#"Internal error occurred: failed calling webhook "pods.hushpod.dev": failed to call webhook: no endpoints available for service "hushpod-webhook""#.into(),
                "does not reach the webhook",
            ),
            (
                format!("{calling}tls: failed to verify certificate: x509: certificate signed by unknown authority"),
                "does not trust the webhook",
            ),
            (
                r#"admission webhook "pods.hushpod.dev" denied the request: hushpod.dev/file.x: no provider"#.into(),
                "config.providers",
            ),
            (
                "pods \"hushpod-test-x\" is forbidden: ValidatingAdmissionPolicy 'hushpod-pods' with binding \
                 'hushpod-pods' denied request: the pod has annotations of hushpod.dev/, but hushpod does not inject \
                 pods of namespace kube-system"
                    .into(),
                "webhook.excludedNamespaces",
            ),
            (
                r#"pods is forbidden: User "system:serviceaccount:hushpod:hushpod-test" cannot create resource "pods" in API group "" in the namespace "team-a""#.into(),
                "lost its Role",
            ),
            (r#"namespaces "team-a" not found"#.into(), "test.namespace"),
            (r#"pods "hushpod-test-x" is forbidden: exceeded quota: pods"#.into(), "something else"),
            (
                r#"Internal error occurred: failed calling webhook "other.example": x509: bad"#.into(),
                "something else",
            ),
        ] {
            let told = trial().judge(&Answer::Refused(sentence.clone())).unwrap_err().to_string();
            assert!(told.starts_with("not injected: ") && told.contains(part), "{sentence}: {told}");
            assert!(told.ends_with(&sentence), "{told}");
        }
        let started = trial().judge(&pod(&json!({"containers": []}))).unwrap_err().to_string();
        assert!(started.contains("would start without its secrets"), "{started}");
        let none = trial().judge(&Answer::None("no route".into())).unwrap_err();
        assert_eq!(none.to_string(), "the API server could not be asked: no route");
    }
}
