"""Stores beside Vault, as their administrators: moto for AWS, and Infisical's published protocol as a server."""

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from .base import Failed, check, run

ROOT = Path(__file__).resolve().parents[3]
REGION = "eu-west-1"
STS = "sts.amazonaws.com"


class Moto:
    """Secrets Manager, and STS, which looks at the cluster's tokens. Signatures of requests are looked at elsewhere."""

    def __init__(self):
        self.endpoint = os.environ["MOTO_ENDPOINT"]
        with open(os.environ["MOTO_CACERT"], encoding="ascii") as file:
            self.ca = file.read()
        self.tls = ssl.create_default_context(cadata=self.ca)

    def call(self, action, service="secretsmanager", **fields):
        scope = f"20260101/{REGION}/{service}/aws4_request"
        target = {"secretsmanager": "secretsmanager", "ssm": "AmazonSSM"}[service]
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"{target}.{action}",
            "Authorization": f"AWS4-HMAC-SHA256 Credential=e2e/{scope}, SignedHeaders=host, Signature=0",
        }
        request = urllib.request.Request(self.endpoint, json.dumps(fields).encode(), headers)
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Failed(f"moto: {action}: {error.code} {error.read().decode(errors='replace')}") from None

    def put(self, name, text):
        try:
            self.call("PutSecretValue", SecretId=name, SecretString=text)
        except Failed:
            self.call("CreateSecret", Name=name, SecretString=text)

    def put_parameter(self, name, text):
        self.call("PutParameter", "ssm", Name=name, Value=text, Type="SecureString", Overwrite=True)

    def logs_in(self, role, jwt):
        """Whether a token is good for a role."""
        fields = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleSessionName": "e2e"}
        fields |= {"RoleArn": f"arn:aws:iam::123456789012:role/{role}", "WebIdentityToken": jwt}
        request = urllib.request.Request(self.endpoint, urllib.parse.urlencode(fields).encode(), {"Host": STS})
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
                return b"SessionToken" in answer.read()
        except urllib.error.HTTPError as error:
            answer = error.read().decode(errors="replace")
            check("InvalidIdentityToken" in answer or "AccessDenied" in answer, f"STS: {error.code} {answer}")
            return False

    def settings(self):
        return {
            "type": "aws",
            "region": REGION,
            "endpoint": "https://aws.moto.svc:5443",
            "stsEndpoint": "https://aws.moto.svc:5443",
            "ca": self.ca,
            "role": "arn:aws:iam::123456789012:role/{{namespace}}-{{service_account}}",
        }


class Infisical:
    """A process that holds what it is told, for pods whose tokens the cluster signed."""

    def __init__(self, directory, host, say):
        say("building Infisical's server of the tests (hushpod-bench store)")
        command = ["cargo", "build", "--quiet", "--locked", "--features", "bench", "--bin", "hushpod-bench"]
        built = run(*command, "--message-format=json", "--manifest-path", ROOT / "Cargo.toml", seconds=1800)
        programs = [line["executable"] for line in map(json.loads, built.splitlines()) if line.get("executable")]
        check(programs, "cargo made no hushpod-bench")
        keys = Path(directory) / "jwks.json"
        keys.write_text(run("kubectl", "get", "--raw", "/openid/v1/jwks"), encoding="ascii")
        ca = Path(directory) / "infisical-ca.crt"
        arguments = ["store", "--infisical", keys, "--listen", f"{host}:0", "--ca", ca]
        self.process = subprocess.Popen(
            [programs[-1], *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = json.loads(self.answer())["address"]
        self.ca = ca.read_text(encoding="ascii")
        self.tls = ssl.create_default_context(cadata=self.ca)

    def answer(self):
        line = self.process.stdout.readline()
        check(line, "Infisical's server has ended")
        return line

    def tell(self, **line):
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        self.answer()

    def put(self, path, key, value):
        self.tell(path=path, key=key, value=value)

    def identity(self, name, namespace, *accounts):
        self.tell(identity=name, namespace=namespace, names=accounts)

    def logs_in(self, identity, jwt):
        """Whether a token is good for a login."""
        body = json.dumps({"identityId": identity, "jwt": jwt}).encode()
        url = f"{self.address}/api/v1/auth/kubernetes-auth/login"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
                return "accessToken" in json.load(answer)
        except urllib.error.HTTPError as error:
            check(error.code == 401, f"Infisical: {error.code}")
            return False

    def settings(self):
        return {
            "type": "infisical",
            "address": self.address,
            "ca": self.ca,
            "project": "5f1d3a70-0b52-4c5e-9b0a-3f4e1d2c7a11",
            "environment": "prod",
            "role": "{{namespace}}-{{service_account}}",
        }

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def logs_in_to_vault(vault, role, jwt):
    """Whether a token is good for a login at Vault."""
    try:
        vault.write("auth/kubernetes/login", role=role, jwt=jwt)
        return True
    except Failed as refusal:
        check(": 403 " in str(refusal) or ": 400 " in str(refusal), str(refusal))
        return False
