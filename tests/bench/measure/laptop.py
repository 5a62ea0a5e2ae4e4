"""What a person's commands cost: `run` beside vals and sops, masked output beside cat's, and a check of many manifests."""

import fcntl
import json
import os
import shutil
import ssl
import struct
import subprocess
import termios
import time
from pathlib import Path

from suite.base import check, run
from suite.cluster import CLUSTER_SCRIPTS
from suite.vault import Vault

from .bench import first_on, free_port, median, until

SECRETS = 20
# In turns: what else the machine does hits all of them.
TURNS = 12
RUNS_A_TURN = 5
# Of a log with none of the values in it, which is what a log nearly always is.
LOG_MIB = 256
# Through a terminal, and every byte has to come.
TERMINAL_BYTES = 100_000_000
MANIFESTS = 1000
PEERS = ("vault", "vals", "sops")
LOOP = 'i=0; while [ $i -lt $0 ]; do "$@" >/dev/null || exit 1; i=$((i+1)); done'


class DevVault(Vault):
    """The real one, with its data in memory, on a core of its own."""

    def __init__(self, bench, program):
        port, directory = free_port(), bench.directory / "vault"
        directory.mkdir()
        self.address, self.token = f"https://127.0.0.1:{port}", "bench-root"
        options = ["-dev", "-dev-tls", f"-dev-tls-cert-dir={directory}", "-dev-no-store-token", "-log-level=error"]
        options += [f"-dev-root-token-id={self.token}", f"-dev-listen-address=127.0.0.1:{port}"]
        environment = {**os.environ, "HOME": str(directory)}
        process = bench.spawn("dev-vault", program, "server", *options, cpu=0, env=environment)
        self.authority = directory / "vault-ca.pem"
        self.tls = until("Vault's certificate", 60, self.authorities)
        until("Vault", 60, lambda: process.check() or self.is_up())

    def authorities(self):
        text = self.authority.read_text() if self.authority.exists() else ""
        return ssl.create_default_context(cadata=text) if "END CERTIFICATE" in text else None

    def is_up(self):
        try:
            return self.call("GET", "sys/health")["initialized"]
        except Exception:  # noqa: BLE001: it has yet to listen
            return False


class Laptop:
    """A person's home directory with a project, and the same for the peers."""

    def __init__(self, bench, programs):
        self.bench = bench
        self.programs = programs
        self.home = bench.directory / "laptop"
        self.home.mkdir()
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "HUSHPOD_TRUST": "1"}
        self.hushpod = bench.binaries / "hushpod"

    def project(self, name, provider, references):
        """A directory whose .hushpod.yaml has a variable for each reference."""
        directory = self.home / name
        directory.mkdir()
        document = {"defaultProvider": "store", "providers": {"store": provider}, "variables": references}
        # JSON is YAML.
        (directory / ".hushpod.yaml").write_text(json.dumps(document))
        return directory

    def milliseconds(self, contenders):
        """Of one run of each command, the median of what single turns took."""
        found = {name: [] for name in contenders}
        for turn in range(TURNS):
            for name, (directory, environment, command) in contenders.items():
                words = ["sh", "-c", LOOP, str(RUNS_A_TURN), *map(str, command)]
                environment = {**self.environment, **environment}
                start = time.monotonic()
                done = subprocess.run(
                    words, cwd=directory, env=environment, capture_output=True, text=True, timeout=300, **first_on(1)
                )
                check(done.returncode == 0, f"{name}: {done.stderr[-1000:]}")
                # The first turn warms what is to be warm.
                if turn:
                    found[name].append((time.monotonic() - start) * 1000 / RUNS_A_TURN)
        return found


def measure(bench):
    built = [Path(each) for each in run(CLUSTER_SCRIPTS / "build", *PEERS, seconds=7200).split()]
    laptop = Laptop(bench, dict(zip(PEERS, built)))
    names = [f"NAME_{number}" for number in range(SECRETS)]
    values = {name: os.urandom(16).hex() for name in names}
    from_vault(laptop, values)
    from_file(laptop, values)
    project = laptop.project("masks", {"type": "file", "path": "values.json"}, {name: name for name in names})
    (project / "values.json").write_text(json.dumps(values))
    masked_pipe(laptop, project)
    masked_terminal(laptop, project)
    manifests(laptop)


def compare(laptop, key, what, contenders):
    """A table of the commands, of which the first is ours, and how far ahead that is."""
    report = laptop.bench.report
    found = laptop.milliseconds(contenders)
    names = list(contenders)
    ours = median(found[names[0]])
    rows = [[name, f"{median(each):.1f} ms", f"{min(each):.1f} ms"] for name, each in found.items()]
    report.table(key, [f"{what}, {SECRETS} secrets", "median", "least"], rows, found)
    for name in names[1:]:
        ratio = median(found[name]) / ours
        report.figure(f"{key}_{name.split()[0]}", f"{what}: times faster than {name}", ratio, "×", (">=", 2))
    return ours


