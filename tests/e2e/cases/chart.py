"""The chart's life: upgrade and uninstall."""

from suite.base import check, contains, equal, run, wait
from suite.cluster import kubectl
from suite.product import NAMESPACE, RELEASE, remains
from suite.runner import LAST, test
from suite.space import canary, pod


def certificates(text):
    return set(text.split("-----END CERTIFICATE-----")[:-1])


@test()
def the_chart_has_no_unknown_fields(t):
    """No field that the API does not know, which it would drop in silence."""
    manifest = run("helm", "get", "manifest", RELEASE, "--namespace", NAMESPACE)
    contains(manifest, "ValidatingAdmissionPolicy", "the manifest")
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=manifest)


@test(when=LAST)
def helm_upgrade_keeps_the_authorities(t):
    """An upgrade that changes the configuration does not reset `caBundle`: pods are admitted at every moment, and soon
    by the new configuration."""
    t.open()
    wanted = {"file.x": t.secret(x=canary()) + "#x"}
    product = t.suite.product
    before = product.authorities()
    config = product.values()["config"]
    config["providers"]["added"] = config["providers"]["vault"]
    t.refused(pod("app", {"file.x": "added:secret/data/app#x"}), "added")
    product.install(config=config)
    lost = certificates(before) - certificates(product.authorities())
    equal(lost, set(), "authorities that the upgrade took away")
    t.create(pod("app", wanted), dry_run=True)
    added = pod("app", {"file.x": f"added:secret/data/{t.namespace}/app#x"})
    product.look()
    wait("the new configuration to be in force", 120, lambda: t.create(added, dry_run=True))
    product.install()


@test(when=LAST)
def helm_uninstall_leaves_nothing(t):
    """No object of ours remains, no webhook in particular: an annotated pod is admitted as it is."""
    if t.suite.options.keep:
        return
    t.open()
    check(remains(), "this looks for the wrong things: nothing is there before either")
    t.suite.product.uninstall()
    wait("everything to be gone", 30, lambda: not remains() or check(False, f"still there: {sorted(remains())}"))
    made = t.create(pod("app", {"file.x": "secret/data/app#x"}), dry_run=True)
    equal("initContainers" in made["spec"], False, "injection after uninstall")
