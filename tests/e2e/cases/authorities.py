"""A store that changes its authority, and pods that run on."""

import contextlib
import copy
import tempfile
import time

from suite.base import check, contains, equal, wait
from suite.cluster import kubectl, present
from suite.front import Authority, Front
from suite.runner import ALONE, test
from suite.space import canary, pod

from .webhook import PROGRAMS, LateWebhook, known, opted_in, refused_by_policy, replaced

FAST = {"refresh": "1s"}
CERTIFICATES = "certificates.k8s.io/v1"
KIND = "ClusterTrustBundle"


def providers(t, **settings):
    """Those of the chart, and one more by the name `fronted`."""
    known = t.suite.product.values()["config"]["providers"]
    fronted = {key: value for key, value in known["vault"].items() if key != "ca"}
    return {**known, "fronted": {**fronted, **settings}}


@contextlib.contextmanager
def bundle_of(t):
    """The name of a bundle, and what writes it; it is gone in the end."""
    # Not the namespace's own name, which events tell anyway.
    name = f"{t.namespace}-authorities"

    def write(*authorities):
        spec = {"trustBundle": "".join(each.pem for each in authorities)}
        if t.api.find(KIND, None, name, CERTIFICATES):
            t.api.patch(KIND, None, name, {"spec": spec}, CERTIFICATES)
        else:
            thing = {"apiVersion": CERTIFICATES, "kind": KIND, "metadata": {"name": name}, "spec": spec}
            t.api.create(thing)

    try:
        yield name, write
    finally:
        if t.api.find(KIND, None, name, CERTIFICATES):
            t.api.delete(KIND, None, name, CERTIFICATES)


def arrives(t, thing, *authorities):
    """Waits until kubelet has written them into the agent's volume."""
    name = thing["metadata"]["name"]

    def written():
        # Kubelet looks at a running pod about once in a minute, or as soon as it changes.
        kubectl("-n", t.namespace, "annotate", "pod", name, "--overwrite", f"hushpod-e2e={time.time_ns()}")
        text = present(t.node.volume(thing, "projected", "hushpod-ca")).joinpath("fronted").read_text(encoding="ascii")
        # It writes the same certificates, one after the other, in an order of its own.
        body = lambda pem: "".join(pem.split())  # noqa: E731
        return len(body(text)) == sum(len(body(each.pem)) for each in authorities) and all(
            body(each.pem) in body(text) for each in authorities
        )

    wait(f"{[each.name for each in authorities]} to be in the agent's volume", 150, written, every=1)


@test(when=ALONE, node=True, long=True)
def rotation_of_an_authority_reaches_running_pods(t):
    """A store's authority changes, by a ClusterTrustBundle with both, and secrets go on coming, without a restart.
    Before there is a bundle the pod waits, and an event says for what; without the store's authority the files stay."""
    t.open()
    product = t.suite.product
    with tempfile.TemporaryDirectory() as directory, bundle_of(t) as (name, write):
        old, new = (Authority(directory, each, f"IP:{t.node.address}") for each in ("old", "new"))
        with Front(t.vault, t.node.address, old) as front:
            settings = {"address": front.url, "caBundle": {"name": name}}
            with product.configured(providers=providers(t, **settings)):
                value = canary()
                wanted = {"file.password": f"fronted:{t.secret(password=value)}#password", **FAST}
                t.create(pod("app", wanted))

                def told():
                    events = [each for each in t.api.list("Event", t.namespace) if each["reason"] == "FailedMount"]
                    return [each["message"] for each in events if name in each["message"]]

                contains(wait("an event about the bundle", 60, told)[0], "hushpod-ca", "the event")
                write(old)
                started = t.ready("app", seconds=180)
                equal(t.file("app", "/secrets/password"), value, "the first file")

                def rotates():
                    fresh = canary()
                    t.secret(password=fresh)
                    t.sees("app", "/secrets/password", fresh, seconds=30)

                rotates()
                write(old, new)
                arrives(t, started, old, new)
                rotates()
                front.show(new)
                rotates()
                check(front.answers["new"] > 0, f"nothing came over the new certificate: {front.answers}")
                write(new)
                arrives(t, started, new)
                rotates()
                # One that the bundle no longer vouches for: nothing is sent, the file stays, the log says why.
                front.show(old)
                before, held = front.answers["old"], t.file("app", "/secrets/password")
                fresh = canary()
                t.secret(password=fresh)
                sentence = "add the authority's certificate to caBundle's ClusterTrustBundle"
                wait("the agent to say what to add", 30, lambda: sentence in t.log("app", "hushpod"))
                equal(t.file("app", "/secrets/password"), held, "the last good file")
                equal(front.answers["old"], before, "requests to a store that nobody vouches for")
                write(old)
                arrives(t, started, old)
                t.sees("app", "/secrets/password", fresh, seconds=90)
                t.never_restarted(started)


@test(when=ALONE, node=True)
def p7_the_policy_sees_a_bundle_that_the_api_server_left_out(t):
    """Before 1.37 it leaves it out of the volume, and the pod is refused; where it does not, one that a later webhook
    spoils is."""
    t.open()
    keys = {"file.x": "fronted:secret/data/app#x"}
    sentence = "the volume hushpod-ca has something else than ClusterTrustBundles"
    settings = {"address": "https://vault.vault.svc:8200", "caBundle": {"name": "stores"}}
    with t.suite.product.configured(providers=providers(t, **settings)):
        create = lambda: t.create(pod("asking", keys), dry_run=True)  # noqa: E731
        if t.api.raw("GET", f"/apis/{CERTIFICATES}/clustertrustbundles")[0] == 404:
            return refused_by_policy(sentence, create)
        made = create()["spec"]
        (volume,) = [each for each in made["volumes"] if each["name"] == "hushpod-ca"]
        bundle = {"clusterTrustBundle": {"name": "stores", "path": "fronted"}}
        equal(volume["projected"]["sources"], [bundle], "the sources of the volume")
        with LateWebhook(t, []) as webhook:
            known(t, webhook)
            opted_in(t, webhook, keys, made)
            for other in ({"projected": {"sources": [bundle, {}]}}, PROGRAMS):
                spec = copy.deepcopy(made)
                replaced(spec, "hushpod-ca", other)
                refused_by_policy(sentence, lambda: opted_in(t, webhook, keys, spec))  # noqa: B023
    return None
