"""What everything here uses: failing, and waiting for what must come true."""

import contextlib
import subprocess
import threading
import time
from pathlib import Path


class Failed(Exception):
    """A promise that does not hold, or a step towards it that went wrong."""


class Skipped(Exception):
    """The cluster lacks what the test is about: says what."""


def check(condition, problem):
    if not condition:
        raise Failed(problem)


def equal(actual, expected, what):
    check(actual == expected, f"{what}: {actual!r} instead of {expected!r}")


def contains(text, parts, what):
    for part in [parts] if isinstance(parts, str) else parts:
        check(part in text, f"{what} lacks {part!r}: {text!r}")


def wait(what, seconds, condition, every=0.2):
    """Polls until `condition()` is true, and returns what it returned. What it raises as `Failed` is not yet true."""
    end = time.monotonic() + seconds
    while True:
        try:
            last = condition()
            if last:
                return last
        except Failed as failed:
            last = failed
        if time.monotonic() >= end:
            raise Failed(f"after {seconds} s still waiting for {what}" + (f" (last: {last})" if last else ""))
        time.sleep(every)


def holds(what, seconds, condition, every=0.2):
    """The opposite: fails as soon as `condition()` is false, and returns when it was true all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check(condition(), f"no longer so: {what}")
        time.sleep(every)


@contextlib.contextmanager
def meanwhile(step):
    """Takes `step(number)` again and again while the block runs; gives what came of each: None, or how it failed."""
    outcomes, over = [], threading.Event()

    def go():
        while not over.is_set():
            try:
                step(len(outcomes))
                outcomes.append(None)
            except Failed as failure:
                outcomes.append(str(failure))
            time.sleep(0.05)  # not to wait, but to leave the cluster something of the two cores

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        thread.join()


def run(*command, stdin=None, ok=True, seconds=120, env=None):
    """Runs a program and returns its output; with `ok=False` the whole result, however it ended."""
    command = [str(word) for word in command]
    try:
        result = subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", timeout=seconds, env=env
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)[:300]}: not done after {seconds} s") from None
    if not ok:
        return result
    check(
        result.returncode == 0, f"{' '.join(command)[:300]}: exit {result.returncode}: {result.stderr.strip()[-2000:]}"
    )
    return result.stdout


def block(page, name):
    """The commands of a page's block, for a shell that stands in the checkout's root."""
    root = Path(__file__).resolve().parents[3]
    return f"cd {root}\n" + run(root / ".ci/block", root / page, name)
