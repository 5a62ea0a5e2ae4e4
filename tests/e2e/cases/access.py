"""Who gets what: identities, audiences, the operator's rules, and what the refused are told."""

import ctypes

from suite.base import check, contains, equal
from suite.runner import test
from suite.space import canary, has_run, pod


def refused_by_vault(t, thing, *parts):
    t.create(thing)
    name = thing["metadata"]["name"]
    message = t.terminated(name, "hushpod", *parts)
    check(not has_run(t.pod(name)), "the application has started")
    return message


@test()
def p6_another_service_account_is_refused(t):
    """Vault refuses a login as another account's role, the message says so, and the application does not start."""
    t.open()
    reference = t.secret(password=canary()) + "#password"
    wanted = {"file.password": reference, "role.vault": t.role}
    t.start(pod("rightful", wanted))
    refused_by_vault(t, pod("stranger", wanted, account="other"), "vault", t.role)


@test()
def p6_a_token_of_another_audience_is_refused(t):
    """The same pod with the same role, at a provider whose audience the role is not bound to."""
    t.open()
    reference = t.secret(password=canary()) + "#password"
    t.start(pod("rightful", {"file.password": f"vault:{reference}"}))
    message = refused_by_vault(t, pod("elsewhere", {"file.password": f"elsewhere:{reference}"}), "elsewhere")
    contains(message.lower(), "audience", "the termination message")


@test()
def p6_a_path_outside_the_policy_is_refused(t):
    """Vault's policy holds: another namespace's secret is not delivered, and the message names the request."""
    t.open()
    t.secret(password=canary())
    stranger = "secret/data/someone-else/app"
    refused_by_vault(t, pod("curious", {"file.x": f"{stranger}#x"}), f"vault:{stranger}")


@test()
def p5_termination_messages_are_our_own_words(t):
    """They end up in etcd: a value that Vault's answer held must not be in them."""
    t.open()
    value = canary()
    reference = t.secret(one=value, two=canary())
    message = refused_by_vault(t, pod("many", {"file.x": reference}), "x")
    check(value not in message, f"a value in {message!r}")


@test()
def p9_what_is_known_only_at_run_time_ends_with_a_sentence(t):
    """Formats' misuse and size: admitted, since only the values tell; then the agent ends with its sentence."""
    t.open()
    many = t.secret(path="many", one=canary(), two=canary())
    t.vault.write(f"secret/data/{t.namespace}/nul", data={"key": "a\u0000b"})
    t.vault.write(f"secret/data/{t.namespace}/large", data={"key": "x" * 5000})
    t.vault.write(f"secret/data/{t.namespace}/name", data={"not/a/file": "x"})
    t.vault.write(f"secret/data/{t.namespace}/small", data={f"key{number}": "x" for number in range(400)})
    cases = {
        "raw-of-many": ({"file.x": many}, ["x", "one value"]),
        "binary-in-dotenv": (
            {"secrets": f'[{{file: x.env, from: "secret/data/{t.namespace}/nul", format: dotenv}}]'},
            ["x.env", "key"],
        ),
        "oversize": ({"file.x": f"secret/data/{t.namespace}/large#key", "size-limit": "4Ki"}, ["4096"]),
        "no-such-key": ({"file.x": f"{many}#three"}, ["three"]),
        "name": ({"dir.x": f"secret/data/{t.namespace}/name"}, ["a key is not a file name"]),
        "many-small": (
            {"dir.x": f"secret/data/{t.namespace}/small"},
            ["400 files fill", "raise hushpod.dev/size-limit to"],
        ),
    }
    for name, (wanted, _) in cases.items():
        t.create(pod(name, wanted))
    problems = []
    for name, (_, parts) in cases.items():
        message = t.terminated(name, "hushpod")
        problems += [f"{name}: {message!r} lacks {part!r}" for part in parts if part not in message]
        if has_run(t.pod(name)):
            problems.append(f"{name}: the application has started")
    equal(problems, [], "sentences")


@test(node=True)
def p6_an_agent_is_confined_to_its_own_files(t):
    """By Landlock, as far as this node's kernel has it, which the agent's log says."""
    t.open()
    t.start(pod("confined", {"file.x": t.secret(x=canary()) + "#x"}))
    t.says("confined", "confined")
    lines = t.log("confined", "hushpod").replace('"', "").splitlines()
    (line,) = [line for line in lines if "event=confined" in line]
    # landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION)
    version = ctypes.CDLL(None).syscall(444, None, 0, 1)
    expected = "fully" if version >= 6 else "partly" if version > 0 else "not"
    contains(line, f"landlock={expected}", f"the agent's log, on a kernel with Landlock's version {version}")
