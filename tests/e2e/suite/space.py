"""One test's room: a namespace, a role at Vault, and what tests do in them."""

import base64
import copy
import re
import secrets

from .base import Failed, check, equal, run, wait
from .cluster import kubectl

PREFIX = "hushpod.dev/"
BUSYBOX = "localhost/hushpod-test/busybox:latest"
PSQL = "localhost/hushpod-test/psql:latest"
UID = 1000

FOREVER = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"

# Programs of tests, in the ConfigMap `programs`. A script's process is named after its file.
PROGRAMS = {
    # Counts the hang-ups that it is sent. No subshell but sleep's: one would have its name, and get the signal too.
    "counter": """#!/bin/sh
hups=0
trap 'hups=$((hups+1)); echo $hups >/tmp/hups' HUP
trap 'exit 0' TERM
echo 0 >/tmp/hups
while :; do sleep 3600 & wait $!; kill $! 2>/dev/null; done
""",
    # Opens `..data` once a turn, as careful readers do, and counts turns, missing files and torn sets.
    "reader": """#!/bin/sh
trap 'exit 0' TERM
turns=0 missing=0 torn=0
while :; do
  now=$(readlink /secrets/..data)
  if a=$(cat /secrets/$now/pair/a) && b=$(cat /secrets/$now/pair/b); then
    [ "$a" = "$b" ] || torn=$((torn+1))
  else
    missing=$((missing+1))
  fi
  turns=$((turns+1))
  echo "$turns $missing $torn" >/tmp/count.new && mv /tmp/count.new /tmp/count
  sleep 0.02
done
""",
    # Connects afresh with the files' credentials, again and again, and counts.
    "client": """#!/bin/sh
trap 'exit 0' TERM
turns=0 failed=0
while :; do
  now=$(readlink /secrets/..data)
  user=$(cat /secrets/$now/db/username) password=$(cat /secrets/$now/db/password)
  if PGPASSWORD=$password PGCONNECT_TIMEOUT=10 psql -h postgres.vault.svc -U "$user" -d app -Atqc \\
    'select words from greeting' >/tmp/answer 2>/tmp/error && grep -qx hello /tmp/answer; then :; else
    failed=$((failed+1))
    echo "$(date +%T) turn $turns: $(head -n 1 /tmp/error)" >>/tmp/errors
  fi
  turns=$((turns+1))
  echo "$turns $failed" >/tmp/count.new && mv /tmp/count.new /tmp/count
  sleep 0.2
done
""",
}

# What Pod Security `restricted` asks of a container.
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def annotations(keys):
    # Python need not write a variable's name with an underscore.
    return {
        PREFIX + (key if key.startswith("env.") else key.replace("_", "-")): value for key, value in keys.items()
    }


def canary():
    """A value that stands nowhere else, and that base64 and URLs write differently."""
    return f"{secrets.token_hex(8)}+/{secrets.token_hex(8)}="


def written(name="secrets", read_only=True, **attributes):
    """A volume of the CSI driver as its page tells people to write it."""
    return {
        "name": name,
        "csi": {
            "driver": "csi.hushpod.dev",
            "readOnly": read_only,
            "volumeAttributes": {key.replace("_", "-"): value for key, value in attributes.items()},
        },
    }


def by_hand(thing, *volumes, path="/secrets"):
    """With volumes, of which the first is mounted where applications find their secrets."""
    thing["spec"]["volumes"] += volumes
    for each in thing["spec"]["containers"]:
        mount = {"name": volumes[0]["name"], "mountPath": path, "readOnly": True}
        each.setdefault("volumeMounts", []).append(mount)
    return thing


def container(name, command, image=BUSYBOX, **fields):
    if isinstance(command, str):
        command = ["sh", "-c", command]
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "command": command,
        "securityContext": dict(RESTRICTED),
        **fields,
    }


