"""Trust between API server and webhook, for minutes: what the end-to-end tests do to it once, over and over, and certificates
that change every few seconds, while pods are created without a pause. None may come into being without its secrets."""

import contextlib
import random
import time

from cases import trust
from suite.base import Failed, equal, meanwhile, run, wait
from suite.cluster import kubectl
from suite.product import NAMESPACE

from . import cluster_pods
from .cert_manager import CertManager

# With both sections ten minutes and more.
SECONDS = 300
OTHERS_SECONDS = 150
# A replica is ready five seconds after it is trusted again; and kubelet looks now and then.
SETTLE_SECONDS = 8
# How long kubelet is given to be late with a certificate.
LATE_SECONDS = 10


def rolled(t, outcomes):
    """Both replicas make room for new ones with new keys: no pod is refused."""
    first, name = len(outcomes), t.suite.product.deployment()["metadata"]["name"]
    kubectl("-n", NAMESPACE, "rollout", "restart", "deployment", name)
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment", name, "--timeout=120s", seconds=130)
    equal(trust.failures_of(outcomes, first)[:3], [], "pods refused while the replicas were rolled")


@contextlib.contextmanager
def unreachable(t, replica):
    """Nothing arrives from the machine where API server and kubelet are, and nothing there: a node that is cut off."""
    inside = ["nsenter", "--target", trust.pid_of(t, replica), "--net", "iptables", "--wait"]
    rules = [["INPUT", "--source", t.node.address], ["OUTPUT", "--destination", t.node.address]]
    for rule in rules:
        run(*inside, "--insert", *rule, "--protocol", "tcp", "--jump", "DROP")
    try:
        yield
    finally:
        for rule in rules:
            run(*inside, "--delete", *rule, "--protocol", "tcp", "--jump", "DROP")


def isolated(t, outcomes):
    """A replica is cut off from everybody for longer than kubelet takes to notice."""
    with unreachable(t, random.choice(trust.ready(t))):
        time.sleep(15)  # an outage lasts
    trust.served_again(t, outcomes, "after a replica was cut off from everybody", 60)
    trust.ready(t)


STRIKES = (rolled, trust.cut_off, isolated, trust.killed, trust.made_anew, trust.emptied, trust.emptied_twice)


class Creations:
    """When each pod was created, or refused."""

    def __init__(self, t):
        self.t, self.times = t, []

    def one(self, number):
        try:
            trust.injected(self.t, number)
        except Failed:
            self.times.append((time.monotonic(), False))
            raise
        self.times.append((time.monotonic(), True))

    def longest(self, since):
        """Seconds between two pods that were created, at most, if some were refused between them."""
        last, refused, most = None, False, 0.0
        for at, is_made in self.times[max(0, since - 1) :]:
            if is_made:
                if refused and last is not None:
                    most = max(most, at - last)
                last, refused = at, False
            refused = refused or not is_made
        return most


class Tally:
    """What came of it, by what was done, until both replicas were ready again."""

    def __init__(self, t):
        self.t, self.rows = t, {}

    def during(self, name, creations, outcomes, strike, settle=SETTLE_SECONDS):
        first = len(outcomes)
        strike()
        time.sleep(settle)
        trust.ready(self.t)
        refused = trust.failures_of(outcomes, first)
        row = self.rows.setdefault(name, {"times": 0, "pods": 0, "refused": 0, "longest": 0.0})
        row["times"] += 1
        row["pods"] += len(outcomes) - first
        row["refused"] += len(refused)
        row["longest"] = max(row["longest"], creations.longest(first))

    def show(self, report, key, title):
        head = [title, "times", "pods created meanwhile", "refused", "longest without a pod"]
        rows = [
            [name, str(row["times"]), f"{row['pods']:,}", str(row["refused"]), f"{row['longest']:.1f} s" if row["refused"] else ""]
            for name, row in self.rows.items()
        ]
        report.table(key, head, rows, self.rows)


def space(bench):
    return cluster_pods.cluster(bench).space


def again_and_again(seconds, strikes):
    """Each in turn until the time is over, and each once at least."""
    end, number = time.monotonic() + seconds, 0
    while number < len(strikes) or time.monotonic() < end:
        yield strikes[number % len(strikes)]
        number += 1


def measure(bench):
    """With authorities of the replicas' own."""
    t = space(bench)
    tally = Tally(t)
    creations = Creations(t)
    trust.ready(t)
    try:
        with meanwhile(creations.one) as outcomes:
            wait("the first pods", 20, lambda: len(outcomes) > 10)
            for strike in again_and_again(SECONDS, STRIKES):
                bench.say(f"trust: {strike.__name__}")
                tally.during(strike.__name__, creations, outcomes, lambda strike=strike: strike(t, outcomes))
    finally:
        tally.show(bench.report, "trust", "tls.mode self")


def managed(bench):
    """With certificates of cert-manager."""
    t = space(bench)
    tally = Tally(t)
    product, api = t.suite.product, t.api
    manager = CertManager(bench)
    # What comes next finds the chart as it was.
    bench.closers.append(product.install)
    product.install(tls={"mode": "certManager"})
    trust.ready(t)
    port = product.pods()[0]["spec"]["containers"][0]["ports"][0]["containerPort"]
    restarts = [each["metadata"]["uid"] for each in product.pods()]
    creations = Creations(t)

    def leaf(late=0):
        before = trust.serials(t, port)
        manager.renew(api, NAMESPACE, "hushpod-webhook-tls")
        # Kubelet takes up to a minute, unless the pod changes.
        time.sleep(late)

        def taken_over():
            product.look()
            now = trust.serials(t, port)
            return len(now) == 1 and not now & before

        wait("the new certificate to be served", 120, taken_over, every=1)

    def authority(late=0):
        manager.renew(api, NAMESPACE, "hushpod-webhook-ca")
        leaf(late)

    def authority_late():
        authority(LATE_SECONDS)

    strikes = {
        "the webhook's certificate and key renewed": leaf,
        "the authority renewed, then the certificate": authority,
        "so, and kubelet late with it": authority_late,
    }
    try:
        with meanwhile(creations.one) as outcomes:
            wait("the first pods", 20, lambda: len(outcomes) > 10)
            for name in again_and_again(OTHERS_SECONDS, list(strikes)):
                bench.say(f"cert-manager: {name}")
                tally.during(name, creations, outcomes, strikes[name], settle=2)
            equal([each["metadata"]["uid"] for each in product.pods()], restarts, "the replicas")
            for strike in (trust.emptied, trust.made_anew, rolled, trust.killed):
                bench.say(f"cert-manager: {strike.__name__}")
                tally.during(strike.__name__, creations, outcomes, lambda strike=strike: strike(t, outcomes))
    finally:
        tally.show(bench.report, "cert-manager", f"{manager.name}, with its CA injector")
        bench.report.note("cert-manager: its keys are in etcd now: tests/cluster/down before the end-to-end tests look there")
