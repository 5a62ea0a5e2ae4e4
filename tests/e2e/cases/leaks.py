"""Where no secret may be: etcd's raw files, the API, logs and metrics. These run after the other tests: whatever those
delivered must not be found either."""

import base64
import re

from suite import keys
from suite.base import check, equal, run, wait
from suite.cluster import kubectl
from suite.runner import LAST, test
from suite.scan import Needles, base64_forms, forms
from suite.space import FOREVER, PSQL, canary, pod

CONTROL = "the control"


def deliver(t):
    """Secrets of every kind on their ways: read, rotated, leased, handed over. Returns what to look for."""
    t.open()
    wanted = {"refresh": "1s", "dir.db": t.database()}
    names = {"one": "sidecar", "two": "init+sidecar", "three": "csi"}
    for name, mode in names.items():
        reference = t.secret(path=name, password=canary(), other=canary())
        more = "\n".join(f'- {{file: all.{end}, from: "{reference}", format: {end}}}' for end in ("json", "dotenv"))
        t.create(
            pod(name, {**wanted, "mode": mode, "file.password": f"{reference}#password", "secrets": more}, image=PSQL)
        )
    # One that is refused, with a value in the answer that refuses it.
    many = t.secret(path="many", one=canary(), two=canary())
    t.create(pod("refused", {"file.x": many}))
    t.create(pod("refused-csi", {"file.x": many, "mode": "csi"}))
    for name in names:
        t.ready(name)
    t.terminated("refused", "hushpod")
    t.event("refused-csi", "FailedMount", "secret/data")
    for name in names:
        t.suite.canaries[t.file(name, "/secrets/db/password")] = f"{t.title} {name} leased password"
        value = canary()
        t.secret(path=name, password=value, other=canary())
        t.sees(name, "/secrets/password", value)
    for lease in t.leases():
        t.suite.canaries[lease] = f"{t.title} lease"
    kinds = t.harvest()
    expected = {"login token", "projected token", "driver's login token"}
    check(expected <= kinds, f"found only {kinds} in the agents and the driver")
    needles = Needles()
    for value, name in t.suite.canaries.items():
        needles.add(value, name)
    return needles


def private_keys(t, needles):
    """The private keys of the webhooks, from their processes' memory; and the mark of any private key."""
    for each in t.suite.product.pods():
        name = each["metadata"]["name"]
        held = {}
        for status in each["status"]["containerStatuses"]:
            held |= keys.in_memory_of(t.node.pid(status))
        # Whichever answers.
        check(keys.shown_by(each["status"]["podIP"], 10250) in held, f"the key of {name} is not found in its own memory")
        for key in held.values():
            needles.add(key, f"private key of {name}")
    needles.add("PRIVATE KEY-----", "a PEM private key")


@test(when=LAST, node=True)
def p1_no_secret_in_etcd(t):
    """Every value, token, lease and private key of this run, in every encoding: not in etcd's raw files, and not in
    what the API shows. The same look finds an ordinary Secret, and each encoding of it."""
    needles = deliver(t)
    private_keys(t, needles)
    control = canary()
    needles.add(control, CONTROL)
    etcd = t.node.script("etcd-dir").strip()
    equal(needles.found_in(etcd).get(CONTROL), None, "the control before it is there")
    t.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "control"}, "stringData": {"key": control}})
    wait("the control to be in etcd", 20, lambda: CONTROL in needles.found_in(etcd))
    found = needles.found_in(etcd)
    found.pop(CONTROL)
    equal(found, {}, f"secrets in {etcd}")

    # Each encoding by itself, or the look would prove little.
    for number, form in enumerate(sorted(forms(control.encode()[::-1]))):
        name = f"form-{number}"
        single = Needles()
        single.names[form] = name
        data = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"key": f"x{form.decode()}y"},
        }
        t.create(data)
        wait(f"form {number} of the control to be found", 20, lambda: single.found_in(etcd))
    for before in range(3):
        text = base64.b64encode(b"." * before + control.encode() + b"...")
        check(any(form in text for form in base64_forms(control.encode())), f"base64 at alignment {before} goes unseen")

    kinds = ",".join(run("kubectl", "api-resources", "--verbs=list", "-o", "name").split())
    seen = needles.found_in_text(kubectl("get", kinds, "-A", "-o", "yaml", seconds=120))
    check(CONTROL in seen, "kubectl get does not show the control")
    equal(seen - {CONTROL}, set(), "secrets in what the API shows")


@test(when=LAST, node=True)
def p5_no_secret_in_logs_and_metrics(t):
    """The logs of every container of this run, kubelet's and the API server's, and the webhooks' metrics. The same
    look finds what an application logs."""
    needles = deliver(t)
    private_keys(t, needles)
    control = canary()
    needles.add(control, CONTROL)
    t.start(pod("talker", command=f"echo {control}; {FOREVER}"))
    t.suite.keep_logs()
    logs = t.node.state / "log"
    found = needles.found_in(t.suite.kept_logs, logs / "pods", logs / "kubelet.log", logs / "kube-apiserver.log")
    check(found.pop(CONTROL, None), "the control is not found in the logs")
    equal(found, {}, "secrets in logs")
    files = [path.name for path in t.suite.kept_logs.rglob("*.log.*")]
    check(len(files) >= 6, f"only {len(files)} logs were kept")
    _, text = t.suite.product.metrics()
    check("hushpod_" in text, "no metrics")
    equal(needles.found_in_text(text), set(), "secrets in metrics")
    text = t.suite.product.driver_metrics()
    check("hushpod_csi_" in text, "no metrics of the driver")
    equal(needles.found_in_text(text), set(), "secrets in the driver's metrics")


@test(when=LAST)
def p1_the_webhook_configuration_holds_certificates_alone(t):
    """`caBundle`: one authority per process, no key; and no Secret in the release's namespace but helm's own."""
    text = t.suite.product.authorities()
    labels = set(re.findall(r"-----BEGIN ([A-Z ]+)-----", text))
    equal(labels, {"CERTIFICATE"}, "what stands in caBundle")
    product = t.suite.product
    processes = sum(len(product.processes(each)) for each in product.pods())
    check(text.count("BEGIN CERTIFICATE") >= processes, f"fewer authorities than the {processes} processes")
    secrets = {each["type"] for each in t.api.list("Secret", "hushpod")}
    equal(secrets - {"helm.sh/release.v1"}, set(), "types of Secrets in the release's namespace")
