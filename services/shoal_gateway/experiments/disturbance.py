"""How long plain calls felt a fault. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoal_gateway.experiments.faults import Happened
from shoal_gateway.experiments.prober import Probe


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What the calls between the begin of a fault and the begin of the next felt.

    Attributes:
        seconds: From the fault's begin until the last call that felt it had ended; 0: none did.
        calls: How many were made.
        slow: How many of them were answered late.
        failed: How many were not answered well.
    """

    seconds: float
    calls: int
    slow: int
    failed: int


def disturbances(
    happened: Sequence[Happened], probes: Sequence[Probe], began: float, *, slow: float
) -> list[Disturbance]:
    """For each fault what it did.

    Args:
        happened: The faults, in order.
        probes: The calls.
        began: Monotonic time from which the faults' seconds count.
        slow: A call that takes longer has felt something, seconds.
    """
    edges = [*[each.at for each in happened][1:], float("inf")]
    found = []
    for fault, until in zip(happened, edges, strict=True):
        meant = [each for each in probes if fault.at <= each.at - began < until]
        felt = [each for each in meant if each.failure or each.seconds > slow]
        last = max((each.at + each.seconds - began for each in felt), default=fault.at)
        failed = sum(bool(each.failure) for each in felt)
        found.append(Disturbance(last - fault.at, len(meant), len(felt) - failed, failed))
    return found
