"""The peers on the same node: the Secrets Store CSI driver and vault-k8s, as their own modules have them. Nothing of theirs
is kept here: programs are built, and manifests read, from the modules."""

import base64
import json
import shutil
import tempfile
import zlib
from pathlib import Path

from suite import space
from suite.base import run, wait
from suite.cluster import CLUSTER_SCRIPTS, kubectl

from . import admission

DRIVER = "secrets-store.csi.k8s.io"
MODULE = "sigs.k8s.io/secrets-store-csi-driver"
SYSTEM = "kube-system"
DAEMON_SET = "csi-secrets-store"
MANIFESTS = (
    "rbac-secretproviderclass.yaml",
    "rbac-secretproviderrotation.yaml",
    "rbac-secretprovidertokenrequest.yaml",
    "secrets-store.csi.x-k8s.io_secretproviderclasses.yaml",
    "secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml",
)
DOCKERFILE = """\
FROM scratch
COPY secrets-store-csi-driver secrets-store-provider /
COPY busybox /bin/mount
COPY busybox /bin/umount
ENV PATH=/bin
"""
WEBHOOK = "hushpod-bench-vault-k8s"
# With a tag that is not `latest`, so no pod asks a registry for it.
VAULT_IMAGE = "localhost/hushpod-test/vault:1.19.5"
VAULT = "https://vault.vault.svc:8200"
# Providers of the Secrets Store CSI driver: what they are, see tests/cluster/go/secrets-store-provider.
OF_VAULT, AT_ONCE = "provider", "at-once"
# What ours is measured with, too.
POLL_SECONDS = 60


class SecretsStore:
    """Its DaemonSet, with the fake provider of its own module, which answers at once, a provider of ours for Vault where what
    the store is asked counts, and a registrar of ours: theirs are served by no proxy."""

    name = "Secrets Store CSI"

    def __init__(self, bench, cluster, role):
        self.cluster = cluster
        programs = [Path(each) for each in run(CLUSTER_SCRIPTS / "build", *self.programs(), seconds=3600).split()]
        version = programs[0].name.split("-v")[1].split("-")[0]
        self.name = f"Secrets Store CSI {version}"
        image = self.load(bench, programs)
        module = json.loads(run("go", "mod", "download", "-json", f"{MODULE}@v{version}", seconds=600))
        self.manifests = Path(module["Dir"]) / "deploy"
        for each in MANIFESTS:
            kubectl("apply", "-f", self.manifests / each)
        authority = {"metadata": {"name": "bench-vault", "namespace": SYSTEM}, "data": {"ca.crt": cluster.vault.ca}}
        for thing in (
            {"apiVersion": "v1", "kind": "ConfigMap", **authority},
            self.driver_object(),
            self.daemon_set(image),
        ):
            kubectl("apply", "-f", "-", stdin=json.dumps(thing))
        kubectl("-n", SYSTEM, "rollout", "status", "daemonset", DAEMON_SET, "--timeout=120s", seconds=150)
        wait("the driver to be registered", 60, self.is_registered)
        self.parameters = {
            "vaultAddress": VAULT,
            "roleName": role,
            "audience": "vault",
            "path": cluster.reference,
        }
        self.provided_by(AT_ONCE)

    def provided_by(self, provider):
        """Its volumes come from this provider, those that are there at the next poll."""
        secret_class = {
            "apiVersion": "secrets-store.csi.x-k8s.io/v1",
            "kind": "SecretProviderClass",
            "metadata": {"name": "web", "namespace": self.cluster.space.namespace},
            "spec": {"provider": provider, "parameters": self.parameters},
        }
        kubectl("apply", "-f", "-", stdin=json.dumps(secret_class))

    @staticmethod
    def programs():
        return ("secrets-store-csi-driver", "secrets-store-provider")

    @staticmethod
    def load(bench, programs):
        """An image with both programs, under a name that changes with them."""
        tag = "-".join([*(each.name.rsplit("-", 1)[1] for each in programs), str(zlib.crc32(DOCKERFILE.encode()))])
        image = f"localhost/hushpod-bench/secrets-store:{tag}"
        if image not in kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.images[*].names[*]}").split():
            with tempfile.TemporaryDirectory() as context:
                # The driver runs `mount` and `umount`.
                for program in (*(each / each.name.split("-v")[0] for each in programs), Path(shutil.which("busybox"))):
                    shutil.copy(program, context)
                Path(context, "Dockerfile").write_text(DOCKERFILE)
                run(CLUSTER_SCRIPTS / "load-image", image, context, seconds=300)
        return image

    def read(self, manifest):
        return json.loads(kubectl("create", "--dry-run=client", "-o", "json", "-f", self.manifests / manifest))

    def driver_object(self):
        """kubelet then asks for the tokens, so the driver need not."""
        thing = self.read("csidriver.yaml")
        thing["spec"]["tokenRequests"] = [{"audience": "vault"}]
        return thing

    def daemon_set(self, image):
        """Theirs with this node's directories, secrets rotated, no limit of CPU, and without the container that probes."""
        kubelet = str(self.cluster.node.state / "kubelet")
        thing = json.loads(json.dumps(self.read("secrets-store-csi-driver.yaml")).replace("/var/lib/kubelet", kubelet))
        pod = thing["spec"]["template"]["spec"]
        containers = {each["name"]: each for each in pod["containers"]}
        for volume in pod["volumes"]:
            if volume["name"].startswith("providers-dir"):
                path = self.cluster.node.state / "secrets-store" / volume["name"]
                volume["hostPath"] = {"path": str(path), "type": "DirectoryOrCreate"}
        pod["volumes"].append({"name": "authority", "configMap": {"name": "bench-vault"}})
        registrar, driver = containers["node-driver-registrar"], containers["secrets-store"]
        endpoint = next(arg.split("=")[1] for arg in registrar["args"] if arg.startswith("--kubelet-registration-path"))
        registrar["command"] = ["/secrets-store-provider", "registrar"]
        registrar["args"] = [f"/registration/{DRIVER}-reg.sock", DRIVER, endpoint]
        driver["command"] = ["/secrets-store-csi-driver"]
        driver["args"] = [
            arg
            for arg in driver["args"]
            if not arg.startswith(("--enable-secret-rotation", "--rotation-poll-interval"))
        ] + ["--enable-secret-rotation=true", f"--rotation-poll-interval={POLL_SECONDS}s"]
        del driver["livenessProbe"]
        mount = next(each for each in driver["volumeMounts"] if each["name"] == "providers-dir-0")
        providers = [
            {
                "name": provider,
                "command": ["/secrets-store-provider", provider, f"{mount['mountPath']}/{provider}.sock"],
                "env": [{"name": "VAULT_CACERT", "value": "/authority/ca.crt"}],
                "volumeMounts": [mount, {"name": "authority", "mountPath": "/authority"}],
            }
            for provider in (OF_VAULT, AT_ONCE)
        ]
        pod["containers"] = [registrar, driver, *providers]
        for each in pod["containers"]:
            each.update(image=image, imagePullPolicy="Never")
            each.pop("resources", None)
        return thing

    @staticmethod
    def is_registered():
        nodes = json.loads(kubectl("get", "csinodes", "-o", "json"))["items"]
        return any(driver["name"] == DRIVER for node in nodes for driver in node["spec"]["drivers"] or [])

    def pod(self):
        return self.cluster.api.list("Pod", SYSTEM, f"app={DAEMON_SET}")[0]

    @staticmethod
    def volume():
        attributes = {"secretProviderClass": "web"}
        return {"name": "secrets-store", "csi": {"driver": DRIVER, "readOnly": True, "volumeAttributes": attributes}}

    def close(self):
        kubectl("-n", SYSTEM, "delete", "daemonset", DAEMON_SET, "--ignore-not-found", "--wait=true")
        kubectl("-n", SYSTEM, "delete", "configmap", "bench-vault", "--ignore-not-found")
        kubectl("delete", "csidriver", DRIVER, "--ignore-not-found")
        for each in MANIFESTS:
            kubectl("delete", "-f", self.manifests / each, "--ignore-not-found", "--wait=false")


