"""Runs tests: first those that bear company, side by side; then those that mostly wait, side by side as well, since what
they time wants a machine that is not busy; then those that disturb the others, alone; then the last."""

import argparse
import concurrent.futures
import contextlib
import fcntl
import glob
import inspect
import os
import shutil
import tempfile
import threading
import time
import traceback
from pathlib import Path

from .base import Failed, Skipped, check, run
from .cluster import CLUSTER_SCRIPTS, Api, Node
from .product import NAMESPACE, Product
from .space import Space
from .stores import Infisical, Moto
from .vault import Vault

TOGETHER, WAITING, ALONE, LAST = range(4)
TESTS = []
# Where Kubernetes versions differ: delivery, the gate, the policy, inline volumes and the chart. Files of cases, and parts of names.
OLDER = ({"delivery", "chart"}, ("p7_the_gate", "the_policy", "by_hand"))


class Test:
    def __init__(self, name, function, when, long, node, arguments):
        self.name = name
        self.function = function
        self.when = when
        self.long = long
        self.node = node
        self.arguments = arguments
        self.summary = (inspect.getdoc(function) or "").split("\n", 1)[0]

    def is_for_older(self):
        files, parts = OLDER
        return self.function.__module__.split(".")[-1] in files or any(part in self.name for part in parts)


def test(when=TOGETHER, long=False, node=False, each=None):
    """Registers a test. `each`: once per entry, whose key ends its name. `long` starts first. `node`: wants root on
    the node, which only our own cluster gives."""

    def register(function):
        if each is None:
            TESTS.append(Test(function.__name__, function, when, long, node, ()))
        for suffix, argument in (each or {}).items():
            TESTS.append(Test(f"{function.__name__}_{suffix}", function, when, long, node, (argument,)))
        return function

    return register


class Suite:
    """One run: what all tests share."""

    def __init__(self, options):
        self.options = options
        self.started = time.monotonic()
        self.printing = threading.Lock()
        self.canaries = {}
        self.passed, self.failed, self.skipped = [], [], []
        self.spaces = []
        self.watching = None

    def say(self, text):
        with self.printing:
            print(f"[{time.monotonic() - self.started:5.0f} s] {text}", flush=True)

    # --- set-up

    def find_cluster(self):
        """Takes the cluster that KUBECONFIG names; without one brings our own up."""
        node = Node()
        if "KUBECONFIG" not in os.environ or node.is_under(os.environ["KUBECONFIG"]):
            self.say("the cluster, Vault and PostgreSQL (tests/cluster)")
            ups = " ".join(f'eval "$({CLUSTER_SCRIPTS}/{each})";' for each in ("up", "vault up", "moto up"))
            script = f"{ups} env -0"
            for variable in run("bash", "-euc", script, seconds=3600).split("\0"):
                name, _, value = variable.partition("=")
                if name in {"PATH", "KUBECONFIG"} or name.startswith(("VAULT_", "MOTO_")):
                    os.environ[name] = value
        absent = [name for name in ("VAULT_ADDR", "VAULT_CACERT", "VAULT_TOKEN") if name not in os.environ]
        check(not absent, f"a cluster of your own wants a Vault of your own: set {', '.join(absent)}")
        self.node = node if node.is_under(os.environ["KUBECONFIG"]) else None

    def set_up(self):
        self.find_cluster()
        # One run to a cluster, since the chart's objects belong to all of it.
        self.lock = os.open(os.environ["KUBECONFIG"], os.O_RDONLY)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Failed("another run is going on in this cluster") from None
        # On the node's file system, where logs can be linked instead of copied.
        self.directory = Path(tempfile.mkdtemp(prefix="e2e.", dir=self.node.state if self.node else None))
        self.kept_logs = self.directory / "logs"
        self.api = Api(self.directory)
        self.vault = Vault()
        # Their servers are on the node's own network.
        self.moto = Moto() if self.node else None
        self.infisical = Infisical(self.directory, self.node.address, self.say) if self.node else None
        self.product = Product(self.api, self.vault, self.node, self.say)
        if self.node:
            self.product.more = {"aws": self.moto.settings(), "infisical": self.infisical.settings()}
        for each in self.api.call("GET", "/api/v1/namespaces?labelSelector=hushpod-e2e")["items"]:
            self.api.delete("Namespace", None, each["metadata"]["name"])
        if image := self.options.image:
            self.product.image = image
        else:
            check(self.node, "a cluster of your own wants images that it can pull: --image NAME")
            self.product.build()
        if self.node:
            self.watching = threading.Event()
            threading.Thread(target=self.watch_logs, daemon=True).start()
        self.product.set_up()

    def tear_down(self):
        if self.watching:
            self.watching.set()
        if self.options.keep:
            self.say(f"everything stays; KUBECONFIG={os.environ['KUBECONFIG']}")
        else:
            for space in self.spaces:
                space.close()
            self.product.uninstall()
            if self.api.find("Namespace", None, NAMESPACE):
                self.api.delete("Namespace", None, NAMESPACE)
            shutil.rmtree(self.directory, ignore_errors=True)
        if self.infisical:
            self.infisical.close()
        self.api.close()
        self.say("done")

    # --- logs

    def keep_logs(self):
        """Kubelet deletes logs with their pod: a link keeps them, to be looked through at the end."""
        if not self.node:
            return
        # Unlike Path's, this glob does not mind that a directory is gone since it was listed.
        for path in map(Path, glob.glob(f"{self.node.pod_logs}/*/*/*.log")):
            # So may the log be, or another thread may have linked it.
            with contextlib.suppress(OSError):
                kept = self.kept_logs / f"{path.relative_to(self.node.pod_logs)}.{path.stat().st_ino}"
                if not kept.exists():
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    os.link(path, kept)

    def watch_logs(self):
        while not self.watching.wait(1):
            self.keep_logs()

    # --- tests

    def one(self, each):
        if each.node and not self.node:
            self.skipped.append(each)
            return self.say(f"skip  {each.name}: wants root on the cluster's node")
        start = time.monotonic()
        space = Space(self, each.name)
        self.spaces.append(space)
        try:
            each.function(space, *each.arguments)
        except Skipped as why:
            self.skipped.append(each)
            self.say(f"skip  {each.name}: {why}")
        except BaseException as error:
            self.failed.append(each)
            text = str(error) if isinstance(error, Failed) else traceback.format_exc()
            where = traceback.extract_tb(error.__traceback__)
            line = next((frame for frame in reversed(where) if "/cases/" in frame.filename), where[-1])
            self.say(
                f"FAIL  {each.name} ({time.monotonic() - start:.0f} s)\n"
                f"      {Path(line.filename).name}:{line.lineno}: {text}"
            )
            self.show(each, space)
            if not isinstance(error, Exception):
                raise
        else:
            self.passed.append(each)
            self.say(f"ok    {each.name} ({time.monotonic() - start:.0f} s)")
        finally:
            if not self.options.keep:
                try:
                    space.close()
                    self.spaces.remove(space)
                except Failed as error:
                    self.say(f"      {each.name} left something behind: {error}")

    def show(self, each, space):
        try:
            text = space.diagnose()
        except Failed as error:
            text = f"no diagnosis: {error}"
        path = Path(self.options.output) / f"{each.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        tail = "\n".join(f"      | {line[:200]}" for line in text.splitlines()[-40:])
        self.say(f"      the pods, events and logs are in {path}; their end:\n{tail}")

    def all(self, tests):
        for when in (TOGETHER, WAITING):
            together = sorted((each for each in tests if each.when == when), key=lambda each: not each.long)
            with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
                for future in concurrent.futures.as_completed([pool.submit(self.one, each) for each in together]):
                    future.result()
        for when in (ALONE, LAST):
            for each in tests:
                if each.when == when:
                    self.one(each)


