"""A store for agents that run as processes, and what the agents of a patched pod are told."""

import base64
import json
import os
import ssl
import subprocess
import time

from suite.base import check
from suite.stores import Moto
from suite.vault import Vault

from .bench import ROOT, Skipped
from .fixtures import pod, review

NAMESPACE = "shop"


class Told:
    """A process that is told on its standard input what its stores hold, a line each, and answers with one."""

    def answer(self):
        line = self.process.process.stdout.readline()
        if not line:
            self.process.process.wait()
            self.process.check()
        return json.loads(line)

    def send(self, line):
        self.process.process.stdin.write(line.encode() + b"\n")
        self.process.process.stdin.flush()
        return self.answer()


class Store(Told, Vault):
    """The test suite's own Vault, in a process of its own, with a login for the service account `web`."""

    def __init__(self, bench):
        ca = bench.directory / "store-ca.pem"
        self.process = bench.spawn(
            "store", bench.tools, "store", "--ca", ca, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        served = self.answer()
        self.address, self.token, self.ca = served["address"], served["token"], ca.read_text()
        self.tls = ssl.create_default_context(cadata=self.ca)
        paths = {f"secret/{area}/*": {"capabilities": ["read"]} for area in ("data", "metadata")}
        self.write("sys/mounts/secret", type="kv", options={"version": "2"})
        self.write("sys/policies/acl/web", policy=json.dumps({"path": paths}))
        self.write("sys/auth/kubernetes", type="kubernetes")
        self.write("auth/kubernetes/config", kubernetes_host="https://127.0.0.1")
        role = {"bound_service_account_names": ["web"], "bound_service_account_namespaces": [NAMESPACE]}
        self.write("auth/kubernetes/role/web", audience="vault", token_policies=["web"], token_ttl="1h", **role)

    def provider(self, refresh):
        return {"type": "vault", "address": self.address, "ca": self.ca, "role": "web", "refresh": refresh}


class Infisical(Told):
    """The test suite's own Infisical, in a process of its own, that pushes its changes."""

    def __init__(self, bench):
        ca, keys = bench.directory / "infisical-ca.pem", bench.directory / "no-keys.json"
        keys.write_text("{}")
        arguments = ["store", "--ca", ca, "--infisical", keys, "--listen", "127.0.0.1:0"]
        self.process = bench.spawn(
            "infisical", bench.tools, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.address, self.ca = self.answer()["address"], ca.read_text()
        self.token = bench.directory / "infisical-token"
        self.token.write_text(self.tell(identity="web", namespace=NAMESPACE)["token"])

    def tell(self, **line):
        return self.send(json.dumps(line))

    def provider(self):
        return {
            "type": "infisical",
            "address": self.address,
            "ca": self.ca,
            "project": "5f1d3a70-0b52-4c5e-9b0a-3f4e1d2c7a11",
            "environment": "prod",
            "events": True,
            "auth": {"method": "token", "tokenFile": str(self.token)},
        }


class Clouds(Told):
    """The test suite's own Azure Key Vault and Google Secret Manager in one process: what a provider of each, its role
    and a pod's token have to be; and `count` secrets of one value."""

    def __init__(self, bench, count):
        arguments = ["store", "--clouds", str(count)]
        self.process = bench.spawn("clouds", bench.tools, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        pods = self.answer()
        self.tokens = {name: pod.pop("token") for name, pod in pods.items()}
        self.providers = {name: {"type": name, **pod.pop("settings"), **pod} for name, pod in pods.items()}

    def put(self, value):
        self.send(value)


class Amazon:
    """moto, which the cluster's scripts start, with `count` secrets and as many parameters of one value."""

    def __init__(self, count):
        if "MOTO_ENDPOINT" not in os.environ:
            raise Skipped('no moto: eval "$(tests/cluster/moto up)"')
        self.moto = Moto()
        self.count = count
        settings = {**self.moto.settings(), "endpoint": self.moto.endpoint, "stsEndpoint": self.moto.endpoint}
        self.providers = {"aws": settings, "ssm": {**settings, "type": "ssm"}}
        self.tokens = {name: projected_token("sts.amazonaws.com") for name in self.providers}

    def put(self, value):
        for number in range(self.count):
            self.moto.put(f"bench-{number}", value)
            self.moto.put_parameter(f"bench-{number}", value)


def projected_token(audience="vault"):
    """Shaped as the cluster's are; this store does not look at signatures."""
    claims = {
        "aud": [audience],
        "exp": int(time.time()) + 3600,
        "kubernetes.io": {"namespace": NAMESPACE, "serviceaccount": {"name": "web"}},
    }

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}.{part('none')}"


class Agent:
    """The injected container of a pod as a process, with directories in memory for its volumes."""

    def __init__(self, bench, name, contender, annotations, container_name="hushpod", tokens=None, under=()):
        """`contender` is a webhook of ours whose configuration has what the annotations ask for; `tokens` are those of
        providers that Vault's is not good for, `under` a program that runs it."""
        contender.request = bench.directory / f"{name}.request"
        contender.request.write_text(review(pod(annotations)))
        answer = json.loads(contender.answer(bench).read_text())
        patch = json.loads(base64.b64decode(answer["response"]["patch"]))
        container = next(
            each
            for operation in patch
            for each in (operation["value"] if isinstance(operation.get("value"), list) else [operation.get("value")])
            if isinstance(each, dict) and each.get("name") == container_name
        )
        check(container["command"] == ["/hushpod-agent"], f"the injected command is {container['command']}")
        self.directory = bench.directory / name
        arguments = []
        for volume in ("volume", "state", "controls", "tokens"):
            (self.directory / volume).mkdir(parents=True)
            arguments += [f"--{volume}", self.directory / volume]
        for provider in {value.partition(":")[0] for value in annotations.values() if ":" in value}:
            (self.directory / "tokens" / provider).write_text((tokens or {}).get(provider) or projected_token())
        (self.directory / "controls/annotations").write_text("")
        self.live = self.directory / "volume/live"
        self.process = bench.spawn(
            name,
            *under,
            bench.binaries / "hushpod-agent",
            *container["args"],
            *arguments,
            "--termination-log",
            self.directory / "termination-log",
            # As injected, and nothing else; kubelet would tell who the pod is.
            env={each["name"]: each.get("value", name) for each in container["env"]},
            cwd=ROOT,
        )

    def read(self, file):
        try:
            return (self.live / file).read_bytes()
        except FileNotFoundError:
            return None
