"""What Argo CD and Flux see of the chart: no drift, whatever the replicas write; and what a replacement costs."""

import json
import tempfile

from suite.base import check, equal, run, wait
from suite.cluster import CLUSTER_SCRIPTS, kubectl
from suite.product import NAMESPACE
from suite.runner import ALONE, test
from suite.space import pod

WEBHOOK = "mutatingwebhookconfigurations.admissionregistration.k8s.io/hushpod"
# What the API server counts, and nobody wrote.
COUNTED = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid")


def identity(thing):
    return f"{thing['kind']} {thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"


def live(thing):
    """Its namesake in the cluster."""
    group = thing["apiVersion"].split("/")[0] if "/" in thing["apiVersion"] else ""
    kind = f"{thing['kind']}.{group}" if group else thing["kind"]
    space = thing["metadata"].get("namespace")
    where = ["-n", space] if space else []
    return json.loads(kubectl(*where, "get", kind, thing["metadata"]["name"], "-o", "json"))


def drift(engine, wanted):
    """What Argo CD's engine says of each object, by its name; those without drift are not in it."""
    pairs = "\n".join(json.dumps({"wanted": each, "live": live(each)}) for each in wanted)
    told = [json.loads(line) for line in run(engine, "diff", stdin=pairs).splitlines()]
    equal(len(told), len(wanted), "verdicts of the engine")
    return {each["object"]: each["drift"] for each in told if each["drift"]}


def applied(wanted):
    """What a server-side apply by another would change, as a dry run, by the object's name; or its conflict."""
    found = {}
    for each in wanted:
        options = ["--server-side", "--dry-run=server", "--field-manager=argocd-controller", "-o", "json", "-f", "-"]
        told = run("kubectl", "apply", *options, stdin=json.dumps(each), ok=False)
        if told.returncode:
            found[identity(each)] = told.stderr.split("Please review")[0].strip()
            continue
        after, before = json.loads(told.stdout), live(each)
        for thing in (before, after):
            thing.pop("status", None)
            for field in COUNTED:
                thing["metadata"].pop(field, None)
            # Deployment's controller counts in it.
            thing["metadata"].get("annotations", {}).pop("deployment.kubernetes.io/revision", None)
        if before != after:
            found[identity(each)] = (before, after)
    return found


@test(when=ALONE, node=True)
def gitops_tools_see_no_drift_through_ten_rotations(t):
    """Argo CD's engine and a server-side apply find nothing to do, however often `caBundle` changes."""
    product = t.suite.product
    engine = run(CLUSTER_SCRIPTS / "build", "gitops", seconds=1800).strip() + "/gitops"
    wanted = product.manifest()
    check(len(wanted) > 15, f"only {len(wanted)} objects in the manifest")
    # It can find something: a value that is not the cluster's, in the object that the replicas write to.
    (configuration,) = [each for each in wanted if each["kind"] == "MutatingWebhookConfiguration"]
    other = json.loads(json.dumps(configuration))
    other["webhooks"][0]["timeoutSeconds"] = 1
    equal(drift(engine, [other]), {"MutatingWebhookConfiguration hushpod": ["/webhooks/0/timeoutSeconds"]}, "drift")
    check(applied([other]), "a server-side apply sees no change of a timeout")
    equal(drift(engine, wanted), {}, "drift at first")
    equal(applied(wanted), {}, "changes by a server-side apply at first")

    seen = {product.authorities()}
    # Both replicas make room for ones with keys of their own: two certificates each time.
    for rotations in range(2, 11, 2):
        name = product.deployment()["metadata"]["name"]
        kubectl("-n", NAMESPACE, "rollout", "restart", "deployment", name)
        kubectl("-n", NAMESPACE, "rollout", "status", "deployment", name, "--timeout=120s", seconds=130)
        bundle = product.authorities()
        check(bundle not in seen, "the replicas were rolled, and caBundle is as it was")
        seen.add(bundle)
        equal(drift(engine, [configuration]), {}, f"drift after {rotations} rotations")
        equal(applied([configuration]), {}, f"changes by a server-side apply after {rotations} rotations")
    equal(drift(engine, wanted), {}, "drift at the end")
    equal(applied(wanted), {}, "changes by a server-side apply at the end")
    product.install()


@test(when=ALONE)
def a_replaced_webhook_configuration_is_healed(t):
    """`Replace=true` of Argo CD and `force: true` of Flux empty `caBundle`: each replica writes its authority again, and
    pods are admitted within seconds; until then those that ask are refused, never un-injected."""
    product = t.suite.product
    t.open()
    (configuration,) = [each for each in product.manifest() if each["kind"] == "MutatingWebhookConfiguration"]
    asks = pod("asks", {"file.x": "secret/data/app#x"}, nodeSelector={"hushpod-e2e": "nowhere"})

    def admitted():
        made = t.create(asks, dry_run=True)
        check("hushpod" in [each["name"] for each in made["spec"].get("initContainers", [])], "not injected")
        return True

    admitted()
    for force in ([], ["--force", "--cascade=orphan"]):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(configuration, file)
            file.flush()
            kubectl("replace", *force, "-f", file.name)
        wait("both authorities to be back", 30, lambda: product.authorities().count("BEGIN CERTIFICATE") >= 2)
        wait("a pod to be admitted", 30, admitted)
        equal(drift_of_bundle(configuration), [], "what else changed")


def drift_of_bundle(configuration):
    """Fields of the live configuration that the manifest has otherwise, without looking at defaults."""
    now = live(configuration)
    return [
        name
        for ours, theirs in zip(configuration["webhooks"], now["webhooks"], strict=True)
        for name, value in ours.items()
        if name != "clientConfig" and theirs.get(name) != value and name != "rules"
    ]
