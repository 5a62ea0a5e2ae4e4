"""The files: when they are there, where, whose, and for how many kinds of pods."""

import base64
import hashlib
import json
import os
import re

from suite.base import Failed, Skipped, check, contains, equal, wait
from suite.cluster import kubectl, present
from suite.runner import test
from suite.space import FOREVER, RESTRICTED, canary, container, deployment, job, named, pod, statuses, termination

MODES = ("sidecar", "init+sidecar", "init", "csi")
INJECTED = {
    "sidecar": {"hushpod"},
    "init+sidecar": {"hushpod", "hushpod-init"},
    "init": {"hushpod-init"},
    "csi": set(),
}
# With and without a container of ours: where only one of the agents is of interest.
BOTH = ("sidecar", "csi")
TOKENS = "/var/run/secrets/kubernetes.io/serviceaccount"
# The first instruction reads the file; without it the container ends, and has restarted when it is ready.
READ_FIRST = f"set -e; sha256sum </secrets/password; {FOREVER}"


def digest(value):
    return hashlib.sha256(value.encode()).hexdigest()


def ours(thing):
    spec = thing["spec"]
    return {each["name"]: each for each in spec["initContainers"] + spec["containers"] if "hushpod" in each["name"]}


@test()
def p7_files_are_there_before_the_first_instruction(t):
    """In two replicas of each mode later init containers and the first instruction find the file, in tmpfs, read-only."""
    t.open()
    value = canary()
    reference = t.secret(password=value) + "#password"
    for mode in MODES:
        later = container("later", "sha256sum </secrets/password")
        t.create(deployment(pod(named(mode), {"file.password": reference, "mode": mode}, READ_FIRST, init=[later])))
    for mode in MODES:
        for each in t.rolled_out(named(mode)):
            check_files(t, each, mode, value)


def check_files(t, each, mode, value):
    """What a pod has that was to read them first."""
    name = each["metadata"]["name"]
    equal(set(ours(each)), INJECTED[mode], f"injected containers of {name}")
    for reader in ("later", "app"):
        equal(t.log(name, reader).split()[0], digest(value), f"what {reader} of {name} read first")
    t.never_restarted(each)
    equal(t.file(name, "/secrets/password"), value, f"the file of {name}")
    mount = t.sh(name, "grep ' /secrets ' /proc/mounts").split()
    equal((mount[2], mount[3].split(",")[0]), ("tmpfs", "ro"), f"file system and access of /secrets in {name}")
    for path in ("/secrets/new", "/secrets/..data/new", "/secrets/password"):
        contains(t.sh(name, f"(echo >{path}) 2>&1 || true"), "Read-only file system", f"writing {path} in {name}")
    # Without it, a link that an agent must not follow would go unnoticed here and break elsewhere.
    equal(t.sh(name, "cat /proc/sys/fs/protected_symlinks"), "1", "fs.protected_symlinks")


@test(
    each={
        "one_uid": ({"runAsUser": 1000, "runAsGroup": 1000}, [{}, {}], "^1000:", " 400$"),
        "pod_of_two_uids_with_fs_group": (
            {"fsGroup": 2000},
            [{"runAsUser": 1000}, {"runAsUser": 3000}],
            "^(65532|0):2000",
            " 440$",
        ),
        "two_uids": ({}, [{"runAsUser": 1000}, {"runAsUser": 3000}], "^(65532|0):", " 444$"),
    }
)
def files_belong_to(t, shape):
    """Files are readable by as few as possible, and by all containers that mount them (src/README.md)."""
    security, contexts, owner, mode_bits = shape
    t.open()
    value = canary()
    reference = t.secret(password=value) + "#password"
    things = []
    for mode in BOTH:
        thing = pod(mode, {"file.password": reference, "mode": mode}, security=security)
        thing["spec"]["containers"].append(container("second", FOREVER))
        for each, context in zip(thing["spec"]["containers"], contexts):
            each["securityContext"].update(context)
        things.append(thing)
    t.start(*things)
    for mode in BOTH:
        for name in ("app", "second"):
            found = t.sh(mode, "stat -L -c '%u:%g %a' /secrets/password", name)
            for expected in (owner, mode_bits):
                check(re.search(expected, found), f"owner and mode ({mode}): {found!r} instead of {expected!r}")
            equal(t.file(mode, "/secrets/password", name), value, f"the file as {name} sees it")


