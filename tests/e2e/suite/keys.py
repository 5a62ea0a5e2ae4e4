"""Finds a running webhook's private keys in its memory, to look for copies of them elsewhere.

aws-lc keeps the key of an elliptic curve as EC_WRAPPED_SCALAR: a BIGNUM {d, width, dmax, neg, flags} whose `d` points
at the words right behind it. What looks like one is one if it makes a public key that the webhook shows.
"""

import re
import socket
import ssl
import struct

from .base import check

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
# width 4, dmax 4, neg 0, flags BN_FLG_STATIC_DATA
BIGNUM = re.compile(re.escape(struct.pack("<iiii", 4, 4, 0, 2)))


def add(a, b):
    """The sum of two points of P-256; None is infinity."""
    if a is None or b is None:
        return a or b
    (x1, y1), (x2, y2) = a, b
    if x1 == x2 and (y1 + y2) % P == 0:
        return None
    slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, P) if a == b else (y2 - y1) * pow(x2 - x1, -1, P)
    x = (slope * slope - x1 - x2) % P
    return x, (slope * (x1 - x) - y1) % P


def public_key(scalar):
    """As a certificate holds it: X and Y, 64 bytes."""
    point, power = None, G
    while scalar:
        if scalar & 1:
            point = add(point, power)
        power = add(power, power)
        scalar >>= 1
    return b"" if point is None else b"".join(part.to_bytes(32, "big") for part in point)


def shown_by(address, port):
    """The public key of the certificate that a server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, port), timeout=10) as plain, context.wrap_socket(plain) as tls:
        keys = re.findall(rb"\x03\x42\x00\x04(.{64})", tls.getpeercert(binary_form=True), re.DOTALL)
    check(len(keys) == 1, "the certificate's key is not of P-256")
    return keys[0]


def in_memory_of(pid):
    """Private keys of P-256 by their public keys."""
    found = {}
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            span, access = line.split()[:2]
            start, end = (int(edge, 16) for edge in span.split("-"))
            if not access.startswith("rw"):
                continue
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except (OSError, OverflowError):
                continue  # not memory, or gone
            for match in BIGNUM.finditer(content):
                place = match.start() - 8
                words = content[match.end() : match.end() + 32]
                if place < 0 or len(words) < 32:
                    continue
                if struct.unpack_from("<Q", content, place)[0] == start + match.end():
                    scalar = int.from_bytes(words, "little")
                    found[public_key(scalar)] = scalar.to_bytes(32, "big")
    return found
