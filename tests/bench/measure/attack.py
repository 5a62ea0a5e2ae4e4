"""The drill: one webhook in a container's limits is attacked, its twin is not; both are asked the same all the while."""

import argparse
import os
import shutil
import ssl
import sys
import tempfile
import threading
import time
from pathlib import Path

from suite.base import Failed, check

from . import attackers, fixtures
from .bench import Bench, Process, free_port, percentile
from .cgroup import Cgroup

MEMORY = 128 << 20
# Of the chart's probes: after so many seconds kubelet counts a failure. The short form asks for an answer, not for its
# time: it runs where builds run, too.
PROBE_SECONDS = 1.0
PROBE_SECONDS_SHORT = 5.0
# kube-apiserver gives up on the chart's webhook.
REVIEW_SECONDS = 5.0
MOST_FAILED = 0.05

CONFIG = """\
image: registry.example/hushpod:0.1.0
defaultProvider: vault
providers:
  vault:
    type: vault
    address: "https://vault.example:8200"
    role: "{{service_account}}"
    allow:
      - namespaces: ["*"]
        requests: ["secret/data/*a*b"]
      - namespaces: ["*"]
        requests: ["secret/data/*"]
"""


class Webhook:
    def __init__(self, bench, name, cgroup):
        self.name, self.cgroup = name, cgroup
        self.stop = threading.Event()
        directory = bench.directory / name
        directory.mkdir()
        (directory / "config.yaml").write_text(CONFIG)
        self.port, self.admin = free_port(), free_port()
        command = [bench.binaries / "hushpod", "webhook", "--config", directory / "config.yaml"]
        command += ["--tls-dir", bench.tls_directory(), "--listen", f"127.0.0.1:{self.port}"]
        command += ["--admin-listen", f"127.0.0.1:{self.admin}"]
        environment = {"POD_NAME": name, "POD_NAMESPACE": "bench", "HUSHPOD_LOG": "info", "HUSHPOD_LOG_FORMAT": "json"}
        # As the chart has it.
        environment["MIMALLOC_ALLOW_THP"] = "0"
        options = {"preexec_fn": cgroup.enter, "env": {**os.environ, **environment}}
        self.process = Process(bench, name, command, **options)
        self.target = attackers.Target(self.port, self.admin, self.stop)
        self.asked = Asked()


class Asked:
    """What became of what was asked."""

    def __init__(self):
        self.times = {"review": [], "probe": []}
        self.failures = {"review": [], "probe": []}

    def note(self, kind, ask):
        start = time.monotonic()
        try:
            ask()
        except (OSError, ssl.SSLError, EOFError, ValueError) as error:
            self.failures[kind].append(f"{type(error).__name__}: {error}")
        else:
            self.times[kind].append(time.monotonic() - start)

    def count(self, kind):
        return len(self.times[kind]) + len(self.failures[kind])


def has_ended(connection):
    """Whether the other side has closed it; what TLS sends of itself is taken."""
    connection.settimeout(0)
    try:
        return not connection.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def ask(webhook, body, until, probe_seconds):
    """Reviews as an API server sends them, on a connection that is kept and opened again, and probes as kubelet's."""
    kept = None

    def review():
        nonlocal kept
        # Each second one comes from an API server that has no connection yet.
        if kept is None or webhook.asked.count("review") % 2:
            kept = webhook.target.tls(seconds=REVIEW_SECONDS)
        connection, kept = kept, None
        if has_ended(connection):
            # It made room while it was idle: API servers see that, too.
            connection = webhook.target.tls(seconds=REVIEW_SECONDS)
        connection.settimeout(REVIEW_SECONDS)
        connection.sendall(attackers.head(len(body)) + body)
        status, answered = attackers.answer(connection)
        if status != 200 or b'"allowed":true' not in answered:
            raise ValueError(f"{status} {answered[:200]!r}")
        kept = connection

    def probe(path):
        with webhook.target.plain(webhook.admin, probe_seconds) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: kubelet\r\nconnection: close\r\n\r\n".encode())
            status, _ = attackers.answer(connection)
            if status != 200:
                raise ValueError(f"{path}: {status}")

    while time.monotonic() < until:
        webhook.asked.note("review", review)
        for path in ("/healthz", "/readyz"):
            webhook.asked.note("probe", lambda path=path: probe(path))
        time.sleep(0.05)


def play(attacked, undisturbed, attack, seconds, probe_seconds):
    """Both are asked while one is attacked."""
    body = fixtures.review(fixtures.pod(fixtures.OURS)).encode()
    until = time.monotonic() + seconds
    attacked.stop.clear()
    pair = (attacked, undisturbed)
    threads = [threading.Thread(target=ask, args=(webhook, body, until, probe_seconds)) for webhook in pair]
    attacker = threading.Thread(target=attack, args=(attacked.target,), daemon=True)
    attacker.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    attacked.stop.set()
    attacker.join(20)


