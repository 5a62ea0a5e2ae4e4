"""Applications that only read environment variables: what they find there, and what happens after a change."""

import time
import urllib.request

from suite.base import Skipped, check, contains, equal, holds, wait
from suite.cluster import kubectl
from suite.runner import ALONE, WAITING, test
from suite.space import FOREVER, container, canary, deployment, is_ready, job, pod, statuses, termination

FAST = {"refresh": "1s"}
PROGRAM = "/hushpod-bin/hushpod-agent"
EXEC = [PROGRAM, "exec", "--env", "/secrets/app.env", "--"]
# What an application was started with, where no log shows it.
SHOW = "env >/tmp/environment"
MODES = {"sidecar": "sidecar", "init_and_sidecar": "init+sidecar", "init": "init", "csi": "csi"}
# Modes with an agent that stays, or one at all.
STAYING = {mode: MODES[mode] for mode in ("sidecar", "init_and_sidecar")}
AGENTS = {mode: word for mode, word in MODES.items() if mode != "csi"}


def asking(reference, **more):
    """Annotations of a dotenv file that becomes variables."""
    return {"secrets": f'- {{file: app.env, from: "{reference}", format: dotenv}}', "env": "app.env", **FAST, **more}


def variable(t, name, variable, container="app"):
    """What the application was started with; the present start's, since /tmp is the container's own."""
    return t.sh(name, f"sed -n 's/^{variable}=//p' /tmp/environment", container)


def resident(t, name):
    """What PID 1 takes of the memory."""
    return " ".join(t.sh(name, "grep -E '^(VmRSS|RssAnon|Threads)' /proc/1/status").split())


@test(each=MODES)
def environment_is_the_applications_and_no_process_stays(t, mode):
    """A Deployment of a wrapped and an unwrapped container: exact values in the one, none in the other or in a shell of
    `kubectl exec`, and PID 1 is the application itself. What was changed waits for the next start."""
    t.open()
    token, quoted = canary(), f"{canary()} 'it' \"is\" $HOME \\"
    lines = f"{canary()}\n{canary()}"
    reference = t.secret(HF_TOKEN=token, QUOTED=quoted, HOME=canary(), LINES=lines)
    keys = asking(reference, containers="app", mode=mode)
    keys["env.SINGLE"] = f"{reference}#LINES"
    template = pod("web", keys, f"{SHOW}; {FOREVER}", more=[container("plain", f"{SHOW}; {FOREVER}")])
    template["spec"]["containers"][0]["env"] = [{"name": "HOME", "value": "/tmp"}]
    t.create(deployment(template))
    names = [each["metadata"]["name"] for each in t.rolled_out("web")]
    for name in names:
        equal(variable(t, name, "HF_TOKEN"), token, f"HF_TOKEN of {name}")
        equal(variable(t, name, "QUOTED"), quoted, f"QUOTED of {name}")
        equal(variable(t, name, "HOME"), "/tmp", "HOME, which the pod's own env sets")
        found = t.sh(name, "tr '\\0' '\\1' </proc/1/environ").split("\1")
        check(f"LINES={lines}" in found and f"SINGLE={lines}" in found, "a value of two lines is not as it was")
        equal(t.sh(name, "cat /proc/1/comm"), "sh", "PID 1")
        check("hushpod" not in t.sh(name, "cat /proc/[0-9]*/comm"), "a process of ours stays")
        check(token not in t.sh(name, "env"), "a shell of kubectl exec has the values")
        command = ["-n", t.namespace, "exec", name, "-c", "app", "--", *EXEC, "sh", "-c", "echo $HF_TOKEN"]
        equal(kubectl(*command).strip(), token, "what is run through hushpod-agent exec has")
        check("HF_TOKEN" not in t.file(name, "/tmp/environment", "plain"), "the other container has it, too")
    if mode == "init":
        return
    t.secret(HF_TOKEN=canary(), QUOTED=quoted, HOME=canary(), LINES=lines)
    name = names[0]
    running = variable(t, name, "HUSHPOD_GENERATION")
    newest = wait("a new generation", 20, lambda: (now := t.sh(name, "readlink /secrets/..data")[2:]) != running and now)
    status = t.sh(name, f"{PROGRAM} status")
    contains(status, f"1 sh: running with generation {running}, newest {newest}", "the status")
    holds("the old value", 2, lambda: variable(t, name, "HF_TOKEN") == token)
    equal(statuses(t.pod(name))["app"]["restartCount"], 0, "restarts")


