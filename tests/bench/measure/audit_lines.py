"""What audit lines add: instructions, which no other process disturbs, and CPU time, with the kernel's part; of processes
with and without them, in turns and side by side."""

import argparse
import json
import os
import re
import shutil
import statistics
import time
from pathlib import Path

from suite.base import Failed, check, wait

from . import attackers, fixtures
from .admission import CONFIG
from .attack import judge
from .bench import Process, free_port, until
from .store import Agent

TARGET = 0.01
# Of a process's work between the first and the second number: what it takes to start is not counted.
REVIEWS = (200, 1000)
REPEATS = 3
# CPU time, in turns.
ROUNDS, ROUND_REVIEWS = 20, 600
# Of each kind, and of changes in a round.
AGENTS, AGENT_ROUNDS, CHANGES = 4, 21, 5
CALLGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
# Of a template that the webhook has met, and one of its own for each pod.
TEMPLATES = {"pods of one template": fixtures.OURS, "no two pods of one template": fixtures.UNLIKE}


class Webhook:
    """One with or without audit lines, as the chart has it otherwise; `files` is a directory of a provider."""

    def __init__(self, bench, name, is_told, under=(), files=None):
        directory = bench.directory / name
        directory.mkdir()
        providers = f"  files: {{type: file, path: {files}}}\n" if files else ""
        text = f"{CONFIG}{providers}audit: {json.dumps(is_told)}\n"
        (directory / "config.yaml").write_text(text)
        port = free_port()
        command = [*under, bench.binaries / "hushpod", "webhook", "--config", directory / "config.yaml"]
        command += ["--tls-dir", bench.tls_directory(), "--listen", f"127.0.0.1:{port}"]
        command += ["--admin-listen", f"127.0.0.1:{free_port()}"]
        environment = {"POD_NAME": name, "POD_NAMESPACE": "bench", "HUSHPOD_LOG": "info", "HUSHPOD_LOG_FORMAT": "json"}
        self.process = Process(bench, name, command, env={**os.environ, **environment})
        self.target = attackers.Target(port, None, None)
        # What an `Agent` asks it for.
        self.request = None
        self.answered = directory / "answer.json"

    def answer(self, bench):
        def asked():
            self.process.check()
            try:
                return attackers.post(self.target, self.request.read_bytes())
            except attackers.REFUSED as error:
                raise Failed(f"{self.process.name}: {error}") from None

        status, body = wait("a webhook's answer", 60, asked)
        check(status == 200, f"{self.process.name}: {status} {body[:200]!r}")
        self.answered.write_bytes(body)
        return self.answered

    def review(self, annotations, count):
        """So many reviews of pods, on one connection."""
        pieces = fixtures.review(fixtures.pod(annotations)).split(fixtures.UID)
        with self.target.tls(seconds=60) as connection:
            for number in range(count):
                body = f"{number:08x}-0000-4000-8000-{time.monotonic_ns() % (1 << 48):012x}".join(pieces).encode()
                connection.sendall(attackers.head(len(body)) + body)
                status, answered = attackers.answer(connection)
                check(status == 200 and b'"allowed":true' in answered, f"{status} {answered[:200]!r}")


def collected(process):
    """The instructions that a process took, which callgrind says when it has ended."""
    process.process.terminate()
    process.process.wait(60)
    found = re.findall(r"Collected : (\d+)", process.log.read_text(errors="replace"))
    check(found, f"callgrind says nothing of {process.name}: {process.log.read_text(errors='replace')[-500:]}")
    return int(found[-1])


def reviewed(bench, annotations, name):
    """Instructions of a review, with audit lines and without."""
    request = bench.directory / f"{name}.request"
    request.write_text(fixtures.review(fixtures.pod(annotations)))
    found = {}
    for is_told in (True, False):
        totals = []
        for count in REVIEWS:
            webhook = Webhook(bench, f"{name}-{is_told}-{count}", is_told, CALLGRIND)
            webhook.request = request
            webhook.answer(bench)
            webhook.review(annotations, count)
            totals.append(collected(webhook.process))
        found[is_told] = (totals[1] - totals[0]) / (REVIEWS[1] - REVIEWS[0])
    return found[True], found[False]


