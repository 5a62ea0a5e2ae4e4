"""What many pods of one identity cost a node and its store, and how soon they see a new secret."""

import os
import random
import statistics
import time
from pathlib import Path

from suite import space
from suite.base import check, wait

from .audit import Audit
from .bench import percentile
from .cluster_pods import Idle, SETTLE_SECONDS
from .modes import BOTH, SECRETS_STORE, VAULT_K8S, modes
from .peers import AT_ONCE, OF_VAULT, POLL_SECONDS

FEW, MANY = 60, 110
# Agents are each on their own: ten say what sixty do.
AGENTS = 10
WINDOW_SECONDS = 300
ROTATIONS = 5
# With both drivers, a pod that is new has its first poll somewhere in this time.
RHYTHM_SECONDS = POLL_SECONDS + SETTLE_SECONDS
WHOSE = ("csi", "sidecar", SECRETS_STORE, VAULT_K8S)


def measure(bench):
    all_of_them = modes(bench)
    all_of_them.clear()
    peer = all_of_them.peers[SECRETS_STORE]
    peer.provided_by(OF_VAULT)
    bench.say(f"node: {FEW} pods, and {AGENTS} of each that has an agent")
    pods = [all_of_them.pod(BOTH, f"both-{number}") for number in range(FEW)]
    pods += [all_of_them.pod(shape, f"{shape}-{number}") for shape in ("sidecar", VAULT_K8S) for number in range(AGENTS)]
    all_of_them.start(pods)
    time.sleep(RHYTHM_SECONDS)
    with Audit(all_of_them.cluster.vault, bench.directory) as audit:
        few = window(bench, all_of_them, audit)
        show_requests(bench, all_of_them, few["requests"])
        rotations(bench, all_of_them, audit)
        all_of_them.clear("sidecar", VAULT_K8S)
        bench.say(f"node: {MANY} pods")
        all_of_them.start([all_of_them.pod(BOTH, f"both-{number}") for number in range(FEW, MANY)])
        time.sleep(RHYTHM_SECONDS)
        many = window(bench, all_of_them, audit)
        show_growth(bench, all_of_them, few["requests"], many["requests"])
        # What a provider does for its answer is not the driver's.
        peer.provided_by(AT_ONCE)
        time.sleep(RHYTHM_SECONDS)
        show_drivers(bench, all_of_them, window(bench, all_of_them, audit))
    all_of_them.clear()