def outer_uid(t, name):
    """The node's uid of root in a container."""
    return int(t.sh(name, "cat /proc/self/uid_map").split()[1])


@test()
def p6_files_in_a_user_namespace(t):
    """`hostUsers: false`: the node's ids are others, and files, owner, mode and rotation are as ever, in every mode."""
    t.open()
    t.create(pod("plain", hostUsers=False))
    try:
        t.ready("plain", 40)
    except Failed:
        if t.node:
            raise  # ours has a runtime that maps mounts
        told = kubectl("-n", t.namespace, "get", "events", "--field-selector=type!=Normal", "-o", "jsonpath={.items[*].message}")
        raise Skipped(f"this node starts no pod with hostUsers: false: {told[:300]}") from None
    if not outer_uid(t, "plain"):
        raise Skipped("this cluster gives a pod with hostUsers: false no user namespace")
    t.delete("plain")
    value, later = canary(), canary()
    wanted = {"file.password": t.secret(password=value) + "#password", "refresh": "1s"}
    pods = [pod(named(mode), {**wanted, "mode": mode}, READ_FIRST, hostUsers=False) for mode in MODES]
    names = [thing["metadata"]["name"] for thing in t.start(*pods)]
    for name in names:
        check(outer_uid(t, name), f"{name} has no user namespace")
        equal(t.log(name).split()[0], digest(value), f"what {name} read first")
        equal(t.sh(name, "stat -L -c '%u %a' /secrets/password"), "1000 400", "owner and mode")
    t.secret(password=later)
    for name in names:
        if name != "init":
            t.sees(name, "/secrets/password", later)


@test()
def only_selected_containers_see_the_volume(t):
    """`containers` names who gets the mount; the others have no trace of it."""
    t.open()
    wanted = {"file.password": t.secret(password=canary()) + "#password", "containers": "app"}
    t.start(*(pod(mode, {**wanted, "mode": mode}, more=[container("bystander", FOREVER)]) for mode in BOTH))
    count = "grep -c ' /secrets ' /proc/mounts"
    for mode in BOTH:
        t.sh(mode, "test -s /secrets/password")
        found = [t.sh(mode, count, name, ok=False).stdout.strip() for name in ("app", "bystander")]
        equal(found, ["1", "0"], f"mounts in mode {mode}")


@test(node=True)
def p6_injected_containers_hold_no_api_token(t):
    """The agents see one token per provider, of that provider's audience, and none that the API server takes."""
    t.open()
    wanted = {"file.password": t.secret(password=canary()) + "#password", "mode": "init+sidecar"}
    thing = t.start(pod("app", wanted))
    volumes = {each["name"]: each for each in thing["spec"]["volumes"]}
    for name, each in ours(thing).items():
        mounted = [mount["name"] for mount in each["volumeMounts"] if mount["mountPath"] == TOKENS]
        equal(mounted, ["hushpod-tokens"], f"what {name} has at {TOKENS}")
        others = {mount["name"] for mount in each["volumeMounts"]} - {"hushpod-tokens"}
        check(not any("projected" in volumes[other] for other in others), f"{name} mounts another token: {others}")
    sources = volumes["hushpod-tokens"]["projected"]["sources"]
    equal([each["serviceAccountToken"]["audience"] for each in sources], ["vault"], "audiences")

    root = f"/proc/{t.node.pid(statuses(thing)['hushpod'])}/root"
    equal([name for name in os.listdir(root + TOKENS) if not name.startswith("..")], ["vault"], "tokens in the agent")
    # Not through kubelet's links, which belong to the container's uid since 1.37.
    payload = (present(root + TOKENS) / "vault").read_text(encoding="ascii").split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    equal(claims["aud"], ["vault"], "the token's audience")
    # The application's own token is its own affair: that it is there shows that this looks in the right place.
    t.sh("app", f"test -s {TOKENS}/token")


@test()
def p6_a_pod_without_an_api_token_gets_its_secret(t):
    """`automountServiceAccountToken: false`: the application has no token, and the agents log in with theirs."""
    t.open()
    value = canary()
    wanted = {"file.password": t.secret(password=value) + "#password", "mode": "init+sidecar"}
    thing = t.start(pod("app", wanted, READ_FIRST, automountServiceAccountToken=False))
    equal(thing["spec"]["automountServiceAccountToken"], False, "automountServiceAccountToken")
    equal(t.log("app").split()[0], digest(value), "what the application read first")
    equal(t.sh("app", f"ls {TOKENS} 2>/dev/null", ok=False).stdout, "", "the application's tokens")
    # The sidecar's login, too: it reads anew.
    value = canary()
    t.secret(password=value)
    t.annotate("app", "refresh-now=1")
    t.sees("app", "/secrets/password", value)
    t.never_restarted(thing)


