"""The tests, by what they are about."""

from . import delivery, rotation, access, leases, environment, admission, outage, webhook, leaks, chart  # noqa: F401, I001
