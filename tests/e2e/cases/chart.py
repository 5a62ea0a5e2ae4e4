"""The chart: what it promises, upgrade and uninstall."""

import base64
import json

from suite.base import check, contains, equal, meanwhile, run, wait
from suite.cluster import kubectl
from suite.product import CHART, CSI_DRIVER, CSI_NAMESPACE, NAMESPACE, RELEASE, documents, remains
from suite.runner import LAST, test
from suite.space import RESTRICTED, canary, pod

NAME = "hushpod-webhook"
CONFIGURATION = ("MutatingWebhookConfiguration", "hushpod")
# Whose pods are spread, kept and served.
SELECTOR = {
    "matchLabels": {
        "app.kubernetes.io/name": "hushpod",
        "app.kubernetes.io/instance": RELEASE,
        "app.kubernetes.io/component": "webhook",
    }
}
# The pods' affinity and the Service have no field of this name around it.
LABELS = SELECTOR["matchLabels"]
OBJECTS = {
    ("ConfigMap", "hushpod-config"),
    ("Deployment", NAME),
    CONFIGURATION,
    ("NetworkPolicy", NAME),
    ("PodDisruptionBudget", NAME),
    ("Service", NAME),
    ("ServiceAccount", NAME),
}
RBAC = {(kind, NAME) for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")}
# For people, bound by the operator.
ROLES = {("ClusterRole", "hushpod-viewer"), ("ClusterRole", "hushpod-controls")}
POLICY = {
    (kind, name)
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    for name in ("hushpod-pods", "hushpod-running-pods", "hushpod-ephemeral-containers", "hushpod-workloads")
}
TLS_DIRECTORY = "/etc/hushpod/tls"
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
WEBHOOKS = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{NAME}"

def rendered(*options, version="1.30.0"):
    """The chart's objects for a version of Kubernetes, by kind and name."""
    arguments = ["template", RELEASE, CHART, "--namespace", NAMESPACE, "--kube-version", version, "--skip-tests"]
    manifest = run("helm", *arguments, "--set", "image.repository=hushpod", *options)
    return {(each["kind"], each["metadata"]["name"]): each for each in documents(manifest)}


def webhook_pod(found):
    """The spec of the webhook's pods, and of one of their two containers, which differ by their names and admin ports."""
    spec = found["Deployment", NAME]["spec"]["template"]["spec"]
    container, twin = spec["containers"]
    same = json.dumps(twin).replace("admin-twin", "admin").replace("twin", "webhook").replace("8082", "8081")
    shared = [port for port in container["ports"] if port["name"] == "https"]
    twin = json.loads(same)
    equal({**twin, "ports": shared + twin["ports"]}, container, "the second container")
    return spec, container


def equals(thing, fields, what):
    """Of all fields of a thing, these."""
    for field, expected in fields.items():
        equal(thing.get(field), expected, f"{field} of {what}")


def certificates(text):
    return {each.strip() for each in text.split("-----END CERTIFICATE-----")[:-1]}


def foreign_authority():
    """The certificate of an authority of which the replicas know nothing; nobody has its key."""
    return run(
        *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        *["-subj", "/CN=foreign", "-days", "1", "-keyout", "/dev/null"],
    )


def bundled(change):
    """What alters a webhook's `caBundle`, by its text."""

    def alter(webhook):
        text = base64.b64decode(webhook["clientConfig"].get("caBundle", "")).decode()
        webhook["clientConfig"]["caBundle"] = base64.b64encode(change(text).encode()).decode()

    return alter


@test()
def the_chart_has_no_unknown_fields(t):
    """No field that the API does not know, which it would drop in silence."""
    manifest = run("helm", "get", "manifest", RELEASE, "--namespace", NAMESPACE)
    contains(manifest, "ValidatingAdmissionPolicy", "the manifest")
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=manifest)


