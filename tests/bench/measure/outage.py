"""Pods of mode csi that are made while their store is away: how soon they start when it is back, and how soon they go."""

import random
import time

from suite import space
from suite.base import Failed, wait

from . import cluster_pods
from .bench import median

# Seconds that the store is away, pods that wait for it, and pods that are deleted meanwhile.
OUTAGES = ((30, 6, 2), (900, 14, 4))
# Until a pod's first call has failed or waits.
AGE_SECONDS = 10
# Between two calls of kubelet for a volume, at most; and the call that finds the store.
BACK_OFF_SECONDS = 130


def measure(bench):
    cluster = cluster_pods.cluster(bench)
    rows, raw = [], {}
    for seconds, waiting, deleted in OUTAGES:
        bench.say(f"outage: {seconds} s")
        started, gone = outage(bench, cluster, seconds, waiting, deleted)
        at_once = sum(each <= 2 for each in started)
        parts = [f"{at_once} of {waiting}", *(f"{each:.1f} s" for each in (median(started), max(started), max(gone)))]
        rows.append([f"{seconds} s", *parts])
        raw[seconds] = {"started": started, "gone": gone}
        title = f"an outage of {seconds} s: a waiting pod's deletion, at most"
        bench.report.figure(f"outage_{seconds}_deletion", title, max(gone), "s", ("<=", 5))
    head = ["the store is away for", "Ready within 2 s of its return", "half of them within", "all within", "deleted within"]
    bench.report.table("outage", head, rows, raw)


def outage(bench, cluster, seconds, waiting, deleted):
    """Seconds from the store's return to Ready, and from the request to delete a pod to its being gone."""
    make = lambda name: cluster.space.create(cluster_pods.annotated(name, cluster.reference, mode="csi"))  # noqa: E731
    names = [f"out-{seconds}-{number}" for number in range(waiting)]
    room = seconds - AGE_SECONDS
    events = [(random.uniform(0, room), name) for name in names]
    events += [(room * (number + 1) / (deleted + 1), None) for number in range(deleted)]
    gone = []
    cluster.node.script("vault", "stop")
    try:
        begun = time.monotonic()
        for at, name in sorted(events, key=lambda event: event[0]):
            time.sleep(max(0, begun + at - time.monotonic()))
            if name:
                make(name)
                continue
            victim = f"gone-{seconds}-{len(gone)}"
            make(victim)
            time.sleep(min(AGE_SECONDS, seconds / 10))
            gone.append(deletion(cluster, victim))
        time.sleep(max(0, begun + seconds - time.monotonic()))
    finally:
        cluster.node.script("vault", "start")
    back = time.monotonic()
    ready = {}
    while len(ready) < len(names):
        if time.monotonic() > back + BACK_OFF_SECONDS:
            raise Failed(f"{len(names) - len(ready)} pods do not start:\n{cluster.space.diagnose()[-3000:]}")
        for pod in cluster.api.list("Pod", cluster.space.namespace):
            if space.is_ready(pod):
                ready.setdefault(pod["metadata"]["name"], time.monotonic() - back)
        time.sleep(0.1)
    bench.say(f"outage: {sorted(round(each, 1) for each in ready.values())}")
    for name in names:
        cluster.api.delete("Pod", cluster.space.namespace, name)
    return list(ready.values()), gone


def deletion(cluster, name):
    begun = time.monotonic()
    cluster.api.delete("Pod", cluster.space.namespace, name)
    wait(f"{name} to be gone", 120, lambda: cluster.api.find("Pod", cluster.space.namespace, name) is None, every=0.1)
    return time.monotonic() - begun