def from_vault(laptop, values):
    vault = DevVault(laptop.bench, laptop.programs["vault"] / "vault")
    for name, value in values.items():
        vault.write(f"secret/data/{name}", data={"value": value})
    provider = {"type": "vault", "address": vault.address, "ca": vault.authority.read_text()}
    ours = laptop.project("vault", provider, {name: f"secret/data/{name}#value" for name in values})
    theirs = ours / "vals.yaml"
    theirs.write_text(json.dumps({name: f"ref+vault://secret/{name}#/value" for name in values}))
    login = {"VAULT_ADDR": vault.address, "VAULT_TOKEN": vault.token, "VAULT_CACERT": str(vault.authority)}
    vals = laptop.programs["vals"]
    contenders = {
        "hushpod run": (ours, login, [laptop.hushpod, "run", "--", "true"]),
        f"vals exec {version(vals)}": (ours, login, [vals / "vals", "exec", "-f", theirs, "--", "true"]),
    }
    same_values(laptop, contenders, values)
    took = compare(laptop, "run_vault", "`run -- true` from a warm Vault", contenders)
    what = f"`run -- true` from a warm local Vault, {SECRETS} secrets: median"
    laptop.bench.report.figure("run_vault", what, took, "ms", ("<=", 60))


def from_file(laptop, values):
    sops = laptop.programs["sops"]
    keys = laptop.home / "keys.txt"
    run(sops / "age-keygen", "-o", keys)
    recipient = run(sops / "age-keygen", "-y", keys).strip()
    ours = laptop.project("sops", {"type": "file", "path": "secrets.enc.json"}, {name: name for name in values})
    plain, sealed = ours / "plain.json", ours / "secrets.enc.json"
    plain.write_text(json.dumps(values))
    run(sops / "sops", "encrypt", "--age", recipient, "--output", sealed, plain)
    plain.unlink()
    login = {"SOPS_AGE_KEY_FILE": str(keys)}
    contenders = {
        "hushpod run": (ours, login, [laptop.hushpod, "run", "--", "true"]),
        f"sops exec-env {version(sops)}": (ours, login, [sops / "sops", "exec-env", sealed, "true"]),
    }
    same_values(laptop, contenders, values)
    compare(laptop, "run_sops", "`run -- true` from a SOPS file", contenders)


def version(directory):
    return directory.name.split("-v")[1].split("-")[0]


def same_values(laptop, contenders, values):
    """Whether each does what is measured: all values reach the command."""
    for name, (directory, environment, command) in contenders.items():
        words = [*map(str, command[:-1]), "env"]
        environment = {**laptop.environment, **environment}
        done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
        check(done.returncode == 0, f"{name}: {done.stderr[-1000:]}")
        missing = [each for each in values if f"{each}={values[each]}" not in done.stdout.splitlines()]
        check(not missing, f"{name} did not give the command {', '.join(missing)}")


def masked_pipe(laptop, project):
    """What a log's way through the masker takes, beside the same way without it."""
    log = laptop.bench.directory / "log"
    line = b"2026-11-29T12:00:00.%06dZ INFO web: request path=/api/orders/%d status=200 took=%dms id=%016x\n"
    numbers = range(1 << 14)
    each = ((number, number * 7919, number % 900, number * 0x9E3779B97F4A7C15 % (1 << 64)) for number in numbers)
    piece = b"".join(line % one for one in each)
    size = LOG_MIB << 20
    with open(log, "wb") as file:
        while file.tell() < size:
            file.write(piece)
    size = log.stat().st_size
    ways = {
        "cat": f"cat {log}",
        "hushpod run --mask always": f"{laptop.hushpod} run --mask always -- cat {log}",
    }
    found = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, command in ways.items():
            start = time.monotonic()
            words = ["bash", "-euo", "pipefail", "-c", f"{command} | cat >/dev/null"]
            # On both cores, as pipes are used.
            subprocess.run(words, cwd=project, env=laptop.environment, check=True, timeout=300, **first_on(0, 1))
            found[name].append(size / 1e6 / (time.monotonic() - start))
    counted = run("bash", "-euo", "pipefail", "-c", f"cd {project}; {ways['hushpod run --mask always']} | wc -c")
    check(int(counted) == size, f"of {size} bytes, {counted} came through the masker")
    log.unlink()
    speeds = {name: median(each) for name, each in found.items()}
    rows = [[f"{name}, {SECRETS} values", f"{speed:,.0f} MB/s"] for name, speed in speeds.items()]
    laptop.bench.report.table("masks", [f"{size / 1e6:.0f} MB through a pipe", "median"], rows, found)
    part = speeds["hushpod run --mask always"] / speeds["cat"]
    laptop.bench.report.figure("masker", "masked output: as a part of cat's throughput", part, "", (">=", 1 / 3))


