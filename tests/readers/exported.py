"""Compares what the readers of `hushpod export` make of it with what the store has: see `run`."""

import ctypes
import glob
import itertools
import json
import os
import pathlib
import subprocess
import sys

import dotenv
import javaproperties
import yaml

directory, go_readers, node_modules = (pathlib.Path(path).resolve() for path in sys.argv[1:4])
bad, compared = [], 0
DUMP = "import json, os, sys; json.dump({os.fsdecode(n): v.hex() for n, v in os.environb.items()}, sys.stdout)"


def compare(reader, format, found):
    """`found` is by name, as bytes."""
    global compared
    for name, value in json.loads(file(format, ".held").read_text()).items():
        compared += 1
        expected = bytes.fromhex(value)
        if found.get(name) != expected:
            bad.append(f"{format} by {reader}: {expected!r} became {found.get(name)!r}")


def file(format, end=""):
    return directory / f"export.{format}{end}"


def of_text(found):
    """Text as bytes; what is not text is a failure to read it as such."""
    return {name: value.encode() for name, value in found.items() if isinstance(value, str)}


def printed(*command, home=None, lines=False):
    """What a program prints: JSON of names and hexadecimal digits."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home or directory), "NODE_PATH": str(node_modules)}
    told = subprocess.run(command, check=True, capture_output=True, cwd=directory, env=environment).stdout
    each = [json.loads(line) for line in (told.splitlines() if lines else [told])]
    found = [{name: bytes.fromhex(value) for name, value in one.items()} for one in each]
    return found if lines else found[0]


dump = f"exec {sys.executable} -c '{DUMP}'"
for shell in ["sh", "dash", "bash", "bash --posix"]:
    for format in ["shell", "direnv", "dotenv"]:
        compare(shell, format, printed(*shell.split(), "-c", f"set -a; . ./{file(format).name}; {dump}"))
compare("fish", "fish", printed("fish", "--no-config", "-c", f"source {file('fish').name}; {dump}"))
compare("fish, in a pipe", "fish", printed("fish", "--no-config", "-c", f"cat {file('fish').name} | source; {dump}"))

project = directory / "direnv"
project.mkdir()
(project / ".envrc").write_text(f'eval "$(cat {file("direnv")})"\n')
subprocess.run(["direnv", "allow", project], check=True, capture_output=True, env=os.environ | {"HOME": str(project)})
compare("direnv", "direnv", printed("direnv", "exec", str(project), sys.executable, "-c", DUMP, home=project))

compare("python-dotenv", "dotenv", of_text(dotenv.dotenv_values(file("dotenv"), encoding="utf-8")))
compare("python-dotenv, not filled in", "dotenv", of_text(dotenv.dotenv_values(file("dotenv"), interpolate=False)))
script = """
const fs = require("fs");
const hex = (found) => JSON.stringify(Object.fromEntries(
  Object.entries(found).map(([name, value]) => [name, Buffer.from(String(value)).toString("hex")])));
console.log(hex(require("dotenv").parse(fs.readFileSync("export.dotenv"))));
console.log(hex(JSON.parse(fs.readFileSync("export.json"))));
// Node 20.12 and later.
const own = require("util").parseEnv;
if (own) console.log(hex(own(fs.readFileSync("export.dotenv", "utf8"))));
"""
readers = [("dotenv", "dotenv"), ("JSON.parse", "json"), ("own --env-file", "dotenv")]
for (reader, format), found in zip(readers, printed("node", "-e", script, lines=True)):
    compare(f"Node's {reader}", format, found)
json_bytes, yaml_bytes = file("json").read_bytes(), file("yaml").read_bytes()
compare("Python's json", "json", of_text(json.loads(json_bytes)))
compare("PyYAML", "yaml", of_text(yaml.safe_load(yaml_bytes)))
compare("javaproperties", "properties", of_text(javaproperties.loads(file("properties").read_text(encoding="latin-1"))))


def by_systemd(path):
    """What a service's manager makes of an EnvironmentFile=: the function that it calls, out of its own library."""
    library = ctypes.CDLL(max(glob.glob("/usr/lib/*/systemd/libsystemd-shared-*.so")))
    library.load_env_file.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.POINTER(ctypes.c_char_p))]
    pairs = ctypes.POINTER(ctypes.c_char_p)()
    outcome = library.load_env_file(None, os.fsencode(path), ctypes.byref(pairs))
    assert outcome == 0, os.strerror(-outcome)
    found = itertools.takewhile(lambda pair: pair is not None, pairs)
    return {name.decode(): value for name, value in (pair.split(b"=", 1) for pair in found)}


compare("systemd", "systemd", by_systemd(file("systemd")))
names = json.loads(file("json", ".held").read_text())
by_jq = {name: subprocess.run(["jq", "-j", f".{name}", file("json")], capture_output=True).stdout for name in names}
compare("jq", "json", by_jq)

readers = [("encoding/json", "json"), ("gopkg.in/yaml.v3", "yaml"), ("compose-go", "compose"), ("docker", "docker")]
for (reader, format), found in zip(readers, printed(go_readers, "exported", str(directory), lines=True)):
    compare(reader, format, found)

print(f"{compared} exported values, {len(bad)} of them read otherwise")
print("\n".join(bad))
sys.exit(bool(bad))
