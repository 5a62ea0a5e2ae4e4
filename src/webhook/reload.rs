//! Reviews by whatever configuration is the last good one.

use std::sync::Arc;

use super::answer::Reviewer;
use super::mutate::Injector;
use super::review;
use crate::cluster::namespaces::Namespaces;
use crate::config::reload::Reloading;

/// Decides by whatever configuration is the last good one at that moment, and by what is known of namespaces then.
#[must_use]
pub fn reviewer(reloading: &Reloading<Injector>, namespaces: Namespaces) -> Reviewer {
    let current = reloading.subscribe();
    Arc::new(move |body| {
        let injector = Arc::clone(&current.borrow());
        review::answer_by(body, &injector, &|namespace| namespaces.now(namespace))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::time::Duration;

    use base64_simd::STANDARD;
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::config::{Config, NamespaceLabels};
    use crate::metrics::Registry;

    /// The patch for a pod that is the same each time.
    fn patch(review: &Reviewer) -> String {
        let answer: Value = serde_json::from_slice(&review(&request()).body).unwrap();
        let patch = answer["response"]["patch"].as_str().unwrap_or_else(|| panic!("denied: {answer}"));
        String::from_utf8(STANDARD.decode_to_vec(patch).unwrap()).unwrap()
    }

    /// A pod that is the same each time.
    fn request() -> Vec<u8> {
        let request = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "operation": "CREATE", "namespace": "shop", "resource": {"group": "", "resource": "pods"},
                "object": {
                    "metadata": {"annotations": {"hushpod.dev/file.db": "secret/data/db#password"}},
                    "spec": {"containers": [{"name": "web"}]},
                },
            },
        });
        request.to_string().into_bytes()
    }

    #[tokio::test]
    async fn the_last_good_configuration_decides_also_on_pods_that_were_seen_before() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("config.yaml");
        let write = |host: &str, rest: &str| {
            let vault = format!("providers: {{v: {{type: vault, address: 'https://{host}', role: web}}}}");
            let fresh = directory.path().join("fresh");
            fs::write(&fresh, format!("image: registry/hushpod:1\ndefaultProvider: v\n{vault}\n{rest}\n")).unwrap();
            fs::rename(&fresh, &file).unwrap();
        };
        write("one.example", "");
        let registry = Registry::default();
        let reloading = Reloading::open(&file, Injector::new).unwrap();
        let review = reviewer(&reloading, Namespaces::default());
        let following = registry.clone();
        tokio::spawn(async move { reloading.follow(&following).await });
        let counted = async |outcome: &str| {
            let series = format!("hushpod_config_reload_total{{outcome=\"{outcome}\"}} 1\n");
            let seen = async {
                while !registry.to_string().contains(&series) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap_or_else(|_| panic!("no {series}"));
        };
        assert!(patch(&review).contains("one.example"));

        write("two.example", "madeUp: 1");
        counted("error").await;
        assert!(patch(&review).contains("one.example"), "the last good one stays");

        write("three.example", "");
        counted("ok").await;
        let decided = patch(&review);
        assert!(decided.contains("three.example") && !decided.contains("one.example"), "{decided}");
    }

    #[test]
    fn p6_labels_of_the_namespace_decide_and_are_asked_for_where_nobody_knows_them() {
        let rules = "allow: [{namespaceLabels: {tier: prod}}]";
        let config = format!(
            "image: i\ndefaultProvider: v\nproviders: {{v: {{type: vault, address: 'https://v', role: web, {rules}}}}}\n"
        );
        let injector = Injector::new(Config::from_yaml(&config).unwrap());
        let known = |tier: &str| NamespaceLabels::known(BTreeMap::from([("tier".to_owned(), tier.to_owned())]));
        for (labels, denial, unknown) in [
            (Some(known("prod")), None, None),
            (Some(known("dev")), Some("may not use provider \"v\""), None),
            (Some(known("prod")), None, None),
            (Some(NamespaceLabels::Unknown("nobody says".into())), Some("not known: nobody says"), None),
            (None, Some("which are not known"), Some("shop".to_owned())),
        ] {
            let answer = review::answer_by(&request(), &injector, &|namespace| {
                assert_eq!(namespace, "shop");
                labels.clone()
            });
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            let told = body["response"]["status"]["message"].as_str();
            assert_eq!(told.is_some(), denial.is_some(), "{labels:?}: {body}");
            assert!(denial.is_none_or(|part| told.unwrap().contains(part)), "{labels:?}: {body}");
            assert_eq!(answer.unknown_namespace, unknown, "{labels:?}");
        }
        // Where no rule asks, nobody is.
        let injector = Injector::new(Config::from_yaml(&config.replace(rules, "refresh: 5s")).unwrap());
        let answer = review::answer_by(&request(), &injector, &|_| panic!("nobody has to know"));
        assert_eq!((answer.outcome.as_str(), answer.unknown_namespace), ("injected", None));
        // What is denied is, whatever a provider allows.
        let denied = format!("{config}deny: [{{namespaces: [other]}}, {{references: ['v:secret/data/db']}}]\n");
        let injector = Injector::new(Config::from_yaml(&denied).unwrap());
        let answer = review::answer_by(&request(), &injector, &|_| Some(known("prod")));
        assert!(String::from_utf8(answer.body).unwrap().contains("the operator's rule deny[1]"));
    }
}