def masked_terminal(laptop, project):
    """The same at a terminal: what comes through is counted."""
    script = f"head -c {TERMINAL_BYTES} /dev/zero | tr '\\0' '~'"
    ways = {"the command alone": ["sh", "-c", script], "hushpod run --mask always": ["sh", "-c", script]}
    ways["hushpod run --mask always"] = [laptop.hushpod, "run", "--mask", "always", "--", "sh", "-c", script]
    speeds = {}
    for name, command in ways.items():
        start = time.monotonic()
        shown = on_terminal(command, project, laptop.environment)
        speeds[name] = TERMINAL_BYTES / 1e6 / (time.monotonic() - start)
        check(shown == TERMINAL_BYTES, f"{name}: of {TERMINAL_BYTES} bytes, {shown} came through a terminal")
    rows = [[name, f"{speed:,.0f} MB/s"] for name, speed in speeds.items()]
    what = f"{TERMINAL_BYTES / 1e6:.0f} MB through a terminal, all of it"
    laptop.bench.report.table("terminal", [what, "once"], rows, speeds)


def on_terminal(command, directory, environment):
    """How many `~` a command shows on a terminal that is its own."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    take = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # noqa: E731
    words = [str(word) for word in command]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(
        words, cwd=directory, env=environment, start_new_session=True, preexec_fn=take, **streams
    )
    os.close(theirs)
    shown = 0
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:
            break  # nobody has it open any more
        shown += piece.count(b"~")
    os.close(ours)
    check(process.wait(30) == 0, f"{words[0]} ended with {process.returncode} on a terminal")
    return shown


def manifests(laptop):
    """A thousand Deployments, in as many files; with an operator's configuration, which is more to look at."""
    directory = laptop.home / "k8s"
    operator = laptop.home / "operator.yaml"
    provider = {"type": "vault", "address": "https://vault.example:8200", "role": "{{service_account}}"}
    provider["allow"] = [{"namespaces": ["team-*"], "requests": ["secret/data/{{namespace}}/*"]}]
    operator.write_text(json.dumps({"image": "registry.example/hushpod:1", "providers": {"vault": provider}}))
    for number in range(MANIFESTS):
        file = directory / f"team-{number % 40}" / f"app-{number}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(manifest(number))
    took = {}
    for name, words in {"": [], " by an operator's configuration": ["--config", operator]}.items():
        command = [str(word) for word in (laptop.hushpod, "check", *words, directory)]
        seconds = []
        for _ in range(TURNS):
            start = time.monotonic()
            done = subprocess.run(
                command, env=laptop.environment, capture_output=True, text=True, timeout=300, **first_on(1)
            )
            seconds.append(time.monotonic() - start)
            check(done.returncode == 0 and f"{MANIFESTS} pods" in done.stdout, done.stdout[:1000] + done.stderr)
        took[name] = median(seconds)
    for name, seconds in took.items():
        key = "check_operator" if name else "check"
        what = f"`check` of {MANIFESTS:,} manifests{name}"
        laptop.bench.report.figure(key, what, seconds, "s", ("<=", 1))
    shutil.rmtree(directory)


def manifest(number):
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-{number}
  namespace: team-{number % 40}
  labels: {{app: app-{number}}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: app-{number}}}}}
  template:
    metadata:
      labels: {{app: app-{number}}}
      annotations:
        prometheus.io/scrape: "true"
        hushpod.dev/provider: vault
        hushpod.dev/file.password: "secret/data/team-{number % 40}/db-{number}#password"
        hushpod.dev/env.TOKEN: "secret/data/team-{number % 40}/token#value"
        hushpod.dev/secrets: |
          - {{file: app.env, from: "secret/data/team-{number % 40}/app", format: dotenv}}
    spec:
      serviceAccountName: app
      securityContext: {{runAsNonRoot: true, runAsUser: 1000}}
      containers:
        - name: app
          image: registry.example/app:{number}
          command: [/app, serve]
          ports: [{{containerPort: 8080, name: http}}]
          readinessProbe: {{httpGet: {{path: /ready, port: http}}}}
          resources: {{requests: {{cpu: 100m, memory: 64Mi}}, limits: {{memory: 128Mi}}}}
"""
