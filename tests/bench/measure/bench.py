"""What every section uses: the programs, processes that end with the run, and the cluster if there is one."""

import functools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from suite.base import Failed, check, run
from suite.cluster import CLUSTER_SCRIPTS, Api, Node

ROOT = Path(__file__).resolve().parents[3]
TARGET = f"{os.uname().machine}-unknown-linux-gnu"


def first_on(*cpus):
    """For a process of its own session: keeps it on these CPUs, and there before all else if we are root. What else runs on
    the machine must not decide who is faster."""

    def prepare():
        # Before its first thread is made: a runtime makes as many as it sees CPUs.
        os.sched_setaffinity(0, cpus)
        if os.geteuid() == 0:
            os.nice(-19)
            try:
                # See sched(7): between sessions, niceness is the session's.
                Path("/proc/self/autogroup").write_text("-19")
            except OSError:
                pass  # there are no autogroups

    return {"preexec_fn": prepare, "start_new_session": True}


class Skipped(Exception):
    """What is missing for a section."""


class Process:
    """A program that runs until the bench is over, with its output in a file."""

    def __init__(self, bench, name, command, cpu=None, **options):
        self.name = name
        self.log = bench.directory / f"{name}.log"
        if cpu is not None:
            options = {**first_on(cpu), **options}
        self.started = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                **{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **options},
            )
        bench.processes.append(self)

    @property
    def pid(self):
        return self.process.pid

    def check(self):
        tail = self.log.read_text(errors="replace")[-1500:]
        check(self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{tail}")

    def ended(self, seconds):
        """Waits for its end, and returns how many seconds it ran. Popen.wait() with a limit looks every 50 ms."""
        pidfd = os.pidfd_open(self.pid)
        try:
            has_ended, _, _ = select.select([pidfd], [], [], seconds)
            took = time.monotonic() - self.started
        finally:
            os.close(pidfd)
        check(has_ended, f"{self.name} still runs after {seconds} s: see {self.log}")
        return took

    def memory(self):
        """Resident KiB: all, anonymous, and the most there ever was."""
        self.check()
        fields = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssAnon", "VmHWM"):
                fields[name] = int(value.split()[0])
        return {"rss": fields["VmRSS"], "anonymous": fields["RssAnon"], "peak": fields["VmHWM"]}

    def cpu_seconds(self):
        """Of all its threads, also of those that are gone: clock_getcpuclockid(3)."""
        self.check()
        return time.clock_gettime((~self.pid << 3) | 2)

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Bench:
    def __init__(self, directory, report, image=None):
        self.directory = directory
        # Of the chart in the cluster, if it is not to be made.
        self.image = image
        self.binaries = None
        self.report = report
        self.processes = []
        # What to do at the end, last first.
        self.closers = []
        self.started = time.monotonic()
        self.printing = threading.Lock()
        self.api = None

    def say(self, text):
        with self.printing:
            print(f"[{time.monotonic() - self.started:4.0f} s] {text}", file=sys.stderr, flush=True)

    def close(self):
        for closer in reversed(self.closers):
            try:
                closer()
            except Failed as problem:
                self.say(f"left behind: {problem}")
        for process in reversed(self.processes):
            process.end()
        if self.api:
            self.api.close()

    # --- programs

    def build(self, binaries=None):
        """The image's binaries, unless there are some."""
        if binaries:
            shutil.copytree(binaries, self.directory / "bin" / binaries.name)
        else:
            self.say("building the binaries (deploy/build)")
            run(ROOT / "deploy/build", self.directory, seconds=3600)
        architectures = list((self.directory / "bin").iterdir())
        self.binaries = architectures[0]

    @functools.cached_property
    def tools(self):
        """The bench's own, with the same options."""
        self.say("building the bench's tools")
        cargo = os.environ.get("CARGO_HOME", Path.home() / ".cargo")
        flags = f"{os.environ.get('RUSTFLAGS', '')} -C target-feature=+crt-static -C relocation-model=static"
        # As in deploy/build, so both take the same dependencies from one target directory.
        flags += f" --remap-path-prefix={cargo}=/cargo"
        command = ["cargo", "build", "--manifest-path", ROOT / "Cargo.toml", "--release", "--locked", "--target", TARGET]
        command += ["--features", "bench", "--bin", "hushpod-bench", "--message-format=json"]
        for line in run(*command, seconds=3600, env={**os.environ, "RUSTFLAGS": flags}).splitlines():
            message = json.loads(line)
            if message.get("executable"):
                return message["executable"]
        raise Failed("cargo made no tools")

    def spawn(self, name, *command, **options):
        return Process(self, name, command, **options)

    def tool(self, *arguments, cpu=None):
        """Runs a tool to its end, and returns what it printed."""
        command = [str(word) for word in (self.tools, *arguments)]
        options = first_on(cpu) if cpu is not None else {}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
        check(done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    # --- TLS

    def tls_directory(self):
        """A directory with a certificate for 127.0.0.1, its own authority."""
        directory = self.directory / "tls"
        if not directory.exists():
            directory.mkdir()
            names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
            command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            command += ["-days", "2", "-subj", "/CN=bench", "-addext", names, "-addext", "keyUsage=digitalSignature"]
            # A leaf and no authority: clients trust it as it is.
            command += ["-addext", "basicConstraints=critical,CA:FALSE"]
            run(*command, "-keyout", directory / "tls.key", "-out", directory / "tls.crt")
        return directory

    # --- the cluster

    def cluster(self):
        """The API of the test cluster, if it is up; with the environment that its programs want."""
        if self.api:
            return self.api
        node = Node()
        ready = node.is_under(node.state / "kubeconfig") and (node.state / "run").is_dir()
        if ready:
            # Brings nothing up: what `up` prints is the same, however it finds the cluster.
            os.environ["KUBECONFIG"] = str(node.state / "kubeconfig")
            os.environ["PATH"] = f"{node.state / 'bin'}:{os.environ['PATH']}"
            ready = shutil.which("kubectl") and run("kubectl", "get", "--raw", "/readyz", ok=False).returncode == 0
        if not ready:
            raise Skipped("needs the test cluster, as root: tests/cluster/up, tests/cluster/vault up")
        self.node = node
        self.api = Api(self.directory)
        return self.api

    def cluster_script(self, name, *arguments):
        """Sources what a script of tests/cluster prints into this process's environment."""
        script = f'eval "$({CLUSTER_SCRIPTS / name} {" ".join(arguments)})"; env -0'
        for variable in run("bash", "-euc", script, seconds=600).split("\0"):
            name, _, value = variable.partition("=")
            if name.startswith("VAULT_"):
                os.environ[name] = value


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values, percent):
    """The least value that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def until(what, seconds, condition, every=0.05):
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise Failed(f"after {seconds} s still waiting for {what}")
        time.sleep(every)
    return found
