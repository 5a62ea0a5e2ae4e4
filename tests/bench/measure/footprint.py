"""What a pod takes of its node: memory of its processes, files in memory, and disk."""

import os
from pathlib import Path

from suite import space

PARTS = ("processes", "memory", "disk")


def of(node, pod):
    """Bytes, by part. Pages that several processes share are divided among them (PSS); the runtime's shim, which grows
    with the number of containers, counts as the pod's. What kernel and kubelet keep of a pod is not counted."""
    pids = [node.pid(status) for status in space.statuses(pod).values() if "running" in status["state"]]
    shim = parent(pids[0])
    # Seen from the host, by the pod's user id: mounts of volumes are below its directory.
    directory = node.state / "kubelet/pods" / pod["metadata"]["uid"]
    processes = sum(proportional(pid) for pid in {shim, *descendants(shim)})
    return {"processes": processes, "memory": in_memory(directory), "disk": on_disk(node, pod, directory)}


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def descendants(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def proportional(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def in_memory(directory):
    """Of the tmpfs mounts below, whole pages."""
    total = 0
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        place = fields.split()[4]
        if place.startswith(f"{directory}/") and kind.startswith("tmpfs "):
            status = os.statvfs(place)
            total += (status.f_blocks - status.f_bfree) * status.f_frsize
    return total


def on_disk(node, pod, directory):
    """kubelet's directory, the logs, and what the runtime keeps of each container."""
    name = pod["metadata"]["name"]
    places = [directory, node.pod_logs / f"{pod['metadata']['namespace']}_{name}_{pod['metadata']['uid']}"]
    containers = {status["containerID"].removeprefix("containerd://") for status in space.statuses(pod).values()}
    for container in containers:
        places += (node.state / "containerd/io.containerd.grpc.v1.cri/containers").glob(container)
        places += (node.state / "run/containerd/io.containerd.runtime.v2.task/k8s.io").glob(container)
        places += (node.state / "run/containerd/io.containerd.grpc.v1.cri/containers").glob(container)
        places += layer(node, container)
    return sum(blocks(place) for place in places if place.exists())


def layer(node, container):
    """The directory of its writable layer, while it runs."""
    root = str(node.state / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / container / "rootfs")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4] == root:
            upper = next((each for each in line.split()[-1].split(",") if each.startswith("upperdir=")), None)
            if upper:
                return [Path(upper.removeprefix("upperdir=")).parent]
    return []


def blocks(place):
    """Of the files and directories on the disk of this place: what is mounted below is not looked into."""
    device, total = place.lstat().st_dev, 0
    for top, directories, files in os.walk(place):
        for each in [top, *(os.path.join(top, file) for file in files)]:
            total += os.lstat(each).st_blocks * 512
        directories[:] = [each for each in directories if os.lstat(os.path.join(top, each)).st_dev == device]
    return total
