"""Credentials that end: renewed, replaced in time, never two where one will do. Vault's database on PostgreSQL."""

import os
import signal
import time

from suite.base import check, equal, holds, wait
from suite.runner import test
from suite.space import PSQL, canary, pod, statuses

# REVOKE_DELAY of src/source/worker.rs: how long applications have to take new credentials up before the old ones are revoked.
DRAIN = 10


MODES = {"sidecar": "sidecar", "csi": "csi"}


@test(long=True, each=MODES)
def p4_a_client_of_leased_credentials_never_fails(t, mode):
    """For three minutes a client connects anew from the files, with leases of 20 s that end after 60: no failure, one
    live lease, two only while one replaces the other."""
    t.open()
    creds = t.database()
    lease = t.vault.read(f"database/roles/{t.namespace}")
    longest, ttl = lease["max_ttl"], lease["default_ttl"]
    duration = 3 * longest
    first = t.start(pod("client", {"dir.db": creds, "mode": mode}, ["/programs/client"], image=PSQL))
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
    # During a drain. At most: with these TTLs the old lease has seven seconds left when it is replaced; that it is
    # revoked before its end is shown below.
    drains = sorted(seen.values())[1:]
    stray = [at for at in doubled if not any(0 <= at - newest <= DRAIN + 2 for newest in drains)]
    equal(stray, [], "moments with two leases outside of a drain")


@test(long=True, each=MODES)
def p4_a_replaced_lease_is_revoked_before_its_end(t, mode):
    """A lease of two minutes that cannot be extended is replaced with a third of it left, and revoked as soon as the
    application had its time to take the new one up, not when it would have ended by itself."""
    # The policy `default` lets tokens renew leases, but not revoke them: without this one a lease lives to its end.
    t.open(rights='path "sys/leases/revoke" { capabilities = ["update"] }')
    life = 120
    creds = t.database(default_ttl=f"{life}s", max_ttl=f"{life}s")
    first = t.start(pod("client", {"dir.db": creds, "mode": mode}, ["/programs/client"], image=PSQL))
    (old,) = t.leases()

    def left(lease):
        return t.vault.write("sys/leases/lookup", lease_id=f"{creds}/{lease}")["ttl"]

    t.suite.canaries[t.file("client", "/secrets/db/password")] = f"{t.title} leased password"
    (new,) = wait("another lease beside it", life, lambda: t.leases() - {old})
    # How long the old one would live beside it.
    both = left(old) + life - left(new)
    wait("the old lease to be gone", both, lambda: old not in t.leases())
    drained = life - left(new)
    t.suite.say(f"the old lease lived {drained} s beside the new one, of {both} s that it had left")
    check(DRAIN - 1 <= drained, f"it was revoked after {drained} s")
    check(both >= 3 * DRAIN and drained <= 2 * DRAIN, f"it lived {drained} s beside the new one, of {both} s left")
    equal(len(t.leases()), 1, "leases after the drain")
    t.suite.canaries[t.file("client", "/secrets/db/password")] = f"{t.title} second leased password"
    # Nor does the client miss the old one.
    turns, failed = map(int, t.file("client", "/tmp/count").split())
    equal(failed, 0, f"failures of {turns} ({t.sh('client', 'cat /tmp/errors 2>/dev/null; true')[:500]})")
    t.never_restarted(first)


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
