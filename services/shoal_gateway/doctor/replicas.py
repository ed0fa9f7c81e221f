"""The fleet itself: whether each service has replicas that take calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from shoal_gateway.doctor.findings import Finding, ok, problem, warning
from shoal_gateway.fleet.names import SERVICES
from shoal_gateway.lookout import Look


def services(look: Look) -> Iterator[Finding]:
    """Of the gateway's services, by what was seen of them."""
    silent = [each for each in look.replicas if each.latency is None]
    for each in silent:
        mend = f"see its log; a local one comes back with `shoal start {each.replica.id}`"
        yield warning(f"replica {each.replica.id}", f"does not answer: {each.fault}", mend)
    for service in SERVICES:
        there = [each for each in look.replicas if each.service == service]
        taking = [each for each in there if each.latency is not None and each.replica.routable]
        what = f"service {service}"
        if not taking:
            mend = "start some: `shoal start` in a local fleet; else see the hosts that run it"
            yield problem(what, f"none of {len(there)} replicas takes calls", mend)
            continue
        versions = Counter(each.replica.version or "no version" for each in taking)
        told = ", ".join(f"{count} of {version}" for version, count in sorted(versions.items()))
        yield ok(what, f"{len(taking)} replicas take calls: {told}")
