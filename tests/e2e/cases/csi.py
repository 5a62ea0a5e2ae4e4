"""The driver itself: volumes by hand, what it refuses, and what becomes of pods when it, kubelet or a store is away."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

from suite.base import Failed, check, equal, holds, meanwhile, wait
from suite.cluster import kubectl, present
from suite.product import CSI_DRIVER, CSI_NAMESPACE, ROOT, documents
from suite.runner import ALONE, test
from suite.space import BUSYBOX, FOREVER, by_hand, canary, container, deployment, has_run, is_ready, pod, statuses, written

from .outage import LOOK_FIRST, VaultAway

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
DAEMON_SET = "csi.hushpod.dev/daemon-set"
# kubelet's next look at a pod, from which it calls the driver again.
REPUBLISH = 180


@test()
def csi_volume_by_hand_without_the_webhook(t):
    """No annotation: in a namespace of Pod Security `restricted`, with and without fsGroup, two uids, files, a directory
    and the options of the page; and the pods change when the store does."""
    t.open(labels=RESTRICTED)
    value = canary()
    app = t.secret(password=value, other=canary())
    attributes = {"file.password": f"vault:{app}#password", "dir.all": app, "refresh": "1s"}
    grouped = by_hand(pod("grouped", security={"runAsUser": 1000, "fsGroup": 2000}), written(**attributes))
    alone = by_hand(pod("alone", security={"runAsUser": 1000}), written(**attributes))
    owned = by_hand(pod("owned"), written(**attributes, run_as_user="1000", run_as_group="1000"))
    two = pod("two", security={"fsGroup": 2000}, more=[container("second", FOREVER)])
    for each, uid in zip(two["spec"]["containers"], (1000, 3000)):
        each["securityContext"].update(runAsUser=uid)
    expected = {"grouped": "0:2000 440", "alone": "0:0 444", "owned": "1000:1000 400", "two": "0:2000 440"}
    started = t.start(grouped, alone, owned, by_hand(two, written(**attributes)))
    for thing in started:
        name = thing["metadata"]["name"]
        check("initContainers" not in thing["spec"], f"{name} was injected")
        equal(t.sh(name, "stat -L -c '%u:%g %a' /secrets/password"), expected[name], f"owner and mode of {name}")
        equal(t.file(name, "/secrets/password"), value, f"the file of {name}")
        equal(t.sh(name, "ls /secrets/all").split(), ["other", "password"], f"the directory of {name}")
        options = t.sh(name, "grep ' /secrets ' /proc/mounts").split()
        equal((options[2], options[3].split(",")[0]), ("tmpfs", "ro"), "file system and access")
        if t.node:
            # The runtime's own mount of it keeps none of these.
            options = mounts_of(thing, "secrets")[0].split()[3].split(",")
            check({"rw", "nosuid", "nodev", "noexec"} <= set(options), f"mounted {options}")
    equal(t.file("two", "/secrets/password", "second"), value, "what the other uid reads")
    # Pods whose files are alike share a feed, and so a login: `grouped` and `two`.
    logins = t.vault.logins(t.role)
    check(len(logins) <= 3, f"{len(logins)} logins of four pods of one account")
    # Live controls are annotations of the pod here too.
    t.annotate("alone", "hold=true")
    t.driver_says("alone", "held")
    earlier, value = value, canary()
    t.secret(password=value, other=canary())
    for name in expected.keys() - {"alone"}:
        t.sees(name, "/secrets/password", value)
    equal(t.file("alone", "/secrets/password"), earlier, "what a pod on hold has")
    t.annotate("alone", "hold-")
    t.sees("alone", "/secrets/password", value)
    t.never_restarted(*started)


@test()
def csi_a_secret_provider_class_becomes_ours_by_the_page(t):
    """The Deployment of the page, as its difference says; with an image and a secret that are here."""
    t.open()
    value = canary()
    t.secret(path="db", password=value)
    page = (ROOT / "src/csi.md").read_text(encoding="utf-8")
    lines = page.partition("```diff\n")[2].partition("```")[0].splitlines()
    text = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    for page_says, here in (("secret/data/shop/", f"secret/data/{t.namespace}/"), ("role.vault: web", f"role.vault: {t.role}")):
        check(page_says in text, f"the page has no {page_says!r}")
        text = text.replace(page_says, here)
    (thing,) = documents(text)
    (container,) = thing["spec"]["template"]["spec"]["containers"]
    container.update(image=BUSYBOX, imagePullPolicy="Never", command=["sh", "-c", FOREVER])
    t.create(thing)
    (made,) = t.rolled_out("web", replicas=1)
    equal(t.file(made["metadata"]["name"], "/mnt/secrets/db-password", "web"), value, "the file")


@test()
def csi_pods_where_no_driver_runs_get_a_sidecar(t):
    """By what the operator knows of them; and the policy takes the agent for the volume."""
    t.open()
    value = canary()
    thing = pod("app", {"file.password": t.secret(password=value) + "#password", "mode": "csi"})
    thing["metadata"]["labels"]["hushpod-e2e"] = "no-driver"
    started = t.start(thing)
    equal([each["name"] for each in started["spec"]["initContainers"]], ["hushpod"], "init containers")
    equal(t.file("app", "/secrets/password"), value, "the file")


# Attributes of a volume by hand, and what the event says.
REFUSED = {
    "foreign": ({"file.x": "reserved:secret/data/app#x"}, ["file.x", 'may not use provider "reserved"']),
    "elsewhere": ({"file.x": "own:secret/data/team-of-others/app#x"}, ["secret/data/team-of-others/app"]),
    "mistyped": ({"fiel.x": "secret/data/app#x"}, ["fiel.x", '"file.x"']),
    "leaving": ({"secrets": '[{file: ../x, from: "secret/data/app#x"}]'}, ['"../x"', "leaves the volume"]),
    "of-the-pod": ({"file.x": "secret/data/app#x", "notify": "signal:HUP:x"}, ["notify"]),
    "spoofing": (
        {"file.x": "secret/data/app#x", "csi.storage.k8s.io/serviceAccount.name": "other", "namespace": "x"},
        ["namespace"],
    ),
    "oversize": ({"file.x": "secret/data/app#x", "size-limit": "900Mi"}, ["size-limit"]),
    "volumes": ({"file.x": "sops:cm/x.yaml#x"}, ["mode sidecar"]),
    "nothing": ({"refresh": "1s"}, ["nothing to deliver"]),
}


@test()
def csi_volume_by_hand_gets_no_more_than_policy_allows(t):
    """What the webhook would refuse, the driver refuses: an event says so, nothing starts, and its neighbour goes on."""
    t.open()
    value = canary()
    reference = t.secret(password=value) + "#password"
    for name, (attributes, _) in REFUSED.items():
        t.create(by_hand(pod(name), written(**attributes)))
    t.create(by_hand(pod("writable"), written(read_only=False, **{"file.x": "secret/data/app#x"})))
    t.create(by_hand(pod("absent"), written(**{"file.x": f"secret/data/{t.namespace}/absent#x"})))
    t.start(by_hand(pod("good"), written(**{"file.password": reference})))
    equal(t.file("good", "/secrets/password"), value, "the file of the neighbour")
    for name, (_, parts) in REFUSED.items():
        t.event(name, "FailedMount", *parts)
    t.event("writable", "FailedMount", "readOnly")
    t.event("absent", "FailedMount", f"secret/data/{t.namespace}/absent")
    # What is not there when the pod is created may come.
    t.secret(path="absent", x=value)
    started = {"good"}
    wait("the secret that came later", 60, lambda: is_ready(t.pod("absent")) and started.add("absent") is None)
    for name in ("writable", *REFUSED):
        check(not has_run(t.pod(name)), f"{name} has started")
        kubectl("-n", t.namespace, "delete", "pod", name, "--timeout=20s")


@test()
def csi_pods_of_other_accounts_share_nothing(t):
    """One reference, two accounts of which Vault lets one read: the other gets none of it."""
    t.open()
    reference = t.secret(password=canary()) + "#password"
    t.start(by_hand(pod("app"), written(**{"file.password": reference})))
    t.create(by_hand(pod("stranger", account="other"), written(**{"file.password": reference})))
    t.event("stranger", "FailedMount", "vault")
    check(not has_run(t.pod("stranger")), "the stranger has started")


@test(node=True)
def csi_twenty_pods_at_once_share_one_login(t):
    """Twenty replicas that start together: all have the files before their first instruction, by one login."""
    t.open()
    value = canary()
    wanted = {"file.password": t.secret(password=value) + "#password", "mode": "csi"}
    t.create(deployment(pod("web", wanted, LOOK_FIRST), replicas=20))
    pods = t.rolled_out("web", replicas=20, seconds=180)
    for thing in pods:
        name = thing["metadata"]["name"]
        equal(t.log(name).strip(), "complete", f"what {name} found")
        equal(len(mounts_of(thing, "hushpod-secrets")), 1, f"mounts of {name}")
    equal(len(t.vault.logins(t.role)), 1, "logins")
    t.never_restarted(*pods)


def mounts_of(thing, volume=""):
    """Of the driver's, those of a pod, as the node's /proc/mounts has them."""
    lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    uid = thing["metadata"]["uid"]
    return [each for each in lines if each.startswith("hushpod-csi ") and uid in each and f"/{volume}" in each]


def driver_pid(t):
    return t.node.pid(statuses(t.suite.product.driver())["csi"])


def driver_ready(t):
    wait("the driver to be ready", 60, lambda: is_ready(t.suite.product.driver()))


class DriverAway:
    """No pod of the driver is on the node inside the `with` block, as after a DaemonSet was taken away too early."""

    def __init__(self, t):
        self.t = t

    def select(self, value):
        patch = {"spec": {"template": {"spec": {"nodeSelector": {"hushpod-e2e": value}}}}}
        self.t.api.patch("DaemonSet", CSI_NAMESPACE, "hushpod-csi", patch, "apps/v1")

    def __enter__(self):
        self.select("nowhere")
        wait("the driver to be gone", 60, lambda: not self.t.api.list("Pod", CSI_NAMESPACE))
        return self

    def __exit__(self, *_):
        self.select(None)
        driver_ready(self.t)


def set_image(image):
    kubectl("-n", CSI_NAMESPACE, "set", "image", "daemonset/hushpod-csi", f"csi={image}")


def driven_by(t, image):
    """Waits until the driver's pod is one of this image."""
    kubectl("-n", CSI_NAMESPACE, "rollout", "status", "daemonset/hushpod-csi", "--timeout=90s")
    (container,) = t.suite.product.driver()["spec"]["containers"]
    equal(container["image"], image, "the driver's image")