@test(each={"sidecar": "sidecar", "init_and_sidecar": "init+sidecar"})
def p6_the_application_reaches_neither_token_nor_state(t, mode):
    """In a shared process namespace, with the agent's own uid, /proc/<agent> is closed; another process's is not."""
    t.open()
    wanted = {"file.password": t.secret(password=canary()) + "#password", "mode": mode, "notify": "signal:HUP:counter"}
    thing = pod("app", wanted, ["/programs/counter"], more=[container("open", "exec sleep 100000")])
    thing = t.start(thing)
    equal(thing["spec"].get("shareProcessNamespace"), True, "shareProcessNamespace")
    equal(t.sh("app", f"ls -d /hushpod {TOKENS}/vault 2>/dev/null", ok=False).stdout, "", "paths of the agent")

    look = """
for process in /proc/[0-9]*; do
  [ "$(cat $process/comm)" = NAME ] || continue
  echo seen
  for path in root/ cwd/ fd/; do ls $process/$path >/dev/null 2>&1 && echo $path; done
  for path in environ maps mem; do (: <$process/$path) 2>/dev/null && echo $path; done
done
true"""
    found = t.sh("app", look.replace("NAME", "hushpod-agent")).split()
    equal(found, ["seen"], "what the application reaches of the agent")
    # The same look at a process without the guard, of the same uid: it must be able to see something.
    found = t.sh("app", look.replace("NAME", "sleep")).split()
    check(
        {"root/", "cwd/", "fd/", "environ", "maps", "mem"} <= set(found),
        f"the look at an unguarded process saw only {found}",
    )


@test(
    each={
        "on_failure_sidecar": ("OnFailure", "sidecar"),
        "never_by_default": ("Never", None),
        "never_csi": ("Never", "csi"),
    }
)
def a_job_completes(t, shape):
    """A Job's pod ends although a sidecar runs in it."""
    restart, mode = shape
    t.open()
    value = canary()
    wanted = {"file.password": t.secret(password=value) + "#password", **({"mode": mode} if mode else {})}
    t.create(job(pod("once", wanted, "sha256sum </secrets/password", restartPolicy=restart)))
    wait(
        "the Job to complete", 90, lambda: t.api.get("Job", t.namespace, "once", "batch/v1")["status"].get("succeeded")
    )
    name = t.pods("once")[0]["metadata"]["name"]
    equal(t.log(name).split()[0], digest(value), "what the Job read")


@test()
def a_job_that_is_refused_its_secrets_fails(t):
    """With restartPolicy Never the default mode lets it fail, instead of trying for ever, and says why."""
    t.open()
    t.create(job(pod("once", {"file.x": f"secret/data/{t.namespace}/absent#x"}, "true", restartPolicy="Never")))
    status = wait(
        "the Job to fail", 90, lambda: t.api.get("Job", t.namespace, "once", "batch/v1").get("status", {}).get("failed")
    )
    equal(status, 1, "failed pods")
    failed = t.pods("once")[0]
    contains(termination(failed, "hushpod-init"), f"secret/data/{t.namespace}/absent", "the termination message")
    check(
        "app" not in statuses(failed) or statuses(failed)["app"]["state"].get("waiting"), "the application has started"
    )


@test()
def p8_a_restricted_namespace_admits_the_pods(t):
    """Pod Security `restricted` admits injected pods of each mode, and refuses the same pods with one privilege."""
    t.open(labels={"pod-security.kubernetes.io/enforce": "restricted"})
    reference = t.secret(password=canary()) + "#password"
    more = {mode: {} if mode == "init" else {"notify": "signal:HUP:counter"} for mode in MODES}
    more["csi"]["env.PASSWORD"] = reference
    wanted = {mode: {"file.password": reference, "mode": mode, **more[mode]} for mode in MODES}
    t.start(*(pod(named(mode), wanted[mode], ["/programs/counter"]) for mode in MODES))
    for mode in MODES:
        bad = pod("bad", wanted[mode])
        bad["spec"]["containers"][0]["securityContext"] = {**RESTRICTED, "allowPrivilegeEscalation": True}
        t.refused(bad, "violates PodSecurity")