class Container:
    """One container of a driver's pod: its CPU and its memory."""

    def __init__(self, cluster, pod, name):
        self.pid = cluster.node.pid(space.statuses(pod)[name])
        self.file, self.unit = Idle.cgroup(self.pid)

    def cpu_seconds(self):
        text = self.file.read_text()
        return (int(text) if text.strip().isdigit() else int(text.split()[1])) * self.unit

    def memory(self):
        """Bytes: anonymous and of files; not the pages of volumes, which nobody maps."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return {part: int(fields[name].split()[0]) * 1024 for part, name in (("anonymous", "RssAnon"), ("file", "RssFile"))}


def window(bench, all_of_them, audit):
    """What is used while nothing changes."""
    cluster = all_of_them.cluster
    peer = all_of_them.peers[SECRETS_STORE].pod()
    containers = {
        "csi": [Container(cluster, cluster.product.driver(), "csi")],
        SECRETS_STORE: [Container(cluster, peer, "secrets-store")],
        "provider": [Container(cluster, peer, AT_ONCE)],
    }
    used = lambda: {who: sum(each.cpu_seconds() for each in them) for who, them in containers.items()}  # noqa: E731
    bench.say(f"node: nothing changes for {WINDOW_SECONDS} s")
    audit.answers()
    begun, before = time.monotonic(), used()
    time.sleep(WINDOW_SECONDS)
    per_hour = 3600 / (time.monotonic() - begun)
    cpu = {who: (now - before[who]) * per_hour for who, now in used().items()}
    answers = audit.answers()
    requests = {
        shape: sum(each["role"] == all_of_them.roles[shape] for each in answers) * per_hour for shape in WHOSE
    }
    memory = {who: them[0].memory() for who, them in containers.items()}
    return {"requests": requests, "cpu": cpu, "memory": memory}


def show_requests(bench, all_of_them, few):
    """Counted in the window, and taken for an hour; of ten agents for sixty."""
    hour = {shape: few[shape] * (FEW / AGENTS if shape in ("sidecar", VAULT_K8S) else 1) for shape in WHOSE}
    rows = [[all_of_them.name(shape), f"{hour[shape]:,.0f}"] for shape in WHOSE]
    head = [f"polled every {POLL_SECONDS} s, logins of {all_of_them.LOGIN_SECONDS} s", f"requests an hour for {FEW} pods"]
    bench.report.table("requests", head, rows, hour)


def show_growth(bench, all_of_them, few, many):
    for shape, target in (("csi", ("<=", 1.1)), (SECRETS_STORE, None)):
        title = f"{all_of_them.name(shape)}: requests an hour for {MANY} pods, of {FEW} pods'"
        note = f"{few[shape]:.0f} and {many[shape]:.0f}"
        # With none at all in a window, there is nothing to grow.
        bench.report.figure(f"requests_{shape}", title, many[shape] / max(few[shape], 1), "×", target, note)


def show_drivers(bench, all_of_them, many):
    report, rows = bench.report, []
    cpu, memory = many["cpu"], many["memory"]
    for who, name in (("csi", "hushpod"), (SECRETS_STORE, all_of_them.name(SECRETS_STORE)), ("provider", "its provider")):
        parts = memory[who]
        total = sum(parts.values())
        mib = [f"{each / 1024**2:.1f} MiB" for each in (total, parts["anonymous"], parts["file"])]
        rows.append([name, *mib, f"{cpu[who]:.2f} s"])
    head = [f"driver, {MANY} volumes", "RSS", "anonymous", "of files", "CPU an hour"]
    report.table("drivers", head, rows, many)
    ours = sum(memory["csi"].values()) / 1024**2
    report.figure("driver_memory", f"driver: RSS with {MANY} volumes", ours, "MiB", ("<=", 16))
    part = cpu["csi"] / (cpu[SECRETS_STORE] + cpu["provider"])
    title = "driver: CPU when nothing changes, of the Secrets Store CSI driver's and its provider's"
    report.figure("driver_cpu", title, part, "", ("<=", 0.25))


# --- rotation

PLACES = {
    "csi": "kubernetes.io~csi/hushpod-secrets/mount/app/password",
    "sidecar": "kubernetes.io~empty-dir/hushpod-secrets/live/app/password",
    SECRETS_STORE: "kubernetes.io~csi/secrets-store/mount/password",
    VAULT_K8S: "kubernetes.io~empty-dir/vault-secrets/password",
}


def files(all_of_them):
    """Where each pod's application finds the password, by who put it there."""
    found = {}
    for shape, place in PLACES.items():
        pods = all_of_them.pods(shape if shape in ("sidecar", VAULT_K8S) else BOTH)
        volumes = all_of_them.cluster.node.state / "kubelet/pods"
        found[shape] = [volumes / pod["metadata"]["uid"] / "volumes" / place for pod in pods]
    return found


def changed_at(file):
    """When the present file came into view, in seconds of Unix time: tmpfs notes at an inode when it was renamed. The link
    ..data is what is renamed where there is one."""
    for directory in file.parents[:2]:
        if (directory / "..data").is_symlink():
            return os.lstat(directory / "..data").st_ctime
    return os.lstat(file).st_ctime


def rotations(bench, all_of_them, audit):
    """A new password, several times at random moments."""
    cluster = all_of_them.cluster
    from_write = {shape: [] for shape in WHOSE}
    from_known = []
    for turn in range(ROTATIONS):
        time.sleep(random.uniform(0, POLL_SECONDS / 4))
        bench.say(f"node: rotation {turn + 1} of {ROTATIONS}")
        password = f"bench-{turn}-{random.getrandbits(64):x}"
        audit.answers()
        written = time.time()
        cluster.space.secret(username="bench", password=password)
        where = files(all_of_them)

        def is_everywhere():
            return all(file.read_text() == password for each in where.values() for file in each)

        wait("the new password everywhere", 4 * POLL_SECONDS, is_everywhere, every=1)
        seen = {shape: [changed_at(file) for file in each] for shape, each in where.items()}
        for shape, times in seen.items():
            from_write[shape] += [at - written for at in times]
        known = [
            each["time"]
            for each in audit.answers()
            if each["role"] == all_of_them.roles["csi"]
            and each["path"] == cluster.reference
            and written < each["time"] <= max(seen["csi"])
        ]
        check(known, "Vault answered the driver nothing between the change and its being seen")
        from_known += [at - known[-1] for at in seen["csi"]]
    rows = []
    for shape in WHOSE:
        times = [f"{value:.1f} s" for value in (statistics.median(from_write[shape]), percentile(from_write[shape], 99))]
        rows.append([all_of_them.name(shape), str(len(from_write[shape])), *times])
    head = [f"written → visible, polled every {POLL_SECONDS} s", "pods × changes", "p50", "p99"]
    bench.report.table("rotation", head, rows, {"from write": from_write, "from known": from_known})
    milliseconds = percentile(from_known, 99) * 1000
    title = f"csi: the store's answer → visible in all of {FEW} pods, p99"
    bench.report.figure("rotation_csi", title, milliseconds, "ms", ("<=", 250))