def main():
    parser = argparse.ArgumentParser(
        prog="tests/e2e/run",
        description="Proves hushpod's promises on real pods: installs the chart, runs the tests, uninstalls.",
        epilog="With KUBECONFIG set it uses that cluster, and the Vault of VAULT_ADDR, VAULT_CACERT and VAULT_TOKEN.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only tests whose name contains one of these")
    parser.add_argument(
        "--older", action="store_true", help="only the subset that Kubernetes versions before the newest are tried with"
    )
    parser.add_argument(
        "--leave-keys", action="store_true", help="also the test that leaves a key in etcd: for a cluster that goes down afterwards"
    )
    parser.add_argument("--list", action="store_true", help="list the tests and exit")
    parser.add_argument("--keep", action="store_true", help="leave the chart and the tests' namespaces in place")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="so many tests side by side (default: 4)")
    parser.add_argument("--image", metavar="NAME", help="this image, and NAME-agent of the same tag, instead of those built here")
    parser.add_argument(
        "--output", metavar="DIR", default="/tmp/hushpod-e2e", help="diagnoses of failures (default: %(default)s)"
    )
    options = parser.parse_args()
    tests = [each for each in TESTS if not options.names or any(name in each.name for name in options.names)]
    tests = [each for each in tests if not options.older or each.is_for_older()]
    if options.list:
        for each in tests:
            print(f"{each.name}\n    {each.summary}")
        return 0
    if not tests:
        parser.error(f"no test's name contains any of {options.names}")

    suite = Suite(options)
    try:
        suite.set_up()
        suite.all(tests)
    except Failed as error:
        suite.say(f"the set-up failed: {error}")
        return 2
    except KeyboardInterrupt:
        suite.say("interrupted")
        return 130
    finally:
        if hasattr(suite, "product"):
            try:
                suite.tear_down()
            except Failed as error:
                suite.say(f"the tear-down failed: {error}")
    skipped = f", {len(suite.skipped)} skipped" if suite.skipped else ""
    for each in suite.failed:
        print(f"failed: {each.name}")
    print(f"{len(suite.passed)} passed, {len(suite.failed)} failed{skipped}")
    return 1 if suite.failed else 0