@test()
def the_chart_is_as_it_promises(t):
    """Without any value of ours: two replicas, spread and never all evicted, restricted, probed, with resources; a
    webhook that fails closed, for pods that ask alone."""
    found = rendered()
    equal(set(found), OBJECTS | RBAC | ROLES | POLICY, "the chart's objects")
    deployment, (spec, container) = found["Deployment", NAME]["spec"], webhook_pod(found)
    equals(deployment, {"replicas": 2, "selector": SELECTOR}, "the Deployment")
    labels = deployment["template"]["metadata"]["labels"]
    equal({key: labels.get(key) for key in LABELS}, LABELS, "labels of the webhook's pods")
    # New ones first.
    equal(deployment["strategy"], {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}, "the strategy")
    budget = {"minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": SELECTOR}
    equal(found["PodDisruptionBudget", NAME]["spec"], budget, "the PodDisruptionBudget")
    zones = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
    nodes = {"topologyKey": "kubernetes.io/hostname", "labelSelector": SELECTOR}
    apart = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": nodes}]}
    equals(
        spec,
        {
            "topologySpreadConstraints": [{**zones, "labelSelector": SELECTOR}],
            "affinity": {"podAntiAffinity": apart},
            "serviceAccountName": NAME,
            "automountServiceAccountToken": True,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "hostNetwork": None,
            "hostPID": None,
            "hostIPC": None,
            "initContainers": None,
            "volumes": [{"name": "config", "configMap": {"name": "hushpod-config"}}],
        },
        "the webhook's pods",
    )
    equals(
        container,
        {
            "securityContext": {**RESTRICTED, "readOnlyRootFilesystem": True},
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
            "ports": [{"name": "https", "containerPort": 10250}, {"name": "admin", "containerPort": 8081}],
            "readinessProbe": {
                "httpGet": {"path": "/readyz", "port": "admin"},
                "periodSeconds": 2,
                "failureThreshold": 2,
            },
            "livenessProbe": {
                "httpGet": {"path": "/healthz", "port": "admin"},
                "periodSeconds": 10,
                "failureThreshold": 3,
            },
        },
        "the webhook's container",
    )
    contains(container["args"], ["--service=hushpod-webhook", "--webhook-configuration=hushpod"], "its arguments")
    check("--tls-dir" not in " ".join(container["args"]), "there is a --tls-dir without a volume for it")
    service = {"selector": LABELS, "ports": [{"name": "https", "port": 443, "targetPort": "https"}]}
    equal(found["Service", NAME]["spec"], service, "the Service")
    (webhook,) = found[CONFIGURATION]["webhooks"]
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    excluded = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [NAMESPACE, "kube-system"]}
    called = {"namespace": NAMESPACE, "name": NAME, "path": "/mutate", "port": 443}
    equals(
        webhook,
        {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "timeoutSeconds": 5,
            "rules": [{**pods, "scope": "Namespaced"}],
            "namespaceSelector": {"matchExpressions": [excluded]},
            "objectSelector": None,
            # And no caBundle: that is the replicas'.
            "clientConfig": {"service": called},
        },
        "the webhook",
    )
    asks = [each["expression"] for each in webhook["matchConditions"]]
    contains(" ".join(asks), ["startsWith('hushpod.dev/')", "'hushpod.dev/inject'"], "the webhook's conditions")
    for _, name in filter(lambda each: each[0] == "ValidatingAdmissionPolicy", POLICY):
        # Who annotates a workload in the wrong place is told, and not stopped.
        failure, action = ("Ignore", "Warn") if name == "hushpod-workloads" else ("Fail", "Deny")
        equal(found["ValidatingAdmissionPolicy", name]["spec"]["failurePolicy"], failure, f"failurePolicy of {name}")
        binding = found["ValidatingAdmissionPolicyBinding", name]["spec"]
        equal(binding, {"policyName": name, "validationActions": [action]}, f"the binding of {name}")
    policy = found["ValidatingAdmissionPolicy", "hushpod-pods"]["spec"]
    equal(policy["matchConditions"], webhook["matchConditions"], "the policy's conditions, which are the webhook's")
    # Of one replica a budget would only keep its node from being drained.
    alone = set(rendered("--set", "replicaCount=1"))
    equal(set(found) - alone, {("PodDisruptionBudget", NAME)}, "what one replica lacks")