def upgraded(t, image):
    set_image(image)
    driven_by(t, image)


def upgraded_from_the_release_before(t, image):
    """Which wrote down less of each volume: tests/data/csi/0.1.0."""
    fields = json.loads(next((ROOT / "tests/data/csi/0.1.0/volumes").iterdir()).read_text()).keys()
    with DriverAway(t):
        for path in (t.suite.product.driver_state() / "volumes").iterdir():
            record = json.loads(path.read_text())
            path.write_text(json.dumps({name: value for name, value in record.items() if name in fields}))
        set_image(image)
    driven_by(t, image)


def rolled_back(t, image):
    kubectl("-n", CSI_NAMESPACE, "rollout", "undo", "daemonset/hushpod-csi")
    driven_by(t, image)


def killed(t, _):
    pid = driver_pid(t)
    os.kill(pid, signal.SIGKILL)
    wait("another process", 60, lambda: driver_pid(t) != pid)
    driver_ready(t)


def pair(t, thing):
    """The two files of a pod that are always written together, of one generation, as the node has them."""
    now = present(t.node.volume(thing, "csi", "hushpod-secrets") / "mount") / "pair"
    try:
        return tuple((now / name).read_text(encoding="ascii") for name in "ab")
    except OSError as error:
        raise Failed(f"{thing['metadata']['name']}: {error}") from None


