"""The operator's rules on the cluster: by labels of namespaces, what `deny` stops at once, environments apart."""

import time

from suite.base import Failed, check, contains, equal, holds, run, wait
from suite.cluster import kubectl
from suite.product import CSI_NAMESPACE, NAMESPACE
from suite.runner import ALONE, test
from suite.space import canary, has_run, pod

FAST = {"refresh": "1s"}
TIER = "example.com/tier"
# The accounts that may look at namespaces while a rule asks for labels, and at no other time.
ACCOUNTS = (f"system:serviceaccount:{NAMESPACE}:hushpod-webhook", f"system:serviceaccount:{CSI_NAMESPACE}:hushpod-csi")


def providers(t, **more):
    """Those of all tests, and these: Vault with other settings."""
    known = t.suite.product.values()["config"]["providers"]
    return {**known, **{name: {**known["vault"], **settings} for name, settings in more.items()}}


def may_list_namespaces():
    answers = (run("kubectl", "auth", "can-i", "list", "namespaces", f"--as={each}", ok=False) for each in ACCOUNTS)
    return [each.stdout.split()[0] for each in answers]


def look_at_driver(t):
    """Kubelet carries the ConfigMap into the driver's pod as soon as that pod changes."""
    name = t.suite.product.driver()["metadata"]["name"]
    kubectl("-n", CSI_NAMESPACE, "annotate", "pod", name, "--overwrite", f"hushpod-e2e={time.time_ns()}")


def looking(t, what, seconds, condition):
    """Waits for what comes true once the driver has another configuration."""

    def true():
        look_at_driver(t)
        return condition()

    return wait(what, seconds, true, every=1)


def is_admitted(t, thing):
    try:
        t.create(thing, dry_run=True)
    except Failed as refusal:
        contains(str(refusal), "may not use provider", "the refusal")
        return False
    return True


@test(when=ALONE)
def p6_rules_by_labels_of_namespaces(t):
    """A namespace with the label gets its secret, by agent and by driver; without it, it is refused; and only while a
    rule asks for labels may anybody look at namespaces."""
    t.open(labels={TIER: "prod"})
    value = canary()
    keys = {"file.password": f"labelled:{t.secret(password=value)}#password", **FAST}
    equal(may_list_namespaces(), ["no", "no"], "rights on namespaces without such a rule")
    rules = [{"namespaceLabels": {TIER: "prod"}, "requests": ["secret/data/{{namespace}}/*"]}]
    with t.suite.product.configured(providers=providers(t, labelled={"allow": rules})):
        equal(may_list_namespaces(), ["yes", "yes"], "rights on namespaces with such a rule")
        asking = pod("asking", keys)
        wait("the label to be known", 60, lambda: is_admitted(t, asking))
        t.create(pod("volume", {**keys, "mode": "csi"}))
        t.start(pod("agent", keys))
        # The driver may have the configuration later, and kubelet calls it again.
        wait("the driver to know the label", 180, lambda: (look_at_driver(t), t.ready("volume", 1)), every=1)
        for name in ("agent", "volume"):
            equal(t.file(name, "/secrets/password"), value, f"the file of {name}")
        for labels in (f"{TIER}=dev", f"{TIER}-"):
            kubectl("label", "namespace", t.namespace, labels, "--overwrite")
            wait(f"a refusal with {labels}", 20, lambda: not is_admitted(t, asking))
            t.refused(pod("later", {**keys, "mode": "csi"}), "may not use provider")
        kubectl("label", "namespace", t.namespace, f"{TIER}=prod", "--overwrite")
        wait("the label to count again", 20, lambda: is_admitted(t, asking))
        for name in ("agent", "volume"):
            equal(t.file(name, "/secrets/password"), value, f"the file of {name} after all that")
    equal(may_list_namespaces(), ["no", "no"], "rights on namespaces afterwards")


@test(when=ALONE)
def p3_what_is_denied_stops_at_once(t):
    """`deny` refuses new pods and stops a running volume of the driver, whose file stays; an agent goes on by its plan,
    as the page says; and without the rule all of it goes on."""
    t.open()
    first, second, third = canary(), canary(), canary()
    keys = {"file.password": f"{t.secret(password=first)}#password", **FAST}
    before = t.start(pod("volume", {**keys, "mode": "csi"}), pod("agent", keys))
    rules = [{"namespaces": ["nobody"]}, {"references": [f"vault:secret/data/{t.namespace}/*"]}]
    with t.suite.product.configured(deny=rules):
        for mode in ("sidecar", "csi"):
            t.refused(pod("later", {**keys, "mode": mode}), "the operator's rule deny[1]")

        def told():
            parts = ("deny[1]", "last good files stay")
            events = t.api.call("GET", f"/api/v1/namespaces/{t.namespace}/events")["items"]
            return any(all(part in each["message"] for part in parts) for each in events)

        looking(t, "an event that names the rule", 150, told)
        t.secret(password=second)
        t.sees("agent", "/secrets/password", second)
        holds("the volume's file", 10, lambda: t.file("volume", "/secrets/password") == first, every=1)
    t.secret(password=third)
    looking(t, "the volume's file to change", 150, lambda: t.file("volume", "/secrets/password") == third)
    t.never_restarted(*before)


@test()
def p6_an_environment_cannot_get_anothers_secret(t):
    """The rule of staging's provider, and Vault's policy behind it: prod's secret by no spelling."""
    directory = f"{t.namespace}/staging"
    t.open()
    own, others = canary(), canary()
    # As deploy/environments has it, below the namespace's own directory: the test's role ends there.
    t.secret(path="staging/db", password=own)
    foreign = f"secret/data/prod-{t.namespace}"
    t.suite.canaries[others] = f"{t.title} prod"
    t.vault.write(f"{foreign}/db", data={"password": others})
    try:
        t.start(pod("rightful", {"file.x": f"own:secret/data/{directory}/db#password", **FAST}))
        equal(t.file("rightful", "/secrets/x"), own, "staging's own secret")
        spellings = (
            f"{foreign}/db",
            f"v1/{foreign}/db",
            f"/{foreign}/db",
            f"{foreign}/db?version=1",
            f"secret/data/{directory}/../../prod-{t.namespace}/db",
            f"secret/data/{t.namespace}/%2e%2e/prod-{t.namespace}/db",
            f"secret/data/{t.namespace}/..%2fprod-{t.namespace}/db",
            f"secret//data/prod-{t.namespace}/db",
            f"secret%2Fdata%2Fprod-{t.namespace}%2Fdb",
            f"secret/metadata/prod-{t.namespace}/db",
        )
        for spelling in spellings:
            for keys in ({"file.x": f"own:{spelling}#password"}, {"dir.x": f"own:{spelling}", "mode": "csi"}):
                t.refused(pod("curious", keys))
        # Without the rule Vault says no.
        t.create(pod("unruled", {"file.x": f"vault:{foreign}/db#password"}))
        t.terminated("unruled", "hushpod", f"vault:{foreign}/db")
        check(not has_run(t.pod("unruled")), "the application has started")
    finally:
        t.vault.delete(f"secret/metadata/prod-{t.namespace}/db")