def pod(name, keys=None, command=FOREVER, image=BUSYBOX, init=(), more=(), account="web", security=None, **spec):
    """A pod of one container `app` that `restricted` admits; `keys` are our annotations without their prefix."""
    app = container("app", command, image)
    app["volumeMounts"] = [{"name": "programs", "mountPath": "/programs"}]
    if security is None:
        security = {"runAsUser": UID, "runAsGroup": UID}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": annotations(keys or {})},
        "spec": {
            "serviceAccountName": account,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **security},
            "initContainers": list(init),
            "containers": [app, *more],
            "volumes": [{"name": "programs", "configMap": {"name": "programs", "defaultMode": 0o555}}],
            **spec,
        },
    }


def without_root_rule(thing):
    """For pods whose containers run as root or as whom their image says."""
    del thing["spec"]["securityContext"]["runAsNonRoot"]
    return thing


def deployment(template, replicas=2):
    name = template["metadata"]["name"]
    template = copy.deepcopy(template)
    for field in ("apiVersion", "kind"):
        del template[field]
    del template["metadata"]["name"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def job(template, **spec):
    template = copy.deepcopy(template)
    name = template["metadata"]["name"]
    for field in ("apiVersion", "kind"):
        del template[field]
    del template["metadata"]["name"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template, **spec},
    }


def named(mode):
    """A mode, as a pod can be called."""
    return mode.replace("+", "-")


def statuses(thing):
    """Every container's status by name."""
    status = thing.get("status", {})
    found = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    return {each["name"]: each for each in found}


def is_ready(thing):
    conditions = thing.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def has_run(thing, name="app"):
    """Whether a container's first instruction has been executed."""
    status = statuses(thing).get(name, {})
    states = [status.get("state", {}), status.get("lastState", {})]
    return any("running" in state or "terminated" in state for state in states)


def termination(thing, name):
    """The last termination message of a container, or None."""
    status = statuses(thing).get(name, {})
    for state in (status.get("state", {}), status.get("lastState", {})):
        if "terminated" in state:
            return state["terminated"].get("message", "")
    return None


