"""What the webhook refuses, and with which sentence (promise 9)."""

from suite.base import Failed, check, equal
from suite.runner import test
from suite.space import PREFIX, canary, container, pod

GOOD = {"file.x": "secret/data/app#x"}


def colliding(thing):
    thing["spec"]["volumes"].append({"name": "mine", "emptyDir": {}})
    thing["spec"]["containers"][0]["volumeMounts"].append({"name": "mine", "mountPath": "/secrets"})


def stealing(thing):
    thing["spec"]["containers"][0]["volumeMounts"].append({"name": "hushpod-tokens", "mountPath": "/tokens"})


def impostor(thing):
    thing["spec"]["volumes"].append({"name": "hushpod-state", "hostPath": {"path": "/tmp"}})


def namesake(thing):
    thing["spec"]["containers"].append(container("hushpod", "true"))


def windows(thing):
    thing["spec"]["os"] = {"name": "windows"}
    del thing["spec"]["securityContext"]
    for each in thing["spec"]["containers"]:
        del each["securityContext"]


def early(thing):
    thing["spec"]["initContainers"] = [container("early", "true")]
    thing["metadata"]["annotations"]["hushpod.dev/init-order"] = "last"


def nothing(_):
    pass


# What is annotated beside or instead of GOOD, what is done to the pod, and what the sentence must hold. The first part
# is the annotation or place.
CASES = {
    "unknown key": ({"fiel.x": "secret/data/app#x"}, nothing, ["hushpod.dev/fiel.x", "unknown key", '"file.x"']),
    "unknown field": (
        {"secrets": '[{file: y, from: "secret/data/app#x", formt: json}]'},
        nothing,
        ["hushpod.dev/secrets[0].formt", '"format"'],
    ),
    "bad boolean": ({"hold": "yes"}, nothing, ["hushpod.dev/hold", '"yes"', "true or false"]),
    "bad boolean to opt out": ({"inject": "no"}, nothing, ["hushpod.dev/inject", '"no"', "true or false"]),
    "bad duration": ({"refresh": "soon"}, nothing, ["hushpod.dev/refresh", '"soon"', "30s"]),
    "duration without unit": ({"refresh": "30"}, nothing, ["hushpod.dev/refresh", '"30"', "30s"]),
    "too short a duration": ({"refresh": "10ms"}, nothing, ["hushpod.dev/refresh", "10ms", "second"]),
    "bad mode": ({"mode": "both"}, nothing, ["hushpod.dev/mode", '"both"', "init+sidecar"]),
    "mode csi with a notification": (
        {"mode": "csi", "notify": "signal:HUP:x"},
        nothing,
        ["hushpod.dev/notify", "watch the directory", "mode sidecar"],
    ),
    "mode csi with a port": ({"mode": "csi", "metrics-port": "9102"}, nothing, ["hushpod.dev/metrics-port", "driver"]),
    "unknown provider": ({"file.y": "valt:secret/data/app#x"}, nothing, ["hushpod.dev/file.y", '"valt"', '"vault"']),
    "role of an unknown provider": ({"role.valt": "x"}, nothing, ["hushpod.dev/role.valt", '"vault"']),
    "bare ARN": (
        {"file.y": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf#password"},
        nothing,
        ["hushpod.dev/file.y", "aws:arn:"],
    ),
    "path leaving the volume": (
        {"secrets": '[{file: ../y, from: "secret/data/app#x"}]'},
        nothing,
        ["hushpod.dev/secrets[0].file", '"../y"', "leaves the volume"],
    ),
    "absolute path": (
        {"secrets": '[{file: /etc/y, from: "secret/data/app#x"}]'},
        nothing,
        ["hushpod.dev/secrets[0].file", '"/etc/y"', "relative"],
    ),
    "duplicate file": (
        {"secrets": '[{file: x, from: "secret/data/app#x"}]'},
        nothing,
        ["hushpod.dev/secrets", '"x"', "twice"],
    ),
    "file below a file": (
        {"secrets": '[{file: x/y, from: "secret/data/app#x"}]'},
        nothing,
        ["hushpod.dev/secrets", '"x/y"', "below the file"],
    ),
    "several in raw": (
        {"secrets": '[{file: y, from: ["secret/data/a", "secret/data/b"]}]'},
        nothing,
        ["hushpod.dev/secrets[0].format", "raw needs one value", "dotenv"],
    ),
    "unknown format": (
        {"secrets": '[{file: y, from: "secret/data/a", format: jsn}]'},
        nothing,
        ["hushpod.dev/secrets[0].format", '"jsn"', '"json"'],
    ),
    "template syntax": (
        {"secrets": '[{file: y, from: {a: "secret/data/a"}, template: "{{ a.b "}]'},
        nothing,
        ["hushpod.dev/secrets[0].template", "line 1"],
    ),
    "no YAML": ({"secrets": "[{file: y"}, nothing, ["hushpod.dev/secrets", "YAML"]),
    "nothing to deliver": ({"file.x": None, "mode": "init"}, nothing, ["hushpod.dev/secrets", "nothing to deliver"]),
    "bad reference": ({"file.y": "secret/data/app#"}, nothing, ["hushpod.dev/file.y", "behind '#'"]),
    "bad file mode": ({"file-mode": "9"}, nothing, ["hushpod.dev/file-mode", '"9"', '"0440"']),
    "root": ({"run-as-user": "0"}, nothing, ["hushpod.dev/run-as-user", "root"]),
    "mount path": ({"mount-path": "secrets"}, nothing, ["hushpod.dev/mount-path", '"secrets"', "absolute"]),
    "unknown container": ({"containers": "ap"}, nothing, ["hushpod.dev/containers", '"ap"', '"app"']),
    "too early a container": (
        {"containers": "app,early"},
        early,
        ["hushpod.dev/containers", '"early"', "before the agent"],
    ),
    "notify by exec": ({"notify": "exec:reload"}, nothing, ["hushpod.dev/notify", "exec", "signal:"]),
    "notify elsewhere": ({"notify": "http://example.com/"}, nothing, ["hushpod.dev/notify", "localhost"]),
    "oversize": (
        {"secrets": "- {file: y, from: {a: secret/data/a}, template: '" + "x" * 100_000 + "'}"},
        nothing,
        ["hushpod.dev/secrets", "at most 32768 bytes"],
    ),
    "forbidden namespace": (
        {"file.y": "reserved:secret/data/app#x"},
        nothing,
        ["hushpod.dev/file.y", "may not use provider", '"reserved"'],
    ),
    "forbidden path": (
        {"file.y": "own:secret/data/another/app#x"},
        nothing,
        ["hushpod.dev/file.y", "may not request", "own:secret/data/another/app"],
    ),
    "forbidden path by an alias": (
        {"file.y": "own:/v1/secret//data/another/app#x"},
        nothing,
        ["hushpod.dev/file.y", "may not request", "own:secret/data/another/app"],
    ),
    "colliding mount": ({}, colliding, ['"app"', '"mine"', '"/secrets"', "hushpod.dev/mount-path"]),
    "mount of ours": ({}, stealing, ['"app"', '"hushpod-tokens"', "hushpod's own"]),
    "volume name of ours": ({}, impostor, ['"hushpod-state"', "rename"]),
    "container name of ours": ({}, namesake, ['"hushpod"', "rename"]),
    "windows": ({}, windows, ["Windows"]),
}


@test()
def p9_bad_input_is_denied_with_its_sentence(t):
    """Each mistake is denied by the webhook, in one sentence that names the place and what would be accepted."""
    t.open()
    wrong = []
    for case, (wanted, change, parts) in CASES.items():
        thing = pod("app", {**GOOD, **wanted})
        thing["metadata"]["annotations"] = {
            PREFIX + key: value for key, value in {**GOOD, **wanted}.items() if value is not None
        }
        change(thing)
        try:
            t.create(thing, dry_run=True)
            wrong.append(f"{case}: admitted")
        except Failed as refusal:
            text = str(refusal)
            if "denied the request" not in text:
                wrong.append(f"{case}: not denied by the webhook: {text}")
            wrong += [f"{case}: {text!r} lacks {part!r}" for part in parts if part not in text]
            if "\n" in text:
                wrong.append(f"{case}: more than one line: {text!r}")
    check(not wrong, "\n      ".join(["sentences", *wrong]))
    # The pod that all of them were made from.
    t.create(pod("app", GOOD), dry_run=True)


@test()
def dry_runs_and_opting_out(t):
    """A dry run is injected and leaves nothing; `inject: "false"` leaves the pod alone; `"true"` does not."""
    t.open()
    wanted = {"file.x": t.secret(x=canary()) + "#x"}
    made = t.create(pod("dry", wanted), dry_run=True)
    equal([each["name"] for each in made["spec"]["initContainers"]], ["hushpod"], "init containers of the dry run")
    check(not t.api.find("Pod", t.namespace, "dry"), "the dry run made a pod")
    made = t.create(pod("out", {**wanted, "inject": "false"}), dry_run=True)
    check("initContainers" not in made["spec"], "a pod that opted out is injected")
    made = t.create(pod("in", {**wanted, "inject": "true"}), dry_run=True)
    check("initContainers" in made["spec"], "a pod that opted in is not injected")


@test()
def made_up_and_later_containers_are_kept(t):
    """Init containers stay in order, `after:` and `last` are obeyed, and a second pass changes nothing."""
    t.open()
    first, second = container("first", "true"), container("second", "true")
    wanted = {"file.x": t.secret(x=canary()) + "#x"}
    for order, expected in (
        (None, ["hushpod", "first", "second"]),
        ("last", ["first", "second", "hushpod"]),
        ("after:first", ["first", "hushpod", "second"]),
    ):
        keys = {**wanted, **({"init-order": order} if order else {})}
        made = t.create(pod("app", keys, init=[first, second]), dry_run=True)
        equal([each["name"] for each in made["spec"]["initContainers"]], expected, f"order {order}")
        for field in ("uid", "creationTimestamp", "resourceVersion", "managedFields"):
            made["metadata"].pop(field, None)
        made.pop("status", None)
        again = t.create(made, dry_run=True)
        equal(again["spec"], made["spec"], "the spec after a second pass")
