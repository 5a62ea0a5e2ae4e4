"""The pods that are sent, as kube-apiserver sends them."""

import json

UID = "00000000-0000-0000-0000-000000000000"
FILES = ["db-password", "db-username", "api-token", "smtp-password", "signing-key"]
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"

OURS = {f"hushpod.dev/file.{name}": f"secret/data/shop/web#{name}" for name in FILES}
# What is prepared for such a pod is not remembered for another: each comes with an annotation of its own.
UNLIKE = {**OURS, "hushpod.dev/refresh-now": UID}
# The same files, into the same directory name; only what it needs.
VAULT_K8S = {
    "vault.hashicorp.com/agent-inject": "true",
    "vault.hashicorp.com/role": "web",
    **{f"vault.hashicorp.com/agent-inject-secret-{name}": "secret/data/shop/web" for name in FILES},
}


def pod(annotations):
    """A pod of a Deployment, two containers, as it is after API server and ServiceAccount plugin have been over it."""
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "generateName": "web-6f9c7d5b8d-",
            "namespace": "shop",
            "uid": "6a1f60a8-43d5-4a86-9c0d-4d2b5f8b7d0e",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "6f9c7d5b8d"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090", **annotations},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "web-6f9c7d5b8d",
                    "uid": "0c3b2f6e-8a52-4f0b-a6e0-52b5d7c0f6a1",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": [managed_fields()],
        },
        "spec": {
            "volumes": [
                {"name": "config", "configMap": {"name": "web", "defaultMode": 420}},
                {"name": "cache", "emptyDir": {}},
                {"name": "kube-api-access-x7f2q", "projected": {"sources": api_access(), "defaultMode": 420}},
            ],
            "containers": [container("web", 8080), container("metrics", 9090)],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "web",
            "serviceAccount": "web",
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                for key in ("not-ready", "unreachable")
            ],
            "priority": 0,
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app": "web"}},
                }
            ],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def container(name, port):
    probe = {"httpGet": {"path": "/healthz", "port": port, "scheme": "HTTP"}, "timeoutSeconds": 1}
    limits = {"initialDelaySeconds": 5, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    return {
        "name": name,
        "image": f"registry.example/shop/{name}:1.42.0",
        "args": ["--listen", f":{port}", "--config", "/etc/web/config.yaml"],
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "LOG_LEVEL", "value": "info"},
            {"name": "DATABASE_HOST", "value": "postgres.shop.svc"},
            {"name": "FEATURES", "value": "checkout,recommendations,reviews"},
        ],
        "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "250m", "memory": "256Mi"}},
        "volumeMounts": [
            {"name": "config", "readOnly": True, "mountPath": "/etc/web"},
            {"name": "cache", "mountPath": "/var/cache/web"},
            {"name": "kube-api-access-x7f2q", "readOnly": True, "mountPath": TOKEN_PATH},
        ],
        "livenessProbe": {**probe, **limits},
        "readinessProbe": {**probe, **limits},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
        },
    }


def api_access():
    return [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]


def managed_fields():
    """What the ReplicaSet controller owns."""
    names = ("args", "env", "image", "imagePullPolicy", "livenessProbe", "name", "ports", "readinessProbe", "resources")
    fields = {f"f:{name}": {} for name in (*names, "securityContext", "terminationMessagePath", "volumeMounts")}
    keyed = {f'k:{{"name":"{name}"}}': {".": {}, **fields} for name in ("web", "metrics")}
    spec = ("dnsPolicy", "enableServiceLinks", "restartPolicy", "schedulerName", "securityContext", "serviceAccount")
    return {
        "manager": "kube-controller-manager",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:annotations": {".": {}}, "f:generateName": {}, "f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": keyed, **{f"f:{name}": {} for name in spec}},
        },
    }


def review(thing):
    """An AdmissionReview of its creation."""
    kinds = {
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
    }
    return json.dumps(
        {
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": UID,
                **kinds,
                "requestKind": kinds["kind"],
                "requestResource": kinds["resource"],
                "namespace": thing["metadata"]["namespace"],
                "operation": "CREATE",
                "userInfo": {
                    "username": "system:serviceaccount:kube-system:replicaset-controller",
                    "uid": "a4b1f1a0-6cf1-4a3e-9d58-6d7d0a7d9a51",
                    "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
                },
                "object": thing,
                "oldObject": None,
                "dryRun": False,
                "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            },
        },
        separators=(",", ":"),
    )