def changed(bench):
    """Seconds of CPU for a change of a secret in an agent, with audit lines and without, of each round. Their store are
    files: one on the network would take more, and audit lines less of that. (callgrind cannot run it: it hides the vDSO
    that the agent looks for.)"""
    files = bench.directory / "files"
    files.mkdir()
    write(files, 0)
    agents = {True: [], False: []}
    for is_told in agents:
        webhook = Webhook(bench, f"webhook-{is_told}", is_told, files=files)
        for number in range(AGENTS):
            agents[is_told].append(Agent(bench, f"agent-{is_told}-{number}", webhook, {"hushpod.dev/dir.app": "files:app.json"}))
        webhook.process.end()
    number, rounds = 0, []
    used = lambda: {told: sum(agent.process.cpu_seconds() for agent in each) for told, each in agents.items()}  # noqa: E731
    for _ in range(AGENT_ROUNDS):
        before = used()
        for number in range(number, number + CHANGES):
            write(files, number)
            for agent in [*agents[True], *agents[False]]:
                until(f"change {number}", 60, lambda agent=agent, number=number: seen(agent) == number)
            time.sleep(1.1)  # it leaves a second between two swaps
        number += 1
        after = used()
        rounds.append(tuple((after[told] - before[told]) / AGENTS / CHANGES for told in (True, False)))
    # In the first one they start.
    return rounds[1:]


def write(files, number):
    (files / ".new").write_text(json.dumps({"number": str(number), "password": os.urandom(12).hex()}))
    os.rename(files / ".new", files / "app.json")


def seen(agent):
    text = agent.read("app/number")
    return text and int(text)


def in_turns(bench, annotations, name):
    """Seconds of CPU for a review, with audit lines and without, of each round."""
    webhooks = {is_told: Webhook(bench, f"{name}-{is_told}", is_told) for is_told in (True, False)}
    for webhook in webhooks.values():
        webhook.request = bench.directory / f"{name}.request"
        webhook.request.write_text(fixtures.review(fixtures.pod(annotations)))
        webhook.answer(bench)
        webhook.review(annotations, 200)
    rounds = []
    for number in range(ROUNDS):
        taken = {}
        for is_told in (True, False) if number % 2 else (False, True):
            webhook = webhooks[is_told]
            before = webhook.process.cpu_seconds()
            webhook.review(annotations, ROUND_REVIEWS)
            taken[is_told] = (webhook.process.cpu_seconds() - before) / ROUND_REVIEWS
        rounds.append((taken[True], taken[False]))
    for webhook in webhooks.values():
        webhook.process.end()
    return rounds


def row(what, unit, pairs):
    """What the lines add at least, by one error of the mean; and with and without them, and what they add."""
    added = [told / untold - 1 for told, untold in pairs]
    mean = statistics.mean(added)
    error = (statistics.variance(added) / len(added)) ** 0.5
    told, untold = (statistics.mean(each) for each in zip(*pairs, strict=True))
    return mean - error, [what, f"{told:,.0f} {unit}", f"{untold:,.0f} {unit}", f"{mean * 100:.2f} ± {error * 100:.2f} %"]


def drill(bench):
    check(shutil.which("valgrind"), "there is no valgrind: apt-get install --no-install-recommends valgrind")
    rows, problems = [("", "with", "without", "added")], []
    for number, (what, annotations) in enumerate(TEMPLATES.items()):
        bench.say(f"webhook, {what}")
        pairs = [reviewed(bench, annotations, f"review-{number}-{turn}") for turn in range(REPEATS)]
        added, cells = row(f"webhook, {what}: a review", "instructions", pairs)
        rows.append(cells)
        pairs = [(told * 1e6, untold * 1e6) for told, untold in in_turns(bench, annotations, f"turns-{number}")]
        rows.append(row(f"webhook, {what}: a review", "µs of CPU", pairs)[1])
        if added > TARGET:
            problems.append(f"webhook, {what}: at least {added * 100:.1f} % more instructions")
    bench.say("agent")
    pairs = [(told * 1e6, untold * 1e6) for told, untold in changed(bench)]
    added, cells = row("agent: a change in a file", "µs of CPU", pairs)
    rows.append(cells)
    if added > TARGET:
        problems.append(f"agent: at least {added * 100:.1f} % more CPU")
    return rows, problems


def main():
    parser = argparse.ArgumentParser(
        prog="tests/bench/audit",
        description="Compares processes that write audit lines with ones that do not (`audit: false`): instructions for a "
        "review, counted by valgrind's callgrind, which other work on the machine does not disturb; and CPU time, in turns, "
        "for a review and for a change of a secret. An agent whose secrets do not change writes no line.",
        epilog="Exit code: 0 they add 1 % at most; 1 more; 2 wrong usage.",
    )
    parser.add_argument("--binaries", type=Path, metavar="DIR", help="where hushpod is; built if left out (deploy/build)")
    return judge(parser.parse_args().binaries, drill)
