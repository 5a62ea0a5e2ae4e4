"""Admission: our webhook, the floor under it, and vault-k8s, in turns."""

import base64
import json
import os
import time

from suite.base import Failed, run
from suite.cluster import CLUSTER_SCRIPTS, kubectl

from . import fixtures
from .bench import Skipped, free_port, median

CONNECTIONS = (1, 8)
ROUNDS = 7
SECONDS = 1.5
NAMESPACE = "hushpod-bench"
VAULT_K8S = "vault-k8s 1.6.2"
# Ours, with nothing to remember.
UNLIKE = "hushpod, no two pods of one template"

# In each line of our log about a pod: the audit's.
INJECTED = '"event":"admission","outcome":"allowed"'

CONFIG = """\
image: registry.example/hushpod:0.1.0
defaultProvider: vault
providers:
  vault: {type: vault, address: "https://vault.example:8200", role: "{{service_account}}"}
"""

# What its chart gives it, without the right to change webhooks.
RIGHTS = f"""\
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: vault-k8s, namespace: {NAMESPACE}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {NAMESPACE}}}
rules:
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations]
  verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {NAMESPACE}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {NAMESPACE}}}
subjects:
- {{kind: ServiceAccount, name: vault-k8s, namespace: {NAMESPACE}}}
"""

# In-cluster settings are found in one place only: a /run of its own has it, and goes with the process.
IN_CLUSTER = """\
mount -t tmpfs none /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp "$0/ca.crt" "$0/token" /run/secrets/kubernetes.io/serviceaccount/
exec "$@"
"""


class Contender:
    def __init__(self, name, process, port, request, *flags):
        self.name = name
        self.process = process
        self.port = port
        self.request = request
        self.flags = flags
        self.rounds = {connections: [] for connections in CONNECTIONS}
        self.requests = 0

    def load(self, bench, cpu, *arguments):
        address = ["--address", f"127.0.0.1:{self.port}", "--ca", bench.tls_directory() / "tls.crt"]
        return bench.tool("load", *address, "--request", self.request, *self.flags, *arguments, cpu=cpu)

    def answer(self, bench):
        """Waits until it answers, and returns the file with the answer."""
        file = bench.directory / f"{self.process.name}.json"
        end = time.monotonic() + 20
        while True:
            try:
                self.load(bench, None, "--save", file)
                return file
            except Failed as error:
                self.process.check()
                if time.monotonic() > end:
                    raise Failed(f"{self.name}: {error}") from None
            time.sleep(0.1)

    def round(self, bench, cpu, connections, seconds):
        before = self.process.cpu_seconds()
        # With a CPU of its own the load may keep it.
        busy = ["--busy"] if cpu is not None else []
        result = self.load(bench, cpu, "--connections", connections, "--seconds", seconds, *busy)
        result["cpu_us"] = (self.process.cpu_seconds() - before) / result["requests"] * 1e6
        self.requests += result["requests"]
        return result

    def check_log(self):
        """Every pod stands in our log: a server that drops lines would be faster than it is."""
        end = time.monotonic() + 10
        while True:
            lines = int(run("grep", "--count", INJECTED, self.process.log, ok=False).stdout)
            if lines >= self.requests:
                return
            if time.monotonic() > end:
                raise Failed(f"{self.name} logged {lines} of {self.requests} pods")
            time.sleep(0.2)

    def median(self, connections, field):
        return median([each[field] for each in self.rounds[connections]])


def measure(bench):
    # One CPU for the server and one for the load, so neither slows the other down.
    cpus = sorted(os.sched_getaffinity(0))
    load_cpu, server_cpu = (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)
    ours = hushpod(bench, server_cpu, "hushpod", fixtures.OURS)
    unlike = hushpod(bench, server_cpu, UNLIKE, fixtures.UNLIKE)
    contenders = [ours, unlike, floor(bench, server_cpu, ours.answer(bench))]
    try:
        contenders.append(vault_k8s(bench, server_cpu))
    except Skipped as reason:
        bench.report.note(f"admission: without vault-k8s: {reason}")
    try:
        for contender in contenders:
            contender.answer(bench)
            contender.load(bench, load_cpu, "--connections", "8", "--seconds", "0.5")
        for number in range(ROUNDS):
            for connections in CONNECTIONS:
                for contender in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
                    result = contender.round(bench, load_cpu, connections, SECONDS)
                    contender.rounds[connections].append(result)
        for contender in (ours, unlike):
            contender.check_log()
        show(bench, contenders)
    finally:
        for contender in contenders:
            contender.process.end()
        if VAULT_K8S in [contender.name for contender in contenders]:
            withdraw()


def request(bench, name, annotations):
    file = bench.directory / f"{name}.request"
    file.write_text(fixtures.review(fixtures.pod(annotations)))
    return file


