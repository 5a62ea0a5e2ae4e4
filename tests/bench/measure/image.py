"""The images."""

import shutil

from suite.base import check, run

from .bench import ROOT, Skipped


def measure(bench):
    if not shutil.which("buildah"):
        raise Skipped("needs buildah")
    printed = run(ROOT / "deploy/image", bench.directory, bench.directory / "image.tar", seconds=600)
    lines = [line.split() for line in printed.splitlines() if line.endswith(" bytes compressed")]
    for name, what, most in (("hushpod", "the webhook's", 12), ("hushpod-agent", "the agent's", 5), ("hushpod-csi", "the driver's", 6)):
        sizes = [int(words[-3]) for words in lines if words[0].rsplit("/")[-1].startswith(f"{name}:")]
        check(sizes, f"deploy/image said no size of {name}: {printed!r}")
        bench.report.figure("image", f"{what} image, compressed", max(sizes) / 1e6, "MB", ("<=", most))
