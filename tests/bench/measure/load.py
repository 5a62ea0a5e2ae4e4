"""A long load: as many reviews a second as a large cluster makes, with clients beside them that are slow or broken. Not one
review may fail, and the webhook's memory must stop growing."""

import argparse
import collections
import os
import random
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

from suite.base import check

from . import attackers, fixtures
from .attack import MEMORY, REVIEW_SECONDS, Webhook, has_ended, judge, until_ready
from .bench import percentile
from .cgroup import Cgroup

# What it may take in the end, pages of the program included.
RESIDENT = 32 << 20
# What the second half of the run may have more than the first, without its beginning: a leak would go on.
GROWTH = 1.05
CLIENTS = 8
# Of the rate that was asked for, what must have been sent in the long form: else less was borne than is said.
SENT = 0.98
# An API server's connections do not last for ever.
REVIEWS_OF_A_CONNECTION = 500


class Load:
    """Reviews at a steady rate: each client sends its own at their times, and none is left out because one was slow."""

    def __init__(self, webhook, rate, seconds):
        self.webhook, self.rate, self.seconds = webhook, rate, seconds
        self.times, self.failures = [], []
        self.nuisances = collections.Counter()
        bodies = [fixtures.review(fixtures.pod(annotations)) for annotations in (fixtures.OURS, fixtures.UNLIKE)]
        self.bodies = [body.split(fixtures.UID) for body in bodies]
        self.started = time.monotonic()

    def body(self, number):
        # Every second pod is of a template that the webhook has not met.
        pieces = self.bodies[number % 2]
        return f"{number:08x}-0000-4000-8000-{os.getpid():012x}".join(pieces).encode()

    def client(self, index):
        connection, sent = None, 0
        for number in range(index, int(self.rate * self.seconds), CLIENTS):
            due = self.started + number / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            body = self.body(number)
            start = time.monotonic()
            try:
                if connection is None or sent >= REVIEWS_OF_A_CONNECTION or has_ended(connection):
                    connection, sent = self.webhook.target.tls(seconds=REVIEW_SECONDS), 0
                connection.settimeout(REVIEW_SECONDS)
                connection.sendall(attackers.head(len(body)) + body)
                status, answered = attackers.answer(connection)
                if status != 200 or b'"allowed":true' not in answered:
                    raise ValueError(f"{status} {answered[:200]!r}")
            except (OSError, ssl.SSLError, EOFError, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection = None
            else:
                self.times.append(time.monotonic() - start)
                sent += 1

    def run(self):
        attackers.together_of([lambda index=index: self.client(index) for index in range(CLIENTS)])
        self.took = time.monotonic() - self.started


def nuisances(target, came):
    """Slow and broken clients, a few of each kind at a time: what an ordinary day has, and not an attack. Counts them in
    `came`, by kind."""
    whole = fixtures.review(fixtures.pod(fixtures.OURS)).encode()
    greeting = attackers.client_hello()

    def slow_body():
        with target.tls() as connection:
            connection.sendall(attackers.head(len(whole)))
            for place in range(0, len(whole), 64):
                connection.sendall(whole[place : place + 64])
                if target.stop.wait(0.05):
                    return

    def breaks_off():
        with target.tls() as connection:
            connection.sendall(attackers.head(len(whole)) + whole[: random.randrange(len(whole))])

    def no_json():
        attackers.post(target, whole[: len(whole) // 2], seconds=5)

    def no_tls():
        with target.plain() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection.recv(100)

    def half_greeting():
        with target.plain() as connection:
            connection.sendall(greeting[: random.randrange(1, len(greeting))])
            target.stop.wait(2)

    def idle():
        with target.tls():
            target.stop.wait(5)

    def deaf():
        with target.tls() as connection:
            for _ in range(20):
                connection.sendall(attackers.head(len(whole)) + whole)
            target.stop.wait(3)

    def over_and_over(nuisance):
        while not target.stop.is_set():
            came[nuisance.__name__] += 1
            with suppress(*attackers.REFUSED, ValueError):
                nuisance()
            target.stop.wait(random.uniform(0.1, 0.5))

    each = [slow_body, breaks_off, no_json, no_tls, half_greeting, idle, deaf]
    attackers.together_of([lambda nuisance=nuisance: over_and_over(nuisance) for nuisance in each * 2])


def watched(bench, webhook, load, seconds):
    """Memory once a second, while it is under load."""
    bad = threading.Thread(target=nuisances, args=(webhook.target, load.nuisances), daemon=True)
    good = threading.Thread(target=load.run, daemon=True)
    bad.start()
    good.start()
    seen, told = [], time.monotonic()
    while good.is_alive():
        good.join(1)
        seen.append(webhook.process.memory())
        if time.monotonic() - told > 15:
            told = time.monotonic()
            memory = seen[-1]["rss"] / 1024
            bench.say(f"{len(load.times):,} answered, {len(load.failures)} failed, {memory:.1f} MiB resident")
        check(len(seen) < 4 * seconds + 60, "the load takes four times as long as it should")
    webhook.stop.set()
    bad.join(20)
    return seen


def judged(load, seen, cgroup, is_short):
    """The rows of the table, and what is wrong."""
    # What is made once is made by then.
    after = seen[len(seen) // 4 :]
    halves = after[: len(after) // 2], after[len(after) // 2 :]
    first, second = (max(memory["anonymous"] for memory in half) / 1024 for half in halves)
    resident = max(memory["rss"] for memory in seen) / 1024
    problems = []
    if load.failures:
        problems.append(f"{len(load.failures)} reviews failed; the first: {load.failures[0]}")
    if second > first * GROWTH:
        problems.append(f"memory grows: {first:.1f} MiB anonymous in the first half, {second:.1f} MiB in the second")
    if resident > RESIDENT / (1 << 20):
        problems.append(f"{resident:.1f} MiB resident, of {RESIDENT >> 20} MiB")
    if cgroup.kills():
        problems.append("the kernel ended it for lack of memory")
    rate = len(load.times) / load.took
    if not is_short and rate < SENT * load.rate:
        problems.append(f"only {rate:.0f} reviews a second of {load.rate} were sent: the machine is too busy for this")
    rows = [
        ("reviews answered, failed", f"{len(load.times):,}, {len(load.failures)}"),
        ("reviews a second, of what was asked", f"{rate:.0f} of {load.rate}"),
        ("slow and broken clients", f"{load.nuisances.total():,}, of {len(load.nuisances)} kinds"),
        ("p50, p99", f"{percentile(load.times, 50) * 1e3:.1f} ms, {percentile(load.times, 99) * 1e3:.1f} ms"),
        ("anonymous memory, first and second half", f"{first:.1f} MiB, {second:.1f} MiB"),
        ("most resident memory", f"{resident:.1f} MiB"),
    ]
    return rows, problems


def drill(bench, rate, seconds, is_short):
    cgroup = Cgroup(f"hushpod-load-{os.getpid()}", MEMORY, 1)
    bench.closers.append(cgroup.remove)
    webhook = Webhook(bench, "webhook", cgroup)
    # The last comes first: a group with a process in it stays.
    bench.closers.append(webhook.process.end)
    until_ready(webhook)
    load = Load(webhook, rate, seconds)
    return judged(load, watched(bench, webhook, load, seconds), cgroup, is_short)


def main():
    parser = argparse.ArgumentParser(
        prog="tests/bench/load",
        description="Sends reviews to a webhook in a control group of 128 MiB and one CPU, on this machine alone, every "
        "second one of a template that it has not met, with slow and broken clients beside them. No review may fail, "
        "memory must stop growing, and stay below 32 MiB. Needs root. What thousands of agents are to their store is a "
        "test: cargo test p3_five_thousand.",
        epilog="Exit code: 0 it held; 1 it did not; 2 wrong usage.",
    )
    parser.add_argument("--short", action="store_true", help="20 seconds instead of ten minutes")
    parser.add_argument("--seconds", type=int, metavar="N", help="so long instead")
    parser.add_argument("--rate", type=int, default=500, metavar="N", help="reviews a second (500)")
    parser.add_argument("--binaries", type=Path, metavar="DIR", help="where hushpod is; built if left out (deploy/build)")
    options = parser.parse_args()
    seconds = options.seconds or (20 if options.short else 600)
    return judge(options.binaries, lambda bench: drill(bench, options.rate, seconds, options.short))
