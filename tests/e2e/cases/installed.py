"""What operators set, on a cluster: platforms' values, helm test, namespaces by label, Secrets that a team has left."""

import json

from suite.base import check, contains, equal, run, wait
from suite.cluster import kubectl
from suite.product import CHART, CSI_NAMESPACE, NAMESPACE, RELEASE, documents
from suite.runner import ALONE, test
from suite.space import container, deployment, pod

PLATFORMS = {path.stem.removeprefix("values-"): path for path in sorted((CHART / "ci").glob("values-*.yaml"))}
# Kinds of others, which this cluster has not.
FOREIGN = ("monitoring.coreos.com/", "cert-manager.io/")


def nowhere(name, keys=None, **spec):
    """A pod that is admitted and never scheduled."""
    return pod(name, keys, nodeSelector={"hushpod-e2e": "nowhere"}, **spec)


@test(each=PLATFORMS)
def values_for_a_platform_are_what_an_api_server_takes(t, path):
    """No field that it does not know, no object that it refuses: a server-side dry run of each object."""
    version = json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"].lstrip("v")
    options = ["--namespace", NAMESPACE, "--kube-version", version, "--skip-tests", "--values", path]
    # Namespaces that are there: a dry run makes none for what is in it.
    manifest = run("helm", "template", RELEASE, CHART, *options, "--set", f"csi.namespace={CSI_NAMESPACE}")
    objects = [each for each in documents(manifest) if not each["apiVersion"].startswith(FOREIGN)]
    check(len(objects) > 10, f"only {len(objects)} objects")
    for each in objects:
        # Whole, in place of what is installed: a patch would lay these values over the others.
        space = each["metadata"].get("namespace")
        where = ["-n", space] if space else []
        group = each["apiVersion"].rpartition("/")[0].rpartition("/")[2]
        kind = ".".join(filter(None, (each["kind"], group)))
        is_there = kubectl(*where, "get", kind, each["metadata"]["name"], "--ignore-not-found", "-o", "name")
        how = "replace" if is_there else "create"
        kubectl(how, "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(each))


def helm_test():
    """How `helm test` ended, and all that it said."""
    told = run("helm", "test", RELEASE, "--namespace", NAMESPACE, "--timeout", "90s", ok=False, seconds=120)
    return told.returncode == 0, told.stdout + told.stderr


@test(when=ALONE)
def helm_test_says_whether_pods_are_injected(t):
    """And if not, why; its Role is there only while it runs."""
    product = t.suite.product
    try:
        good, said = helm_test()
        check(good, f"helm test fails: {said}")
        contains(said, "injected: a pod of namespace", "helm test")
        for kind in ("role", "rolebinding"):
            left = kubectl("-n", "default", "get", kind, "-o", "name")
            check("hushpod" not in left, f"helm test left {left}")
        for test_values, part in (
            ({"namespace": "kube-system"}, "webhook.excludedNamespaces"),
            ({"annotations": {"hushpod.dev/file.x": "reserved:secret/data/x#x"}}, "operator's configuration"),
            ({"annotations": {"hushpod.dev/fiel.x": "secret/data/x#x"}}, "operator's configuration"),
        ):
            product.install(test=test_values)
            good, said = helm_test()
            check(not good, f"helm test passes with {test_values}: {said}")
            contains(said, ["not injected: ", part], f"helm test with {test_values}")
        product.install()
        product.scale(0)
        good, said = helm_test()
        check(not good, f"helm test passes without a webhook: {said}")
        contains(said, ["not injected: ", "does not reach the webhook"], "helm test without a webhook")
    finally:
        product.scale(2)
        product.install()
        kubectl("-n", NAMESPACE, "delete", "pod", "hushpod-test", "--ignore-not-found")


@test(when=ALONE)
def p7_namespaces_by_label(t):
    """With webhook.namespaceSelector only pods of namespaces with the label are injected; others that ask are refused, and
    told why."""
    product = t.suite.product
    t.open()
    asks = nowhere("asks", {"file.x": "secret/data/app#x"})
    selector = {
        "matchLabels": {"hushpod-e2e-injection": "on"},
        "matchExpressions": [{"key": "hushpod-e2e-never", "operator": "DoesNotExist"}],
    }

    def label(text):
        kubectl("label", "namespace", t.namespace, "--overwrite", text)

    def admitted():
        made = t.create(asks, dry_run=True)
        return "hushpod" in [each["name"] for each in made["spec"].get("initContainers", [])]

    def refused():
        result = t.api.raw("POST", f"/api/v1/namespaces/{t.namespace}/pods?dryRun=All", json.dumps(asks))
        return result[0] >= 400 and "webhook.namespaceSelector" in result[1].decode()

    try:
        product.install(webhook={"namespaceSelector": selector})
        wait("pods of a namespace without the label to be refused", 30, refused)
        # One that does not ask is nobody's business.
        t.create(nowhere("plain"), dry_run=True)
        label("hushpod-e2e-injection=on")
        wait("pods of a labelled namespace to be injected", 30, admitted)
        label("hushpod-e2e-never=")
        wait("the expression to count as well", 30, refused)
    finally:
        product.install()
    wait("pods to be injected whatever the labels", 30, admitted)


def with_secrets(name, place):
    """A pod that takes something out of the Secret `old`, in this place."""
    thing = nowhere(name)
    spec = thing["spec"]
    variable = [{"name": "OLD", "valueFrom": {"secretKeyRef": {"name": "old", "key": "x"}}}]
    if place == "env":
        spec["containers"][0]["env"] = variable
    elif place == "envFrom":
        spec["containers"][0]["envFrom"] = [{"secretRef": {"name": "old"}}]
    elif place == "init":
        spec["initContainers"] = [container("early", "true", env=variable)]
    elif place == "volume":
        spec["volumes"].append({"name": "old", "secret": {"secretName": "old"}})
    elif place == "projected":
        spec["volumes"].append({"name": "old", "projected": {"sources": [{"secret": {"name": "old"}}]}})
    return thing


@test(when=ALONE)
def the_policy_about_secrets_of_etcd(t):
    """Off until an operator wants it; then a warning or a refusal, in labelled namespaces alone, for containers, init
    containers, debuggers and volumes; what runs stays, and our own pods are none of it."""
    product = t.suite.product
    t.open()
    places = {"env": "app", "envFrom": "app", "init": "early", "volume": "old", "projected": "old"}

    def told(thing):
        """All that kubectl says of a creation that is a dry run, and whether it was admitted."""
        result = run(
            "kubectl", "-n", t.namespace, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(thing), ok=False
        )
        return result.returncode == 0, result.stderr

    def kinds(name, place):
        thing = with_secrets(name, place)
        return deployment(thing, replicas=1)

    def everywhere(admitted, word, but=()):
        for place, named in places.items():
            good, said = told(with_secrets(f"takes-{place.lower()}", place))
            equal(good, admitted or place in but, f"a pod with {place} is admitted ({said})")
            equal(word in said and named in said, place not in but, f"{word!r} about {place}: {said!r}")

    try:
        everywhere(True, "Secrets", but=places)
        kubectl("label", "namespace", t.namespace, "hushpod.dev/no-etcd-secrets=true")
        t.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "old"}, "stringData": {"x": "plain"}})
        first = with_secrets("first", "env")
        del first["spec"]["nodeSelector"]
        t.start(first)

        product.install(etcdSecrets={"enabled": True, "volumes": True})
        wait("the policy to warn", 30, lambda: "Warning" in told(with_secrets("asks", "env"))[1])
        everywhere(True, "Secrets")
        good, said = told(kinds("workload", "init"))
        check(good and "early" in said and "Warning" in said, f"a Deployment: {said}")

        product.install(etcdSecrets={"enabled": True, "action": "Deny"})
        wait("the policy to refuse", 30, lambda: not told(with_secrets("asks", "env"))[0])
        everywhere(False, "Secrets", but=("volume", "projected"))
        good, said = told(kinds("workload", "env"))
        check(good and "Warning" in said, f"a Deployment is not refused: {said}")
        # What was there stays, and can be debugged; by a debugger that takes none.
        debugger = {"name": "debug", "image": "none", "targetContainerName": "app"}
        path = f"/api/v1/namespaces/{t.namespace}/pods/first/ephemeralcontainers?dryRun=All"

        def debug(**more):
            body = json.dumps({"spec": {"ephemeralContainers": [{**debugger, **more}]}})
            status, answer = t.api.raw("PATCH", path, body, "application/strategic-merge-patch+json")
            return status, answer.decode()

        equal(debug()[0], 200, "a debugger without Secrets")
        status, answer = debug(envFrom=[{"secretRef": {"name": "old"}}])
        check(status >= 400 and "debug" in answer and "Secrets" in answer, f"a debugger with a Secret: {answer[:500]}")
        # Ours takes nothing out of Secrets.
        made = t.create(nowhere("ours", {"env.X": "secret/data/app#x"}), dry_run=True)
        equal(made["spec"]["initContainers"][0]["name"], "hushpod", "injection beside the policy")
        t.never_restarted(t.pod("first"))
    finally:
        product.install()
    wait("the policy to be gone", 30, lambda: told(with_secrets("asks", "env"))[0])