class VaultK8s:
    """Its injector on this machine, for pods of its own label."""

    name = admission.VAULT_K8S

    def __init__(self, bench, cluster, role):
        self.cluster = cluster
        self.role = role
        run(CLUSTER_SCRIPTS / "load-vault", seconds=3600)
        images = ["ctr", "--address", cluster.node.state / "containerd.sock", "--namespace", "k8s.io", "images"]
        run(*images, "tag", "--force", VAULT_IMAGE.rsplit(":", 1)[0] + ":latest", VAULT_IMAGE)
        self.process, port = admission.start_injector(bench)
        authority = base64.b64encode((bench.tls_directory() / "tls.crt").read_bytes()).decode()
        rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
        webhook = {
            "name": "vault.hashicorp.com",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": f"https://127.0.0.1:{port}/mutate", "caBundle": authority},
            "rules": [rule],
            "objectSelector": {"matchLabels": {"shape": "vault-k8s"}},
            "failurePolicy": "Fail",
        }
        thing = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": WEBHOOK},
            "webhooks": [webhook],
        }
        kubectl("apply", "-f", "-", stdin=json.dumps(thing))

        def answers():
            self.process.check()
            made = cluster.space.create(self.annotated(space.pod("trial")), dry_run=True)
            return len(made["spec"]["containers"]) == 2

        wait("the injector", 30, answers)

    def annotated(self, pod):
        """With the same two files. What it asks of the node's CPU is lowered, since sixty would not fit; its limit, which
        would slow its start down, is lifted."""
        of = "vault.hashicorp.com"
        pod["metadata"]["labels"]["shape"] = "vault-k8s"
        pod["metadata"]["annotations"] = {
            f"{of}/agent-inject": "true",
            f"{of}/agent-image": VAULT_IMAGE,
            f"{of}/agent-requests-cpu": "1m",
            f"{of}/agent-limits-cpu": "2",
            f"{of}/role": self.role,
            f"{of}/service": VAULT,
            f"{of}/tls-skip-verify": "true",
            f"{of}/secret-volume-path": "/secrets",
            f"{of}/template-static-secret-render-interval": f"{POLL_SECONDS}s",
        }
        for key in ("username", "password"):
            template = f'{{{{ with secret "{self.cluster.reference}" }}}}{{{{ .Data.data.{key} }}}}{{{{ end }}}}'
            pod["metadata"]["annotations"] |= {
                f"{of}/agent-inject-secret-{key}": self.cluster.reference,
                f"{of}/agent-inject-template-{key}": template,
            }
        return pod

    def close(self):
        kubectl("delete", "mutatingwebhookconfiguration", WEBHOOK, "--ignore-not-found")
        self.process.end()
        admission.withdraw()
