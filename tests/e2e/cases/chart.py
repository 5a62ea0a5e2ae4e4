"""The chart: what it promises, upgrade and uninstall."""

import base64

from suite.base import check, contains, equal, meanwhile, run, wait
from suite.cluster import kubectl
from suite.product import NAMESPACE, RELEASE, remains
from suite.runner import LAST, test
from suite.space import canary, pod


def certificates(text):
    return {each.strip() for each in text.split("-----END CERTIFICATE-----")[:-1]}


def foreign_authority():
    """The certificate of an authority of which the replicas know nothing; nobody has its key."""
    return run(
        *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        *["-subj", "/CN=foreign", "-days", "1", "-keyout", "/dev/null"],
    )


def bundled(change):
    """What alters a webhook's `caBundle`, by its text."""

    def alter(webhook):
        text = base64.b64decode(webhook["clientConfig"].get("caBundle", "")).decode()
        webhook["clientConfig"]["caBundle"] = base64.b64encode(change(text).encode()).decode()

    return alter


@test()
def the_chart_has_no_unknown_fields(t):
    """No field that the API does not know, which it would drop in silence."""
    manifest = run("helm", "get", "manifest", RELEASE, "--namespace", NAMESPACE)
    contains(manifest, "ValidatingAdmissionPolicy", "the manifest")
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=manifest)


@test(when=LAST)
def helm_upgrade_keeps_the_authorities(t):
    """An upgrade that changes the configuration does not reset `caBundle`: pods are admitted at every moment, and soon
    by the new configuration.

    The replicas put their own authorities back at once, so that those would not be missed; but nobody puts back what a
    stranger wrote."""
    t.open()
    wanted = {"file.x": t.secret(x=canary()) + "#x"}
    product = t.suite.product
    config = product.values()["config"]
    config["providers"]["added"] = config["providers"]["vault"]
    added = pod("app", {"file.x": f"added:secret/data/{t.namespace}/app#x"})
    t.refused(added, "added")
    foreign = foreign_authority()
    product.rewrite(bundled(lambda text: text + foreign))
    before = certificates(product.authorities())
    check(certificates(foreign) < before, "the foreign authority is not among ours")
    try:
        with meanwhile(lambda _: t.create(pod("app", wanted), dry_run=True)) as outcomes:
            # The other timeout makes helm write the webhook configuration itself.
            product.install(config=config, webhook={"timeoutSeconds": 7})
            equal([each["timeoutSeconds"] for each in product.configuration()["webhooks"]], [7], "timeouts")
            equal(before - certificates(product.authorities()), set(), "authorities that the upgrade took away")
            product.look()
            wait("the new configuration to be in force", 120, lambda: t.create(added, dry_run=True))
        failures = list(filter(None, outcomes))
        equal(failures[:3], [], f"{len(failures)} failures of {len(outcomes)} pods")
        check(len(outcomes) > 10, f"only {len(outcomes)} pods were created meanwhile")
    finally:
        product.rewrite(bundled(lambda text: text.replace(foreign.strip(), "")))
    equal(certificates(foreign) & certificates(product.authorities()), set(), "foreign authorities at the end")
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
