"""deploy/examples, as they are written but for images and names: stand-ins check what the real programs would be given."""

import hashlib
import json

from suite.base import check, equal, wait
from suite.cluster import kubectl
from suite.product import ROOT, documents
from suite.runner import test
from suite.space import BUSYBOX, PSQL, canary

EXAMPLES = ROOT / "deploy/examples"

# What inference servers do with the hub's token.
READS_TOKEN = """env | grep -c '^HF_TOKEN=' >/tmp/variables
while :; do
  if [ -n "$HF_TOKEN_PATH" ]; then cat "$HF_TOKEN_PATH" >/tmp/given; else printf %s "$HF_TOKEN" >/tmp/given; fi
  sleep 1 & wait $!
done
"""

# By the name of the program whose place they take. What they were given is in /tmp, where the test reads it: a value must
# stand in no log.
STAND_INS = {
    "text-generation-launcher": """#!/bin/sh
trap 'exit 0' TERM
[ "$1" = --model-id ] || exit 3
"""
    + READS_TOKEN,
    "vllm": """#!/bin/sh
trap 'exit 0' TERM
[ "$1" = serve ] || exit 3
printf %s "$VLLM_API_KEY" >/tmp/key
"""
    + READS_TOKEN,
    # Reads certificate and key as nginx does: when it starts, and when it is told to.
    "nginx": """#!/bin/sh
load() {
  now=$(readlink /secrets/..data)
  cat "/secrets/$now/tls/crt" "/secrets/$now/tls/key" >/tmp/loaded.new && mv /tmp/loaded.new /tmp/loaded
}
grep -q 'ssl_certificate_key /secrets/tls/key;' /etc/nginx/conf.d/default.conf || exit 3
[ "$1 $2" = '-g daemon off;' ] || exit 4
trap load HUP
trap 'exit 0' TERM
load
while :; do sleep 3600 & wait $!; kill $! 2>/dev/null; done
""",
    "report": """#!/bin/sh
[ "$1" = --key-file ] || exit 3
sha256sum <"$2"
""",
    "backend": """#!/bin/sh
trap 'exit 0' TERM
[ "$1 $3" = '--settings --env-file' ] || exit 3
cp "$2" /tmp/settings
. "$4"
printf %s "$TOKEN" >/tmp/token
while :; do sleep 3600 & wait $!; done
""",
}
# The three languages' programs do this: a new connection with one generation's name and password.
CLIENT = """#!/bin/sh
trap 'exit 0' TERM
for file; do :; done
[ -s "$file" ] || exit 3
turns=0 failed=0
while :; do
  now=$(readlink /secrets/..data)
  user=$(cat "/secrets/$now/db/username") password=$(cat "/secrets/$now/db/password")
  if [ "$(PGUSER=$user PGPASSWORD=$password PGCONNECT_TIMEOUT=10 psql -Atqc 'select current_user' 2>/tmp/error)" = "$user" ]
  then :; else failed=$((failed+1)); fi
  turns=$((turns+1))
  echo "$turns $failed" >/tmp/count.new && mv /tmp/count.new /tmp/count
  sleep 0.5
done
"""
STAND_INS.update(dict.fromkeys(("python3", "node", "java"), CLIENT))


def adapted(t, name):
    """The objects of an example for this test's namespace, with stand-ins."""
    text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
    for ours, theirs in (
        ("secret/data/shop/", f"secret/data/{t.namespace}/"),
        ("database/creds/shop", f"database/creds/{t.namespace}"),
        ("aws:shop/", f"aws:{t.namespace}/"),
        ("infisical:/shop", f"infisical:/{t.namespace}"),
        ("value: postgres.shop.svc", "value: postgres.vault.svc"),
        ("name: PGDATABASE, value: shop", "name: PGDATABASE, value: app"),
        ("namespace: shop", f"namespace: {t.namespace}"),
    ):
        text = text.replace(ours, theirs)
    found = documents(text)
    for thing in found:
        spec = thing.get("spec", {})
        template = spec.get("template") or spec.get("jobTemplate", {}).get("spec", {}).get("template")
        if not template:
            continue
        pod = template["spec"]
        pod["terminationGracePeriodSeconds"] = 1
        pod.setdefault("volumes", []).append(
            {"name": "stand-in", "configMap": {"name": "stand-in", "defaultMode": 0o555}}
        )
        (container,) = pod["containers"]
        program = container["command"][0]
        check(program in STAND_INS, f"no stand-in for {program}")
        container["command"][0] = f"/stand-in/{program}"
        # As all tests call it; the annotations of the examples name no container.
        container["name"] = "app"
        container.update(image=PSQL if STAND_INS[program] is CLIENT else BUSYBOX, imagePullPolicy="Never")
        # No node here has one.
        container.pop("resources", None)
        container.setdefault("volumeMounts", []).append({"name": "stand-in", "mountPath": "/stand-in"})
    return found


def applied(t, *names):
    t.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stand-in"}, "data": STAND_INS})
    for name in names:
        for thing in adapted(t, name):
            kubectl("-n", t.namespace, "apply", "-f", "-", stdin=json.dumps(thing))


