"""The cluster: its API, kubectl, and, where it is our own, the node beneath."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import urllib.parse
from pathlib import Path

from .base import Failed, check, run, wait

CLUSTER_SCRIPTS = Path(__file__).resolve().parents[2] / "cluster"
CLUSTER_SCOPED = {
    "Namespace",
    "Node",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ClusterTrustBundle",
    "CSIDriver",
}


class ApiError(Failed):
    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """The API server through `kubectl proxy`, which knows how to log in to any cluster. A call costs milliseconds."""

    def __init__(self, directory):
        self.socket = f"{directory}/api.sock"
        self.proxy = subprocess.Popen(
            ["kubectl", "proxy", "--unix-socket", self.socket], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait("kubectl proxy", 10, lambda: os.path.exists(self.socket))

    def close(self):
        self.proxy.terminate()
        self.proxy.wait()

    def raw(self, method, path, body=None, content_type="application/json"):
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body, {"Content-Type": content_type} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError as error:
            raise ApiError(0, f"{method} {path}: {error}") from None
        finally:
            connection.close()

    def call(self, method, path, body=None, content_type="application/json"):
        status, answer = self.raw(method, path, json.dumps(body) if body is not None else None, content_type)
        if status >= 300:
            try:
                message = json.loads(answer)["message"]
            except (ValueError, KeyError):
                message = answer.decode(errors="replace")
            raise ApiError(status, message)
        return json.loads(answer)

    def text(self, path):
        """What is no JSON, such as metrics."""
        status, answer = self.raw("GET", path)
        check(status == 200, f"GET {path}: {status} {answer[:200]!r}")
        return answer.decode()

    @staticmethod
    def sums(text):
        """Metrics by their names and labels; of those that are there several times, the sum."""
        found = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, number = line.rsplit(" ", 1)
                found[name] = found.get(name, 0) + float(number)
        return found

    @staticmethod
    def path(version, kind, namespace=None, name=None):
        plural = kind.lower() + "s" if not kind.endswith("y") else kind.lower()[:-1] + "ies"
        parts = ["/api" if version == "v1" else "/apis", version]
        if kind not in CLUSTER_SCOPED:
            parts += ["namespaces", namespace]
        return "/".join(parts + [plural] + ([name] if name else []))

    def create(self, thing, namespace=None, dry_run=False):
        path = self.path(thing["apiVersion"], thing["kind"], namespace)
        return self.call("POST", path + ("?dryRun=All" if dry_run else ""), thing)

    def get(self, kind, namespace, name, version="v1"):
        return self.call("GET", self.path(version, kind, namespace, name))

    def find(self, kind, namespace, name, version="v1"):
        """As `get`, but None if there is no such thing."""
        try:
            return self.get(kind, namespace, name, version)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def list(self, kind, namespace, selector=None, version="v1"):
        query = "?labelSelector=" + urllib.parse.quote(selector) if selector else ""
        return self.call("GET", self.path(version, kind, namespace) + query)["items"]

    def delete(self, kind, namespace, name, version="v1", **options):
        return self.call("DELETE", self.path(version, kind, namespace, name), options or None)

    def patch(self, kind, namespace, name, patch, version="v1"):
        return self.call("PATCH", self.path(version, kind, namespace, name), patch, "application/merge-patch+json")


def kubectl(*arguments, **options):
    return run("kubectl", *arguments, **options)


def present(volume):
    """The directory that kubelet's link ..data names; the volume itself if there is none."""
    data = Path(volume) / "..data"
    return Path(volume) / os.readlink(data) if data.is_symlink() else Path(volume)


class Node:
    """The machine that the pods run on, when that is this one: what only its root can see or do."""

    def __init__(self):
        self.state = Path(os.environ.get("HUSHPOD_CLUSTER_DIR", "/var/lib/hushpod-cluster"))
        self.pod_logs = self.state / "log/pods"
        self.address = "10.88.0.1"

    def is_under(self, kubeconfig):
        ours = self.state / "kubeconfig"
        return os.geteuid() == 0 and ours.exists() and os.path.realpath(kubeconfig) == os.path.realpath(ours)

    def script(self, name, *arguments):
        return run(CLUSTER_SCRIPTS / name, *arguments, seconds=300)

    def volume(self, pod, kind, name):
        """What is in it. kubelet's own links in it are followed here: since 1.37 it gives those of tokens to the
        container's uid, and protected_symlinks forbids root to follow them."""
        path = self.state / "kubelet/pods" / pod["metadata"]["uid"] / "volumes" / f"kubernetes.io~{kind}" / name
        return present(path)

    def images(self, *arguments):
        """What containerd says of the images that pods run, or does with them."""
        return run("ctr", "--address", self.state / "containerd.sock", "--namespace", "k8s.io", "images", *arguments)

    def pids(self, *command):
        """Of the processes whose command line begins so."""
        start = b"".join(word.encode() + b"\0" for word in command)
        found = set()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            # A process may end between being listed and being read.
            with contextlib.suppress(OSError):
                if path.read_bytes().startswith(start):
                    found.add(int(path.parent.name))
        return found

    def pid(self, container_status):
        """Of a running container's first process, as this machine numbers it."""
        container = container_status["containerID"].removeprefix("containerd://")
        tasks = run("ctr", "--address", self.state / "containerd.sock", "--namespace", "k8s.io", "tasks", "ls")
        for task in tasks.splitlines()[1:]:
            name, pid, state = task.split()
            if name == container:
                check(state == "RUNNING", f"container {container} is {state}")
                return int(pid)
        raise Failed(f"containerd runs no container {container}")
