"""The tests, by what they are about."""

from . import (  # noqa: F401, I001
    delivery,
    rotation,
    authorities,
    access,
    csi,
    leases,
    stores,
    environment,
    admission,
    outage,
    webhook,
    fleet,
    first_secret,
    examples,
    leaks,
    trust,
    installed,
    gitops,
    upgrade,
    chart,
)
