"""Several stores in one bundle, and files that are encrypted in the cluster itself."""

import base64
import json
import os
import signal
from pathlib import Path

from suite.base import check, equal, holds, wait
from suite.cluster import kubectl
from suite.runner import ALONE, test
from suite.space import canary, pod
from suite.stores import logs_in_to_vault

FAST = {"refresh": "1s"}
FIXTURES = Path(__file__).resolve().parents[2] / "data/sops"
AUDIENCES = {"vault": "vault", "aws": "sts.amazonaws.com", "infisical": "infisical"}


def claims(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def bundle(t, **values):
    """A secret in each of the three stores, with these values, and the annotations that take them."""
    aws, infisical = t.suite.moto, t.suite.infisical
    for name, value in values.items():
        t.suite.canaries[value] = f"{t.title} {name}"
    vault = t.secret(password=values["vault"])
    aws.put(f"{t.namespace}/db", json.dumps({"password": values["aws"]}))
    infisical.identity(f"{t.namespace}-web", t.namespace, "web")
    infisical.put(f"/{t.namespace}", "TOKEN", values["infisical"])
    infisical.put(f"/{t.namespace}", "MODE", "plain words")
    return {
        "file.vault": f"{vault}#password",
        "file.aws": f"aws:{t.namespace}/db#password",
        "secrets": f'[{{file: app.env, from: "infisical:/{t.namespace}", format: dotenv}}]',
        "dir.app": f"infisical:/{t.namespace}",
    }


def assert_files(t, name, **values):
    equal(t.file(name, "/secrets/vault"), values["vault"], "Vault's file")
    equal(t.file(name, "/secrets/aws"), values["aws"], "AWS's file")
    equal(t.file(name, "/secrets/app/TOKEN"), values["infisical"], "Infisical's folder as a directory")
    equal(t.sh(name, ". /secrets/app.env; echo $TOKEN; echo $MODE"), f"{values['infisical']}\nplain words", "app.env")


@test(node=True)
def one_bundle_mixes_three_stores_and_each_rotates_alone(t):
    """Vault, AWS (moto) and Infisical in one pod: a folder as app.env and as dir; each store's change comes by itself."""
    t.open()
    values = {"vault": canary(), "aws": canary(), "infisical": canary()}
    wanted = bundle(t, **values)
    started = t.start(pod("app", {**wanted, **FAST}))
    assert_files(t, "app", **values)
    for store, path in (("aws", "aws"), ("infisical", "app/TOKEN"), ("vault", "vault")):
        values[store] = canary()
        bundle(t, **values)
        t.sees("app", f"/secrets/{path}", values[store], seconds=15)
        assert_files(t, "app", **values)
    t.never_restarted(started)


@test(node=True)
def p6_three_stores_get_three_tokens_that_the_others_refuse(t):
    """One projected token per store, each with that store's audience: each is refused by the other two."""
    t.open()
    values = {"vault": canary(), "aws": canary(), "infisical": canary()}
    thing = t.start(pod("app", bundle(t, **values)))
    directory = t.node.volume(thing, "projected", "hushpod-tokens")
    found = {path.name: claims(path.read_text(encoding="ascii"))["aud"] for path in directory.glob("[a-z]*")}
    equal(found, {name: [audience] for name, audience in AUDIENCES.items()}, "the tokens' audiences")
    for store, audience in AUDIENCES.items():
        token = kubectl("-n", t.namespace, "create", "token", "web", "--audience", audience).strip()
        equal(logs_in_to_vault(t.vault, t.role, token), store == "vault", f"whether Vault takes the token for {store}")
        accepted = t.suite.infisical.logs_in(f"{t.namespace}-web", token)
        equal(accepted, store == "infisical", f"whether Infisical takes the token for {store}")
        accepted = t.suite.moto.logs_in(f"{t.namespace}-web", token)
        equal(accepted, store == "aws", f"whether AWS takes the token for {store}")
        check(not t.suite.moto.logs_in(f"{t.namespace}-other", token), "AWS gives a role that is another account's")


@test(ALONE, node=True)
def p3_one_stores_outage_holds_no_other_back(t):
    """Infisical hangs: Vault's rotation arrives all the same, Infisical's files stay; it recovers alone."""
    t.open()
    values = {"vault": canary(), "aws": canary(), "infisical": canary()}
    t.start(pod("app", {**bundle(t, **values), **FAST}))
    process = t.suite.infisical.process.pid
    os.kill(process, signal.SIGSTOP)
    try:
        values["vault"] = canary()
        t.secret(password=values["vault"])
        t.sees("app", "/secrets/vault", values["vault"], seconds=30)
        values["aws"] = canary()
        t.suite.moto.put(f"{t.namespace}/db", json.dumps({"password": values["aws"]}))
        t.sees("app", "/secrets/aws", values["aws"], seconds=30)
        holds("Infisical's files", 3, lambda: t.file("app", "/secrets/app/TOKEN") == values["infisical"])
    finally:
        os.kill(process, signal.SIGCONT)
    values["infisical"] = canary()
    t.suite.infisical.put(f"/{t.namespace}", "TOKEN", values["infisical"])
    t.sees("app", "/secrets/app/TOKEN", values["infisical"], seconds=90)
    assert_files(t, "app", **values)


@test()
def p1_a_sops_file_in_a_configmap_is_decrypted_in_the_agent_alone(t):
    """A SOPS file from the pod's own ConfigMap, its age identity from Vault: only the application's memory has values."""
    t.open()
    identity = next(line for line in (FIXTURES / "identity.txt").read_text().splitlines() if line.startswith("AGE-"))
    t.secret("age", key=identity)
    document = (FIXTURES / "all.json").read_text(encoding="utf-8")
    password = json.loads((FIXTURES / "all.json.decrypted").read_text(encoding="utf-8"))["zeta"]
    t.suite.canaries[password] = f"{t.title} password"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app-sops"}}
    t.create({**config, "data": {"prod.json": document}})
    thing = pod("app", {"file.password": "sops:app-sops/prod.json#zeta"})
    thing["spec"]["volumes"].append({"name": "app-sops", "configMap": {"name": "app-sops"}})
    t.start(thing)
    equal(t.file("app", "/secrets/password"), password, "the decrypted value")
    check(t.sh("app", "ls /run/hushpod", ok=False).returncode != 0, "the application sees the agent's mounts")
    refused = pod("other", {"file.password": "sops:app-sops/prod.json#zeta"})
    t.refused(refused, "app-sops")
    wait("the agent's log", 10, lambda: "delivered" in t.log("app", "hushpod"))
