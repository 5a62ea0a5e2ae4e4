"""What API server and webhook know of each other, under fire: pods are created without a pause meanwhile. What nobody could
prevent is a refusal, and never a pod without its secrets."""

import base64
import contextlib
import json
import os
import re
import signal
import ssl
import tempfile
import time

from suite.base import Skipped, check, equal, meanwhile, run, wait
from suite.cluster import kubectl
from suite.front import Authority
from suite.product import ADMISSION, NAMESPACE, WEBHOOK
from suite.runner import ALONE, LAST, test
from suite.space import pod

WANTED = {"file.x": "secret/data/app#x"}
# In the API server's words: it called nobody, or did not trust who answered; or it was not told to call, and the policy
# refused what came of that.
OURS = ("failed calling webhook", "hushpod-pods")


def injected(t, number):
    """A pod that asks is created with our container, or not at all."""
    thing = pod(f"pod-{number}", WANTED, nodeSelector={"hushpod-e2e": "nowhere"})
    made = t.create(thing, dry_run=True)
    names = [each["name"] for each in made["spec"].get("initContainers", [])]
    check(names == ["hushpod"], f"NOT INJECTED: {names}")


def failures_of(outcomes, since=0):
    failed = list(filter(None, outcomes[since:]))
    missed = [each for each in failed if "NOT INJECTED" in each]
    equal(missed, [], "pods that were admitted without our container")
    strange = [each for each in failed if not any(word in each for word in OURS)]
    equal(strange[:3], [], "failures of other kinds")
    return failed


def served_again(t, outcomes, what, seconds=30):
    """Waits until twenty creations in a row went well; says how many were refused, and for how long."""
    start, first = time.monotonic(), len(outcomes)
    wait(f"pods to be admitted {what}", seconds, lambda: len(outcomes) >= first + 20 and not any(outcomes[-20:]))
    refused = failures_of(outcomes, first)
    t.suite.say(f"{what}: {len(refused)} of {len(outcomes) - first} refused, in {time.monotonic() - start:.1f} s")
    return refused


def ready(t):
    """Both replicas, as the API server and the kubelet see them."""

    def both():
        pods = t.suite.product.pods()
        found = [each["status"].get("containerStatuses", [{}]) for each in pods]
        return len(found) == 2 and all(each.get("ready") for of_pod in found for each in of_pod) and pods

    return wait("both replicas to be ready", 60, both)


def ready_since(t):
    """When each replica became ready the last time."""
    conditions = lambda each: {one["type"]: one["lastTransitionTime"] for one in each["status"]["conditions"]}  # noqa: E731
    return {each["metadata"]["name"]: conditions(each)["Ready"] for each in ready(t)}


def pids_of(t, replica):
    """Of its processes, by their containers."""
    return {each["name"]: t.node.pid(each) for each in replica["status"]["containerStatuses"]}


def pid_of(t, replica):
    """Of one: they have one network."""
    return next(iter(pids_of(t, replica).values()))


@contextlib.contextmanager
def partitioned(t, replica):
    """What this replica sends to the API server's Service is dropped: it learns nothing, and can write nothing. What it
    answers goes elsewhere and arrives."""
    service = t.api.find("Service", "default", "kubernetes")["spec"]["clusterIP"]
    inside = ["nsenter", "--target", pid_of(t, replica), "--net", "iptables", "--wait"]
    rule = ["OUTPUT", "--destination", service, "--protocol", "tcp", "--jump", "DROP"]
    run(*inside, "--insert", *rule)
    try:
        yield
    finally:
        run(*inside, "--delete", *rule)


def cut_off(t, outcomes):
    """Each replica from the API server, for longer than it takes to notice, and than readiness takes to fail if it depended
    on this: no pod is refused."""
    first = len(outcomes)
    for replica in ready(t):
        with partitioned(t, replica):
            time.sleep(6)  # an outage lasts
    equal(failures_of(outcomes, first), [], "pods refused while replicas were cut off")
    equal(len(ready(t)), 2, "replicas that are ready")
    return []


def killed(t, outcomes):
    """Each process, with signal 9: the other of its replica has all calls that come after. What the dead one was about to
    answer, one pod at most, is lost."""
    start = len(outcomes)
    for replica in ready(t):
        for container, pid in pids_of(t, replica).items():
            first, since = len(outcomes), ready_since(t)
            os.kill(pid, signal.SIGKILL)
            wait("its replica to be unready, and ready again", 60, lambda since=since: ready_since(t) != since)
            refused = failures_of(outcomes, first)
            t.suite.say(f"{container} of a replica was killed: {len(refused)} of {len(outcomes) - first} refused")
            check(len(refused) <= 1, f"{len(refused)} pods were refused when one of four processes was killed: {refused}")
    return failures_of(outcomes, start)


def made_anew(t, outcomes):
    """The configuration is deleted, and created as the chart has it: without authorities. Until they are in it again, the
    policy refuses pods."""
    product = t.suite.product
    first = len(outcomes)
    t.api.delete(WEBHOOK, None, product.configuration()["metadata"]["name"], ADMISSION)
    wait("the policy to refuse them", 20, lambda: any(outcomes[first:]))
    (configuration,) = [each for each in product.manifest() if each["kind"] == WEBHOOK]
    t.api.create(configuration)
    served_again(t, outcomes, "after the configuration was made anew")
    return failures_of(outcomes, first)


