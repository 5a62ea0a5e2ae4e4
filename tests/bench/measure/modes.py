"""The modes and the peers side by side: the same application with the same secret, in every shape that a pod can take."""

import http.client
import json
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from suite import space
from suite.base import Failed, wait
from suite.cluster import UnixConnection

from . import cluster_pods, footprint
from .peers import DRIVER, SecretsStore, VaultK8s

PLAIN = "plain"
SECRETS_STORE, VAULT_K8S = "secrets-store", "vault-k8s"
# A volume of ours and one of the Secrets Store CSI driver: what their drivers take is measured at the same time.
BOTH = "both"
SHAPES = ("csi", "sidecar", SECRETS_STORE, VAULT_K8S)
TARGETS = {"csi": 0.1, "sidecar": 0.3}
TURNS = 36
CROWD, CROWD_TURNS = 60, 4
# As many as kubelet runs, unless it is told otherwise.
MOST = 110
CROWD_SHAPES = (PLAIN, "csi", SECRETS_STORE)
SAMPLES = 8
# kubelet's own clock of its calls for new volumes.
CALLS = "csi_operations_seconds"
DRIVERS = {"csi": "csi.hushpod.dev", SECRETS_STORE: DRIVER}


class Modes:
    """Our chart and the peers on one node, and pods of every shape."""

    # So short that a window of some minutes sees its share of logins and renewals.
    LOGIN_SECONDS = 300

    def __init__(self, bench):
        self.cluster = cluster_pods.cluster(bench)
        self.namespace = self.cluster.space.namespace
        self.api = self.cluster.api
        # By the name of each one's login at the store.
        self.roles = {"csi": f"{self.namespace}-web", "sidecar": f"{self.namespace}-other"}
        self.roles |= {shape: f"{self.namespace}-{shape}" for shape in (SECRETS_STORE, VAULT_K8S)}
        for shape, role in self.roles.items():
            # vault-k8s logs in with the token that every pod has, which is for the API server.
            audience = {} if shape == VAULT_K8S else {"audience": "vault"}
            self.cluster.vault.write(
                f"auth/kubernetes/role/{role}",
                bound_service_account_names=["other" if shape == "sidecar" else "web"],
                bound_service_account_namespaces=[self.namespace],
                token_policies=[self.namespace],
                token_ttl=f"{self.LOGIN_SECONDS}s",
                **audience,
            )
        self.peers = {}
        for shape, peer in ((SECRETS_STORE, SecretsStore), (VAULT_K8S, VaultK8s)):
            bench.say(f"installing {peer.name}")
            self.peers[shape] = peer(bench, self.cluster, self.roles[shape])
        bench.closers.append(self.close)

    def name(self, shape):
        return self.peers[shape].name if shape in self.peers else shape

    def pod(self, shape, name):
        keys = {"dir.app": self.cluster.reference}
        if shape == "sidecar":
            pod = space.pod(name, {**keys, "mode": "sidecar"}, account="other")
        elif shape in ("csi", BOTH):
            pod = space.pod(name, {**keys, "mode": "csi"})
        else:
            pod = space.pod(name)
        pod["metadata"]["labels"]["shape"] = shape
        if shape == VAULT_K8S:
            self.peers[shape].annotated(pod)
        elif shape in (SECRETS_STORE, BOTH):
            space.by_hand(pod, SecretsStore.volume(), path="/secrets-store" if shape == BOTH else "/secrets")
        return pod

    def start(self, pods, seconds=300):
        """Seconds from the first request that creates a pod to the last one's being seen ready."""
        watch = UnixConnection(self.api.socket)
        watch.timeout = seconds
        watch.request("GET", f"/api/v1/namespaces/{self.namespace}/pods?watch=true&timeoutSeconds={seconds}")
        waiting = {pod["metadata"]["name"] for pod in pods}
        begun = time.monotonic()
        try:
            with ThreadPoolExecutor(8) as pool:
                for _ in pool.map(self.cluster.space.create, pods):
                    pass
            for line in watch.getresponse():
                thing = json.loads(line)["object"]
                if space.is_ready(thing):
                    waiting.discard(thing["metadata"]["name"])
                if not waiting:
                    return time.monotonic() - begun
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"watching pods: {error}") from None
        finally:
            watch.close()
        raise Failed(f"{len(waiting)} pods are not ready:\n{self.cluster.space.diagnose()[-3000:]}")

    def calls(self, shape):
        """How often kubelet has called a driver for volumes, and the seconds that it took, since it began."""
        node = self.api.call("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
        sums = self.api.sums(self.api.text(f"/api/v1/nodes/{node}/proxy/metrics"))
        of_it = [
            (name, value)
            for name, value in sums.items()
            if f'driver_name="{DRIVERS[shape]}"' in name and "NodePublishVolume" in name
        ]
        return [sum(value for name, value in of_it if name.startswith(f"{CALLS}_{part}{{")) for part in ("count", "sum")]

    def timed(self, shape, pods, calls):
        """As `start`; adds kubelet's calls of the driver meanwhile to `calls`, as their number and seconds."""
        if shape not in DRIVERS:
            return self.start(pods)
        before = self.calls(shape)
        seconds = self.start(pods)
        for at, after in enumerate(self.calls(shape)):
            calls[shape][at] += after - before[at]
        return seconds

    def pods(self, shape):
        return self.api.list("Pod", self.namespace, f"shape={shape}")

    def clear(self, *shapes):
        """Deletes the pods of these shapes, or all, and waits until they are gone."""
        selector = f"shape in ({','.join(shapes)})" if shapes else "shape"
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={selector.replace(' ', '%20')}"
        self.api.call("DELETE", path)
        wait("pods to be gone", 300, lambda: not self.api.list("Pod", self.namespace, selector), every=0.5)

    def close(self):
        # Their deletion waits for the driver that is to unmount them.
        self.clear()
        for peer in self.peers.values():
            peer.close()
        for shape, role in self.roles.items():
            if shape != "csi":
                self.cluster.vault.delete(f"auth/kubernetes/role/{role}")


MODES = []


def modes(bench):
    if not MODES:
        MODES.append(Modes(bench))
    return MODES[0]


def error(values):
    """Of their mean."""
    return (statistics.variance(values) / len(values)) ** 0.5


def mean(values, digits=2):
    return f"{statistics.mean(values):.{digits}f} ± {error(values):.{digits}f}"


def starts(bench):
    """One pod at a time, from its creation to Ready."""
    all_of_them = modes(bench)
    shapes = (PLAIN, *SHAPES)
    seconds = {shape: [] for shape in shapes}
    calls = {shape: [0, 0] for shape in DRIVERS}
    for shape in shapes:
        # The first of its kind reads programs from the disk.
        all_of_them.start([all_of_them.pod(shape, f"warm-{shape}")])
    all_of_them.clear()
    for turn in range(TURNS):
        bench.say(f"modes: turn {turn + 1} of {TURNS}")
        for shape in random.sample(shapes, len(shapes)):
            name = f"{shape}-{turn}"
            time.sleep(random.random())
            seconds[shape].append(all_of_them.timed(shape, [all_of_them.pod(shape, name)], calls))
            all_of_them.api.delete("Pod", all_of_them.namespace, name)
    bytes_of = footprints(bench, all_of_them)
    show_starts(bench, all_of_them, seconds, calls, bytes_of)


def call(calls, shape):
    """The mean of kubelet's calls of a driver, as text."""
    if shape not in calls:
        return ""
    count, seconds = calls[shape]
    return f"{seconds / count * 1000:,.0f} ms"


def footprints(bench, all_of_them):
    """Bytes on the node for a pod of each shape, beyond a plain one."""
    bench.say("modes: bytes on the node")
    all_of_them.clear()
    shapes = (PLAIN, *SHAPES)
    all_of_them.start([all_of_them.pod(shape, f"{shape}-{number}") for shape in shapes for number in range(SAMPLES)])
    time.sleep(cluster_pods.SETTLE_SECONDS)
    found = {}
    for shape in shapes:
        of_each = [footprint.of(all_of_them.cluster.node, pod) for pod in all_of_them.pods(shape)]
        found[shape] = {part: statistics.median(each[part] for each in of_each) for part in of_each[0]}
    all_of_them.clear()
    return {shape: {part: found[shape][part] - found[PLAIN][part] for part in found[PLAIN]} for shape in SHAPES}


def show_starts(bench, all_of_them, seconds, calls, bytes_of):
    report = bench.report
    head = ["one pod", "created → Ready", "beyond a plain pod", "the driver's part", "processes", "in memory", "on disk"]
    rows = [[PLAIN, f"{mean(seconds[PLAIN])} s", "", "", "", "", ""]]
    beyond = {}
    for shape in SHAPES:
        beyond[shape] = statistics.mean(seconds[shape]) - statistics.mean(seconds[PLAIN])
        both = (error(seconds[shape]) ** 2 + error(seconds[PLAIN]) ** 2) ** 0.5
        parts = [f"{bytes_of[shape][part] / 1024:,.0f} KiB" for part in footprint.PARTS]
        rows.append([all_of_them.name(shape), f"{mean(seconds[shape])} s", f"{beyond[shape]:.2f} ± {both:.2f} s"])
        rows[-1] += [call(calls, shape), *parts]
    report.table("modes", head, rows, {"seconds": seconds, "calls": calls, "bytes": bytes_of})
    for shape, target in TARGETS.items():
        report.figure(f"modes_{shape}", f"{shape}: Ready beyond a plain pod", beyond[shape], "s", ("<=", target))
        for peer in (SECRETS_STORE, VAULT_K8S):
            title = f"{shape}: ahead of {all_of_them.name(peer)} by"
            report.figure(f"modes_{shape}_{peer}", title, beyond[peer] - beyond[shape], "s", (">=", 0))
    for shape in SHAPES:
        total = sum(bytes_of[shape].values()) / 1024
        report.figure(f"bytes_{shape}", f"{all_of_them.name(shape)}: bytes on the node for a pod", total, "KiB")


def crowds(bench):
    """Sixty pods at once, from the first one's creation until all are Ready."""
    all_of_them = modes(bench)
    seconds = {shape: [] for shape in CROWD_SHAPES}
    calls = {shape: [0, 0] for shape in DRIVERS}
    for turn in range(CROWD_TURNS):
        # Each shape follows each other one, and none is always the first.
        for shape in CROWD_SHAPES[turn % 3 :] + CROWD_SHAPES[: turn % 3]:
            bench.say(f"crowd: turn {turn + 1} of {CROWD_TURNS}, {shape}")
            pods = [all_of_them.pod(shape, f"{shape}-{number}") for number in range(CROWD)]
            seconds[shape].append(all_of_them.timed(shape, pods, calls))
            all_of_them.clear(shape)
    bench.say(f"crowd: {MOST} pods of csi")
    most = all_of_them.start([all_of_them.pod("csi", f"most-{number}") for number in range(MOST)])
    all_of_them.clear("csi")
    rows = [[all_of_them.name(shape), f"{mean(each, 1)} s"] for shape, each in seconds.items()]
    ratios = {shape: [a / b for a, b in zip(seconds[shape], seconds[PLAIN])] for shape in CROWD_SHAPES}
    for row, shape in zip(rows, CROWD_SHAPES):
        row += [f"{mean(ratios[shape])} ×", call(calls, shape)]
    head = [f"{CROWD} pods at once", "first created → all Ready", "of the plain ones' time", "the driver's part of each"]
    bench.report.table("crowd", head, rows, {"seconds": seconds, "calls": calls})
    ours, theirs = (statistics.mean(ratios[shape]) for shape in ("csi", SECRETS_STORE))
    bench.report.figure("crowd_csi", f"{CROWD} pods of csi: of the plain ones' time", ours, "×", ("<=", 1.15))
    title = f"{CROWD} pods: {all_of_them.name(SECRETS_STORE)}'s time, of csi's"
    bench.report.figure("crowd_secrets_store", title, theirs / ours, "×", (">=", 1))
    bench.report.figure("crowd_most", f"{MOST} pods of csi at once: first created → all Ready", most, "s")
