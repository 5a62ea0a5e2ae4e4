"""The README's first secret: its commands and the files of deploy/try, as they stand."""

import re

from suite.base import block, contains, equal, run, wait
from suite.cluster import kubectl
from suite.product import ROOT
from suite.runner import ALONE, test
from suite.space import statuses

NAMESPACE = "hushpod-try"
# What deploy/image and the chart call the images.
VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def images(t):
    """Our own images under the names that the manifests and the chart's values have."""
    t.node.script("load-vault")
    ctr = ["ctr", "--address", t.node.state / "containerd.sock", "--namespace", "k8s.io", "images"]
    product = t.suite.product
    for image, name in (
        (product.image, f"localhost/hushpod:{VERSION}"),
        (product.agent_image, f"localhost/hushpod-agent:{VERSION}"),
        ("localhost/hushpod-test/busybox:latest", "docker.io/library/busybox:1.37"),
        ("localhost/hushpod-test/vault:latest", "docker.io/hashicorp/vault:1.19.5"),
    ):
        run(*ctr, "tag", "--force", image, name)


@test(ALONE, node=True)
def the_readmes_first_secret(t):
    """The README's commands bring up Vault, the chart and an application that sees its secret, and its rotation."""
    images(t)
    # As a newcomer's cluster is: and no replica with another configuration answers.
    t.suite.product.uninstall()
    try:
        shown = run("bash", "-euc", block("README.md", "try"), seconds=600)
        equal(shown.splitlines()[-1], "first", "the file, as the last command shows it")
        run("bash", "-euc", block("README.md", "try-rotate"))
        inside = ["-n", NAMESPACE, "exec", "deployment/web", "-c", "app", "--"]
        wait("the new password", 20, lambda: kubectl(*inside, "cat", "/secrets/password") == "second")
        said = lambda: kubectl("-n", NAMESPACE, "logs", "deployment/web", "-c", "app")  # noqa: E731
        wait("the application to show it", 10, lambda: "the password is second" in said())
        contains(said(), "the password is first", "the application's log")
        (web,) = t.api.list("Pod", NAMESPACE, "app=web")
        for name, status in statuses(web).items():
            equal(status["restartCount"], 0, f"restarts of {name}")
    finally:
        kubectl("delete", "--ignore-not-found", "-f", ROOT / "deploy/try/vault.yaml")
        t.suite.product.uninstall()
        t.suite.product.install()