@test()
def pods_get_the_image_beside_the_webhooks(t):
    """The agent's image is of the webhook's repository, tag and pull policy, until it is said otherwise."""

    def injected(*values):
        found = rendered(*(word for value in values for word in ("--set", value)))
        (config,) = found["ConfigMap", "hushpod-config"]["data"].values()
        lines = [line.split(": ", 1) for line in config.splitlines() if line.startswith(("image:", "imagePullPolicy:"))]
        return webhook_pod(found)[1]["image"], *(text for _, text in sorted(lines))

    own = ["image.repository=r.example/hushpod", "image.tag=1.2"]
    for values, expected in (
        (["image.tag=1.2"], ("hushpod:1.2", "hushpod-agent:1.2", "IfNotPresent")),
        (own, ("r.example/hushpod:1.2", "r.example/hushpod-agent:1.2", "IfNotPresent")),
        (
            [*own, "agentImage.repository=x/agent", "agentImage.tag=1.3", "agentImage.pullPolicy=Always"],
            ("r.example/hushpod:1.2", "x/agent:1.3", "Always"),
        ),
        (
            [*own, f"agentImage.digest=sha256:{'0' * 64}", "image.pullPolicy=Never"],
            ("r.example/hushpod:1.2", f"r.example/hushpod-agent@sha256:{'0' * 64}", "Never"),
        ),
        ([*own, "config.image=mine/agent:9"], ("r.example/hushpod:1.2", "mine/agent:9", "IfNotPresent")),
    ):
        equal(injected(*values), expected, f"images of {values}")


@test()
def the_chart_before_kubernetes_1_30(t):
    """No match conditions and no policy there: a label says who asks. The webhook still fails closed."""
    for version in ("1.25.0", "1.29.9"):
        found = rendered(version=version)
        equal(set(found), OBJECTS | RBAC | ROLES, f"the chart's objects on {version}")
        (webhook,) = found[CONFIGURATION]["webhooks"]
        selector = {"matchLabels": {"hushpod.dev/inject": "true"}}
        fields = {"failurePolicy": "Fail", "objectSelector": selector, "matchConditions": None}
        equals(webhook, fields, f"the webhook on {version}")


