"""From a pod's creation to Ready, in every mode, beside trivial pods of the same shape."""

import http.client
import json
import random
import statistics
import time

from suite import space
from suite.base import Failed
from suite.cluster import UnixConnection

from . import cluster_pods

# With fewer, chance alone makes a third of a second now and then.
PODS = 24
MODES = ("csi", "sidecar", "init+sidecar", "init")
TARGETS = {"csi": 0.1}
TARGET = 0.3


def twin(name, mode):
    """As many containers of the same kinds, which do nothing: with csi, none beside the application's."""
    init = []
    if mode == "csi":
        return space.pod(name)
    if mode != "sidecar":
        init.append(space.container("init", ["true"]))
    if mode != "init":
        sidecar = space.container("sidecar", space.FOREVER)
        sidecar["restartPolicy"] = "Always"
        if mode == "sidecar":
            sidecar["lifecycle"] = {"postStart": {"exec": {"command": ["true"]}}}
        init.append(sidecar)
    return space.pod(name, init=init)


def measure(bench):
    cluster = cluster_pods.cluster(bench)
    seconds = {(mode, ours): [] for mode in MODES for ours in (True, False)}
    number = 0
    for turn in range(PODS):
        bench.say(f"start: turn {turn + 1} of {PODS}")
        order = list(seconds)
        random.shuffle(order)
        for mode, ours in order:
            number += 1
            name = f"pod-{number}"
            pod = cluster_pods.annotated(name, cluster.reference, mode=mode) if ours else twin(name, mode)
            # Kubelet looks round once a second: the moment must not depend on the pod before.
            time.sleep(random.random())
            seconds[mode, ours].append(start(cluster, pod))
            cluster.api.delete("Pod", cluster.space.namespace, name)
    for mode in MODES:
        ours, theirs = (sum(seconds[mode, each]) / PODS for each in (True, False))
        report = bench.report
        key = f"start_{mode.replace('+', '_')}"
        report.figure(f"{key}_ready", f"pod created → Ready, {mode}", ours, "s", None, f"{seconds[mode, True]}")
        report.figure(f"{key}_twin", "its trivial twin", theirs, "s", None, f"{seconds[mode, False]}")
        error = sum(statistics.variance(seconds[mode, each]) / PODS for each in (True, False)) ** 0.5
        target = TARGETS.get(mode, TARGET)
        report.figure(f"{key}_added", f"the difference (± {error:.2f} s)", ours - theirs, "s", ("<=", target))
    # The same application, without anything of ours.
    plain = seconds["csi", False]
    for mode in ("csi", "sidecar"):
        beyond = statistics.mean(seconds[mode, True]) - statistics.mean(plain)
        error = sum(statistics.variance(each) / PODS for each in (seconds[mode, True], plain)) ** 0.5
        target = TARGETS.get(mode, TARGET)
        title = f"{mode}: beyond a plain pod (± {error:.2f} s)"
        report.figure(f"start_{mode}_beyond_plain", title, beyond, "s", ("<=", target))


def start(cluster, pod):
    """Seconds from the request that creates a pod to its being seen ready."""
    name, namespace = pod["metadata"]["name"], cluster.space.namespace
    watch = UnixConnection(cluster.api.socket)
    path = f"/api/v1/namespaces/{namespace}/pods?watch=true&timeoutSeconds=60&fieldSelector=metadata.name%3D{name}"
    watch.request("GET", path)
    begun = time.monotonic()
    cluster.space.create(pod)
    try:
        for line in watch.getresponse():
            if space.is_ready(json.loads(line)["object"]):
                return time.monotonic() - begun
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"watching pod {name}: {error}") from None
    finally:
        watch.close()
    raise Failed(f"pod {name} is not ready after a minute:\n{cluster.space.diagnose()[-3000:]}")
