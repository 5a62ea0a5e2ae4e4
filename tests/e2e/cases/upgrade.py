"""From the previous chart to this one and back, while pods are created and others run."""

import time

from suite.base import check, equal, meanwhile, wait
from suite.product import ROOT
from suite.runner import ALONE, test
from suite.space import canary, pod

# The last chart before this one, as it was packaged.
(PREVIOUS,) = (ROOT / "tests/data/charts").glob("hushpod-*.tgz")
PORTS = {True: 8443, False: 10250}


def port(product):
    """Where the webhook's newest pods listen: what tells one chart from the other."""
    container, *_ = product.deployment()["spec"]["template"]["spec"]["containers"]
    return next(each["containerPort"] for each in container["ports"] if each["name"] == "https")


@test(when=ALONE, long=True)
def p7_upgrade_and_rollback_refuse_no_pod(t):
    """Previous chart, this one, rollback, this one again: no creation is refused and none is un-injected meanwhile; what
    runs goes on, with one login, and sees the next rotation."""
    product = t.suite.product
    t.open()
    reference = t.secret(x=canary()) + "#x"
    wanted = {"file.x": reference, "refresh": "1s"}
    asks = pod("asks", wanted, nodeSelector={"hushpod-e2e": "nowhere"})

    def create(_):
        made = t.create(asks, dry_run=True)
        names = [each["name"] for each in made["spec"].get("initContainers", [])]
        check("hushpod" in names, f"not injected: {names}")

    def rotated(step):
        value = canary()
        t.secret(x=value)
        for name in running:
            t.sees(name, "/secrets/x", value, seconds=60)
        t.suite.say(f"{step}: {', '.join(running)} saw a rotation")

    try:
        product.install(chart=PREVIOUS)
        equal(port(product), PORTS[True], "port of the previous chart's webhook")
        before = product.revision()
        running = {"sidecar": {}, "wrapper": {"env.X": reference}, "csi": {"mode": "csi"}}
        if not t.node:
            del running["csi"]
        first = []
        for name, more in running.items():
            first.append(t.start(pod(name, {**wanted, **more})))
        logins = t.vault.logins(t.role)
        rotated("previous chart")
        steps = {
            "upgrade": (product.install, False),
            "rollback": (lambda: product.rollback(before), True),
            "upgrade again": (product.install, False),
        }
        for step, (change, is_previous) in steps.items():
            with meanwhile(create) as outcomes:
                change()
                equal(port(product), PORTS[is_previous], f"port after the {step}")
                old = {each["metadata"]["name"] for each in product.pods()}
                # Those that drain still answer.
                wait("the replaced replicas to be gone", 60, lambda: {  # noqa: B023
                    each["metadata"]["name"] for each in t.api.list("Pod", "hushpod")
                } <= old)  # noqa: B023
                time.sleep(1)
            failures = list(filter(None, outcomes))
            equal(failures[:3], [], f"{step}: {len(failures)} failures of {len(outcomes)} pods")
            check(len(outcomes) > 10, f"{step}: only {len(outcomes)} pods were created meanwhile")
            rotated(step)
            t.start(pod(f"after-{step.replace(' ', '-')}", wanted))
        now = [t.pod(each["metadata"]["name"]) for each in first]
        for then, each in zip(first, now, strict=True):
            equal(each["metadata"]["uid"], then["metadata"]["uid"], "uid of a pod that ran across it all")
        # Of the driver's pods the process was replaced, and what it had mounted stayed.
        t.never_restarted(*first)
        mine = len(t.vault.logins(t.role)) - len(logins)
        # Three pods came after, each with a login of its own.
        check(mine <= 3, f"{mine} logins more than the three of the pods that came later: some logged in anew")
    finally:
        product.install()