def start_webhook(bench, name, config, cpu=None):
    """Our webhook with a configuration of this text; its process and port."""
    directory = bench.directory / name
    directory.mkdir()
    (directory / "config.yaml").write_text(config)
    port = free_port()
    command = [bench.binaries / "hushpod", "webhook", "--config", directory / "config.yaml"]
    command += ["--tls-dir", bench.tls_directory(), "--listen", f"127.0.0.1:{port}"]
    command += ["--admin-listen", f"127.0.0.1:{free_port()}"]
    environment = {"POD_NAME": "bench", "POD_NAMESPACE": "bench", "HUSHPOD_LOG": "info", "HUSHPOD_LOG_FORMAT": "json"}
    return bench.spawn(f"{name}-webhook", *command, cpu=cpu, env={**os.environ, **environment}), port


def hushpod(bench, cpu, name, annotations):
    file = name.replace(",", "").replace(" ", "-")
    process, port = start_webhook(bench, file, CONFIG, cpu)
    return Contender(name, process, port, request(bench, file, annotations))


def floor(bench, cpu, answer):
    port = free_port()
    command = [bench.tools, "floor", "--tls-dir", bench.tls_directory(), "--listen", f"127.0.0.1:{port}"]
    process = bench.spawn("floor", *command, "--admin-listen", f"127.0.0.1:{free_port()}", "--answer", answer, cpu=cpu)
    return Contender("floor (constant answer)", process, port, request(bench, "floor", fixtures.OURS), "--same-uid")


def vault_k8s(bench, cpu):
    process, port = start_injector(bench, cpu)
    return Contender(VAULT_K8S, process, port, request(bench, "vault-k8s", fixtures.VAULT_K8S))


def start_injector(bench, cpu=None):
    """vault-k8s on a port of this machine, as the process and that port."""
    bench.cluster()
    program = run(CLUSTER_SCRIPTS / "build", "vault-k8s", seconds=3600).split()[-1] + "/vault-k8s"
    kubectl("apply", "-f", "-", stdin=RIGHTS)
    account = bench.directory / "account"
    account.mkdir(exist_ok=True)
    (account / "token").write_text(kubectl("create", "token", "vault-k8s", "--namespace", NAMESPACE).strip())
    cluster = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))["clusters"][0]["cluster"]
    if "certificate-authority-data" in cluster:
        (account / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    else:
        (account / "ca.crt").write_bytes(open(cluster["certificate-authority"], "rb").read())
    host, _, api_port = cluster["server"].removeprefix("https://").partition(":")
    port = free_port()
    environment = {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": api_port or "443",
        "NAMESPACE": NAMESPACE,
        "AGENT_INJECT_LISTEN": f"127.0.0.1:{port}",
        "AGENT_INJECT_VAULT_ADDR": "https://vault.example:8200",
        "AGENT_INJECT_TLS_CERT_FILE": f"{bench.tls_directory()}/tls.crt",
        "AGENT_INJECT_TLS_KEY_FILE": f"{bench.tls_directory()}/tls.key",
        "AGENT_INJECT_LOG_LEVEL": "info",
    }
    command = ["unshare", "--mount", "sh", "-euc", IN_CLUSTER, account, program, "agent-inject"]
    process = bench.spawn("vault-k8s", *command, cpu=cpu, env={**os.environ, **environment})
    return process, port


def withdraw():
    for kind, name in (("namespace", NAMESPACE), ("clusterrole", NAMESPACE), ("clusterrolebinding", NAMESPACE)):
        kubectl("delete", kind, name, "--ignore-not-found", "--wait=true")


def show(bench, contenders):
    head = ["admission", "connections", "requests/s", "p50", "p99", "CPU per request", "RSS"]
    rows, raw = [], {}
    for connections in CONNECTIONS:
        for contender in contenders:
            memory = contender.process.memory()
            value = {
                field: contender.median(connections, field)
                for field in ("requests_per_second", "p50_us", "p99_us", "cpu_us")
            }
            raw.setdefault(contender.name, {})[f"{connections} connections"] = value
            raw[contender.name]["memory_kib"] = memory
            rows.append(
                [
                    contender.name,
                    str(connections),
                    f"{value['requests_per_second']:,.0f}",
                    milliseconds(value["p50_us"]),
                    milliseconds(value["p99_us"]),
                    f"{value['cpu_us']:,.0f} µs",
                    f"{memory['rss'] / 1024:.1f} MiB",
                ]
            )
    bench.report.table("admission", head, rows, raw)
    if VAULT_K8S not in raw:
        return
    at_eight = {name: each["8 connections"] for name, each in raw.items()}
    theirs, figure = at_eight[VAULT_K8S], bench.report.figure
    for name, key, of, throughput, latency in [
        ("hushpod", "admission", "", (">=", 10), ("<=", 0.1)),
        (UNLIKE, "admission_unlike", ", no two pods of one template", None, None),
    ]:
        times = at_eight[name]["requests_per_second"] / theirs["requests_per_second"]
        figure(f"{key}_throughput", f"admission, 8 connections{of}: requests/s, times {VAULT_K8S}'s", times, "×", throughput)
        part = at_eight[name]["p99_us"] / theirs["p99_us"]
        figure(f"{key}_p99", f"admission, 8 connections{of}: p99, as a part of {VAULT_K8S}'s", part, "", latency)


def milliseconds(microseconds):
    return f"{microseconds / 1000:.2f} ms"
