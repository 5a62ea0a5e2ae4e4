"""Vault, as its administrator."""

import json
import os
import ssl
import urllib.error
import urllib.request

from .base import Failed


class Vault:
    def __init__(self):
        self.address = os.environ["VAULT_ADDR"]
        self.token = os.environ["VAULT_TOKEN"]
        with open(os.environ["VAULT_CACERT"], encoding="ascii") as file:
            self.ca = file.read()
        self.tls = ssl.create_default_context(cadata=self.ca)

    def call(self, method, path, body=None, missing=None):
        request = urllib.request.Request(
            f"{self.address}/v1/{path}",
            json.dumps(body).encode() if body is not None else None,
            {"X-Vault-Token": self.token},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
                text = answer.read()
                return json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return missing
            raise Failed(f"Vault: {method} {path}: {error.code} {error.read().decode(errors='replace')}") from None
        except OSError as error:
            raise Failed(f"Vault: {method} {path}: {error}") from None

    def read(self, path):
        answer = self.call("GET", path)
        return answer and answer["data"]

    def write(self, path, **fields):
        return self.call("POST", path, fields).get("data")

    def delete(self, path):
        self.call("DELETE", path)

    def list(self, path):
        answer = self.call("LIST", path)
        return answer["data"]["keys"] if answer else []

    def leases(self, path):
        """The ids of what is now leased under `path`."""
        return set(self.list(f"sys/leases/lookup/{path}"))

    def logins(self, role):
        """The accessors of the tokens that the Kubernetes auth method issued to `role` and that still live."""
        found = set()
        for accessor in self.list("auth/token/accessors"):
            try:
                token = self.call("POST", "auth/token/lookup-accessor", {"accessor": accessor})
            except Failed:
                continue  # expired since it was listed
            if ((token or {}).get("data", {}).get("meta") or {}).get("role") == role:
                found.add(accessor)
        return found
