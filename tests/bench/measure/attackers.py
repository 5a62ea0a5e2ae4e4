"""Clients that nobody wishes for: each attack is a function that runs until it is told to stop, on threads of its own."""

import json
import random
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

from . import fixtures

MIB = 1 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
ACK = END_STREAM = 1
END_HEADERS = 4
# What goes wrong when the other side defends itself.
REFUSED = (OSError, ssl.SSLError, EOFError)


class Target:
    def __init__(self, port, admin, stop):
        self.port, self.admin, self.stop = port, admin, stop
        self.contexts = {}

    def plain(self, port=None, seconds=10):
        return socket.create_connection(("127.0.0.1", port or self.port), seconds)

    def tls(self, protocol="http/1.1", seconds=10):
        if protocol not in self.contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols([protocol])
            self.contexts[protocol] = context
        return self.contexts[protocol].wrap_socket(self.plain(seconds=seconds))


# --- a little HTTP


def head(length, path="/mutate", extra=""):
    return (
        f"POST {path} HTTP/1.1\r\nhost: webhook\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n{extra}\r\n"
    ).encode()


def answer(connection):
    """Reads one answer; its status, and its body."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = connection.recv(65536)
        if not part:
            raise EOFError("closed")
        got += part
    text, _, body = got.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in text.decode("latin-1").lower().split("\r\n")[1:] if ": " in line)
    length = int(fields.get("content-length", 0))
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            raise EOFError("closed")
        body += part
    return int(text.split()[1]), body


def post(target, body, seconds=30):
    with target.tls(seconds=seconds) as connection:
        connection.sendall(head(len(body)) + body)
        return answer(connection)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def text_of(value):
    # HPACK (RFC 7541 §5.2), without Huffman's code and below 127 bytes.
    return bytes([len(value)]) + value


def headers(length=None, fields=()):
    """A request's head: literal fields that are not indexed (RFC 7541 §6.2.2)."""
    pairs = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/mutate"), (b":authority", b"webhook")]
    pairs.append((b"content-type", b"application/json"))
    if length is not None:
        pairs.append((b"content-length", str(length).encode()))
    return b"".join(b"\0" + text_of(name) + text_of(value) for name, value in (*pairs, *fields))


def http2(target):
    connection = target.tls("h2")
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return connection


def drain(connection, seconds=0.01):
    """Takes what has come."""
    connection.settimeout(seconds)
    with suppress(TimeoutError, ssl.SSLWantReadError):
        while connection.recv(65536):
            pass
    connection.settimeout(10)


# --- attacks on what the server holds


def keeps_open(target, open_one, count, tend=None, every=1.0):
    """Holds so many connections, and opens those again that were closed."""
    held = []
    while not target.stop.is_set():
        while len(held) < count and not target.stop.is_set():
            try:
                held.append(open_one())
            except REFUSED:
                time.sleep(0.02)
        alive = []
        for connection in held:
            try:
                if tend:
                    tend(connection)
                connection.settimeout(0.0)
                try:
                    if connection.recv(65536):
                        alive.append(connection)
                    else:
                        connection.close()
                except (BlockingIOError, ssl.SSLWantReadError):
                    alive.append(connection)
            except REFUSED:
                connection.close()
        held = alive
        target.stop.wait(every)
    for connection in held:
        connection.close()


def unfinished_bodies(target):
    """Sixty bodies of 3 MiB, each without its last byte, and as fast as they are taken"""

    def one():
        while not target.stop.is_set():
            with suppress(*REFUSED), target.tls() as connection:
                connection.sendall(head(3 * MIB) + b"[" * (3 * MIB - 1))
                target.stop.wait(3)

    together(one, 60)


def streams(target):
    """200 HTTP/2 streams on one connection, each with a body that does not end"""
    part = b"[" * 16_000

    def one():
        while not target.stop.is_set():
            with suppress(*REFUSED), http2(target) as connection:
                connection.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)))
                for number in range(200):
                    connection.sendall(frame(HEADERS, END_HEADERS, 2 * number + 1, headers()))
                for _ in range(4):
                    for number in range(200):
                        connection.sendall(frame(DATA, 0, 2 * number + 1, part))
                    drain(connection)
                target.stop.wait(1)

    together(one, 4)


def small_frames(target):
    """HTTP/2 bodies in frames of one byte"""

    def one():
        while not target.stop.is_set():
            with suppress(*REFUSED), http2(target) as connection:
                connection.sendall(frame(HEADERS, END_HEADERS, 1, headers()))
                for _ in range(64):
                    connection.sendall(frame(DATA, 0, 1, b"[") * 1000)
                drain(connection)

    together(one, 8)


def long_heads(target):
    """Heads of 400 KiB, and of HTTP/2 fields without end"""

    def http1():
        with suppress(*REFUSED), target.tls() as connection:
            connection.sendall(head(1, extra="x: " + "y" * 400_000))
            target.stop.wait(2)

    def fields():
        with suppress(*REFUSED), http2(target) as connection:
            block = headers(fields=[(b"x", b"y" * 100)] * 150)
            for number in range(200):
                connection.sendall(frame(HEADERS, END_HEADERS, 2 * number + 1, block[:16_000]))
            target.stop.wait(1)

    def one():
        while not target.stop.is_set():
            http1()
            fields()

    together(one, 30)