def empty(t):
    """Somebody else's server-side apply empties `caBundle`."""
    now = t.suite.product.configuration()
    webhooks = [{**each, "clientConfig": {**each["clientConfig"], "caBundle": ""}} for each in now["webhooks"]]
    new = {"apiVersion": ADMISSION, "kind": WEBHOOK, "metadata": {"name": now["metadata"]["name"]}, "webhooks": webhooks}
    options = ["--server-side", "--force-conflicts", "--field-manager=hushpod-e2e", "-f", "-"]
    kubectl("apply", *options, stdin=json.dumps(new))


def emptied(t, outcomes):
    """Until the replicas have written their authorities again."""
    empty(t)
    return served_again(t, outcomes, "after server-side apply emptied the caBundle")


def emptied_twice(t, outcomes):
    """Again before a replica that had become unready would be ready."""
    empty(t)
    time.sleep(2)  # they have written by then
    return emptied(t, outcomes)


@test(when=ALONE, node=True)
def p7_trust_under_fire_admits_no_pod_without_its_secrets(t):
    """Replicas are cut off from the API server, their processes are killed, the configuration is deleted and made anew, and
    its `caBundle` emptied, as server-side apply by somebody else would do it. Partitions and dead processes refuse no pod;
    the others do, for as long as it takes, and all of it heals by itself. No replica becomes unready for what all lost. (That rolling refuses none is a
    case of its own; the long form is `tests/bench/run trust`.)"""
    t.open()
    product = t.suite.product
    with meanwhile(lambda number: injected(t, number)) as outcomes:
        wait("the first pods", 20, lambda: len(outcomes) > 10)
        check(product.authorities() != "", "there is nothing in the caBundle before")
        cut_off(t, outcomes)
        killed(t, outcomes)
        since = ready_since(t)
        for strike in (made_anew, emptied, emptied_twice):
            strike(t, outcomes)
            equal(product.authorities().count("BEGIN"), 4, f"authorities after the configuration was {strike.__name__}")
            equal(ready_since(t), since, f"since when replicas are ready, after the configuration was {strike.__name__}")
        told = {each["reason"] for each in t.api.list("Event", NAMESPACE) if each["involvedObject"]["kind"] == "Pod"}
        check({"CertificateNotTrusted", "CertificateTrusted"} <= told, f"events say {sorted(told)}")
    # For what comes next: a replica is ready five seconds after it is trusted again.
    wait("the replicas to be ready", 30, lambda: t.create(pod("ready", WANTED), dry_run=True) and ready(t))
    name = product.deployment()["metadata"]["name"]
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment", name, "--timeout=60s")
    equal(ready_since(t), since, "since when replicas are ready, at the end")
    failures_of(outcomes)
    check(len(outcomes) > 150, f"only {len(outcomes)} pods were created meanwhile")


def signed(authority, serial):
    """Another certificate of that authority, and its key, as a Secret's data."""
    authority.sign("-set_serial", serial)
    encode = lambda name: base64.b64encode(authority.paths[name].read_bytes()).decode()  # noqa: E731
    return {"tls.crt": encode("crt"), "tls.key": encode("key")}


def serials(t, port):
    """Of the certificates that the replicas serve, whichever of their processes answers."""
    found = set()
    for replica in t.suite.product.pods() * 8:
        pem = ssl.get_server_certificate((replica["status"]["podIP"], port), timeout=5)
        text = run("openssl", "x509", "-noout", "-serial", stdin=pem)
        found.add(int(re.search(r"serial=(\w+)", text)[1], 16))
    return found


@test(when=LAST, node=True)
def p7_certificates_of_others_are_taken_over_as_they_change(t):
    """As cert-manager renews them, in a Secret: kubelet carries it into the replicas, which serve it without a restart; and
    no pod is refused."""
    named = any(name in "p7_certificates_of_others_are_taken_over_as_they_change" for name in t.suite.options.names)
    if not named and not t.suite.options.leave_keys:
        raise Skipped("its key is in etcd from then on, where the next run's p1_no_secret_in_etcd finds it: name it to run it")
    t.open()
    product = t.suite.product
    host = f"hushpod-webhook.{NAMESPACE}.svc"
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "e2e-tls"}}
    with tempfile.TemporaryDirectory() as directory:
        authority = Authority(directory, "webhook", f"DNS:{host}")
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets"
        secret["metadata"]["namespace"] = NAMESPACE
        t.api.create({**secret, "data": signed(authority, 1)}, NAMESPACE)
        try:
            product.install(tls={"mode": "secret", "secret": {"name": "e2e-tls", "ca": authority.pem}})
            ready(t)
            restarts = [each["metadata"]["uid"] for each in product.pods()]
            port = product.pods()[0]["spec"]["containers"][0]["ports"][0]["containerPort"]
            equal(serials(t, port), {1}, "serial numbers")
            with meanwhile(lambda number: injected(t, number)) as outcomes:
                for serial in range(2, 7):
                    t.api.call("PUT", f"{path}/e2e-tls", {**secret, "data": signed(authority, serial)})

                    def everywhere(serial=serial):
                        product.look()
                        return serials(t, port) == {serial}

                    wait(f"certificate {serial} to be served", 120, everywhere, every=1)
            equal(failures_of(outcomes), [], f"pods refused, of {len(outcomes)}")
            check(len(outcomes) > 20, f"only {len(outcomes)} pods were created meanwhile")
            equal([each["metadata"]["uid"] for each in product.pods()], restarts, "the replicas")
            (webhook, *_) = product.configuration()["webhooks"]
            # Beside those of the replicas before, which served until these were ready.
            check(authority.pem.strip() in base64.b64decode(webhook["clientConfig"]["caBundle"]).decode(), "another caBundle")
        finally:
            product.install()
            t.api.delete("Secret", NAMESPACE, "e2e-tls")
    ready(t)
