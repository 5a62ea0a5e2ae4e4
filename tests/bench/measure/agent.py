"""The agent: its size, its memory after 200 refreshes over TLS, its CPU when nothing changes, and its speed."""

import json
import os
import random
import threading
import time

from suite.base import check

from . import cluster_pods
from .admission import Contender, start_webhook
from .bench import Skipped, percentile, until
from .store import Agent, Amazon, Clouds, Infisical, Store

REFRESHES = 200
FILE_CHANGES = 120
PUSHED_CHANGES = 120
# As many files of as many secrets.
FIRST_FILES = 20
ROTATIONS = 10
STARTS = 40
# What a small team keeps in one secret.
KEYS = ("username", "password", "token", "certificate", "private-key")


class ProcessIdle:
    """An agent whose secrets do not change; the CPU that its process takes."""

    whose = "the process"

    def __init__(self, agent):
        self.process = agent.process
        # What the start takes is not idling.
        time.sleep(3)
        self.start = time.monotonic(), self.process.cpu_seconds()

    def cpu(self):
        """Seconds of CPU, and the seconds in which they were used."""
        start, used = self.start
        return self.process.cpu_seconds() - used, time.monotonic() - start


class Times:
    """From a change in the store to the bytes in the volume, again and again, at random moments."""

    def __init__(self, bench, agent, file, change, every):
        self.bench, self.agent, self.file, self.change, self.every = bench, agent, file, change, every
        self.milliseconds = []

    def once(self):
        value = os.urandom(12).hex()
        start = time.monotonic()
        self.change(value)
        expected = value.encode()
        end = start + 30
        while self.agent.read(self.file) != expected:
            now = time.monotonic()
            if now > end:
                self.agent.process.check()
                until(f"a change to be seen by {self.agent.process.name}", 0, lambda: False)
            time.sleep(self.every)
        self.milliseconds.append((time.monotonic() - start) * 1000)

    def p(self, percent):
        return percentile(self.milliseconds, percent)


def measure(bench):
    report = bench.report
    size = (bench.binaries / "hushpod-agent").stat().st_size
    report.figure("agent_binary", "agent: static binary", size / 1e6, "MB", ("<=", 9))

    idle = None
    try:
        idle = cluster_pods.Idle(bench)
    except Skipped as reason:
        report.note(f"agent: idle CPU of the process, not of a pod's cgroup: {reason}")

    store = Store(bench)
    infisical = Infisical(bench)
    directory = bench.directory / "secrets"
    directory.mkdir()
    config = {
        "image": "registry.example/hushpod:0.1.0",
        "providers": {
            "vault": store.provider("1s"),
            "idle": store.provider("60s"),
            "infisical": infisical.provider(),
            "files": {"type": "file", "path": str(directory)},
        },
    }
    # JSON is YAML.
    process, port = start_webhook(bench, "agent", json.dumps(config))
    webhook = Contender("hushpod", process, port, None)

    write_vault(store, "first")
    write_file(directory, "first")
    vault = start(bench, webhook, "vault-agent", "vault:secret/data/web")
    files = start(bench, webhook, "file-agent", "files:app.json")
    write_infisical(infisical, "first")
    pushed = start(bench, webhook, "infisical-agent", "infisical:/web")

    idle = idle or ProcessIdle(start(bench, webhook, "idle-agent", "idle:secret/data/idle"))

    by_poll = Times(bench, vault, "app/password", lambda value: write_vault(store, value), 0.002)
    by_event = Times(bench, files, "app/password", lambda value: write_file(directory, value), 0.0005)
    by_push = Times(bench, pushed, "app/password", lambda value: write_infisical(infisical, value), 0.002)
    side_by_side(
        # The agent leaves a second between two swaps.
        lambda: repeat(by_event, FILE_CHANGES, 1.1),
        lambda: repeat(by_push, PUSHED_CHANGES, 1.1),
        lambda: repeat(by_poll, REFRESHES, 0),
    )
    time.sleep(2)
    show(bench, vault, by_event, by_poll, by_push)
    show_memory(bench, "infisical", pushed, f"{PUSHED_CHANGES} pushed changes")
    show_memory(bench, "file", files, f"{FILE_CHANGES} changes")
    show_first(bench, first_files(bench, webhook, store))
    rotate_all(bench, Clouds(bench, FIRST_FILES))
    try:
        rotate_all(bench, Amazon(FIRST_FILES))
    except Skipped as reason:
        report.note(f"agent: without `aws` and `ssm`: {reason}")
    show_idle(bench, idle)


def start(bench, webhook, name, reference):
    agent = Agent(bench, name, webhook, {"hushpod.dev/dir.app": reference})
    until(f"the first files of {name}", 20, lambda: agent.process.check() or agent.read("app/password"))
    return agent