@test()
def the_chart_with_certificates_of_others(t):
    """Of cert-manager or in the user's Secret: with the directory comes its volume, and the webhook has no right."""
    owned = ["--set", "tls.mode=secret,tls.secret.name=mine", "--set-string", f"tls.secret.ca={PEM}"]
    managed = {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/hushpod-webhook-tls"}
    for options, secret, annotations, authority in (
        (["--set", "tls.mode=certManager"], "hushpod-webhook-tls", managed, None),
        (owned, "mine", None, base64.b64encode(PEM.encode()).decode()),
    ):
        found = rendered(*options)
        spec, container = webhook_pod(found)
        contains(container["args"], [f"--tls-dir={TLS_DIRECTORY}"], "its arguments")
        mounts = {each["name"]: each for each in container["volumeMounts"]}
        equal(mounts["tls"], {"name": "tls", "mountPath": TLS_DIRECTORY, "readOnly": True}, "the mount")
        volumes = {each["name"]: each for each in spec["volumes"]}
        equal(volumes["tls"], {"name": "tls", "secret": {"secretName": secret}}, "the volume")
        equal(set(volumes), set(mounts), "volumes")
        # They make none of their own, and so tell nobody.
        check("--webhook-configuration" not in " ".join(container["args"]), "they write the caBundle all the same")
        equal(spec["automountServiceAccountToken"], False, "automountServiceAccountToken")
        made = {each for each in found if each[0] in ("Certificate", "Issuer")}
        equal(set(found) - made, OBJECTS | ROLES | POLICY, "the other objects")
        equal(found[CONFIGURATION]["metadata"].get("annotations"), annotations, "annotations of the configuration")
        (webhook,) = found[CONFIGURATION]["webhooks"]
        equal(webhook["clientConfig"].get("caBundle"), authority, "caBundle")
        if annotations:
            certificate = found["Certificate", secret]["spec"]
            equals(certificate, {"secretName": secret, "dnsNames": [f"{NAME}.{NAMESPACE}.svc"]}, "the Certificate")
            issuer = certificate["issuerRef"]
            authority = found[issuer["kind"], issuer["name"]]["spec"]["ca"]["secretName"]
            equal(found["Certificate", authority]["spec"]["isCA"], True, "isCA of the issuer's Certificate")
        else:
            equal(made, set(), "objects of cert-manager")


@test()
def p6_the_webhook_may_write_its_own_configuration_and_nothing_else(t):
    """No Secrets at all: one rule in the chart, and one for events of its own namespace; no more than that on the cluster.
    The roles for people are bound by nobody here."""
    found = rendered()
    roles = {each: found[each]["rules"] for each in set(found) - ROLES if each[0] in ("Role", "ClusterRole")}
    bound = {("ClusterRole", found[each]["roleRef"]["name"]) for each in found if each[0].endswith("RoleBinding")}
    equal(bound & ROLES, set(), "roles for people that the chart binds")
    rule = {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"],
        "resourceNames": ["hushpod"],
        "verbs": ["get", "list", "watch", "patch"],
    }
    events = {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}
    equal(roles, {("ClusterRole", NAME): [rule], ("Role", NAME): [events]}, "the chart's rules")
    for kind in ("ClusterRole", "Role"):
        binding = found[f"{kind}Binding", NAME]
        equal(binding["roleRef"], {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME}, "the role that is bound")
        equal(binding["subjects"], [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}], "to whom")

    def may(*question):
        result = run("kubectl", "auth", "can-i", *question, "--as", ACCOUNT, ok=False)
        check(result.stdout.split()[:1] in (["yes"], ["no"]), f"{question}: {result.stdout} {result.stderr}")
        return result.stdout.split()[0] == "yes"

    for verb in ("get", "list", "watch", "patch"):
        check(may(verb, f"{WEBHOOKS}/hushpod"), f"it may not {verb} its own configuration")
    for question in (
        *[[verb, "secrets", "-A"] for verb in ("get", "list", "watch", "create", "update", "patch", "delete")],
        *[[verb, "pods", "-A"] for verb in ("get", "list", "watch", "create", "update", "patch", "delete")],
        *[[verb, "configmaps", "-A"] for verb in ("get", "list", "watch", "create")],
        ["get", "secrets", "--namespace", NAMESPACE],
        ["get", "configmaps", "--namespace", NAMESPACE],
        ["create", "pods/exec", "-A"],
        ["create", "serviceaccounts/token", "-A"],
        ["list", "namespaces"],
        ["list", WEBHOOKS],
        ["create", WEBHOOKS],
        ["update", f"{WEBHOOKS}/hushpod"],
        ["delete", f"{WEBHOOKS}/hushpod"],
        ["patch", f"{WEBHOOKS}/other"],
        ["patch", "validatingadmissionpolicies.admissionregistration.k8s.io/hushpod-pods"],
        ["impersonate", "users"],
        ["*", "*"],
    ):
        check(not may(*question), f"it may {' '.join(question)}")

    # All that it may, beside what every account may.
    def rights(account, namespace):
        listed = kubectl("auth", "can-i", "--list", "--no-headers", "--namespace", namespace, "--as", account)
        return {" ".join(line.split()) for line in listed.splitlines()}

    own = {f"{WEBHOOKS} [] [hushpod] [get list watch patch]"}
    at_home = {"events.events.k8s.io [] [] [create patch]"}
    for namespace, more in ((NAMESPACE, at_home), ("kube-system", set()), ("default", set())):
        others = rights(f"system:serviceaccount:{NAMESPACE}:default", namespace)
        equal(rights(ACCOUNT, namespace) - others, own | more, f"rights in {namespace}")


