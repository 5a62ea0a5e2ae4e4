"""`kubectl hushpod`, with service accounts that have the chart's two roles and nothing else."""

import base64
import json
import subprocess

from suite.base import check, contains, equal, wait
from suite.on_call import OnCall
from suite.runner import test
from suite.space import canary, deployment, pod

FAST = {"refresh": "1s"}
MODES = {"sidecar": "sidecar", "both": "init+sidecar", "once": "init", "csi": "csi"}


def number(secret):
    """Of a version of Vault's, which has the time at which it was made behind it."""
    return secret["version"].split("@")[0]


@test()
def fleet_status_of_every_mode(t):
    """A viewer sees what pods of each mode hold, which versions, and nothing that is secret; and may change nothing."""
    t.open()
    first, second = canary(), canary()
    reference = t.secret(password=first)
    wanted = {"file.password": f"{reference}#password", **FAST}
    t.start(*(pod(name, {**wanted, "mode": mode}) for name, mode in MODES.items()))
    with OnCall(t, "hushpod-viewer") as viewer:

        def all_report():
            pods = viewer.status()
            have_files = all(each["reports"] and each["reports"][0]["newest"] for each in pods.values())
            return pods if set(pods) == set(MODES) and have_files else None

        pods = wait("a report of every pod", 30, all_report)
        for name, mode in MODES.items():
            equal(pods[name]["mode"], mode, f"mode of {name}")
            report = pods[name]["reports"][0]
            equal(report["newest"], report["generation"], f"what {name} has, and what is newest")
            (secret,) = report["secrets"]
            equal(secret["reference"], f"vault:{reference}", f"reference of {name}")
            equal(number(secret), "1", f"version of {name}")
        equal(len({each["reports"][0]["generation"] for each in pods.values()}), 1, "generations of one version")
        t.secret(password=second)
        for name in MODES.keys() - {"once"}:
            t.sees(name, "/secrets/password", second)

        def holders(version):
            told = json.loads(viewer.says("who", f"{reference}#password", "--version", version, "-o", "json"))
            return {each["name"] for each in told["pods"]}

        wait("reports of version 2", 30, lambda: holders("2") == MODES.keys() - {"once"})
        equal(holders("1"), {"once"}, "who holds version 1")
        for name in ("sidecar", "csi"):
            lines = json.loads(viewer.says("history", name, "-o", "json"))
            versions = [number(line["secrets"][0]) for line in lines]
            equal(versions, ["1", "2"], f"history of {name}")
        text = viewer.says("status", "-o", "wide") + viewer.says("history", "sidecar")
        for value in (first, second, base64.b64encode(first.encode()).decode()):
            check(value not in text, "a value is shown")
        # It is not allowed to, and says so.
        contains(viewer.says("hold", "sidecar", code=1), "forbidden", "a viewer's hold")
        contains(viewer.says("status", "sidecar", "--live"), "is forbidden", "a viewer's --live")


@test()
def fleet_waves_on_a_deployment_of_four(t):
    """Hold, rotate, advance one pod at a time, interrupted and resumed, release: with the rights of hushpod-controls."""
    t.open()
    first, second, third = canary(), canary(), canary()
    reference = t.secret(password=first)
    t.create(deployment(pod("web", {"file.password": f"{reference}#password", **FAST}), replicas=4))
    pods = t.rolled_out("web", replicas=4)
    names = sorted(each["metadata"]["name"] for each in pods)

    def files():
        return [t.file(name, "/secrets/password") for name in names]

    with OnCall(t, "hushpod-controls") as controls:
        told = controls.says("hold", "deploy/web")
        contains(told, "done: 4 pods", "hold")
        contains(told, "the next pods of deploy/web start with the newest, and follow it", "what comes next")
        t.secret(password=second)
        wait("a newer generation", 30, lambda: all(
            each["reports"][0]["newest"] != each["reports"][0]["generation"] for each in controls.status().values()
        ))
        equal(files(), [first] * 4, "what held pods have")
        contains(controls.says("advance", "deploy/web", "--max", "25%", "--dry-run"), "nothing was changed", "a dry run")
        equal(files(), [first] * 4, "files after a dry run")

        # As Ctrl-C does it, in the pause after the first pod.
        words = ["advance", "deploy/web", "--max", "1", "--pause", "60s", "--kubeconfig", str(controls.kubeconfig)]
        process = subprocess.Popen([controls.plugin, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait("the first pod of the wave", 60, lambda: files().count(second) == 1)
        finally:
            process.terminate()
            process.wait(10)
        equal(files().count(second), 1, "pods that have gone along")
        told = controls.says("advance", "deploy/web", "--max", "2")
        contains(told, "1 done before", "the wave goes on")
        equal(files(), [second] * 4, "files after the wave")
        waves = {each["reports"][0]["advance"]["id"] for each in controls.status().values()}
        equal(len(waves), 1, f"waves: {waves}")

        # They are held as before, and the same wave again asks for nothing.
        t.secret(password=third)
        contains(controls.says("advance", "deploy/web", "--wave", waves.pop()), "4 done before", "the same wave again")
        equal(files(), [second] * 4, "files of held pods")

        # Back, and stay there; a generation that a pod never had is refused.
        history = json.loads(controls.says("history", names[0], "-o", "json"))
        controls.says("pin", history[0]["generation"], names[0])
        equal(t.file(names[0], "/secrets/password"), first, "the file of the pinned pod")
        contains(controls.says("pin", "0123456789abcdef", names[1], code=1), names[1], "an unknown pin")

        contains(controls.says("release", "deploy/web"), "done: 4 pods", "release")
        equal(files(), [third] * 4, "files after the release")
        controls.says("refresh", "deploy/web")
    t.never_restarted(*pods)
