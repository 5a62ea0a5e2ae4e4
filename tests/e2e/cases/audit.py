"""Audit lines of webhook, agents and driver: who got which secret, and who was denied one."""

import json
import tempfile

from suite.base import Skipped, check, contains, equal, run, wait
from suite.cluster import kubectl
from suite.product import NAMESPACE
from suite.runner import test
from suite.space import by_hand, canary, pod, written

START = '{"audit":"hushpod.dev/v1"'
FAST = {"refresh": "1s"}
MODES = {"sidecar": "sidecar", "once": "init", "csi": "csi"}


def lines_of(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith(START)]


def told_by_pod(t, name):
    """The lines about a pod, which its agent wrote, or the driver of its node."""
    if MODES[name] == "csi":
        uid = t.pod(name)["metadata"]["uid"]
        # A read of the driver's is for all pods of an account.
        ours = [line for line in driver_lines(t) if line["event"] != "admission"]
        return [line for line in ours if line.get("uid", uid) == uid]
    return lines_of(t.log(name, "hushpod-init" if MODES[name] == "init" else "hushpod"))


def driver_lines(t):
    lines = lines_of("\n".join(t.suite.product.driver_log()))
    return [line for line in lines if line["namespace"] == t.namespace]


def webhook_lines(t):
    texts = [kubectl("-n", NAMESPACE, "logs", each["metadata"]["name"], "--all-containers") for each in t.suite.product.pods()]
    return [line for text in texts for line in lines_of(text) if line["namespace"] == t.namespace]


def of(lines, event):
    return [line for line in lines if line["event"] == event]


def number(line):
    """Of a version of Vault's, which has the time at which it was made behind it."""
    return line["version"].split("@")[0]


@test()
def audit_of_every_mode(t):
    """Login, read and delivery of pods of each mode, with their names; a rotation is one read and delivery more; and
    who --from-audit names them all."""
    t.open()
    first, second = canary(), canary()
    reference = t.secret(password=first)
    wanted = {"file.password": f"{reference}#password", **FAST}
    t.start(*(pod(name, {**wanted, "mode": mode}) for name, mode in MODES.items()))
    for name, mode in MODES.items():
        lines = wait(f"lines about {name}", 20, lambda name=name: told_by_pod(t, name))
        thing = t.pod(name)
        for event in ("login", "read", "delivery"):
            (line,) = of(lines, event)
            equal(line["outcome"], "ok", f"{event} of {name}")
            equal(line["by"], "csi" if mode == "csi" else "agent", f"who tells {event} of {name}")
            equal((line["namespace"], line["account"]), (t.namespace, "web"), f"{event} of {name}")
            equal(line["node"], thing["spec"]["nodeName"], f"node of {name}'s {event}")
            equal(line["provider"], "vault", f"store of {name}'s {event}")
            if event == "login":
                equal(line["role"], t.role, f"role of {name}")
            else:
                equal(line["reference"], f"vault:{reference}", f"reference of {name}'s {event}")
                equal(number(line), "1", f"version of {name}'s {event}")
            if mode == "csi" and event != "delivery":
                check("pod" not in line and "uid" not in line, f"{event} for all pods of an account: {line}")
            else:
                equal((line["pod"], line["uid"]), (name, thing["metadata"]["uid"]), f"{event} of {name}")
        (read,), (delivery,) = of(lines, "read"), of(lines, "delivery")
        equal(delivery["access"], read["access"], f"access of {name}")

    t.secret(password=second)
    for name in MODES.keys() - {"once"}:
        t.sees(name, "/secrets/password", second)

        def both(name=name):
            lines = told_by_pod(t, name)
            return lines if len(of(lines, "delivery")) >= 2 else None

        lines = wait(f"the second delivery of {name}", 20, both)
        reads, deliveries = of(lines, "read"), of(lines, "delivery")
        equal([number(line) for line in reads], ["1", "2"], f"reads of {name}")
        equal([number(line) for line in deliveries], ["1", "2"], f"deliveries of {name}")
        equal(deliveries[1]["access"], reads[1]["access"], f"second access of {name}")
        check(deliveries[1]["access"] != deliveries[0]["access"], f"one access of {name} for both")
        equal(len(of(lines, "login")), 1, f"logins of {name}")

    # Who asked for them, and what let them.
    admitted = {line["pod"]: line for line in webhook_lines(t) if line["outcome"] == "allowed"}
    check(admitted.keys() >= MODES.keys(), f"admissions: {sorted(admitted)}")
    for name in MODES:
        equal(admitted[name]["account"], "web", f"account of {name}'s admission")
        check(admitted[name]["user"], f"nobody asked for {name}")
        equal([each["reference"] for each in admitted[name]["requests"]], [f"vault:{reference}"], f"what {name} asks for")

    everything = [line for name in MODES for line in told_by_pod(t, name)] + webhook_lines(t)
    check(first not in json.dumps(everything) and second not in json.dumps(everything), "a value is told")
    if not t.suite.product.program:
        raise Skipped("the image was given with --image: there is no program of the same build here")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".log") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in everything)
        file.flush()

        def had(version):
            words = ["kubectl", "who", f"{reference}#password", "--version", version, "--from-audit", file.name]
            # No cluster is asked, so none has to be known.
            told = run(t.suite.product.program, *words, "-o", "json", env={"KUBECONFIG": "/nowhere"})
            return {each["name"] for each in json.loads(told)["pods"]}

        equal(had("1"), set(MODES), "who had version 1")
        equal(had("2"), MODES.keys() - {"once"}, "who had version 2")


@test()
def audit_of_what_is_denied(t):
    """A pod that the operator's rules are against, and one that Vault is against, are told with the reason."""
    t.open()
    t.secret(password=canary())
    sentence = t.refused(pod("ruled", {"file.x": "reserved:secret/data/app#x"}), "may not use provider")
    told = wait("the denial's line", 20, lambda: [line for line in webhook_lines(t) if line["outcome"] == "denied"])
    (line,) = told
    equal((line["by"], line["event"], line["pod"], line["account"]), ("webhook", "admission", "ruled", "web"), "denial")
    contains(line["problem"], "may not use provider", "the denial's problem")
    contains(sentence, line["problem"], "what the author of the pod sees")
    check("uid" not in line and "requests" not in line, f"what nobody knows of a denied pod: {line}")

    # By the driver, of a pod that wrote the volume itself.
    t.create(by_hand(pod("by-hand"), written(**{"file.x": "reserved:secret/data/app#x"})))
    lines = wait("the driver's line", 30, lambda: of(driver_lines(t), "admission"))
    equal((lines[0]["by"], lines[0]["outcome"], lines[0]["pod"]), ("csi", "denied", "by-hand"), "the driver's denial")
    contains(lines[0]["problem"], "may not use provider", "the driver's problem")
    check(len(lines) <= 2, f"a denial that is repeated is told once an hour: {len(lines)} lines")

    # By Vault.
    t.create(pod("refused", {"file.x": "secret/data/elsewhere/app#x"}))
    t.terminated("refused", "hushpod")

    def read():
        log = run("kubectl", "-n", t.namespace, "logs", "refused", "-c", "hushpod", "--previous", ok=False)
        return of(lines_of(log.stdout), "read") or of(lines_of(t.log("refused", "hushpod")), "read")

    lines = wait("a read that Vault refuses", 20, read)
    equal({line["outcome"] for line in lines}, {"denied"}, "outcome of the read")
    equal(lines[0]["reference"], "vault:secret/data/elsewhere/app", "reference of the read")
    equal(lines[0]["uid"], t.pod("refused")["metadata"]["uid"], "uid of the pod that was refused")