def judged(name, attacked, undisturbed):
    """A row of the table, and what is wrong."""
    problems = []
    if attacked.process.process.poll() is not None or attacked.cgroup.kills():
        return [name, "it DIED", "", "", ""], [f"{name}: the webhook ended"]
    row = [name]
    asked, twin = attacked.asked, undisturbed.asked
    for kind in ("review", "probe"):
        failures = asked.failures[kind]
        row.append(f"{len(asked.times[kind])}/{asked.count(kind)}")
        if not asked.times[kind] or len(failures) > max(1, MOST_FAILED * asked.count(kind)):
            last = failures[-1] if failures else "nothing was asked"
            problems.append(f"{name}: {len(failures)} of {asked.count(kind)} {kind}s had no answer; the last: {last}")
        if asked.times[kind] and twin.times[kind]:
            ratio = percentile(asked.times[kind], 50) / percentile(twin.times[kind], 50)
            row.append(f"{ratio:.1f} ×")
        else:
            row.append("")
    return row, problems


def drill(bench, names, seconds, probe_seconds):
    cgroups = [Cgroup(f"hushpod-attack-{os.getpid()}-{role}", MEMORY, 1) for role in ("attacked", "undisturbed")]
    bench.closers += [cgroup.remove for cgroup in cgroups]
    found = attackers.attacks()
    problems, rows = [], []
    attacked = undisturbed = None
    for name in names:
        text, attack = found[name]
        if attacked is None or attacked.process.process.poll() is not None:
            if attacked is not None:
                undisturbed.process.end()
            attacked, undisturbed = (
                Webhook(bench, f"{role}-{len(rows)}", cgroup)
                for role, cgroup in zip(("attacked", "undisturbed"), cgroups, strict=True)
            )
            until_ready(attacked, undisturbed)
        bench.say(f"{name}: {text.splitlines()[0]}")
        attacked.asked, undisturbed.asked = Asked(), Asked()
        play(attacked, undisturbed, attack, seconds, probe_seconds)
        row, wrong = judged(name, attacked, undisturbed)
        peak = cgroups[0].peak()
        row.append(f"{peak / (1 << 20):.0f} MiB" if peak else "")
        rows.append(row)
        problems += wrong
        for problem in wrong:
            bench.say(f"FAILED {problem}")
        if cgroups[0].kills():
            # The counter stays: later attacks would be blamed for it.
            attacked.process.end()
            undisturbed.process.end()
            break
    for webhook in (attacked, undisturbed):
        webhook.process.end()
    head = ["attack", "reviews answered", "slower", "probes answered", "slower", "most memory so far"]
    return [head, *rows], problems


def until_ready(*webhooks):
    for webhook in webhooks:
        end = time.monotonic() + 20
        while True:
            probe = Asked()
            probe.note("probe", lambda webhook=webhook: webhook.target.plain(webhook.admin, 1).close())
            if probe.times["probe"]:
                break
            webhook.process.check()
            check(time.monotonic() < end, f"{webhook.name} does not listen: see {webhook.process.log}")
            time.sleep(0.1)


def main():
    names = list(attackers.attacks())
    listed = "\n".join(f"  {name:18} {text.splitlines()[0]}" for name, (text, _) in attackers.attacks().items())
    parser = argparse.ArgumentParser(
        prog="tests/bench/attack",
        description="Attacks a webhook in a control group of 128 MiB and one CPU, on this machine alone, beside an "
        "undisturbed one. It must live, and answer probes and ordinary reviews throughout. Needs root.",
        epilog=f"attacks:\n{listed}\n\nExit code: 0 it held; 1 it did not; 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help="only these")
    parser.add_argument("--short", action="store_true", help="three seconds each instead of fifteen")
    parser.add_argument("--binaries", type=Path, metavar="DIR", help="where hushpod is; built if left out (deploy/build)")
    options = parser.parse_args()
    if unknown := [name for name in options.attacks if name not in names]:
        parser.error(f"no attack {unknown[0]!r}; there are {', '.join(names)}")
    times = (3, PROBE_SECONDS_SHORT) if options.short else (15, PROBE_SECONDS)
    return judge(options.binaries, lambda bench: drill(bench, options.attacks or names, *times))


def judge(binaries, drill):
    """Lets programs of `binaries`, or ones that are built for it, stand a drill; prints the rows and problems that it
    returns. The exit code."""
    directory = Path(tempfile.mkdtemp(prefix="hushpod-drill."))
    bench = Bench(directory, None)
    try:
        if binaries:
            bench.binaries = binaries.resolve()
        else:
            bench.build()
        check((bench.binaries / "hushpod").is_file(), f"there is no hushpod in {bench.binaries}")
        rows, problems = drill(bench)
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        bench.close()
        shutil.rmtree(directory, ignore_errors=True)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())
    for problem in problems:
        print(f"FAILED {problem}")
    return 1 if problems else 0
