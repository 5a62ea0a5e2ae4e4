"""The drill: one driver in a container's limits; tenants whose stores answer with the largest documents there may be, all at
once; and a neighbour who wants one small file again and again."""

import argparse
import base64
import contextlib
import http.server
import json
import os
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from suite.base import check, wait

from .attack import judge
from .attackers import DATA, END_HEADERS, END_STREAM, HEADERS, MIB, PREFACE, SETTINGS, frame, text_of
from .bench import Process, free_port, percentile
from .cgroup import Cgroup

# What all volumes may take together, and what the chart adds to that (charts/hushpod/templates/_helpers.tpl).
VOLUMES = 128 * MIB
OWN = 128 * MIB
# Of namespaces that mean ill.
NAMESPACES = 6
NEIGHBOUR = "neighbour"
# kubelet waits for a call as long.
CALL_SECONDS = 120

CONFIG = """\
image: registry.example/hushpod:0.1.0
defaultProvider: vault
csi: {{bytesPerNode: "{bytes}", bytesPerNamespace: "{bytes}"}}
providers:
  vault:
    type: vault
    address: "http://127.0.0.1:{port}"
    role: "{{{{service_account}}}}"
    allow: [{{namespaces: ["*"]}}]
"""


def padded(head, unit, tail, size=MIB - 512):
    return head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


# What fits into the 1 MiB that the client takes: as many values as are taken in, and as many as it lets pass before it
# refuses them; one long text, and what grows.
DOCUMENTS = {
    "values": "{" + "".join(f'"key{number}":"{"v" * 85}",' for number in range(9_900)) + '"wanted":"v"}',
    "list": '{"wanted":"v","list":[' + ",".join(["0"] * 95_000) + "]}",
    "text": padded('{"wanted":"v","text":"', "canary", '"}'),
    "escapes": padded('{"wanted":"v","text":"', "\\u00e9", '"}'),
    "small": '{"wanted":"v"}',
}


class Store(http.server.ThreadingHTTPServer):
    """As much of Vault as one login and one read want. Reads of what is large wait for each other, so answers come at
    once; `silent` ones wait for ever."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        state = '{"version":1,"created_time":"2026-01-01T00:00:00Z","deletion_time":"","destroyed":false}'
        self.answers = {name: f'{{"data":{{"data":{text},"metadata":{state}}}}}'.encode() for name, text in DOCUMENTS.items()}
        self.gathered = threading.Condition()
        self.waiting = 0

    def gather(self):
        """Until nobody has come for a moment."""
        with self.gathered:
            self.waiting += 1
            self.gathered.notify_all()
            while self.gathered.wait(0.1):
                pass
            self.waiting -= 1

    def handle_error(self, request, client_address):
        pass  # the other side hung up


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        auth = {"client_token": "hvs.bench", "lease_duration": 3600, "renewable": True}
        self.say(200, json.dumps({"auth": auth}).encode())

    def do_GET(self):
        kind = self.path.split("?")[0].rsplit("/", 1)[1].split("-")[0]
        if not self.path.startswith("/v1/secret/data/"):
            return self.say(403, b'{"errors":["permission denied"]}')
        if kind == "silent":
            time.sleep(CALL_SECONDS)
        elif kind != "small":
            self.server.gather()
        return self.say(200, self.server.answers[kind])


# --- a little gRPC


def field(number, value):
    """A length-delimited field of a message, or a true boolean."""
    if value is True:
        return varint(number << 3) + b"\1"
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def entries(number, pairs):
    return b"".join(field(number, field(1, key) + field(2, value)) for key, value in pairs.items())


def call(path, method, message, seconds=CALL_SECONDS):
    """Whether a call came to an answer, and not to an error. One that has no end in time is one."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", f"/csi.v1.Node/{method}"), (":authority", "localhost")]
    fields += [("content-type", "application/grpc"), ("te", "trailers")]
    block = b"".join(b"\0" + text_of(name.encode()) + text_of(value.encode()) for name, value in fields)
    body = b"\0" + struct.pack(">I", len(message)) + message
    parts = [body[at : at + 16384] for at in range(0, len(body), 16384)]
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.settimeout(seconds)
        connection.connect(str(path))
        sent = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, block)
        sent += b"".join(frame(DATA, 0, 1, part) for part in parts[:-1]) + frame(DATA, END_STREAM, 1, parts[-1])
        connection.sendall(sent)
        received = b""
        while True:
            while len(received) >= 9 and len(received) >= 9 + (length := int.from_bytes(received[:3], "big")):
                kind, flags = received[3], received[4]
                if kind == DATA:
                    return True
                if kind == HEADERS and flags & END_STREAM:
                    return False
                received = received[9 + length :]
            more = connection.recv(65536)
            if not more:
                return False
            received += more
    return False


