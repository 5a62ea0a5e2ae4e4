"""The webhook's outage, its place among others, and its rolling update."""

import base64
import copy
import http.server
import json
import ssl
import tempfile
import threading

from suite.base import Failed, check, contains, equal, meanwhile, run, wait
from suite.cluster import kubectl
from suite.product import ADMISSION, RELEASE
from suite.runner import ALONE, test
from suite.space import BUSYBOX, FOREVER, annotations, by_hand, canary, container, has_run, pod, written

BINDING = "ValidatingAdmissionPolicyBinding"
# Volumes that could be in the place of one of ours.
PROGRAMS = {"configMap": {"name": "programs"}}
IMAGE = {"image": {"reference": BUSYBOX, "pullPolicy": "Never"}}


def nowhere(name, wanted=None):
    """A pod that is admitted but never scheduled: it costs nothing."""
    return pod(name, wanted, nodeSelector={"hushpod-e2e": "nowhere"})


@test(when=ALONE)
def p7_without_the_webhook_only_those_that_ask_are_refused(t):
    """No replica left: annotated and mistyped pods are refused, others start, and so do those that opted out."""
    t.open()
    wanted = {"file.password": t.secret(password=canary()) + "#password"}
    try:
        t.suite.product.scale(0)
        # In the API server's words: were the failure ignored, the policy would refuse them, and tell of hushpod too.
        uncalled = 'failed calling webhook "pods.hushpod.dev"'
        t.refused(pod("annotated", wanted), uncalled)
        t.refused(pod("mistyped", {"fiel.password": "x"}), uncalled)
        t.create(pod("plain"))
        t.create(pod("opted-out", {**wanted, "inject": "false"}))
        for name in ("plain", "opted-out"):
            wait(f"{name} to start", 30, lambda: has_run(t.pod(name)))
    finally:
        t.suite.product.scale(2)
    t.start(pod("annotated", wanted))


@test(when=ALONE)
def p7_a_pod_that_does_not_ask_never_reaches_the_webhook(t):
    """By the replicas' own counters, which an annotated pod moves."""
    t.open()
    before = t.suite.product.reviews()
    for number in range(5):
        t.create(pod("plain"), dry_run=True)
        t.create(pod("other", {}, nodeName="nowhere"), dry_run=True)
        t.create(nowhere(f"plain-{number}"))
    equal(t.suite.product.reviews(), before, "reviews after 15 pods that do not ask")
    t.create(pod("asks", {"file.x": "secret/data/app#x"}), dry_run=True)
    check(t.suite.product.reviews() > before, "a pod that asks was not counted")


@test(when=ALONE)
def p7_both_replicas_rolled_and_no_pod_refused(t):
    """Pods are created without a pause while both replicas are replaced by new ones with new keys."""
    t.open()
    wanted = {"file.x": "secret/data/app#x"}
    old = {each["metadata"]["name"] for each in t.suite.product.pods()}

    def create(number):
        thing = t.create(nowhere(f"pod-{number}", wanted))
        check(thing["spec"]["initContainers"][0]["name"] == "hushpod", "not injected")

    with meanwhile(create) as outcomes:
        name = t.suite.product.deployment()["metadata"]["name"]
        kubectl("-n", "hushpod", "rollout", "restart", "deployment", name)
        kubectl("-n", "hushpod", "rollout", "status", "deployment", name, "--timeout=120s", seconds=130)
        gone = lambda: not old & {each["metadata"]["name"] for each in t.api.list("Pod", "hushpod")}  # noqa: E731
        wait("the old replicas to be gone", 60, gone)
    failures = list(filter(None, outcomes))
    equal(failures[:3], [], f"{len(failures)} failures of {len(outcomes)} pods")
    check(len(outcomes) > 50, f"only {len(outcomes)} pods were created meanwhile")
    check(not old & {each["metadata"]["name"] for each in t.suite.product.pods()}, "the replicas are the old ones")


