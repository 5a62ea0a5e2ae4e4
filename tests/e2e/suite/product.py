"""What is tested: the images and the chart, built from this checkout and installed as a user would."""

import base64
import contextlib
import hashlib
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

from .base import check, run, wait
from .cluster import kubectl

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/hushpod"
NAMESPACE = "hushpod"
# Of the CSI driver, which is privileged: the other enforces Pod Security `restricted`.
CSI_NAMESPACE = "hushpod-csi"
CSI_DRIVER = "csi.hushpod.dev"
RELEASE = "hushpod"
# The webhook's pods; helm's test leaves its own beside them.
REPLICAS = "app.kubernetes.io/component=webhook"
WEBHOOK = "MutatingWebhookConfiguration"
ADMISSION = "admissionregistration.k8s.io/v1"


class Product:
    def __init__(self, api, vault, node, say):
        self.api = api
        self.vault = vault
        self.node = node
        self.say = say
        self.image = None
        # The program of the same build, for people; None if the image was given.
        self.program = None
        # Providers beside Vault, by name.
        self.more = {}
        self.changing = threading.Lock()

    # --- images

    @property
    def agent_image(self):
        """What is injected: the chart looks for it beside the webhook's."""
        repository, tag = self.image.rsplit(":", 1)
        return f"{repository}-agent:{tag}"

    @property
    def csi_image(self):
        """The driver's, which the chart looks for there too."""
        repository, tag = self.image.rsplit(":", 1)
        return f"{repository}-csi:{tag}"

    def build(self):
        """Builds the images and gives them to the node, unless it has these very binaries already."""
        with tempfile.TemporaryDirectory() as directory:
            self.say("building the binaries (deploy/build)")
            run(ROOT / "deploy/build", directory, seconds=3600)
            digest = hashlib.sha256((ROOT / "deploy/Dockerfile").read_bytes())
            for binary in sorted(Path(directory, "bin").rglob("hushpod*")):
                digest.update(binary.read_bytes())
            # The directory goes; this outlives it.
            kept = Path(tempfile.gettempdir(), "hushpod-e2e-program")
            shutil.copy2(next(Path(directory, "bin").glob("*/hushpod")), kept.with_suffix(".new"))
            self.program = kept.with_suffix(".new").replace(kept)
            self.image = f"localhost/hushpod:e2e-{digest.hexdigest()[:12]}"
            ctr = ["ctr", "--address", self.node.state / "containerd.sock", "--namespace", "k8s.io", "images"]
            if {self.image, self.agent_image, self.csi_image} <= set(run(*ctr, "ls", "-q").split()):
                return
            self.say(f"making the images {self.image}, {self.agent_image} and {self.csi_image} (deploy/image)")
            run(ROOT / "deploy/image", directory, f"{directory}/image.tar", self.image, seconds=600)
            for archive in ("image.tar", "image-agent.tar", "image-csi.tar"):
                run(*ctr, "import", "--all-platforms", f"{directory}/{archive}")

    def older_image(self):
        """An image of the driver's programs in another build, as far as digests can tell: each is a byte longer. And the
        digest of the one that the driver shows to pods."""
        image, programs = f"{self.csi_image}-older", ("hushpod-csi", "hushpod-exec")
        with tempfile.TemporaryDirectory() as context:
            here = Path(context, "image")
            here.mkdir()
            self.node.images("mount", self.csi_image, here)
            try:
                for name in programs:
                    Path(context, name).write_bytes((here / name).read_bytes() + b"\0")
            finally:
                self.node.images("unmount", "--rm", here)
            lines = ["FROM scratch", f"COPY --chmod=0555 {' '.join(programs)} /", 'ENTRYPOINT ["/hushpod-csi"]']
            Path(context, "Dockerfile").write_text("\n".join(lines), encoding="utf-8")
            self.node.script("load-image", image, context)
            return image, hashlib.sha256(Path(context, programs[1]).read_bytes()).hexdigest()

    # --- chart

    def values(self):
        repository, tag = self.image.rsplit(":", 1)
        provider = {
            "type": "vault",
            "address": "https://vault.vault.svc:8200",
            "ca": self.vault.ca,
            "auth": {"method": "kubernetes", "mount": "kubernetes"},
            "role": "{{namespace}}-{{service_account}}",
        }
        return {
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
            "replicaCount": 2,
            "csi": {
                "enabled": True,
                "namespace": CSI_NAMESPACE,
                **({"kubeletRoot": str(self.node.state / "kubelet")} if self.node else {}),
            },
            "config": {
                "defaultProvider": "vault",
                # As if they ran on nodes that have no driver.
                "csi": {"unavailable": [{"labels": {"hushpod-e2e": "no-driver"}}]},
                "providers": {
                    "vault": provider,
                    # The same store, for which it takes tokens of an audience that its roles do not.
                    "elsewhere": {**provider, "audience": "elsewhere"},
                    # One that only another team may use, for paths of its own namespace.
                    "reserved": {
                        **provider,
                        "allow": [{"namespaces": ["team-*"], "requests": ["secret/data/{{namespace}}/*"]}],
                    },
                    # One that everyone may use, for paths of their own namespace.
                    "own": {
                        **provider,
                        "allow": [{"namespaces": ["*"], "requests": ["secret/data/{{namespace}}/*"]}],
                    },
                    # Encrypted files in the pod's own ConfigMaps; the key is in Vault.
                    "sops": {"type": "file", "volumes": True, "identity": "vault:secret/data/{{namespace}}/age#key"},
                    **self.more,
                },
            },
        }

    def install(self, *options, chart=CHART, **more):
        values = {**self.values(), **more}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(values, file)
            file.flush()
            arguments = ["upgrade", "--install", RELEASE, chart, "--namespace", NAMESPACE]
            run("helm", *arguments, "--values", file.name, "--wait", "--timeout", "3m", *options, seconds=240)

    def revision(self):
        """Of the release, as helm counts."""
        history = json.loads(run("helm", "history", RELEASE, "--namespace", NAMESPACE, "--output", "json"))
        return max(each["revision"] for each in history)

    def rollback(self, revision):
        """To an earlier revision of the release."""
        options = ["--namespace", NAMESPACE, "--wait", "--timeout", "3m"]
        run("helm", "rollback", RELEASE, str(revision), *options, seconds=240)

    def manifest(self):
        """What the release is made of, without hooks: each object."""
        manifest = run("helm", "get", "manifest", RELEASE, "--namespace", NAMESPACE)
        return documents(manifest)

    @contextlib.contextmanager
    def configured(self, **fields):
        """With these fields in the operator's configuration, one such change at a time. What else goes on must not mind."""
        with self.changing:
            config = self.values()["config"]
            try:
                self.configure({**config, **fields})
                yield
            finally:
                self.configure(config)

    def configure(self, config):
        """An upgrade to another configuration; each replica has it when this returns."""
        before = self.reloads()
        self.install(config=config)

        def known():
            if all(now > before.get(name, -1) for name, now in self.reloads().items()):
                return True
            # Again and again: kubelet may look before it has heard of the change.
            self.look()
            return False

        wait("the new configuration to be in force", 120, known, every=1)

    def look(self):
        """Kubelet carries a ConfigMap into a running pod within two minutes, or as soon as the pod changes."""
        for each in self.pods():
            name, mark = each["metadata"]["name"], f"hushpod-e2e={time.time_ns()}"
            kubectl("-n", NAMESPACE, "annotate", "pod", name, "--overwrite", mark)

    def set_up(self):
        """Namespace and chart. The namespace asks for Pod Security `restricted`: our own workloads must pass."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        if not self.api.find("Namespace", None, NAMESPACE):
            self.api.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
            )
        self.say("installing the chart")
        self.install()

    def volumes_of_the_driver(self):
        """The pods, of all namespaces, that have one."""
        pods = self.api.call("GET", "/api/v1/pods")["items"]
        has_one = lambda each: any(  # noqa: E731
            volume.get("csi", {}).get("driver") == CSI_DRIVER for volume in each["spec"].get("volumes", [])
        )
        return [f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in pods if has_one(each)]

    def uninstall(self):
        """In the order of the chart's page: pods with volumes of the driver first, whose deletion waits for it."""
        wait(
            "the pods with volumes of the driver to be gone",
            120,
            lambda: not (left := self.volumes_of_the_driver()) or check(False, f"still there: {left}"),
            every=1,
        )
        run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait", seconds=180)

    # --- the CSI driver

    def driver(self):
        """The driver's pod on the node that the tests are on."""
        pods = self.api.list("Pod", CSI_NAMESPACE, "app.kubernetes.io/component=csi")
        pods = [each for each in pods if "deletionTimestamp" not in each["metadata"]]
        check(len(pods) == 1, f"{len(pods)} pods of the driver")
        return pods[0]

    def driver_log(self):
        """What it says, a line a text."""
        return kubectl("-n", CSI_NAMESPACE, "logs", self.driver()["metadata"]["name"], "-c", "csi").splitlines()

    def driver_metrics(self):
        name = self.driver()["metadata"]["name"]
        return self.api.text(f"/api/v1/namespaces/{CSI_NAMESPACE}/pods/{name}:8081/proxy/metrics")

    def driver_state(self):
        """The file system in memory where it keeps who has what."""
        return self.node.state / "kubelet/plugins" / CSI_DRIVER / "state"

    # --- the webhook

    def pods(self):
        pods = self.api.list("Pod", NAMESPACE, REPLICAS)
        return [each for each in pods if "deletionTimestamp" not in each["metadata"]]

    @staticmethod
    def processes(replica):
        """Its containers by their names, each with the port of its metrics."""
        containers = {each["name"]: each for each in replica["spec"]["containers"]}
        admin = lambda container: next(  # noqa: E731
            port["containerPort"] for port in container["ports"] if port["name"].startswith("admin")
        )
        return {name: admin(container) for name, container in containers.items()}

    def deployment(self):
        deployments = self.api.list("Deployment", NAMESPACE, version="apps/v1")
        check(len(deployments) == 1, f"{len(deployments)} Deployments in {NAMESPACE}")
        return deployments[0]

    def scale(self, replicas):
        name = self.deployment()["metadata"]["name"]
        kubectl("-n", NAMESPACE, "scale", "deployment", name, f"--replicas={replicas}")
        if replicas:
            kubectl("-n", NAMESPACE, "rollout", "status", "deployment", name, "--timeout=90s")
        else:
            wait("the webhook's pods to be gone", 60, lambda: not self.api.list("Pod", NAMESPACE, REPLICAS))

    def configuration(self):
        path = self.api.path(ADMISSION, WEBHOOK)
        ours = [
            each
            for each in self.api.call("GET", path)["items"]
            if each["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == RELEASE
        ]
        check(len(ours) == 1, f"{len(ours)} webhook configurations of ours")
        return ours[0]

    def rewrite(self, change):
        """Lets `change` alter each webhook of the configuration; again, if a replica wrote it meanwhile."""

        def written():
            now = self.configuration()
            for each in now["webhooks"]:
                change(each)
            path = self.api.path(ADMISSION, WEBHOOK, None, now["metadata"]["name"])
            return self.api.call("PUT", path, {**now, "apiVersion": ADMISSION, "kind": WEBHOOK})

        wait("the webhook configuration to be written", 20, written)

    def authorities(self):
        """The PEM text of the webhook configuration's `caBundle`."""
        bundles = {each["clientConfig"].get("caBundle", "") for each in self.configuration()["webhooks"]}
        check(len(bundles) == 1, "the webhooks' bundles differ")
        return base64.b64decode(bundles.pop()).decode()

    def metrics(self):
        """What the replicas count, by the metric's name and labels, summed; and the text of it all."""
        text = "".join(self.counted().values())
        return self.api.sums(text), text

    def counted(self):
        """What each process's `/metrics` says, by its pod's name and its container's."""
        found = {}
        for each in self.pods():
            pod = each["metadata"]["name"]
            for container, port in self.processes(each).items():
                path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{port}/proxy/metrics"
                found[pod, container] = self.api.text(path)
        return found

    def reloads(self):
        """How many configurations each process has taken into use since it started, by its pod's name and its container's."""
        series = 'hushpod_config_reload_total{outcome="ok"}'
        return {name: self.api.sums(text)[series] for name, text in self.counted().items()}

    def reviews(self):
        """How many pods the replicas have been asked about since they started."""
        sums, _ = self.metrics()
        found = [number for name, number in sums.items() if name.startswith("hushpod_admission_requests_total")]
        check(found, f"no counter of requests among {sorted(sums)}")
        return sum(found)

    def logs(self):
        parts = []
        for each in self.api.list("Pod", NAMESPACE):
            name = each["metadata"]["name"]
            parts.append(f"{name}:\n" + run("kubectl", "-n", NAMESPACE, "logs", name, "--all-containers", "--tail=30", ok=False).stdout)
        for each in self.api.list("Pod", CSI_NAMESPACE) if self.api.find("Namespace", None, CSI_NAMESPACE) else []:
            name = each["metadata"]["name"]
            log = run("kubectl", "-n", CSI_NAMESPACE, "logs", name, "--tail=60", ok=False).stdout
            parts.append(f"{name}:\n{log}")
        return "\n".join(parts)


def documents(manifest):
    """The objects of a manifest, each once."""
    # A change of nothing makes JSON of YAML; it is local, so kinds that this API server lacks pass.
    text = kubectl("patch", "--local", "--type=merge", "--patch={}", "--output=json", "-f", "-", stdin=manifest)
    found, start = [], 0
    while text[start:].strip():
        start += len(text[start:]) - len(text[start:].lstrip())
        thing, start = json.JSONDecoder().raw_decode(text, start)
        found.append(thing)
    return found


def remains():
    """Whatever in the cluster is the chart's or was made by what it runs, as kind/namespace/name."""
    kinds = set(run("kubectl", "api-resources", "--verbs=list", "-o", "name").split())
    kinds -= {"events", "events.events.k8s.io"}
    found = set()
    for thing in json.loads(kubectl("get", ",".join(sorted(kinds)), "-A", "-o", "json"))["items"]:
        kind, metadata = thing["kind"], thing["metadata"]
        namespace, name = metadata.get("namespace"), metadata["name"]
        labels = metadata.get("labels", {})
        expected = namespace == NAMESPACE and (kind, name) in {
            ("ServiceAccount", "default"),
            ("ConfigMap", "kube-root-ca.crt"),
        }
        ours = (
            namespace in (NAMESPACE, CSI_NAMESPACE)
            or labels.get("app.kubernetes.io/instance") == RELEASE
            or "hushpod.dev" in name
            or (namespace is None and kind not in {"Namespace", "Node", "CSINode"} and RELEASE in name)
        )
        if ours and not expected:
            found.add(f"{kind}/{namespace or ''}/{name}")
    return found