@test(each=STAYING)
def environment_of_an_old_generation_is_told(t, mode):
    """With a metrics port: which generation an application of another uid runs with is in the agent's metrics, and in
    `kubectl describe` once the stores have a newer one, and nothing is restarted for it."""
    t.open()
    keys = asking(t.secret(HF_TOKEN=canary()), mode=mode, **{"metrics-port": "9102", "run-as-user": "3000"})
    thing = pod("app", keys, f"{SHOW}; {FOREVER}")
    thing["spec"]["containers"][0]["securityContext"] = {"runAsUser": 4000}
    address = t.start(thing)["status"]["podIP"]

    def metrics():
        with urllib.request.urlopen(f"http://{address}:9102/metrics", timeout=5) as answer:
            return answer.read().decode().splitlines()

    running = variable(t, "app", "HUSHPOD_GENERATION")
    for role in ("delivered", "newest", "running"):
        line = f'hushpod_generation_info{{role="{role}",generation="{running}"}} 1'
        wait(f"{role} in the metrics", 10, lambda: line in metrics())
    check("hushpod_outdated_generations 0" in metrics(), "there is something outdated")
    t.secret(HF_TOKEN=canary())
    newest = wait("a new generation", 20, lambda: (now := t.sh("app", "readlink /secrets/..data")[2:]) != running and now)
    wait("the old generation in the metrics", 10, lambda: "hushpod_outdated_generations 1" in metrics())
    contains("\n".join(metrics()), f'role="running",generation="{running}"', "the metrics")
    told = f"running with generation {running}, newest {newest}"
    wait("an event", 60, lambda: told in kubectl("-n", t.namespace, "describe", "pod", "app"), every=1)
    check(not any(each["restartCount"] for each in statuses(t.pod("app")).values()), "something was restarted")