class Space:
    def __init__(self, suite, title):
        self.suite = suite
        self.api = suite.api
        self.vault = suite.vault
        self.node = suite.node
        self.title = title
        self.namespace = f"e2e-{secrets.token_hex(3)}-{title.replace('_', '-')[:40]}".rstrip("-")
        self.role = f"{self.namespace}-web"
        self.is_open = False

    # --- its life

    def open(self, labels=None, rights=""):
        """Makes the namespace and a role at Vault that its service account `web` can log in with; `rights` are more
        lines of its policy."""
        name = self.namespace
        self.api.create(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": {"hushpod-e2e": "test", **(labels or {})}},
            }
        )
        self.is_open = True
        for account in ("web", "other"):
            self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
        self.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "programs"}, "data": PROGRAMS})
        self.vault.write(
            f"sys/policies/acl/{name}",
            policy=f"""
path "secret/data/{name}/*" {{ capabilities = ["read"] }}
path "secret/metadata/{name}/*" {{ capabilities = ["read"] }}
path "database/creds/{name}" {{ capabilities = ["read"] }}
{rights}
""",
        )
        self.vault.write(
            f"auth/kubernetes/role/{self.role}",
            bound_service_account_names=["web"],
            bound_service_account_namespaces=[name],
            audience="vault",
            token_policies=[name],
            token_ttl="10m",
        )
        # Until it is there, kubelet cannot mount what every pod gets beside our volumes, and tries again in seconds.
        wait("kube-root-ca.crt", 30, lambda: self.api.find("ConfigMap", name, "kube-root-ca.crt"))
        return self

    def close(self):
        if not self.is_open:
            return
        # Together with its pods their logs and states go.
        self.suite.keep_logs()
        self.harvest()
        self.api.delete("Namespace", None, self.namespace)
        for path in (f"auth/kubernetes/role/{self.role}", f"sys/policies/acl/{self.namespace}"):
            self.vault.delete(path)
        # Leases before the role that knows how to end them.
        for lease in self.vault.leases(f"database/creds/{self.namespace}"):
            self.vault.write("sys/leases/revoke", lease_id=f"database/creds/{self.namespace}/{lease}", sync=True)
        self.vault.delete(f"database/roles/{self.namespace}")

    def diagnose(self):
        """What one would look at first, as text."""
        if not self.is_open:
            return ""
        # What says most comes last.
        parts = ["--- webhook\n" + self.suite.product.logs()]
        for command in (
            ["get", "pods", "-o", "wide"],
            ["describe", "pods"],
            ["get", "events", "--field-selector=type!=Normal", "--sort-by=.lastTimestamp"],
        ):
            parts.append(run("kubectl", "-n", self.namespace, *command, ok=False).stdout[-12000:])
        for each in self.api.list("Pod", self.namespace):
            for name in statuses(each):
                for previous in ("false", "true"):
                    arguments = ["logs", each["metadata"]["name"], "-c", name, "--tail=40", f"--previous={previous}"]
                    log = run("kubectl", "-n", self.namespace, *arguments, ok=False)
                    if log.returncode == 0 and log.stdout:
                        parts.append(f"--- {each['metadata']['name']} {name} (previous: {previous})\n{log.stdout}")
        return "\n".join(parts)

    # --- secrets

    def secret(self, path="app", **data):
        """Writes a secret in KV v2, and returns the reference to it. Whatever its values are must be found nowhere."""
        self.suite.canaries.update({value: f"{self.title} {path}.{key}" for key, value in data.items()})
        self.vault.write(f"secret/data/{self.namespace}/{path}", data=data)
        return f"secret/data/{self.namespace}/{path}"

    def harvest(self):
        """Takes the tokens out of the agents' volumes, to be looked for; says of which kinds there were some."""
        kinds = set()
        # The driver's are everybody's.
        for path in self.suite.product.driver_state().glob("feeds/*/*") if self.node else []:
            try:
                text = path.read_bytes()
            except OSError:
                continue  # it was written anew, or its feed is over
            for text in re.findall(rb'"([\w+/]{16,}=*)"', text):
                token = base64.b64decode(text + b"==")
                if re.fullmatch(rb"hv[sb]\.[\w-]{20,}", token):
                    self.suite.canaries[token.decode()] = f"login token of the driver {path.parent.name[:8]}"
                    kinds.add("driver's login token")
        for thing in self.api.list("Pod", self.namespace) if self.node else []:
            name = f"{self.title} {thing['metadata']['name']}"
            for path in self.node.volume(thing, "empty-dir", "hushpod-state").glob("*"):
                for text in re.findall(rb'"([\w+/]{16,}=*)"', path.read_bytes()):
                    token = base64.b64decode(text + b"==")
                    if re.fullmatch(rb"hv[sb]\.[\w-]{20,}", token):
                        self.suite.canaries[token.decode()] = f"{name} login token"
                        kinds.add("login token")
            for path in self.node.volume(thing, "projected", "hushpod-tokens").glob("[a-z]*"):
                token = path.read_text(encoding="ascii")
                self.suite.canaries[token] = f"{name} projected token"
                self.suite.canaries[token.split(".")[-1]] = f"{name} projected token's signature"
                kinds.add("projected token")
        return kinds

    def database(self, **more):
        """A role of this test's own at the database engine, and the reference to its credentials; `more`: settings that
        are not as the others'."""
        settings = self.vault.read("database/roles/web")
        self.vault.write(
            f"database/roles/{self.namespace}",
            **{key: settings[key] for key in ("db_name", "default_ttl", "max_ttl", "creation_statements")} | more,
        )
        return f"database/creds/{self.namespace}"

    def leases(self):
        return self.vault.leases(f"database/creds/{self.namespace}")

    # --- objects

    def create(self, thing, dry_run=False):
        return self.api.create(thing, self.namespace, dry_run)

    def pod(self, name):
        return self.api.get("Pod", self.namespace, name)

    def pods(self, name):
        """The pods of a Deployment or Job."""
        found = self.api.list("Pod", self.namespace, f"app={name}")
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def start(self, *things, seconds=60):
        """Creates pods and returns them as they are when they are ready."""
        for thing in things:
            self.create(thing)
        started = [self.ready(thing["metadata"]["name"], seconds) for thing in things]
        return started[0] if len(started) == 1 else started

    def ready(self, name, seconds=60):
        def ready():
            thing = self.pod(name)
            return thing if is_ready(thing) else None

        return wait(f"pod {name} to be ready", seconds, ready)

    def rolled_out(self, name, replicas=2, seconds=90):
        def ready():
            pods = self.pods(name)
            return pods if len(pods) == replicas and all(map(is_ready, pods)) else None

        return wait(f"{replicas} pods of {name} to be ready", seconds, ready)

    def annotate(self, name, *changes):
        kubectl("-n", self.namespace, "annotate", "pod", name, "--overwrite", *(PREFIX + change for change in changes))

    def delete(self, name, seconds=60):
        self.api.delete("Pod", self.namespace, name)
        wait(f"pod {name} to be gone", seconds, lambda: not self.api.find("Pod", self.namespace, name))

    def refused(self, thing, *parts):
        """Creates a thing that must be refused, and returns the sentence that says why."""
        try:
            self.create(thing)
        except Failed as refusal:
            for part in parts:
                check(part in str(refusal), f"the refusal lacks {part!r}: {refusal}")
            return str(refusal)
        raise Failed(f"{thing['kind']} {thing['metadata']['name']} was admitted")

    def terminated(self, name, of, *parts, seconds=60):
        """Waits until the injected container `of` has ended, and returns its termination message."""

        def message():
            found = termination(self.pod(name), of)
            return [found] if found is not None else None

        found = wait(f"{of} of pod {name} to end", seconds, message)[0]
        for part in parts:
            check(part in found, f"the termination message of {of} lacks {part!r}: {found!r}")
        return found

    # --- inside

    def sh(self, name, script, container="app", ok=True):
        """Runs a shell script in a container."""
        command = ["-n", self.namespace, "exec", name, "-c", container, "--", "sh", "-c", script]
        if ok:
            return kubectl(*command).rstrip("\n")
        return run("kubectl", *command, ok=False)

    def log(self, name, container="app"):
        return kubectl("-n", self.namespace, "logs", name, "-c", container)

    def file(self, name, path, container="app"):
        return self.sh(name, f"cat {path}", container)

    def sees(self, name, path, value, seconds=30):
        """Waits until a file holds a value."""
        wait(f"{path} of {name} to change", seconds, lambda: self.file(name, path) == value)

    def event(self, name, reason, *parts, seconds=60):
        """Waits until an event of a pod says all this, and returns its sentence."""

        def said():
            events = self.api.call("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
            # As `kubectl describe` looks for them.
            of_it = {"kind": "Pod", "name": name}
            found = [each for each in events if of_it.items() <= each["involvedObject"].items()]
            sentences = [each["message"] for each in found if each["reason"] == reason]
            whole = [each for each in sentences if all(part in each for part in parts)]
            check(whole, f"events of {name}: {sentences or [each['reason'] for each in found]}")
            return whole[0]

        return wait(f"an event {reason} of {name} with {parts}", seconds, said)

    def driver_says(self, name, event, seconds=20):
        """Waits until the driver's log tells of an event of a pod."""

        def said():
            lines = self.suite.product.driver_log()
            parts = (f'"event":"{event}"', f'"pod":"{name}"', f'"namespace":"{self.namespace}"')
            return any(all(part in line for part in parts) for line in lines)

        wait(f"the driver to say {event!r} of {name}", seconds, said)

    def says(self, name, event, container="hushpod", seconds=20, times=1):
        """Waits until the agent's log tells of an event."""
        wait(
            f"the agent of {name} to say {event!r}",
            seconds,
            lambda: (
                sum(f"event={event}" in line.replace('"', "") for line in self.log(name, container).splitlines())
                >= times
            ),
        )

    def never_restarted(self, *pods):
        """The same pods, and none of their containers restarted."""
        for before in pods:
            now = self.pod(before["metadata"]["name"])
            equal(now["metadata"]["uid"], before["metadata"]["uid"], "uid of the pod")
            for name, status in statuses(now).items():
                equal(status["restartCount"], 0, f"restarts of {now['metadata']['name']} {name}")
