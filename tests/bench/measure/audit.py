"""What Vault was asked, by Vault's own account."""

import datetime
import json


class Audit:
    """An audit device, as long as it is open."""

    PATH = "sys/audit/hushpod-bench"

    def __init__(self, vault, directory):
        self.vault = vault
        self.file = directory / "audit.log"
        vault.call("PUT", self.PATH, {"type": "file", "options": {"file_path": str(self.file)}})
        self.read = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.vault.delete(self.PATH)

    def answers(self):
        """The answers since the last call: when (seconds of Unix time), to whose login, what was asked, and of which version
        the secret was."""
        found = []
        with open(self.file, encoding="utf-8") as file:
            file.seek(self.read)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                self.read = file.tell()
                entry = json.loads(line)
                if entry["type"] == "response":
                    found.append(answer(entry))
        return found


def answer(entry):
    response = entry.get("response") or {}
    auth = entry.get("auth") or {}
    # Of a login, only the answer says whose it is.
    role = ((response.get("auth") or auth).get("metadata") or auth.get("metadata") or {}).get("role")
    metadata = (response.get("data") or {}).get("metadata") or {}
    return {
        "time": seconds(entry["time"]),
        "role": role,
        "path": entry["request"]["path"],
        "version": metadata.get("version"),
    }


def seconds(text):
    """Of RFC 3339 with nanoseconds, in UTC."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    start = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC).timestamp()
    return start + float(f"0.{fraction or 0}")
