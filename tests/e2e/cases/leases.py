"""Credentials that end: renewed, replaced in time, never two where one will do. Vault's database on PostgreSQL."""

import os
import signal
import time

from suite.base import check, equal, holds, wait
from suite.runner import test
from suite.space import PSQL, canary, pod, statuses


@test(long=True)
def p4_a_client_of_leased_credentials_never_fails(t):
    """For three minutes a client connects anew from the files, with leases of 20 s that end after 60: no failure, one
    live lease, two only while one replaces the other."""
    t.open()
    creds = t.database()
    lease = t.vault.read(f"database/roles/{t.namespace}")
    longest, ttl = lease["max_ttl"], lease["default_ttl"]
    duration = 3 * longest
    first = t.start(pod("client", {"dir.db": creds}, ["/programs/client"], image=PSQL))
    end = time.monotonic() + duration
    seen, doubled = {}, []
    while time.monotonic() < end:
        now = t.leases()
        check(1 <= len(now) <= 2, f"{len(now)} live leases")
        for each in now:
            seen.setdefault(each, time.monotonic())
        if len(now) == 2:
            doubled.append(time.monotonic())
        t.suite.canaries[t.file("client", "/secrets/db/password")] = f"{t.title} leased password"
        time.sleep(1)
    turns, failed = map(int, t.file("client", "/tmp/count").split())
    equal(failed, 0, f"failures of {turns} ({t.sh('client', 'cat /tmp/errors 2>/dev/null; true')[:500]})")
    check(turns >= duration, f"the client came to only {turns} turns")
    t.never_restarted(first)
    # Renewed to the end, a lease lasts a minute less what is left for replacing it; not renewed, it would last TTL.
    check(len(seen) <= duration / (longest - ttl) + 1, f"{len(seen)} leases in {duration} s: they are not renewed")
    check(len(seen) >= duration / longest, f"{len(seen)} leases in {duration} s, whose longest life is {longest} s")
    # During a drain: an old lease lives at most its TTL beside the new one.
    drains = sorted(seen.values())[1:]
    stray = [at for at in doubled if not any(0 <= at - newest <= ttl + 2 for newest in drains)]
    equal(stray, [], "moments with two leases outside of a drain")


@test()
def p4_init_and_sidecar_share_one_login_and_one_lease(t):
    """The sidecar takes the init container's token and lease over."""
    t.open()
    wanted = {"dir.db": t.database(), "file.password": t.secret(password=canary()) + "#password"}
    t.start(pod("app", {**wanted, "mode": "init+sidecar"}, image=PSQL))
    before = t.leases()
    equal(len(before), 1, "leases")
    equal(len(t.vault.logins(t.role)), 1, "logins")
    t.suite.canaries[t.file("app", "/secrets/db/password")] = f"{t.title} leased password"
    holds("one lease and one login", 5, lambda: t.leases() == before and len(t.vault.logins(t.role)) == 1)


@test(node=True)
def p4_an_agent_killed_comes_back_with_the_same_lease(t):
    """Signal 9: back with the same login and lease, and no reader ever missed a file."""
    t.open()
    value = canary()
    wanted = {"dir.pair": t.secret(a=value, b=value), "dir.db": t.database(), "refresh": "1s"}
    thing = t.start(pod("app", wanted, ["/programs/reader"]))
    leases, logins = t.leases(), t.vault.logins(t.role)
    equal((len(leases), len(logins)), (1, 1), "leases and logins")
    t.suite.canaries[t.file("app", "/secrets/db/password")] = f"{t.title} leased password"

    os.kill(t.node.pid(statuses(thing)["hushpod"]), signal.SIGKILL)

    def back():
        status = statuses(t.pod("app"))["hushpod"]
        return status["restartCount"] == 1 and "running" in status["state"] and status.get("started")

    wait("the agent to be back", 60, back)
    value = canary()
    t.secret(a=value, b=value)
    t.sees("app", "/secrets/pair/a", value, seconds=20)
    equal(t.leases(), leases, "leases")
    equal(t.vault.logins(t.role), logins, "logins")
    now = t.pod("app")
    equal(now["metadata"]["uid"], thing["metadata"]["uid"], "uid of the pod")
    equal(statuses(now)["app"]["restartCount"], 0, "restarts of the application")
    turns, missing, torn = map(int, t.file("app", "/tmp/count").split())
    check(turns >= 20, f"the reader came to only {turns} turns")
    equal((missing, torn), (0, 0), f"missing and torn sets of {turns}")


@test()
def mode_init_refuses_leases(t):
    """Nobody would renew them: denied with a sentence."""
    t.open()
    t.refused(pod("app", {"dir.db": t.database(), "mode": "init"}), "lease", "mode", "sidecar")