CSI = "hushpod-csi"
CSI_OBJECTS = {
    ("CSIDriver", CSI_DRIVER),
    ("ConfigMap", "hushpod-csi-config"),
    ("DaemonSet", CSI),
    ("ServiceAccount", CSI),
    ("ClusterRole", CSI),
    ("ClusterRoleBinding", CSI),
    ("NetworkPolicy", CSI),
}


@test()
def the_chart_with_the_csi_driver(t):
    """One privileged container on each node, in a namespace of its own if it is given one; and nothing else is changed."""
    without = rendered()
    binding = ("RoleBinding", "hushpod-csi-privileged")
    for options, more, namespace in (
        ([], set(), NAMESPACE),
        (["csi.namespace=nodes"], {("Namespace", "nodes")}, "nodes"),
        (["csi.namespace=nodes", "csi.createNamespace=false"], set(), "nodes"),
        ([f"csi.namespace={NAMESPACE}"], set(), NAMESPACE),
        (["csi.openshift=true"], {binding}, NAMESPACE),
    ):
        found = rendered(*(word for each in ("csi.enabled=true", *options) for word in ("--set", each)))
        equal(set(found) - set(without), CSI_OBJECTS | more, f"objects with {options}")
        for each in CSI_OBJECTS - {("CSIDriver", CSI_DRIVER), ("ClusterRole", CSI), ("ClusterRoleBinding", CSI)}:
            equal(found[each]["metadata"]["namespace"], namespace, f"namespace of {each} with {options}")
        (subject,) = found["ClusterRoleBinding", CSI]["subjects"]
        equal(subject, {"kind": "ServiceAccount", "name": CSI, "namespace": namespace}, "who has the role")
        (config,) = found["ConfigMap", "hushpod-csi-config"]["data"].values()
        equal(found["ConfigMap", "hushpod-config"]["data"], {"config.yaml": config}, "the webhook's configuration")
        contains(config, f"csi:\n  daemonSet: {namespace}/{CSI}", "the configuration")
        if ("Namespace", "nodes") in found:
            labels = found["Namespace", "nodes"]["metadata"]["labels"]
            equal(labels["pod-security.kubernetes.io/enforce"], "privileged", "Pod Security of the namespace")
    for value in ("false", "true"):
        options = ("csi.enabled=true", f"csi.startupTaint={value}")
        of_it = rendered(*(word for each in options for word in ("--set", each)))
        patches = [each for each in of_it["ClusterRole", CSI]["rules"] if "nodes" in each["resources"]]
        expected = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]}] if value == "true" else []
        equal(patches, expected, f"rights on nodes with {options}")
        (arguments,) = (each["args"] for each in of_it["DaemonSet", CSI]["spec"]["template"]["spec"]["containers"])
        equal("--startup-taint" in arguments, value == "true", f"the driver's argument with {options}")
    spec = found["DaemonSet", CSI]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    equal(spec["tolerations"], [{"operator": "Exists"}], "tolerations")
    equals(spec, {"hostNetwork": None, "hostPID": None, "hostIPC": None, "initContainers": None}, "the pod")
    equal(container["securityContext"]["privileged"], True, "privileged")
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    root = "/var/lib/kubelet"
    equals(mounts["kubelet"], {"mountPath": root, "mountPropagation": "Bidirectional"}, "the mount of kubelet's root")
    volumes = {each["name"]: each for each in spec["volumes"]}
    equal(volumes["kubelet"]["hostPath"], {"path": root, "type": "Directory"}, "kubelet's root")
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness")}
    equal(paths, {"readiness": "/readyz", "liveness": "/healthz"}, "probes")