@test()
def a_guaranteed_pod_stays_guaranteed(t):
    """Our containers get requests that equal limits where all others do, however those are written; and only there."""
    t.open()
    reference = t.secret(password=canary()) + "#password"
    resources = {
        "guaranteed": ({"limits": {"cpu": "20m", "memory": "16Mi"}}, "Guaranteed"),
        "spelled": (
            {"requests": {"cpu": "0.02", "memory": "16777216"}, "limits": {"cpu": "20m", "memory": "16Mi"}},
            "Guaranteed",
        ),
        "burstable": ({"limits": {"memory": "16Mi"}}, "Burstable"),
    }
    expected, things = {}, []
    for mode in MODES:
        for name, (each, quality) in resources.items():
            thing = pod(f"{name}-{named(mode)}", {"file.password": reference, "mode": mode})
            thing["spec"]["containers"][0]["resources"] = each
            things.append(thing)
            expected[thing["metadata"]["name"]] = quality
    found = {each["metadata"]["name"]: each["status"]["qosClass"] for each in t.start(*things, seconds=120)}
    equal(found, expected, "QoS classes")


@test()
def a_pod_with_resources_as_a_whole_has_room_for_ours(t):
    """`spec.resources` (1.34): ours have no requests and limits of their own, so the sums hold, and run in it."""
    t.open()
    value = canary()
    reference = t.secret(password=value) + "#password"
    resources = {"cpu": "100m", "memory": "96Mi"}
    things = []
    for mode in MODES:
        thing = pod(named(mode), {"file.password": reference, "mode": mode})
        thing["spec"]["resources"] = {"requests": resources, "limits": resources}
        thing["spec"]["containers"][0]["resources"] = {"requests": resources}
        things.append(thing)
    for mode, started in zip(MODES, t.start(*things)):
        equal(started["status"]["qosClass"], "Guaranteed", f"QoS class in mode {mode}")
        agents = [each for each in started["spec"].get("initContainers", []) if each["name"].startswith("hushpod")]
        equal([each.get("resources", {}) for each in agents], [{}] * len(agents), f"resources of ours in mode {mode}")
        equal(t.file(named(mode), "/secrets/password"), value, f"what the application reads in mode {mode}")


@test()
def drain_and_delete_are_prompt(t):
    """A running pod ends as soon as its application does, with a sidecar or a volume of the driver."""
    t.open()
    wanted = {"file.password": t.secret(password=canary()) + "#password"}
    t.start(*(pod(mode, {**wanted, "mode": mode}, terminationGracePeriodSeconds=30) for mode in BOTH))
    for mode in BOTH:
        t.delete(mode, seconds=15)


@test()
def formats_and_templates(t):
    """The full form: one request, many files, a template, nested directories, an optional secret."""
    t.open()
    password, user = canary(), canary()
    app = t.secret(username=user, password=password, nested='{"deep": "value-in-json"}')
    listed = f"""
- {{file: db.json, from: "{app}", format: json, file-mode: "0440"}}
- {{file: env/db.env, from: "{app}", format: dotenv}}
- {{file: deep, from: "{app}#/nested/deep"}}
- {{dir: each, from: "{app}"}}
- {{file: absent, from: "secret/data/{t.namespace}/absent#x", optional: true}}
- file: app.conf
  from: {{db: "{app}"}}
  template: |
    user={{{{ db.username }}}};password={{{{ db.password }}}}
"""
    t.start(*(pod(mode, {"secrets": listed, "mode": mode}) for mode in BOTH))
    for mode in BOTH:
        equal(
            json.loads(t.file(mode, "/secrets/db.json")),
            {"username": user, "password": password, "nested": '{"deep": "value-in-json"}'},
            "db.json",
        )
        equal(t.sh(mode, "stat -L -c %a /secrets/db.json"), "440", "its mode")
        equal(t.sh(mode, ". /secrets/env/db.env; echo $username $password"), f"{user} {password}", "the sourced file")
        equal(t.file(mode, "/secrets/deep"), "value-in-json", "the pointer's file")
        equal(t.sh(mode, "ls /secrets/each").split(), ["nested", "password", "username"], "the directory's files")
        equal(t.file(mode, "/secrets/app.conf").strip(), f"user={user};password={password}", "the template's file")
        equal(t.sh(mode, "ls /secrets/absent 2>/dev/null", ok=False).stdout, "", "the optional file")
