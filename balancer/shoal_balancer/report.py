"""Load reports: what a replica says of itself with each answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How loaded a replica was when it answered. 0 means "not said", in each field.

    Source: ORCA (``xds.data.orca.v3.OrcaLoadReport``), whose fields these are.

    Attributes:
        utilisation: The application's own: its scarcest resource in use ÷ its capacity. 0 is idle,
            1 is full; above 1 calls queue.
        qps: Calls that ended, per second, over the last seconds.
        eps: Those of them that failed, per second.
        named: Anything else, by name, in units of its own: ``in_flight`` (calls that run), what
            the service adds, and the rest of ORCA: ``cpu_utilization``, ``mem_utilization``.
    """

    utilisation: float = 0.0
    qps: float = 0.0
    eps: float = 0.0
    named: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