def write_vault(store, value):
    for path in ("web", "idle") if value == "first" else ("web",):
        store.write(f"secret/data/{path}", data={key: value for key in KEYS})


def write_file(directory, value):
    (directory / ".new").write_text(json.dumps({key: value for key in KEYS}))
    os.rename(directory / ".new", directory / "app.json")


def repeat(times, count, pause):
    for _ in range(count):
        time.sleep(pause + random.random() * 0.5)
        times.once()


def side_by_side(*actions):
    problems = []

    def guarded(action):
        try:
            action()
        except Exception as problem:  # noqa: BLE001: raised again below
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def write_infisical(infisical, value):
    # One event, the last one, finds all of them changed.
    for key in reversed(KEYS) if value == "first" else ("password",):
        infisical.tell(path="/web", key=key, value=value)


def first_files(bench, webhook, store):
    """Login, twenty files of twenty secrets, and the write: how long an init container runs, again and again."""
    annotations = {"hushpod.dev/mode": "init"}
    for number in range(FIRST_FILES):
        store.write(f"secret/data/first-{number}", data={"password": "first"})
        annotations[f"hushpod.dev/file.first-{number}"] = f"vault:secret/data/first-{number}#password"
    milliseconds = []
    for number in range(STARTS):
        agent = Agent(bench, f"init-agent-{number}", webhook, annotations, "hushpod-init")
        milliseconds.append(agent.process.ended(30) * 1000)
        status = agent.process.process.wait()
        check(status == 0, f"{agent.process.name} ended with {status}: see {agent.process.log}")
        until("the files of an init container", 0, lambda: agent.read("first-0") == b"first")
    return milliseconds


def rotate_all(bench, stores):
    """Twenty files of twenty secrets that all change, again and again, in each of the stores: what that takes of memory."""
    providers = {name: {**provider, "refresh": "1s"} for name, provider in stores.providers.items()}
    config = {"image": "registry.example/hushpod:0.1.0", "providers": providers}
    process, port = start_webhook(bench, "-".join(providers), json.dumps(config))
    webhook = Contender("hushpod", process, port, None)
    stores.put("0")
    agents = {}
    for name in providers:
        annotations = {f"hushpod.dev/file.{number}": f"{name}:bench-{number}" for number in range(FIRST_FILES)}
        agents[name] = Agent(bench, f"{name}-agent", webhook, annotations, tokens=stores.tokens)
    for rotation in range(ROTATIONS + 1):
        value = str(rotation)
        if rotation:
            stores.put(value)
        for name, agent in agents.items():
            arrived = lambda: agent.read(f"{FIRST_FILES - 1}") == value.encode()  # noqa: B023, E731
            until(f"{name} to bring {value}", 30, arrived)
    for name, agent in agents.items():
        show_memory(bench, name, agent, f"{ROTATIONS} changes of {FIRST_FILES} secrets")
        agent.process.end()


def show_first(bench, milliseconds):
    name = f"init container: login, {FIRST_FILES} files of as many secrets, write, {STARTS} times: p50"
    bench.report.figure("first_files_p50", name, percentile(milliseconds, 50), "ms", ("<=", 50))


def show_memory(bench, provider, agent, after):
    memory, report = agent.process.memory(), bench.report
    name = f"agent, `{provider}`"
    report.figure(
        f"agent_{provider}_anonymous", f"{name}: anonymous RSS after {after}", memory["anonymous"] / 1024, "MiB", ("<=", 1)
    )
    report.figure(f"agent_{provider}_rss", f"{name}: RSS after {after}", memory["rss"] / 1024, "MiB", ("<=", 7))


def show(bench, vault, by_event, by_poll, by_push):
    report = bench.report
    memory = vault.process.memory()
    show_memory(bench, "vault", vault, f"{REFRESHES} changed secrets over TLS")
    report.figure("agent_rss_peak", "agent: highest RSS", memory["peak"] / 1024, "MiB")
    for key, name, times, target in (
        ("file", f"`file` (event, {FILE_CHANGES} changes)", by_event, ("<=", 50)),
        ("vault", f"`vault` (polled every second, {REFRESHES} changes)", by_poll, None),
        ("infisical", f"`infisical` (pushed, {PUSHED_CHANGES} changes)", by_push, ("<=", 250)),
    ):
        report.figure(f"visible_{key}_p50", f"change → bytes visible, {name}: p50", times.p(50), "ms")
        report.figure(f"visible_{key}_p99", f"change → bytes visible, {name}: p99", times.p(99), "ms", target)


def show_idle(bench, idle):
    seconds, took = idle.cpu()
    name = f"agent: CPU of {idle.whose} when nothing changes, polling every minute"
    bench.report.figure(
        "agent_idle_cpu", name, seconds / took * 3600, "s per hour", ("<=", 0.5), f"{seconds:.4f} s in {took:.0f} s"
    )
