"""What changes in the store reaches running pods; and the live controls."""

from suite.base import check, equal, holds, wait
from suite.runner import test
from suite.space import FOREVER, canary, container, deployment, pod

FAST = {"refresh": "1s"}


# With a container of ours, and without one.
BOTH = ("sidecar", "csi")


@test(each={"sidecar": "sidecar", "init_and_sidecar": "init+sidecar", "csi": "csi"})
def rotation_reaches_both_replicas_without_a_restart(t, mode):
    """Three rotations: new bytes in both replicas, one HUP each, same pods, no restart. Without an agent the signal comes
    from the parent that a container with variables has."""
    t.open()
    t.secret(password=canary())
    wanted = {"file.password": f"secret/data/{t.namespace}/app#password", "mode": mode, **FAST}
    wanted["notify"] = "signal:HUP:counter"
    if mode == "csi":
        wanted["env.PASSWORD"] = wanted["file.password"]
    t.create(deployment(pod("web", wanted, ["/programs/counter"])))
    pods = t.rolled_out("web")
    names = [each["metadata"]["name"] for each in pods]
    for name in names:
        equal(t.file(name, "/tmp/hups"), "0", "hang-ups before the first rotation")
    for rotation in range(1, 4):
        value = canary()
        t.secret(password=value)
        for name in names:
            t.sees(name, "/secrets/password", value, seconds=15)
            wait(f"HUP {rotation} at {name}", 10, lambda: int(t.file(name, "/tmp/hups")) >= rotation)
    # One for each: a second one would have come by now, since unchanged polls went on.
    for name in names:
        holds("three hang-ups", 3, lambda: t.file(name, "/tmp/hups") == "3")
    equal({each["spec"].get("shareProcessNamespace", False) for each in pods}, {mode != "csi"}, "shared namespaces")
    t.never_restarted(*pods)


@test()
def p2_readers_never_see_two_generations(t):
    """A reader that opens `..data` once sees files of one generation, and all of them, while the secret rotates."""
    t.open()
    value = canary()
    t.secret(a=value, b=value)
    wanted = {"dir.pair": f"secret/data/{t.namespace}/app", **FAST}
    t.start(*(pod(mode, {**wanted, "mode": mode}, ["/programs/reader"]) for mode in BOTH))
    # Files of one generation, opened one by one without the link, are what a careless reader would tear.
    for _ in range(6):
        value = canary()
        t.secret(a=value, b=value)
        for mode in BOTH:
            t.sees(mode, "/secrets/pair/a", value, seconds=15)
    for mode in BOTH:
        turns, missing, torn = map(int, t.file(mode, "/tmp/count").split())
        check(turns >= 50, f"the reader ({mode}) came to only {turns} turns")
        equal((missing, torn), (0, 0), f"missing and torn sets of {turns} ({mode})")


@test(each={mode: mode for mode in BOTH})
def hold_freezes_and_releases(t, mode):
    """`hold` by kubectl annotate: the files stay while a pod without it gets the new ones; released, they come."""
    t.open()
    first, second, third = canary(), canary(), canary()
    wanted = {"file.password": t.secret(password=first) + "#password", "mode": mode, **FAST}
    t.start(pod("held", wanted), pod("free", wanted), pod("born-held", {**wanted, "hold": "true"}))
    for name in ("held", "born-held"):
        equal(t.file(name, "/secrets/password"), first, f"the first generation of {name}")
    t.annotate("held", "hold=true")
    if mode == "csi":
        t.driver_says("held", "held")
    else:
        t.says("held", "held")
    t.secret(password=second)
    t.sees("free", "/secrets/password", second)
    t.secret(password=third)
    t.sees("free", "/secrets/password", third)
    for name in ("held", "born-held"):
        equal(t.file(name, "/secrets/password"), first, f"what {name} holds after two rotations")
    t.annotate("held", "hold=false")
    t.annotate("born-held", "hold-")
    for name in ("held", "born-held"):
        t.sees(name, "/secrets/password", third, seconds=15)


def present(t, name):
    """The id of the generation that a pod holds."""
    return t.sh(name, "readlink /secrets/..data").removeprefix("..")


@test(each={mode: mode for mode in BOTH})
def pin_returns_to_an_earlier_generation(t, mode):
    """`pin` by kubectl annotate: back to a generation that is long gone from the volume, and it stays."""
    t.open()
    values = [canary() for _ in range(4)]
    wanted = {"file.password": t.secret(password=values[0]) + "#password", "mode": mode, **FAST}
    first = t.start(pod("pinned", wanted), pod("free", wanted))[0]
    generation = present(t, "pinned")
    equal(present(t, "free"), generation, "the generation of another replica")
    for value in values[1:3]:
        t.secret(password=value)
        t.sees("pinned", "/secrets/password", value)
    wait(
        "the first generation to be cleared away",
        20,
        lambda: f"..{generation}" not in t.sh("pinned", "ls -A /secrets").split(),
    )
    t.annotate("pinned", f"pin={generation}")
    t.sees("pinned", "/secrets/password", values[0], seconds=15)
    equal(present(t, "pinned"), generation, "the pinned generation")
    t.secret(password=values[3])
    t.sees("free", "/secrets/password", values[3])
    holds("the pin", 3, lambda: t.file("pinned", "/secrets/password") == values[0])
    t.annotate("pinned", "pin-")
    t.sees("pinned", "/secrets/password", values[3], seconds=15)
    t.never_restarted(first)


@test()
def refresh_now_fetches_at_once(t):
    """`refresh-now` by kubectl annotate, on a pod that would have asked again in an hour."""
    t.open()
    old, new = canary(), canary()
    wanted = {"file.password": t.secret(password=old) + "#password", "refresh": "1h"}
    t.start(*(pod(mode, {**wanted, "mode": mode}) for mode in BOTH))
    t.secret(password=new)
    holds("the old file", 3, lambda: all(t.file(mode, "/secrets/password") == old for mode in BOTH))
    for mode in BOTH:
        t.annotate(mode, "refresh-now=please")
        t.sees(mode, "/secrets/password", new, seconds=10)


@test(each={mode: mode for mode in BOTH})
def http_notification_reaches_the_application(t, mode):
    """`notify: http:` posts to a server in the pod after a change, and not before, once, and one process does it: in mode
    csi one of two containers with variables."""
    t.open()
    t.secret(password=canary())
    answer = r"printf 'HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n'"
    server = f"while :; do {answer} | nc -l -p 8080 >>/tmp/posts; done"
    wanted = {
        "file.password": f"secret/data/{t.namespace}/app#password",
        "notify": "http://127.0.0.1:8080/reload",
        "mode": mode,
        **FAST,
    }
    more = []
    if mode == "csi":
        wanted["env.PASSWORD"] = wanted["file.password"]
        more = [container("other", FOREVER)]
    started = t.start(pod("app", wanted, f"touch /tmp/posts; {server}", more=more))
    posts = lambda: t.sh("app", "grep -c '^POST /reload ' /tmp/posts || true")  # noqa: E731
    equal(posts(), "0", "notifications before a change")
    t.secret(password=canary())
    wait("a notification", 20, lambda: posts() == "1")
    holds("one notification", 3, lambda: posts() == "1")
    t.never_restarted(started)