def one(t, name, replicas=1):
    """The name of a pod of an example's Deployment, once all are ready."""
    return t.rolled_out(name, replicas, seconds=120)[0]["metadata"]["name"]


@test()
def the_examples_of_inference_servers_get_their_token(t):
    """TGI and vLLM, by variable and by file; the file follows a rotation without a restart."""
    t.open()
    token, key = canary(), canary()
    t.secret("huggingface", token=token)
    t.secret("vllm", **{"api-key": key})
    applied(t, "tgi", "vllm")
    pods = {name: one(t, name) for name in ("tgi", "tgi-file", "vllm", "vllm-file")}
    for name, each in pods.items():
        t.sees(each, "/tmp/given", token)
        equal(t.file(each, "/tmp/variables"), "0" if name.endswith("-file") else "1", f"variables HF_TOKEN of {name}")
    equal(t.file(pods["vllm"], "/tmp/key"), key, "the key of vLLM's clients")
    token = canary()
    t.secret("huggingface", token=token)
    for name in ("tgi-file", "vllm-file"):
        t.annotate(pods[name], "refresh-now=now")
        t.sees(pods[name], "/tmp/given", token, seconds=150)


@test()
def the_example_of_nginx_reloads_a_certificate(t):
    """Both replicas load certificate and key of one generation, again after a renewal, without a restart."""
    t.open()

    def renewed():
        values = {"crt": canary(), "key": canary()}
        t.secret("nginx-tls", **values)
        return values["crt"] + values["key"]

    both = renewed()
    applied(t, "nginx")
    pods = t.rolled_out("nginx", 2, seconds=120)
    names = [each["metadata"]["name"] for each in pods]
    for name in names:
        t.sees(name, "/tmp/loaded", both)
    both = renewed()
    for name in names:
        t.annotate(name, "refresh-now=now")
    for name in names:
        t.sees(name, "/tmp/loaded", both, seconds=150)
    t.never_restarted(*pods)


@test(long=True)
def the_examples_of_leased_logins_connect(t):
    """Python, Node and Java: a lease for each pod, and no connection that fails while leases are renewed and replaced."""
    t.open()
    t.database()
    languages = ("python", "node", "java")
    applied(t, *(f"postgres-{language}" for language in languages))
    names = [one(t, f"postgres-{language}") for language in languages]
    equal(len(t.leases()), 3, "leases of three pods")
    first = t.leases()
    for name in names:
        t.suite.canaries[t.file(name, "/secrets/db/password")] = f"{t.title} leased password"
    # With 20 s, renewable up to 60.
    wait("each lease to be replaced", 120, lambda: not first & t.leases(), every=1)
    for name in names:
        t.suite.canaries[t.file(name, "/secrets/db/password")] = f"{t.title} second leased password"
        before, _ = map(int, t.file(name, "/tmp/count").split())
        wait(f"{name} to go on", 30, lambda: int(t.file(name, "/tmp/count").split()[0]) > before + 3)  # noqa: B023
        turns, failed = map(int, t.file(name, "/tmp/count").split())
        error = t.sh(name, "cat /tmp/error; true")[:300]
        equal(failed, 0, f"failures of {turns} in {name} ({error})")
    t.never_restarted(*(t.pod(name) for name in names))


@test()
def the_example_of_a_cronjob_runs_with_its_key(t):
    """A run by hand: the job gets the key, and ends."""
    t.open()
    key = canary()
    t.secret("report", **{"api-key": key})
    applied(t, "cronjob")
    kubectl("-n", t.namespace, "create", "job", "now", "--from=cronjob/report")
    kubectl("-n", t.namespace, "wait", "--for=condition=Complete", "job/now", "--timeout=90s")
    (found,) = t.pods("report")
    said = t.log(found["metadata"]["name"]).split()[0]
    equal(said, hashlib.sha256(key.encode()).hexdigest(), "digest of the key that the job was given")


@test(node=True)
def the_example_of_three_stores_has_all_of_them(t):
    """Vault, AWS and Infisical in one pod, and a file made of two."""
    t.open()
    password, api, token = canary(), canary(), canary()
    for value in (api, token):
        t.suite.canaries[value] = f"{t.title} value"
    t.secret("db", password=password)
    t.suite.moto.put(f"{t.namespace}/api", json.dumps({"token": api}))
    t.suite.infisical.identity(f"{t.namespace}-web", t.namespace, "web")
    t.suite.infisical.put(f"/{t.namespace}", "TOKEN", token)
    applied(t, "multi-store")
    name = one(t, "backend")
    equal(t.file(name, "/secrets/db-password"), password, "Vault's file")
    equal(t.file(name, "/secrets/token"), api, "AWS's file")
    equal(t.file(name, "/tmp/token"), token, "what Infisical's folder says as a dotenv file")
    wanted = f"[database]\npassword = {password}\n[api]\ntoken = {api}"
    equal(t.file(name, "/tmp/settings").rstrip("\n"), wanted, "the file made of two stores")
