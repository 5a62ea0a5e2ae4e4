"""Holds what `hushpod check -o sarif` told against the schema that OASIS publishes: see `run`.

The schema is taken out of the source of a Go module that has it, as it is."""

import json
import pathlib
import re
import sys

import jsonschema

directory, module = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
source = (module / "pkg/report/v210/sarif/schema.go").read_text()
schema = json.loads(re.search(r"^const schema = `(.*?)`$", source, re.DOTALL | re.MULTILINE)[1])
assert schema["id"].endswith("/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"), schema["id"]
validator = jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())
told = sorted(directory.glob("*.sarif"))
assert told, "the tests left no SARIF"
bad = []
for file in told:
    document = json.loads(file.read_bytes())
    bad += [f"{file.name}: {error.json_path}: {error.message[:300]}" for error in validator.iter_errors(document)]
    assert document["runs"][0]["results"], f"{file.name} has no result"
    # A schema that lets everything pass shows nothing.
    document["runs"][0]["results"][0]["level"] = "canary"
    assert not validator.is_valid(document)

print(f"{len(told)} SARIF documents, {len(bad)} faults")
print("\n".join(bad))
sys.exit(bool(bad))