class LateWebhook:
    """A mutating webhook on this machine, after ours in the order of names, that patches some pods: with `patch`, which
    may be another one from pod to pod."""

    NAME = "zzz-hushpod-e2e-late"

    def __init__(self, t, patch):
        self.t = t
        self.patch = patch
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # noqa: N802
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                response = {
                    "uid": review["request"]["uid"],
                    "allowed": True,
                    "patchType": "JSONPatch",
                    "patch": base64.b64encode(json.dumps(webhook.patch).encode()).decode(),
                }
                body = json.dumps(
                    {**{key: review[key] for key in ("apiVersion", "kind")}, "response": response}
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((t.node.address, 0), Handler)

    def __enter__(self):
        address, port = self.server.server_address
        with tempfile.TemporaryDirectory() as directory:
            pair = [f"{directory}/{name}" for name in ("key", "certificate")]
            run(
                *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
                *["-subj", "/CN=late", "-addext", f"subjectAltName=IP:{address}", "-days", "1"],
                *["-keyout", pair[0], "-out", pair[1]],
            )
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair[1], pair[0])
            with open(pair[1], "rb") as file:
                authority = base64.b64encode(file.read()).decode()
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        webhook = {
            "name": "late.e2e.hushpod.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": f"https://{address}:{port}/", "caBundle": authority},
            "objectSelector": {"matchLabels": {"hushpod-e2e-late": self.t.namespace}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        }
        self.t.api.create(
            {
                "apiVersion": ADMISSION,
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": self.NAME},
                "webhooks": [webhook],
            }
        )
        return self

    def __exit__(self, *_):
        self.t.api.delete("MutatingWebhookConfiguration", None, self.NAME, ADMISSION)
        self.server.shutdown()


def annotating(added):
    """A patch that adds annotations to some that are there."""
    return [
        {"op": "add", "path": f"/metadata/annotations/{key.replace('~', '~0').replace('/', '~1')}", "value": value}
        for key, value in added.items()
    ]


def late(t, name, wanted=None, **more):
    """A pod that the late webhook is asked about."""
    thing = pod(name, wanted, **more)
    thing["metadata"]["labels"]["hushpod-e2e-late"] = t.namespace
    thing["metadata"].setdefault("annotations", {})["made"] = "up"
    return thing


def known(t, webhook):
    """Waits until the API server calls it: it learns of a new webhook in its own time."""

    def looked():
        return t.create(late(t, "known"), dry_run=True)["metadata"]["annotations"]

    patch, webhook.patch = webhook.patch, annotating({"e2e/late": "yes"})
    wait("the late webhook to be called", 20, lambda: "e2e/late" in looked())
    webhook.patch = patch


