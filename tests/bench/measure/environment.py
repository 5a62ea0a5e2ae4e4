"""What environment variables cost a container's start and the node's disk, by either way in which the program comes."""

import contextlib
import random
import time
from pathlib import Path

from suite import space
from suite.base import wait

from . import cluster_pods
from .bench import median

PODS = 15
RUNS = 100
TARGET = 20
WAYS = {"copy": "a copy in an emptyDir", "image": "an image volume"}
EXEC = "/hushpod-bin/hushpod-agent exec --env /secrets/app.env -- /bin/true"
# It has no plan, and ends as soon as it has made the copy.
AGENT = "/image/hushpod-agent init --program /image/hushpod-exec --volume /memory --bin"
# Kubelet's own clock, which no look round once a second blurs. Images are mounted before the container is started.
CLOCK = 'kubelet_runtime_operations_duration_seconds_sum{operation_type="create_container"}'


def measure(bench):
    cluster = cluster_pods.cluster(bench)
    image = {"image": {"reference": cluster.product.agent_image, "pullPolicy": "Never"}}
    volumes = {"none": {}, "copy": {"volume": {"emptyDir": {}}}, "image": {"volume": image}}
    runtime = in_runtime(bench, cluster, volumes)
    copying = {"copy": copied(cluster, image), "image": 0.0}
    rows, raw = [], {"runtime": runtime, "copying": copying["copy"]}
    for way, name in WAYS.items():
        with cluster.product.configured(imageVolumes=True) if way == "image" else contextlib.nullcontext():
            program, disk = wrapped(cluster, way)
        parts = [median(runtime[way]) - median(runtime["none"]), copying[way], program]
        rows.append([name, f"{disk:,}", *(f"{each:.1f} ms" for each in (*parts, sum(parts)))])
        raw[way] = {"disk": disk, "program": program}
        bench.report.figure(f"environment_{way}", f"variables: a start, with {name}", sum(parts), "ms", ("<=", TARGET))
    head = ["variables: the program is in", "bytes on disk", "runtime", "agent's copying", "program", "added to a start"]
    bench.report.table("environment", head, rows, raw)


def with_volumes(name, volumes):
    pod = space.pod(name)
    pod["spec"]["volumes"] += [{"name": each, **volume} for each, volume in volumes.items()]
    mounts = [{"name": each, "mountPath": f"/{each}"} for each in volumes]
    pod["spec"]["containers"][0]["volumeMounts"] += mounts
    return pod


def in_runtime(bench, cluster, shapes):
    """Milliseconds that the runtime takes to make a container of each shape."""
    found = {shape: [] for shape in shapes}
    for turn in range(PODS):
        bench.say(f"environment: turn {turn + 1} of {PODS}")
        for shape in random.sample(list(shapes), len(shapes)):
            name = f"{shape}-{turn}"
            time.sleep(random.random())
            before = clock(cluster)
            cluster.space.start(with_volumes(name, shapes[shape]))
            found[shape].append((clock(cluster) - before) * 1000)
    # Not one by one: what the runtime does to end a pod would slow the next one down.
    for name in (f"{shape}-{turn}" for shape in shapes for turn in range(PODS)):
        cluster.api.delete("Pod", cluster.space.namespace, name)
    return found


def clock(cluster):
    """Seconds that the runtime has taken for making containers, so far."""
    node = cluster.api.call("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
    return cluster.api.sums(cluster.api.text(f"/api/v1/nodes/{node}/proxy/metrics"))[CLOCK]


def copied(cluster, image):
    """Milliseconds that the agent takes longer when there is a volume to copy the program into."""
    volumes = {"image": image, "memory": {"emptyDir": {"medium": "Memory"}}, "disk": {"emptyDir": {}}}
    cluster.space.start(with_volumes("copying", volumes))
    took = each_run(cluster, "copying", f"{AGENT} /disk") - each_run(cluster, "copying", f"{AGENT} /nowhere")
    cluster.space.delete("copying")
    return took


def wrapped(cluster, name):
    """Milliseconds that a process starts later through the program, and the program's bytes on disk in a pod."""
    secrets = f'- {{file: app.env, from: "{cluster.reference}", format: dotenv}}'
    pod = space.pod(name, {"secrets": secrets, "env": "app.env"})
    # The API server changes the policy in its own time.
    wait("a pod to be admitted", 20, lambda: cluster.space.create(pod, dry_run=True))
    started = cluster.space.start(pod)
    cluster.space.sh(name, EXEC)
    took = each_run(cluster, name, EXEC) - each_run(cluster, name, "/bin/true")
    bytes_on_disk = disk(cluster, started)
    cluster.space.delete(name)
    return took, bytes_on_disk


def each_run(cluster, name, command):
    """Milliseconds of a command in a pod, of the best of several rows of runs."""
    loop = f"i=0; while [ $i -lt {RUNS} ]; do {command} >/dev/null 2>&1; i=$((i+1)); done"
    script = f"read a _ </proc/uptime; {loop}; read b _ </proc/uptime; echo $a $b"

    def row():
        begin, end = map(float, cluster.space.sh(name, script).split())
        return (end - begin) * 1000 / RUNS

    return min(row() for _ in range(5))


def disk(cluster, pod):
    """Bytes on the node's disk that the program's volume takes: of an image volume, what is not the image's."""
    directory = cluster.node.volume(pod, "empty-dir", "hushpod-bin")
    if not directory.exists():
        mount = cluster.space.sh(pod["metadata"]["name"], "grep ' /hushpod-bin ' /proc/self/mounts")
        upper = next(each for each in mount.split()[3].split(",") if each.startswith("upperdir="))
        directory = Path(upper.removeprefix("upperdir=")).parent
    return sum(each.lstat().st_blocks * 512 for each in (directory, *directory.rglob("*")))