class Driver:
    """In its limits, with mounts of its own, which end with it."""

    def __init__(self, bench, cgroup, store):
        self.root = bench.directory / "kubelet"
        (self.root / "plugins_registry").mkdir(parents=True)
        config = bench.directory / "config.yaml"
        config.write_text(CONFIG.format(bytes=VOLUMES, port=store.server_port))
        command = ["unshare", "--mount", bench.binaries / "hushpod-csi", "--config", config, "--node-name", "bench"]
        command += ["--kubelet-root", self.root, "--no-api-server", "--admin-listen", f"127.0.0.1:{free_port()}"]
        # As the chart has it.
        environment = {**os.environ, "HUSHPOD_LOG": "info", "HUSHPOD_LOG_FORMAT": "json"}
        self.process = Process(bench, "csi", command, preexec_fn=cgroup.enter, env=environment)
        self.socket = self.root / "plugins/csi.hushpod.dev/csi.sock"
        wait("the driver to listen", 20, lambda: self.process.check() or self.socket.exists())

    def target(self, volume):
        return self.root / "pods" / volume / "volumes/kubernetes.io~csi/secrets/mount"

    def publish(self, volume, namespace, attributes, seconds=CALL_SECONDS):
        target = self.target(volume)
        target.parent.mkdir(parents=True, exist_ok=True)
        claims = {"kubernetes.io": {"serviceaccount": {"name": "web", "uid": f"uid-{namespace}"}}}
        claims = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        token = {"token": f"e30.{claims}.e30", "expirationTimestamp": "2099-01-01T00:00:00Z"}
        kubelets = {
            "pod.name": volume,
            "pod.namespace": namespace,
            "pod.uid": volume,
            "serviceAccount.name": "web",
            "serviceAccount.tokens": json.dumps({"vault": token}),
            "ephemeral": "true",
        }
        context = {f"csi.storage.k8s.io/{key}": value for key, value in kubelets.items()} | attributes
        message = field(1, f"csi-{volume}") + field(4, str(target)) + field(5, field(2, b"")) + field(6, True)
        return call(self.socket, "NodePublishVolume", message + entries(8, context), seconds)

    def last_failure(self):
        lines = self.process.log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if '"failure"' in line and NEIGHBOUR in line), "nothing in the log")

    def unpublish(self, volume):
        message = field(1, f"csi-{volume}") + field(2, str(self.target(volume)))
        return call(self.socket, "NodeUnpublishVolume", message, 30)


# --- what is asked for


def reference(kind, number):
    return f"vault:secret/data/{kind}-{number}#wanted"


def apart(kinds):
    """Each volume wants one value of a document of its own."""
    return lambda number: {"file.x": reference(kinds[number % len(kinds)], number), "size-limit": "4Ki"}


def together(documents):
    """Each volume wants a value of each of so many documents, which are read one after the other."""

    def attributes(number):
        items = [
            {"file": f"f{at}", "from": reference("values", f"{number}-{at}")} for at in range(documents)
        ]
        return {"secrets": json.dumps(items), "size-limit": "4Ki"}

    return attributes


def long_plans(number):
    """Each volume has as long a plan as there may be, and waits for a store that is silent."""
    items = [{"file": f"file-{at:04}", "from": f"vault:secret/data/silent-{number}-{at}#wanted"} for at in range(380)]
    return {"secrets": json.dumps(items), "size-limit": "4Ki"}


def long_attributes(number):
    """Each volume is written with as much as a pod may have."""
    return {f"file.{number}": "x" * MIB}