@test(when=ALONE, node=True)
def p7_an_opt_in_after_our_turn_is_refused_by_the_policy(t):
    """A later webhook adds our annotation, so ours is never asked: the policy refuses the pod."""
    t.open()

    def created():
        return t.create(late(t, "late"), dry_run=True)

    bindings = [
        each
        for each in t.api.call("GET", t.api.path(ADMISSION, BINDING))["items"]
        if each["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == RELEASE
    ]
    check(bindings, "the chart has no policy binding")
    with LateWebhook(t, annotating(annotations({"file.x": "secret/data/app#x"}))) as webhook:
        known(t, webhook)

        def refused():
            try:
                created()
            except Failed as refusal:
                return str(refusal)
            return None

        sentence = wait("the pod to be refused", 20, refused)
        contains(sentence, ["ValidatingAdmissionPolicy", "hushpod"], "the refusal")
        # Without the policy the same pod is admitted, and would run without its secrets.
        try:
            for each in bindings:
                t.api.delete(BINDING, None, each["metadata"]["name"], ADMISSION)
            wait("the pod to be admitted without the policy", 20, lambda: not refused())
            check("initContainers" not in created()["spec"], "the pod is injected: the policy was not what refused it")
        finally:
            for each in bindings:
                again = {"apiVersion": ADMISSION, "kind": BINDING, **copy.deepcopy(each)}
                again["metadata"] = {
                    key: again["metadata"][key] for key in ("name", "labels", "annotations") if key in again["metadata"]
                }
                t.api.create(again)
        wait("the pod to be refused again", 20, refused)


def out_of_a_volume(volume="hushpod-secrets"):
    """A variable that kubelet reads from a file, without a mount."""
    return {"name": "X", "valueFrom": {"fileKeyRef": {"volumeName": volume, "path": "live/x", "key": "X"}}}


@test()
def p6_ephemeral_containers_cannot_reach_what_is_ours(t):
    """Neither token nor state nor files nor processes, whether or not the debugger means well."""
    t.open()
    thing = t.start(pod("app", {"file.password": t.secret(password=canary()) + "#password"}))
    path = t.api.path("v1", "Pod", t.namespace, "app") + "/ephemeralcontainers"
    debugger = {
        "name": "debug",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sleep", "1"],
        "terminationMessagePolicy": "File",
        "securityContext": {"runAsUser": 1000},
    }

    def attach(**fields):
        now = t.pod("app")
        now["spec"]["ephemeralContainers"] = [{**debugger, **fields}]
        return t.api.call("PUT", path, now)

    wrong = [
        ({"volumeMounts": [{"name": volume, "mountPath": "/mnt"}]}, "mounts a volume hushpod-*")
        for volume in ("hushpod-tokens", "hushpod-state", "hushpod-secrets")
    ]
    wrong.append(({"targetContainerName": "hushpod"}, "targets hushpod's own"))
    if t.node:
        wrong.append(({"env": [out_of_a_volume("hushpod-state")]}, "takes a variable out of a volume"))
    for fields, sentence in wrong:
        refused_by_policy(sentence, lambda: attach(**fields))  # noqa: B023
    attach(targetContainerName="app")
    t.never_restarted(thing)


@test()
def p6_ephemeral_containers_cannot_mount_what_the_driver_made(t):
    """Of the webhook's volume nor of one by hand, whatever its name."""
    t.open()
    reference = t.secret(password=canary()) + "#password"
    injected = pod("injected", {"file.password": reference, "mode": "csi"})
    things = t.start(injected, by_hand(pod("written"), written("mine", **{"file.password": reference})))
    for thing, volume in zip(things, ("hushpod-secrets", "mine")):
        name = thing["metadata"]["name"]
        path = t.api.path("v1", "Pod", t.namespace, name) + "/ephemeralcontainers"

        def attach(**fields):
            now = t.pod(name)  # noqa: B023
            debugger = {**container("debug", "true"), "terminationMessagePolicy": "File", **fields}
            now["spec"]["ephemeralContainers"] = [debugger]
            return t.api.call("PUT", path, now)  # noqa: B023

        mount = {"volumeMounts": [{"name": volume, "mountPath": "/mnt", "readOnly": True}]}
        refused_by_policy("or one of csi.hushpod.dev", lambda: attach(**mount))  # noqa: B023
        attach(targetContainerName="app")


def opted_in(t, webhook, keys, spec):
    """A pod that a later webhook opts in, with all that ours would have made of it: `spec`, or so it says."""
    webhook.patch = [*annotating(annotations(keys)), {"op": "replace", "path": "/spec", "value": spec}]
    return t.create(late(t, "opted-in"), dry_run=True)


def replaced(spec, name, value):
    spec["volumes"] = [{"name": name, **value} if each["name"] == name else each for each in spec["volumes"]]


def refused_by_policy(sentence, create):
    try:
        create()
    except Failed as refusal:
        contains(str(refusal), ["ValidatingAdmissionPolicy", sentence], "the refusal")
    else:
        raise Failed(f"admitted, where the policy should have said {sentence!r}")


def app_mount(spec, name):
    return next(each for each in spec["containers"][0]["volumeMounts"] if each["name"] == name)


def unmounted(spec):
    for each in spec["initContainers"] + spec["containers"]:
        if each["name"] != "hushpod":
            kept = [mount for mount in each.get("volumeMounts", []) if mount["name"] != "hushpod-secrets"]
            each["volumeMounts"] = kept


def early(spec):
    mount = {"name": "hushpod-secrets", "mountPath": "/early", "subPath": "live", "readOnly": True}
    spec["initContainers"][0].setdefault("volumeMounts", []).append(mount)


def without_agent(spec):
    spec["initContainers"] = spec["initContainers"][:1]


def without_volume(spec):
    unmounted(spec)
    spec["volumes"] = [each for each in spec["volumes"] if each["name"] != "hushpod-secrets"]


STATE = {"name": "hushpod-state", "mountPath": "/state"}


def with_state(spec):
    """Where the webhook makes no such volume."""
    spec["volumes"].append({"name": "hushpod-state", "emptyDir": {}})
    spec["containers"][0]["volumeMounts"].append(STATE)


# By mode, what the policy says when it is spoilt.
RULES = {
    "sidecar": {
        "not the agent": without_agent,
        "not the emptyDir in memory": lambda spec: replaced(spec, "hushpod-secrets", {"emptyDir": {}}),
        "other than the agent mounts a volume": lambda spec: spec["containers"][0]["volumeMounts"].append(STATE),
        "with the subPath live": lambda spec: app_mount(spec, "hushpod-secrets").pop("subPath"),
        "and hushpod-bin read-only": lambda spec: app_mount(spec, "hushpod-bin").pop("readOnly"),
        "the volume hushpod-bin is not": lambda spec: replaced(spec, "hushpod-bin", PROGRAMS),
        # Where the operator has not said that nodes can.
        "hushpod-bin is not the one": lambda spec: replaced(spec, "hushpod-bin", IMAGE),
        "replaced the commands": lambda spec: spec["containers"][0].update(command=["sleep"]),
        "takes a variable out of a volume": lambda spec: spec["containers"][0].update(env=[out_of_a_volume()]),
        "an init container before the agent mounts": early,
        "no container mounts hushpod-secrets": unmounted,
        "runs before the init container first": lambda spec: spec["initContainers"].reverse(),
    },
    "csi": {
        "not the volume": without_volume,
        "not the read-only one of csi.hushpod.dev": lambda spec: replaced(
            spec, "hushpod-secrets", {"emptyDir": {"medium": "Memory"}}
        ),
        "is not the read-only one": lambda spec: replaced(spec, "hushpod-secrets", csi_volume(driver="other.example")),
        "read-only one of csi": lambda spec: replaced(spec, "hushpod-secrets", csi_volume(readOnly=False)),
        "other than the agent mounts a volume": with_state,
        "(mode csi: none or <file>)": lambda spec: app_mount(spec, "hushpod-secrets").pop("readOnly"),
        "and hushpod-bin read-only": lambda spec: app_mount(spec, "hushpod-bin").pop("readOnly"),
        "the volume hushpod-bin is not": lambda spec: replaced(spec, "hushpod-bin", {"emptyDir": {}}),
        # Secrets where a program should be.
        "hushpod-bin is not the one": lambda spec: replaced(
            spec, "hushpod-bin", csi_volume(volumeAttributes={"file.hushpod-agent": "secret/data/app#x"})
        ),
        "replaced the commands": lambda spec: spec["containers"][0].update(command=["sleep"]),
        # Of a variable out of it Kubernetes itself says that it is no emptyDir.
        "no container mounts hushpod-secrets": unmounted,
    },
}


def csi_volume(**fields):
    return {"csi": {"driver": "csi.hushpod.dev", "readOnly": True, **fields}}


@test(when=ALONE, node=True, each={mode: mode for mode in RULES})
def p7_each_rule_of_the_policy_refuses(t, mode):
    """A later webhook opts a pod in with all that ours would have made, and one thing wrong with it: every rule of the
    policy refuses what it is there for, and nothing else."""
    t.open()
    keys = {"file.x": "secret/data/app#x", "env.TOKEN": "secret/data/app#token", "init-order": "after:first"}
    keys["mode"] = mode
    made = t.create(pod("asking", keys, init=[container("first", "true")]), dry_run=True)["spec"]
    names = [each["name"] for each in made["initContainers"]]
    equal(names, ["first", *(["hushpod"] if mode == "sidecar" else [])], "the init containers that ours makes")
    with LateWebhook(t, []) as webhook:
        known(t, webhook)
        opted_in(t, webhook, keys, made)
        for sentence, spoil in RULES[mode].items():
            spec = copy.deepcopy(made)
            spoil(spec)
            refused_by_policy(sentence, lambda: opted_in(t, webhook, keys, spec))  # noqa: B023
        if mode == "csi":
            # A single file is as well.
            spec = copy.deepcopy(made)
            app_mount(spec, "hushpod-secrets")["subPath"] = "x"
            opted_in(t, webhook, keys, spec)


@test()
def p6_what_was_injected_stays_as_it_was_made(t):
    """Whatever a running pod's annotations say: our containers' image and resources are nobody's to change. All else
    that can be changed is free."""
    t.open()
    requests = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    for mode in ("sidecar", "init+sidecar"):
        name = mode.replace("+", "-")
        thing = nowhere(name, {"file.x": "secret/data/app#x", "mode": mode})
        thing["spec"]["containers"][0]["resources"] = requests
        t.create(thing)
        path = t.api.path("v1", "Pod", t.namespace, name)
        content_type = "application/strategic-merge-patch+json"

        def change(patch, subresource=""):
            return t.api.call("PATCH", path + subresource, patch, content_type)  # noqa: B023

        def containers(field, found, **fields):
            return {"spec": {field: [{"name": found, **fields}]}}

        more = {"requests": {"cpu": "20m"}}
        change({"metadata": {"labels": {"a": "b"}, "annotations": {"hushpod.dev/hold": "true"}}})
        change({"metadata": {"finalizers": ["e2e.hushpod.dev/none"]}})
        change({"metadata": {"$deleteFromPrimitiveList/finalizers": ["e2e.hushpod.dev/none"]}})
        change({"status": {"reason": "e2e"}}, "/status")
        change(containers("containers", "app", image="localhost/hushpod-test/psql:latest"))
        change(containers("containers", "app", resources=more), "/resize")
        keys = t.pod(name)["metadata"]["annotations"]
        for without in (False, True):
            if without:
                change({"metadata": {"annotations": {key: None for key in keys}}})
                check(not t.pod(name)["metadata"].get("annotations"), "the annotations are still there")
            for ours in [each["name"] for each in t.pod(name)["spec"]["initContainers"]]:
                image = containers("initContainers", ours, image=BUSYBOX)
                refused_by_policy("stay as the webhook made them", lambda: change(image))  # noqa: B023
            resized = containers("initContainers", "hushpod", resources=more)
            refused_by_policy("stay as the webhook made them", lambda: change(resized, "/resize"))  # noqa: B023
    # A namesake in a pod that is not injected is its owner's.
    plain = nowhere("plain")
    plain["spec"]["containers"][0]["name"] = "hushpod"
    t.create(plain)
    patch = {"spec": {"containers": [{"name": "hushpod", "image": "localhost/hushpod-test/psql:latest"}]}}
    t.api.call("PATCH", t.api.path("v1", "Pod", t.namespace, "plain"), patch, "application/strategic-merge-patch+json")


@test()
def annotations_of_a_workload_instead_of_its_pods_are_warned_of(t):
    """They do nothing there: their author is told where they belong, and is not stopped."""
    t.open()
    ours = annotations({"file.x": "secret/data/app#x"})
    template = {key: value for key, value in pod("app").items() if key in ("metadata", "spec")}

    def workloads(own, of_pods):
        """Each kind of workload with these annotations."""
        made = copy.deepcopy(template)
        made["metadata"] = {"labels": {"app": "app"}, "annotations": of_pods}
        spec = {"selector": {"matchLabels": {"app": "app"}}, "template": made}
        job = {"template": copy.deepcopy(made)}
        job["template"]["spec"]["restartPolicy"] = "Never"
        cron = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}}
        kinds = [("apps/v1", kind, spec) for kind in ("Deployment", "DaemonSet", "ReplicaSet")]
        kinds.append(("apps/v1", "StatefulSet", {**spec, "serviceName": "app"}))
        kinds += [("batch/v1", "Job", job), ("batch/v1", "CronJob", cron)]
        for version, kind, fields in kinds:
            metadata = {"name": "app", "namespace": t.namespace, "annotations": own}
            yield {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": copy.deepcopy(fields)}

    def warned(thing):
        made = run("kubectl", "create", "--dry-run=server", "-f", "-", stdin=json.dumps(thing), ok=False)
        equal(made.returncode, 0, f"the outcome for a {thing['kind']}: {made.stderr}")
        return [line for line in made.stderr.splitlines() if "hushpod" in line]

    for own, of_pods, is_wrong in ((ours, {}, True), (ours, ours, False), ({}, ours, False), ({"a": "b"}, {}, False)):
        for thing in workloads(own, of_pods):
            found = warned(thing)
            equal(len(found), int(is_wrong), f"warnings for a {thing['kind']} with {own} and {of_pods}: {found}")
            place = "spec.jobTemplate.spec.template" if thing["kind"] == "CronJob" else "spec.template"
            for line in found:
                contains(line, [f"of a {thing['kind']}", f"({place}."], "the warning")
    (cron,) = [thing for thing in workloads({}, {}) if thing["kind"] == "CronJob"]
    cron["spec"]["jobTemplate"]["metadata"] = {"annotations": ours}
    equal(len(warned(cron)), 1, "warnings for annotations of a CronJob's jobs")


@test(when=ALONE, node=True)
def p7_the_policy_knows_image_volumes(t):
    """With `imageVolumes: true` a pod may have the image, or the copy, which a replica asks for until it knows."""
    t.open()
    keys = {"env.TOKEN": "secret/data/app#token"}
    copied = t.create(pod("copied", keys), dry_run=True)["spec"]
    with t.suite.product.configured(imageVolumes=True), LateWebhook(t, []) as webhook:
        known(t, webhook)
        # The API server takes a moment for a changed policy.
        mounted = wait("the policy to let it pass", 20, lambda: t.create(pod("mounted", keys), dry_run=True))["spec"]
        images = [each["image"]["reference"] for each in mounted["volumes"] if "image" in each]
        equal(images, [t.suite.product.agent_image], "the image volumes")
        for spec in (mounted, copied):
            opted_in(t, webhook, keys, spec)
            replaced(spec, "hushpod-bin", PROGRAMS)
            refused_by_policy("the volume hushpod-bin is not", lambda: opted_in(t, webhook, keys, spec))  # noqa: B023


@test(when=ALONE, node=True)
def environment_survives_a_webhook_that_replaces_the_command(t):
    """It comes after ours, which is asked again and wraps what stands there now: once."""
    t.open()
    keys = {"env.TOKEN": f"secret/data/{t.namespace}/app#token"}
    thing = late(t, "app", keys)
    thing["spec"]["containers"][0]["command"] = ["sleep", "1"]
    with LateWebhook(t, [{"op": "replace", "path": "/spec/containers/0/command", "value": ["late", "2"]}]) as webhook:
        known(t, webhook)
        command = t.create(thing, dry_run=True)["spec"]["containers"][0]["command"]
    equal(command[-3:], ["--", "late", "2"], "what is run behind the wrapper")
    equal(command[:2], ["/hushpod-bin/hushpod-agent", "exec"], "the wrapper")
    equal(command.count("exec"), 1, "wrappers")


@test(when=ALONE, node=True)
def p6_p7_what_a_later_webhook_adds_gets_nothing_and_what_it_takes_comes_back(t):
    """It adds a proxy and an init container, and takes the application's mounts away, when ours was asked already: ours
    is asked again. The proxy runs while the agent still waits for the store, as a mesh's must."""
    t.open()
    value = canary()
    wanted = {"file.password": t.secret(password=value) + "#password"}
    proxy = container("istio-proxy", f"set -e; test ! -e /secrets; touch /tmp/runs; {FOREVER}")
    check_rules = container("istio-validation", "test ! -e /secrets")
    product = t.suite.product

    def mounts(name):
        """What of ours a container would have now."""
        spec = t.create(late(t, "another", wanted), dry_run=True)["spec"]
        found = next(each for each in spec["containers"] if each["name"] == name).get("volumeMounts", [])
        return [(each["name"], each["mountPath"]) for each in found if each["name"].startswith("hushpod-")]

    patch = [
        {"op": "add", "path": "/spec/containers/-", "value": proxy},
        {"op": "add", "path": "/spec/initContainers/-", "value": check_rules},
        {"op": "replace", "path": "/spec/containers/0/volumeMounts", "value": []},
    ]
    with LateWebhook(t, patch) as webhook:
        known(t, webhook)
        equal(mounts("app"), [("hushpod-secrets", "/secrets")], "the application's mounts")
        equal(mounts("istio-proxy"), [], "the proxy's mounts")
        thing = t.start(late(t, "app", wanted))
        equal(t.file("app", "/secrets/password", "app"), value, "what the application reads")
        equal(t.file("app", "/tmp/runs", "istio-proxy"), "", "the proxy's own file")
        equal([each["name"] for each in thing["spec"]["initContainers"]], ["hushpod", "istio-validation"], "the agents")
        t.never_restarted(thing)
        # Asked but once, ours would never hear of it.
        try:
            product.rewrite(lambda each: each.update(reinvocationPolicy="Never"))
            wait("the mounts to stay away", 20, lambda: refused_without_mounts(lambda: mounts("app")))
        finally:
            product.rewrite(lambda each: each.update(reinvocationPolicy="IfNeeded"))
        wait("the mounts to come back", 20, lambda: not refused_without_mounts(lambda: mounts("app")))


def refused_without_mounts(create):
    """Whether the policy looks at what came of it."""
    try:
        create()
    except Failed as refusal:
        return "no container mounts hushpod-secrets" in str(refusal)
    return False
