"""The command line: what is measured, in which order, and how it is shown."""

import argparse
import json
import platform
import shutil
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from suite.base import Failed

from . import admission, agent, environment, image, laptop, modes, node, outage, start, trust
from .bench import Bench, Skipped
from .report import Report

SECTIONS = {
    "admission": (admission.measure, "requests per second and latency, beside the floor and vault-k8s"),
    "agent": (agent.measure, "binary, memory, idle CPU, and how long a change in the store takes"),
    "image": (image.measure, "size, compressed"),
    "laptop": (laptop.measure, "`run` beside vals and sops, masked output, and a check of a thousand manifests"),
    "start": (start.measure, "from creation to Ready, beside trivial pods"),
    "modes": (modes.starts, "from creation to Ready and bytes on the node, beside the Secrets Store CSI driver and vault-k8s"),
    "crowd": (modes.crowds, "sixty pods at once, beside plain ones and the Secrets Store CSI driver's"),
    "node": (node.measure, "with 60 and 110 pods: the drivers' memory and CPU, the store's load, and rotation"),
    "outage": (outage.measure, "pods of mode csi that are made while the store is away, for 30 s and for 15 minutes"),
    "trust": (trust.measure, "pods created while replicas are rolled, killed and cut off and the configuration is deleted and emptied"),
    "cert-manager": (trust.managed, "pods created while cert-manager renews the webhook's certificate every few seconds"),
    "environment": (environment.measure, "what environment variables cost a start, and the disk"),
}
# They measure what the chart runs alone.
IN_CLUSTER = {"start", "modes", "crowd", "node", "outage", "trust", "cert-manager", "environment"}
# These take long, and some build what others have made: only if they are named.
ON_REQUEST = {"laptop", "modes", "crowd", "node", "outage", "trust", "cert-manager"}


def arguments():
    listed = "\n".join(f"  {name:12} {text}" for name, (_, text) in SECTIONS.items())
    parser = argparse.ArgumentParser(
        prog="tests/bench/run",
        description="Measures hushpod on this machine and prints tables; a quarter of an hour, after the builds.",
        epilog=f"sections:\n{listed}\n\nWithout the test cluster (tests/cluster/up, tests/cluster/vault up; root) what "
        "needs it is left out, and said so.\nExit code: 0 measured, even if a target is missed; 1 something could not "
        "be measured; 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"only these; without any all but {', '.join(sorted(ON_REQUEST))}")
    parser.add_argument("--image", metavar="NAME", help="the chart with this image, which the node has, instead of a new one")
    parser.add_argument("--binaries", metavar="DIRECTORY", type=Path, help="those of deploy/build, as target/image/bin/amd64, instead of new ones")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything that was measured to FILE")
    options = parser.parse_args()
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return options


def machine():
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "load": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main():
    options = arguments()
    report = Report(machine())
    directory = Path(tempfile.mkdtemp(prefix="hushpod-bench.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    bench = Bench(directory, report, options.image)
    failed = False
    try:
        wanted = [name for name in SECTIONS if name in (options.sections or set(SECTIONS) - ON_REQUEST)]
        if not IN_CLUSTER.issuperset(wanted):
            bench.build(options.binaries)
        for name in wanted:
            measure, _ = SECTIONS[name]
            bench.say(name)
            try:
                measure(bench)
            except Skipped as reason:
                report.skip(name, str(reason))
            except Failed as error:
                failed = True
                report.fail(name, str(error))
            except Exception:  # noqa: BLE001: the other sections are worth having
                failed = True
                report.fail(name, traceback.format_exc())
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        bench.close()
        shutil.rmtree(directory, ignore_errors=True)
    print(report.text())
    if options.json:
        options.json.write_text(json.dumps(report.json(), indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0
