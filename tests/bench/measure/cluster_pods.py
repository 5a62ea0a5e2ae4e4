"""Pods on the test cluster, with our chart installed: made for the bench, gone with it."""

import fcntl
import json
import os
import tempfile
import time
from pathlib import Path

from suite import space
from suite.base import Failed, check, run, wait
from suite.product import NAMESPACE as PRODUCT_NAMESPACE
from suite.product import Product
from suite.space import Space
from suite.vault import Vault

from .bench import Skipped

# Where version 1 and version 2 of cgroups are mounted.
CGROUPS = (("/sys/fs/cgroup/cpuacct", "cpuacct.usage", 1e-9), ("/sys/fs/cgroup", "cpu.stat", 1e-6))
SETTLE_SECONDS = 15


class Cluster:
    """What the end-to-end tests call a suite, as far as their parts ask for it."""

    def __init__(self, bench):
        self.api = bench.cluster()
        self.node = bench.node
        bench.cluster_script("vault", "up")
        self.vault = Vault()
        self.canaries = {}
        self.say = bench.say
        self.lock = os.open(tempfile.gettempdir(), os.O_RDONLY)
        try:
            # The chart's objects belong to the whole cluster, and so do the end-to-end tests'.
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Skipped("the end-to-end tests are running") from None
        self.product = Product(self.api, self.vault, self.node, bench.say)
        wait("the namespace of a run before to be gone", 60, self.is_there_or_gone)
        self.was_there = self.api.find("Namespace", None, PRODUCT_NAMESPACE) is not None
        if bench.image:
            self.product.image = bench.image
        else:
            self.product.build()
        self.product.set_up()
        self.space = Space(self, "bench").open()
        self.reference = self.space.secret(username="bench", password="of-the-bench")
        bench.closers.append(self.close)

    def is_there_or_gone(self):
        found = self.api.find("Namespace", None, PRODUCT_NAMESPACE)
        return found is None or "deletionTimestamp" not in found["metadata"]

    def keep_logs(self):
        """The bench looks for nothing in logs."""

    def close(self):
        self.space.close()
        if not self.was_there:
            self.product.uninstall()
            self.api.delete("Namespace", None, PRODUCT_NAMESPACE)
        os.close(self.lock)


CLUSTER = []


def cluster(bench):
    """One installation for all sections."""
    if not CLUSTER:
        CLUSTER.append(Cluster(bench))
    return CLUSTER[0]


def annotated(name, reference, **keys):
    """A pod of our own annotations."""
    return space.pod(name, {"dir.app": reference, **keys})


class Idle:
    """A pod whose secrets do not change; the CPU that its agent takes, from its container's cgroup."""

    whose = "its container's cgroup"

    def __init__(self, bench):
        self.cluster = cluster(bench)
        pod = self.cluster.space.start(annotated("idle", self.cluster.reference))
        status = space.statuses(pod)["hushpod"]
        self.directory = self.cgroup(self.cluster.node.pid(status))
        # What the start takes is not idling.
        time.sleep(SETTLE_SECONDS)
        self.start = time.monotonic(), self.used()

    @staticmethod
    def cgroup(pid):
        """The file that counts, and how long a unit of it is in seconds."""
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for mount, file, unit in CGROUPS:
                wanted = "cpuacct" if file == "cpuacct.usage" else ""
                found = Path(mount + path, file)
                if wanted in controllers.split(",") and found.exists():
                    return found, unit
        raise Failed(f"process {pid} is in no cgroup that counts CPU")

    def used(self):
        file, unit = self.directory
        text = file.read_text()
        return (int(text) if text.strip().isdigit() else int(text.split()[1])) * unit

    def cpu(self):
        """Seconds of CPU, and the seconds in which they were used."""
        start, used = self.start
        return self.used() - used, time.monotonic() - start
