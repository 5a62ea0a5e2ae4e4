"""The operator's rules on the cluster: by labels of namespaces, what `deny` stops, environments apart."""

import os
import signal
import tempfile
import time

from suite.base import Failed, check, contains, equal, holds, run, wait
from suite.cluster import kubectl
from suite.on_call import OnCall
from suite.product import CSI_NAMESPACE, NAMESPACE
from suite.runner import ALONE, test
from suite.space import canary, has_run, pod, statuses

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


def deny(t, controls, *words):
    """`kubectl hushpod deny` with the configuration that the cluster has."""
    text = kubectl("-n", NAMESPACE, "get", "configmap", "hushpod-config", "-o", r"jsonpath={.data.config\.yaml}")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        return controls.says("deny", "--config", file.name, *words)


def restart_agent(t, name):
    """Signal 9 to the agent, whose container is started anew."""
    before = statuses(t.pod(name))["hushpod"]["restartCount"]
    os.kill(t.node.pid(statuses(t.pod(name))["hushpod"]), signal.SIGKILL)

    def back():
        status = statuses(t.pod(name))["hushpod"]
        return status["restartCount"] > before and "running" in status["state"] and status.get("started")

    wait(f"the agent of {name} to be back", 60, back)


def tell_agents(t, controls, value):
    """The rule reaches the agent, which asks Vault for nothing from then on, not even a login after a restart."""
    told = deny(t, controls, "--dry-run")
    contains(told, ["deny: 2 pods, 1 done before", "agent (deny[1])"], "a dry run")
    contains(deny(t, controls), "done: 2 pods", "deny")
    contains(controls.says("status"), "denied by deny[1]", "the agent's state")
    t.secret(password=canary())
    # An agent that asks needs another login now, and there would be one more.
    for accessor in t.vault.logins(t.role):
        t.vault.write("auth/token/revoke-accessor", accessor=accessor)
    equal(t.vault.logins(t.role), set(), "logins after they were revoked")
    restart_agent(t, "agent")
    t.says("agent", "denied")

    def stands():
        return t.file("agent", "/secrets/password") == value and not t.vault.logins(t.role)

    holds("the agent's file, and no login", 15, stands, every=1)
    log = t.log("agent", "hushpod")
    for event in ("login", "read"):
        check(f'"event":"{event}"' not in log, f"the agent has asked: {event} is in its log")
    contains(controls.says("status"), "denied by deny[1]", "the agent's state after a restart")
    contains(deny(t, controls), "2 done before", "deny once more")


@test(when=ALONE, node=True)
def p3_what_is_denied_stops_at_once(t):
    """`deny` refuses new pods and stops a running volume of the driver, whose file stays; an agent goes on by its plan
    until `kubectl hushpod deny` tells it, through a restart, too; and without the rule all of it goes on."""
    t.open()
    first, second, third = canary(), canary(), canary()
    keys = {"file.password": f"{t.secret(password=first)}#password", **FAST}
    volume, _ = t.start(pod("volume", {**keys, "mode": "csi"}), pod("agent", keys))
    rules = [{"namespaces": ["nobody"]}, {"references": [f"vault:secret/data/{t.namespace}/*"]}]

    def told():
        parts = ("deny[1]", "last good files stay")
        events = t.api.call("GET", f"/api/v1/namespaces/{t.namespace}/events")["items"]
        return any(all(part in each["message"] for part in parts) for each in events)

    with OnCall(t, "hushpod-controls") as controls:
        with t.suite.product.configured(deny=rules):
            for mode in ("sidecar", "csi"):
                t.refused(pod("later", {**keys, "mode": mode}), "the operator's rule deny[1]")
            looking(t, "an event that names the rule", 150, told)
            t.secret(password=second)
            t.sees("agent", "/secrets/password", second)
            holds("the volume's file", 10, lambda: t.file("volume", "/secrets/password") == first, every=1)
            tell_agents(t, controls, second)
        t.secret(password=third)
        looking(t, "the volume's file to change", 150, lambda: t.file("volume", "/secrets/password") == third)
        equal(t.file("agent", "/secrets/password"), second, "the file of an agent that nobody told")
        contains(deny(t, controls), "denied no more", "deny without the rule")
        t.sees("agent", "/secrets/password", third)
        contains(deny(t, controls), "no pod asks for what is denied", "deny with nothing to do")
    t.never_restarted(volume)
    equal(statuses(t.pod("agent"))["app"]["restartCount"], 0, "restarts of the application")


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