def idle_http2(target):
    """1,024 HTTP/2 connections that ask nothing, and answer pings"""

    def tend(connection):
        connection.settimeout(1)
        connection.sendall(frame(PING, ACK, 0, b"12345678") + frame(PING, 0, 0, b"12345678"))

    together(lambda: keeps_open(target, lambda: http2(target), 128, tend), 8)


def idle_probes(target):
    """1,100 connections to the port of the probes, kept after an answer, or silent"""

    def open_one():
        connection = target.plain(target.admin)
        if random.random() < 0.5:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n")
        return connection

    together(lambda: keeps_open(target, open_one, 275), 4)


def silent(target):
    """1,024 connections that say nothing at all"""
    together(lambda: keeps_open(target, target.plain, 256), 4)


def half_words(target):
    """Clients that begin and go no further: a byte, half a TLS greeting or a whole one, half a head for the probes' port"""
    greeting = client_hello()

    def open_one():
        if random.random() < 0.25:
            connection = target.plain(target.admin)
            connection.sendall(b"GET /healthz HTTP/1.1\r\n")
            return connection
        connection = target.plain()
        connection.sendall(random.choice([greeting[:1], greeting[:100], greeting]))
        return connection

    together(lambda: keeps_open(target, open_one, 256), 4)


def client_hello():
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


def slow_bodies(target):
    """Bodies of a byte a second, on as many connections as there may be"""

    def open_one():
        connection = target.tls()
        connection.sendall(head(100_000))
        return connection

    together(lambda: keeps_open(target, open_one, 40, lambda connection: connection.sendall(b"[")), 4)


def deaf(target):
    """Clients that ask for long answers and do not take them"""
    body = review({**fixtures.OURS, "hushpod.dev/mode": "x" * 100_000})

    def one():
        while not target.stop.is_set():
            with suppress(*REFUSED), target.tls() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                for _ in range(50):
                    connection.sendall(head(len(body)) + body)
                target.stop.wait(3)

    together(one, 20)


# --- attacks on what a review costs


def review(annotations, change=None):
    pod = fixtures.pod(annotations)
    if change:
        change(pod)
    return fixtures.review(pod).encode()


def posts(body, connections=4):
    """An attack that posts the same body, always."""

    def attack(target):
        def one():
            while not target.stop.is_set():
                with suppress(*REFUSED):
                    post(target, body)

        together(one, connections)

    return attack


def aliases():
    levels = [f"a0: &a0 [{', '.join('x' * 9)}]"]
    levels += [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 7)]
    return review({"hushpod.dev/secrets": "\n".join(levels)})


def many_containers():
    def change(pod):
        pod["spec"]["containers"] = [{"name": f"c{number}", "image": "x"} for number in range(3000)]

    return review({**fixtures.OURS, "hushpod.dev/containers": ",".join(["c2999"] * 30_000)}, change)


def kept_values():
    body = review(fixtures.OURS, lambda pod: pod["spec"].update(nodeSelector="VALUES"))
    return body.replace(b'"VALUES"', b"[" + b"0," * ((3 * MIB - len(body) - 100) // 2) + b"0]")


def long_name():
    return review(fixtures.OURS, lambda pod: pod["metadata"].update(generateName="n\n" * (MIB + MIB // 4)))


def templated(template):
    item = {"file": "x", "from": {"a": "secret/data/x#a"}, "template": template}
    return review({"hushpod.dev/secrets": json.dumps([item])})


def attacks():
    """By name: what it is, and how it is done."""
    held = [
        unfinished_bodies,
        streams,
        small_frames,
        long_heads,
        idle_http2,
        idle_probes,
        silent,
        half_words,
        slow_bodies,
        deaf,
    ]
    found = {attack.__name__.replace("_", "-"): (attack.__doc__, attack) for attack in held}
    for name, text, body in [
        ("aliases", "An annotation of YAML aliases", aliases()),
        ("containers", "One container named 30,000 times, of 3,000", many_containers()),
        ("globs", "A path of 72 kB against a policy's glob of two stars", review({"hushpod.dev/file.a": path()})),
        ("template", "A template of 33,000 comments that do not end", templated("{#" * 33_000)),
        ("values", "A list of 1.5 million numbers where all is kept", kept_values()),
        ("long-name", "A name of 2.5 MB with line ends, for the log", long_name()),
        ("nesting", "3 MiB of brackets", b"[" * (3 * MIB)),
    ]:
        found[name] = (text, posts(body))
    return found


def path():
    return "secret/data/a/" + "a/b" * 24_000 + "c#k"


def together(one, count):
    together_of([one] * count)


def together_of(each):
    threads = [threading.Thread(target=one, daemon=True) for one in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
