"""`kubectl hushpod` in the hands of somebody who has one of the chart's roles and nothing else."""

import json
import tempfile
from pathlib import Path

from suite.base import Skipped, check, equal, run
from suite.cluster import kubectl
from suite.product import CSI_NAMESPACE


class OnCall:
    """Somebody with one of the chart's roles in the test's namespace, and the viewer's in the driver's."""

    def __init__(self, t, role):
        if not t.suite.product.program:
            raise Skipped("the image was given with --image: there is no program of the same build here")
        self.t = t
        self.role = role
        account = {"kind": "ServiceAccount", "name": role, "namespace": t.namespace}
        t.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": role}})
        self.driver_binding = f"{t.namespace}-{role}"[:63].rstrip("-")
        for namespace, name, granted in (
            (t.namespace, role, role),
            (CSI_NAMESPACE, self.driver_binding, "hushpod-viewer"),
        ):
            binding = {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": granted},
                "subjects": [account],
            }
            kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(binding))

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
        token = kubectl("-n", self.t.namespace, "create", "token", self.role, "--duration=1h").strip()
        for user in config["users"]:
            user["user"] = {"token": token}
        for context in config["contexts"]:
            context["context"]["namespace"] = self.t.namespace
        self.kubeconfig = Path(self.directory.name, "config")
        self.kubeconfig.write_text(json.dumps(config), encoding="utf-8")
        # As krew has it: the program's name is what makes it a plugin.
        self.plugin = Path(self.directory.name, "kubectl-hushpod")
        self.plugin.symlink_to(self.t.suite.product.program)
        return self

    def __exit__(self, *_):
        self.directory.cleanup()
        kubectl("-n", CSI_NAMESPACE, "delete", "rolebinding", self.driver_binding, "--ignore-not-found")

    def says(self, *words, code=0):
        """Runs the plugin, and returns what it wrote to standard output."""
        arguments = [*words, "--kubeconfig", self.kubeconfig, "--csi-namespace", CSI_NAMESPACE]
        result = run(self.plugin, *arguments, ok=False, seconds=300)
        equal(result.returncode, code, f"exit code of {' '.join(map(str, words))}: {result.stdout}{result.stderr}")
        for text in (result.stdout, result.stderr):
            check("\x1b" not in text, f"a control character in {text!r}")
        return result.stdout if code == 0 else result.stderr

    def status(self, *words):
        """The reports by the names of pods."""
        found = json.loads(self.says("status", *words, "-o", "json"))
        return {each["name"]: each for each in found["pods"]}
