"""Looks for secrets where none may be: in plain, and in the encodings that they could have been through."""

import base64
import binascii
import subprocess
import tempfile
import urllib.parse

from .base import Failed, check


def base64_forms(value):
    """How base64 writes `value` wherever it stands in a longer text: three alignments, two alphabets.

    The characters at the edges depend on the neighbours: they are left out.
    """
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + value)
        first = (before * 8 + 5) // 6
        last = (before + len(value)) * 8 // 6
        yield whole[first:last]
        yield whole[first:last].translate(bytes.maketrans(b"+/", b"-_"))


def forms(value):
    value = value.encode() if isinstance(value, str) else value
    found = {value, binascii.hexlify(value), binascii.hexlify(value).upper(), *base64_forms(value)}
    quoted = urllib.parse.quote(value, safe="").encode()
    found |= {quoted, urllib.parse.quote_plus(value).encode()}
    found.add(urllib.parse.quote(value, safe="/").encode())
    return {form for form in found if b"\n" not in form}


class Needles:
    """Values to look for, each with a name that may be shown."""

    def __init__(self):
        self.names = {}

    def add(self, value, name):
        value = value.encode() if isinstance(value, str) else value
        check(len(value) >= 8, f"{name} is too short to look for")
        for form in forms(value):
            self.names[form] = name

    def found_in(self, *paths):
        """The names of what stands in files or directories, each with the files."""
        with tempfile.NamedTemporaryFile() as patterns:
            patterns.write(b"\n".join(self.names) + b"\n")
            patterns.flush()
            command = ["grep", "-raoHZF", "-f", patterns.name, "--", *map(str, paths)]
            result = subprocess.run(command, capture_output=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})
        # A file may go while it is read: etcd removes old ones.
        if result.returncode not in (0, 1) and not result.stdout:
            raise Failed(f"grep: {result.stderr.decode(errors='replace')[:500]}")
        found = {}
        for line in result.stdout.split(b"\n"):
            path, _, form = line.partition(b"\0")
            if form in self.names:
                found.setdefault(self.names[form], set()).add(path.decode(errors="replace"))
        return found

    def found_in_text(self, text):
        text = text.encode() if isinstance(text, str) else text
        return {name for form, name in self.names.items() if form in text}
