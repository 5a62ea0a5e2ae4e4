"""The store is away: at a pod's start, with kubelet killed on top of it, and later."""

import time

from suite.base import check, contains, equal, holds, wait
from suite.cluster import kubectl
from suite.runner import ALONE, test
from suite.space import FOREVER, PREFIX, canary, deployment, has_run, pod, statuses

# With a container of ours, and without one.
BOTH = ("sidecar", "csi")
LOOK_FIRST = f"if test -s /secrets/password; then echo complete; else echo empty; fi; {FOREVER}"


class VaultAway:
    """Vault is stopped or sealed inside the `with` block, unless it was brought back before its end."""

    def __init__(self, t, how="stop"):
        self.t = t
        self.how = how
        self.is_away = False

    def __enter__(self):
        self.t.node.script("vault", self.how)
        self.is_away = True
        return self

    def back(self):
        self.t.node.script("vault", {"stop": "start", "seal": "unseal"}[self.how])
        self.is_away = False

    def __exit__(self, *_):
        if self.is_away:
            self.back()


def without_gate(t, thing):
    """The pod that the webhook would make, but mounting the volume itself instead of `live`. Past the webhook: it
    asks for nothing any more."""
    made = t.create(thing, dry_run=True)
    for field in ("uid", "creationTimestamp", "resourceVersion", "managedFields"):
        made["metadata"].pop(field, None)
    made.pop("status", None)
    kept = made["metadata"]["annotations"]
    made["metadata"]["annotations"] = {key: value for key, value in kept.items() if not key.startswith(PREFIX)}
    mounts = made["spec"]["containers"][0]["volumeMounts"]
    gated = [mount for mount in mounts if mount.get("subPath") == "live"]
    equal(len(gated), 1, "mounts with a gate")
    del gated[0]["subPath"]
    made["metadata"]["name"] = "ungated"
    return made


@test(when=ALONE, node=True)
def p7_the_gate_holds_while_vault_is_down_and_kubelet_restarts(t):
    """The application waits for its files, whatever restarts meanwhile; without the gate it would not. The pod is no
    riddle meanwhile, and starts within 20 s of Vault's return."""
    t.open()
    value = canary()
    thing = pod("gated", {"file.password": t.secret(password=value) + "#password"}, LOOK_FIRST)
    ungated = without_gate(t, thing)
    with VaultAway(t) as vault:
        created = time.monotonic()
        t.create(thing)
        t.create(ungated)
        # In the midst of the hooks: kubelet says nothing of a pod before its hook ends. Nor earlier: a container that was
        # created and not yet started when kubelet ends is made anew, and counts as restarted.
        hooks = set()

        def have_run():
            hooks.update(t.node.pids("/hushpod-agent", "ready"))
            return len(hooks) == 2

        wait("both agents' hooks to run", 20, have_run, every=0.02)
        t.node.script("kubelet", "stop")
        t.node.script("kubelet", "start")
        wait("the pod to have an address", 15, lambda: t.pod("gated")["status"].get("podIP"))
        wait("the agent to have a log", 15, lambda: "waiting" in t.log("gated", "hushpod"))
        check(time.monotonic() - created < 40, f"that took {time.monotonic() - created:.0f} s")

        wait("the pod without the gate to start", 30, lambda: has_run(t.pod("ungated")))
        equal(t.log("ungated").strip(), "empty", "what the application without the gate found")

        def is_held_back():
            waiting = statuses(t.pod("gated")).get("app", {}).get("state", {}).get("waiting", {})
            return "subPath" in waiting.get("message", "")

        wait("kubelet to come to the gate", 30, is_held_back)
        t.node.script("kubelet", "stop")
        t.node.script("kubelet", "start")
        # It tries again after 10 to 15 s.
        holds("the gate is closed", 16, lambda: not has_run(t.pod("gated")))
        vault.back()
        # The agent's next try, kubelet's, and the start itself on a busy machine.
        wait("the application to start", 20 + 10, lambda: has_run(t.pod("gated")))
    equal(t.log("gated").strip(), "complete", "what the application found")
    equal(t.file("gated", "/secrets/password"), value, "the file")
    t.never_restarted(t.pod("gated"))


@test(when=ALONE, node=True)
def pods_say_at_once_that_they_wait(t):
    """Vault down at the start, nothing else: address and log within seconds, in every mode."""
    t.open()
    with VaultAway(t):
        reference = f"secret/data/{t.namespace}/app#password"
        created = time.monotonic()
        for name, mode in (("sidecar", "sidecar"), ("pair", "init+sidecar"), ("init", "init")):
            t.create(pod(name, {"file.password": reference, "mode": mode}))
        for name, agent in (("sidecar", "hushpod"), ("pair", "hushpod-init"), ("init", "hushpod-init")):
            wait(f"{name} to have an address", 10, lambda: t.pod(name)["status"].get("podIP"))
            wait(f"{name} to have a log", 10, lambda: "vault" in t.log(name, agent))
        check(time.monotonic() - created < 15, f"that took {time.monotonic() - created:.0f} s")


