"""cert-manager on the same node, as its own module has it: its controllers, CA injector and webhook are built, its chart and
CRDs read, from the module."""

import datetime
import json
import shutil
import tempfile
from pathlib import Path

from suite.base import run, wait
from suite.cluster import CLUSTER_SCRIPTS, kubectl

MODULE = "github.com/cert-manager/cert-manager"
VERSION = "cert-manager.io/v1"
NAMESPACE = RELEASE = "cert-manager"
IMAGE = "localhost/hushpod-bench/cert-manager"
# By the place in the chart's values that has the image.
ROLES = {"": "controller", "cainjector": "cainjector", "webhook": "webhook"}
DOCKERFILE = """\
FROM scratch
COPY cert-manager /
USER 1000:1000
ENTRYPOINT ["/cert-manager", "ROLE"]
"""


class CertManager:
    """Its chart, with images of what was built."""

    def __init__(self, bench):
        built = Path(run(CLUSTER_SCRIPTS / "build", "cert-manager", seconds=3600).strip())
        _, version, digest = built.name.rsplit("-", 2)
        self.name = f"cert-manager {version.removeprefix('v')}"
        bench.say(f"installing {self.name}")
        module = json.loads(run("go", "mod", "download", "-json", f"{MODULE}@{version}", seconds=600))
        values = {
            "crds": {"enabled": True, "keep": False},
            # What asks whether the rest answers, and what looks at ports that are not served here.
            **{part: {"enabled": False} for part in ("startupapicheck", "livenessProbe", "prometheus")},
        }
        for place, role in ROLES.items():
            part = values.setdefault(place, {}) if place else values
            part["image"] = {"repository": f"{IMAGE}-{role}", "tag": digest, "pullPolicy": "Never"}
            self.load(built / "cert-manager", role, f"{IMAGE}-{role}:{digest}")
        # Before what may fail half-way.
        bench.closers.append(self.close)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(values, file)
            file.flush()
            chart = Path(module["Dir"]) / "deploy/charts/cert-manager"
            options = ["--namespace", NAMESPACE, "--create-namespace", "--values", file.name, "--wait", "--timeout=3m"]
            run("helm", "upgrade", "--install", RELEASE, chart, *options, seconds=240)
        # Its webhook is trusted once its own CA injector has been there.
        issuer = {"apiVersion": VERSION, "kind": "Issuer", "metadata": {"name": "trial"}, "spec": {"selfSigned": {}}}
        ask = ("-n", NAMESPACE, "create", "--dry-run=server", "-f", "-")
        wait(f"{self.name} to take an issuer", 60, lambda: kubectl(*ask, stdin=json.dumps(issuer)), every=1)

    @staticmethod
    def load(program, role, image):
        if image in kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.images[*].names[*]}").split():
            return
        with tempfile.TemporaryDirectory() as context:
            shutil.copy(program, context)
            Path(context, "Dockerfile").write_text(DOCKERFILE.replace("ROLE", role))
            run(CLUSTER_SCRIPTS / "load-image", image, context, seconds=300)

    @staticmethod
    def renew(api, namespace, name):
        """Has a certificate issued anew with a new key, as `cmctl renew` does; returns when it is in its Secret."""
        path = api.path(VERSION, "Certificate", namespace, name)
        before = api.call("GET", path)

        def asked():
            thing = api.call("GET", path)
            conditions = [each for each in thing["status"]["conditions"] if each["type"] != "Issuing"]
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            issuing = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "lastTransitionTime": now}
            thing["status"]["conditions"] = [*conditions, issuing]
            return api.call("PUT", f"{path}/status", thing)

        wait(f"certificate {name} to be asked for", 20, asked)

        def issued():
            status = api.call("GET", path)["status"]
            done = all(each["status"] == "False" for each in status["conditions"] if each["type"] == "Issuing")
            return done and status.get("revision", 0) > before["status"].get("revision", 0)

        wait(f"certificate {name} to be issued", 60, issued)

    @staticmethod
    def close():
        run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait", seconds=180)
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", seconds=180)
