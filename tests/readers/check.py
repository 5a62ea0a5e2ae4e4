"""Compares what readers make of our files with what was to be delivered: see `run`."""

import json
import pathlib
import subprocess
import sys

import dotenv
import yaml

directory, go_readers = pathlib.Path(sys.argv[1]), sys.argv[2]
# Name to whether it is a number, true or false, and its text.
expected = json.loads((directory / "expected.json").read_text())
bad = []


def is_rounded(text, found):
    """Whether `found` is the number that `text` is, as far as a reader keeps it."""
    if text in ("true", "false"):
        return str(found).lower() == text
    try:
        return float(found) == float(text)
    except (OverflowError, ValueError):
        return False


def compare(reader, found, beyond=()):
    """`found` is by name: whether it was taken for text, and what it is. What has one of `beyond` in it, the reader is
    known not to read."""
    for name, (is_literal, text) in expected.items():
        if any(part in text for part in beyond):
            continue
        is_text, value = found.get(name, (True, None))
        is_same = value == text if is_text else is_literal and is_rounded(text, value)
        if not is_same:
            bad.append(f"{reader}: {text!r} became {value!r}")


def of_types(found):
    return {name: (isinstance(value, str), value) for name, value in found.items()}


def of_text(found):
    return {name: (True, value) for name, value in found.items()}


compare("json", of_types(json.loads((directory / "values.json").read_bytes())))
# To the letter, for those who ask for it.
exact = json.loads((directory / "values.json").read_bytes(), parse_float=str, parse_int=str)
compare("json, digits", {n: (isinstance(v, str), v) for n, v in exact.items()})
compare("PyYAML", of_types(yaml.safe_load((directory / "values.yaml").read_bytes())))
# It does not join the words of a shell ('it'\\''s'), reads escapes between single quotes (and so takes the value behind one
# that ends in a backslash for a part of it), and makes every line's end "\\n".
found = dotenv.dotenv_values(directory / "values.env", interpolate=False, encoding="utf-8")
compare("python-dotenv", of_text(found), beyond=["'", "\\", "$HOME", "\r"])
go = subprocess.run([go_readers, str(directory)], check=True, capture_output=True, text=True).stdout.split("\n")
compare("encoding/json", json.loads(go[0]))
compare("gopkg.in/yaml.v3", json.loads(go[1]))
for name, (is_literal, text) in expected.items():
    script = f'. "$1"; printf %s "${name}"'
    for shell in ["sh", "bash"]:
        out = subprocess.run([shell, "-c", script, shell, str(directory / "values.env")], capture_output=True).stdout
        if out != text.encode():
            bad.append(f"{shell}: {text!r} became {out!r}")
    out = subprocess.run(["jq", "-j", f".{name}", str(directory / "values.json")], capture_output=True).stdout
    out = out.decode()
    if out != text and not (is_literal and (is_rounded(text, out) or "e400" in text or "e-400" in text)):
        bad.append(f"jq: {text!r} became {out!r}")

print(f"{len(expected)} values, {len(bad)} of them read otherwise")
print("\n".join(bad))
sys.exit(bool(bad))
