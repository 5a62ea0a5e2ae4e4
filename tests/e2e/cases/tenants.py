"""What tenants can do without us: our rules are no more than they are."""

import copy

from suite.base import Failed, contains, equal
from suite.runner import test
from suite.space import canary, pod


@test()
def the_stores_policy_is_the_boundary_and_allow_a_guard_rail(t):
    """Who may create pods needs no webhook: a pod without annotations mounts a token for the store's audience, logs in
    and reads what the operator's rules deny to it by our way. Elsewhere the store refuses, whatever the way."""
    t.open()
    value = canary()
    reference = t.secret(password=value)
    t.refused(pod("asks", {"file.x": f"reserved:{reference}#password"}), "may not use provider", '"reserved"')
    thing = pod("minting")
    token = {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}
    thing["spec"]["volumes"].append({"name": "mine", "projected": {"sources": [token]}})
    thing["spec"]["containers"][0]["volumeMounts"].append({"name": "mine", "mountPath": "/mine"})
    t.start(thing)
    login = t.vault.call("POST", "auth/kubernetes/login", {"role": t.role, "jwt": t.file("minting", "/mine/token")})
    tenant = copy.copy(t.vault)
    tenant.token = login["auth"]["client_token"]
    equal(tenant.read(reference)["data"]["password"] == value, True, "whether the tenant reads it")
    try:
        tenant.read("secret/data/someone-else/app")
    except Failed as refusal:
        contains(str(refusal), "403", "what the store says")
    else:
        raise Failed("the store lets the tenant read another namespace's secret")