ASKED = {
    "documents": ("the largest documents, one a volume, for three hundred volumes at once", 300, apart(["values", "list", "text", "escapes"])),
    "batches": ("sixty of the largest documents a volume, for twelve volumes", 12, together(60)),
    "attributes": ("attributes as long as a pod may have them", 110, long_attributes),
    "plans": ("the longest plans, waiting for a store that says nothing", 200, long_plans),
}


def drill(bench, names):
    store = Store()
    threading.Thread(target=store.serve_forever, daemon=True).start()
    cgroup = Cgroup(f"hushpod-csi-limit-{os.getpid()}", VOLUMES + OWN, 1)
    bench.closers += [cgroup.remove, store.shutdown]
    driver = Driver(bench, cgroup, store)
    # The last first: a group is removed when nobody is in it.
    bench.closers.append(driver.process.end)
    rows = [["asked for", "published", "the neighbour's", "its p50", "its p99", "most memory so far"]]
    problems = []
    for name in names:
        text, count, attributes = ASKED[name]
        bench.say(f"{name}: {text}")
        over = threading.Event()
        times, missed = [], []

        def neighbour():
            number = 0
            while not over.is_set():
                volume = f"{name}-neighbour-{number}"  # noqa: B023
                begun = time.monotonic()
                # No feed is shared: each time one login and one read.
                small = {"file.x": reference("small", number), "size-limit": "4Ki"}
                (times if driver.publish(volume, NEIGHBOUR, small, 60) else missed).append(time.monotonic() - begun)  # noqa: B023
                driver.unpublish(volume)
                number += 1
                time.sleep(0.2)

        def one(number):
            volume = f"{name}-{number}"  # noqa: B023
            published = driver.publish(volume, f"tenant-{number % NAMESPACES}", attributes(number), 40)  # noqa: B023
            return driver.unpublish(volume) and published

        beside = threading.Thread(target=neighbour)
        beside.start()
        with ThreadPoolExecutor(count) as pool:
            published = sum(pool.map(one, range(count)))
        over.set()
        beside.join()
        peak = cgroup.peak()
        told = [f"{percentile(times, part):.2f} s" if times else "" for part in (50, 99)]
        most = f"{peak / MIB:.0f} of {(VOLUMES + OWN) / MIB:.0f} MiB" if peak else ""
        rows.append([name, f"{published}/{count}", f"{len(times)}/{len(times) + len(missed)}", *told, most])
        if driver.process.process.poll() is not None or cgroup.kills():
            problems.append(f"{name}: the driver ended")
            break
        if missed or not times:
            count = f"{len(missed)} of {len(times) + len(missed)}"
            problems.append(f"{name}: {count} small volumes of a neighbour were not published: {driver.last_failure()}")
        if "canary" in driver.process.log.read_text(errors="replace"):
            problems.append(f"{name}: the log has a value")
    if not problems:
        driver.process.check()
        left = list(Path(f"/proc/{driver.process.pid}/root{driver.root}/pods").glob("*/volumes/*/*/mount"))
        check(not left, f"volumes stay: {left[:3]}")
    return rows, problems


def main():
    listed = "\n".join(f"  {name:10} {text}" for name, (text, *_) in ASKED.items())
    parser = argparse.ArgumentParser(
        prog="tests/bench/csi-limit",
        description=f"Asks a CSI driver, in the memory that the chart gives it where its volumes may take {VOLUMES // MIB} "
        "MiB, for more than fits. It must live, and serve a neighbour's small volumes throughout. Needs root.",
        epilog=f"what is asked for:\n{listed}\n\nExit code: 0 it held; 1 it did not; 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("asked", nargs="*", metavar="WHAT", help="only these")
    parser.add_argument("--binaries", type=Path, metavar="DIR", help="where hushpod-csi is; built if left out (deploy/build)")
    options = parser.parse_args()
    if unknown := [name for name in options.asked if name not in ASKED]:
        parser.error(f"nothing is called {unknown[0]!r}; there are {', '.join(ASKED)}")
    return judge(options.binaries, lambda bench: drill(bench, options.asked or list(ASKED)))
