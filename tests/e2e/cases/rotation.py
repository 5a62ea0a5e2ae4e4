"""What changes in the store reaches running pods; and the live controls."""

from suite.base import check, equal, holds, wait
from suite.runner import test
from suite.space import FOREVER, canary, container, deployment, named, pod

FAST = {"refresh": "1s"}


# With a container of ours, and without one.
BOTH = ("sidecar", "csi")


@test()
def rotation_reaches_both_replicas_without_a_restart(t):
    """Three rotations: new bytes in both replicas of each mode, one HUP each, same pods, no restart. Without an agent the
    signal comes from the parent that a container with variables has."""
    t.open()
    t.secret(password=canary())
    wanted = {"file.password": f"secret/data/{t.namespace}/app#password", "notify": "signal:HUP:counter", **FAST}
    modes = ("sidecar", "init+sidecar", "csi")
    for mode in modes:
        more = {"env.PASSWORD": wanted["file.password"]} if mode == "csi" else {}
        t.create(deployment(pod(named(mode), {**wanted, **more, "mode": mode}, ["/programs/counter"])))
    pods = {mode: t.rolled_out(named(mode)) for mode in modes}
    names = [each["metadata"]["name"] for mode in modes for each in pods[mode]]
    for name in names:
        equal(t.file(name, "/tmp/hups"), "0", "hang-ups before the first rotation")
    for rotation in range(1, 4):
        value = canary()
        t.secret(password=value)
        for name in names:
            t.sees(name, "/secrets/password", value, seconds=15)
            wait(f"HUP {rotation} at {name}", 10, lambda: int(t.file(name, "/tmp/hups")) >= rotation)  # noqa: B023
    # One for each: a second one would have come by now, since unchanged polls went on.
    holds("three hang-ups", 3, lambda: all(t.file(name, "/tmp/hups") == "3" for name in names))
    for mode in modes:
        shared = {each["spec"].get("shareProcessNamespace", False) for each in pods[mode]}
        equal(shared, {mode != "csi"}, f"shared namespaces in mode {mode}")
        t.never_restarted(*pods[mode])


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


@test()
def hold_freezes_and_releases(t):
    """`hold` by kubectl annotate: the files stay while a pod without it gets the new ones; released, they come."""
    t.open()
    first, second, third = canary(), canary(), canary()
    wanted = {"file.password": t.secret(password=first) + "#password", **FAST}
    born = {"held": {}, "free": {}, "born-held": {"hold": "true"}}
    t.start(*(pod(f"{name}-{mode}", {**wanted, **more, "mode": mode}) for mode in BOTH for name, more in born.items()))
    held = [f"{name}-{mode}" for mode in BOTH for name in ("held", "born-held")]
    for name in held:
        equal(t.file(name, "/secrets/password"), first, f"the first generation of {name}")
    for mode in BOTH:
        t.annotate(f"held-{mode}", "hold=true")
    t.says("held-sidecar", "held")
    t.driver_says("held-csi", "held")
    for value in (second, third):
        t.secret(password=value)
        for mode in BOTH:
            t.sees(f"free-{mode}", "/secrets/password", value)
    for name in held:
        equal(t.file(name, "/secrets/password"), first, f"what {name} holds after two rotations")
    for mode in BOTH:
        t.annotate(f"held-{mode}", "hold=false")
        t.annotate(f"born-held-{mode}", "hold-")
    for name in held:
        t.sees(name, "/secrets/password", third, seconds=15)


def present(t, name):
    """The id of the generation that a pod holds."""
    return t.sh(name, "readlink /secrets/..data").removeprefix("..")


@test()
def pin_returns_to_an_earlier_generation(t):
    """`pin` by kubectl annotate: back to a generation that is long gone from the volume, and it stays."""
    t.open()
    values = [canary() for _ in range(4)]
    wanted = {"file.password": t.secret(password=values[0]) + "#password", **FAST}
    pinned, free = ([f"{name}-{mode}" for mode in BOTH] for name in ("pinned", "free"))
    started = t.start(*(pod(name, {**wanted, "mode": mode}) for names in (pinned, free) for name, mode in zip(names, BOTH)))
    generations = {name: present(t, name) for name in pinned}
    for name, other in zip(pinned, free):
        equal(present(t, other), generations[name], "the generation of another replica")
    for value in values[1:3]:
        t.secret(password=value)
        for name in pinned:
            t.sees(name, "/secrets/password", value)
    for name, generation in generations.items():
        wait(
            f"the first generation of {name} to be cleared away",
            20,
            lambda: f"..{generation}" not in t.sh(name, "ls -A /secrets").split(),  # noqa: B023
        )
        t.annotate(name, f"pin={generation}")
    for name, generation in generations.items():
        t.sees(name, "/secrets/password", values[0], seconds=15)
        equal(present(t, name), generation, f"the pinned generation of {name}")
    t.secret(password=values[3])
    for name in free:
        t.sees(name, "/secrets/password", values[3])
    holds("the pins", 3, lambda: all(t.file(name, "/secrets/password") == values[0] for name in pinned))
    for name in pinned:
        t.annotate(name, "pin-")
    for name in pinned:
        t.sees(name, "/secrets/password", values[3], seconds=15)
    t.never_restarted(*started)


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


@test()
def http_notification_reaches_the_application(t):
    """`notify: http:` posts to a server in the pod after a change, and not before, once, and one process does it: in mode
    csi one of two containers with variables."""
    t.open()
    t.secret(password=canary())
    answer = r"printf 'HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n'"
    server = f"while :; do {answer} | nc -l -p 8080 >>/tmp/posts; done"
    wanted = {
        "file.password": f"secret/data/{t.namespace}/app#password",
        "notify": "http://127.0.0.1:8080/reload",
        **FAST,
    }
    more = {"sidecar": ({}, []), "csi": ({"env.PASSWORD": wanted["file.password"]}, [container("other", FOREVER)])}
    started = t.start(
        *(
            pod(mode, {**wanted, **variables, "mode": mode}, f"touch /tmp/posts; {server}", more=others)
            for mode, (variables, others) in more.items()
        )
    )
    posts = lambda mode: t.sh(mode, "grep -c '^POST /reload ' /tmp/posts || true")  # noqa: E731
    for mode in BOTH:
        equal(posts(mode), "0", f"notifications before a change in mode {mode}")
    t.secret(password=canary())
    for mode in BOTH:
        wait(f"a notification in mode {mode}", 20, lambda: posts(mode) == "1")  # noqa: B023
    holds("one notification each", 3, lambda: all(posts(mode) == "1" for mode in BOTH))
    t.never_restarted(*started)