@test(when=ALONE, node=True)
def waiting_pods_are_deleted_and_drained_promptly(t):
    """While Vault is down, in every mode, with the usual grace period of 30 s."""
    t.open()

    def waiting(name, mode):
        thing = pod(name, {"file.password": f"secret/data/{t.namespace}/app#password", "mode": mode})
        thing["spec"]["terminationGracePeriodSeconds"] = 30
        return thing

    modes = {"a": "sidecar", "b": "init+sidecar", "c": "init"}
    with VaultAway(t):
        for name, mode in modes.items():
            t.create(waiting(name, mode))
            t.create(deployment(waiting(f"d{name}", mode), replicas=1))
        running = lambda thing: any("running" in each["state"] for each in statuses(thing).values())  # noqa: E731
        wait(
            "all agents to wait",
            60,
            lambda: sum(running(thing) for thing in t.api.list("Pod", t.namespace)) == 2 * len(modes),
        )
        kubectl("-n", t.namespace, "delete", "pod", *modes, "--timeout=12s")
        try:
            node = t.pods("da")[0]["spec"]["nodeName"]
            kubectl("drain", node, "--pod-selector=app in (da,db,dc)", "--delete-emptydir-data", "--timeout=12s")
        finally:
            kubectl("uncordon", node)


@test(when=ALONE, node=True, each={"stopped": "stop", "sealed": "seal"})
def p3_files_stay_while_vault_is(t, how):
    """Longer than its lease lives: no file is missing, nothing restarts; then recovery alone, and news."""
    t.open()
    value = canary()
    wanted = {"dir.pair": t.secret(a=value, b=value), "dir.db": t.database(), "refresh": "1s"}
    things = t.start(*(pod(mode, {**wanted, "mode": mode}, ["/programs/reader"]) for mode in BOTH))
    before = {mode: t.file(mode, "/secrets/db/password") for mode in BOTH}
    equal(len(set(before.values())), len(BOTH), "credentials of their own")
    for mode in BOTH:
        t.suite.canaries[before[mode]] = f"{t.title} leased password ({mode})"
    with VaultAway(t, how):
        holds("the files", 25, lambda: all(t.file(mode, "/secrets/pair/a") == value for mode in BOTH), every=1)
        for mode in BOTH:
            equal(t.file(mode, "/secrets/db/password"), before[mode], f"the leased password ({mode})")
        contains(t.log("sidecar", "hushpod"), "cannot refresh; what was there stays", "the agent's log")
        t.event("csi", "SecretsNotRefreshed", "the last good files stay", "vault")
    value = canary()
    t.secret(a=value, b=value)
    # A store that is down is tried again within a minute.
    for mode in BOTH:
        t.sees(mode, "/secrets/pair/a", value, seconds=75)
        wait(
            "new credentials for those that ended",
            75,
            lambda: t.file(mode, "/secrets/db/password") != before[mode],  # noqa: B023
        )
        t.suite.canaries[t.file(mode, "/secrets/db/password")] = f"{t.title} leased password ({mode})"
        turns, missing, torn = map(int, t.file(mode, "/tmp/count").split())
        equal((missing, torn), (0, 0), f"missing and torn sets of {turns} ({mode})")
    equal(len(t.leases()), len(BOTH), "leases")
    t.never_restarted(*things)


@test()
def p3_files_stay_when_the_secret_is_deleted(t):
    """A deleted secret is no reason to take a file from a running application; a new version comes through."""
    t.open()
    value = canary()
    wanted = {"file.password": t.secret(password=value) + "#password", "refresh": "1s"}
    t.start(*(pod(mode, {**wanted, "mode": mode}) for mode in BOTH))
    t.vault.delete(f"secret/data/{t.namespace}/app")
    wait(
        "the agent to say so",
        20,
        lambda: "not_found" in t.log("sidecar", "hushpod") or "no such" in t.log("sidecar", "hushpod"),
    )
    t.event("csi", "SecretsNotRefreshed", f"secret/data/{t.namespace}/app")
    holds("the file", 3, lambda: all(t.file(mode, "/secrets/password") == value for mode in BOTH))
    value = canary()
    t.secret(password=value)
    for mode in BOTH:
        t.sees(mode, "/secrets/password", value, seconds=40)