@test()
def p6_the_driver_may_list_pods_and_write_events_and_nothing_else(t):
    """No Secrets, and no tokens but those that kubelet hands it."""
    account = f"system:serviceaccount:{CSI_NAMESPACE}:{CSI}"

    def rights(account, namespace):
        listed = kubectl("auth", "can-i", "--list", "--no-headers", "--namespace", namespace, "--as", account)
        return {" ".join(line.split()) for line in listed.splitlines()}

    own = {"pods [] [] [list watch]", "events.events.k8s.io [] [] [create patch]"}
    for namespace in (NAMESPACE, CSI_NAMESPACE, "kube-system", "default"):
        others = rights(f"system:serviceaccount:{CSI_NAMESPACE}:default", namespace)
        equal(rights(account, namespace) - others, own, f"rights in {namespace}")


@test()
def the_chart_says_how_to_go_on(t):
    """Its notes: that there is no provider, or else what to write, by the names that are configured."""
    bare = ["upgrade", RELEASE, CHART, "--namespace", NAMESPACE, "--reset-values", "--dry-run=client", "--output=json"]
    bare += ["--set", "image.repository=hushpod"]
    contains(json.loads(run("helm", *bare))["info"]["notes"], ["no provider yet", "config.providers"], "the notes")
    notes = run("helm", "get", "notes", RELEASE, "--namespace", NAMESPACE)
    contains(notes, ["Providers: ", "vault is meant", "hushpod.dev/file.password", "rollout status", "delete the pods with its volumes"], "the notes")
    for absent in ("no provider yet", "older than Kubernetes 1.30"):
        check(absent not in notes, f"the notes say {absent!r}")
    # What they show to write is admitted.
    t.open()
    (line,) = [line for line in notes.splitlines() if "hushpod.dev/file.password" in line]
    t.create(pod("app", {"file.password": line.split('"')[1]}), dry_run=True)


@test(when=LAST)
def helm_upgrade_keeps_the_authorities(t):
    """An upgrade that changes the configuration does not reset `caBundle`: pods are admitted at every moment, and soon
    by the new configuration.

    The replicas put their own authorities back at once, so nobody would miss those; but nobody puts back what a
    stranger wrote."""
    t.open()
    wanted = {"file.x": t.secret(x=canary()) + "#x"}
    product = t.suite.product
    config = product.values()["config"]
    config["providers"]["added"] = config["providers"]["vault"]
    added = pod("app", {"file.x": f"added:secret/data/{t.namespace}/app#x"})
    t.refused(added, "added")
    foreign = foreign_authority()
    product.rewrite(bundled(lambda text: text + foreign))
    before = certificates(product.authorities())
    check(certificates(foreign) < before, "the foreign authority is not among ours")
    try:
        with meanwhile(lambda _: t.create(pod("app", wanted), dry_run=True)) as outcomes:
            # The other timeout makes helm write the webhook configuration itself.
            product.install(config=config, webhook={"timeoutSeconds": 4})
            equal([each["timeoutSeconds"] for each in product.configuration()["webhooks"]], [4], "timeouts")
            equal(before - certificates(product.authorities()), set(), "authorities that the upgrade took away")
            product.look()
            wait("the new configuration to be in force", 120, lambda: t.create(added, dry_run=True))
        failures = list(filter(None, outcomes))
        equal(failures[:3], [], f"{len(failures)} failures of {len(outcomes)} pods")
        check(len(outcomes) > 10, f"only {len(outcomes)} pods were created meanwhile")
    finally:
        product.rewrite(bundled(lambda text: text.replace(foreign.strip(), "")))
    equal(certificates(foreign) & certificates(product.authorities()), set(), "foreign authorities at the end")
    product.install()


@test(when=LAST)
def helm_uninstall_leaves_nothing(t):
    """No object of ours remains, no webhook in particular: an annotated pod is admitted as it is."""
    if t.suite.options.keep:
        return
    t.open()
    check(remains(), "this looks for the wrong things: nothing is there before either")
    t.suite.product.uninstall()
    wait("everything to be gone", 30, lambda: not remains() or check(False, f"still there: {sorted(remains())}"))
    made = t.create(pod("app", {"file.x": "secret/data/app#x"}), dry_run=True)
    equal("initContainers" in made["spec"], False, "injection after uninstall")
