//! The CSIDriver object, as a configuration needs it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::config::Config;
use crate::contract::{CSI_DAEMON_SET, CSI_DAEMON_SET_ANNOTATION, CSI_DRIVER};

/// The object as JSON, with a token for each audience of the configuration: kubelet asks for these and for no others.
/// (<https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/csi-driver-v1/>)
#[must_use]
pub fn driver_object(config: &Config) -> String {
    let mut audiences = BTreeMap::new();
    for provider in config.providers.values() {
        if let Some(audience) = &provider.audience {
            let seconds: &mut i64 = audiences.entry(audience.as_str()).or_insert(provider.token_seconds);
            *seconds = provider.token_seconds.min(*seconds);
        }
    }
    let tokens: Vec<_> = audiences
        .into_iter()
        .map(|(audience, seconds)| json!({"audience": audience, "expirationSeconds": seconds}))
        .collect();
    let daemon_set = config.csi.as_ref().map_or(CSI_DAEMON_SET, |csi| csi.daemon_set.as_str());
    let object = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {
            "name": CSI_DRIVER,
            // OpenShift lets pods of restricted namespaces have inline volumes of such drivers alone.
            "labels": {"security.openshift.io/csi-ephemeral-volume-profile": "restricted"},
            // For who looks at what kubelet's event names.
            "annotations": {CSI_DAEMON_SET_ANNOTATION: daemon_set},
        },
        "spec": {
            "attachRequired": false,
            "podInfoOnMount": true,
            "volumeLifecycleModes": ["Ephemeral"],
            "fsGroupPolicy": "None",
            "requiresRepublish": true,
            // The driver sets the context of each mount by itself.
            "seLinuxMount": false,
            "storageCapacity": false,
            "tokenRequests": tokens,
        },
    });
    format!("{object:#}\n")
}
