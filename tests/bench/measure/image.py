"""The image."""

import shutil

from suite.base import check, run

from .bench import ROOT, Skipped


def measure(bench):
    if not shutil.which("buildah"):
        raise Skipped("needs buildah")
    printed = run(ROOT / "deploy/image", bench.directory, bench.directory / "image.tar", seconds=600)
    sizes = [int(line.split()[-3]) for line in printed.splitlines() if line.endswith(" bytes compressed")]
    check(sizes, f"deploy/image said no size: {printed!r}")
    bench.report.figure("image", "image, compressed", max(sizes) / 1e6, "MB", ("<=", 12))