@test()
def environment_replaces_env_from(t):
    """A server that takes HF_TOKEN from `envFrom`, line by line: before, a Secret; after, two annotations."""
    t.open()
    server = f"[ -n \"$HF_TOKEN\" ] || exit 1; {SHOW}; {FOREVER}"
    data = {"HF_TOKEN": "hf_before", "MAX_INPUT_LENGTH": "1024"}
    t.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tgi"}, "stringData": data})
    before = pod("before", command=server)
    before["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "tgi"}}]
    token = canary()
    # - envFrom: [{secretRef: {name: tgi}}]
    # + hushpod.dev/dir.tgi: secret/data/NAMESPACE/tgi
    # + hushpod.dev/env: tgi
    reference = t.secret(path="tgi", HF_TOKEN=token, MAX_INPUT_LENGTH="1024")
    del t.suite.canaries["1024"]
    t.start(before, pod("after", {"dir.tgi": reference, "env": "tgi"}, server))
    for name, expected in (("before", "hf_before"), ("after", token)):
        equal(variable(t, name, "HF_TOKEN"), expected, f"HF_TOKEN {name}")
        equal(variable(t, name, "MAX_INPUT_LENGTH"), "1024", f"MAX_INPUT_LENGTH {name}")


@test()
def environment_of_probes_and_hooks(t):
    """Exec probes and lifecycle hooks have the variables if hushpod-agent exec stands in front of them."""
    t.open()
    token = canary()
    thing = pod("app", asking(t.secret(HF_TOKEN=token)), f"{SHOW}; {FOREVER}")
    probe = "[ -n \"$HF_TOKEN\" ] && env >/tmp/probe"
    app = thing["spec"]["containers"][0]
    app["readinessProbe"] = {"exec": {"command": [*EXEC, "sh", "-c", probe]}, "periodSeconds": 1}
    app["lifecycle"] = {"postStart": {"exec": {"command": [*EXEC, "sh", "-c", "env >/tmp/hook"]}}}
    t.start(thing)
    for name in ("probe", "hook"):
        contains(t.file("app", f"/tmp/{name}"), f"HF_TOKEN={token}\n", f"the {name}'s environment")


@test()
def environment_restart_reaches_one_container(t):
    """`on-change: restart`: only the container whose variables changed starts anew, in the same pod, and says why; not
    for a change of another file, and not under hold."""
    t.open()
    first, second, third = canary(), canary(), canary()
    reference = t.secret(HF_TOKEN=first)
    other = t.secret(path="other", key=canary())
    keys = asking(reference, **{"file.other": f"{other}#key", "containers": "app", "on-change": "restart"})
    keys["on-change-jitter"] = "500ms"
    more = [container("plain", FOREVER)]
    uid = t.start(pod("app", keys, f"{SHOW}; {FOREVER}", more=more))["metadata"]["uid"]
    equal(t.sh("app", "cat /proc/1/comm"), "hushpod-agent", "PID 1")
    t.suite.say(f"the parent that stays: {resident(t, 'app')}")

    value = canary()
    t.secret(path="other", key=value)
    t.sees("app", "/secrets/other", value)
    holds("no restart", 3, lambda: statuses(t.pod("app"))["app"]["restartCount"] == 0)
    t.annotate("app", "hold=true")
    t.says("app", "held")
    t.secret(HF_TOKEN=second)
    holds("no restart under hold", 3, lambda: statuses(t.pod("app"))["app"]["restartCount"] == 0)
    t.annotate("app", "hold-")

    def restarted():
        now = t.pod("app")
        return now if statuses(now)["app"]["restartCount"] == 1 and "running" in statuses(now)["app"]["state"] else None

    now = wait("the container to be restarted", 30, restarted)
    equal(now["metadata"]["uid"], uid, "uid of the pod")
    contains(termination(now, "app"), ["restarted for generation ", "(ran with "], "the termination message")
    equal(statuses(now)["app"]["lastState"]["terminated"]["exitCode"], 75, "the exit code")
    equal(statuses(now)["plain"]["restartCount"], 0, "restarts of the other container")
    wait("the new value", 10, lambda: variable(t, "app", "HF_TOKEN") == second)
    t.secret(HF_TOKEN=third)
    wait("the second restart", 60, lambda: variable(t, "app", "HF_TOKEN") == third)


@test()
def environment_signal_needs_no_shared_process_namespace(t):
    """`on-change: signal:HUP`: one signal for each generation, from the parent."""
    t.open()
    t.start(pod("app", asking(t.secret(HF_TOKEN=canary()), **{"on-change": "signal:HUP"}), ["/programs/counter"]))
    check("shareProcessNamespace" not in t.pod("app")["spec"], "the process namespace is shared")
    for rotation in (1, 2):
        t.secret(HF_TOKEN=canary())
        wait(f"HUP {rotation}", 20, lambda: t.file("app", "/tmp/hups") == str(rotation))


def succeeds(t, name):
    def done():
        status = t.api.get("Job", t.namespace, name, "batch/v1").get("status", {})
        check(not status.get("failed"), f"the Job {name} failed")
        return status.get("succeeded") == 1

    wait(f"the Job {name} to succeed", 60, done)


@test(each={"never": "Never", "on_failure": "OnFailure"})
def environment_of_a_job(t, policy):
    """A Job has its variables and ends, whatever its restart policy."""
    t.open()
    reference = t.secret(HF_TOKEN=canary())
    t.create(job(pod("job", asking(reference), "[ -n \"$HF_TOKEN\" ]", restartPolicy=policy)))
    succeeds(t, "job")


@test()
def p5_environment_is_not_seen_by_other_uids(t):
    """Even in a shared process namespace /proc shows it to the application's own uid alone."""
    t.open()
    token = canary()
    stranger = container("stranger", FOREVER)
    stranger["securityContext"]["runAsUser"] = 2000
    keys = asking(t.secret(HF_TOKEN=token), containers="app")
    t.start(pod("app", keys, f"{SHOW}; {FOREVER}", more=[stranger], shareProcessNamespace=True))
    look = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"
    check(token in t.sh("app", look), "the application's uid does not see it, so this shows nothing")
    check(token not in t.sh("app", look, "stranger"), "another uid sees the variables")
    refused = t.sh("app", "for p in /proc/[0-9]*; do cat $p/environ >/dev/null; done 2>&1; true", "stranger")
    contains(refused, "Permission denied", "what another uid is told")


@test()
def p9_environment_refusals(t):
    """A container without command, a reserved name, a pod that would never restart: one sentence each; and what only
    the values tell ends the container with its reason."""
    t.open()
    keys = asking(t.secret(path="good", HF_TOKEN=canary()))
    bare = pod("bare", keys)
    del bare["spec"]["containers"][0]["command"]
    t.refused(bare, "has no command", "ENTRYPOINT")
    t.refused(pod("preload", {**keys, "env.LD_PRELOAD": "secret/data/x#y"}), "env.LD_PRELOAD", "reserved")
    t.refused(pod("never", {**keys, "on-change": "restart"}, restartPolicy="Never"), "on-change", "restartPolicy Never")
    own = pod("own", keys)
    own["spec"]["containers"][0]["volumeMounts"].append({"name": "hushpod-bin", "mountPath": "/bin2"})
    t.refused(own, "hushpod-bin")
    value = canary()
    t.create(pod("path", asking(t.secret(path="bad", PATH=value))))
    message = t.terminated("path", "app", "line 1: the key is reserved")
    check("PATH" not in message, "a name that only the store knows in the termination message")
    check(value not in message, "a value in the termination message")


@test(when=ALONE, node=True)
def environment_from_an_image_volume(t):
    """`imageVolumes: true`: the agent's image is mounted, read-only, and the program executed from it, in every mode and
    by a user that owns nothing there; no copy is made. Where it stays as parent, it restarts and signals as ever."""
    t.open()
    product, token = t.suite.product, canary()
    reference = t.secret(HF_TOKEN=token)
    command, now = f"{SHOW}; {FOREVER}", {"on-change": "restart", "on-change-jitter": "500ms"}
    app = pod("app", asking(reference), command)

    def delivered():
        """How the program comes, past the policy, which the API server changes in its own time."""
        found = wait("a pod to be admitted", 20, lambda: t.create(app, dry_run=True))["spec"]["volumes"]
        return next(each for each in found if each["name"] == "hushpod-bin")

    copy = delivered()
    check("emptyDir" in copy, f"without image volumes the program comes by {copy}")
    with product.configured(imageVolumes=True):
        equal(delivered()["image"], {"reference": product.agent_image, "pullPolicy": "Never"}, "the volume hushpod-bin")
        modes = [pod(mode.replace("+", "-"), asking(reference, mode=mode), command) for mode in MODES.values()]
        restart = pod("restart", asking(reference, **now), command)
        signal = pod("signal", asking(reference, **{"on-change": "signal:HUP"}), ["/programs/counter"])
        for thing in t.start(*modes, restart, signal):
            name = thing["metadata"]["name"]
            mount = t.sh(name, "grep ' /hushpod-bin ' /proc/self/mounts").split()
            check("ro" in mount[3].split(","), f"the program is mounted {mount[3]}")
            equal(t.sh(name, "ls /hushpod-bin").split(), ["hushpod-agent", "hushpod-exec"], "what is there")
            check(not t.node.volume(thing, "empty-dir", "hushpod-bin").exists(), "there is a copy")
        for thing in (*modes, restart):
            equal(variable(t, thing["metadata"]["name"], "HF_TOKEN"), token, "HF_TOKEN")
        for thing in modes:
            equal(t.sh(thing["metadata"]["name"], "cat /proc/1/comm"), "sh", "PID 1")
        t.suite.say(f"the parent that stays, from an image volume: {resident(t, 'restart')}")
        running = variable(t, "sidecar", "HUSHPOD_GENERATION")
        contains(t.sh("sidecar", f"{PROGRAM} status"), f"1 sh: running with generation {running}", "the status")
        token = canary()
        t.secret(HF_TOKEN=token)
        wait("the new value", 30, lambda: variable(t, "restart", "HF_TOKEN") == token)
        wait("kubelet to count the restart", 20, lambda: statuses(t.pod("restart"))["app"]["restartCount"] == 1)
        wait("the signal", 20, lambda: t.file("signal", "/tmp/hups") == "1")
    equal(delivered(), copy, "how the program comes without image volumes again")


def bare(name, keys, script, **more):
    """A container that says no command: the image's own would be before the arguments, if it had one."""
    thing = pod(name, keys, script, **more)
    app = thing["spec"]["containers"][0]
    app["args"] = app.pop("command")
    return thing


@test(when=WAITING)
def environment_by_kubelet_needs_no_command(t):
    """`kubeletEnv: true`: a container without command has its variables, exactly, behind the gate, in every mode and in
    a Job; each start reads again; what kubelet could not read is refused with the variable's name."""
    t.open()
    token, lines = canary(), f"{canary()} \"$HOME\" #\n{canary()}\\"
    reference = t.secret(HF_TOKEN=token, LINES=lines)
    keys = {"env.HF_TOKEN": f"{reference}#HF_TOKEN", "env.LINES": f"{reference}#LINES", **FAST}
    t.refused(bare("refused", keys, FOREVER), "has no command", "ENTRYPOINT")
    # The first start is told from the second by a volume that outlives both.
    once = f"{SHOW}; if mkdir /kept/started; then while ! [ -e /kept/end ]; do sleep 0.2; done; exit 1; fi; {FOREVER}"
    with t.suite.product.configured(kubeletEnv=True):
        wait("a pod to be admitted", 20, lambda: t.create(bare("first", keys, FOREVER), dry_run=True))
        pods = [bare(mode.replace("+", "-"), {**keys, "mode": mode}, f"{SHOW}; {FOREVER}") for mode in AGENTS.values()]
        twice = bare("twice", keys, once)
        twice["spec"]["volumes"].append({"name": "kept", "emptyDir": {}})
        twice["spec"]["containers"][0]["volumeMounts"].append({"name": "kept", "mountPath": "/kept"})
        for thing in t.start(*pods, twice):
            name = thing["metadata"]["name"]
            found = t.sh(name, "tr '\\0' '\\1' </proc/1/environ").split("\1")
            check({f"HF_TOKEN={token}", f"LINES={lines}"} <= set(found), f"{name} has not the values as they are")
            equal(t.sh(name, "cat /proc/1/comm"), "sh", "PID 1")
            equal(statuses(thing)["app"]["restartCount"], 0, "restarts")
            check(token not in str(thing), "a value in the pod")
        token = canary()
        t.secret(HF_TOKEN=token, LINES=lines)
        wait("the new value in the file", 60, lambda: token in t.sh("twice", "cat /secrets/.hushpod-env/HF_TOKEN"))
        t.sh("twice", "touch /kept/end")
        wait("the second start", 60, lambda: variable(t, "twice", "HF_TOKEN") == token)
        t.create(job(bare("job", keys, '[ -n "$HF_TOKEN" ] && [ -n "$LINES" ]', restartPolicy="Never")))
        succeeds(t, "job")
        value = f"{canary()}'s"
        t.create(bare("quote", {"env.QUOTED": t.secret(path="quote", QUOTED=value) + "#QUOTED"}, FOREVER))
        message = t.terminated("quote", "hushpod", "QUOTED has a single quote")
        check(value not in message, "a value in the termination message")


@test(when=WAITING)
def environment_restart_all_in_place(t):
    """`on-change: restart-all`: all containers of the pod start anew in place, with the new value, whether kubelet or our
    program sets it, and however the agent is injected; once, with the login and the lease that were there."""
    version = t.api.call("GET", "/version")
    if (int(version["major"]), int(version["minor"].rstrip("+"))) < (1, 36):
        raise Skipped(f"Kubernetes {version['gitVersion']} has no RestartAllContainers: 1.36 or later has")
    t.open()
    first, second = canary(), canary()
    reference = t.secret(HF_TOKEN=first)
    creds = t.database(default_ttl="1h", max_ttl="2h")
    keys = {"env.HF_TOKEN": f"{reference}#HF_TOKEN", "dir.db": creds, "containers": "app", **FAST}
    keys |= {"on-change": "restart-all", "on-change-jitter": "500ms"}
    with t.suite.product.configured(kubeletEnv=True):
        wait("a pod to be admitted", 20, lambda: t.create(bare("kubelets", keys, FOREVER), dry_run=True))
        more = [container("plain", FOREVER)]
        pods = [
            bare("kubelets", keys, f"{SHOW}; {FOREVER}", more=more),
            pod("wrapped", {**keys, "mode": "init+sidecar"}, f"{SHOW}; {FOREVER}", more=more),
        ]
        before = {thing["metadata"]["name"]: thing for thing in t.start(*pods)}
        for name, thing in before.items():
            equal(variable(t, name, "HF_TOKEN"), first, f"HF_TOKEN of {name}")
            equal(t.sh(name, "cat /proc/1/comm"), "sh", "PID 1")
            equal({each["restartCount"] for each in statuses(thing).values()}, {0}, "restarts")
        leases = set(t.leases())
        equal(len(leases), len(before), "leases")
        t.secret(HF_TOKEN=second)

        def restarted(name):
            now = t.pod(name)
            return now if is_ready(now) and all(each["restartCount"] for each in statuses(now).values()) else None

        for name, then in before.items():
            now = wait(f"all containers of {name} to be restarted", 180, lambda name=name: restarted(name))
            equal(now["metadata"]["uid"], then["metadata"]["uid"], "uid of the pod")
            equal(now["status"]["podIP"], then["status"]["podIP"], "address of the pod")
            wait("the new value", 10, lambda name=name: variable(t, name, "HF_TOKEN") == second)
            t.says(name, "adopted")
            counts = {each: status["restartCount"] for each, status in statuses(now).items()}
            t.suite.say(f"restart-all: {name}: {counts}")
            equal(set(counts.values()), {1}, "restarts")
        # A second one would come a minute after the agent's start.
        still = {name: statuses(t.pod(name)) for name in before}
        ids = {name: {each: status["containerID"] for each, status in found.items()} for name, found in still.items()}

        def same():
            found = {name: statuses(t.pod(name)) for name in before}
            return ids == {name: {e: s["containerID"] for e, s in each.items()} for name, each in found.items()}

        holds("no second restart", 75, same, every=1)
        equal(set(t.leases()), leases, "leases after the restart")


@test(when=WAITING, long=True)
def environment_restart_storm_is_bounded(t):
    """Twenty replicas restart for one rotation, and chance alone keeps all but a fifth of them up at any time."""
    t.open()
    first, second = canary(), canary()
    replicas = 20
    keys = asking(t.secret(HF_TOKEN=first), **{"on-change": "restart", "on-change-jitter": "180s", "refresh": "5s"})
    t.create(deployment(pod("web", keys, FOREVER), replicas=replicas))
    t.rolled_out("web", replicas, seconds=420)
    t.secret(HF_TOKEN=second)
    most, samples, start = 0, 0, time.monotonic()

    def all_restarted():
        nonlocal most, samples
        apps = [statuses(each)["app"] for each in t.pods("web")]
        most, samples = max(most, sum(not app["ready"] for app in apps)), samples + 1
        return len(apps) == replicas and all(app["restartCount"] == 1 and app["ready"] for app in apps)

    wait("all replicas to be restarted", 330, all_restarted, every=0.1)
    took = time.monotonic() - start
    t.suite.say(f"storm: at most {most} of {replicas} down at a time, in {took:.0f} s and {samples} looks")
    check(most <= replicas // 5, f"{most} of {replicas} were down at a time")