def shown_program(thing):
    """Where the program for variables comes from that a pod is shown: a directory of the driver's file system of them."""
    lines = [each.split() for each in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    uid = thing["metadata"]["uid"]
    shown = [fields[3] for fields in lines if uid in fields[4] and "/hushpod-bin/" in fields[4]]
    equal(len(shown), 1, "mounts of the program")
    return shown[0]


@test(when=ALONE, node=True)
def p4_csi_pods_outlive_their_driver(t):
    """Under fifty pods: signal 9, an upgrade of the DaemonSet from another build's image, the rollback, and the upgrade from
    what the release before kept in mind. No file is ever missing, no pod is restarted, there is neither a second login nor
    a second lease, and each pod sees each rotation. Then the older image is deleted, and a container whose program came
    with it starts again."""
    product = t.suite.product
    t.open()
    value, token = canary(), canary()
    wanted = {"dir.pair": t.secret(a=value, b=value), "refresh": "1s", "mode": "csi"}
    reading = [pod(f"reader-{number}", wanted, ["/programs/reader"]) for number in range(4)]
    reading.append(pod("leased", {**wanted, "dir.db": t.database()}, ["/programs/reader"]))
    variable = {"env.HF_TOKEN": t.secret(path="token", HF_TOKEN=token) + "#HF_TOKEN"}
    older, program = product.older_image()
    try:
        upgraded(t, older)
        t.create(deployment(pod("crowd", wanted), replicas=44))
        things = t.start(*reading, pod("wrapped", {**wanted, **variable}, f"env >/tmp/environment; {FOREVER}"))
        things += t.rolled_out("crowd", replicas=44, seconds=150)
        before = t.leases(), t.vault.logins(t.role)
        equal(len(before[0]), 1, "leases")
        t.suite.canaries[t.file("leased", "/secrets/db/password")] = f"{t.title} leased password"

        def all_there(_):
            for each in things:
                a, b = pair(t, each)
                check(a == b, f"{each['metadata']['name']} has a torn set")

        with meanwhile(all_there) as outcomes:
            for disturb, image in (
                (killed, older),
                (upgraded, product.csi_image),
                (rolled_back, older),
                (upgraded_from_the_release_before, product.csi_image),
            ):
                disturb(t, image)
                value = canary()
                t.secret(a=value, b=value)
                for each in things:
                    wait(f"{each['metadata']['name']} to see it", 30, lambda: pair(t, each) == (value, value))  # noqa: B023
                equal((t.leases(), t.vault.logins(t.role)), before, f"leases and logins after {disturb.__name__}")
        failures = list(filter(None, outcomes))
        equal(failures[:3], [], f"{len(failures)} failures of {len(outcomes)} looks at fifty pods")
        for each in reading:
            name = each["metadata"]["name"]
            turns, missing, torn = map(int, t.file(name, "/tmp/count").split())
            check(turns >= 100, f"the reader came to only {turns} turns")
            equal((missing, torn), (0, 0), f"missing and torn sets of {turns} ({name})")
        t.never_restarted(*things)
        t.node.images("rm", "--sync", older)
        check(older not in t.node.images("ls", "-q"), "the older image is still there")
        t.sh("wrapped", "rm /tmp/environment; kill 1")
        wait("the container to start again", 30, lambda: statuses(t.pod("wrapped"))["app"]["restartCount"] == 1)
        t.ready("wrapped", 30)
        equal(t.sh("wrapped", "sed -n 's/^HF_TOKEN=//p' /tmp/environment"), token, "the variable")
        equal(shown_program(t.pod("wrapped")), f"/{program}", "where its program comes from")
    finally:
        upgraded(t, product.csi_image)


@test(when=ALONE, node=True)
def p7_csi_holds_while_vault_is_down_and_kubelet_restarts(t):
    """Kubelet is killed while the driver waits for a store: the application starts when its files are there, and not
    before; and the volume is mounted once."""
    t.open()
    value = canary()
    thing = pod("waiting", {"file.password": t.secret(password=value) + "#password", "mode": "csi"}, LOOK_FIRST)
    with VaultAway(t) as vault:
        t.create(thing)
        t.event("waiting", "Scheduled")
        time.sleep(2)  # kubelet's call
        t.node.script("kubelet", "stop")
        t.node.script("kubelet", "start")
        holds("the application waits", 10, lambda: not has_run(t.pod("waiting")))
        vault.back()
        # kubelet's new call waits on the driver, which asks again within seconds.
        wait("the application to start", 60, lambda: has_run(t.pod("waiting")))
    equal(t.log("waiting").strip(), "complete", "what the application found")
    equal(t.file("waiting", "/secrets/password"), value, "the file")
    equal(len(mounts_of(t.pod("waiting"), "hushpod-secrets")), 1, "mounts of the volume")
    t.never_restarted(t.pod("waiting"))


@test(when=ALONE, node=True)
def csi_pods_that_wait_are_deleted_at_once(t):
    """A store is down: the pod's deletion is not kept waiting for it, and nothing of the volume is left."""
    t.open()
    with VaultAway(t):
        attributes = {"file.password": f"secret/data/{t.namespace}/app#password"}
        t.create(by_hand(pod("waiting"), written(**attributes)))
        t.event("waiting", "Scheduled")
        time.sleep(3)  # kubelet's call
        thing = t.pod("waiting")
        start = time.monotonic()
        t.delete("waiting", seconds=20)
        took = time.monotonic() - start
        check(took <= 5, f"the deletion took {took:.1f} s")
    wait("kubelet to clear up", 20, lambda: not mounts_of(thing))


@test(when=ALONE, node=True)
def csi_volumes_without_state_are_adopted(t):
    """All that the driver keeps in mind is deleted while it is away: the files stay, and kubelet's next calls bring the
    volumes back to it."""
    t.open()
    value = canary()
    wanted = {"dir.pair": t.secret(a=value, b=value), "refresh": "1s", "mode": "csi"}
    thing = t.start(pod("app", wanted, ["/programs/reader"]))
    with DriverAway(t):
        state = t.suite.product.driver_state()
        check(list(state.glob("volumes/*")), f"nothing is kept in {state}")
        for part in ("volumes", "feeds"):
            shutil.rmtree(state / part)
    equal(t.file("app", "/secrets/pair/a"), value, "the file")
    value = canary()
    t.secret(a=value, b=value)
    t.sees("app", "/secrets/pair/a", value, seconds=REPUBLISH)
    turns, missing, torn = map(int, t.file("app", "/tmp/count").split())
    equal((missing, torn), (0, 0), f"missing and torn sets of {turns}")
    t.never_restarted(thing)


@test(when=ALONE, node=True)
def csi_pods_without_a_driver(t):
    """On a node without the driver a pod waits, with an event that names it; those that run keep their files. Deletions
    wait too (which is why the chart's page says what to take away first), and end when it is back."""
    t.open()
    value = canary()
    wanted = {"file.password": t.secret(password=value) + "#password", "mode": "csi"}
    t.start(pod("running", wanted), pod("going", wanted))
    with DriverAway(t):
        t.create(pod("waiting", wanted))
        t.event("waiting", "FailedMount", CSI_DRIVER)
        # Who reads on finds whose pods the driver is: at the pod, and at what the event names.
        daemon_set = f"{CSI_NAMESPACE}/hushpod-csi"
        for thing in (t.pod("waiting"), t.api.get("CSIDriver", "", CSI_DRIVER, "storage.k8s.io/v1")):
            equal(thing["metadata"]["annotations"].get(DAEMON_SET), daemon_set, f"what {thing['kind']} says")
        equal(t.file("running", "/secrets/password"), value, "the file of a running pod")
        t.api.delete("Pod", t.namespace, "going")
        holds("the deletion waits", 5, lambda: t.api.find("Pod", t.namespace, "going"))
    wait("the deletion", 120, lambda: not t.api.find("Pod", t.namespace, "going"))
    t.ready("waiting", seconds=150)
    equal(t.file("waiting", "/secrets/password"), value, "the file")


@test(when=ALONE, node=True)
def csi_startup_taint_keeps_pods_off_until_the_driver_is_there(t):
    """A node that comes with the taint takes no pod until kubelet has registered the driver, which takes it away; other
    taints stay."""
    product = t.suite.product
    t.open()
    (node,) = (each["metadata"]["name"] for each in t.api.call("GET", "/api/v1/nodes")["items"])
    taints = lambda: {each["key"] for each in t.api.get("Node", None, node)["spec"].get("taints", [])}  # noqa: E731
    value = canary()
    wanted = {"file.password": t.secret(password=value) + "#password", "mode": "csi"}
    csi = product.values()["csi"]
    # One that keeps no pod away.
    other = "hushpod-e2e/other=:PreferNoSchedule"
    try:
        product.install(csi={**csi, "startupTaint": True})
        with DriverAway(t):
            kubectl("taint", "node", node, f"{CSI_DRIVER}/not-ready=:NoSchedule", other)
            t.create(pod("early", wanted))
            t.event("early", "FailedScheduling", "untolerated taint")
        wait("the taint to go", 30, lambda: taints() == {"hushpod-e2e/other"})
        t.ready("early", 60)
        equal(t.file("early", "/secrets/password"), value, "the file")
    finally:
        for taint in taints() & {f"{CSI_DRIVER}/not-ready", "hushpod-e2e/other"}:
            kubectl("taint", "node", node, f"{taint}-")
        product.install()
        driver_ready(t)


@test(node=True)
def csi_variables_come_from_a_copy_of_the_program(t):
    """The program of a wrapped container is a read-only mount of a copy on the node, which programs run from."""
    t.open()
    token = canary()
    t.start(pod("app", {"env.HF_TOKEN": t.secret(HF_TOKEN=token) + "#HF_TOKEN", "mode": "csi"}, f"env >/tmp/environment; {FOREVER}"))
    equal(t.sh("app", "sed -n 's/^HF_TOKEN=//p' /tmp/environment"), token, "the variable")
    options = t.sh("app", "grep ' /hushpod-bin ' /proc/mounts").split()
    equal(options[2], "tmpfs", "the program's file system")
    check("ro" in options[3].split(",") and "noexec" not in options[3].split(","), f"mounted {options[3]}")
    shown = shown_program(t.pod("app"))
    check(re.fullmatch(r"/[0-9a-f]{64}", shown), f"the program comes from {shown}")
